//! What the operator says of a ModelDeployment. Aggregates only: the object's size never depends on the fleet's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Failures that a status shows at most, the newest first.
pub const MAX_FAILURES: usize = 10;

/// What the operator says of a ModelDeployment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// The generation that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people; programs read conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Ready, BundlesSigned, Reconciling, Stalled, Degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The last release that finished its steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_release: Option<ReleaseSummary>,
    /// The release of the observed generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_release: Option<ReleaseSummary>,
    /// One per HardwareTarget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub targets: Vec<TargetStatus>,
    /// Counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<GatewayCounts>,
    /// `118/120`: healthy of eligible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Where the rollout is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The newest few; never one entry per gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub failures: Vec<FailureSummary>,
}

/// One word for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Phase {
    /// Sources are fetched and compiled.
    Compiling,
    /// Signed, and nothing to send it to, or waiting for a first gateway.
    Waiting,
    /// Gateways take it step by step.
    RollingOut,
    /// It passed its last step.
    Active,
    /// A person stopped it, or it failed and waits for one.
    Paused,
    /// It failed on gateways and was withdrawn.
    RolledBack,
    /// Nothing was signed.
    Refused,
}

/// A release, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseSummary {
    /// `spec.model.version`.
    pub version: String,
    /// Within the epoch; absent before it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<i64>,
    /// Release identity.
    pub digest: String,
}

/// What became of the release for one target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The HardwareTarget.
    pub name: String,
    /// `Fits`, or why not.
    pub verdict: String,
    /// The variant that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What a gateway downloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Of one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<i64>,
    /// Per inference, as text: `0.17`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gflop: Option<String>,
    /// `3.4ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_latency: Option<String>,
    /// Work and time of each of `spec.model.inputs[].shapes`; the numbers above are those of the largest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub shapes: Vec<String>,
    /// Every instance with its spare, on one gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_memory_bytes: Option<i64>,
    /// From dequeue to answer, as given or derived: `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// How near the model comes to the user's golden vectors: share, worst differences and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<String>,
    /// For `spec.model.inputs`, where the model leaves dimensions open: whole, to be pasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Where the plan reproduced its golden vectors before it was signed. A gateway proves its own CPU when it probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<Proof>,
    /// Whose outputs the golden vectors expect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<GoldenOrigin>,
    /// `operator (node)`, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub unsupported_operators: Vec<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a plan was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Proof {
    /// In the sandbox of the operator's own machine, with the runner built for it.
    Host,
}

/// Whose outputs golden vectors expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum GoldenOrigin {
    /// The user's: they judge the model.
    User,
    /// The reference evaluator's: they catch miscompilation and bad hardware, not a bad model.
    Generated,
}

/// Gateways by what became of them. Every eligible gateway is in exactly one of `pending`, `updated` and `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayCounts {
    /// By the selector, enrolled.
    pub selected: i64,
    /// Of those, on a target that the release was built for.
    pub eligible: i64,
    /// Have not fetched the release.
    pub pending: i64,
    /// Fetched it, and have not failed on it.
    pub updated: i64,
    /// Of those, serve it (Active).
    pub healthy: i64,
    /// Voted against it, or fell silent with it.
    pub failed: i64,
    /// Not heard of for longer than the silence deadline.
    pub silent: i64,
    /// Selected, and not eligible.
    pub ineligible: i64,
}

/// Where the rollout is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// `2/3`.
    pub step: String,
    /// Advance, Wait, Soak, Pause, Halt, Complete.
    pub decision: String,
    /// Why, as the condition says it.
    pub reason: String,
    /// Since when, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// One failure on one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureSummary {
    /// Where.
    pub gateway: String,
    /// Version and counter.
    pub release: String,
    /// Of the gateway's report.
    pub reason: String,
    /// One sentence, at most 512 bytes.
    pub message: String,
    /// RFC 3339.
    pub time: String,
}
