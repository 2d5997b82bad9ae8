//! Rollouts over time: many releases, silence, restarts, halts.

use ballast_bundle::protocol::ReleaseState;
use ballast_compiler::WorkerError;
use ballast_controller::records::Phase;

use crate::harness::{World, report};

#[tokio::test]
async fn releases_follow_each_other_for_ever_and_only_some_are_kept() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    for version in 1..=9 {
        world.rolled_out("digits", &format!("{version}.0.0"), &["gw-a"]).await;
    }
    let record = world.record("digits");
    assert!(record.releases.len() <= 4, "{} are kept", record.releases.len());
    assert_eq!(record.stable().unwrap().version, "9.0.0");
    let reasons: Vec<_> = record.releases.iter().map(|r| (r.version.as_str(), r.reason.as_str())).collect();
    assert_eq!(reasons.last(), Some(&("9.0.0", "Complete")));
    assert!(reasons.iter().rev().skip(1).all(|(_, reason)| *reason == "Superseded"), "{reasons:?}");
}

#[tokio::test]
async fn an_operator_that_was_away_calls_nobody_silent() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.gateway("gw-b", &[("line", "a")]).await;
    world.wish("digits", "1.0.0", |_| {});
    world.until("digits", Phase::RollingOut, &["gw-a", "gw-b"], ReleaseState::Trial).await;
    let release = world.newest("digits");
    let mut trying = None;
    for id in ["gw-a", "gw-b"] {
        world.pass().await;
        if world.told(id, "digits").await.unwrap().want.is_some() {
            world.sync(id, vec![report("digits", &release, ReleaseState::Trial)]).await;
            trying = Some(id);
        }
    }
    let trying = trying.expect("somebody tries it");
    // An hour later: nobody could be heard meanwhile.
    let mut world = world.restarted(3_600_000).await;
    world.pass().await;
    assert_eq!(world.newest("digits").phase, Phase::RollingOut);
    world.wait(50_000).await;
    assert_eq!(world.newest("digits").phase, Phase::RollingOut, "{}", world.newest("digits").message);
    // A machine that slept.
    world.now += 3_600_000;
    world.pass().await;
    assert_eq!(world.newest("digits").phase, Phase::RollingOut);
    // Who stays silent while the operator listens has failed, as ever.
    world.wait(80_000).await;
    assert_eq!(
        world.newest("digits").phase,
        Phase::RolledBack,
        "{trying} never spoke again: {:?}",
        world.newest("digits")
    );
}

#[tokio::test]
async fn a_halted_release_goes_on_as_often_as_a_person_says_so() {
    let mut world = World::new().await;
    for id in ["gw-a", "gw-b", "gw-c"] {
        world.gateway(id, &[("line", "a")]).await;
    }
    let all = ["gw-a", "gw-b", "gw-c"];
    let pause = |object: &mut serde_json::Value| object["spec"]["rollout"]["onFailure"] = "Pause".into();
    world.wish("digits", "1.0.0", pause);
    world.until("digits", Phase::Paused, &all, ReleaseState::RolledBack).await;
    let counter = world.newest("digits").number.unwrap().counter.0;
    for attempt in ["", "/2"] {
        world.wish("digits", "1.0.0", |object| {
            pause(object);
            object["metadata"]["annotations"]["ballast.dev/retry"] = format!("{counter}{attempt}").into();
        });
        world.pass().await;
        assert_eq!(world.newest("digits").phase, Phase::RollingOut, "{attempt}");
        world.until("digits", Phase::Paused, &all, ReleaseState::RolledBack).await;
        world.pass().await;
        assert_eq!(world.newest("digits").phase, Phase::Paused, "one wish lets it go on once");
    }
}

#[tokio::test]
async fn a_worker_that_cannot_start_condemns_no_model_and_a_crash_is_forgotten_by_a_retry() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.sync("gw-a", Vec::new()).await;
    *world.compiler.failures.lock().unwrap() = (0..3).map(|_| WorkerError::Isolation("no".into())).collect();
    world.rolled_out("digits", "1.0.0", &["gw-a"]).await;
    *world.compiler.failures.lock().unwrap() = (0..3).map(|_| WorkerError::Timeout { seconds: 1 }).collect();
    world.wish("digits", "2.0.0", |_| {});
    world.until("digits", Phase::Refused, &["gw-a"], ReleaseState::Active).await;
    let refused = world.newest("digits");
    assert_eq!(refused.reason, "CompilerCrashed");
    world.wait(60_000).await;
    assert_eq!(world.compiler.failures.lock().unwrap().len(), 1, "it is not tried a third time");
    world.compiler.failures.lock().unwrap().clear();
    world.wish("digits", "2.0.0", |object| {
        object["metadata"]["annotations"]["ballast.dev/retry"] = refused.created.0.to_string().into();
    });
    world.until("digits", Phase::Active, &["gw-a"], ReleaseState::Active).await;
}
