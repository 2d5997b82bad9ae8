//! What no kept release needs goes, whenever the operator dies; what gateways may come for stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ballast_bundle::manifest::parse_bundle_manifest;
use ballast_bundle::protocol::ReleaseState;
use ballast_bundle::{Blob, Digest, ReleaseRef};
use ballast_controller::records::{Phase, Release};
use ballast_fleet::registry::Repository;

use crate::harness::{World, report};

/// Weights of versions that are in the registry.
fn versions(world: &World) -> Vec<u32> {
    let there = |n: &u32| world.registry.blob_path(&Digest::of(format!("weights of {n}.0.0").as_bytes())).exists();
    (1..=20).filter(there).collect()
}

fn kept(world: &World, name: &str) -> Vec<u32> {
    let major = |r: &Release| r.version.split('.').next().unwrap().parse().unwrap();
    world.record(name).releases.iter().map(major).collect()
}

/// Everything that a gateway fetches of a release.
fn is_pullable(world: &World, release: &ReleaseRef) -> bool {
    let repository: Repository = release.repository.parse().unwrap();
    let Ok(manifest) = std::fs::read(world.registry.blob_path(&release.manifest.digest)) else { return false };
    let layers = parse_bundle_manifest(&manifest).unwrap();
    [&release.manifest, &release.statement, &layers.weights, &layers.plan, &layers.contract, &layers.golden]
        .into_iter()
        .all(|blob: &Blob| world.registry.has(&repository, blob))
}

fn references(world: &World, name: &str) -> Vec<ReleaseRef> {
    let releases = world.record(name).releases;
    releases.iter().flat_map(|r| r.targets.values()).filter_map(|t| t.release.clone()).collect()
}

/// Every file of the registry.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Rolls out versions one after the other; the gateway says what it holds.
async fn roll_out(world: &mut World, versions: std::ops::RangeInclusive<u32>) {
    for version in versions {
        world.rolled_out("digits", &format!("{version}.0.0"), &["gw-a"]).await;
        let active = world.newest("digits");
        world.sync("gw-a", vec![report("digits", &active, ReleaseState::Active)]).await;
    }
    world.pass().await;
}

#[tokio::test]
async fn the_registry_holds_what_is_kept_and_nothing_else() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    roll_out(&mut world, 1..=9).await;
    assert_eq!(kept(&world, "digits"), [7, 8, 9], "revisionHistoryLimit: 2");
    assert_eq!(versions(&world), [7, 8, 9]);
    let kept = references(&world, "digits");
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().all(|release| is_pullable(&world, release)));
    let root = world.directory.path().join("state/registry");
    let tags = files(&root.join("repositories/ns-a/digits/_tags"));
    assert_eq!(tags.len(), 3, "{tags:?}");
    // Per release: manifest, weights, plan, contract, config, statement, referrer; in common: golden vectors and the empty
    // config. Of the runner: module, config, manifest, statement, referrer (its config is the empty one too).
    let blobs = files(&root.join("blobs"));
    let runner = files(&root.join("repositories/ns-a/runner"));
    let runner: BTreeSet<_> = runner.iter().filter(|p| p.parent().unwrap().ends_with("_blobs")).collect();
    let own = files(&root.join("repositories/ns-a/digits/_blobs"));
    assert_eq!(own.len(), 3 * 7 + 2, "{own:#?}");
    assert!(blobs.len() <= own.len() + runner.len(), "{blobs:#?}");
}

#[tokio::test]
async fn what_a_gateway_has_in_a_slot_stays_while_it_may_come_for_it() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.gateway("gw-b", &[("line", "a")]).await;
    world.rolled_out("digits", "1.0.0", &["gw-a", "gw-b"]).await;
    let first = world.newest("digits");
    world.sync("gw-b", vec![report("digits", &first, ReleaseState::Active)]).await;
    let reference = first.targets.values().find_map(|t| t.release.clone()).unwrap();
    // Labelled away: it counts for no rollout any more, and was not heard since.
    let mut row = world.store.gateway("gw-b".parse().unwrap()).await.unwrap().unwrap();
    row.labels.clear();
    world.store.put(row).await.unwrap();
    let mut world = world.restarted(1_000).await;
    roll_out(&mut world, 2..=6).await;
    assert_eq!((kept(&world, "digits"), versions(&world)), (vec![1, 4, 5, 6], vec![1, 4, 5, 6]));
    assert!(is_pullable(&world, &reference));
    // It says that it has something else now.
    world.sync("gw-b", Vec::new()).await;
    world.pass().await;
    assert_eq!((kept(&world, "digits"), versions(&world)), (vec![4, 5, 6], vec![4, 5, 6]));
    assert!(!is_pullable(&world, &reference));
}

