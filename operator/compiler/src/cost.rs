//! How much work a graph is: for the verdict, and for bounds on what is evaluated at compile time.

use crate::ir::{Graph, Op};

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
        // A sort of each row.
        Op::TopK { .. } => input.saturating_mul(16),
        Op::Resample { taps, .. } => size(output).saturating_mul(*taps as u64),
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast => size(output),
        Op::Reshape
        | Op::Transpose { .. }
        | Op::Expand
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. } => 0,
    }
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

/// Adds the graph up.
pub fn cost(graph: &Graph) -> Cost {
    let bytes = |id: &crate::ir::ValueId| (graph.value(*id).len() * graph.value(*id).dtype.size()) as u64;
    let mut cost = Cost::default();
    for node in &graph.nodes {
        let inputs: Vec<&[usize]> = node.inputs.iter().map(|id| &graph.value(*id).shape[..]).collect();
        let output = &graph.value(node.outputs[0]).shape;
        let work = multiply_adds(&node.op, &inputs, output);
        let each = match node.op {
            Op::Conv { .. } | Op::MatMul => 2,
            _ => 1,
        };
        cost.flop = cost.flop.saturating_add(work.saturating_mul(each));
        if node.op != Op::Reshape {
            cost.bytes += node.inputs.iter().chain(&node.outputs).map(bytes).sum::<u64>();
        }
    }
    cost.weights =
        graph.values.iter().filter(|v| v.constant.is_some()).map(|v| (v.len() * v.dtype.size()) as u64).sum();
    cost
}
