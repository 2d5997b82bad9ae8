//! Matrix products.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::Call;

/// numpy's `matmul`: vectors become matrices and lose the dimension again.
pub(super) fn matmul(b: &mut Builder, mut left: ValueId, mut right: ValueId) -> Result<ValueId> {
    let (rank_left, rank_right) = (b.rank(left), b.rank(right));
    if rank_left == 0 || rank_right == 0 {
        return invalid("a scalar in a matrix product");
    }
    if rank_left == 1 {
        let k = b.shape(left)[0];
        left = b.reshape(left, vec![1, k])?;
    }
    if rank_right == 1 {
        let k = b.shape(right)[0];
        right = b.reshape(right, vec![k, 1])?;
    }
    let product = b.one(Op::MatMul, &[left, right], None)?;
    let mut shape = b.shape(product).to_vec();
    if rank_right == 1 {
        shape.pop();
    }
    if rank_left == 1 {
        shape.remove(shape.len() - usize::from(rank_right != 1) - 1);
    }
    b.reshape(product, shape)
}

pub(super) fn mat_mul(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    Ok(vec![matmul(call.b, a, b)?])
}

/// `alpha · A′ · B′ + beta · C`
pub(super) fn gemm(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (mut a, mut b) = (call.input(0)?, call.input(1)?);
    if call.b.rank(a) != 2 || call.b.rank(b) != 2 {
        return invalid("operands need two dimensions");
    }
    if call.flag("transA", false) {
        a = call.b.transpose(a, vec![1, 0])?;
    }
    if call.flag("transB", false) {
        b = call.b.transpose(b, vec![1, 0])?;
    }
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    if alpha != 1.0 && call.b.dtype(a) == DType::F32 {
        // On the side that is known, so that nothing remains to do at run time.
        if call.b.known(b).is_some() {
            b = call.b.with(BinaryOp::Mul, b, alpha)?;
        } else {
            a = call.b.with(BinaryOp::Mul, a, alpha)?;
        }
    }
    let mut product = call.b.one(Op::MatMul, &[a, b], None)?;
    if let Some(mut c) = call.optional(2) {
        if beta != 1.0 {
            c = call.b.with(BinaryOp::Mul, c, beta)?;
        }
        product = call.b.binary(BinaryOp::Add, product, c)?;
    }
    Ok(vec![product])
}

/// The sums of products that transformers use: two operands at most, no ellipsis, no repeated label in one operand.
pub(super) fn einsum(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let equation: String = call.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(l, r)| (l, Some(r)));
    let terms: Vec<Vec<char>> = left.split(',').map(|t| t.chars().collect()).collect();
    let repeats = |t: &[char]| t.iter().enumerate().any(|(i, c)| t[..i].contains(c));
    if equation.contains('.') || terms.len() > 2 || terms.iter().any(|t| repeats(t)) || terms.len() != call.inputs.len()
    {
        return unsupported(format!("the equation {equation:?}"));
    }
    let output: Vec<char> = match right {
        Some(right) => right.chars().collect(),
        // Implicit: labels that occur once, in alphabetical order.
        None => {
            let mut labels: Vec<char> = terms.concat();
            labels.sort_unstable();
            labels.chunk_by(|a, b| a == b).filter(|c| c.len() == 1).map(|c| c[0]).collect()
        }
    };
    if repeats(&output) || output.iter().any(|c| !terms.iter().any(|t| t.contains(c))) {
        return invalid(format!("the equation {equation:?}"));
    }
    let mut operands = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let x = call.input(i)?;
        if call.b.rank(x) != term.len() {
            return invalid(format!("operand {i} has {} dimensions in {equation:?}", call.b.rank(x)));
        }
        operands.push(sum_out(call.b, x, term, |c| {
            output.contains(c) || terms.iter().filter(|t| t.contains(c)).count() > 1
        })?);
    }
    let (x, labels) = if let [(a, la), (b, lb)] = &operands[..] {
        contract(call.b, (*a, la), (*b, lb), &output)?
    } else {
        operands.remove(0)
    };
    let perm = output.iter().map(|c| labels.iter().position(|l| l == c)).collect::<Option<Vec<_>>>();
    let Some(perm) = perm else { return invalid(format!("the equation {equation:?}")) };
    Ok(vec![call.b.transpose(x, perm)?])
}

/// Sums over the labels that nobody needs.
fn sum_out(b: &mut Builder, x: ValueId, labels: &[char], keep: impl Fn(&char) -> bool) -> Result<(ValueId, Vec<char>)> {
    let axes: Vec<usize> = (0..labels.len()).filter(|i| !keep(&labels[*i])).collect();
    if axes.is_empty() {
        return Ok((x, labels.to_vec()));
    }
    let shape = (0..labels.len()).filter(|i| !axes.contains(i)).map(|i| b.shape(x)[i]).collect();
    let sum = b.one(Op::Reduce { kind: ReduceKind::Sum, axes }, &[x], None)?;
    Ok((b.reshape(sum, shape)?, labels.iter().copied().filter(|c| keep(c)).collect()))
}

/// One batched product: labels of both and the output are batch, those of both only are summed.
fn contract(
    b: &mut Builder,
    (left, left_labels): (ValueId, &[char]),
    (right, right_labels): (ValueId, &[char]),
    output: &[char],
) -> Result<(ValueId, Vec<char>)> {
    let pick = |from: &[char], f: &dyn Fn(&char) -> bool| from.iter().copied().filter(|c| f(c)).collect::<Vec<_>>();
    let batch = pick(left_labels, &|c| right_labels.contains(c) && output.contains(c));
    let summed = pick(left_labels, &|c| right_labels.contains(c) && !output.contains(c));
    let rows = pick(left_labels, &|c| !right_labels.contains(c));
    let cols = pick(right_labels, &|c| !left_labels.contains(c));
    let extents = |b: &Builder, x: ValueId, labels: &[char], of: &[char]| -> Vec<usize> {
        of.iter().filter_map(|c| labels.iter().position(|l| l == c).map(|i| b.shape(x)[i])).collect()
    };
    let (n, m, k, p) = (
        extents(b, left, left_labels, &batch),
        extents(b, left, left_labels, &rows),
        extents(b, left, left_labels, &summed),
        extents(b, right, right_labels, &cols),
    );
    let size = |e: &[usize]| e.iter().product::<usize>();
    let arrange = |b: &mut Builder, x: ValueId, labels: &[char], order: [&[char]; 3], shape: [usize; 3]| {
        let perm = order.concat().iter().filter_map(|c| labels.iter().position(|l| l == c)).collect();
        let x = b.transpose(x, perm)?;
        b.reshape(x, shape.to_vec())
    };
    let left = arrange(b, left, left_labels, [&batch, &rows, &summed], [size(&n), size(&m), size(&k)])?;
    let right = arrange(b, right, right_labels, [&batch, &summed, &cols], [size(&n), size(&k), size(&p)])?;
    let product = b.one(Op::MatMul, &[left, right], None)?;
    let product = b.reshape(product, [n, m, p].concat())?;
    Ok((product, [batch, rows, cols].concat()))
}
