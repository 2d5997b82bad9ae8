//! Repeats and branches against the reference evaluator.

use std::sync::Arc;

use super::*;
use crate::ir::{Branch, Repeat};

/// A graph of its own: what the inputs are, and what is made of them.
fn body(seed: u64, inputs: &[(DType, &[usize])], make: impl FnOnce(&mut Net, &[ValueId]) -> Vec<ValueId>) -> Graph {
    let mut net = Net { seed, ..Net::default() };
    let given: Vec<ValueId> = inputs.iter().map(|(dtype, shape)| net.input(*dtype, shape)).collect();
    net.graph.outputs = make(&mut net, &given);
    net.graph.output_names = vec![String::new(); net.graph.outputs.len()];
    net.graph
}

fn outputs_of(net: &Net) -> Vec<ValueId> {
    net.graph.nodes.last().expect("a node").outputs.clone()
}

const F: DType = DType::F32;

/// `h = tanh(x·W + h·U + b)`, all of `h` stacked.
fn recurrent(scans: Vec<bool>, stacked: Vec<bool>) -> Repeat {
    let body = body(5, &[(F, &[2, 8]), (F, &[2, 4])], |net, given| {
        let [w, u, b] = [net.constant(&[4, 8]), net.constant(&[8, 8]), net.constant(&[8])];
        let x = net.add(Op::MatMul, &[given[1], w]);
        let h = net.add(Op::MatMul, &[given[0], u]);
        let mut y = net.binary(BinaryOp::Add, x, h);
        y = net.binary(BinaryOp::Add, y, b);
        y = net.add(Op::Unary(UnaryOp::Tanh), &[y]);
        vec![y, y]
    });
    Repeat { count: 6, gated: false, carries: 1, scans, stacked, body }
}

#[test]
fn recurrent_layers_in_both_directions() {
    for (backward, reversed) in [(false, false), (true, true), (false, true)] {
        let mut net = Net::default();
        let (h, x) = (net.input(F, &[2, 8]), net.input(F, &[6, 2, 4]));
        net.add(Op::Repeat(Arc::new(recurrent(vec![backward], vec![reversed]))), &[h, x]);
        let outputs = outputs_of(&net);
        // A product for the input, one for the recurrence that adds it; and the state's first value is copied.
        let steps = net.check(&outputs);
        assert_eq!(steps.len(), 3, "{}", kinds(&steps));
    }
}

#[test]
fn constants_are_repeated_over_and_started_from() {
    let mut net = Net::default();
    let (h, x) = (net.constant(&[2, 8]), net.constant(&[6, 2, 4]));
    net.add(Op::Repeat(Arc::new(recurrent(vec![true], vec![false]))), &[h, x]);
    let outputs = outputs_of(&net);
    net.check(&outputs);
}

/// Carries that change places, one that stays, one that becomes a constant, one that becomes what is captured.
#[test]
fn carries_may_change_places() {
    let shape = &[3usize][..];
    let body = body(1, &[(F, shape); 6], |net, given| {
        let k = net.constant(shape);
        let flat = net.add_as(Op::Reshape, &[given[0]], Some((F, &[3])));
        let sum = net.binary(BinaryOp::Add, given[0], given[5]);
        vec![given[1], flat, given[2], k, given[5], given[0], sum, k]
    });
    let repeat = Repeat { count: 5, gated: false, carries: 5, scans: vec![], stacked: vec![false, true, false], body };
    let mut net = Net::default();
    let inputs: Vec<ValueId> = (0..6).map(|_| net.input(F, shape)).collect();
    net.add(Op::Repeat(Arc::new(repeat)), &inputs);
    let mut outputs = outputs_of(&net);
    // What goes in is still needed behind the repeat.
    outputs.push(net.binary(BinaryOp::Mul, inputs[0], inputs[5]));
    net.check(&outputs);
}

/// Doubles until the sum of all elements passes a bound.
fn doubling() -> Repeat {
    let body = body(0, &[(DType::Bool, &[]), (F, &[3]), (F, &[])], |net, given| {
        let next = net.binary(BinaryOp::Add, given[1], given[1]);
        let sum = net.add(Op::Reduce { kind: ReduceKind::SumAbs, axes: vec![0] }, &[next]);
        let sum = net.add_as(Op::Reshape, &[sum], Some((F, &[])));
        let below = net.binary(BinaryOp::Less, sum, given[2]);
        vec![below, next, next]
    });
    Repeat { count: 40, gated: true, carries: 2, scans: vec![], stacked: vec![false], body }
}

