//! Lowered graphs against the reference evaluator, on every level that this CPU has, in an arena full of rubbish.
#![allow(unsafe_code)] // runs kernels natively: plans were parsed, memories have the sizes that they ask for

mod bounded;
mod control;
mod generic;
mod integers;
mod swish;

use std::sync::Arc;

use ballast_kernels::{Level, Memory};
use ballast_plan::{Plan, Step};

use super::*;
use crate::eval::evaluate;
use crate::ir::{BinaryOp, Data, PadMode, PoolKind, ReduceKind, Tensor, UnaryOp, Value, Window};
use crate::shape;

/// A graph under construction, with random constants.
#[derive(Default)]
struct Net {
    graph: Graph,
    seed: u64,
}

fn target() -> TargetSpec {
    TargetSpec {
        name: "x86-64".parse().expect("a name"),
        triple: "x86_64-unknown-linux-musl".into(),
        cpu_features: vec![],
        memory_bytes: 1 << 30,
        deny: vec![],
        gflops: 0.0,
        memory_bandwidth: 0.0,
    }
}

impl Net {
    fn random(&mut self, n: usize) -> Vec<f32> {
        let mut next = || {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn input(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        let name = format!("input{}", self.graph.inputs.len());
        let id = self.graph.add_value(Value { name, dtype, shape: shape.to_vec(), constant: None });
        self.graph.inputs.push(id);
        id
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let data = self.random(shape.iter().product());
        self.graph.add_constant("c", Arc::new(Tensor::f32(shape.to_vec(), data)))
    }

    fn scalar(&mut self, value: f32) -> ValueId {
        self.graph.add_constant("s", Arc::new(Tensor::f32(vec![], vec![value])))
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        self.graph.add_constant("i", Arc::new(Tensor::int(DType::I64, vec![values.len()], values.to_vec())))
    }

    /// Adds a node; `wanted` where the operation does not say its result's type and shape.
    fn add_as(&mut self, op: Op, inputs: &[ValueId], wanted: Option<(DType, &[usize])>) -> ValueId {
        let typed: Vec<_> =
            inputs.iter().map(|&id| (self.graph.value(id).dtype, self.graph.value(id).shape.as_slice())).collect();
        let wanted = wanted.map(|(dtype, shape)| (dtype, shape.to_vec()));
        let outputs = shape::outputs(&op, &typed, wanted.as_ref()).expect("shapes work out");
        let ids: Vec<ValueId> = outputs
            .into_iter()
            .map(|(dtype, shape)| self.graph.add_value(Value { name: "v".into(), dtype, shape, constant: None }))
            .collect();
        let name = format!("node{}", self.graph.nodes.len());
        let operator = String::new();
        self.graph.nodes.push(Node { name, operator, op, inputs: inputs.to_vec(), outputs: ids.clone() });
        ids[0]
    }

    fn add(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.add_as(op, inputs, None)
    }

    fn binary(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        self.add(Op::Binary(op), &[a, b])
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        let zero = self.scalar(0.0);
        self.binary(BinaryOp::Max, x, zero)
    }

    /// `x · min(max(x + 3, 0), 6) ÷ 6`, as exporters write it out.
    fn hard_swish(&mut self, x: ValueId) -> ValueId {
        let [three, zero, six] = [3.0, 0.0, 6.0].map(|v| self.scalar(v));
        let shifted = self.binary(BinaryOp::Add, x, three);
        let low = self.binary(BinaryOp::Max, shifted, zero);
        let gate = self.binary(BinaryOp::Min, low, six);
        let product = self.binary(BinaryOp::Mul, x, gate);
        self.binary(BinaryOp::Div, product, six)
    }

    fn conv(&mut self, x: ValueId, planes: usize, kernel: usize, stride: usize, groups: usize) -> ValueId {
        let channels = self.graph.value(x).shape[1];
        let weights = self.constant(&[planes, channels / groups, kernel, kernel]);
        let bias = self.constant(&[planes]);
        let pad = kernel / 2;
        let window = Window { kernel: [kernel; 2], strides: [stride; 2], dilations: [1; 2], pads: [pad; 4] };
        self.add(Op::Conv { window, groups }, &[x, weights, bias])
    }

    /// Lowers, runs, compares; gives the steps.
    fn check(mut self, outputs: &[ValueId]) -> Vec<Step> {
        self.graph.outputs = outputs.to_vec();
        self.graph.output_names = (0..outputs.len()).map(|i| format!("output{i}")).collect();
        let inputs: Vec<Tensor> = self
            .graph
            .inputs
            .clone()
            .into_iter()
            .map(|id| {
                let (dtype, shape) = (self.graph.value(id).dtype, self.graph.value(id).shape.clone());
                let data = self.random(shape.iter().product());
                match dtype {
                    DType::F32 => Tensor::f32(shape, data.iter().map(|v| v * 2.0).collect()),
                    DType::F16 | DType::BF16 | DType::F64 => {
                        let data: Vec<f64> = data.iter().map(|v| f64::from(*v) * 2.0).collect();
                        Tensor { dtype, shape, data: Data::of(dtype, &data) }
                    }
                    // All bits of them.
                    DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U32 | DType::U64 => {
                        let wide = |v: &f32| (f64::from(*v) * 3e19) as i64 ^ i64::from(v.to_bits()) << 7;
                        Tensor::int(dtype, shape, data.iter().map(|v| crate::eval::wrap(dtype, wide(v))).collect())
                    }
                    DType::Bool => Tensor::int(dtype, shape, data.iter().map(|v| i64::from(*v > 0.0)).collect()),
                    _ => Tensor::int(dtype, shape, data.iter().map(|v| (v * 100.0).abs() as i64).collect()),
                }
            })
            .collect();
        let want = evaluate(&self.graph, &inputs).expect("inputs fit");
        let lowered = lower(&self.graph, &target()).expect("lowers");
        assert_eq!(lowered, lower(&self.graph, &target()).expect("again"), "the same graph, other bytes");
        let plan = Plan::parse(&lowered.plan).expect("parses");
        assert_eq!(u64::from(plan.arena_bytes()), lowered.arena_bytes);
        let entry = plan.entries().next().expect("an entry");
        for level in [Level::Scalar, Level::best()] {
            // u64s, so that everything is aligned; twice, because nothing may depend on what a run leaves behind.
            let mut arena = vec![u64::MAX; lowered.arena_bytes as usize / 8];
            let weights: Vec<u64> =
                lowered.weights.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect();
            let memory = Memory { arena: arena.as_mut_ptr().cast(), weights: weights.as_ptr().cast() };
            for _ in 0..2 {
                for (tensor, place) in inputs.iter().zip(entry.inputs()) {
                    let bytes = tensor.to_bytes();
                    assert_eq!(place.bytes(), Some(bytes.len() as u64));
                    unsafe { memory.arena.add(place.at as usize).copy_from(bytes.as_ptr(), bytes.len()) };
                }
                unsafe { ballast_kernels::run(level, &plan, entry.items(), &memory) };
                for (i, (want, place)) in want.iter().zip(entry.outputs()).enumerate() {
                    let bytes = place.bytes().unwrap() as usize;
                    let got = unsafe { std::slice::from_raw_parts(memory.arena.add(place.at as usize), bytes) };
                    let got = Tensor::from_bytes(want.dtype, want.shape.clone(), got).expect("as long as it says");
                    compare(&got, want, &format!("{level:?}, output {i}"));
                }
            }
        }
        entry.steps().collect()
    }
}

fn compare(got: &Tensor, want: &Tensor, what: &str) {
    match (&got.data, &want.data) {
        (Data::F32(got), Data::F32(want)) => {
            for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
                let same = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= 1e-4 + 1e-4 * w.abs();
                assert!(same, "{what}: element {i} is {g}, not {w}");
            }
        }
        (Data::F64(got), Data::F64(want)) => {
            for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
                let same = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= 1e-12 + 1e-12 * w.abs();
                assert!(same, "{what}: element {i} is {g}, not {w}");
            }
        }
        (got, want) => assert_eq!(got, want, "{what}"),
    }
}

