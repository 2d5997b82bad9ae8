//! The process that compiles and runs cases, one after the other: what kills or stops it is one case's fault.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ballast_bundle::{Contract, GoldenMatch, TensorSpec, Tolerance, Verification};
use ballast_compiler::{
    Artifacts, CompileOutcome, CompileRequest, ProveRequest, Proved, RuntimeLimits, TargetSpec, VerdictReason,
};
use ballast_sandbox::{Engine, EngineProfile, Module, Program, ProgramSpec, Weights};
use serde::{Deserialize, Serialize};

use crate::case::{self, About, Array, Case, Vector};
use crate::compare::compare;
use crate::memory::{Memory, resident};
use crate::native;

/// Memory of the device that is compiled for.
const MEMORY: u64 = 3 << 30;
const DEADLINE: Duration = Duration::from_secs(60);
/// As the compiler's own worker has it.
const STACK_BYTES: usize = 64 << 20;

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// Every output is right.
    Passed {
        /// Fastest timed run, microseconds; 0 without one.
        micros: u64,
        /// What an instance takes, where that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<Memory>,
    },
    /// The census says no.
    Unsupported { refusals: Vec<Refusal> },
    /// Anything else.
    Wrong { message: String },
}

/// One thing that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// Empty where it is no operator.
    pub operator: String,
    pub detail: String,
}

/// What is done beside judging.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Timed runs.
    pub rounds: u32,
    /// Also judge the reference evaluator, and the kernels as native code.
    pub native: bool,
    /// Also hold the verdict's memory to what an instance takes.
    pub memory: bool,
    /// Where plans are kept.
    pub plans: Option<PathBuf>,
    /// Where contracts are kept, with golden vectors.
    pub contracts: Option<PathBuf>,
}

/// What is ready for every case.
struct Bench {
    engine: Engine,
    runner: Module,
    code: Vec<u8>,
    options: Options,
}

/// Reads folders from standard input, writes one outcome per line.
pub fn serve(code: &Path, options: &Options) -> Result<()> {
    let code = std::fs::read(code).context("the runner's code")?;
    let engine = Engine::new(&EngineProfile::host())?;
    // SAFETY: the parent process compiled it into a folder of its own.
    #[allow(unsafe_code)]
    let runner = unsafe { engine.load_bytes(&code) }?;
    let bench = Bench { engine, runner, code, options: options.clone() };
    for line in std::io::stdin().lock().lines() {
        let outcome = match Case::open(Path::new(&line?)) {
            Ok(case) => guarded(&bench, &case)?,
            Err(error) => wrong(format!("{error:#}")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        out.flush()?;
    }
    Ok(())
}

/// On a thread of its own, for its stack and its panics.
fn guarded(bench: &Bench, case: &Case) -> Result<Outcome> {
    std::thread::scope(|scope| {
        let work = || judge(bench, case).unwrap_or_else(wrong);
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
            wrong(format!("panicked: {text}"))
        }))
    })
}

fn wrong(message: String) -> Outcome {
    Outcome::Wrong { message }
}

fn judge(bench: &Bench, case: &Case) -> Result<Outcome, String> {
    let text = |e: anyhow::Error| format!("{e:#}");
    let (model, golden) = (case.read("model.onnx").map_err(text)?, case.read("golden.safetensors").map_err(text)?);
    let vectors = case::vectors(&golden).map_err(text)?;
    let artifacts = match build(bench, &case.about, model.clone(), golden) {
        Ok(artifacts) => artifacts,
        Err(outcome) => return Ok(outcome),
    };
    let contract: Contract = serde_json::from_slice(&artifacts.contract).map_err(|e| e.to_string())?;
    keep(bench, case, &artifacts).map_err(|e| format!("it could not be kept: {e}"))?;
    if bench.options.native {
        let given = vectors.iter().map(|vector| inputs(&contract, vector)).collect::<Result<_, _>>()?;
        let judge = |index: usize, found: &[Vec<u8>]| outputs(&contract, &vectors[index], found, &case.about);
        native::judge(&model, &artifacts, &contract, &given, &judge)?;
    }
    prove(bench, &artifacts)?;
    let spec = ProgramSpec {
        plan: Arc::from(artifacts.plan),
        weights: Weights::Bytes(Arc::from(artifacts.weights)),
        inputs: contract.inputs.clone(),
        outputs: contract.outputs.clone(),
        limits: contract.limits.clone(),
        finite_outputs: false,
    };
    let program = Program::new(&bench.engine, &bench.runner, spec).map_err(|e| e.to_string())?;
    let mut instance = program.instantiate().map_err(|e| e.to_string())?;
    let mut best = Duration::MAX;
    for (index, vector) in vectors.iter().enumerate() {
        let inputs = inputs(&contract, vector)?;
        for _ in 0..=bench.options.rounds {
            let answer = instance.infer(&inputs, DEADLINE).map_err(|fault| format!("sandbox: {fault}"))?;
            best = best.min(answer.compute);
            outputs(&contract, vector, &answer.outputs, &case.about)
                .map_err(|e| format!("sandbox, vector {index}, {e}"))?;
        }
    }
    let micros = if bench.options.rounds == 0 { 0 } else { u64::try_from(best.as_micros()).unwrap_or(u64::MAX) };
    let memory = match vectors.first().filter(|_| bench.options.memory) {
        Some(vector) => {
            let memory = one_more(&program, &inputs(&contract, vector)?, artifacts.verdict.peak_memory_bytes)?;
            memory.judge()?;
            Some(memory)
        }
        None => None,
    };
    Ok(Outcome::Passed { micros, memory })
}

