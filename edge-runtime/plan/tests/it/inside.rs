//! Valid plans with other numbers in them: what is still accepted stays inside its memory. The kernels rely on it.

use ballast_plan::Plan;
use proptest::collection::vec;
use proptest::prelude::*;

use super::every_kind::everything;
use super::touch::assert_inside;

/// Numbers to put in the place of another one: near it, near the ends of every width, and such that products overflow.
fn others(word: u32) -> [u32; 20] {
    let near = [1, 2, 4, 8, 16, 64].map(|by| word.wrapping_add(by));
    let below = [1, 2, 4, 16].map(|by| word.wrapping_sub(by));
    let [a, b, c, d, e, f] = near;
    let [g, h, i, j] = below;
    let ends = [0, 1, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let [k, l, m, n, o, p, q] = ends;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, word << 1, word ^ 0x8000_0000, word >> 1]
}

fn word_at(bytes: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(bytes[index * 4..][..4].try_into().unwrap())
}

fn put(bytes: &mut [u8], index: usize, word: u32) {
    bytes[index * 4..][..4].copy_from_slice(&word.to_le_bytes());
}

/// One word at a time, each with all the others.
#[test]
fn a_plan_with_another_number_stays_inside_or_is_refused() {
    let whole = everything();
    let (mut accepted, mut refused) = (0, 0);
    for index in 0..whole.len() / 4 {
        for word in others(word_at(&whole, index)) {
            let mut bytes = whole.clone();
            put(&mut bytes, index, word);
            match Plan::parse(&bytes) {
                Ok(plan) => {
                    accepted += 1;
                    assert_inside(&plan);
                }
                Err(_) => refused += 1,
            }
        }
    }
    // Neither answer is rare, or this proved nothing.
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, u32)>> {
    vec((any::<prop::sample::Index>(), 0usize..24, 0u32..24), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Several words at once: one change may make room for another.
    #[test]
    fn a_plan_with_other_numbers_stays_inside_or_is_refused(changes in changes()) {
        let mut bytes = everything();
        for (index, which, small) in changes {
            let index = index.index(bytes.len() / 4);
            let word = others(word_at(&bytes, index)).get(which).copied().unwrap_or(small);
            put(&mut bytes, index, word);
        }
        if let Ok(plan) = Plan::parse(&bytes) {
            assert_inside(&plan);
        }
    }
}