#[test]
fn a_small_classifier_is_seven_steps() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[1, 1, 8, 8]);
    let mut y = net.conv(x, 8, 3, 1, 1);
    let [scale, shift] = [net.constant(&[1, 8, 1, 1]), net.constant(&[8, 1, 1])];
    y = net.binary(BinaryOp::Mul, y, scale);
    y = net.binary(BinaryOp::Add, y, shift);
    y = net.relu(y);
    let window = Window { kernel: [2; 2], strides: [2; 2], dilations: [1; 2], pads: [0; 4] };
    y = net.add_as(Op::Pool { kind: PoolKind::Max, window }, &[y], Some((DType::F32, &[1, 8, 4, 4])));
    y = net.conv(y, 16, 3, 1, 1);
    y = net.relu(y);
    let window = Window { kernel: [4; 2], strides: [1; 2], dilations: [1; 2], pads: [0; 4] };
    y = net.add_as(Op::Pool { kind: PoolKind::Mean, window }, &[y], Some((DType::F32, &[1, 16, 1, 1])));
    y = net.add_as(Op::Reshape, &[y], Some((DType::F32, &[1, 16])));
    for n in [32, 10] {
        let k = net.graph.value(y).shape[1];
        let [w, b] = [net.constant(&[k, n]), net.constant(&[n])];
        y = net.add(Op::MatMul, &[y, w]);
        y = net.binary(BinaryOp::Add, y, b);
        if n == 32 {
            y = net.relu(y);
        }
    }
    y = net.add(Op::Softmax { axis: 1, log: false }, &[y]);
    let steps = net.check(&[y]);
    assert_eq!(steps.len(), 7, "{}", kinds(&steps));
}