#[test]
fn a_condition_ends_a_repeat() {
    for (bound, open) in [(100.0, 1), (1e30, 1), (0.0, 1), (100.0, 0)] {
        let mut net = Net::default();
        let x = net.input(F, &[3]);
        let bound = net.scalar(bound);
        let gate = net.graph.add_constant("g", Arc::new(Tensor::int(DType::Bool, vec![], vec![open])));
        net.add(Op::Repeat(Arc::new(doubling())), &[gate, x, bound]);
        let outputs = outputs_of(&net);
        net.check(&outputs);
    }
}

fn sides() -> Branch {
    let side = |seed, op| {
        body(seed, &[(F, &[4, 5]), (F, &[4, 5])], |net, given| {
            let w = net.constant(&[5, 5]);
            let y = net.add(Op::MatMul, &[given[0], w]);
            let y = net.binary(op, y, given[1]);
            vec![y, given[1]]
        })
    };
    let otherwise = body(3, &[(F, &[4, 5]), (F, &[4, 5])], |net, given| {
        let k = net.constant(&[4, 5]);
        let product = net.binary(BinaryOp::Mul, given[1], k);
        vec![given[0], product]
    });
    Branch { then: side(2, BinaryOp::Add), otherwise }
}

#[test]
fn a_branch_takes_the_side_that_its_condition_says() {
    for bound in [-1e9, 1e9] {
        let mut net = Net::default();
        let (x, y) = (net.input(F, &[4, 5]), net.input(F, &[4, 5]));
        let sum = net.add(Op::Reduce { kind: ReduceKind::Sum, axes: vec![0, 1] }, &[x]);
        let bound = net.scalar(bound);
        let below = net.binary(BinaryOp::Less, sum, bound);
        net.add(Op::Branch(Arc::new(sides())), &[below, x, y]);
        let mut outputs = outputs_of(&net);
        outputs.push(net.binary(BinaryOp::Add, x, y));
        net.check(&outputs);
    }
}

/// A branch in each round of a repeat, in each round of a repeat: what is captured goes through all of them.
#[test]
fn what_is_nested_sees_what_is_outside() {
    let middle = body(8, &[(F, &[4, 5]), (DType::Bool, &[]), (F, &[4, 5])], |net, given| {
        net.add(Op::Branch(Arc::new(sides())), &[given[1], given[0], given[2]]);
        let sides = outputs_of(net);
        vec![sides[0]]
    });
    let middle = Repeat { count: 2, gated: false, carries: 1, scans: vec![false], stacked: vec![], body: middle };
    let outer = body(9, &[(F, &[4, 5]), (F, &[4, 5]), (F, &[4, 5])], |net, given| {
        let conditions = net.graph.add_constant("c", Arc::new(Tensor::int(DType::Bool, vec![2], vec![1, 0])));
        let shifted = net.binary(BinaryOp::Sub, given[2], given[1]);
        let x = net.add(Op::Repeat(Arc::new(middle)), &[given[0], conditions, shifted]);
        let x = net.add(Op::Unary(UnaryOp::Tanh), &[x]);
        vec![x, shifted]
    });
    let outer = Repeat { count: 3, gated: false, carries: 1, scans: vec![true], stacked: vec![true], body: outer };
    let mut net = Net::default();
    let (x, rows, y) = (net.input(F, &[4, 5]), net.input(F, &[3, 4, 5]), net.input(F, &[4, 5]));
    net.add(Op::Repeat(Arc::new(outer)), &[x, rows, y]);
    let outputs = outputs_of(&net);
    net.check(&outputs);
}

#[test]
fn every_round_counts_in_the_price() {
    let price = |count: usize| {
        let mut net = Net::default();
        let (h, x) = (net.input(F, &[2, 8]), net.input(F, &[count, 2, 4]));
        let repeat = Repeat { count, ..recurrent(vec![false], vec![false]) };
        net.add(Op::Repeat(Arc::new(repeat)), &[h, x]);
        net.graph.outputs = outputs_of(&net);
        net.graph.output_names = vec!["h".into(), "all".into()];
        let lowered = lower(&net.graph, &target()).expect("lowers");
        (lowered.plan.len(), Plan::parse(&lowered.plan).expect("parses").flop(), crate::cost::cost(&net.graph).flop)
    };
    let ((length, flop, cost), (same, more, dearer)) = (price(6), price(60));
    assert_eq!((length, 10 * flop, 10 * cost), (same, more, dearer));
}
