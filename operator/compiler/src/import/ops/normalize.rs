//! Normalisations, from primitives.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, UnaryOp, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::Call;

/// `x · scale ÷ √(var + ε) + (bias − mean · scale ÷ √(var + ε))`: a product and a sum whose factors fold.
pub(super) fn batch(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let training = call.flag("training_mode", false);
    if training && call.opset < 14 || call.opset < 7 && !call.flag("is_test", false) {
        return unsupported("training mode; export with model.eval()");
    }
    if !call.flag("spatial", true) {
        return unsupported("spatial = 0");
    }
    if training {
        return batch_in_training(call);
    }
    let [x, scale, bias, mean, variance] =
        [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?, call.input(4)?];
    let epsilon = call.float("epsilon", 1e-5);
    let rank = call.b.rank(x);
    if rank < 2 {
        return invalid(format!("a tensor of {rank} dimensions"));
    }
    let b = &mut *call.b;
    let deviation = b.with(BinaryOp::Add, variance, epsilon)?;
    let deviation = b.unary(UnaryOp::Sqrt, deviation)?;
    let factor = b.binary(BinaryOp::Div, scale, deviation)?;
    let shift = b.binary(BinaryOp::Mul, mean, factor)?;
    let shift = b.binary(BinaryOp::Sub, bias, shift)?;
    let (factor, shift) = (b.along(factor, 1, rank)?, b.along(shift, 1, rank)?);
    let y = b.binary(BinaryOp::Mul, x, factor)?;
    Ok(vec![b.binary(BinaryOp::Add, y, shift)?])
}

/// With the batch's own mean and variance, and the running ones moved towards them.
fn batch_in_training(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [x, scale, bias, mean, variance] =
        [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?, call.input(4)?];
    let (epsilon, momentum) = (call.float("epsilon", 1e-5), call.float("momentum", 0.9));
    let b = &mut *call.b;
    let shape = b.shape(x).to_vec();
    let [_, channels, ..] = shape[..] else { return invalid(format!("a tensor of shape {shape:?}")) };
    let axes: Vec<usize> = (0..shape.len()).filter(|d| *d != 1).collect();
    let [y, own_mean, _] = standardize(b, x, &axes, epsilon)?;
    let centred = b.binary(BinaryOp::Sub, x, own_mean)?;
    let square = b.binary(BinaryOp::Mul, centred, centred)?;
    let own_variance = mean_over(b, square, &axes)?;
    let (scale, bias) = (b.along(scale, 1, shape.len())?, b.along(bias, 1, shape.len())?);
    let y = b.binary(BinaryOp::Mul, y, scale)?;
    let y = b.binary(BinaryOp::Add, y, bias)?;
    let mut moved = |running: ValueId, own: ValueId| {
        let own = b.reshape(own, vec![channels])?;
        let kept = b.with(BinaryOp::Mul, running, momentum)?;
        let new = b.with(BinaryOp::Mul, own, 1.0 - momentum)?;
        b.binary(BinaryOp::Add, kept, new)
    };
    Ok(vec![y, moved(mean, own_mean)?, moved(variance, own_variance)?])
}

pub(super) fn mean_over(b: &mut Builder, x: ValueId, axes: &[usize]) -> Result<ValueId> {
    b.one(Op::Reduce { kind: ReduceKind::Mean, axes: axes.to_vec() }, &[x], None)
}

/// `(x − mean) ÷ √(var + ε)` over `axes`; also mean and `1 ÷ √(var + ε)`.
pub(super) fn standardize(b: &mut Builder, x: ValueId, axes: &[usize], epsilon: f64) -> Result<[ValueId; 3]> {
    let mean = mean_over(b, x, axes)?;
    let centred = b.binary(BinaryOp::Sub, x, mean)?;
    let square = b.binary(BinaryOp::Mul, centred, centred)?;
    let variance = mean_over(b, square, axes)?;
    let deviation = b.with(BinaryOp::Add, variance, epsilon)?;
    let deviation = b.unary(UnaryOp::Sqrt, deviation)?;
    let inverse = b.unary(UnaryOp::Reciprocal, deviation)?;
    let y = b.binary(BinaryOp::Mul, centred, inverse)?;
    Ok([y, mean, inverse])
}

pub(super) fn instance(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (rank, epsilon) = (call.b.rank(x), call.float("epsilon", 1e-5));
    if rank < 3 {
        return invalid(format!("a tensor of {rank} dimensions"));
    }
    let b = &mut *call.b;
    let [y, ..] = standardize(b, x, &(2..rank).collect::<Vec<_>>(), epsilon)?;
    let (scale, bias) = (b.along(scale, 1, rank)?, b.along(bias, 1, rank)?);
    let y = b.binary(BinaryOp::Mul, y, scale)?;
    Ok(vec![b.binary(BinaryOp::Add, y, bias)?])
}

pub(super) fn layer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let (rank, epsilon) = (call.b.rank(x), call.float("epsilon", 1e-5));
    let first = call.axis(call.int("axis", -1), rank)?;
    let [y, mean, inverse] = standardize(call.b, x, &(first..rank).collect::<Vec<_>>(), epsilon)?;
    let mut y = call.b.binary(BinaryOp::Mul, y, scale)?;
    if let Some(bias) = call.optional(2) {
        y = call.b.binary(BinaryOp::Add, y, bias)?;
    }
    Ok(vec![y, mean, inverse])
}

