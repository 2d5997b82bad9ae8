//! What becomes of scores: `post_transform`, and the label of the best one.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, Tensor, UnaryOp, ValueId};

use super::super::super::build::{Builder, Result, invalid};
use super::super::super::call::Call;
use super::super::reduce::best_index;

/// `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Transform {
    None,
    Softmax,
    Logistic,
    /// Softmax over what is not 0; what is 0 stays so.
    SoftmaxZero,
    /// The inverse of the normal distribution's integral.
    Probit,
}

impl Transform {
    pub(super) fn of(call: &Call<'_, '_>) -> Result<Self> {
        Ok(match call.text("post_transform", "NONE").as_str() {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => return invalid(format!("post_transform {other:?}")),
        })
    }

    /// As `TreeEnsemble` numbers them.
    pub(super) fn numbered(n: i64) -> Result<Self> {
        let all = [Self::None, Self::Softmax, Self::Logistic, Self::SoftmaxZero, Self::Probit];
        match usize::try_from(n).ok().and_then(|n| all.get(n)) {
            Some(transform) => Ok(*transform),
            None => invalid(format!("post_transform {n}")),
        }
    }
}

/// Scores `[n, k]` transformed.
pub(super) fn transformed(b: &mut Builder, x: ValueId, transform: Transform) -> Result<ValueId> {
    match transform {
        Transform::None => Ok(x),
        Transform::Softmax => b.one(Op::Softmax { axis: 1, log: false }, &[x], None),
        Transform::Logistic => b.unary(UnaryOp::Sigmoid, x),
        Transform::SoftmaxZero => softmax_zero(b, x),
        Transform::Probit => probit(b, x),
    }
}

fn softmax_zero(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let largest = b.one(Op::Reduce { kind: ReduceKind::Max, axes: vec![1] }, &[x], None)?;
    let e = b.binary(BinaryOp::Sub, x, largest)?;
    let e = b.unary(UnaryOp::Exp, e)?;
    let magnitude = b.unary(UnaryOp::Abs, x)?;
    let is_zero = b.with(BinaryOp::LessOrEqual, magnitude, 1e-7)?;
    let zero = b.scalar(DType::F32, 0.0);
    let e = b.select(is_zero, zero, e)?;
    let sum = b.one(Op::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[e], None)?;
    b.binary(BinaryOp::Div, e, sum)
}

/// `√2 · erf⁻¹(2x − 1)`, with the approximation of the inverse by Winitzki (2008) that ONNX Runtime has.
fn probit(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    const A: f64 = 0.147;
    let y = b.with(BinaryOp::Mul, x, 2.0)?;
    let y = b.with(BinaryOp::Sub, y, 1.0)?;
    let sign = b.unary(UnaryOp::Sign, y)?;
    let one = b.scalar(DType::F32, 1.0);
    let (less, more) = (b.binary(BinaryOp::Sub, one, y)?, b.with(BinaryOp::Add, y, 1.0)?);
    let log = b.binary(BinaryOp::Mul, less, more)?;
    let log = b.unary(UnaryOp::Log, log)?;
    let half = b.with(BinaryOp::Mul, log, 0.5)?;
    let v = b.with(BinaryOp::Add, half, 2.0 / (std::f64::consts::PI * A))?;
    let w = b.with(BinaryOp::Mul, log, 1.0 / A)?;
    let root = b.binary(BinaryOp::Mul, v, v)?;
    let root = b.binary(BinaryOp::Sub, root, w)?;
    let root = b.unary(UnaryOp::Sqrt, root)?;
    let root = b.binary(BinaryOp::Sub, root, v)?;
    let root = b.unary(UnaryOp::Sqrt, root)?;
    let y = b.binary(BinaryOp::Mul, sign, root)?;
    b.with(BinaryOp::Mul, y, std::f64::consts::SQRT_2)
}

/// The label of the largest score of each row: `[n, k] → [n]` (I64).
pub(super) fn best(b: &mut Builder, scores: ValueId, labels: &[i64]) -> Result<ValueId> {
    let &[n, _] = b.shape(scores) else { return invalid("scores need two dimensions") };
    let index = best_index(b, scores, true, 1, false)?;
    let index = b.reshape(index, vec![n])?;
    let labels = b.constant(Tensor::int(DType::I64, vec![labels.len()], labels.to_vec()));
    b.one(Op::Gather { axis: 0 }, &[labels, index], None)
}

/// One of two labels: `[n, 1] (Boolean) → [n]` (I64).
pub(super) fn labelled(b: &mut Builder, positive: ValueId, labels: [i64; 2]) -> Result<ValueId> {
    let n = b.graph.value(positive).len();
    let index = b.cast(positive, DType::I32)?;
    let index = b.reshape(index, vec![n])?;
    let labels = b.constant(Tensor::int(DType::I64, vec![2], labels.to_vec()));
    b.one(Op::Gather { axis: 0 }, &[labels, index], None)
}
