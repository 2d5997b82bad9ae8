//! Wasmtime with Cranelift: precompiles runner and modules.

mod runner;

pub use runner::{RUNNER_WASM, RUNNER_WASM_MULADD};
