//! The runner as the build script made it.

/// The guest that runs every plan: simd128 and relaxed SIMD. `edge-runtime/runner/ABI.md` says how to talk to it.
pub const RUNNER_WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runner.wasm"));

/// The same without relaxed SIMD, for profiles where its multiply-add (Pulley) or its shuffles (x86-64 before SSSE3) are calls.
pub const RUNNER_WASM_MULADD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runner-muladd.wasm"));
