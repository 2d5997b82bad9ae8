//! Everything at once: what is open comes with numbers that work, what is compared with how far it is off.

use ballast_bundle::{Contract, DataType, Golden, GoldenMatch, golden};
use ballast_compiler::{
    Artifacts, CompileOutcome, InputOverride, TargetSpec, VerdictReason, check, check_targets, compile,
};

use super::writer::{Dim, Graph, chain, floats, int, node, part, value};
use super::{example, request, target};

fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    [int(1, values.len() as i64), int(2, 7), part(8, name), part(9, raw)].concat()
}

fn shaped(name: &str, shape: Vec<u64>) -> InputOverride {
    InputOverride { name: name.into(), shape: Some(shape), value: None, ..InputOverride::default() }
}

fn picture() -> Graph {
    let dims = [Dim::Open("batch"), Dim::Is(3), Dim::Open("height"), Dim::Open("width")];
    let mut model = chain(&dims, vec![node("Conv", &["x", "w"], &["y"], &[])]);
    model.constants.push(floats("w", &[4, 3, 3, 3], &[0.01; 108]));
    model
}

#[test]
fn what_is_open_comes_with_yaml_to_paste_and_the_numbers_it_would_give() {
    let mut asked = request(picture().model());
    let verdict = check(&asked);
    assert_eq!(verdict.reason, VerdictReason::OpenDimensions);
    let yaml = "- {name: x, shape: [1, 3, 224, 224]}  # the model says [batch, 3, height, width]\n";
    assert_eq!(verdict.inputs_yaml.as_deref(), Some(yaml));
    assert!(verdict.message.contains(yaml.trim_end()) && verdict.message.contains("--shape x=1x3x224x224"));
    assert!(verdict.unknown.is_empty(), "{:?}", verdict.unknown);
    // What is pasted has these very numbers.
    let [open] = verdict.open_inputs.as_slice() else { panic!("{:?}", verdict.open_inputs) };
    assert_eq!(open.dimensions.as_ref().unwrap(), &["batch", "3", "height", "width"]);
    asked.inputs = vec![shaped("x", open.suggested.clone().unwrap())];
    let pasted = check(&asked);
    assert!(pasted.fits, "{}", pasted.message);
    assert_eq!((pasted.memory, pasted.gflop), (verdict.memory, verdict.gflop));
    let memory = pasted.memory.unwrap();
    assert_eq!(memory.serving_bytes, 2 * pasted.peak_memory_bytes, "one and its spare");
    assert_eq!(memory.rollout_bytes, 2 * memory.serving_bytes, "and a candidate with its own");
}

#[test]
fn what_was_given_stays_in_the_yaml_and_what_is_steered_is_found_by_trying() {
    // Only 64 elements make [4, 16]; `z` has a shape from the user.
    let mut model = chain(&[Dim::Is(1), Dim::Open("length")], vec![node("Reshape", &["x", "shape"], &["y"], &[])]);
    model.constants.push(ints("shape", &[4, 16]));
    model.inputs.push(value("z", 1, &[Dim::Is(1), Dim::Open("other")]));
    let mut asked = request(model.model());
    model.inputs.push(value("rate", 7, &[Dim::Is(1)]));
    asked.model = model.model();
    let rate = InputOverride { name: "rate".into(), value: Some(vec![16_000.0]), ..InputOverride::default() };
    asked.inputs = vec![shaped("z", vec![1, 9]), rate];
    let verdict = check(&asked);
    let yaml = "- {name: z, shape: [1, 9]}\n- {name: rate, value: [16000]}\n- {name: x, shape: [1, 64]}  # the model says [1, length]\n";
    assert_eq!(verdict.inputs_yaml.as_deref(), Some(yaml), "{}", verdict.message);
    assert!(verdict.message.contains("these numbers work"), "{}", verdict.message);

    // 91 is nobody's habit: then that is said, with what is unknown until somebody gives it.
    model.constants = vec![ints("shape", &[7, 13])];
    let verdict = check(&request(model.model()));
    assert_eq!(verdict.reason, VerdictReason::OpenDimensions);
    assert!(verdict.message.contains("no numbers were found that work"), "{}", verdict.message);
    assert!(verdict.inputs_yaml.is_some_and(|yaml| yaml.starts_with("- {name: x, shape: [1, ")));
    assert!(verdict.unknown.iter().any(|u| u.contains("once every input has a shape")), "{:?}", verdict.unknown);
    assert_eq!((verdict.peak_memory_bytes, verdict.memory), (0, None));
}

