//! The reference evaluator: what each operation means, as plain scalar code in f32 (f64 for tensors of it) with a stated
//! order of summation.
//!
//! It folds constants, makes golden outputs, and is what plans are proved against. Results do not depend on the host: only
//! operations that IEEE 754 rounds correctly, and `libm`'s software functions for the rest.
//!
//! It evaluates what [`crate::shape`] accepted; anything else is a bug of the caller and panics.

mod bounded;
mod control;
mod elementwise;
mod moves;
mod reduce;
mod window;

pub(crate) use elementwise::{rounded, saturate};

use std::borrow::Cow;

use crate::ir::{DType, Data, Graph, Op, Tensor};

/// Why a graph was not evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The number of tensors, or the type or shape of one, is not what the graph's inputs say.
    #[error("input {index} does not fit the model")]
    Input {
        /// Which one.
        index: usize,
    },
}

/// Runs the graph on `inputs`, in the graph's order; gives its outputs.
pub fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    let fits = |i: usize, t: &Tensor| {
        graph.inputs.get(i).is_some_and(|id| {
            let value = graph.value(*id);
            value.dtype == t.dtype && value.shape == t.shape && t.len() == value.len()
        })
    };
    if let Some(index) =
        (0..inputs.len().max(graph.inputs.len())).find(|i| !inputs.get(*i).is_some_and(|t| fits(*i, t)))
    {
        return Err(EvalError::Input { index });
    }
    Ok(run(graph, &inputs.iter().collect::<Vec<_>>()))
}

/// Runs a graph whose inputs fit.
fn run(graph: &Graph, inputs: &[&Tensor]) -> Vec<Tensor> {
    // What is made is kept until its last reader ran.
    let mut readers = vec![0usize; graph.values.len()];
    for id in graph.nodes.iter().flat_map(|n| &n.inputs).chain(&graph.outputs) {
        readers[id.index()] += 1;
    }
    let mut made: Vec<Option<Cow<'_, Tensor>>> =
        graph.values.iter().map(|v| v.constant.as_deref().map(Cow::Borrowed)).collect();
    for (id, tensor) in graph.inputs.iter().zip(inputs.iter().copied()) {
        made[id.index()] = Some(Cow::Borrowed(tensor));
    }
    for node in &graph.nodes {
        let outputs = {
            let operands: Vec<&Tensor> =
                node.inputs.iter().map(|id| made[id.index()].as_deref().expect("made before it is read")).collect();
            let shapes: Vec<_> =
                node.outputs.iter().map(|id| (graph.value(*id).dtype, graph.value(*id).shape.clone())).collect();
            operation(&node.op, &operands, &shapes)
        };
        for (id, tensor) in node.outputs.iter().zip(outputs) {
            made[id.index()] = Some(Cow::Owned(tensor));
        }
        for id in &node.inputs {
            readers[id.index()] -= 1;
            if readers[id.index()] == 0 {
                made[id.index()] = None;
            }
        }
    }
    graph.outputs.iter().map(|id| made[id.index()].as_deref().expect("every output is made").clone()).collect()
}

/// Evaluates one operation whose outputs have these types and shapes.
pub fn operation(op: &Op, inputs: &[&Tensor], outputs: &[(DType, Vec<usize>)]) -> Vec<Tensor> {
    let (dtype, shape) = outputs[0].clone();
    let one = |data: Data| vec![Tensor { dtype, shape: shape.clone(), data }];
    match op {
        Op::Unary(unary) => one(elementwise::unary(*unary, inputs[0])),
        Op::Binary(binary) => one(elementwise::binary(*binary, inputs[0], inputs[1], &shape)),
        Op::Select => one(elementwise::select(inputs[0], inputs[1], inputs[2], &shape)),
        Op::Cast => one(elementwise::cast(inputs[0], dtype)),
        Op::Conv { window, groups } => {
            one(window::conv(inputs[0], inputs[1], inputs.get(2).copied(), window, *groups, &shape))
        }
        Op::MatMul => one(window::matmul(inputs[0], inputs[1], &shape)),
        Op::Pool { kind, window } => one(window::pool(inputs[0], *kind, window, &shape)),
        Op::Reduce { kind, axes } => one(reduce::reduce(inputs[0], *kind, axes)),
        Op::ArgReduce { largest, axis, last } => one(Data::Int(reduce::arg(inputs[0], *largest, *axis, *last))),
        Op::Softmax { axis, log } => one(reduce::softmax(inputs[0], *axis, *log)),
        Op::CumSum { axis, exclusive, reverse } => one(reduce::cumsum(inputs[0], *axis, *exclusive, *reverse)),
        Op::TopK { axis, largest } => {
            let (values, indices) = reduce::top_k(inputs[0], *axis, *largest, shape[*axis]);
            vec![
                Tensor { dtype, shape: shape.clone(), data: values },
                Tensor { dtype: DType::I64, shape: shape.clone(), data: Data::Int(indices) },
            ]
        }
        Op::Reshape => one(inputs[0].data.clone()),
        Op::Transpose { perm } => one(moves::transpose(inputs[0], perm, &shape)),
        Op::Expand => one(moves::expand(inputs[0], &shape)),
        Op::Concat { axis } => one(moves::concat(inputs, *axis)),
        Op::Slice { starts, steps } => one(moves::slice(inputs[0], starts, steps, &shape)),
        Op::Pad { before, mode } => one(moves::pad(inputs[0], before, *mode, &shape)),
        Op::Gather { axis } => one(moves::gather(inputs[0], inputs[1], *axis)),
        Op::GatherElements { axis } => one(moves::gather_elements(inputs[0], inputs[1], *axis)),
        Op::GatherNd { batch } => one(moves::gather_nd(inputs[0], inputs[1], *batch)),
        Op::ScatterElements { axis, combine } => {
            one(moves::scatter_elements(inputs[0], inputs[1], inputs[2], *axis, *combine))
        }
        Op::ScatterNd { combine } => one(moves::scatter_nd(inputs[0], inputs[1], inputs[2], *combine)),
        Op::Resample { axis, taps, indices, weights } => {
            one(moves::resample(inputs[0], *axis, *taps, indices, weights))
        }
        Op::NonZero => bounded::non_zero(inputs[0]),
        Op::Unique { sorted } => bounded::unique(inputs[0], *sorted),
        Op::Suppress { limit, centered, iou, score } => {
            bounded::suppress(inputs[0], inputs[1], *limit, *centered, *iou, *score)
        }
        Op::Repeat(repeat) => control::repeat(repeat, inputs, outputs),
        Op::Branch(branch) => {
            let taken = if inputs[0].ints()[0] != 0 { &branch.then } else { &branch.otherwise };
            run(taken, &inputs[1..])
        }
    }
}

/// Elements from one index to the next, per dimension.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * shape[d + 1];
    }
    strides
}

/// Wraps to the type, as two's complement does.
pub(crate) const fn wrap(dtype: DType, x: i64) -> i64 {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::I64 | DType::U64 => x,
        DType::Bool => (x != 0) as i64,
        DType::U8 => x as u8 as i64,
        DType::I8 => x as i8 as i64,
        DType::U16 => x as u16 as i64,
        DType::I16 => x as i16 as i64,
        DType::U32 => x as u32 as i64,
        DType::I32 => x as i32 as i64,
    }
}
