//! The arrows.

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{ReleaseRef, UnixMillis};

use crate::{Candidate, Effect, Event, Held, Phase, Rejected, ReleaseId, State, Willing, Wish};

/// A process that ends this soon after a release's arrow, or after a start with it, is put down to the release.
pub const BOOT_WINDOW_MILLIS: u64 = 10_000;
/// So many such ends in a row reject it; one may be a power cut.
pub const MAX_BOOTS: u32 = 2;

/// A release that had no room is looked at again after so long.
pub const RETRY_MILLIS: u64 = 5_000;

/// The next state and what to do, in order.
///
/// `now` must not jump while the process runs: trials are measured with it. Between two starts it may be anything.
pub fn step(state: &State, event: &Event, now: UnixMillis) -> (State, Vec<Effect>) {
    let mut next = Step { state: state.clone(), effects: Vec::new(), now };
    match event {
        Event::Booted => next.booted(),
        Event::Resumed => next.resumed(),
        Event::Damaged(of) => next.damaged(of),
        Event::Assigned(wish) => next.assigned(wish),
        Event::Withdrawn => next.withdrawn(),
        Event::Fetched(of) => {
            next.advance(of, Phase::Fetching, Phase::Verified, Effect::Admit);
        }
        Event::Relabelled(of) => next.relabelled(of),
        Event::Admitted(of) => {
            next.advance(of, Phase::Verified, Phase::Probing, Effect::Probe);
        }
        Event::Deferred { of, reason, message } => next.deferred(of, *reason, message),
        Event::ProbePassed(of) => next.probe_passed(of),
        Event::Rejected { of, reason, message } => next.reject(of, *reason, message),
        Event::Answered { by, requests } => next.answered(by, *requests),
        Event::RequestFailed { on, reason, message } => next.request_failed(on, *reason, message),
        Event::Tick => next.tick(),
    }
    (next.state, next.effects)
}

/// What is done where `next`, which [`step`] made of `before`, could not be written: the state to go on with, and the
/// effects in place of `step`'s. [`Event::Resumed`] is to follow after a while, until the disk takes writes again.
///
/// Nothing happens before its arrow is on disk, so the machine stays where it was. Only a rejection holds at once: a
/// full disk must not keep traffic on a release that fails, and a power cut before the write only rejects it once more.
pub fn unwritten(before: &State, next: State) -> (State, Vec<Effect>) {
    if next.rejected == before.rejected {
        return (before.clone(), vec![Effect::Switch]);
    }
    (next, vec![Effect::Switch, Effect::Report])
}

struct Step {
    state: State,
    effects: Vec<Effect>,
    now: UnixMillis,
}

impl Step {
    fn persist(&mut self) {
        // One arrow, one write: it goes before everything that the arrow lets happen.
        if !self.effects.contains(&Effect::Persist) {
            self.effects.insert(0, Effect::Persist);
        }
    }

