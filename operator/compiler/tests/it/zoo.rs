//! Small models of the shapes that people bring: a recurrent one, a reader of lines of text, and one with control flow.

use super::writer::{Dim, Graph, bytes, chain, floats, graph_attribute, int, node, part, value};

fn number(name: &str, x: i64) -> Vec<u8> {
    [part(1, name), int(3, x), int(20, 2)].concat()
}

fn numbers(name: &str, xs: &[i64]) -> Vec<u8> {
    let xs: Vec<u8> = xs.iter().flat_map(|x| int(8, *x)).collect();
    [part(1, name), xs, int(20, 7)].concat()
}

/// A constant of numbers in −0.5..0.5 that look random.
fn weights(name: &str, dims: &[i64]) -> Vec<u8> {
    let values: Vec<f32> = (1..=dims.iter().product::<i64>())
        .map(|i| (i as f32 * 0.618_034 + name.len() as f32 * 0.37).fract() - 0.5)
        .collect();
    floats(name, dims, &values)
}

fn shape(name: &str, dims: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = dims.iter().flat_map(|v| v.to_le_bytes()).collect();
    [int(1, dims.len() as i64), int(2, 7), part(8, name), part(9, raw)].concat()
}

fn of(dims: &[i64], nodes: Vec<Vec<u8>>, constants: &[(&str, &[i64])]) -> Graph {
    let mut graph: Graph = chain(&dims.iter().map(|d| Dim::Is(*d)).collect::<Vec<_>>(), nodes);
    graph.constants = constants.iter().map(|(name, dims)| weights(name, dims)).collect();
    graph
}

/// Both directions of an LSTM over five steps, then a GRU, then a classifier of its last state.
pub fn recurrent() -> Vec<u8> {
    let both = [part(1, "direction"), part(4, "bidirectional"), int(20, 3)].concat();
    let hidden = number("hidden_size", 3);
    let mut graph = of(
        &[5, 1, 4],
        vec![
            // [5][2 directions][1][3] → [5][1][6]
            node("LSTM", &["x", "w", "r", "b"], &["states"], &[hidden.clone(), both]),
            node("Transpose", &["states"], &["turned"], &[numbers("perm", &[0, 2, 1, 3])]),
            node("Reshape", &["turned", "shape"], &["sequence"], &[]),
            node("GRU", &["sequence", "gw", "gr"], &["", "last"], &[hidden]),
            node("Flatten", &["last"], &["row"], &[number("axis", 2)]),
            node("Gemm", &["row", "cw", "cb"], &["scores"], &[]),
            node("Softmax", &["scores"], &["y"], &[]),
        ],
        &[
            ("w", &[2, 12, 4]),
            ("r", &[2, 12, 3]),
            ("b", &[2, 24]),
            ("gw", &[1, 9, 6]),
            ("gr", &[1, 9, 3]),
            ("cw", &[3, 4]),
            ("cb", &[4]),
        ],
    );
    graph.constants.push(shape("shape", &[5, 1, 6]));
    graph.model()
}

