//! The proof: the plan in the sandbox, on this host, against its golden vectors. Nothing is signed without it.

use std::sync::Arc;
use std::time::Duration;

use ballast_bundle::{Contract, Golden, Tally};
use ballast_sandbox::{Engine, EngineProfile, Program, ProgramSpec, Weights};
use serde::{Deserialize, Serialize};

use crate::Accuracy;
use crate::golden::accuracy;

/// A host may be slower than the target, and it is not a gateway: no deadline is judged here, only that it ends.
const DEADLINE: Duration = Duration::from_secs(60);

/// All that the proving process sees.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProveRequest {
    /// The runner's native code for this host, which the parent compiled.
    #[serde(with = "base64_bytes")]
    pub runner: Vec<u8>,
    /// `plan.bin`.
    #[serde(with = "base64_bytes")]
    pub plan: Vec<u8>,
    /// `weights.bin`.
    #[serde(with = "base64_bytes")]
    pub weights: Vec<u8>,
    /// `contract.json`.
    #[serde(with = "base64_bytes")]
    pub contract: Vec<u8>,
    /// `golden.safetensors`.
    #[serde(with = "base64_bytes")]
    pub golden: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Proved {
    /// The plan does what its golden vectors ask.
    Reproduced {
        /// How many were run.
        vectors: u64,
        /// Fastest run, microseconds, on this host.
        best_micros: u64,
        /// How near it comes to the reference evaluator.
        proof: Accuracy,
    },
    /// It does not; the sentence says where.
    Failed {
        /// For people.
        message: String,
    },
    /// It was not run: no runner for this host, no memory. Says nothing of the plan.
    NotSetUp {
        /// For people.
        message: String,
    },
}

/// Runs the plan on every golden vector and judges it as a gateway would. For the prover's process: the request's runner is
/// native code and is believed.
pub fn prove(request: &ProveRequest) -> Proved {
    let failed = |message: String| Proved::Failed { message };
    let not_set_up = |message: String| Proved::NotSetUp { message };
    let contract: Contract = match serde_json::from_slice(&request.contract) {
        Ok(contract) => contract,
        Err(e) => return failed(format!("the contract cannot be read: {e}")),
    };
    let golden = match Golden::of_bundle(&request.golden, &contract) {
        Ok(golden) => golden,
        Err(e) => return failed(e.to_string()),
    };
    let engine = match Engine::new(&EngineProfile::host()) {
        Ok(engine) => engine,
        Err(e) => return not_set_up(e.to_string()),
    };
    // SAFETY: the parent compiled the runner itself and wrote it to this process's standard input; the model's own worker never
    // saw it.
    #[allow(unsafe_code)]
    let runner = match unsafe { engine.load_bytes(&request.runner) } {
        Ok(runner) => runner,
        Err(e) => return not_set_up(e.to_string()),
    };
    let spec = ProgramSpec {
        plan: Arc::from(request.plan.as_slice()),
        weights: Weights::Bytes(Arc::from(request.weights.as_slice())),
        inputs: contract.inputs.clone(),
        outputs: contract.outputs.clone(),
        limits: contract.limits.clone(),
        finite_outputs: contract.verification.finite_outputs,
    };
    let program = match Program::new(&engine, &runner, spec) {
        Ok(program) => program,
        Err(e) => return failed(e.to_string()),
    };
    let mut instance = match program.instantiate() {
        Ok(instance) => instance,
        Err(e) => return failed(e.to_string()),
    };
    let mut tally = Tally::default();
    let mut best = Duration::MAX;
    for vector in 0..golden.len() {
        let inputs: Option<Vec<&[u8]>> = contract.inputs.iter().map(|t| golden.input(vector, &t.name)).collect();
        let Some(inputs) = inputs else { return failed(format!("golden vector {vector} lacks an input")) };
        let answer = match instance.infer(&inputs, DEADLINE) {
            Ok(answer) => answer,
            Err(fault) => return failed(format!("golden vector {vector}: {fault}")),
        };
        best = best.min(answer.compute);
        let outputs: Vec<_> = contract.outputs.iter().zip(answer.outputs.iter().map(Vec::as_slice)).collect();
        tally.add(golden.check(vector, &outputs, &contract));
    }
    match tally.judge(&contract) {
        Ok(()) => Proved::Reproduced {
            vectors: tally.vectors(),
            best_micros: u64::try_from(best.as_micros()).unwrap_or(u64::MAX),
            proof: accuracy(&tally, &contract),
        },
        Err(message) => failed(message),
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}
