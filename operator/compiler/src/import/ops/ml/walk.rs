//! All trees walked at once: one index per row and tree, moved down level by level through tables of the nodes.
//!
//! Each level is four gathers and one element-wise program over all trees, with no branch that could be guessed wrong, and the
//! tables take 16 bytes a node. A leaf leads to itself, so that shallow trees wait for deep ones. There is no step of the plan's
//! own for it: a loop over nodes would make as many dependent reads, one tree after the other.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, Tensor, UnaryOp, ValueId};

use super::super::super::build::{Builder, Result, invalid, unsupported};
use super::forest::{Forest, Node};

/// How the answers of all trees become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aggregate {
    Sum,
    Mean,
    Min,
    Max,
}

/// Most numbers of a table with one row for each leaf: 256 MiB of f32.
const MAX_TABLE: usize = 1 << 26;

/// By node, leaves first so that an index of a leaf is its row of the weights.
struct Tables {
    feature: Vec<i64>,
    threshold: Vec<f32>,
    nan_is_yes: Vec<bool>,
    /// Where `yes` and where `no` leads.
    next: Vec<f32>,
    roots: Vec<i64>,
}

fn tables(forest: &Forest) -> Tables {
    let leaves = forest.leaves.len();
    let mut inner = leaves;
    let numbers: Vec<usize> = forest
        .nodes
        .iter()
        .map(|node| match node {
            Node::Leaf(leaf) => *leaf,
            Node::Split { .. } => {
                inner += 1;
                inner - 1
            }
        })
        .collect();
    let mut tables = Tables {
        feature: vec![0; inner],
        threshold: vec![0.0; inner],
        nan_is_yes: vec![false; inner],
        next: (0..2 * inner).map(|i| (i / 2) as f32).collect(),
        roots: forest.roots.iter().map(|r| numbers[*r] as i64).collect(),
    };
    for (node, at) in forest.nodes.iter().zip(&numbers) {
        if let Node::Split { feature, threshold, yes, no, nan_is_yes } = *node {
            tables.feature[*at] = feature as i64;
            tables.threshold[*at] = threshold;
            tables.nan_is_yes[*at] = nan_is_yes;
            (tables.next[2 * at], tables.next[2 * at + 1]) = (numbers[yes] as f32, numbers[no] as f32);
        }
    }
    tables
}

/// The leaf that each row reaches in each tree: `x [n, f] → [n, t]` (I32).
pub(super) fn reached(b: &mut Builder, forest: &Forest, x: ValueId, [n, features]: [usize; 2]) -> Result<ValueId> {
    if forest.features() > features {
        return invalid(format!("trees over {} features, the input has {features}", forest.features()));
    }
    if n.saturating_mul(features) >= 1 << 24 {
        return unsupported(format!("an input of {n} × {features} numbers"));
    }
    let levels = forest.levels()?;
    let tables = tables(forest);
    let (nodes, trees) = (tables.feature.len(), tables.roots.len());
    let all_yes = forest.nodes.iter().all(|n| matches!(n, Node::Leaf(_) | Node::Split { nan_is_yes: true, .. }));
    let all_no = !tables.nan_is_yes.contains(&true);
    let nan = (!all_yes && !all_no).then(|| {
        b.constant(Tensor::int(DType::Bool, vec![nodes], tables.nan_is_yes.iter().map(|n| i64::from(*n)).collect()))
    });
    let feature = b.constant(Tensor::int(DType::I32, vec![nodes], tables.feature));
    let threshold = b.constant(Tensor::f32(vec![nodes], tables.threshold));
    let next = b.constant(Tensor::f32(vec![2 * nodes], tables.next));
    let roots = b.constant(Tensor::int(DType::I32, vec![1, trees], tables.roots));
    let mut at = b.expand(roots, vec![n, trees])?;
    let flat = b.reshape(x, vec![n * features])?;
    // Where each row begins.
    let starts = (0..n as i64).map(|r| r * features as i64).collect();
    let starts = b.constant(Tensor::int(DType::I32, vec![n, 1], starts));
    let pick = |b: &mut Builder, table, index| b.one(Op::Gather { axis: 0 }, &[table, index], None);
    for _ in 0..levels {
        let mut place = pick(b, feature, at)?;
        if n > 1 {
            place = index_sum(b, place, starts)?;
        }
        let value = pick(b, flat, place)?;
        let limit = pick(b, threshold, at)?;
        // NaN compares as false.
        let no = if all_yes {
            b.binary(BinaryOp::Less, limit, value)?
        } else {
            let mut yes = b.binary(BinaryOp::LessOrEqual, value, limit)?;
            if let Some(nan) = nan {
                let missing = b.unary(UnaryOp::IsNan, value)?;
                let goes = pick(b, nan, at)?;
                let goes = b.binary(BinaryOp::And, missing, goes)?;
                yes = b.binary(BinaryOp::Or, yes, goes)?;
            }
            b.unary(UnaryOp::Not, yes)?
        };
        let side = b.cast(no, DType::F32)?;
        let index = b.cast(at, DType::F32)?;
        let index = b.with(BinaryOp::Mul, index, 2.0)?;
        let index = b.binary(BinaryOp::Add, index, side)?;
        let index = b.cast(index, DType::I32)?;
        at = pick(b, next, index)?;
        at = b.cast(at, DType::I32)?;
    }
    Ok(at)
}

