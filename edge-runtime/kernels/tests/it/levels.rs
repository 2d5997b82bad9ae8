//! Where a bench's plan runs: natively, on every level that this CPU has, between guards.

use std::ops::Range;

use ballast_kernels::{Level, Memory};
use ballast_plan::Plan;

/// What guards hold: no kernel may change it.
const GUARD: u8 = 0xa5;
const GUARD_BYTES: usize = 256;

/// What lies at `out` of the arena afterwards, for each level by its name.
pub fn run(plan: &[u8], arena: &[u8], weights: &[u8], out: Range<usize>) -> Vec<(String, Vec<u8>)> {
    let plan = Plan::parse(plan).expect("the plan parses");
    let mut levels = vec![Level::Scalar];
    levels.extend((Level::best() != Level::Scalar).then(Level::best));
    let on = |level: Level| {
        let guarded = |body: &[u8]| {
            let guard = vec![GUARD; GUARD_BYTES];
            [&guard, body, &guard].concat()
        };
        let (mut inside, weights) = (guarded(arena), guarded(weights));
        let memory = Memory { arena: inside[GUARD_BYTES..].as_mut_ptr(), weights: weights[GUARD_BYTES..].as_ptr() };
        for entry in plan.entries() {
            // SAFETY: the plan was parsed and the memories have its sizes.
            unsafe { ballast_kernels::run(level, &plan, entry.items(), &memory) };
        }
        let end = GUARD_BYTES + arena.len();
        let guards = inside[..GUARD_BYTES].iter().chain(&inside[end..]);
        assert!(guards.copied().all(|b| b == GUARD), "{level:?} left its arena");
        (format!("{level:?}"), inside[GUARD_BYTES..][out.clone()].to_vec())
    };
    levels.into_iter().map(on).collect()
}
