//! Lowering: from the IR to a plan and its weights.
//!
//! 1. `fuse` decides which nodes run together: what follows a product or convolution is folded into its weights, becomes
//!    its bias and bounds, or runs as a program on its result; chains of element-wise nodes become one program.
//! 2. `product`, `window`, `elementwise` and `movement` turn each of these into a `Unit`: what it reads and writes, how much scratch
//!    it needs, and how its steps look once places are known. Weights get their final layout in `weights`.
//! 3. `place` gives every buffer a place in one arena by liveness; then the steps are written.
//!
//! Everything is in the order of the graph; nothing depends on hashing, time or the host.

mod bounded;
mod bytes;
mod control;
mod elementwise;
mod fuse;
mod generic;
mod integer;
mod movement;
mod peephole;
mod place;
mod product;
mod program;
mod shape;
#[cfg(test)]
mod tests;
mod weights;
mod wide;
mod window;

use std::collections::BTreeSet;

use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::{At, DType as PlanType, PlanError, Step};
use thiserror::Error;

use crate::TargetSpec;
use crate::ir::{DType, Graph, Node, Op, ValueId};

use control::Mark;
use fuse::Task;
use place::{Buffer, Buffers, Places};
use weights::Weights;

/// What a gateway needs to run a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered {
    /// `plan.bin`.
    pub plan: Vec<u8>,
    /// `weights.bin`: packed, in the plan's layout.
    pub weights: Vec<u8>,
    /// Bytes of arena.
    pub arena_bytes: u64,
    /// 10⁹ operations per inference of each entry; a multiply-add is two.
    pub gflop: Vec<f64>,
}

/// A node for which there is no step yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The ONNX operator.
    pub operator: String,
    /// The ONNX node.
    pub node: String,
    /// What exactly.
    pub detail: String,
}

fn sentences(gaps: &[Gap]) -> String {
    let sentence = |gap: &Gap| format!("`{}`: {} cannot be compiled here: {}", gap.node, gap.operator, gap.detail);
    gaps.iter().map(sentence).collect::<Vec<_>>().join("; ")
}

/// A model that cannot be lowered.
#[derive(Debug, Error)]
pub enum LowerError {
    /// Operations, or forms of them, for which there is no step yet: all of them.
    #[error("{}", sentences(.0))]
    NotLowered(Vec<Gap>),
    /// Arena or weights reach 2 GiB.
    #[error("the model needs {what} of {bytes} bytes; the format ends below 2 GiB")]
    TooLarge {
        /// Which of them.
        what: &'static str,
        /// How large it would be.
        bytes: u64,
    },
    /// The plan that came out is refused by its own reader: a bug here, found before anything is shipped.
    #[error("the compiled plan is not sound")]
    Plan(#[from] PlanError),
}

/// What a unit does, once places and its scratch are known.
type Steps = Box<dyn Fn(&Places, At) -> Vec<Step>>;

/// How a node, alone or with what was fused into it, runs.
struct Unit {
    reads: Vec<Buffer>,
    writes: Vec<Buffer>,
    /// An operand that the result may overwrite, if nothing else needs it.
    in_place: Option<Buffer>,
    /// Bytes, only while it runs.
    scratch: u64,
    /// Whether it is none but the begin or end of what repeats and chooses others.
    mark: Mark,
    steps: Steps,
}

/// A place in weights or in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Weights(At),
    Buffer(Buffer),
}

impl Source {
    fn at(self, places: &Places) -> At {
        match self {
            Self::Weights(at) => at,
            Self::Buffer(buffer) => places.at(buffer),
        }
    }

    fn buffer(self) -> Option<Buffer> {
        match self {
            Self::Weights(_) => None,
            Self::Buffer(buffer) => Some(buffer),
        }
    }
}

struct Lowering<'g> {
    /// The graph at work: the model, or a body inside of it.
    graph: &'g Graph,
    /// The buffer of its first value.
    base: usize,
    weights: Weights,
    buffers: Buffers,
    builder: PlanBuilder,
    units: Vec<Unit>,
    flop: u64,
}

/// Lowers a graph for a target. The same graph gives the same bytes on any host.
pub fn lower(graph: &Graph, target: &TargetSpec) -> Result<Lowered, LowerError> {
    lower_entries(&[graph], target)
}

