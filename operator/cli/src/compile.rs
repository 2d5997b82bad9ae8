//! `ballast compile`: a bundle on disk, proved in the sandbox.

use ballast_bundle::Digest;
use ballast_compiler::{Artifacts, CompileOutcome, CompileRequest, WorkerLimits, run_in_worker};
use serde_json::json;

use crate::args::Compile;
use crate::bundles::Bundle;
use crate::check::{Checked, table};
use crate::exit::Failure;
use crate::output::print;
use crate::{models, progress};

/// `compile`.
pub fn run(command: &Compile) -> Result<(), Failure> {
    let target = models::target(&command.target)?;
    let name = command.name.as_deref();
    let request = models::request(&command.file, target, &command.model, name, &command.model_version)?;
    let artifacts = match build(&request)? {
        CompileOutcome::Built(artifacts) => artifacts,
        CompileOutcome::Refused(verdict) => {
            let refused = [Checked { target: command.target.clone(), verdict }];
            print(command.output.format, &refused[0], |_| table(&refused))?;
            return Err(match refused[0].verdict.reason.is_bad_input() {
                true => Failure::BadInput(None),
                false => Failure::No(None),
            });
        }
    };
    let (bundle, manifest) = Bundle::of(&artifacts)?;
    if command.oci {
        let tag = format!("{}-{}", command.model_version, command.target);
        bundle.write_layout(&manifest.config, &tag, &command.out)?;
    } else {
        bundle.write_directory(&manifest.config, &command.out)?;
    }
    let result = json!({
        "directory": command.out.display().to_string(),
        "manifest": Digest::of(&bundle.manifest),
        "layers": bundle.layers,
        "verdict": artifacts.verdict,
    });
    print(command.output.format, &result, |_| {
        let verdict = Checked { target: command.target.clone(), verdict: artifacts.verdict.clone() };
        format!("{}\nbundle {} in {}\n", table(&[verdict]), Digest::of(&bundle.manifest), command.out.display())
    })
}

/// Compiles in a child process and proves in another, as an operator does.
pub fn build(request: &CompileRequest) -> Result<CompileOutcome, Failure> {
    let exe = std::env::current_exe().map_err(|e| Failure::Failed(format!("this program cannot find itself: {e}")))?;
    progress::during(format!("compiling for {}", request.target.name), || {
        run_in_worker(&exe, request, &WorkerLimits::default())
    })
    .map_err(|e| Failure::Failed(e.to_string()))
}

/// Artifacts, or the verdict as a sentence.
pub fn built(request: &CompileRequest) -> Result<Box<Artifacts>, Failure> {
    match build(request)? {
        CompileOutcome::Built(artifacts) => Ok(artifacts),
        CompileOutcome::Refused(verdict) if verdict.reason.is_bad_input() => {
            Err(Failure::BadInput(Some(verdict.message)))
        }
        CompileOutcome::Refused(verdict) => Err(Failure::No(Some(verdict.message))),
    }
}
