//! Losses that evaluation graphs compute.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, Tensor, UnaryOp, ValueId};

use super::super::build::{Result, invalid};
use super::super::call::Call;
use super::compose::{bounded, count, reduce};

/// `−weight[target] · log probability[target]`, reduced over everything. The class is picked by comparing it with all of them:
/// a target that is no class, or the one to ignore, weighs nothing.
fn likelihood(call: &mut Call<'_, '_>, log_probability: ValueId) -> Result<ValueId> {
    let (target, weight) = (call.input(1)?, call.optional(2));
    let ignored = call.integer("ignore_index");
    let reduction = call.text("reduction", "mean");
    let shape = call.b.shape(log_probability).to_vec();
    let [n, classes, places @ ..] = &shape[..] else { return invalid(format!("scores of shape {shape:?}")) };
    if call.b.shape(target) != [&[*n], places].concat() {
        return invalid(format!("targets of shape {:?} for scores of {shape:?}", call.b.shape(target)));
    }
    bounded(*classes)?;
    let b = &mut *call.b;
    let target = b.reshape(target, [&[*n, 1], places].concat())?;
    let dtype = b.dtype(target);
    let numbers = count(b, dtype, *classes)?;
    let numbers = b.along(numbers, 1, shape.len())?;
    let mut hit = b.binary(BinaryOp::Equal, target, numbers)?;
    if let Some(ignored) = ignored.filter(|i| (0..*classes as i64).contains(i)) {
        let counts = (0..*classes as i64).map(|c| i64::from(c != ignored)).collect();
        let counts = b.constant(Tensor::int(DType::Bool, vec![*classes], counts));
        let counts = b.along(counts, 1, shape.len())?;
        hit = b.binary(BinaryOp::And, hit, counts)?;
    }
    let zero = b.scalar(DType::F32, 0.0);
    let weight = match weight {
        Some(weight) if b.shape(weight) == [*classes] => Some(b.along(weight, 1, shape.len())?),
        Some(weight) => return invalid(format!("weights of shape {:?} for {classes} classes", b.shape(weight))),
        None => None,
    };
    let loss = match weight {
        Some(weight) => b.binary(BinaryOp::Mul, log_probability, weight)?,
        None => log_probability,
    };
    let loss = b.unary(UnaryOp::Neg, loss)?;
    let loss = b.select(hit, loss, zero)?;
    let everything: Vec<usize> = (0..shape.len()).collect();
    match reduction.as_str() {
        "none" => {
            let loss = reduce(b, ReduceKind::Sum, loss, &[1])?;
            b.reshape(loss, [&[*n], places].concat())
        }
        "sum" => {
            let loss = reduce(b, ReduceKind::Sum, loss, &everything)?;
            b.reshape(loss, Vec::new())
        }
        "mean" => {
            let loss = reduce(b, ReduceKind::Sum, loss, &everything)?;
            let mut weights = weight.unwrap_or(zero);
            if weight.is_none() {
                weights = b.scalar(DType::F32, 1.0);
            }
            let total = if weight.is_none() && ignored.is_none() {
                b.scalar(DType::F32, (shape.iter().product::<usize>() / classes.max(&1)) as f64)
            } else {
                let weights = b.select(hit, weights, zero)?;
                reduce(b, ReduceKind::Sum, weights, &everything)?
            };
            let loss = b.binary(BinaryOp::Div, loss, total)?;
            b.reshape(loss, Vec::new())
        }
        other => invalid(format!("reduction {other:?}")),
    }
}

pub(super) fn negative_log_likelihood(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![likelihood(call, x)?])
}

/// The second output are the logarithms of the probabilities.
pub(super) fn softmax_cross_entropy(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    if call.b.rank(x) < 2 {
        return invalid("scores without classes");
    }
    let log_probability = call.b.one(Op::Softmax { axis: 1, log: true }, &[x], None)?;
    Ok(vec![likelihood(call, log_probability)?, log_probability])
}
