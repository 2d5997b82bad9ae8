//! One deployment, its disk, and whatever may happen to them.

use std::collections::BTreeSet;

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{Blob, Counter, DeploymentRef, Digest, ReleaseNumber, ReleaseRef, TrialPolicy, UnixMillis};
use ballast_slots::{Effect, Event, Phase, Rejected, ReleaseId, State, Willing, Wish, step, unwritten};

const NOW: u64 = 1_000_000;
const LONG: u64 = 60_000;

pub(crate) fn release(version: &str, counter: u64, content: &str) -> ReleaseRef {
    let blob = |what: &str| Blob { digest: Digest::of(what.as_bytes()), size: what.len() as u64 };
    ReleaseRef {
        version: version.to_owned(),
        number: ReleaseNumber { epoch: 1, counter: Counter(counter) },
        repository: "ns/digits".to_owned(),
        manifest: blob(content),
        statement: blob(version),
    }
}

fn wish(want: Option<&ReleaseRef>, stable: Option<&ReleaseRef>) -> Wish {
    let trial = TrialPolicy { min_duration_millis: LONG, min_requests: 1, max_failures: 0 };
    Wish { want: want.cloned(), stable: stable.cloned(), trial }
}

pub(crate) fn updates() -> Vec<Wish> {
    let (one, two, four) = (release("1", 1, "a"), release("2", 2, "b"), release("4", 4, "c"));
    vec![
        wish(Some(&one), None),
        wish(Some(&two), Some(&one)),
        wish(Some(&four), Some(&one)),
        wish(Some(&four), Some(&four)),
        wish(None, None),
    ]
}

pub(crate) fn relabels() -> Vec<Wish> {
    let (one, two, three) = (release("1", 1, "a"), release("2", 2, "b"), release("3", 3, "b"));
    // As the operator sends them: outside a rollout `stable` is `want`.
    vec![
        wish(Some(&two), Some(&one)),
        wish(Some(&three), Some(&one)),
        wish(Some(&three), Some(&three)),
        wish(Some(&one), Some(&one)),
    ]
}

pub(crate) fn random_wishes(random: &mut impl FnMut() -> u64) -> Vec<Wish> {
    let contents = ["a", "b", "c", "d"];
    let releases: Vec<_> =
        (1..9).map(|n| release(&n.to_string(), n, contents[random() as usize % contents.len()])).collect();
    (0..12)
        .map(|_| {
            let mut pick = || releases.get(random() as usize % (releases.len() + 1)).cloned();
            let (want, stable) = (pick(), pick());
            wish(want.as_ref(), stable.as_ref())
        })
        .collect()
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Op {
    Fetch(ReleaseId),
    Relabel(ReleaseId),
    Admit(ReleaseId),
    Probe(ReleaseId),
}

#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Event(Event),
    Finished(Op, Event),
    Later(Event),
    /// A start with a clock that lost its time.
    Earlier(Event),
}

/// What is on disk, in memory, under way, and what was ever true.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) disk: State,
    memory: State,
    up: bool,
    /// A write failed and was not made good yet.
    stalled: bool,
    live: Option<(ReleaseId, Option<ReleaseId>)>,
    running: BTreeSet<Op>,
    fetched: BTreeSet<Digest>,
    probed: BTreeSet<Digest>,
    rejected: BTreeSet<ReleaseId>,
    called_stable: BTreeSet<ReleaseId>,
    lean: bool,
    /// Whether writes may fail.
    failing: bool,
}

impl World {
    pub(crate) fn new(lean: bool, failing: bool) -> Self {
        let deployment = DeploymentRef { namespace: "ns".parse().unwrap(), name: "digits".to_owned() };
        let state = State::new(deployment, "digits".to_owned());
        Self {
            disk: state.clone(),
            memory: state,
            up: true,
            stalled: false,
            live: None,
            running: BTreeSet::new(),
            fetched: BTreeSet::new(),
            probed: BTreeSet::new(),
            rejected: BTreeSet::new(),
            called_stable: BTreeSet::new(),
            lean,
            failing,
        }
    }

