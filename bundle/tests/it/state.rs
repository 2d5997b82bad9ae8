//! State that gateways carry: what a contract may say of it, and what it takes.

use ballast_bundle::state::{MAX_IDLE_MILLIS, MAX_SEQUENCES, SEQUENCE_OVERHEAD};
use ballast_bundle::*;

use crate::world::World;

fn spec(name: &str, datatype: DataType, shape: &[u64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.into() }
}

fn carried(input: &str, output: &str) -> StateInput {
    StateInput { input: input.into(), output: output.into(), reset: Reset::OnSwap, initial: vec![] }
}

/// `x` and the state `h` of six numbers, which `hn` carries on.
fn contract() -> Contract {
    let mut contract = World::good().contract;
    contract.inputs = vec![spec("x", DataType::Fp32, &[1, 4]), spec("h", DataType::Fp32, &[2, 3])];
    contract.outputs = vec![spec("y", DataType::Fp32, &[1]), spec("hn", DataType::Fp32, &[2, 3])];
    contract.state = Some(State { inputs: vec![carried("h", "hn")], max_sequences: 10, max_idle_millis: 1_000 });
    contract
}

#[test]
fn a_contract_says_what_is_carried_and_what_that_takes() {
    let contract = contract();
    let state = contract.state.as_ref().unwrap();
    assert!(state.fits(&contract) && state.needs_sequences());
    assert_eq!(contract.state_input("h").unwrap().output, "hn");
    assert!(contract.state_input("x").is_none() && contract.is_state_output("hn") && !contract.is_state_output("y"));
    assert_eq!((state.bytes(&contract.inputs), contract.state_memory()), (24, 10 * (24 + SEQUENCE_OVERHEAD)));
    let text = serde_json::to_string(&contract).unwrap();
    assert_eq!(serde_json::from_str::<Contract>(&text).unwrap(), contract);

    let mut fresh = contract.clone();
    fresh.state.as_mut().unwrap().inputs[0].reset = Reset::PerRequest;
    let state = fresh.state.clone().unwrap();
    assert!(state.fits(&fresh) && !state.needs_sequences());
    assert_eq!(fresh.state_memory(), 0, "nothing is carried");
    assert_ne!(fresh.state_names(), contract.state_names());
    fresh.state = None;
    assert!(!serde_json::to_string(&fresh).unwrap().contains("state"), "older gateways read it");
}

#[test]
fn what_does_not_belong_to_the_contract_does_not_fit() {
    type Change = fn(&mut Contract, &mut State);
    let wrong: [(&str, Change); 13] = [
        ("no input", |_, s| s.inputs.clear()),
        ("an input that is not there", |_, s| s.inputs[0].input = "z".into()),
        ("an output that is not there", |_, s| s.inputs[0].output = "z".into()),
        ("another shape", |c, _| c.inputs[1].shape = vec![3, 2]),
        ("another type", |c, _| c.inputs[1].datatype = DataType::Int32),
        ("an input twice", |_, s| s.inputs.push(s.inputs[0].clone())),
        ("too few numbers", |_, s| s.inputs[0].initial = vec![1, 2]),
        ("no number of the type", |_, s| s.inputs[0].initial = vec![(1 << 24) + 1]),
        ("no sequence", |_, s| s.max_sequences = 0),
        ("too many sequences", |_, s| s.max_sequences = MAX_SEQUENCES + 1),
        ("no time", |_, s| s.max_idle_millis = 0),
        ("for ever", |_, s| s.max_idle_millis = MAX_IDLE_MILLIS + 1),
        ("a counted output", |c, _| {
            c.counted = vec![CountedOutput { output: "hn".into(), count: "y".into(), axis: 0 }];
        }),
    ];
    for (what, change) in wrong {
        let mut contract = contract();
        let mut state = contract.state.take().unwrap();
        change(&mut contract, &mut state);
        assert!(!state.fits(&contract), "{what}");
    }
    let mut rows = contract();
    rows.batch = Some(Batch { inputs: vec![Some(0), None], outputs: vec![0, 0], max: 2 });
    assert!(!rows.state.clone().unwrap().fits(&rows), "rows are run apart from each other");
}

#[test]
fn a_beginning_that_no_memory_holds_is_judged_without_making_it() {
    let mut huge = contract();
    (huge.inputs[1].shape, huge.outputs[1].shape) = (vec![1 << 60], vec![1 << 60]);
    for initial in [vec![], vec![1]] {
        huge.state.as_mut().unwrap().inputs[0].initial = initial;
        assert!(huge.state.clone().unwrap().fits(&huge));
    }
    assert_eq!(huge.state_memory(), u64::MAX, "which no limit allows");
}

#[test]
fn a_beginning_is_numbers_of_the_inputs_type() {
    let bytes = |datatype, initial: &[i64]| {
        StateInput { initial: initial.into(), ..carried("h", "hn") }.initial_bytes(&spec("h", datatype, &[2]))
    };
    assert_eq!(bytes(DataType::Fp32, &[]), Some(vec![0; 8]));
    assert_eq!(bytes(DataType::Fp32, &[-3]), Some([-3f32, -3.0].iter().flat_map(|x| x.to_le_bytes()).collect()));
    assert_eq!(bytes(DataType::Int16, &[-3, 7]), Some([-3i16, 7].iter().flat_map(|x| x.to_le_bytes()).collect()));
    assert_eq!(bytes(DataType::Fp16, &[1]), Some(vec![0, 0x3c, 0, 0x3c]));
    assert_eq!(bytes(DataType::Bf16, &[1]), Some(vec![0x80, 0x3f, 0x80, 0x3f]));
    assert_eq!(bytes(DataType::Uint64, &[i64::MAX, 0]).map(|b| b.len()), Some(16));
    for (datatype, initial) in [
        (DataType::Uint8, &[256][..]),
        (DataType::Uint8, &[-1]),
        (DataType::Bool, &[2]),
        (DataType::Fp16, &[2049]),
        (DataType::Bf16, &[257]),
        (DataType::Fp64, &[i64::MIN]),
        (DataType::Int64, &[1, 2, 3]),
    ] {
        assert_eq!(bytes(datatype, initial), None, "{datatype:?} {initial:?}");
    }
    let vast = spec("h", DataType::Fp32, &[u64::MAX, 2]);
    assert_eq!(carried("h", "hn").initial_bytes(&vast), None);
}
