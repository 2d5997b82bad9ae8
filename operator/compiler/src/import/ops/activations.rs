//! Activations, from primitives.

use crate::ir::{BinaryOp, DType, UnaryOp, ValueId};

use super::super::build::{Builder, Result, unsupported};
use super::super::call::Call;

pub(super) fn relu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![call.b.with(BinaryOp::Max, x, 0.0)?])
}

/// `x < 0 ? other : x`
fn below_zero(b: &mut Builder, x: ValueId, other: ValueId) -> Result<ValueId> {
    let negative = b.with(BinaryOp::Less, x, 0.0)?;
    b.select(negative, other, x)
}

pub(super) fn leaky_relu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 0.01));
    Ok(vec![leaky(call, x, alpha)?])
}

/// `x < 0 ? alpha · x : x`
pub(super) fn leaky(call: &mut Call<'_, '_>, x: ValueId, alpha: f64) -> Result<ValueId> {
    let scaled = call.b.with(BinaryOp::Mul, x, alpha)?;
    below_zero(call.b, x, scaled)
}

pub(super) fn p_relu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    let scaled = call.b.binary(BinaryOp::Mul, x, slope)?;
    Ok(vec![below_zero(call.b, x, scaled)?])
}

pub(super) fn thresholded_relu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 1.0));
    let zero = call.b.scalar(DType::F32, 0.0);
    let low = call.b.with(BinaryOp::LessOrEqual, x, alpha)?;
    Ok(vec![call.b.select(low, zero, x)?])
}

/// `scale · (x ≥ 0 ? x : alpha · (exp(x ÷ divisor) − 1))`
fn exponential(call: &mut Call<'_, '_>, alpha: f64, divisor: f64, scale: f64) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let y = exponential_of(call.b, x, alpha, divisor)?;
    Ok(vec![if scale == 1.0 { y } else { call.b.with(BinaryOp::Mul, y, scale)? }])
}

fn exponential_of(b: &mut Builder, x: ValueId, alpha: f64, divisor: f64) -> Result<ValueId> {
    // Held below 0, so that what is not chosen does not overflow.
    let mut low = b.with(BinaryOp::Min, x, 0.0)?;
    if divisor != 1.0 {
        low = b.with(BinaryOp::Div, low, divisor)?;
    }
    let e = b.unary(UnaryOp::Exp, low)?;
    let e = b.with(BinaryOp::Sub, e, 1.0)?;
    let e = b.with(BinaryOp::Mul, e, alpha)?;
    below_zero(b, x, e)
}

pub(super) fn elu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let alpha = call.float("alpha", 1.0);
    exponential(call, alpha, 1.0, 1.0)
}

pub(super) fn selu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    // The defaults as onnx.proto's operator definition writes them.
    let (alpha, gamma) = (call.float("alpha", 1.673_263_2), call.float("gamma", 1.050_701));
    exponential(call, alpha, 1.0, gamma)
}

pub(super) fn celu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let alpha = call.float("alpha", 1.0);
    exponential(call, alpha, alpha, 1.0)
}

/// `max(0, min(1, alpha · x + beta))`
fn ramp(b: &mut Builder, x: ValueId, alpha: f64, beta: f64) -> Result<ValueId> {
    let y = b.with(BinaryOp::Mul, x, alpha)?;
    let y = b.with(BinaryOp::Add, y, beta)?;
    let y = b.with(BinaryOp::Max, y, 0.0)?;
    b.with(BinaryOp::Min, y, 1.0)
}

pub(super) fn hard_sigmoid(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, alpha, beta) = (call.input(0)?, call.float("alpha", 0.2), call.float("beta", 0.5));
    Ok(vec![ramp(call.b, x, alpha, beta)?])
}

/// `x · min(max(x + 3, 0), 6) ÷ 6`
fn hard_swish_of(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let y = b.with(BinaryOp::Add, x, 3.0)?;
    let y = b.with(BinaryOp::Max, y, 0.0)?;
    let y = b.with(BinaryOp::Min, y, 6.0)?;
    let y = b.binary(BinaryOp::Mul, x, y)?;
    b.with(BinaryOp::Div, y, 6.0)
}

pub(super) fn hard_swish(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![hard_swish_of(call.b, x)?])
}

/// `ln(1 + eˣ) = max(x, 0) + ln(1 + e^−|x|)`, which does not overflow.
fn softplus_of(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let magnitude = b.unary(UnaryOp::Abs, x)?;
    let negative = b.unary(UnaryOp::Neg, magnitude)?;
    let e = b.unary(UnaryOp::Exp, negative)?;
    let sum = b.with(BinaryOp::Add, e, 1.0)?;
    let log = b.unary(UnaryOp::Log, sum)?;
    let positive = b.with(BinaryOp::Max, x, 0.0)?;
    b.binary(BinaryOp::Add, positive, log)
}

pub(super) fn softplus(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![softplus_of(call.b, x)?])
}

fn softsign_of(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let below = b.unary(UnaryOp::Abs, x)?;
    let below = b.with(BinaryOp::Add, below, 1.0)?;
    b.binary(BinaryOp::Div, x, below)
}

pub(super) fn softsign(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![softsign_of(call.b, x)?])
}

pub(super) fn mish(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let y = softplus_of(call.b, x)?;
    let y = call.b.unary(UnaryOp::Tanh, y)?;
    Ok(vec![call.b.binary(BinaryOp::Mul, x, y)?])
}