    fn emit(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    fn candidate(&mut self, of: &ReleaseId) -> Option<&mut Candidate> {
        self.state.candidate.as_mut().filter(|c| ReleaseId::from(&c.release) == *of)
    }

    fn advance(&mut self, of: &ReleaseId, from: Phase, to: Phase, effect: fn(ReleaseRef) -> Effect) -> bool {
        let now = self.now;
        let Some(candidate) = self.candidate(of).filter(|c| c.phase == from) else { return false };
        candidate.phase = to;
        candidate.since = now;
        // A probe that ended the process before goes on counting.
        candidate.boots = if to == Phase::Probing { candidate.boots.max(1) } else { 0 };
        candidate.deferred = None;
        (candidate.requests, candidate.failures) = (0, 0);
        let release = candidate.release.clone();
        self.persist();
        self.emit(effect(release));
        self.emit(Effect::Report);
        true
    }

    fn assigned(&mut self, wish: &Wish) {
        if self.state.wish.as_ref() != Some(wish) {
            self.state.wish = Some(wish.clone());
            self.persist();
        }
        let stable = wish.stable.as_ref().map(ReleaseId::from);
        for held in self.state.active.iter_mut().chain(&mut self.state.fallback) {
            if !held.finished && stable == Some(ReleaseId::from(&held.release)) {
                held.finished = true;
                if !self.effects.contains(&Effect::Persist) {
                    self.effects.insert(0, Effect::Persist);
                }
            }
        }
        if self.state.active.as_ref().is_some_and(|h| h.finished) && self.state.fallback.is_some() {
            self.state.fallback = None;
            self.persist();
            self.emit(Effect::Switch);
            self.emit(Effect::Collect);
        }
        self.pursue();
    }

    /// What the wish asks to be brought here next, or nothing.
    fn goal(&self) -> Option<(ReleaseRef, Willing)> {
        let wish = self.state.wish.as_ref()?;
        let want = wish.want.as_ref().or(wish.stable.as_ref())?;
        // A gateway that holds nothing takes the proven release first: the wanted one needs something to fall back to.
        let bare = self.state.active.is_none() && self.state.fallback.is_none();
        if let Some(stable) = wish.stable.as_ref().filter(|s| bare && *s != want)
            && self.state.willing(stable) == Willing::Install
        {
            return Some((stable.clone(), Willing::Install));
        }
        Some((want.clone(), self.state.willing(want)))
    }

    /// Starts whatever brings the gateway nearer to its wish.
    fn pursue(&mut self) {
        let goal = self.goal();
        let superseded = self.state.candidate.as_ref().is_some_and(|c| {
            goal.as_ref().is_none_or(|(release, willing)| {
                let way = if c.phase == Phase::Relabelling { Willing::Relabel } else { Willing::Install };
                ReleaseId::from(release) != ReleaseId::from(&c.release) || *willing != way
            })
        });
        if superseded && self.state.wish.is_some() {
            // It was never Active: it leaves without becoming a fallback, and without blame.
            self.state.candidate = None;
            self.persist();
            self.emit(Effect::Switch);
            self.emit(Effect::Collect);
        }
        let Some((release, willing)) = goal else { return };
        match willing {
            Willing::Active | Willing::Rejected | Willing::BelowFloor => {}
            Willing::Fallback => {
                if let Some(mut fallback) = self.state.fallback.take() {
                    (fallback.since, fallback.boots) = (self.now, 0);
                    self.state.active = Some(fallback);
                    self.persist();
                    self.emit(Effect::Switch);
                    self.emit(Effect::Report);
                    self.emit(Effect::Collect);
                }
            }
            Willing::Relabel => self.begin(release, Phase::Relabelling, Effect::Relabel),
            Willing::Install => self.begin(release, Phase::Fetching, Effect::Fetch),
        }
    }

    fn begin(&mut self, release: ReleaseRef, phase: Phase, effect: fn(ReleaseRef) -> Effect) {
        if self.state.candidate.is_some() {
            return;
        }
        let Some(trial) = self.state.wish.as_ref().map(|w| w.trial.clone()) else { return };
        self.state.candidate = Some(Candidate {
            release: release.clone(),
            phase,
            trial,
            since: self.now,
            boots: 0,
            requests: 0,
            failures: 0,
            deferred: None,
        });
        self.persist();
        self.emit(effect(release));
        self.emit(Effect::Report);
    }

    fn withdrawn(&mut self) {
        let state = &mut self.state;
        let had =
            state.wish.is_some() || state.active.is_some() || state.candidate.is_some() || state.fallback.is_some();
        // The floor and what was rejected stay: a deployment that comes back under its name starts from there.
        (state.wish, state.active, state.candidate, state.fallback) = (None, None, None, None);
        if had {
            self.persist();
            self.emit(Effect::Switch);
            self.emit(Effect::Report);
            self.emit(Effect::Collect);
        }
    }

    fn deferred(&mut self, of: &ReleaseId, reason: FailureReason, message: &str) {
        let now = self.now;
        let Some(candidate) = self.candidate(of) else { return };
        let phase = match candidate.phase {
            Phase::Fetching => Phase::Fetching,
            // What was promised room and did not get it after all waits for room again.
            Phase::Verified | Phase::Probing => Phase::Verified,
            // After a start there may be no room for it beside what serves.
            Phase::Trial => Phase::Verified,
            Phase::Relabelling => return,
        };
        candidate.since = now;
        let deferred = Some((reason, message.to_owned()));
        if candidate.deferred != deferred || candidate.phase != phase {
            let served = candidate.phase == Phase::Trial;
            candidate.deferred = deferred;
            candidate.phase = phase;
            candidate.boots = 0;
            self.persist();
            if served {
                self.emit(Effect::Switch);
            }
            self.emit(Effect::Report);
        }
    }

    fn damaged(&mut self, of: &ReleaseId) {
        let now = self.now;
        let Some(candidate) = self.candidate(of) else { return };
        match candidate.phase {
            Phase::Fetching | Phase::Relabelling => return,
            Phase::Verified | Phase::Probing | Phase::Trial => {}
        }
        (candidate.phase, candidate.since, candidate.boots, candidate.deferred) = (Phase::Fetching, now, 0, None);
        let release = candidate.release.clone();
        self.persist();
        self.emit(Effect::Switch);
        self.emit(Effect::Fetch(release));
        self.emit(Effect::Report);
    }

    fn probe_passed(&mut self, of: &ReleaseId) {
        let now = self.now;
        let Some(candidate) = self.candidate(of).filter(|c| c.phase == Phase::Probing) else { return };
        candidate.phase = Phase::Trial;
        candidate.since = now;
        candidate.boots = 1;
        (candidate.requests, candidate.failures) = (0, 0);
        // What stands behind a trial is the release that finished its steps, never one that was itself superseded.
        if let Some(fallback) = self.state.fallback.take() {
            self.state.active = Some(fallback);
            self.emit(Effect::Collect);
        }
        self.persist();
        self.emit(Effect::Switch);
        self.emit(Effect::Report);
    }

    fn relabelled(&mut self, of: &ReleaseId) {
        if self.candidate(of).is_none_or(|c| c.phase != Phase::Relabelling) {
            return;
        }
        let Some(candidate) = self.state.candidate.take() else { return };
        if let Some(active) = &mut self.state.active {
            active.release = candidate.release;
            active.trial = candidate.trial;
            active.finished =
                self.state.wish.as_ref().and_then(|w| w.stable.as_ref()).is_some_and(|s| ReleaseId::from(s) == *of);
            self.state.floor = self.state.floor.max(of.number);
        }
        self.persist();
        self.emit(Effect::Switch);
        self.emit(Effect::Report);
        self.emit(Effect::Collect);
        self.pursue();
    }

    fn answered(&mut self, by: &ReleaseId, requests: u64) {
        if let Some(candidate) = self.candidate(by) {
            candidate.requests = candidate.requests.saturating_add(requests);
            self.promote();
            return;
        }
        for held in self.state.active.iter_mut().chain(&mut self.state.fallback) {
            if ReleaseId::from(&held.release) == *by {
                held.requests = held.requests.saturating_add(requests);
                return;
            }
        }
    }

    fn request_failed(&mut self, on: &ReleaseId, reason: FailureReason, message: &str) {
        if !reason.is_failure() {
            return;
        }
        let over = if let Some(candidate) = self.candidate(on) {
            candidate.failures = candidate.failures.saturating_add(1);
            candidate.phase == Phase::Trial && candidate.failures > candidate.trial.max_failures
        } else if let Some(active) = self.state.active.as_mut().filter(|h| ReleaseId::from(&h.release) == *on) {
            active.failures = active.failures.saturating_add(1);
            self.state.fallback.is_some() && active.failures > active.trial.max_failures
        } else {
            false
        };
        if over {
            self.reject(on, reason, message);
        }
    }

    fn reject(&mut self, of: &ReleaseId, reason: FailureReason, message: &str) {
        let (version, requests, failures) = if self.candidate(of).is_some() {
            let Some(candidate) = self.state.candidate.take() else { return };
            (candidate.release.version, candidate.requests, candidate.failures)
        } else if self.state.active.as_ref().is_some_and(|h| ReleaseId::from(&h.release) == *of)
            && self.state.fallback.is_some()
        {
            let Some(active) = self.state.active.take() else { return };
            self.state.active = self.state.fallback.take().map(|h| Held { since: self.now, boots: 0, ..h });
            (active.release.version, active.requests, active.failures)
        } else {
            return;
        };
        let mut end = message.len().min(512);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = message.get(..end).unwrap_or_default().to_owned();
        let rejected = Rejected { id: *of, version, reason, message, at: self.now, requests, failures };
        self.state.remember_rejected(rejected);
        self.persist();
        self.emit(Effect::Switch);
        self.emit(Effect::Report);
        self.emit(Effect::Collect);
        self.pursue();
    }

    fn promote(&mut self) {
        let now = self.now;
        let passed = self.state.candidate.as_ref().is_some_and(|c| {
            c.phase == Phase::Trial
                && c.failures <= c.trial.max_failures
                && c.requests >= c.trial.min_requests
                && now.0.saturating_sub(c.since.0) >= c.trial.min_duration_millis
        });
        if !passed {
            return;
        }
        let Some(candidate) = self.state.candidate.take() else { return };
        let id = ReleaseId::from(&candidate.release);
        let stable = self.state.wish.as_ref().and_then(|w| w.stable.as_ref()).map(ReleaseId::from);
        let finished = stable == Some(id);
        // Floor and slot change in one write: there is no moment at which one is ahead of the other.
        self.state.floor = self.state.floor.max(id.number);
        self.state.fallback = self.state.active.take().filter(|h| h.finished && !finished);
        self.state.active = Some(Held {
            release: candidate.release,
            trial: candidate.trial,
            since: now,
            boots: 1,
            requests: candidate.requests,
            failures: candidate.failures,
            finished,
        });
        self.persist();
        self.emit(Effect::Switch);
        self.emit(Effect::Report);
        self.emit(Effect::Collect);
        self.pursue();
    }

    fn tick(&mut self) {
        self.promote();
        self.lasted();
        let Some(candidate) = &self.state.candidate else { return };
        let release = candidate.release.clone();
        let waited = self.now.0.saturating_sub(candidate.since.0) >= RETRY_MILLIS;
        match (candidate.phase, candidate.deferred.is_some()) {
            (Phase::Verified, false) => self.emit(Effect::Admit(release)),
            (Phase::Verified, true) if waited => self.emit(Effect::Admit(release)),
            (Phase::Fetching, true) if waited => self.emit(Effect::Fetch(release)),
            (Phase::Verified | Phase::Fetching | Phase::Relabelling | Phase::Probing | Phase::Trial, _) => {}
        }
    }

    /// What ran for so long is not what ends the process within seconds.
    fn lasted(&mut self) {
        let now = self.now;
        let over = |since: UnixMillis| now.0.saturating_sub(since.0) >= BOOT_WINDOW_MILLIS;
        let mut changed = false;
        let trying = self.state.is_trying();
        if let Some(candidate) = self.state.candidate.as_mut().filter(|c| trying && c.boots > 0 && over(c.since)) {
            candidate.boots = 0;
            changed = true;
        }
        // Without a fallback nobody asks.
        let blamable = self.state.fallback.is_some();
        if let Some(active) = self.state.active.as_mut().filter(|h| blamable && h.boots > 0 && over(h.since)) {
            active.boots = 0;
            changed = true;
        }
        if changed {
            self.persist();
        }
    }

    fn booted(&mut self) {
        let now = self.now;
        self.emit(Effect::Switch);
        // A candidate that is being probed or tried is the newest thing in the process: the blame is its.
        let trying = self.state.is_trying();
        if let Some(active) = &mut self.state.active {
            if !trying {
                active.boots = active.boots.saturating_add(1);
            }
            active.since = now;
            (active.requests, active.failures) = (0, 0);
            // Only a release that still has something to fall back to can be blamed to any use.
            let blame =
                (self.state.fallback.is_some() && active.boots > MAX_BOOTS).then(|| ReleaseId::from(&active.release));
            self.persist();
            if let Some(id) = blame {
                self.reject(&id, FailureReason::CrashLoop, "the gateway restarted within seconds of starting with it");
            }
        }
        let Some(candidate) = &mut self.state.candidate else { return };
        // The clock before this start may have been another one.
        candidate.since = now;
        if trying {
            candidate.boots = candidate.boots.saturating_add(1);
            (candidate.requests, candidate.failures) = (0, 0);
            if candidate.boots > MAX_BOOTS {
                let id = ReleaseId::from(&candidate.release);
                self.persist();
                return self.reject(&id, FailureReason::CrashLoop, "the gateway restarted within seconds of trying it");
            }
            self.persist();
        }
        self.resume();
    }

    fn resumed(&mut self) {
        self.persist();
        self.emit(Effect::Switch);
        self.resume();
        self.emit(Effect::Report);
        self.emit(Effect::Collect);
    }

    /// Asks once more for whatever the candidate waits for.
    fn resume(&mut self) {
        let Some(candidate) = &mut self.state.candidate else { return };
        let release = candidate.release.clone();
        match candidate.phase {
            Phase::Fetching => self.emit(Effect::Fetch(release)),
            Phase::Relabelling => self.emit(Effect::Relabel(release)),
            Phase::Verified => self.emit(Effect::Admit(release)),
            Phase::Probing => {
                candidate.phase = Phase::Verified;
                self.persist();
                self.emit(Effect::Admit(release));
            }
            Phase::Trial => {}
        }
    }
}
