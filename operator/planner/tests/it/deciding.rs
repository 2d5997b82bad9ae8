//! `plan()` on tables of counts: steps, windows, small fleets, the test, silence, pause, the watch after the end.

use ballast_bundle::UnixMillis;
use ballast_crds::{FailureRate, OnFailure, Rollout};
use ballast_planner::{
    Action, Counts, Decision, HaltCause, Policy, PolicyError, RolloutState, SMALL_FLEET, UNPROVED_WINDOW, WaitCause,
};

use crate::{HOUR, SOAK, counted, look, look_at, policy, rollout};

const ROLLED_BACK: fn(HaltCause) -> Decision = |cause| Decision::Halt { cause, action: Action::Rollback };

/// Looks at a clean rollout of `eligible` after every vote until `passed` have voted.
fn after_clean_votes(eligible: u64, passed: u64, policy: &Policy) -> RolloutState {
    let mut state = RolloutState::default();
    for n in 0..=passed {
        state = look(&state, &counted(eligible, n, 0), policy).state;
    }
    state
}

#[test]
fn the_policy_is_the_users_rollout() {
    let parsed = policy(&["1", "10%", "100%"]);
    assert_eq!((parsed.soak_millis, parsed.silence_millis, parsed.paused), (SOAK, HOUR, false));
    assert_eq!(parsed.last_step(), 2);
    // ceil, at least one, never more than there are; the last step is everybody whatever it says.
    for (eligible, sizes) in
        [(1, [1, 1, 1]), (3, [1, 1, 3]), (30, [1, 3, 30]), (31, [1, 4, 31]), (1000, [1, 100, 1000])]
    {
        assert_eq!([0, 1, 2].map(|step| parsed.step_size(step, eligible)), sizes, "{eligible}");
    }
    assert_eq!(policy(&["5"]).step_size(0, 100), 100);
    // Silence means nothing before three syncs were due.
    let short = Rollout { silence_deadline: "1m".into(), ..Rollout::default() };
    assert_eq!(Policy::new(&short, 60_000).unwrap().silence_millis, 180_000);
    assert_eq!(Policy::new(&rollout(&[]), 60_000), Err(PolicyError::NoSteps));
    let wrong = Rollout { soak: "soon".into(), ..Rollout::default() };
    let error = Policy::new(&wrong, 60_000).unwrap_err().to_string();
    assert!(error.starts_with("rollout.soak: "), "{error}");
}

#[test]
fn nobody_to_give_it_to() {
    let policy = policy(&["100%"]);
    let nobody = look(&RolloutState::default(), &Counts::default(), &policy);
    assert_eq!((nobody.decision, nobody.may_give), (Decision::Wait(WaitCause::NoGatewaySelected), 0));
    let none = Counts { selected: 3, ..Counts::default() };
    assert_eq!(look(&RolloutState::default(), &none, &policy).decision, Decision::Wait(WaitCause::NoEligibleGateway));
    let away = Counts { selected: 3, eligible: 3, away: 2, held: 1, ..Counts::default() };
    let away = look_at(&RolloutState::default(), &away, &policy, 100 * HOUR);
    assert_eq!((away.decision, away.state.is_complete()), (Decision::Wait(WaitCause::WaitingForGateways), false));
}

#[test]
fn steps_are_passed_soaked_and_left_in_order() {
    let policy = policy(&["1", "10%", "100%"]);
    let first = look(&RolloutState::default(), &counted(100, 0, 0), &policy);
    assert_eq!((first.decision, first.may_give, first.state.step), (Decision::Wait(WaitCause::Resolving), 1, 0));
    let passed = look_at(&first.state, &counted(100, 1, 0), &policy, 1000);
    assert_eq!(passed.decision, Decision::Wait(WaitCause::Soaking { until: UnixMillis(1000 + SOAK) }));
    assert_eq!(passed.may_give, 0, "nobody takes it while a step is watched");
    let early = look_at(&passed.state, &counted(100, 1, 0), &policy, 999 + SOAK);
    assert_eq!((early.decision, early.state.step), (passed.decision, 0));
    let second = look_at(&early.state, &counted(100, 1, 0), &policy, 1000 + SOAK);
    assert_eq!((second.decision, second.state.step, second.may_give), (Decision::Wait(WaitCause::Resolving), 1, 2));
    // Looking again at what came of it changes nothing.
    let members = Counts { waiting: 9, outside: 90, ..counted(100, 1, 0) };
    assert_eq!(look_at(&second.state, &members, &policy, 1000 + SOAK), second);
}

