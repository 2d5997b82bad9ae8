//! Hostile files: whatever the bytes, an answer comes, in bounded time and memory. Time is bounded by the work that the
//! importer allows itself, so these tests end or hang; they measure nothing.

use ballast_compiler::ir::{DType, Tensor, ValueId};
use ballast_compiler::{InputOverride, VerdictReason, check, cost, eval, import, lower};

use super::writer::{Dim, Graph, chain, floats, graph_attribute, int, node, part, value};
use super::{example, request, target, zoo};

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n
    }
}

/// Most work and memory that a damaged model may ask for and still be evaluated: a thousand times what the samples ask.
const MOST: u64 = 1 << 26;

/// Imports; what is taken for a model is lowered, and evaluated when that is little work. Says how far it got.
pub fn all_the_way(bytes: &[u8], random: &mut Random) -> &'static str {
    let Ok(imported) = import::import(bytes, &[], &[]) else { return "refused" };
    let graph = imported.graph;
    let lowered = lower::lower(&graph, &target());
    // Its own reader must take every plan that it writes.
    assert!(!matches!(lowered, Err(lower::LowerError::Plan(_))), "{lowered:?}");
    let held: u64 = graph.values.iter().map(|v| v.len() as u64 * 8).fold(0, u64::saturating_add);
    if held > MOST || cost::cost(&graph).flop > MOST {
        return "large";
    }
    let mut input = |id: &ValueId| {
        let value = graph.value(*id);
        match value.dtype {
            DType::F32 => {
                let odd = [0.0, -0.0, 1.5, -7.25, 3e38, f32::INFINITY, f32::NAN, 1e-40];
                Tensor::f32(value.shape.clone(), (0..value.len()).map(|_| odd[random.below(8)]).collect())
            }
            dtype => {
                let bytes: Vec<u8> = (0..value.len() * dtype.size()).map(|_| random.below(256) as u8).collect();
                Tensor::from_bytes(dtype, value.shape.clone(), &bytes).expect("as long as it says")
            }
        }
    };
    let inputs: Vec<Tensor> = graph.inputs.iter().map(&mut input).collect();
    let outputs = eval::evaluate(&graph, &inputs).expect("inputs fit");
    assert!(outputs.iter().zip(&graph.outputs).all(|(t, id)| t.len() == graph.value(*id).len()));
    if lowered.is_ok() { "ran" } else { "not lowered" }
}

