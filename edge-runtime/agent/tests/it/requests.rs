//! What clients ask and what they are told.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::gateway::{Gateway, wait_for};
use crate::models::Live;

/// A gateway that serves digits 1.0.0.
fn serving() -> (Fleet, Gateway) {
    let fleet = Fleet::start();
    let release = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    let gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || gateway.answers_as("1.0.0", "active"));
    (fleet, gateway)
}

#[test]
fn answers_are_onnx_runtimes() {
    let (_fleet, gateway) = serving();
    let live = Live::load();
    for n in 0..live.len() {
        let reply = gateway.image(live.image(n));
        assert_eq!(reply.status, 200, "{reply:?}");
        for (got, want) in reply.scores().iter().zip(live.expected("1.0.0", n)) {
            assert!((got - want).abs() <= 1e-4 + 1e-3 * want.abs(), "image {n}: {got} {want}");
        }
    }
}

#[test]
fn json_and_raw_tensors_are_the_same_question() {
    let (_fleet, gateway) = serving();
    let live = Live::load();
    let image = live.image(0);
    let numbers: Vec<f32> = image.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    let body = json!({
        "id": "one",
        "inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": numbers}],
        "outputs": [{"name": "scores"}],
    });
    let reply = gateway.call("POST", "/v2/models/digits/versions/1.0.0/infer", &[], body.to_string().as_bytes());
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
    let answer = reply.json();
    assert_eq!(
        (&answer["id"], &answer["model_name"], &answer["model_version"]),
        (&json!("one"), &json!("digits"), &json!("1.0.0"))
    );
    let scores: Vec<f32> = serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap();
    assert_eq!(scores, gateway.image(image).scores());
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 10]));
    assert_eq!(answer["parameters"]["ballast_release"], "1.1");
}

#[test]
fn clients_find_out_what_is_served() {
    let (_fleet, gateway) = serving();
    let get = |path: &str| {
        let reply = gateway.call("GET", path, &[], b"");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    };
    assert!(get("/v2")["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(path), json!({"live": true, "ready": true}));
    }
    let tensor = |name: &str, shape: Value| json!([{"name": name, "datatype": "FP32", "shape": shape}]);
    for path in ["/v2/models/digits", "/v2/models/digits/versions/1.0.0"] {
        let model = get(path);
        assert_eq!(model["versions"], json!(["1.0.0"]));
        assert_eq!(model["inputs"], tensor("image", json!([1, 1, 8, 8])));
        assert_eq!(model["outputs"], tensor("scores", json!([1, 10])));
    }
    assert_eq!(get("/v2/models/digits/ready")["ready"], true);
    assert_eq!(get("/v2/models/digits/versions/1.0.0/ready")["ready"], true);
    assert_eq!(get("/v2/models/digits/config")["input"][0]["data_type"], "TYPE_FP32");
    let index = gateway.call("POST", "/v2/repository/index", &[], b"{}").json();
    assert_eq!(index, json!([{"name": "digits", "version": "1.0.0", "state": "READY"}]));
}
