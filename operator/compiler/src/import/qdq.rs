//! Models in QDQ form: DequantizeLinear, an f32 operation, QuantizeLinear.
//!
//! The builder remembers what was dequantised, through everything that only moves elements. Where a QuantizeLinear then finds, in
//! front of it,
//! - what was dequantised with the very same scale and zero point: it is the bytes that were there before;
//! - a product or convolution of two dequantised operands, with a bias dequantised from I32 with the scale that the sums have, and
//!   bounds: it is that product in integers, requantised as QLinearConv is;
//! - an average of a dequantised tensor: the sum of its integers, which is exact, times the quotient of the scales;
//! - element-wise operations on one dequantised tensor and constants: it is a table of 256 bytes.
//!
//! All else is computed in f32 as it is written. A table is what the graph says, bit for bit. A product in integers is more exact
//! than the graph's f32 and differs by at most one step where that would have rounded the other way; it is also what ONNX
//! Runtime makes of the same graph. The f32 nodes that nobody else reads are pruned with the rest.

use std::collections::BTreeMap;

use crate::eval;
use crate::ir::{BinaryOp, DType, Op, PoolKind, ReduceKind, Tensor, ValueId};
use crate::shape::Typed;

use super::build::{Builder, Result};
use super::ops::quantize::{is_zero, range, round_within};

/// Most element-wise operations of a table.
const MAX_CHAIN: usize = 64;

/// Where an f32 value comes from: `(bytes − zero) · scale`. Scale and zero point are constants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dequantized {
    /// U8, I8 or I32.
    pub(crate) bytes: ValueId,
    pub(crate) scale: ValueId,
    pub(crate) zero: Option<ValueId>,
    /// Along which dimension there is one scale for each index; none: one for all.
    pub(crate) axis: Option<usize>,
}

/// What a QuantizeLinear gives: one scale for all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) scale: ValueId,
    pub(crate) zero: Option<ValueId>,
    pub(crate) dtype: DType,
}

/// Two zero points that are the same number; none is 0.
fn same_zero(b: &Builder, x: Option<ValueId>, y: Option<ValueId>) -> bool {
    let of = |zero: Option<ValueId>| match zero {
        None => Some(0),
        Some(zero) => b.known(zero).and_then(|t| t.ints().first().copied()),
    };
    of(x).is_some() && of(x) == of(y)
}

fn number(b: &Builder, scale: ValueId) -> Option<f32> {
    match b.known(scale)?.floats() {
        &[x] => Some(x),
        _ => None,
    }
}

impl Builder {
    /// Notes what a DequantizeLinear made.
    pub(crate) fn note_dequantized(&mut self, y: ValueId, from: Dequantized) {
        let known = self.known(from.scale).is_some() && from.zero.is_none_or(|zero| self.known(zero).is_some());
        if known && matches!(self.dtype(from.bytes), DType::U8 | DType::I8 | DType::I32) {
            self.dequantized.insert(y, from);
        }
    }

    /// Carries the note over to the result of a move, by moving the bytes the same way: what nobody reads of it is pruned.
    pub(crate) fn carry_dequantized(
        &mut self,
        op: &Op,
        inputs: &[ValueId],
        outputs: &[ValueId],
        wanted: Option<&Typed>,
    ) {
        let (Some(&first), &[y]) = (inputs.first(), outputs) else { return };
        let Some(&from) = self.dequantized.get(&first) else { return };
        if self.dequantized.contains_key(&y) {
            return;
        }
        let shapes = (self.shape(first).to_vec(), self.shape(y).to_vec());
        let axis = match (op, from.axis) {
            (Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::Expand | Op::Concat { .. }, None) => None,
            (Op::Transpose { perm }, Some(axis)) => perm.iter().position(|p| *p == axis),
            (Op::Reshape, Some(axis)) if shapes.0.get(..=axis) == shapes.1.get(..=axis) => Some(axis),
            _ => return,
        };
        let mut bytes = Vec::with_capacity(inputs.len());
        for input in inputs {
            let Some(other) = self.dequantized.get(input).copied() else { return };
            let same = number(self, other.scale) == number(self, from.scale) && same_zero(self, other.zero, from.zero);
            let like = self.dtype(other.bytes) == self.dtype(from.bytes);
            if *input != first && !(same && like && other.axis.is_none()) {
                return;
            }
            bytes.push(other.bytes);
        }
        let wanted = wanted.map(|(_, shape)| (self.dtype(from.bytes), shape.clone()));
        if let Ok(moved) = self.one(op.clone(), &bytes, wanted) {
            self.dequantized.insert(y, Dequantized { bytes: moved, axis, ..from });
        }
    }

