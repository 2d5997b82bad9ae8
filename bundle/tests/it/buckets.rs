//! Which shape answers a request.

use ballast_bundle::buckets::{Buckets, Shapes};
use ballast_bundle::{Contract, DataType, Golden, GoldenError, TensorSpec, golden};

use crate::world::World;

/// `ids` and `mask` of 16 or 64 or 128 tokens, `scale` the same for all; `hidden` goes with the tokens, `pooled` does not.
fn contract(padding: Option<i64>) -> Contract {
    let tensor = |name: &str, shape: &[u64]| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: shape.to_vec(),
    };
    let shapes =
        |n: u64| Shapes { inputs: vec![vec![1, n], vec![1, n], vec![2]], outputs: vec![vec![1, n, 8], vec![1, 8]] };
    let mut contract = World::good().contract;
    contract.inputs = vec![tensor("ids", &[1, 64]), tensor("mask", &[1, 64]), tensor("scale", &[2])];
    contract.outputs = vec![tensor("hidden", &[1, 64, 8]), tensor("pooled", &[1, 8])];
    contract.buckets =
        Some(Buckets { more: vec![shapes(16), shapes(128)], padding: vec![padding, padding.map(|_| 0), None] });
    contract
}

fn sent(n: u64, m: u64) -> Vec<Vec<u64>> {
    vec![vec![1, n], vec![1, m], vec![2]]
}

#[test]
fn the_smallest_that_fits_answers() {
    let exact = contract(None);
    for (n, entry) in [(64, 0), (16, 1), (128, 2)] {
        assert_eq!(exact.smallest_entry(&sent(n, n)), Ok(entry));
    }
    let error = exact.smallest_entry(&sent(20, 20)).unwrap_err();
    let says = "the model takes ids [1, 64] with mask [1, 64] with scale [2], or ids [1, 16] with mask [1, 16] with scale [2], or ids [1, 128] with mask [1, 128] with scale [2]; ids [1, 20] with mask [1, 20] with scale [2] was sent";
    assert_eq!(error, says);
    let padded = contract(Some(7));
    for (n, entry) in [(1, 1), (16, 1), (17, 0), (64, 0), (65, 2), (128, 2)] {
        assert_eq!(padded.smallest_entry(&sent(n, n)), Ok(entry), "{n}");
    }
    let uneven = padded.smallest_entry(&sent(3, 7)).unwrap_err();
    assert_eq!(
        uneven,
        "input \"ids\" has 3 along axis 1 and input \"mask\" 7 along axis 1: they are of one length, send as many of both"
    );
    for bad in [sent(129, 129), sent(0, 0), vec![vec![1, 16]], vec![vec![1, 16], vec![1, 16], vec![1]]] {
        assert!(padded.smallest_entry(&bad).unwrap_err().contains("filled up where padding says so"), "{bad:?}");
    }
}

#[test]
fn outputs_are_as_long_as_what_was_sent() {
    let padded = contract(Some(0));
    assert_eq!(padded.outputs_for(0, &sent(20, 20)), [vec![1, 20, 8], vec![1, 8]]);
    assert_eq!(padded.outputs_for(2, &sent(128, 128)), [vec![1, 128, 8], vec![1, 8]]);
    // Half as long as the input in every entry: nobody can say where it ends.
    let mut halved = contract(Some(0));
    halved.outputs[0].shape = vec![1, 32, 8];
    let buckets = halved.buckets.as_mut().unwrap();
    buckets.more[0].outputs[0] = vec![1, 8, 8];
    buckets.more[1].outputs[0] = vec![1, 64, 8];
    assert_eq!(halved.outputs_for(0, &sent(20, 20))[0], [1, 32, 8]);
}

#[test]
fn only_what_differs_between_shapes_may_be_shorter() {
    let mut wide = contract(Some(0));
    let width = |shape: &mut Vec<u64>| shape.push(4);
    width(&mut wide.inputs[0].shape);
    wide.buckets.as_mut().unwrap().more.iter_mut().for_each(|s| width(&mut s.inputs[0]));
    let of = |n: u64, width: u64| vec![vec![1, n, width], vec![1, n], vec![2]];
    assert_eq!(wide.smallest_entry(&of(10, 4)), Ok(1));
    assert!(wide.smallest_entry(&of(10, 3)).is_err(), "all shapes have four numbers a token");
    assert_eq!(wide.larger_than(1), [0, 2]);
    assert_eq!(wide.larger_than(2), [0usize; 0]);
    assert_eq!(wide.left_unpadded(), None);
    wide.buckets.as_mut().unwrap().padding[1] = None;
    assert_eq!(wide.left_unpadded(), Some(("mask", "ids")));
    assert!(wide.smallest_entry(&of(10, 4)).is_err(), "the mask has no padding");
}

