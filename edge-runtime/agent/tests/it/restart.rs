//! A start proves everything again: what the state directory says is no proof, and a key that was exchanged stops nothing
//! that runs.

use std::path::PathBuf;

use ballast_bundle::protocol::ReleaseState;
use ballast_bundle::{Blob, Digest, ReleaseRef, Role};
use serde_json::{Value, json};

use crate::fleet::{Fleet, deployment, stranger};
use crate::gateway::{Gateway, run, stderr, wait_for};
use crate::models;

/// 1.0.0 is active.
fn active() -> (Fleet, Gateway, ReleaseRef) {
    let fleet = Fleet::start();
    let one = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&one), Some(&one));
    let gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || fleet.is("1.0.0", ReleaseState::Active));
    (fleet, gateway, one)
}

fn blob_path(gateway: &Gateway, digest: &Digest) -> PathBuf {
    gateway.dir.path().join("blobs/sha256").join(digest.hex())
}

/// Puts everything that the fleet has into the gateway's store, as who owns the disk can. Without the `real` statement:
/// with it the gateway would mend itself from its own disk before a test has looked.
fn plant(fleet: &Fleet, gateway: &Gateway, real: &Blob) {
    for (digest, bytes) in &fleet.state().blobs {
        std::fs::write(blob_path(gateway, digest), bytes).unwrap();
    }
    std::fs::remove_file(blob_path(gateway, &real.digest)).unwrap();
}

fn edit(gateway: &Gateway, file: &str, change: impl FnOnce(&mut Value)) {
    let path = gateway.dir.path().join(file);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(&path, value.to_string()).unwrap();
}

#[test]
fn an_exchanged_key_stops_new_installs_and_nothing_that_runs() {
    let (mut fleet, mut gateway, _) = active();
    fleet.state().exchanged = true;
    fleet.next_root();
    wait_for("the gateway knows the new keys", || gateway.status()["gateway"]["rootVersion"] == 2);
    fleet.down();
    gateway.kill();
    gateway.start(&[]);
    assert!(gateway.answers_as("1.0.0", "active"), "it was installed under the keys before");
    fleet.up();
    let old_key = fleet.digits("2.0.0", 2);
    fleet.assign(Some(&old_key), Some(&old_key));
    wait_for("it is refused", || fleet.is("2.0.0", ReleaseState::RolledBack));
    let two = models::digits("2.0.0");
    let new_key = fleet.release_of(&deployment(), &two, "2.0.0", 3, &stranger(Role::Release));
    fleet.assign(Some(&new_key), Some(&new_key));
    wait_for("what the new key signed is installed", || gateway.answers_as("2.0.0", "active"));
}

#[test]
fn a_release_that_a_stranger_signed_does_not_run_though_the_slot_names_it() {
    let (mut fleet, mut gateway, real) = active();
    gateway.kill();
    fleet.down();
    let forged = fleet.release_of(&deployment(), &models::digits("2.0.0"), "2.0.0", 2, &stranger(Role::Release));
    plant(&fleet, &gateway, &real.statement);
    edit(&gateway, "slots/digits.json", |file| {
        file["state"]["active"]["release"] = json!(forged);
        file["installed"][0][0] = json!({"number": forged.number, "manifest": forged.manifest.digest});
    });
    gateway.start(&[]);
    assert_eq!(gateway.image(&[0; 256]).status, 503);
    assert!(gateway.log().contains("cannot be verified again"), "{}", gateway.log());
    assert!(gateway.log().contains("signatures by the role's keys"), "{}", gateway.log());
}

