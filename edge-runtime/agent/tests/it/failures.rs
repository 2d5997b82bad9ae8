//! Candidates that fail on live requests: each such request is answered by the release before it, and the candidate goes.

use ballast_bundle::protocol::{FailureReason, ReleaseState};
use ballast_bundle::{Limits, ReleaseRef, TrialPolicy};

use crate::fleet::Fleet;
use crate::gateway::{Gateway, Reply, infer, wait_for};
use crate::script::{self, Does, bad, good};

/// A trial that ends by a failure only.
pub(crate) fn endless_trial() -> TrialPolicy {
    TrialPolicy { min_duration_millis: 3_600_000, min_requests: 3, max_failures: 0 }
}

/// 1.0.0, which does `does` when provoked, is active, and nothing stands behind it.
pub(crate) fn one_active(does: Does, limits: Limits, arguments: &[&str]) -> (Fleet, Gateway, ReleaseRef) {
    let fleet = Fleet::start();
    let one = fleet.release(&script::bundle("1.0.0", 1, does, limits), "1.0.0", 1);
    fleet.assign_with(Some(&one), Some(&one), crate::fleet::trial(), script::runner(&fleet, 1, 0));
    let mut gateway = Gateway::enrolled(&fleet);
    gateway.start(arguments);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));
    (fleet, gateway, one)
}

fn is(reply: &Reply, version: &str, by: &str) -> bool {
    assert_eq!(reply.status, 200, "{reply:?}");
    (reply.version().as_str(), reply.by().as_str()) == (version, by)
}

/// 1.0.0, which does `first` when provoked, is active; 2.0.0, which does `second`, is on trial.
pub(crate) fn on_trial(first: Does, second: Does, limits: Limits) -> (Fleet, Gateway) {
    let fleet = Fleet::start();
    let one = fleet.release(&script::bundle("1.0.0", 1, first, script::limits(60_000, 64)), "1.0.0", 1);
    let two = fleet.release(&script::bundle("2.0.0", 2, second, limits), "2.0.0", 2);
    let runner = script::runner(&fleet, 1, 0);
    fleet.assign_with(Some(&one), Some(&one), crate::fleet::trial(), runner.clone());
    let gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));
    fleet.assign_with(Some(&two), Some(&one), endless_trial(), runner);
    wait_for("2.0.0 is on trial", || gateway.answers_as("2.0.0", "candidate"));
    (fleet, gateway)
}

fn rolled_back(does: Does, reason: FailureReason) {
    let (fleet, gateway) = on_trial(Does::Answer, does, script::limits(2_000, 16));
    let reply = gateway.image(&bad());
    assert!(is(&reply, "1.0.0", "fallback"), "{reply:?}");
    assert_eq!(reply.scores()[0], 1.0);
    assert_eq!(reply.json()["parameters"]["ballast_release"], "1.1");
    wait_for("the operator knows", || fleet.is("2.0.0", ReleaseState::RolledBack));
    let report = fleet.report("2.0.0").unwrap();
    assert_eq!(report.reason, Some(reason));
    assert!(report.rollback_micros.is_some());
    assert!(is(&gateway.image(&bad()), "1.0.0", "active"));
    let status = gateway.status();
    assert_eq!(status["deployments"][0]["rejected"][0]["version"], "2.0.0");
}

#[test]
fn a_trap_is_answered_by_the_release_before_it() {
    rolled_back(Does::Trap, FailureReason::Trap);
}

#[test]
fn an_endless_loop_is_answered_by_the_release_before_it() {
    rolled_back(Does::Loop, FailureReason::DeadlineExceeded);
}

#[test]
fn not_a_number_is_answered_by_the_release_before_it() {
    rolled_back(Does::NotANumber, FailureReason::NotFinite);
}

#[test]
fn what_no_release_can_answer_is_the_inputs_fault() {
    let (_fleet, gateway) = on_trial(Does::NotANumber, Does::NotANumber, script::limits(60_000, 16));
    let reply = gateway.image(&bad());
    assert_eq!(reply.status, 422, "{reply:?}");
    assert!(reply.error().contains("scores is not finite"), "{}", reply.error());
    assert!(gateway.answers_as("2.0.0", "candidate"), "the candidate is not to blame");
}

#[test]
fn a_release_without_one_before_it_fails_with_a_500_and_goes_on() {
    let (_fleet, gateway, _) = one_active(Does::Trap, script::limits(60_000, 16), &[]);
    for _ in 0..3 {
        let reply = gateway.image(&bad());
        assert_eq!(reply.status, 500, "{reply:?}");
        assert!(reply.error().contains("release 1.0.0 failed: the guest trapped"), "{}", reply.error());
        assert!(gateway.answers_as("1.0.0", "active"));
    }
}

#[test]
fn requests_that_wait_behind_a_failure_are_answered_by_the_fallback() {
    let (_fleet, gateway) = on_trial(Does::Answer, Does::Loop, script::limits(3_000, 64));
    let address = gateway.address();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| infer(&address, &bad()).unwrap())).collect();
        for reply in all {
            let reply = reply.join().unwrap();
            assert!(reply.status == 200 && reply.version() == "1.0.0", "{reply:?}");
        }
    });
    // The first ran into its deadline, and at most one more that came before the switch; the others did not wait for theirs.
    let metrics = gateway.metrics();
    let failed = "nv_inference_request_failure{model=\"digits\",version=\"2.0.0\"} ";
    let failed: u64 = metrics.lines().find_map(|l| l.strip_prefix(failed)).unwrap().parse().unwrap();
    assert!((1..=2).contains(&failed), "{metrics}");
}

