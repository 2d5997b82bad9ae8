//! What should serve and is not in memory: read from disk after a start, brought again where it is damaged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::ReleaseRef;
use ballast_bundle::protocol::FailureReason;
use ballast_slots::{Event, ReleaseId};

use super::{Driver, Input, Machine, set_aside};
use crate::error::in_full;
use crate::fetch::{FetchError, Fetched};
use crate::installed::{Accepted, InstalledRelease};
use crate::loaded::{self, Prepared, Unloadable};
use crate::store::Reservation;

/// Before what could not be loaded is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A candidate's bytes are brought again so often.
const MAX_DAMAGES: u32 = 3;

impl Driver {
    /// After a start: what serves is read from disk. Everything was verified and probed when it was brought here, and its
    /// digests are verified again now.
    pub(super) fn load_missing(&mut self, name: &str) {
        let Some(runner) = self.runner.clone() else { return };
        let store = Arc::clone(&self.parts.source.store);
        let Some(machine) = self.machines.get_mut(name) else { return };
        let serving = machine.state.serving();
        let missing: Vec<ReleaseRef> = serving
            .iter()
            .flat_map(|s| [Some(s.primary), s.backup])
            .flatten()
            .filter(|r| !machine.loaded.contains_key(&r.manifest.digest))
            .cloned()
            .collect();
        let mut unloadable = Vec::new();
        for release in missing {
            let id = ReleaseId::from(&release);
            if machine.unloaded.get(&id).is_some_and(|again| !again.is_due()) {
                continue;
            }
            match prepare(machine, &store, &release, &runner).and_then(Prepared::start) {
                Ok(loaded) => {
                    machine.unloaded.remove(&id);
                    machine.loaded.insert(id.manifest, Arc::new(loaded));
                }
                Err(error) => {
                    let (version, why) = (&release.version, &error.message);
                    tracing::error!(deployment = name, version, error = why, "a release cannot be loaded");
                    unloadable.push((release, error));
                }
            }
        }
        for (release, error) in unloadable {
            self.mend(name, release, error);
        }
    }

    /// What could not be loaded is tried again, ever more seldom.
    pub(super) fn look_after_unloaded(&mut self, name: &str) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        let serving = machine.state.serving();
        let serving: Vec<_> = serving.iter().flat_map(|s| [Some(s.primary), s.backup]).flatten().collect();
        let missing = serving.into_iter().filter(|r| !machine.loaded.contains_key(&r.manifest.digest));
        let missing: Vec<ReleaseId> = missing.map(ReleaseId::from).collect();
        machine.unloaded.retain(|id, again| again.fetching || missing.contains(id));
        if machine.unloaded.values().any(Again::is_due) {
            self.switch(name);
        }
    }

    /// What should serve and cannot be loaded: damaged bytes are brought again, whatever release they are of. A candidate
    /// never keeps the gateway's one place for trials without serving.
    fn mend(&mut self, name: &str, release: ReleaseRef, error: Unloadable) {
        let id = ReleaseId::from(&release);
        let damaged = error.reason == FailureReason::VerificationFailed;
        let newest =
            self.parts.target.clone().map(|target| Accepted { target, root: self.parts.roots.newest().version });
        let Some(machine) = self.machines.get_mut(name) else { return };
        let candidate = machine.state.candidate.as_ref().is_some_and(|c| ReleaseId::from(&c.release) == id);
        let send = self.parts.send.clone();
        let name = name.to_owned();
        if candidate {
            // By way of the inputs: this runs in the middle of another event.
            let event = machine.set_back(id, error);
            let _ = send.send(Input::Unloadable { name, event });
            return;
        }
        let again = machine.unloaded.entry(id).or_default();
        again.later();
        let known = machine.installed.get(&id).map(|i| &i.accepted).or(machine.unproved.get(&id)).cloned();
        let Some(accepted) = known.or(newest).filter(|_| damaged) else { return };
        again.fetching = true;
        let (source, roots) = (self.parts.source.clone(), self.parts.roots.clone());
        let deployment = machine.state.deployment.clone();
        tokio::spawn(async move {
            let result = source.again(&release, &deployment, accepted, &roots).await;
            let _ = send.send(Input::Mended { name, id, result });
        });
    }

    /// Damaged bytes are here again, or not now.
    pub(super) fn mended(
        &mut self,
        name: &str,
        id: ReleaseId,
        result: Result<Fetched<InstalledRelease>, FetchError>,
    ) -> Vec<Reservation> {
        let Some(machine) = self.machines.get_mut(name) else { return Vec::new() };
        let first = machine.unloaded.get_mut(&id).is_some_and(|again| {
            again.fetching = false;
            again.pause <= FIRST_PAUSE
        });
        match result {
            Ok(Fetched { installed, room }) => {
                machine.unproved.remove(&id);
                machine.installed.insert(id, installed);
                if first {
                    // At once, the first time; a disk that goes on damaging what it is given has its pauses.
                    machine.unloaded.entry(id).or_default().at = Instant::now();
                    self.switch(name);
                }
                room
            }
            Err(error) => {
                let error = in_full(&error);
                tracing::error!(deployment = name, error, "a damaged release was not brought again; it is tried again");
                Vec::new()
            }
        }
    }
}

/// When what could not be loaded is tried again.
#[derive(Debug)]
pub(super) struct Again {
    at: Instant,
    pause: Duration,
    /// Its bytes are on their way.
    fetching: bool,
}

impl Default for Again {
    fn default() -> Self {
        Self { at: Instant::now(), pause: Duration::ZERO, fetching: false }
    }
}

impl Again {
    fn is_due(&self) -> bool {
        !self.fetching && self.at <= Instant::now()
    }

    fn later(&mut self) {
        self.pause = self.pause.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.at = Instant::now() + self.pause;
    }
}

impl Machine {
    /// What becomes of a candidate that cannot be loaded. Damage is the disk's, and brought again; a disk that damages it
    /// time and again is no place for it.
    pub(super) fn set_back(&mut self, of: ReleaseId, error: Unloadable) -> Event {
        let Unloadable { reason, message } = error;
        if reason == FailureReason::VerificationFailed {
            let before = self.damages.filter(|(id, _)| *id == of).map_or(0, |(_, times)| times);
            self.damages = Some((of, before.saturating_add(1)));
            if before < MAX_DAMAGES {
                return Event::Damaged(of);
            }
        }
        set_aside(of, reason, message)
    }
}

/// For what is in a slot already.
pub(super) fn prepare(
    machine: &Machine,
    store: &crate::store::Store,
    release: &ReleaseRef,
    runner: &crate::runner::Runner,
) -> Result<Prepared, Unloadable> {
    let installed = machine.installed.get(&ReleaseId::from(release)).ok_or_else(|| Unloadable {
        reason: FailureReason::VerificationFailed,
        message: "it could not be verified again".to_owned(),
    })?;
    loaded::prepare(store, release, &installed.statement, &machine.state.model, runner)
}
