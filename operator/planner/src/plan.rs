//! One look at a rollout: what happened, and what may happen next.

use ballast_bundle::UnixMillis;
use ballast_crds::OnFailure;
use serde::{Deserialize, Serialize};

use crate::watch::Watch;
use crate::{Counts, Policy, Score, Threshold};

/// Below this many eligible gateways there are no statistics: one by one, and the first failure halts. It is what the
/// sequential test needs to call 1 % proved against 10 %.
pub const SMALL_FLEET: u64 = 32;

/// While the release has not proved itself, no more gateways than this try it at once, so that a bad one is found
/// within about a hundred (simulated: `cargo xtask bench planner`).
pub const UNPROVED_WINDOW: u64 = 8;

/// What is remembered of a rollout between two looks. Keep it with the release, durably.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutState {
    /// Index into the policy's steps.
    pub step: usize,
    /// Scores below it are members; only grows.
    pub threshold: Threshold,
    /// How many may try the release at once.
    pub window: u64,
    /// Passes in a row since the window last changed.
    clean: u64,
    /// Counted at the last look.
    passed: u64,
    failures: u64,
    /// Votes before this rollout was resumed by a person: forgiven, and no proof either.
    forgiven: (u64, u64),
    /// Since when the step is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    soaking: Option<UnixMillis>,
    /// It was found bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    halted: Option<HaltCause>,
    /// It passed its last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watch: Option<Watch>,
}

impl Default for RolloutState {
    fn default() -> Self {
        Self {
            step: 0,
            threshold: Threshold::default(),
            window: 1,
            clean: 0,
            passed: 0,
            failures: 0,
            forgiven: (0, 0),
            soaking: None,
            halted: None,
            watch: None,
        }
    }
}

impl RolloutState {
    /// Whether it passed its last step once: then it is what `stable` means, until it is found bad.
    pub const fn is_complete(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether it was found bad.
    pub const fn halted(&self) -> Option<HaltCause> {
        self.halted
    }

    /// A person says to go on after a halt (`onFailure: Pause`): what happened so far is forgiven, the window starts at
    /// one again, and the step is not passed until new votes say so.
    pub fn resumed(mut self, counts: &Counts) -> Self {
        if self.halted.take().is_some() {
            self.forgiven = (counts.passed, counts.failures());
            (self.window, self.clean, self.soaking) = (1, 0, None);
            self.watch = self.watch.map(|_| Watch::start(counts, UnixMillis(0)));
        }
        self
    }
}

/// Why a release was found bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HaltCause {
    /// In a small fleet one failure is enough.
    FirstFailure,
    /// The sequential test says so.
    SequentialTest,
    /// The CUSUM after the last step says so.
    Watch,
}

/// What a halt leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Every gateway gets the stable release.
    Rollback,
    /// Gateways keep what they have; a person decides.
    Hold,
}

/// Why nothing more happens now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitCause {
    /// The selector matches no enrolled gateway.
    NoGatewaySelected,
    /// No selected gateway is of a target with a bundle.
    NoEligibleGateway,
    /// A person's wish.
    Paused,
    /// Gateways of the step try the release, or will at their next sync.
    Resolving,
    /// Nobody can be reached who could try it: the rest is away or has no room.
    WaitingForGateways,
    /// The step passed and is watched until then.
    Soaking {
        /// When it ends.
        until: UnixMillis,
    },
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The rollout goes on, or waits.
    Wait(WaitCause),
    /// The release is bad.
    Halt {
        /// Why.
        cause: HaltCause,
        /// What follows.
        action: Action,
    },
    /// It passed its last step and nothing speaks against it.
    Complete,
}

/// A decision and what to remember.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// To be kept before anybody acts on it.
    pub state: RolloutState,
    /// What to show.
    pub decision: Decision,
    /// So many members (below `state.threshold`) may be given the release until the next look, in the order in which
    /// they sync.
    pub may_give: u64,
}

