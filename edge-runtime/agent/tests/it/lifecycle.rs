//! Releases come, prove themselves, and go.

use std::sync::atomic::{AtomicBool, Ordering};

use ballast_bundle::protocol::{FailureReason, ReleaseState};

use crate::failures::on_trial;
use crate::fleet::Fleet;
use crate::gateway::{Gateway, infer, wait_for};
use crate::models::Live;
use crate::script::{self, Does};

#[test]
fn a_better_release_takes_over_and_no_request_is_lost() {
    let fleet = Fleet::start();
    let (one, two) = (fleet.digits("1.0.0", 1), fleet.digits("2.0.0", 2));
    fleet.assign(Some(&one), Some(&one));
    let gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));

    let (address, live, over) = (gateway.address(), Live::load(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (address, live, over) = (&address, &live, &over);
                scope.spawn(move || {
                    let mut versions = Vec::new();
                    let mut n = client;
                    while !over.load(Ordering::Relaxed) {
                        let reply = infer(address, live.image(n % live.len())).unwrap();
                        assert_eq!(reply.status, 200, "{reply:?}");
                        let version = reply.version();
                        for (got, want) in reply.scores().iter().zip(live.expected(&version, n % live.len())) {
                            assert!((got - want).abs() <= 1e-4 + 1e-3 * want.abs(), "{version}: {got} {want}");
                        }
                        versions.push(version);
                        n += 1;
                    }
                    versions
                })
            })
            .collect();
        fleet.assign(Some(&two), Some(&one));
        wait_for("2.0.0 is active", || fleet.is("2.0.0", ReleaseState::Active));
        fleet.assign(Some(&two), Some(&two));
        wait_for("1.0.0 is gone", || gateway.status()["deployments"][0]["fallback"].is_null());
        over.store(true, Ordering::Relaxed);
        for client in clients {
            let versions = client.join().unwrap();
            assert!(versions.contains(&"1.0.0".to_owned()) && versions.contains(&"2.0.0".to_owned()), "{versions:?}");
            assert!(versions.is_sorted(), "{versions:?}");
        }
    });
}

#[test]
fn a_release_that_answers_nan_is_rolled_back_and_the_one_before_it_answers() {
    let fleet = Fleet::start();
    let (two, four) = (fleet.digits("2.0.0", 2), fleet.digits("4.0.0", 4));
    fleet.assign(Some(&two), Some(&two));
    let gateway = Gateway::started(&fleet);
    wait_for("2.0.0 is active", || gateway.answers_as("2.0.0", "active"));
    let live = Live::load();
    let blank = live.blank();
    let good = (0..live.len()).find(|n| !live.is_blank(*n)).unwrap();

    let slow = ballast_bundle::TrialPolicy { min_duration_millis: 600_000, min_requests: 3, max_failures: 0 };
    fleet.assign_with(Some(&four), Some(&two), slow, fleet.runner_signed_by(ballast_bundle::Role::Runtime));
    wait_for("4.0.0 is on trial", || {
        let reply = gateway.image(live.image(good));
        assert_eq!(reply.status, 200, "{reply:?}");
        (reply.version(), reply.by()) == ("4.0.0".to_owned(), "candidate".to_owned())
    });
    let reply = gateway.image(live.image(blank));
    assert_eq!(
        (reply.status, reply.version(), reply.by()),
        (200, "2.0.0".to_owned(), "fallback".to_owned()),
        "{reply:?}"
    );
    wait_for("the operator knows", || fleet.is("4.0.0", ReleaseState::RolledBack));
    let report = fleet.report("4.0.0").unwrap();
    assert_eq!(report.reason, Some(FailureReason::NotFinite));
    assert!(report.rollback_micros.is_some());
    assert!(gateway.answers_as("2.0.0", "active"));
}

#[test]
fn without_traffic_golden_vectors_are_the_trial() {
    let fleet = Fleet::start();
    let one = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&one), Some(&one));
    let gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || fleet.is("1.0.0", ReleaseState::Active));
    assert!(fleet.report("1.0.0").unwrap().requests >= 3);
    assert!(!gateway.metrics().contains("nv_inference_request_success{"), "nobody asked");
}

#[test]
fn a_gateway_that_keeps_dying_with_a_release_goes_back() {
    let (fleet, mut gateway) = on_trial(Does::Answer, Does::Answer, script::limits(60_000, 16));
    // The first start after the switch may be a power cut.
    for _ in 0..4 {
        gateway.kill();
        gateway.start(&[]);
    }
    wait_for("it is rolled back", || fleet.is("2.0.0", ReleaseState::RolledBack));
    assert_eq!(fleet.report("2.0.0").unwrap().reason, Some(FailureReason::CrashLoop));
    wait_for("1.0.0 serves", || gateway.answers_as("1.0.0", "active"));
}

#[test]
fn what_does_not_fit_the_disk_waits_and_what_nothing_names_is_deleted() {
    let fleet = Fleet::start();
    let (one, two) = (fleet.digits("1.0.0", 1), fleet.digits("2.0.0", 2));
    fleet.assign(Some(&one), Some(&one));
    let mut gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));
    gateway.kill();
    let blobs = gateway.dir.path().join("blobs/sha256");
    let used: u64 = std::fs::read_dir(&blobs).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    gateway.start(&["--set", &format!("limits.disk={}", used + 10_000)]);
    fleet.assign(Some(&two), Some(&one));
    wait_for("2.0.0 is deferred", || fleet.is("2.0.0", ReleaseState::Deferred));
    let report = fleet.report("2.0.0").unwrap();
    assert_eq!(report.reason, Some(FailureReason::InsufficientDisk));
    assert!(report.message.contains("raise limits.disk"), "{}", report.message);
    assert!(gateway.answers_as("1.0.0", "active"));

    gateway.kill();
    gateway.start(&[]);
    fleet.assign(Some(&two), Some(&two));
    wait_for("2.0.0 is active", || fleet.is("2.0.0", ReleaseState::Active));
    let old = blobs.join(crate::fleet::blob(&crate::models::digits("1.0.0").weights).digest.hex());
    wait_for("the old weights are deleted", || !old.exists());
    assert!(gateway.answers_as("2.0.0", "active"));
}
