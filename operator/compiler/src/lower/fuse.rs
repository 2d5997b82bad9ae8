//! What runs together.

use ballast_plan::Domain;

use crate::ir::{BinaryOp, DType, Graph, Node, Op, ValueId};

use super::bytes::table_index;
use super::integer::Integer;
use super::program::{Program, ends_program, scalar, starts_program};
use super::shape::broadcast;
use super::wide::domain;

/// A product or convolution with what follows it.
#[derive(Debug, Clone)]
pub(super) struct Product {
    /// The node.
    pub(super) node: usize,
    /// A factor of each channel, to go into the weights.
    pub(super) scale: Option<Vec<f32>>,
    /// What is added to each channel.
    pub(super) bias: Option<Vec<f32>>,
    /// Lower bound.
    pub(super) low: f32,
    /// Upper bound.
    pub(super) high: f32,
    /// The result up to here.
    pub(super) inner: ValueId,
    /// What runs on it; operand 0 is `inner`.
    pub(super) program: Option<Program>,
    /// The final result.
    pub(super) output: ValueId,
}

/// Element-wise nodes in one program.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// The program.
    pub(super) program: Program,
    /// Its result.
    pub(super) output: ValueId,
}

/// What becomes one unit.
#[derive(Debug, Clone)]
pub(super) enum Task {
    Product(Product),
    Integer(Integer),
    /// A table of bytes: the node, and the bytes that index it.
    Lookup(usize, ValueId),
    Chain(Chain),
    Node(usize),
}

/// Extents of a product's result as batch, rows, columns; in this order they are the row-major result.
pub(super) fn view(graph: &Graph, node: &Node) -> Option<[usize; 3]> {
    let shape = &graph.value(*node.outputs.first()?).shape;
    match (&node.op, shape.as_slice()) {
        (Op::Conv { .. }, &[n, o, h, w]) => Some([n, o, h * w]),
        (Op::MatMul, [batch @ .., m, n]) => {
            let batch: usize = batch.iter().product();
            Some(match right_is_shared(graph, node)? {
                // One row: a matrix times a vector. Several: all batches are rows of one product.
                true if batch * m == 1 && graph.value(node.inputs[1]).constant.is_some() => [1, *n, 1],
                true => [1, batch * m, *n],
                false => [batch, *m, *n],
            })
        }
        _ => None,
    }
}

/// The right side of a matrix product is one matrix for all batches.
fn right_is_shared(graph: &Graph, node: &Node) -> Option<bool> {
    let right = &graph.value(*node.inputs.get(1)?).shape;
    let left = &graph.value(*node.inputs.first()?).shape;
    let batch = |s: &[usize]| s[..s.len() - 2].iter().product::<usize>();
    let out = batch(&graph.value(*node.outputs.first()?).shape);
    Some(batch(right) == 1 && batch(left) == out)
}

/// Strides of a tensor, broadcast to `shape`, over the three extents of a view. `None` where it does not walk evenly.
pub(super) fn over_view(shape: &[usize], strides: &[i64], view: [usize; 3]) -> Option<[u32; 3]> {
    let mut out = [0u32; 3];
    let mut dims = shape.iter().zip(strides).rev().filter(|(d, _)| **d != 1).peekable();
    for (place, &extent) in out.iter_mut().zip(&view).rev() {
        let (mut seen, mut step) = (1usize, None::<i64>);
        while seen < extent {
            let (&d, &stride) = dims.next()?;
            let first = *step.get_or_insert(stride);
            if stride != first * seen as i64 {
                return None;
            }
            seen *= d;
        }
        if seen != extent {
            return None;
        }
        *place = u32::try_from(step.unwrap_or(0)).ok()?;
    }
    Some(out)
}

/// The decision.
pub(super) struct Fusion<'g> {
    pub(super) graph: &'g Graph,
    pub(super) users: Vec<Vec<usize>>,
    pub(super) producer: Vec<Option<usize>>,
}

