//! Wasmtime with Cranelift: precompiles the runner and users' modules for an engine profile. Runs in the cloud only.

mod flags;
mod runner;

use ballast_sandbox::{Engine, EngineProfile, Module, SandboxError};
pub use runner::{RUNNER_WASM, RUNNER_WASM_MULADD};

/// A module could not be compiled, or not be used here once it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// See [`AotError`].
    #[error(transparent)]
    Compile(#[from] AotError),
    /// See [`SandboxError`].
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// A module could not be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AotError {
    /// No code can be made for this target.
    #[error("no code can be made for {triple}: {message}")]
    Target {
        /// As the profile says it.
        triple: String,
        /// What is missing.
        message: String,
    },
    /// A CPU feature that Ballast does not know for the target's architecture.
    #[error(
        "{arch} has no CPU feature {feature} that code could use; take it out of spec.cpuFeatures or write Rust's name"
    )]
    Feature {
        /// Architecture.
        arch: String,
        /// The unknown name.
        feature: String,
    },
    /// Wasmtime refused the module.
    #[error("the module cannot be compiled: {0}")]
    Module(String),
}

/// The runner's Wasm for a profile: where what makes the one with relaxed SIMD fast is a call, the flavour without it. That is a
/// fused multiply-add in the interpreter, and a shuffle on x86-64 without `pshufb`, which came with SSSE3: there the product
/// runs at 1.4 instead of 21 GFLOP/s.
pub fn runner_for(profile: &EngineProfile) -> &'static [u8] {
    let shuffles = profile.arch() != "x86_64" || profile.cpu_features.iter().any(|f| f == "ssse3");
    if profile.is_pulley() || !shuffles { RUNNER_WASM_MULADD } else { RUNNER_WASM }
}

/// Compiles a Wasm module to code for `profile`: the bytes that [`Engine::load`] maps. The same module and
/// profile give the same bytes on any host.
pub fn precompile(wasm: &[u8], profile: &EngineProfile) -> Result<Vec<u8>, AotError> {
    let target = |message: String| AotError::Target { triple: profile.triple.clone(), message };
    let mut config = wasmtime::Config::new();
    profile.configure(&mut config).map_err(|e| target(e.to_string()))?;
    // Always, also for the host's own triple: else the build host's CPU leaks into the code.
    config.target(&profile.triple).map_err(|e| target(e.to_string()))?;
    config.cranelift_opt_level(wasmtime::OptLevel::Speed);
    config.cranelift_nan_canonicalization(false);
    flags::enable(&mut config, profile)?;
    let engine = wasmtime::Engine::new(&config).map_err(|e| target(format!("{e:#}")))?;
    engine.precompile_module(wasm).map_err(|e| AotError::Module(format!("{e:#}")))
}

/// Compiles a Wasm module for an engine of this very process and loads it: for whoever tries a plan out, in the cloud or at a
/// desk. A gateway maps what was compiled and signed elsewhere.
#[allow(unsafe_code)]
pub fn load(engine: &Engine, wasm: &[u8]) -> Result<Module, LoadError> {
    let code = precompile(wasm, engine.profile())?;
    // SAFETY: Cranelift has just made these bytes, and nobody else has seen them.
    Ok(unsafe { engine.load_bytes(&code) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_gets_the_runner_that_is_fast_on_it() {
        let flavour = |triple: &str, features: &[&str]| {
            runner_for(&EngineProfile::new(triple, features.iter().copied())) == RUNNER_WASM
        };
        assert!(flavour("x86_64-unknown-linux-musl", &["sse3", "ssse3"]));
        assert!(flavour("aarch64-unknown-linux-musl", &["neon"]));
        assert!(!flavour("x86_64-unknown-linux-musl", &["sse3"]), "a shuffle would be a call");
        assert!(!flavour("pulley64", &[]), "a fused multiply-add would be a call");
    }
}
