//! Effects: what the state machine asks for, done.

use std::sync::Arc;

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{Digest, Floors, ReleaseRef, TargetName};
use ballast_slots::{Effect, Event, ReleaseId, State, step, trial_is_open};

use super::{Driver, Input, Machine, SlotFile, blobs_of};
use crate::loaded::{self, Loaded, Prepared, Unloadable};
use crate::probe;
use crate::serve::Route;

impl Driver {
    /// One step of one machine, and everything that follows from it.
    pub(super) fn event(&mut self, name: &str, event: &Event) {
        let now = self.parts.clock.now();
        let Some(machine) = self.machines.get_mut(name) else { return };
        let (next, effects) = step(&machine.state, event, now);
        machine.state = next;
        for effect in effects {
            if !self.perform(name, &effect) {
                return;
            }
        }
    }

    /// Whether to go on with the next effect.
    fn perform(&mut self, name: &str, effect: &Effect) -> bool {
        match effect {
            Effect::Persist => {
                if let Err(error) = self.persist(name) {
                    // Nothing after an arrow happens before it is on disk. What serves goes on serving; a restart
                    // finds the last arrow that was written.
                    tracing::error!(deployment = name, %error, "a state could not be written; it stays as it is");
                    self.restore(name);
                    return false;
                }
            }
            Effect::Fetch(release) => self.fetch(name, release, false),
            Effect::Relabel(release) => self.fetch(name, release, true),
            Effect::Admit(release) => self.admit(name, release),
            Effect::Probe(release) => self.probe(name, release),
            Effect::Switch => self.switch(name),
            Effect::Report => self.parts.board.news.notify_one(),
            Effect::Collect => self.collect = true,
        }
        true
    }

    fn persist(&mut self, name: &str) -> Result<(), crate::state::StateError> {
        let Some(machine) = self.machines.get_mut(name) else { return Ok(()) };
        let in_slots: Vec<Digest> = machine.state.releases().map(|r| r.manifest.digest).collect();
        machine.layers.retain(|digest, _| in_slots.contains(digest));
        let remembered = &machine.state.rejected;
        machine.rollback_micros.retain(|id, _| remembered.iter().any(|r| r.id == *id));
        let file = SlotFile {
            format: crate::state::FORMAT,
            state: machine.state.clone(),
            layers: machine.layers.iter().map(|(d, l)| (*d, l.clone())).collect(),
            rollback_micros: machine.rollback_micros.iter().map(|(id, n)| (*id, *n)).collect(),
        };
        self.parts.dir.write(&format!("slots/{name}.json"), &file)
    }

    /// Back to what is on disk.
    fn restore(&mut self, name: &str) {
        let Ok(file) = self.parts.dir.read::<SlotFile>(&format!("slots/{name}.json")) else { return };
        if let (Some(machine), Some(file)) = (self.machines.get_mut(name), file) {
            machine.state = file.state;
            machine.layers = file.layers.into_iter().collect();
        }
    }

    fn fetch(&self, name: &str, release: &ReleaseRef, statement_only: bool) {
        let Some(target) = self.parts.target.clone() else { return };
        let Some(machine) = self.machines.get(name) else { return };
        let (source, root, send) = (self.parts.source.clone(), self.parts.root.clone(), self.parts.send.clone());
        let (name, release, deployment) = (name.to_owned(), release.clone(), machine.state.deployment.clone());
        let mut floors = Floors::default();
        floors.raise_release(&deployment, machine.state.floor);
        let keep = self.kept();
        tokio::spawn(async move {
            let id = ReleaseId::from(&release);
            let result = async {
                let statement = source.statement(&release, &deployment, &target, &root, &floors).await?;
                let layers = statement.layers.clone();
                if !statement_only {
                    let blobs: Vec<_> = blobs_of(&layers).collect();
                    source.blobs(&release.repository, &blobs, &keep).await?;
                }
                Ok(layers)
            }
            .await;
            let input = if statement_only {
                Input::Relabelled { name, id, result }
            } else {
                Input::Fetched { name, id, result }
            };
            let _ = send.send(input);
        });
    }

