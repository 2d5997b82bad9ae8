//! Attention over several heads, once their queries, keys and values are there.

use crate::ir::{BinaryOp, DType, Op, Tensor, ValueId};

use super::super::super::build::{Builder, Result, invalid, unsupported};

/// `[b, s, n · d]` as `[b, n, s, d]`.
pub(super) fn split(b: &mut Builder, x: ValueId, heads: usize) -> Result<ValueId> {
    let &[batch, length, width] = b.shape(x) else { return invalid("its operands need three dimensions") };
    if heads == 0 || !width.is_multiple_of(heads) {
        return invalid(format!("{heads} heads of a width of {width}"));
    }
    let x = b.reshape(x, vec![batch, length, heads, width / heads])?;
    b.transpose(x, vec![0, 2, 1, 3])
}

/// `[b, n, s, d]` as `[b, s, n · d]`.
pub(super) fn join(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let &[batch, heads, length, width] = b.shape(x) else { return invalid("its heads need four dimensions") };
    let x = b.transpose(x, vec![0, 2, 1, 3])?;
    b.reshape(x, vec![batch, length, heads * width])
}

/// What is added to the scores and what is left out of them.
#[derive(Default)]
pub(super) struct Masks {
    /// Broadcast over `[b, n, s, t]`.
    pub(super) added: Vec<ValueId>,
    /// Position `i` sees positions up to `i + t − s` only.
    pub(super) causal: bool,
}

/// `softmax(scale · Q · Kᵀ + added) · V` of `q [b, n, s, d]`, `k [b, n, t, d]`, `v [b, n, t, e]`; scale 0 stands for `1 ÷ √d`.
pub(super) fn attend(b: &mut Builder, [q, k, v]: [ValueId; 3], scale: f64, masks: &Masks) -> Result<ValueId> {
    let (&[_, _, s, d], &[_, _, t, _]) = (b.shape(q), b.shape(k)) else {
        return invalid("its heads need four dimensions");
    };
    let scale = if scale == 0.0 { 1.0 / (d as f64).sqrt() } else { scale };
    let k = b.transpose(k, vec![0, 1, 3, 2])?;
    let scores = b.one(Op::MatMul, &[q, k], None)?;
    let mut scores = b.with(BinaryOp::Mul, scores, scale)?;
    for mask in &masks.added {
        scores = b.binary(BinaryOp::Add, scores, *mask)?;
    }
    if masks.causal {
        let hidden = causal(b, s, t)?;
        let lowest = b.scalar(DType::F32, f64::from(f32::MIN));
        scores = b.select(hidden, lowest, scores)?;
    }
    let weights = b.one(Op::Softmax { axis: 3, log: false }, &[scores], None)?;
    b.one(Op::MatMul, &[weights, v], None)
}

/// Most elements of a mask that is written out: 16 MiB as Booleans.
const MAX_MASK: usize = 1 << 24;

fn causal(b: &mut Builder, s: usize, t: usize) -> Result<ValueId> {
    if crate::shape::elements(&[s, t])? > MAX_MASK {
        return unsupported(format!("a causal mask of {s} × {t}"));
    }
    let hidden = (0..s).flat_map(|i| (0..t).map(move |j| i64::from(j + s > i + t))).collect();
    Ok(b.constant(Tensor::int(DType::Bool, vec![s, t], hidden)))
}

/// What a mask of keys adds, in the shapes that ONNX Runtime takes: `[b]` lengths, `[2 · b]` ends and starts, `[b, t]`
/// and `[b, s, t]` of 0 and 1.
pub(super) fn key_mask(b: &mut Builder, mask: ValueId, [batch, s, t]: [usize; 3], filter: f64) -> Result<ValueId> {
    let shape = b.shape(mask).to_vec();
    let mask = if shape.len() == 1 { b.cast(mask, DType::I32)? } else { mask };
    match shape[..] {
        [n] if n == batch => {
            let ends = b.reshape(mask, vec![batch, 1, 1, 1])?;
            let seen = before(b, ends, t)?;
            penalty(b, seen, filter)
        }
        [n] if n == 2 * batch => {
            let (ends, starts) = (b.slice(mask, 0, 0, batch)?, b.slice(mask, 0, batch, batch)?);
            let ends = b.reshape(ends, vec![batch, 1, 1, 1])?;
            let starts = b.reshape(starts, vec![batch, 1, 1, 1])?;
            let (seen, early) = (before(b, ends, t)?, before(b, starts, t)?);
            let late = b.unary(crate::ir::UnaryOp::Not, early)?;
            let seen = b.binary(BinaryOp::And, seen, late)?;
            penalty(b, seen, filter)
        }
        [n, keys] if n == batch && keys == t => raw(b, mask, vec![batch, 1, 1, t], filter),
        [n, rows, keys] if n == batch && rows == s && keys == t => raw(b, mask, vec![batch, 1, s, t], filter),
        _ => unsupported(format!("a mask of shape {shape:?}")),
    }
}

/// Which of `t` positions lie before `ends`.
fn before(b: &mut Builder, ends: ValueId, t: usize) -> Result<ValueId> {
    let numbers = b.numbers(DType::I32, t);
    b.binary(BinaryOp::Less, numbers, ends)
}

fn penalty(b: &mut Builder, seen: ValueId, filter: f64) -> Result<ValueId> {
    let (zero, filter) = (b.scalar(DType::F32, 0.0), b.scalar(DType::F32, filter));
    b.select(seen, zero, filter)
}

/// `(1 − mask) · filter`
fn raw(b: &mut Builder, mask: ValueId, shape: Vec<usize>, filter: f64) -> Result<ValueId> {
    let mask = b.reshape(mask, shape)?;
    let mask = b.cast(mask, DType::F32)?;
    let one = b.scalar(DType::F32, 1.0);
    let hidden = b.binary(BinaryOp::Sub, one, mask)?;
    b.with(BinaryOp::Mul, hidden, filter)
}
