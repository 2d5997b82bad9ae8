//! Effects: what the state machine asks for, done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{Digest, Floors, ReleaseRef, UnixMillis};
use ballast_slots::{Effect, Event, Phase, ReleaseId, State, step, trial_is_open, unwritten};

use super::{Driver, Input, Machine, SlotFile, blobs_of};
use crate::loaded::{self, Loaded, Prepared, Unloadable};
use crate::probe;
use crate::serve::Route;

/// Pause before a state that could not be written is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// What a person who follows the log wants to know of a durable change. Who was rolled back is said where it is decided.
fn tell(name: &str, before: &State, after: &State) {
    let moved = |state: &State| state.candidate.as_ref().map(|c| (ReleaseId::from(&c.release), c.phase));
    if let Some(candidate) = &after.candidate
        && moved(before) != moved(after)
    {
        let (version, phase) = (&candidate.release.version, candidate.phase);
        tracing::info!(deployment = name, version, ?phase, "candidate");
    }
    let active = |state: &State| state.active.as_ref().map(|held| ReleaseId::from(&held.release));
    if let Some(held) = &after.active
        && active(before) != active(after)
    {
        tracing::info!(deployment = name, version = held.release.version, "active");
    }
}

impl Driver {
    /// One step of one machine, and everything that follows from it.
    pub(super) fn event(&mut self, name: &str, event: &Event) {
        let now = self.now();
        let Some(machine) = self.machines.get_mut(name) else { return };
        let (next, effects) = step(&machine.state, event, now);
        let before = std::mem::replace(&mut machine.state, next);
        let mut effects = effects.into_iter().peekable();
        // One write per arrow, before everything else.
        if effects.next_if_eq(&Effect::Persist).is_some() {
            match self.persist(name) {
                Ok(()) => {
                    self.written(name);
                    if let Some(machine) = self.machines.get(name) {
                        tell(name, &before, &machine.state);
                    }
                }
                Err(error) => {
                    self.not_written(name, &error);
                    let Some(machine) = self.machines.get_mut(name) else { return };
                    let (state, instead) = unwritten(&before, machine.state.clone());
                    machine.state = state;
                    return instead.iter().for_each(|effect| self.perform(name, effect));
                }
            }
        }
        effects.for_each(|effect| self.perform(name, &effect));
    }

    fn perform(&mut self, name: &str, effect: &Effect) {
        match effect {
            Effect::Persist => {}
            Effect::Fetch(release) => self.fetch(name, release, false),
            Effect::Relabel(release) => self.fetch(name, release, true),
            Effect::Admit(release) => self.admit(name, release),
            Effect::Probe(release) => self.probe(name, release),
            Effect::Switch => self.switch(name),
            Effect::Report => self.parts.board.news.notify_one(),
            Effect::Collect => self.collect = true,
        }
    }

    fn written(&mut self, name: &str) {
        if let Some(machine) = self.machines.get_mut(name)
            && std::mem::take(&mut machine.unwritten).is_some()
        {
            tracing::info!(deployment = name, "states can be written again");
        }
    }

