//! Any bytes as a plan: refused, or one whose every part can be read.
#![no_main]

use ballast_plan::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = Plan::parse(bytes) else { return };
    let arena = u64::from(plan.arena_bytes());
    for entry in plan.entries() {
        for tensor in entry.inputs().chain(entry.outputs()) {
            let elements = tensor.dims().map(u64::from).product::<u64>();
            let bytes = tensor.bytes().expect("a tensor that was checked has a length");
            assert!(elements <= bytes && u64::from(tensor.at) + bytes <= arena, "a tensor lies in the arena");
        }
        assert!(entry.steps().count() <= bytes.len(), "every step takes room");
    }
});
