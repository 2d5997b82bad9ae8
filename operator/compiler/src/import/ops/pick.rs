//! Slices, padding, gathers and scatters; tensors made of index arithmetic.

use crate::ir::{BinaryOp, DType, Data, Op, PadMode, Scatter, Tensor, ValueId};

use super::super::build::{Result, invalid, unsupported};
use super::super::call::{Call, extent, resolve_axis};
use super::layout::number;

/// Most numbers that are made by counting: 128 MiB of them. A constant in the file has no such limit, it was paid for.
const MAX_NUMBERS: usize = 1 << 24;

pub(super) fn slice(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let (Some(starts), Some(ends)) = (call.ints_or_input("starts", 1)?, call.ints_or_input("ends", 2)?) else {
        return invalid("starts or ends are missing");
    };
    let axes = call.ints_or_input("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.known_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return invalid("starts, ends, axes and steps differ in length");
    }
    let (mut first, mut by, mut out) = (vec![0; shape.len()], vec![1; shape.len()], shape.clone());
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = resolve_axis(axis, shape.len())?;
        let n = shape[axis] as i64;
        let from_end = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
        // numpy's rule: held at the ends, which for negative steps are n − 1 and −1.
        let (start, count) = if step > 0 {
            let (start, end) = (from_end(start).clamp(0, n), from_end(end).clamp(0, n));
            (start, (end - start).max(0).div_ceil_by(step))
        } else if step < 0 {
            let (start, end) = (from_end(start).clamp(-1, n - 1), from_end(end).clamp(-1, n - 1));
            (start, (start - end).max(0).div_ceil_by(step.saturating_neg()))
        } else {
            return invalid("a step of 0");
        };
        first[axis] = usize::try_from(start).unwrap_or(0);
        // A step that leaves the tensor at once is never taken.
        by[axis] = step.clamp(-n.max(1), n.max(1)) as isize;
        out[axis] = count as usize;
    }
    let dtype = call.b.dtype(x);
    Ok(vec![call.b.one(Op::Slice { starts: first, steps: by }, &[x], Some((dtype, out)))?])
}

