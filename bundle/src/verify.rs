//! Verification, in the order that the gateway keeps: signature by the role's key → epoch, sequence, counter not below the
//! floor → not expired → audience is mine → digest and size of every byte ([`StreamVerifier`]).
//!
//! What arrives is [`Unverified`] and has no way to run; [`Verified`] comes only from here.

mod policy;

use std::collections::BTreeSet;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::envelope::{MAX_KEYS, NOT_P256, verify_statement};
use crate::signing::{POINTER_TYPE, RELEASE_PREDICATE, ROOT_TYPE, RUNNER_PREDICATE};
use crate::stream::whole;
use crate::{
    Assignment, Audience, Contract, DeploymentRef, Digest, Envelope, Floors, Pointer, ReleaseLayers, ReleaseRef,
    ReleaseStatement, Role, RoleKeys, RunnerRef, RunnerStatement, TargetName, TrustRoot, UnixMillis, VerifyError,
    VerifyingKey,
};

pub use policy::{MAX_POLICY_BYTES, MAX_POLICY_LIFE_MILLIS};

/// Largest trust root, pointer or assignment.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// Largest Sigstore bundle with a statement; the ones made here have about 2 KiB.
pub const MAX_STATEMENT_BYTES: usize = 64 << 10;
/// Largest contract: room for some thousand tensors.
pub const MAX_CONTRACT_BYTES: usize = 1 << 20;
/// Clock skew that is tolerated: one day.
pub const CLOCK_SKEW_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Longest life of a pointer, 400 days: what an air-gapped gateway may be given. A longer one is a mistake, and would let an
/// old assignment be installed for as long as it lives.
pub const MAX_POINTER_LIFE_MILLIS: u64 = 400 * 24 * 60 * 60 * 1000;
/// The format number that this version reads and writes.
pub const FORMAT: u32 = 1;

/// Bytes or a document that nobody has checked yet: it can be verified or dropped, nothing else.
///
/// ```compile_fail
/// # use ballast_bundle::{Pointer, Unverified};
/// # fn f(pointer: Pointer) -> u32 {
/// Unverified::new(pointer).epoch // it cannot be read
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    /// Whatever came from outside.
    pub const fn new(inner: T) -> Self {
        Self(inner)
    }
}

/// A document that was verified. Only this crate makes one.
///
/// ```
/// # use ballast_bundle::{Pointer, Verified};
/// # fn f(pointer: Verified<Pointer>) -> u32 {
/// pointer.epoch
/// # }
/// ```
/// ```compile_fail
/// # use ballast_bundle::{Pointer, Verified};
/// # fn f(pointer: Pointer) -> Verified<Pointer> {
/// Verified(pointer)
/// # }
/// ```
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

/// A gateway's time: clocks that stood still or were never set do not make old documents fresh.
pub fn trusted_time(clock: UnixMillis, build: UnixMillis, last_issued: UnixMillis) -> UnixMillis {
    clock.max(build).max(last_issued)
}

fn role(root: &TrustRoot, role: Role) -> Result<&RoleKeys, VerifyError> {
    root.roles.get(&role).ok_or(VerifyError::NoRole(role))
}

/// Reads a document of this crate; one of a later format is named as such, whatever fields it has.
fn read<T: DeserializeOwned>(bytes: &[u8], limit: usize, malformed: &'static str) -> Result<T, VerifyError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    if bytes.len() > limit {
        return Err(VerifyError::TooLarge { limit });
    }
    let Format { format } = serde_json::from_slice(bytes).map_err(|_| VerifyError::Malformed(malformed))?;
    if format != FORMAT {
        return Err(VerifyError::Format { found: format });
    }
    serde_json::from_slice(bytes).map_err(|_| VerifyError::Malformed(malformed))
}

fn parse_root(payload: &[u8]) -> Result<TrustRoot, VerifyError> {
    let root: TrustRoot = read(payload, MAX_DOCUMENT_BYTES, "not a trust root, or one with unknown fields")?;
    let mut seen = Vec::new();
    for keys in root.roles.values() {
        if keys.threshold == 0 || keys.threshold as usize > keys.keys.len() || keys.keys.len() > MAX_KEYS {
            return Err(VerifyError::Malformed(
                "a role's threshold is 0 or above its number of keys, or it has more than 16",
            ));
        }
        let mut of_role = Vec::new();
        for pem in keys.keys.values() {
            of_role.push(VerifyingKey::from_pem(pem).map_err(|_| VerifyError::Malformed(NOT_P256))?);
        }
        if of_role.iter().any(|key| seen.contains(key)) {
            return Err(VerifyError::Malformed(
                "the trust root gives one key two roles: who signs data must not sign code",
            ));
        }
        seen.append(&mut of_role);
    }
    Ok(root)
}

