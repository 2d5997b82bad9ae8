//! Objects that cannot be acted on: what ran goes on.

use ballast_crds::conditions::Reason;

use crate::harness::World;

fn named(object: &mut serde_json::Value, model: &str, line: &str) {
    object["spec"]["model"]["name"] = model.into();
    object["spec"]["gatewaySelector"]["matchLabels"]["line"] = line.into();
}

#[tokio::test]
async fn a_name_that_is_taken_stops_nobody_who_ran() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.gateway("gw-b", &[("line", "b")]).await;
    world.rolled_out("first", "1.0.0", &["gw-a"]).await;
    world.wish("second", "1.5.0", |o| named(o, "second", "b"));
    let active = ballast_controller::records::Phase::Active;
    let serves = ballast_bundle::protocol::ReleaseState::Active;
    world.until("second", active, &["gw-b"], serves).await;

    // Now it wants the first one's name, on the first one's gateways too.
    world.wish("second", "1.5.0", |o| named(o, "first", "a"));
    for restarted in [false, true] {
        if restarted {
            world = world.restarted(5_000).await;
            world.sync("gw-a", Vec::new()).await;
            world.sync("gw-b", Vec::new()).await;
        }
        world.pass().await;
        let status = world.source.statuses.lock().unwrap()["second"].clone();
        assert!(status.conditions.iter().any(|c| c.reason == Reason::NameConflict.as_str()), "{status:?}");
        for _ in 0..200 {
            // The runner is prepared beside the passes.
            world.pass().await;
            if world.sync("gw-b", Vec::new()).await.assignment.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let told = world.told("gw-b", "second").await.expect("it is still told of it");
        assert_eq!((told.model.as_str(), told.want.unwrap().version.as_str()), ("second", "1.5.0"));
        assert_eq!(world.told("gw-a", "first").await.unwrap().want.unwrap().version, "1.0.0");
        assert!(world.told("gw-a", "second").await.is_none());
    }
}

#[tokio::test]
async fn a_wish_that_cannot_be_read_stops_neither_itself_nor_its_neighbours() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.rolled_out("broken", "1.0.0", &["gw-a"]).await;
    world.rolled_out("fine", "1.5.0", &["gw-a"]).await;
    world.wish("broken", "2.0.0", |o| o["spec"]["model"]["source"]["digest"] = "sha256:no".into());
    world.pass().await;
    assert_eq!(world.told("gw-a", "broken").await.unwrap().want.unwrap().version, "1.0.0");
    assert_eq!(world.told("gw-a", "fine").await.unwrap().want.unwrap().version, "1.5.0");
}

#[tokio::test]
async fn a_selector_that_matches_nothing_says_so_and_builds_nothing() {
    let world = World::new().await;
    world.wish("digits", "1.0.0", |_| {});
    world.pass().await;
    let status = world.source.statuses.lock().unwrap()["digits"].clone();
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.reason, Reason::NoGatewaySelected.as_str());
    assert!(ready.message.contains("gatewaySelector"), "{}", ready.message);
    assert!(world.newest("digits").number.is_none());
}

#[tokio::test]
async fn a_name_that_no_file_can_have_is_refused() {
    let world = World::new().await;
    for (length, invalid) in [(63, false), (64, true), (253, true)] {
        let name = "n".repeat(length);
        world.wish(&name, "1.0.0", |o| o["spec"]["model"]["name"] = "digits".into());
        world.pass().await;
        let status = world.source.statuses.lock().unwrap()[&name].clone();
        let said = status.conditions.iter().find(|c| c.reason == Reason::InvalidSpec.as_str());
        assert_eq!(said.is_some(), invalid, "{length}: {:?}", status.conditions);
        assert!(said.is_none_or(|c| c.message.contains("metadata.name")), "{said:?}");
    }
}