impl<'g> Fusion<'g> {
    pub(super) fn new(graph: &'g Graph) -> Self {
        let mut users = vec![Vec::new(); graph.values.len()];
        let mut producer = vec![None; graph.values.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            for input in &node.inputs {
                let list: &mut Vec<usize> = &mut users[input.index()];
                if list.last() != Some(&i) {
                    list.push(i);
                }
            }
            for output in &node.outputs {
                producer[output.index()] = Some(i);
            }
        }
        Self { graph, users, producer }
    }

    /// All tasks, in an order in which everything is made before it is read.
    pub(super) fn tasks(&self) -> Vec<Task> {
        let mut absorbed = vec![false; self.graph.nodes.len()];
        let mut products: Vec<Product> = Vec::new();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            if let Some(product) = self.product(i, node, &mut absorbed) {
                absorbed[i] = true;
                products.push(product);
            }
        }
        let mut tasks: Vec<(usize, Task)> = self.over_bytes(&mut absorbed);
        let mut groups = self.groups(&absorbed);
        // Later products first: what they add to their result is then there already.
        for mut product in products.into_iter().rev() {
            let mut at = product.node;
            if let Some(index) = self.epilogue(&product, &groups) {
                let group = groups[index].take().unwrap_or_default();
                at = group.last().copied().unwrap_or(at);
                product.program = self.program(&group, Some(product.inner));
                product.output = self.graph.nodes[at].outputs[0];
            }
            tasks.push((at, Task::Product(product)));
        }
        for group in groups.iter().flatten() {
            if let (Some(program), Some(&last)) = (self.program(group, None), group.last()) {
                tasks.push((last, Task::Chain(Chain { program, output: self.graph.nodes[last].outputs[0] })));
            }
        }
        let grouped: Vec<bool> = {
            let mut grouped = absorbed;
            self.graph
                .nodes
                .iter()
                .enumerate()
                .filter(|(_, n)| domain(self.graph, n).is_some())
                .for_each(|(i, _)| grouped[i] = true);
            grouped
        };
        tasks.extend((0..grouped.len()).filter(|&i| !grouped[i]).map(|i| (i, Task::Node(i))));
        tasks.sort_by_key(|(at, _)| *at);
        tasks.into_iter().map(|(_, task)| task).collect()
    }

    /// Products of bytes and tables, each where its result is made.
    fn over_bytes(&self, absorbed: &mut [bool]) -> Vec<(usize, Task)> {
        let (mut tasks, mut before) = (Vec::new(), Vec::new());
        for (i, node) in self.graph.nodes.iter().enumerate() {
            if let Some(integer) = self.integer(i, absorbed, &mut before) {
                let at = self.producer[integer.output.index()].unwrap_or(i);
                tasks.push((at, Task::Integer(integer)));
            } else if let Some(cast) = node.inputs.get(1).and_then(|index| self.producer[index.index()])
                && let Some(bytes) = table_index(self.graph, node, &self.graph.nodes[cast])
            {
                absorbed[i] = true;
                before.push(cast);
                tasks.push((i, Task::Lookup(i, bytes)));
            }
        }
        // What only they read is not made.
        before.sort_unstable();
        for &at in before.iter().rev() {
            let unread = |id: &ValueId| !self.is_output(*id) && self.users[id.index()].iter().all(|&u| absorbed[u]);
            absorbed[at] = absorbed[at] || self.graph.nodes[at].outputs.iter().all(unread);
        }
        tasks
    }

    pub(super) fn is_output(&self, id: ValueId) -> bool {
        self.graph.outputs.contains(&id)
    }

    fn program(&self, group: &[usize], first: Option<ValueId>) -> Option<Program> {
        let nodes: Vec<&Node> = group.iter().map(|&i| &self.graph.nodes[i]).collect();
        Program::build(self.graph, &nodes, first)
    }

    /// The product of a node, with the constants behind it taken in.
    fn product(&self, index: usize, node: &Node, absorbed: &mut [bool]) -> Option<Product> {
        let graph = self.graph;
        let inner = *node.outputs.first()?;
        let nothing = node.inputs.iter().any(|id| graph.value(*id).is_empty());
        if graph.value(inner).dtype != DType::F32 || nothing {
            return None;
        }
        let weights = graph.value(*node.inputs.get(1)?);
        // Several matrices stay as they are: a factor of the result is not folded into them.
        let one = matches!(node.op, Op::Conv { .. }) || weights.shape.iter().rev().skip(2).all(|d| *d == 1);
        let weights_known = weights.constant.is_some() && one;
        let shape = &graph.value(inner).shape;
        let (axis, bias) = match &node.op {
            Op::Conv { .. } if weights_known => {
                let bias = node.inputs.get(2).map(|&id| graph.value(id).constant.as_ref().map(|t| t.floats().to_vec()));
                // A bias that is not constant: a form that is not lowered.
                if matches!(bias, Some(None)) {
                    return None;
                }
                (1, bias.flatten())
            }
            Op::MatMul => (shape.len() - 1, None),
            _ => return None,
        };
        let mut product = Product {
            node: index,
            scale: None,
            bias,
            low: f32::NEG_INFINITY,
            high: f32::INFINITY,
            inner,
            program: None,
            output: inner,
        };
        while let Some(next) = self.absorb(&mut product, axis, weights_known) {
            absorbed[next] = true;
            product.inner = graph.nodes[next].outputs[0];
            product.output = product.inner;
        }
        Some(product)
    }

    /// Takes in the node that follows, if it is one that only scales, shifts or bounds the result.
    fn absorb(&self, product: &mut Product, axis: usize, weights_known: bool) -> Option<usize> {
        let graph = self.graph;
        let &[next] = self.users[product.inner.index()].as_slice() else { return None };
        let node = &graph.nodes[next];
        let Op::Binary(op) = node.op else { return None };
        let &[a, b] = node.inputs.as_slice() else { return None };
        if self.is_output(product.inner) || a == b {
            return None;
        }
        let (constant, constant_is_right) = if a == product.inner { (b, true) } else { (a, false) };
        let shape = &graph.value(product.inner).shape;
        if graph.value(*node.outputs.first()?).shape != *shape {
            return None;
        }
        let unbounded = product.low == f32::NEG_INFINITY && product.high == f32::INFINITY;
        let values = channels(graph, constant, shape, axis)?;
        let scale = |product: &mut Product, f: &dyn Fn(f32, f32) -> f32| {
            for list in
                [product.scale.get_or_insert_with(|| vec![1.0; values.len()])].into_iter().chain(product.bias.as_mut())
            {
                list.iter_mut().zip(&values).for_each(|(v, &c)| *v = f(*v, c));
            }
        };
        let shift = |product: &mut Product, sign: f32| {
            let bias = product.bias.get_or_insert_with(|| vec![0.0; values.len()]);
            bias.iter_mut().zip(&values).for_each(|(v, &c)| *v += sign * c);
        };
        match op {
            BinaryOp::Mul if weights_known && unbounded => scale(product, &|v, c| v * c),
            BinaryOp::Div if weights_known && unbounded && constant_is_right && values.iter().all(|c| *c != 0.0) => {
                scale(product, &|v, c| v / c);
            }
            BinaryOp::Add if unbounded => shift(product, 1.0),
            BinaryOp::Sub if unbounded && constant_is_right => shift(product, -1.0),
            BinaryOp::Max if product.low == f32::NEG_INFINITY => {
                product.low = scalar(graph, constant).filter(|c| *c <= product.high)?;
            }
            BinaryOp::Min if product.high == f32::INFINITY => {
                product.high = scalar(graph, constant).filter(|c| product.low <= *c)?;
            }
            _ => return None,
        }
        Some(next)
    }

    /// Element-wise nodes grouped: whoever is read by one group only, and has its shape, joins it.
    fn groups(&self, absorbed: &[bool]) -> Vec<Option<Vec<usize>>> {
        let mut groups: Vec<Option<Vec<usize>>> = Vec::new();
        let mut group_of: Vec<Option<usize>> = vec![None; self.graph.nodes.len()];
        for (i, node) in self.graph.nodes.iter().enumerate() {
            if absorbed[i] || domain(self.graph, node).is_none() {
                continue;
            }
            let mut group = vec![i];
            while let Some((other, merged)) = self.joins(&group, &groups, &group_of) {
                groups[other] = None;
                group = merged;
            }
            group.iter().for_each(|&n| group_of[n] = Some(groups.len()));
            groups.push(Some(group));
        }
        groups
    }

    /// A group whose result only this one reads, and both merged.
    fn joins(
        &self,
        group: &[usize],
        groups: &[Option<Vec<usize>>],
        group_of: &[Option<usize>],
    ) -> Option<(usize, Vec<usize>)> {
        let graph = self.graph;
        let shape = &graph.value(graph.nodes[*group.last()?].outputs[0]).shape;
        let own = domain(graph, &graph.nodes[*group.last()?]);
        for id in group.iter().flat_map(|&n| &graph.nodes[n].inputs) {
            let Some(producer) = self.producer[id.index()] else { continue };
            let Some(other) = group_of[producer] else { continue };
            let Some(Some(members)) = groups.get(other) else { continue };
            let users = &self.users[id.index()];
            let only_here = users.iter().all(|u| group.contains(u)) && !self.is_output(*id);
            let flows = !ends_program(graph, &graph.nodes[producer])
                && !users.iter().any(|&u| starts_program(graph, &graph.nodes[u]))
                && graph.value(*id).shape == *shape
                && domain(graph, &graph.nodes[producer]) == own;
            if !only_here || !flows || group.contains(&producer) {
                continue;
            }
            let mut merged: Vec<usize> = members.iter().chain(group).copied().collect();
            merged.sort_unstable();
            if self.program(&merged, None).is_some() {
                return Some((other, merged));
            }
        }
        None
    }

    /// The group that can run on a product's result.
    fn epilogue(&self, product: &Product, groups: &[Option<Vec<usize>>]) -> Option<usize> {
        let graph = self.graph;
        let users = &self.users[product.inner.index()];
        if users.is_empty() || self.is_output(product.inner) {
            return None;
        }
        let index = groups.iter().position(|g| g.as_ref().is_some_and(|g| g.contains(&users[0])))?;
        let group = groups[index].as_ref()?;
        let nodes = || group.iter().map(|&n| &graph.nodes[n]);
        let output = graph.value(graph.nodes[*group.last()?].outputs[0]);
        let fits = users.iter().all(|u| group.contains(u))
            && output.shape == graph.value(product.inner).shape
            && output.dtype == DType::F32
            && !nodes().any(|n| starts_program(graph, n) || ends_program(graph, n));
        if !fits {
            return None;
        }
        let program = self.program(group, Some(product.inner)).filter(|p| p.domain == Domain::F32)?;
        let view = view(graph, &graph.nodes[product.node])?;
        let operands = program.inputs.get(1..)?;
        let walks = |id: &ValueId| {
            let value = graph.value(*id);
            let strides = broadcast(&value.shape, &output.shape);
            let strides = over_view(&output.shape, &strides, view);
            value.dtype == DType::F32 && strides.is_some_and(|[_, _, col]| col <= 1)
        };
        (operands.len() <= 4 && operands.iter().all(walks)).then_some(index)
    }
}

/// One constant number for each index of `axis`.
pub(super) fn channels(graph: &Graph, id: ValueId, shape: &[usize], axis: usize) -> Option<Vec<f32>> {
    let tensor = graph.value(id).constant.as_ref()?;
    let n = shape[axis];
    if let Some(value) = scalar(graph, id) {
        return Some(vec![value; n]);
    }
    let missing = shape.len().checked_sub(tensor.shape.len())?;
    let at_axis = |(d, &extent): (usize, &usize)| extent == if d + missing == axis { n } else { 1 };
    (tensor.shape.iter().enumerate().all(at_axis) && tensor.len() == n).then(|| tensor.floats().to_vec())
}
