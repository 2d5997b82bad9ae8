//! Operators whose meaning is easy to get wrong, against answers worked out by hand. The wide comparison, with ONNX's own test
//! cases and ONNX Runtime, is `cargo xtask conformance onnx`.

use ballast_compiler::ir::{DType, Tensor};
use ballast_compiler::{eval, import, lower};

use super::writer::{Dim, Graph, chain, floats, int, node, part, value};

/// Runs a model with one input.
fn run(model: &Graph, x: Tensor) -> Tensor {
    let graph = import::import(&model.model(), &[], &[]).unwrap_or_else(|f| panic!("{}", f.message())).graph;
    eval::evaluate(&graph, &[x]).expect("it runs").remove(0)
}

pub fn int_attribute(name: &str, x: i64) -> Vec<u8> {
    [part(1, name), int(3, x), int(20, 2)].concat()
}

pub fn ints_attribute(name: &str, xs: &[i64]) -> Vec<u8> {
    let xs: Vec<u8> = xs.iter().flat_map(|x| int(8, *x)).collect();
    [part(1, name), xs, int(20, 7)].concat()
}

#[test]
fn relu_and_pooling_pass_nan_on() {
    let nan = f32::NAN;
    let relu = chain(&[Dim::Is(3)], vec![node("Relu", &["x"], &["y"], &[])]);
    let y = run(&relu, Tensor::f32(vec![3], vec![-1.0, nan, 2.0]));
    assert!(y.floats()[0] == 0.0 && y.floats()[1].is_nan() && y.floats()[2] == 2.0);
    let kernel = ints_attribute("kernel_shape", &[1, 2]);
    let pool =
        chain(&[Dim::Is(1), Dim::Is(1), Dim::Is(1), Dim::Is(3)], vec![node("MaxPool", &["x"], &["y"], &[kernel])]);
    let y = run(&pool, Tensor::f32(vec![1, 1, 1, 3], vec![5.0, nan, 1.0]));
    assert!(y.floats().iter().all(|x| x.is_nan()));
}

#[test]
fn what_is_a_half_already_is_not_rounded_by_a_cast_to_it() {
    let run_to = |to: i64| {
        let cast = |from: &str, name: &str, to: i64| node("Cast", &[from], &[name], &[int_attribute("to", to)]);
        let square = node("Mul", &["half", "half"], &["square"], &[]);
        let nodes = vec![cast("x", "half", 10), square, cast("square", "again", to), cast("again", "y", 1)];
        run(&chain(&[Dim::Is(1)], nodes), Tensor::f32(vec![1], vec![1.0 + 1.0 / 1024.0 + 1.0 / 65536.0])).floats()[0]
    };
    let half = 1.0 + 1.0 / 1024.0;
    assert_eq!(run_to(10), half * half, "the first cast rounds, the second has nothing to do");
    assert_eq!(run_to(16), 1.0, "another type of halves rounds");
}

#[test]
fn products_of_bytes_with_several_constant_matrices_are_lowered() {
    let bytes = |from: &str, name: &str| node("Cast", &[from], &[name], &[int_attribute("to", 3)]);
    let product = node("MatMulInteger", &["a", "b"], &["y"], &[]);
    let mut model = chain(&[Dim::Is(2), Dim::Is(1), Dim::Is(2)], vec![bytes("x", "a"), bytes("w", "b"), product]);
    model.constants.push(floats("w", &[2, 2, 1], &[1.0, 2.0, 3.0, 4.0]));
    let graph = import::import(&model.model(), &[], &[]).unwrap_or_else(|f| panic!("{}", f.message())).graph;
    let x = Tensor::f32(vec![2, 1, 2], vec![1.0, 2.0, -3.0, 4.0]);
    assert_eq!(eval::evaluate(&graph, &[x]).expect("it runs")[0].ints(), [5, 7]);
    lower::lower(&graph, &super::target()).expect("it is lowered");
}

#[test]
fn ceil_mode_adds_a_window_and_divides_by_what_it_covers() {
    let attributes =
        [ints_attribute("kernel_shape", &[1, 2]), ints_attribute("strides", &[1, 2]), int_attribute("ceil_mode", 1)];
    let model = chain(
        &[Dim::Is(1), Dim::Is(1), Dim::Is(1), Dim::Is(5)],
        vec![node("AveragePool", &["x"], &["y"], &attributes)],
    );
    let y = run(&model, Tensor::f32(vec![1, 1, 1, 5], vec![1.0, 3.0, 5.0, 7.0, 9.0]));
    assert_eq!(y.floats(), [2.0, 6.0, 9.0]);
}

