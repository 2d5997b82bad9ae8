//! What holds a release up before it is signed is what the conditions say.

use ballast_bundle::protocol::ReleaseState;
use ballast_bundle::{DataType, TensorSpec};
use ballast_compiler::WorkerError;
use ballast_controller::records::Phase;
use ballast_crds::conditions::Reason;

use crate::harness::World;

const DAY: u64 = 24 * 3_600_000;

/// Status, reason and message of a condition of `digits`.
fn condition(world: &World, kind: &str) -> (String, String, String) {
    let status = world.source.statuses.lock().unwrap()["digits"].clone();
    let found = status.conditions.into_iter().find(|c| c.type_ == kind).unwrap();
    (found.status, found.reason, found.message)
}

/// Passes until the conditions say that `reason` holds the release up; returns what they say to people.
async fn until_held_up(world: &mut World, reason: Reason) -> String {
    for _ in 0..400 {
        world.pass().await;
        let (ready, why, message) = condition(world, "Ready");
        if why == reason.as_str() {
            assert_eq!(ready, "False");
            let expected = |status: &str| (status.to_owned(), why.clone(), message.clone());
            assert_eq!(condition(world, "BundlesSigned"), expected("False"));
            assert_eq!(condition(world, "Reconciling"), expected("True"));
            assert_eq!(condition(world, "Stalled").0, "False");
            return message;
        }
        world.now += 100;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // builds run beside the passes
    }
    panic!("never {reason}: {:?}", condition(world, "Ready"));
}