    /// One that rejected so much before that the next rejections push older ones out.
    pub(crate) fn weary(lean: bool) -> Self {
        let mut world = Self::new(lean, false);
        for n in 0..32u32 {
            let number = ReleaseNumber { epoch: 1, counter: Counter(1) };
            let id = ReleaseId { number, manifest: Digest::of(&n.to_le_bytes()) };
            let (version, reason, message) = (String::new(), FailureReason::Trap, String::new());
            let rejected = Rejected { id, version, reason, message, at: UnixMillis(NOW), requests: 0, failures: 0 };
            world.disk.rejected.push(rejected);
        }
        world.memory = world.disk.clone();
        world
    }

    /// A rejection holds that could not be written.
    pub(crate) fn is_ahead_of_its_disk(&self) -> bool {
        self.up && self.memory.rejected.len() > self.disk.rejected.len()
    }

    pub(crate) fn happenings(&self, wishes: &[Wish]) -> Vec<Happening> {
        if !self.up {
            let booted = || Event::Booted;
            return vec![Happening::Event(booted()), Happening::Later(booted()), Happening::Earlier(booted())];
        }
        let mut all: Vec<_> = wishes.iter().map(|w| Happening::Event(Event::Assigned(w.clone()))).collect();
        all.extend([Happening::Event(Event::Withdrawn), Happening::Event(Event::Tick), Happening::Later(Event::Tick)]);
        if self.stalled {
            all.push(Happening::Event(Event::Resumed));
        }
        if let Some(candidate) = &self.memory.candidate {
            all.push(Happening::Event(Event::Damaged((&candidate.release).into())));
        }
        for op in &self.running {
            let finished = |event| Happening::Finished(op.clone(), event);
            let failed = |of: &ReleaseId, reason| {
                finished(Event::Rejected { of: *of, reason, message: "it is broken".to_owned() })
            };
            let full =
                |of: &ReleaseId, reason| finished(Event::Deferred { of: *of, reason, message: "no room".to_owned() });
            match op {
                Op::Fetch(id) => {
                    all.push(finished(Event::Fetched(*id)));
                    all.push(failed(id, FailureReason::VerificationFailed));
                    all.push(full(id, FailureReason::InsufficientDisk));
                }
                Op::Relabel(id) => {
                    all.push(finished(Event::Relabelled(*id)));
                    all.push(failed(id, FailureReason::VerificationFailed));
                }
                Op::Admit(id) => {
                    all.push(finished(Event::Admitted(*id)));
                    all.push(full(id, FailureReason::InsufficientMemory));
                }
                Op::Probe(id) => {
                    all.push(finished(Event::ProbePassed(*id)));
                    all.push(failed(id, FailureReason::GoldenMismatch));
                    all.push(full(id, FailureReason::InsufficientMemory));
                }
            }
        }
        if let Some((primary, backup)) = self.live {
            for id in [Some(primary), backup].into_iter().flatten() {
                let message = "guest trapped".to_owned();
                all.push(Happening::Event(Event::Answered { by: id, requests: 1 }));
                all.push(Happening::Event(Event::RequestFailed { on: id, reason: FailureReason::Trap, message }));
                let (reason, message) = (FailureReason::InsufficientMemory, "no memory for an instance".to_owned());
                all.push(Happening::Event(Event::Deferred { of: id, reason, message }));
            }
        }
        all
    }

    /// The world after each prefix of effects and a power cut, and last the one without.
    pub(crate) fn after(&self, happening: &Happening) -> Vec<World> {
        let mut world = self.clone();
        let (event, now) = match happening {
            Happening::Event(event) => (event, NOW),
            Happening::Later(event) => (event, NOW + LONG),
            Happening::Earlier(event) => (event, 5),
            Happening::Finished(op, event) => {
                world.running.remove(op);
                if let Event::Fetched(id) = event {
                    world.fetched.insert(id.manifest);
                }
                if let Event::ProbePassed(id) = event {
                    world.probed.insert(id.manifest);
                }
                (event, NOW)
            }
        };
        world.up = true;
        let (next, effects) = step(&world.memory, event, UnixMillis(now));
        check_step(&world, event, &next, &effects);
        if let Event::Assigned(wish) = event {
            world.called_stable.extend(wish.stable.as_ref().map(ReleaseId::from));
        }
        if matches!(event, Event::Booted | Event::Resumed) {
            world.stalled = false;
        }
        let mut worlds = Vec::with_capacity(effects.len() + 2);
        let before = world.clone();
        if world.failing && effects.contains(&Effect::Persist) {
            let (state, instead) = unwritten(&before.memory, next.clone());
            let mut failed = world.clone();
            (failed.memory, failed.stalled) = (state, true);
            instead.iter().for_each(|effect| failed.apply(effect));
            assert!(!instead.contains(&Effect::Persist));
            failed.canonical(now);
            check_settled(&before, event, &failed);
            worlds.push(failed.crashed(NOW));
            worlds.push(failed);
        }
        world.memory = next;
        for effect in &effects {
            worlds.push(world.crashed(now));
            world.apply(effect);
        }
        // Before the arrow is written the next start finds the damage itself.
        if let Event::Damaged(id) = event
            && world.memory.releases().filter(|r| r.manifest.digest == id.manifest).count() == 1
        {
            world.fetched.remove(&id.manifest);
        }
        world.canonical(now);
        check_settled(&before, event, &world);
        worlds.push(world.crashed(NOW));
        worlds.push(world);
        worlds
    }

    fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Persist => {
                self.disk = self.memory.clone();
                self.rejected.extend(self.disk.rejected.iter().map(|r| r.id));
            }
            Effect::Fetch(r) => drop(self.running.insert(Op::Fetch(r.into()))),
            Effect::Relabel(r) => drop(self.running.insert(Op::Relabel(r.into()))),
            Effect::Admit(r) => drop(self.running.insert(Op::Admit(r.into()))),
            Effect::Probe(r) => drop(self.running.insert(Op::Probe(r.into()))),
            Effect::Switch => {
                self.live = self.memory.serving().map(|s| (s.primary.into(), s.backup.map(Into::into)));
            }
            Effect::Report => {}
            Effect::Collect => {
                // Stores delete what no slot names; what is served must never be among it.
                let keep: BTreeSet<_> = self.memory.releases().map(|r| r.manifest.digest).collect();
                self.fetched.retain(|d| keep.contains(d));
            }
        }
    }

    fn crashed(&self, now: u64) -> World {
        let mut world = self.clone();
        world.memory = world.disk.clone();
        world.up = false;
        world.stalled = false;
        world.live = None;
        world.running.clear();
        world.canonical(now);
        world
    }

    /// Times become "just now" or "long ago" and counts stay small, so that the set of worlds is finite.
    fn canonical(&mut self, now: u64) {
        for state in [&mut self.disk, &mut self.memory] {
            let age = |since: &mut UnixMillis| {
                *since = UnixMillis(if now.saturating_sub(since.0) >= LONG { NOW - LONG } else { NOW })
            };
            for held in state.active.iter_mut().chain(&mut state.fallback) {
                age(&mut held.since);
                held.requests = held.requests.min(1);
                held.failures = held.failures.min(1);
            }
            if let Some(candidate) = &mut state.candidate {
                age(&mut candidate.since);
                candidate.requests = candidate.requests.min(1);
                candidate.failures = candidate.failures.min(1);
            }
            for rejected in &mut state.rejected {
                (rejected.at, rejected.requests, rejected.failures) = (UnixMillis(NOW), 0, 0);
                (rejected.reason, rejected.message) = (FailureReason::Trap, String::new());
            }
            for held in state.active.iter_mut().chain(&mut state.fallback) {
                held.requests = 0;
            }
            if state.fallback.is_none() {
                // Without a fallback nobody counts the starts or failures of what is active.
                if let Some(held) = &mut state.active {
                    (held.boots, held.failures, held.since) = (0, 0, UnixMillis(NOW));
                }
            }
            // Rejections form a set; the order they came in makes no difference to the machine.
            state.rejected.sort_by_key(|r| r.id);
        }
        let named: BTreeSet<_> =
            self.memory.releases().chain(self.disk.releases()).map(|r| r.manifest.digest).collect();
        self.probed.retain(|d| named.contains(d));
        if self.lean {
            // Late answers about releases that left are for the random runs: here they only multiply worlds.
            let candidate = self.memory.candidate.as_ref().map(|c| ReleaseId::from(&c.release));
            self.running.retain(|op| {
                let (Op::Fetch(id) | Op::Relabel(id) | Op::Admit(id) | Op::Probe(id)) = op;
                Some(*id) == candidate
            });
            self.fetched.retain(|d| named.contains(d));
        }
    }
}

