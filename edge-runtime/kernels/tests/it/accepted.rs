//! Plans with wrong numbers that are accepted all the same: carrying them out changes nothing outside of their arena.

use ballast_kernels::{Level, Memory, run_step};
use ballast_plan::control::{Item, Items};
use ballast_plan::step::Wide;
use ballast_plan::{Plan, Step};

use crate::every_kind::everything;
use crate::touch::assert_inside;

const GUARD: u8 = 0xa5;
/// A step that went astray by a row or a plane lands here.
const GUARD_BYTES: usize = 64 << 10;
/// Operations that a plan may cost: extents that repeat the same elements need no memory.
const MOST: u128 = 1 << 20;

/// How much work a step is.
fn work(step: &Step) -> u128 {
    let product = |factors: &[u32]| factors.iter().map(|&n| u128::from(n)).product();
    match step {
        Step::Fill(s) => s.words.into(),
        Step::Copy(s) => product(&s.dims),
        Step::Elt(s) | Step::Wide(Wide { elt: s, .. }) => product(&s.dims),
        Step::Gemm(s) => product(&[s.batch, s.m, s.n, s.k]),
        Step::Conv(s) => {
            let w = &s.window;
            product(&[s.batch, s.groups, s.oc.next_multiple_of(4), s.ic, w.kh, w.kw, w.oh, w.ow])
        }
        Step::Depthwise(s) => product(&[s.batch, s.planes, s.window.kh, s.window.kw, s.window.oh, s.window.ow]),
        Step::Pool(s) => product(&[s.planes, s.window.kh, s.window.kw, s.window.oh, s.window.ow]),
        Step::Reduce(s) => product(&[s.outer, s.len, s.inner]),
        Step::Contract(s) => product(&s.outer) * product(&s.inner),
        Step::Scan(s) => product(&[s.outer, s.len, s.inner]),
        Step::Top(s) => product(&[s.outer, s.len, s.inner]) * 16,
        Step::Pick(s) => product(&s.address.dims) * u128::from(s.address.slice + 8),
        Step::Put(s) => product(&s.address.dims) * u128::from(s.address.slice + 8),
        Step::Softmax(s) => product(&[s.outer, s.len, s.inner]),
        Step::Gather(s) => product(&[s.outer, s.count, s.bytes]),
        Step::IntGemm(s) => product(&[s.batch, s.m.next_multiple_of(4), s.n.next_multiple_of(16), s.k]),
        Step::IntConv(s) => {
            let w = &s.window;
            product(&[s.batch, s.groups, s.oc.next_multiple_of(4), s.ic, w.kh, w.kw, w.oh, w.ow])
        }
        Step::IntDepthwise(s) => product(&[s.batch, s.planes, s.window.kh, s.window.kw, s.window.oh, s.window.ow]),
        Step::Lookup(s) => s.count.into(),
        Step::NonZero(s) => product(&s.dims[..s.rank as usize]) * 8,
        Step::Suppress(s) => product(&[s.batch, s.classes, s.boxes, s.limit.max(16)]),
        Step::Unique(s) => product(&[s.rows, s.len, 64]),
    }
}

/// How much work a list is, every round counted.
fn rounds(items: Items<'_>) -> u128 {
    let each = |item| match item {
        Item::Step(step) => work(&step) + 1,
        Item::Repeat(repeat) => {
            let slides: u128 = repeat.before().chain(repeat.after()).map(|s| u128::from(s.bytes)).sum();
            u128::from(repeat.count) * (rounds(repeat.body()) + slides + 1)
        }
        Item::Branch(branch) => rounds(branch.then()).max(rounds(branch.otherwise())),
    };
    items.map(each).sum()
}

/// Gives whether it was run: not when it is too large to be tried.
fn run(plan: &Plan<'_>) -> bool {
    let steps: Vec<Step> = plan.entries().flat_map(|e| e.steps()).collect();
    let work: u128 = plan.entries().map(|entry| rounds(entry.items())).sum();
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