#[test]
fn the_last_step_ends_when_everybody_who_can_has_voted() {
    let policy = policy(&["100%"]);
    let some_away = Counts { away: 10, outside: 0, ..counted(100, 90, 0) };
    let soaking = look(&RolloutState::default(), &some_away, &policy);
    assert_eq!(soaking.decision, Decision::Wait(WaitCause::Soaking { until: UnixMillis(SOAK) }));
    // One that comes back during the soak does not start it anew, and gets the release.
    let back = Counts { waiting: 1, away: 9, outside: 0, ..counted(100, 90, 0) };
    let back = look_at(&soaking.state, &back, &policy, 1);
    assert_eq!(back.decision, soaking.decision);
    assert!(back.may_give > 0);
    let done = look_at(&soaking.state, &some_away, &policy, SOAK);
    assert_eq!((done.decision, done.may_give), (Decision::Complete, u64::MAX));
    assert!(done.state.is_complete());
}

#[test]
fn the_window_doubles_by_clean_windows_to_its_cap() {
    let policy = policy(&["100%"]);
    let group = policy.test.group();
    // After one pass two may try, after two more four, after four more eight: then it waits for the proof.
    for (passed, window) in [(0, 1), (1, 2), (2, 2), (3, 4), (6, 4), (7, 8), (14, 8), (15, 8), (60, 8), (group - 1, 8)]
    {
        let state = after_clean_votes(1000, passed, &policy);
        assert_eq!((state.window, state.is_proved()), (window, false), "{passed}");
    }
    // What the last window before the proof had already counts for the first one after it.
    for (passed, window) in [(group, 8), (group + 8, 16), (group + 24, 32), (group + 56, 64), (group + 120, 128)] {
        let state = after_clean_votes(1000, passed, &policy);
        assert!(state.is_proved() && (window..=2 * window).contains(&state.window), "{passed}: {state:?}");
    }
    // One look at many votes comes to the same end as one look a vote.
    let at_once = look(&after_clean_votes(1000, group, &policy), &counted(1000, group + 200, 0), &policy).state;
    assert_eq!(at_once.window, after_clean_votes(1000, group + 200, &policy).window);
}

#[test]
fn a_failure_halves_the_window_and_the_count_begins_again() {
    let policy = policy(&["100%"]);
    let eight = after_clean_votes(1000, 40, &policy);
    let mut state = look(&eight, &counted(1000, 40, 1), &policy).state;
    assert_eq!(state.window, 4);
    assert_eq!(look(&state, &counted(1000, 40, 1), &policy).state.window, 4, "the same failure counts once");
    for (passed, window) in [(43, 4), (44, 8)] {
        state = look(&state, &counted(1000, passed, 1), &policy).state;
        assert_eq!(state.window, window, "{passed}");
    }
    // A relapse is a failure.
    let relapsed = Counts { relapsed: 1, ..counted(1000, 44, 1) };
    assert_eq!(look(&state, &relapsed, &policy).state.window, 4);
    let one = after_clean_votes(1000, 0, &policy);
    assert_eq!(look(&one, &counted(1000, 0, 1), &policy).state.window, 1);
}

#[test]
fn large_windows_of_a_release_that_has_proved_itself_tolerate_a_good_rate() {
    let policy = policy(&["100%"]);
    let proved = look(&after_clean_votes(10_000, 99, &policy), &counted(10_000, 1000, 0), &policy).state;
    assert_eq!(proved.window, 512);
    // At 1 and 10 % up to 20 of 512 speak for the release.
    let some = look(&proved, &counted(10_000, 1000, 5), &policy).state;
    assert_eq!(some.window, 512);
    let doubled = look(&some, &counted(10_000, 2000, 5), &policy).state;
    assert_eq!(doubled.window, 1024);
    let many = look(&proved, &counted(10_000, 1000, 21), &policy).state;
    assert_eq!(many.window, 256);
}