/// `x ÷ √(mean(x²) + ε)` over `axes`; also `1 ÷ √(mean(x²) + ε)`.
pub(super) fn root_mean_square(b: &mut Builder, x: ValueId, axes: &[usize], epsilon: f64) -> Result<[ValueId; 2]> {
    let square = b.binary(BinaryOp::Mul, x, x)?;
    let mean = mean_over(b, square, axes)?;
    let root = b.with(BinaryOp::Add, mean, epsilon)?;
    let root = b.unary(UnaryOp::Sqrt, root)?;
    let inverse = b.unary(UnaryOp::Reciprocal, root)?;
    Ok([b.binary(BinaryOp::Div, x, root)?, inverse])
}

/// Also old exporters' `SimplifiedLayerNormalization`, which has a second output.
pub(super) fn rms(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let (rank, epsilon) = (call.b.rank(x), call.float("epsilon", 1e-5));
    let first = call.axis(call.int("axis", -1), rank)?;
    let [y, inverse] = root_mean_square(call.b, x, &(first..rank).collect::<Vec<_>>(), epsilon)?;
    Ok(vec![call.b.binary(BinaryOp::Mul, y, scale)?, inverse])
}

/// Scale and bias are per channel from operator set 21, per group before.
pub(super) fn group(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let epsilon = call.float("epsilon", 1e-5);
    let shape = call.b.shape(x).to_vec();
    let groups = usize::try_from(call.int("num_groups", 0)).unwrap_or(0);
    if shape.len() < 2 || groups == 0 || !shape[1].is_multiple_of(groups) {
        return invalid(format!("{groups} groups of shape {shape:?}"));
    }
    let split = [shape[0], groups, shape[1..].iter().product::<usize>() / groups];
    let b = &mut *call.b;
    let grouped = b.reshape(x, split.to_vec())?;
    let [y, ..] = standardize(b, grouped, &[2], epsilon)?;
    if call.opset < 21 && b.shape(scale) == [groups] && groups != shape[1] {
        let (scale, bias) = (b.along(scale, 1, 3)?, b.along(bias, 1, 3)?);
        let y = b.binary(BinaryOp::Mul, y, scale)?;
        let y = b.binary(BinaryOp::Add, y, bias)?;
        return Ok(vec![b.reshape(y, shape)?]);
    }
    let y = b.reshape(y, shape.clone())?;
    let (scale, bias) = (b.along(scale, 1, shape.len())?, b.along(bias, 1, shape.len())?);
    let y = b.binary(BinaryOp::Mul, y, scale)?;
    Ok(vec![b.binary(BinaryOp::Add, y, bias)?])
}

pub(super) fn mean_variance(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let axes = call.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = super::super::call::resolve_axes(axes, call.b.rank(x))?;
    // The function's body in ONNX: (x − mean) ÷ (√variance + 1e-9).
    let b = &mut *call.b;
    let mean = mean_over(b, x, &axes)?;
    let centred = b.binary(BinaryOp::Sub, x, mean)?;
    let square = b.binary(BinaryOp::Mul, centred, centred)?;
    let variance = mean_over(b, square, &axes)?;
    let deviation = b.unary(UnaryOp::Sqrt, variance)?;
    let deviation = b.with(BinaryOp::Add, deviation, 1e-9)?;
    Ok(vec![b.binary(BinaryOp::Div, centred, deviation)?])
}

pub(super) fn lp(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let axes = vec![call.axis(call.int("axis", -1), call.b.rank(x))?];
    let norm = match call.int("p", 2) {
        1 => call.b.one(Op::Reduce { kind: ReduceKind::SumAbs, axes }, &[x], None)?,
        2 => {
            let sum = call.b.one(Op::Reduce { kind: ReduceKind::SumSquares, axes }, &[x], None)?;
            call.b.unary(UnaryOp::Sqrt, sum)?
        }
        p => return unsupported(format!("p = {p}")),
    };
    // A row of zeros stays one.
    let empty = call.b.with(BinaryOp::Equal, norm, 0.0)?;
    let one = call.b.scalar(DType::F32, 1.0);
    let norm = call.b.select(empty, one, norm)?;
    Ok(vec![call.b.binary(BinaryOp::Div, x, norm)?])
}

/// `x ÷ (bias + alpha ÷ size · Σ x²)^beta` over `size` neighbouring channels.
pub(super) fn local_response(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let size = usize::try_from(call.int("size", 0)).unwrap_or(0);
    if shape.len() < 2 || size == 0 || call.b.dtype(x) != DType::F32 || size > 1 << 10 {
        return invalid(format!("{size} neighbours of shape {shape:?}"));
    }
    let (alpha, beta, bias) = (call.float("alpha", 1e-4), call.float("beta", 0.75), call.float("bias", 1.0));
    let square = call.b.binary(BinaryOp::Mul, x, x)?;
    let before = (size - 1) / 2;
    let mut sum: Option<ValueId> = None;
    for offset in 0..size {
        // Channel c + offset − before: zeros come in where there is none.
        let mut shifts = vec![0; shape.len()];
        shifts[1] = before as isize - offset as isize;
        let op = Op::Pad { before: shifts, mode: crate::ir::PadMode::Constant(0.0) };
        let moved = call.b.one(op, &[square], Some((DType::F32, shape.clone())))?;
        sum = Some(match sum {
            Some(sum) => call.b.binary(BinaryOp::Add, sum, moved)?,
            None => moved,
        });
    }
    let Some(sum) = sum else { return invalid("size is 0") };
    let y = call.b.with(BinaryOp::Mul, sum, alpha / size as f64)?;
    let y = call.b.with(BinaryOp::Add, y, bias)?;
    let y = call.b.with(BinaryOp::Pow, y, beta)?;
    Ok(vec![call.b.binary(BinaryOp::Div, x, y)?])
}
