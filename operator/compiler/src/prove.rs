//! The proof: the plan in the sandbox, on this host, against its golden vectors. Nothing is signed without it.

use std::sync::Arc;
use std::time::Duration;

use ballast_bundle::{Contract, Golden, Tally};
use ballast_sandbox::{Answer, Engine, EngineProfile, Instance, Program, ProgramSpec, Weights};
use serde::{Deserialize, Serialize};

use crate::Accuracy;
use crate::buckets::each_filled_up;
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
    let goldens = match Golden::of_entries(&request.golden, &contract) {
        Ok(goldens) => goldens,
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
    let more: Vec<_> = (1..contract.entries()).map(|n| contract.entry(n)).collect();
    if let Err(e) = program.has_entries(&more) {
        return failed(e.to_string());
    }
    let mut instance = match program.instantiate() {
        Ok(instance) => instance,
        Err(e) => return failed(e.to_string()),
    };
    match every_vector(&mut instance, &contract, &goldens) {
        Ok(proved) => proved,
        Err(message) => failed(message),
    }
}

/// Every vector of every entry, and filled up for the larger ones where requests may be.
fn every_vector(instance: &mut Instance, contract: &Contract, goldens: &[Golden]) -> Result<Proved, String> {
    let (mut vectors, mut best, mut proof) = (0, Duration::MAX, None);
    for (n, golden) in goldens.iter().enumerate() {
        let own = contract.of_entry(n);
        let within = |message: String| if goldens.len() == 1 { message } else { format!("shape {}: {message}", n + 1) };
        let mut tally = Tally::default();
        for vector in 0..golden.len() {
            let inputs: Option<Vec<&[u8]>> = own.inputs.iter().map(|t| golden.input(vector, &t.name)).collect();
            let inputs = inputs.ok_or_else(|| within(format!("golden vector {vector} lacks an input")))?;
            let answer = run(instance, n, &inputs).map_err(|e| within(format!("golden vector {vector}: {e}")))?;
            if n == 0 {
                best = best.min(answer.compute);
            }
            let outputs: Vec<_> = own.outputs.iter().zip(answer.outputs.iter().map(Vec::as_slice)).collect();
            tally.add(golden.check(vector, &outputs, &own));
        }
        tally.judge(&own).map_err(within)?;
        vectors += tally.vectors();
        proof.get_or_insert_with(|| accuracy(&tally, &own));
    }
    each_filled_up(contract, goldens, usize::MAX, |entry, inputs| {
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        run(instance, entry, &inputs).map(|answer| answer.outputs)
    })?;
    let best_micros = u64::try_from(best.as_micros()).unwrap_or(u64::MAX);
    let proof = proof.ok_or("there are no golden vectors")?;
    Ok(Proved::Reproduced { vectors, best_micros, proof })
}

fn run(instance: &mut Instance, entry: usize, inputs: &[&[u8]]) -> Result<Answer, String> {
    instance.infer_entry(entry, inputs, DEADLINE).map_err(|fault| fault.to_string())
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