#[test]
fn operators_types_and_open_dimensions_are_told_in_one_verdict() {
    let nodes = vec![node("FancyOne", &["x"], &["a"], &[]), node("Relu", &["x"], &["y"], &[])];
    let mut model = chain(&[Dim::Open("batch"), Dim::Open("width")], nodes);
    model.inputs.push(value("words", 8, &[Dim::Is(1)]));
    let verdict = check(&request(model.model()));
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators);
    assert_eq!(verdict.unsupported.len(), 1, "{:?}", verdict.unsupported);
    let [open] = verdict.open_inputs.as_slice() else { panic!("{:?}", verdict.open_inputs) };
    assert_eq!(open.suggested.as_deref(), Some(&[1, 224][..]));
    assert!(verdict.unsupported_types.iter().any(|t| t.contains("\"words\" is a tensor of strings")), "{verdict:?}");
    for said in ["FancyOne", "{name: x, shape: [1, 224]}", "\"words\"", "Not known yet: memory"] {
        assert!(verdict.message.contains(said), "{said}: {}", verdict.message);
    }
}

#[test]
fn names_in_the_yaml_are_quoted_where_they_are_no_words_and_begin_no_line() {
    for (name, written) in
        [("x:0", "\"x:0\""), ("true", "\"true\""), ("0", "\"0\""), ("a/b.c", "a/b.c"), ("x\n- {", "\"x\\n- {\"")]
    {
        let model = Graph {
            nodes: vec![node("Relu", &[name], &["y"], &[])],
            inputs: vec![value(name, 1, &[Dim::Is(1), Dim::Open("l\nx")])],
            outputs: vec![value("y", 1, &[])],
            ..Graph::default()
        };
        let yaml = check(&request(model.model())).inputs_yaml.unwrap();
        assert_eq!(yaml, format!("- {{name: {written}, shape: [1, 128]}}  # the model says [1, l x]\n"));
    }
}

#[test]
fn many_targets_get_the_verdicts_that_they_would_get_alone() {
    let small = TargetSpec { memory_bytes: 2 << 20, name: "small".parse().unwrap(), ..target() };
    let deny = TargetSpec { deny: vec!["Conv".into()], name: "chip".parse().unwrap(), ..target() };
    let asked = request(example("models/digits-2.0.0.onnx"));
    let mut begun = Vec::new();
    let targets = [target(), small, deny];
    let verdicts = check_targets(&asked, &targets, |name| begun.push(name.to_string()));
    assert_eq!(begun, ["x86-64-v3", "small", "chip"]);
    let reasons: Vec<_> = verdicts.iter().map(|v| v.reason).collect();
    assert_eq!(reasons, [VerdictReason::Fits, VerdictReason::MemoryExceeded, VerdictReason::UnsupportedOperators]);
    for (target, verdict) in targets.into_iter().zip(&verdicts) {
        assert_eq!(*verdict, check(&ballast_compiler::CompileRequest { target, ..asked.clone() }));
    }
}

#[test]
fn a_denied_operator_is_its_name_in_the_model_and_only_where_the_target_would_compute_it() {
    let denied = |model: &Graph, names: &[&str]| {
        let mut asked = request(model.model());
        asked.target.deny = names.iter().map(|n| (*n).to_owned()).collect();
        check(&asked)
    };
    // It becomes a mean, products and a square root; what it is called is what counts.
    let mut model = chain(&[Dim::Is(2), Dim::Is(4)], vec![node("LayerNormalization", &["x", "scale"], &["y"], &[])]);
    model.constants.push(floats("scale", &[4], &[1.0; 4]));
    let verdict = denied(&model, &["LayerNormalization"]);
    assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators);
    assert_eq!(verdict.unsupported[0].nearest.as_deref(), Some("the target's operators.deny lists it"));
    assert!(denied(&model, &["ReduceMean", "Sqrt", "Mul"]).fits);
    // Of constants: it is computed here and never there.
    let mut folded =
        chain(&[Dim::Is(2), Dim::Is(4)], vec![node("Exp", &["c"], &["e"], &[]), node("Add", &["x", "e"], &["y"], &[])]);
    folded.constants.push(floats("c", &[4], &[0.5; 4]));
    assert!(denied(&folded, &["Exp"]).fits);
    assert!(!denied(&folded, &["Exp", "Add"]).fits);
    // Another domain's operator of the same name is meant by its full name.
    let gelu = chain(&[Dim::Is(2), Dim::Is(4)], vec![node("Erf", &["x"], &["y"], &[])]);
    assert!(denied(&gelu, &["com.microsoft.Erf"]).fits);
}

fn built(outcome: CompileOutcome) -> Box<Artifacts> {
    match outcome {
        CompileOutcome::Built(artifacts) => artifacts,
        CompileOutcome::Refused(verdict) => panic!("{}", verdict.message),
    }
}

