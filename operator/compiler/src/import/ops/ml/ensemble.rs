//! The tree operators.

use crate::ir::{BinaryOp, DType, Tensor, UnaryOp, ValueId};

use super::super::super::build::{Result, invalid, unsupported};
use super::super::super::call::{Call, extent};
use super::forest::Forest;
use super::scores::{Transform, best, labelled, transformed};
use super::walk::{Aggregate, answers, reached, spoken};
use super::{classes, numbers, rows};

/// Most targets or classes.
const MAX_TARGETS: usize = 1 << 16;

fn targets(n: i64) -> Result<usize> {
    match extent(n)? {
        n @ 1..=MAX_TARGETS => Ok(n),
        n => unsupported(format!("{n} targets")),
    }
}

fn with_base(call: &mut Call<'_, '_>, x: ValueId, base: &[f64], targets: usize) -> Result<ValueId> {
    match base.len() {
        0 => Ok(x),
        n if n == targets => {
            let base = call.b.constant(Tensor::f32(vec![n], base.iter().map(|x| *x as f32).collect()));
            call.b.binary(BinaryOp::Add, x, base)
        }
        n => invalid(format!("{n} base values for {targets} targets")),
    }
}

pub(super) fn regressor(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, dims) = rows(call)?;
    let targets = targets(call.int("n_targets", 1))?;
    let forest = Forest::listed(call, "target", targets)?;
    let aggregate = match call.text("aggregate_function", "SUM").as_str() {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Mean,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => return invalid(format!("aggregate_function {other:?}")),
    };
    let at = reached(call.b, &forest, x, dims)?;
    let mut y = answers(call.b, &forest, at, targets, aggregate)?;
    let base = numbers(call, "base_values")?;
    if !base.is_empty() {
        y = with_base(call, y, &base, targets)?;
        // A target that no tree speaks of is 0, without its base value.
        if let Some(spoken) = spoken(call.b, &forest, at, targets)? {
            let zero = call.b.scalar(DType::F32, 0.0);
            y = call.b.select(spoken, y, zero)?;
        }
    }
    let transform = Transform::of(call)?;
    Ok(vec![transformed(call.b, y, transform)?])
}

/// `TreeEnsemble` of operator set 5: the result has the input's type.
pub(super) fn ensemble(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let dtype = call.b.dtype(call.input(0)?);
    let (x, dims) = rows(call)?;
    let targets = targets(call.int("n_targets", 1))?;
    let forest = Forest::compact(call, targets)?;
    let aggregate = match call.int("aggregate_function", 1) {
        0 => Aggregate::Mean,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return invalid(format!("aggregate_function {other}")),
    };
    let at = reached(call.b, &forest, x, dims)?;
    let y = answers(call.b, &forest, at, targets, aggregate)?;
    let transform = Transform::numbered(call.int("post_transform", 0))?;
    let y = transformed(call.b, y, transform)?;
    Ok(vec![call.b.cast(y, dtype)?])
}

/// Labels and scores.
pub(super) fn classifier(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, dims) = rows(call)?;
    let labels = classes(call, "classlabels_int64s")?;
    let count = targets(labels.len() as i64)?;
    let forest = Forest::listed(call, "class", count)?;
    let base = numbers(call, "base_values")?;
    let transform = Transform::of(call)?;
    let at = reached(call.b, &forest, x, dims)?;
    let y = answers(call.b, &forest, at, count, Aggregate::Sum)?;
    if let [first, second] = labels[..] {
        return two_classes(call, &forest, y, &base, transform, [first, second]);
    }
    let y = with_base(call, y, &base, count)?;
    // The best of the classes that any tree speaks of.
    let compared = match spoken(call.b, &forest, at, count)? {
        Some(spoken) => {
            let lowest = call.b.scalar(DType::F32, f64::NEG_INFINITY);
            call.b.select(spoken, y, lowest)?
        }
        None => y,
    };
    let label = best(call.b, compared, &labels)?;
    Ok(vec![label, transformed(call.b, y, transform)?])
}

/// Two classes are ONNX Runtime's special case: which of them the weights name decides what scores and base values mean.
fn two_classes(
    call: &mut Call<'_, '_>,
    forest: &Forest,
    y: ValueId,
    base: &[f64],
    transform: Transform,
    labels: [i64; 2],
) -> Result<Vec<ValueId>> {
    let weights = || forest.leaves.iter().flatten();
    let has = |class: usize| weights().any(|(c, _)| *c == class);
    let are_probabilities = weights().all(|(_, w)| *w >= 0.0);
    let (first, second) = (call.b.slice(y, 1, 0, 1)?, call.b.slice(y, 1, 1, 1)?);
    let limit = if are_probabilities { 0.5 } else { 0.0 };
    if has(0) && has(1) && !forest.always_speaks_of_all(2) {
        return unsupported("leaves that give weight to one of two classes, and others that do to the other or both");
    }
    // The number that decides, from where on it is the second class, and both scores before they are transformed.
    let (score, limit, scores, transform) = match (has(0), has(1), base) {
        // One number for the second class, though the weights name the first.
        (true, false, [] | [_]) => {
            let score = call.b.with(BinaryOp::Add, first, base.first().copied().unwrap_or(0.0))?;
            let other = if are_probabilities && transform != Transform::Logistic {
                let one = call.b.scalar(DType::F32, 1.0);
                call.b.binary(BinaryOp::Sub, one, score)?
            } else {
                call.b.unary(UnaryOp::Neg, score)?
            };
            let transform = match transform {
                Transform::Logistic => transform,
                Transform::Probit => return unsupported("PROBIT of one score for two classes"),
                Transform::None | Transform::Softmax | Transform::SoftmaxZero => Transform::None,
            };
            (score, limit, call.b.concat(&[other, score], 1)?, transform)
        }
        (_, true, []) => (second, if has(0) { 0.0 } else { limit }, y, transform),
        (true, true, [base]) => {
            let first = call.b.with(BinaryOp::Add, first, *base)?;
            (second, 0.0, call.b.concat(&[first, second], 1)?, transform)
        }
        (true, true, [_, base]) => {
            let score = call.b.with(BinaryOp::Add, first, *base)?;
            let other = call.b.unary(UnaryOp::Neg, score)?;
            (score, 0.0, call.b.concat(&[other, score], 1)?, transform)
        }
        _ => return unsupported(format!("{} base values for two classes of which one has weights", base.len())),
    };
    let limit = call.b.scalar(DType::F32, limit);
    let positive = call.b.binary(BinaryOp::Less, limit, score)?;
    let label = labelled(call.b, positive, labels)?;
    Ok(vec![label, transformed(call.b, scores, transform)?])
}