async fn world() -> World {
    let world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    // Targets are known from the first pass on.
    world.pass().await;
    world.sync("gw-a", Vec::new()).await;
    world
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_named_until_it_can() {
    let mut world = world().await;
    world.wish("digits", "1.0.0", |_| {});
    let source = world.directory.path().join("fleet/1.0.0.onnx");
    let model = std::fs::read(&source).unwrap();
    std::fs::remove_file(&source).unwrap();
    let message = until_held_up(&mut world, Reason::SourceUnavailable).await;
    assert!(message.contains("/1.0.0.onnx") && message.contains("no such file"), "{message}");
    // Also while it is tried again.
    for _ in 0..100 {
        world.now += 100;
        world.pass().await;
        assert_eq!(condition(&world, "Ready").1, Reason::SourceUnavailable.as_str());
    }
    std::fs::write(&source, model).unwrap();
    world.until("digits", Phase::Active, &["gw-a"], ReleaseState::Active).await;
}

#[tokio::test]
async fn a_worker_that_cannot_start_is_named_until_it_can() {
    let mut world = world().await;
    *world.compiler.failures.lock().unwrap() = vec![WorkerError::Isolation("no seccomp here".into())];
    world.wish("digits", "1.0.0", |_| {});
    let message = until_held_up(&mut world, Reason::CompilerUnavailable).await;
    assert!(message.contains("no seccomp here"), "{message}");
    world.until("digits", Phase::Active, &["gw-a"], ReleaseState::Active).await;
}

#[tokio::test]
async fn nothing_is_signed_by_a_clock_that_is_more_than_a_day_behind_the_last_release() {
    let mut world = world().await;
    world.rolled_out("digits", "1.0.0", &["gw-a"]).await;
    let (first, right) = (world.newest("digits").number.unwrap(), world.now);
    // An hour is no more than clocks do to each other.
    world.now = right - 3_600_000;
    world.rolled_out("digits", "2.0.0", &["gw-a"]).await;
    let second = world.newest("digits").number.unwrap();
    assert!(second > first, "counters grow whatever the clock says");

    world.now = right - 2 * DAY;
    world.wish("digits", "3.0.0", |_| {});
    let message = until_held_up(&mut world, Reason::ClockBehind).await;
    assert!(message.contains("set the clock"), "{message}");
    stays(&mut world, Reason::ClockBehind).await;
    let record = world.record("digits");
    let held = record.releases.last().unwrap();
    assert_eq!((held.version.as_str(), held.phase, held.number), ("3.0.0", Phase::Compiling, None));
    assert_eq!(record.last_counter, Some(second.counter));
    assert!(held.targets.values().all(|t| t.release.is_none()), "nothing is signed");
    let manifest = ballast_bundle::Digest::of(b"weights of 3.0.0");
    assert!(!world.registry.blob_path(&manifest).exists(), "nothing is published");
    assert_eq!(world.told("gw-a", "digits").await.unwrap().want.unwrap().version, "2.0.0", "what runs goes on");

    world.now = right + 60_000;
    world.until("digits", Phase::Active, &["gw-a"], ReleaseState::Active).await;
    assert!(world.newest("digits").number.unwrap() > second);
}

/// The reason is the same in every pass.
async fn stays(world: &mut World, reason: Reason) {
    for _ in 0..20 {
        world.now += 5_000;
        world.pass().await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // builds are made beside the passes
        let said = condition(world, "Ready");
        assert_eq!(said.1, reason.as_str(), "{said:?}");
    }
}

#[tokio::test]
async fn a_release_with_other_outputs_is_refused_unless_that_is_meant() {
    let mut world = world().await;
    world.rolled_out("digits", "1.0.0", &["gw-a"]).await;
    let scores = TensorSpec { name: "scores".into(), datatype: DataType::Fp32, shape: vec![1, 10] };
    *world.compiler.outputs.lock().unwrap() = vec![scores];
    world.wish("digits", "2.0.0", |_| {});
    world.until("digits", Phase::Refused, &["gw-a"], ReleaseState::Active).await;
    let refused = world.newest("digits");
    assert_eq!((refused.reason.as_str(), refused.number), (Reason::ContractChanged.as_str(), None));
    assert!(refused.message.contains("set model.allowContractChange"), "{}", refused.message);
    assert!(refused.targets.values().all(|t| t.release.is_none()), "nothing is signed");

    // Whether it changed cannot be told any more: nothing is signed on a guess.
    let stable = world.record("digits").stable().unwrap().clone();
    let manifest = stable.targets.values().find_map(|t| t.release.clone()).unwrap().manifest.digest;
    let (path, bytes) =
        (world.registry.blob_path(&manifest), std::fs::read(world.registry.blob_path(&manifest)).unwrap());
    std::fs::remove_file(&path).unwrap();
    world.wish("digits", "3.0.0", |_| {});
    let message = until_held_up(&mut world, Reason::BundleUnavailable).await;
    assert!(message.contains("the inputs and outputs of 1.0.0 cannot be read"), "{message}");
    stays(&mut world, Reason::BundleUnavailable).await;
    std::fs::write(&path, bytes).unwrap();
    world.until("digits", Phase::Refused, &["gw-a"], ReleaseState::Active).await;

    world.wish("digits", "4.0.0", |object| object["spec"]["model"]["allowContractChange"] = true.into());
    world.until("digits", Phase::Active, &["gw-a"], ReleaseState::Active).await;
    assert_eq!(world.newest("digits").version, "4.0.0");
}

#[tokio::test]
async fn where_no_target_matches_nothing_is_said_to_be_signed() {
    let mut world = world().await;
    world.wish("digits", "1.0.0", |object| object["spec"]["targets"] = serde_json::json!([{"name": "cortex-a53"}]));
    world.pass().await;
    let said = |kind| {
        let (status, reason, _) = condition(&world, kind);
        (status, reason)
    };
    let why = || Reason::NoEligibleGateway.as_str().to_owned();
    assert_eq!(said("Ready"), ("False".into(), why()));
    assert_eq!(said("BundlesSigned"), ("False".into(), why()));
    assert_eq!(said("Stalled"), ("True".into(), why()));
    world.now += 5_000;
    world.wish("digits", "1.0.0", |_| {});
    world.until("digits", Phase::Active, &["gw-a"], ReleaseState::Active).await;
}
