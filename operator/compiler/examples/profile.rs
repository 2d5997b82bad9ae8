//! Where the time of a model goes: every step of its plan alone, in the sandbox and natively.
//!
//! `profile MODEL.onnx [INPUT=1x3x48x192 …]`: what the model leaves open is fixed by arguments. Each step runs over an arena of
//! zeros, in a plan of its own, many times; the fastest run counts. The whole plan's time comes first, then sums by kind, then
//! the steps, slowest first. Caches are warmer than in a whole run, so that the parts are less than the whole.
#![allow(unsafe_code)] // runs steps natively and loads code that it has just compiled

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::{Limits, TensorSpec};
use ballast_compiler::lower::{Lowered, lower};
use ballast_compiler::{InputOverride, TargetSpec, import};
use ballast_kernels::{Level, Memory, run_step};
use ballast_plan::build::PlanBuilder;
use ballast_plan::step::{Epilogue, Layout, Window};
use ballast_plan::{EltInstr, Plan, Step};
use ballast_sandbox::{Engine, EngineProfile, Module, Program, ProgramSpec, Weights};

/// Runs of a step's plan, of which the fastest counts.
const RUNS: usize = 15;
/// How often a step stands in its plan, so that the call into the guest does not count.
const REPEATS: usize = 4;

/// This CPU: all its features that code can use, as `cargo xtask bench engine` takes it.
fn profile() -> EngineProfile {
    #[allow(unused_mut)]
    let mut features: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $(if std::arch::is_x86_feature_detected!($name) { features.push($name); })* };
        }
        detect!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "avx" "avx2" "fma");
        detect!("avx512f" "avx512vl" "avx512dq");
    }
    EngineProfile::new(&EngineProfile::host().triple, features)
}

fn target() -> TargetSpec {
    TargetSpec {
        name: "this-machine".parse().expect("a name"),
        triple: EngineProfile::host().triple,
        cpu_features: vec![],
        memory_bytes: 8 << 30,
        deny: vec![],
        gflops: 0.0,
        memory_bandwidth: 0.0,
    }
}

/// The plan of some of the steps, with every program where it was.
fn part(plan: &Plan<'_>, steps: &[Step]) -> Vec<u8> {
    let mut builder = PlanBuilder::new();
    for program in (0..).map_while(|i| plan.program(i)) {
        let code: Vec<EltInstr> = program.code().collect();
        builder.program(program.inputs(), program.registers(), &code);
    }
    builder.entry("main", vec![], vec![], steps);
    builder.finish(plan.arena_bytes(), plan.weights_bytes(), 0).expect("steps of a sound plan")
}

/// Fastest run in the sandbox.
fn in_sandbox(engine: &Engine, runner: &Module, plan: Vec<u8>, weights: &Arc<[u8]>) -> Duration {
    let limits = Limits { memory_bytes: 3 << 30, deadline_millis: 60_000, instances: 1, max_queue: 1 };
    let (inputs, outputs): (Vec<TensorSpec>, Vec<TensorSpec>) = (vec![], vec![]);
    let weights = Weights::Bytes(weights.clone());
    let spec = ProgramSpec { plan: Arc::from(plan), weights, inputs, outputs, limits, finite_outputs: false };
    let mut instance = Program::new(engine, runner, spec).and_then(|p| p.instantiate()).expect("the plan loads");
    let one = || instance.infer(&[], Duration::from_secs(60)).expect("the plan runs").compute;
    std::iter::repeat_with(one).take(RUNS).min().unwrap_or_default()
}

fn natively(plan: &Plan<'_>, step: &Step, memory: &Memory) -> Duration {
    let one = || {
        let start = Instant::now();
        for _ in 0..REPEATS {
            // SAFETY: a parsed plan's steps stay inside arena and weights of the sizes that it states.
            unsafe { run_step(Level::best(), plan, step, memory) };
        }
        start.elapsed() / REPEATS as u32
    };
    std::iter::repeat_with(one).take(RUNS).min().unwrap_or_default()
}

