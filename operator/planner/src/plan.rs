//! One look at a rollout: what happened, and what may happen next.

use ballast_bundle::UnixMillis;
use ballast_crds::OnFailure;
use serde::{Deserialize, Serialize};

use crate::state::SMALL_FLEET;
use crate::watch::Watch;
use crate::{Counts, Policy, RolloutState, Score, Threshold};

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
    state.open_window(counts, policy);
    if policy.paused {
        return wait(state, WaitCause::Paused, 0);
    }
    state.step = state.step.min(policy.last_step());
    let forgiven = state.forgiven.0 + state.forgiven.1;
    let votes = counts.resolved().saturating_sub(forgiven);
    let nobody_left = counts.in_flight == 0 && counts.waiting == 0 && counts.outside == 0;
    // After a halt that was forgiven a step wants a new vote, if there is anybody to give one.
    let target = |step| match policy.step_size(step, counts.eligible) {
        size if forgiven > 0 => size.max(forgiven + 1).min(counts.eligible),
        size => size,
    };
    let soak = |state: &mut RolloutState| {
        let enough = votes > 0 && counts.resolved() >= target(state.step);
        let passed = enough || nobody_left && (votes > 0 || forgiven > 0);
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
    let target = target(state.step);
    admit(&mut state, counts, next, target);
    let may_give = state.places(counts, policy).min(target.saturating_sub(counts.given()));
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
    let (passed, failures) = state.fresh(counts);
    if failures > 0 && counts.eligible < SMALL_FLEET {
        return Some(HaltCause::FirstFailure);
    }
    if policy.test.is_bad(passed, failures) {
        return Some(HaltCause::SequentialTest);
    }
    if !state.proved {
        match policy.test.proves(passed, failures) {
            Some(false) => return Some(HaltCause::SequentialTest),
            Some(true) => state.proved = true,
            None => {}
        }
    }
    None
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
