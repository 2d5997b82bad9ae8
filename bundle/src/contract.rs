//! The contract: what a model takes and gives, and within which limits it runs (`contract.json`).

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::buckets::Buckets;
use crate::{Batch, State, TargetName};

/// Element types by their Open Inference Protocol names; little-endian, row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // the names are the protocol's
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp32,
    Fp64,
    Fp16,
    Bf16,
}

impl DataType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 4,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 8,
        }
    }
}

/// One input or output tensor; every dimension is static.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TensorSpec {
    /// As the model names it.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// Elements, or `None` when the product overflows.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d))
    }

    /// Bytes, or `None` on overflow.
    pub fn bytes(&self) -> Option<u64> {
        self.elements()?.checked_mul(self.datatype.size() as u64)
    }
}

impl TensorSpec {
    /// The first `count` indices along `axis` of a tensor of this shape: their shape and bytes. More than there are is all of
    /// them; bytes that are too few are left as they are.
    pub fn first<'b>(&self, axis: usize, count: u64, bytes: &'b [u8]) -> (Vec<u64>, Cow<'b, [u8]>) {
        let mut shape = self.shape.clone();
        let size = |dims: &[u64]| dims.iter().fold(1u64, |n, d| n.saturating_mul(*d));
        let Some((outer, [extent, inner @ ..])) = self.shape.split_at_checked(axis) else {
            return (shape, Cow::Borrowed(bytes));
        };
        let row = size(inner).saturating_mul(self.datatype.size() as u64);
        let (whole, part) = (extent.saturating_mul(row), count.min(*extent).saturating_mul(row));
        if part == whole || self.bytes() != Some(bytes.len() as u64) {
            return (shape, Cow::Borrowed(bytes));
        }
        if let Some(extent) = shape.get_mut(axis) {
            *extent = count;
        }
        if size(outer) == 1 {
            return (shape, Cow::Borrowed(bytes.get(..part as usize).unwrap_or(bytes)));
        }
        let each = bytes.chunks_exact(whole as usize).flat_map(|b| b.get(..part as usize).unwrap_or(b));
        (shape, Cow::Owned(each.copied().collect()))
    }
}

/// An output of which only as many rows are valid as another output says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CountedOutput {
    /// The output; its shape has room for as many as there can be.
    pub output: String,
    /// The output, an INT64 scalar, that says how many.
    pub count: String,
    /// The dimension that is counted.
    pub axis: u32,
}

/// How golden vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoldenMatch {
    /// Numbers within [`Tolerance`].
    Values,
    /// The index of the largest element along the last axis equals the label.
    ArgMax,
}

/// `|a − b| ≤ absolute + relative · |b|`, b the expected value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tolerance {
    /// In the output's unit; finite, 0 or more.
    #[serde(deserialize_with = "allowance")]
    pub absolute: f64,
    /// A share of the expected value; finite, 0 or more.
    #[serde(deserialize_with = "allowance")]
    pub relative: f64,
}

/// Below 0 not even the expected value itself would be met.
fn allowance<'de, D: Deserializer<'de>>(read: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(read)?;
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(D::Error::custom(format!("a tolerance is 0 or more, not {value}")))
}

/// More than all of them cannot match.
fn per_mille<'de, D: Deserializer<'de>>(read: D) -> Result<u32, D::Error> {
    match u32::deserialize(read)? {
        value @ 0..=1000 => Ok(value),
        value => Err(D::Error::custom(format!("a share is 0 to 1000 per mille, not {value}"))),
    }
}

/// What a release must reproduce on this very gateway before it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verification {
    /// How `labels/<output>` of the golden vectors are compared, when the user gave labels.
    pub golden_match: GoldenMatch,
    /// Per mille of the vectors that must match (1000 = all).
    #[serde(deserialize_with = "per_mille")]
    pub min_matching_per_mille: u32,
    /// For `outputs/<output>`.
    pub tolerance: Tolerance,
    /// An output that is not finite counts as a failure.
    pub finite_outputs: bool,
    /// Judged in Trial against `fallback` in the same minute; milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency_p99_millis: Option<u64>,
    /// Whether the user gave the vectors, and so an opinion of the model; the expected outputs are the reference
    /// evaluator's either way.
    pub user_golden: bool,
}

/// Limits that the sandbox enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// The guest's whole linear memory, bytes, for one instance.
    pub memory_bytes: u64,
    /// From dequeue to answer, milliseconds.
    pub deadline_millis: u64,
    /// Instances that serve at once (one spare is kept besides).
    pub instances: u32,
    /// Requests that wait; more are refused.
    pub max_queue: u32,
}

/// `contract.json`: a layer of every bundle, covered by the release statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contract {
    /// 1.
    pub format: u32,
    /// The name it is served under.
    pub model: String,
    /// `spec.model.version`.
    pub version: String,
    /// The variant that was compiled.
    pub variant: String,
    /// Built for this target.
    pub target: TargetName,
    /// Runner ABI (major << 16 | minor) that the plan needs.
    pub abi: u32,
    /// Major version of the plan format.
    pub plan_major: u16,
    /// In the order of the plan's entry 0.
    pub inputs: Vec<TensorSpec>,
    /// In the order of the plan's entry 0.
    pub outputs: Vec<TensorSpec>,
    /// Outputs whose number of rows is computed. An answer has only the valid ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<CountedOutput>,
    /// What the sandbox enforces.
    pub limits: Limits,
    /// What Probing and Trial check.
    pub verification: Verification,
    /// Where clients may send several rows at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Inputs that the gateway fills in: what the model carries from request to request of a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Where requests may have other shapes than those of `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Buckets>,
}

impl Contract {
    /// How an output is counted, if it is.
    pub fn counted(&self, output: &str) -> Option<&CountedOutput> {
        self.counted.iter().find(|counted| counted.output == output)
    }
}
