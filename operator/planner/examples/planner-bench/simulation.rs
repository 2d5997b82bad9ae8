//! A rollout over a simulated fleet: gateways that sync, fetch, try, vote and fall silent, in the order of their events,
//! and the real planner, asked after each of them as the controller does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ballast_bundle::UnixMillis;
use ballast_planner::{Counts, Decision, HaltCause, Policy, RolloutState, Score, plan};

use crate::random::Random;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
/// Between two syncs of a gateway when nothing is going on: the first word of a rollout takes so long at most.
pub const SYNC: u64 = 60 * SECOND;
/// The same during a rollout.
const HURRY: u64 = SECOND;
/// Download and verification of a bundle.
const FETCH: (u64, u64) = (2 * SECOND, 30 * SECOND);
/// `trial.minDuration` and `trial.minRequests` at one request every one to four seconds.
const TRIAL: (u64, u64) = (60 * SECOND, 90 * SECOND);
/// Gateways that are off went off this long before the rollout began at most.
const OFF_SINCE: u64 = 24 * HOUR;
/// Of the gateways on which the release fails, so many are never heard of again instead of saying so.
const SILENT_FAILURES: f64 = 0.1;
/// Scores that a controller hands to the planner.
const EXACT: usize = 64;

/// What is rolled out to whom.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// All of them eligible.
    pub gateways: usize,
    /// Of those, switched off before the rollout and throughout it; their number is rounded.
    pub switched_off: f64,
    /// On so many of the gateways the release fails.
    pub failure_rate: f64,
}

impl Fleet {
    /// Gateways that are off.
    pub fn off(&self) -> usize {
        (self.gateways as f64 * self.switched_off).round() as usize
    }

