//! Builds the graph node by node: every operation passes the shape rule, and is evaluated at once when all it reads is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::qdq::Dequantized;
use crate::eval;
use crate::ir::{BinaryOp, DType, Data, Graph, Node, Op, Tensor, UnaryOp, Value, ValueId};
use crate::shape::{self, Typed};

use super::counted::Count;

/// Most operations of one model, folded ones included: functions that call functions grow exponentially otherwise.
const MAX_OPERATIONS: usize = 500_000;
/// A constant may be folded into more elements than it is made of up to this: 64 MiB of f32.
const MAX_GROWN: usize = 1 << 24;
/// Elements that folding may make and multiply-adds that it may spend, in all.
const FOLD_BUDGET: u64 = 1 << 30;

/// What is wrong with one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Valid, but not supported.
    Unsupported(String),
    /// Not valid.
    Invalid(String),
}

impl From<String> for Problem {
    fn from(detail: String) -> Self {
        Self::Invalid(detail)
    }
}

pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

/// For messages to `Err`.
pub(crate) fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(Problem::Unsupported(what.into()))
}

/// For messages to `Err`.
pub(crate) fn invalid<T>(what: impl Into<String>) -> Result<T> {
    Err(Problem::Invalid(what.into()))
}

/// The graph while it grows.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) graph: Graph,
    /// Name of the ONNX node at work.
    pub(crate) label: String,
    /// Its operator.
    pub(crate) operator: String,
    /// Nodes of what is around the body that is being built, see [`super::body`].
    pub(super) outside: Vec<Vec<Node>>,
    /// What is known to be dequantised, by its f32 value.
    pub(crate) dequantized: BTreeMap<ValueId, Dequantized>,
    /// Values that are no tensors: the items of sequences, and `None` for an optional without a value.
    lists: BTreeMap<ValueId, Option<Vec<ValueId>>>,
    /// Values that the model has as halves, by the type it gives them; they are computed in f32.
    pub(super) halves: BTreeMap<ValueId, DType>,
    /// Values of which only some rows are valid, see [`super::counted`].
    pub(super) counted: BTreeMap<ValueId, Count>,
    /// What was assumed, for people.
    pub(crate) notes: BTreeSet<String>,
    operations: usize,
    budget: u64,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            graph: Graph::default(),
            label: String::new(),
            operator: String::new(),
            outside: Vec::new(),
            dequantized: BTreeMap::new(),
            lists: BTreeMap::new(),
            halves: BTreeMap::new(),
            counted: BTreeMap::new(),
            notes: BTreeSet::new(),
            operations: 0,
            budget: FOLD_BUDGET,
        }
    }
}

impl Builder {
    pub(crate) fn shape(&self, id: ValueId) -> &[usize] {
        &self.graph.value(id).shape
    }

    pub(crate) fn rank(&self, id: ValueId) -> usize {
        self.shape(id).len()
    }

    pub(crate) fn dtype(&self, id: ValueId) -> DType {
        self.graph.value(id).dtype
    }

    pub(crate) fn known(&self, id: ValueId) -> Option<&Arc<Tensor>> {
        self.graph.value(id).constant.as_ref()
    }

    pub(crate) fn constant(&mut self, tensor: Tensor) -> ValueId {
        debug_assert!(
            match tensor.data {
                Data::F32(_) => tensor.dtype.is_float() && tensor.dtype != DType::F64,
                Data::F64(_) => tensor.dtype == DType::F64,
                Data::Int(_) => !tensor.dtype.is_float(),
            },
            "numbers that are not of {}",
            tensor.dtype
        );
        self.graph.add_constant(self.label.clone(), Arc::new(tensor))
    }

    /// A scalar of this type.
    pub(crate) fn scalar(&mut self, dtype: DType, x: f64) -> ValueId {
        self.constant(Tensor { dtype, shape: Vec::new(), data: Data::of(dtype, &[x]) })
    }

    /// Goes back to when the graph had so many nodes and values: the numbers of those behind come again.
    pub(super) fn roll_back(&mut self, nodes: usize, values: usize) {
        self.graph.nodes.truncate(nodes);
        self.graph.values.truncate(values);
        self.halves.retain(|id, _| id.index() < values);
        self.counted.retain(|id, _| id.index() < values);
        self.dequantized.retain(|id, _| id.index() < values);
        self.lists.retain(|id, _| id.index() < values);
    }

    /// Adds an operation, or what it evaluates to.
    pub(crate) fn apply(&mut self, op: Op, inputs: &[ValueId], wanted: Option<Typed>) -> Result<Vec<ValueId>> {
        if !inputs.iter().any(|id| self.dequantized.contains_key(id)) {
            return self.add(op, inputs, wanted);
        }
        let made = self.add(op.clone(), inputs, wanted.clone())?;
        self.carry_dequantized(&op, inputs, &made, wanted.as_ref());
        Ok(made)
    }