#[test]
fn a_busy_candidate_leaves_what_it_cannot_queue_to_the_fallback() {
    let (_fleet, gateway) = on_trial(Does::Answer, Does::Loop, script::limits(3_000, 1));
    let address = gateway.address();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| infer(&address, &bad()).unwrap());
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| infer(&address, &good()).unwrap())).collect();
        for reply in all.into_iter().chain([stuck]) {
            let reply = reply.join().unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    });
}

#[test]
fn a_full_queue_without_a_fallback_says_when_to_come_again() {
    let (_fleet, gateway, _) = one_active(Does::Loop, script::limits(3_000, 1), &[]);
    let address = gateway.address();
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| infer(&address, &bad()).unwrap())).collect();
        all.into_iter()
            .map(|reply| reply.join().unwrap())
            .map(|r| (r.status, r.header("retry-after").is_some()))
            .collect()
    });
    assert!(statuses.contains(&(429, true)), "{statuses:?}");
    assert!(statuses.iter().all(|s| [(500, false), (429, true)].contains(s)), "{statuses:?}");
}

/// 1.0.0 is active; 2.0.0, which takes at least half a second and may take a fifth, is on trial.
fn slow_on_trial(first: Does, trial: TrialPolicy) -> (Fleet, Gateway) {
    let (fleet, gateway, one) = one_active(first, script::limits(60_000, 16), &[]);
    let two = script::bundle("2.0.0", 2, Does::Slowly, script::limits(60_000, 16));
    let two = fleet.release(&script::no_slower_than(200, two), "2.0.0", 2);
    fleet.assign_with(Some(&two), Some(&one), trial, script::runner(&fleet, 1, 0));
    (fleet, gateway)
}

#[test]
fn a_release_that_is_slower_than_it_may_be_goes_back() {
    let (fleet, gateway) = slow_on_trial(Does::Answer, endless_trial());
    wait_for("it is rolled back", || fleet.is("2.0.0", ReleaseState::RolledBack));
    let report = fleet.report("2.0.0").unwrap();
    assert_eq!(report.reason, Some(FailureReason::LatencyExceeded), "{report:?}");
    assert!(report.message.contains("above 200000 µs; the release before it takes"), "{}", report.message);
    assert!(is(&gateway.image(&good()), "1.0.0", "active"));
}

/// A machine on which the release before it is as slow says nothing of the candidate.
#[test]
fn a_release_that_is_as_slow_as_the_one_before_it_stays() {
    // Replays come eight at a time, of both in turn: after two turns both have the ten answers that a verdict takes.
    let trial = TrialPolicy { min_duration_millis: 300, min_requests: 20, max_failures: 0 };
    let (fleet, gateway) = slow_on_trial(Does::Slowly, trial);
    wait_for("it is active", || fleet.is("2.0.0", ReleaseState::Active));
    assert!(is(&gateway.image(&good()), "2.0.0", "active"));
    assert!(!gateway.log().contains("rolled back"), "{}", gateway.log());
}

/// 1.0.0 is active, and 2.0.0 on trial, whose output has another name.
#[test]
fn a_release_with_other_outputs_does_not_answer_for_one_that_fails() {
    let (fleet, gateway, one) = one_active(Does::Answer, script::limits(60_000, 16), &[]);
    let two = script::with_labels(script::bundle("2.0.0", 2, Does::Trap, script::limits(60_000, 16)));
    let two = fleet.release(&two, "2.0.0", 2);
    fleet.assign_with(Some(&two), Some(&one), endless_trial(), script::runner(&fleet, 1, 0));
    wait_for("2.0.0 is on trial", || gateway.answers_as("2.0.0", "candidate"));
    let reply = gateway.image(&bad());
    assert_eq!(reply.status, 500, "{reply:?}");
    assert!(reply.error().contains("the release before it has other inputs or outputs"), "{}", reply.error());
    wait_for("it is rolled back", || fleet.is("2.0.0", ReleaseState::RolledBack));
    assert!(is(&gateway.image(&bad()), "1.0.0", "active"), "who asks again is answered");
}

/// A request waits behind one that never ends; meanwhile a release with other outputs takes the place for good.
#[test]
fn a_request_that_waited_for_other_outputs_is_told_so() {
    let (fleet, mut gateway, _) = one_active(Does::Loop, script::limits(600_000, 16), &[]);
    let address = gateway.address();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| infer(&address, &bad()));
        // Until one of them finds the first before it.
        let waiting = scope.spawn(|| {
            loop {
                let reply = infer(&address, &good()).unwrap();
                if reply.status != 200 {
                    return reply;
                }
            }
        });
        let depth = "ballast_queue_depth{model=\"digits\",version=\"1.0.0\",slot=\"active\"} 1";
        wait_for("one waits", || gateway.metrics().contains(depth));
        let two = script::with_labels(script::bundle("2.0.0", 2, Does::Answer, script::limits(60_000, 16)));
        let two = fleet.release(&two, "2.0.0", 2);
        fleet.assign_with(Some(&two), Some(&two), crate::fleet::trial(), script::runner(&fleet, 1, 0));
        let reply = waiting.join().unwrap();
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.error().contains("inputs or outputs changed while the request waited"), "{}", reply.error());
        assert!(gateway.answers_as("2.0.0", "active"));
        gateway.kill();
        assert!(stuck.join().unwrap().is_err(), "it never ends");
    });
}