/// A reader of lines of text, as PP-OCR's are made: convolutions with normalisation and hard swish, a depthwise one, a gate over
/// channels, pooling to one row, attention over columns, and letters for each.
pub fn reader() -> Vec<u8> {
    let mut graph = of(
        &[1, 3, 16, 32],
        vec![
            node("Conv", &["x", "c0"], &["a0"], &[numbers("strides", &[2, 2]), numbers("pads", &[1, 1, 1, 1])]),
            node("BatchNormalization", &["a0", "scale", "shift", "mean", "variance"], &["a1"], &[]),
            node("HardSwish", &["a1"], &["a2"], &[]),
            node("Conv", &["a2", "c1", "b1"], &["a3"], &[number("group", 8), numbers("pads", &[1, 1, 1, 1])]),
            node("HardSwish", &["a3"], &["a4"], &[]),
            node("GlobalAveragePool", &["a4"], &["g0"], &[]),
            node("Conv", &["g0", "c2"], &["g1"], &[]),
            node("Relu", &["g1"], &["g2"], &[]),
            node("Conv", &["g2", "c3"], &["g3"], &[]),
            node("HardSigmoid", &["g3"], &["g4"], &[]),
            node("Mul", &["a4", "g4"], &["a5"], &[]),
            node("MaxPool", &["a5"], &["a6"], &[numbers("kernel_shape", &[2, 2]), numbers("strides", &[2, 1])]),
            node("AveragePool", &["a6"], &["a7"], &[numbers("kernel_shape", &[4, 1])]),
            node("Reshape", &["a7", "columns"], &["a8"], &[]),
            node("Transpose", &["a8"], &["a9"], &[numbers("perm", &[0, 2, 1])]),
            node("LayerNormalization", &["a9", "gain"], &["n"], &[]),
            node("MatMul", &["n", "wq"], &["q"], &[]),
            node("MatMul", &["q", "a8"], &["weights"], &[]),
            node("Softmax", &["weights"], &["attention"], &[]),
            node("MatMul", &["attention", "n"], &["mixed"], &[]),
            node("Add", &["mixed", "a9"], &["residual"], &[]),
            node("MatMul", &["residual", "wo"], &["letters"], &[]),
            node("Softmax", &["letters"], &["y"], &[]),
        ],
        &[
            ("c0", &[8, 3, 3, 3]),
            ("scale", &[8]),
            ("shift", &[8]),
            ("mean", &[8]),
            ("c1", &[8, 1, 3, 3]),
            ("b1", &[8]),
            ("c2", &[4, 8, 1, 1]),
            ("c3", &[8, 4, 1, 1]),
            ("gain", &[8]),
            ("wq", &[8, 8]),
            ("wo", &[8, 11]),
        ],
    );
    graph.constants.push(floats("variance", &[8], &[1.5; 8]));
    graph.constants.push(shape("columns", &[1, 8, 15]));
    graph.model()
}

fn body(inputs: &[(&str, i64)], nodes: Vec<Vec<u8>>, outputs: &[(&str, i64)]) -> Vec<u8> {
    let infos = |list: &[(&str, i64)]| list.iter().map(|(name, kind)| value(name, *kind, &[])).collect();
    Graph { nodes, constants: vec![], inputs: infos(inputs), outputs: infos(outputs) }.bytes()
}

/// A scan of rows, a loop of nine rounds with a branch inside, and one that its data ends.
pub fn controlled() -> Vec<u8> {
    let float = 1;
    let scan = body(
        &[("h", float), ("row", float)],
        vec![
            node("Mul", &["h", "row"], &["p"], &[]),
            node("Add", &["p", "w"], &["q"], &[]),
            node("Tanh", &["q"], &["h2"], &[]),
            node("Neg", &["h2"], &["out"], &[]),
        ],
        &[("h2", float), ("out", float)],
    );
    let then = body(&[], vec![node("Add", &["k", "last"], &["a"], &[])], &[("a", float)]);
    let otherwise = body(&[], vec![node("Sigmoid", &["k"], &["a"], &[])], &[("a", float)]);
    let counted = body(
        &[("i", 7), ("go", 9), ("k", float)],
        vec![
            node("Less", &["i", "four"], &["early"], &[]),
            node(
                "If",
                &["early"],
                &["k2"],
                &[graph_attribute("then_branch", &then), graph_attribute("else_branch", &otherwise)],
            ),
            node("Identity", &["go"], &["more"], &[]),
        ],
        &[("more", 9), ("k2", float)],
    );
    let gated = body(
        &[("i", 7), ("go", 9), ("k", float)],
        vec![
            node("Add", &["k", "k"], &["k2"], &[]),
            node("ReduceSumSquare", &["k2"], &["s"], &[number("keepdims", 0)]),
            node("Less", &["s", "bound"], &["more"], &[]),
        ],
        &[("more", 9), ("k2", float)],
    );
    let mut graph = of(
        &[6, 3],
        vec![
            node(
                "Scan",
                &["w", "x"],
                &["last", "rows"],
                &[number("num_scan_inputs", 1), graph_attribute("body", &scan)],
            ),
            node("Loop", &["nine", "true", "rows"], &["mixed"], &[graph_attribute("body", &counted)]),
            node("Loop", &["nine", "true", "mixed"], &["y"], &[graph_attribute("body", &gated)]),
        ],
        &[("w", &[3])],
    );
    let count = |name: &str, x: i64| [int(2, 7), part(8, name), part(9, x.to_le_bytes())].concat();
    graph.constants.extend([
        count("nine", 9),
        count("four", 4),
        floats("bound", &[], &[40.0]),
        bytes("true", 9, &[], &[1]),
    ]);
    graph.model()
}