    /// What makes a value: operation and operands.
    fn maker(&self, id: ValueId) -> Option<(Op, Vec<ValueId>)> {
        let node = self.graph.nodes.iter().rev().find(|n| n.outputs.contains(&id))?;
        Some((node.op.clone(), node.inputs.clone()))
    }

    /// `x` quantised without going through f32, where that is possible.
    pub(crate) fn requantize_dequantized(&mut self, x: ValueId, to: Target) -> Result<Option<ValueId>> {
        if self.dequantized.is_empty() || !matches!(to.dtype, DType::U8 | DType::I8) {
            return Ok(None);
        }
        // A scale below 0 would turn bounds round.
        if !number(self, to.scale).is_some_and(|scale| scale > 0.0)
            || to.zero.is_some_and(|zero| self.known(zero).is_none())
        {
            return Ok(None);
        }
        if let Some(from) = self.dequantized.get(&x).copied()
            && from.axis.is_none()
            && self.dtype(from.bytes) == to.dtype
            && number(self, from.scale) == number(self, to.scale)
            && same_zero(self, from.zero, to.zero)
        {
            return Ok(Some(from.bytes));
        }
        if let Some(y) = self.integer_product(x, to)? {
            return Ok(Some(y));
        }
        match self.integer_mean(x, to)? {
            Some(y) => Ok(Some(y)),
            None => self.table(x, to),
        }
    }

    /// An average of what was dequantised: the integers' sums are exact in f32, their order does not matter, and a tie is one.
    fn integer_mean(&mut self, x: ValueId, to: Target) -> Result<Option<ValueId>> {
        let mut id = x;
        let (op, inputs) = loop {
            match self.maker(id) {
                Some((Op::Reshape, inputs)) => id = inputs[0],
                Some(found) => break found,
                None => return Ok(None),
            }
        };
        let mean = match &op {
            Op::Reduce { kind: ReduceKind::Mean, axes } => {
                let shape = self.shape(inputs[0]);
                Some(axes.iter().map(|d| shape[*d]).product::<usize>())
            }
            Op::Pool { kind: PoolKind::Mean | PoolKind::MeanPadded, .. } => None,
            _ => return Ok(None),
        };
        let Some(from) = self.dequantized.get(&inputs[0]).copied() else { return Ok(None) };
        if from.axis.is_some() || !matches!(self.dtype(from.bytes), DType::U8 | DType::I8) {
            return Ok(None);
        }
        let whole = self.cast(from.bytes, DType::F32)?;
        let whole = match from.zero {
            Some(zero) => {
                let zero = self.cast(zero, DType::F32)?;
                let zero = self.reshape(zero, Vec::new())?;
                self.binary(BinaryOp::Sub, whole, zero)?
            }
            None => whole,
        };
        let [from_scale, to_scale] = [self.reshape(from.scale, Vec::new())?, self.reshape(to.scale, Vec::new())?];
        // As QLinearAveragePool and QLinearGlobalAveragePool have it.
        let (op, divisor) = match (op, mean) {
            (Op::Reduce { axes, .. }, Some(count)) => {
                let divisor = self.with(BinaryOp::Mul, to_scale, count as f64)?;
                (Op::Reduce { kind: ReduceKind::Sum, axes }, divisor)
            }
            (op, _) => (op, to_scale),
        };
        let factor = self.binary(BinaryOp::Div, from_scale, divisor)?;
        let wanted = (DType::F32, self.shape(id).to_vec());
        let y = self.one(op, &[whole], Some(wanted))?;
        let y = self.binary(BinaryOp::Mul, y, factor)?;
        let y = self.round_between(y, to, [f32::NEG_INFINITY, f32::INFINITY])?;
        let shape = self.shape(x).to_vec();
        Ok(Some(self.reshape(y, shape)?))
    }