    fn not_written(&mut self, name: &str, error: &crate::state::StateError) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        if machine.unwritten.replace(Instant::now()).is_none() {
            tracing::error!(deployment = name, %error, "a state could not be written; what serves goes on, and so do the attempts");
        }
    }

    /// After a write that failed: once more what was asked for, and the wish that may have been lost.
    pub(super) fn write_again(&mut self, name: &str) {
        let due = self.machines.get(name).and_then(|m| m.unwritten).is_some_and(|at| at.elapsed() >= WRITE_AGAIN);
        if !due {
            return;
        }
        self.event(name, &Event::Resumed);
        if self.machines.get(name).is_some_and(|m| m.unwritten.is_none()) {
            self.apply();
        }
    }

    /// The machines' time: the clock at the start, and what has passed since. A clock that is set meanwhile must not end a
    /// trial early, nor never.
    fn now(&self) -> UnixMillis {
        let passed = u64::try_from(self.started.1.elapsed().as_millis()).unwrap_or(u64::MAX);
        UnixMillis(self.started.0.0.saturating_add(passed))
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

    /// Whether the operator's word has run out: nothing new is installed on it, what runs goes on. Without an assignment
    /// there is no word at all.
    fn expired(&self) -> bool {
        let now = self.parts.clock.now().0;
        self.assignment.is_none() || self.expires.0.saturating_add(ballast_bundle::CLOCK_SKEW_MILLIS) <= now
    }

    /// Downloads that nobody waits for any more end; one that waits for a fresh assignment begins.
    pub(super) fn look_after_fetch(&mut self, name: &str) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        let candidate = machine.state.candidate.as_ref().filter(|c| match c.phase {
            Phase::Fetching | Phase::Relabelling => true,
            Phase::Verified | Phase::Probing | Phase::Trial => false,
        });
        let wanted = candidate.map(|c| ReleaseId::from(&c.release));
        if let Some((_, task)) = machine.fetching.take_if(|(id, _)| Some(*id) != wanted) {
            task.abort();
        }
        let idle = machine.fetching.is_none() && machine.unwritten.is_none();
        if let Some(candidate) = candidate.filter(|c| idle && c.deferred.is_none()) {
            let (release, phase) = (candidate.release.clone(), candidate.phase);
            self.fetch(name, &release, phase == Phase::Relabelling);
        }
    }

    fn fetch(&mut self, name: &str, release: &ReleaseRef, statement_only: bool) {
        if self.expired() {
            return; // the tick asks again
        }
        let Some(target) = self.parts.target.clone() else { return };
        let Some(machine) = self.machines.get(name) else { return };
        let (source, root, send) = (self.parts.source.clone(), self.parts.root.clone(), self.parts.send.clone());
        let (name, release, deployment) = (name.to_owned(), release.clone(), machine.state.deployment.clone());
        let mut floors = Floors::default();
        floors.raise_release(&deployment, machine.state.floor);
        let (keep, id, of) = (self.kept(), ReleaseId::from(&release), name.clone());
        let task = tokio::spawn(async move {
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
        if let Some(machine) = self.machines.get_mut(&of)
            && let Some((_, before)) = machine.fetching.replace((id, task.abort_handle()))
        {
            before.abort();
        }
    }

    /// Reads and checks the release in the background; [`Driver::prepared`] decides.
    fn admit(&mut self, name: &str, release: &ReleaseRef) {
        if !self.trial_open(name) || self.expired() {
            return; // the next tick asks again
        }
        if self.missing_runner().is_some() {
            if self.runner_again.is_some() {
                let (reason, message) = self.runner_waits.clone();
                let reason = if reason.is_failure() { FailureReason::InsufficientDisk } else { reason };
                self.event(name, &Event::Deferred { of: ReleaseId::from(release), reason, message });
            }
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
            let result = loaded::prepare(&store, &release, &layers, (&name, &model), target.as_ref(), &runner);
            let _ = send.send(Input::Prepared { name, id, result: Box::new(result) });
        });
    }

    fn trial_open(&self, name: &str) -> bool {
        trial_is_open(self.machines.iter().filter(|(n, _)| *n != name).map(|(_, m)| &m.state))
    }

    pub(super) fn memory_used(&self) -> u64 {
        self.machines.values().flat_map(|m| m.loaded.values()).map(|l| l.memory()).sum()
    }

    pub(super) fn prepared(&mut self, name: &str, id: ReleaseId, result: Result<Prepared, Unloadable>) {
        let open = self.trial_open(name);
        let used = self.memory_used();
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
                machine.last_live = Instant::now();
                self.event(name, &Event::ProbePassed(id));
                self.forget_unused(name);
            }
            Err(Unloadable { reason, message }) => self.unloadable(name, id, reason, message),
        }
    }

    /// Brings what is served in line with the state. What is in no slot any more ends when its last request is answered.
    pub(super) fn switch(&mut self, name: &str) {
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
        self.parts.router.set(&machine.state.model, name, route);
        self.forget_unused(name);
    }

    fn forget_unused(&mut self, name: &str) {
        if let Some(machine) = self.machines.get_mut(name) {
            // A candidate that is back before its trial loads again when its turn comes.
            let state = &machine.state;
            let held = state.active.iter().chain(&state.fallback).map(|h| h.release.manifest.digest);
            let keep: Vec<Digest> = held.chain(state.serving().map(|s| s.primary.manifest.digest)).collect();
            machine.loaded.retain(|digest, _| keep.contains(digest));
        }
    }

    /// After a start: what serves is read from disk. Everything was verified and probed when it was brought here, and its
    /// digests are verified again now.
    fn load_missing(&mut self, name: &str) {
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
        let Some(machine) = self.machines.get(name) else { return };
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
        } else if let Some(layers) = machine.layers.get(&id.manifest).cloned().filter(|_| damaged) {
            let (source, keep) = (self.parts.source.clone(), self.kept());
            tokio::spawn(async move {
                let blobs: Vec<_> = blobs_of(&layers).collect();
                match source.blobs(&release.repository, &blobs, &keep).await {
                    Ok(()) => drop(send.send(Input::Mended { name })),
                    Err(error) => tracing::error!(deployment = name, %error, "a damaged release was not brought again"),
                }
            });
        }
    }
}

/// For what is in a slot already: its target was checked when it came.
pub(super) fn prepare(
    machine: &Machine,
    store: &crate::blobs::Store,
    release: &ReleaseRef,
    runner: &crate::runner::Runner,
) -> Result<Prepared, Unloadable> {
    let layers = machine.layers.get(&release.manifest.digest).ok_or_else(|| Unloadable {
        reason: FailureReason::InvalidBundle,
        message: "its record is incomplete".to_owned(),
    })?;
    let names = (machine.state.deployment.name.as_str(), machine.state.model.as_str());
    loaded::prepare(store, release, layers, names, None, runner)
}
