//! Verification, in the order that the gateway keeps: signature by the role's key → epoch, sequence, counter not below the
//! floor → not expired → audience is mine → digest and size of every byte ([`StreamVerifier`]).
//!
//! What arrives is [`Unverified`] and has no way to run; [`Verified`] comes only from here.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::envelope::verify_statement;
use crate::sign::{POINTER_TYPE, RELEASE_PREDICATE, ROOT_TYPE, RUNNER_PREDICATE};
use crate::{
    Assignment, Audience, Counter, DeploymentRef, Digest, Envelope, FleetId, Pointer, ReleaseNumber, ReleaseRef,
    ReleaseStatement, Role, RoleKeys, RunnerRef, RunnerStatement, TargetName, TrustRoot, UnixMillis,
};

/// Largest signed document or assignment.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// Clock skew that is tolerated: one day.
pub const CLOCK_SKEW_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// The format number that this version reads and writes.
pub const FORMAT: u32 = 1;

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
    #[error("issued at {issued} ms, more than a day after now ({now} ms since 1970)")]
    FromTheFuture { issued: u64, now: u64 },
    #[error("the pointer is for another gateway")]
    Audience,
    #[error("the statement is for target {found}, this gateway's is {mine}")]
    Target { mine: TargetName, found: TargetName },
    #[error("the statement speaks of another {0} than the assignment")]
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

/// Bytes or a document that nobody has checked yet: it can be verified or dropped, nothing else.
#[derive(Debug, Clone)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    /// Whatever came from outside.
    pub const fn new(inner: T) -> Self {
        Self(inner)
    }
}

/// A document that was verified. Only this crate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Gives the document up; what comes out counts as unverified again wherever types are asked.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a gateway never goes below. Sequence: raised when a pointer is verified and durable. Releases: raised only at
/// Active (raising it earlier locked others out: tough CVE-2025-2888, go-tuf CVE-2022-29173).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Floors {
    /// Of pointers.
    pub sequence: Counter,
    /// Of each deployment's releases; a list, since JSON keys are strings.
    #[serde(with = "release_floors")]
    pub releases: BTreeMap<DeploymentRef, ReleaseNumber>,
    /// Of runners.
    pub runner: ReleaseNumber,
}

