//! Requests that are wrong are told what is wrong; the next right one is answered.

use ballast_tests::{System, text};

#[test]
fn wrong_requests_are_answered_with_what_is_wrong() {
    let system = System::with_digits(1).unwrap();
    let zeros = |n: usize| vec!["0"; n].join(",");
    let json = |name: &str, datatype: &str, shape: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":{shape},"data":[{data}]}}]}}"#)
    };
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let cases: Vec<(&str, String, u16)> = vec![
        ("not JSON", "hello".to_owned(), 400),
        ("cut off", r#"{"inputs":[{"name":"image""#.to_owned(), 400),
        ("no inputs", r#"{"inputs":[]}"#.to_owned(), 400),
        ("unknown name", json("picture", "FP32", "[1,1,8,8]", &zeros(64)), 400),
        ("wrong shape", json("image", "FP32", "[1,8,8]", &zeros(64)), 400),
        ("negative dimension", json("image", "FP32", "[1,1,-8,-8]", &zeros(64)), 400),
        ("huge dimension", json("image", "FP32", "[1,1,4294967296,4294967296]", &zeros(64)), 400),
        ("wrong type", json("image", "INT64", "[1,1,8,8]", &zeros(64)), 400),
        ("unknown type", json("image", "FP99", "[1,1,8,8]", &zeros(64)), 400),
        ("too few values", json("image", "FP32", "[1,1,8,8]", &zeros(63)), 400),
        ("too many values", json("image", "FP32", "[1,1,8,8]", &zeros(65)), 400),
        ("values that are no numbers", json("image", "FP32", "[1,1,8,8]", &vec![r#""x""#; 64].join(",")), 400),
        ("absurd nesting", deep, 400),
        // One byte more than `serve.max_request_bytes` by default.
        ("absurd size", " ".repeat((16 << 20) + 1), 413),
    ];
    for (what, body, status) in cases {
        let mut connection = system.connect(0);
        let answer =
            connection.post("/v2/models/digits/infer", None, body.as_bytes()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(answer.status, status, "{what}: {}", text(&answer));
        let body: serde_json::Value =
            serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{what}: {}", text(&answer)));
        assert!(body["error"].as_str().is_some_and(|e| e.len() > 10), "{what}: {body}");
    }
    let mut connection = system.connect(0);
    let header =
        r#"{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,8,8],"parameters":{"binary_data_size":256}}]}"#;
    for (what, length, tail) in
        [("binary data that is too short", header.len(), 255), ("a length that lies", header.len() + 10_000, 256)]
    {
        let body = [header.as_bytes(), &vec![0; tail]].concat();
        let answer = connection.post("/v2/models/digits/infer", Some(length), &body).unwrap();
        assert_eq!(answer.status, 400, "{what}: {}", text(&answer));
    }
    let answer = connection.get("/v2/models/nobody").unwrap();
    assert_eq!(answer.status, 404, "{}", text(&answer));
    system.serves("1.0.0").unwrap();
}

#[test]
fn a_nan_that_a_client_sends_is_the_clients_fault() {
    let system = System::with_digits(1).unwrap();
    let header =
        r#"{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,8,8],"parameters":{"binary_data_size":256}}]}"#;
    let pixels: Vec<u8> = (0..64).flat_map(|_| f32::NAN.to_le_bytes()).collect();
    let body = [header.as_bytes(), &pixels].concat();
    let answer = system.connect(0).post("/v2/models/digits/infer", Some(header.len()), &body).unwrap();
    assert!((400..500).contains(&answer.status), "{}: {}", answer.status, text(&answer));
    // It must not have cost the release anything.
    assert_eq!(system.fleet.cli.release("digits", "1.0.0").unwrap().phase, "Active");
    system.serves("1.0.0").unwrap();
}