#[tokio::test]
async fn a_gateway_that_is_not_heard_of_holds_nothing_back_for_ever() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.gateway("gw-b", &[("line", "a")]).await;
    world.rolled_out("digits", "1.0.0", &["gw-a", "gw-b"]).await;
    let first = world.newest("digits");
    world.sync("gw-b", vec![report("digits", &first, ReleaseState::Active)]).await;
    let mut row = world.store.gateway("gw-b".parse().unwrap()).await.unwrap().unwrap();
    row.labels.clear();
    world.store.put(row).await.unwrap();
    let mut world = world.restarted(8 * 24 * 3_600_000).await;
    roll_out(&mut world, 2..=6).await;
    assert_eq!(versions(&world), [4, 5, 6]);
}

#[tokio::test]
async fn a_start_after_a_crash_removes_what_was_left() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    roll_out(&mut world, 1..=4).await;
    let root = world.directory.path().join("state/registry");
    let full = world.directory.path().join("full");
    copy(&root, &full);
    roll_out(&mut world, 5..=7).await;
    let clean = files(&root);
    // The record was saved, and the process died before anything was removed.
    copy(&full, &root);
    assert_eq!(versions(&world), [2, 3, 4, 5, 6, 7]);
    let world = world.restarted(1_000).await;
    world.pass().await;
    assert_eq!((versions(&world), files(&root)), (vec![5, 6, 7], clean.clone()));
    // It died when only the links were gone.
    copy(&full.join("blobs"), &root.join("blobs"));
    let world = world.restarted(1_000).await;
    world.pass().await;
    assert_eq!(files(&root), clean);
    assert!(references(&world, "digits").iter().all(|release| is_pullable(&world, release)));
}

#[tokio::test]
async fn bundles_of_a_withdrawn_deployment_go_also_when_only_its_record_did() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.rolled_out("digits", "1.0.0", &["gw-a"]).await;
    world.rolled_out("other", "2.0.0", &["gw-a"]).await;
    let root = world.directory.path().join("state/registry");
    let full = world.directory.path().join("full");
    copy(&root, &full);
    world.source.objects.lock().unwrap().deployments.retain(|d| d.deployment().name == "other");
    world.pass().await;
    assert_eq!(versions(&world), [2]);
    copy(&full, &root);
    assert_eq!(versions(&world), [1, 2]);
    let world = world.restarted(1_000).await;
    // Nothing is known to be gone before the source was read whole.
    world.source.objects.lock().unwrap().complete = false;
    world.pass().await;
    assert_eq!(versions(&world), [1, 2]);
    world.source.objects.lock().unwrap().complete = true;
    world.pass().await;
    assert_eq!(versions(&world), [2]);
    assert!(world.registry.repositories().unwrap().iter().any(|r| r.as_str().contains("/runner/")), "runners stay");
}

#[tokio::test]
async fn nothing_is_removed_while_the_record_cannot_be_saved() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    roll_out(&mut world, 1..=3).await;
    assert_eq!(versions(&world), [1, 2, 3]);
    let record = world.directory.path().join("state/deployments/ns-a/digits.json");
    let aside = world.directory.path().join("digits.json");
    std::fs::rename(&record, &aside).unwrap();
    // In the way of the file.
    std::fs::create_dir(&record).unwrap();
    world.wish("digits", "4.0.0", |_| {});
    for _ in 0..3 {
        world.pass().await;
        world.now += 1_000;
    }
    assert_eq!(versions(&world), [1, 2, 3], "the record on the disk names the first");
    std::fs::remove_dir(&record).unwrap();
    std::fs::rename(&aside, &record).unwrap();
    world.until("digits", Phase::Active, &["gw-a"], ReleaseState::Active).await;
    world.pass().await;
    assert_eq!(versions(&world), [2, 3, 4]);
    let saved: ballast_controller::records::Record = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert_eq!(saved.releases.len(), 3);
}
