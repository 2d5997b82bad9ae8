//! Batches: granted where rows do not see each other, refused with a reason where they do.

use ballast_bundle::{Batch, Contract};
use ballast_compiler::{CompileOutcome, CompileRequest, InputOverride, VerdictReason, compile};

use super::request;
use super::writer::{Dim, Graph, chain, floats, int, node, part, value};

fn batched(name: &str, axis: u32, shape: Option<Vec<u64>>) -> InputOverride {
    InputOverride { name: name.into(), shape, batch_axis: Some(axis), ..InputOverride::default() }
}

fn asked(model: &Graph, inputs: Vec<InputOverride>) -> CompileRequest {
    CompileRequest { inputs, ..request(model.model()) }
}

#[track_caller]
fn granted(model: &Graph, inputs: Vec<InputOverride>) -> Contract {
    match compile(&asked(model, inputs)) {
        CompileOutcome::Built(artifacts) => {
            assert!(artifacts.verdict.message.contains("rows at once"), "{}", artifacts.verdict.message);
            serde_json::from_slice(&artifacts.contract).unwrap()
        }
        CompileOutcome::Refused(verdict) => panic!("{}", verdict.message),
    }
}

#[track_caller]
fn refused(model: &Graph, inputs: Vec<InputOverride>, says: &str) {
    let CompileOutcome::Refused(verdict) = compile(&asked(model, inputs)) else { panic!("it was granted") };
    assert_eq!(verdict.reason, VerdictReason::InvalidInputs);
    assert!(verdict.message.contains(says), "{says}: {}", verdict.message);
}

/// `[batch, 4]` times a matrix.
fn dense() -> Graph {
    let mut model = chain(
        &[Dim::Open("batch"), Dim::Is(4)],
        vec![node("MatMul", &["x", "w"], &["a"], &[]), node("Softmax", &["a"], &["y"], &[])],
    );
    let weights: Vec<f32> = (0..20).map(|n| n as f32 / 7.0 - 1.0).collect();
    model.constants.push(floats("w", &[4, 5], &weights));
    model
}

#[test]
fn rows_that_do_not_see_each_other_may_come_together() {
    let contract = granted(&dense(), vec![batched("x", 0, None)]);
    assert_eq!(contract.batch, Some(Batch { inputs: vec![Some(0)], outputs: vec![0], max: 64 }));
    assert_eq!(contract.inputs[0].shape, [1, 4], "it is compiled for one");
    granted(&dense(), vec![batched("x", 0, Some(vec![1, 4]))]);
}

#[test]
fn a_batch_may_lie_along_any_axis_and_share_what_has_none() {
    // [4, batch] is turned before it is multiplied, and `scale` is everybody's.
    let mut model = chain(
        &[Dim::Is(4), Dim::Open("n")],
        vec![
            node("Transpose", &["x"], &["t"], &[]),
            node("Mul", &["t", "scale"], &["s"], &[]),
            node("MatMul", &["s", "w"], &["y"], &[]),
        ],
    );
    model.constants.push(floats("w", &[4, 2], &[0.5; 8]));
    model.inputs.push(value("scale", 1, &[Dim::Is(4)]));
    let contract = granted(&model, vec![batched("x", 1, Some(vec![4, 1]))]);
    assert_eq!(contract.batch, Some(Batch { inputs: vec![Some(1), None], outputs: vec![0], max: 64 }));
}

#[test]
fn rows_that_see_each_other_are_found_by_trying() {
    // As batch normalisation in training mode does.
    let axes = [[part(1, "axes"), int(8, 0), int(20, 7)].concat()];
    let model = chain(
        &[Dim::Open("batch"), Dim::Is(4)],
        vec![node("ReduceMean", &["x"], &["m"], &axes), node("Sub", &["x", "m"], &["y"], &[])],
    );
    refused(&model, vec![batched("x", 0, None)], "rows of a batch see each other: output \"y\" of row 0");
}

#[test]
fn what_has_no_batch_is_refused_in_words() {
    let fixed = chain(&[Dim::Is(1), Dim::Is(4)], vec![node("Relu", &["x"], &["y"], &[])]);
    refused(&fixed, vec![batched("x", 0, None)], "cannot be had for 3 rows");
    refused(&dense(), vec![batched("x", 0, Some(vec![2, 4]))], "has 2 rows along batchAxis 0");
    refused(&dense(), vec![batched("x", 5, None)], "has no axis 5");
    let mut summed = dense();
    summed.nodes = vec![node("ReduceSum", &["x"], &["y"], &[])];
    refused(&summed, vec![batched("x", 0, None)], "output \"y\" is not one row per row of the batch");
    let mut two = dense();
    two.nodes.push(node("Relu", &["other"], &["z"], &[]));
    two.inputs.push(value("other", 1, &[Dim::Open("batch"), Dim::Is(2)]));
    refused(&two, vec![batched("x", 0, None)], "input \"other\" grows with the batch");
    two.outputs.push(value("z", 1, &[]));
    let contract = granted(&two, vec![batched("x", 0, None), batched("other", 0, None)]);
    assert_eq!(contract.batch.unwrap().outputs, [0, 0]);
}

#[test]
fn a_large_batch_is_bounded_by_what_it_takes() {
    let model = chain(&[Dim::Open("n"), Dim::Is(1 << 20)], vec![node("Relu", &["x"], &["y"], &[])]);
    let contract = granted(&model, vec![batched("x", 0, None)]);
    assert_eq!(contract.batch.unwrap().max, 8, "8 MiB a row, 64 MiB in all");
}
