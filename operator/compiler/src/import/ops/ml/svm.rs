//! Support vector machines.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, Tensor, UnaryOp, ValueId};

use super::super::super::build::{Builder, Result, invalid, unsupported};
use super::super::super::call::{Call, extent};
use super::linear::{above_zero, combine};
use super::scores::{Transform, best, transformed};
use super::{classes, integers, numbers, rows};

/// Most weights of all pairs of classes over all vectors: 256 MiB of f32.
const MAX_WEIGHTS: usize = 1 << 26;

/// How two rows are compared.
enum Kernel {
    Linear,
    Poly { gamma: f64, offset: f64, degree: f64 },
    Rbf { gamma: f64 },
    Sigmoid { gamma: f64, offset: f64 },
}

impl Kernel {
    fn of(call: &Call<'_, '_>) -> Result<Self> {
        let parameters = numbers(call, "kernel_params")?;
        let at = |i: usize| parameters.get(i).copied().unwrap_or(0.0);
        Ok(match call.text("kernel_type", "LINEAR").as_str() {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Poly { gamma: at(0), offset: at(1), degree: at(2) },
            "RBF" => Self::Rbf { gamma: at(0) },
            "SIGMOID" => Self::Sigmoid { gamma: at(0), offset: at(1) },
            other => return invalid(format!("kernel_type {other:?}")),
        })
    }

    /// `x [n, f]` with each of `vectors [v, f]`: `[n, v]`.
    fn values(&self, b: &mut Builder, x: ValueId, vectors: &[f32], features: usize) -> Result<ValueId> {
        let count = vectors.len() / features;
        match self {
            Self::Rbf { gamma } => rbf(b, x, vectors, features, *gamma),
            Self::Linear | Self::Poly { .. } | Self::Sigmoid { .. } => {
                let matrix = b.constant(Tensor::f32(vec![count, features], vectors.to_vec()));
                let matrix = b.transpose(matrix, vec![1, 0])?;
                let y = b.one(Op::MatMul, &[x, matrix], None)?;
                let (gamma, offset) = match self {
                    Self::Linear | Self::Rbf { .. } => return Ok(y),
                    Self::Poly { gamma, offset, .. } | Self::Sigmoid { gamma, offset } => (*gamma, *offset),
                };
                let y = b.with(BinaryOp::Mul, y, gamma)?;
                let y = b.with(BinaryOp::Add, y, offset)?;
                match self {
                    Self::Poly { degree, .. } => power(b, y, *degree),
                    _ => b.unary(UnaryOp::Tanh, y),
                }
            }
        }
    }
}

/// Small whole powers by multiplication, which is exact in sign.
fn power(b: &mut Builder, x: ValueId, degree: f64) -> Result<ValueId> {
    match degree {
        1.0 => Ok(x),
        2.0 => b.binary(BinaryOp::Mul, x, x),
        3.0 => {
            let square = b.binary(BinaryOp::Mul, x, x)?;
            b.binary(BinaryOp::Mul, square, x)
        }
        degree => b.with(BinaryOp::Pow, x, degree),
    }
}

/// `e^(−gamma · |x − v|²)`, as `|x|² − 2x·v + |v|²` around the vectors' mean, so that little cancels.
fn rbf(b: &mut Builder, x: ValueId, vectors: &[f32], features: usize, gamma: f64) -> Result<ValueId> {
    let count = vectors.len() / features;
    let mut mean = vec![0.0f64; features];
    for row in vectors.chunks_exact(features) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) / count as f64);
    }
    let mean: Vec<f32> = mean.into_iter().map(|m| m as f32).collect();
    let centred: Vec<f32> =
        vectors.chunks_exact(features).flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m)).collect();
    let squares =
        centred.chunks_exact(features).map(|row| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() as f32);
    let squares = b.constant(Tensor::f32(vec![1, count], squares.collect()));
    let mean = b.constant(Tensor::f32(vec![1, features], mean));
    let matrix = b.constant(Tensor::f32(vec![count, features], centred));
    let matrix = b.transpose(matrix, vec![1, 0])?;
    let x = b.binary(BinaryOp::Sub, x, mean)?;
    let product = b.one(Op::MatMul, &[x, matrix], None)?;
    let square = b.one(Op::Reduce { kind: ReduceKind::SumSquares, axes: vec![1] }, &[x], None)?;
    let twice = b.with(BinaryOp::Mul, product, 2.0)?;
    let distance = b.binary(BinaryOp::Sub, square, twice)?;
    let distance = b.binary(BinaryOp::Add, distance, squares)?;
    let distance = b.with(BinaryOp::Max, distance, 0.0)?;
    let exponent = b.with(BinaryOp::Mul, distance, -gamma)?;
    b.unary(UnaryOp::Exp, exponent)
}