#[test]
fn no_more_than_the_group_try_a_release_that_has_not_proved_itself() {
    let policy = policy(&["100%"]);
    let group = policy.test.group();
    let state = after_clean_votes(1000, group - 10, &policy);
    let trying =
        |in_flight| Counts { in_flight, outside: 1000 - group + 10 - in_flight, ..counted(1000, group - 10, 0) };
    assert_eq!(look(&state, &trying(0), &policy).may_give, UNPROVED_WINDOW);
    assert_eq!(look(&state, &trying(5), &policy).may_give, UNPROVED_WINDOW - 5);
    let nearly = after_clean_votes(1000, group - 3, &policy);
    let last = Counts { in_flight: 1, outside: 1002 - group, ..counted(1000, group - 3, 0) };
    assert_eq!(look(&nearly, &last, &policy).may_give, 2);
    let full = Counts { in_flight: 3, outside: 1000 - group, ..counted(1000, group - 3, 0) };
    assert_eq!(look(&nearly, &full, &policy).may_give, 0);
    // The last of them decides.
    let good = look(&nearly, &counted(1000, group, 0), &policy);
    assert!(good.state.is_proved() && good.may_give > 0, "{good:?}");
}

#[test]
fn the_group_decides_against_what_the_sequential_test_would_let_go_on() {
    let policy = policy(&["100%"]);
    let decided = |passed, failed| {
        let before = look(&RolloutState::default(), &counted(1000, passed - 1, failed), &policy);
        assert!(matches!(before.decision, Decision::Wait(_)), "{passed} {failed}: {:?}", before.decision);
        look(&before.state, &counted(1000, passed, failed), &policy).decision
    };
    assert!(matches!(decided(95, 4), Decision::Wait(_)));
    assert_eq!(decided(94, 5), ROLLED_BACK(HaltCause::SequentialTest));
}

#[test]
fn the_sequential_test_halts_fleets_from_32_on() {
    let policy = policy(&["100%"]);
    for (passed, failed, halts) in
        [(0, 1, false), (0, 2, true), (2, 2, false), (20, 2, false), (20, 3, true), (500, 10, false)]
    {
        let decision = look(&RolloutState::default(), &counted(1000, passed, failed), &policy).decision;
        let expected =
            if halts { ROLLED_BACK(HaltCause::SequentialTest) } else { Decision::Wait(WaitCause::Resolving) };
        assert_eq!(decision, expected, "{passed} {failed}");
    }
    // The user's own rates.
    let rates = Rollout { failure_rate: FailureRate { good: 5, bad: 40 }, ..rollout(&["100%"]) };
    let tolerant = Policy::new(&rates, 60_000).unwrap();
    assert!(matches!(look(&RolloutState::default(), &counted(1000, 0, 2), &tolerant).decision, Decision::Wait(_)));
    assert!(matches!(look(&RolloutState::default(), &counted(1000, 0, 3), &tolerant).decision, Decision::Halt { .. }));
}

#[test]
fn small_fleets_go_one_by_one_and_halt_at_the_first_failure() {
    let policy = policy(&["100%"]);
    for eligible in [1, 3, SMALL_FLEET - 1] {
        let clean = after_clean_votes(eligible, eligible - 1, &policy);
        assert_eq!(clean.window, 1, "{eligible}");
        let failed = look(&clean, &counted(eligible, eligible - 1, 1), &policy);
        assert_eq!((failed.decision, failed.may_give), (ROLLED_BACK(HaltCause::FirstFailure), 0), "{eligible}");
        let trying = Counts { in_flight: 1, outside: eligible - 1, ..counted(eligible, 0, 0) };
        assert_eq!(look(&RolloutState::default(), &trying, &policy).may_give, 0, "{eligible}");
    }
    let larger = look(&RolloutState::default(), &counted(SMALL_FLEET, 10, 1), &policy);
    assert!(matches!(larger.decision, Decision::Wait(_)));
}