#[test]
fn a_runner_that_a_stranger_signed_does_not_run_though_the_state_names_it() {
    let (mut fleet, mut gateway, _) = active();
    gateway.kill();
    fleet.down();
    let (profile, code) = models::runner();
    let wasm = Digest::of(ballast_aot::RUNNER_WASM);
    let forged = fleet.runner(profile, code, wasm, 2, &stranger(Role::Runtime));
    plant(&fleet, &gateway, &fleet.runner_signed_by(Role::Runtime).statement);
    edit(&gateway, "runner.json", |file| file["active"]["reference"] = json!(forged));
    gateway.start(&[]);
    assert_eq!(gateway.image(&[0; 256]).status, 503);
    assert!(gateway.log().contains("the runner cannot be used"), "{}", gateway.log());
    assert!(gateway.status()["runner"]["error"].as_str().unwrap().contains("signatures"), "{}", gateway.status());
    fleet.up();
    wait_for("the real one is brought again", || gateway.answers_as("1.0.0", "active"));
}

/// The gateway ends, loses these blobs' right bytes, and starts while nobody can be asked.
fn damaged(fleet: &mut Fleet, gateway: &mut Gateway, blobs: &[&Blob], arguments: &[&str]) {
    fleet.down();
    gateway.kill();
    for blob in blobs {
        let path = blob_path(gateway, &blob.digest);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    gateway.start(arguments);
}

#[test]
fn damaged_bytes_of_what_serves_are_brought_again() {
    let (mut fleet, mut gateway, one) = active();
    let weights = crate::fleet::blob(&models::digits("1.0.0").weights);
    let runner = fleet.runner_signed_by(Role::Runtime);
    let cases: [&[&Blob]; 4] =
        [&[&one.statement], &[&weights], &[&runner.module, &weights], &[&runner.statement, &one.statement]];
    for blobs in cases {
        damaged(&mut fleet, &mut gateway, blobs, &["--set", "sync.max_backoff_seconds=1"]);
        assert_eq!(gateway.image(&[0; 256]).status, 503, "what is damaged does not serve");
        fleet.up();
        wait_for("it is whole again", || gateway.answers_as("1.0.0", "active"));
        assert!(gateway.log().contains("is not what it should be"), "{}", gateway.log());
    }
}

#[test]
fn what_could_not_be_brought_again_is_tried_again() {
    let (mut fleet, mut gateway, _) = active();
    let weights = crate::fleet::blob(&models::digits("1.0.0").weights);
    fleet.state().tampered.insert(weights.digest);
    damaged(&mut fleet, &mut gateway, &[&weights], &[]);
    fleet.up();
    wait_for("what comes is wrong, too", || gateway.log().contains("was not brought again"));
    fleet.state().tampered.clear();
    wait_for("it is whole again", || gateway.answers_as("1.0.0", "active"));
}

/// 2.0.0 is here and waits for memory; its bytes are damaged meanwhile. That is no fault of its.
#[test]
fn a_candidate_whose_bytes_are_damaged_is_brought_again() {
    let (mut fleet, mut gateway, one) = active();
    gateway.kill();
    gateway.start(&["--set", "limits.memory=1Mi"]);
    let two = fleet.digits("2.0.0", 2);
    fleet.assign(Some(&two), Some(&one));
    wait_for("2.0.0 waits for memory", || fleet.is("2.0.0", ReleaseState::Deferred));
    let weights = crate::fleet::blob(&models::digits("2.0.0").weights);
    damaged(&mut fleet, &mut gateway, &[&weights], &["--set", "sync.max_backoff_seconds=1"]);
    fleet.up();
    wait_for("2.0.0 is active", || fleet.is("2.0.0", ReleaseState::Active));
}

/// Who enrols again after keys were exchanged keeps what it installed under the keys before.
#[test]
fn enrolling_again_forgets_no_root() {
    let (mut fleet, mut gateway, _) = active();
    fleet.state().exchanged = true;
    fleet.next_root();
    wait_for("the gateway knows the new keys", || gateway.status()["gateway"]["rootVersion"] == 2);
    gateway.kill();
    let output = run(&["enroll", "--token", &fleet.token(), "--state", gateway.state()]);
    assert!(output.status.success(), "{}", stderr(&output));
    fleet.down();
    gateway.start(&[]);
    assert!(gateway.answers_as("1.0.0", "active"));
}