/// Support vectors, `count` of them.
fn vectors(call: &Call<'_, '_>, count: usize, features: usize) -> Result<Vec<f32>> {
    let vectors = numbers(call, "support_vectors")?;
    if count == 0 || features == 0 || vectors.len() != count.saturating_mul(features) {
        return invalid(format!("{} numbers for {count} support vectors of {features} features", vectors.len()));
    }
    Ok(vectors.into_iter().map(|v| v as f32).collect())
}

pub(super) fn regressor(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, [_, features]) = rows(call)?;
    let (kernel, coefficients, rho) = (Kernel::of(call)?, numbers(call, "coefficients")?, numbers(call, "rho")?);
    let transform = call.text("post_transform", "NONE");
    if transform != "NONE" {
        return unsupported(format!("post_transform {transform} of a regression"));
    }
    let count = extent(call.int("n_supports", 0))?;
    let y = if count > 0 {
        let vectors = vectors(call, count, features)?;
        let values = kernel.values(call.b, x, &vectors, features)?;
        combine(call.b, values, count, &coefficients, &rho)?.0
    } else {
        let weights: Vec<f32> = coefficients.iter().map(|c| *c as f32).collect();
        if features == 0 || weights.len() != features {
            return invalid(format!("{} coefficients for {features} features", weights.len()));
        }
        let y = kernel.values(call.b, x, &weights, features)?;
        call.b.with(BinaryOp::Add, y, rho.first().copied().unwrap_or(0.0))?
    };
    if call.flag("one_class", false) {
        // Inside or outside.
        let positive = above_zero(call.b, y)?;
        let (inside, outside) = (call.b.scalar(DType::F32, 1.0), call.b.scalar(DType::F32, -1.0));
        return Ok(vec![call.b.select(positive, inside, outside)?]);
    }
    Ok(vec![y])
}

