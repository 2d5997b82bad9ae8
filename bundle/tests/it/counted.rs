//! Outputs with as many rows as another output says.

use std::borrow::Cow;

use ballast_bundle::golden::{Golden, write};
use ballast_bundle::*;

use crate::world::World;

fn spec(name: &str, datatype: DataType, shape: &[u64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.into() }
}

/// One output of two columns and at most four rows, beside its count.
fn contract() -> Contract {
    let mut contract = World::good().contract;
    contract.inputs = vec![spec("x", DataType::Uint8, &[1])];
    contract.outputs = vec![spec("y", DataType::Uint8, &[2, 4]), spec("y.count", DataType::Int64, &[])];
    contract.counted = vec![CountedOutput { output: "y".into(), count: "y.count".into(), axis: 1 }];
    contract.verification.golden_match = GoldenMatch::Values;
    contract
}

#[test]
fn the_first_rows_are_cut_out_along_any_dimension() {
    let tensor = spec("y", DataType::Uint16, &[2, 3, 2]);
    let bytes: Vec<u8> = (0..24).collect();
    assert_eq!(tensor.first(0, 1, &bytes), (vec![1, 3, 2], Cow::Borrowed(&bytes[..12])));
    let middle = [&bytes[..8], &bytes[12..20]].concat();
    assert_eq!(tensor.first(1, 2, &bytes), (vec![2, 2, 2], Cow::Owned(middle)));
    let last: Vec<u8> = bytes.chunks(4).flat_map(|c| &c[..2]).copied().collect();
    assert_eq!(tensor.first(2, 1, &bytes), (vec![2, 3, 1], Cow::Owned(last)));
    assert_eq!(tensor.first(0, 0, &bytes), (vec![0, 3, 2], Cow::Borrowed(&[][..])));
    // More than there are, a dimension that is not there, bytes that are too few.
    for (axis, count, bytes) in [(1, 9, &bytes[..]), (3, 1, &bytes[..]), (0, 1, &bytes[..5])] {
        assert_eq!(tensor.first(axis, count, bytes), (vec![2, 3, 2], Cow::Borrowed(bytes)));
    }
}

#[test]
fn only_valid_rows_are_compared() {
    let contract = contract();
    let golden = |columns: u64, data: &[u8], count: Option<i64>| {
        let count = count.map(i64::to_le_bytes);
        let mut tensors = vec![
            ("inputs/x".to_owned(), DataType::Uint8, vec![1, 1], &[7u8][..]),
            ("outputs/y".to_owned(), DataType::Uint8, vec![1, 2, columns], data),
        ];
        tensors.extend(count.as_ref().map(|c| ("outputs/y.count".to_owned(), DataType::Int64, vec![1], &c[..])));
        Golden::of_bundle(&write(&tensors), &contract)
    };
    let judged = |golden: &Golden, y: &[u8], count: i64| {
        let result =
            golden.check(0, &[(&contract.outputs[0], y), (&contract.outputs[1], &count.to_le_bytes())], &contract);
        result.values.map_or(Ok(()), Err)
    };
    // As a bundle has it, and as people have it: the valid rows alone.
    for golden in [golden(4, &[1, 2, 0, 0, 3, 4, 0, 0], Some(2)), golden(2, &[1, 2, 3, 4], None)] {
        let golden = golden.unwrap();
        assert_eq!(judged(&golden, &[1, 2, 0, 0, 3, 4, 0, 0], 2), Ok(()));
        assert_eq!(judged(&golden, &[1, 2, 9, 9, 3, 4, 9, 9], 2), Ok(()));
        assert!(judged(&golden, &[1, 2, 0, 0, 3, 5, 0, 0], 2).unwrap_err().contains("element 3 is 5, expected 4"));
        assert!(judged(&golden, &[1, 2, 0, 0, 3, 4, 0, 0], 3).unwrap_err().contains("y.count"));
    }
    assert!(golden(0, &[], None).is_ok());
    assert!(golden(5, &[0; 10], None).is_err(), "more rows than there is room for");
    assert!(golden(2, &[1, 2, 3], None).is_err(), "fewer bytes than the rows need");
}
