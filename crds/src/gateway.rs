//! Gateway: what an administrator says of one gateway.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{labels, rules, texts};

/// Exists where an administrator says something of a gateway; named by the gateway's id. Never written by a heartbeat.
#[allow(clippy::duplicated_attributes)] // every printcolumn has a type_ and a json_path of its own
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "Gateway",
    plural = "gateways",
    category = "ballast",
    namespaced,
    derive = "PartialEq",
    doc = "Exists where an administrator says something of a gateway; named by the gateway's id.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "oldSelf.state != 'Revoked' || self.state == 'Revoked'",
    "a revoked gateway stays revoked, because its key is not trusted: enrol it again",
)])))]
pub struct GatewaySpec {
    /// Retired: out of service. Revoked: its key is not trusted any more.
    #[serde(default)]
    pub state: GatewayState,
    /// Instead of the labels that its token gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = texts(63), "x-kubernetes-validations" = labels()))]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Whether a gateway belongs to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum GatewayState {
    /// It does.
    #[default]
    Enrolled,
    /// Out of service; leaves every denominator and loses its connections.
    Retired,
    /// Its key is not trusted any more; for good.
    Revoked,
}
