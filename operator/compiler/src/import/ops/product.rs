//! Matrix products.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, ValueId};

use super::super::build::{Builder, Result, invalid};
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

/// Labels for the dimensions that an ellipsis stands for, innermost first.
fn hidden(i: usize) -> char {
    char::from_u32(0xE000 + i as u32).unwrap_or('.')
}

/// One operand's labels; an ellipsis stands for what the others leave of `rank`.
fn labels(term: &str, rank: usize) -> Option<Vec<char>> {
    let named = |t: &str| t.chars().all(|c| c.is_ascii_alphabetic()).then(|| t.chars().collect::<Vec<_>>());
    let Some((before, after)) = term.split_once("...") else { return named(term).filter(|t| t.len() == rank) };
    let (before, after) = (named(before)?, named(after)?);
    let open = rank.checked_sub(before.len() + after.len())?;
    Some([before, (0..open).rev().map(hidden).collect(), after].concat())
}

/// ONNX's `Einsum`: diagonals are taken, what nobody needs is summed, operands are multiplied one after the other.
pub(super) fn einsum(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let equation: String = call.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(l, r)| (l, Some(r)));
    let wrong = || invalid(format!("the equation {equation:?} and its operands"));
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != call.inputs.len() {
        return wrong();
    }
    let mut operands = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let x = call.input(i)?;
        let Some(labels) = labels(term, call.b.rank(x)) else { return wrong() };
        operands.push(diagonals(call.b, x, labels)?);
    }
    let all: Vec<char> = operands.iter().flat_map(|(_, l)| l.iter().copied()).collect();
    let mut open: Vec<char> = all.iter().copied().filter(|c| !c.is_ascii()).collect();
    open.sort_unstable();
    open.dedup();
    open.reverse();
    let output: Vec<char> = match right {
        Some(right) => match labels(
            right,
            right.chars().filter(|c| *c != '.').count() + if right.contains('.') { open.len() } else { 0 },
        ) {
            Some(output) => output,
            None => return wrong(),
        },
        // Implicit: the ellipsis, then labels that occur once in all, in alphabetical order.
        None => {
            let written: Vec<char> = left.chars().filter(char::is_ascii_alphabetic).collect();
            let mut once: Vec<char> =
                written.iter().copied().filter(|c| written.iter().filter(|o| *o == c).count() == 1).collect();
            once.sort_unstable();
            [open.clone(), once].concat()
        }
    };
    if output.iter().enumerate().any(|(i, c)| output[..i].contains(c) || !all.contains(c)) {
        return wrong();
    }
    // Dimensions of an ellipsis broadcast; others of one label are equal.
    let extent_of =
        |b: &Builder, (x, l): &(ValueId, Vec<char>), c: char| l.iter().position(|o| *o == c).map(|i| b.shape(*x)[i]);
    for label in open {
        let most = operands.iter().filter_map(|o| extent_of(call.b, o, label)).find(|n| *n != 1).unwrap_or(1);
        for (x, l) in &mut operands {
            if let Some(i) = l.iter().position(|o| *o == label) {
                let mut shape = call.b.shape(*x).to_vec();
                shape[i] = most;
                *x = call.b.expand(*x, shape)?;
            }
        }
    }
    if all.iter().any(|c| {
        let mut extents = operands.iter().filter_map(|o| extent_of(call.b, o, *c));
        extents.next().is_some_and(|first| extents.any(|other| other != first))
    }) {
        return wrong();
    }
    let mut rest = operands.into_iter();
    let Some((x, l)) = rest.next() else { return wrong() };
    let later = |rest: &[(ValueId, Vec<char>)], c: &char| output.contains(c) || rest.iter().any(|(_, l)| l.contains(c));
    let (mut x, mut l) = sum_out(call.b, x, &l, |c| later(rest.as_slice(), c))?;
    while let Some((y, m)) = rest.next() {
        let needed: Vec<char> = all.iter().copied().filter(|c| later(rest.as_slice(), c)).collect();
        let (y, m) = sum_out(call.b, y, &m, |c| needed.contains(c) || l.contains(c))?;
        (x, l) = contract(call.b, (x, &l), (y, &m), &needed)?;
    }
    let perm = output.iter().map(|c| l.iter().position(|o| o == c)).collect::<Option<Vec<_>>>();
    let Some(perm) = perm.filter(|p| p.len() == l.len()) else { return wrong() };
    Ok(vec![call.b.transpose(x, perm)?])
}

/// Where an operand names a label twice, the elements at which both dimensions agree.
fn diagonals(b: &mut Builder, mut x: ValueId, mut labels: Vec<char>) -> Result<(ValueId, Vec<char>)> {
    while let Some((first, second)) =
        (0..labels.len()).find_map(|i| labels[i + 1..].iter().position(|c| *c == labels[i]).map(|j| (i, i + 1 + j)))
    {
        let rank = labels.len();
        let perm: Vec<usize> = (0..rank).filter(|d| *d != first && *d != second).chain([first, second]).collect();
        x = b.transpose(x, perm)?;
        let shape = b.shape(x).to_vec();
        let n = shape[rank - 1];
        if shape[rank - 2] != n || n == 0 {
            return invalid(format!("the diagonal of {:?}", &shape[rank - 2..]));
        }
        x = b.reshape(x, [&shape[..rank - 2], &[n * n]].concat())?;
        x = super::compose::cut(b, x, rank - 2, 0, n, n + 1)?;
        let label = labels.remove(second);
        labels.remove(first);
        labels.push(label);
    }
    Ok((x, labels))
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
