//! Bad input: one clear sentence each, everything at once.

use ballast_compiler::{CompileOutcome, InputOverride, Verdict, VerdictReason, check, compile};

use super::writer::{Dim, Graph, chain, floats, graph_attribute, node, value};
use super::{example, request};

fn refused(model: Vec<u8>) -> Verdict {
    let verdict = check(&request(model));
    assert!(!verdict.fits, "{verdict:?}");
    verdict
}

#[test]
fn a_file_that_is_no_model_is_called_so() {
    for bytes in
        [&b"<!DOCTYPE html><html><body>404</body></html>"[..], b"\x7fELF\x02\x01\x01", b"{\"a\": 1}", &[0xff; 64]]
    {
        let verdict = refused(bytes.to_vec());
        assert_eq!(verdict.reason, VerdictReason::NotOnnx);
        assert!(verdict.message.starts_with("This is not an ONNX file: "), "{}", verdict.message);
    }
    assert!(refused(vec![]).message.contains("empty"));
}

#[test]
fn a_truncated_model_is_called_cut_off() {
    let whole = example("models/digits-2.0.0.onnx");
    for len in [whole.len() - 1, whole.len() / 2, 1000] {
        let verdict = refused(whole[..len].to_vec());
        assert_eq!(verdict.reason, VerdictReason::NotOnnx);
        assert!(verdict.message.contains(&format!("cut off after {len} bytes")), "{}", verdict.message);
    }
}

#[test]
fn unsupported_operators_are_all_listed() {
    let model = chain(
        &[Dim::Is(1), Dim::Is(4)],
        vec![
            node("FancyOne", &["x"], &["a"], &[]),
            node("Relu", &["a"], &["b"], &[]),
            node("RandomNormalLike", &["b"], &["c"], &[]),
            node("FancyTwo", &["x"], &["y"], &[]),
        ],
    );
    let verdict = refused(model.model());
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators);
    let names: Vec<_> = verdict.unsupported.iter().map(|u| (u.operator.as_str(), u.node.as_str())).collect();
    assert_eq!(names, [("FancyOne", "a"), ("RandomNormalLike", "c"), ("FancyTwo", "y")]);
    assert!(verdict.unsupported[1].nearest.as_deref().is_some_and(|n| n.contains("reproducible")));
    assert!(
        verdict
            .message
            .starts_with("The model uses operators that are not supported: FancyOne, FancyTwo, RandomNormalLike.")
    );
}

#[test]
fn an_output_that_an_operator_is_not_imported_with_is_refused_when_it_is_read() {
    let reading = |what: &str| {
        let normalize = node("BatchNormalization", &["x", "one", "one", "one", "one"], &["n", "mean"], &[]);
        let mut model = chain(&[Dim::Is(1), Dim::Is(1)], vec![normalize, node("Relu", &[what], &["y"], &[])]);
        model.constants.push(floats("one", &[1], &[1.0]));
        model.model()
    };
    let verdict = refused(reading("mean"));
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators, "{}", verdict.message);
    assert_eq!(verdict.unsupported[0].nearest.as_deref(), Some("its output 1"));
    let verdict = check(&request(reading("n")));
    assert!(verdict.fits, "exporters name outputs that nobody reads: {}", verdict.message);
}

#[test]
fn operators_that_cannot_be_compiled_yet_are_all_listed_by_their_onnx_names() {
    // Seven dimensions turned around: one more than a copy has.
    let model = chain(
        &[2; 7].map(Dim::Is),
        vec![
            node("Transpose", &["x"], &["a"], &[]),
            node("Relu", &["a"], &["b"], &[]),
            node("Transpose", &["b"], &["c"], &[]),
            node("Relu", &["c"], &["y"], &[]),
        ],
    );
    let verdict = refused(model.model());
    assert_eq!(verdict.reason, VerdictReason::NotLowered);
    let names: Vec<_> = verdict.unsupported.iter().map(|u| (u.operator.as_str(), u.node.as_str())).collect();
    assert_eq!(names, [("Transpose", "a"), ("Transpose", "c")], "{}", verdict.message);
    for (operator, node) in names {
        assert!(verdict.message.contains(&format!("- {operator} at node {node:?}: ")), "{}", verdict.message);
    }
}