/// What a further instance takes once it has answered; the first one has filled what all share.
fn one_more(program: &Program, inputs: &[&[u8]], promised: u64) -> Result<Memory, String> {
    let measure = || resident().map_err(|e| format!("{e:#}"));
    let before = measure()?;
    let mut instance = program.instantiate().map_err(|e| e.to_string())?;
    drop(instance.infer(inputs, DEADLINE).map_err(|fault| format!("sandbox: {fault}"))?);
    let taken = measure()?.saturating_sub(before);
    Ok(Memory { promised, taken })
}

/// As for a release, with the case's vectors as the user's golden ones.
fn build(bench: &Bench, about: &About, model: Vec<u8>, golden: Vec<u8>) -> Result<Box<Artifacts>, Outcome> {
    let profile = bench.engine.profile();
    let mut request = CompileRequest {
        model,
        model_name: "case".to_owned(),
        version: "0".to_owned(),
        variant: "fp32".to_owned(),
        target: TargetSpec {
            name: "this-machine".parse().map_err(|_| wrong("a target's name".to_owned()))?,
            triple: profile.triple.clone(),
            cpu_features: profile.cpu_features.clone(),
            memory_bytes: 2 * MEMORY,
            deny: Vec::new(),
            gflops: 0.0,
            memory_bandwidth: 0.0,
        },
        inputs: Vec::new(),
        runtime: RuntimeLimits {
            memory_limit: MEMORY,
            deadline_millis: Some(60_000),
            instances: 1,
            max_queue: 1,
            ..RuntimeLimits::default()
        },
        verification: Verification {
            golden_match: GoldenMatch::Values,
            min_matching_per_mille: 1000,
            tolerance: Tolerance { absolute: about.absolute, relative: about.relative },
            finite_outputs: false,
            max_latency_p99_millis: None,
            user_golden: false,
        },
        golden: Some(golden),
    };
    let mut outcome = ballast_compiler::compile(&request);
    // Where an output holds as many rows as there can be, and a count, the case's vectors are not the model's.
    if matches!(&outcome, CompileOutcome::Refused(verdict) if verdict.reason == VerdictReason::InvalidGolden) {
        request.golden = None;
        outcome = ballast_compiler::compile(&request);
    }
    match outcome {
        CompileOutcome::Built(artifacts) => Ok(artifacts),
        CompileOutcome::Refused(verdict) => Err(match verdict.reason {
            // What the census says, before anything is lowered.
            VerdictReason::UnsupportedOperators | VerdictReason::UnsupportedType => {
                let named = |u: &ballast_compiler::UnsupportedOperator| Refusal {
                    operator: u.operator.clone(),
                    detail: u.nearest.clone().unwrap_or_default(),
                };
                let refusals: BTreeSet<Refusal> = match &verdict.unsupported[..] {
                    [] => [Refusal { operator: String::new(), detail: verdict.message.clone() }].into(),
                    some => some.iter().map(named).collect(),
                };
                Outcome::Unsupported { refusals: refusals.into_iter().collect() }
            }
            reason => wrong(format!("{reason:?}: {}", verdict.message)),
        }),
    }
}

/// Writes what fuzzing starts from.
fn keep(bench: &Bench, case: &Case, artifacts: &Artifacts) -> std::io::Result<()> {
    if let Some(folder) = &bench.options.plans {
        std::fs::write(folder.join(&case.name), &artifacts.plan)?;
    }
    if let Some(folder) = &bench.options.contracts {
        let parts = [&artifacts.contract[..], &[0], &artifacts.golden];
        std::fs::write(folder.join(&case.name), parts.concat())?;
    }
    Ok(())
}

