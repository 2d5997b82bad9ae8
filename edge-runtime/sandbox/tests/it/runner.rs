//! The runner that is built with the workspace, in the sandbox, with a plan.

use std::sync::{Arc, OnceLock};

use ballast_aot::{RUNNER_WASM, RUNNER_WASM_MULADD, precompile, runner_for};
use ballast_bundle::{DataType, Limits, TensorSpec};
use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::record::List;
use ballast_plan::step::{BiasOf, Elt, Epilogue, Gemm, Layout, Matrix, Operand};
use ballast_plan::{At, DType, EltInstr, EltOp};
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
    affine_within(f32::NEG_INFINITY, f32::INFINITY)
}

fn affine_within(low: f32, high: f32) -> ProgramSpec {
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
            low,
            high,
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
    for profile in profiles() {
        let engine = Engine::new(&profile).unwrap();
        let module = ballast_aot::load(&engine, runner_for(&profile)).unwrap();
        answers(&engine, &module);
    }
}

/// The profiles of this machine: baseline, everything that x86-64-v3 has, and the interpreter.
fn profiles() -> Vec<EngineProfile> {
    let mut profiles = vec![EngineProfile::host(), EngineProfile::new("pulley64", [""; 0])];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        let v3 = ["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi1", "bmi2", "avx", "avx2", "fma"];
        profiles.push(EngineProfile::new("x86_64-unknown-linux-musl", v3));
    }
    profiles
}

/// `y = min(max(x, −1), 1)` of 7 floats, and the exponential of that: whole vectors and the rest of one.
fn bounded() -> ProgramSpec {
    let instr = |op, dst, src: u32, imm| EltInstr { op, dst, src: [src, 0, 0], imm };
    let mut builder = PlanBuilder::new();
    let bounds = builder.program(1, 3, &[instr(EltOp::MaxImm, 1, 0, -1.0), instr(EltOp::MinImm, 2, 1, 1.0)]);
    let exponential = builder.program(1, 2, &[instr(EltOp::Exp, 1, 0, 0.0)]);
    let step = |program, from, to| Elt {
        program,
        dims: [1, 1, 1, 1, 1, 7],
        out: At::arena(to).unwrap(),
        dtype: DType::F32,
        operands: List::new(&[Operand {
            at: At::arena(from).unwrap(),
            dtype: DType::F32,
            strides: [0, 0, 0, 0, 0, 1],
        }])
        .unwrap(),
    };
    let def = |name: &str, at| TensorDef { name: name.into(), dtype: DType::F32, dims: vec![7], at };
    let steps = [step(bounds, 0, 64).into(), step(exponential, 64, 128).into()];
    builder.entry("main", vec![def("x", 0)], vec![def("y", 64), def("e", 128)], &steps);
    let tensor = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![7] };
    ProgramSpec {
        plan: builder.finish(192, 0, 0).unwrap().into(),
        weights: Weights::Bytes(Arc::from(&[][..])),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y"), tensor("e")],
        finite_outputs: false,
        ..affine()
    }
}

/// `y = x` of one float, and behind it of three.
fn two_shapes() -> ProgramSpec {
    let mut builder = PlanBuilder::new();
    let copy = builder.program(1, 2, &[EltInstr { op: EltOp::MulImm, dst: 1, src: [0, 0, 0], imm: 2.0 }]);
    for n in [1u32, 3] {
        let step = Elt {
            program: copy,
            dims: [1, 1, 1, 1, 1, n],
            out: At::arena(64).unwrap(),
            dtype: DType::F32,
            operands: List::new(&[Operand {
                at: At::arena(0).unwrap(),
                dtype: DType::F32,
                strides: [0, 0, 0, 0, 0, 1],
            }])
            .unwrap(),
        };
        let def = |name: &str, at| TensorDef { name: name.into(), dtype: DType::F32, dims: vec![n], at };
        builder.entry(&format!("of {n}"), vec![def("x", 0)], vec![def("y", 64)], &[step.into()]);
    }
    let tensor = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![1] };
    ProgramSpec {
        plan: builder.finish(128, 0, 0).unwrap().into(),
        weights: Weights::Bytes(Arc::from(&[][..])),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        ..affine()
    }
}

