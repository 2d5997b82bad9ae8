//! Cables that are pulled, and documents that are not what they should be.

use ballast_bundle::protocol::ReleaseState;

use crate::fleet::{Fleet, blob};
use crate::gateway::{Gateway, wait_for};

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let fleet = Fleet::start();
    let release = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    const CUT: usize = 100_000;
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
    assert_eq!(gateway.image(&[0; 256]).status, 404);
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