/// The golden file that the compiler makes by itself, as a user's, with one number changed by `by`.
fn users(artifacts: &Artifacts, vector: usize, element: usize, by: f32) -> Vec<u8> {
    let contract: Contract = serde_json::from_slice(&artifacts.contract).unwrap();
    let made = Golden::of_bundle(&artifacts.golden, &contract).unwrap();
    let count = made.len();
    let stack = |of: &dyn Fn(usize) -> Vec<u8>| (0..count).flat_map(of).collect::<Vec<u8>>();
    let (input, output) = (&contract.inputs[0], &contract.outputs[0]);
    let inputs = stack(&|v| made.input(v, &input.name).unwrap().to_vec());
    let mut outputs = stack(&|v| made.output(v, &output.name).unwrap().to_vec());
    let at = 4 * (vector * output.elements().unwrap() as usize + element);
    let old = f32::from_le_bytes(outputs[at..at + 4].try_into().unwrap());
    outputs[at..at + 4].copy_from_slice(&(old + by).to_le_bytes());
    let shape = |s: &[u64]| [&[count as u64], s].concat();
    golden::write(&[
        (format!("inputs/{}", input.name), DataType::Fp32, shape(&input.shape), &inputs),
        (format!("outputs/{}", output.name), DataType::Fp32, shape(&output.shape), &outputs),
    ])
}

#[test]
fn accuracy_says_how_far_off_the_worst_number_is_and_where() {
    let mut asked = request(example("models/digits-2.0.0.onnx"));
    let plain = built(compile(&asked));
    assert_eq!(plain.verdict.accuracy, None, "no user's vectors, no word on the model");

    asked.golden = Some(users(&plain, 1, 3, 0.000_05));
    let near = built(compile(&asked)).verdict;
    let accuracy = near.accuracy.unwrap();
    assert!(near.message.contains("golden vectors are within tolerance; worst difference 5.0"), "{}", near.message);
    let worst = accuracy.worst_absolute.unwrap();
    assert_eq!((worst.vector, worst.element, worst.output.as_str()), (1, 3, "scores"));
    assert!((worst.by - 0.000_05).abs() < 1e-6 && accuracy.matching == accuracy.vectors, "{worst:?}");

    asked.golden = Some(users(&plain, 2, 7, 0.5));
    let CompileOutcome::Refused(off) = compile(&asked) else { panic!("it was built") };
    assert_eq!(off.reason, VerdictReason::GoldenMismatch);
    let accuracy = off.accuracy.unwrap();
    let worst = accuracy.worst_absolute.unwrap();
    assert_eq!((worst.vector, worst.element, accuracy.matching), (2, 7, accuracy.vectors - 1));
    assert!((worst.by - 0.5).abs() < 1e-4 && off.peak_memory_bytes > 0 && off.memory.is_some());
}

#[test]
fn a_share_of_labels_is_accuracy_too() {
    let mut asked = request(example("models/digits-2.0.0.onnx"));
    asked.golden = Some(example("golden.safetensors"));
    asked.verification.golden_match = GoldenMatch::ArgMax;
    asked.verification.min_matching_per_mille = 900;
    let good = built(compile(&asked)).verdict.accuracy.unwrap();
    assert!(good.vectors == 100 && (90..100).contains(&good.matching), "{good:?}");
    assert_eq!((good.compared, good.needed_per_mille), (GoldenMatch::ArgMax, 900));
    asked.model = example("models/digits-3.0.0.onnx");
    let CompileOutcome::Refused(bad) = compile(&asked) else { panic!("it was built") };
    let accuracy = bad.accuracy.unwrap();
    assert!(accuracy.matching < 90 && bad.message.contains("golden vectors have the right label"), "{accuracy:?}");
}

#[test]
fn a_constant_that_steers_a_shape_is_given_by_value() {
    let mut model = chain(&[Dim::Is(1), Dim::Is(8)], vec![node("Slice", &["x", "from", "to", "axis"], &["y"], &[])]);
    model.constants.extend([ints("from", &[0]), ints("axis", &[1])]);
    model.inputs.push(value("to", 7, &[Dim::Is(1)]));
    let mut asked = request(model.model());
    assert_eq!(check(&asked).reason, VerdictReason::UnsupportedOperators);
    asked.inputs =
        vec![InputOverride { name: "to".into(), shape: None, value: Some(vec![5.0]), ..InputOverride::default() }];
    let artifacts = built(compile(&asked));
    let contract: Contract = serde_json::from_slice(&artifacts.contract).unwrap();
    assert_eq!(contract.inputs.len(), 1, "it is no input any more");
    assert_eq!(contract.outputs[0].shape, [1, 5]);
}
