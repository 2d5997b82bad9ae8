//! A product or a convolution and what follows it, in one operator.

use crate::ir::{BinaryOp, Op, ReduceKind, UnaryOp, ValueId};

use super::super::super::build::{Result, invalid, unsupported};
use super::super::super::call::Call;
use super::super::{activations, product, window};

pub(super) fn bias_gelu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = biased(call, 0, 1)?;
    Ok(vec![activations::gelu_of(call.b, x)?])
}

pub(super) fn fast_gelu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = biased(call, 0, 1)?;
    Ok(vec![activations::fast_gelu_of(call.b, x)?])
}

/// Input `x`, with input `bias` added where it is there.
fn biased(call: &mut Call<'_, '_>, x: usize, bias: usize) -> Result<ValueId> {
    let x = call.input(x)?;
    match call.optional(bias) {
        Some(bias) => call.b.binary(BinaryOp::Add, x, bias),
        None => Ok(x),
    }
}

/// `x · sigmoid(alpha · x)`
pub(super) fn quick_gelu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 1.702));
    let scaled = call.b.with(BinaryOp::Mul, x, alpha)?;
    let y = call.b.unary(UnaryOp::Sigmoid, scaled)?;
    Ok(vec![call.b.binary(BinaryOp::Mul, x, y)?])
}

/// The first half of the last dimension times Gelu of the second.
pub(super) fn bias_split_gelu(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = biased(call, 0, 1)?;
    let Some((&width, outer)) = call.b.shape(x).split_last() else { return invalid("a scalar") };
    let (axis, half) = (outer.len(), width / 2);
    if width % 2 != 0 {
        return invalid(format!("a width of {width} is not split in halves"));
    }
    let left = call.b.slice(x, axis, 0, half)?;
    let right = call.b.slice(x, axis, half, half)?;
    let right = activations::gelu_of(call.b, right)?;
    Ok(vec![call.b.binary(BinaryOp::Mul, left, right)?])
}

/// `x + bias + skip`
pub(super) fn bias_add(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, skip) = (biased(call, 0, 1)?, call.input(2)?);
    Ok(vec![call.b.binary(BinaryOp::Add, x, skip)?])
}

/// What the attributes `activation` and `parameters` make of a value.
fn activated(call: &mut Call<'_, '_>, x: ValueId, parameters: &[Option<f64>]) -> Result<ValueId> {
    let name = call.text("activation", "").to_ascii_lowercase();
    activations::named(call.b, &name, x, parameters)
}

/// A convolution, `+ Z`, and an activation.
pub(super) fn conv(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let added = call.optional(3);
    call.inputs.truncate(3);
    let mut y = window::conv(call)?[0];
    if let Some(z) = added {
        y = call.b.binary(BinaryOp::Add, y, z)?;
    }
    let parameters = call.floats("activation_params").unwrap_or_default();
    let parameters: Vec<_> = parameters.iter().map(|p| Some(f64::from(*p))).collect();
    Ok(vec![activated(call, y, &parameters)?])
}

/// Channels last, in the input, in the output and in what is added; weights as in ONNX's `Conv`.
pub(super) fn nhwc_conv(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    for i in [0, 3] {
        if let Some(x) = call.optional(i) {
            let rank = call.b.rank(x);
            if rank < 3 {
                return invalid(format!("an input of {rank} dimensions"));
            }
            let perm = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
            call.inputs[i] = Some(call.b.transpose(x, perm)?);
        }
    }
    let y = conv(call)?[0];
    let rank = call.b.rank(y);
    let perm = std::iter::once(0).chain(2..rank).chain([1]).collect();
    Ok(vec![call.b.transpose(y, perm)?])
}

/// `alpha · A′ · B′`; `transBatchA` first moves A's dimension 0 behind the other batch dimensions.
pub(super) fn mat_mul(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut operands = [call.input(0)?, call.input(1)?];
    for (x, [matrix, batch]) in operands.iter_mut().zip([["transA", "transBatchA"], ["transB", "transBatchB"]]) {
        let rank = call.b.rank(*x);
        // Vectors have nothing to transpose.
        if rank < 2 {
            continue;
        }
        let mut perm: Vec<usize> = (0..rank).collect();
        if call.flag(batch, false) {
            perm[..rank - 1].rotate_left(1);
        }
        if call.flag(matrix, false) {
            perm.swap(rank - 2, rank - 1);
        }
        *x = call.b.transpose(*x, perm)?;
    }
    let [mut a, mut b] = operands;
    let alpha = call.float("alpha", 1.0);
    if alpha != 1.0 {
        let side = if call.b.known(b).is_some() { &mut b } else { &mut a };
        *side = call.b.with(BinaryOp::Mul, *side, alpha)?;
    }
    Ok(vec![product::matmul(call.b, a, b)?])
}

/// `Gemm` and an activation.
pub(super) fn gemm(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let y = product::gemm(call)?[0];
    let names = ["activation_alpha", "activation_beta", "activation_gamma"];
    // Each has a default of its own.
    let parameters = names.map(|n| call.attribute(n).is_some().then(|| call.float(n, 0.0)));
    Ok(vec![activated(call, y, &parameters)?])
}

/// Most differences that are written out: 64 MiB of f32.
const MAX_DIFFERENCES: usize = 1 << 24;

/// `A [n, d], B [m, d] → [n, m]`: distances of each row to each row.
pub(super) fn distances(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let (&[n, d], &[m, width]) = (call.b.shape(a), call.b.shape(b)) else {
        return invalid("operands need two dimensions");
    };
    if d != width {
        return invalid(format!("rows of {d} and of {width}"));
    }
    let square = match call.text("metric", "sqeuclidean").as_str() {
        "sqeuclidean" => true,
        "euclidean" => false,
        other => return unsupported(format!("the metric {other:?}")),
    };
    if crate::shape::elements(&[n, m, d])? > MAX_DIFFERENCES {
        return unsupported(format!("distances of {n} rows to {m} rows of {d}; give smaller batches"));
    }
    let b3 = &mut *call.b;
    let a = b3.reshape(a, vec![n, 1, d])?;
    let b = b3.reshape(b, vec![1, m, d])?;
    let difference = b3.binary(BinaryOp::Sub, a, b)?;
    let sum = b3.one(Op::Reduce { kind: ReduceKind::SumSquares, axes: vec![2] }, &[difference], None)?;
    let sum = b3.reshape(sum, vec![n, m])?;
    Ok(vec![if square { sum } else { b3.unary(UnaryOp::Sqrt, sum)? }])
}