/// The payload before its signature was checked: only to learn which keys the document itself names.
fn peek_root(envelope: &Envelope) -> Result<TrustRoot, VerifyError> {
    parse_root(&envelope.decode_payload()?)
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
        let pointer: Pointer = read(&payload, MAX_DOCUMENT_BYTES, "not a pointer, or one with unknown fields")?;
        if pointer.epoch != root.epoch {
            return Err(VerifyError::Epoch { root: root.epoch, found: pointer.epoch });
        }
        if !floors.allows_pointer(pointer.epoch, pointer.sequence) {
            return Err(VerifyError::Sequence { floor: floors.sequence, found: pointer.sequence });
        }
        if pointer.expires.0.saturating_add(CLOCK_SKEW_MILLIS) <= now.0 {
            return Err(VerifyError::Expired { expires: pointer.expires.0, now: now.0 });
        }
        if pointer.issued > pointer.expires {
            return Err(VerifyError::Malformed("the pointer expires before it was issued"));
        }
        if pointer.expires.0.saturating_sub(pointer.issued.0) > MAX_POINTER_LIFE_MILLIS {
            return Err(VerifyError::Malformed("the pointer lives for more than 400 days"));
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
        whole(self.0, &pointer.assignment)?;
        let assignment: Assignment = read(self.0, MAX_DOCUMENT_BYTES, "not an assignment, or one with unknown fields")?;
        if assignment.namespace != pointer.audience.namespace {
            return Err(VerifyError::Mismatch("namespace"));
        }
        consistent(&assignment)?;
        Ok(Verified(assignment))
    }

    /// The release statement (a Sigstore bundle) of `want`, out of a verified assignment, for a new install.
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
        // A higher epoch is what the root role answers a lost release key with: what was signed before it is over.
        if statement.number.epoch != root.epoch {
            return Err(VerifyError::Epoch { root: root.epoch, found: statement.number.epoch });
        }
        let floor = floors.releases.get(deployment).copied().unwrap_or_default();
        if statement.number < floor {
            return Err(VerifyError::Counter { floor, found: statement.number });
        }
        if statement.compiler < root.minimum_compiler {
            return Err(VerifyError::Compiler { minimum: root.minimum_compiler, found: statement.compiler });
        }
        same_release(&statement, &subject, want, deployment, target)?;
        Ok(Verified(statement))
    }

    /// The release statement of what this gateway installed before, once more after a restart. The floor has passed a
    /// `fallback` by, and an epoch or a compiler may have; none of that stops what was installed from serving. `root` is the
    /// one that it was installed under: a key that was exchanged since stops new installs, not what runs.
    pub fn installed_release(
        &self,
        want: &ReleaseRef,
        deployment: &DeploymentRef,
        target: &TargetName,
        root: &Verified<TrustRoot>,
    ) -> Result<Verified<ReleaseStatement>, VerifyError> {
        let (statement, subject) =
            verify_statement::<ReleaseStatement>(self.0, RELEASE_PREDICATE, role(root, Role::Release)?)?;
        same_release(&statement, &subject, want, deployment, target)?;
        Ok(Verified(statement))
    }

    /// The OCI manifest of a bundle: byte for byte what the statement's subject names, with its four layers and no others.
    pub fn bundle_manifest(
        &self,
        statement: &Verified<ReleaseStatement>,
    ) -> Result<Verified<ReleaseLayers>, VerifyError> {
        whole(self.0, &statement.manifest)?;
        let layers = crate::manifest::parse_bundle_manifest(self.0)?;
        if layers != statement.layers {
            return Err(VerifyError::Mismatch("set of layers"));
        }
        Ok(Verified(layers))
    }

    /// `contract.json` of a bundle, which must speak of the same release as its statement.
    pub fn contract(&self, statement: &Verified<ReleaseStatement>) -> Result<Verified<Contract>, VerifyError> {
        whole(self.0, &statement.layers.contract)?;
        let contract: Contract = read(self.0, MAX_CONTRACT_BYTES, "not a contract, or one with unknown fields")?;
        if contract.target != statement.target {
            return Err(VerifyError::Target { mine: statement.target.clone(), found: contract.target });
        }
        let same = [("version", contract.version == statement.version), ("runner ABI", contract.abi == statement.abi)];
        match same.into_iter().find(|(_, equal)| !equal) {
            Some((what, _)) => Err(VerifyError::Mismatch(what)),
            None if contract.batch.as_ref().is_some_and(|batch| !batch.fits(&contract)) => {
                Err(VerifyError::Mismatch("batch axes"))
            }
            None if contract.state.as_ref().is_some_and(|state| !state.fits(&contract)) => {
                Err(VerifyError::Mismatch("carried state"))
            }
            None if contract.buckets.as_ref().is_some_and(|buckets| !buckets.fits(&contract)) => {
                Err(VerifyError::Mismatch("shapes"))
            }
            None => Ok(Verified(contract)),
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
        if statement.number.epoch != root.epoch {
            return Err(VerifyError::Epoch { root: root.epoch, found: statement.number.epoch });
        }
        let floor = floors.runner(target);
        if statement.number < floor {
            return Err(VerifyError::Counter { floor, found: statement.number });
        }
        same_runner(&statement, &subject, want, target)?;
        Ok(Verified(statement))
    }

    /// The runner statement of what this gateway installed before, once more after a restart, as
    /// [`installed_release`](Self::installed_release).
    pub fn installed_runner(
        &self,
        want: &RunnerRef,
        target: &TargetName,
        root: &Verified<TrustRoot>,
    ) -> Result<Verified<RunnerStatement>, VerifyError> {
        let (statement, subject) =
            verify_statement::<RunnerStatement>(self.0, RUNNER_PREDICATE, role(root, Role::Runtime)?)?;
        same_runner(&statement, &subject, want, target)?;
        Ok(Verified(statement))
    }
}

