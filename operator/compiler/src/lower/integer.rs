//! Exact products of bytes: what of a graph one of their steps does.
//!
//! The importer writes them as primitives: `Cast` of bytes to I32, `Sub` of a zero point, `MatMul` or `Conv` in I32, a bias, and
//! `Cast`, `Mul`, `Round`, `Add`, `Max`, `Min`, `Cast` back to bytes. All of this is one step, with the same answers bit for bit:
//! each of these operations is exact or rounded once, here and there.

use std::sync::Arc;

use crate::ir::{BinaryOp, DType, Graph, Node, Op, Tensor, UnaryOp, ValueId};

use super::fuse::{Fusion, channels};
use super::program::scalar;

/// A product or convolution of bytes with what follows it.
#[derive(Debug, Clone)]
pub(super) struct Integer {
    /// The node.
    pub(super) node: usize,
    /// Both operands.
    pub(super) sides: [Side; 2],
    /// What is added to each channel.
    pub(super) bias: Option<Vec<i32>>,
    /// What is made of the sums.
    pub(super) after: After,
    /// The final result.
    pub(super) output: ValueId,
}

/// An operand.
#[derive(Debug, Clone)]
pub(super) enum Side {
    /// Weights: I32, each within 16 bits.
    Known(Arc<Tensor>),
    /// Bytes and what is taken off them.
    Bytes { value: ValueId, zero: Zero },
}

/// A zero point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Zero {
    Known(i64),
    /// One byte, known when the model runs.
    Value(ValueId),
}

/// What is made of exact sums.
#[derive(Debug, Clone, Default)]
pub(super) enum After {
    /// Nothing: I32.
    #[default]
    Sums,
    /// f32, times a factor of each channel.
    Floats(Vec<f32>),
    /// Bytes: times a factor of each channel, rounded, moved, held.
    Bytes { dtype: DType, factors: Vec<f32>, zero: i32, low: i32, high: i32 },
}

/// Type, zero point, smallest and largest result.
type Ends = (DType, i32, i32, i32);

/// Which channel axis the constants behind a product are read along.
pub(super) fn axis(graph: &Graph, node: &Node) -> Option<usize> {
    let rank = graph.value(*node.outputs.first()?).shape.len();
    match node.op {
        Op::Conv { .. } => Some(1),
        Op::MatMul if graph.value(*node.inputs.first()?).constant.is_some() => rank.checked_sub(2),
        Op::MatMul => rank.checked_sub(1),
        _ => None,
    }
}