#[test]
fn what_is_open_and_what_is_unsupported_are_told_together() {
    let mut model = chain(&[Dim::Open("batch"), Dim::Open("width")], vec![node("FancyOne", &["x"], &["y"], &[])]);
    model.inputs.push(value("other", 1, &[Dim::Is(1), Dim::Is(3)]));
    let verdict = refused(model.model());
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators);
    assert!(verdict.message.contains("FancyOne"));
    assert!(verdict.message.contains("- {name: x, shape: [1, 224]}"), "{}", verdict.message);
}

#[test]
fn open_dimensions_are_closed_by_overrides_and_names() {
    let mut model = chain(&[Dim::Open("batch"), Dim::Open("width")], vec![node("Add", &["x", "z"], &["y"], &[])]);
    model.inputs.push(value("z", 1, &[Dim::Open("batch"), Dim::Open("width")]));
    let mut request = request(model.model());
    assert_eq!(check(&request).reason, VerdictReason::OpenDimensions);
    // The second input follows by the dimension's name.
    request.inputs =
        vec![InputOverride { name: "x".into(), shape: Some(vec![2, 5]), value: None, ..InputOverride::default() }];
    let verdict = check(&request);
    assert!(verdict.fits, "{}", verdict.message);
    request.inputs =
        vec![InputOverride { name: "nope".into(), shape: Some(vec![2, 5]), value: None, ..InputOverride::default() }];
    let verdict = check(&request);
    assert!(verdict.message.contains("the model has no input \"nope\"; it has \"x\", \"z\""), "{}", verdict.message);
}

#[test]
fn question_marks_and_minus_ones_are_open_dimensions_without_a_name() {
    let dims = [Dim::Is(-1), Dim::Open("?"), Dim::Open("?")];
    let mut request = request(chain(&dims, vec![node("Relu", &["x"], &["y"], &[])]).model());
    assert_eq!(check(&request).reason, VerdictReason::OpenDimensions);
    request.inputs = vec![InputOverride {
        name: "x".into(),
        shape: Some(vec![1, 48, 192]),
        value: None,
        ..InputOverride::default()
    }];
    let verdict = check(&request);
    assert!(verdict.fits, "{}", verdict.message);
}

#[test]
fn an_open_batch_is_one_and_the_verdict_says_so() {
    let model = chain(&[Dim::Open("batch"), Dim::Is(3)], vec![node("Relu", &["x"], &["y"], &[])]);
    let verdict = check(&request(model.model()));
    assert!(verdict.fits);
    assert!(verdict.message.contains("leaves its first dimension open; it is taken as 1"), "{}", verdict.message);
}

#[test]
fn a_shape_that_contradicts_the_model_is_refused() {
    let mut request = request(example("models/digits-1.0.0.onnx"));
    request.inputs = vec![InputOverride {
        name: "image".into(),
        shape: Some(vec![1, 1, 9, 8]),
        value: None,
        ..InputOverride::default()
    }];
    let verdict = check(&request);
    assert_eq!(verdict.reason, VerdictReason::InvalidInputs);
    assert!(
        verdict.message.contains("given the shape [1, 1, 9, 8], the model says [1, 1, 8, 8]"),
        "{}",
        verdict.message
    );
}

#[test]
fn types_that_are_not_supported_are_named() {
    let model = Graph {
        nodes: vec![node("Identity", &["x"], &["y"], &[])],
        inputs: vec![value("x", 8, &[Dim::Is(1)]), value("c", 14, &[Dim::Is(1)])],
        outputs: vec![value("y", 8, &[])],
        ..Graph::default()
    };
    let verdict = refused(model.model());
    assert_eq!(verdict.reason, VerdictReason::UnsupportedType);
    assert!(
        verdict.message.contains("\"x\" is a tensor of strings")
            && verdict.message.contains("\"c\" is of type complex64")
    );
}

