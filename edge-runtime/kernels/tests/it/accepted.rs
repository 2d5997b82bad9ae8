//! Plans with wrong numbers that are accepted all the same: carrying them out changes nothing outside of their arena.

use ballast_kernels::{Level, Memory, run_step};
use ballast_plan::{Plan, Step};

use crate::every_kind::everything;
use crate::touch::assert_inside;

const GUARD: u8 = 0xa5;
/// A step that went astray by a row or a plane lands here.
const GUARD_BYTES: usize = 64 << 10;
/// Operations that a plan may cost: extents that repeat the same elements need no memory.
const MOST: u64 = 1 << 21;

/// Gives whether it was run: not when it is too large to be tried.
fn run(plan: &Plan<'_>) -> bool {
    let steps: Vec<Step> = plan.entries().flat_map(|e| e.steps()).collect();
    let work = plan.entries().map(|entry| plan.work(&entry)).fold(0, u64::saturating_add);
    if plan.arena_bytes() > 1 << 20 || plan.weights_bytes() > 1 << 20 || work > MOST {
        return false;
    }
    for level in [Level::Scalar, Level::best()] {
        let arena_bytes = plan.arena_bytes() as usize;
        let mut arena = vec![GUARD; arena_bytes + 2 * GUARD_BYTES];
        arena[GUARD_BYTES..][..arena_bytes].fill(0x3e);
        let weights = vec![0x3du8; plan.weights_bytes() as usize + 2 * GUARD_BYTES];
        let memory = Memory { arena: arena[GUARD_BYTES..].as_mut_ptr(), weights: weights[GUARD_BYTES..].as_ptr() };
        for step in &steps {
            // SAFETY: the plan was parsed and the memories have its sizes.
            unsafe { run_step(level, plan, step, &memory) };
            let guards = arena[..GUARD_BYTES].iter().chain(&arena[GUARD_BYTES + arena_bytes..]);
            assert!(guards.copied().all(|b| b == GUARD), "{level:?} left its arena: {step:?}");
        }
        for entry in plan.entries() {
            // SAFETY: as above.
            unsafe { ballast_kernels::run(level, plan, entry.items(), &memory) };
        }
        let guards = arena[..GUARD_BYTES].iter().chain(&arena[GUARD_BYTES + arena_bytes..]);
        assert!(guards.copied().all(|b| b == GUARD), "{level:?} left its arena");
        assert!(weights.iter().all(|&b| b == 0x3d), "{level:?} wrote weights");
    }
    true
}

#[test]
fn what_is_accepted_with_another_number_in_it_stays_in_its_arena() {
    let whole = everything();
    let mut ran = 0;
    for index in 0..whole.len() / 4 {
        let place = index * 4..index * 4 + 4;
        let word = u32::from_le_bytes(whole[place.clone()].try_into().unwrap());
        for other in
            [word.wrapping_add(1), word.wrapping_sub(1), word / 2, word.wrapping_mul(2), word.wrapping_sub(4), 1, 0]
        {
            let mut bytes = whole.clone();
            bytes[place.clone()].copy_from_slice(&other.to_le_bytes());
            if let Ok(plan) = Plan::parse(&bytes) {
                // By numbers, then by doing it.
                assert_inside(&plan);
                ran += u32::from(run(&plan));
            }
        }
    }
    assert!(ran > 500, "only {ran} were run");
}
