//! Every operator with too few inputs, too many, of every rank and type: each gets an answer. What handlers take for granted
//! about their inputs is seen here first.

use ballast_compiler::import;

use super::hostile::{Random, all_the_way};
use super::writer::{Dim, Graph, int, node, part, value};

/// The page of operators lists all that are known, by domain.
const PAGE: &str = include_str!("../../../../docs/operators.md");

/// Domain and name.
fn known() -> Vec<(&'static str, &'static str)> {
    let (mut domain, mut out) = ("", Vec::new());
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            domain = if title == "ONNX" { "" } else { title };
        }
        let name = line.strip_prefix("| ").and_then(|rest| rest.split(' ').next());
        out.extend(name.filter(|name| import::knows(domain, name)).map(|name| (domain, name)));
    }
    out
}

/// A type with the bytes of one element, each a one.
const TYPES: [(i64, &[u8]); 5] =
    [(1, &[0, 0, 128, 63]), (7, &[1, 0, 0, 0, 0, 0, 0, 0]), (6, &[1, 0, 0, 0]), (2, &[1]), (9, &[1])];

fn constant(name: &str, (data_type, one): (i64, &[u8]), dims: &[i64]) -> Vec<u8> {
    let raw = one.repeat(dims.iter().product::<i64>() as usize);
    let dims: Vec<u8> = dims.iter().flat_map(|d| int(1, *d)).collect();
    [dims, int(2, data_type), part(8, name), part(9, raw)].concat()
}

fn model(domain: &str, operator: &str, opset: i64, tensors: &[(i64, &[u8])], dims: &[i64], constants: bool) -> Vec<u8> {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut graph = Graph { outputs: vec![value("y", 1, &[])], ..Graph::default() };
    for (i, (name, kind)) in names.iter().zip(tensors).enumerate() {
        if constants && i > 0 {
            graph.constants.push(constant(name, *kind, dims));
        } else {
            let dims: Vec<Dim> = dims.iter().map(|d| Dim::Is(*d)).collect();
            graph.inputs.push(value(name, kind.0, &dims));
        }
    }
    let call = [node(operator, &names[..tensors.len()], &["y", "z"], &[]), part(7, domain)].concat();
    graph.nodes.push(call);
    let sets = [part(8, int(2, opset)), part(8, [part(1, domain), int(2, 1)].concat())];
    [int(1, 8), part(7, graph.bytes()), sets[0].clone(), if domain.is_empty() { vec![] } else { sets[1].clone() }]
        .concat()
}

#[test]
fn every_operator_answers_whatever_its_inputs_are() {
    let operators = known();
    assert!(operators.len() > 100, "the page lists {}", operators.len());
    let mut ran = std::collections::BTreeSet::new();
    for (domain, operator) in operators {
        for opset in [9, 21] {
            for arity in 0..=7 {
                for rank in 0..=5 {
                    for (first, rest) in TYPES.into_iter().flat_map(|a| [TYPES[0], TYPES[1], a].map(|b| (a, b))) {
                        let tensors: Vec<_> = (0..arity).map(|i| if i == 0 { first } else { rest }).collect();
                        for (extent, constants) in [(1, true), (2, true), (2, false)] {
                            let bytes = model(domain, operator, opset, &tensors, &vec![extent; rank], constants);
                            let done = std::panic::catch_unwind(|| all_the_way(&bytes, &mut Random(6)));
                            match done {
                                Ok("ran") => drop(ran.insert(operator)),
                                Ok(_) => {}
                                Err(_) => panic!(
                                    "{operator} of {arity} inputs {tensors:?}, rank {rank}, operator set {opset}"
                                ),
                            }
                        }
                    }
                }
            }
        }
    }
    // Most take something of this: else nothing was tried.
    assert!(ran.len() > 60, "{ran:?}");
}
