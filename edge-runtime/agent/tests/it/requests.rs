//! What clients ask and what they are told.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::failures::{on_trial, one_active};
use crate::fleet::Fleet;
use crate::gateway::{Gateway, wait_for};
use crate::models::{self, Live};
use crate::script::{self, Does};

/// A gateway that serves digits 1.0.0.
pub(crate) fn serving() -> (Fleet, Gateway) {
    serving_with(&[])
}

pub(crate) fn serving_with(arguments: &[&str]) -> (Fleet, Gateway) {
    let fleet = Fleet::start();
    let release = fleet.digits("1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    let mut gateway = Gateway::enrolled(&fleet);
    gateway.start(arguments);
    wait_for("1.0.0 is active", || fleet.is("1.0.0", ballast_bundle::protocol::ReleaseState::Active));
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
fn a_request_takes_the_smallest_shape_that_fits_and_gets_answers_of_its_own_length() {
    let (_fleet, gateway) = serving_model(&models::bucketed());
    let ask = |numbers: &[f32], mask: &[f32]| {
        let tensor = |name: &str, data: &[f32]| json!({"name": name, "shape": [1, data.len()], "datatype": "FP32", "data": data});
        let body = json!({"inputs": [tensor("x", numbers), tensor("mask", mask)]}).to_string();
        gateway.call("POST", "/v2/models/digits/infer", &[], body.as_bytes())
    };
    // Of a bucket's own length, and shorter than the smallest, between two, and one less than the largest.
    for n in [4, 8, 16, 1, 3, 5, 9, 15] {
        let numbers: Vec<f32> = (1..=n).map(|i| i as f32).collect();
        let reply = ask(&numbers, &vec![1.0; n]);
        assert_eq!(reply.status, 200, "{n}: {reply:?}");
        let outputs = reply.json()["outputs"].clone();
        assert_eq!((&outputs[0]["shape"], &outputs[1]["shape"]), (&json!([1, n]), &json!([1, 1])), "{n}");
        let data = |i: usize| serde_json::from_value::<Vec<f32>>(outputs[i]["data"].clone()).unwrap();
        assert_eq!(data(0), numbers.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), "{n}");
        assert_eq!(data(1), [numbers.iter().sum::<f32>()], "what fills it up is hidden by the mask: {n}");
    }
    let long = ask(&[1.0; 17], &[1.0; 17]);
    assert_eq!(long.status, 400);
    assert_eq!(
        long.error(),
        "the model takes x [1, 8] with mask [1, 8], or x [1, 4] with mask [1, 4], or x [1, 16] with mask [1, 16] (shorter ones are \
         filled up where padding says so); x [1, 17] with mask [1, 17] was sent"
    );
    let uneven = ask(&[1.0; 3], &[1.0; 7]);
    assert_eq!(uneven.status, 400, "what would be real of the fourth to seventh?");
    assert!(uneven.error().contains("they are of one length"), "{}", uneven.error());
    // A mask may hide more than what is filled up.
    let hidden = ask(&[1.0, 2.0, 4.0], &[1.0, 1.0, 0.0]).json();
    assert_eq!(
        (&hidden["outputs"][0]["data"], &hidden["outputs"][1]["data"]),
        (&json!([2.0, 4.0, 8.0]), &json!([3.0]))
    );
    let one = json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}).to_string();
    let one = gateway.call("POST", "/v2/models/digits/infer", &[], one.as_bytes());
    assert_eq!((one.status, one.error().as_str()), (400, "input mask is missing"));
    let model = gateway.call("GET", "/v2/models/digits", &[], b"").json();
    assert_eq!((&model["inputs"][0]["shape"], &model["outputs"][1]["shape"]), (&json!([1, -1]), &json!([1, 1])));
    let shapes = [8, 4, 16]
        .map(|n| json!({"inputs": {"x": [1, n], "mask": [1, n]}, "outputs": {"double": [1, n], "sum": [1, 1]}}));
    assert_eq!(model["parameters"], json!({"shapes": shapes, "padded": ["x", "mask"]}));
}

/// A gateway that serves digits 1.0.0 by the batch.
fn serving_batches() -> (Fleet, Gateway) {
    serving_model(&models::batched())
}

