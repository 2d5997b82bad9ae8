//! What is said of a model and a target before a byte is shipped: everything at once, in numbers for programs and in sentences
//! for people.

use std::collections::BTreeMap;

use ballast_bundle::{Deviation, GoldenMatch};
use serde::{Deserialize, Serialize};

/// Why a model fits or does not. The first that applies, in this order after `Fits`; the message names them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VerdictReason {
    /// It fits.
    Fits,
    /// Not an ONNX file, or cut off, or one that contradicts itself.
    NotOnnx,
    /// Operators that are not known, or that the target denies; all are listed.
    UnsupportedOperators,
    /// Tensors of types that are not supported.
    UnsupportedType,
    /// Dimensions are left open; the verdict has the YAML that closes them.
    OpenDimensions,
    /// `spec.model.inputs` names what the model does not have, or shapes that do not work out.
    InvalidInputs,
    /// It needs more memory than one instance may take on this target.
    MemoryExceeded,
    /// The predicted time is above the deadline.
    DeadlineExceeded,
    /// The golden file cannot be used with this model.
    InvalidGolden,
    /// The model does not do what the user's golden vectors ask, or the compiled plan not what the reference does.
    GoldenMismatch,
    /// A step of the model cannot be lowered; this is a gap of the compiler.
    NotLowered,
}

impl VerdictReason {
    /// Whether the file itself or what was given with it cannot be used, on any target.
    pub const fn is_bad_input(self) -> bool {
        match self {
            Self::NotOnnx | Self::InvalidInputs | Self::InvalidGolden => true,
            Self::Fits
            | Self::UnsupportedOperators
            | Self::UnsupportedType
            | Self::OpenDimensions
            | Self::MemoryExceeded
            | Self::DeadlineExceeded
            | Self::GoldenMismatch
            | Self::NotLowered => false,
        }
    }
}

/// One operator that is not supported at one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnsupportedOperator {
    /// With its domain when that is not ONNX's own, as in `com.microsoft.Attention`.
    pub operator: String,
    /// The node's name, or that of its first output.
    pub node: String,
    /// What would do instead, or what exactly of it is not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// An input whose shape the model leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenInput {
    /// Its name.
    pub name: String,
    /// What the model says of each dimension: a number, a name, or `?`; absent when it says nothing of the shape.
    pub dimensions: Option<Vec<String>>,
    /// Numbers to begin with.
    pub suggested: Option<Vec<u64>>,
}

/// What a gateway needs, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryNeed {
    /// The guest's whole memory, of one instance.
    pub instance_bytes: u64,
    /// Of that: weights.
    pub weights_bytes: u64,
    /// Of that: activations at their peak.
    pub activations_bytes: u64,
    /// Instances that serve at once: `runtime.instances`.
    pub instances: u32,
    /// What gateways carry from request to request of as many sequences as there may be: `runtime.sequences.max`.
    #[serde(default)]
    pub state_bytes: u64,
    /// All instances, the spare, and that state.
    pub serving_bytes: u64,
    /// While the next version of the same size is tried beside it.
    pub rollout_bytes: u64,
    /// Most that one instance may take: `runtime.memoryLimit`.
    pub limit_bytes: u64,
    /// What the target has for guests.
    pub target_bytes: u64,
}

/// One of several shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShapeNeed {
    /// Shapes by input.
    pub inputs: BTreeMap<String, Vec<u64>>,
    /// 10⁹ f32 operations per inference.
    pub gflop: f64,
    /// 0 when the target's speed is not known.
    pub predicted_latency_millis: f64,
}

impl std::fmt::Display for ShapeNeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inputs: Vec<String> = self.inputs.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
        write!(f, "{}: {:.4} GFLOP", inputs.join(" with "), self.gflop)?;
        if self.predicted_latency_millis > 0.0 {
            write!(f, ", {:.2} ms predicted", self.predicted_latency_millis)?;
        }
        Ok(())
    }
}

