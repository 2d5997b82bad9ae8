//! Quantisation to and from integers, computed in f32.

use crate::ir::{BinaryOp, DType, UnaryOp, ValueId};

use super::super::build::{Result, invalid, unsupported};
use super::super::call::Call;

/// Scale or zero point in the shape that broadcasts over `x`.
fn spread(call: &mut Call<'_, '_>, parameter: ValueId, x: ValueId) -> Result<ValueId> {
    if call.int("block_size", 0) != 0 {
        return unsupported("block_size");
    }
    match call.b.rank(parameter) {
        0 => Ok(parameter),
        1 if call.b.shape(parameter) == [1] => call.b.reshape(parameter, Vec::new()),
        1 => {
            let rank = call.b.rank(x);
            let axis = call.axis(call.int("axis", 1), rank)?;
            call.b.along(parameter, axis, rank)
        }
        rank => invalid(format!("a scale of {rank} dimensions")),
    }
}

const fn range(dtype: DType) -> Option<(f64, f64)> {
    match dtype {
        DType::U8 => Some((0.0, 255.0)),
        DType::I8 => Some((-128.0, 127.0)),
        DType::U16 => Some((0.0, 65535.0)),
        DType::I16 => Some((-32768.0, 32767.0)),
        DType::F32 | DType::Bool | DType::U32 | DType::I32 | DType::I64 => None,
    }
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
            None => return unsupported(super::super::tensor::type_name(to)),
        },
    };
    let Some((low, high)) = range(dtype) else { return unsupported(format!("quantisation to {dtype}")) };
    let x = call.b.cast(x, DType::F32)?;
    let scale = spread(call, scale, x)?;
    let y = call.b.binary(BinaryOp::Div, x, scale)?;
    let mut y = call.b.unary(UnaryOp::Round, y)?;
    if let Some(zero) = zero {
        let zero = spread(call, zero, x)?;
        let zero = call.b.cast(zero, DType::F32)?;
        y = call.b.binary(BinaryOp::Add, y, zero)?;
    }
    let y = call.b.with(BinaryOp::Max, y, low)?;
    let y = call.b.with(BinaryOp::Min, y, high)?;
    Ok(vec![call.b.cast(y, dtype)?])
}

/// `(x − zero) · scale`
pub(super) fn dequantize(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let mut y = call.b.cast(x, DType::F32)?;
    if let Some(zero) = call.optional(2) {
        let zero = spread(call, zero, x)?;
        let zero = call.b.cast(zero, DType::F32)?;
        y = call.b.binary(BinaryOp::Sub, y, zero)?;
    }
    let scale = spread(call, scale, x)?;
    Ok(vec![call.b.binary(BinaryOp::Mul, y, scale)?])
}