/// Labels and scores: one decision for each pair of classes, and the class that wins most of them.
pub(super) fn classifier(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, [n, features]) = rows(call)?;
    let (kernel, coefficients, rho) = (Kernel::of(call)?, numbers(call, "coefficients")?, numbers(call, "rho")?);
    let labels = classes(call, "classlabels_ints")?;
    let transform = Transform::of(call)?;
    let per_class = integers(call, "vectors_per_class").iter().map(|n| extent(*n)).collect::<Result<Vec<_>>>()?;
    if per_class.is_empty() {
        return linear(call, x, &kernel, [features, labels.len()], &labels);
    }
    let classes = per_class.len();
    let count = per_class.iter().try_fold(0usize, |n, c| n.checked_add(*c)).unwrap_or(usize::MAX);
    let pairs = classes * (classes - 1) / 2;
    if !(2..=256).contains(&classes) || labels.len() != classes {
        return unsupported(format!("{classes} classes with support vectors"));
    }
    if pairs.saturating_mul(count) > MAX_WEIGHTS {
        return unsupported(format!("{count} support vectors for {pairs} pairs of classes"));
    }
    let vectors = vectors(call, count, features)?;
    if coefficients.len() != count * (classes - 1) || rho.len() != pairs {
        return invalid("coefficients or rho that do not fit the support vectors");
    }
    let starts: Vec<usize> = per_class.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
    // One row of weights over all vectors for each pair.
    let mut weights = Vec::with_capacity(pairs * count);
    for i in 0..classes {
        for j in i + 1..classes {
            let mut row = vec![0.0; count];
            for (class, other) in [(i, j - 1), (j, i)] {
                let range = starts[class]..starts[class] + per_class[class];
                row[range.clone()].copy_from_slice(&coefficients[other * count..(other + 1) * count][range]);
            }
            weights.extend(row);
        }
    }
    let values = kernel.values(call.b, x, &vectors, features)?;
    let (decisions, _) = combine(call.b, values, count, &weights, &rho)?;
    if call.floats("prob_a").is_some_and(|a| !a.is_empty()) {
        return unsupported(
            "probabilities of a support vector machine, which ONNX Runtime finds by iteration; train with \
             probability=False, or use a classifier that gives probabilities by itself",
        );
    }
    let label = vote(call.b, decisions, classes, &labels)?;
    if classes == 2 {
        // What ONNX Runtime gives for the other one depends on the transform, and only one of them is carried out.
        let other = match transform {
            Transform::None | Transform::Logistic => call.b.unary(UnaryOp::Neg, decisions)?,
            Transform::Softmax | Transform::SoftmaxZero | Transform::Probit => {
                let one = call.b.scalar(DType::F32, 1.0);
                call.b.binary(BinaryOp::Sub, one, decisions)?
            }
        };
        let both = call.b.concat(&[other, decisions], 1)?;
        let transform = if transform == Transform::Logistic { transform } else { Transform::None };
        let scores = transformed(call.b, both, transform)?;
        return Ok(vec![label, call.b.reshape(scores, vec![n, 2])?]);
    }
    Ok(vec![label, transformed(call.b, decisions, transform)?])
}

/// Who wins most pairs; of equal ones the first.
fn vote(b: &mut Builder, decisions: ValueId, classes: usize, labels: &[i64]) -> Result<ValueId> {
    let positive = above_zero(b, decisions)?;
    let positive = b.cast(positive, DType::F32)?;
    let pairs = classes * (classes - 1) / 2;
    // wins = positive · P + (1 − positive) · N = positive · (P − N) + Σ N
    let (mut matrix, mut base) = (vec![0.0f32; pairs * classes], vec![0.0f32; classes]);
    let mut pair = 0;
    for i in 0..classes {
        for j in i + 1..classes {
            matrix[pair * classes + i] += 1.0;
            matrix[pair * classes + j] -= 1.0;
            base[j] += 1.0;
            pair += 1;
        }
    }
    let matrix = b.constant(Tensor::f32(vec![pairs, classes], matrix));
    let base = b.constant(Tensor::f32(vec![1, classes], base));
    let votes = b.one(Op::MatMul, &[positive, matrix], None)?;
    let votes = b.binary(BinaryOp::Add, votes, base)?;
    best(b, votes, labels)
}

/// Without support vectors: one row of coefficients for each class.
fn linear(
    call: &mut Call<'_, '_>,
    x: ValueId,
    kernel: &Kernel,
    [features, classes]: [usize; 2],
    labels: &[i64],
) -> Result<Vec<ValueId>> {
    let transform = Transform::of(call)?;
    let (coefficients, rho) = (numbers(call, "coefficients")?, numbers(call, "rho")?);
    if features == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(features) {
        return invalid(format!("{} coefficients for {features} features", coefficients.len()));
    }
    let rows = coefficients.len() / features;
    let weights: Vec<f32> = coefficients.iter().map(|c| *c as f32).collect();
    let y = kernel.values(call.b, x, &weights, features)?;
    let y = call.b.with(BinaryOp::Add, y, rho.first().copied().unwrap_or(0.0))?;
    if classes < 3 {
        return unsupported("two classes without support vectors");
    }
    if rows != classes {
        return invalid(format!("{rows} scores for {classes} classes"));
    }
    let label = best(call.b, y, labels)?;
    Ok(vec![label, transformed(call.b, y, transform)?])
}
