//! Cables that are pulled, and documents that are not what they should be.

use std::collections::BTreeSet;

use ballast_bundle::protocol::ReleaseState;
use ballast_bundle::{AssignedDeployment, DeploymentRef, Role};

use crate::fleet::{DAY_MILLIS, Fleet, NAMESPACE, blob, deployment, trial};
use crate::gateway::{Gateway, wait_for};

/// Bytes after which a cable is pulled.
const CUT: usize = 100_000;

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let fleet = Fleet::start();
    let release = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    fleet.state().cut_after = Some(CUT);
    let gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));

    let runner = blob(crate::models::runner().1);
    let path = format!("/v2/ns-1/runner/blobs/{}", runner.digest);
    let ranges: Vec<_> = fleet.state().requests.iter().filter(|(p, _)| *p == path).map(|(_, r)| r.clone()).collect();
    assert!(ranges.len() > 1, "{} bytes were never cut", runner.size);
    assert_eq!(ranges[0], None);
    let mut from = 0;
    for range in &ranges[1..] {
        let next: u64 = range.as_ref().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
        // Not a byte twice: each request begins where the one before it was cut off.
        assert!(next > from && next <= from + CUT as u64, "{ranges:?}");
        from = next;
    }
}

#[test]
fn tampered_bytes_never_run() {
    let fleet = Fleet::start();
    let release = fleet.digits("1.0.0", 1);
    fleet.state().tampered.insert(blob(&crate::models::digits("1.0.0").weights).digest);
    fleet.assign(Some(&release), Some(&release));
    let gateway = Gateway::started(&fleet);
    wait_for("it is refused", || fleet.is("1.0.0", ReleaseState::RolledBack));
    assert_eq!(gateway.image(&[0; 256]).status, 503);
}

/// Both want the runner's and the model's very bytes, which come in pieces, and the disk has room for them once.
#[test]
fn deployments_that_want_the_same_bytes_share_one_download() {
    let fleet = Fleet::start();
    fleet.state().cut_after = Some(CUT);
    let mut deployments = Vec::new();
    for name in ["digits", "copy"] {
        let deployment = DeploymentRef { name: name.to_owned(), ..deployment() };
        // The same contract, so that all four layers are the same.
        let release =
            fleet.release_of(&deployment, &crate::models::digits("1.0.0"), "1.0.0", 1, fleet.key(Role::Release));
        let (want, stable) = (Some(release.clone()), Some(release));
        let model = if name == "copy" { "other" } else { "digits" }.to_owned();
        deployments.push(AssignedDeployment { deployment, model, want, stable, trial: trial(), escalation: None });
    }
    let runner = fleet.runner_signed_by(Role::Runtime);
    let blobs: u64 = fleet.state().blobs.values().map(|bytes| bytes.len() as u64).sum();
    fleet.assign_all(deployments, Some(runner));
    let mut gateway = Gateway::enrolled(&fleet);
    gateway.start(&["--set", &format!("limits.disk={blobs}")]);
    wait_for("the first is active", || gateway.answers_as("1.0.0", "active"));
    // The other's contract says that it is of model digits: every byte of it is here, and it is refused for that alone.
    wait_for("the second was looked at", || {
        fleet.state().reports.iter().any(|r| r.deployment.name == "copy" && r.state == ReleaseState::RolledBack)
    });
    let weights = blob(&crate::models::digits("1.0.0").weights);
    let path = format!("/v2/{NAMESPACE}/digits/blobs/{}", weights.digest);
    let ranges: Vec<_> = fleet.state().requests.iter().filter(|(p, _)| *p == path).map(|(_, r)| r.clone()).collect();
    let once: BTreeSet<_> = ranges.iter().collect();
    assert_eq!(once.len(), ranges.len(), "no byte came twice: {ranges:?}");
}