pub(super) fn swish(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 1.0));
    let scaled = if alpha == 1.0 { x } else { call.b.with(BinaryOp::Mul, x, alpha)? };
    let y = call.b.unary(UnaryOp::Sigmoid, scaled)?;
    Ok(vec![call.b.binary(BinaryOp::Mul, x, y)?])
}

/// `swish(a) · b`
pub(super) fn swi_glu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    if call.b.shape(a) != call.b.shape(b) {
        return super::super::build::invalid("gate and value differ in shape");
    }
    let gate = swish(call)?[0];
    Ok(vec![call.b.binary(BinaryOp::Mul, gate, b)?])
}

pub(super) fn gelu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    match call.text("approximate", "none").as_str() {
        "none" => Ok(vec![gelu_of(call.b, x)?]),
        "tanh" => Ok(vec![fast_gelu_of(call.b, x)?]),
        other => unsupported(format!("approximate {other:?}")),
    }
}

/// `x ÷ 2 · (1 + erf(x ÷ √2))`
pub(super) fn gelu_of(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let y = b.with(BinaryOp::Mul, x, std::f64::consts::FRAC_1_SQRT_2)?;
    let inner = b.unary(UnaryOp::Erf, y)?;
    gate(b, x, inner)
}

/// `x ÷ 2 · (1 + tanh(√(2 ÷ π) · (x + 0.044715 · x³)))`
pub(super) fn fast_gelu_of(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let square = b.binary(BinaryOp::Mul, x, x)?;
    let cube = b.binary(BinaryOp::Mul, square, x)?;
    let y = b.with(BinaryOp::Mul, cube, 0.044_715)?;
    let y = b.binary(BinaryOp::Add, x, y)?;
    let y = b.with(BinaryOp::Mul, y, 0.797_884_560_802_865_4)?;
    let inner = b.unary(UnaryOp::Tanh, y)?;
    gate(b, x, inner)
}

/// `x ÷ 2 · (1 + inner)`
fn gate(b: &mut Builder, x: ValueId, inner: ValueId) -> Result<ValueId> {
    let y = b.with(BinaryOp::Add, inner, 1.0)?;
    let half = b.with(BinaryOp::Mul, x, 0.5)?;
    b.binary(BinaryOp::Mul, half, y)
}

/// How many parameters an activation takes that is an attribute of another operator, by its name there in lower case; `None`
/// when it is not known.
pub(super) fn parameters(name: &str) -> Option<usize> {
    Some(match name {
        "" | "relu" | "tanh" | "sigmoid" | "softsign" | "softplus" | "hardswish" => 0,
        "leakyrelu" | "thresholdedrelu" | "elu" => 1,
        "affine" | "scaledtanh" | "hardsigmoid" | "clip" => 2,
        _ => return None,
    })
}

/// An activation by its name in lower case: of a recurrent layer, or fused into another operator. Parameters that are not
/// given have the defaults of the operator of that name.
pub(super) fn named(b: &mut Builder, name: &str, x: ValueId, given: &[Option<f64>]) -> Result<ValueId> {
    let parameter = |i: usize, default: f64| given.get(i).copied().flatten().unwrap_or(default);
    match name {
        "" => Ok(x),
        "relu" => b.with(BinaryOp::Max, x, 0.0),
        "tanh" => b.unary(UnaryOp::Tanh, x),
        "sigmoid" => b.unary(UnaryOp::Sigmoid, x),
        "softsign" => softsign_of(b, x),
        "softplus" => softplus_of(b, x),
        "hardswish" => hard_swish_of(b, x),
        "leakyrelu" => {
            let scaled = b.with(BinaryOp::Mul, x, parameter(0, 0.01))?;
            below_zero(b, x, scaled)
        }
        "thresholdedrelu" => {
            let zero = b.scalar(DType::F32, 0.0);
            let low = b.with(BinaryOp::LessOrEqual, x, parameter(0, 1.0))?;
            b.select(low, zero, x)
        }
        "elu" => exponential_of(b, x, parameter(0, 1.0), 1.0),
        "affine" => {
            let y = b.with(BinaryOp::Mul, x, parameter(0, 1.0))?;
            b.with(BinaryOp::Add, y, parameter(1, 0.0))
        }
        "scaledtanh" => {
            let y = b.with(BinaryOp::Mul, x, parameter(1, 1.0))?;
            let y = b.unary(UnaryOp::Tanh, y)?;
            b.with(BinaryOp::Mul, y, parameter(0, 1.0))
        }
        "hardsigmoid" => ramp(b, x, parameter(0, 0.2), parameter(1, 0.5)),
        "clip" => {
            let y = b.with(BinaryOp::Max, x, parameter(0, f64::from(f32::MIN)))?;
            b.with(BinaryOp::Min, y, parameter(1, f64::from(f32::MAX)))
        }
        other => unsupported(format!("the activation {other:?}")),
    }
}

pub(super) fn shrink(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, bias, lambda) = (call.input(0)?, call.float("bias", 0.0), call.float("lambd", 0.5));
    let zero = call.b.with(BinaryOp::Mul, x, 0.0)?;
    let dtype = call.b.dtype(x);
    let (low, high) = (call.b.scalar(dtype, -lambda), call.b.scalar(dtype, lambda));
    let (raised, lowered) = (call.b.with(BinaryOp::Add, x, bias)?, call.b.with(BinaryOp::Sub, x, bias)?);
    let below = call.b.binary(BinaryOp::Less, x, low)?;
    let above = call.b.binary(BinaryOp::Less, high, x)?;
    let y = call.b.select(above, lowered, zero)?;
    Ok(vec![call.b.select(below, raised, y)?])
}
