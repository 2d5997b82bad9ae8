//! The documents that are signed: trust root, runner and release statements, assignment, pointer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Counter, DeploymentRef, Digest, Escalation, FleetId, GatewayId, NamespaceUid, ReleaseNumber, TargetName};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Trust roots.
    Root,
    /// Runner (and user module) statements: native code.
    Runtime,
    /// Release statements: data only.
    Release,
    /// Assignments' pointers.
    Assignment,
}

/// The public keys of one role and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleKeys {
    /// Key id (hex SHA-256 of the DER SubjectPublicKeyInfo) → PEM.
    pub keys: BTreeMap<String, String>,
    /// Distinct keys that must have signed; at least 1.
    pub threshold: u32,
}

/// Payload of the trust root's envelope. Version N+1 is signed by the root keys of N and of N+1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustRoot {
    /// 1.
    pub format: u32,
    /// The fleet it is for.
    pub fleet: FleetId,
    /// Grows by one; walked one by one.
    pub version: u64,
    /// A higher epoch resets counters.
    pub epoch: u32,
    /// Bundles of older compilers are refused.
    pub minimum_compiler: u32,
    /// All four roles.
    pub roles: BTreeMap<Role, RoleKeys>,
    /// PEM certificates that sign the fleet's server and the gateways.
    pub ca: Vec<String>,
    /// `https://host:port` of the fleet's server, in order of preference.
    pub endpoints: Vec<String>,
    /// When it was made; a floor for clocks.
    pub issued: UnixMillis,
}

/// Digest and size of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Blob {
    /// Of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Predicate of a release statement (`https://ballast.dev/release/v1`); the subject is the bundle's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseStatement {
    /// Whose release it is.
    pub deployment: DeploymentRef,
    /// `spec.model.version`.
    pub version: String,
    /// Epoch and counter.
    pub number: ReleaseNumber,
    /// The one target that this bundle is for.
    pub target: TargetName,
    /// Runner ABI that the plan needs.
    pub abi: u32,
    /// The compiler's integer version.
    pub compiler: u32,
    /// The bundle's manifest (also the statement's subject).
    pub manifest: Blob,
    /// The four layers.
    pub layers: ReleaseLayers,
}

/// Layers of a bundle. There is no room for code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseLayers {
    /// `weights.bin`: in final layout, uncompressed.
    pub weights: Blob,
    /// `plan.bin`.
    pub plan: Blob,
    /// `contract.json`.
    pub contract: Blob,
    /// `golden.safetensors`.
    pub golden: Blob,
}

/// Predicate of a runner statement (`https://ballast.dev/runner/v1`); the subject is the native module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunnerStatement {
    /// Grows with every new runner.
    pub number: ReleaseNumber,
    /// Built for this target.
    pub target: TargetName,
    /// Rust triple that the code was generated for.
    pub triple: String,
    /// CPU features that the code may use (Rust's names).
    pub cpu_features: Vec<String>,
    /// Hash of the engine profile (every Wasmtime tunable).
    pub profile: Digest,
    /// Full version of the engine, `wasmtime 48.0.8`: patch releases are not told apart by Wasmtime itself.
    pub engine: String,
    /// Runner ABI it speaks.
    pub abi: u32,
    /// Major versions of the plan format that it runs.
    pub plan_majors: Vec<u16>,
    /// Digest of the Wasm module it was compiled from.
    pub wasm: Digest,
    /// The precompiled module.
    pub module: Blob,
}

/// Where a release's bundle is and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseRef {
    /// For people and for the answers' `model_version`.
    pub version: String,
    /// Epoch and counter.
    pub number: ReleaseNumber,
    /// Repository below `/v2/`.
    pub repository: String,
    /// The bundle's OCI manifest.
    pub manifest: Blob,
    /// The Sigstore bundle with the release statement, a blob of the same repository.
    pub statement: Blob,
}

/// Where a runner is and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunnerRef {
    /// Repository below `/v2/`.
    pub repository: String,
    /// The precompiled module.
    pub module: Blob,
    /// The Sigstore bundle with the runner statement, a blob of the same repository.
    pub statement: Blob,
}

/// When a Trial ends well.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrialPolicy {
    /// At least so long.
    pub min_duration_millis: u64,
    /// At least so many requests; without traffic golden replays count.
    pub min_requests: u64,
    /// More failures than this roll back.
    pub max_failures: u64,
}

/// What one deployment's releases are on the gateways of an audience.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignedDeployment {
    /// Whose.
    pub deployment: DeploymentRef,
    /// The name it is served under.
    pub model: String,
    /// What the gateway should run; `None` = wait (nothing is stable yet).
    pub want: Option<ReleaseRef>,
    /// What to keep loaded and fall back to, if it is not `want` itself: the last release that finished its steps.
    pub stable: Option<ReleaseRef>,
    /// For `want`, when it is not yet Active here.
    pub trial: TrialPolicy,
    /// Answers that the cloud is asked for; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
}

/// The content-addressed document that says what an audience runs. Not signed itself: the pointer names its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assignment {
    /// 1.
    pub format: u32,
    /// The namespace whose gateways it is for.
    pub namespace: NamespaceUid,
    /// The target whose gateways it is for.
    pub target: TargetName,
    /// The runner for that target.
    pub runner: Option<RunnerRef>,
    /// Sorted by deployment; one that is absent is withdrawn.
    pub deployments: Vec<AssignedDeployment>,
}

/// Whom a pointer is for: exactly one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Audience {
    /// The installation.
    pub fleet: FleetId,
    /// The namespace.
    pub namespace: NamespaceUid,
    /// The gateway.
    pub gateway: GatewayId,
}

/// Payload of the pointer's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pointer {
    /// 1.
    pub format: u32,
    /// For one gateway.
    pub audience: Audience,
    /// Of the [`Assignment`]'s bytes.
    pub assignment: Blob,
    /// Epoch of the trust root it was signed under.
    pub epoch: u32,
    /// Never goes back on one gateway: `max(last + 1, Unix ms)`.
    pub sequence: Counter,
    /// A floor for the gateway's clock.
    pub issued: UnixMillis,
    /// Refused for new installs after this; what runs keeps serving.
    pub expires: UnixMillis,
}

/// DSSE envelope (secure-systems-lab/dsse, protocol v1.0.0) as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64 of the payload.
    pub payload: String,
    /// Media type of the payload.
    pub payload_type: String,
    /// One or more.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an [`Envelope`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSignature {
    /// Hex SHA-256 of the key's DER SubjectPublicKeyInfo; a hint only. Statements have none, see `sign_statement`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub keyid: String,
    /// Base64 of the DER ECDSA signature over `DSSEv1 <len> <type> <len> <payload>`.
    pub sig: String,
}