/// Every kind of damage, on models that are mostly structure: much of it is still a model.
#[test]
fn damaged_models_that_are_taken_can_be_evaluated_and_lowered() {
    let digits = example("models/digits-1.0.0.onnx");
    for (whole, rounds) in [(zoo::recurrent(), 3000), (zoo::reader(), 3000), (zoo::controlled(), 3000), (digits, 300)] {
        let mut random = Random(4);
        assert_eq!(all_the_way(&whole, &mut random), "ran");
        let mut seen = std::collections::BTreeMap::<_, usize>::new();
        for _ in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(2) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = random.below(12) as u8,
                    2 => bytes[at] = bytes[at].wrapping_add(1),
                    _ => bytes[at] = bytes[random.below(bytes.len())],
                }
            }
            *seen.entry(all_the_way(&bytes, &mut random)).or_default() += 1;
        }
        // Neither answer is rare, or this tried little.
        assert!(seen["ran"] > rounds / 20 && seen["refused"] > 5, "{seen:?}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = example("models/digits-1.0.0.onnx");
    for len in 0..whole.len() {
        // The operator sets come last or first; without them or with them, half a graph is no model.
        if let Ok(imported) = import::import(&whole[..len], &[], &[]) {
            panic!("{len} of {} bytes were taken for a model with {} nodes", whole.len(), imported.graph.nodes.len());
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    for (model, rounds) in [("models/digits-1.0.0.onnx", 4000), ("models/digits-4.0.0.onnx", 400)] {
        let whole = example(model);
        let mut random = Random(1);
        for _ in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            // Whatever it is now, it is answered; most flips are in weights and change nothing of the form.
            drop(import::import(&bytes, &[], &[]));
        }
    }
}

#[test]
fn structure_that_is_damaged_never_panics() {
    // Outside of the weights: cut a piece out, double it, or write bytes that mean something to the wire format.
    let whole = example("models/digits-1.0.0.onnx");
    let mut random = Random(2);
    for _ in 0..4000 {
        let mut bytes = whole.clone();
        let (at, len) = (random.below(bytes.len()), random.below(24));
        let end = (at + len).min(bytes.len());
        match random.below(3) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            _ => bytes[at..end].fill([0xff, 0x0a, 0x80, 0x00, 0x3a][random.below(5)]),
        }
        drop(import::import(&bytes, &[], &[]));
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(3);
    for _ in 0..2000 {
        let len = random.below(300);
        let body: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
        // As a file, and as a graph inside a file that begins well.
        for bytes in [body.clone(), [int(1, 8), part(7, &body), part(8, int(2, 17))].concat()] {
            drop(import::import(&bytes, &[], &[]));
        }
    }
}

#[test]
fn graphs_nested_without_end_are_refused() {
    let mut inner = Graph::default().bytes();
    for _ in 0..5000 {
        let attribute = graph_attribute("then_branch", &inner);
        inner = part(1, node("If", &["c"], &["y"], &[attribute]));
    }
    let verdict = check(&request([int(1, 8), part(7, inner)].concat()));
    assert_eq!(verdict.reason, VerdictReason::NotOnnx);
    assert!(verdict.message.contains("nested deeper"), "{}", verdict.message);
}

/// A function under domain "f" whose body is `nodes` from "a" to "b".
fn function(name: &str, nodes: &[Vec<u8>]) -> Vec<u8> {
    let nodes: Vec<u8> = nodes.iter().flat_map(|n| part(7, n)).collect();
    [part(1, name), part(4, "a"), part(5, "b"), nodes, part(10, "f")].concat()
}

fn call(name: &str, from: &str, to: &str) -> Vec<u8> {
    [node(name, &[from], &[to], &[]), part(7, "f")].concat()
}

#[test]
fn functions_that_call_themselves_are_refused() {
    let model = chain(&[Dim::Is(2)], vec![call("again", "x", "y")]).model();
    let bytes = [model, part(25, function("again", &[call("again", "a", "b")]))].concat();
    let verdict = check(&request(bytes));
    assert!(verdict.message.contains("calls itself"), "{}", verdict.message);
}

#[test]
fn functions_that_double_at_every_level_are_refused() {
    let mut bytes = chain(&[Dim::Is(2)], vec![call("f0", "x", "y")]).model();
    for level in 0..22 {
        let next = format!("f{}", level + 1);
        let body = [call(&next, "a", "m"), call(&next, "m", "b")];
        bytes.extend(part(25, function(&format!("f{level}"), &body)));
    }
    bytes.extend(part(25, function("f22", &[node("Neg", &["a"], &["b"], &[])])));
    let verdict = check(&request(bytes));
    assert!(!verdict.fits);
    assert!(verdict.message.contains("more than"), "{}", verdict.message);
}

#[test]
fn tensors_that_lie_about_their_size_are_refused() {
    for dims in [&[i64::MAX, i64::MAX][..], &[1 << 40], &[-1], &[3]] {
        let mut model = chain(&[Dim::Is(1)], vec![node("Add", &["x", "w"], &["y"], &[])]);
        model.constants.push(floats("w", dims, &[1.0, 2.0]));
        let verdict = check(&request(model.model()));
        assert!(!verdict.fits);
        assert!(verdict.message.contains("constant \"w\""), "{}", verdict.message);
    }
}

#[test]
fn shapes_beyond_memory_are_refused() {
    let model = chain(&[Dim::Is(1 << 40), Dim::Is(1 << 40)], vec![node("Relu", &["x"], &["y"], &[])]);
    assert!(!check(&request(model.model())).fits);
    let model = chain(&[Dim::Open("n"), Dim::Is(3)], vec![node("Relu", &["x"], &["y"], &[])]);
    let mut request = request(model.model());
    request.inputs = vec![InputOverride {
        name: "x".into(),
        shape: Some(vec![u64::MAX, 3]),
        value: None,
        ..InputOverride::default()
    }];
    let verdict = check(&request);
    assert_eq!(verdict.reason, VerdictReason::InvalidInputs);
}

#[test]
fn constants_that_multiply_are_not_folded_without_end() {
    // Each step squares the number of elements, all of it known.
    let mut model = chain(&[Dim::Is(1)], vec![]);
    model.constants.push(floats("k0", &[64, 1], &[1.0; 64]));
    for i in 0..12 {
        let (from, to) = (format!("k{i}"), format!("k{}", i + 1));
        let turned = format!("t{i}");
        let flat = format!("s{i}");
        model.nodes.push(node("Transpose", &[&from], &[&turned], &[]));
        model.nodes.push(node("Mul", &[&from, &turned], &[&flat], &[]));
        let flat_shape = format!("shape{i}");
        let raw: Vec<u8> = [-1i64, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
        model.constants.push([int(1, 2), int(2, 7), part(8, &flat_shape), part(9, raw)].concat());
        model.nodes.push(node("Reshape", &[&flat, &flat_shape], &[&to], &[]));
    }
    model.nodes.push(node("Add", &["x", "k12"], &["y"], &[]));
    let verdict = check(&request(model.model()));
    assert!(!verdict.fits);
    assert!(verdict.message.contains("2 GiB"), "{}", verdict.message);
}

#[test]
fn absurd_numbers_of_inputs_are_refused() {
    let mut model = chain(&[Dim::Is(1)], vec![node("Relu", &["x"], &["y"], &[])]);
    model.inputs.extend((0..100).map(|i| value(&format!("more{i}"), 1, &[Dim::Is(1)])));
    let verdict = check(&request(model.model()));
    assert!(verdict.message.contains("64 inputs"), "{}", verdict.message);
}

#[test]
fn numbers_that_ask_for_memory_are_refused() {
    let number = |name: &str, x: i64| [int(2, 7), part(8, name), part(9, x.to_le_bytes())].concat();
    let attribute = |name: &str, x: i64| [part(1, name), int(3, x), int(20, 2)].concat();
    let dims = [Dim::Is(1 << 28)];
    let mut range = chain(&[Dim::Is(1)], vec![node("Range", &["a", "b", "c"], &["y"], &[])]);
    range.constants = vec![number("a", 0), number("b", i64::MAX), number("c", 1)];
    let split = chain(&dims, vec![node("Split", &["x"], &["y"], &[attribute("num_outputs", 1 << 28)])]);
    let mut hot = chain(&[Dim::Is(1)], vec![node("OneHot", &["x", "depth", "values"], &["y"], &[])]);
    hot.constants = vec![number("depth", 1 << 28), floats("values", &[2], &[0.0, 1.0])];
    let hardmax = chain(&dims, vec![node("Hardmax", &["x"], &["y"], &[])]);
    let axes: Vec<u8> = (0..500_000i64).flat_map(|a| a.to_le_bytes()).collect();
    let mut unsqueeze = chain(&[Dim::Is(1)], vec![node("Unsqueeze", &["x", "axes"], &["y"], &[])]);
    unsqueeze.constants = vec![[int(1, 500_000), int(2, 7), part(8, "axes"), part(9, axes)].concat()];
    for model in [range, split, hot, hardmax, unsqueeze] {
        let verdict = check(&request(model.model()));
        assert!(!verdict.fits, "{}", verdict.message);
        assert_ne!(verdict.reason, VerdictReason::MemoryExceeded, "it was built first: {}", verdict.message);
    }
}

/// What a gateway would be busy with for hours is refused here, by the node that is most of it, and not by the plan's reader.
#[test]
fn more_work_than_a_plan_may_be_is_refused_by_node() {
    let products = |count: usize| {
        let names: Vec<String> =
            (0..count).map(|i| if i + 1 == count { "y".into() } else { format!("t{i}") }).collect();
        let each = names.iter().enumerate().map(|(i, name)| {
            let from = i.checked_sub(1).map_or("x", |before| &names[before]);
            node("MatMul", &[from, from], &[name], &[])
        });
        chain(&[Dim::Is(4096), Dim::Is(4096)], each.collect()).model()
    };
    let lowered = |model: &[u8]| lower::lower(&import::import(model, &[], &[]).unwrap().graph, &target());
    assert!(lowered(&products(2)).is_ok());
    // Each is 2³⁶ multiplications, all may be 2⁴⁴.
    let Err(lower::LowerError::NotLowered(gaps)) = lowered(&products(257)) else { panic!("it was taken") };
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap.operator, "MatMul");
    assert!(gap.detail.contains("more work than the format allows"), "{gap:?}");
}

/// Positions that no integer holds, from a region without end and from scales that are almost nothing.
#[test]
fn a_resize_of_places_far_outside_is_a_resize() {
    let text = |name: &str, value: &str| [part(1, name), part(4, value), int(20, 3)].concat();
    for mode in ["nearest", "linear", "cubic"] {
        for ends in [[0.0, 1e30], [-1e30, 0.0], [-1e30, 1e30]] {
            let how = [text("mode", mode), text("coordinate_transformation_mode", "tf_crop_and_resize")];
            let mut graph = chain(&[Dim::Is(4)], vec![node("Resize", &["x", "roi", "scales"], &["y"], &how)]);
            graph.constants = vec![floats("roi", &[2], &ends), floats("scales", &[1], &[1e-30])];
            let got_to = all_the_way(&graph.model(), &mut Random(4));
            assert_eq!(got_to, "ran", "{mode} {ends:?}");
        }
    }
}

/// A type that no rule of ONNX allows there reaches nothing that relies on it.
#[test]
fn n_grams_of_fractions_are_refused() {
    let ints = |name: &str, values: &[i64]| {
        let values: Vec<u8> = values.iter().flat_map(|v| int(8, *v)).collect();
        [part(1, name), values, int(20, 7)].concat()
    };
    let attributes = [
        [part(1, "mode"), part(4, "TF"), int(20, 3)].concat(),
        ints("pool_int64s", &[2, 3]),
        ints("ngram_counts", &[0]),
        ints("ngram_indexes", &[0, 1]),
    ];
    let of = |data_type: i64| {
        let graph = Graph {
            nodes: vec![node("TfIdfVectorizer", &["x"], &["y"], &attributes)],
            inputs: vec![value("x", data_type, &[Dim::Is(2), Dim::Is(8)])],
            outputs: vec![value("y", 1, &[])],
            ..Graph::default()
        };
        all_the_way(&graph.model(), &mut Random(4))
    };
    assert_eq!([of(7), of(6)], ["ran"; 2]);
    assert_eq!([of(1), of(10), of(11)], ["refused"; 3]);
}