fn serving_model(artifacts: &ballast_compiler::Artifacts) -> (Fleet, Gateway) {
    let fleet = Fleet::start();
    let release = fleet.release(artifacts, "1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    let mut gateway = Gateway::enrolled(&fleet);
    gateway.start(&[]);
    wait_for("1.0.0 is active", || fleet.is("1.0.0", ballast_bundle::protocol::ReleaseState::Active));
    (fleet, gateway)
}

#[test]
fn a_batch_is_answered_row_by_row_and_says_so_in_its_metadata() {
    let (_fleet, gateway) = serving_batches();
    let live = Live::load();
    let ask = |images: &[usize], raw: bool| {
        let bytes: Vec<u8> = images.iter().flat_map(|n| live.image(*n).to_vec()).collect();
        let head = json!({
            "inputs": [{"name": "image", "shape": [images.len(), 1, 8, 8], "datatype": "FP32",
                        "parameters": {"binary_data_size": bytes.len()}}],
            "parameters": {"binary_data_output": raw},
        });
        let head = head.to_string();
        let body = [head.as_bytes(), &bytes].concat();
        let length = [("Inference-Header-Content-Length", head.len().to_string())];
        gateway.call("POST", "/v2/models/digits/infer", &length, &body)
    };
    let images: Vec<usize> = (0..7).collect();
    let answer = ask(&images, false);
    assert_eq!(answer.status, 200, "{answer:?}");
    let output = &answer.json()["outputs"][0];
    assert_eq!(output["shape"], json!([7, 10]));
    let together: Vec<f32> = serde_json::from_value(output["data"].clone()).unwrap();
    let alone: Vec<f32> = images.iter().flat_map(|n| gateway.image(live.image(*n)).scores()).collect();
    assert_eq!(together, alone, "the very same numbers");
    for (n, row) in images.iter().zip(together.chunks(10)) {
        for (got, want) in row.iter().zip(live.expected("1.0.0", *n)) {
            assert!((got - want).abs() <= 1e-4 + 1e-3 * want.abs(), "image {n}: {got} {want}");
        }
    }
    assert_eq!(ask(&images, true).scores(), together, "raw answers have all rows");
    // As many as there may be, and one more.
    let most: Vec<usize> = (0..64).map(|n| n % live.len()).collect();
    assert_eq!(ask(&most, true).scores().len(), 640);
    let more: Vec<usize> = (0..65).map(|n| n % live.len()).collect();
    let refused = ask(&more, false);
    assert_eq!(refused.status, 400);
    assert!(refused.error().contains("1 to 64 rows along axis 0, and [65, 1, 8, 8] was sent"), "{}", refused.error());

    let model = gateway.call("GET", "/v2/models/digits", &[], b"").json();
    assert_eq!(
        (&model["inputs"][0]["shape"], &model["outputs"][0]["shape"]),
        (&json!([-1, 1, 8, 8]), &json!([-1, 10]))
    );
    let config = gateway.call("GET", "/v2/models/digits/config", &[], b"").json();
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(64), &json!([1, 8, 8])));
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

#[test]
fn every_mistake_of_a_client_has_its_status_and_sentence() {
    let (_fleet, gateway) = serving();
    let infer = "/v2/models/digits/infer";
    let input = |change: &dyn Fn(&mut Value)| {
        let mut tensor = json!({"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": vec![0; 64]});
        change(&mut tensor);
        json!({"inputs": [tensor]}).to_string().into_bytes()
    };
    let good = input(&|_| {});
    let huge = vec![b' '; 200_000];
    let bomb = gzipped(&huge);
    assert!(bomb.len() < 1_000);
    let nan = String::from_utf8(good.clone()).unwrap().replacen("[0,", "[NaN,", 1).into_bytes();
    let deep = format!("{{\"inputs\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000)).into_bytes();
    let coded = |coding: &str| ("Content-Encoding", coding.to_owned());
    let length = |n: &str| ("Inference-Header-Content-Length", n.to_owned());
    let cases = [
        (
            "POST",
            infer,
            vec![],
            input(&|t| t["shape"] = json!([1, 8, 8])),
            400,
            "has shape [1, 1, 8, 8], and [1, 8, 8]",
        ),
        ("POST", infer, vec![], input(&|t| t["shape"] = json!([-1, 1, 8, 8])), 400, "not what this call takes"),
        ("POST", infer, vec![], input(&|t| t["datatype"] = json!("FP64")), 400, "is FP32, and FP64 was sent"),
        ("POST", infer, vec![], input(&|t| t["name"] = json!("img")), 400, "no input \"img\"; the model has image"),
        ("POST", infer, vec![], input(&|t| t["data"] = json!([1, 2])), 400, "has 2 elements"),
        ("POST", infer, vec![], input(&|t| t["data"][3] = json!("x")), 400, "element 3"),
        ("POST", infer, vec![], input(&|t| t["data"][3] = json!(1e300)), 400, "element 3"),
        ("POST", infer, vec![], nan, 400, "not what this call takes"),
        ("POST", infer, vec![], b"{\"inputs\":[]}".to_vec(), 400, "input image is missing"),
        ("POST", infer, vec![], b"hello".to_vec(), 400, "not what this call takes"),
        ("POST", infer, vec![], Vec::new(), 400, "not what this call takes"),
        ("POST", infer, vec![], deep, 400, "not what this call takes"),
        ("POST", infer, vec![length("x")], good.clone(), 400, "is not a number"),
        ("POST", infer, vec![length("99999")], good.clone(), 400, "the whole body has"),
        ("POST", infer, vec![coded("br")], good.clone(), 415, "gzip, deflate or none are"),
        ("POST", infer, vec![coded("gzip")], good.clone(), 400, "not what its Content-Encoding, gzip, says"),
        ("POST", infer, vec![coded("gzip")], bomb, 413, "once it is expanded, what this model's inputs take"),
        ("POST", infer, vec![], huge, 413, "what this model's inputs take"),
        (
            "POST",
            "/v2/models/other/infer",
            vec![],
            vec![0; 200_000],
            404,
            "no model \"other\" here; served are: digits",
        ),
        ("POST", "/v2/models/digits/versions/9/infer", vec![], good, 404, "version \"9\""),
        ("GET", infer, vec![], vec![], 405, "POST does"),
        ("POST", "/v2/health/live", vec![], vec![], 405, "GET, HEAD does"),
        ("GET", "/v2/models/digits/states", vec![], vec![], 404, "metrics at /metrics"),
        ("GET", "/../../etc/passwd", vec![], vec![], 404, "nothing here"),
    ];
    for (method, path, headers, body, status, says) in cases {
        let reply = gateway.call(method, path, &headers, &body);
        assert_eq!(reply.status, status, "{method} {path} {says}: {reply:?}");
        assert!(reply.error().contains(says) && reply.body.len() < 1_000, "{says}: {}", reply.error());
        assert_eq!(reply.header("allow").is_some(), status == 405);
    }
    let mut raw = Live::load().image(0).to_vec();
    raw[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(gateway.image(&raw).error().contains("not a finite number"));
    assert!(gateway.answers_as("1.0.0", "active"), "nothing that ran has stopped");
}

pub(crate) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_client_may_say_how_long_it_waits() {
    let (fleet, gateway, _) = one_active(Does::Loop, script::limits(2_000, 1), &[]);
    let ask = |image: &[u8], micros: u64| {
        let numbers: Vec<f32> = image.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
        let body = json!({
            "parameters": {"timeout": micros},
            "inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": numbers}],
        });
        gateway.call("POST", "/v2/models/digits/infer", &[], body.to_string().as_bytes())
    };
    assert_eq!(ask(&script::good(), 60_000_000).status, 200);
    assert_eq!(ask(&script::good(), 0).status, 200, "0 is none");
    let late = ask(&script::bad(), 1_000_000);
    assert_eq!(late.status, 504, "{late:?}");
    assert!(late.error().contains("the request's own timeout passed"), "{}", late.error());
    // Nobody waits for it any more, and all the same its release is held responsible.
    wait_for("the failure is seen", || {
        gateway.metrics().contains("nv_inference_request_failure{model=\"digits\",version=\"1.0.0\"} 1")
    });
    drop(fleet);
}

