//! Tensors in files beside the model: packed, found again, and refused by name where something is missing or out of bounds.

use std::collections::BTreeMap;

use ballast_compiler::ir::Tensor;
use ballast_compiler::{VerdictReason, archive, eval, import};

use super::writer::{Dim, chain, int, node, part};

/// `x + w`, with `w` of two numbers in another file.
fn model(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut graph = chain(&[Dim::Is(2)], vec![node("Add", &["x", "w"], &["y"], &[])]);
    let entries = entries.iter().flat_map(|(k, v)| part(13, [part(1, k), part(2, v)].concat()));
    let entries: Vec<u8> = entries.collect();
    graph.constants.push([int(1, 2), int(2, 1), part(8, "w"), entries, int(14, 1)].concat());
    graph.model()
}

fn weights() -> Vec<u8> {
    [7.0f32, 8.0, 1.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn packed(entries: &[(&str, &str)]) -> Vec<u8> {
    let files = BTreeMap::from([("sub/net.data".to_owned(), weights())]);
    archive::pack(model(entries), &files).expect("safe names")
}

#[test]
fn tensors_are_read_from_the_files_beside_the_model() {
    let entries = [("location", "./sub/net.data"), ("offset", "8"), ("length", "8"), ("checksum", "ignored")];
    assert_eq!(archive::named(&model(&entries)).into_iter().collect::<Vec<_>>(), ["sub/net.data"]);
    let graph = import::import(&packed(&entries), &[], &[]).unwrap_or_else(|f| panic!("{}", f.message())).graph;
    let y = eval::evaluate(&graph, &[Tensor::f32(vec![2], vec![10.0, 20.0])]).expect("it runs").remove(0);
    assert_eq!(y.floats(), [11.0, 22.0]);
}

#[test]
fn what_is_missing_or_out_of_bounds_is_said() {
    let alone = model(&[("location", "net.data")]);
    let at =
        |path: &str, offset: &str, length: &str| packed(&[("location", path), ("offset", offset), ("length", length)]);
    for (bytes, says) in [
        (alone, "it lies in the file \"net.data\", and no other file came along"),
        (at("other", "0", "8"), "it lies in the file \"other\", and there are \"sub/net.data\""),
        (at("sub/net.data", "12", "8"), "ends after 16 bytes"),
        (at("sub/net.data", "18446744073709551615", "8"), "ends after 16 bytes"),
        (at("sub/net.data", "0", "18446744073709551615"), "ends after 16 bytes"),
        (at("sub/net.data", "0", "12"), "asks for 2 elements, the file has 3"),
        (at("sub/net.data", "0", "ten"), "no number"),
        (at("../net.data", "0", "8"), "cannot be used: write a relative one"),
        (at("/etc/passwd", "0", "8"), "cannot be used: write a relative one"),
    ] {
        let findings = import::import(&bytes, &[], &[]).expect_err("something is missing");
        assert!(findings.message().contains(says), "{says}: {}", findings.message());
        assert_eq!(findings.reason(), VerdictReason::NotOnnx);
    }
}