    /// The probability that the release fails on at least one gateway that is on: 1 − (1 − p)ⁿ.
    pub fn any_failure(&self) -> f64 {
        1.0 - (1.0 - self.failure_rate).powi((self.gateways - self.off()) as i32)
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: it passed its last step.
    pub halted: Option<HaltCause>,
    /// Gateways that were given the release at any time.
    pub reached: u64,
    /// How long it took.
    pub millis: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A member that waits syncs, and is given the release if there is a place.
    Sync(usize),
    Fetched(usize),
    Passed(usize),
    Failed(usize),
    /// A gateway that fetched the release has been silent for too long.
    Lost(usize),
    /// A gateway that was off all the time has.
    Away(usize),
    /// A step may have been watched for long enough.
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gateway {
    On,
    /// Off, and heard of recently enough to be waited for.
    Missing,
    Away,
}

/// Gateways are numbered in the order of their scores.
struct Simulation<'a> {
    policy: &'a Policy,
    failure_rate: f64,
    random: &'a mut Random,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    gateways: Vec<Gateway>,
    scores: Vec<Score>,
    /// The first that is not a member.
    outside: usize,
    /// Members that are on, were not given the release, and have no sync under way.
    waiting: Vec<usize>,
    /// Syncs under way.
    expected: u64,
    counts: Counts,
    may_give: u64,
    reached: u64,
}

/// Simulates one rollout. `observe` sees every look.
pub fn rollout(
    fleet: &Fleet,
    policy: &Policy,
    random: &mut Random,
    mut observe: impl FnMut(&RolloutState, &Counts),
) -> Result<Outcome, String> {
    let mut simulation = Simulation::new(fleet, policy, random);
    let mut state = RolloutState::default();
    let mut look_at = 0;
    loop {
        let next = simulation.next_scores();
        let plan = plan(&state, &simulation.counts, &next, policy, UnixMillis(simulation.now));
        state = plan.state;
        observe(&state, &simulation.counts);
        let done = |halted| Ok(Outcome { halted, reached: simulation.reached, millis: simulation.now - OFF_SINCE });
        match plan.decision {
            Decision::Halt { cause, .. } => return done(Some(cause)),
            Decision::Complete => return done(None),
            Decision::Wait(ballast_planner::WaitCause::Soaking { until }) if until.0 > look_at => {
                look_at = until.0;
                simulation.at(look_at, Event::Look);
            }
            Decision::Wait(_) => {}
        }
        simulation.admit(&state);
        simulation.may_give = plan.may_give;
        simulation.expect();
        if !simulation.step() {
            return Err(format!("nothing more happens and nothing is decided: {:?}, {state:?}", simulation.counts));
        }
    }
}

impl<'a> Simulation<'a> {
    fn new(fleet: &Fleet, policy: &'a Policy, random: &'a mut Random) -> Self {
        // Time begins when the first gateway went off, so that nothing happened before it.
        let now = OFF_SINCE;
        let count = fleet.gateways as u64;
        let mut simulation = Self {
            policy,
            failure_rate: fleet.failure_rate,
            random,
            now,
            events: BinaryHeap::new(),
            sequence: 0,
            gateways: Vec::with_capacity(fleet.gateways),
            scores: Vec::new(),
            outside: 0,
            waiting: Vec::new(),
            expected: 0,
            counts: Counts { selected: count, eligible: count, ..Counts::default() },
            may_give: 0,
            reached: 0,
        };
        let mut off = fleet.off() as u64;
        for i in 0..count {
            let gateway = if simulation.random.within(0, count - i) < off {
                off -= 1;
                let silent_at = simulation.random.within(0, OFF_SINCE) + policy.silence_millis + 1;
                if silent_at > now {
                    simulation.at(silent_at, Event::Away(i as usize));
                    Gateway::Missing
                } else {
                    Gateway::Away
                }
            } else {
                Gateway::On
            };
            let away = u64::from(gateway == Gateway::Away);
            simulation.counts.away += away;
            simulation.counts.silent += away;
            simulation.counts.outside += 1 - away;
            simulation.gateways.push(gateway);
        }
        simulation
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    /// The smallest scores outside, as the controller counts them.
    fn next_scores(&mut self) -> Vec<Score> {
        let mut next = Vec::with_capacity(EXACT);
        let mut i = self.outside;
        while next.len() < EXACT && i < self.gateways.len() {
            let score = self.score(i);
            if self.gateways[i] != Gateway::Away {
                next.push(score);
            }
            i += 1;
        }
        next
    }

    /// Order statistics of uniform numbers, drawn one after the other: the next of k that are left lies 1 − U^(1/k) of
    /// the rest further on.
    fn score(&mut self, i: usize) -> Score {
        while self.scores.len() <= i {
            let last = self.scores.last().map_or(0, |score| score.0);
            let left = (self.gateways.len() - self.scores.len()) as f64;
            let share = 1.0 - self.random.unit().powf(1.0 / left);
            self.scores.push(Score(last.saturating_add(((u64::MAX - last) as f64 * share) as u64)));
        }
        self.scores[i]
    }

    fn admit(&mut self, state: &RolloutState) {
        while self.outside < self.gateways.len() {
            let score = self.score(self.outside);
            if !state.threshold.admits(score) {
                break;
            }
            let gateway = self.gateways[self.outside];
            if gateway != Gateway::Away {
                self.counts.outside -= 1;
                self.counts.waiting += 1;
            }
            if gateway == Gateway::On {
                self.waiting.push(self.outside);
            }
            self.outside += 1;
        }
    }

    /// Whoever waits syncs sooner or later; which of them come first is chance.
    fn expect(&mut self) {
        while self.expected < self.may_give && !self.waiting.is_empty() {
            let lucky = self.random.within(0, self.waiting.len() as u64) as usize;
            let gateway = self.waiting.swap_remove(lucky);
            let pace = if self.now < OFF_SINCE + SYNC { SYNC } else { HURRY };
            let wait = self.random.within(0, pace);
            self.expected += 1;
            self.at(self.now + wait, Event::Sync(gateway));
        }
    }

    /// The next event; `false` when there is none.
    fn step(&mut self) -> bool {
        let Some(Reverse((time, _, event))) = self.events.pop() else { return false };
        self.now = time;
        match event {
            Event::Look => {}
            Event::Sync(gateway) => {
                self.expected -= 1;
                if self.may_give == 0 {
                    self.waiting.push(gateway);
                } else {
                    self.may_give -= 1;
                    self.reached += 1;
                    self.counts.waiting -= 1;
                    self.counts.in_flight += 1;
                    let fetch = self.random.within(FETCH.0, FETCH.1);
                    self.at(time + fetch, Event::Fetched(gateway));
                }
            }
            Event::Fetched(gateway) => {
                self.counts.fetched += 1;
                let trial = self.random.within(TRIAL.0, TRIAL.1);
                // Its vote travels with its next sync.
                let sync = self.random.within(0, HURRY);
                if !self.random.chance(self.failure_rate) {
                    self.at(time + trial + sync, Event::Passed(gateway));
                    return true;
                }
                let fails = time + self.random.within(0, trial);
                if self.random.chance(SILENT_FAILURES) {
                    self.at(fails + self.policy.silence_millis + 1, Event::Lost(gateway));
                } else {
                    self.at(fails + sync, Event::Failed(gateway));
                }
            }
            Event::Passed(_) => {
                self.counts.in_flight -= 1;
                self.counts.passed += 1;
                self.counts.active += 1;
            }
            Event::Failed(_) => {
                self.counts.in_flight -= 1;
                self.counts.failed += 1;
            }
            Event::Lost(_) => {
                self.counts.in_flight -= 1;
                self.counts.lost += 1;
                self.counts.silent += 1;
            }
            Event::Away(gateway) => {
                self.gateways[gateway] = Gateway::Away;
                self.counts.away += 1;
                self.counts.silent += 1;
                if gateway < self.outside {
                    self.counts.waiting -= 1;
                } else {
                    self.counts.outside -= 1;
                }
            }
        }
        true
    }
}
