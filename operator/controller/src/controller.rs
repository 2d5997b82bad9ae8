//! The controller: holds the parts together, runs the passes, and answers the fleet's server.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ballast_bundle::protocol::ReleaseReport;
use ballast_bundle::{
    Contract, DeploymentRef, Digest, GatewayId, NamespaceUid, ReleaseNumber, ReleaseRef, SigningKey, TargetName,
    UnixMillis,
};
use ballast_crds::ModelDeploymentStatus;
use ballast_fleet::registry::Registry;
use ballast_fleet::store::{GatewayRow, GatewayStore, StoreError, StoredReport};
use ballast_fleet::{BoxFuture, Dispatch, Dispatched, Documents, Fleet, Wish};
use tokio::sync::watch;

use crate::builder::Builder;
use crate::hearing::Hearing;
use crate::jobs::Jobs;
use crate::objects::Source;
use crate::records::{self, Record};
use crate::rollout::{Admission, Ration};
use crate::roster::{self, Member, Roster};
use crate::runners::Runners;
use crate::serving::Published;
use crate::state::{StateDir, StateError};
use crate::targets::{Target, Targets};
use crate::tidy::Tidied;
use crate::token_objects::{self, KeptTokens};
use crate::tokens::Tokens;

/// Passes while something is under way: deadlines and soaks are noticed this late at most.
const BUSY: Duration = Duration::from_millis(250);
/// Passes while nothing is.
const IDLE: Duration = Duration::from_secs(5);

/// Settings of the controller.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Between two syncs of a gateway.
    pub sync: Duration,
    /// The same while a rollout needs it.
    pub sync_rollout: Duration,
}

/// The controller.
pub struct Controller {
    pub(crate) settings: Settings,
    pub(crate) state: Arc<StateDir>,
    pub(crate) store: Arc<dyn GatewayStore>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) runners: Arc<Runners>,
    pub(crate) release_key: Arc<SigningKey>,
    pub(crate) epoch: u32,
    pub(crate) roster: Roster,
    pub(crate) hearing: Hearing,
    pub(crate) jobs: Jobs,
    pub(crate) records: Mutex<BTreeMap<DeploymentRef, Record>>,
    /// Fingerprints of records as they are on the disk.
    saved: Mutex<HashMap<DeploymentRef, Option<Digest>>>,
    pub(crate) tidied: Mutex<Tidied>,
    pub(crate) targets: RwLock<Targets>,
    pub(crate) published: RwLock<Arc<Published>>,
    pub(crate) known: RwLock<HashMap<DeploymentRef, HashSet<ReleaseNumber>>>,
    pub(crate) wishes: RwLock<HashMap<(NamespaceUid, GatewayId), Wish>>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) kept_tokens: Mutex<KeptTokens>,
    /// Held while somebody looks whether a token's name is free and takes it.
    pub(crate) naming: tokio::sync::Mutex<()>,
    pub(crate) preparing: Mutex<HashSet<(NamespaceUid, TargetName)>>,
    pub(crate) rations: Mutex<HashMap<(DeploymentRef, ReleaseNumber), Arc<Ration>>>,
    pub(crate) documents: Arc<Documents>,
    filled: AtomicBool,
    /// Each status as it was written last, and when.
    pub(crate) told: Mutex<HashMap<DeploymentRef, (UnixMillis, ModelDeploymentStatus)>>,
}

impl Controller {
    /// Loads what was remembered.
    #[expect(clippy::too_many_arguments, reason = "called once, by the wiring")]
    pub fn new(
        settings: Settings,
        state: Arc<StateDir>,
        store: Arc<dyn GatewayStore>,
        registry: Arc<Registry>,
        documents: Arc<Documents>,
        source: Arc<dyn Source>,
        builder: Arc<Builder>,
        runners: Arc<Runners>,
        tokens: Arc<Tokens>,
        release_key: Arc<SigningKey>,
        epoch: u32,
    ) -> Result<Arc<Self>, StateError> {
        let kept_tokens = token_objects::load(&state)?;
        let records: BTreeMap<_, _> =
            records::load_all(&state)?.into_iter().map(|r| (r.deployment.clone(), r)).collect();
        let saved = records.values().map(|r| (r.deployment.clone(), fingerprint(r))).collect();
        Ok(Arc::new(Self {
            settings,
            state,
            store,
            registry,
            source,
            builder,
            runners,
            release_key,
            epoch,
            roster: Roster::default(),
            hearing: Hearing::default(),
            jobs: Jobs::default(),
            records: Mutex::new(records),
            saved: Mutex::new(saved),
            tidied: Mutex::default(),
            targets: RwLock::default(),
            published: RwLock::default(),
            known: RwLock::default(),
            wishes: RwLock::default(),
            tokens,
            kept_tokens: Mutex::new(kept_tokens),
            naming: tokio::sync::Mutex::default(),
            preparing: Mutex::default(),
            rations: Mutex::default(),
            documents,
            filled: AtomicBool::new(false),
            told: Mutex::default(),
        }))
    }

