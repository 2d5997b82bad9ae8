//! Products and convolutions of bytes: exact sums in I32, then what the operator makes of them.
//!
//! What is requantised is `saturate(round(f32(sum) · multiplier) + zero)` with `multiplier = scale_a · scale_b ÷ scale_y` in f32, in
//! this order: ONNX Runtime's arithmetic, bit for bit. (ONNX's reference computes the multiplier in double precision; its node
//! cases hold for both.)

use crate::ir::{BinaryOp, DType, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::Call;
use super::product::matmul;
use super::quantize::{dynamically, is_zero, range, round_to};
use super::window;

/// What a scale or a zero point has one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Each row of the left side of a product.
    Row,
    /// Each column of the right side.
    Column,
    /// Each output plane of a convolution.
    Plane,
}

/// A scale or zero point in the shape that broadcasts over a tensor of `rank` dimensions.
fn spread(b: &mut Builder, parameter: ValueId, of: Of, rank: usize) -> Result<ValueId> {
    let shape = b.shape(parameter).to_vec();
    match shape.len() {
        _ if shape.iter().product::<usize>() == 1 => b.reshape(parameter, Vec::new()),
        1 => {
            let axis = match of {
                Of::Row => rank.checked_sub(2),
                Of::Column => rank.checked_sub(1),
                Of::Plane => Some(0),
            };
            match axis {
                Some(axis) if axis < rank => b.along(parameter, axis, rank),
                _ => invalid(format!("a scale or zero point of shape {shape:?}")),
            }
        }
        // `[.., M, 1]` on the left and `[.., 1, N]` on the right broadcast as they are.
        many if many == rank && of != Of::Plane => Ok(parameter),
        _ => invalid(format!("a scale or zero point of shape {shape:?}")),
    }
}

/// `x − zero` in I32.
fn centred(b: &mut Builder, x: ValueId, zero: Option<ValueId>, of: Of) -> Result<ValueId> {
    if !matches!(b.dtype(x), DType::U8 | DType::I8) {
        return unsupported(format!("integer products of {}", b.dtype(x)));
    }
    let rank = b.rank(x);
    let wide = b.cast(x, DType::I32)?;
    let Some(zero) = zero.filter(|z| !is_zero(b, *z)) else { return Ok(wide) };
    let zero = spread(b, zero, of, rank)?;
    let zero = b.cast(zero, DType::I32)?;
    b.binary(BinaryOp::Sub, wide, zero)
}

/// A factor of each column in the shape that broadcasts over the product: that has another rank than the right side has.
fn over_product(b: &mut Builder, scale: ValueId, right: ValueId, product: ValueId) -> Result<ValueId> {
    let rank = b.rank(right);
    let scale = b.cast(scale, DType::F32)?;
    let scale = spread(b, scale, Of::Column, rank)?;
    match b.rank(scale) {
        0 => Ok(scale),
        many if many > b.rank(product) => invalid("scales of more dimensions than the product has"),
        _ => Ok(scale),
    }
}

/// The exact product of inputs `a` and `b` with their zero points.
fn product(
    b: &mut Builder,
    [left, right]: [ValueId; 2],
    [left_zero, right_zero]: [Option<ValueId>; 2],
) -> Result<ValueId> {
    let left = centred(b, left, left_zero, Of::Row)?;
    let right = centred(b, right, right_zero, Of::Column)?;
    matmul(b, left, right)
}

/// `(a − a_zero) · (b − b_zero)` in I32. ONNX Runtime takes one zero point for `a` only; one for each row is ONNX's own.
pub(super) fn mat_mul_integer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let sides = [call.input(0)?, call.input(1)?];
    let zeros = [call.optional(2), call.optional(3)];
    Ok(vec![product(call.b, sides, zeros)?])
}

/// `x, w, x_zero, w_zero → y` in I32.
pub(super) fn conv_integer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (x_zero, w_zero) = (call.optional(2), call.optional(3));
    let x = centred(call.b, x, x_zero, Of::Row)?;
    let w = centred(call.b, w, w_zero, Of::Plane)?;
    Ok(vec![window::convolution(call, x, w, None)?])
}

/// `saturate(round(f32(sum) · (scale_a · scale_b ÷ scale_y)) + zero)`; `scale_b` broadcasts over `sum` already.
fn requantize(
    b: &mut Builder,
    sum: ValueId,
    [scale_a, scale_b, scale_y]: [ValueId; 3],
    zero: Option<ValueId>,
    dtype: DType,
) -> Result<ValueId> {
    let [scale_a, scale_y] = [single(b, scale_a)?, single(b, scale_y)?];
    let multiplier = b.binary(BinaryOp::Mul, scale_a, scale_b)?;
    let multiplier = b.binary(BinaryOp::Div, multiplier, scale_y)?;
    let x = b.cast(sum, DType::F32)?;
    let x = b.binary(BinaryOp::Mul, x, multiplier)?;
    let zero = zero.map(|zero| single(b, zero)).transpose()?;
    round_to(b, x, zero, dtype)
}

/// A scale or zero point of which there is one; scales as f32.
pub(super) fn single(b: &mut Builder, parameter: ValueId) -> Result<ValueId> {
    if b.shape(parameter).iter().product::<usize>() != 1 {
        return unsupported("scales or zero points per element of this side");
    }
    b.reshape(parameter, Vec::new())
}

