//! Drops what no output needs, and numbers what stays from 0.

use crate::ir::{Graph, ValueId};

pub(super) fn prune(graph: &mut Graph) {
    let mut needed = vec![false; graph.values.len()];
    graph.outputs.iter().for_each(|id| needed[id.index()] = true);
    let mut nodes = std::mem::take(&mut graph.nodes);
    for node in nodes.iter().rev() {
        if node.outputs.iter().any(|id| needed[id.index()]) {
            node.inputs.iter().for_each(|id| needed[id.index()] = true);
        }
    }
    nodes.retain(|node| node.outputs.iter().any(|id| needed[id.index()]));
    graph.nodes = nodes;
    // Inputs stay, used or not: they are part of the contract. So do second outputs of a node that is kept.
    for id in graph.inputs.iter().chain(graph.nodes.iter().flat_map(|n| &n.outputs)) {
        needed[id.index()] = true;
    }
    let mut numbers = vec![ValueId(0); graph.values.len()];
    let mut values = Vec::new();
    for (i, value) in std::mem::take(&mut graph.values).into_iter().enumerate() {
        if needed[i] {
            numbers[i] = ValueId(values.len() as u32);
            values.push(value);
        }
    }
    graph.values = values;
    let ids = graph.inputs.iter_mut().chain(&mut graph.outputs);
    for id in ids.chain(graph.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(&mut n.outputs))) {
        *id = numbers[id.index()];
    }
}