/// A statement whose signature was checked and nothing else: for people, who look at one without wanting it. It is not
/// [`Verified`], so nothing installs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedStatement {
    /// Data.
    Release(ReleaseStatement),
    /// Native code.
    Runner(RunnerStatement),
}

impl Unverified<&[u8]> {
    /// A Sigstore bundle's statement, if the keys of its kind's role signed it.
    pub fn signed_statement(&self, release: &RoleKeys, runtime: &RoleKeys) -> Result<SignedStatement, VerifyError> {
        let (predicate_type, _) = crate::envelope::claims(self.0)?;
        let (statement, named, subject) = if predicate_type == RUNNER_PREDICATE {
            let (runner, subject) = verify_statement::<RunnerStatement>(self.0, RUNNER_PREDICATE, runtime)?;
            (SignedStatement::Runner(runner.clone()), runner.module.digest, subject)
        } else {
            let (release, subject) = verify_statement::<ReleaseStatement>(self.0, RELEASE_PREDICATE, release)?;
            (SignedStatement::Release(release.clone()), release.manifest.digest, subject)
        };
        if named == subject { Ok(statement) } else { Err(VerifyError::Mismatch("subject")) }
    }
}

/// One namespace, names that can be paths and file names, nothing twice.
fn consistent(assignment: &Assignment) -> Result<(), VerifyError> {
    let malformed = |what: &'static str| Err(VerifyError::Malformed(what));
    let (mut models, mut deployments) = (BTreeSet::new(), BTreeSet::new());
    for assigned in &assignment.deployments {
        if assigned.deployment.namespace != assignment.namespace {
            return Err(VerifyError::Mismatch("namespace"));
        }
        if !is_name(&assigned.deployment.name) || !is_name(&assigned.model) {
            return malformed("the assignment has a name that no deployment or model can have");
        }
        if !models.insert(&assigned.model) || !deployments.insert(&assigned.deployment) {
            return malformed("the assignment has one model or deployment twice");
        }
        if !assigned.escalation.iter().all(|escalation| escalation.is_sound(is_name)) {
            return malformed("the assignment asks the cloud in a way that cannot be acted on");
        }
        let releases = assigned.want.iter().chain(&assigned.stable);
        if !releases.map(|release| release.repository.as_str()).all(is_repository) {
            return malformed("the assignment has a repository that no registry can have");
        }
    }
    if !assignment.runner.iter().all(|runner| is_repository(&runner.repository)) {
        return malformed("the assignment has a repository that no registry can have");
    }
    Ok(())
}

/// What `metadata.name` and `model.name` may be: it becomes a file name on the gateway and a part of paths.
fn is_name(name: &str) -> bool {
    let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    bytes.len() <= 253 && outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(inner)
}

/// OCI distribution's `name`, as far as ours go: parts between slashes.
fn is_repository(repository: &str) -> bool {
    repository.len() <= 255 && repository.split('/').all(is_name)
}

fn same_runner(
    statement: &RunnerStatement,
    subject: &Digest,
    want: &RunnerRef,
    target: &TargetName,
) -> Result<(), VerifyError> {
    if statement.target != *target {
        return Err(VerifyError::Target { mine: target.clone(), found: statement.target.clone() });
    }
    if statement.module != want.module || *subject != want.module.digest {
        return Err(VerifyError::Mismatch("module"));
    }
    Ok(())
}

fn same_release(
    statement: &ReleaseStatement,
    subject: &Digest,
    want: &ReleaseRef,
    deployment: &DeploymentRef,
    target: &TargetName,
) -> Result<(), VerifyError> {
    if statement.target != *target {
        return Err(VerifyError::Target { mine: target.clone(), found: statement.target.clone() });
    }
    let same = [
        ("deployment", statement.deployment == *deployment),
        ("number", statement.number == want.number),
        ("version", statement.version == want.version),
        ("manifest", statement.manifest == want.manifest && *subject == want.manifest.digest),
    ];
    match same.into_iter().find(|(_, equal)| !equal) {
        Some((what, _)) => Err(VerifyError::Mismatch(what)),
        None => Ok(()),
    }
}
