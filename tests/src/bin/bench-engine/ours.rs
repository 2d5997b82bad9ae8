//! Our side: compile for this CPU, run in the sandbox as a gateway does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ballast_bundle::{Contract, GoldenMatch, TensorSpec, Tolerance, Verification};
use ballast_compiler::{CompileOutcome, CompileRequest, InputOverride, RuntimeLimits, TargetSpec};
use ballast_sandbox::{Engine, EngineProfile, Instance, Module, Program, ProgramSpec, Weights, measure_speed};

use crate::{InputEntry, machine};

/// Memory of the device that models are compiled for.
const MEMORY: u64 = 3 << 30;
const DEADLINE: Duration = Duration::from_secs(60);

/// The engine and the runner for this CPU.
pub struct Ours {
    engine: Engine,
    runner: Module,
    facts: String,
}

/// A model that runs.
pub struct Built {
    instance: Instance,
    contract: Contract,
    gflop: f64,
}

impl Ours {
    pub fn new() -> Result<Self> {
        let profile = machine::profile();
        let wasm = ballast_aot::runner_for(&profile);
        let start = Instant::now();
        let code = ballast_aot::precompile(wasm, &profile)?;
        let compiled = start.elapsed();
        let engine = Engine::new(&profile)?;
        let start = Instant::now();
        // SAFETY: compiled a moment ago, by this process.
        #[allow(unsafe_code)]
        let runner = unsafe { engine.load_bytes(&code) }?;
        let loaded = start.elapsed();
        let facts = format!(
            "runner: {} bytes of Wasm, compiled in {} ms to {} bytes, loaded in {:.2} ms",
            wasm.len(),
            compiled.as_millis(),
            code.len(),
            loaded.as_secs_f64() * 1e3
        );
        Ok(Self { engine, runner, facts })
    }

    /// Version, features, and what the runner's own micro-benchmark says.
    pub fn describe(&self) {
        let profile = self.engine.profile();
        println!("ballast {}, {}, {}", env!("CARGO_PKG_VERSION"), EngineProfile::engine_version(), profile.triple);
        println!("features {}", profile.cpu_features.join(" "));
        println!("{}", self.facts);
        match measure_speed(&self.engine, &self.runner) {
            Ok(speed) => println!("sandbox: {:.1} GFLOP/s, {:.1} GB/s", speed.gflops, speed.memory_bandwidth),
            Err(error) => println!("sandbox: not measured: {error}"),
        }
    }

    pub fn build(&self, name: &str, model: Vec<u8>, inputs: &[InputEntry]) -> Result<Built> {
        let profile = self.engine.profile();
        let open = |i: &InputEntry| InputOverride {
            name: i.name.clone(),
            shape: Some(i.shape.clone()),
            value: None,
            ..InputOverride::default()
        };
        let request = CompileRequest {
            model,
            model_name: name.to_owned(),
            version: "0".to_owned(),
            variant: "fp32".to_owned(),
            target: TargetSpec {
                name: "this-machine".parse()?,
                triple: profile.triple.clone(),
                cpu_features: profile.cpu_features.clone(),
                memory_bytes: MEMORY,
                deny: Vec::new(),
                gflops: 0.0,
                memory_bandwidth: 0.0,
            },
            inputs: inputs.iter().map(open).collect(),
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
                tolerance: Tolerance { absolute: 1e-3, relative: 1e-3 },
                finite_outputs: false,
                max_latency_p99_millis: None,
                user_golden: false,
            },
            golden: None,
        };
        let artifacts = match ballast_compiler::compile(&request) {
            CompileOutcome::Built(artifacts) => artifacts,
            CompileOutcome::Refused(verdict) => bail!("{:?}: {}", verdict.reason, verdict.message),
        };
        let contract: Contract = serde_json::from_slice(&artifacts.contract).context("the contract")?;
        let spec = ProgramSpec {
            plan: Arc::from(artifacts.plan),
            weights: Weights::Bytes(Arc::from(artifacts.weights)),
            inputs: contract.inputs.clone(),
            outputs: contract.outputs.clone(),
            limits: contract.limits.clone(),
            finite_outputs: false,
        };
        let instance = Program::new(&self.engine, &self.runner, spec)?.instantiate()?;
        Ok(Built { instance, contract, gflop: artifacts.verdict.gflop })
    }
}

impl Built {
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.contract.inputs
    }

    pub fn outputs(&self) -> &[TensorSpec] {
        &self.contract.outputs
    }

    pub fn gflop(&self) -> f64 {
        self.gflop
    }

    /// Outputs and the time from inputs in to outputs out.
    pub fn run(&mut self, inputs: &[Vec<u8>]) -> Result<(Vec<Vec<u8>>, Duration)> {
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let start = Instant::now();
        let answer = self.instance.infer(&inputs, DEADLINE)?;
        Ok((answer.outputs, start.elapsed()))
    }
}