#[test]
fn one_dimensional_convolutions_keep_their_rank() {
    let pads = ints_attribute("pads", &[1, 0]);
    let mut model = chain(&[Dim::Is(1), Dim::Is(1), Dim::Is(3)], vec![node("Conv", &["x", "w"], &["y"], &[pads])]);
    model.constants.push(floats("w", &[1, 1, 2], &[10.0, 1.0]));
    let y = run(&model, Tensor::f32(vec![1, 1, 3], vec![1.0, 2.0, 3.0]));
    assert_eq!((&y.shape[..], y.floats()), (&[1, 1, 3][..], &[1.0, 12.0, 23.0][..]));
}

#[test]
fn reshape_copies_and_infers_dimensions() {
    let mut model = chain(&[Dim::Is(2), Dim::Is(3), Dim::Is(4)], vec![node("Reshape", &["x", "s"], &["y"], &[])]);
    let raw: Vec<u8> = [0i64, -1].iter().flat_map(|v| v.to_le_bytes()).collect();
    model.constants.push([int(1, 2), int(2, 7), part(8, "s"), part(9, raw)].concat());
    assert_eq!(run(&model, Tensor::f32(vec![2, 3, 4], vec![0.0; 24])).shape, [2, 12]);
}

#[test]
fn shape_arithmetic_folds_and_costs_nothing() {
    let model = chain(
        &[Dim::Is(2), Dim::Is(3)],
        vec![node("Shape", &["x"], &["s"], &[]), node("Reshape", &["x", "s"], &["y"], &[])],
    );
    let graph = import::import(&model.model(), &[], &[]).expect("it is supported").graph;
    assert!(graph.nodes.is_empty(), "{:?}", graph.nodes);
    assert_eq!(graph.inputs, graph.outputs);
}

#[test]
fn casts_cut_and_saturate() {
    let to = int_attribute("to", 2);
    let model = Graph {
        nodes: vec![node("Cast", &["x"], &["y"], &[to])],
        inputs: vec![value("x", 1, &[Dim::Is(4)])],
        outputs: vec![value("y", 2, &[])],
        ..Graph::default()
    };
    let y = run(&model, Tensor::f32(vec![4], vec![-3.0, 2.9, 300.0, f32::NAN]));
    assert_eq!((y.dtype, y.ints()), (DType::U8, &[0, 2, 255, 0][..]));
}

#[test]
fn values_that_nothing_needs_are_dropped() {
    let model = chain(&[Dim::Is(2)], vec![node("Exp", &["x"], &["unused"], &[]), node("Relu", &["x"], &["y"], &[])]);
    let graph = import::import(&model.model(), &[], &[]).expect("it is supported").graph;
    assert_eq!(graph.nodes.len(), 1);
    assert_eq!(graph.values.len(), 3, "input, zero, output");
}

#[test]
fn the_best_of_one_is_the_first_and_compiles_for_every_type() {
    for (operator, data_type) in [("ArgMax", 1), ("ArgMin", 1), ("ArgMax", 3), ("ArgMax", 7)] {
        for extent in [1usize, 3] {
            let model = Graph {
                nodes: vec![node(operator, &["x"], &["y"], &[int_attribute("axis", 1)])],
                inputs: vec![value("x", data_type, &[Dim::Is(2), Dim::Is(extent as i64)])],
                outputs: vec![value("y", 7, &[])],
                ..Graph::default()
            };
            let graph = import::import(&model.model(), &[], &[]).unwrap_or_else(|f| panic!("{}", f.message())).graph;
            let dtype = graph.value(graph.inputs[0]).dtype;
            let x = Tensor::from_bytes(dtype, vec![2, extent], &vec![0; 2 * extent * dtype.size()]).expect("zeros");
            let y = eval::evaluate(&graph, &[x]).expect("it runs").remove(0);
            assert_eq!((&y.shape[..], y.ints()), (&[2, 1][..], &[0, 0][..]));
            let lowered = lower::lower(&graph, &super::target());
            assert!(lowered.is_ok(), "{operator} of {dtype:?} over {extent}: {lowered:?}");
        }
    }
}