/// The proof before signing, in this process.
fn prove(bench: &Bench, artifacts: &Artifacts) -> Result<(), String> {
    let request = ProveRequest {
        runner: bench.code.clone(),
        plan: artifacts.plan.clone(),
        weights: artifacts.weights.clone(),
        contract: artifacts.contract.clone(),
        golden: artifacts.golden.clone(),
    };
    match ballast_compiler::prove(&request) {
        Proved::Reproduced { .. } => Ok(()),
        Proved::Failed { message } | Proved::NotSetUp { message } => Err(format!("proof: {message}")),
    }
}

fn inputs<'v>(contract: &Contract, vector: &'v Vector) -> Result<Vec<&'v [u8]>, String> {
    let inputs = contract.inputs.iter().map(|spec| {
        let array = vector.inputs.get(&spec.name).ok_or_else(|| format!("the case has no input {:?}", spec.name))?;
        same_type(spec, array).map_err(|e| format!("input {:?} {e}", spec.name))?;
        Ok(array.bytes.as_slice())
    });
    inputs.collect()
}

fn same_type(spec: &TensorSpec, array: &Array) -> Result<(), String> {
    if case::same_type(spec.datatype, array.dtype) {
        return Ok(());
    }
    Err(format!("is {:?}, the case has {}", spec.datatype, case::protocol_name(array.dtype)))
}

/// Every output that is expected.
fn outputs(contract: &Contract, vector: &Vector, found: &[Vec<u8>], about: &About) -> Result<(), String> {
    for (name, expected) in &vector.outputs {
        let place = contract.outputs.iter().position(|spec| spec.name == *name);
        let Some((spec, bytes)) = place.and_then(|i| Some((contract.outputs.get(i)?, found.get(i)?))) else {
            return Err(format!("output {name:?} is missing"));
        };
        let judged = same_type(spec, expected).and_then(|()| {
            let shape: Vec<usize> = spec.shape.iter().map(|d| *d as usize).collect();
            if shape == expected.shape {
                return compare(bytes, expected, about);
            }
            let cut = counted(contract, name, &shape, found).and_then(|count| rows(bytes, &shape, expected, count));
            match cut {
                Some(cut) => compare(&cut, expected, about),
                None => Err(format!("has the shape {shape:?}, expected {:?}", expected.shape)),
            }
        });
        judged.map_err(|e| format!("output {name:?}: {e}"))?;
    }
    Ok(())
}

/// How many rows of a bounded output are meant: its `NAME.count`.
fn counted(contract: &Contract, name: &str, shape: &[usize], found: &[Vec<u8>]) -> Option<usize> {
    let place = contract.outputs.iter().position(|spec| spec.name == format!("{name}.count"))?;
    let count = i64::from_le_bytes(found.get(place)?.get(..8)?.try_into().ok()?);
    usize::try_from(count).ok().filter(|n| shape.iter().any(|d| d >= n))
}

/// The first `count` along the one axis where the shapes differ.
fn rows(bytes: &[u8], shape: &[usize], expected: &Array, count: usize) -> Option<Vec<u8>> {
    let axes: Vec<usize> = if shape.len() == expected.shape.len() { (0..shape.len()).collect() } else { return None };
    let mut different = axes.into_iter().filter(|a| shape[*a] != expected.shape[*a]);
    let (axis, None) = (different.next()?, different.next()) else { return None };
    if expected.shape[axis] != count || shape[axis] < count {
        return None;
    }
    let elements: usize = shape.iter().product();
    let inner = shape[axis + 1..].iter().product::<usize>() * (bytes.len() / elements.max(1));
    let whole = shape[axis] * inner;
    Some(bytes.chunks(whole.max(1)).flat_map(|chunk| chunk[..count * inner].to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;

    #[test]
    fn what_is_counted_of_a_bounded_output_is_cut_out() {
        let bytes: Vec<u8> = (0..12).collect();
        let expected = |shape: &[usize]| Array { dtype: Dtype::U8, shape: shape.to_vec(), bytes: Vec::new() };
        assert_eq!(rows(&bytes, &[4, 3], &expected(&[2, 3]), 2), Some((0..6).collect()));
        assert_eq!(rows(&bytes, &[2, 6], &expected(&[2, 2]), 2), Some(vec![0, 1, 6, 7]));
        assert_eq!(rows(&bytes, &[4, 3], &expected(&[2, 3]), 3), None, "the count says another number");
        assert_eq!(rows(&bytes, &[4, 3], &expected(&[2, 2]), 2), None, "two axes differ");
    }
}
