//! Models that carry state: what clients of sequences are told, and that no state is lost, mixed or anybody else's.

use ballast_bundle::protocol::ReleaseState;
use ballast_bundle::{Contract, Reset};
use ballast_compiler::{Artifacts, InputOverride, StateOverride};
use serde_json::{Value, json};

use crate::failures::endless_trial;
use crate::fleet::Fleet;
use crate::gateway::{Gateway, Reply, call, wait_for};
use crate::models;
use crate::writer::{Dim, Graph, floats, node, value};

/// `hn` = `h` + `x` is carried; `y` is `hn`.
fn summing() -> Graph {
    Graph {
        nodes: vec![node("Add", &["h", "x"], &["hn"], &[]), node("Mul", &["hn", "one"], &["y"], &[])],
        constants: vec![floats("one", &[1], &[1.0])],
        inputs: vec![value("x", 1, &[Dim::Is(1)]), value("h", 1, &[Dim::Is(1)])],
        outputs: vec![value("y", 1, &[]), value("hn", 1, &[])],
    }
}

/// The same, with `y` ten times as large and not finite where `x` is negative.
fn tenfold() -> Graph {
    let mut graph = summing();
    graph.nodes = vec![
        node("Add", &["h", "x"], &["hn"], &[]),
        node("Mul", &["hn", "ten"], &["t"], &[]),
        node("Sqrt", &["x"], &["s"], &[]),
        node("Add", &["t", "s"], &["y"], &[]),
    ];
    graph.constants = vec![floats("ten", &[1], &[10.0])];
    graph
}

fn bundle(version: &str, graph: &Graph, state: StateOverride) -> Artifacts {
    let carried = InputOverride { name: "h".into(), state: Some(state), ..InputOverride::default() };
    models::compile_with(version, graph.model(), None, vec![carried])
}

fn carried() -> StateOverride {
    StateOverride { output: "hn".into(), ..StateOverride::default() }
}