/// The type of an output whose zero point may be missing.
fn like_zero(b: &Builder, zero: Option<ValueId>, x: ValueId) -> Result<DType> {
    let dtype = zero.map_or_else(|| b.dtype(x), |zero| b.dtype(zero));
    range(dtype).map(|_| dtype)
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero → y`
pub(super) fn qlinear_mat_mul(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [a, a_scale, b, b_scale, y_scale] =
        [call.input(0)?, call.input(1)?, call.input(3)?, call.input(4)?, call.input(6)?];
    let (zeros, y_zero) = ([call.optional(2), call.optional(5)], call.optional(7));
    let dtype = like_zero(call.b, y_zero, a)?;
    if call.b.shape(a_scale).iter().product::<usize>() != 1 {
        return unsupported("a scale for each row of the left side");
    }
    let sum = product(call.b, [a, b], zeros)?;
    let b_scale = over_product(call.b, b_scale, b, sum)?;
    Ok(vec![requantize(call.b, sum, [a_scale, b_scale, y_scale], y_zero, dtype)?])
}

/// `x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, (bias in I32, of scale x_scale · w_scale) → y`
pub(super) fn qlinear_conv(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [x, x_scale, w, w_scale, y_scale] =
        [call.input(0)?, call.input(1)?, call.input(3)?, call.input(4)?, call.input(6)?];
    let (x_zero, w_zero, y_zero) = (call.optional(2), call.optional(5), call.optional(7));
    let dtype = like_zero(call.b, y_zero, x)?;
    let x = centred(call.b, x, x_zero, Of::Row)?;
    let w = centred(call.b, w, w_zero, Of::Plane)?;
    let bias = call.optional(8);
    let sum = window::convolution(call, x, w, bias)?;
    let scale = planes(call.b, w_scale, sum)?;
    Ok(vec![requantize(call.b, sum, [x_scale, scale, y_scale], y_zero, dtype)?])
}

/// A scale of each output plane over a convolution's result.
pub(super) fn planes(b: &mut Builder, scale: ValueId, sum: ValueId) -> Result<ValueId> {
    let (count, rank) = (b.shape(scale).iter().product::<usize>(), b.rank(sum));
    let scale = b.cast(scale, DType::F32)?;
    if count == 1 { b.reshape(scale, Vec::new()) } else { b.along(scale, 1, rank) }
}

/// com.microsoft: `A, a_scale, a_zero, B, b_scale, b_zero, (C in I32), (y_scale), (y_zero)`; without `y_scale` the result is f32.
pub(super) fn q_gemm(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [mut a, a_scale, mut b, b_scale] = [call.input(0)?, call.input(1)?, call.input(3)?, call.input(4)?];
    let (zeros, y_zero) = ([call.optional(2), call.optional(5)], call.optional(8));
    if call.b.rank(a) != 2 || call.b.rank(b) != 2 {
        return invalid("operands need two dimensions");
    }
    if call.flag("transA", false) {
        a = call.b.transpose(a, vec![1, 0])?;
    }
    if call.flag("transB", false) {
        b = call.b.transpose(b, vec![1, 0])?;
    }
    let mut sum = product(call.b, [a, b], zeros)?;
    if let Some(c) = call.optional(6) {
        sum = call.b.binary(BinaryOp::Add, sum, c)?;
    }
    let b_scale = over_product(call.b, b_scale, b, sum)?;
    let alpha = call.float("alpha", 1.0);
    let a_scale = call.b.with(BinaryOp::Mul, a_scale, alpha)?;
    let Some(y_scale) = call.optional(7) else {
        let a_scale = single(call.b, a_scale)?;
        let multiplier = call.b.binary(BinaryOp::Mul, a_scale, b_scale)?;
        let y = call.b.cast(sum, DType::F32)?;
        return Ok(vec![call.b.binary(BinaryOp::Mul, y, multiplier)?]);
    };
    let dtype = like_zero(call.b, y_zero, a)?;
    Ok(vec![requantize(call.b, sum, [a_scale, b_scale, y_scale], y_zero, dtype)?])
}

/// `f32(sum) · (a_scale · b_scale) + bias`
fn to_float(
    call: &mut Call<'_, '_>,
    sum: ValueId,
    scales: [ValueId; 2],
    right: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId> {
    let a_scale = single(call.b, scales[0])?;
    let b_scale = over_product(call.b, scales[1], right, sum)?;
    let multiplier = call.b.binary(BinaryOp::Mul, a_scale, b_scale)?;
    let y = call.b.cast(sum, DType::F32)?;
    let y = call.b.binary(BinaryOp::Mul, y, multiplier)?;
    match bias {
        Some(bias) => call.b.binary(BinaryOp::Add, y, bias),
        None => Ok(y),
    }
}

/// com.microsoft: `A, B, a_scale, b_scale, (a_zero), (b_zero), (bias) → f32`
pub(super) fn mat_mul_integer_to_float(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [a, b, a_scale, b_scale] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    let zeros = [call.optional(4), call.optional(5)];
    let sum = product(call.b, [a, b], zeros)?;
    let bias = call.optional(6);
    Ok(vec![to_float(call, sum, [a_scale, b_scale], b, bias)?])
}

/// com.microsoft: `A (f32), B, b_scale, (b_zero), (bias) → f32`, with `A` quantised on the way.
pub(super) fn dynamic_quantize_mat_mul(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [a, b, b_scale] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let (b_zero, bias) = (call.optional(3), call.optional(4));
    let (a, a_scale, a_zero) = dynamically(call.b, a)?;
    let sum = product(call.b, [a, b], [Some(a_zero), b_zero])?;
    Ok(vec![to_float(call, sum, [a_scale, b_scale], b, bias)?])
}