#[test]
fn a_mobile_block_fuses_its_activations_and_its_shortcut() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[2, 8, 12, 20]);
    let mut y = net.conv(x, 24, 1, 1, 1);
    y = net.hard_swish(y);
    y = net.conv(y, 24, 5, 1, 24);
    y = net.hard_swish(y);
    // Squeeze and excite.
    let mut gate = net.add(Op::Reduce { kind: ReduceKind::Mean, axes: vec![2, 3] }, &[y]);
    gate = net.conv(gate, 6, 1, 1, 1);
    gate = net.relu(gate);
    gate = net.conv(gate, 24, 1, 1, 1);
    gate = net.add(Op::Unary(UnaryOp::Sigmoid), &[gate]);
    y = net.binary(BinaryOp::Mul, y, gate);
    y = net.conv(y, 8, 1, 1, 1);
    y = net.binary(BinaryOp::Add, x, y);
    let steps = net.check(&[y]);
    // Two convolutions, mean, two of the gate, the product with it, the last convolution with the shortcut.
    assert_eq!(steps.len(), 7, "{}", kinds(&steps));
}

#[test]
fn convolutions_in_groups_and_with_strides() {
    for (planes, kernel, stride, groups) in [(6, 3, 2, 3), (12, 1, 2, 1), (18, 3, 1, 9), (5, 5, 3, 1), (9, 3, 2, 9)] {
        let mut net = Net::default();
        let x = net.input(DType::F32, &[1, 9, 13, 17]);
        let y = net.conv(x, planes, kernel, stride, groups);
        let y = net.add(Op::Unary(UnaryOp::Tanh), &[y]);
        assert_eq!(net.check(&[y]).len(), 1);
    }
}

#[test]
fn matrix_products_of_all_forms() {
    for (a, b) in [
        (vec![1, 30], vec![30, 17]),
        (vec![7, 30], vec![30, 17]),
        (vec![2, 3, 5, 8], vec![8, 9]),
        (vec![2, 3, 5, 8], vec![2, 3, 8, 9]),
        (vec![5, 8], vec![4, 8, 9]),
        (vec![4, 5, 8], vec![1, 8, 1]),
        (vec![1, 1, 8], vec![8, 1]),
    ] {
        for constants in 0..4 {
            let mut net = Net::default();
            let pick = |net: &mut Net, constant: bool, shape: &[usize]| {
                if constant { net.constant(shape) } else { net.input(DType::F32, shape) }
            };
            let x = pick(&mut net, constants & 1 != 0, &a);
            let w = pick(&mut net, constants & 2 != 0, &b);
            let y = net.add(Op::MatMul, &[x, w]);
            let n = b[b.len() - 1];
            let bias = net.constant(&[n]);
            let y = net.binary(BinaryOp::Add, y, bias);
            let shape = net.graph.value(y).shape.clone();
            let other = net.input(DType::F32, &shape);
            let y = net.binary(BinaryOp::Mul, y, other);
            net.check(&[y]);
        }
    }
}