#[test]
fn each_shape_is_asked_by_its_number() {
    let program = Program::new(engine(), runner(), two_shapes()).unwrap();
    let of = |n| {
        [("x", n), ("y", n)].map(|(name, n)| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![n] })
    };
    let more = |n| of(n).map(|t| vec![t]).into();
    let entry: (Vec<TensorSpec>, Vec<TensorSpec>) = more(3);
    program.has_entries(std::slice::from_ref(&entry)).unwrap();
    for (entries, says) in [
        (vec![], "it has 1 more shapes, and the contract 0"),
        (vec![entry.clone(), entry], "it has 1 more shapes, and the contract 2"),
        (vec![more(4)], "its entry 1 are not the contract's"),
    ] {
        let error = program.has_entries(&entries).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let mut instance = program.instantiate().unwrap();
    for _ in 0..2 {
        assert_eq!(
            instance.infer_entry(1, &[&bytes(&[1.0, 2.0, 3.0])], SECOND).unwrap().outputs,
            [bytes(&[2.0, 4.0, 6.0])]
        );
        assert_eq!(instance.infer(&[&bytes(&[5.0])], SECOND).unwrap().outputs, [bytes(&[10.0])]);
    }
    for (entry, floats) in [(0, 3), (1, 1), (2, 1), (usize::MAX, 3)] {
        let fault = instance.infer_entry(entry, &[&vec![0; 4 * floats]], SECOND).unwrap_err();
        assert!(matches!(fault, Fault::Request { .. }), "{entry}: {fault}");
    }
    assert!(!instance.is_poisoned());
}

#[test]
fn nan_goes_through_bounds_on_every_engine() {
    let floats =
        |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
    let nan = f32::NAN;
    for profile in profiles() {
        let engine = Engine::new(&profile).unwrap();
        let module = ballast_aot::load(&engine, runner_for(&profile)).unwrap();
        let mut instance = Program::new(&engine, &module, bounded()).unwrap().instantiate().unwrap();
        let answer = instance.infer(&[&bytes(&[nan, 2.0, -2.0, 0.5, -nan, 9.0, nan])], SECOND).unwrap();
        let [y, e] = [0, 1].map(|i| floats(&answer.outputs[i]));
        let want = [nan, 1.0, -1.0, 0.5, nan, 1.0, nan];
        for (i, want) in want.into_iter().enumerate() {
            assert!(y[i] == want || want.is_nan() && y[i].is_nan(), "{profile:?}: {y:?}");
            assert!((e[i] - want.exp()).abs() < 1e-5 || want.is_nan() && e[i].is_nan(), "{profile:?}: {e:?}");
        }
        // And through the bounds behind a product.
        let mut spec = affine_within(0.0, 6.0);
        spec.finite_outputs = false;
        let mut instance = Program::new(&engine, &module, spec).unwrap().instantiate().unwrap();
        let answer = instance.infer(&[&bytes(&[nan, 0.0, 0.0, 1.0, 1.0, 1.0])], SECOND).unwrap();
        let y = floats(&answer.outputs[0]);
        assert!(y[0].is_nan() && y[1].is_nan() && y[2..] == [6.0, 6.0], "{profile:?}: {y:?}");
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

/// Figures of built-in targets that were measured come from here: run it with `--nocapture`.
#[test]
fn the_speed_of_this_machine_is_a_number() {
    for profile in profiles() {
        let engine = Engine::new(&profile).unwrap();
        let module = ballast_aot::load(&engine, runner_for(&profile)).unwrap();
        let speed = measure_speed(&engine, &module).unwrap();
        println!("{profile:?}: {speed:?}");
        assert!(speed.gflops > 0.0 && speed.gflops.is_finite(), "{speed:?}");
        assert!(speed.memory_bandwidth > 0.0 && speed.memory_bandwidth.is_finite(), "{speed:?}");
    }
}

#[test]
fn the_same_profile_gives_the_same_code_and_another_one_other_code() {
    let profile = EngineProfile::host();
    let code = precompile(RUNNER_WASM, &profile).unwrap();
    assert!(code == precompile(RUNNER_WASM, &profile).unwrap(), "compiling is not deterministic");
    for other in profiles().into_iter().filter(|other| *other != profile) {
        assert!(code != precompile(RUNNER_WASM, &other).unwrap(), "{other:?} has no code of its own");
    }
}
