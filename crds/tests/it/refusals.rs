//! Every rule, refused with its words; and that what is right passes.

use ballast_crds::validate::Admission;
use serde_json::{Value, json};

fn deployment() -> Value {
    json!({
        "apiVersion": "ballast.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "digits", "namespace": "plant"},
        "spec": {
            "model": {"version": "1.0.0", "source": {"uri": "file:///digits.onnx", "digest": format!("sha256:{}", "0".repeat(64))}},
            "gatewaySelector": {"matchLabels": {"line": "bottling"}},
        },
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut object = deployment();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut at = &mut object;
    for step in parent.split('/').skip(1) {
        at = match step.parse::<usize>() {
            Ok(i) => &mut at[i],
            Err(_) => &mut at[step],
        };
    }
    at[key] = value;
    object
}

fn other(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "ballast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn refusal(object: &Value, old: Option<&Value>) -> String {
    match Admission::default().admit(object, old) {
        Ok(_) => "ACCEPTED".to_owned(),
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn defaults_are_filled_in() {
    let admitted = Admission::default().admit(&deployment(), None).unwrap();
    insta::assert_json_snapshot!(admitted["spec"]);
}

#[test]
fn a_wrong_object_is_refused_with_what_to_write() {
    let source = |uri: &str| json!({"uri": uri, "digest": format!("sha256:{}", "0".repeat(64))});
    let steps = |list: Value| with("/spec/rollout", json!({"steps": list}));
    let cases = [
        with("/apiVersion", json!("v1")),
        with("/kind", json!("Pod")),
        with("/metadata/name", json!("Digits")),
        with("/metadata/uid", json!("x")),
        with("/spec/model", json!({"version": "1"})),
        with("/spec/model/source", source("ftp://x/y")),
        with("/spec/model/source/digest", json!("sha256:abc")),
        with(
            "/spec/model/source/files",
            json!([{"path": "../weights", "digest": format!("sha256:{}", "0".repeat(64))}]),
        ),
        with("/spec/model/source/files", json!([{"path": "/weights", "digest": format!("sha256:{}", "0".repeat(64))}])),
        with("/spec/model/source/files", json!([{"path": "weights"}])),
        with("/spec/model/version", json!(1.4)),
        with("/spec/model/version", json!("one two")),
        with("/spec/model/name", json!("../x")),
        with("/spec/model/quantise", json!(true)),
        with("/spec/model/inputs", json!([{"name": "x"}])),
        with("/spec/model/inputs", json!([{"name": "x", "shape": [0]}])),
        with("/spec/model/inputs", json!([{"name": "x", "shape": [1]}, {"name": "x", "value": [1]}])),
        with("/spec/model/inputs", json!([{"name": "x", "shape": [2, 4], "batchAxis": 0}])),
        with("/spec/model/inputs", json!([{"name": "x", "value": [1], "batchAxis": 0}])),
        with("/spec/model/variants", json!([{"name": "a"}])),
        with("/spec/model/variants", json!([{"name": "a", "fromModel": true, "source": source("file:///b")}])),
        with("/spec/gatewaySelector", json!({})),
        with("/spec/gatewaySelector", json!({"matchExpressions": [{"key": "a", "operator": "In"}]})),
        with("/spec/gatewaySelector", json!({"matchLabels": {"a": 1}})),
        with("/spec/targets", json!([{"name": "X86"}])),
        with("/spec/targets", json!([{"name": "a", "runtime": {"memoryLimit": "64Ki"}}])),
        with("/spec/runtime", json!({"memoryLimit": "256MB"})),
        with("/spec/runtime", json!({"memoryLimit": 256})),
        with("/spec/runtime", json!({"memoryLimit": "1000"})),
        with("/spec/runtime", json!({"deadline": "200"})),
        with("/spec/runtime", json!({"instances": 0})),
        with("/spec/runtime", json!({"maxQueue": "many"})),
        with("/spec/verification", json!({"tolerance": {"absolute": "-1"}})),
        with("/spec/verification", json!({"golden": {"source": source("file:///g"), "match": "Fuzzy"}})),
        with("/spec/verification", json!({"golden": {"source": source("file:///g"), "minMatching": "101%"}})),
        with("/spec/verification", json!({"golden": {"source": source("file:///g"), "minMatching": "0%"}})),
        with("/spec/verification", json!({"golden": {"source": source("file:///g"), "minMatching": "00.0%"}})),
        with("/spec/verification", json!({"maxLatencyP99": "0ms"})),
        with("/spec/runtime", json!({"deadline": "0s"})),
        with("/spec/runtime", json!({"memoryLimit": "999999999999999Ti"})),
        with("/spec/rollout", json!({"silenceDeadline": "0h00m"})),
        with("/spec/gatewaySelector", json!({"matchLabels": {"line": "hall 3"}})),
        with("/spec/gatewaySelector", json!({"matchLabels": {"a line": "3"}})),
        with("/spec/gatewaySelector", json!({"matchExpressions": [{"key": "-a", "operator": "Exists"}]})),
        with(
            "/spec/gatewaySelector",
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["hall 3"]}]}),
        ),
        other("Gateway", "gw-1", json!({"labels": {"hall": "hall 3"}})),
        other("Gateway", "gw-1", json!({"labels": {"hall": "x".repeat(64)}})),
        other("Gateway", "gw-1", json!({"labels": {"hall/3/4": "x"}})),
        other("EnrollmentToken", "t", json!({"labels": {"hall": "-3"}})),
        other("EnrollmentToken", "t", json!({"expiresAfter": "0s"})),
        with("/spec/rollout", json!({"failureRate": {"good": 10, "bad": 10}})),
        with("/spec/rollout", json!({"soak": "soon"})),
        with("/spec/rollout", json!({"onFailure": "Ignore"})),
        with("/spec/rollout", json!({"paused": "yes"})),
        steps(json!([])),
        steps(json!([{"gateways": 1}])),
        steps(json!([{"gateways": "50%"}])),
        steps(json!([{"gateways": 0}, {"gateways": "100%"}])),
        steps(json!([{"gateways": "0%"}, {"gateways": "100%"}])),
        steps(json!([{"gateways": "many"}, {"gateways": "100%"}])),
        steps(json!([{"gateways": 1.5}, {"gateways": "100%"}])),
        steps(json!([{"gateways": 5}, {"gateways": 1}, {"gateways": "100%"}])),
        steps(json!([{"gateways": 5}, {"gateways": 5}, {"gateways": "100%"}])),
        steps(json!([{"gateways": "50%"}, {"gateways": "5%"}, {"gateways": "100%"}])),
        with("/spec/revisionHistoryLimit", json!(null)),
    ];
    let said: Vec<_> = cases.iter().map(|case| refusal(case, None)).collect();
    for (case, said) in cases.iter().zip(&said) {
        assert_ne!(said, "ACCEPTED", "{case}");
        assert!(!said.contains("client-side") && !said.contains("CEL"), "{said}: {case}");
    }
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn what_is_right_passes() {
    for steps in [
        json!([{"gateways": "100%"}]),
        json!([{"gateways": 1}, {"gateways": 5}, {"gateways": "0.5%"}, {"gateways": "9%"}, {"gateways": "100%"}]),
        json!([{"gateways": "10%"}, {"gateways": 500}, {"gateways": "100%"}]),
    ] {
        let object = with("/spec/rollout", json!({"steps": steps, "soak": "2s", "silenceDeadline": "1h30m"}));
        assert_eq!(refusal(&object, None), "ACCEPTED");
    }
    for labels in [json!({"plant.example/line": "bottling-3"}), json!({"a": "", "B_c.d": "E"})] {
        assert_eq!(refusal(&with("/spec/gatewaySelector", json!({"matchLabels": labels})), None), "ACCEPTED");
        assert_eq!(refusal(&other("Gateway", "gw-1", json!({"labels": labels})), None), "ACCEPTED");
    }
    let variants = json!([{"name": "int8", "source": {"uri": "https://models.example/d.onnx", "digest": format!("sha256:{}", "a".repeat(64))}}, {"name": "fp32", "fromModel": true}]);
    assert_eq!(refusal(&with("/spec/model/variants", variants), None), "ACCEPTED");
}

#[test]
fn what_cannot_change_is_refused_on_update_only() {
    let admission = Admission::default();
    let admit = |object: &Value| admission.admit(object, None).unwrap();
    let named = |name: &str| admit(&with("/spec/model/name", json!(name)));
    let target = |memory: &str| {
        admit(&json!({"apiVersion": "ballast.dev/v1alpha1", "kind": "HardwareTarget", "metadata": {"name": "box"},
            "spec": {"triple": "x86_64-unknown-linux-musl", "memory": memory}}))
    };
    let gateway = |state: &str| {
        admit(
            &json!({"apiVersion": "ballast.dev/v1alpha1", "kind": "Gateway", "metadata": {"name": "gw-1"}, "spec": {"state": state}}),
        )
    };
    let said = [
        refusal(&named("b"), Some(&named("a"))),
        refusal(&admit(&deployment()), Some(&named("a"))),
        refusal(&target("2Gi"), Some(&target("1Gi"))),
        refusal(&gateway("Enrolled"), Some(&gateway("Revoked"))),
    ];
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(refusal(&named("a"), Some(&named("a"))), "ACCEPTED");
    assert_eq!(refusal(&target("1Gi"), Some(&target("1Gi"))), "ACCEPTED");
    assert_eq!(refusal(&gateway("Revoked"), Some(&gateway("Retired"))), "ACCEPTED");
}
