//! What a model says is taken for what it says, or refused by name: operator sets, functions, attributes.

use ballast_compiler::ir::Tensor;
use ballast_compiler::{VerdictReason, check, eval, import};

use super::request;
use super::writer::{Dim, Graph, chain, floats, int, node, part, value};

const FLOAT: i64 = 1;

/// An attribute of a kind: 1 a float, 2 an integer, 3 a string, 6 floats, 7 integers.
fn attribute(name: &str, kind: i64, value: Vec<u8>) -> Vec<u8> {
    [part(1, name), value, int(20, kind)].concat()
}

fn number(name: &str, x: i64) -> Vec<u8> {
    attribute(name, 2, int(3, x))
}

fn real(name: &str, x: f32) -> Vec<u8> {
    attribute(name, 1, [&[2 << 3 | 5][..], &x.to_le_bytes()].concat())
}

fn integers(name: &str, xs: &[i64]) -> Vec<u8> {
    attribute(name, 7, xs.iter().flat_map(|x| int(8, *x)).collect())
}

/// A node of another domain than ONNX's.
fn of_domain(domain: &str, node: Vec<u8>) -> Vec<u8> {
    [node, part(7, domain)].concat()
}

fn model(graph: &Graph, sets: &[(&str, i64)], functions: &[Vec<u8>]) -> Vec<u8> {
    let sets = sets.iter().flat_map(|(domain, version)| part(8, [part(1, domain), int(2, *version)].concat()));
    let functions = functions.iter().flat_map(|f| part(25, f));
    [int(1, 10), part(7, graph.bytes())].concat().into_iter().chain(sets).chain(functions).collect()
}

/// One node from `x` to `y`.
fn one(node: Vec<u8>, dims: &[i64]) -> Graph {
    chain(&dims.iter().map(|d| Dim::Is(*d)).collect::<Vec<_>>(), vec![node])
}

fn refusal(model: Vec<u8>) -> String {
    import::import(&model, &[], &[]).expect_err("it is refused").message()
}

fn answer(model: &[u8], x: Tensor) -> Vec<f32> {
    let graph = import::import(model, &[], &[]).unwrap_or_else(|f| panic!("{}", f.message())).graph;
    eval::evaluate(&graph, &[x]).expect("it runs")[0].floats().to_vec()
}

#[test]
fn operator_sets_that_are_not_known_are_refused_by_name_and_nothing_is_made_of_them() {
    let relu = || one(node("Relu", &["x"], &["y"], &[]), &[1, 2]);
    for (version, says) in
        [(29, "the newest that the compiler knows is 28"), (6, "the oldest that the compiler takes is 7")]
    {
        let verdict = check(&request(model(&relu(), &[("", version)], &[])));
        assert_eq!(verdict.reason, VerdictReason::UnsupportedOperators, "{}", verdict.message);
        assert_eq!(verdict.unsupported[0].operator, format!("operator set {version} of ai.onnx"));
        assert!(verdict.message.contains(says) && verdict.message.contains("version_converter"), "{}", verdict.message);
        assert!(verdict.message.contains("operator set 7 to 28"), "{}", verdict.message);
    }
    for version in [7, 28] {
        assert!(check(&request(model(&relu(), &[("", version)], &[]))).fits, "{version}");
    }
    // What has always been the same may be older, and not newer.
    let swapped = |version| {
        let graph = one(node("Transpose", &["x"], &["y"], &[]), &[1, 2]);
        check(&request(model(&graph, &[("", version)], &[]))).fits
    };
    assert_eq!([swapped(1), swapped(28), swapped(29)], [true, true, false]);
    // A set that no node is of says nothing; a node says which set it is of.
    assert!(check(&request(model(&relu(), &[("", 17), ("com.microsoft", 2), ("ai.onnx.ml", 9)], &[]))).fits);
    for (domain, operator, version) in [("com.microsoft", "QuickGelu", 2), ("ai.onnx.ml", "Scaler", 6)] {
        let graph = one(of_domain(domain, node(operator, &["x"], &["y"], &[])), &[1, 2]);
        let why = refusal(model(&graph, &[("", 17), (domain, version)], &[]));
        assert!(why.contains(&format!("operator set {version} of {domain}: the newest")), "{why}");
    }
}

