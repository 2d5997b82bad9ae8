//! Along axes.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, UnaryOp, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent, resolve_axes};

/// The axes of a reduction; `None` when it reduces nothing.
fn axes(call: &Call<'_, '_>, rank: usize) -> Result<Option<Vec<usize>>> {
    let (axes, none) = (call.ints_or_input("axes", 1)?.unwrap_or_default(), call.flag("noop_with_empty_axes", false));
    if axes.is_empty() {
        let nothing = none || rank == 0;
        return Ok(if nothing { None } else { Some((0..rank).collect()) });
    }
    resolve_axes(&axes, rank).map(Some)
}

/// Drops the reduced dimensions unless they are kept.
fn finish(call: &mut Call<'_, '_>, y: ValueId, axes: &[usize], keep: bool) -> Result<ValueId> {
    if keep {
        return Ok(y);
    }
    let shape = call.b.shape(y).iter().enumerate().filter(|(d, _)| !axes.contains(d)).map(|(_, n)| *n).collect();
    call.b.reshape(y, shape)
}

fn reduced(call: &mut Call<'_, '_>, x: ValueId, kind: ReduceKind) -> Result<ValueId> {
    let keep = call.flag("keepdims", true);
    let Some(axes) = axes(call, call.b.rank(x))? else {
        // Each element is reduced alone.
        return match kind {
            ReduceKind::SumSquares => call.b.binary(BinaryOp::Mul, x, x),
            ReduceKind::SumAbs => call.b.unary(UnaryOp::Abs, x),
            ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min | ReduceKind::Product => Ok(x),
        };
    };
    // The smallest and the largest Boolean are those of the numbers 0 and 1.
    let dtype = call.b.dtype(x);
    let x = if dtype == DType::Bool { call.b.cast(x, DType::U8)? } else { x };
    let y = call.b.one(Op::Reduce { kind, axes: axes.clone() }, &[x], None)?;
    let y = call.b.cast(y, dtype)?;
    finish(call, y, &axes, keep)
}

pub(super) fn reduce(call: &mut Call<'_, '_>, kind: ReduceKind) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![reduced(call, x, kind)?])
}

pub(super) fn l2(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let y = reduced(call, x, ReduceKind::SumSquares)?;
    Ok(vec![call.b.unary(UnaryOp::Sqrt, y)?])
}

pub(super) fn log_sum(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let y = reduced(call, x, ReduceKind::Sum)?;
    Ok(vec![call.b.unary(UnaryOp::Log, y)?])
}

pub(super) fn log_sum_exp(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let keep = call.flag("keepdims", true);
    let Some(axes) = axes(call, call.b.rank(x))? else { return Ok(vec![x]) };
    let largest = call.b.one(Op::Reduce { kind: ReduceKind::Max, axes: axes.clone() }, &[x], None)?;
    let y = call.b.binary(BinaryOp::Sub, x, largest)?;
    let y = call.b.unary(UnaryOp::Exp, y)?;
    let y = call.b.one(Op::Reduce { kind: ReduceKind::Sum, axes: axes.clone() }, &[y], None)?;
    let y = call.b.unary(UnaryOp::Log, y)?;
    let y = call.b.binary(BinaryOp::Add, y, largest)?;
    Ok(vec![finish(call, y, &axes, keep)?])
}

pub(super) fn arg(call: &mut Call<'_, '_>, largest: bool) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let axis = call.axis(call.int("axis", 0), call.b.rank(x))?;
    let last = call.flag("select_last_index", false);
    let y = best_index(call.b, x, largest, axis, last)?;
    Ok(vec![finish(call, y, &[axis], call.flag("keepdims", true))?])
}

/// The index of the best element.
pub(super) fn best_index(b: &mut Builder, x: ValueId, largest: bool, axis: usize, last: bool) -> Result<ValueId> {
    b.one(Op::ArgReduce { largest, axis, last }, &[x], None)
}

/// Before operator set 13 everything from `axis` on is one row.
fn rows(call: &mut Call<'_, '_>) -> Result<(ValueId, usize, Vec<usize>)> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    if call.opset >= 13 {
        return Ok((x, call.axis(call.int("axis", -1), shape.len())?, shape));
    }
    let axis = call.axis(call.int("axis", 1), shape.len())?;
    if axis + 1 == shape.len() {
        return Ok((x, axis, shape));
    }
    let flat = [&shape[..axis], &[shape[axis..].iter().product()]].concat();
    Ok((call.b.reshape(x, flat)?, axis, shape))
}

pub(super) fn softmax(call: &mut Call<'_, '_>, log: bool) -> Result<Vec<ValueId>> {
    let (x, axis, shape) = rows(call)?;
    let y = call.b.one(Op::Softmax { axis, log }, &[x], None)?;
    Ok(vec![call.b.reshape(y, shape)?])
}

/// 1 at the first largest element, 0 elsewhere.
pub(super) fn hardmax(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, axis, shape) = rows(call)?;
    let rank = call.b.rank(x);
    let best = best_index(call.b, x, true, axis, false)?;
    let len = call.b.shape(x)[axis];
    if len >= 1 << 24 {
        return unsupported(format!("rows of {len}"));
    }
    let numbers = call.b.constant(crate::ir::Tensor::int(DType::I64, vec![len], (0..len as i64).collect()));
    let numbers = call.b.along(numbers, axis, rank)?;
    let equal = call.b.binary(BinaryOp::Equal, best, numbers)?;
    let y = call.b.cast(equal, DType::F32)?;
    Ok(vec![call.b.reshape(y, shape)?])
}

pub(super) fn cum_sum(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let axis = match call.known_ints(1)?.as_deref() {
        Some([axis]) => call.axis(*axis, call.b.rank(x))?,
        other => return invalid(format!("axis {other:?}")),
    };
    let op = Op::CumSum { axis, exclusive: call.flag("exclusive", false), reverse: call.flag("reverse", false) };
    Ok(vec![call.b.one(op, &[x], None)?])
}

pub(super) fn top_k(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let mut shape = call.b.shape(x).to_vec();
    let axis = call.axis(call.int("axis", -1), shape.len())?;
    let k = match call.known_ints(1)?.as_deref() {
        Some([k]) => *k,
        None if call.attribute("k").is_some() => call.int("k", 0),
        other => return invalid(format!("k = {other:?}")),
    };
    shape[axis] = extent(k)?;
    let dtype = call.b.dtype(x);
    call.b.apply(Op::TopK { axis, largest: call.flag("largest", true) }, &[x], Some((dtype, shape)))
}