trait DivCeil {
    fn div_ceil_by(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_by(self, by: i64) -> i64 {
        self / by + i64::from(self % by != 0)
    }
}

pub(super) fn pad(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let (name, rank) = (if call.opset < 2 { "paddings" } else { "pads" }, shape.len());
    let Some(pads) = call.ints_or_input(name, 1)? else { return invalid("pads are missing") };
    let axes = match call.known_ints(3)? {
        Some(axes) => axes.into_iter().map(|a| resolve_axis(a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return invalid(format!("{} pads for {} dimensions", pads.len(), axes.len()));
    }
    let (mut before, mut out) = (vec![0isize; rank], shape.clone());
    for (i, axis) in axes.iter().enumerate() {
        let (start, end) = (pads[i], pads[i + axes.len()]);
        let total = i128::from(start) + i128::from(end) + shape[*axis] as i128;
        out[*axis] = extent(i64::try_from(total).unwrap_or(-1))?;
        before[*axis] = start as isize;
    }
    let value = match call.known(2)? {
        Some(tensor) => number(&tensor).unwrap_or(0.0),
        None => call.float("value", 0.0),
    };
    let mode = match call.text("mode", "constant").as_str() {
        "constant" => PadMode::Constant(value),
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => PadMode::Wrap,
        other => return invalid(format!("mode {other:?}")),
    };
    let dtype = call.b.dtype(x);
    Ok(vec![call.b.one(Op::Pad { before, mode }, &[x], Some((dtype, out)))?])
}

pub(super) fn gather(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(call.int("axis", 0), call.b.rank(x))?;
    Ok(vec![call.b.one(Op::Gather { axis }, &[x, indices], None)?])
}

pub(super) fn gather_elements(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(call.int("axis", 0), call.b.rank(x))?;
    Ok(vec![call.b.one(Op::GatherElements { axis }, &[x, indices], None)?])
}

pub(super) fn gather_nd(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let batch = extent(call.int("batch_dims", 0))?;
    Ok(vec![call.b.one(Op::GatherNd { batch }, &[x, indices], None)?])
}

fn combine(call: &Call<'_, '_>) -> Result<Scatter> {
    Ok(match call.text("reduction", "none").as_str() {
        "none" => Scatter::Set,
        "add" => Scatter::Add,
        "mul" => Scatter::Mul,
        "min" => Scatter::Min,
        "max" => Scatter::Max,
        other => return invalid(format!("reduction {other:?}")),
    })
}

pub(super) fn scatter_elements(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = call.axis(call.int("axis", 0), call.b.rank(x))?;
    let combine = combine(call)?;
    Ok(vec![call.b.one(Op::ScatterElements { axis, combine }, &[x, indices, updates], None)?])
}

pub(super) fn scatter_nd(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let combine = combine(call)?;
    Ok(vec![call.b.one(Op::ScatterNd { combine }, &[x, indices, updates], None)?])
}

pub(super) fn range(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (Some(start), Some(limit), Some(delta)) = (call.known(0)?, call.known(1)?, call.known(2)?) else {
        return invalid("start, limit or delta is missing");
    };
    let dtype = start.dtype;
    let [Some(a), Some(z), Some(d)] = [number(&start), number(&limit), number(&delta)] else {
        return invalid("start, limit or delta has no element");
    };
    let count = ((z - a) / d).ceil().max(0.0);
    if !count.is_finite() || count > MAX_NUMBERS as f64 {
        return invalid(format!("a range from {a} to {z} by {d}"));
    }
    let count = count as usize;
    let data = match (&start.data, &delta.data) {
        (Data::F32(s), Data::F32(d)) => Data::F32((0..count).map(|i| s[0] + i as f32 * d[0]).collect()),
        (Data::Int(s), Data::Int(d)) => {
            Data::Int((0..count).map(|i| s[0].wrapping_add((i as i64).wrapping_mul(d[0]))).collect())
        }
        _ => return invalid("start and delta differ in type"),
    };
    Ok(vec![call.b.constant(Tensor { dtype, shape: vec![count], data })])
}

pub(super) fn one_hot(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (indices, values) = (call.input(0)?, call.input(2)?);
    let depth = call.known(1)?.and_then(|t| number(&t)).unwrap_or(-1.0);
    let depth = extent(depth as i64)?;
    if depth > MAX_NUMBERS {
        return unsupported(format!("a depth of {depth}"));
    }
    let rank = call.b.rank(indices) + 1;
    let axis = call.axis(call.int("axis", -1), rank)?;
    let mut shape = call.b.shape(indices).to_vec();
    shape.insert(axis, 1);
    let b = &mut *call.b;
    let indices = b.cast(indices, DType::I64)?;
    let indices = b.reshape(indices, shape)?;
    // Below zero they count from the end.
    let negative = b.with(BinaryOp::Less, indices, 0.0)?;
    let raised = b.with(BinaryOp::Add, indices, depth as f64)?;
    let indices = b.select(negative, raised, indices)?;
    let numbers = b.constant(Tensor::int(DType::I64, vec![depth], (0..depth as i64).collect()));
    let numbers = b.along(numbers, axis, rank)?;
    let hot = b.binary(BinaryOp::Equal, indices, numbers)?;
    if b.shape(values) != [2] {
        return invalid("values need two elements");
    }
    let dtype = b.dtype(values);
    let mut pick = |i: usize| b.one(Op::Slice { starts: vec![i], steps: vec![1] }, &[values], Some((dtype, vec![1])));
    let (off, on) = (pick(0)?, pick(1)?);
    Ok(vec![b.select(hot, on, off)?])
}

/// A Boolean matrix of a condition on row and column.
fn mask(call: &mut Call<'_, '_>, rows: usize, cols: usize, f: impl Fn(i64, i64) -> bool) -> Result<ValueId> {
    if crate::shape::elements(&[rows, cols])? > MAX_NUMBERS {
        return unsupported(format!("a matrix of {rows} × {cols}"));
    }
    let elements =
        (0..rows as i64).flat_map(|r| (0..cols as i64).map(move |c| (r, c))).map(|(r, c)| i64::from(f(r, c)));
    let data = elements.collect();
    Ok(call.b.constant(Tensor::int(DType::Bool, vec![rows, cols], data)))
}

pub(super) fn trilu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let Some(&[rows, cols]) = call.b.shape(x).last_chunk::<2>() else { return invalid("a tensor without rows") };
    let k = call.known_ints(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let upper = call.flag("upper", true);
    let keep = mask(call, rows, cols, |r, c| if upper { c - r >= k } else { c - r <= k })?;
    let dtype = call.b.dtype(x);
    let zero = call.b.scalar(dtype, 0.0);
    Ok(vec![call.b.select(keep, x, zero)?])
}

pub(super) fn eye_like(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let &[rows, cols] = call.b.shape(x) else { return invalid("a tensor that is no matrix") };
    let k = call.int("k", 0);
    let dtype = match call.integer("dtype") {
        Some(code) => match super::super::tensor::dtype(code as i32) {
            Some(dtype) => dtype,
            None => return unsupported("its type"),
        },
        None => call.b.dtype(x),
    };
    let eye = mask(call, rows, cols, |r, c| c - r == k)?;
    Ok(vec![call.b.cast(eye, dtype)?])
}
