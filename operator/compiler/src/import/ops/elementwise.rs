//! Arithmetic, comparisons, logic, casts.

use crate::ir::{BinaryOp, DType, Tensor, UnaryOp, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::Call;
use super::super::tensor;

pub(super) fn unary(call: &mut Call<'_, '_>, op: UnaryOp) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![call.b.unary(op, x)?])
}

pub(super) fn binary(call: &mut Call<'_, '_>, op: BinaryOp) -> Result<Vec<ValueId>> {
    // Operator sets before 7 broadcast by attributes.
    if call.opset < 7 && call.flag("broadcast", false) {
        return unsupported("broadcasting of operator sets before 7; convert the model to opset 13 or newer");
    }
    let (a, b) = (call.input(0)?, call.input(1)?);
    Ok(vec![call.b.binary(op, a, b)?])
}

/// `a > b` as `b < a`.
pub(super) fn turned(call: &mut Call<'_, '_>, op: BinaryOp) -> Result<Vec<ValueId>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    call.inputs = vec![Some(b), Some(a)];
    binary(call, op)
}

/// The exponent may be of another type than the base; the result has the base's.
pub(super) fn pow(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let dtype = call.b.dtype(a);
    // Squares are the common case, and exact.
    if let Some(e) = call.b.known(b).filter(|t| t.len() == 1)
        && call.b.rank(b) <= call.b.rank(a)
        && (e.floats() == [2.0] || e.ints() == [2])
    {
        return Ok(vec![call.b.binary(BinaryOp::Mul, a, a)?]);
    }
    if dtype != DType::F32 && call.b.dtype(b) == DType::F32 {
        let a = call.b.cast(a, DType::F32)?;
        let power = call.b.binary(BinaryOp::Pow, a, b)?;
        return Ok(vec![call.b.cast(power, dtype)?]);
    }
    let b = call.b.cast(b, dtype)?;
    Ok(vec![call.b.binary(BinaryOp::Pow, a, b)?])
}

pub(super) fn modulo(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    if call.flag("fmod", false) {
        return binary(call, BinaryOp::Rem);
    }
    let (a, b) = (call.input(0)?, call.input(1)?);
    if call.b.dtype(a) != DType::F32 {
        return Ok(vec![call.b.binary(BinaryOp::Mod, a, b)?]);
    }
    // C's remainder, moved by the divisor where its sign is the other one.
    let rest = call.b.binary(BinaryOp::Rem, a, b)?;
    let moved = call.b.binary(BinaryOp::Add, rest, b)?;
    let signs = call.b.binary(BinaryOp::Mul, rest, b)?;
    let differ = call.b.with(BinaryOp::Less, signs, 0.0)?;
    Ok(vec![call.b.select(differ, moved, rest)?])
}

/// Refuses what has no bits to work on.
pub(super) fn bits(call: &Call<'_, '_>) -> Result<()> {
    let dtype = call.b.dtype(call.input(0)?);
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::Bool => invalid(format!("bits of {dtype}")),
        _ => Ok(()),
    }
}

/// ONNX's `BitShift`, by as many bits as the second operand says; downwards the sign stays. By a negative number, or by all bits
/// and more, only the sign is left of it, or nothing.
pub(super) fn shift(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    bits(call)?;
    let direction = call.text("direction", "");
    let plain = match call.b.dtype(x) {
        DType::I8 => DType::U8,
        DType::I16 => DType::U16,
        DType::I32 => DType::U32,
        DType::I64 => DType::U64,
        other => other,
    };
    match direction.as_str() {
        "LEFT" => binary(call, BinaryOp::ShiftLeft),
        "RIGHT" if plain == call.b.dtype(x) => binary(call, BinaryOp::ShiftRight),
        "RIGHT" => shift_down(call.b, x, call.input(1)?, plain),
        other => invalid(format!("direction {other:?}; it is LEFT or RIGHT")),
    }
}

/// With a sign: what is negative is turned into the number that has every other bit, and back. `plain` is the type without a sign.
fn shift_down(b: &mut Builder, x: ValueId, by: ValueId, plain: DType) -> Result<Vec<ValueId>> {
    let dtype = b.dtype(x);
    if b.dtype(by) != dtype {
        return invalid(format!("{dtype} shifted by {}", b.dtype(by)));
    }
    let negative = b.with(BinaryOp::Less, x, 0.0)?;
    let turned = b.unary(UnaryOp::Not, x)?;
    let magnitude = b.select(negative, turned, x)?;
    let (magnitude, by) = (b.cast(magnitude, plain)?, b.cast(by, plain)?);
    let y = b.binary(BinaryOp::ShiftRight, magnitude, by)?;
    let y = b.cast(y, dtype)?;
    let turned = b.unary(UnaryOp::Not, y)?;
    Ok(vec![b.select(negative, turned, y)?])
}