#[test]
fn silence_is_a_failure_of_those_who_have_the_release_only() {
    let policy = policy(&["100%"]);
    let lost = Counts { lost: 1, outside: 2, ..counted(3, 0, 0) };
    assert_eq!(look(&RolloutState::default(), &lost, &policy).decision, ROLLED_BACK(HaltCause::FirstFailure));
    let away = Counts { away: 1, outside: 2, silent: 1, ..counted(3, 0, 0) };
    let away = look(&RolloutState::default(), &away, &policy);
    assert_eq!((away.decision, away.may_give), (Decision::Wait(WaitCause::Resolving), 1));
}

#[test]
fn a_paused_rollout_gives_to_nobody_and_still_judges() {
    let paused = Policy { paused: true, ..policy(&["100%"]) };
    let waiting = look(&RolloutState::default(), &counted(100, 3, 0), &paused);
    assert_eq!((waiting.decision, waiting.may_give), (Decision::Wait(WaitCause::Paused), 0));
    let failed = look(&waiting.state, &counted(100, 3, 3), &paused);
    assert_eq!(failed.decision, ROLLED_BACK(HaltCause::SequentialTest));
    let done = look_at(&RolloutState::default(), &counted(3, 3, 0), &policy(&["100%"]), 0);
    let done = look_at(&done.state, &counted(3, 3, 0), &policy(&["100%"]), SOAK);
    assert_eq!(look(&done.state, &counted(3, 3, 0), &paused).may_give, 0, "joiners wait, too");
}

#[test]
fn a_halt_is_final() {
    let policy = policy(&["100%"]);
    let halted = look(&RolloutState::default(), &counted(1000, 0, 2), &policy);
    let later = look_at(&halted.state, &counted(1000, 900, 2), &policy, HOUR);
    assert_eq!((later.decision, later.may_give), (ROLLED_BACK(HaltCause::SequentialTest), 0));
    let held = Policy { on_failure: OnFailure::Pause, ..policy };
    let action = look(&halted.state, &counted(1000, 0, 2), &held).decision;
    assert_eq!(action, Decision::Halt { cause: HaltCause::SequentialTest, action: Action::Hold });
}

fn complete(gateways: u64, policy: &Policy) -> RolloutState {
    let soaking = look(&RolloutState::default(), &counted(gateways, gateways, 0), policy);
    let done = look_at(&soaking.state, &counted(gateways, gateways, 0), policy, SOAK);
    assert!(done.state.is_complete());
    done.state
}

#[test]
fn after_the_end_small_fleets_halt_at_a_relapse_and_large_ones_at_an_alarm() {
    let policy = policy(&["100%"]);
    let relapsed =
        |gateways, relapsed| Counts { relapsed, active: gateways - relapsed, ..counted(gateways, gateways, 0) };
    for (gateways, failures, halts) in [(3, 1, true), (31, 1, true), (32, 1, false), (1000, 5, false), (1000, 6, true)]
    {
        let plan = look_at(&complete(gateways, &policy), &relapsed(gateways, failures), &policy, SOAK + 1);
        let expected = if halts { ROLLED_BACK(HaltCause::Watch) } else { Decision::Complete };
        assert_eq!(plan.decision, expected, "{failures} of {gateways}");
    }
    // A month later a lone one is more likely the gateway's own trouble; two within a week are not.
    let month = 30 * 24 * HOUR;
    let old = look_at(&complete(3, &policy), &relapsed(3, 0), &policy, month);
    let lone = look_at(&old.state, &relapsed(3, 1), &policy, month + 1);
    assert_eq!(lone.decision, Decision::Complete);
    let two = look_at(&lone.state, &relapsed(3, 2), &policy, month + 100 * HOUR);
    assert_eq!(two.decision, ROLLED_BACK(HaltCause::Watch));
}