/// Sum of indices below 2²⁴, which f32 holds exactly.
fn index_sum(b: &mut Builder, x: ValueId, y: ValueId) -> Result<ValueId> {
    let (x, y) = (b.cast(x, DType::F32)?, b.cast(y, DType::F32)?);
    let sum = b.binary(BinaryOp::Add, x, y)?;
    b.cast(sum, DType::I32)
}

/// What the trees say, of the leaves that were [`reached`]: `[n, t] → [n, targets]`.
pub(super) fn answers(
    b: &mut Builder,
    forest: &Forest,
    at: ValueId,
    targets: usize,
    aggregate: Aggregate,
) -> Result<ValueId> {
    let &[n, trees] = b.shape(at) else { return invalid("leaves of another shape") };
    if trees.saturating_mul(targets) > MAX_TABLE {
        return unsupported(format!("{trees} trees for {targets} targets; give fewer trees"));
    }
    let sums = matches!(aggregate, Aggregate::Sum | Aggregate::Mean);
    let answer = match forest.target_of_trees(targets) {
        // Each tree speaks of one target: one number a leaf, and a product with 0 and 1 adds up by target.
        Some(target_of) if sums && targets > 1 => {
            let weights = forest.leaves.iter().map(|l| l.iter().map(|(_, w)| w).sum()).collect();
            let weights = b.constant(Tensor::f32(vec![forest.leaves.len()], weights));
            let picked = b.one(Op::Gather { axis: 0 }, &[weights, at], None)?;
            let mut matrix = vec![0.0; trees * targets];
            target_of.iter().enumerate().for_each(|(tree, target)| matrix[tree * targets + target] = 1.0);
            let matrix = b.constant(Tensor::f32(vec![trees, targets], matrix));
            b.one(Op::MatMul, &[picked, matrix], None)?
        }
        _ => dense(b, forest, at, [n, trees, targets], aggregate)?,
    };
    if aggregate == Aggregate::Mean { b.with(BinaryOp::Div, answer, trees as f64) } else { Ok(answer) }
}

/// Of which targets any tree speaks, for each row: `[n, targets]` (Boolean); `None` where it is all of them, always.
pub(super) fn spoken(b: &mut Builder, forest: &Forest, at: ValueId, targets: usize) -> Result<Option<ValueId>> {
    let &[n, trees] = b.shape(at) else { return invalid("leaves of another shape") };
    if forest.always_speaks_of_all(targets) {
        return Ok(None);
    }
    let ones = |leaf: &Vec<(usize, f32)>| leaf.iter().map(|(target, _)| (*target, 1.0)).collect();
    let marks = Forest { leaves: forest.leaves.iter().map(ones).collect(), ..Forest::default() };
    let count = dense(b, &marks, at, [n, trees, targets], Aggregate::Sum)?;
    let zero = b.scalar(DType::F32, 0.0);
    b.binary(BinaryOp::Less, zero, count).map(Some)
}

