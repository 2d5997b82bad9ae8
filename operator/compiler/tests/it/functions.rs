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

fn integers(name: &str, dims: &[i64], values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let dims: Vec<u8> = dims.iter().flat_map(|d| int(1, *d)).collect();
    [dims, int(2, INT64), part(8, name), part(9, raw)].concat()
}

/// An image of two pixels, read between, beside and far outside of them.
#[test]
fn a_grid_reads_outside_of_its_image_as_it_is_told() {
    let shapes: &[(&str, i64, &[usize])] = &[("x", FLOAT, &[1, 1, 1, 2]), ("g", FLOAT, &[1, 1, 4, 2])];
    let x = Tensor::f32(vec![1, 1, 1, 2], vec![10.0, 20.0]);
    let grid = Tensor::f32(vec![1, 1, 4, 2], vec![-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 3.0, 0.0]);
    for (mode, padding, wanted) in [
        ("linear", "zeros", [10.0, 15.0, 20.0, 0.0]),
        ("linear", "border", [10.0, 15.0, 20.0, 20.0]),
        ("linear", "reflection", [10.0, 15.0, 20.0, 10.0]),
        // Halves go to the even pixel.
        ("nearest", "zeros", [10.0, 10.0, 20.0, 0.0]),
        // Keys' weights at ½ with a = −0.75: −0.09375, 0.59375, 0.59375, −0.09375.
        ("cubic", "border", [10.0, 15.0, 20.0, 20.0]),
        ("cubic", "zeros", [10.0, 0.59375 * 30.0, 20.0, 0.0]),
    ] {
        let attributes =
            [int_attribute("align_corners", 1), text_attribute("mode", mode), text_attribute("padding_mode", padding)];
        let y = one("GridSample", &["x", "g"], shapes, 1, &attributes).run(&[x.clone(), grid.clone()]);
        close(&y[0], &[1, 1, 1, 4], &wanted);
    }
}

