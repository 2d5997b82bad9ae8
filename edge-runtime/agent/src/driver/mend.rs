//! What should serve and is not in memory: read from disk after a start, brought again where it is damaged.

use std::sync::Arc;

use ballast_bundle::ReleaseRef;
use ballast_bundle::protocol::FailureReason;
use ballast_slots::{Event, ReleaseId};

use super::{Driver, Input, Machine};
use crate::error::in_full;
use crate::fetch::{FetchError, Fetched};
use crate::installed::{Accepted, InstalledRelease};
use crate::loaded::{self, Prepared, Unloadable};
use crate::store::Reservation;

impl Driver {
    /// After a start: what serves is read from disk. Everything was verified and probed when it was brought here, and its
    /// digests are verified again now.
    pub(super) fn load_missing(&mut self, name: &str) {
        let Some(runner) = self.runner.clone() else { return };
        let store = Arc::clone(&self.parts.source.store);
        let Some(machine) = self.machines.get_mut(name) else { return };
        let mut unloadable = Vec::new();
        let serving = machine.state.serving();
        let missing: Vec<ReleaseRef> = serving
            .iter()
            .flat_map(|s| [Some(s.primary), s.backup])
            .flatten()
            .filter(|r| !machine.loaded.contains_key(&r.manifest.digest))
            .cloned()
            .collect();
        for release in missing {
            match prepare(machine, &store, &release, &runner).and_then(Prepared::start) {
                Ok(loaded) => {
                    machine.loaded.insert(release.manifest.digest, Arc::new(loaded));
                }
                Err(error) => {
                    tracing::error!(
                        deployment = name,
                        version = release.version,
                        error = error.message,
                        "a release cannot be loaded"
                    );
                    unloadable.push((release, error));
                }
            }
        }
        for (release, error) in unloadable {
            self.mend(name, release, error);
        }
    }

    /// What should serve and cannot be loaded: damaged bytes are brought again, whatever release they are of. A candidate
    /// never keeps the gateway's one place for trials without serving.
    fn mend(&mut self, name: &str, release: ReleaseRef, error: Unloadable) {
        let id = ReleaseId::from(&release);
        let damaged = error.reason == FailureReason::VerificationFailed;
        let Some(machine) = self.machines.get_mut(name) else { return };
        let candidate = machine.state.candidate.as_ref().is_some_and(|c| ReleaseId::from(&c.release) == id);
        let send = self.parts.send.clone();
        let name = name.to_owned();
        if candidate {
            // By way of the inputs: this runs in the middle of another event.
            let event = if damaged {
                Event::Damaged(id)
            } else if error.reason.is_failure() {
                Event::Rejected { of: id, reason: error.reason, message: error.message }
            } else {
                Event::Deferred { of: id, reason: error.reason, message: error.message }
            };
            let _ = send.send(Input::Unloadable { name, event });
        } else if damaged && machine.mending.is_none() {
            machine.mending = Some(id);
            let known = machine.installed.get(&id).map(|i| &i.accepted).or(machine.unproved.get(&id)).cloned();
            let newest =
                || Some(Accepted { target: self.parts.target.clone()?, root: self.parts.roots.newest().version });
            let Some(accepted) = known.or_else(newest) else { return };
            let (source, roots) = (self.parts.source.clone(), self.parts.roots.clone());
            let deployment = machine.state.deployment.clone();
            tokio::spawn(async move {
                let result = source.again(&release, &deployment, accepted, &roots).await;
                let _ = send.send(Input::Mended { name, id, result });
            });
        }
    }

    /// Damaged bytes are here again, or never will be.
    pub(super) fn mended(
        &mut self,
        name: &str,
        id: ReleaseId,
        result: Result<Fetched<InstalledRelease>, FetchError>,
    ) -> Vec<Reservation> {
        let Some(machine) = self.machines.get_mut(name) else { return Vec::new() };
        machine.mending = None;
        match result {
            Ok(Fetched { installed, room }) => {
                machine.unproved.remove(&id);
                machine.installed.insert(id, installed);
                self.switch(name);
                room
            }
            Err(error) => {
                tracing::error!(deployment = name, error = in_full(&error), "a damaged release was not brought again");
                Vec::new()
            }
        }
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
