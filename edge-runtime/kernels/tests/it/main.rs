//! Kernels against naive ones: every layout, edge and level, through a plan that was parsed. The sandbox's tests
//! include the same files over again and run them in the guest.
#![allow(unsafe_code, missing_docs)] // the kernels' interface is unsafe; nobody reads a test binary's docs

mod accepted;
mod bench;
mod control;
mod elementwise;
#[path = "../../../plan/tests/it/every_kind.rs"]
mod every_kind;
mod generic;
mod levels;
mod naive;
mod products;
mod quantized;
#[path = "../../../plan/tests/it/touch.rs"]
mod touch;
mod wide;
mod windows;
