//! Lists of steps, with what repeats them and chooses among them.

use ballast_plan::control::{Item, Items, Slide};
use ballast_plan::{Plan, Step};

use crate::{Level, Memory, run_step};

/// Carries out a list. It calls itself for nested lists: how deep, a plan that was parsed bounds.
///
/// # Safety
/// `items` are of `plan`, which [`Plan::parse`] accepted, and `memory` has the sizes that the plan asks for.
pub unsafe fn run(level: Level, plan: &Plan<'_>, items: Items<'_>, memory: &Memory) {
    for item in items {
        match item {
            Item::Step(step) => one(level, plan, &step, memory),
            Item::Repeat(repeat) => {
                for round in 0..repeat.count {
                    if repeat.gate.is_some_and(|gate| *memory.read(gate) == 0) {
                        break;
                    }
                    repeat.before().for_each(|s| slide(&s, round, memory));
                    run(level, plan, repeat.body(), memory);
                    repeat.after().for_each(|s| slide(&s, round, memory));
                }
            }
            Item::Branch(branch) => {
                let then = *memory.read(branch.condition) != 0;
                run(level, plan, if then { branch.then() } else { branch.otherwise() }, memory);
            }
        }
    }
}

/// Kernels keep strips on the stack; inlined, each level of nesting would have room for them.
#[inline(never)]
unsafe fn one(level: Level, plan: &Plan<'_>, step: &Step, memory: &Memory) {
    run_step(level, plan, step, memory);
}

unsafe fn slide(s: &Slide, round: u32, memory: &Memory) {
    let on = |step: i32| round as isize * step as isize;
    let from = memory.read(s.from).wrapping_offset(on(s.from_step));
    let to = memory.write(s.to).wrapping_offset(on(s.to_step));
    core::ptr::copy(from, to, s.bytes as usize);
}
