//! The engine, its clock, and the only place where native code enters the process.

use std::fs::File;
use std::sync::Arc;

use wasmtime::Config;

use crate::error::text;
use crate::ticker::{Armed, Clock, TICK, Ticker};
use crate::{EngineProfile, SandboxError};

/// Wasmtime configured by a profile, with the clock of its deadlines. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    wasm: wasmtime::Engine,
    ticker: Ticker,
    profile: EngineProfile,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("profile", &self.shared.profile).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine for code of `profile`; fails when this machine is of another architecture. Epochs tick from now on.
    pub fn new(profile: &EngineProfile) -> Result<Self, SandboxError> {
        Self::with(profile, Ticker::start)
    }

    /// An engine whose epochs and clock only [`tick`](Self::tick) moves, so that tests can step them.
    pub fn with_clock_by_hand(profile: &EngineProfile) -> Result<Self, SandboxError> {
        Self::with(profile, |_| Ok(Ticker::by_hand()))
    }

    fn with(
        profile: &EngineProfile,
        ticker: impl FnOnce(&wasmtime::Engine) -> Result<Ticker, SandboxError>,
    ) -> Result<Self, SandboxError> {
        let mut config = Config::new();
        profile.configure(&mut config)?;
        if profile.is_pulley() {
            let bits = if profile.is_32_bit() { 32 } else { 64 };
            if bits != usize::BITS {
                return Err(SandboxError::Incompatible(format!(
                    "the profile is for an interpreter of {bits} bits, and this machine has {}",
                    usize::BITS
                )));
            }
            config.target(&profile.triple).map_err(|e| SandboxError::Engine(text(&e)))?;
        } else if profile.arch() != std::env::consts::ARCH {
            return Err(SandboxError::Incompatible(format!(
                "the profile is for {}, and this machine is {}",
                profile.arch(),
                std::env::consts::ARCH
            )));
        }
        let wasm = wasmtime::Engine::new(&config).map_err(|e| SandboxError::Engine(text(&e)))?;
        let ticker = ticker(&wasm)?;
        Ok(Self { shared: Arc::new(Shared { wasm, ticker, profile: profile.clone() }) })
    }

    /// The profile it was made with.
    pub fn profile(&self) -> &EngineProfile {
        &self.shared.profile
    }

    /// Raises the epoch by one, so that every guest that runs looks at the clock. The engine's own thread does this every 5 ms.
    /// A clock that is moved by hand goes on by as much.
    pub fn tick(&self) {
        self.shared.ticker.clock().advance(TICK);
        self.shared.wasm.increment_epoch();
    }

    /// Maps precompiled code from a file. No path is looked up here: what was verified is what is mapped.
    ///
    /// # Safety
    /// The bytes become native code of this process. The caller has verified those of this very open file against a signed
    /// runner statement, and nobody writes the file as long as the module lives (the store writes blobs once, under a
    /// temporary name, and opens them read-only).
    #[allow(unsafe_code)]
    pub unsafe fn load(&self, file: &File) -> Result<Module, SandboxError> {
        let file = file.try_clone().map_err(|e| SandboxError::Incompatible(format!("cannot use the file: {e}")))?;
        // SAFETY: deserialising trusts the bytes to be Wasmtime's own output and the file not to change while mapped. Both
        // are the caller's promise. Version, target, features and tunables are compared by Wasmtime.
        let wasm = unsafe { wasmtime::Module::deserialize_open_file(&self.shared.wasm, file) };
        self.check(wasm)
    }

    /// Loads precompiled code from memory. Whoever has just compiled it uses `ballast_aot::load`, which is safe.
    ///
    /// # Safety
    /// The bytes become native code of this process: they come from Wasmtime's own compiler, by a way that nobody else could
    /// change them on.
    #[allow(unsafe_code)]
    pub unsafe fn load_bytes(&self, bytes: &[u8]) -> Result<Module, SandboxError> {
        // SAFETY: the caller's promise.
        let wasm = unsafe { wasmtime::Module::deserialize(&self.shared.wasm, bytes) };
        self.check(wasm)
    }

    fn check(&self, wasm: wasmtime::Result<wasmtime::Module>) -> Result<Module, SandboxError> {
        let wasm = wasm.map_err(|e| SandboxError::Incompatible(text(&e)))?;
        crate::abi::check(&wasm)?;
        Ok(Module { wasm, engine: self.clone() })
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.shared.wasm
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.shared.ticker.clock()
    }

    pub(crate) fn arm(&self) -> Armed<'_> {
        self.shared.ticker.arm()
    }
}

/// Code that has the shape of the runner ABI. What it does when called is another matter.
#[derive(Clone)]
pub struct Module {
    pub(crate) wasm: wasmtime::Module,
    pub(crate) engine: Engine,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").finish_non_exhaustive()
    }
}