/// Lowers graphs that are one model for several shapes: an entry each, over one file of weights. The arena and the work are
/// those of the largest, as the plan says them; [`Lowered::gflop`] has each.
pub fn lower_entries(graphs: &[&Graph], _target: &TargetSpec) -> Result<Lowered, LowerError> {
    let (mut weights, mut builder) = (Weights::default(), PlanBuilder::new());
    let (mut arena_bytes, mut flop) = (0, Vec::new());
    for (n, graph) in graphs.iter().copied().enumerate() {
        let buffers = Buffers::new(graph);
        let mut lowering = Lowering { graph, base: 0, weights, buffers, builder, units: Vec::new(), flop: 0 };
        if let Err(error) = lowering.units_of(graph) {
            let LowerError::NotLowered(mut gaps) = error else { return Err(error) };
            let mut seen = BTreeSet::new();
            gaps.retain(|gap| seen.insert((gap.operator.clone(), gap.node.clone())));
            return Err(LowerError::NotLowered(gaps));
        }
        let name = if n == 0 { "main".to_owned() } else { format!("shape {n}") };
        let entry = lowering.entry(&name)?;
        (weights, builder) = (entry.weights, entry.builder);
        arena_bytes = entry.arena_bytes.max(arena_bytes);
        flop.push(entry.flop);
    }
    let weights = weights.finish();
    let weights_bytes = too_large("weights", weights.len() as u64)?;
    let plan = match builder.finish(arena_bytes, weights_bytes, flop.iter().copied().max().unwrap_or(0)) {
        Err(error @ (PlanError::Nesting | PlanError::TooManySteps)) => {
            let nested = graphs.iter().take(1).flat_map(|graph| &graph.nodes).filter(|n| !n.op.bodies().is_empty());
            let gaps = nested.filter_map(|n| match refuse(n, error.to_string()) {
                LowerError::NotLowered(gaps) => Some(gaps),
                LowerError::TooLarge { .. } | LowerError::Plan(_) => None,
            });
            return Err(LowerError::NotLowered(gaps.flatten().collect()));
        }
        Err(error @ PlanError::TooMuchWork) => {
            let nodes = graphs.iter().flat_map(|graph| graph.nodes.iter().map(move |node| (*graph, node)));
            let dearest = nodes.max_by_key(|(graph, node)| crate::cost::of(graph, node));
            return Err(dearest.map_or(error.into(), |(_, node)| {
                let detail = format!("{error}, and this is most of it; use smaller dimensions");
                refuse(node, detail)
            }));
        }
        plan => plan?,
    };
    Ok(Lowered {
        plan,
        weights,
        arena_bytes: u64::from(arena_bytes),
        gflop: flop.iter().map(|flop| *flop as f64 / 1e9).collect(),
    })
}

/// What one entry leaves for the next.
struct Entered {
    weights: Weights,
    builder: PlanBuilder,
    arena_bytes: u32,
    flop: u64,
}

fn too_large(what: &'static str, bytes: u64) -> Result<u32, LowerError> {
    if bytes < 1 << 31 { Ok(bytes as u32) } else { Err(LowerError::TooLarge { what, bytes }) }
}

impl<'g> Lowering<'g> {
    fn task(&mut self, task: &Task) -> Result<(), LowerError> {
        match task {
            Task::Product(product) => self.product(product),
            Task::Integer(integer) => self.integer(integer),
            Task::Lookup(index, bytes) => {
                let node = &self.graph.nodes[*index];
                if let Some(table) = self.graph.value(node.inputs[0]).constant.clone() {
                    self.lookup(&table, *bytes, node.outputs[0]);
                }
                Ok(())
            }
            Task::Chain(chain) => self.chain(chain),
            Task::Node(index) => {
                let graph: &'g Graph = self.graph;
                let node = &graph.nodes[*index];
                match &node.op {
                    Op::NonZero => self.non_zero(node),
                    Op::Unique { sorted } => self.unique(node, *sorted),
                    Op::Suppress { limit, centered, iou, score } => {
                        self.suppress(node, (*limit, *centered), (*iou, *score))
                    }
                    Op::Repeat(repeat) => self.repeat(node, repeat),
                    Op::Branch(branch) => self.branch(node, branch),
                    Op::Pool { kind, window } => self.pool(node, *kind, window),
                    Op::Reduce { kind, axes } => self.reduce(node, *kind, axes),
                    Op::Softmax { axis, log } => self.softmax(node, *axis, *log),
                    Op::Reshape => self.reshape(node),
                    Op::Transpose { perm } => self.transpose(node, perm),
                    Op::Expand => self.expand(node),
                    Op::Concat { axis } => self.concat(node, *axis),
                    Op::Slice { starts, steps } => self.slice(node, starts, steps),
                    Op::Pad { before, mode } => self.pad(node, before, mode),
                    Op::Gather { axis } => self.gather(node, *axis),
                    Op::Resample { axis, taps, indices, weights } => {
                        self.resample(node, *axis, *taps, indices, weights)
                    }
                    // Products and chains are other tasks; one of them that comes here has a form that they do not take.
                    Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast => Err(refuse(node, "this type of elements")),
                    Op::Conv { window, groups } => self.conv_exact(node, window, *groups),
                    Op::MatMul => self.matmul_exact(node),
                    Op::ArgReduce { largest, axis, last } => {
                        self.arg_reduce(node, *largest, *axis, *last);
                        Ok(())
                    }
                    Op::CumSum { axis, exclusive, reverse } => {
                        self.cumsum(node, *axis, *exclusive, *reverse);
                        Ok(())
                    }
                    Op::TopK { axis, largest } => {
                        self.top_k(node, *axis, *largest);
                        Ok(())
                    }
                    Op::GatherElements { axis } => self.gather_elements(node, *axis),
                    Op::GatherNd { batch } => self.gather_nd(node, *batch),
                    Op::ScatterElements { axis, combine } => self.scatter_elements(node, *axis, *combine),
                    Op::ScatterNd { combine } => self.scatter_nd(node, *combine),
                }
            }
        }
    }

