//! Operators that are functions of others, where they are easy to get wrong, against answers worked out by hand.

use ballast_compiler::ir::{DType, Tensor};
use ballast_compiler::{eval, import, lower};

use super::operators::{int_attribute, ints_attribute};
use super::writer::{Dim, Graph, floats, int, node, part, value};

const FLOAT: i64 = 1;
const INT64: i64 = 7;
const BOOL: i64 = 9;

/// A model of one node with operator set 25: inputs `a`, `b`, … of these types and shapes, outputs `y0`, `y1`, …
struct One {
    graph: Graph,
    opset: i64,
}

fn one(
    operator: &str,
    names: &[&str],
    inputs: &[(&str, i64, &[usize])],
    outputs: usize,
    attributes: &[Vec<u8>],
) -> One {
    let made: Vec<String> = (0..outputs).map(|i| format!("y{i}")).collect();
    let made: Vec<&str> = made.iter().map(String::as_str).collect();
    let dims = |shape: &[usize]| shape.iter().map(|d| Dim::Is(*d as i64)).collect::<Vec<_>>();
    let graph = Graph {
        nodes: vec![node(operator, names, &made, attributes)],
        constants: vec![],
        inputs: inputs.iter().map(|(name, kind, shape)| value(name, *kind, &dims(shape))).collect(),
        outputs: made.iter().map(|name| value(name, FLOAT, &[])).collect(),
    };
    One { graph, opset: 25 }
}

impl One {
    fn model(&self) -> Vec<u8> {
        [int(1, 8), part(7, self.graph.bytes()), part(8, int(2, self.opset))].concat()
    }

    /// The outputs of the reference evaluator; the model must be one that can be lowered.
    fn run(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let graph = import::import(&self.model(), &[], &[]).unwrap_or_else(|f| panic!("{}", f.message())).graph;
        lower::lower(&graph, &super::target()).unwrap_or_else(|e| panic!("{e}"));
        eval::evaluate(&graph, inputs).expect("it runs")
    }

    /// Why it is refused.
    fn refusal(&self) -> String {
        import::import(&self.model(), &[], &[]).expect_err("it is refused").message()
    }
}

fn text_attribute(name: &str, text: &str) -> Vec<u8> {
    [part(1, name), part(4, text), int(20, 3)].concat()
}

fn close(found: &Tensor, shape: &[usize], wanted: &[f32]) {
    assert_eq!(found.shape, shape);
    for (a, b) in found.floats().iter().zip(wanted) {
        assert!((a - b).abs() < 1e-5, "{:?}, expected {wanted:?}", found.floats());
    }
}

/// Keys of zeros weigh all visible values alike, so that the answer is their mean.
#[test]
fn a_causal_query_sees_the_past_and_itself() {
    let model = one(
        "Attention",
        &["q", "k", "v", "", "pk", "pv"],
        &[
            ("q", FLOAT, &[1, 2, 2, 1]),
            ("k", FLOAT, &[1, 1, 2, 1]),
            ("v", FLOAT, &[1, 1, 2, 1]),
            ("pk", FLOAT, &[1, 1, 1, 1]),
            ("pv", FLOAT, &[1, 1, 1, 1]),
        ],
        3,
        &[int_attribute("is_causal", 1)],
    );
    let y = model.run(&[
        Tensor::f32(vec![1, 2, 2, 1], vec![5.0; 4]),
        Tensor::f32(vec![1, 1, 2, 1], vec![0.0; 2]),
        Tensor::f32(vec![1, 1, 2, 1], vec![2.0, 6.0]),
        Tensor::f32(vec![1, 1, 1, 1], vec![0.0]),
        Tensor::f32(vec![1, 1, 1, 1], vec![1.0]),
    ]);
    // Two heads of queries share the one head of values.
    close(&y[0], &[1, 2, 2, 1], &[1.5, 3.0, 1.5, 3.0]);
    close(&y[2], &[1, 1, 3, 1], &[1.0, 2.0, 6.0]);
}

