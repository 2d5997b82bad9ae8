//! Steps that move elements: transposes, joins, cuts, padding, picking.

use ballast_plan::At;
use ballast_plan::record::List;
use ballast_plan::step::{Copy, DType as PlanType, Elt, Fill, Gather, MAX_DIMS, Operand};
use ballast_plan::{EltInstr, EltOp};

use crate::ir::{DType, Data, Node, PadMode, Tensor, ValueId, canonical};

use super::place::Buffer;
use super::shape::{Walk, broadcast, dense};
use super::{LowerError, Lowering, Source, plan_type, refuse};

/// A place some elements further on.
fn shifted(at: At, bytes: i64) -> At {
    let offset = (i64::from(at.offset()) + bytes).clamp(0, i64::from(i32::MAX)) as u32;
    let moved = if at.is_weights() { At::weights(offset) } else { At::arena(offset) };
    moved.unwrap_or_default()
}

/// One strided copy: extents, and for both sides the first element and the strides.
pub(super) struct Move<'a> {
    pub(super) dims: &'a [usize],
    pub(super) from: (i64, Vec<i64>),
    pub(super) to: (i64, Vec<i64>),
}

impl Lowering<'_> {
    pub(super) fn copy(
        &mut self,
        node: &Node,
        source: Source,
        out: Buffer,
        dtype: DType,
        fill: Option<Fill>,
        how: Move<'_>,
    ) -> Result<(), LowerError> {
        let walk = Walk::merged(how.dims, &[how.from.1, how.to.1]);
        let walk = walk.ok_or_else(|| refuse(node, "more than six dimensions that do not merge"))?;
        let size = dtype.size();
        let (from, to) = (how.from.0 * size as i64, how.to.0 * size as i64);
        let [input_strides, out_strides] = [walk.strides[0], walk.strides[1]];
        let step = Copy { size: size as u32, dims: walk.dims, input_strides, out_strides, ..Copy::default() };
        self.push(&[source], out, 0, move |places, _| {
            let copy = Copy { input: shifted(source.at(places), from), out: shifted(places.at(out), to), ..step };
            let fill = fill.map(|fill| Fill { out: places.at(out), ..fill }.into());
            fill.into_iter().chain([copy.into()]).collect()
        });
        Ok(())
    }

    /// One number everywhere: a copy of a constant that repeats.
    pub(super) fn fill(&mut self, out: Buffer, dtype: DType, n: usize, value: f64) {
        let one = Tensor { dtype, shape: Vec::new(), data: Data::of(dtype, &[value]) };
        let source = Source::Weights(self.weights.add(&one.to_bytes()));
        self.copy_strided(source, out, n, dtype, 0);
    }

    /// Copies `n` neighbouring elements.
    pub(super) fn copy_all(&mut self, source: Source, out: Buffer, n: usize, dtype: DType) {
        self.copy_strided(source, out, n, dtype, 1);
    }

    fn copy_strided(&mut self, source: Source, out: Buffer, n: usize, dtype: DType, stride: i32) {
        if n == 0 {
            return;
        }
        let last = |value: i32| [0, 0, 0, 0, 0, value];
        let mut dims = [1; MAX_DIMS];
        dims[MAX_DIMS - 1] = n as u32;
        let (size, input_strides, out_strides) = (dtype.size() as u32, last(stride), last(1));
        let step = Copy { size, dims, input_strides, out_strides, ..Copy::default() };
        self.push(&[source], out, 0, move |places, _| {
            vec![Copy { input: source.at(places), out: places.at(out), ..step }.into()]
        });
    }

    /// The same elements under another shape: the same place.
    pub(super) fn reshape(&mut self, node: &Node) -> Result<(), LowerError> {
        let out = self.target(node.outputs[0]);
        match self.source(node.inputs[0]) {
            Source::Buffer(buffer) => self.buffers.join(buffer, out),
            source @ Source::Weights(_) => {
                let value = self.graph.value(node.inputs[0]);
                self.copy_all(source, out, value.len(), value.dtype);
            }
        }
        Ok(())
    }

    pub(super) fn transpose(&mut self, node: &Node, perm: &[usize]) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let strides = dense(&x.shape);
        let from = perm.iter().map(|&p| strides[p]).collect();
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        self.copy(node, source, out, x.dtype, None, Move { dims: &y.shape, from: (0, from), to: (0, dense(&y.shape)) })
    }

    pub(super) fn expand(&mut self, node: &Node) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let from = broadcast(&x.shape, &y.shape);
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        self.copy(node, source, out, x.dtype, None, Move { dims: &y.shape, from: (0, from), to: (0, dense(&y.shape)) })
    }

    pub(super) fn concat(&mut self, node: &Node, axis: usize) -> Result<(), LowerError> {
        let y = self.graph.value(node.outputs[0]);
        let strides = dense(&y.shape);
        let out = self.target(node.outputs[0]);
        let mut start = 0;
        for &id in &node.inputs {
            let x = self.graph.value(id);
            if x.is_empty() {
                continue;
            }
            let source = self.source(id);
            let how = Move { dims: &x.shape, from: (0, dense(&x.shape)), to: (start * strides[axis], strides.clone()) };
            self.copy(node, source, out, x.dtype, None, how)?;
            start += x.shape[axis] as i64;
        }
        Ok(())
    }

    pub(super) fn slice(&mut self, node: &Node, starts: &[usize], steps: &[isize]) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let strides = dense(&x.shape);
        let first = starts.iter().zip(&strides).map(|(&s, &by)| s as i64 * by).sum();
        let from = steps.iter().zip(&strides).map(|(&s, &by)| s as i64 * by).collect();
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        self.copy(
            node,
            source,
            out,
            x.dtype,
            None,
            Move { dims: &y.shape, from: (first, from), to: (0, dense(&y.shape)) },
        )
    }

    pub(super) fn pad(&mut self, node: &Node, before: &[isize], mode: &PadMode) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let value = match *mode {
            PadMode::Constant(value) => value,
            PadMode::Reflect | PadMode::Edge | PadMode::Wrap => return self.pad_from_inside(node, before, mode),
        };
        let word = match x.dtype {
            DType::F32 => Some(canonical(value as f32).to_bits()),
            DType::Bool | DType::U8 | DType::I8 => Some(u32::from_le_bytes([value as i64 as u8; 4])),
            DType::U16 | DType::I16 => Some(u32::from(value as i64 as u16) * 0x1_0001),
            DType::U32 | DType::I32 => Some(value as i64 as u32),
            DType::I64 | DType::U64 | DType::F64 if value == 0.0 && value.is_sign_positive() => Some(0),
            DType::I64 | DType::U64 | DType::F64 | DType::F16 | DType::BF16 => None,
        };
        let (from, to) = (dense(&x.shape), dense(&y.shape));
        let (mut dims, mut first, mut at) = (Vec::new(), 0, 0);
        for (d, &lead) in before.iter().enumerate() {
            // Input indices that stay: those whose output index lies inside.
            let start = (-lead).max(0) as i64;
            let end = (x.shape[d] as i64).min(y.shape[d] as i64 - lead as i64);
            // Nothing of the input is left.
            if end <= start {
                let out = self.target(node.outputs[0]);
                self.fill(out, x.dtype, y.len(), value);
                return Ok(());
            }
            dims.push((end - start) as usize);
            first += start * from[d];
            at += (start + lead as i64) * to[d];
        }
        let words = (y.len() * x.dtype.size()).div_ceil(4) as u32;
        let fill = word.map(|value| Fill { words, value, ..Fill::default() });
        let (source, out) = (self.source(node.inputs[0]), self.target(node.outputs[0]));
        if fill.is_none() {
            self.fill(out, x.dtype, y.len(), value);
        }
        self.copy(node, source, out, x.dtype, fill, Move { dims: &dims, from: (first, from), to: (at, to) })
    }

    /// Mirrors, edges and wraps pick along one axis after the other.
    fn pad_from_inside(&mut self, node: &Node, before: &[isize], mode: &PadMode) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let mut shape = x.shape.clone();
        let mut source = self.source(node.inputs[0]);
        let axes: Vec<usize> = (0..shape.len()).filter(|&d| before[d] != 0 || shape[d] != y.shape[d]).collect();
        if axes.is_empty() {
            let out = self.target(node.outputs[0]);
            self.copy_all(source, out, x.len(), x.dtype);
        }
        for (i, &axis) in axes.iter().enumerate() {
            let n = shape[axis] as i64;
            let indices: Vec<i64> = (0..y.shape[axis] as i64)
                .map(|o| {
                    let at = o - before[axis] as i64;
                    match mode {
                        PadMode::Reflect if n > 1 => {
                            let period = 2 * (n - 1);
                            let at = at.rem_euclid(period);
                            at.min(period - at)
                        }
                        PadMode::Wrap => at.rem_euclid(n),
                        PadMode::Reflect | PadMode::Edge | PadMode::Constant(_) => at.clamp(0, n - 1),
                    }
                })
                .collect();
            let next = y.shape[axis];
            let bytes = shape.iter().enumerate().map(|(d, &s)| if d == axis { next } else { s }).product::<usize>()
                * x.dtype.size();
            let out = if i + 1 == axes.len() { self.target(node.outputs[0]) } else { self.buffers.add(bytes as u64) };
            let table =
                Source::Weights(self.weights.add(&indices.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()));
            self.pick(source, (table, PlanType::I64, next), &shape, axis, x.dtype.size(), out);
            shape[axis] = next;
            source = Source::Buffer(out);
        }
        Ok(())
    }

    fn pick(
        &mut self,
        source: Source,
        indices: (Source, PlanType, usize),
        shape: &[usize],
        axis: usize,
        size: usize,
        out: Buffer,
    ) {
        let (table, dtype, count) = indices;
        let step = Gather {
            outer: shape[..axis].iter().product::<usize>() as u32,
            axis: shape[axis] as u32,
            bytes: (shape[axis + 1..].iter().product::<usize>() * size) as u32,
            count: count as u32,
            dtype,
            ..Gather::default()
        };
        self.push(&[source, table], out, 0, move |places, _| {
            vec![Gather { indices: table.at(places), input: source.at(places), out: places.at(out), ..step }.into()]
        });
    }

    pub(super) fn gather(&mut self, node: &Node, axis: usize) -> Result<(), LowerError> {
        let (x, indices) = (self.graph.value(node.inputs[0]), self.graph.value(node.inputs[1]));
        let dtype = match indices.dtype {
            DType::I32 | DType::I64 => plan_type(indices.dtype),
            other => return Err(refuse(node, format!("indices of type {other}"))),
        };
        let [source, table]: [Source; 2] = [node.inputs[0], node.inputs[1]].map(|id: ValueId| self.source(id));
        let out = self.target(node.outputs[0]);
        self.pick(source, (table, dtype, indices.len()), &x.shape, axis, x.dtype.size(), out);
        Ok(())
    }

    /// Each tap is picked along the axis, then weighted and added.
    pub(super) fn resample(
        &mut self,
        node: &Node,
        axis: usize,
        taps: usize,
        indices: &[u32],
        weights: &[f32],
    ) -> Result<(), LowerError> {
        let (x, y) = (self.graph.value(node.inputs[0]), self.graph.value(node.outputs[0]));
        let source = self.source(node.inputs[0]);
        let out = self.target(node.outputs[0]);
        let count = y.shape[axis];
        let tap = |t: usize| (0..count).map(move |o| o * taps + t);
        let table = |lowering: &mut Self, t: usize| {
            let bytes: Vec<u8> = tap(t).flat_map(|i| i64::from(indices[i]).to_le_bytes()).collect();
            (Source::Weights(lowering.weights.add(&bytes)), PlanType::I64, count)
        };
        if taps == 1 && weights.iter().all(|w| *w == 1.0) {
            let table = table(self, 0);
            self.pick(source, table, &x.shape, axis, x.dtype.size(), out);
            return Ok(());
        }
        if x.dtype != DType::F32 || taps > 4 {
            return Err(refuse(node, "weights other than 1 for integers, or more than four taps"));
        }
        // y = w₀·x₀, then y = wₜ·xₜ + y.
        let mut column = vec![1; y.shape.len()];
        column[axis] = count;
        let strides = [dense(&y.shape), dense(&y.shape), broadcast(&column, &y.shape), dense(&y.shape)];
        let walk = Walk::merged(&y.shape, &strides).ok_or_else(|| refuse(node, "too many dimensions"))?;
        let operand = |at, strides| Operand { at, dtype: PlanType::F32, strides };
        for t in 0..taps {
            let picked = self.buffers.add((y.len() * 4) as u64);
            let table = table(self, t);
            self.pick(source, table, &x.shape, axis, 4, picked);
            let weight = self.weights.floats(tap(t).map(|i| weights[i]));
            let (op, inputs) = if t == 0 { (EltOp::Mul, 2) } else { (EltOp::MulAdd, 3) };
            let code = [EltInstr { op, dst: inputs, src: [0, 1, if t == 0 { 0 } else { 2 }], imm: 0.0 }];
            let program = self.builder.program(inputs as usize, inputs as usize + 1, &code);
            let step = Elt { program, dims: walk.dims, dtype: PlanType::F32, ..Elt::default() };
            let strides = walk.strides.clone();
            let mut reads = vec![Source::Buffer(picked)];
            reads.extend((t > 0).then_some(Source::Buffer(out)));
            self.push(&reads, out, 0, move |places, _| {
                let mut operands = vec![operand(places.at(picked), strides[1]), operand(weight, strides[2])];
                operands.extend((t > 0).then(|| operand(places.at(out), strides[3])));
                vec![Elt { out: places.at(out), operands: List::new(&operands).unwrap_or_default(), ..step }.into()]
            });
        }
        self.flop += 2 * (y.len() * taps) as u64;
        Ok(())
    }
}