    /// A product or convolution with bias and bounds, in integers.
    fn integer_product(&mut self, x: ValueId, to: Target) -> Result<Option<ValueId>> {
        let (mut low, mut high) = (f32::NEG_INFINITY, f32::INFINITY);
        let (mut id, mut bias) = (x, None);
        let (op, inputs) = loop {
            let Some((op, inputs)) = self.maker(id) else { return Ok(None) };
            let side = |i: usize| inputs.get(i).and_then(|id| number(self, *id));
            match (&op, side(0), side(1)) {
                (Op::Binary(BinaryOp::Max), a, b) if bias.is_none() && a.or(b).is_some() => {
                    let Some(c) = a.or(b) else { return Ok(None) };
                    (low, high) = (low.max(c), high.max(c));
                    id = if a.is_some() { inputs[1] } else { inputs[0] };
                }
                (Op::Binary(BinaryOp::Min), a, b) if bias.is_none() && a.or(b).is_some() => {
                    let Some(c) = a.or(b) else { return Ok(None) };
                    high = high.min(c);
                    id = if a.is_some() { inputs[1] } else { inputs[0] };
                }
                (Op::Binary(BinaryOp::Add), ..) if bias.is_none() => {
                    let Some(which) = inputs.iter().position(|i| self.sums_bias(*i)) else { return Ok(None) };
                    bias = self.dequantized.get(&inputs[which]).copied();
                    id = inputs[1 - which];
                }
                (Op::Reshape, ..) => id = inputs[0],
                (Op::Conv { .. } | Op::MatMul, ..) => break (op, inputs),
                _ => return Ok(None),
            }
        };
        let (Some(left), Some(right)) = (self.dequantized.get(&inputs[0]), self.dequantized.get(&inputs[1])) else {
            return Ok(None);
        };
        let (left, right) = (*left, *right);
        let is_conv = matches!(op, Op::Conv { .. });
        if let Some(of_conv) = inputs.get(2) {
            let Some(found) = self.dequantized.get(of_conv).filter(|_| bias.is_none() && self.sums_bias(*of_conv))
            else {
                return Ok(None);
            };
            bias = Some(*found);
        }
        // The channels: output planes, or columns.
        let rank = self.rank(right.bytes);
        let channel = if is_conv { 0 } else { rank - 1 };
        let small = [left.bytes, right.bytes].iter().all(|id| matches!(self.dtype(*id), DType::U8 | DType::I8));
        if left.axis.is_some() || right.axis.is_some_and(|axis| axis != channel) || !small {
            return Ok(None);
        }
        let left_scale = self.reshape(left.scale, Vec::new())?;
        let product_scale = self.binary(BinaryOp::Mul, left_scale, right.scale)?;
        if bias.is_some_and(|bias| !self.same_scales(bias.scale, product_scale)) {
            return Ok(None);
        }
        let a = self.centred(left, None)?;
        let b = self.centred(right, right.axis)?;
        let bias = bias.map(|bias| bias.bytes);
        let sum = match bias {
            Some(bias) if is_conv => self.one(op, &[a, b, bias], None)?,
            Some(bias) => {
                let sum = self.one(op, &[a, b], None)?;
                self.binary(BinaryOp::Add, sum, bias)?
            }
            None => self.one(op, &[a, b], None)?,
        };
        // As QLinearConv has it: scale_a · scale_b ÷ scale_y, in this order.
        let factor = self.binary(BinaryOp::Div, product_scale, to.scale)?;
        let factor = match right.axis {
            None => self.reshape(factor, Vec::new())?,
            Some(_) => {
                let rank = self.rank(sum);
                self.along(factor, if is_conv { 1 } else { rank - 1 }, rank)?
            }
        };
        let y = self.cast(sum, DType::F32)?;
        let y = self.binary(BinaryOp::Mul, y, factor)?;
        let y = self.round_between(y, to, [low, high])?;
        let shape = self.shape(x).to_vec();
        Ok(Some(self.reshape(y, shape)?))
    }

    /// A bias that was dequantised from I32 without a zero point.
    fn sums_bias(&self, id: ValueId) -> bool {
        self.dequantized.get(&id).is_some_and(|from| {
            self.dtype(from.bytes) == DType::I32 && from.zero.is_none_or(|zero| is_zero(self, zero))
        })
    }

    /// Equal but for the last digits, in number too or one for all.
    fn same_scales(&self, a: ValueId, b: ValueId) -> bool {
        let (Some(a), Some(b)) = (self.known(a), self.known(b)) else { return false };
        let (a, b) = (a.floats(), b.floats());
        let count = a.len().max(b.len());
        let at = |s: &[f32], i: usize| s.get(if s.len() == 1 { 0 } else { i }).copied().unwrap_or(f32::NAN);
        (0..count).all(|i| (at(a, i) - at(b, i)).abs() <= 1e-5 * at(b, i).abs())
    }

    /// `bytes − zero` in I32.
    fn centred(&mut self, from: Dequantized, axis: Option<usize>) -> Result<ValueId> {
        let wide = self.cast(from.bytes, DType::I32)?;
        let Some(zero) = from.zero.filter(|zero| !is_zero(self, *zero)) else { return Ok(wide) };
        let rank = self.rank(from.bytes);
        let zero = match axis {
            Some(axis) if self.shape(zero).iter().product::<usize>() > 1 => self.along(zero, axis, rank)?,
            _ => self.reshape(zero, Vec::new())?,
        };
        let zero = self.cast(zero, DType::I32)?;
        self.binary(BinaryOp::Sub, wide, zero)
    }

