//! The Wasm guest that executes plans: one module for every model. `ABI.md` says how a host talks to it.
//!
//! On the host this crate is the same interpreter as a plain function, for tests.
#![cfg_attr(target_arch = "wasm32", no_std)]
// The guest hands raw places of its own memory to the kernels; the sandbox bounds what that can do.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

#[cfg(target_arch = "wasm32")]
mod guest;
pub mod measure;

use ballast_kernels::{Level, Memory};
use ballast_plan::Plan;

/// The ABI that the guest speaks: major in the upper, minor in the lower 16 bits.
pub const ABI: u32 = 1 << 16;

/// Carries out every step of an entry; `None` when there is no such entry.
///
/// # Safety
/// `plan` was accepted by [`Plan::parse`]; `memory` has the sizes that it asks for.
pub unsafe fn infer(level: Level, plan: &Plan<'_>, entry: usize, memory: &Memory) -> Option<()> {
    ballast_kernels::run(level, plan, plan.entries().nth(entry)?.items(), memory);
    Some(())
}
