//! `ballast verify`: whether the right key signed a statement, and whether a bundle is the one that it speaks of.

use std::path::Path;

use anyhow::Context as _;
use ballast_bundle::manifest::blob_of;
use ballast_bundle::{
    Envelope, Role, RoleKeys, SignedStatement, StreamVerifier, Unverified, VerifyError, VerifyingKey,
};
use serde_json::{Value, json};

use crate::args::Verify;
use crate::bundles::Bundle;
use crate::exit::Failure;
use crate::models::read;
use crate::output::print;

const MAX_DOCUMENT: u64 = 4 << 20;
/// Native modules are below 10 MiB.
const MAX_MODULE: u64 = 256 << 20;

/// `verify`.
pub fn run(command: &Verify) -> Result<(), Failure> {
    let statement = read(&command.statement, MAX_DOCUMENT)?;
    let no = |what: &Path, e: VerifyError| Failure::No(Some(format!("{}: {e}", what.display())));
    let (release, runtime) = keys(command)?;
    let signed = Unverified::new(statement.as_slice())
        .signed_statement(&release, &runtime)
        .map_err(|e| no(&command.statement, e))?;
    let compared = match (&command.bundle, &signed) {
        (None, _) => None,
        (Some(path), SignedStatement::Runner(runner)) => {
            let bytes = read(path, MAX_MODULE)?;
            let mut stream = StreamVerifier::of(&runner.module);
            stream.update(&bytes).and_then(|()| stream.finish()).map_err(|e| no(path, e))?;
            Some("every byte of the runner is the one that was signed")
        }
        (Some(path), SignedStatement::Release(release)) => {
            // Bytes that are not what their manifest says are an answer; a file that cannot be read is none.
            let bundle = Bundle::read(path).map_err(|e| match e.chain().any(|cause| cause.is::<VerifyError>()) {
                true => Failure::No(Some(format!("{e:#}"))),
                false => e.into(),
            })?;
            if blob_of(&bundle.manifest) != release.manifest {
                return Err(no(path, VerifyError::Mismatch("manifest")));
            }
            if bundle.layers != release.layers {
                return Err(no(path, VerifyError::Mismatch("set of layers")));
            }
            Some("every byte of the bundle is the one that was signed")
        }
    };
    let mut result = match &signed {
        SignedStatement::Release(release) => json!({"verified": true, "kind": "release", "statement": release}),
        SignedStatement::Runner(runner) => json!({"verified": true, "kind": "runner", "statement": runner}),
    };
    if let Some(compared) = compared {
        result["bundle"] = compared.into();
    }
    print(command.output.format, &result, |r| sentence(r, &signed))
}

fn sentence(result: &Value, signed: &SignedStatement) -> String {
    let what = match signed {
        SignedStatement::Release(r) => {
            format!(
                "release {} ({}) of {} for {}, bundle {}",
                r.version, r.number, r.deployment, r.target, r.manifest.digest
            )
        }
        SignedStatement::Runner(r) => {
            format!("runner {} for {} ({}), module {}", r.number, r.target, r.engine, r.module.digest)
        }
    };
    match result["bundle"].as_str() {
        Some(compared) => format!("verified: {what}; {compared}\n"),
        None => format!("verified: {what}\n"),
    }
}

/// The release and the runtime role's keys.
fn keys(command: &Verify) -> Result<(RoleKeys, RoleKeys), Failure> {
    if let Some(path) = &command.key {
        let pem = String::from_utf8(read(path, MAX_DOCUMENT)?).context("the key is not PEM")?;
        let key = VerifyingKey::from_pem(&pem).with_context(|| format!("{}", path.display()))?;
        let one = RoleKeys { keys: [(key.key_id(), key.to_pem())].into(), threshold: 1 };
        return Ok((one.clone(), one));
    }
    let mut root = None;
    for path in &command.roots {
        let json: Value =
            serde_json::from_slice(&read(path, MAX_DOCUMENT)?).with_context(|| format!("{}", path.display()))?;
        // As gateways keep it, or as an operator does: with what was signed beside it.
        let envelope: Envelope = serde_json::from_value(json.get("envelope").unwrap_or(&json).clone())
            .with_context(|| format!("{} is not a trust root's envelope", path.display()))?;
        let envelope = Unverified::new(envelope);
        let next = match &root {
            None => envelope.first_root(),
            Some(current) => envelope.next_root(current),
        };
        root = Some(next.map_err(|e| Failure::No(Some(format!("{}: {e}", path.display()))))?);
    }
    let root = root.ok_or_else(|| Failure::Failed("give --key or --root".into()))?;
    let role = |role: Role| {
        root.roles.get(&role).cloned().ok_or_else(|| Failure::Failed("the trust root lacks a role".into()))
    };
    Ok((role(Role::Release)?, role(Role::Runtime)?))
}