#[test]
fn a_query_that_may_look_nowhere_gets_zeros() {
    let model = one(
        "Attention",
        &["q", "k", "v", "m"],
        &[("q", FLOAT, &[1, 1, 2, 1]), ("k", FLOAT, &[1, 1, 3, 1]), ("v", FLOAT, &[1, 1, 3, 1]), ("m", BOOL, &[2, 2])],
        1,
        &[],
    );
    // The mask is shorter than the keys: the third is hidden from both.
    let y = model.run(&[
        Tensor::f32(vec![1, 1, 2, 1], vec![1.0; 2]),
        Tensor::f32(vec![1, 1, 3, 1], vec![0.0; 3]),
        Tensor::f32(vec![1, 1, 3, 1], vec![2.0, 4.0, f32::INFINITY]),
        Tensor::int(DType::Bool, vec![2, 2], vec![1, 1, 0, 0]),
    ]);
    assert!(y[0].floats()[0].is_nan(), "0 · ∞: what is hidden is weighed with 0, not cut away");
    let y = model.run(&[
        Tensor::f32(vec![1, 1, 2, 1], vec![1.0; 2]),
        Tensor::f32(vec![1, 1, 3, 1], vec![0.0; 3]),
        Tensor::f32(vec![1, 1, 3, 1], vec![2.0, 4.0, 9.0]),
        Tensor::int(DType::Bool, vec![2, 2], vec![1, 1, 0, 0]),
    ]);
    close(&y[0], &[1, 1, 2, 1], &[3.0, 0.0]);
}

#[test]
fn attention_refuses_what_contradicts_itself() {
    let shapes: &[(&str, i64, &[usize])] =
        &[("q", FLOAT, &[1, 2, 4]), ("k", FLOAT, &[1, 2, 4]), ("v", FLOAT, &[1, 2, 4])];
    let heads = |q: i64, kv: i64| [int_attribute("q_num_heads", q), int_attribute("kv_num_heads", kv)];
    let without = one("Attention", &["q", "k", "v"], shapes, 1, &[]).refusal();
    assert!(without.contains("0 heads"), "{without}");
    let uneven = one("Attention", &["q", "k", "v"], shapes, 1, &heads(3, 1)).refusal();
    assert!(uneven.contains("3 heads"), "{uneven}");
    let shared = one("Attention", &["q", "k", "v"], shapes, 1, &heads(1, 2)).refusal();
    assert!(shared.contains("1 heads of queries and 2 of keys"), "{shared}");
}

#[test]
fn a_loss_ignores_a_class_and_what_is_no_class() {
    let model = one(
        "NegativeLogLikelihoodLoss",
        &["x", "t", "w"],
        &[("x", FLOAT, &[4, 2]), ("t", INT64, &[4])],
        1,
        &[int_attribute("ignore_index", 1), text_attribute("reduction", "mean")],
    );
    let mut model = model;
    model.graph.constants.push(floats("w", &[2], &[2.0, 1.0]));
    let x = Tensor::f32(vec![4, 2], vec![-1.0, f32::NEG_INFINITY, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]);
    let y = model.run(&[x, Tensor::int(DType::I64, vec![4], vec![0, 1, 0, 1])]);
    // (2 · 1 + 2 · 5) ÷ (2 + 2)
    close(&y[0], &[], &[3.0]);
}

