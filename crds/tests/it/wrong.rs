//! Objects that are wrong, each in one way: for the offline checks here, and for a real API server (`tests/tests/cluster`).

use serde_json::{Value, json};

/// One that is right.
pub fn deployment() -> Value {
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

/// The same with another value at `pointer`.
pub fn with(pointer: &str, value: Value) -> Value {
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

/// One of another kind.
pub fn other(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "ballast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Wrong from the start.
pub fn objects() -> Vec<Value> {
    let source = |uri: &str| json!({"uri": uri, "digest": format!("sha256:{}", "0".repeat(64))});
    let steps = |list: Value| with("/spec/rollout", json!({"steps": list}));
    let asks = |below: &str, endpoint: &str, more: Value| {
        let mut cloud = json!({"endpoint": endpoint, "model": "digits-large"});
        cloud.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let confidence = json!({"output": "scores", "scores": "Logits", "below": below});
        with("/spec/escalation", json!({"confidence": confidence, "cloud": cloud}))
    };
    vec![
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
        with("/spec/model/inputs", json!([{"name": "h", "value": [0], "state": {"output": "hn"}}])),
        with("/spec/model/inputs", json!([{"name": "h", "batchAxis": 0, "state": {"output": "hn"}}])),
        with("/spec/model/inputs", json!([{"name": "h", "state": {"output": "hn", "reset": "Never"}}])),
        with("/spec/model/inputs", json!([{"name": "h", "state": {}}])),
        with("/spec/runtime", json!({"sequences": {"max": 0}})),
        with("/spec/runtime", json!({"sequences": {"maxIdle": "0s"}})),
        with("/spec/model/inputs", json!([{"name": "x", "shapes": [[1, 2], [1, 4]], "batchAxis": 0}])),
        with("/spec/model/inputs", json!([{"name": "x", "shape": [1], "padding": {"mask": "m"}}])),
        with("/spec/model/inputs", json!([{"name": "x", "shapes": [[1, 2]]}])),
        with("/spec/model/inputs", json!([{"name": "x", "shapes": [[1, 2], [1, 0]]}])),
        with(
            "/spec/model/inputs",
            json!([{"name": "x", "shapes": [[1, 2], [1, 4]]}, {"name": "m", "shapes": [[1, 2], [1, 4], [1, 8]]}]),
        ),
        with("/spec/model/inputs", json!([{"name": "x", "shapes": [[1, 2], [1, 4]], "padding": {"mask": "m"}}])),
        with("/spec/model/inputs", json!([{"name": "x", "shapes": [[1, 2], [1, 4]]}, {"name": "y", "batchAxis": 0}])),
        with(
            "/spec/model/inputs",
            json!([{"name": "x", "shapes": [[1, 2], [1, 4]]}, {"name": "h", "state": {"output": "hn"}}]),
        ),
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
        asks("1.5", "https://cloud.example", json!({})),
        asks("0.85", "http://cloud.example", json!({})),
        asks("0.85", "https://cloud.example", json!({"deadline": "1m"})),
        asks("0.85", "https://cloud.example", json!({"ca": "/etc/ssl/ca.pem"})),
        asks("0.85", "https://cloud.example", json!({"model": "../x"})),
        with("/spec/revisionHistoryLimit", json!(null)),
        with("/spec/model/variants", json!([{"name": "Int8", "fromModel": true}])),
        with(
            "/spec/verification",
            json!({"golden": {"source": {
                "uri": "file:///g",
                "digest": format!("sha256:{}", "0".repeat(64)),
                "files": [{"path": "more", "digest": format!("sha256:{}", "0".repeat(64))}],
            }}}),
        ),
        other("HardwareTarget", "box", json!({"triple": "sparc-sun-solaris", "memory": "1Gi"})),
    ]
}

/// Changes of what cannot change: before and after, each right by itself.
pub fn changes() -> Vec<(Value, Value)> {
    let named = |name: &str| with("/spec/model/name", json!(name));
    let target =
        |memory: &str| other("HardwareTarget", "box", json!({"triple": "x86_64-unknown-linux-musl", "memory": memory}));
    let gateway = |state: &str| other("Gateway", "gw-1", json!({"state": state}));
    vec![
        (named("a"), named("b")),
        (named("a"), deployment()),
        (target("1Gi"), target("2Gi")),
        (gateway("Revoked"), gateway("Enrolled")),
    ]
}
