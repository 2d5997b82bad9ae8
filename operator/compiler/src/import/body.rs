//! Graphs inside of the graph: bodies of repeats and sides of branches.
//!
//! While a body is built its values have numbers like all others, only its nodes are kept apart. When it is closed it becomes a
//! graph of its own: what it reads of the outside is found then (what is known is copied as a constant, so that it folds and
//! packs inside as it does outside), and so is what does not change from round to round, which runs once, before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::{Branch, DType, Graph, Node, Op, Repeat, Value, ValueId};

use super::build::{Builder, Result, unsupported};

/// A repeat whose body was built.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// Most rounds.
    pub(crate) count: usize,
    /// The first carry is a condition, see [`Repeat::gated`].
    pub(crate) gated: bool,
    /// First value, what the body reads, what it makes of it.
    pub(crate) carries: Vec<(ValueId, ValueId, ValueId)>,
    /// Rows along the first dimension, what the body reads, from the last to the first.
    pub(crate) scans: Vec<(ValueId, ValueId, bool)>,
    /// What the body makes, put from the last row to the first.
    pub(crate) stacked: Vec<(ValueId, bool)>,
}

impl Builder {
    /// Begins a body: nodes from here on are its own.
    pub(crate) fn open(&mut self) {
        self.outside.push(std::mem::take(&mut self.graph.nodes));
    }

    /// Ends the body that was begun last; gives its nodes.
    pub(crate) fn leave(&mut self) -> Vec<Node> {
        let outside = self.outside.pop().unwrap_or_default();
        std::mem::replace(&mut self.graph.nodes, outside)
    }

    /// A value that a body is given.
    pub(crate) fn argument(&mut self, dtype: DType, shape: Vec<usize>) -> ValueId {
        let name = self.label.clone();
        self.graph.add_value(Value { name, dtype, shape, constant: None })
    }

    /// Repeats a body; gives the last values of the carries, then what is stacked.
    pub(crate) fn repeat(&mut self, nodes: Vec<Node>, rounds: &Rounds) -> Result<Vec<ValueId>> {
        let own: Vec<ValueId> = rounds.carries.iter().map(|c| c.1).chain(rounds.scans.iter().map(|s| s.1)).collect();
        let outputs: Vec<ValueId> =
            rounds.carries.iter().map(|c| c.2).chain(rounds.stacked.iter().map(|s| s.0)).collect();
        self.tensors(&outputs)?;
        let nodes = self.hoist(needed(nodes, &outputs), &own);
        let captured = self.captured(&nodes, &own, &outputs);
        let inputs: Vec<ValueId> = own.iter().chain(&captured).copied().collect();
        let body = self.body(nodes, &inputs, &outputs);
        let repeat = Repeat {
            count: rounds.count,
            gated: rounds.gated,
            carries: rounds.carries.len(),
            scans: rounds.scans.iter().map(|s| s.2).collect(),
            stacked: rounds.stacked.iter().map(|s| s.1).collect(),
            body,
        };
        let given: Vec<ValueId> =
            rounds.carries.iter().map(|c| c.0).chain(rounds.scans.iter().map(|s| s.0)).chain(captured).collect();
        self.apply(Op::Repeat(Arc::new(repeat)), &given, None)
    }

    /// Chooses between two bodies, each with what it gives.
    pub(crate) fn branch(&mut self, condition: ValueId, sides: [(Vec<Node>, Vec<ValueId>); 2]) -> Result<Vec<ValueId>> {
        for (_, outputs) in &sides {
            self.tensors(outputs)?;
        }
        let [then, otherwise] = sides.map(|(nodes, outputs)| (needed(nodes, &outputs), outputs));
        let mut captured = self.captured(&then.0, &[], &then.1);
        for id in self.captured(&otherwise.0, &[], &otherwise.1) {
            if !captured.contains(&id) {
                captured.push(id);
            }
        }
        let [then, otherwise] = [then, otherwise].map(|(nodes, outputs)| self.body(nodes, &captured, &outputs));
        let given: Vec<ValueId> = [condition].into_iter().chain(captured).collect();
        self.apply(Op::Branch(Arc::new(Branch { then, otherwise })), &given, None)
    }

    /// What leaves a body that is kept must be tensors: sequences are the importer's.
    fn tensors(&self, outputs: &[ValueId]) -> Result<()> {
        if outputs.iter().any(|id| self.is_no_tensor(*id)) {
            return unsupported("a sequence or an optional that is made under a condition that depends on data");
        }
        Ok(())
    }

    /// Moves what does not depend on the round in front of it.
    fn hoist(&mut self, nodes: Vec<Node>, own: &[ValueId]) -> Vec<Node> {
        let mut changing: BTreeSet<ValueId> = own.iter().copied().collect();
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for node in nodes {
            if node.inputs.iter().any(|id| changing.contains(id)) {
                changing.extend(&node.outputs);
                inside.push(node);
            } else {
                outside.push(node);
            }
        }
        self.graph.nodes.extend(outside);
        inside
    }

    /// What nodes and outputs need of the outside, in the order in which it is first read.
    fn captured(&self, nodes: &[Node], own: &[ValueId], outputs: &[ValueId]) -> Vec<ValueId> {
        let mut known: BTreeSet<ValueId> = own.iter().copied().collect();
        known.extend(nodes.iter().flat_map(|n| &n.outputs));
        let mut captured = Vec::new();
        for id in nodes.iter().flat_map(|n| &n.inputs).chain(outputs) {
            if self.known(*id).is_none() && known.insert(*id) {
                captured.push(*id);
            }
        }
        captured
    }

    /// A graph of its own.
    fn body(&self, nodes: Vec<Node>, inputs: &[ValueId], outputs: &[ValueId]) -> Graph {
        let mut graph = Graph::default();
        let mut numbers: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut number = |graph: &mut Graph, id: ValueId| {
            *numbers.entry(id).or_insert_with(|| graph.add_value(self.graph.value(id).clone()))
        };
        graph.inputs = inputs.iter().map(|id| number(&mut graph, *id)).collect();
        for mut node in nodes {
            for id in node.inputs.iter_mut().chain(&mut node.outputs) {
                *id = number(&mut graph, *id);
            }
            graph.nodes.push(node);
        }
        graph.outputs = outputs.iter().map(|id| number(&mut graph, *id)).collect();
        graph.output_names = outputs.iter().map(|id| self.graph.value(*id).name.clone()).collect();
        graph
    }
}

/// Without what nothing of the outputs needs.
fn needed(mut nodes: Vec<Node>, outputs: &[ValueId]) -> Vec<Node> {
    let mut needed: BTreeSet<ValueId> = outputs.iter().copied().collect();
    nodes.reverse();
    nodes.retain(|node| {
        let needs = node.outputs.iter().any(|id| needed.contains(id));
        if needs {
            needed.extend(&node.inputs);
        }
        needs
    });
    nodes.reverse();
    nodes
}
