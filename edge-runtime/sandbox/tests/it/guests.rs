//! A small guest that copies four floats from input to output, with parts that tests replace by something hostile.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ballast_bundle::{DataType, Limits, TensorSpec};
use ballast_sandbox::{Engine, EngineProfile, Module, Program, ProgramSpec, SandboxError, Weights};

/// The parts.
pub struct Guest {
    pub memory: &'static str,
    pub abi: u32,
    pub load: &'static str,
    pub input: &'static str,
    pub output: &'static str,
    /// Runs before the copy; the first input float is in `$x`.
    pub infer: &'static str,
    pub error: &'static str,
    pub extra: &'static str,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            memory: r#"(memory (export "memory") 1)"#,
            abi: 1 << 16,
            load: "i32.const 0",
            input: "(global.get $arena)",
            output: "(i32.add (global.get $arena) (i32.const 16))",
            infer: "",
            error: "i64.const 0",
            extra: "",
        }
    }
}

impl Guest {
    pub fn wat(&self) -> String {
        format!(
            r#"(module
              {memory}
              (global (export "__heap_base") i32 (i32.const 65536))
              (global $arena (mut i32) (i32.const 0))
              (data (i32.const 16) "the guest's own words")
              (func (export "ballast_abi") (result i32) i32.const {abi})
              (func (export "ballast_load") (param i32 i32 i32 i32 i32 i32) (result i32)
                (global.set $arena (local.get 4))
                {load})
              (func (export "ballast_input") (param i32 i32) (result i32) {input})
              (func (export "ballast_output") (param i32 i32) (result i32) {output})
              (func (export "ballast_infer") (param i32) (result i32) (local $x f32) (local $n i32)
                (local.set $x (f32.load (global.get $arena)))
                {infer}
                (v128.store offset=16 (global.get $arena) (v128.load (global.get $arena)))
                i32.const 0)
              (func (export "ballast_error") (result i64) {error})
              {extra})"#,
            memory = self.memory,
            abi = self.abi,
            load = self.load,
            input = self.input,
            output = self.output,
            infer = self.infer,
            error = self.error,
            extra = self.extra,
        )
    }

    pub fn module(&self, engine: &Engine) -> Result<Module, SandboxError> {
        load(engine, &self.wat())
    }

    pub fn program(&self, engine: &Engine) -> Result<Program, SandboxError> {
        Program::with_arena(engine, &self.module(engine)?, spec(), 4096)
    }
}

pub fn load(engine: &Engine, wat: &str) -> Result<Module, SandboxError> {
    let wasm = wat::parse_str(wat).unwrap();
    load_bytes(engine, &ballast_aot::precompile(&wasm, engine.profile()).unwrap())
}

/// Code that was made in this test, whole or damaged in ways that Wasmtime notices.
#[allow(unsafe_code)]
pub fn load_bytes(engine: &Engine, code: &[u8]) -> Result<Module, SandboxError> {
    // SAFETY: see above.
    unsafe { engine.load_bytes(code) }
}

pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(&EngineProfile::host()).unwrap())
}

/// 1 MiB, two requests may wait.
pub fn limits() -> Limits {
    Limits { memory_bytes: 1 << 20, deadline_millis: 1000, instances: 1, max_queue: 2 }
}

pub fn spec() -> ProgramSpec {
    let tensor = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![1, 4] };
    ProgramSpec {
        plan: Arc::from(&b"a plan"[..]),
        weights: Weights::Bytes(Arc::from(&[1u8, 2, 3][..])),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        limits: limits(),
        finite_outputs: true,
    }
}

pub fn floats(x: [f32; 4]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Generous: for calls that end by themselves.
pub const SECOND: Duration = Duration::from_secs(1);

/// Moves a clock by hand for as long as `work` takes: whatever its deadline is, it passes without waiting for it.
pub fn with_time_flying<T>(engine: &Engine, work: impl FnOnce() -> T) -> T {
    use std::sync::atomic::{AtomicBool, Ordering};
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                engine.tick();
            }
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}
