//! What is picked, put, put in order and joined; tensors without elements.

use super::*;
use crate::ir::Scatter;

const TYPES: [DType; 7] = [DType::F32, DType::F64, DType::U8, DType::I8, DType::I32, DType::I64, DType::U64];

#[test]
fn reductions_of_every_type_over_all_sets_of_axes() {
    for dtype in TYPES {
        let mut net = Net { seed: 5, ..Net::default() };
        let x = net.input(dtype, &[2, 3, 4, 5]);
        let mut outputs = Vec::new();
        for kind in [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min, ReduceKind::Product, ReduceKind::SumSquares] {
            for axes in [vec![0], vec![1, 3], vec![0, 2], vec![0, 1, 2, 3]] {
                outputs.push(net.add(Op::Reduce { kind, axes }, &[x]));
            }
        }
        net.check(&outputs);
    }
}

#[test]
fn products_of_every_type_with_batches_that_repeat() {
    for dtype in [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8] {
        for (a, b) in [(vec![3, 4], vec![4, 5]), (vec![2, 1, 3, 4], vec![1, 3, 4, 5]), (vec![2, 3, 4], vec![2, 4, 1])] {
            let mut net = Net::default();
            let [x, w] = [a, b].map(|shape| net.input(dtype, &shape));
            let y = net.add(Op::MatMul, &[x, w]);
            net.check(&[y]);
        }
    }
}

#[test]
fn convolutions_of_other_types_and_of_computed_weights() {
    for dtype in [DType::F64, DType::I32] {
        for (groups, pads, dilations) in [(1, [1, 1, 1, 1], [1, 1]), (2, [0, 2, 1, 0], [2, 1])] {
            let mut net = Net::default();
            let x = net.input(dtype, &[2, 4, 9, 8]);
            let w = net.input(dtype, &[6, 4 / groups, 3, 2]);
            let bias = net.input(dtype, &[6]);
            let window = Window { kernel: [3, 2], strides: [2, 1], dilations, pads };
            let y = net.add(Op::Conv { window, groups }, &[x, w, bias]);
            let z = net.add(Op::Conv { window, groups }, &[x, w]);
            net.check(&[y, z]);
        }
    }
    let mut net = Net::default();
    let x = net.input(DType::F32, &[1, 4, 5, 5]);
    let w = net.input(DType::F32, &[2, 4, 3, 3]);
    let window = Window { kernel: [3; 2], strides: [1; 2], dilations: [1; 2], pads: [1; 4] };
    let y = net.add(Op::Conv { window, groups: 1 }, &[x, w]);
    net.check(&[y]);
}

#[test]
fn running_sums_and_what_comes_first() {
    for dtype in TYPES {
        let mut net = Net::default();
        let x = net.input(dtype, &[3, 7, 4]);
        let mut outputs = Vec::new();
        for axis in 0..3 {
            for exclusive in [false, true] {
                outputs.push(net.add(Op::CumSum { axis, exclusive, reverse: axis == 1 }, &[x]));
            }
            for largest in [false, true] {
                outputs.push(net.add(Op::ArgReduce { largest, axis, last: axis == 2 }, &[x]));
                let mut shape = [3, 7, 4];
                shape[axis] = 2;
                let values = net.add_as(Op::TopK { axis, largest }, &[x], Some((dtype, &shape)));
                outputs.extend([values, ValueId(values.0 + 1)]);
            }
        }
        net.check(&outputs);
    }
}

#[test]
fn elements_are_picked_and_put_where_indices_point() {
    for dtype in TYPES {
        let mut net = Net::default();
        let x = net.input(dtype, &[3, 4, 5]);
        let index = net.input(DType::U8, &[3, 2, 5]);
        let index = net.add_as(Op::Cast, &[index], Some((DType::I32, &[3, 2, 5])));
        let along = net.add(Op::GatherElements { axis: 1 }, &[x, index]);
        let tuples = net
            .graph
            .add_constant("tuples", Arc::new(Tensor::int(DType::I64, vec![3, 2, 1], vec![0, 3, -1, 2, 99, -99])));
        let rows = net.add(Op::GatherNd { batch: 1 }, &[x, tuples]);
        let pairs = net.graph.add_constant("pairs", Arc::new(Tensor::int(DType::I64, vec![2, 2], vec![0, 1, 2, -1])));
        let picked = net.add(Op::GatherNd { batch: 0 }, &[x, pairs]);
        let updates = net.input(dtype, &[3, 2, 5]);
        let slices = net.input(dtype, &[2, 5]);
        let mut outputs = vec![along, rows, picked];
        for combine in [Scatter::Set, Scatter::Add, Scatter::Mul, Scatter::Min, Scatter::Max] {
            outputs.push(net.add(Op::ScatterElements { axis: 1, combine }, &[x, index, updates]));
            outputs.push(net.add(Op::ScatterNd { combine }, &[x, pairs, slices]));
        }
        net.check(&outputs);
    }
}

#[test]
fn what_is_written_into_may_be_its_own_place() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[6]);
    let y = net.relu(x);
    let indices = net.ints(&[1, 4, 1]);
    let updates = net.constant(&[3]);
    let z = net.add(Op::ScatterElements { axis: 0, combine: Scatter::Add }, &[y, indices, updates]);
    net.check(&[z]);
}

#[test]
fn pads_of_every_type_and_number() {
    for dtype in [TYPES.as_slice(), &[DType::F16, DType::BF16, DType::Bool, DType::U16]].concat() {
        let mut net = Net::default();
        let x = net.input(dtype, &[3, 4]);
        let pad = |mode| Op::Pad { before: vec![1, -1], mode };
        let mut outputs = Vec::new();
        for mode in [PadMode::Constant(1.0), PadMode::Constant(0.0), PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
            outputs.push(net.add_as(pad(mode), &[x], Some((dtype, &[5, 5]))));
        }
        let away = Op::Pad { before: vec![0, 7], mode: PadMode::Constant(1.0) };
        outputs.push(net.add_as(away, &[x], Some((dtype, &[3, 6]))));
        let turned = net.add(Op::Transpose { perm: vec![1, 0] }, &[x]);
        outputs.push(net.add_as(Op::Reshape, &[turned], Some((dtype, &[12]))));
        net.check(&outputs);
    }
}

#[test]
fn tensors_without_elements_are_nothing_to_do() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[3, 4]);
    let none = net.add_as(Op::Slice { starts: vec![0, 0], steps: vec![1, 1] }, &[x], Some((DType::F32, &[3, 0])));
    let bent = net.relu(none);
    let joined = net.add(Op::Concat { axis: 1 }, &[bent, x, none]);
    let turned = net.add(Op::Transpose { perm: vec![1, 0] }, &[none]);
    let product = net.add(Op::MatMul, &[none, turned]);
    let sum = net.add(Op::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[none]);
    let top = net.add(Op::Reduce { kind: ReduceKind::Max, axes: vec![1] }, &[none]);
    let padded =
        net.add_as(Op::Pad { before: vec![0, 1], mode: PadMode::Constant(2.5) }, &[none], Some((DType::F32, &[3, 2])));
    let whole = net.add_as(Op::Cast, &[none], Some((DType::I8, &[3, 0])));
    let most = net.add(Op::Reduce { kind: ReduceKind::Max, axes: vec![1] }, &[whole]);
    net.check(&[joined, product, sum, top, padded, none, turned, most]);
}
