//! Runs models with known answers through importer, reference evaluator, lowering and kernels, and says what came of each.
//!
//! `conformance DIR`: each folder below DIR holds `model.onnx` and `golden.safetensors` (`inputs/NAME`, `outputs/NAME`, one or
//! more vectors). Prints one line of JSON per folder: `{"case", "imported", "evaluated", "lowered", "executed", "message"}`.
//! *evaluated*: the reference evaluator gives the expected outputs; *executed*: so does the plan, natively, on the plainest
//! and on the widest kernels that this CPU has.
#![allow(unsafe_code)] // runs plans natively: they were parsed, and their memories have the sizes that they ask for

use std::path::Path;

use ballast_bundle::{Golden, TensorSpec};
use ballast_compiler::ir::{Graph, Tensor, ValueId};
use ballast_compiler::lower::{Lowered, lower};
use ballast_compiler::{TargetSpec, eval, import};
use ballast_kernels::{Level, Memory};
use ballast_plan::Plan;

#[derive(Default)]
struct Outcome {
    imported: bool,
    evaluated: bool,
    lowered: bool,
    executed: bool,
    message: String,
}

fn target() -> TargetSpec {
    TargetSpec {
        name: "x86-64".parse().expect("a name"),
        triple: "x86_64-unknown-linux-musl".into(),
        cpu_features: vec![],
        memory_bytes: 8 << 30,
        deny: vec![],
        gflops: 0.0,
        memory_bandwidth: 0.0,
    }
}

fn specs<'a>(graph: &'a Graph, ids: &'a [ValueId], names: impl Iterator<Item = &'a String>) -> Vec<TensorSpec> {
    ids.iter()
        .zip(names)
        .map(|(id, name)| {
            let value = graph.value(*id);
            let shape = value.shape.iter().map(|d| *d as u64).collect();
            TensorSpec { name: name.clone(), datatype: value.dtype.datatype(), shape }
        })
        .collect()
}

/// Vectors as tensors: inputs and expected outputs.
type Vectors = Vec<(Vec<Tensor>, Vec<Tensor>)>;

fn vectors(graph: &Graph, bytes: &[u8]) -> Result<Vectors, String> {
    let inputs = specs(graph, &graph.inputs, graph.inputs.iter().map(|id| &graph.value(*id).name));
    let outputs = specs(graph, &graph.outputs, graph.output_names.iter());
    let golden =
        Golden::parse_counted(bytes, &inputs, &outputs, &graph.counted_outputs()).map_err(|e| e.to_string())?;
    let tensor = |id: &ValueId, bytes: Option<&[u8]>| {
        let value = graph.value(*id);
        Tensor::from_bytes(value.dtype, value.shape.clone(), bytes?)
    };
    (0..golden.len())
        .map(|v| {
            let given = graph.inputs.iter().zip(&inputs).map(|(id, s)| tensor(id, golden.input(v, &s.name))).collect();
            let wanted =
                graph.outputs.iter().zip(&outputs).map(|(id, s)| tensor(id, golden.output(v, &s.name))).collect();
            let pair: (Option<_>, Option<_>) = (given, wanted);
            pair.0.zip(pair.1).ok_or_else(|| "the golden file lacks a tensor".to_owned())
        })
        .collect()
}

/// Without rows behind as many as are wanted.
fn valid(graph: &Graph, tensors: &[Tensor], wanted: &[Tensor]) -> Vec<Tensor> {
    let mut tensors = tensors.to_vec();
    for counted in &graph.counted {
        let (tensor, count) = (&tensors[counted.output], wanted[counted.count].ints()[0] as u64);
        let shape = tensor.shape.iter().map(|d| *d as u64).collect();
        let spec = TensorSpec { name: String::new(), datatype: tensor.dtype.datatype(), shape };
        let bytes = tensor.to_bytes();
        let (shape, bytes) = spec.first(counted.axis, count, &bytes);
        let shape = shape.iter().map(|d| *d as usize).collect();
        tensors[counted.output] = Tensor::from_bytes(tensor.dtype, shape, &bytes).expect("as long as its shape");
    }
    tensors
}