#[test]
fn a_layer_norm_and_an_attention() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[2, 7, 16]);
    let mean = net.add(Op::Reduce { kind: ReduceKind::Mean, axes: vec![2] }, &[x]);
    let centred = net.binary(BinaryOp::Sub, x, mean);
    let square = net.binary(BinaryOp::Mul, centred, centred);
    let variance = net.add(Op::Reduce { kind: ReduceKind::Mean, axes: vec![2] }, &[square]);
    let epsilon = net.scalar(1e-5);
    let shifted = net.binary(BinaryOp::Add, variance, epsilon);
    let root = net.add(Op::Unary(UnaryOp::Sqrt), &[shifted]);
    let normal = net.binary(BinaryOp::Div, centred, root);
    let keys = net.add(Op::Transpose { perm: vec![0, 2, 1] }, &[normal]);
    let scores = net.add(Op::MatMul, &[normal, keys]);
    let eighth = net.scalar(0.125);
    let scores = net.binary(BinaryOp::Mul, scores, eighth);
    let weights = net.add(Op::Softmax { axis: 2, log: false }, &[scores]);
    let y = net.add(Op::MatMul, &[weights, normal]);
    let y = net.add(Op::Unary(UnaryOp::Erf), &[y]);
    net.check(&[y, mean]);
}

#[test]
fn elements_move() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[2, 3, 4, 5]);
    let turned = net.add(Op::Transpose { perm: vec![3, 1, 0, 2] }, &[x]);
    let cut = net.add_as(
        Op::Slice { starts: vec![4, 0, 1, 0], steps: vec![-2, 1, -1, 3] },
        &[turned],
        Some((DType::F32, &[3, 3, 2, 2])),
    );
    let padded = net.add_as(
        Op::Pad { before: vec![0, -1, 1, 2], mode: PadMode::Constant(1.5) },
        &[cut],
        Some((DType::F32, &[3, 4, 4, 5])),
    );
    let joined = net.add(Op::Concat { axis: 2 }, &[padded, padded]);
    let mirrored = net.add_as(
        Op::Pad { before: vec![0, 2, 0, -1], mode: PadMode::Reflect },
        &[joined],
        Some((DType::F32, &[3, 7, 8, 6])),
    );
    let indices = net.ints(&[2, -1, 0, 99]);
    let picked = net.add(Op::Gather { axis: 0 }, &[mirrored, indices]);
    let wide = net.add_as(Op::Expand, &[picked], Some((DType::F32, &[2, 4, 7, 8, 6])));
    net.check(&[wide, padded, turned]);
}

#[test]
fn resampling_and_reductions_over_several_axes() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[2, 3, 4, 5]);
    let nearest = Op::Resample { axis: 3, taps: 1, indices: vec![0, 0, 2, 4], weights: vec![1.0; 4] };
    let y = net.add(nearest, &[x]);
    let linear = Op::Resample {
        axis: 2,
        taps: 2,
        indices: vec![0, 1, 1, 2, 3, 3],
        weights: vec![0.25, 0.75, 0.5, 0.5, 1.0, 0.0],
    };
    let y = net.add(linear, &[y]);
    let mut outputs = vec![y];
    for kind in [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::SumSquares, ReduceKind::SumAbs] {
        for axes in [vec![0], vec![1, 3], vec![0, 2], vec![0, 1, 2, 3]] {
            outputs.push(net.add(Op::Reduce { kind, axes }, &[y]));
        }
    }
    net.check(&outputs);
}

#[test]
fn types_are_converted_and_compared() {
    let mut net = Net::default();
    let x = net.input(DType::U8, &[3, 50]);
    let i = net.input(DType::I32, &[3, 1]);
    let mask = net.input(DType::Bool, &[3, 50]);
    let float = net.add_as(Op::Cast, &[x], Some((DType::F32, &[3, 50])));
    let other = net.add_as(Op::Cast, &[i], Some((DType::F32, &[3, 1])));
    let less = net.binary(BinaryOp::Less, float, other);
    let both = net.binary(BinaryOp::And, less, mask);
    let not = net.add(Op::Unary(UnaryOp::Not), &[both]);
    let seven = net.scalar(7.0);
    let scaled = net.binary(BinaryOp::Div, float, seven);
    let chosen = net.add(Op::Select, &[not, scaled, other]);
    let whole = net.add_as(Op::Cast, &[chosen], Some((DType::I64, &[3, 50])));
    let steps = net.check(&[whole, both]);
    // Two conversions that others share, and a program for each output.
    assert_eq!(steps.len(), 4, "{}", kinds(&steps));
}

