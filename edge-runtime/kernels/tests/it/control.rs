//! Repeats and branches, natively and in the guest.

use ballast_plan::control::{Block, MAX_NESTING, Slide};
use ballast_plan::record::List;
use ballast_plan::step::{Elt, Operand};
use ballast_plan::{At, DType, EltInstr, EltOp};

use crate::bench::{Bench, bytes};

/// `out = left + right`, one float each.
fn add(bench: &mut Bench, left: At, right: At, out: At) -> Block {
    let code = [EltInstr { op: EltOp::Add, dst: 2, src: [0, 1, 0], imm: 0.0 }];
    let program = bench.builder.program(2, 3, &code);
    let operand = |at| Operand { at, dtype: DType::F32, strides: [0, 0, 0, 0, 0, 1] };
    let operands = List::new(&[operand(left), operand(right)]).unwrap();
    Block::Step(Elt { program, dims: [1; 6], out, dtype: DType::F32, operands }.into())
}

fn slide(from: At, from_step: i32, to: At, to_step: i32) -> Slide {
    Slide { from, from_step, to, to_step, bytes: 4 }
}

fn expect(bench: Bench, blocks: &[Block], out: At, want: &[f32]) {
    for (level, got) in bench.run_all(blocks, out, want.len() * 4) {
        assert_eq!(got, bytes(want), "{level}");
    }
}

/// Running sums of rows that are read from the end and written from the front.
fn sums(gate: Option<u8>) -> (Bench, Vec<Block>, At) {
    let mut bench = Bench::default();
    let rows = bench.arena(&[1.0, 2.0, 4.0, 8.0]);
    let [row, sum, next, all] = [(); 4].map(|()| bench.arena(&[0.0; 4]));
    let gate = gate.map(|byte| bench.arena_bytes(&[byte]));
    let body = vec![add(&mut bench, sum, row, next)];
    let last = At::arena(rows.offset() + 12).unwrap();
    let before = vec![slide(last, -4, row, 0)];
    let after = vec![slide(next, 0, all, 4), slide(next, 0, sum, 0)];
    (bench, vec![Block::Repeat { count: 4, gate, before, after, body }], all)
}

#[test]
fn a_repeat_walks_rows_and_carries() {
    let (bench, blocks, all) = sums(None);
    expect(bench, &blocks, all, &[8.0, 12.0, 14.0, 15.0]);
}

#[test]
fn a_gate_that_is_closed_ends_a_repeat() {
    let (bench, blocks, all) = sums(Some(1));
    expect(bench, &blocks, all, &[8.0, 12.0, 14.0, 15.0]);
    let (bench, blocks, all) = sums(Some(0));
    expect(bench, &blocks, all, &[0.0; 4]);
}

#[test]
fn a_gate_is_read_before_each_round() {
    let mut bench = Bench::default();
    let gates = bench.arena_bytes(&[1, 1, 0, 1]);
    let gate = bench.arena_bytes(&[1]);
    let [sum, one] = [bench.arena(&[0.0]), bench.arena(&[1.0])];
    let body = vec![add(&mut bench, sum, one, sum)];
    let after = vec![Slide { bytes: 1, ..slide(gates, 1, gate, 0) }];
    let blocks = [Block::Repeat { count: 4, gate: Some(gate), before: vec![], after, body }];
    expect(bench, &blocks, sum, &[3.0]);
}

#[test]
fn a_branch_takes_one_side() {
    for (condition, want) in [(0, 20.0), (1, 10.0), (255, 10.0)] {
        let mut bench = Bench::default();
        let condition = bench.arena_bytes(&[condition]);
        let [x, y, zero, out] = [10.0, 20.0, 0.0, 0.0].map(|v| bench.arena(&[v]));
        let then = vec![add(&mut bench, x, zero, out)];
        let otherwise = vec![add(&mut bench, y, zero, out)];
        expect(bench, &[Block::Branch { condition, then, otherwise }], out, &[want]);
    }
}

/// As deep as a plan may be; the guest's stack has room for it.
#[test]
fn the_deepest_nesting_runs() {
    let mut bench = Bench::default();
    let [sum, one] = [bench.arena(&[0.0]), bench.arena(&[1.0])];
    let mut block = add(&mut bench, sum, one, sum);
    for _ in 0..MAX_NESTING {
        block = Block::Repeat { count: 2, gate: None, before: vec![], after: vec![], body: vec![block] };
    }
    expect(bench, &[block], sum, &[256.0]);
}
