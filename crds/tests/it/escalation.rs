//! `spec.escalation`: what is right passes with its defaults, and what is wrong says what to write.

use ballast_crds::validate::Admission;
use serde_json::{Value, json};

use crate::wrong;

fn object() -> Value {
    wrong::with(
        "/spec/escalation",
        json!({
            "confidence": {"output": "scores", "scores": "Logits", "below": "0.85"},
            "cloud": {"endpoint": "https://cloud.example:8443/infer", "model": "digits-large"},
        }),
    )
}

fn with(pointer: &str, value: Value) -> Value {
    let mut object = object();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = format!("/spec/escalation{parent}");
    if object.pointer(&parent).is_none() {
        let (above, name) = parent.rsplit_once('/').unwrap();
        object.pointer_mut(above).unwrap()[name] = json!({});
    }
    object.pointer_mut(&parent).unwrap()[key] = value;
    object
}

fn refusal(object: &Value) -> String {
    Admission::default().admit(object, None).map_or_else(|refused| refused.to_string(), |_| "ACCEPTED".to_owned())
}

#[test]
fn nothing_leaves_and_little_is_spent_unless_it_is_written() {
    let admitted = Admission::default().admit(&object(), None).unwrap();
    assert_eq!(
        admitted["spec"]["escalation"],
        json!({
            "confidence": {"output": "scores", "rule": "MaxSoftmax", "scores": "Logits", "below": "0.85"},
            "cloud": {"endpoint": "https://cloud.example:8443/infer", "model": "digits-large", "deadline": "300ms"},
            "budget": {"bytesPerDay": "50Mi", "requestsPerMinute": 30, "concurrency": 4},
            "randomShare": "0%",
            "privacy": "LocalOnly",
        })
    );
}

#[test]
fn bounds_are_within() {
    for (pointer, value) in [
        ("/confidence/below", json!("0")),
        ("/confidence/below", json!("1.0")),
        ("/confidence/rule", json!("Entropy")),
        ("/confidence/scores", json!("Probabilities")),
        ("/cloud/endpoint", json!("https://[::1]:8443")),
        ("/cloud/deadline", json!("60s")),
        ("/cloud/deadline", json!("9999ms")),
        ("/budget/requestsPerMinute", json!(0)),
        ("/budget/bytesPerDay", json!("0")),
        ("/budget/concurrency", json!(64)),
        ("/randomShare", json!("100%")),
        ("/privacy", json!("Any")),
    ] {
        assert_eq!(refusal(&with(pointer, value.clone())), "ACCEPTED", "{pointer} {value}");
    }
}

#[test]
fn what_is_wrong_says_what_to_write() {
    for (pointer, value, says) in [
        ("/confidence/below", json!("1.5"), "from 0 to 1"),
        ("/confidence/below", json!("0.85001"), "at most four decimal places"),
        ("/confidence/below", json!("1e-1"), "like 0.85"),
        ("/confidence/below", json!(0.85), "put it in quotes"),
        ("/confidence/output", json!(""), "output"),
        ("/confidence/rule", json!("Softmax"), "MaxSoftmax"),
        ("/confidence/scores", json!("Numbers"), "Logits"),
        ("/cloud/endpoint", json!("http://cloud.example"), "write https://HOST"),
        ("/cloud/endpoint", json!("https://user@cloud.example"), "without user"),
        ("/cloud/endpoint", json!("https://cloud.example/?a=b"), "without user, '?'"),
        ("/cloud/model", json!("../x"), "lower-case letters"),
        ("/cloud/deadline", json!("61s"), "at most 60s"),
        ("/cloud/deadline", json!("0s"), "no time at all"),
        ("/cloud/deadline", json!("1m"), "like 300ms"),
        ("/cloud/ca", json!("/etc/ssl/ca.pem"), "write PEM certificates"),
        ("/budget/bytesPerDay", json!("much"), "like 256Mi"),
        ("/budget/requestsPerMinute", json!(-1), "requestsPerMinute"),
        ("/budget/concurrency", json!(0), "concurrency"),
        ("/randomShare", json!("101%"), "0% to 100%"),
        ("/privacy", json!("Features"), "LocalOnly"),
        ("/budgets", json!({}), "budgets"),
    ] {
        let refusal = refusal(&with(pointer, value.clone()));
        assert!(refusal.contains(says), "{pointer} {value}: {refusal}");
    }
}