    /// Passes until `stop` turns true.
    pub async fn run(self: Arc<Self>, fleet: Arc<Fleet>, mut stop: watch::Receiver<bool>) {
        match self.fill().await {
            Ok(count) => tracing::info!(gateways = count, "read the gateway store"),
            Err(e) => tracing::error!(error = %e, "the gateway store could not be read; gateways count when they sync"),
        }
        loop {
            let objects = self.source.objects();
            self.administer(&objects, &fleet).await;
            let (this, started) = (Arc::clone(&self), std::time::Instant::now());
            let busy = tokio::task::spawn_blocking(move || this.pass(&objects, ballast_fleet::now())).await;
            let busy = busy.unwrap_or_else(|e| {
                tracing::error!(error = %e, "a pass was cut off; the next one goes on");
                true
            });
            // Of a large fleet every sync is news: passes take a fifth of one processor at most.
            tokio::select! {
                () = tokio::time::sleep(started.elapsed() * 4) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            tokio::select! {
                () = self.source.changed() => {}
                () = self.roster.changed() => {}
                () = self.jobs.finished() => {}
                () = tokio::time::sleep(if busy { BUSY } else { IDLE }) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }

    /// Makes a record durable.
    pub(crate) fn save(&self, record: &Record) -> Result<(), StateError> {
        records::save(&self.state, record)?;
        self.saved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.deployment.clone(), fingerprint(record));
        Ok(())
    }

    /// The same, if it is not what was made durable last: also after a pass that could not.
    pub(crate) fn save_changes(&self, record: &Record) -> Result<(), StateError> {
        let fingerprint = fingerprint(record);
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).get(&record.deployment).copied();
        if fingerprint.is_some() && saved == Some(fingerprint) { Ok(()) } else { self.save(record) }
    }

    /// Nobody is judged before every gateway had two chances to speak: after the operator was away it does not know yet what
    /// happened meanwhile. Once all of `members` have spoken it does, unless the store was lost, and with it who they are.
    pub(crate) fn may_decide(&self, members: &[Member], now: UnixMillis) -> bool {
        let (since, born) = (self.hearing.since(), self.store.born());
        let lost =
            born.0 > self.state.installation().created.0.saturating_add(60_000) || !self.filled.load(Ordering::Acquire);
        let quiet = u64::try_from(self.settings.sync.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
        if now.0 >= since.0.saturating_add(quiet) {
            return true;
        }
        !lost && members.iter().all(|m| m.row.last_seen.is_some_and(|seen| seen >= since))
    }

    /// What is remembered of a deployment.
    pub fn record(&self, deployment: &DeploymentRef) -> Option<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(deployment).cloned()
    }

    /// Reads the gateways that are stored. Until it has, nobody is judged before two syncs.
    pub async fn fill(&self) -> Result<usize, StoreError> {
        let count = self.roster.fill(self.store.as_ref(), &self.documents).await?;
        self.filled.store(true, Ordering::Release);
        Ok(count)
    }

    /// A target by its name.
    pub(crate) fn target(&self, name: &TargetName) -> Option<Target> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Forgets a deployment.
    pub(crate) fn forget(&self, deployment: &DeploymentRef) -> Result<(), StateError> {
        records::remove(&self.state, deployment)?;
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).remove(deployment);
        Ok(())
    }

    /// The ration of a release.
    pub(crate) fn ration(&self, deployment: &DeploymentRef, number: ReleaseNumber) -> Arc<Ration> {
        let mut rations = self.rations.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rations.entry((deployment.clone(), number)).or_default())
    }

    /// The contract of a bundle that is in the registry.
    pub(crate) fn contract_of(&self, release: &ReleaseRef) -> Result<Contract, String> {
        let read = |digest| {
            let path = self.registry.blob_path(digest);
            std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
        };
        let layers = ballast_bundle::manifest::parse_bundle_manifest(&read(&release.manifest.digest)?)
            .map_err(|e| e.to_string())?;
        serde_json::from_slice(&read(&layers.contract.digest)?).map_err(|e| e.to_string())
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Of all that is remembered.
fn fingerprint(record: &Record) -> Option<Digest> {
    serde_json::to_vec(record).ok().map(|json| Digest::of(&json))
}

impl Dispatch for Controller {
    fn dispatch<'a>(
        &'a self,
        gateway: &'a GatewayRow,
        reports: &'a [StoredReport],
        _: UnixMillis,
    ) -> BoxFuture<'a, Dispatched> {
        Box::pin(async move {
            let target = self.targets.read().unwrap_or_else(PoisonError::into_inner).matching(&gateway.facts);
            self.roster.update(gateway.clone(), reports.to_vec(), target.clone());
            let (namespace, id) = (&gateway.namespace, &gateway.id);
            let published = self.published();
            let soon = self.settings.sync_rollout;
            let runner =
                target.as_ref().filter(|_| published.complete).and_then(|t| self.runners.get(&gateway.namespace, t));
            match (&target, runner) {
                (Some(name), Some(runner)) => {
                    let Some(member) = self.roster.get(namespace, id) else {
                        return Dispatched { target, assignment: None, wait: soon };
                    };
                    let give = |deployment: &DeploymentRef, number, admission: &Admission| {
                        admission.ration.take(|| self.roster.give(namespace, id, deployment, number))
                    };
                    let (assignment, hurry) = published.assign(&member, name, runner, give);
                    self.roster.set_given(namespace, id, roster::wanted_by(&assignment));
                    let wait = if hurry { soon } else { self.settings.sync };
                    Dispatched { target, assignment: Some(assignment), wait }
                }
                // The runner is being prepared, or the objects were not looked at yet.
                (Some(_), None) => Dispatched { target, assignment: None, wait: soon },
                (None, _) => Dispatched { target, assignment: None, wait: self.settings.sync },
            }
        })
    }

    fn accepts(&self, _: &GatewayRow, report: &ReleaseReport) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&report.deployment).is_some_and(|numbers| numbers.contains(&report.number))
    }

    fn wish(&self, namespace: &NamespaceUid, gateway: &GatewayId) -> Option<Wish> {
        let wishes = self.wishes.read().unwrap_or_else(PoisonError::into_inner);
        wishes.get(&(namespace.clone(), gateway.clone())).cloned()
    }
}