#[test]
fn windows_have_three_dimensions() {
    let kernel = ints_attribute("kernel_shape", &[2, 1, 2]);
    let x = Tensor::f32(vec![1, 1, 2, 2, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let shapes: &[(&str, i64, &[usize])] = &[("x", FLOAT, &[1, 1, 2, 2, 2])];
    let y = one("MaxPool", &["x"], shapes, 1, std::slice::from_ref(&kernel)).run(std::slice::from_ref(&x));
    close(&y[0], &[1, 1, 1, 2, 1], &[6.0, 8.0]);
    let pads = ints_attribute("pads", &[1, 0, 0, 0, 0, 0]);
    // The padding does not count: the first windows have two elements, not four.
    let y = one("AveragePool", &["x"], shapes, 1, &[kernel, pads]).run(std::slice::from_ref(&x));
    close(&y[0], &[1, 1, 2, 2, 1], &[1.5, 3.5, 3.5, 5.5]);
    let mut conv = one("Conv", &["x", "w", "b"], shapes, 1, &[ints_attribute("strides", &[1, 1, 2])]);
    conv.graph.constants.push(floats("w", &[1, 1, 2, 1, 2], &[1.0, 10.0, 100.0, 1000.0]));
    conv.graph.constants.push(floats("b", &[1], &[0.5]));
    close(&conv.run(std::slice::from_ref(&x))[0], &[1, 1, 1, 2, 1], &[6521.5, 8743.5]);
}

#[test]
fn weights_may_be_computed() {
    let shapes: &[(&str, i64, &[usize])] = &[("x", FLOAT, &[2, 2, 1, 2]), ("w", FLOAT, &[2, 1, 1, 2])];
    let attributes = [int_attribute("group", 2), ints_attribute("pads", &[0, 1, 0, 0])];
    let y = one("Conv", &["x", "w"], shapes, 1, &attributes).run(&[
        Tensor::f32(vec![2, 2, 1, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        Tensor::f32(vec![2, 1, 1, 2], vec![10.0, 1.0, 100.0, 1.0]),
    ]);
    close(&y[0], &[2, 2, 1, 2], &[1.0, 12.0, 3.0, 304.0, 5.0, 56.0, 7.0, 708.0]);
}

#[test]
fn indices_of_a_maximum_are_those_of_the_first_one() {
    let shapes: &[(&str, i64, &[usize])] = &[("x", FLOAT, &[1, 2, 2, 3])];
    let kernel = ints_attribute("kernel_shape", &[2, 2]);
    let x = Tensor::f32(vec![1, 2, 2, 3], vec![7.0, 1.0, 2.0, 7.0, 3.0, 4.0, 0.0, 0.0, 5.0, 0.0, 9.0, 5.0]);
    let y = one("MaxPool", &["x"], shapes, 2, std::slice::from_ref(&kernel)).run(std::slice::from_ref(&x));
    assert_eq!((y[0].floats(), y[1].ints()), (&[7.0, 4.0, 9.0, 9.0][..], &[0, 5, 10, 10][..]));
    // Column by column, inside each plane.
    let y = one("MaxPool", &["x"], shapes, 2, &[kernel, int_attribute("storage_order", 1)]).run(&[x]);
    assert_eq!(y[1].ints(), [0, 5, 9, 9]);
}

#[test]
fn a_window_of_powers_may_reach_beyond_the_end() {
    let attributes = [
        ints_attribute("kernel_shape", &[2]),
        ints_attribute("strides", &[2]),
        int_attribute("ceil_mode", 1),
        int_attribute("p", 2),
    ];
    let y = one("LpPool", &["x"], &[("x", FLOAT, &[1, 1, 3])], 1, &attributes)
        .run(&[Tensor::f32(vec![1, 1, 3], vec![3.0, -4.0, -2.0])]);
    close(&y[0], &[1, 1, 2], &[5.0, 2.0]);
}

#[test]
fn a_cache_is_written_around_its_end() {
    let shapes: &[(&str, i64, &[usize])] = &[("c", FLOAT, &[2, 3, 1]), ("u", FLOAT, &[2, 2, 1]), ("i", INT64, &[2])];
    let y = one("TensorScatter", &["c", "u", "i"], shapes, 1, &[text_attribute("mode", "circular")]).run(&[
        Tensor::f32(vec![2, 3, 1], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        Tensor::f32(vec![2, 2, 1], vec![10.0, 20.0, 30.0, 40.0]),
        Tensor::int(DType::I64, vec![2], vec![2, 4]),
    ]);
    close(&y[0], &[2, 3, 1], &[20.0, 2.0, 10.0, 4.0, 30.0, 40.0]);
}

#[test]
fn a_recurrence_that_is_too_long_is_refused() {
    let shapes: &[(&str, i64, &[usize])] =
        &[("q", FLOAT, &[1, 4096, 2]), ("k", FLOAT, &[1, 4096, 2]), ("v", FLOAT, &[1, 4096, 2])];
    let attributes =
        [int_attribute("q_num_heads", 1), int_attribute("kv_num_heads", 1), text_attribute("update_rule", "linear")];
    let why = one("LinearAttention", &["q", "k", "v"], shapes, 2, &attributes).refusal();
    assert!(why.contains("4096 steps"), "{why}");
}
