//! The runner that is built with the workspace, in the sandbox, with a plan.

use std::sync::{Arc, OnceLock};

use ballast_aot::{RUNNER_WASM, RUNNER_WASM_MULADD, precompile, runner_for};
use ballast_bundle::{DataType, Limits, TensorSpec};
use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::step::{BiasOf, Epilogue, Gemm, Layout, Matrix};
use ballast_plan::{At, DType};
use ballast_sandbox::{
    Engine, EngineProfile, Fault, Module, Program, ProgramSpec, RUNNER_RESERVE, SandboxError, Weights, measure_speed,
};

use crate::guests::{SECOND, engine};

fn runner() -> &'static Module {
    static RUNNER: OnceLock<Module> = OnceLock::new();
    RUNNER.get_or_init(|| ballast_aot::load(engine(), RUNNER_WASM).unwrap())
}

/// `y[2][2] = x[2][3] · W[3][2] + b[2]`: the plan, its weights, and a specification of it.
fn affine() -> ProgramSpec {
    let weights: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0, 20.0].iter().flat_map(|w| w.to_le_bytes()).collect();
    let mut gemm = Gemm {
        batch: 1,
        m: 2,
        n: 2,
        k: 3,
        left: Matrix { at: At::arena(0).unwrap(), layout: Layout::Strided, row: 3, col: 1, batch: 0 },
        right: Matrix { at: At::weights(0).unwrap(), layout: Layout::Strided, row: 2, col: 1, batch: 0 },
        out: At::arena(64).unwrap(),
        out_row: 2,
        out_batch: 4,
        epilogue: Epilogue {
            bias_of: BiasOf::Column,
            bias: At::weights(24).unwrap(),
            low: f32::NEG_INFINITY,
            high: f32::INFINITY,
            ..Epilogue::default()
        },
        scratch: At::arena(128).unwrap(),
    };
    gemm.scratch = At::arena(128).unwrap();
    let scratch = u32::try_from(gemm.scratch_bytes()).unwrap();
    let def =
        |name: &str, dims: [u32; 2], at| TensorDef { name: name.into(), dtype: DType::F32, dims: dims.into(), at };
    let mut builder = PlanBuilder::new();
    builder.entry("main", vec![def("x", [2, 3], 0)], vec![def("y", [2, 2], 64)], &[gemm.into()]);
    let plan = builder.finish(128 + scratch, 32, 24).unwrap();
    let tensor =
        |name: &str, shape: [u64; 2]| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: shape.into() };
    ProgramSpec {
        plan: plan.into(),
        weights: Weights::Bytes(weights.into()),
        inputs: vec![tensor("x", [2, 3])],
        outputs: vec![tensor("y", [2, 2])],
        limits: Limits { memory_bytes: 4 << 20, deadline_millis: 1000, instances: 1, max_queue: 1 },
        finite_outputs: true,
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn answers(engine: &Engine, module: &Module) {
    let program = Program::new(engine, module, affine()).unwrap();
    let mut instance = program.instantiate().unwrap();
    for _ in 0..2 {
        let answer = instance.infer(&[&bytes(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0])], SECOND).unwrap();
        assert_eq!(answer.outputs, [bytes(&[11.0, 22.0, 19.0, 32.0])]);
    }
}

#[test]
fn a_plan_gives_the_right_numbers() {
    answers(engine(), runner());
}

#[test]
fn so_it_does_with_all_features_of_this_cpu_and_in_the_interpreter() {
    let mut profiles = vec![EngineProfile::new("pulley64", [""; 0])];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        let v3 = ["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi1", "bmi2", "avx", "avx2", "fma"];
        profiles.push(EngineProfile::new("x86_64-unknown-linux-musl", v3));
    }
    for profile in profiles {
        let engine = Engine::new(&profile).unwrap();
        let module = ballast_aot::load(&engine, runner_for(&profile)).unwrap();
        answers(&engine, &module);
    }
}

#[test]
fn code_is_mapped_from_an_open_file_whose_name_is_gone() {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&precompile(RUNNER_WASM, engine().profile()).unwrap()).unwrap();
    // SAFETY: the file has no name; nobody else can write it.
    #[allow(unsafe_code)]
    let module = unsafe { engine().load(&file) }.unwrap();
    answers(engine(), &module);
}

#[test]
fn weights_come_from_a_file_too() {
    use std::io::Write;
    let mut spec = affine();
    let Weights::Bytes(weights) = &spec.weights else { unreachable!() };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(weights).unwrap();
    spec.weights = Weights::File(Arc::new(file));
    let mut instance = Program::new(engine(), runner(), spec).unwrap().instantiate().unwrap();
    let answer = instance.infer(&[&bytes(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0])], SECOND).unwrap();
    assert_eq!(answer.outputs, [bytes(&[11.0, 22.0, 10.0, 20.0])]);
}

#[test]
fn a_nan_in_the_input_is_a_fault_that_names_the_output() {
    let mut instance = Program::new(engine(), runner(), affine()).unwrap().instantiate().unwrap();
    let fault = instance.infer(&[&bytes(&[f32::NAN; 6])], SECOND).unwrap_err();
    assert_eq!(fault, Fault::NotFinite { output: "y".into() });
}

#[test]
fn a_plan_that_is_not_the_contracts_is_refused_before_it_runs() {
    type Change = fn(&mut ProgramSpec);
    let changes: [(&str, Change); 7] = [
        ("input 0", |s| s.inputs[0].shape = vec![3, 2]),
        ("input 0", |s| s.inputs[0].datatype = DataType::Int32),
        ("output 0", |s| s.outputs[0].name = "z".into()),
        ("one more input", |s| s.inputs.clear()),
        ("output 1", |s| s.outputs.push(s.outputs[0].clone())),
        ("weights", |s| s.weights = Weights::Bytes(Arc::from(&[0u8; 31][..]))),
        ("not a Ballast plan", |s| s.plan = Arc::from(&b"nonsense"[..])),
    ];
    for (what, change) in changes {
        let mut spec = affine();
        change(&mut spec);
        let error = Program::new(engine(), runner(), spec).unwrap_err();
        assert!(matches!(error, SandboxError::Plan(_)), "{error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
    let mut spec = affine();
    spec.limits.memory_bytes = 100_000;
    let error = Program::new(engine(), runner(), spec).and_then(|program| program.instantiate()).unwrap_err();
    assert!(matches!(error, SandboxError::Memory(_) | SandboxError::Limit { .. }), "{error}");
}

#[test]
fn the_promised_memory_is_enough() {
    let mut spec = affine();
    let program = Program::new(engine(), runner(), spec.clone()).unwrap();
    spec.limits.memory_bytes = program.memory_needed();
    assert!(Program::new(engine(), runner(), spec).unwrap().instantiate().is_ok());
    assert!(RUNNER_WASM.len() <= 1 << 20 && RUNNER_WASM_MULADD.len() <= 1 << 20);
    assert!(program.memory_needed() >= RUNNER_RESERVE);
}

#[test]
fn the_speed_of_this_machine_is_a_number() {
    let speed = measure_speed(engine(), runner()).unwrap();
    assert!(speed.gflops > 0.0 && speed.gflops.is_finite(), "{speed:?}");
    assert!(speed.memory_bandwidth > 0.0 && speed.memory_bandwidth.is_finite(), "{speed:?}");
}

#[test]
fn the_same_profile_gives_the_same_code_and_another_one_other_code() {
    let profile = EngineProfile::host();
    let code = precompile(RUNNER_WASM, &profile).unwrap();
    assert!(code == precompile(RUNNER_WASM, &profile).unwrap(), "compiling is not deterministic");
}