mod release_floors {
    use super::{BTreeMap, DeploymentRef, Deserialize, ReleaseNumber, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Floor {
        deployment: DeploymentRef,
        number: ReleaseNumber,
    }

    pub(super) fn serialize<S: serde::Serializer>(
        floors: &BTreeMap<DeploymentRef, ReleaseNumber>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(
            floors.iter().map(|(deployment, number)| Floor { deployment: deployment.clone(), number: *number }),
        )
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<DeploymentRef, ReleaseNumber>, D::Error> {
        Ok(Vec::<Floor>::deserialize(d)?.into_iter().map(|f| (f.deployment, f.number)).collect())
    }
}

/// A gateway's time: clocks that stood still or were never set do not make old documents fresh.
pub fn trusted_time(clock: UnixMillis, build: UnixMillis, last_issued: UnixMillis) -> UnixMillis {
    clock.max(build).max(last_issued)
}

fn role(root: &TrustRoot, role: Role) -> Result<&RoleKeys, VerifyError> {
    root.roles.get(&role).ok_or(VerifyError::NoRole(role))
}

fn parse_root(payload: &[u8]) -> Result<TrustRoot, VerifyError> {
    if payload.len() > MAX_DOCUMENT_BYTES {
        return Err(VerifyError::TooLarge { limit: MAX_DOCUMENT_BYTES });
    }
    let root: TrustRoot = serde_json::from_slice(payload)
        .map_err(|_| VerifyError::Malformed("not a trust root of a format this version reads"))?;
    if root.format != FORMAT {
        return Err(VerifyError::Format { found: root.format });
    }
    if root.roles.values().any(|r| r.threshold == 0 || r.threshold as usize > r.keys.len()) {
        return Err(VerifyError::Malformed("a role's threshold is 0 or above the number of its keys"));
    }
    Ok(root)
}

/// The payload before its signature was checked: only to learn which keys the document itself names.
fn peek_root(envelope: &Envelope) -> Result<TrustRoot, VerifyError> {
    use base64::Engine as _;
    let payload = base64::engine::general_purpose::STANDARD
        .decode(&envelope.payload)
        .map_err(|_| VerifyError::Malformed("the envelope's payload is not base64"))?;
    parse_root(&payload)
}

impl Unverified<Envelope> {
    /// The first root, over a connection whose CA the enrolment token pinned, or out of the gateway's own state: it must be
    /// signed by its own root keys.
    pub fn first_root(&self) -> Result<Verified<TrustRoot>, VerifyError> {
        let peeked = peek_root(&self.0)?;
        let payload = self.0.payload_signed_by(ROOT_TYPE, role(&peeked, Role::Root)?)?;
        for needed in [Role::Runtime, Role::Release, Role::Assignment] {
            role(&peeked, needed)?;
        }
        Ok(Verified(parse_root(&payload)?))
    }

    /// Version N+1, signed by the root keys of N and of N+1.
    pub fn next_root(&self, current: &Verified<TrustRoot>) -> Result<Verified<TrustRoot>, VerifyError> {
        self.0.payload_signed_by(ROOT_TYPE, role(current, Role::Root)?)?;
        let next = self.first_root()?;
        if next.version.checked_sub(1) != Some(current.version) {
            return Err(VerifyError::RootVersion { current: current.version, found: next.version });
        }
        if next.fleet != current.fleet {
            return Err(VerifyError::Fleet { mine: current.fleet.clone(), found: next.fleet.clone() });
        }
        if next.epoch < current.epoch {
            return Err(VerifyError::Epoch { root: current.epoch, found: next.epoch });
        }
        Ok(next)
    }

    /// A pointer for this very gateway, not older than the last one, not expired.
    ///
    /// Of the same sequence only the same document is acceptable; that is for the caller to compare, who keeps the last one.
    pub fn pointer(
        &self,
        root: &Verified<TrustRoot>,
        audience: &Audience,
        floors: &Floors,
        now: UnixMillis,
    ) -> Result<Verified<Pointer>, VerifyError> {
        let payload = self.0.payload_signed_by(POINTER_TYPE, role(root, Role::Assignment)?)?;
        let pointer: Pointer = serde_json::from_slice(&payload)
            .map_err(|_| VerifyError::Malformed("not a pointer of a format this version reads"))?;
        if pointer.format != FORMAT {
            return Err(VerifyError::Format { found: pointer.format });
        }
        if pointer.epoch != root.epoch {
            return Err(VerifyError::Epoch { root: root.epoch, found: pointer.epoch });
        }
        if pointer.sequence < floors.sequence {
            return Err(VerifyError::Sequence { floor: floors.sequence, found: pointer.sequence });
        }
        if pointer.expires.0.saturating_add(CLOCK_SKEW_MILLIS) <= now.0 {
            return Err(VerifyError::Expired { expires: pointer.expires.0, now: now.0 });
        }
        if pointer.issued > pointer.expires {
            return Err(VerifyError::Malformed("the pointer expires before it was issued"));
        }
        if pointer.audience != *audience {
            return Err(VerifyError::Audience);
        }
        Ok(Verified(pointer))
    }
}

impl Unverified<&[u8]> {
    /// The assignment that a verified pointer names, byte by byte.
    pub fn assignment(&self, pointer: &Verified<Pointer>) -> Result<Verified<Assignment>, VerifyError> {
        let bytes = self.0;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(VerifyError::TooLarge { limit: MAX_DOCUMENT_BYTES });
        }
        let mut stream = StreamVerifier::new(&pointer.assignment.digest, pointer.assignment.size);
        stream.update(bytes)?;
        stream.finish()?;
        let assignment: Assignment = serde_json::from_slice(bytes)
            .map_err(|_| VerifyError::Malformed("not an assignment of a format this version reads"))?;
        if assignment.format != FORMAT {
            return Err(VerifyError::Format { found: assignment.format });
        }
        if assignment.namespace != pointer.audience.namespace {
            return Err(VerifyError::Mismatch("namespace"));
        }
        Ok(Verified(assignment))
    }

    /// The release statement (a Sigstore bundle) of `want`, out of a verified assignment.
    pub fn release(
        &self,
        want: &ReleaseRef,
        deployment: &DeploymentRef,
        target: &TargetName,
        root: &Verified<TrustRoot>,
        floors: &Floors,
    ) -> Result<Verified<ReleaseStatement>, VerifyError> {
        let (statement, subject) =
            verify_statement::<ReleaseStatement>(self.0, RELEASE_PREDICATE, role(root, Role::Release)?)?;
        if statement.number.epoch > root.epoch {
            return Err(VerifyError::Epoch { root: root.epoch, found: statement.number.epoch });
        }
        let floor = floors.releases.get(deployment).copied().unwrap_or_default();
        if statement.number < floor {
            return Err(VerifyError::Counter { floor, found: statement.number });
        }
        if statement.target != *target {
            return Err(VerifyError::Target { mine: target.clone(), found: statement.target });
        }
        if statement.compiler < root.minimum_compiler {
            return Err(VerifyError::Compiler { minimum: root.minimum_compiler, found: statement.compiler });
        }
        let same = [
            ("deployment", statement.deployment == *deployment),
            ("number", statement.number == want.number),
            ("version", statement.version == want.version),
            ("manifest", statement.manifest == want.manifest && subject == want.manifest.digest),
        ];
        match same.into_iter().find(|(_, equal)| !equal) {
            Some((what, _)) => Err(VerifyError::Mismatch(what)),
            None => Ok(Verified(statement)),
        }
    }

    /// The runner statement (a Sigstore bundle) of `want`. Whether its engine, ABI and CPU features fit is the sandbox's question.
    pub fn runner(
        &self,
        want: &RunnerRef,
        target: &TargetName,
        root: &Verified<TrustRoot>,
        floors: &Floors,
    ) -> Result<Verified<RunnerStatement>, VerifyError> {
        let (statement, subject) =
            verify_statement::<RunnerStatement>(self.0, RUNNER_PREDICATE, role(root, Role::Runtime)?)?;
        if statement.number.epoch > root.epoch {
            return Err(VerifyError::Epoch { root: root.epoch, found: statement.number.epoch });
        }
        if statement.number < floors.runner {
            return Err(VerifyError::Counter { floor: floors.runner, found: statement.number });
        }
        if statement.target != *target {
            return Err(VerifyError::Target { mine: target.clone(), found: statement.target });
        }
        if statement.module != want.module || subject != want.module.digest {
            return Err(VerifyError::Mismatch("module"));
        }
        Ok(Verified(statement))
    }
}

/// Digest and size, checked while the bytes stream by: the byte after the last expected one is refused, however many follow.
#[derive(Debug, Clone)]
pub struct StreamVerifier {
    expected: Digest,
    size: u64,
    seen: u64,
    hash: sha2::Sha256,
}

impl StreamVerifier {
    /// For a blob of `size` bytes.
    pub fn new(expected: &Digest, size: u64) -> Self {
        Self { expected: *expected, size, seen: 0, hash: sha2::Digest::new() }
    }

    /// Bytes accepted so far.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes the next bytes; write them only after this returned.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        let seen = self.seen.saturating_add(bytes.len() as u64);
        if seen > self.size {
            return Err(VerifyError::TooLong { expected: self.size });
        }
        self.seen = seen;
        sha2::Digest::update(&mut self.hash, bytes);
        Ok(())
    }

    /// Whether it was all of them, and the right ones.
    pub fn finish(self) -> Result<(), VerifyError> {
        if self.seen != self.size {
            return Err(VerifyError::Truncated { expected: self.size, found: self.seen });
        }
        let found = Digest::from_raw(sha2::Digest::finalize(self.hash).into());
        if found == self.expected { Ok(()) } else { Err(VerifyError::Digest { expected: self.expected, found }) }
    }
}
