//! The engine profile: every Wasmtime tunable that precompiled code depends on, in one place.
//!
//! The compiler's side (`ballast-aot`) and the gateway's side both configure Wasmtime from here, so that code compiled by
//! one is what the other expects; the hash names the combination and stands in every runner statement.

use ballast_bundle::Digest;
use wasmtime::{Config, ModuleVersionStrategy};

/// Full version of the engine. Wasmtime tells only major versions apart by itself (bytecodealliance/wasmtime#11687), so
/// this text is built into every precompiled module and compared when it is loaded.
pub const ENGINE_VERSION: &str = "wasmtime 48.0.8";

/// Grows when the meaning of a profile changes without its tunables changing.
const PROFILE_VERSION: u32 = 1;

/// 4 GiB of address space for every memory: a 32-bit address can never leave it, so that no access is checked twice.
const RESERVATION_64: u64 = 1 << 32;
/// Static offsets up to this much need no check either.
const GUARD_64: u64 = 32 << 20;
/// A 32-bit host has no address space to give away; the runner's largest memory there.
const RESERVATION_32: u64 = 256 << 20;
/// Stack of a guest, bytes. The runner is not recursive; a guest that is gets a trap, not the host's stack.
pub(crate) const MAX_WASM_STACK: usize = 512 << 10;

/// What precompiled code was generated for: a triple, the CPU features it may use, and (by version) every tunable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EngineProfile {
    /// Rust triple, or `pulley64` / `pulley32` for CPUs without a Cranelift back end.
    pub triple: String,
    /// CPU features by Rust's names, sorted.
    pub cpu_features: Vec<String>,
}

impl EngineProfile {
    /// A profile; `cpu_features` in any order.
    pub fn new(triple: &str, cpu_features: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut cpu_features: Vec<String> = cpu_features.into_iter().map(Into::into).collect();
        cpu_features.sort();
        cpu_features.dedup();
        Self { triple: triple.to_owned(), cpu_features }
    }

    /// The profile of this very machine without optional CPU features: any runner for its architecture loads in it, since
    /// features are checked against the CPU itself when code is loaded.
    pub fn host() -> Self {
        Self::new(&format!("{}-unknown-linux-musl", std::env::consts::ARCH), [""; 0])
    }

    /// `wasmtime 48.0.8`.
    pub const fn engine_version() -> &'static str {
        ENGINE_VERSION
    }

    /// Names the profile: covers every tunable, the triple, the features and the engine's version.
    pub fn hash(&self) -> Digest {
        Digest::of(self.canonical().as_bytes())
    }

    /// Whether the code is bytecode for Wasmtime's interpreter.
    pub fn is_pulley(&self) -> bool {
        self.triple.starts_with("pulley")
    }

    /// Architecture part of the triple.
    pub fn arch(&self) -> &str {
        self.triple.split('-').next().unwrap_or_default()
    }

    pub(crate) fn is_32_bit(&self) -> bool {
        self.arch() == "pulley32"
    }

    fn reservation(&self) -> u64 {
        if self.is_32_bit() { RESERVATION_32 } else { RESERVATION_64 }
    }

    fn guard(&self) -> u64 {
        // The interpreter checks every address itself.
        if self.is_pulley() { 0 } else { GUARD_64 }
    }

    fn canonical(&self) -> String {
        let mut features = self.cpu_features.clone();
        features.sort();
        features.dedup();
        format!(
            "ballast-engine-profile {PROFILE_VERSION}\nengine {ENGINE_VERSION}\ntriple {}\nfeatures {}\nreservation {}\nguard {}\n\
             guard-before 1\ngrowth 0\nmay-move 0\nsignals {}\nepochs 1\nfuel 0\nstack {MAX_WASM_STACK}\nsimd 1\n\
             relaxed-simd 1 deterministic 0\nbulk-memory 1\nmulti-value 1\ntail-call 0\nmulti-memory 0\nmemory64 0\n\
             extended-const 0\nwide-arithmetic 0\ncustom-pages 0\nthreads 0\nshared-memory 0\ngc 0\nstack-switching 0\n\
             cow 1\nlazy-tables 1\naddress-map 0\nnan-canonicalization 0\nopt speed\n",
            self.triple,
            features.join(","),
            self.reservation(),
            self.guard(),
            u8::from(!self.is_pulley()),
        )
    }

    /// Sets every tunable. What only a compiler has (target, CPU flags, optimisation level) is `ballast-aot`'s.
    pub fn configure(&self, config: &mut Config) -> Result<(), crate::SandboxError> {
        config
            // Memory: created once at its final place. Growth happens in place, once, by the host.
            .memory_reservation(self.reservation())
            .memory_guard_size(self.guard())
            .guard_before_linear_memory(true)
            .memory_reservation_for_growth(0)
            .memory_may_move(false)
            .memory_init_cow(true)
            .table_lazy_init(true)
            .signals_based_traps(!self.is_pulley())
            // Time: epochs bound every guest; fuel would cost more and says nothing about time.
            .epoch_interruption(true)
            .consume_fuel(false)
            .max_wasm_stack(MAX_WASM_STACK)
            // Wasm: what Rust's wasm32 back end writes, and SIMD.
            .wasm_simd(true)
            .wasm_relaxed_simd(true)
            // Not deterministic: a fused multiply-add where the CPU has one is the point. Answers differ from CPU to CPU
            // by a rounding, which is why golden vectors are compared within a tolerance.
            .relaxed_simd_deterministic(false)
            .wasm_bulk_memory(true)
            .wasm_multi_value(true)
            .wasm_tail_call(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_extended_const(false)
            .wasm_wide_arithmetic(false)
            .wasm_custom_page_sizes(false)
            .wasm_stack_switching(false)
            .shared_memory(false)
            .gc_support(false)
            // Nobody debugs on a gateway; both are only size.
            .debug_info(false)
            .generate_address_map(false)
            .module_version(ModuleVersionStrategy::Custom(format!("{ENGINE_VERSION} ballast {PROFILE_VERSION}")))
            .map_err(|e| crate::SandboxError::Engine(crate::error::text(&e)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_features_does_not_matter_and_their_presence_does() {
        let ab = EngineProfile {
            triple: "x86_64-unknown-linux-musl".into(),
            cpu_features: vec!["avx".into(), "fma".into()],
        };
        let ba = EngineProfile { triple: ab.triple.clone(), cpu_features: vec!["fma".into(), "avx".into()] };
        assert_eq!(ab.hash(), ba.hash());
        assert_ne!(ab.hash(), EngineProfile::new(&ab.triple, ["avx"]).hash());
        assert_ne!(ab.hash(), EngineProfile::new("aarch64-unknown-linux-musl", ["avx", "fma"]).hash());
    }

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
        let after = lock.split("name = \"wasmtime\"\nversion = \"").nth(1).unwrap();
        assert_eq!(ENGINE_VERSION, format!("wasmtime {}", after.split('"').next().unwrap()));
    }
}
