//! EnrollmentToken: lets gateways in.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Span;
use crate::schema::{labels, rules, texts};

/// Lets gateways enrol into this namespace. The value lands in the Secret `NAME-enrollment`, or in directory mode in
/// `STATE/tokens/NAME`.
#[allow(clippy::duplicated_attributes)] // every printcolumn has a type_ and a json_path of its own
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "EnrollmentToken",
    plural = "enrollmenttokens",
    category = "ballast",
    namespaced,
    status = "EnrollmentTokenStatus",
    derive = "PartialEq",
    doc = "Lets gateways enrol into this namespace.",
    printcolumn(name = "Uses", type_ = "integer", json_path = ".spec.uses"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expires"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentTokenSpec {
    /// Given to every gateway that enrols with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = texts(63), "x-kubernetes-validations" = labels()))]
    pub labels: BTreeMap<String, String>,
    /// How many gateways may enrol.
    #[serde(default = "default_uses")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub uses: i64,
    /// Counted from the object's creation.
    #[serde(default = "default_expires_after")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Span::RULE, Span::NOT_ZERO])))]
    pub expires_after: Span,
    /// A gateway that enrolled before may enrol again with a new key and keeps its place.
    #[serde(default)]
    pub allow_replace: bool,
}

fn default_uses() -> i64 {
    1
}

fn default_expires_after() -> Span {
    "24h".into()
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentTokenStatus {
    /// Gateways that enrolled with it.
    #[serde(default)]
    pub used: i64,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}