#[test]
fn offsets_of_nothing_leave_a_convolution() {
    let shapes: &[(&str, i64, &[usize])] = &[("x", FLOAT, &[1, 2, 2, 2]), ("o", FLOAT, &[1, 4, 2, 1])];
    let mut model = one("DeformConv", &["x", "w", "o"], shapes, 1, &[]);
    model.graph.constants.push(floats("w", &[1, 2, 1, 2], &[1.0, 10.0, 100.0, 1000.0]));
    let x = Tensor::f32(vec![1, 2, 2, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let y = model.run(&[x.clone(), Tensor::f32(vec![1, 4, 2, 1], vec![0.0; 8])]);
    close(&y[0], &[1, 1, 2, 1], &[6521.0, 8743.0]);
    // The second position of the first window half a pixel down: offsets go position by position, rows before columns.
    let y = model.run(&[x, Tensor::f32(vec![1, 4, 2, 1], vec![0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0])]);
    close(&y[0], &[1, 1, 2, 1], &[1.0 + 30.0 + 500.0 + 7000.0, 8743.0]);
}

#[test]
fn regions_need_a_number_of_samples() {
    let shapes: &[(&str, i64, &[usize])] = &[("x", FLOAT, &[1, 1, 4, 4]), ("r", FLOAT, &[1, 4])];
    let with = |ratio: i64| {
        let mut model = one("RoiAlign", &["x", "r", "i"], shapes, 1, &[int_attribute("sampling_ratio", ratio)]);
        model.graph.constants.push(integers("i", &[1], &[0]));
        model
    };
    let why = with(0).refusal();
    assert!(why.contains("sampling_ratio"), "{why}");
    // One sample in the middle of the region: pixel (1.5, 1.5) after the shift by half of one.
    let x = Tensor::f32(vec![1, 1, 4, 4], (0..16).map(|i| i as f32).collect());
    let y = with(1).run(&[x, Tensor::f32(vec![1, 4], vec![1.0, 1.0, 3.0, 3.0])]);
    close(&y[0], &[1, 1, 1, 1], &[7.5]);
}

/// An impulse at 1 turns once around: 4096 numbers go in passes, 65537, a prime, as a convolution.
#[test]
fn long_transforms_need_no_large_matrix() {
    for (n, size) in [(4096, 64 << 10), (65537, 4 << 20)] {
        let model = one("DFT", &["x"], &[("x", FLOAT, &[1, n, 2])], 1, &[]);
        let graph = import::import(&model.model(), &[], &[]).expect("it is taken").graph;
        let lowered = lower::lower(&graph, &super::target()).expect("it is lowered");
        assert!(lowered.weights.len() < size, "{n}: {} bytes", lowered.weights.len());
        let mut signal = vec![0.0; 2 * n];
        signal[2] = 1.0;
        let y = eval::evaluate(&graph, &[Tensor::f32(vec![1, n, 2], signal)]).expect("it runs");
        for k in (0..n).step_by(n / 64) {
            let angle = -std::f64::consts::TAU * k as f64 / n as f64;
            let wanted = [angle.cos() as f32, angle.sin() as f32];
            let found = &y[0].floats()[2 * k..2 * k + 2];
            assert!(
                found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5),
                "{k} of {n}: {found:?}, not {wanted:?}"
            );
        }
    }
    let why = one("DFT", &["x"], &[("x", FLOAT, &[1, 1 << 19, 1])], 1, &[]).refusal();
    assert!(why.contains("1 to 262144 are supported"), "{why}");
}

#[test]
fn half_a_spectrum_is_a_real_signal() {
    let attributes = [int_attribute("inverse", 1), int_attribute("onesided", 1)];
    let y = one("DFT", &["x"], &[("x", FLOAT, &[1, 2, 2])], 1, &attributes)
        .run(&[Tensor::f32(vec![1, 2, 2], vec![3.0, 0.0, 1.0, 0.0])]);
    close(&y[0], &[1, 2, 1], &[2.0, 1.0]);
    let mut model = one("STFT", &["x", "step", "", "length"], &[("x", FLOAT, &[1, 5, 1])], 1, &[]);
    model.graph.constants.extend([integers("step", &[], &[2]), integers("length", &[], &[2])]);
    let y = model.run(&[Tensor::f32(vec![1, 5, 1], vec![1.0, 2.0, 3.0, 4.0, 9.0])]);
    close(&y[0], &[1, 2, 2, 2], &[3.0, 0.0, -1.0, 0.0, 7.0, 0.0, -1.0, 0.0]);
}

#[test]
fn sums_of_products_take_diagonals_and_ellipses() {
    let equation = |text: &str| [text_attribute("equation", text)];
    let square = Tensor::f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let shapes: &[(&str, i64, &[usize])] = &[("a", FLOAT, &[2, 2])];
    let y = one("Einsum", &["a"], shapes, 1, &equation("ii->i")).run(std::slice::from_ref(&square));
    close(&y[0], &[2], &[1.0, 4.0]);
    let y = one("Einsum", &["a"], shapes, 1, &equation("ii")).run(std::slice::from_ref(&square));
    close(&y[0], &[], &[5.0]);
    let shapes: &[(&str, i64, &[usize])] = &[("a", FLOAT, &[2, 2]), ("b", FLOAT, &[3, 2]), ("c", FLOAT, &[1, 3])];
    let y = one("Einsum", &["a", "b", "c"], shapes, 1, &equation("ij, ...j, k... -> ...i")).run(&[
        square,
        Tensor::f32(vec![3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        Tensor::f32(vec![1, 3], vec![1.0, 10.0, 100.0]),
    ]);
    close(&y[0], &[3, 2], &[1.0, 3.0, 20.0, 40.0, 300.0, 700.0]);
}

#[test]
fn running_products_and_determinants() {
    let mut model = one(
        "CumProd",
        &["x", "axis"],
        &[("x", FLOAT, &[5])],
        1,
        &[int_attribute("exclusive", 1), int_attribute("reverse", 1)],
    );
    model.graph.constants.push(integers("axis", &[], &[0]));
    let y = model.run(&[Tensor::f32(vec![5], vec![2.0, 3.0, 4.0, 5.0, 6.0])]);
    close(&y[0], &[5], &[360.0, 120.0, 30.0, 6.0, 1.0]);
    let y = one("Det", &["x"], &[("x", FLOAT, &[1, 3, 3])], 1, &[])
        .run(&[Tensor::f32(vec![1, 3, 3], vec![0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 5.0, 7.0, 4.0])]);
    close(&y[0], &[1], &[-24.0]);
    let why = one("Det", &["x"], &[("x", FLOAT, &[9, 9])], 1, &[]).refusal();
    assert!(why.contains("9 rows"), "{why}");
}

/// Pairs may be neighbours or have one element between them; single elements are counted once.
#[test]
fn n_grams_may_leave_elements_out() {
    let attributes = [
        text_attribute("mode", "TF"),
        int_attribute("min_gram_length", 1),
        int_attribute("max_gram_length", 2),
        int_attribute("max_skip_count", 1),
        ints_attribute("ngram_counts", &[0, 1]),
        ints_attribute("ngram_indexes", &[2, 0, 1]),
        ints_attribute("pool_int64s", &[7, 7, 8, 8, 7]),
    ];
    let y = one("TfIdfVectorizer", &["x"], &[("x", INT64, &[1, 5])], 1, &attributes).run(&[Tensor::int(
        DType::I64,
        vec![1, 5],
        vec![7, 8, 7, 7, 8],
    )]);
    // 7·8: at 0, 3 and, with one between, 2; 8·7: at 1 and, with one between, 1.
    close(&y[0], &[1, 3], &[3.0, 2.0, 3.0]);
}

#[test]
fn a_crop_that_reaches_outside_is_filled() {
    let attributes = [
        text_attribute("coordinate_transformation_mode", "tf_crop_and_resize"),
        text_attribute("mode", "linear"),
        [part(1, "extrapolation_value"), vec![2 << 3 | 5], (-7.0f32).to_le_bytes().to_vec(), int(20, 1)].concat(),
    ];
    let mut model = one("Resize", &["x", "roi", "", "sizes"], &[("x", FLOAT, &[3])], 1, &attributes);
    model.graph.constants.extend([floats("roi", &[2], &[0.5, 1.5]), integers("sizes", &[1], &[3])]);
    let y = model.run(&[Tensor::f32(vec![3], vec![1.0, 2.0, 4.0])]);
    close(&y[0], &[3], &[2.0, 4.0, -7.0]);
}

#[test]
fn what_is_dropped_at_random_is_refused() {
    let mut model = one("Dropout", &["x", "ratio", "training"], &[("x", FLOAT, &[2])], 1, &[]);
    model.graph.constants.extend([floats("ratio", &[], &[0.5]), super::writer::bytes("training", BOOL, &[], &[1])]);
    let why = model.refusal();
    assert!(why.contains("a ratio of 0.5"), "{why}");
}