#[test]
fn what_serves_goes_on_without_an_operator_and_over_a_restart() {
    let mut fleet = Fleet::start();
    let release = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    let mut gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));
    fleet.down();
    assert!(gateway.answers_as("1.0.0", "active"));
    gateway.kill();
    gateway.start(&[]);
    assert!(gateway.answers_as("1.0.0", "active"), "it serves before anybody is asked");
    fleet.up();
    let next = fleet.digits("2.0.0", 2);
    fleet.assign(Some(&next), Some(&next));
    wait_for("it follows again", || gateway.answers_as("2.0.0", "active"));
}

/// 1.0.0 is active; syncs that fail come again soon.
fn following(fleet: &Fleet) -> Gateway {
    let one = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&one), Some(&one));
    let mut gateway = Gateway::enrolled(fleet);
    gateway.start(&["--set", "sync.max_backoff_seconds=1"]);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));
    gateway
}

fn refused(fleet: &Fleet, gateway: &Gateway, says: &str) {
    let two = fleet.digits("2.0.0", 2);
    fleet.assign(Some(&two), Some(&two));
    wait_for("it was refused", || gateway.log().contains(says));
    assert!(gateway.answers_as("1.0.0", "active"));
    let statement = two.statement.digest.to_string();
    assert!(!fleet.state().requests.iter().any(|(path, _)| path.ends_with(&statement)), "nothing of it is fetched");
}

#[test]
fn an_expired_pointer_installs_nothing_and_stops_nothing() {
    let fleet = Fleet::start();
    let gateway = following(&fleet);
    fleet.state().pointer_age_millis = 9 * DAY_MILLIS;
    refused(&fleet, &gateway, "nothing new is installed from it");
    fleet.state().pointer_age_millis = 0;
    wait_for("a fresh one is followed", || gateway.answers_as("2.0.0", "active"));
}

#[test]
fn a_replayed_pointer_is_refused() {
    let fleet = Fleet::start();
    fleet.state().sequence = 10;
    let gateway = following(&fleet);
    fleet.state().sequence = 5;
    refused(&fleet, &gateway, "a replay");
}

/// The operator's clock was in a far future once, further than any certificate lives.
#[test]
fn a_pointer_from_the_future_cuts_nobody_off_and_a_new_epoch_ends_it() {
    let fleet = Fleet::start();
    let mut gateway = following(&fleet);
    let issued = || gateway_time(&gateway);
    let before = issued();
    let age = -3000 * 365 * DAY_MILLIS;
    fleet.state().sequence += 1;
    fleet.state().pointer_age_millis = age;
    wait_for("it is taken", || issued() > before + 2000 * 365 * DAY_MILLIS);
    gateway.kill();
    fleet.state().pointer_age_millis = 0;
    gateway.start(&["--set", "sync.max_backoff_seconds=1"]);
    let syncs = fleet.state().syncs;
    wait_for("it syncs over new connections", || fleet.state().syncs > syncs + 2);
    assert!(gateway.answers_as("1.0.0", "active"));

    fleet.state().raised = 1;
    fleet.next_root();
    fleet.state().sequence += 1;
    wait_for("the time is of the new epoch", || gateway_time(&gateway) < before + 365 * DAY_MILLIS);
}

fn gateway_time(gateway: &Gateway) -> i64 {
    gateway.status()["pointer"]["issued"].as_i64().unwrap()
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
    let fleet = Fleet::start();
    fleet.state().certificate_minutes = Some(45);
    let mut gateway = following(&fleet);
    assert_eq!(fleet.state().renewals, 1);
    gateway.kill();
    gateway.start(&[]);
    let syncs = fleet.state().syncs;
    wait_for("it syncs with the new one", || fleet.state().syncs > syncs + 2);
    assert_eq!(fleet.state().renewals, 1, "a fresh certificate is kept");
}

#[test]
fn a_young_certificate_is_not_renewed() {
    let fleet = Fleet::start();
    fleet.state().certificate_minutes = Some(30);
    let _gateway = following(&fleet);
    assert_eq!(fleet.state().renewals, 0);
}