    fn add(&mut self, op: Op, inputs: &[ValueId], wanted: Option<Typed>) -> Result<Vec<ValueId>> {
        self.operations += 1;
        if self.operations > MAX_OPERATIONS {
            return unsupported(format!("the model has more than {MAX_OPERATIONS} operations"));
        }
        if inputs.iter().any(|id| self.is_no_tensor(*id)) {
            return unsupported("an input is a sequence or an empty optional, where a tensor was expected");
        }
        let typed: Vec<_> = inputs.iter().map(|id| (self.dtype(*id), self.shape(*id))).collect();
        let outputs = shape::outputs(&op, &typed, wanted.as_ref())?;
        if let ([x], [(dtype, shape)]) = (inputs, &outputs[..])
            && self.changes_nothing(&op, *x, *dtype, shape)
        {
            return Ok(vec![*x]);
        }
        let counted = self.count_through(&op, inputs, &outputs)?;
        if let Some(folded) = self.fold(&op, inputs, &outputs) {
            return Ok(folded.into_iter().map(|t| self.constant(t)).collect());
        }
        let name = self.label.clone();
        let outputs: Vec<_> = outputs
            .into_iter()
            .map(|(dtype, shape)| self.graph.add_value(Value { name: name.clone(), dtype, shape, constant: None }))
            .collect();
        if let Some(count) = counted {
            self.counted.extend(outputs.iter().map(|id| (*id, count)));
        }
        let operator = self.operator.clone();
        self.graph.nodes.push(Node { name, operator, op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        Ok(outputs)
    }

    fn changes_nothing(&self, op: &Op, x: ValueId, dtype: DType, shape: &[usize]) -> bool {
        let same = self.dtype(x) == dtype && self.shape(x) == shape;
        same && match op {
            Op::Cast | Op::Reshape | Op::Expand | Op::Concat { .. } => true,
            Op::Transpose { perm } => perm.is_sorted(),
            // The extents are equal, so what starts at 0 goes forward by 1.
            Op::Slice { starts, steps } => starts.iter().all(|s| *s == 0) && steps.iter().all(|s| *s == 1),
            Op::Pad { before, .. } => before.iter().all(|b| *b == 0),
            Op::Resample { taps, indices, weights, .. } => {
                *taps == 1 && weights.iter().all(|w| *w == 1.0) && indices.iter().copied().eq(0..indices.len() as u32)
            }
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Select
            | Op::Conv { .. }
            | Op::MatMul
            | Op::Pool { .. }
            | Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::Softmax { .. }
            | Op::CumSum { .. }
            | Op::TopK { .. }
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. }
            | Op::ScatterElements { .. }
            | Op::ScatterNd { .. }
            | Op::NonZero
            | Op::Unique { .. }
            | Op::Suppress { .. }
            | Op::Repeat(_)
            | Op::Branch(_) => false,
        }
    }

    fn fold(&mut self, op: &Op, inputs: &[ValueId], outputs: &[Typed]) -> Option<Vec<Tensor>> {
        let operands: Vec<Arc<Tensor>> = inputs.iter().map(|id| self.known(*id).cloned()).collect::<Option<_>>()?;
        let made: usize = outputs.iter().map(|(_, s)| s.iter().product::<usize>()).sum();
        let read: usize = operands.iter().map(|t| t.len()).sum();
        let shapes: Vec<&[usize]> = operands.iter().map(|t| &t.shape[..]).collect();
        let spent = (made as u64).saturating_add(crate::cost::multiply_adds(op, &shapes, &outputs[0].1));
        if made > MAX_GROWN && made > read || spent > self.budget {
            return None;
        }
        self.budget -= spent;
        let operands: Vec<&Tensor> = operands.iter().map(|t| &**t).collect();
        Some(eval::operation(op, &operands, outputs))
    }

    pub(crate) fn one(&mut self, op: Op, inputs: &[ValueId], wanted: Option<Typed>) -> Result<ValueId> {
        self.apply(op, inputs, wanted).map(|outputs| outputs[0])
    }

    pub(crate) fn unary(&mut self, op: UnaryOp, x: ValueId) -> Result<ValueId> {
        self.one(Op::Unary(op), &[x], None)
    }

    pub(crate) fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> Result<ValueId> {
        let compares = matches!(op, BinaryOp::Equal | BinaryOp::Less | BinaryOp::LessOrEqual);
        if compares && self.dtype(a) == self.dtype(b) && self.compares_exactly_in_f32(a, b) {
            let (a, b) = (self.cast(a, DType::F32)?, self.cast(b, DType::F32)?);
            return self.one(Op::Binary(op), &[a, b], None);
        }
        self.one(Op::Binary(op), &[a, b], None)
    }

    /// Whether a comparison of integers may be one of f32, which is what plans compute in: small types are exact; against a
    /// constant below 2²⁴ any integer is, because rounding keeps the order and nothing rounds to such a constant but itself.
    fn compares_exactly_in_f32(&self, a: ValueId, b: ValueId) -> bool {
        let small = |id: ValueId| self.known(id).is_some_and(|t| t.ints().iter().all(|x| x.unsigned_abs() < 1 << 24));
        match self.dtype(a) {
            DType::Bool | DType::U8 | DType::I8 | DType::U16 | DType::I16 => true,
            DType::U32 | DType::I32 | DType::I64 => small(a) || small(b),
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::U64 => false,
        }
    }

    /// With a scalar of the operand's type on the right.
    pub(crate) fn with(&mut self, op: BinaryOp, a: ValueId, b: f64) -> Result<ValueId> {
        let b = self.scalar(self.dtype(a), b);
        self.binary(op, a, b)
    }

    pub(crate) fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.one(Op::Select, &[condition, a, b], None)
    }

