//! The reference evaluator, and the plan's kernels as native code, on a case's vectors: what tells a wrong evaluator from wrong
//! kernels, and those from a sandbox that goes wrong.
#![allow(unsafe_code)] // runs plans natively: they were parsed, and their memories have the sizes that they ask for

use ballast_bundle::{Contract, TensorSpec};
use ballast_compiler::ir::Tensor;
use ballast_compiler::{Artifacts, eval, import};
use ballast_kernels::{Level, Memory};
use ballast_plan::Plan;

/// What is compared: outputs in the contract's order with what vector `index` expects.
type Judge<'j> = &'j dyn Fn(usize, &[Vec<u8>]) -> Result<(), String>;

/// Inputs of each vector in the contract's order.
type Inputs<'v> = Vec<Vec<&'v [u8]>>;

/// Every vector on the evaluator, then on the plainest and on the widest kernels that this processor has.
pub fn judge(
    model: &[u8],
    artifacts: &Artifacts,
    contract: &Contract,
    inputs: &Inputs<'_>,
    judge: Judge<'_>,
) -> Result<(), String> {
    let graph = import::import(model, &[], &[]).map_err(|findings| findings.message())?.graph;
    for (index, given) in inputs.iter().enumerate() {
        let tensors: Option<Vec<Tensor>> = graph
            .inputs
            .iter()
            .zip(given)
            .map(|(id, bytes)| Tensor::from_bytes(graph.value(*id).dtype, graph.value(*id).shape.clone(), bytes))
            .collect();
        let tensors = tensors.ok_or("the case's inputs are not the model's")?;
        let outputs = eval::evaluate(&graph, &tensors).map_err(|e| format!("evaluator: {e}"))?;
        let outputs: Vec<Vec<u8>> = outputs.iter().map(Tensor::to_bytes).collect();
        judge(index, &outputs).map_err(|e| format!("evaluator, vector {index}, {e}"))?;
    }
    for level in [Level::Scalar, Level::best()] {
        for (index, given) in inputs.iter().enumerate() {
            let outputs = execute(artifacts, contract, level, given)?;
            judge(index, &outputs).map_err(|e| format!("kernels ({level:?}), vector {index}, {e}"))?;
        }
    }
    Ok(())
}

/// Runs a plan as the guest would, in an arena full of rubbish.
fn execute(artifacts: &Artifacts, contract: &Contract, level: Level, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
    let plan = Plan::parse(&artifacts.plan).map_err(|e| e.to_string())?;
    let entry = plan.entries().next().ok_or("the plan has no entry")?;
    let (mut arena, weights) = (Room::new(plan.arena_bytes()), Room::of(&artifacts.weights));
    if weights.bytes < plan.weights_bytes() as usize {
        return Err("the plan asks for more weights than there are".to_owned());
    }
    for (tensor, bytes) in entry.inputs().zip(inputs) {
        let end = tensor.at as usize + bytes.len();
        arena.bytes_mut().get_mut(tensor.at as usize..end).ok_or("an input is too long")?.copy_from_slice(bytes);
    }
    let memory = Memory { arena: arena.words.as_mut_ptr().cast(), weights: weights.words.as_ptr().cast() };
    // SAFETY: a parsed plan's steps stay inside arena and weights of the sizes that it states.
    unsafe { ballast_kernels::run(level, &plan, entry.items(), &memory) };
    let output = |(spec, tensor): (&TensorSpec, ballast_plan::Tensor<'_>)| {
        let bytes =
            spec.bytes().filter(|bytes| tensor.bytes() == Some(*bytes)).ok_or("an output has another length")?;
        let found = arena.bytes_mut().get(tensor.at as usize..tensor.at as usize + bytes as usize);
        Ok(found.ok_or("an output lies outside the arena")?.to_vec())
    };
    contract.outputs.iter().zip(entry.outputs()).map(output).collect()
}

/// Memory as aligned as kernels want it.
struct Room {
    words: Vec<Line>,
    bytes: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Room {
    fn new(bytes: u32) -> Self {
        let bytes = bytes as usize;
        Self { words: vec![Line([0xff; 64]); bytes.div_ceil(64)], bytes }
    }

    fn of(content: &[u8]) -> Self {
        let words = content.chunks(64).map(|chunk| {
            let mut line = Line([0; 64]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        });
        Self { words: words.collect(), bytes: content.len() }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: lines are bytes without gaps, and there are as many.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.bytes) }
    }
}