/// `y = f(x)` in one operator set calls what another one means: Softmax of set 11 takes all dimensions behind its axis.
#[test]
fn functions_have_operator_sets_and_forms_of_their_own() {
    let function = |overload: &str, set: i64, body: Vec<u8>| {
        let import = part(9, [part(1, ""), int(2, set)].concat());
        let border = [part(1, "f"), part(4, "a"), part(5, "b"), part(10, "mine"), part(13, overload)].concat();
        [border, part(7, body), import].concat()
    };
    let softmax = || node("Softmax", &["a"], &["b"], &[number("axis", 1)]);
    let calling = |overload: &str| {
        one([of_domain("mine", node("f", &["x"], &["y"], &[])), part(8, overload)].concat(), &[1, 2, 2])
    };
    let sets = [("", 17), ("mine", 1)];
    let x = || Tensor::f32(vec![1, 2, 2], vec![0.0; 4]);
    let old = model(&calling(""), &sets, &[function("", 11, softmax())]);
    assert_eq!(answer(&old, x()), [0.25; 4]);
    let new = model(&calling(""), &sets, &[function("", 13, softmax())]);
    assert_eq!(answer(&new, x()), [0.5; 4]);

    let two = [function("", 13, softmax()), function("neg", 13, node("Neg", &["a"], &["b"], &[]))];
    let ones = || Tensor::f32(vec![1, 2, 2], vec![1.0; 4]);
    assert_eq!(answer(&model(&calling("neg"), &sets, &two), ones()), [-1.0; 4]);
    assert_eq!(answer(&model(&calling(""), &sets, &two), ones()), [0.5; 4]);
    let why = refusal(model(&calling("abs"), &sets, &two));
    assert!(why.contains("\"abs\", a function that is not there"), "{why}");
    let twice = [function("", 13, softmax()), function("", 13, softmax())];
    assert!(refusal(model(&calling(""), &sets, &twice)).contains("two functions are called \"f\""));
    let why = refusal(model(&calling(""), &sets, &[function("", 29, softmax())]));
    assert!(why.contains("operator set 29 of ai.onnx"), "{why}");
}

#[test]
fn attributes_that_nobody_reads_are_refused_by_name() {
    let why = refusal(model(&one(node("Relu", &["x"], &["y"], &[number("leak", 1)]), &[1, 2]), &[("", 17)], &[]));
    assert!(why.contains("Relu at node \"y\": its attribute \"leak\""), "{why}");
    // Of no consequence.
    let plain = model(&one(node("Dropout", &["x"], &["y"], &[number("seed", 1)]), &[1, 2]), &[("", 17)], &[]);
    assert!(check(&request(plain)).fits);
    // A reference to what the function's caller did not give is no attribute.
    let relu = node("Relu", &["a"], &["b"], &[[part(1, "leak"), part(21, "leak"), int(20, 2)].concat()]);
    let border = [part(1, "f"), part(4, "a"), part(5, "b"), part(6, "leak"), part(10, "mine")].concat();
    let function = [border, part(7, relu), part(9, [part(1, ""), int(2, 17)].concat())].concat();
    let calling = |attributes: &[Vec<u8>]| {
        let graph = one(of_domain("mine", node("f", &["x"], &["y"], attributes)), &[1, 2]);
        model(&graph, &[("", 17), ("mine", 1)], std::slice::from_ref(&function))
    };
    assert!(check(&request(calling(&[]))).fits);
    assert!(refusal(calling(&[number("leak", 1)])).contains("\"leak\""));
}

