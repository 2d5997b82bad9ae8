//! The sync loop: facts and reports out, pointer and assignment in. With the operator gone it tries again for ever, ever
//! more seldom; what serves does not notice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::{Facts, Identity, RenewRequest, SyncRequest, SyncResponse};
use ballast_bundle::{
    Assignment, Blob, Counter, Digest, Envelope, Floors, TargetName, UnixMillis, Unverified, Verified, VerifyError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::client::{Client, ClientError};
use crate::cloud::Cloud;
use crate::config::Config;
use crate::driver::{Board, Input};
use crate::error::in_full;
use crate::facts;
use crate::identity::{self, Enrolled, IdentityError};
use crate::metrics::Metrics;
use crate::state::{FORMAT, StateDir, StateError};
use crate::time::Clock;

const POINTER: &str = "pointer.json";
/// The document that the pointer names, byte for byte; written before the pointer.
const ASSIGNMENT: &str = "assignment.json";
const MAX_ANSWER: usize = 1 << 20;
/// Roots that one sync walks at most; the next one goes on.
const MAX_ROOTS: u64 = 64;
/// News (a rollback, a step of a trial) goes out at once, but not more often than this.
const NEWS_PAUSE: Duration = Duration::from_millis(200);
/// The operator's word on waiting is kept within this.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// `pointer.json`: the pointer in force and the assignment it names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PointerFile {
    pub(crate) format: u32,
    /// As it came.
    pub(crate) pointer: Envelope,
    /// Neither goes back: within an epoch the sequence, over all the epoch.
    pub(crate) epoch: u32,
    pub(crate) sequence: Counter,
    /// A floor for the clock.
    pub(crate) issued: UnixMillis,
    pub(crate) expires: UnixMillis,
    /// Of the assignment in force.
    pub(crate) assignment: Blob,
    /// Of the assignment in force; bundles are for it.
    pub(crate) target: TargetName,
}

/// The pointer in force, where there is one.
pub(crate) fn pointer(dir: &StateDir) -> Result<Option<PointerFile>, StateError> {
    dir.read(POINTER)
}

/// The assignment in force, verified again, so that a start goes on with what was not finished. `None` where a power cut
/// came between the two files, or a new root says nothing of the old pointer: the next sync brings it again.
pub(crate) fn kept(
    dir: &StateDir,
    enrolled: &Enrolled,
    pointer: &PointerFile,
) -> Result<Option<Verified<Assignment>>, StateError> {
    let Some(bytes) = dir.read_bytes(ASSIGNMENT)? else { return Ok(None) };
    // It was not expired when it came. What expired meanwhile installs nothing new; the driver looks at that.
    let now = UnixMillis(0);
    let pointer = Unverified::new(pointer.pointer.clone()).pointer(
        enrolled.root(),
        &enrolled.audience(),
        &Floors::default(),
        now,
    );
    Ok(pointer.and_then(|p| Unverified::new(&bytes[..]).assignment(&p)).ok())
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the operator's document was not accepted")]
    Verify(#[from] VerifyError),
    #[error("the operator sent another document under the same sequence")]
    Replaced,
}

/// See the module.
pub(crate) struct Loop {
    pub(crate) dir: Arc<StateDir>,
    pub(crate) config: Arc<Config>,
    pub(crate) client: Arc<Client>,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) enrolled: Enrolled,
    pub(crate) clock: Arc<Clock>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) driver: mpsc::UnboundedSender<Input>,
    pub(crate) in_force: Option<PointerFile>,
    /// Whether the driver has the assignment in force.
    pub(crate) handed_over: bool,
}