fn check_step(world: &World, event: &Event, next: &State, effects: &[Effect]) {
    let before = &world.memory;
    let context = || format!("{event:?}\nfrom {before:#?}\nto {next:#?}\nwith {effects:#?}");
    assert!(
        effects.iter().skip(1).all(|e| *e != Effect::Persist),
        "one write per arrow, before all else: {}",
        context()
    );
    let phase = |s: &State| s.candidate.as_ref().map(|c| (ReleaseId::from(&c.release), c.phase));
    let slots = |s: &State| [&s.active, &s.fallback].map(|h| h.as_ref().map(|h| ReleaseId::from(&h.release)));
    let moved = phase(before) != phase(next) || slots(before) != slots(next) || before.rejected != next.rejected;
    assert!(!(moved && effects.first() != Some(&Effect::Persist)), "an arrow was not written: {}", context());

    assert!(next.floor >= before.floor, "the floor sank: {}", context());
    if next.floor != before.floor {
        let active = next.active.as_ref().map(|h| h.release.number);
        assert_eq!(active, Some(next.floor), "the floor rose without Active: {}", context());
    }
    if let Some(fallback) = &next.fallback {
        let id = ReleaseId::from(&fallback.release);
        let called = matches!(event, Event::Assigned(w) if w.stable.as_ref().map(ReleaseId::from) == Some(id));
        assert!(world.called_stable.contains(&id) || called, "a superseded release became fallback: {}", context());
    }
    for effect in effects {
        match effect {
            Effect::Fetch(r) | Effect::Relabel(r) | Effect::Admit(r) | Effect::Probe(r) => {
                assert!(!world.rejected.contains(&r.into()), "a rejected release is tried again: {}", context());
                let relabel = next.willing(r) == Willing::Relabel;
                assert_eq!(relabel, matches!(effect, Effect::Relabel(_)), "a relabel fetches nothing: {}", context());
                if matches!(effect, Effect::Fetch(_)) {
                    assert!(r.number >= next.floor, "fetches below the floor: {}", context());
                }
            }
            Effect::Persist | Effect::Switch | Effect::Report | Effect::Collect => {}
        }
    }
}

fn check_settled(before: &World, event: &Event, world: &World) {
    let context = || format!("{event:?}\nbefore {before:#?}\nafter {world:#?}");
    let serving = world.memory.serving().map(|s| (ReleaseId::from(s.primary), s.backup.map(ReleaseId::from)));
    assert_eq!(world.live, serving, "a change was not switched: {}", context());
    for id in serving.iter().flat_map(|(p, b)| [Some(*p), *b]).flatten() {
        assert!(world.fetched.contains(&id.manifest), "serves what was never fetched, or deleted: {}", context());
        assert!(world.probed.contains(&id.manifest), "serves what was never probed: {}", context());
        assert!(!world.rejected.contains(&id), "serves what was rejected: {}", context());
    }
    if let Some((_, backup)) = before.live.filter(|_| *event != Event::Withdrawn && before.up) {
        let sole = backup.is_none()
            && matches!(
                event,
                Event::Rejected { .. } | Event::RequestFailed { .. } | Event::Damaged(_) | Event::Deferred { .. }
            );
        let superseded = matches!(event, Event::Assigned(_)) && before.memory.active.is_none();
        assert!(world.live.is_some() || sole || superseded, "nothing serves any more: {}", context());
    }
    if world.memory.candidate.as_ref().is_some_and(|c| c.phase == Phase::Trial) && world.memory.active.is_some() {
        assert!(world.live.is_some_and(|(_, backup)| backup.is_some()), "a trial without its backup: {}", context());
    }
    // Nothing gets stuck: whatever a candidate waits for is under way, or the next tick asks for it again. After a write
    // that failed it is the next write that works.
    if let Some(candidate) = world.memory.candidate.as_ref().filter(|_| !world.stalled) {
        let id = ReleaseId::from(&candidate.release);
        let (_, tick) = step(&world.memory, &Event::Tick, UnixMillis(NOW + LONG));
        let moving = match (candidate.phase, candidate.deferred.is_some()) {
            (Phase::Fetching, false) => world.running.contains(&Op::Fetch(id)),
            (Phase::Fetching, true) => tick.iter().any(|e| matches!(e, Effect::Fetch(_))),
            (Phase::Relabelling, _) => world.running.contains(&Op::Relabel(id)),
            (Phase::Verified, _) => tick.iter().any(|e| matches!(e, Effect::Admit(_))),
            (Phase::Probing, _) => world.running.contains(&Op::Probe(id)),
            (Phase::Trial, _) => true,
        };
        assert!(moving, "stuck: {}", context());
    }
}
