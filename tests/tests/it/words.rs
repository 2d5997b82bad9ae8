//! What a person says of a rollout by `ballast rollout`: pause, resume, undo, retry.

use ballast_tests::{System, digits};
use serde_json::Value;
use xtask::demo::documents::Deployment;
use xtask::demo::traffic::Traffic;

/// The newest release of a version, as `rollout status -o json` shows it.
fn release(system: &System, version: &str) -> Value {
    let text = system.fleet.cli.run(&["rollout", "status", "digits", "-o", "json"]).unwrap();
    let status: Value = serde_json::from_str(&text).unwrap();
    let all = status["releases"].as_array().unwrap();
    all.iter().rfind(|r| r["version"] == version).unwrap_or_else(|| panic!("no {version}: {text}")).clone()
}

fn say(system: &System, words: &[&str]) {
    system.fleet.cli.run(&[&["rollout"], words].concat()).unwrap();
}

/// Who answers on each gateway.
fn answering(system: &System, traffic: &Traffic, image: usize) -> Vec<String> {
    let (body, length) = traffic.binary(image);
    let ask = |gateway| {
        let answer = system.connect(gateway).post("/v2/models/digits/infer", Some(length), &body).unwrap();
        assert_eq!(answer.status, 200, "{}", ballast_tests::text(&answer));
        traffic.judge(image, &answer).unwrap().version
    };
    (0..system.fleet.gateways.len()).map(ask).collect()
}

#[test]
fn a_rollout_is_held_goes_on_and_goes_back() {
    let mut system = System::with_digits(2).unwrap();
    let traffic = Traffic::digits("digits").unwrap();
    say(&system, &["pause", "digits"]);
    let digest = system.add_digits("2.0.0").unwrap();
    system.apply(&digits("2.0.0", "digits-2.0.0.onnx", &digest)).unwrap();
    system.until_phase("digits", "2.0.0", "Paused").unwrap();
    assert_eq!(answering(&system, &traffic, 0), ["1.0.0", "1.0.0"], "nobody is given it");
    let held = release(&system, "2.0.0");
    assert_eq!(held["gateways"]["updated"], 0, "{held}");

    say(&system, &["resume", "digits"]);
    system.until_phase("digits", "2.0.0", "Active").unwrap();
    system.serves("2.0.0").unwrap();

    say(&system, &["undo", "digits"]);
    system.until_phase("digits", "1.0.0", "Active").unwrap();
    system.serves("1.0.0").unwrap();
    let counter = release(&system, "2.0.0")["counter"].to_string();
    say(&system, &["undo", "digits", "--to", counter.trim_matches('"')]);
    system.until_phase("digits", "2.0.0", "Active").unwrap();
    system.serves("2.0.0").unwrap();
    // A file that says something new counts again.
    system.apply(&digits("1.0.0", "digits-1.0.0.onnx", &system.add_digits("1.0.0").unwrap())).unwrap();
    system.until_phase("digits", "1.0.0", "Active").unwrap();
    system.serves("1.0.0").unwrap();
}

#[test]
fn what_was_rolled_back_is_tried_again_when_somebody_asks() {
    let mut system = System::with_digits(2).unwrap();
    let traffic = Traffic::digits("digits").unwrap();
    let blank = (0..traffic.count()).find(|image| traffic.binary(*image).0.ends_with(&[0; 256])).unwrap();
    let digest = system.add_digits("4.0.0").unwrap();
    // Its trial ends by a failure only.
    let endless = Deployment { trial: 3600, ..digits("4.0.0", "digits-4.0.0.onnx", &digest) };
    system.apply(&endless).unwrap();
    let mut counters = Vec::new();
    for attempt in ["first", "asked for"] {
        system
            .until(&format!("the {attempt} attempt to be on trial somewhere"), |s| {
                Ok(answering(s, &traffic, 0).contains(&"4.0.0".to_owned()).then_some(()))
            })
            .unwrap();
        // A blank image is its end; the fallback answers.
        assert_eq!(answering(&system, &traffic, blank), ["1.0.0", "1.0.0"]);
        system.until_phase("digits", "4.0.0", "RolledBack").unwrap();
        counters.push(release(&system, "4.0.0")["counter"].clone());
        if attempt == "first" {
            say(&system, &["retry", "digits"]);
        }
    }
    assert_ne!(counters[0], counters[1], "another attempt has another number");
    system.serves("1.0.0").unwrap();
}
