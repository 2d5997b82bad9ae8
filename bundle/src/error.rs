//! Why verification fails. Every variant is final for these bytes: fetch again or leave it, trying once more helps nothing.

use crate::{Counter, Digest, FORMAT, FleetId, ReleaseNumber, Role, TargetName};

/// Why a document or a blob was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each variant's sentence says what its fields are
pub enum VerifyError {
    #[error("malformed document: {0}")]
    Malformed(&'static str),
    #[error("the document is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("expected a document of type {expected}, found {found:?}")]
    PayloadType { expected: String, found: String },
    #[error("{valid} of {needed} needed signatures by the role's keys")]
    Signature { valid: usize, needed: usize },
    #[error("the trust root has no {0:?} role")]
    NoRole(Role),
    #[error("format {found} is newer than this version reads ({FORMAT}): upgrade first")]
    Format { found: u32 },
    #[error("trust root version {found} does not follow {current}: versions are walked one by one")]
    RootVersion { current: u64, found: u64 },
    #[error("made for fleet {found}, this is {mine}")]
    Fleet { mine: FleetId, found: FleetId },
    #[error("epoch {found} is not the trust root's epoch {root}")]
    Epoch { root: u32, found: u32 },
    #[error("sequence {found} is below {floor}, which was accepted before: a replay")]
    Sequence { floor: Counter, found: Counter },
    #[error("release {found} is below the floor {floor}")]
    Counter { floor: ReleaseNumber, found: ReleaseNumber },
    #[error("expired at {expires} ms, it is {now} ms since 1970: nothing new is installed from it")]
    Expired { expires: u64, now: u64 },
    #[error("the pointer is for another gateway")]
    Audience,
    #[error("the statement is for target {found}, this gateway's is {mine}")]
    Target { mine: TargetName, found: TargetName },
    #[error("what was signed speaks of another {0}: documents of different releases are mixed")]
    Mismatch(&'static str),
    #[error("made by compiler {found}, the trust root demands {minimum}")]
    Compiler { minimum: u32, found: u32 },
    #[error("wrong digest: expected {expected}, found {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("ends after {found} bytes, expected {expected}")]
    Truncated { expected: u64, found: u64 },
    #[error("goes on after the {expected} bytes that were expected")]
    TooLong { expected: u64 },
}
