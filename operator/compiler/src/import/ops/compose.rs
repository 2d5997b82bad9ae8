//! Small compositions that several families of operators share.

use crate::ir::{BinaryOp, DType, Data, Op, PadMode, ReduceKind, Tensor, ValueId};

use super::super::build::{Builder, Result, unsupported};

/// Most elements of a table that is made at compile time (a mask, a transform's matrix): 64 MiB of f32.
pub(super) const MAX_TABLE: usize = 1 << 24;

/// `len` elements of `x` along `axis`, the first one at `start`, then each `step`-th.
pub(super) fn cut(b: &mut Builder, x: ValueId, axis: usize, start: usize, len: usize, step: usize) -> Result<ValueId> {
    let (dtype, mut out) = (b.dtype(x), b.shape(x).to_vec());
    let rank = out.len();
    let Some(extent) = out.get_mut(axis) else { return unsupported(format!("axis {axis} of {rank} dimensions")) };
    *extent = len;
    let (mut starts, mut steps) = (vec![0; rank], vec![1; rank]);
    starts[axis] = start;
    steps[axis] = step as isize;
    b.one(Op::Slice { starts, steps }, &[x], Some((dtype, out)))
}

/// All of `x` from the last to the first along `axis`.
pub(super) fn mirror(b: &mut Builder, x: ValueId, axis: usize) -> Result<ValueId> {
    let (dtype, out) = (b.dtype(x), b.shape(x).to_vec());
    let (mut starts, mut steps) = (vec![0; out.len()], vec![1; out.len()]);
    (starts[axis], steps[axis]) = (out[axis].saturating_sub(1), -1);
    b.one(Op::Slice { starts, steps }, &[x], Some((dtype, out)))
}

/// Joined along `axis`; parts without elements are left out.
pub(super) fn join(b: &mut Builder, parts: &[ValueId], axis: usize) -> Result<ValueId> {
    let kept: Vec<ValueId> = parts.iter().copied().filter(|p| b.shape(*p).get(axis) != Some(&0)).collect();
    let parts = if kept.is_empty() { parts.get(..1).unwrap_or_default() } else { &kept };
    b.one(Op::Concat { axis }, parts, None)
}

/// `value` before and after along `axis`; a negative count cuts.
pub(super) fn pad_along(
    b: &mut Builder,
    x: ValueId,
    axis: usize,
    (before, after): (isize, isize),
    value: f64,
) -> Result<ValueId> {
    let (dtype, mut out) = (b.dtype(x), b.shape(x).to_vec());
    let mut lead = vec![0; out.len()];
    lead[axis] = before;
    let Some(extent) = out[axis].checked_add_signed(before).and_then(|n| n.checked_add_signed(after)) else {
        return unsupported("padding that cuts more than there is");
    };
    out[axis] = extent;
    b.one(Op::Pad { before: lead, mode: PadMode::Constant(value) }, &[x], Some((dtype, out)))
}

/// Reduced over `axes`, which stay with extent 1.
pub(super) fn reduce(b: &mut Builder, kind: ReduceKind, x: ValueId, axes: &[usize]) -> Result<ValueId> {
    b.one(Op::Reduce { kind, axes: axes.to_vec() }, &[x], None)
}

/// `a · b` of matrices in the last two dimensions.
pub(super) fn product(b: &mut Builder, left: ValueId, right: ValueId) -> Result<ValueId> {
    b.one(Op::MatMul, &[left, right], None)
}

/// The integers `0 .. n` as numbers of any type.
pub(super) fn count(b: &mut Builder, dtype: DType, n: usize) -> Result<ValueId> {
    bounded(n)?;
    Ok(b.numbers(dtype, n))
}

/// A table `[rows, cols]` of a function of row and column.
pub(super) fn table(
    b: &mut Builder,
    dtype: DType,
    (rows, cols): (usize, usize),
    f: impl Fn(i64, i64) -> i64,
) -> Result<ValueId> {
    bounded(rows.saturating_mul(cols))?;
    let places = (0..rows as i64).flat_map(|r| (0..cols as i64).map(move |c| (r, c)));
    let data: Vec<f64> = places.map(|(r, c)| f(r, c) as f64).collect();
    Ok(b.constant(Tensor { dtype, shape: vec![rows, cols], data: Data::of(dtype, &data) }))
}

/// Refuses tables that are larger than [`MAX_TABLE`].
pub(super) fn bounded(elements: usize) -> Result<()> {
    if elements > MAX_TABLE {
        return unsupported(format!("a table of {elements} elements; at most {MAX_TABLE} are made at compile time"));
    }
    Ok(())
}

/// Held between two numbers.
pub(super) fn clamp(b: &mut Builder, x: ValueId, low: f64, high: f64) -> Result<ValueId> {
    let x = b.with(BinaryOp::Max, x, low)?;
    b.with(BinaryOp::Min, x, high)
}