    pub(crate) fn cast(&mut self, x: ValueId, to: DType) -> Result<ValueId> {
        let shape = self.shape(x).to_vec();
        self.one(Op::Cast, &[x], Some((to, shape)))
    }

    pub(crate) fn reshape(&mut self, x: ValueId, shape: Vec<usize>) -> Result<ValueId> {
        let dtype = self.dtype(x);
        self.one(Op::Reshape, &[x], Some((dtype, shape)))
    }

    pub(crate) fn expand(&mut self, x: ValueId, shape: Vec<usize>) -> Result<ValueId> {
        let dtype = self.dtype(x);
        self.one(Op::Expand, &[x], Some((dtype, shape)))
    }

    pub(crate) fn transpose(&mut self, x: ValueId, perm: Vec<usize>) -> Result<ValueId> {
        self.one(Op::Transpose { perm }, &[x], None)
    }

    /// One-dimensional values of `count` elements in the shape that broadcasts along dimension `axis` of `rank`.
    pub(crate) fn along(&mut self, x: ValueId, axis: usize, rank: usize) -> Result<ValueId> {
        let mut shape = vec![1; rank];
        shape[axis] = self.graph.value(x).len();
        self.reshape(x, shape)
    }

    /// `len` indices of dimension `axis` from `start` on.
    pub(crate) fn slice(&mut self, x: ValueId, axis: usize, start: usize, len: usize) -> Result<ValueId> {
        let mut shape = self.shape(x).to_vec();
        let mut starts = vec![0; shape.len()];
        let (Some(first), Some(extent)) = (starts.get_mut(axis), shape.get_mut(axis)) else {
            return invalid(format!("axis {axis} of a tensor of {} dimensions", shape.len()));
        };
        (*first, *extent) = (start, len);
        let steps = vec![1; shape.len()];
        let dtype = self.dtype(x);
        self.one(Op::Slice { starts, steps }, &[x], Some((dtype, shape)))
    }

    pub(crate) fn concat(&mut self, parts: &[ValueId], axis: usize) -> Result<ValueId> {
        self.one(Op::Concat { axis }, parts, None)
    }

    /// The numbers from 0 to `len` − 1, of any type.
    pub(crate) fn numbers(&mut self, dtype: DType, len: usize) -> ValueId {
        let numbers: Vec<f64> = (0..len).map(|i| i as f64).collect();
        self.constant(Tensor { dtype, shape: vec![len], data: Data::of(dtype, &numbers) })
    }

    /// The items of a sequence.
    pub(crate) fn list(&self, id: ValueId) -> Option<&[ValueId]> {
        self.lists.get(&id)?.as_deref()
    }

    /// Whether it is a sequence, or an optional without a value.
    pub(crate) fn is_no_tensor(&self, id: ValueId) -> bool {
        self.lists.contains_key(&id)
    }

    /// Whether it is an optional without a value.
    pub(crate) fn is_absent(&self, id: ValueId) -> bool {
        self.lists.get(&id).is_some_and(Option::is_none)
    }

    pub(crate) fn add_list(&mut self, items: Vec<ValueId>) -> ValueId {
        self.no_tensor(Some(items))
    }

    pub(crate) fn add_absent(&mut self) -> ValueId {
        self.no_tensor(None)
    }

    /// A value that stands for what is in `lists`; no operation may read it.
    fn no_tensor(&mut self, items: Option<Vec<ValueId>>) -> ValueId {
        let value = Value { name: self.label.clone(), dtype: DType::F32, shape: vec![0], constant: None };
        let id = self.graph.add_value(value);
        self.lists.insert(id, items);
        id
    }
}
