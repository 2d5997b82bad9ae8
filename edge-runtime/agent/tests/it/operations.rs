//! What whoever runs a gateway does to it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::failures::one_active;
use crate::fleet::Fleet;
use crate::gateway::{Gateway, ask, hear, wait_for};
use crate::script::{self, Does, bad, good};

#[test]
fn sigterm_answers_whoever_is_in_flight_or_waits_to_be_accepted() {
    // One client at a time: a second one waits in the kernel's queue.
    let (_fleet, mut gateway, _) =
        one_active(Does::Loop, script::limits(2_000, 16), &["--set", "serve.max_connections=1"]);
    let address = gateway.address();
    let stuck = ask(&address, &bad()).unwrap();
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    assert!(gateway.terminate());
    // Its release failed, but it has its answer.
    assert_eq!(hear(stuck).unwrap().status, 500);
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    assert!(TcpStream::connect(&address).is_err(), "it listens no more");
    assert!(!gateway.dir.path().join("http").exists());
}

#[test]
fn a_new_trust_root_is_walked_to_and_kept() {
    let fleet = Fleet::start();
    let release = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    let mut gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));
    fleet.next_root();
    fleet.next_root();
    wait_for("it has the newest root", || gateway.status()["gateway"]["rootVersion"] == 3);
    gateway.kill();
    gateway.start(&[]);
    let two = fleet.digits("2.0.0", 2);
    fleet.assign(Some(&two), Some(&two));
    wait_for("2.0.0 is active", || gateway.answers_as("2.0.0", "active"));
    assert_eq!(gateway.status()["gateway"]["rootVersion"], 3);
}

#[test]
fn a_runner_that_answers_wrong_is_refused_and_a_right_one_takes_over() {
    let (fleet, gateway, one) = one_active(Does::Answer, script::limits(60_000, 16), &[]);
    let module = || gateway.status()["runner"]["module"].clone();
    let before = module();
    let wrong = script::runner(&fleet, 2, 1);
    fleet.assign_with(Some(&one), Some(&one), crate::fleet::trial(), wrong.clone());
    wait_for("it was fetched and refused", || gateway.log().contains("the new runner is refused here"));
    assert_eq!(module(), before);
    assert_eq!(gateway.image(&good()).scores()[0], 1.0);

    let right = script::runner(&fleet, 3, 0);
    fleet.assign_with(Some(&one), Some(&one), crate::fleet::trial(), right.clone());
    wait_for("it is in force", || module() == serde_json::to_value(right.module.digest).unwrap());
    assert_eq!(gateway.image(&good()).scores()[0], 1.0);
}