#[test]
fn a_model_too_big_for_the_target_is_refused_with_numbers() {
    let mut small = request(example("models/digits-2.0.0.onnx"));
    small.runtime.memory_limit = 1 << 20;
    let verdict = check(&small);
    assert_eq!(verdict.reason, VerdictReason::MemoryExceeded);
    assert!(verdict.peak_memory_bytes > 1 << 20 && verdict.size_bytes > 90_000 && verdict.gflop > 0.001);
    assert!(verdict.message.contains("runtime.memoryLimit allows 1.0 MiB"), "{}", verdict.message);

    let mut tiny = request(example("models/digits-2.0.0.onnx"));
    tiny.target.memory_bytes = 2 << 20;
    let verdict = check(&tiny);
    assert_eq!(verdict.reason, VerdictReason::MemoryExceeded);
    assert!(verdict.message.contains("one of them a spare"), "{}", verdict.message);
}

#[test]
fn a_model_too_slow_for_its_deadline_is_refused() {
    let mut slow = request(example("models/digits-2.0.0.onnx"));
    slow.target.gflops = 0.000_1;
    slow.runtime.deadline_millis = Some(50);
    let verdict = check(&slow);
    assert_eq!(verdict.reason, VerdictReason::DeadlineExceeded);
    assert!(verdict.predicted_latency_millis > 50.0 && verdict.message.contains("runtime.deadline is 50 ms"));
}

#[test]
fn operators_that_the_target_denies_are_listed() {
    let mut denied = request(example("models/digits-1.0.0.onnx"));
    denied.target.deny = vec!["Softmax".into(), "Conv".into()];
    let verdict = check(&denied);
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators);
    assert_eq!(verdict.unsupported.len(), 3, "two convolutions and one softmax");
    assert!(verdict.message.contains("operators.deny"));
}

/// Both sides of a branch whose condition is an input.
fn branching(then: &str, otherwise: &str) -> Graph {
    let side = |operator: &str| Graph {
        nodes: vec![node(operator, &["x"], &["inner"], &[])],
        outputs: vec![value("inner", 1, &[])],
        ..Graph::default()
    };
    let attributes =
        [graph_attribute("then_branch", &side(then).bytes()), graph_attribute("else_branch", &side(otherwise).bytes())];
    let mut model = chain(&[Dim::Is(1), Dim::Is(3)], vec![node("If", &["condition"], &["y"], &attributes)]);
    model.inputs.push(value("condition", 9, &[]));
    model
}

#[test]
fn a_side_that_a_known_condition_does_not_take_does_not_count() {
    let mut request = request(branching("Relu", "NotThere").model());
    let verdict = check(&request);
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators);
    request.inputs = vec![InputOverride {
        name: "condition".into(),
        shape: None,
        value: Some(vec![1.0]),
        ..InputOverride::default()
    }];
    let verdict = check(&request);
    assert!(verdict.fits, "{}", verdict.message);
}

#[test]
fn sides_of_a_branch_give_the_same_tensors_or_their_condition_is_known() {
    let verdict = check(&request(branching("Relu", "Neg").model()));
    assert!(verdict.fits, "{}", verdict.message);
    let verdict = check(&request(branching("Relu", "Shape").model()));
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators);
    assert!(verdict.message.contains("f32 [1, 3] and i64 [2]"), "{}", verdict.message);
    assert!(verdict.message.contains("model.inputs[].value"), "{}", verdict.message);
}

#[test]
fn contradictions_are_named_with_their_nodes() {
    let mut model = chain(
        &[Dim::Is(1), Dim::Is(3)],
        vec![node("Add", &["x", "w"], &["a"], &[]), node("Relu", &["nothing"], &["y"], &[])],
    );
    model.constants.push(floats("w", &[4], &[0.0; 4]));
    let verdict = refused(model.model());
    assert_eq!(verdict.reason, VerdictReason::NotOnnx);
    assert!(
        verdict.message.contains("node \"a\" (Add): shapes [1, 3] and [4] do not broadcast"),
        "{}",
        verdict.message
    );
    assert!(verdict.message.contains("reads \"nothing\", which nothing before it makes"), "{}", verdict.message);
}

#[test]
fn golden_vectors_that_do_not_fit_are_refused() {
    let mut bad = request(example("models/digits-1.0.0.onnx"));
    bad.golden = Some(b"not safetensors".to_vec());
    let CompileOutcome::Refused(verdict) = compile(&bad) else { panic!("it was built") };
    assert_eq!(verdict.reason, VerdictReason::InvalidGolden);
    assert!(verdict.message.contains("safetensors"), "{}", verdict.message);
}