fn compare(graph: &Graph, found: &[Tensor], wanted: &[Tensor]) -> Result<(), String> {
    let (found, wanted) = (valid(graph, found, wanted), valid(graph, wanted, wanted));
    for (o, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        if found.ints() != wanted.ints() {
            return Err(format!("output {o} differs"));
        }
        let wide = |t: &Tensor| -> Vec<f64> {
            t.floats().iter().map(|x| f64::from(*x)).chain(t.doubles().iter().copied()).collect()
        };
        for (i, (a, b)) in wide(found).into_iter().zip(wide(wanted)).enumerate() {
            let close = a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-4 + 1e-3 * b.abs();
            if !close {
                return Err(format!("output {o}, element {i} is {a}, expected {b}"));
            }
        }
    }
    Ok(())
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|c| c.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b))).collect()
}

/// Runs a plan as the guest would, in an arena full of rubbish.
fn execute(graph: &Graph, lowered: &Lowered, level: Level, inputs: &[Tensor]) -> Vec<Tensor> {
    let plan = Plan::parse(&lowered.plan).expect("the compiler's plans parse");
    let entry = plan.entries().next().expect("an entry");
    // Words, so that everything is aligned.
    let mut arena = vec![u64::MAX; (lowered.arena_bytes as usize).div_ceil(8)];
    let weights = words(&lowered.weights);
    let memory = Memory { arena: arena.as_mut_ptr().cast(), weights: weights.as_ptr().cast() };
    for (tensor, place) in inputs.iter().zip(entry.inputs()) {
        let bytes = tensor.to_bytes();
        assert_eq!(place.bytes(), Some(bytes.len() as u64), "the plan's input is as long as the model's");
        // SAFETY: a parsed plan's tensors lie inside its arena.
        unsafe { memory.arena.add(place.at as usize).copy_from(bytes.as_ptr(), bytes.len()) };
    }
    // SAFETY: a parsed plan's steps stay inside arena and weights of the sizes that it states.
    unsafe { ballast_kernels::run(level, &plan, entry.items(), &memory) };
    graph
        .outputs
        .iter()
        .zip(entry.outputs())
        .map(|(id, place)| {
            let value = graph.value(*id);
            let bytes = value.len() * value.dtype.size();
            assert_eq!(place.bytes(), Some(bytes as u64), "the plan's output is as long as the model's");
            // SAFETY: as for the inputs.
            let found = unsafe { std::slice::from_raw_parts(memory.arena.add(place.at as usize), bytes) };
            Tensor::from_bytes(value.dtype, value.shape.clone(), found).expect("as long as it says")
        })
        .collect()
}

fn run(folder: &Path) -> Outcome {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("model.onnx and golden.safetensors are there");
    let mut outcome = Outcome::default();
    let graph = match import::import(&read("model.onnx"), &[], &[]) {
        Ok(imported) => imported.graph,
        Err(findings) => return Outcome { message: findings.message(), ..outcome },
    };
    outcome.imported = true;
    let vectors = match vectors(&graph, &read("golden.safetensors")) {
        Ok(vectors) => vectors,
        Err(message) => return Outcome { message, ..outcome },
    };
    let judged = vectors.iter().try_for_each(|(inputs, wanted)| {
        compare(&graph, &eval::evaluate(&graph, inputs).map_err(|e| e.to_string())?, wanted)
    });
    match judged {
        Ok(()) => outcome.evaluated = true,
        Err(message) => return Outcome { message: format!("evaluator: {message}"), ..outcome },
    }
    let lowered = match lower(&graph, &target()) {
        Ok(lowered) => lowered,
        Err(e) => return Outcome { message: e.to_string(), ..outcome },
    };
    outcome.lowered = true;
    for level in [Level::Scalar, Level::best()] {
        for (inputs, wanted) in &vectors {
            if let Err(message) = compare(&graph, &execute(&graph, &lowered, level, inputs), wanted) {
                return Outcome { message: format!("kernels ({level:?}): {message}"), ..outcome };
            }
        }
    }
    Outcome { executed: true, ..outcome }
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
        let Outcome { imported, evaluated, lowered, executed, message } = run(&folder);
        let case = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        println!(
            "{}",
            serde_json::json!({
                "case": case, "imported": imported, "evaluated": evaluated, "lowered": lowered, "executed": executed,
                "message": message,
            })
        );
    }
}
