//! Bytes that nobody wrote as a plan.

use ballast_plan::{MAGIC, MAJOR, Plan, section};
use proptest::collection::vec;
use proptest::prelude::*;

use super::every_kind::everything;
use super::touch::assert_inside;

fn look(bytes: &[u8]) {
    if let Ok(plan) = Plan::parse(bytes) {
        assert_inside(&plan);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..256)) {
        look(&bytes);
    }

    /// A header and a table of sections that are right, so that every section's reader is reached.
    #[test]
    fn random_sections_never_panic(bodies in vec((1u32..7, vec(word(), 0..40)), 1..7)) {
        let mut head = Vec::from(MAGIC);
        head.extend([MAJOR.to_le_bytes(), [0; 2]].concat());
        head.extend((bodies.len() as u32).to_le_bytes());
        let (mut offset, mut tail) = (head.len() + bodies.len() * 16, Vec::new());
        for (kind, body) in &bodies {
            let length = body.len() * 4;
            for field in [*kind, section::REQUIRED, offset as u32, length as u32] {
                head.extend(field.to_le_bytes());
            }
            offset += length;
            tail.extend(body.iter().flat_map(|w| w.to_le_bytes()));
        }
        head.extend(tail);
        look(&head);
    }

    #[test]
    fn plans_that_were_cut_or_spliced_never_panic(at in any::<prop::sample::Index>(), cut in 0usize..64, put in vec(any::<u8>(), 0..64)) {
        let mut bytes = everything();
        let at = at.index(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put);
        look(&bytes);
    }
}

/// Small numbers mostly: they are kinds, counts and lengths.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..12, 1 => 0u32..4096, 1 => any::<u32>()]
}

#[test]
fn every_truncation_is_refused() {
    let whole = everything();
    for len in 0..whole.len() {
        assert!(Plan::parse(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
    }
}
