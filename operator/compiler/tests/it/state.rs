//! State that gateways carry: granted where an output can become an input, refused with what to write where it cannot.

use ballast_bundle::{Contract, DataType, Golden, Reset};
use ballast_compiler::{
    CompileOutcome, CompileRequest, InputOverride, StateOverride, Verdict, VerdictReason, check, compile,
};

use super::request;
use super::writer::{Dim, Graph, node, value};

fn state(name: &str, output: &str) -> InputOverride {
    InputOverride {
        name: name.into(),
        state: Some(StateOverride { output: output.into(), ..StateOverride::default() }),
        ..InputOverride::default()
    }
}

/// `hn` = tanh(x + h), `y` = relu(hn), `z` = -y of another shape than `h`.
fn recurrent(width: Dim) -> Graph {
    let open = matches!(width, Dim::Open(_));
    let dims = |w: Dim| [Dim::Is(1), w];
    let again = || if open { Dim::Open("width") } else { Dim::Is(4) };
    Graph {
        nodes: vec![
            node("Add", &["x", "h"], &["sum"], &[]),
            node("Tanh", &["sum"], &["hn"], &[]),
            node("Relu", &["hn"], &["y"], &[]),
            node("ReduceSum", &["y"], &["z"], &[]),
        ],
        inputs: vec![value("x", 1, &dims(width)), value("h", 1, &dims(again()))],
        outputs: vec![value("y", 1, &[]), value("hn", 1, &[]), value("z", 1, &[])],
        ..Graph::default()
    }
}

fn asked(inputs: Vec<InputOverride>) -> CompileRequest {
    CompileRequest { inputs, ..request(recurrent(Dim::Is(4)).model()) }
}

#[track_caller]
fn refused(inputs: Vec<InputOverride>, says: &[&str]) -> Verdict {
    let verdict = check(&asked(inputs));
    assert!(!verdict.fits && verdict.reason == VerdictReason::InvalidInputs, "{verdict:?}");
    for said in says {
        assert!(verdict.message.contains(said), "{said}: {}", verdict.message);
    }
    assert!(verdict.gflop > 0.0 && verdict.memory.is_some(), "numbers are there all the same");
    verdict
}

#[test]
fn the_contract_has_what_is_carried_and_golden_vectors_have_it_as_any_input() {
    let mut asked = asked(vec![state("h", "hn")]);
    asked.runtime.sequences.max = 1000;
    let CompileOutcome::Built(built) = compile(&asked) else { panic!("{:?}", check(&asked)) };
    let contract: Contract = serde_json::from_slice(&built.contract).unwrap();
    let carried = contract.state.clone().unwrap();
    assert!(carried.fits(&contract));
    assert_eq!((carried.inputs.len(), carried.inputs[0].reset, carried.max_sequences), (1, Reset::OnSwap, 1000));
    let golden = Golden::of_bundle(&built.golden, &contract).unwrap();
    assert!(golden.input(0, "h").is_some_and(|h| h.iter().any(|b| *b != 0)), "not only the beginning is proved");

    // What it takes is in the verdict, and clients' part of it too.
    let memory = built.verdict.memory.unwrap();
    assert_eq!(memory.state_bytes, contract.state_memory());
    assert_eq!(memory.serving_bytes, 2 * memory.instance_bytes + memory.state_bytes);
    let plain = check(&CompileRequest { inputs: vec![], ..asked.clone() });
    assert_eq!(plain.memory.unwrap().serving_bytes, memory.serving_bytes - memory.state_bytes);
    for said in ["\"h\" is state", "output \"hn\"", "16 bytes a sequence, of up to 1000 sequences"] {
        assert!(built.verdict.notes.iter().any(|n| n.contains(said)), "{said}: {:?}", built.verdict.notes);
    }
    // Who has not thought of it is told how.
    let hint = "{name: h, shape: [1, 4], state: {output: hn}}";
    assert!(plain.notes.iter().any(|n| n.contains(hint)), "{:?}", plain.notes);
    let tight = ballast_compiler::TargetSpec { memory_bytes: memory.serving_bytes - 1, ..asked.target.clone() };
    let verdict = check(&CompileRequest { target: tight, ..asked });
    assert_eq!(verdict.reason, VerdictReason::MemoryExceeded);
    assert!(verdict.message.contains("for the state of sequences"), "{}", verdict.message);
}

#[test]
fn state_that_cannot_be_carried_is_refused_with_what_to_write() {
    refused(
        vec![state("h", "next")],
        &[
            "no output \"next\"",
            "\"y\", \"hn\", \"z\"",
            "write {name: h, state: {output: \"y\"}} or {name: h, state: {output: hn}}",
        ],
    );
    refused(vec![state("h", "z")], &["output \"z\" (Fp32", "cannot become input \"h\" (Fp32 [1, 4])", "{output: hn}"]);
    let stranger = check(&asked(vec![state("hh", "hn")]));
    assert!(stranger.message.contains("the model has no input \"hh\""), "{}", stranger.message);
    refused(vec![state("x", "hn"), state("h", "hn")], &["\"hn\" is the state of two inputs"]);
    let fixed = InputOverride { value: Some(vec![0.0]), ..state("h", "hn") };
    refused(vec![fixed], &["makes it a constant", "state.initial"]);
    let rows = InputOverride { name: "x".into(), batch_axis: Some(0), ..InputOverride::default() };
    refused(vec![rows, state("h", "hn")], &["\"x\" has a batchAxis", "leave batchAxis out"]);
    let mut beginning = state("h", "hn");
    beginning.state.as_mut().unwrap().initial = vec![1, 2];
    refused(vec![beginning], &["one number or 4 of them, each exactly a Fp32"]);
}

#[test]
fn dimensions_that_are_open_are_asked_for_with_the_state() {
    let verdict =
        check(&CompileRequest { inputs: vec![state("h", "hn")], ..request(recurrent(Dim::Open("width")).model()) });
    assert_eq!(verdict.reason, VerdictReason::OpenDimensions);
    let yaml = verdict.inputs_yaml.unwrap();
    assert!(
        yaml.contains("- {name: h, shape: [1, ") && yaml.contains(", state: {output: hn}}  # the model says"),
        "{yaml}"
    );
    let kept = InputOverride { shape: Some(vec![1, 7]), ..state("h", "hn") };
    let CompileOutcome::Built(built) =
        compile(&CompileRequest { inputs: vec![kept], ..request(recurrent(Dim::Open("width")).model()) })
    else {
        panic!("it is whole")
    };
    let contract: Contract = serde_json::from_slice(&built.contract).unwrap();
    assert_eq!((contract.inputs[1].datatype, contract.inputs[1].shape.as_slice()), (DataType::Fp32, &[1, 7][..]));
    assert_eq!(contract.state.unwrap().inputs[0].output, "hn");
}