fn dense(
    b: &mut Builder,
    forest: &Forest,
    at: ValueId,
    [n, trees, targets]: [usize; 3],
    how: Aggregate,
) -> Result<ValueId> {
    let leaves = forest.leaves.len();
    if leaves.saturating_mul(targets) > MAX_TABLE {
        return unsupported(format!("{leaves} leaves for {targets} targets; give fewer trees"));
    }
    // What a tree that says nothing of a target counts as.
    let (kind, nothing) = match how {
        Aggregate::Sum | Aggregate::Mean => (ReduceKind::Sum, 0.0),
        Aggregate::Min => (ReduceKind::Min, f32::INFINITY),
        Aggregate::Max => (ReduceKind::Max, f32::NEG_INFINITY),
    };
    let mut table = vec![nothing; leaves * targets];
    for (leaf, weights) in forest.leaves.iter().enumerate() {
        for (target, weight) in weights {
            let place = &mut table[leaf * targets + target];
            *place = if *place == nothing { *weight } else { *place + weight };
        }
    }
    let table = b.constant(Tensor::f32(vec![leaves, targets], table));
    let picked = b.one(Op::Gather { axis: 0 }, &[table, at], None)?;
    let answer = if trees == 1 { picked } else { b.one(Op::Reduce { kind, axes: vec![1] }, &[picked], None)? };
    let answer = b.reshape(answer, vec![n, targets])?;
    if nothing == 0.0 {
        return Ok(answer);
    }
    // A target that no tree speaks of is 0.
    let silent = b.with(BinaryOp::Equal, answer, f64::from(nothing))?;
    let zero = b.scalar(DType::F32, 0.0);
    b.select(silent, zero, answer)
}

impl Forest {
    /// Whether for each target there is a tree all of whose leaves speak of it.
    pub(super) fn always_speaks_of_all(&self, targets: usize) -> bool {
        let mut always = vec![false; targets];
        for leaves in self.leaves_of_trees() {
            let mut times = vec![0usize; targets];
            for leaf in &leaves {
                let mut named: Vec<usize> = self.leaves[*leaf].iter().map(|(target, _)| *target).collect();
                named.sort_unstable();
                named.dedup();
                named.into_iter().for_each(|target| times[target] += 1);
            }
            always.iter_mut().zip(times).for_each(|(always, times)| *always |= times == leaves.len());
        }
        always.into_iter().all(|all| all)
    }

    /// The leaves that each tree can lead to, each once.
    fn leaves_of_trees(&self) -> Vec<Vec<usize>> {
        let mut seen = vec![None; self.nodes.len()];
        let leaves = |root: &usize| {
            let mut leaves = Vec::new();
            let mut stack = vec![*root];
            while let Some(at) = stack.pop() {
                if seen[at].replace(*root) == Some(*root) {
                    continue;
                }
                match self.nodes[at] {
                    Node::Split { yes, no, .. } => stack.extend([yes, no]),
                    Node::Leaf(leaf) => leaves.push(leaf),
                }
            }
            leaves
        };
        self.roots.iter().map(leaves).collect()
    }

    /// The one target of each tree, if no tree has several.
    fn target_of_trees(&self, targets: usize) -> Option<Vec<usize>> {
        let one = |leaves: Vec<usize>| {
            let mut target = None;
            for (t, weight) in leaves.iter().flat_map(|leaf| &self.leaves[*leaf]) {
                if target.is_some_and(|target| target != *t) || !weight.is_finite() {
                    return None;
                }
                target = Some(*t);
            }
            Some(target.unwrap_or(0).min(targets.saturating_sub(1)))
        };
        self.leaves_of_trees().into_iter().map(one).collect()
    }
}