/// ONNX's `BitCast`: between integers, which wrap to the same bits, and of what is known.
pub(super) fn bit_cast(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let code = call.int("to", 0) as i32;
    let (from, Some(to)) = (call.b.dtype(x), tensor::stored(code)) else {
        return unsupported(format!("the type {}", tensor::type_name(code)));
    };
    let half = call.b.halves.contains_key(&x) || tensor::computed(to) != to;
    if from.size() != to.size() || half {
        return unsupported(format!("the bits of {from} as {to}"));
    }
    if from == to || !from.is_float() && !to.is_float() && to != DType::Bool {
        return Ok(vec![call.b.cast(x, to)?]);
    }
    let Some(known) = call.b.known(x) else {
        return unsupported(format!(
            "the bits of {from} as {to}, of what is computed from the model's inputs; take numbers apart in the application, \
             or with Floor, Log and Pow"
        ));
    };
    // Which NaN it is, is not kept.
    if known.floats().iter().any(|x| x.is_nan()) || known.doubles().iter().any(|x| x.is_nan()) {
        return unsupported(format!("the bits of NaN as {to}"));
    }
    match Tensor::from_bytes(to, known.shape.clone(), &known.to_bytes()) {
        Some(tensor) => Ok(vec![call.b.constant(tensor)]),
        None => invalid(format!("bits that are no {to}")),
    }
}

pub(super) fn variadic(call: &mut Call<'_, '_>, op: BinaryOp) -> Result<Vec<ValueId>> {
    let mut result = call.input(0)?;
    for i in 1..call.inputs.len() {
        let x = call.input(i)?;
        result = call.b.binary(op, result, x)?;
    }
    Ok(vec![result])
}

pub(super) fn mean(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let sum = variadic(call, BinaryOp::Add)?[0];
    let count = call.inputs.len() as f64;
    Ok(vec![call.b.with(BinaryOp::Div, sum, count)?])
}

pub(super) fn is_inf(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let (up, down) = (call.flag("detect_positive", true), call.flag("detect_negative", true));
    let compared = match (up, down) {
        (true, true) => call.b.unary(UnaryOp::Abs, x)?,
        (true, false) => x,
        (false, true) => call.b.unary(UnaryOp::Neg, x)?,
        (false, false) => return invalid("it detects neither infinity"),
    };
    Ok(vec![call.b.with(BinaryOp::Equal, compared, f64::INFINITY)?])
}

pub(super) fn select(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (condition, a, b) = (call.input(0)?, call.input(1)?, call.input(2)?);
    Ok(vec![call.b.select(condition, a, b)?])
}

pub(super) fn clip(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut x = call.input(0)?;
    for (name, i, op) in [("min", 1, BinaryOp::Max), ("max", 2, BinaryOp::Min)] {
        if let Some(bound) = call.optional(i) {
            x = call.b.binary(op, x, bound)?;
        } else if call.attribute(name).is_some() {
            let bound = call.float(name, 0.0);
            x = call.b.with(op, x, bound)?;
        }
    }
    Ok(vec![x])
}

pub(super) fn cast(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let to = call.int("to", 0) as i32;
    let Some(dtype) = tensor::stored(to) else { return unsupported(format!("a cast to {}", tensor::type_name(to))) };
    let x = call.input(0)?;
    // A half loses what it cannot hold, and goes on as a number of f32.
    let x = call.b.cast(x, dtype)?;
    Ok(vec![call.b.cast(x, tensor::computed(dtype))?])
}

pub(super) fn cast_like(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, like) = (call.input(0)?, call.input(1)?);
    let dtype = call.b.dtype(like);
    Ok(vec![call.b.cast(x, dtype)?])
}

pub(super) fn identity(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    Ok(vec![call.input(0)?])
}

/// Nothing is dropped at inference, nor by a ratio of 0.
pub(super) fn dropout(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let training = call.opset >= 12 && call.known(2)?.is_some_and(|t| t.ints() == [1]);
    if training {
        let ratio = call.known(1)?.map_or(0.5, |t| super::layout::number(&t).unwrap_or(0.5));
        if ratio != 0.0 {
            return unsupported(format!(
                "training_mode with a ratio of {ratio}: answers must be reproducible; export the model for inference (model.eval())"
            ));
        }
    }
    let x = call.input(0)?;
    let mut outputs = vec![x];
    if call.wants(1) {
        let all = call.b.scalar(DType::Bool, 1.0);
        let shape = call.b.shape(x).to_vec();
        outputs.push(call.b.expand(all, shape)?);
    }
    Ok(outputs)
}
