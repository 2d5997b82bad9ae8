//! Mistakes of whoever runs a gateway: one sentence each, that says what to do.

use crate::fleet::Fleet;
use crate::gateway::{Gateway, run, stderr};

#[test]
fn it_says_how_to_enrol() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["run", "--state", dir.path().to_str().unwrap(), "--http", "127.0.0.1:0"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("ballast-edge enroll --token"), "{}", stderr(&output));
}

#[test]
fn a_token_that_is_used_up_keeps_the_gateway_out() {
    let fleet = Fleet::start();
    fleet.state().refuse_token =
        Some("the token line-1 is used up; make another with `ballast token create`".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["enroll", "--token", &fleet.token(), "--state", dir.path().to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("used up; make another"), "{}", stderr(&output));
}

#[test]
fn a_port_in_use_is_named() {
    let fleet = Fleet::start();
    let gateway = Gateway::enrolled(&fleet);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["run", "--state", gateway.state(), "--http", &address]);
    assert!(!output.status.success());
    let says = stderr(&output);
    assert!(says.contains(&format!("{address} is in use")) && says.contains("--http"), "{says}");
}

#[test]
fn one_process_a_state_directory() {
    let fleet = Fleet::start();
    let gateway = Gateway::started(&fleet);
    let output = run(&["run", "--state", gateway.state(), "--http", "127.0.0.1:0"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains(&format!("process {}", gateway.pid())), "{}", stderr(&output));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let below = file.join("state");
    let output = run(&["run", "--state", below.to_str().unwrap(), "--http", "127.0.0.1:0"]);
    assert!(!output.status.success());
    let says = stderr(&output);
    assert!(says.contains(below.to_str().unwrap()) && says.contains("choose another with --state"), "{says}");
}

#[test]
fn the_status_of_no_state_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let output = run(&["status", "--state", absent.to_str().unwrap()]);
    assert!(!output.status.success());
    let says = stderr(&output);
    assert!(says.contains(absent.to_str().unwrap()) && says.contains("--state DIR"), "{says}");
    assert!(!absent.exists());
}
