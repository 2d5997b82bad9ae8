//! Linear models.

use crate::ir::{BinaryOp, DType, Op, Tensor, UnaryOp, ValueId};

use super::super::super::build::{Builder, Result, invalid};
use super::super::super::call::{Call, extent};
use super::scores::{Transform, best, labelled, transformed};
use super::{classes, numbers, rows};

/// `x [n, f]` times coefficients `[k, f]`, transposed, and intercepts: `[n, k]`.
pub(super) fn combine(
    b: &mut Builder,
    x: ValueId,
    features: usize,
    coefficients: &[f64],
    intercepts: &[f64],
) -> Result<(ValueId, usize)> {
    if features == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(features) {
        return invalid(format!("{} coefficients for {features} features", coefficients.len()));
    }
    let k = coefficients.len() / features;
    let weights = b.constant(Tensor::f32(vec![k, features], coefficients.iter().map(|c| *c as f32).collect()));
    let weights = b.transpose(weights, vec![1, 0])?;
    let mut y = b.one(Op::MatMul, &[x, weights], None)?;
    if !intercepts.is_empty() {
        if intercepts.len() != k && intercepts.len() != 1 {
            return invalid(format!("{} intercepts for {k} scores", intercepts.len()));
        }
        let intercepts =
            b.constant(Tensor::f32(vec![intercepts.len()], intercepts.iter().map(|c| *c as f32).collect()));
        y = b.binary(BinaryOp::Add, y, intercepts)?;
    }
    Ok((y, k))
}

pub(super) fn regressor(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, [_, features]) = rows(call)?;
    let (coefficients, intercepts) = (numbers(call, "coefficients")?, numbers(call, "intercepts")?);
    let (y, targets) = combine(call.b, x, features, &coefficients, &intercepts)?;
    if extent(call.int("targets", 1))? != targets {
        return invalid(format!("coefficients for {targets} targets"));
    }
    let transform = Transform::of(call)?;
    Ok(vec![transformed(call.b, y, transform)?])
}

/// Labels and scores. One row of coefficients for two classes is the second one's score.
pub(super) fn classifier(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, [_, features]) = rows(call)?;
    let (coefficients, intercepts) = (numbers(call, "coefficients")?, numbers(call, "intercepts")?);
    let labels = classes(call, "classlabels_ints")?;
    let transform = Transform::of(call)?;
    let (y, scores) = combine(call.b, x, features, &coefficients, &intercepts)?;
    if scores == 1 && labels.len() == 2 {
        let positive = above_zero(call.b, y)?;
        let label = labelled(call.b, positive, [labels[0], labels[1]])?;
        return Ok(vec![label, two_sided(call.b, y, transform)?]);
    }
    if scores != labels.len() {
        return invalid(format!("{scores} scores for {} classes", labels.len()));
    }
    let label = best(call.b, y, &labels)?;
    Ok(vec![label, transformed(call.b, y, transform)?])
}

pub(super) fn above_zero(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let zero = b.scalar(DType::F32, 0.0);
    b.binary(BinaryOp::Less, zero, x)
}

/// The scores of two classes of which only the second has one: `[n, 1] → [n, 2]`.
fn two_sided(b: &mut Builder, y: ValueId, transform: Transform) -> Result<ValueId> {
    match transform {
        Transform::Logistic => {
            let other = b.unary(UnaryOp::Neg, y)?;
            let both = b.concat(&[other, y], 1)?;
            b.unary(UnaryOp::Sigmoid, both)
        }
        transform => {
            let one = b.scalar(DType::F32, 1.0);
            let y = if transform == Transform::Probit { transformed(b, y, transform)? } else { y };
            let other = b.binary(BinaryOp::Sub, one, y)?;
            b.concat(&[other, y], 1)
        }
    }
}
