//! Work that no memory bounds: extents whose strides are 0, and rounds.

use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::control::Block;
use ballast_plan::generic::{Contract, Side};
use ballast_plan::record::List;
use ballast_plan::step::{Copy, Elt, Fill, Gemm, Matrix, Operand};
use ballast_plan::work::MAX_WORK;
use ballast_plan::{At, DType, EltInstr, EltOp, Plan, PlanError, Step};

use super::every_kind::{WEIGHTS, arena, everything, steps};

/// Arena of the plans here, bytes.
const ARENA: u32 = 1 << 20;

fn builder() -> PlanBuilder {
    let mut builder = PlanBuilder::new();
    let neg = EltInstr { op: EltOp::Neg, dst: 1, ..EltInstr::default() };
    builder.program(1, 2, &[neg]);
    builder
}

fn plan(blocks: &[Block]) -> Result<u64, PlanError> {
    let mut builder = builder();
    let def = TensorDef { name: "x".into(), dtype: DType::U8, dims: vec![1], at: 0 };
    builder.entry_of("main", vec![def.clone()], vec![def], blocks);
    let bytes = builder.finish(ARENA, WEIGHTS, 1)?;
    let plan = Plan::parse(&bytes)?;
    Ok(plan.entries().map(|entry| plan.work(&entry)).sum())
}

fn one(step: impl Into<Step>) -> Result<u64, PlanError> {
    plan(&[Block::Step(step.into())])
}

fn repeat(count: u32, body: Vec<Block>) -> Block {
    Block::Repeat { count, gate: None, before: vec![], after: vec![], body }
}

/// A product whose sides and result are one row again and again.
fn gemm(batch: u32, m: u32, k: u32) -> Gemm {
    let side = Matrix { at: arena(0), ..Matrix::default() };
    Gemm { batch, m, n: 16, k, left: side, right: side, out: arena(64), scratch: arena(256), ..Gemm::default() }
}

/// One number joined with itself.
fn contract(outer: u32, inner: [u32; 4]) -> Contract {
    let side = Side { at: arena(0), ..Side::default() };
    Contract {
        outer: [1, 1, 1, 1, 1, outer],
        inner,
        left: side,
        right: List::new(&[side]).unwrap(),
        out: arena(64),
        ..Contract::default()
    }
}

fn copy(rows: [u32; 2]) -> Copy {
    let dims = [1, 1, 1, rows[0], rows[1], 1];
    Copy {
        size: 4,
        dims,
        input: arena(0),
        input_strides: [0, 0, 0, 0, 0, 1],
        out: arena(64),
        out_strides: [0, 0, 0, 0, 0, 1],
    }
}

#[test]
fn products_of_one_row_with_itself_end() {
    let some = one(gemm(1 << 10, 1 << 10, 1)).unwrap();
    assert!((1 << 24..1 << 28).contains(&some), "{some}");
    assert_eq!(one(gemm(1 << 20, 1 << 20, 256)), Err(PlanError::TooMuchWork));
    assert_eq!(one(gemm(i32::MAX as u32, i32::MAX as u32, i32::MAX as u32)), Err(PlanError::TooMuchWork));
}

#[test]
fn contractions_of_one_number_with_itself_end() {
    let some = one(contract(1 << 4, [1, 1, 1 << 5, 1 << 6])).unwrap();
    assert!((1 << 15..1 << 16).contains(&some), "{some}");
    assert_eq!(one(contract(1 << 13, [1 << 7, 1 << 8, 1 << 8, 1 << 7])), Ok((1 << 43) + 1));
    const { assert!(MAX_WORK == 1 << 44) };
    assert_eq!(one(contract(1 << 14, [1 << 7, 1 << 8, 1 << 8, 1 << 7])), Err(PlanError::TooMuchWork));
}

#[test]
fn rounds_count_each() {
    let fill = || Block::Step(Fill { out: arena(0), words: 1 << 13, value: 7 }.into());
    let one_round = plan(&[fill()]).unwrap();
    assert_eq!(plan(&[repeat(1000, vec![fill()])]), Ok((one_round + 1) * 1000));
    let much = |rounds| plan(&[repeat(rounds, vec![Block::Step(contract(1 << 10, [1, 1, 1 << 10, 1 << 10]).into())])]);
    assert!(much(1 << 13).is_ok());
    assert_eq!(much(1 << 14), Err(PlanError::TooMuchWork));
    let branch = |then, otherwise| Block::Branch { condition: arena(0), then, otherwise };
    let dearer = plan(&[branch(vec![fill(), fill()], vec![fill()])]).unwrap();
    assert_eq!(dearer, plan(&[branch(vec![fill()], vec![fill(), fill()])]).unwrap());
    assert_eq!(dearer, 2 * one_round + 1);
}

#[test]
fn lists_add_up() {
    let step = || Block::Step(contract(1 << 12, [1, 1, 1 << 15, 1 << 15]).into());
    assert!(plan(&[step(), step(), step()]).is_ok());
    assert_eq!(plan(&[step(), step(), step(), step()]), Err(PlanError::TooMuchWork));
}

/// A guest counts in 32 bits: 2³¹ rows would be none there, and 2³² joined elements would be none.
#[test]
fn extents_that_memory_does_not_bound_fit_a_guest() {
    let geometry = |step: Result<u64, PlanError>| assert_eq!(step, Err(PlanError::Geometry { step: 0 }));
    assert!(one(copy([1, i32::MAX as u32])).is_ok());
    geometry(one(copy([1, 1 << 31])));
    geometry(one(copy([1 << 16, 1 << 16])));
    assert!(one(contract(1, [1, 1, 1 << 15, 1 << 15])).is_ok());
    geometry(one(contract(1, [1, 1, 1 << 16, 1 << 16])));
    geometry(one(contract(1, [1, 1, 1, 1 << 31])));
    assert!(one(gemm(1, 1, i32::MAX as u32)).is_ok());
    for wide in [gemm(1, 1, 1 << 31), gemm(1, 1 << 31, 1), gemm(1 << 31, 1, 1)] {
        geometry(one(wide));
    }
}

#[test]
fn long_programs_are_more_work() {
    let operands = List::new(&[Operand { at: arena(0), ..Operand::default() }]).unwrap();
    let work = |length: usize| {
        let mut builder = PlanBuilder::new();
        let program = builder.program(1, 2, &vec![EltInstr { op: EltOp::Neg, dst: 1, ..EltInstr::default() }; length]);
        let elt = Elt { program, dims: [1, 1, 1, 1, 1, 100], out: arena(64), operands, ..Elt::default() };
        builder.entry("main", vec![], vec![], &[elt.into()]);
        let bytes = builder.finish(ARENA, 0, 0).unwrap();
        let plan = Plan::parse(&bytes).unwrap();
        plan.entries().map(|entry| plan.work(&entry)).sum::<u64>()
    };
    assert_eq!(work(1), 201);
    assert_eq!(work(60), 6101);
}

#[test]
fn every_kind_of_step_is_some_work() {
    let bytes = everything();
    let plan = Plan::parse(&bytes).unwrap();
    for entry in plan.entries() {
        assert!(plan.work(&entry) as usize >= entry.items().count());
    }
    assert!(steps().len() >= 24);
    assert!(At::weights(0).is_some());
}
