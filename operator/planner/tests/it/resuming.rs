//! `onFailure: Pause`: a person says to go on.

use ballast_bundle::UnixMillis;
use ballast_crds::OnFailure;
use ballast_planner::{Action, Counts, Decision, HaltCause, Policy, RolloutState, WaitCause};

use crate::{SOAK, counted, look, look_at, policy};

fn pausing(steps: &[&str]) -> Policy {
    Policy { on_failure: OnFailure::Pause, ..policy(steps) }
}

const HELD: fn(HaltCause) -> Decision = |cause| Decision::Halt { cause, action: Action::Hold };

#[test]
fn what_happened_is_forgiven_and_new_failures_are_not() {
    let policy = pausing(&["100%"]);
    let counts = counted(1000, 20, 3);
    let halted = look(&RolloutState::default(), &counts, &policy);
    assert_eq!(halted.decision, HELD(HaltCause::SequentialTest));
    let resumed = halted.state.resumed(&counts, UnixMillis(0));
    assert_eq!((resumed.window, resumed.is_proved(), resumed.halted()), (1, false, None));
    let on = look(&resumed, &counts, &policy);
    assert_eq!((on.decision, on.may_give), (Decision::Wait(WaitCause::Resolving), 1));
    assert!(matches!(look(&on.state, &counted(1000, 20, 4), &policy).decision, Decision::Wait(_)));
    assert_eq!(look(&on.state, &counted(1000, 20, 5), &policy).decision, HELD(HaltCause::SequentialTest));
}

#[test]
fn a_relapse_is_forgiven_like_a_failure() {
    let policy = pausing(&["1", "100%"]);
    for gateways in [3, 1000] {
        let relapsed = if gateways == 3 { 1 } else { 2 };
        let counts = Counts { relapsed, ..counted(gateways, 2, 0) };
        let halted = look(&RolloutState::default(), &counts, &policy);
        assert!(matches!(halted.decision, Decision::Halt { .. }), "{gateways}: {:?}", halted.decision);
        let on = look(&halted.state.resumed(&counts, UnixMillis(0)), &counts, &policy);
        assert!(matches!(on.decision, Decision::Wait(_)), "{gateways}: {:?}", on.decision);
    }
}

#[test]
fn a_release_that_was_complete_is_watched_from_now_on() {
    let policy = pausing(&["100%"]);
    let clean = counted(3, 3, 0);
    let soaking = look(&RolloutState::default(), &clean, &policy);
    let done = look_at(&soaking.state, &clean, &policy, SOAK);
    let relapsed = |relapsed| Counts { relapsed, active: 3 - relapsed, ..clean };
    let halted = look_at(&done.state, &relapsed(1), &policy, SOAK + 1);
    assert_eq!(halted.decision, HELD(HaltCause::Watch));
    let now = 1_800_000_000_000;
    let resumed = halted.state.resumed(&relapsed(1), UnixMillis(now));
    let on = look_at(&resumed, &relapsed(1), &policy, now);
    assert_eq!((on.decision, on.state.is_complete()), (Decision::Complete, true));
    // Young again: the years before it was resumed are no proof.
    let again = look_at(&on.state, &relapsed(2), &policy, now + 1000);
    assert_eq!(again.decision, HELD(HaltCause::Watch));
}

#[test]
fn a_step_that_was_forgiven_wants_a_new_vote() {
    // The very first gateway fails in a step of one: resumed, the step takes in another.
    let policy = pausing(&["1", "100%"]);
    let first = counted(5, 0, 1);
    let halted = look(&RolloutState::default(), &first, &policy);
    assert_eq!(halted.decision, HELD(HaltCause::FirstFailure));
    let on = look(&halted.state.resumed(&first, UnixMillis(0)), &first, &policy);
    assert_eq!((on.decision, on.may_give, on.state.step), (Decision::Wait(WaitCause::Resolving), 1, 0));
    let passed = look(&on.state, &counted(5, 1, 1), &policy);
    assert!(matches!(passed.decision, Decision::Wait(WaitCause::Soaking { .. })), "{:?}", passed.decision);
}

#[test]
fn a_rollout_whose_last_gateway_failed_ends_when_it_is_resumed() {
    let policy = pausing(&["100%"]);
    let last = counted(3, 2, 1);
    let halted = look(&look(&RolloutState::default(), &counted(3, 2, 0), &policy).state, &last, &policy);
    assert_eq!(halted.decision, HELD(HaltCause::FirstFailure));
    let on = look(&halted.state.resumed(&last, UnixMillis(0)), &last, &policy);
    assert_eq!(on.decision, Decision::Wait(WaitCause::Soaking { until: UnixMillis(SOAK) }));
    assert_eq!(look_at(&on.state, &last, &policy, SOAK).decision, Decision::Complete);
}

#[test]
fn a_rollout_that_runs_is_not_changed() {
    let policy = pausing(&["100%"]);
    let running = look(&RolloutState::default(), &counted(1000, 5, 0), &policy).state;
    assert_eq!(running.clone().resumed(&counted(1000, 5, 0), UnixMillis(9)), running);
}
