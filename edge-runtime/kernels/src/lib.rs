//! The maths of plans, written once over a small SIMD abstraction: 128-bit WebAssembly in the guest, AVX2 or scalar
//! natively. What is tested natively is the source that the guest runs.
//!
//! Every kernel takes a step of a [`Plan`] that was parsed, and so checked, and the [`Memory`] that it
//! was checked for. They are `unsafe` because that is their whole safety: they check nothing again.
#![cfg_attr(target_arch = "wasm32", no_std)]
// This is one of the rooms where native code may be unsafe: the steps' bounds are proven when a plan is parsed, and
// buffers may overlap in ways (in-place steps) that references cannot express. Hence raw pointers, all the way.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]
// A kernel is reached by its step's numbers; the contract is the same for all and stands above.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

pub mod bounded;
pub mod contract;
pub mod control;
pub mod copy;
pub mod depthwise;
mod domain;
mod double;
pub mod elt;
mod half;
mod math;
pub mod memory;
pub mod order;
pub mod pick;
pub mod planes;
pub mod pool;
pub mod product;
pub mod quantized;
pub mod reduce;
pub mod simd;
pub mod wide;

pub use control::run;
pub use memory::Memory;
pub use simd::Level;

use ballast_plan::{Plan, Step};

/// Carries out one step of `plan`.
///
/// # Safety
/// `step` is a step of `plan`, which [`Plan::parse`] accepted, and `memory` has the sizes that the plan asks for.
pub unsafe fn run_step(level: Level, plan: &Plan<'_>, step: &Step, memory: &Memory) {
    match step {
        Step::Fill(s) => copy::fill(s, memory),
        Step::Copy(s) => copy::copy(s, memory),
        Step::Gather(s) => copy::gather(s, memory),
        Step::Elt(s) => elt::elt(level, plan, s, memory),
        Step::Wide(s) => wide::wide(plan, s, memory),
        Step::Contract(s) => contract::contract(s, memory),
        Step::Scan(s) => contract::scan(s, memory),
        Step::Top(s) => order::top(s, memory),
        Step::Pick(s) => pick::pick(s, memory),
        Step::Put(s) => pick::put(s, memory),
        Step::Gemm(s) => product::gemm(level, plan, s, memory),
        Step::Conv(s) => product::conv(level, plan, s, memory),
        Step::Depthwise(s) => depthwise::depthwise(level, plan, s, memory),
        Step::Pool(s) => pool::pool(level, s, memory),
        Step::Reduce(s) => reduce::reduce(level, s, memory),
        Step::Softmax(s) => reduce::softmax(level, s, memory),
        Step::IntGemm(s) => quantized::int_gemm(level, s, memory),
        Step::IntConv(s) => quantized::int_conv(level, s, memory),
        Step::IntDepthwise(s) => quantized::int_depthwise(level, s, memory),
        Step::Lookup(s) => quantized::lookup(s, memory),
        Step::NonZero(s) => bounded::non_zero(s, memory),
        Step::Suppress(s) => bounded::suppress(s, memory),
        Step::Unique(s) => bounded::unique(s, memory),
    }
}
