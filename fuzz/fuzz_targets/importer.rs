//! Any bytes as a model: an answer comes, in bounded time and memory. What is taken for a model is lowered to a plan that our
//! own reader takes, and evaluated where that is little work.
#![no_main]

use ballast_compiler::ir::{DType, Graph, Tensor, ValueId};
use ballast_compiler::{TargetSpec, cost, eval, import, lower};
use libfuzzer_sys::fuzz_target;

/// Work in operations, and bytes held, that a model may ask for and still be evaluated.
const MOST: u64 = 1 << 22;

fn target() -> TargetSpec {
    TargetSpec {
        name: "x86-64".parse().expect("a name"),
        triple: "x86_64-unknown-linux-musl".into(),
        cpu_features: vec![],
        memory_bytes: 1 << 30,
        deny: vec![],
        gflops: 0.0,
        memory_bandwidth: 0.0,
    }
}

fn input(graph: &Graph, id: ValueId) -> Tensor {
    let value = graph.value(id);
    if value.dtype == DType::F32 {
        let odd = [0.0, -0.0, 1.5, -7.25, 3e38, f32::INFINITY, f32::NAN, 1e-40];
        return Tensor::f32(value.shape.clone(), odd.iter().copied().cycle().take(value.len()).collect());
    }
    let bytes: Vec<u8> =
        [0, 1, 255, 128, 7, 64, 2].into_iter().cycle().take(value.len() * value.dtype.size()).collect();
    Tensor::from_bytes(value.dtype, value.shape.clone(), &bytes).expect("as long as it says")
}

fuzz_target!(|bytes: &[u8]| {
    let graph = match import::import(bytes, &[], &[]) {
        Ok(imported) => imported.graph,
        Err(findings) => {
            assert!(!findings.message().is_empty(), "a refusal says why");
            return;
        }
    };
    let lowered = lower::lower(&graph, &target());
    assert!(!matches!(lowered, Err(lower::LowerError::Plan(_))), "{lowered:?}");
    let held: u64 = graph.values.iter().map(|v| v.len() as u64 * 8).fold(0, u64::saturating_add);
    if held > MOST || cost::cost(&graph).flop > MOST {
        return;
    }
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|id| input(&graph, *id)).collect();
    let outputs = eval::evaluate(&graph, &inputs).expect("inputs fit");
    assert!(outputs.iter().zip(&graph.outputs).all(|(t, id)| t.len() == graph.value(*id).len()));
});
