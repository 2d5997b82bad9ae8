//! Any bytes as a contract and a golden file: `contract.json`, a zero byte, `golden.safetensors`.
#![no_main]

use ballast_bundle::{Contract, Golden, Tally};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (contract, golden) = match bytes.iter().position(|b| *b == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let Ok(contract) = serde_json::from_slice::<Contract>(contract) else { return };
    let written = serde_json::to_vec(&contract).expect("plain data");
    let mut again: Contract = serde_json::from_slice(&written).expect("what was written is read");
    // Numbers of many digits are read to the last bit or the one beside it; nothing is signed over what was read.
    again.verification.tolerance = contract.verification.tolerance;
    assert_eq!(again, contract);
    let Ok(golden) = Golden::parse(golden, &contract.inputs, &contract.outputs) else { return };
    let judged = golden.can_judge(&contract);
    let mut tally = Tally::default();
    for vector in 0..golden.len().min(4) {
        for input in &contract.inputs {
            let given = golden.input(vector, &input.name).expect("every input is there");
            assert_eq!(Some(given.len() as u64), input.bytes());
        }
        let outputs: Vec<_> =
            contract.outputs.iter().filter_map(|t| Some((t, golden.output(vector, &t.name)?))).collect();
        let complete = outputs.len() == contract.outputs.len();
        let result = golden.check(vector, &outputs, &contract);
        assert!(!complete || result.values.is_none() || judged.is_err(), "what a file expects is as it expects it");
        tally.add(result);
    }
    let _ = tally.judge(&contract);
});
