//! Quantisation to and from integers, computed in f32.
//!
//! `y = saturate(round(x ÷ scale) + zero)`, halves to even, and back `(y − zero) · scale`. A NaN becomes 0 (ONNX says nothing; ONNX
//! Runtime gives the low end of the type).

use crate::ir::{BinaryOp, DType, Op, ReduceKind, UnaryOp, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::super::qdq::{Dequantized, Target};

/// Scale or zero point in the shape that broadcasts over `x`.
fn spread(call: &mut Call<'_, '_>, parameter: ValueId, x: ValueId) -> Result<ValueId> {
    let (rank, count) = (call.b.rank(x), call.b.shape(parameter).iter().product::<usize>());
    let blocks = extent(call.int("block_size", 0))?;
    match call.b.rank(parameter) {
        0 => Ok(parameter),
        _ if blocks == 0 && count == 1 => call.b.reshape(parameter, Vec::new()),
        1 if blocks == 0 => {
            let axis = call.axis(call.int("axis", 1), rank)?;
            call.b.along(parameter, axis, rank)
        }
        other if blocks != 0 && other == rank => {
            let axis = call.axis(call.int("axis", 1), rank)?;
            repeat(call.b, parameter, axis, blocks, call.b.shape(x).to_vec())
        }
        other => invalid(format!("a scale of {other} dimensions for a tensor of {rank}")),
    }
}

/// Every element `block` times along `axis`, cut to the extents of `shape`.
fn repeat(b: &mut Builder, x: ValueId, axis: usize, block: usize, shape: Vec<usize>) -> Result<ValueId> {
    let from = b.shape(x).to_vec();
    let fits = (0..shape.len()).all(|d| from[d] == if d == axis { shape[d].div_ceil(block) } else { shape[d] });
    if !fits {
        return invalid(format!("a scale of shape {from:?} for blocks of {block} of shape {shape:?}"));
    }
    let (mut split, mut repeated, mut joined) = (from.clone(), from.clone(), from.clone());
    split.insert(axis + 1, 1);
    repeated.insert(axis + 1, block);
    joined[axis] = from[axis].saturating_mul(block);
    let x = b.reshape(x, split)?;
    let x = b.expand(x, repeated)?;
    let x = b.reshape(x, joined)?;
    let dtype = b.dtype(x);
    b.one(Op::Slice { starts: vec![0; shape.len()], steps: vec![1; shape.len()] }, &[x], Some((dtype, shape)))
}

/// The ends of a type that numbers are quantised to.
pub(in crate::import) fn range(dtype: DType) -> Result<(f64, f64)> {
    match dtype {
        DType::U8 => Ok((0.0, 255.0)),
        DType::I8 => Ok((-128.0, 127.0)),
        DType::U16 => Ok((0.0, 65535.0)),
        DType::I16 => Ok((-32768.0, 32767.0)),
        other => unsupported(format!("quantisation to {other}")),
    }
}

/// `saturate(round(x) + zero)`; `x` is divided already, `zero` in the shape that broadcasts.
pub(super) fn round_to(b: &mut Builder, x: ValueId, zero: Option<ValueId>, dtype: DType) -> Result<ValueId> {
    let ends = range(dtype)?;
    round_within(b, x, zero, dtype, ends)
}

/// As [`round_to`], held between numbers of the type.
pub(in crate::import) fn round_within(
    b: &mut Builder,
    x: ValueId,
    zero: Option<ValueId>,
    dtype: DType,
    (low, high): (f64, f64),
) -> Result<ValueId> {
    let mut y = b.unary(UnaryOp::Round, x)?;
    if let Some(zero) = zero.filter(|z| !is_zero(b, *z)) {
        let zero = b.cast(zero, DType::F32)?;
        y = b.binary(BinaryOp::Add, y, zero)?;
    }
    let y = b.with(BinaryOp::Max, y, low)?;
    let y = b.with(BinaryOp::Min, y, high)?;
    b.cast(y, dtype)
}

/// `x − zero` as f32, exact for all types up to 16 bits.
pub(super) fn centred(b: &mut Builder, x: ValueId, zero: Option<ValueId>) -> Result<ValueId> {
    let zero = zero.filter(|z| !is_zero(b, *z));
    if let (DType::I32, Some(zero)) = (b.dtype(x), zero) {
        let y = b.binary(BinaryOp::Sub, x, zero)?;
        return b.cast(y, DType::F32);
    }
    let mut y = b.cast(x, DType::F32)?;
    if let Some(zero) = zero {
        let zero = b.cast(zero, DType::F32)?;
        y = b.binary(BinaryOp::Sub, y, zero)?;
    }
    Ok(y)
}

/// A zero point that is known to be 0 everywhere.
pub(in crate::import) fn is_zero(b: &Builder, zero: ValueId) -> bool {
    b.known(zero).is_some_and(|t| t.dtype != DType::F32 && t.ints().iter().all(|z| *z == 0))
}

/// One scale and one zero point for all.
fn single(b: &Builder, scale: ValueId, zero: Option<ValueId>) -> bool {
    let one = |id: ValueId| b.shape(id).iter().product::<usize>() == 1;
    one(scale) && zero.is_none_or(one)
}

/// `saturate(round(x ÷ scale) + zero)`
pub(super) fn quantize(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let zero = call.optional(2);
    let dtype = match (zero, call.int("output_dtype", 0) as i32) {
        (Some(zero), _) => call.b.dtype(zero),
        (None, 0) => DType::U8,
        (None, to) => match super::super::tensor::dtype(to) {
            Some(dtype) => dtype,
            None => return unsupported(format!("quantisation to {}", super::super::tensor::type_name(to))),
        },
    };
    range(dtype)?;
    // What the division is computed in: the type of the scale, or one that is named.
    if !matches!(call.int("precision", 0), 0 | 1) {
        return unsupported("a precision other than FP32");
    }
    if call.b.dtype(x) == DType::F32 && single(call.b, scale, zero) {
        let scale = call.b.cast(scale, DType::F32)?;
        if let Some(y) = call.b.requantize_dequantized(x, Target { scale, zero, dtype })? {
            return Ok(vec![y]);
        }
    }
    let x = call.b.cast(x, DType::F32)?;
    let scale = call.b.cast(scale, DType::F32)?;
    let scale = spread(call, scale, x)?;
    let zero = zero.map(|zero| spread(call, zero, x)).transpose()?;
    let y = call.b.binary(BinaryOp::Div, x, scale)?;
    Ok(vec![round_to(call.b, y, zero, dtype)?])
}

/// `(x − zero) · scale`
pub(super) fn dequantize(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let dtype = call.b.dtype(x);
    if dtype != DType::I32 {
        range(dtype)?;
    }
    let made = call.b.halves.get(&scale).copied().unwrap_or_else(|| call.b.dtype(scale));
    let wanted = call.int("output_dtype", 0) as i32;
    if wanted != 0 && super::super::tensor::stored(wanted) != Some(made) {
        let name = super::super::tensor::type_name(wanted);
        return unsupported(format!("output_dtype {name} for a scale of {made}; give the scale that type"));
    }
    let scale = call.b.cast(scale, DType::F32)?;
    let given = call.optional(2);
    let zero = given.map(|zero| spread(call, zero, x)).transpose()?;
    let y = centred(call.b, x, zero)?;
    let factor = spread(call, scale, x)?;
    let y = call.b.binary(BinaryOp::Mul, y, factor)?;
    if call.int("block_size", 0) == 0 {
        let rank = call.b.rank(x);
        let axis = if single(call.b, scale, given) { None } else { Some(call.axis(call.int("axis", 1), rank)?) };
        call.b.note_dequantized(y, Dequantized { bytes: x, scale, zero: given, axis });
    }
    Ok(vec![y])
}

/// `x → y (u8), scale, zero (u8)`: a range that holds the smallest, the largest and 0. Where all is 0 the scale is 1, as in ONNX
/// Runtime; by ONNX's text it would be 0, and 0 ÷ 0 what follows.
pub(super) fn dynamic_quantize(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let (y, scale, zero) = dynamically(call.b, x)?;
    Ok(vec![y, scale, zero])
}

/// As [`dynamic_quantize`]; scale and zero point are scalars.
pub(super) fn dynamically(b: &mut Builder, x: ValueId) -> Result<(ValueId, ValueId, ValueId)> {
    let count = b.shape(x).iter().product();
    let flat = b.reshape(x, vec![count])?;
    let end = |b: &mut Builder, kind, op| {
        let end = b.one(Op::Reduce { kind, axes: vec![0] }, &[flat], None)?;
        let end = b.reshape(end, Vec::new())?;
        b.with(op, end, 0.0)
    };
    let low = end(b, ReduceKind::Min, BinaryOp::Min)?;
    let high = end(b, ReduceKind::Max, BinaryOp::Max)?;
    let span = b.binary(BinaryOp::Sub, high, low)?;
    let zero_span = b.with(BinaryOp::Equal, span, 0.0)?;
    let scale = b.with(BinaryOp::Div, span, 255.0)?;
    let one = b.scalar(DType::F32, 1.0);
    let scale = b.select(zero_span, one, scale)?;
    let shift = b.binary(BinaryOp::Div, low, scale)?;
    let shift = b.unary(UnaryOp::Neg, shift)?;
    let zero = round_to(b, shift, None, DType::U8)?;
    let y = b.binary(BinaryOp::Div, x, scale)?;
    let y = round_to(b, y, Some(zero), DType::U8)?;
    Ok((y, scale, zero))
}