#[test]
fn what_was_filled_up_is_cut_back() {
    let padded = contract(Some(7));
    let short = sent(2, 2);
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let filled = padded.filled_up(1, &short, &[bytes(&[1.0, 2.0]), bytes(&[1.0, 1.0]), bytes(&[3.0, 4.0])]);
    assert_eq!(filled[0], bytes(&[&[1.0, 2.0][..], &[7.0; 14]].concat()));
    assert_eq!(filled[1], bytes(&[&[1.0, 1.0][..], &[0.0; 14]].concat()));
    assert_eq!(filled[2], bytes(&[3.0, 4.0]), "as it was sent");
    let hidden: Vec<f32> = (0..16 * 8).map(|n| n as f32).collect();
    let shape = &padded.outputs_for(1, &short)[0];
    assert_eq!(padded.cut_back(1, 0, shape, &bytes(&hidden)), bytes(&hidden[..16]));
}

/// A golden file of one vector for an entry of the contract, whose numbers are all `n`.
fn file_of(contract: &Contract, entry: usize, n: f32) -> Vec<u8> {
    let (inputs, outputs) = contract.entry(entry);
    let named = inputs.iter().map(|t| ("inputs", t)).chain(outputs.iter().map(|t| ("outputs", t)));
    let tensors: Vec<(String, DataType, Vec<u64>, Vec<u8>)> = named
        .map(|(kind, t)| {
            let numbers = (0..t.elements().unwrap()).flat_map(|_| n.to_le_bytes()).collect();
            (format!("{kind}/{}", t.name), t.datatype, [&[1], t.shape.as_slice()].concat(), numbers)
        })
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(n, d, s, b)| (n.clone(), *d, s.clone(), b.as_slice())).collect();
    golden::write(&tensors)
}

#[test]
fn one_golden_file_has_vectors_for_every_shape() {
    let contract = contract(Some(0));
    let parts: Vec<Vec<u8>> = (0..3).map(|n| file_of(&contract, n, n as f32)).collect();
    let file = golden::join(&parts).unwrap();
    let all = Golden::of_entries(&file, &contract).unwrap();
    assert_eq!(all.len(), 3);
    for (n, golden) in all.iter().enumerate() {
        let (inputs, _) = contract.entry(n);
        let ids = golden.input(0, "ids").unwrap();
        assert_eq!(Some(ids.len() as u64), inputs[0].bytes());
        assert!(ids.chunks(4).all(|x| x == (n as f32).to_le_bytes()), "{n}");
    }
    assert_eq!(Golden::first_part(&file, &contract).unwrap(), parts[0], "byte for byte");
    // One too few, and one that the contract does not know.
    assert!(matches!(Golden::of_entries(&golden::join(&parts[..2]).unwrap(), &contract), Err(GoldenError::Count(0))));
    let mut two = contract.clone();
    two.buckets.as_mut().unwrap().more.pop();
    assert!(matches!(Golden::of_entries(&file, &two), Err(GoldenError::Unknown(_))));
    let mut alone = contract.clone();
    alone.buckets = None;
    assert!(matches!(Golden::of_entries(&file, &alone), Err(GoldenError::Unknown(_))));
    let other = golden::join(&[parts[0].clone(), parts[2].clone(), parts[1].clone()]).unwrap();
    assert!(matches!(Golden::of_entries(&other, &contract), Err(GoldenError::Shape { .. })));
}

#[test]
fn buckets_must_be_of_the_contract_and_differ() {
    let good = contract(None);
    let buckets = good.buckets.clone().unwrap();
    assert!(buckets.fits(&good));
    let wrong: [fn(&mut Buckets); 8] = [
        |b| b.more.clear(),
        |b| b.padding.truncate(2),
        |b| b.more[0].inputs[0] = vec![16],
        |b| drop(b.more[0].outputs.pop()),
        |b| b.more[1] = b.more[0].clone(),
        |b| b.more[0].inputs = vec![vec![1, 64], vec![1, 64], vec![2]],
        |b| b.more.resize(8, b.more[0].clone()),
        |b| b.more[0].inputs[0] = vec![u64::MAX, u64::MAX],
    ];
    for change in wrong {
        let mut changed = good.clone();
        let mut bad = buckets.clone();
        change(&mut bad);
        changed.buckets = Some(bad.clone());
        assert!(!bad.fits(&changed), "{bad:?}");
    }
}