#[test]
fn attributes_of_another_kind_are_called_so() {
    let cases = [
        (node("Softmax", &["x"], &["y"], &[real("axis", 1.0)]), "\"axis\" is a float; an integer was expected"),
        (node("LeakyRelu", &["x"], &["y"], &[number("alpha", 1)]), "\"alpha\" is an integer; a float was expected"),
        (
            node("Transpose", &["x"], &["y"], &[number("perm", 1)]),
            "\"perm\" is an integer; a list of integers was expected",
        ),
        (
            node("Gelu", &["x"], &["y"], &[number("approximate", 1)]),
            "\"approximate\" is an integer; a string was expected",
        ),
    ];
    for (node, says) in cases {
        let why = refusal(model(&one(node, &[1, 2]), &[("", 20)], &[]));
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn windows_are_what_both_attribute_and_weights_say() {
    let pool = |attributes: &[Vec<u8>]| {
        model(&one(node("MaxPool", &["x"], &["y"], attributes), &[1, 1, 4, 4]), &[("", 17)], &[])
    };
    assert!(refusal(pool(&[])).contains("it has no kernel_shape"));
    assert!(check(&request(pool(&[integers("kernel_shape", &[2, 2])]))).fits);
    let conv = |kernel: &[i64]| {
        let mut graph = one(node("Conv", &["x", "w"], &["y"], &[integers("kernel_shape", kernel)]), &[1, 1, 4, 4]);
        graph.constants.push(floats("w", &[1, 1, 3, 2], &[1.0; 6]));
        model(&graph, &[("", 17)], &[])
    };
    assert!(check(&request(conv(&[3, 2]))).fits);
    let why = refusal(conv(&[2, 3]));
    assert!(why.contains("kernel_shape = [2, 3], but its weights have windows of [3, 2]"), "{why}");
}

/// As scikit-learn writes them by default: a gateway's model does not fail, and a note says so.
#[test]
fn encoders_that_should_fail_on_what_they_do_not_know_say_what_they_do() {
    let encoder = |zeros: i64| {
        let attributes = [integers("cats_int64s", &[1, 2]), number("zeros", zeros)];
        let graph = one(of_domain("ai.onnx.ml", node("OneHotEncoder", &["x"], &["y"], &attributes)), &[1, 1]);
        check(&request(model(&graph, &[("", 17), ("ai.onnx.ml", 1)], &[])))
    };
    let says_so = |zeros: i64| encoder(zeros).notes.iter().any(|note| note.contains("no category gives zeros"));
    assert!(encoder(1).fits && encoder(0).fits);
    assert_eq!([says_so(1), says_so(0)], [false, true]);
}

#[test]
fn quantisation_is_computed_in_the_type_that_is_asked_for() {
    let quantize = |code: i64| {
        let mut graph = one(node("QuantizeLinear", &["x", "s"], &["q"], &[number("precision", code)]), &[1, 2]);
        graph.nodes.push(node("DequantizeLinear", &["q", "s"], &["y"], &[]));
        graph.constants.push(floats("s", &[], &[0.5]));
        model(&graph, &[("", 23)], &[])
    };
    assert!(check(&request(quantize(1))).fits);
    assert!(refusal(quantize(10)).contains("a precision other than FP32"));
    let dequantize = |code: i64| {
        let back = node("DequantizeLinear", &["q", "s"], &["y"], &[number("output_dtype", code)]);
        let mut graph = one(node("QuantizeLinear", &["x", "s"], &["q"], &[]), &[1, 2]);
        graph.nodes.push(back);
        graph.constants.push(floats("s", &[], &[0.5]));
        model(&graph, &[("", 23)], &[])
    };
    assert!(check(&request(dequantize(FLOAT))).fits);
    assert!(refusal(dequantize(10)).contains("output_dtype"), "{}", refusal(dequantize(10)));
}

/// A hard sigmoid whose slope is not given has its own, 0.2, not what comes after it.
#[test]
fn parameters_of_activations_stand_where_they_are_named() {
    let activation = attribute("activation", 3, part(4, "HardSigmoid"));
    let attributes = [activation, real("activation_beta", 0.25)];
    let mut graph = one(of_domain("com.microsoft", node("FusedGemm", &["x", "w"], &["y"], &attributes)), &[1, 1]);
    graph.constants.push(floats("w", &[1, 1], &[1.0]));
    let bytes = model(&graph, &[("", 17), ("com.microsoft", 1)], &[]);
    let y = answer(&bytes, Tensor::f32(vec![1, 1], vec![1.0]));
    assert!((y[0] - 0.45).abs() < 1e-6, "{y:?}");
}

/// −7 is …11111001: down by one −4, by 31 and more −1; up its sign goes.
#[test]
fn shifts_keep_the_sign() {
    let shifted = |direction: &str, x: f32, by: f32| {
        let nodes = vec![
            node("Cast", &["x"], &["i"], &[number("to", 6)]),
            node("Cast", &["by"], &["j"], &[number("to", 6)]),
            node("BitShift", &["i", "j"], &["z"], &[attribute("direction", 3, part(4, direction))]),
            node("Cast", &["z"], &["y"], &[number("to", 1)]),
        ];
        let mut graph = chain(&[Dim::Is(1)], nodes);
        graph.constants.push(floats("by", &[1], &[by]));
        answer(&model(&graph, &[("", 28)], &[]), Tensor::f32(vec![1], vec![x]))[0]
    };
    for (by, down, up) in
        [(0.0, -7.0, -7.0), (1.0, -4.0, -14.0), (31.0, -1.0, -2147483648.0), (32.0, -1.0, 0.0), (-1.0, -1.0, 0.0)]
    {
        assert_eq!([shifted("RIGHT", -7.0, by), shifted("LEFT", -7.0, by)], [down, up], "by {by}");
    }
    assert_eq!([shifted("RIGHT", 7.0, 1.0), shifted("RIGHT", 7.0, 40.0), shifted("RIGHT", 7.0, -3.0)], [3.0, 0.0, 0.0]);
}

#[test]
fn bits_are_taken_as_another_type_where_integers_wrap_or_they_are_known() {
    let cast = |nodes: Vec<Vec<u8>>| {
        let mut graph = chain(&[Dim::Is(1)], nodes);
        graph.constants.push(floats("one", &[1], &[1.0]));
        model(&graph, &[("", 28)], &[])
    };
    let as_type = |from: &str, to: i64, made: &str| node("BitCast", &[from], &[made], &[number("to", to)]);
    let wrapped = cast(vec![
        node("Cast", &["x"], &["i"], &[number("to", 3)]),
        as_type("i", 2, "u"),
        node("Cast", &["u"], &["y"], &[number("to", 1)]),
    ]);
    assert_eq!(answer(&wrapped, Tensor::f32(vec![1], vec![-1.0])), [255.0]);
    let known = cast(vec![
        as_type("one", 6, "i"),
        node("Cast", &["i"], &["f"], &[number("to", 1)]),
        node("Mul", &["f", "x"], &["y"], &[]),
    ]);
    assert_eq!(answer(&known, Tensor::f32(vec![1], vec![1.0])), [1065353216.0]);
    let open = cast(vec![as_type("x", 6, "i"), node("Cast", &["i"], &["y"], &[number("to", 1)])]);
    assert!(refusal(open).contains("the bits of f32 as i32"));
    let narrow = cast(vec![as_type("one", 2, "i"), node("Cast", &["i"], &["y"], &[number("to", 1)])]);
    assert!(refusal(narrow).contains("the bits of f32 as u8"));
}

#[test]
fn the_domain_of_onnx_has_two_names() {
    let graph = Graph {
        nodes: vec![node("Relu", &["x"], &["y"], &[])],
        constants: vec![],
        inputs: vec![value("x", FLOAT, &[Dim::Is(1)])],
        outputs: vec![value("y", FLOAT, &[])],
    };
    // ai.onnx is the other name of ONNX's own domain, in the sets too.
    assert!(check(&request(model(&graph, &[("ai.onnx", 17)], &[]))).fits);
    assert!(refusal(model(&graph, &[("ai.onnx", 30)], &[])).contains("operator set 30 of ai.onnx"));
}