#[test]
fn the_owner_bounds_requests_too() {
    let (_fleet, gateway) = serving_with(&["--set", "serve.max_request_bytes=1000"]);
    let reply = gateway.call("POST", "/v2/models/digits/infer", &[], &[b' '; 1001]);
    assert_eq!(reply.status, 413, "{reply:?}");
    assert!(reply.error().contains("serve.max_request_bytes"), "{}", reply.error());
}

/// A client that promises a body and does not send it.
#[test]
fn a_body_that_does_not_come_is_told_so() {
    let (_fleet, gateway) = serving_with(&["--set", "serve.body_seconds=1"]);
    let mut stream = std::net::TcpStream::connect(gateway.address()).unwrap();
    let head = "POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"inputs\":";
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut bytes) = (String::new(), [0; 1024]);
    while !answer.contains("send it at once") {
        let n = stream.read(&mut bytes).unwrap();
        assert!(n > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("serve.body_seconds"), "{answer}");
}

/// The assignment names a model that is not here yet.
#[test]
fn a_model_that_is_on_its_way_is_not_unknown() {
    let fleet = Fleet::start();
    fleet.assign(None, None);
    let gateway = Gateway::started(&fleet);
    wait_for("the gateway heard of it", || gateway.call("GET", "/v2/models/digits/ready", &[], b"").status == 503);
    let reply = gateway.image(&[0; 256]);
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{reply:?}");
    assert!(reply.error().contains("no release of \"digits\" is active here yet"), "{}", reply.error());
    let index = gateway.call("POST", "/v2/repository/index", &[], b"").json();
    assert_eq!((&index[0]["name"], &index[0]["state"]), (&json!("digits"), &json!("LOADING")));
    assert_eq!(gateway.call("GET", "/v2/models/other", &[], b"").status, 404);
}

#[test]
fn the_release_behind_a_trial_can_be_asked_for_by_its_version() {
    let (_fleet, gateway) = on_trial(Does::Answer, Does::Answer, script::limits(60_000, 16));
    let infer = |version: &str| {
        let body =
            json!({"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": vec![0; 64]}]});
        let path = format!("/v2/models/digits/versions/{version}/infer");
        let reply = gateway.call("POST", &path, &[], body.to_string().as_bytes());
        (reply.version(), reply.by(), reply.json()["outputs"][0]["data"][0].clone())
    };
    assert_eq!(infer("1.0.0"), ("1.0.0".to_owned(), "active".to_owned(), json!(1.0)));
    assert_eq!(infer("2.0.0"), ("2.0.0".to_owned(), "candidate".to_owned(), json!(2.0)));
    let versions = gateway.call("GET", "/v2/models/digits", &[], b"").json()["versions"].clone();
    assert_eq!(versions, json!(["2.0.0", "1.0.0"]));
}
