//! What prepares features.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, Tensor, UnaryOp, ValueId};

use super::super::super::build::{Builder, Result, invalid, unsupported};
use super::super::super::call::{Call, extent};
use super::{integers, numbers, rows};

/// A constant that broadcasts along the last dimension: one number, or one for each feature.
fn along(b: &mut Builder, values: &[f64], features: usize) -> Result<ValueId> {
    if values.len() != 1 && values.len() != features {
        return invalid(format!("{} numbers for {features} features", values.len()));
    }
    Ok(b.constant(Tensor::f32(vec![values.len()], values.iter().map(|v| *v as f32).collect())))
}

/// Input 0 as f32, in its own shape, and the extent of its last dimension.
fn floats(call: &mut Call<'_, '_>) -> Result<(ValueId, usize)> {
    let x = call.input(0)?;
    let Some(&features) = call.b.shape(x).last() else { return invalid("a scalar") };
    Ok((call.b.cast(x, DType::F32)?, features))
}

/// `(x − offset) · scale`
pub(super) fn scaler(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (mut x, features) = floats(call)?;
    for (name, op) in [("offset", BinaryOp::Sub), ("scale", BinaryOp::Mul)] {
        let values = numbers(call, name)?;
        if !values.is_empty() {
            let values = along(call.b, &values, features)?;
            x = call.b.binary(op, x, values)?;
        }
    }
    Ok(vec![x])
}

/// Rows divided by their norm.
pub(super) fn normalizer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let shape = call.shape(0)?;
    let (x, _) = rows(call)?;
    let (kind, root) = match call.text("norm", "MAX").as_str() {
        "MAX" => (ReduceKind::Max, false),
        "L1" => (ReduceKind::SumAbs, false),
        "L2" => (ReduceKind::SumSquares, true),
        other => return invalid(format!("norm {other:?}")),
    };
    let b = &mut *call.b;
    let mut norm = b.one(Op::Reduce { kind, axes: vec![1] }, &[x], None)?;
    if root {
        norm = b.unary(UnaryOp::Sqrt, norm)?;
    }
    // A row of zeros stays one.
    let empty = b.with(BinaryOp::Equal, norm, 0.0)?;
    let one = b.scalar(DType::F32, 1.0);
    let norm = b.select(empty, one, norm)?;
    let y = b.binary(BinaryOp::Div, x, norm)?;
    Ok(vec![b.reshape(y, shape)?])
}

/// One value, which may be NaN, replaced by another in each feature.
pub(super) fn imputer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let Some(&features) = call.b.shape(x).last() else { return invalid("a scalar") };
    if call.b.dtype(x) != DType::F32 {
        let values = integers(call, "imputed_value_int64s");
        if values.len() != 1 && values.len() != features {
            return invalid(format!("{} values for {features} features", values.len()));
        }
        let dtype = call.b.dtype(x);
        let values = call.b.constant(Tensor::int(DType::I64, vec![values.len()], values.to_vec()));
        let values = call.b.cast(values, dtype)?;
        let old = call.int("replaced_value_int64", 0);
        let old = call.b.constant(Tensor::int(DType::I64, Vec::new(), vec![old]));
        let old = call.b.cast(old, dtype)?;
        let missing = call.b.binary(BinaryOp::Equal, x, old)?;
        return Ok(vec![call.b.select(missing, values, x)?]);
    }
    let values = along(call.b, &numbers(call, "imputed_value_floats")?, features)?;
    let old = call.float("replaced_value_float", 0.0);
    let missing = if old.is_nan() { call.b.unary(UnaryOp::IsNan, x)? } else { call.b.with(BinaryOp::Equal, x, old)? };
    Ok(vec![call.b.select(missing, values, x)?])
}

/// `x > threshold ? 1 : 0`
pub(super) fn binarizer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, threshold) = (call.input(0)?, call.float("threshold", 0.0));
    let dtype = call.b.dtype(x);
    let x = call.b.cast(x, DType::F32)?;
    let threshold = call.b.scalar(DType::F32, threshold);
    let above = call.b.binary(BinaryOp::Less, threshold, x)?;
    Ok(vec![call.b.cast(above, dtype)?])
}

/// Some of the last dimension's elements: `[.., f], [k] → [.., k]`; of one dimension `[1, k]`.
pub(super) fn extractor(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, index) = (call.input(0)?, call.input(1)?);
    let Some(axis) = call.b.rank(x).checked_sub(1) else { return invalid("a scalar") };
    let count = call.b.graph.value(index).len();
    let index = call.b.reshape(index, vec![count])?;
    let y = call.b.one(Op::Gather { axis }, &[x, index], None)?;
    Ok(vec![if axis == 0 { call.b.reshape(y, vec![1, count])? } else { y }])
}

/// Inputs `[n, ·]` side by side as f32, each cut or filled with 0 to its extent.
pub(super) fn vectorizer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let extents = integers(call, "inputdimensions");
    let mut parts = Vec::with_capacity(call.inputs.len());
    for i in 0..call.inputs.len() {
        let x = call.input(i)?;
        let dims = match *call.b.shape(x) {
            [n] => [n, 1],
            [n, f] => [n, f],
            ref other => return unsupported(format!("an input of shape {other:?}")),
        };
        let x = call.b.reshape(x, dims.to_vec())?;
        let x = call.b.cast(x, DType::F32)?;
        let wanted = extents.get(i).map_or(Ok(dims[1]), |e| extent(*e))?;
        if wanted > dims[1] {
            return unsupported(format!("input {i} of {} features filled up to {wanted}", dims[1]));
        }
        parts.push(call.b.slice(x, 1, 0, wanted)?);
    }
    if parts.is_empty() { invalid("it has no inputs") } else { Ok(vec![call.b.concat(&parts, 1)?]) }
}
