//! What goes into the compiler and what comes out of it. All of it travels between processes as JSON.

use serde::{Deserialize, Serialize};

use ballast_bundle::{Reset, TargetName, Verification};

use crate::Verdict;

/// Grows by one whenever the same model and target would give other bytes. A test holds digests of known models beside it.
pub const COMPILER_VERSION: u32 = 5;

/// Largest model that is read: protobuf's own limit of one message.
pub const MAX_MODEL_BYTES: usize = 1 << 31;

/// The hardware to compile for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetSpec {
    /// The HardwareTarget's name.
    pub name: TargetName,
    /// As Rust writes it, for example `x86_64-unknown-linux-musl`.
    pub triple: String,
    /// By their Rust names, sorted.
    pub cpu_features: Vec<String>,
    /// What the device has, bytes.
    pub memory_bytes: u64,
    /// ONNX operators that must not be used there.
    #[serde(default)]
    pub deny: Vec<String>,
    /// 10⁹ f32 operations per second (a multiply-add is two), one thread, in the sandbox; 0 when not known.
    #[serde(default)]
    pub gflops: f64,
    /// Bytes per second, one thread; 0 when not known.
    #[serde(default)]
    pub memory_bandwidth: f64,
}

/// Says what the model leaves open of one input: `spec.model.inputs[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputOverride {
    /// As the model names the input.
    pub name: String,
    /// Every dimension, outermost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
    /// Fixes the input: it becomes a constant of the model. Row-major; one element fills the whole tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Vec<f64>>,
    /// The axis along which a client may send several rows. The model is compiled for one; that rows do not see each other is
    /// shown before anything is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_axis: Option<u32>,
    /// A few shapes instead of one; the first of one input goes with the first of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<Vec<u64>>,
    /// What a request shorter than a shape is filled up with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding: Option<InputPadding>,
    /// Clients do not send the input: gateways fill it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateOverride>,
}

/// What fills an input up, and which other input says so to the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputPadding {
    /// The input that is 0 where this one is filled up.
    pub mask: String,
    /// What this one is filled up with.
    #[serde(default)]
    pub value: i64,
}

/// What becomes of an input that clients do not send: `spec.model.inputs[].state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateOverride {
    /// The output that becomes the input of the sequence's next request.
    pub output: String,
    /// When it begins anew.
    #[serde(default)]
    pub reset: Reset,
    /// What it is in the beginning; none for zeros, one for all elements, or all of them, row-major.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initial: Vec<i64>,
}

/// Bounds of the sequences of a model with state: `runtime.sequences`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SequenceLimits {
    /// How many at once.
    pub max: u32,
    /// How long one is kept that no request comes for, milliseconds.
    pub max_idle_millis: u64,
}

impl Default for SequenceLimits {
    /// As `runtime.sequences` is by default.
    fn default() -> Self {
        Self { max: 256, max_idle_millis: 60_000 }
    }
}

/// Limits as the deployment and the target give them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeLimits {
    /// Most that one instance may take, bytes: `runtime.memoryLimit`.
    pub memory_limit: u64,
    /// From dequeue to answer; `None` = derived from the predicted time.
    #[serde(default)]
    pub deadline_millis: Option<u64>,
    /// Instances that serve at once.
    pub instances: u32,
    /// Requests that wait.
    pub max_queue: u32,
    /// Of a model with state.
    #[serde(default)]
    pub sequences: SequenceLimits,
}

/// One model for one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompileRequest {
    /// The ONNX file.
    #[serde(with = "base64_bytes")]
    pub model: Vec<u8>,
    /// The name it is served under.
    pub model_name: String,
    /// `spec.model.version`.
    pub version: String,
    /// Which variant this is.
    pub variant: String,
    /// Compile for this.
    pub target: TargetSpec,
    /// What the model leaves open.
    #[serde(default)]
    pub inputs: Vec<InputOverride>,
    /// Limits.
    pub runtime: RuntimeLimits,
    /// What gateways check. `user_golden` is set by the compiler.
    pub verification: Verification,
    /// The user's golden vectors (safetensors).
    #[serde(default, with = "base64_option", skip_serializing_if = "Option::is_none")]
    pub golden: Option<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "there is one per compilation, beside megabytes of weights")]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum CompileOutcome {
    /// It fits: everything that a bundle is made of.
    Built(Box<Artifacts>),
    /// It does not; the verdict says all that is wrong.
    Refused(Verdict),
}

impl CompileOutcome {
    /// The verdict in either case.
    pub const fn verdict(&self) -> &Verdict {
        match self {
            Self::Built(artifacts) => &artifacts.verdict,
            Self::Refused(verdict) => verdict,
        }
    }

    /// The verdict alone.
    pub fn into_verdict(self) -> Verdict {
        match self {
            Self::Built(artifacts) => artifacts.verdict,
            Self::Refused(verdict) => verdict,
        }
    }
}

/// The layers of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifacts {
    /// `weights.bin`.
    #[serde(with = "base64_bytes")]
    pub weights: Vec<u8>,
    /// `plan.bin`.
    #[serde(with = "base64_bytes")]
    pub plan: Vec<u8>,
    /// `contract.json`.
    #[serde(with = "base64_bytes")]
    pub contract: Vec<u8>,
    /// `golden.safetensors`, with vectors for every entry of the plan.
    #[serde(with = "base64_bytes")]
    pub golden: Vec<u8>,
    /// With `fits` true.
    pub verdict: Verdict,
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

mod base64_option {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => s.serialize_some(&STANDARD.encode(bytes)),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        STANDARD.decode(text).map(Some).map_err(D::Error::custom)
    }
}