    /// Reads and checks the release in the background; [`Driver::prepared`] decides.
    fn admit(&mut self, name: &str, release: &ReleaseRef) {
        if !self.trial_open(name) {
            return; // the next tick asks again
        }
        let Some(runner) = self.runner.clone() else { return };
        let (store, target) = (Arc::clone(&self.parts.source.store), self.parts.target.clone());
        let Some(machine) = self.machines.get_mut(name) else { return };
        let id = ReleaseId::from(release);
        let Some(layers) = machine.layers.get(&id.manifest).cloned() else {
            let message = "its record is incomplete".to_owned();
            return self.event(name, &Event::Rejected { of: id, reason: FailureReason::InvalidBundle, message });
        };
        if std::mem::replace(&mut machine.preparing, true) {
            return;
        }
        let (release, model, send) = (release.clone(), machine.state.model.clone(), self.parts.send.clone());
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || {
            let result = loaded::prepare(&store, &release, &layers, &model, target.as_ref(), &runner);
            let _ = send.send(Input::Prepared { name, id, result: Box::new(result) });
        });
    }

    fn trial_open(&self, name: &str) -> bool {
        trial_is_open(self.machines.iter().filter(|(n, _)| *n != name).map(|(_, m)| &m.state))
    }

    pub(super) fn prepared(&mut self, name: &str, id: ReleaseId, result: Result<Prepared, Unloadable>) {
        let open = self.trial_open(name);
        let used: u64 = self.machines.values().flat_map(|m| m.loaded.values()).map(|l| l.memory()).sum();
        let budget = self.parts.memory_budget;
        let Some(machine) = self.machines.get_mut(name) else { return };
        machine.preparing = false;
        match result {
            Err(Unloadable { reason, message }) => self.unloadable(name, id, reason, message),
            Ok(_) if !open => {} // the next tick asks again
            Ok(prepared) if used.saturating_add(prepared.memory()) > budget => {
                let message = format!(
                    "it needs {} bytes of memory with its spare, and of limits.memory ({budget} bytes) {} are left",
                    prepared.memory(),
                    budget.saturating_sub(used)
                );
                let reason = FailureReason::InsufficientMemory;
                self.event(name, &Event::Deferred { of: id, reason, message });
            }
            Ok(prepared) => {
                machine.prepared = Some((id, prepared));
                self.event(name, &Event::Admitted(id));
            }
        }
    }

    pub(super) fn unloadable(&mut self, name: &str, id: ReleaseId, reason: FailureReason, message: String) {
        let event = if reason.is_failure() {
            Event::Rejected { of: id, reason, message }
        } else {
            Event::Deferred { of: id, reason, message }
        };
        self.event(name, &event);
    }

    fn probe(&mut self, name: &str, release: &ReleaseRef) {
        let id = ReleaseId::from(release);
        let Some(machine) = self.machines.get_mut(name) else { return };
        let Some((_, prepared)) = machine.prepared.take().filter(|(of, _)| *of == id) else {
            let message = "it was not prepared".to_owned();
            return self.event(name, &Event::Rejected { of: id, reason: FailureReason::InvalidBundle, message });
        };
        let (name, send) = (name.to_owned(), self.parts.send.clone());
        tokio::spawn(async move {
            let started = tokio::task::spawn_blocking(move || prepared.start()).await;
            let result = match started {
                Ok(Ok(loaded)) => probe::probe(loaded).await.map(Arc::new),
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    Err(Unloadable { reason: FailureReason::InvalidBundle, message: "loading it panicked".to_owned() })
                }
            };
            let _ = send.send(Input::Probed { name, id, result });
        });
    }

    pub(super) fn probed(&mut self, name: &str, id: ReleaseId, result: Result<Arc<Loaded>, Unloadable>) {
        match result {
            Ok(loaded) => {
                let Some(machine) = self.machines.get_mut(name) else { return };
                machine.loaded.insert(id.manifest, loaded);
                machine.replayed = 0;
                self.event(name, &Event::ProbePassed(id));
                self.forget_unused(name);
            }
            Err(Unloadable { reason, message }) => self.unloadable(name, id, reason, message),
        }
    }

    /// Brings what is served in line with the state. What is in no slot any more ends when its last request is answered.
    fn switch(&mut self, name: &str) {
        self.load_missing(name);
        let Some(machine) = self.machines.get(name) else { return };
        let route = machine.state.serving().and_then(|serving| {
            let find = |release: &ReleaseRef| machine.loaded.get(&release.manifest.digest).cloned();
            let backup = serving.backup.and_then(find);
            match find(serving.primary) {
                Some(primary) => Some(Route { primary, on_trial: serving.on_trial, backup }),
                // Its bytes are damaged or its runner is gone: better the proven one than none.
                None => backup.map(|primary| Route { primary, on_trial: false, backup: None }),
            }
        });
        self.parts.router.set(&machine.state.model, route);
        self.forget_unused(name);
    }

    fn forget_unused(&mut self, name: &str) {
        if let Some(machine) = self.machines.get_mut(name) {
            let keep: Vec<Digest> = machine.state.releases().map(|r| r.manifest.digest).collect();
            machine.loaded.retain(|digest, _| keep.contains(digest));
        }
    }

    /// After a start: what serves is read from disk. Everything was verified and probed when it was brought here, and its
    /// digests are verified again now.
    fn load_missing(&mut self, name: &str) {
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
        for release in missing {
            match load(machine, &store, &release, None, &runner) {
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
                }
            }
        }
    }

    pub(super) fn state_of(&self, model: &str) -> Option<(&String, &State)> {
        self.machines.iter().map(|(name, m)| (name, &m.state)).find(|(_, s)| s.model == model)
    }
}

pub(super) fn load(
    machine: &Machine,
    store: &crate::blobs::Store,
    release: &ReleaseRef,
    target: Option<&TargetName>,
    runner: &crate::runner::Runner,
) -> Result<Loaded, Unloadable> {
    let layers = machine.layers.get(&release.manifest.digest).ok_or_else(|| Unloadable {
        reason: FailureReason::InvalidBundle,
        message: "its record is incomplete".to_owned(),
    })?;
    loaded::prepare(store, release, layers, &machine.state.model, target, runner)?.start()
}
