//! HardwareTarget: a class of hardware.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{rules, texts};
use crate::{ByteQuantity, Decimal};

/// A class of hardware: what code may use there, and what makes a gateway match it.
#[allow(clippy::duplicated_attributes)] // every printcolumn has a type_ and a json_path of its own
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "HardwareTarget",
    plural = "hardwaretargets",
    shortname = "hwt",
    category = "ballast",
    derive = "PartialEq",
    doc = "A class of hardware: what code may use there, and what makes a gateway match it.",
    printcolumn(name = "Triple", type_ = "string", json_path = ".spec.triple"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.memory"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Features", type_ = "string", json_path = ".spec.cpuFeatures", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "self == oldSelf",
    "a HardwareTarget cannot change, because bundles were built for it: make one with a new name",
)])))]
pub struct HardwareTargetSpec {
    /// Rust's target triple that code is generated for, or `pulley64` (`pulley32` where
    /// pointers have 32 bits) for the portable interpreter.
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^(x86_64-unknown-linux-(gnu|musl)|aarch64-unknown-linux-(gnu|musl)|pulley(32|64))$')",
        "write x86_64-unknown-linux-musl, aarch64-unknown-linux-musl (or -gnu), pulley64 or pulley32",
    )])))]
    pub triple: String,
    /// CPU features that code may use, by Rust's names; a gateway must report all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"), inner(length(min = 1, max = 32)))]
    pub cpu_features: Vec<String>,
    /// Memory for guests that a gateway of this class has at least; what a verdict is reached against.
    pub memory: ByteQuantity,
    /// What models may not use here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operators: Option<OperatorPolicy>,
    /// The highest priority wins, then the most features, then the name.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Narrows what the triple and the features say.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<TargetMatch>,
    /// An estimate, until a gateway has measured itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<TargetSpeed>,
    /// For later decisions between edge and cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<TargetPower>,
}

/// ONNX operators that are refused on a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatorPolicy {
    /// By the name that models write: `LSTM`, or `com.microsoft.Gelu`. What the compiler makes of an operator does not count;
    /// one that folds into a constant is not refused.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"), inner(length(min = 1, max = 64)))]
    pub deny: Vec<String>,
}

/// What a gateway's own word about itself must be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetMatch {
    /// Facts with exactly these values: those of the gateway's configuration.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = texts(253)))]
    pub facts: BTreeMap<String, String>,
}

/// Speed of one thread in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetSpeed {
    /// f32 matrix product, GFLOP/s.
    pub gflops: Decimal,
    /// Streaming read, GB/s.
    pub memory_bandwidth: Decimal,
}

/// Power of the whole box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetPower {
    /// Doing nothing, W.
    pub idle_watts: Decimal,
    /// All cores busy, W.
    pub active_watts: Decimal,
}
