//! Repeats and branches: what is nested is checked as what is not, in every round, to a depth and a number that are bounded.

use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::control::{Block, Item, Items, MAX_NESTING, Slide};
use ballast_plan::step::Fill;
use ballast_plan::{At, DType, Plan, PlanError, Step};
use proptest::prelude::*;

use super::every_kind::{arena, everything, nested};
use super::touch::assert_inside;

fn plan(blocks: &[Block], bytes: u32) -> Result<Vec<u8>, PlanError> {
    let mut builder = PlanBuilder::new();
    let def = TensorDef { name: "x".into(), dtype: DType::U8, dims: vec![1], at: 0 };
    builder.entry_of("main", vec![def.clone()], vec![def], blocks);
    builder.finish(bytes, 64, 1)
}

fn fill(at: u32) -> Block {
    Block::Step(Fill { out: arena(at), words: 1, value: 7 }.into())
}

fn repeat(count: u32, before: Vec<Slide>, body: Vec<Block>) -> Block {
    Block::Repeat { count, gate: None, before, after: vec![], body }
}

fn branch(then: Vec<Block>, otherwise: Vec<Block>) -> Block {
    Block::Branch { condition: arena(0), then, otherwise }
}

#[test]
fn what_was_nested_is_read_back_nested() {
    fn blocks(items: Items<'_>) -> Vec<Block> {
        items
            .map(|item| match item {
                Item::Step(step) => Block::Step(step),
                Item::Repeat(r) => Block::Repeat {
                    count: r.count,
                    gate: r.gate,
                    before: r.before().collect(),
                    after: r.after().collect(),
                    body: blocks(r.body()),
                },
                Item::Branch(b) => {
                    Block::Branch { condition: b.condition, then: blocks(b.then()), otherwise: blocks(b.otherwise()) }
                }
            })
            .collect()
    }
    let bytes = plan(&[nested()], 4096).unwrap();
    let plan = Plan::parse(&bytes).unwrap();
    let entry = plan.entries().next().unwrap();
    assert_eq!(blocks(entry.items()), [nested()]);
}

#[test]
fn all_steps_are_seen_once_in_order() {
    let blocks = [
        fill(0),
        repeat(3, vec![], vec![fill(4), branch(vec![fill(8), repeat(2, vec![], vec![fill(12)])], vec![fill(16)])]),
        branch(vec![], vec![]),
        fill(20),
    ];
    let bytes = plan(&blocks, 64).unwrap();
    let places: Vec<u32> = Plan::parse(&bytes)
        .unwrap()
        .entries()
        .flat_map(|e| e.steps())
        .map(|step| match step {
            Step::Fill(f) => f.out.offset(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, [0, 4, 8, 12, 16, 20]);
}

#[test]
fn a_slide_stays_inside_in_its_last_round_and_no_further() {
    let slide = |from, from_step, to, to_step| Slide { from, from_step, to, to_step, bytes: 8 };
    let fits = [
        slide(arena(0), 8, arena(32), 0),
        slide(arena(24), -8, arena(32), 0),
        slide(arena(0), 0, arena(8), 8),
        slide(arena(0), 0, arena(32), -8),
        slide(At::weights(32).unwrap(), 8, arena(0), 0),
    ];
    for slide in fits {
        assert!(plan(&[repeat(4, vec![slide], vec![])], 40).is_ok(), "{slide:?}");
        let error = plan(&[repeat(6, vec![slide], vec![])], 40).unwrap_err();
        assert_eq!(error, PlanError::OutOfBounds { step: 0 }, "{slide:?}");
    }
    let written = slide(arena(0), 0, At::weights(0).unwrap(), 0);
    assert_eq!(plan(&[repeat(4, vec![written], vec![])], 40), Err(PlanError::OutOfBounds { step: 0 }));
    for wrong in [Slide { bytes: 0, ..fits[0] }, Slide { from_step: i32::MIN, ..fits[0] }] {
        assert!(plan(&[repeat(4, vec![wrong], vec![])], 40).is_err(), "{wrong:?}");
    }
}

#[test]
fn conditions_lie_inside_and_repeats_have_rounds() {
    let gated = |at| Block::Repeat { count: 2, gate: Some(arena(at)), before: vec![], after: vec![], body: vec![] };
    assert!(plan(&[gated(39)], 40).is_ok());
    assert_eq!(plan(&[gated(40)], 40), Err(PlanError::OutOfBounds { step: 0 }));
    let branch = |at| Block::Branch { condition: arena(at), then: vec![], otherwise: vec![] };
    assert!(plan(&[branch(39)], 40).is_ok());
    assert_eq!(plan(&[branch(40)], 40), Err(PlanError::OutOfBounds { step: 0 }));
    assert_eq!(plan(&[repeat(0, vec![], vec![])], 40), Err(PlanError::Geometry { step: 0 }));
}

#[test]
fn a_step_of_a_body_that_leaves_its_memory_is_named() {
    let error = plan(&[fill(0), repeat(2, vec![], vec![branch(vec![fill(4)], vec![fill(40)])])], 40).unwrap_err();
    assert_eq!(error, PlanError::OutOfBounds { step: 4 });
}

#[test]
fn nesting_ends() {
    let deep = |n: usize, wrap: fn(Vec<Block>) -> Block| (0..n).fold(fill(0), |inner, _| wrap(vec![inner]));
    for wrap in [|body| repeat(2, vec![], body), |body| branch(vec![], body), |body| branch(body, vec![])] {
        assert!(plan(&[deep(MAX_NESTING, wrap)], 40).is_ok());
        assert_eq!(plan(&[deep(MAX_NESTING + 1, wrap)], 40), Err(PlanError::Nesting));
        // As deep as the format's length allows: whoever reads it must not recurse as deep.
        assert_eq!(plan(&[deep(2000, wrap)], 40), Err(PlanError::Nesting));
    }
}

#[test]
fn rounds_of_rounds_end() {
    assert!(plan(&[repeat(1 << 23, vec![], vec![fill(0)])], 40).is_ok());
    let nested = |inner| repeat(1 << 12, vec![], vec![repeat(inner, vec![], vec![fill(0)])]);
    assert!(plan(&[nested(1 << 10)], 40).is_ok());
    for blocks in [vec![nested(1 << 14)], vec![nested(u32::MAX)], vec![nested(1 << 10); 4]] {
        assert_eq!(plan(&blocks, 40), Err(PlanError::TooManySteps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Lengths, counts and places inside a nested list, several at once.
    #[test]
    fn nested_lists_with_other_numbers_stay_inside_or_are_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0u32..48, any::<u32>()]), 1..4)
    ) {
        let mut bytes = plan(&[nested()], 4096).unwrap();
        for (index, word) in changes {
            let at = index.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        if let Ok(plan) = Plan::parse(&bytes) {
            assert_inside(&plan);
        }
    }
}

#[test]
fn the_plan_of_everything_has_both() {
    let bytes = everything();
    let plan = Plan::parse(&bytes).unwrap();
    let items: Vec<Item<'_>> = plan.entries().flat_map(|e| e.items()).collect();
    assert!(items.iter().any(|item| matches!(item, Item::Repeat(_))));
}
