//! The digits models against answers that were computed elsewhere, and as bundles.

use ballast_bundle::{Contract, DataType, Golden, GoldenMatch};
use ballast_compiler::ir::Tensor;
use ballast_compiler::{CompileOutcome, VerdictReason, compile, eval, import};
use safetensors::SafeTensors;

use super::{example, request};

const VERSIONS: [&str; 4] = ["1.0.0", "2.0.0", "3.0.0", "4.0.0"];

#[test]
fn the_evaluator_agrees_with_the_expected_answers() {
    // `expected/VERSION` was written by the example's own scripts, which know nothing of this crate.
    let file = example("live.safetensors");
    let live = SafeTensors::deserialize(&file).expect("a safetensors file");
    let images = live.tensor("images").expect("images");
    for version in VERSIONS {
        let graph = import::import(&example(&format!("models/digits-{version}.onnx")), &[], &[])
            .expect("it is supported")
            .graph;
        let input = graph.value(graph.inputs[0]);
        let expected = live.tensor(&format!("expected/{version}")).expect("expected answers");
        for (image, answer) in images.data().chunks_exact(4 * input.len()).zip(expected.data().chunks_exact(40)) {
            let x = Tensor::from_bytes(input.dtype, input.shape.clone(), image).expect("64 pixels");
            let y = eval::evaluate(&graph, &[x]).expect("it runs").remove(0);
            for (found, raw) in y.floats().iter().zip(answer.as_chunks::<4>().0) {
                let wanted = f32::from_le_bytes(*raw);
                let close = (found - wanted).abs() <= 1e-5 + 1e-4 * wanted.abs();
                assert!(close || found.is_nan() && wanted.is_nan(), "{version}: {found} instead of {wanted}");
            }
        }
    }
}

#[test]
fn batch_normalisation_folds_away() {
    let graph = import::import(&example("models/digits-1.0.0.onnx"), &[], &[]).expect("it is supported").graph;
    let census = graph.nodes.iter().map(|n| n.op.name()).collect::<Vec<_>>().join(" ");
    assert_eq!(
        census, "Conv Binary Binary Binary Pool Conv Binary Binary Binary Pool Reshape MatMul Binary Softmax",
        "normalisation is one product and one sum with constants"
    );
}

#[test]
fn a_bundle_says_what_the_model_takes_and_gives() {
    let CompileOutcome::Built(artifacts) = compile(&request(example("models/digits-1.0.0.onnx"))) else {
        panic!("it was refused")
    };
    let contract: Contract = serde_json::from_slice(&artifacts.contract).expect("a contract");
    assert_eq!((contract.inputs.len(), contract.outputs.len()), (1, 1));
    assert_eq!((contract.inputs[0].name.as_str(), &contract.inputs[0].shape[..]), ("image", &[1, 1, 8, 8][..]));
    assert_eq!((contract.outputs[0].name.as_str(), &contract.outputs[0].shape[..]), ("scores", &[1, 10][..]));
    assert_eq!(contract.inputs[0].datatype, DataType::Fp32);
    assert!(!contract.verification.user_golden);
    assert_eq!(contract.limits.memory_bytes, artifacts.verdict.peak_memory_bytes);
    assert!(contract.limits.deadline_millis >= 500);
    let golden = Golden::of_bundle(&artifacts.golden, &contract).expect("golden vectors that fit");
    assert_eq!(golden.len(), 8);
    assert!(artifacts.verdict.fits && artifacts.verdict.message.contains("self-made"), "{}", artifacts.verdict.message);
}

#[test]
fn the_users_labels_accept_good_models_and_refuse_the_bad_one() {
    for (version, accepted) in [("1.0.0", true), ("2.0.0", true), ("3.0.0", false), ("4.0.0", true)] {
        let mut request = request(example(&format!("models/digits-{version}.onnx")));
        request.golden = Some(example("golden.safetensors"));
        request.verification.golden_match = GoldenMatch::ArgMax;
        request.verification.min_matching_per_mille = 900;
        match compile(&request) {
            CompileOutcome::Built(artifacts) => {
                assert!(accepted, "{version} was accepted");
                let contract: Contract = serde_json::from_slice(&artifacts.contract).expect("a contract");
                assert!(contract.verification.user_golden);
                let golden = Golden::of_bundle(&artifacts.golden, &contract).expect("golden vectors that fit");
                assert!(golden.has_labels("scores") && golden.has_values("scores"));
            }
            CompileOutcome::Refused(verdict) => {
                assert!(!accepted, "{version} was refused: {}", verdict.message);
                assert_eq!(verdict.reason, VerdictReason::GoldenMismatch);
                assert!(verdict.message.contains("have the right label"), "{}", verdict.message);
            }
        }
    }
}

#[test]
fn the_users_numbers_judge_the_model_and_the_evaluators_are_shipped() {
    let CompileOutcome::Built(made) = compile(&request(example("models/digits-1.0.0.onnx"))) else {
        panic!("it was refused")
    };
    let contract: Contract = serde_json::from_slice(&made.contract).expect("a contract");
    let golden = Golden::of_bundle(&made.golden, &contract).expect("golden vectors that fit");
    // The user's numbers differ from the model's in the last of eight vectors.
    let right: Vec<u8> = (0..8).flat_map(|v| golden.output(v, "scores").expect("scores").to_vec()).collect();
    let mut wrong = right.clone();
    wrong[7 * 40..].fill(0);
    let mut request = request(example("models/digits-1.0.0.onnx"));
    request.golden = Some(golden.with_outputs(&contract, &[wrong]));
    let CompileOutcome::Refused(verdict) = compile(&request) else { panic!("7 of 8 were enough") };
    assert_eq!(verdict.reason, VerdictReason::GoldenMismatch);
    request.verification.min_matching_per_mille = 870;
    let CompileOutcome::Built(built) = compile(&request) else { panic!("7 of 8 were not enough") };
    let contract: Contract = serde_json::from_slice(&built.contract).expect("a contract");
    assert!(contract.verification.user_golden);
    let golden = Golden::of_bundle(&built.golden, &contract).expect("golden vectors that fit");
    let shipped: Vec<u8> = (0..8).flat_map(|v| golden.output(v, "scores").expect("scores").to_vec()).collect();
    assert!(shipped == right, "a gateway is held to what the evaluator computes");
}

#[test]
fn an_outcome_survives_the_way_between_processes() {
    let request = request(example("models/digits-1.0.0.onnx"));
    let copy = serde_json::from_str(&serde_json::to_string(&request).expect("JSON")).expect("the same");
    assert_eq!(request, copy);
    let outcome = compile(&request);
    let copy: CompileOutcome = serde_json::from_str(&serde_json::to_string(&outcome).expect("JSON")).expect("the same");
    assert_eq!(outcome, copy);
}
