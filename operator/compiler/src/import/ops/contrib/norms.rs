//! A sum of what comes along and what is skipped to here, normalised.

use crate::ir::{BinaryOp, ValueId};

use super::super::super::build::{Result, invalid};
use super::super::super::call::Call;
use super::super::normalize::{root_mean_square, standardize};

/// ONNX Runtime's default, for all of its skip layers.
const EPSILON: f32 = 1e-12;

/// Input, skip and bias added up, and the last axis.
fn sum(call: &mut Call<'_, '_>, bias: usize) -> Result<(ValueId, usize)> {
    let (x, skip) = (call.input(0)?, call.input(1)?);
    let Some(axis) = call.b.rank(x).checked_sub(1) else { return invalid("a scalar") };
    // A skip without (or with a smaller) batch is repeated; nothing makes the input larger.
    let mut sum = call.b.binary(BinaryOp::Add, x, skip)?;
    if let Some(bias) = call.optional(bias) {
        sum = call.b.binary(BinaryOp::Add, sum, bias)?;
    }
    Ok((sum, axis))
}

/// Outputs: result, mean, inverse deviation, the sum.
pub(super) fn skip_layer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (sum, axis) = sum(call, 4)?;
    let epsilon = call.float("epsilon", EPSILON);
    let [y, mean, inverse] = standardize(call.b, sum, &[axis], epsilon)?;
    let gamma = call.input(2)?;
    let mut y = call.b.binary(BinaryOp::Mul, y, gamma)?;
    if let Some(beta) = call.optional(3) {
        y = call.b.binary(BinaryOp::Add, y, beta)?;
    }
    Ok(vec![y, mean, inverse, sum])
}

/// Outputs as those of [`skip_layer`]; there is no mean, so that its place holds the inverse too.
pub(super) fn skip_rms(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (sum, axis) = sum(call, 3)?;
    let epsilon = call.float("epsilon", EPSILON);
    let [y, inverse] = root_mean_square(call.b, sum, &[axis], epsilon)?;
    let gamma = call.input(2)?;
    let y = call.b.binary(BinaryOp::Mul, y, gamma)?;
    Ok(vec![y, inverse, inverse, sum])
}
