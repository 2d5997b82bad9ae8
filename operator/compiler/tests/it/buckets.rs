//! Several shapes of one model: an entry each over the same weights, padding only where it changes nothing.

use ballast_bundle::{Contract, Golden};
use ballast_compiler::{
    Artifacts, CompileOutcome, CompileRequest, InputOverride, InputPadding, VerdictReason, check, compile,
};
use ballast_plan::Plan;

use super::request;
use super::writer::{Dim, Graph, floats, int, node, part, value};

fn shapes(name: &str, lengths: &[u64], padding: Option<(&str, i64)>) -> InputOverride {
    InputOverride {
        name: name.into(),
        shapes: lengths.iter().map(|n| vec![1, *n]).collect(),
        padding: padding.map(|(mask, value)| InputPadding { mask: mask.into(), value }),
        ..InputOverride::default()
    }
}

/// Tokens `x [1, n]` and what of them is real, `mask`: each is embedded in 64 numbers (`tokens`), and their sum where the mask is 1
/// (or, if the model does not `heed` it, of all) is `sum`.
fn encoder(heed: bool) -> Graph {
    let axes = |n: i64| [part(1, "axes"), int(8, n), int(20, 7)].concat();
    let ones = |name: &str| [int(1, 1), int(2, 7), part(8, name), part(9, 1i64.to_le_bytes())].concat();
    let last = |name: &str| [int(1, 1), int(2, 7), part(8, name), part(9, 2i64.to_le_bytes())].concat();
    let mut model = Graph {
        nodes: vec![
            node("Unsqueeze", &["x", "two"], &["wide"], &[]),
            node("MatMul", &["wide", "w"], &["tokens"], &[]),
            node("Unsqueeze", &["mask", "two"], &["real"], &[]),
            node("Mul", &["tokens", if heed { "real" } else { "all" }], &["kept"], &[]),
            node("ReduceMax", &["kept"], &["sum"], &[axes(1)]),
        ],
        inputs: vec![value("x", 1, &[Dim::Is(1), Dim::Open("n")]), value("mask", 1, &[Dim::Is(1), Dim::Open("n")])],
        outputs: vec![value("tokens", 1, &[]), value("sum", 1, &[])],
        ..Graph::default()
    };
    let weights: Vec<f32> = (0..64).map(|n| 0.5 + n as f32 / 64.0).collect();
    model.constants.extend([floats("w", &[1, 64], &weights), floats("all", &[1], &[1.0]), last("two"), ones("one")]);
    model
}

fn asked(model: &Graph, inputs: Vec<InputOverride>) -> CompileRequest {
    CompileRequest { inputs, ..request(model.model()) }
}

#[track_caller]
fn built(request: &CompileRequest) -> (Box<Artifacts>, Contract) {
    match compile(request) {
        CompileOutcome::Built(artifacts) => {
            let contract = serde_json::from_slice(&artifacts.contract).unwrap();
            (artifacts, contract)
        }
        CompileOutcome::Refused(verdict) => panic!("{}", verdict.message),
    }
}

#[track_caller]
fn refused(request: &CompileRequest, says: &str) {
    let CompileOutcome::Refused(verdict) = compile(request) else { panic!("it was built") };
    assert_eq!(verdict.reason, VerdictReason::InvalidInputs, "{}", verdict.message);
    assert!(verdict.message.contains(says), "{says}: {}", verdict.message);
}

#[test]
fn shapes_share_weights_and_the_largest_is_what_counts() {
    let lengths = [64, 16, 128];
    let inputs = vec![shapes("x", &lengths, None), shapes("mask", &lengths, None)];
    let (artifacts, contract) = built(&asked(&encoder(true), inputs));
    assert_eq!(contract.inputs[0].shape, [1, 64], "the first is the one that golden vectors have");
    assert_eq!((contract.entries(), contract.entry(1).0[0].shape.clone()), (3, vec![1, 16]));
    assert_eq!(contract.entry(2).1[0].shape, [1, 128, 64]);
    let plan = Plan::parse(&artifacts.plan).unwrap();
    let golden = Golden::of_entries(&artifacts.golden, &contract).unwrap();
    assert_eq!((plan.entries().count(), golden.len()), (3, 3));
    assert!(golden.iter().all(|golden| golden.len() == 4), "vectors for each");
    let alone = |n: u64| built(&asked(&encoder(true), vec![shaped("x", n), shaped("mask", n)])).0;
    let (small, large) = (alone(16), alone(128));
    assert_eq!(artifacts.weights, large.weights, "the same bytes for all");
    let verdict = &artifacts.verdict;
    assert_eq!((verdict.gflop, verdict.memory.unwrap().activations_bytes), {
        let large = &large.verdict;
        (large.gflop, large.memory.unwrap().activations_bytes)
    });
    assert!(small.verdict.gflop < verdict.gflop);
}

fn shaped(name: &str, n: u64) -> InputOverride {
    InputOverride { name: name.into(), shape: Some(vec![1, n]), ..InputOverride::default() }
}

#[test]
fn padding_is_granted_where_the_mask_hides_it_and_only_there() {
    let lengths = [16, 64];
    let inputs = || vec![shapes("x", &lengths, Some(("mask", 3))), shapes("mask", &lengths, None)];
    let (_, contract) = built(&asked(&encoder(true), inputs()));
    assert_eq!(contract.buckets.unwrap().padding, [Some(3), Some(0)], "the mask is 0 there");
    refused(
        &asked(&encoder(false), inputs()),
        "padding changes answers: with x [1, 16] with mask [1, 16] filled up to x [1, 64] with mask [1, 64], vector 0, output",
    );
}

#[test]
fn shapes_that_do_not_go_together_are_refused_in_words() {
    let model = encoder(true);
    let with = |inputs| asked(&model, inputs);
    let both = |a: &[u64], b: &[u64]| with(vec![shapes("x", a, None), shapes("mask", b, None)]);
    let verdict = check(&both(&[16, 64], &[16, 32, 64]));
    assert!(verdict.message.contains("the first of one goes with the first of the other"), "{}", verdict.message);
    assert!(!check(&both(&[16, 64], &[16, 32])).fits, "they do not broadcast");
    let ten: Vec<u64> = (1..=10).collect();
    refused(&both(&ten, &ten), "there may be 8");
    refused(&with(vec![shapes("x", &[1, 2], Some(("mask", 0))), shaped("mask", 2)]), "both need shapes");
    refused(&with(vec![shapes("x", &[1, 2], Some(("x", 0))), shapes("mask", &[1, 2], None)]), "both need shapes");
    let mixed = InputOverride { batch_axis: Some(0), ..shapes("x", &[1, 2], None) };
    refused(&with(vec![mixed, shapes("mask", &[1, 2], None)]), "send one row at a time");
}