fn tail(plan: &Plan<'_>, e: &Epilogue) -> String {
    let bounds = if e.low > f32::NEG_INFINITY || e.high < f32::INFINITY { " bounds" } else { "" };
    let program = e.program.checked_sub(1).map(|p| format!(" {}", code(plan, p))).unwrap_or_default();
    format!("{bounds}{program}")
}

fn code(plan: &Plan<'_>, program: u32) -> String {
    let ops: Vec<String> =
        plan.program(program).into_iter().flat_map(|p| p.code().map(|i| format!("{:?}", i.op))).collect();
    format!("[{}]", ops.join(" "))
}

fn window(w: &Window) -> String {
    format!(
        "{}x{} -> {}x{}, window {}x{} stride {}x{} pad {}x{}",
        w.ih, w.iw, w.oh, w.ow, w.kh, w.kw, w.sh, w.sw, w.pt, w.pl
    )
}

/// Kind, what it is, and its operations.
fn describe(plan: &Plan<'_>, step: &Step) -> (&'static str, String, u64) {
    let layout = |l: Layout| if l == Layout::Packed { "packed" } else { "strided" };
    match step {
        Step::Fill(s) => ("fill", format!("{} words", s.words), 0),
        Step::Copy(s) => ("copy", format!("{:?} {:?} -> {:?}", s.dims, s.input_strides, s.out_strides), 0),
        Step::Gather(s) => ("gather", format!("{} of {}, {} times {} bytes", s.count, s.axis, s.outer, s.bytes), 0),
        Step::Elt(s) => {
            let strides: Vec<_> = s.operands.as_slice().iter().map(|o| (o.dtype, o.strides)).collect();
            let what = format!("{:?} {strides:?} -> {:?} {}", s.dims, s.dtype, code(plan, s.program));
            let elements: u64 = s.dims.iter().map(|&d| u64::from(d)).product();
            ("elt", what, elements * plan.program(s.program).map_or(0, |p| p.len() as u64))
        }
        Step::Gemm(s) => {
            let sides = format!("{} {}", layout(s.left.layout), layout(s.right.layout));
            let what = format!("{}x {}x{}x{} {sides}{}", s.batch, s.m, s.n, s.k, tail(plan, &s.epilogue));
            ("gemm", what, 2 * u64::from(s.batch) * u64::from(s.m) * u64::from(s.n) * u64::from(s.k))
        }
        Step::Conv(s) => {
            let what =
                format!("{} groups, {} -> {}, {}{}", s.groups, s.ic, s.oc, window(&s.window), tail(plan, &s.epilogue));
            let planes = u64::from(s.batch) * u64::from(s.groups) * u64::from(s.oc);
            ("conv", what, 2 * planes * s.window.pixels() * s.depth())
        }
        Step::Depthwise(s) => {
            let what = format!("{} planes, {}{}", s.planes, window(&s.window), tail(plan, &s.epilogue));
            let planes = u64::from(s.batch) * u64::from(s.planes);
            ("depthwise", what, 2 * planes * s.window.pixels() * s.window.taps())
        }
        Step::Pool(s) => ("pool", format!("{:?} {} planes, {}", s.kind, s.planes, window(&s.window)), 0),
        Step::Reduce(s) => ("reduce", format!("{:?} {}x{}x{}", s.kind, s.outer, s.len, s.inner), 0),
        Step::Softmax(s) => ("softmax", format!("{}x{}x{}", s.outer, s.len, s.inner), 0),
        Step::IntGemm(s) => {
            let what = format!("{}x {}x{}x{} {:?} -> {:?}", s.batch, s.m, s.n, s.k, s.packing, s.after.dtype);
            ("int gemm", what, 2 * u64::from(s.batch) * u64::from(s.m) * u64::from(s.n) * u64::from(s.k))
        }
        Step::IntConv(s) => {
            let what =
                format!("{} groups, {} -> {}, {} -> {:?}", s.groups, s.ic, s.oc, window(&s.window), s.after.dtype);
            let planes = u64::from(s.batch) * u64::from(s.groups) * u64::from(s.oc);
            ("int conv", what, 2 * planes * s.window.pixels() * s.depth())
        }
        Step::IntDepthwise(s) => {
            let what = format!("{} planes, {} -> {:?}", s.planes, window(&s.window), s.after.dtype);
            let planes = u64::from(s.batch) * u64::from(s.planes);
            ("int depthwise", what, 2 * planes * s.window.pixels() * s.window.taps())
        }
        Step::Lookup(s) => ("lookup", format!("{} bytes", s.count), 0),
        Step::NonZero(s) => ("non zero", format!("{:?} {:?}", s.dtype, s.dims), 0),
        Step::Suppress(s) => ("suppress", format!("{}x{}x{}, {}", s.batch, s.classes, s.boxes, s.limit), 0),
        Step::Unique(s) => ("unique", format!("{:?} {}x{}", s.dtype, s.rows, s.len), 0),
        other => ("other", format!("{other:?}"), 0),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: profile MODEL.onnx [INPUT=1x3x48x192 ...]");
        std::process::exit(2);
    };
    let inputs: Vec<InputOverride> = arguments
        .map(|argument| {
            let (name, dims) = argument.split_once('=').expect("INPUT=1x3x48x192");
            let shape = dims.split('x').map(|d| d.parse().expect("a number")).collect();
            InputOverride { name: name.to_owned(), shape: Some(shape), value: None, ..InputOverride::default() }
        })
        .collect();
    let model = std::fs::read(&path).expect("a model");
    let graph = import::import(&model, &inputs, &[]).map_err(|f| f.message()).expect("it can be imported").graph;
    let Lowered { plan: bytes, weights, arena_bytes, .. } = lower(&graph, &target()).expect("it can be lowered");
    let plan = Plan::parse(&bytes).expect("the compiler's plans parse");

    let profile = profile();
    let engine = Engine::new(&profile).expect("an engine");
    let runner = ballast_aot::load(&engine, ballast_aot::runner_for(&profile)).expect("the runner loads");
    // Words, so that everything is aligned for the kernels.
    let words: Vec<u64> = weights.chunks(8).map(|c| c.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b))).collect();
    let mut arena = vec![0u64; arena_bytes.div_ceil(8) as usize];
    let memory = Memory { arena: arena.as_mut_ptr().cast(), weights: words.as_ptr().cast() };
    let weights: Arc<[u8]> = Arc::from(weights);

    let steps: Vec<Step> = plan.entries().next().expect("an entry").steps().collect();
    let micros = |d: Duration| d.as_secs_f64() * 1e6;
    let nothing = in_sandbox(&engine, &runner, part(&plan, &[]), &weights);
    let whole = in_sandbox(&engine, &runner, part(&plan, &steps), &weights);
    let mut lines: Vec<(f64, f64, String)> = Vec::new();
    let mut kinds: BTreeMap<&str, (usize, f64, f64)> = BTreeMap::new();
    for (i, step) in steps.iter().enumerate() {
        let alone = in_sandbox(&engine, &runner, part(&plan, &[*step; REPEATS]), &weights);
        let guest = micros(alone.saturating_sub(nothing)) / REPEATS as f64;
        let native = micros(natively(&plan, step, &memory));
        let (kind, what, operations) = describe(&plan, step);
        let speed = operations as f64 / guest / 1e3;
        lines.push((guest, native, format!("{speed:6.1} G/s  #{i:<3} {kind} {what}")));
        let sum = kinds.entry(kind).or_default();
        *sum = (sum.0 + 1, sum.1 + guest, sum.2 + native);
    }
    println!("whole plan {:.0} us in the sandbox, an empty one {:.1} us", micros(whole), micros(nothing));
    println!("{:>5} {:<10} {:>10} {:>10}", "steps", "kind", "sandbox us", "native us");
    for (kind, (count, guest, native)) in &kinds {
        println!("{count:>5} {kind:<10} {guest:>10.1} {native:>10.1}");
    }
    lines.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (guest, native, what) in lines {
        println!("{guest:8.1} {native:8.1}  {what}");
    }
}