    /// Rounds what is divided by the scale already, between bounds of what it was before: quantising keeps the order, so a bound of
    /// the f32 value is one of the bytes.
    fn round_between(&mut self, x: ValueId, to: Target, bounds: [f32; 2]) -> Result<ValueId> {
        let (first, last) = range(to.dtype)?;
        let shift = to.zero.and_then(|zero| self.known(zero)).and_then(|t| t.ints().first().copied()).unwrap_or(0);
        let scale = number(self, to.scale).unwrap_or(1.0);
        // As the graph's QuantizeLinear would; infinite bounds become the ends of the type. A NaN holds nothing.
        let byte = |bound: f32| (f64::from((bound / scale).round_ties_even()) + shift as f64).clamp(first, last);
        let [low, high] = bounds.map(byte);
        let (low, high) = (if low.is_nan() { first } else { low }, if high.is_nan() { last } else { high });
        let zero = match to.zero {
            Some(zero) => Some(self.reshape(zero, Vec::new())?),
            None => None,
        };
        round_within(self, x, zero, to.dtype, (low, high))
    }

    /// Element-wise operations on one dequantised tensor, as a table.
    fn table(&mut self, x: ValueId, to: Target) -> Result<Option<ValueId>> {
        let mut chain = Vec::new();
        let Some(source) = self.only_source(x, &mut chain) else { return Ok(None) };
        let Some(from) = self.dequantized.get(&source).copied() else { return Ok(None) };
        let like = self.dtype(from.bytes);
        if from.axis.is_some() || !matches!(like, DType::U8 | DType::I8) || self.shape(source) != self.shape(x) {
            return Ok(None);
        }
        // In the order in which an index finds them: of signed bytes, those below zero count from the end.
        let all = (0..256).map(|i| eval::wrap(like, i)).collect();
        let all = self.constant(Tensor::int(like, vec![256], all));
        let wide = self.cast(all, DType::F32)?;
        let wide = match from.zero {
            Some(zero) => {
                let zero = self.cast(zero, DType::F32)?;
                let zero = self.reshape(zero, Vec::new())?;
                self.binary(BinaryOp::Sub, wide, zero)?
            }
            None => wide,
        };
        let scale = self.reshape(from.scale, Vec::new())?;
        let start = self.binary(BinaryOp::Mul, wide, scale)?;
        let mut made = BTreeMap::from([(source, start)]);
        for (id, op, inputs) in chain {
            let mut operands = Vec::new();
            for input in inputs {
                operands.push(match made.get(&input) {
                    Some(value) => *value,
                    None => self.reshape(input, Vec::new())?,
                });
            }
            let wanted = (self.dtype(id), vec![256]);
            let value = self.one(op, &operands, Some(wanted))?;
            made.insert(id, value);
        }
        let Some(&y) = made.get(&x) else { return Ok(None) };
        let scale = self.reshape(to.scale, Vec::new())?;
        let y = self.binary(BinaryOp::Div, y, scale)?;
        let table = self.round_between(y, to, [f32::NEG_INFINITY, f32::INFINITY])?;
        if self.known(table).is_none() {
            return Ok(None);
        }
        let index = self.cast(from.bytes, DType::I32)?;
        Ok(Some(self.one(Op::Gather { axis: 0 }, &[table, index], None)?))
    }

    /// The only tensor that an element-wise chain depends on, all other operands being single constants; the chain in order.
    fn only_source(&self, x: ValueId, chain: &mut Vec<(ValueId, Op, Vec<ValueId>)>) -> Option<ValueId> {
        let mut source = None;
        let (mut open, mut seen) = (vec![x], std::collections::BTreeSet::new());
        let mut found: Vec<(ValueId, Op, Vec<ValueId>)> = Vec::new();
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if self.dequantized.contains_key(&id) {
                if source.is_some_and(|source| source != id) {
                    return None;
                }
                source = Some(id);
                continue;
            }
            if let Some(constant) = self.known(id) {
                if constant.len() == 1 {
                    continue;
                }
                return None;
            }
            let (op, inputs) = self.maker(id)?;
            if !matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast) || found.len() >= MAX_CHAIN {
                return None;
            }
            open.extend(&inputs);
            found.push((id, op, inputs));
        }
        // Values are numbered in the order in which they are made.
        found.sort_by_key(|(id, ..)| *id);
        *chain = found;
        source
    }
}
