//! Where a bench's plan runs: in the sandbox, with the code of every profile of this machine and in the interpreter.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ballast_aot::runner_for;
use ballast_bundle::{DataType, Limits, TensorSpec};
use ballast_sandbox::{Engine, EngineProfile, Module, Program, ProgramSpec, Weights};

/// Only what hangs misses it: the interpreter takes its time.
const DEADLINE: Duration = Duration::from_secs(300);

/// Baseline, everything that x86-64-v3 has where this machine has it, and the interpreter.
fn engines() -> &'static [(String, Engine, Module)] {
    static ENGINES: OnceLock<Vec<(String, Engine, Module)>> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let mut profiles =
            vec![("baseline", EngineProfile::host()), ("pulley", EngineProfile::new("pulley64", [""; 0]))];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            let v3 = ["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi1", "bmi2", "avx", "avx2", "fma"];
            profiles.push(("v3", EngineProfile::new("x86_64-unknown-linux-musl", v3)));
        }
        let ready = |(name, profile): (&str, EngineProfile)| {
            let engine = Engine::new(&profile).expect("an engine");
            let module = ballast_aot::load(&engine, runner_for(&profile)).expect("the runner compiles");
            (name.to_owned(), engine, module)
        };
        profiles.into_iter().map(ready).collect()
    })
}

/// What lies at `out` of the arena afterwards, for each engine by its name. Twice on each: a run leaves nothing behind that
/// changes the next.
pub fn run(plan: &[u8], arena: &[u8], weights: &[u8], out: Range<usize>) -> Vec<(String, Vec<u8>)> {
    let tensor = |name: &str, bytes: usize| TensorSpec {
        name: name.into(),
        datatype: DataType::Uint8,
        shape: vec![bytes as u64],
    };
    let spec = ProgramSpec {
        plan: Arc::from(plan),
        weights: Weights::Bytes(Arc::from(weights)),
        inputs: vec![tensor("arena", arena.len())],
        outputs: vec![tensor("out", out.len())],
        limits: Limits { memory_bytes: 64 << 20, deadline_millis: 1000, instances: 1, max_queue: 1 },
        finite_outputs: false,
    };
    let on = |(name, engine, module): &(String, Engine, Module)| {
        let program = Program::new(engine, module, spec.clone()).expect("the plan is sound");
        let mut instance = program.instantiate().expect("and loads");
        let [first, second] = [(); 2].map(|()| instance.infer(&[arena], DEADLINE).expect("and runs").outputs);
        assert_eq!(first, second, "{name}");
        (name.clone(), first.into_iter().next().expect("one output"))
    };
    engines().iter().map(on).collect()
}
