//! Signing documents, role by role.

use crate::envelope::{sign_envelope, sign_statement, to_json};
use crate::{Envelope, Pointer, ReleaseStatement, RunnerStatement, TrustRoot};

pub use crate::keys::{KeyError, SigningKey, VerifyingKey};

/// Payload type of a trust root.
pub const ROOT_TYPE: &str = "application/vnd.ballast.root.v1+json";
/// Payload type of a pointer.
pub const POINTER_TYPE: &str = "application/vnd.ballast.pointer.v1+json";
/// Predicate type of a release statement.
pub const RELEASE_PREDICATE: &str = "https://ballast.dev/release/v1";
/// Predicate type of a runner statement.
pub const RUNNER_PREDICATE: &str = "https://ballast.dev/runner/v1";

/// Signs a trust root: with the root keys of this version and, after the first, of the one before.
pub fn sign_root(root: &TrustRoot, keys: &[&SigningKey]) -> Envelope {
    sign_envelope(ROOT_TYPE, &to_json(root), keys)
}

/// Signs a pointer with the assignment role's key.
pub fn sign_pointer(pointer: &Pointer, key: &SigningKey) -> Envelope {
    sign_envelope(POINTER_TYPE, &to_json(pointer), &[key])
}

/// Signs a release statement with the release role's key: a Sigstore bundle's JSON.
pub fn sign_release(statement: &ReleaseStatement, key: &SigningKey) -> Vec<u8> {
    let name = format!("{}:{}", statement.deployment, statement.target);
    sign_statement(&name, &statement.manifest.digest, RELEASE_PREDICATE, statement, key)
}

/// Signs a runner statement with the runtime role's key: a Sigstore bundle's JSON.
pub fn sign_runner(statement: &RunnerStatement, key: &SigningKey) -> Vec<u8> {
    let name = format!("runner:{}", statement.target);
    sign_statement(&name, &statement.module.digest, RUNNER_PREDICATE, statement, key)
}