/// How near answers come to golden vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accuracy {
    /// How many were run.
    pub vectors: u64,
    /// How many have what is compared.
    pub matching: u64,
    /// What is compared: numbers within tolerance, or labels.
    pub compared: GoldenMatch,
    /// How many must match, per mille.
    pub needed_per_mille: u32,
    /// Largest difference in the output's unit, allowed or not; absent where the file has no numbers.
    pub worst_absolute: Option<Deviation>,
    /// Largest difference as a share of what is expected, or of the absolute tolerance where less than that is expected.
    pub worst_relative: Option<Deviation>,
}

impl std::fmt::Display for Accuracy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.compared {
            GoldenMatch::Values => "are within tolerance",
            GoldenMatch::ArgMax => "have the right label",
        };
        write!(f, "{} of {} golden vectors {what}", self.matching, self.vectors)?;
        if let Some(worst) = &self.worst_absolute {
            let Deviation { output, vector, element, found, expected, by } = worst;
            write!(
                f,
                "; worst difference {by:.3e} ({output:?}, vector {vector}, element {element}: {found} instead of {expected})"
            )?;
        }
        if let Some(worst) = &self.worst_relative {
            write!(
                f,
                ", relative {:.3e} ({:?}, vector {}, element {})",
                worst.by, worst.output, worst.vector, worst.element
            )?;
        }
        Ok(())
    }
}

/// Whether a model fits a target, with numbers; reached before a byte is shipped. Numbers are 0 or absent where it was not
/// possible to know them; `unknown` says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// Whether a bundle can be made.
    pub fits: bool,
    /// Why, or why not.
    pub reason: VerdictReason,
    /// All of them.
    #[serde(default)]
    pub unsupported: Vec<UnsupportedOperator>,
    /// Tensors of types that are not supported, a sentence each.
    #[serde(default)]
    pub unsupported_types: Vec<String>,
    /// Inputs whose shapes the model leaves open. With suggestions that work, the numbers below are of those.
    #[serde(default)]
    pub open_inputs: Vec<OpenInput>,
    /// For `spec.model.inputs`, whole: what was given, and suggestions for what is open. Absent when nothing is open.
    #[serde(default)]
    pub inputs_yaml: Option<String>,
    /// The guest's whole memory, bytes, of one instance.
    pub peak_memory_bytes: u64,
    /// With every instance, the spare, and a candidate beside them.
    #[serde(default)]
    pub memory: Option<MemoryNeed>,
    /// Plan and weights, bytes.
    pub size_bytes: u64,
    /// 10⁹ f32 operations per inference (a multiply-add is two).
    pub gflop: f64,
    /// From `gflop`, bytes moved and the target's speed; 0 when that is not known.
    pub predicted_latency_millis: f64,
    /// Work and time of each shape where there are several, in the order of `spec.model.inputs[].shapes`; the numbers above are
    /// those of the largest.
    #[serde(default)]
    pub shapes: Vec<ShapeNeed>,
    /// From dequeue to answer, as given or derived from the predicted time; 0 when there is no prediction.
    #[serde(default)]
    pub deadline_millis: u64,
    /// The model against the user's golden vectors, by the reference evaluator. Absent without them, or before they were run.
    #[serde(default)]
    pub accuracy: Option<Accuracy>,
    /// The compiled plan against the reference evaluator, in the sandbox of this machine. Absent before it was run.
    #[serde(default)]
    pub proof: Option<Accuracy>,
    /// What was assumed, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What could not be known, and what it needs to be, a sentence each.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// What a person reads: what is wrong, where, and what to do; also notes on what was assumed.
    pub message: String,
}

impl Verdict {
    /// One that says this and no more.
    pub const fn new(reason: VerdictReason, message: String) -> Self {
        Self {
            fits: matches!(reason, VerdictReason::Fits),
            reason,
            unsupported: Vec::new(),
            unsupported_types: Vec::new(),
            open_inputs: Vec::new(),
            inputs_yaml: None,
            peak_memory_bytes: 0,
            memory: None,
            size_bytes: 0,
            gflop: 0.0,
            predicted_latency_millis: 0.0,
            shapes: Vec::new(),
            deadline_millis: 0,
            accuracy: None,
            proof: None,
            notes: Vec::new(),
            unknown: Vec::new(),
            message,
        }
    }

    /// The same, refused after all: later than its numbers were known.
    #[must_use]
    pub fn refused(self, reason: VerdictReason, message: String) -> Self {
        Self { fits: false, reason, message, ..self }
    }
}