#[tokio::test]
async fn a_token_goes_with_its_object_also_while_nobody_looks() {
    let world = World::new().await;
    let token = serde_json::from_value(serde_json::json!({
        "apiVersion": "ballast.dev/v1alpha1",
        "kind": "EnrollmentToken",
        "metadata": {"name": "hall", "namespace": "default"},
        "spec": {"labels": {"line": "a"}, "uses": 5},
    }));
    let token = std::sync::Arc::new(token.unwrap());
    let objects = || world.source.objects.lock().unwrap().clone();
    world.source.objects.lock().unwrap().tokens.push((crate::harness::namespace(), token, world.now));
    world.controller.keep_tokens(&objects()).await;
    assert_eq!(world.store.tokens().await.unwrap().len(), 1);

    world.source.objects.lock().unwrap().tokens.clear();
    let world = world.restarted(5_000).await;
    // A directory that was not read whole withdraws nothing.
    let objects = |complete| {
        let mut objects = world.source.objects.lock().unwrap().clone();
        objects.complete = complete;
        objects
    };
    world.controller.keep_tokens(&objects(false)).await;
    assert_eq!(world.store.tokens().await.unwrap().len(), 1);
    world.controller.keep_tokens(&objects(true)).await;
    assert!(world.store.tokens().await.unwrap().is_empty());
}

#[tokio::test]
async fn files_beside_a_model_are_compiled_with_it() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    let fleet = world.directory.path().join("fleet");
    std::fs::create_dir(fleet.join("net")).unwrap();
    std::fs::write(fleet.join("net/w.data"), b"weights").unwrap();
    let digest = ballast_bundle::Digest::of(b"weights").to_string();
    let beside = move |path: &str, digest: &str| {
        let file = serde_json::json!([{"path": path, "digest": digest}]);
        move |o: &mut serde_json::Value| o["spec"]["model"]["source"]["files"] = file
    };
    world.wish("net", "1.0.0", beside("net/w.data", &digest));
    let active = ballast_controller::records::Phase::Active;
    world.until("net", active, &["gw-a"], ballast_bundle::protocol::ReleaseState::Active).await;
    let packed = world.compiler.model.lock().unwrap().clone();
    let parts = ballast_compiler::archive::unpack(&packed).unwrap();
    assert_eq!((parts.model, parts.files["net/w.data"]), (&b"model 1.0.0"[..], &b"weights"[..]));

    // Another file than was meant, and one that leads elsewhere.
    world.wish("net", "1.1.0", beside("net/w.data", &ballast_bundle::Digest::of(b"others").to_string()));
    let reason = |world: &World, reason: Reason| {
        let status = world.source.statuses.lock().unwrap()["net"].clone();
        status.conditions.iter().any(|c| c.reason == reason.as_str())
    };
    for _ in 0..500 {
        world.pass().await;
        if reason(&world, Reason::DigestMismatch) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert!(reason(&world, Reason::DigestMismatch));
    world.wish("net", "1.2.0", beside("../secret", &digest));
    world.pass().await;
    assert!(reason(&world, Reason::InvalidSpec), "{:?}", world.source.statuses.lock().unwrap()["net"].conditions);
}

#[tokio::test]
async fn what_the_cloud_is_asked_for_changes_within_a_sync_and_is_no_new_release() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.rolled_out("digits", "1.0.0", &["gw-a"]).await;
    let before = world.told("gw-a", "digits").await.unwrap();
    assert_eq!(before.escalation, None, "nobody is asked unless it is written");
    let written = |below: &str| {
        serde_json::json!({
            "confidence": {"output": "scores", "scores": "Logits", "below": below},
            "cloud": {"endpoint": "https://cloud.example", "model": "digits-large"},
            "privacy": "Any",
        })
    };
    for (below, is) in [("0.85", 8_500), ("0.9", 9_000)] {
        world.wish("digits", "1.0.0", |o| o["spec"]["escalation"] = written(below));
        world.pass().await;
        let told = world.told("gw-a", "digits").await.unwrap();
        let escalation = told.escalation.unwrap();
        assert_eq!((escalation.confidence.thresholds.others.get(), escalation.cloud.deadline_millis), (is, 300));
        assert_eq!(told.want, before.want, "the same release");
    }
    // Its object cannot be acted on any more: what gateways were told stays, also over a restart.
    world.wish("digits", "1.0.0", |o| o["spec"]["escalation"] = written("7"));
    world.pass().await;
    world = world.restarted(5_000).await;
    world.sync("gw-a", Vec::new()).await;
    for _ in 0..200 {
        // The runner is prepared beside the passes.
        world.pass().await;
        if world.sync("gw-a", Vec::new()).await.assignment.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let told = world.told("gw-a", "digits").await.unwrap();
    assert_eq!(told.escalation.unwrap().confidence.thresholds.others.get(), 9_000);
    assert_eq!(told.want, before.want);
    // Taken out, nobody is asked any more.
    world.wish("digits", "1.0.0", |_| ());
    world.pass().await;
    assert_eq!(world.told("gw-a", "digits").await.unwrap().escalation, None);
}
