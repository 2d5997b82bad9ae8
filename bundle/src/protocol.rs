//! Bodies of the gateway protocol (HTTPS, JSON). `POST /v1/enroll`, `/v1/renew`, `/v1/sync`; every other call returns
//! a document of this crate or OCI bytes. Unknown fields are ignored, so that either side may be newer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DeploymentRef, Digest, Envelope, GatewayId, NamespaceUid, ReleaseNumber, TargetName};

/// What a gateway reports of itself. Never trusted for more than matching a HardwareTarget.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// `x86_64`, `aarch64`, … (Rust's `target_arch`).
    pub arch: String,
    /// `linux`.
    pub os: String,
    /// Rust's names, sorted, without those that the owner denies.
    pub cpu_features: Vec<String>,
    /// The owner lets no native code in: only targets of Wasmtime's interpreter fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interpreter: bool,
    /// Bytes that Ballast may use for guests.
    pub memory_bytes: u64,
    /// Bytes that Ballast may use for its store.
    pub disk_bytes: u64,
    /// Version of ballast-edge.
    pub agent: String,
    /// `wasmtime 48.0.8`.
    pub engine: String,
    /// Measured with the runner's micro-benchmark; absent before the first runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// From the owner's configuration; read by `match.facts`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// Measured speed of one thread in the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    /// f32 matrix product, GFLOP/s.
    pub gflops: f64,
    /// Streaming read, GB/s.
    pub memory_bandwidth: f64,
}

/// `POST /v1/enroll`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollRequest {
    /// The enrolment token's secret part.
    pub token: String,
    /// PKCS#10, PEM. Names in it are ignored. The same key again gives the same gateway.
    pub csr: String,
    /// The gateway's own wish for a readable name (its host name); a hint for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// First facts.
    pub facts: Facts,
}

/// Answer to enrol and renew.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Chosen by the operator.
    pub gateway: GatewayId,
    /// The token's namespace.
    pub namespace: NamespaceUid,
    /// PEM: the gateway's certificate, then the CA.
    pub certificate: String,
    /// The newest trust root's envelope; payload type `application/vnd.ballast.root.v1+json`.
    pub root: Envelope,
}

/// `POST /v1/renew`: over mutual TLS, or with an expired certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewRequest {
    /// PKCS#10, PEM.
    pub csr: String,
}

/// Where a release is on a gateway (design: `Idle → Fetching → Verified → Probing → Trial → Active`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are the design's
pub enum ReleaseState {
    Fetching,
    Verified,
    Probing,
    Trial,
    Active,
    RolledBack,
    /// Cannot be tried here now (memory, disk); not a failure.
    Deferred,
}

/// Why a release was rolled back, refused or deferred on a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureReason {
    /// A statement, digest, size, target or number did not verify.
    VerificationFailed,
    /// The plan, contract or golden file could not be read, or asks for what this runner does not do.
    InvalidBundle,
    /// Golden vectors were not reproduced.
    GoldenMismatch,
    /// The guest trapped.
    Trap,
    /// The guest missed its deadline.
    DeadlineExceeded,
    /// An output was not finite.
    NotFinite,
    /// p99 above the limit while the fallback was not.
    LatencyExceeded,
    /// The process died within seconds of the release's events.
    CrashLoop,
    /// Does not fit beside what runs. Unknown, not a failure.
    InsufficientMemory,
    /// Does not fit the store. Unknown, not a failure.
    InsufficientDisk,
}

impl FailureReason {
    /// Whether it counts against the release; the others are unknown and wait.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::VerificationFailed
            | Self::InvalidBundle
            | Self::GoldenMismatch
            | Self::Trap
            | Self::DeadlineExceeded
            | Self::NotFinite
            | Self::LatencyExceeded
            | Self::CrashLoop => true,
            Self::InsufficientMemory | Self::InsufficientDisk => false,
        }
    }
}

/// What a gateway says of one release. The same report may come many times; the newest one counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseReport {
    /// Whose release.
    pub deployment: DeploymentRef,
    /// Epoch and counter.
    pub number: ReleaseNumber,
    /// The bundle's manifest.
    pub manifest: Digest,
    /// For people.
    pub version: String,
    /// Where it is.
    pub state: ReleaseState,
    /// Set when RolledBack or Deferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// One sentence for people; at most 512 bytes are kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Answered by this release since it entered its state's slot.
    pub requests: u64,
    /// Of those, how many failed.
    pub failures: u64,
    /// Detection to first answer by the fallback, microseconds; set when rolled back while serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_micros: Option<u64>,
    /// 99th percentile of the newest minute, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p99_micros: Option<u64>,
}

/// `POST /v1/sync` (mutual TLS).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncRequest {
    /// Digest of the JSON of [`Facts`].
    pub facts_digest: Digest,
    /// Sent when they changed, or when the last answer asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// Newest trust root that the gateway accepted.
    pub root_version: u64,
    /// The assignment in force here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Digest>,
    /// One per release that is in a slot or was rejected since the last acknowledged sync.
    pub reports: Vec<ReleaseReport>,
}

/// Answer to sync.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncResponse {
    /// The pointer's envelope; payload type `application/vnd.ballast.pointer.v1+json`.
    /// Absent while nothing can be said of this gateway (no target matches).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<Envelope>,
    /// The target that the operator matched; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// Newest trust root; fetch `GET /v1/roots/{n}` one by one up to it.
    pub root_version: u64,
    /// Milliseconds until the next sync, jittered by the operator.
    pub wait_millis: u64,
    /// Send [`Facts`] next time.
    #[serde(default)]
    pub need_facts: bool,
}

/// Body of every error answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, where, and what to do.
    pub error: String,
}