#[test]
fn constants_inputs_and_shared_values_are_outputs() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[4, 6]);
    let c = net.constant(&[5]);
    let y = net.relu(x);
    let flat = net.add_as(Op::Reshape, &[y], Some((DType::F32, &[24])));
    let two = net.scalar(2.0);
    let z = net.binary(BinaryOp::Mul, flat, two);
    net.check(&[x, c, y, flat, z, z]);
}

#[test]
fn nan_reaches_the_output_through_convolution_and_activation() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[1, 1, 8, 8]);
    let mean = net.add(Op::Reduce { kind: ReduceKind::Mean, axes: vec![2, 3] }, &[x]);
    let centred = net.binary(BinaryOp::Sub, x, mean);
    let none = net.binary(BinaryOp::Sub, x, x);
    let nan = net.binary(BinaryOp::Div, none, none);
    let x = net.binary(BinaryOp::Add, centred, nan);
    let y = net.conv(x, 8, 3, 1, 1);
    let y = net.relu(y);
    let six = net.scalar(6.0);
    let y = net.binary(BinaryOp::Min, y, six);
    let window = Window { kernel: [8; 2], strides: [1; 2], dilations: [1; 2], pads: [0; 4] };
    let y = net.add_as(Op::Pool { kind: PoolKind::Max, window }, &[y], Some((DType::F32, &[1, 8, 1, 1])));
    let y = net.add(Op::Softmax { axis: 1, log: false }, &[y]);
    net.check(&[y]);
}

#[test]
fn the_arena_is_no_larger_than_what_lives_at_once() {
    let mut net = Net::default();
    let mut x = net.input(DType::F32, &[1, 8, 32, 32]);
    for _ in 0..10 {
        x = net.conv(x, 8, 3, 1, 1);
        x = net.relu(x);
    }
    net.graph.outputs = vec![x];
    net.graph.output_names = vec!["y".into()];
    let lowered = lower(&net.graph, &target()).expect("lowers");
    // Two images, and the scratch of one convolution: padded planes and a packed block.
    let image = 8 * 32 * 32 * 4;
    let scratch = 8 * 34 * 34 * 4 + 128 * 72 * 4;
    assert!(lowered.arena_bytes <= 2 * image + scratch + 1024, "{} bytes", lowered.arena_bytes);
}

/// The steps by name, for messages.
fn kinds(steps: &[Step]) -> String {
    steps
        .iter()
        .map(|s| format!("{s:?}").split('(').next().unwrap_or_default().to_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_factor_behind_several_constant_matrices_is_a_step_of_its_own() {
    for shape in [[3, 4, 5], [1, 4, 5]] {
        let mut net = Net::default();
        let x = net.input(DType::F32, &[3, 2, 4]);
        let [w, factor, shift] = [net.constant(&shape), net.scalar(0.5), net.constant(&[5])];
        let product = net.add(Op::MatMul, &[x, w]);
        let scaled = net.binary(BinaryOp::Mul, product, factor);
        let y = net.binary(BinaryOp::Add, scaled, shift);
        net.check(&[y]);
    }
}

#[test]
fn whichever_nan_a_model_has_its_bytes_are_the_same() {
    let bytes = |bits: u32| {
        let mut net = Net::default();
        let nan = f32::from_bits(bits);
        let x = net.input(DType::F32, &[2, 2]);
        let [s, w] =
            [net.scalar(nan), net.graph.add_constant("w", Arc::new(Tensor::f32(vec![2, 2], vec![1.0, nan, 0.0, 2.0])))];
        let product = net.add(Op::MatMul, &[x, w]);
        let bounded = net.relu(product);
        let y = net.binary(BinaryOp::Add, bounded, s);
        net.graph.outputs = vec![y];
        net.graph.output_names = vec!["y".into()];
        lower(&net.graph, &target()).expect("lowers")
    };
    assert_eq!(bytes(0x7fc0_0000), bytes(0xffc0_0001));
}
