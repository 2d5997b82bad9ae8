//! ModelDeployment: the user's wish.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Escalation, GatewaySelector, Model, ModelDeploymentStatus, Rollout, Runtime, TargetChoice, Verification};

/// This model, this version, on the gateways that match, rolled out like so.
#[allow(clippy::duplicated_attributes)] // every printcolumn has a type_ and a json_path of its own
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    shortname = "mdep",
    category = "ballast",
    namespaced,
    status = "ModelDeploymentStatus",
    derive = "PartialEq",
    doc = "This model, this version, on the gateways that match, rolled out like so.",
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.model.version"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.rollout.step"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.gateways.failed"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.updateRelease.digest", priority = 1),
    printcolumn(name = "Variants", type_ = "string", json_path = ".status.targets[*].variant", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentSpec {
    /// What runs.
    pub model: Model,
    /// On which gateways of this namespace.
    pub gateway_selector: GatewaySelector,
    /// For which HardwareTargets; none: every one found among the selected gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub targets: Vec<TargetChoice>,
    /// Within which limits.
    #[serde(default)]
    pub runtime: Runtime,
    /// What it must prove.
    #[serde(default)]
    pub verification: Verification,
    /// Which answers the cloud is asked for; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
    /// How it reaches the gateways.
    #[serde(default)]
    pub rollout: Rollout,
    /// How many old releases can still be gone back to.
    #[serde(default = "default_revision_history_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: i32,
}

fn default_revision_history_limit() -> i32 {
    5
}

impl ModelDeployment {
    /// The name that the model is served under.
    pub fn model_name(&self) -> &str {
        self.spec.model.name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