fn serving(artifacts: &Artifacts, change: impl FnOnce(&mut Contract)) -> (Fleet, Gateway) {
    let fleet = Fleet::start();
    let release = fleet.release(&models::with_contract(artifacts.clone(), change), "1.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    let gateway = Gateway::started(&fleet);
    wait_for("1.0.0 is active", || fleet.is("1.0.0", ReleaseState::Active));
    (fleet, gateway)
}

fn send(address: &str, x: f32, parameters: &Value) -> Reply {
    let inputs = json!([{"name": "x", "shape": [1], "datatype": "FP32", "data": [x]}]);
    let body = json!({"inputs": inputs, "parameters": parameters}).to_string();
    call(address, "POST", "/v2/models/digits/infer", &[], body.as_bytes()).unwrap()
}

fn id(id: impl Into<Value>) -> Value {
    json!({"sequence_id": id.into()})
}

fn first(id: impl Into<Value>) -> Value {
    json!({"sequence_id": id.into(), "sequence_start": true})
}

fn last(id: impl Into<Value>) -> Value {
    json!({"sequence_id": id.into(), "sequence_end": true})
}

/// The answer's `y`, and whether it says that the sequence began anew.
#[track_caller]
fn y(reply: &Reply) -> (f32, bool) {
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    let outputs = answer["outputs"].as_array().unwrap();
    assert_eq!((outputs.len(), &outputs[0]["name"]), (1, &json!("y")), "state is not sent back unless asked for");
    let y = outputs[0]["data"][0].as_f64().unwrap() as f32;
    (y, answer["parameters"].get("ballast_sequence_reset") == Some(&json!(true)))
}

#[track_caller]
fn refused(reply: &Reply, status: u16, says: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert!(reply.error().contains(says), "{says}: {}", reply.error());
}

#[test]
fn a_sequence_goes_on_where_it_was_and_nobody_else_sees_it() {
    let (_fleet, gateway) = serving(&bundle("1.0.0", &summing(), carried()), |_| {});
    let address = gateway.address();
    let ask = |x: f32, parameters: Value| send(&address, x, &parameters);
    // 7 and "7" are two sequences, whoever comes when.
    assert_eq!(y(&ask(1.0, first(7))), (1.0, false));
    assert_eq!(y(&ask(10.0, first("7"))), (10.0, false));
    assert_eq!(y(&ask(2.0, id(7))), (3.0, false));
    assert_eq!(y(&ask(20.0, id("7"))), (30.0, false));
    let answer = ask(3.0, id(7));
    assert_eq!(answer.json()["parameters"]["sequence_id"], 7);
    assert_eq!(y(&answer), (6.0, false));
    // Those that cannot be answered are told why, and change nothing.
    refused(&ask(9.0, json!({})), 400, "parameters.sequence_id");
    refused(&ask(9.0, id(0)), 400, "a number other than 0 or a text");
    refused(&ask(9.0, id("")), 400, "parameters.sequence_id");
    refused(&ask(9.0, id(8)), 400, "there is no sequence 8");
    refused(&ask(9.0, id("x".repeat(129))), 400, "has 129 bytes");
    refused(&ask(9.0, json!({"sequence_id": 7, "sequence_start": "yes"})), 400, "sequence_start must be true or false");
    let state = json!({"parameters": id(7), "inputs": [
        {"name": "x", "shape": [1], "datatype": "FP32", "data": [9]},
        {"name": "h", "shape": [1], "datatype": "FP32", "data": [9]}]});
    let reply = gateway.call("POST", "/v2/models/digits/infer", &[], state.to_string().as_bytes());
    refused(&reply, 400, "\"h\" is state, which the gateway fills in");
    // State is there for who asks for it by name.
    let state = json!({"parameters": id(7), "outputs": [{"name": "hn"}],
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [4]}]});
    let answer = gateway.call("POST", "/v2/models/digits/infer", &[], state.to_string().as_bytes()).json();
    assert_eq!((&answer["outputs"][0]["name"], &answer["outputs"][0]["data"]), (&json!("hn"), &json!([10.0])));
    // It ends, and begins anew; also without an end.
    assert_eq!(y(&ask(5.0, last(7))), (15.0, false));
    refused(&ask(1.0, id(7)), 400, "there is no sequence 7");
    assert_eq!(y(&ask(1.0, first(7))), (1.0, false));
    assert_eq!(y(&ask(2.0, first(7))), (2.0, false));
    assert_eq!(y(&ask(1.0, json!({"sequence_id": 9, "sequence_start": true, "sequence_end": true}))), (1.0, false));
    // Of a version that is asked for by name sequences are apart.
    let body = json!({"parameters": id(7), "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [4]}]});
    let path = "/v2/models/digits/versions/1.0.0/infer";
    refused(&gateway.call("POST", path, &[], body.to_string().as_bytes()), 400, "there is no sequence 7");

    let metadata = gateway.call("GET", "/v2/models/digits", &[], b"").json();
    let names = |key: &str| metadata[key].as_array().unwrap().iter().map(|t| t["name"].clone()).collect::<Vec<_>>();
    assert_eq!((names("inputs"), names("outputs")), (vec![json!("x")], vec![json!("y")]));
    let config = gateway.call("GET", "/v2/models/digits/config", &[], b"").json();
    let batching = &config["sequence_batching"];
    assert_eq!(batching["max_sequence_idle_microseconds"], 60_000_000);
    assert_eq!(
        batching["state"],
        json!([{"input_name": "h", "output_name": "hn", "data_type": "TYPE_FP32", "dims": [1]}])
    );
    let metrics = gateway.metrics();
    for line in ["ballast_sequences{model=\"digits\"} 2", "ballast_sequences_begun_total{model=\"digits\"} 5"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn there_are_so_many_sequences_and_no_more_until_one_ends_or_is_forgotten() {
    let two = |contract: &mut Contract| contract.state.as_mut().unwrap().max_sequences = 2;
    let (_fleet, gateway) = serving(&bundle("1.0.0", &summing(), carried()), two);
    let address = gateway.address();
    let ask = |x: f32, parameters: Value| send(&address, x, &parameters);
    assert_eq!(y(&ask(1.0, first(1))).0, 1.0);
    assert_eq!(y(&ask(2.0, first(2))).0, 2.0);
    let full = ask(3.0, first(3));
    refused(&full, 429, "2 sequences are under way (runtime.sequences.max)");
    let after: u64 = full.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&after), "{after}");
    // Nobody lost anything by it.
    assert_eq!((y(&ask(1.0, id(1))).0, y(&ask(1.0, last(2))).0), (2.0, 3.0));
    assert_eq!(y(&ask(3.0, first(3))).0, 3.0);
    let metrics = gateway.metrics();
    for line in
        ["ballast_sequences_ended_total{model=\"digits\"} 1", "ballast_sequences_refused_total{model=\"digits\"} 1"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    let short = |contract: &mut Contract| {
        let state = contract.state.as_mut().unwrap();
        (state.max_sequences, state.max_idle_millis) = (1, 1);
    };
    let (_fleet, gateway) = serving(&bundle("1.0.0", &summing(), carried()), short);
    let address = gateway.address();
    assert_eq!(y(&send(&address, 1.0, &first(1))).0, 1.0);
    wait_for("it is forgotten", || send(&address, 2.0, &first(2)).status == 200);
    wait_for("so is this one", || send(&address, 1.0, &id(2)).status == 400);
    assert!(!gateway.metrics().contains("ballast_sequences_forgotten_total{model=\"digits\"} 0"));
}

#[test]
fn requests_of_one_sequence_are_run_one_after_the_other_and_sequences_side_by_side() {
    let wide = |contract: &mut Contract| (contract.limits.instances, contract.limits.max_queue) = (2, 64);
    let (_fleet, gateway) = serving(&bundle("1.0.0", &summing(), carried()), wide);
    let address = gateway.address();
    let own = |n: u64| {
        for step in 1..=20u64 {
            let parameters = if step == 1 { first(n) } else { id(n) };
            let expected = (n * step) as f32;
            assert_eq!(y(&send(&address, n as f32, &parameters)), (expected, false), "sequence {n}, step {step}");
        }
    };
    std::thread::scope(|scope| {
        for n in 1..=8 {
            scope.spawn(move || own(n));
        }
        // Many at once for one sequence: each sees the sum of those before it, whatever their order.
        assert_eq!(y(&send(&address, 0.0, &first("shared"))).0, 0.0);
        let all: Vec<_> = (0..16).map(|_| scope.spawn(|| y(&send(&address, 1.0, &id("shared"))).0)).collect();
        let mut sums: Vec<f32> = all.into_iter().map(|reply| reply.join().unwrap()).collect();
        sums.sort_by(f32::total_cmp);
        assert_eq!(sums, (1..=16).map(|n| n as f32).collect::<Vec<_>>());
    });
}

#[test]
fn a_request_that_fails_leaves_its_sequence_where_it_was() {
    let (_fleet, gateway) = serving(&bundle("1.0.0", &tenfold(), carried()), |_| {});
    let address = gateway.address();
    let ask = |x: f32, parameters: Value| send(&address, x, &parameters);
    assert_eq!(y(&ask(1.0, first(1))), (11.0, false));
    refused(&ask(-4.0, id(1)), 500, "not finite");
    refused(&ask(-4.0, last(1)), 500, "not finite");
    assert_eq!(y(&ask(4.0, id(1))), (52.0, false));
    // A first one that fails begins nothing: what was before is over all the same.
    refused(&ask(-1.0, first(1)), 500, "not finite");
    refused(&ask(1.0, id(1)), 400, "there is no sequence 1");
}

#[test]
fn a_release_goes_on_with_its_own_state_only_and_says_when_it_begins_anew() {
    let fleet = Fleet::start();
    let one = fleet.release(&bundle("1.0.0", &summing(), carried()), "1.0.0", 1);
    let two = fleet.release(&bundle("2.0.0", &tenfold(), carried()), "2.0.0", 2);
    fleet.assign(Some(&one), Some(&one));
    let gateway = Gateway::started(&fleet);
    let address = gateway.address();
    let ask = |x: f32, parameters: Value| send(&address, x, &parameters);
    let probe = |by: &str| {
        let reply = ask(0.0, json!({"sequence_id": "probe", "sequence_start": true, "sequence_end": true}));
        reply.status == 200 && reply.by() == by
    };
    wait_for("1.0.0 is active", || fleet.is("1.0.0", ReleaseState::Active) && probe("active"));
    for n in 1..=3 {
        assert_eq!(y(&ask(1.0, first(n))), (1.0, false));
        assert_eq!(y(&ask(2.0, id(n))), (3.0, false));
    }
    let runner = fleet.runner_signed_by(ballast_bundle::Role::Runtime);
    fleet.assign_with(Some(&two), Some(&one), endless_trial(), runner);
    wait_for("2.0.0 is on trial", || probe("candidate"));
    // The candidate has nothing of 1's: it begins anew, says so once, and goes on.
    assert_eq!(y(&ask(4.0, id(1))), (42.0, true));
    assert_eq!(y(&ask(1.0, id(1))), (51.0, false));
    // It fails on 2's request: the release before it goes on with what it has itself.
    let reply = ask(-1.0, id(2));
    assert_eq!((y(&reply), reply.by().as_str()), ((2.0, false), "fallback"));
    wait_for("it is rolled back", || probe("active"));
    // What the candidate had of 1's went with it. 3 never noticed.
    assert_eq!(y(&ask(5.0, id(1))), (5.0, true));
    assert_eq!(y(&ask(5.0, id(1))), (10.0, false));
    assert_eq!(y(&ask(5.0, id(2))), (7.0, false));
    assert_eq!(y(&ask(5.0, id(3))), (8.0, false));
    assert!(gateway.metrics().contains("ballast_sequences_reset_total{model=\"digits\"} 2"));
}

#[test]
fn nobody_drives_a_release_off_the_gateway_by_what_he_makes_it_carry() {
    let fleet = Fleet::start();
    let one = fleet.release(&bundle("1.0.0", &summing(), carried()), "1.0.0", 1);
    let two = fleet.release(&bundle("2.0.0", &summing(), carried()), "2.0.0", 2);
    fleet.assign(Some(&one), Some(&one));
    let gateway = Gateway::started(&fleet);
    let address = gateway.address();
    let ask = |x: f32, parameters: Value| send(&address, x, &parameters);
    wait_for("1.0.0 is active", || fleet.is("1.0.0", ReleaseState::Active));
    let runner = fleet.runner_signed_by(ballast_bundle::Role::Runtime);
    fleet.assign_with(Some(&two), Some(&one), endless_trial(), runner);
    wait_for("2.0.0 is on trial", || ask(3e38, first(1)).by() == "candidate");
    for _ in 0..20 {
        // The sum is beyond the largest number: it is given up, and the client told.
        let reply = ask(3e38, id(1));
        assert_eq!((y(&reply), reply.by().as_str()), ((3e38, true), "candidate"));
    }
    assert_eq!(y(&ask(-3e38, id(1))), (0.0, false), "and goes on from there");
    wait_for("it was never the release", || fleet.is("2.0.0", ReleaseState::Trial));
    assert!(gateway.metrics().contains("ballast_sequences_reset_total{model=\"digits\"} 20"));
}

#[test]
fn what_a_sequence_begins_with_is_the_specs_and_may_be_all_there_is() {
    let five = StateOverride { initial: vec![5], ..carried() };
    let (_fleet, gateway) = serving(&bundle("1.0.0", &summing(), five.clone()), |_| {});
    let address = gateway.address();
    assert_eq!(y(&send(&address, 1.0, &first(1))), (6.0, false));
    assert_eq!(y(&send(&address, 1.0, &id(1))), (7.0, false));

    let fresh = StateOverride { reset: Reset::PerRequest, ..five };
    let (_fleet, gateway) = serving(&bundle("1.0.0", &summing(), fresh), |_| {});
    let address = gateway.address();
    for parameters in [json!({}), id(0), id(7), json!({"sequence_id": []})] {
        assert_eq!(y(&send(&address, 1.0, &parameters)), (6.0, false), "{parameters}");
    }
    let config = gateway.call("GET", "/v2/models/digits/config", &[], b"").json();
    assert_eq!(config.get("sequence_batching"), None);
}
