//! Tensors of which only some rows are valid: how many, another value says.
//!
//! Their extent here is the largest that there can be. What only moves rows, or works on each of them alone, passes the count
//! on; whatever would take rows behind the count for data is refused, by the name of its node.

use crate::ir::{Op, ValueId};
use crate::shape::Typed;

use super::build::{Builder, Problem, Result, unsupported};

/// The value that says how many, and along which dimension.
pub(crate) type Count = (ValueId, usize);

const ADVICE: &str = "how many rows its input has is computed from the model's inputs; export without what follows, and do that \
                      in the application";

impl Builder {
    /// Cuts `x` to the rows that are valid, if that is known; else notes that only so many are.
    pub(crate) fn count(&mut self, x: ValueId, count: ValueId, axis: usize) -> Result<ValueId> {
        let known = self.known(count).and_then(|t| t.ints().first().copied()).and_then(|n| usize::try_from(n).ok());
        let Some(known) = known else {
            self.counted.insert(x, (count, axis));
            return Ok(x);
        };
        let (dtype, mut shape) = (self.dtype(x), self.shape(x).to_vec());
        let (starts, steps) = (vec![0; shape.len()], vec![1; shape.len()]);
        shape[axis] = known;
        self.one(Op::Slice { starts, steps }, &[x], Some((dtype, shape)))
    }

    /// Whether only some rows are valid.
    pub(crate) fn count_of(&self, x: ValueId) -> Option<Count> {
        self.counted.get(&x).copied()
    }

    /// For operators that ask for a shape.
    pub(crate) fn whole(&self, x: ValueId) -> Result<()> {
        if self.counted.contains_key(&x) { unsupported(ADVICE) } else { Ok(()) }
    }

    /// What an operation's result counts, if its operands do.
    pub(super) fn count_through(&self, op: &Op, inputs: &[ValueId], outputs: &[Typed]) -> Result<Option<Count>> {
        if self.counted.is_empty() || !inputs.iter().any(|id| self.counted.contains_key(id)) {
            return Ok(None);
        }
        let refused = || Problem::Unsupported(ADVICE.to_owned());
        let shape = &outputs[0].1;
        self.passes(op, inputs, shape).map(Some).ok_or_else(refused)
    }

    /// All other operations mix rows.
    fn passes(&self, op: &Op, inputs: &[ValueId], out: &[usize]) -> Option<Count> {
        let first = inputs.first().and_then(|id| self.count_of(*id));
        let alone = inputs[1..].iter().all(|id| self.count_of(*id).is_none());
        match op {
            Op::Unary(_) | Op::Cast => first,
            Op::Binary(_) | Op::Select => self.side_by_side(inputs, out),
            Op::Concat { axis } => {
                let (count, along) = first?;
                let same = inputs.iter().all(|id| self.count_of(*id) == first);
                (same && along != *axis).then_some((count, along))
            }
            Op::Transpose { perm } => {
                let (count, along) = first?;
                perm.iter().position(|p| *p == along).map(|to| (count, to))
            }
            Op::Reshape => {
                let (count, along) = first?;
                let shape = self.shape(inputs[0]);
                let before: usize = shape[..along].iter().product();
                let to = (0..out.len())
                    .find(|d| out[*d] == shape[along] && out[..*d].iter().product::<usize>() == before)?;
                Some((count, to))
            }
            Op::Slice { starts, steps } => {
                let (count, along) = first?;
                let whole = starts[along] == 0 && steps[along] == 1 && out[along] == self.shape(inputs[0])[along];
                whole.then_some((count, along))
            }
            Op::Reduce { axes, .. } => first.filter(|(_, along)| !axes.contains(along)),
            Op::ArgReduce { axis, .. } | Op::Softmax { axis, .. } | Op::TopK { axis, .. } => {
                first.filter(|(_, along)| along != axis)
            }
            Op::Gather { axis } => match (first, self.count_of(*inputs.get(1)?)) {
                (None, Some((count, along))) => Some((count, axis + along)),
                (Some((count, along)), None) if along < *axis => Some((count, along)),
                (Some((count, along)), None) if along > *axis => Some((count, along + self.rank(inputs[1]) - 1)),
                _ => None,
            },
            Op::GatherNd { batch } => match (first, self.count_of(*inputs.get(1)?)) {
                (None, Some((count, along))) if along >= *batch && along + 1 < self.rank(inputs[1]) => {
                    Some((count, along))
                }
                _ => None,
            },
            Op::MatMul => {
                let (count, along) = first?;
                let (left, right) = (self.rank(inputs[0]), self.rank(*inputs.get(1)?));
                (alone && left == out.len() && along + 2 == left && right <= left).then_some((count, along))
            }
            _ => None,
        }
    }

    /// Element-wise: rows beside rows of one count, or beside what repeats.
    fn side_by_side(&self, inputs: &[ValueId], out: &[usize]) -> Option<Count> {
        let aligned = |id: &ValueId| self.count_of(*id).map(|(count, d)| (count, d + out.len() - self.rank(*id)));
        let (count, along) = inputs.iter().find_map(aligned)?;
        let fits = |id: &ValueId| match aligned(id) {
            Some(other) => other == (count, along),
            None => {
                let shape = self.shape(*id);
                (along + shape.len()).checked_sub(out.len()).is_none_or(|d| shape[d] == 1)
            }
        };
        inputs.iter().all(fits).then_some((count, along))
    }
}