impl Fusion<'_> {
    /// The product of bytes that a node is. Everything that it takes in is noted in `absorbed`, what its operands are made by in
    /// `before`: those nodes are needed only by who else reads them.
    pub(super) fn integer(&self, index: usize, absorbed: &mut [bool], before: &mut Vec<usize>) -> Option<Integer> {
        let (graph, node) = (self.graph, self.graph.nodes.get(index)?);
        let axis = axis(graph, node)?;
        let out = *node.outputs.first()?;
        if graph.value(out).dtype != DType::I32 {
            return None;
        }
        let mut walked = Vec::new();
        let sides = [self.side(node.inputs[0], &mut walked)?, self.side(node.inputs[1], &mut walked)?];
        if sides.iter().all(|side| matches!(side, Side::Known(_))) {
            return None;
        }
        if !self.has_step(node, &sides) {
            return None;
        }
        let bias = match node.inputs.get(2) {
            Some(bias) => Some(whole(graph.value(*bias).constant.as_deref()?)?),
            None => None,
        };
        before.extend(walked);
        let mut integer = Integer { node: index, sides, bias, after: After::Sums, output: out };
        absorbed[index] = true;
        self.follow(&mut integer, axis, absorbed);
        Some(integer)
    }

    /// Whether the steps for bytes take this form; what they do not take goes the general way.
    fn has_step(&self, node: &Node, sides: &[Side; 2]) -> bool {
        if matches!(node.op, Op::Conv { .. }) {
            return matches!(sides, [Side::Bytes { .. }, Side::Known(_)]);
        }
        let matrices = |id: &ValueId| self.graph.value(*id).shape.iter().rev().skip(2).product::<usize>();
        let batch = node.outputs.first().map_or(1, matrices);
        // Weights are one matrix; of bytes there is one, or one for each product.
        node.inputs.iter().zip(sides).all(|(id, side)| match (side, matrices(id)) {
            (_, 1) => true,
            (Side::Known(_), _) => false,
            (Side::Bytes { .. }, many) => many == batch,
        })
    }

    /// An operand: weights, or bytes that were widened.
    fn side(&self, id: ValueId, walked: &mut Vec<usize>) -> Option<Side> {
        let graph = self.graph;
        if let Some(tensor) = &graph.value(id).constant {
            let fits = tensor.ints().iter().all(|v| i16::try_from(*v).is_ok());
            return fits.then(|| Side::Known(tensor.clone()));
        }
        let (mut id, mut zero) = (id, Zero::Known(0));
        loop {
            let at = self.producer[id.index()]?;
            let node = &graph.nodes[at];
            let from = *node.inputs.first()?;
            match node.op {
                Op::Reshape => {}
                Op::Binary(BinaryOp::Sub) if matches!(zero, Zero::Known(0)) => {
                    zero = self.zero(*node.inputs.get(1)?, walked)?;
                    // A zero point does not widen what it is taken off.
                    if graph.value(from).shape != graph.value(id).shape {
                        return None;
                    }
                }
                Op::Cast => {
                    let dtype = graph.value(from).dtype;
                    let fits = match zero {
                        Zero::Known(zero) => crate::eval::wrap(dtype, zero) == zero,
                        Zero::Value(value) => graph.value(value).dtype == dtype,
                    };
                    walked.push(at);
                    let bytes = matches!(dtype, DType::U8 | DType::I8);
                    return (bytes && fits).then_some(Side::Bytes { value: from, zero });
                }
                _ => return None,
            }
            walked.push(at);
            id = from;
        }
    }

    /// One zero point, constant or the cast of a byte.
    fn zero(&self, id: ValueId, walked: &mut Vec<usize>) -> Option<Zero> {
        let value = self.graph.value(id);
        if let Some(tensor) = &value.constant {
            let &[zero] = tensor.ints() else { return None };
            return Some(Zero::Known(zero));
        }
        let mut id = id;
        while matches!(self.graph.value(id).dtype, DType::I32) {
            let at = self.producer[id.index()]?;
            let node = &self.graph.nodes[at];
            if !matches!(node.op, Op::Cast | Op::Reshape) {
                return None;
            }
            walked.push(at);
            id = *node.inputs.first()?;
        }
        let value = self.graph.value(id);
        (value.len() == 1 && matches!(value.dtype, DType::U8 | DType::I8)).then_some(Zero::Value(id))
    }

    /// The only node that reads a value, when nothing else needs it.
    fn only_user(&self, id: ValueId) -> Option<usize> {
        match self.users[id.index()].as_slice() {
            &[next] if !self.is_output(id) => Some(next),
            _ => None,
        }
    }

    /// Takes in what follows, as far as the step can do it.
    fn follow(&self, integer: &mut Integer, axis: usize, absorbed: &mut [bool]) {
        while let Some(next) = self.shifted(integer, axis) {
            absorbed[next] = true;
            integer.output = self.graph.nodes[next].outputs[0];
        }
        let Some((mut taken, factors)) = self.scaled(integer.output, axis) else { return };
        let Some(&last) = taken.last() else { return };
        let scaled = self.graph.nodes[last].outputs[0];
        let end = if let Some((more, end)) = self.requantized(scaled) {
            taken.extend(more);
            let (dtype, zero, low, high) = end;
            After::Bytes { dtype, factors, zero, low, high }
        } else {
            After::Floats(factors)
        };
        integer.after = end;
        for &at in &taken {
            absorbed[at] = true;
            integer.output = self.graph.nodes[at].outputs[0];
        }
    }

    /// A bias, or a reshape that keeps image and channel.
    fn shifted(&self, integer: &mut Integer, axis: usize) -> Option<usize> {
        let graph = self.graph;
        let next = self.only_user(integer.output)?;
        let (node, shape) = (&graph.nodes[next], &graph.value(integer.output).shape);
        let to = &graph.value(*node.outputs.first()?).shape;
        match node.op {
            Op::Reshape if axis == 1 && shape.len() == 4 && to.len() >= 2 && to[..2] == shape[..2] => Some(next),
            Op::Binary(BinaryOp::Add) => {
                let &[a, b] = node.inputs.as_slice() else { return None };
                let constant = if a == integer.output { b } else { a };
                let tensor = graph.value(constant).constant.as_deref()?;
                let rows = *shape.get(axis)?;
                let values = whole(tensor)?;
                let along = |(d, &extent): (usize, &usize)| {
                    let missing = shape.len() - tensor.shape.len().min(shape.len());
                    extent == if d + missing == axis { rows } else { 1 }
                };
                let values = match values.as_slice() {
                    [one] => vec![*one; rows],
                    _ if values.len() == rows && tensor.shape.iter().enumerate().all(along) => values,
                    _ => return None,
                };
                if to != shape {
                    return None;
                }
                let bias = integer.bias.get_or_insert_with(|| vec![0; rows]);
                bias.iter_mut().zip(values).for_each(|(b, v)| *b = b.wrapping_add(v));
                Some(next)
            }
            _ => None,
        }
    }

    /// `Cast` to f32 and `Mul` by a constant of each channel.
    fn scaled(&self, id: ValueId, axis: usize) -> Option<(Vec<usize>, Vec<f32>)> {
        let graph = self.graph;
        let cast = self.only_user(id)?;
        let float = *graph.nodes[cast].outputs.first()?;
        if graph.nodes[cast].op != Op::Cast || graph.value(float).dtype != DType::F32 {
            return None;
        }
        let mul = self.only_user(float)?;
        let node = &graph.nodes[mul];
        let (Op::Binary(BinaryOp::Mul), &[a, b]) = (&node.op, node.inputs.as_slice()) else { return None };
        let shape = &graph.value(float).shape;
        if a == b || graph.value(*node.outputs.first()?).shape != *shape {
            return None;
        }
        let factors = channels(graph, if a == float { b } else { a }, shape, axis)?;
        Some((vec![cast, mul], factors))
    }

    /// `Round`, `Add`, `Max`, `Min` with constants, and `Cast` to bytes: type, zero point and bounds.
    fn requantized(&self, id: ValueId) -> Option<(Vec<usize>, Ends)> {
        let graph = self.graph;
        let mut taken = vec![self.only_user(id)?];
        let round = &graph.nodes[taken[0]];
        if round.op != Op::Unary(UnaryOp::Round) {
            return None;
        }
        let mut id = *round.outputs.first()?;
        let (mut zero, mut low, mut high) = (0i32, i32::MIN, i32::MAX);
        let mut bounded = false;
        loop {
            let next = self.only_user(id)?;
            let node = &graph.nodes[next];
            let out = *node.outputs.first()?;
            taken.push(next);
            let number = || {
                let &[a, b] = node.inputs.as_slice() else { return None };
                let x = scalar(graph, if a == id { b } else { a })?;
                (x.fract() == 0.0 && x.abs() <= 65536.0 && graph.value(out).shape == graph.value(id).shape)
                    .then_some(x as i32)
            };
            match &node.op {
                Op::Binary(BinaryOp::Add) if !bounded && zero == 0 => zero = number()?,
                Op::Binary(BinaryOp::Max) => (bounded, low) = (true, low.max(number()?)),
                // The lower bound is applied first; a higher one below it would win.
                Op::Binary(BinaryOp::Min) => (bounded, high) = (true, high.min(number()?)),
                Op::Cast => {
                    let dtype = graph.value(out).dtype;
                    let (first, last) = match dtype {
                        DType::U8 => (0, 255),
                        DType::I8 => (-128, 127),
                        _ => return None,
                    };
                    let (low, high) = (low.max(first), high.min(last));
                    let sound = low <= high && (first..=last).contains(&zero);
                    return sound.then_some((taken, (dtype, zero, low, high)));
                }
                _ => return None,
            }
            id = out;
        }
    }
}

/// Constants as 32-bit integers.
fn whole(tensor: &Tensor) -> Option<Vec<i32>> {
    (tensor.dtype == DType::I32).then(|| tensor.ints().iter().map(|v| *v as i32).collect())
}