impl Loop {
    /// Never returns.
    pub(crate) async fn run(mut self) {
        let mut wait = Duration::from_secs(self.config.sync.wait_seconds.max(1));
        let mut failures = 0u32;
        let mut acknowledged: Option<Digest> = None;
        loop {
            let pause = match self.once(&mut acknowledged).await {
                Ok(next) => {
                    if failures > 0 {
                        tracing::info!("the operator answers again");
                    }
                    failures = 0;
                    wait = next;
                    next
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 || failures.is_multiple_of(100) {
                        let why = in_full(&error);
                        tracing::warn!(
                            error = why,
                            failures,
                            "sync failed; what serves goes on, and so do the attempts"
                        );
                    }
                    self.backoff(&error, wait, failures)
                }
            };
            self.metrics.sync(failures == 0);
            let until = Instant::now() + pause;
            if failures == 0 {
                tokio::time::sleep(NEWS_PAUSE.min(pause)).await;
                let rest = until.saturating_duration_since(Instant::now());
                let _ = tokio::time::timeout(rest, self.board.news.notified()).await;
            } else {
                // Without an operator there is nobody to tell: a crash loop of news must not become a storm.
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn backoff(&self, error: &SyncError, wait: Duration, failures: u32) -> Duration {
        let longest = Duration::from_secs(self.config.sync.max_backoff_seconds.max(1));
        if let SyncError::Client(ClientError::Refused { retry_after: Some(after), .. }) = error {
            return (*after).clamp(SHORTEST, longest);
        }
        let doubled =
            wait.clamp(Duration::from_secs(1), longest).saturating_mul(1 << failures.saturating_sub(1).min(8));
        // Half to one and a half times: gateways that lost their operator together do not come back together.
        let jitter = f64::from(random()) / f64::from(u32::MAX) + 0.5;
        doubled.min(longest).mul_f64(jitter)
    }

    async fn once(&mut self, acknowledged: &mut Option<Digest>) -> Result<Duration, SyncError> {
        self.renew().await?;
        let facts = facts::gather(&self.config, self.dir.root(), self.board.speed());
        let digest = Digest::of(&serde_json::to_vec(&facts).unwrap_or_default());
        let answer = self.exchange(&facts, digest, *acknowledged != Some(digest)).await?;
        *acknowledged = (!answer.need_facts).then_some(digest);
        self.walk_roots(answer.root_version).await?;
        if let Some(envelope) = answer.pointer {
            self.take_pointer(envelope).await?;
        }
        if answer.need_facts {
            return Ok(SHORTEST);
        }
        Ok(Duration::from_millis(answer.wait_millis).clamp(SHORTEST, LONGEST))
    }

    async fn exchange(&self, facts: &Facts, digest: Digest, send: bool) -> Result<SyncResponse, SyncError> {
        let request = SyncRequest {
            facts_digest: digest,
            facts: send.then(|| facts.clone()),
            root_version: self.enrolled.root().version,
            assignment: self.in_force.as_ref().map(|p| p.assignment.digest),
            reports: self.board.reports(),
        };
        Ok(self.client.post("/v1/sync", &request, MAX_ANSWER).await?)
    }

    /// At two thirds of the certificate's life; with an expired one it is tried first of all.
    async fn renew(&mut self) -> Result<(), SyncError> {
        if self.clock.now().0 < self.enrolled.renew_at()? {
            return Ok(());
        }
        let key = identity::key(&self.dir)?;
        let request = RenewRequest { csr: identity::request(&key)? };
        let answer: Result<Identity, _> = self.client.post("/v1/renew", &request, MAX_ANSWER).await;
        match answer {
            Ok(answer) => {
                self.enrolled.renew(&self.dir, answer.certificate)?;
                self.connect_anew()?;
                tracing::info!("the gateway's certificate was renewed");
            }
            // There is a third of its life left to try again.
            Err(error) => tracing::warn!(error = in_full(&error), "the gateway's certificate could not be renewed now"),
        }
        Ok(())
    }

    fn connect_anew(&self) -> Result<(), SyncError> {
        self.client.replace(self.enrolled.endpoints(), self.enrolled.tls(Arc::clone(&self.clock))?);
        self.cloud.identify(self.enrolled.credentials());
        Ok(())
    }

    async fn walk_roots(&mut self, newest: u64) -> Result<(), SyncError> {
        let before = self.enrolled.root().version;
        while self.enrolled.root().version < newest.min(before.saturating_add(MAX_ROOTS)) {
            let next = self.enrolled.root().version.saturating_add(1);
            let bytes = self.client.get(&format!("/v1/roots/{next}"), MAX_ANSWER).await?;
            let envelope: Envelope = serde_json::from_slice(&bytes)
                .map_err(|e| ClientError::Unreadable(format!("trust root {next}: {e}")))?;
            let epoch = self.enrolled.root().epoch;
            self.enrolled.walk(&self.dir, envelope)?;
            if self.enrolled.root().epoch > epoch {
                self.clock.begin_epoch(self.enrolled.root().issued);
            }
            tracing::info!(version = next, "trust root accepted");
        }
        if self.enrolled.root().version != before {
            self.connect_anew()?;
        }
        Ok(())
    }

    /// Verified, durable, and only then in force.
    async fn take_pointer(&mut self, envelope: Envelope) -> Result<(), SyncError> {
        let mut floors = Floors::default();
        if let Some(known) = &self.in_force {
            (floors.epoch, floors.sequence) = (known.epoch, known.sequence);
        }
        let (roots, audience) = (self.enrolled.roots().clone(), self.enrolled.audience());
        let pointer =
            Unverified::new(envelope.clone()).pointer(roots.newest(), &audience, &floors, self.clock.now())?;
        if let Some(known) = &self.in_force
            && (pointer.epoch, pointer.sequence) == (known.epoch, known.sequence)
        {
            if known.assignment != pointer.assignment {
                return Err(SyncError::Replaced);
            }
            if self.handed_over {
                return Ok(());
            }
        }
        let same = self.in_force.as_ref().is_some_and(|p| p.assignment == pointer.assignment);
        let path = format!("/v1/assignments/{}", pointer.assignment.digest);
        let bytes = self.client.get(&path, ballast_bundle::MAX_DOCUMENT_BYTES).await?;
        let assignment: Verified<Assignment> = Unverified::new(&bytes[..]).assignment(&pointer)?;
        let file = PointerFile {
            format: FORMAT,
            pointer: envelope,
            epoch: pointer.epoch,
            sequence: pointer.sequence,
            issued: pointer.issued,
            expires: pointer.expires,
            assignment: pointer.assignment.clone(),
            target: assignment.target.clone(),
        };
        self.dir.write_bytes(ASSIGNMENT, &bytes)?;
        self.dir.write(POINTER, &file)?;
        self.clock.saw(pointer.issued);
        self.in_force = Some(file);
        self.handed_over = true;
        if !same {
            tracing::info!(assignment = %pointer.assignment.digest, sequence = %pointer.sequence, "assignment in force");
        }
        let _ = self.driver.send(Input::Assignment(Box::new((assignment, roots, pointer.expires))));
        Ok(())
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness everybody waits the same; nothing else depends on it.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