/// Looks at a rollout. `next`: the smallest scores of gateways counted as `outside`, sorted, as many as are known; where
/// they do not reach, the threshold grows by their even spread.
///
/// Call it again whenever counts change and at least every few seconds while a step soaks; the same call twice changes
/// nothing more.
pub fn plan(state: &RolloutState, counts: &Counts, next: &[Score], policy: &Policy, now: UnixMillis) -> Plan {
    let mut state = state.clone();
    let action = match policy.on_failure {
        OnFailure::Rollback => Action::Rollback,
        OnFailure::Pause => Action::Hold,
    };
    if state.halted.is_none() {
        state.halted = judge(&mut state, counts, policy, now);
    }
    if let Some(cause) = state.halted {
        return Plan { state, decision: Decision::Halt { cause, action }, may_give: 0 };
    }
    if state.is_complete() {
        let may_give = if policy.paused { 0 } else { u64::MAX };
        return Plan { state, decision: Decision::Complete, may_give };
    }
    let wait = |state, cause, may_give| Plan { state, decision: Decision::Wait(cause), may_give };
    if counts.selected == 0 {
        return wait(state, WaitCause::NoGatewaySelected, 0);
    }
    if counts.eligible == 0 {
        return wait(state, WaitCause::NoEligibleGateway, 0);
    }
    open_window(&mut state, counts, policy);
    if policy.paused {
        return wait(state, WaitCause::Paused, 0);
    }
    state.step = state.step.min(policy.last_step());
    let votes = counts.resolved().saturating_sub(state.forgiven.0 + state.forgiven.1);
    let nobody_left = counts.in_flight == 0 && counts.waiting == 0 && counts.outside == 0;
    let soak = |state: &mut RolloutState| {
        let target = policy.step_size(state.step, counts.eligible);
        let passed = votes > 0 && (counts.resolved() >= target || nobody_left);
        // Once it soaks, a gateway that joins does not start it anew: a fleet that grows all the time would never be done.
        if state.soaking.is_none() && passed {
            state.soaking = Some(now);
        }
        state.soaking.map(|since| UnixMillis(since.0.saturating_add(policy.soak_millis)))
    };
    let mut until = soak(&mut state);
    while until.is_some_and(|until| until <= now) {
        if state.step == policy.last_step() {
            state.watch = Some(Watch::start(counts, now));
            state.threshold = Threshold::ALL;
            return Plan { state, decision: Decision::Complete, may_give: u64::MAX };
        }
        state.step += 1;
        state.soaking = None;
        until = soak(&mut state);
        if policy.soak_millis > 0 && until.is_some() {
            break;
        }
    }
    let target = policy.step_size(state.step, counts.eligible);
    admit(&mut state, counts, next, target);
    let may_give = state.window.saturating_sub(counts.in_flight).min(target.saturating_sub(counts.given()));
    match until {
        Some(until) => wait(state, WaitCause::Soaking { until }, may_give),
        None if nobody_left => wait(state, WaitCause::WaitingForGateways, may_give),
        None => wait(state, WaitCause::Resolving, may_give),
    }
}

/// Whether the release is bad.
fn judge(state: &mut RolloutState, counts: &Counts, policy: &Policy, now: UnixMillis) -> Option<HaltCause> {
    if let Some(watch) = state.watch {
        let watch = watch.observe(counts, &policy.test, now);
        state.watch = Some(watch);
        return watch.is_alarm().then_some(HaltCause::Watch);
    }
    let (passed, failures) = fresh(state, counts);
    if failures > 0 && counts.eligible < SMALL_FLEET {
        return Some(HaltCause::FirstFailure);
    }
    policy.test.is_bad(passed, failures).then_some(HaltCause::SequentialTest)
}

/// Votes that were not forgiven. A gateway that went back after its vote counts as a failure at once.
fn fresh(state: &RolloutState, counts: &Counts) -> (u64, u64) {
    let passed = counts.passed.saturating_sub(counts.relapsed);
    let failures = counts.failures() + counts.relapsed;
    (passed.saturating_sub(state.forgiven.0), failures.saturating_sub(state.forgiven.1))
}

/// The window: 1, doubled whenever as many gateways as it holds passed in a row, halved by a failure.
fn open_window(state: &mut RolloutState, counts: &Counts, policy: &Policy) {
    let (passed, failures) = fresh(state, counts);
    if failures > state.failures {
        (state.window, state.clean) = ((state.window / 2).max(1), 0);
    } else {
        state.clean += passed.saturating_sub(state.passed);
    }
    (state.passed, state.failures) = (passed, failures);
    let limit = if counts.eligible < SMALL_FLEET {
        1
    } else if policy.test.is_proved(passed, failures) {
        u64::MAX
    } else {
        UNPROVED_WINDOW
    };
    while state.clean >= state.window && state.window < limit {
        state.clean -= state.window;
        state.window = state.window.saturating_mul(2);
    }
    state.window = state.window.min(limit);
}

/// Raises the threshold until the step can be filled.
fn admit(state: &mut RolloutState, counts: &Counts, next: &[Score], target: u64) {
    let wanted = target.saturating_sub(counts.given() + counts.waiting).min(counts.outside);
    if wanted == 0 {
        return;
    }
    let exact = usize::try_from(wanted).ok().and_then(|wanted| next.get(wanted - 1));
    state.threshold = match exact {
        Some(score) => state.threshold.including(*score),
        None => state.threshold.grown(wanted, counts.outside),
    };
}
