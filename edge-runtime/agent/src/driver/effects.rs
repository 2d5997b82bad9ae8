//! Effects: what the state machine asks for, done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{Digest, Floors, ReleaseRef, UnixMillis};
use ballast_slots::{Effect, Event, Phase, ReleaseId, State, step, trial_is_open, unwritten};

use super::{Driver, Input, Machine, SlotFile, set_aside};
use crate::error::in_full;
use crate::loaded::{self, Loaded, Prepared, Unloadable};
use crate::probe;
use crate::serve::Route;

/// Pause before a state that could not be written is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// What a person who follows the log wants to know of a change.
fn tell(name: &str, before: &State, machine: &Machine) {
    let after = &machine.state;
    for rejected in after.rejected.iter().filter(|r| !before.rejected.iter().any(|known| known.id == r.id)) {
        let (version, reason, message) = (&rejected.version, rejected.reason, &rejected.message);
        let micros = machine.rollback_micros.get(&rejected.id);
        tracing::warn!(deployment = name, version, ?reason, message, micros, "rolled back");
    }
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
                        tell(name, &before, machine);
                    }
                }
                Err(error) => {
                    self.not_written(name, &error);
                    let Some(machine) = self.machines.get_mut(name) else { return };
                    machine.unheard |= matches!(event, Event::Assigned(_) | Event::Withdrawn);
                    let (state, instead) = unwritten(&before, machine.state.clone());
                    machine.state = state;
                    tell(name, &before, machine);
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
        if machine.unwritten.is_none() {
            machine.unwritten = Some(Instant::now());
            tracing::error!(
                deployment = name,
                error = in_full(error),
                "a state could not be written; what serves goes on, and so do the attempts"
            );
        }
    }

    /// After a write that failed: once more what was asked for, and the wish that may have been lost.
    pub(super) fn write_again(&mut self, name: &str) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        if let Some(at) = machine.unwritten.as_mut().filter(|at| at.elapsed() >= WRITE_AGAIN) {
            *at = Instant::now();
            self.event(name, &Event::Resumed);
        }
        // Whatever write was the first that succeeded.
        if let Some(machine) = self.machines.get_mut(name)
            && machine.unwritten.is_none()
            && std::mem::take(&mut machine.unheard)
        {
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
        let in_slots: Vec<ReleaseId> = machine.state.releases().map(ReleaseId::from).collect();
        let remembered: Vec<ReleaseId> = machine.state.rejected.iter().map(|r| r.id).collect();
        let file = SlotFile {
            format: crate::state::FORMAT,
            state: machine.state.clone(),
            installed: {
                let proved = machine.installed.iter().map(|(id, installed)| (id, &installed.accepted));
                let all = proved.chain(&machine.unproved).filter(|(id, _)| in_slots.contains(id));
                all.map(|(id, accepted)| (*id, accepted.clone())).collect()
            },
            rollback_micros: {
                let all = machine.rollback_micros.iter().filter(|(id, _)| remembered.contains(id));
                all.map(|(id, n)| (*id, *n)).collect()
            },
        };
        self.parts.dir.write(&format!("slots/{name}.json"), &file)?;
        // Not before: a state that could not be written stays what it was, with all that it names.
        machine.installed.retain(|id, _| in_slots.contains(id));
        machine.unproved.retain(|id, _| in_slots.contains(id));
        machine.unloaded.retain(|id, _| in_slots.contains(id));
        machine.rollback_micros.retain(|id, _| remembered.contains(id));
        Ok(())
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

    fn fetch(&mut self, name: &str, release: &ReleaseRef, relabel: bool) {
        if self.expired() {
            return; // the tick asks again
        }
        let Some(target) = self.parts.target.clone() else { return };
        let Some(machine) = self.machines.get_mut(name) else { return };
        let (source, roots, send) = (self.parts.source.clone(), self.parts.roots.clone(), self.parts.send.clone());
        let (name, release, deployment) = (name.to_owned(), release.clone(), machine.state.deployment.clone());
        let mut floors = Floors::default();
        floors.raise_release(&deployment, machine.state.floor);
        let id = ReleaseId::from(&release);
        let task = tokio::spawn(async move {
            let result = source.release(&release, &deployment, target, &roots, &floors, !relabel).await;
            let _ = send.send(Input::Fetched { name, id, relabel, result });
        });
        if let Some((_, before)) = machine.fetching.replace((id, task.abort_handle())) {
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
        let store = Arc::clone(&self.parts.source.store);
        let (id, used) = (ReleaseId::from(release), self.memory_used());
        let Some(machine) = self.machines.get_mut(name) else { return };
        let Some(installed) = machine.installed.get(&id) else {
            // It could not be verified again after a start.
            return self.event(name, &Event::Damaged(id));
        };
        // What was too large is not read and hashed again before there is more room.
        if let Some((_, needed)) = machine.too_large.filter(|(of, _)| *of == id)
            && used.saturating_add(needed) > self.parts.memory_budget
        {
            let message = too_large(needed, used, self.parts.memory_budget);
            return self.event(name, &Event::Deferred { of: id, reason: FailureReason::InsufficientMemory, message });
        }
        if machine.preparing {
            return;
        }
        machine.preparing = true;
        let (statement, model) = (installed.statement.clone(), machine.state.model.clone());
        let (release, name, send) = (release.clone(), name.to_owned(), self.parts.send.clone());
        tokio::task::spawn_blocking(move || {
            let result = loaded::prepare(&store, &release, &statement, &model, &runner);
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
            Err(error) => {
                let event = machine.set_back(id, error);
                self.event(name, &event);
            }
            Ok(_) if !open => {} // the next tick asks again
            Ok(prepared) if used.saturating_add(prepared.memory()) > budget => {
                machine.too_large = Some((id, prepared.memory()));
                let (reason, message) = (FailureReason::InsufficientMemory, too_large(prepared.memory(), used, budget));
                self.event(name, &Event::Deferred { of: id, reason, message });
            }
            Ok(prepared) => {
                machine.prepared = Some((id, prepared));
                self.event(name, &Event::Admitted(id));
            }
        }
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
                machine.damages = None;
                machine.replayed = 0;
                machine.last_live = Instant::now();
                self.event(name, &Event::ProbePassed(id));
                self.forget_unused(name);
            }
            Err(Unloadable { reason, message }) => self.event(name, &set_aside(id, reason, message)),
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
}

fn too_large(needed: u64, used: u64, budget: u64) -> String {
    let left = budget.saturating_sub(used);
    format!("it needs {needed} bytes of memory with its spare, and of limits.memory ({budget} bytes) {left} are left")
}
