//! How much work a graph is: for the verdict, and for bounds on what is evaluated at compile time.

use crate::ir::{Graph, Node, Op, ValueId};

/// Multiply-adds of one operation; other work counts as one per element made or read.
pub(crate) fn multiply_adds(op: &Op, inputs: &[&[usize]], output: &[usize]) -> u64 {
    let size = |s: &[usize]| s.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
    let input = inputs.first().map_or(0, |s| size(s));
    match op {
        Op::Conv { .. } => inputs.get(1).map_or(0, |w| size(output).saturating_mul(size(&w[1..]))),
        Op::MatMul => inputs.first().and_then(|a| a.last()).map_or(0, |k| size(output).saturating_mul(*k as u64)),
        Op::Pool { window, .. } => size(output).saturating_mul((window.kernel[0] * window.kernel[1]) as u64),
        Op::Softmax { .. } => input.saturating_mul(4),
        Op::Reduce { .. } | Op::ArgReduce { .. } | Op::CumSum { .. } => input,
        // A heap of each row, from which the first are taken.
        Op::TopK { axis, .. } => {
            let len = inputs.first().and_then(|s| s.get(*axis)).copied().unwrap_or(1).max(2);
            input.saturating_mul(2).saturating_add(size(output).saturating_mul(2 * u64::from(len.ilog2())))
        }
        Op::Resample { taps, .. } => size(output).saturating_mul(*taps as u64),
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast => size(output),
        Op::NonZero => input,
        // A sort.
        Op::Unique { .. } => input.saturating_mul(64),
        // Each candidate against each that was chosen.
        Op::Suppress { limit, .. } => inputs.get(1).map_or(0, |s| size(s)).saturating_mul(*limit as u64),
        Op::Repeat(repeat) => work(&repeat.body).saturating_mul(repeat.count as u64),
        Op::Branch(branch) => work(&branch.then).max(work(&branch.otherwise)),
        Op::ScatterElements { .. } | Op::ScatterNd { .. } => inputs.get(2).map_or(0, |updates| size(updates)),
        Op::Reshape
        | Op::Transpose { .. }
        | Op::Expand
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. } => 0,
    }
}

/// Multiply-adds of a node, and one for each element that it makes: rounds of a repeat cost even where they only move.
pub(crate) fn of(graph: &Graph, node: &Node) -> u64 {
    let shape = |id: &ValueId| &graph.value(*id).shape[..];
    let inputs: Vec<&[usize]> = node.inputs.iter().map(shape).collect();
    let made: u64 = node.outputs.iter().map(|id| graph.value(*id).len() as u64).sum();
    multiply_adds(&node.op, &inputs, shape(&node.outputs[0])).saturating_add(made).saturating_add(1)
}

/// That of a whole graph.
fn work(graph: &Graph) -> u64 {
    graph.nodes.iter().map(|node| of(graph, node)).fold(1, u64::saturating_add)
}

/// Work and traffic of one inference.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations; a multiply-add is two.
    pub flop: u64,
    /// Bytes of the tensors that are read and written, weights included; reshapes are free.
    pub bytes: u64,
    /// Bytes of constants.
    pub weights: u64,
}

/// Adds the graph up; rounds of a repeat count each, of a branch the dearer side.
pub fn cost(graph: &Graph) -> Cost {
    let bytes = |id: &ValueId| (graph.value(*id).len() * graph.value(*id).dtype.size()) as u64;
    let mut total = Cost::default();
    for node in &graph.nodes {
        let inner: Vec<Cost> = node.op.bodies().into_iter().map(cost).collect();
        let rounds = if let Op::Repeat(repeat) = &node.op { repeat.count as u64 } else { 1 };
        let dearer = |part: fn(&Cost) -> u64| inner.iter().map(part).max().unwrap_or(0).saturating_mul(rounds);
        total.weights += inner.iter().map(|c| c.weights).sum::<u64>();
        total.bytes = total.bytes.saturating_add(dearer(|c| c.bytes));
        if inner.is_empty() {
            let inputs: Vec<&[usize]> = node.inputs.iter().map(|id| &graph.value(*id).shape[..]).collect();
            let work = multiply_adds(&node.op, &inputs, &graph.value(node.outputs[0]).shape);
            let each = match node.op {
                Op::Conv { .. } | Op::MatMul => 2,
                _ => 1,
            };
            total.flop = total.flop.saturating_add(work.saturating_mul(each));
        } else {
            // Rounds that only move elements take time all the same.
            total.flop = total.flop.saturating_add(dearer(|c| c.flop).max(multiply_adds(&node.op, &[], &[])));
        }
        if node.op != Op::Reshape {
            total.bytes = total.bytes.saturating_add(node.inputs.iter().chain(&node.outputs).map(bytes).sum::<u64>());
        }
    }
    total.weights +=
        graph.values.iter().filter(|v| v.constant.is_some()).map(|v| (v.len() * v.dtype.size()) as u64).sum::<u64>();
    total
}
