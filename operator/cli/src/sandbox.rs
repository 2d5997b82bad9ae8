//! Runs a bundle once on this machine, in the same sandbox as on a gateway.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ballast_bundle::{Contract, Limits};
use ballast_sandbox::{Answer, Engine, EngineProfile, Program, ProgramSpec, Weights};

use crate::exit::Failure;
use crate::progress;

/// This machine may be slower than the target; that it ends is what counts here.
const DEADLINE: Duration = Duration::from_secs(60);

/// One answer for one request.
pub fn run(plan: &[u8], weights: &[u8], contract: &Contract, inputs: &[Vec<u8>]) -> Result<Answer, Failure> {
    let profile = EngineProfile::host();
    let engine = Engine::new(&profile).context("the sandbox")?;
    let module =
        progress::during("preparing the runner", || ballast_aot::load(&engine, ballast_aot::runner_for(&profile)))
            .context("the runner cannot be prepared for this machine")?;
    let spec = ProgramSpec {
        plan: Arc::from(plan),
        weights: Weights::Bytes(Arc::from(weights)),
        inputs: contract.inputs.clone(),
        outputs: contract.outputs.clone(),
        limits: Limits { deadline_millis: 60_000, ..contract.limits.clone() },
        // Whoever tries a model wants to see what it gives, NaN included.
        finite_outputs: false,
    };
    let program = Program::new(&engine, &module, spec).context("the bundle")?;
    let mut instance = program.instantiate().context("the bundle")?;
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    instance.infer(&inputs, DEADLINE).map_err(|fault| Failure::Failed(fault.to_string()))
}
