//! Compiles the runner for this host and times its micro-benchmark: `cargo run -p ballast-aot --example speed [FILE [FEATURES]]`.
//! FILE takes the native code, for `objdump -d`.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a tool for whoever works on kernels

use ballast_sandbox::{Engine, EngineProfile, measure_speed};

fn main() {
    // x86-64-v3 or plain AArch64; a CPU without the former is not one to measure on.
    let v3 = "avx avx2 bmi1 bmi2 fma lzcnt popcnt sse3 sse4.1 sse4.2 ssse3";
    let named = std::env::args().nth(2).unwrap_or_else(|| v3.into());
    let features = named.split_whitespace().filter(|_| cfg!(target_arch = "x86_64"));
    let profile = EngineProfile::new(&EngineProfile::host().triple, features);
    let code = ballast_aot::precompile(ballast_aot::runner_for(&profile), &profile).unwrap();
    if let Some(file) = std::env::args().nth(1) {
        std::fs::write(file, &code).unwrap();
    }
    let engine = Engine::new(&profile).unwrap();
    let runner = ballast_aot::load(&engine, ballast_aot::runner_for(&profile)).unwrap();
    let speed = measure_speed(&engine, &runner).unwrap();
    println!(
        "{} bytes of Wasm, {} of code; {:.1} GFLOP/s, {:.1} GB/s",
        ballast_aot::RUNNER_WASM.len(),
        code.len(),
        speed.gflops,
        speed.memory_bandwidth
    );
}