    /// Where a value is read: constants get a place in the weights as they are.
    fn source(&mut self, id: ValueId) -> Source {
        let value = self.graph.value(id);
        match &value.constant {
            Some(tensor) => Source::Weights(self.weights.add(&tensor.to_bytes())),
            None => Source::Buffer(self.buffers.of(self.base, id)),
        }
    }

    /// Where a value is written.
    fn target(&mut self, id: ValueId) -> Buffer {
        self.buffers.of(self.base, id)
    }

    fn push(
        &mut self,
        reads: &[Source],
        write: Buffer,
        scratch: u64,
        steps: impl Fn(&Places, At) -> Vec<Step> + 'static,
    ) {
        let reads = reads.iter().filter_map(|s| s.buffer()).collect();
        let (writes, steps) = (vec![write], Box::new(steps));
        self.units.push(Unit { reads, writes, in_place: None, scratch, mark: Mark::None, steps });
    }

    fn entry(mut self, name: &str) -> Result<Entered, LowerError> {
        let graph = self.graph;
        // An output that is a constant is copied where outputs are read.
        let mut outputs = Vec::new();
        for &id in &graph.outputs {
            let value = graph.value(id);
            outputs.push(match self.source(id) {
                Source::Buffer(buffer) => buffer,
                source @ Source::Weights(_) => {
                    let buffer = self.buffers.add((value.len() * value.dtype.size()) as u64);
                    self.copy_all(source, buffer, value.len(), value.dtype);
                    buffer
                }
            });
        }
        let inputs: Vec<Buffer> = graph.inputs.iter().map(|&id| self.buffers.of(0, id)).collect();
        let places = self.buffers.place(&mut self.units, &inputs, &outputs);
        let arena_bytes = too_large("an arena", places.bytes())?;
        let blocks = control::blocks(&self.units, &places);
        let tensor = |id: ValueId, name: &str, buffer: Buffer| {
            let value = graph.value(id);
            let dims = value.shape.iter().map(|&d| d as u32).collect();
            TensorDef { name: name.into(), dtype: plan_type(value.dtype), dims, at: places.at(buffer).offset() }
        };
        let inputs =
            graph.inputs.iter().zip(&inputs).map(|(&id, &buffer)| tensor(id, &graph.value(id).name, buffer)).collect();
        let outputs = graph.outputs.iter().zip(&graph.output_names).zip(&outputs);
        let outputs = outputs.map(|((&id, name), &buffer)| tensor(id, name, buffer)).collect();
        self.builder.entry_of(name, inputs, outputs, &blocks);
        Ok(Entered { weights: self.weights, builder: self.builder, arena_bytes, flop: self.flop })
    }
}

fn refuse(node: &Node, detail: impl Into<String>) -> LowerError {
    // A graph that was not imported has no operators of ONNX.
    let operator = if node.operator.is_empty() { node.op.name() } else { &node.operator }.to_owned();
    LowerError::NotLowered(vec![Gap { operator, node: node.name.clone(), detail: detail.into() }])
}

fn plan_type(dtype: DType) -> PlanType {
    match dtype {
        DType::F32 => PlanType::F32,
        DType::Bool => PlanType::Bool,
        DType::U8 => PlanType::U8,
        DType::I8 => PlanType::I8,
        DType::U16 => PlanType::U16,
        DType::I16 => PlanType::I16,
        DType::U32 => PlanType::U32,
        DType::I32 => PlanType::I32,
        DType::I64 => PlanType::I64,
        DType::U64 => PlanType::U64,
        DType::F16 => PlanType::F16,
        DType::BF16 => PlanType::BF16,
        DType::F64 => PlanType::F64,
    }
}
