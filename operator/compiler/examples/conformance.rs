//! Runs models with known inputs and outputs through importer, reference evaluator and lowering, and says what came of each.
//!
//! `conformance DIR`: each folder below DIR holds `model.onnx` and `golden.safetensors` (`inputs/NAME`, `outputs/NAME`, one or
//! more vectors). Prints one line of JSON per folder: `{"case", "evaluated", "lowered", "message"}`.

use std::path::Path;

use ballast_bundle::{GoldenMatch, Tolerance, Verification};
use ballast_compiler::{CompileOutcome, CompileRequest, RuntimeLimits, TargetSpec, VerdictReason, compile};

fn request(model: Vec<u8>, golden: Vec<u8>) -> CompileRequest {
    CompileRequest {
        model,
        model_name: "case".into(),
        version: "1".into(),
        variant: "fp32".into(),
        target: TargetSpec {
            name: "x86-64".parse().expect("a name"),
            triple: "x86_64-unknown-linux-musl".into(),
            cpu_features: vec![],
            memory_bytes: 8 << 30,
            deny: vec![],
            gflops: 0.0,
            memory_bandwidth: 0.0,
        },
        inputs: vec![],
        runtime: RuntimeLimits { memory_limit: 4 << 30, deadline_millis: None, instances: 1, max_queue: 16 },
        verification: Verification {
            golden_match: GoldenMatch::Values,
            min_matching_per_mille: 1000,
            tolerance: Tolerance { absolute: 1e-5, relative: 1e-3 },
            finite_outputs: false,
            max_latency_p99_millis: None,
            user_golden: true,
        },
        golden: Some(golden),
    }
}

fn run(folder: &Path) -> (bool, bool, String) {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("model.onnx and golden.safetensors are there");
    let request = request(read("model.onnx"), read("golden.safetensors"));
    match compile(&request) {
        CompileOutcome::Built(artifacts) => (true, true, artifacts.verdict.message),
        CompileOutcome::Refused(verdict) if verdict.reason == VerdictReason::NotLowered => {
            // The evaluator alone then.
            (evaluated(&request), false, verdict.message)
        }
        CompileOutcome::Refused(verdict) => (false, false, format!("{:?}: {}", verdict.reason, verdict.message)),
    }
}

/// Whether the reference evaluator gives the expected outputs.
fn evaluated(request: &CompileRequest) -> bool {
    use ballast_bundle::{Golden, TensorSpec};
    use ballast_compiler::{eval, import, ir::Tensor};
    let Ok(imported) = import::import(&request.model, &[], &[]) else { return false };
    let graph = imported.graph;
    let spec = |value: &ballast_compiler::ir::Value, name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: value.dtype.datatype(),
        shape: value.shape.iter().map(|d| *d as u64).collect(),
    };
    let inputs: Vec<TensorSpec> =
        graph.inputs.iter().map(|id| spec(graph.value(*id), &graph.value(*id).name)).collect();
    let outputs: Vec<TensorSpec> =
        graph.outputs.iter().zip(&graph.output_names).map(|(id, name)| spec(graph.value(*id), name)).collect();
    let Some(Ok(golden)) = request.golden.as_ref().map(|bytes| Golden::parse(bytes, &inputs, &outputs)) else {
        return false;
    };
    (0..golden.len()).all(|vector| {
        let tensors: Option<Vec<Tensor>> = graph
            .inputs
            .iter()
            .zip(&inputs)
            .map(|(id, spec)| {
                let value = graph.value(*id);
                Tensor::from_bytes(value.dtype, value.shape.clone(), golden.input(vector, &spec.name)?)
            })
            .collect();
        let Some(Ok(results)) = tensors.map(|t| eval::evaluate(&graph, &t)) else { return false };
        results.iter().zip(&outputs).all(|(result, spec)| {
            let expected = golden.output(vector, &spec.name).unwrap_or_default();
            let Some(expected) = Tensor::from_bytes(result.dtype, result.shape.clone(), expected) else { return false };
            let close = |a: &f32, b: &f32| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-5 + 1e-3 * b.abs();
            result.ints() == expected.ints() && result.floats().iter().zip(expected.floats()).all(|(a, b)| close(a, b))
        })
    })
}

fn main() {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: conformance DIR");
        std::process::exit(2);
    };
    let mut folders: Vec<_> =
        std::fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry").path()).collect();
    folders.sort();
    for folder in folders {
        let (evaluated, lowered, message) = run(&folder);
        let case = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        println!(
            "{}",
            serde_json::json!({"case": case, "evaluated": evaluated, "lowered": lowered, "message": message})
        );
    }
}
