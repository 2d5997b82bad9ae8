//! What runs: the model, its variants, its limits, and what it must prove.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{lists_of_lists, rules};
use crate::{ByteQuantity, Decimal, Share, Span};

/// Where a file is, and which file it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `https://…`, or `file:///…` in directory mode (below the installation's model directory).
    #[schemars(length(max = 2048), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^(https://[^/]+/.+|file:///.+)$')",
        "write https://HOST/PATH, or file:///PATH in directory mode",
    )])))]
    pub uri: String,
    /// `sha256:` and 64 lower-case hex digits; what is fetched must have it.
    #[schemars(length(max = 71), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^sha256:[0-9a-f]{64}$')",
        "write sha256: and 64 lower-case hex digits, as `sha256sum FILE` prints them",
    )])))]
    pub digest: String,
    /// Of an ONNX model whose tensors lie in other files: these files. (Or make the source a `.tar` of all.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub files: Vec<SourceFile>,
}

/// A file beside a model, and which file it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceFile {
    /// As the model names it: relative to the model's own place, which is the source's URI up to its last slash.
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^[-A-Za-z0-9_.+=@,~ ]+(/[-A-Za-z0-9_.+=@,~ ]+)*$') && !self.matches('(^|/)[.]{1,2}(/|$)')",
        "write a relative path without '..', like model.onnx.data",
    )])))]
    pub path: String,
    /// `sha256:` and 64 lower-case hex digits; what is fetched must have it.
    #[schemars(length(max = 71), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^sha256:[0-9a-f]{64}$')",
        "write sha256: and 64 lower-case hex digits, as `sha256sum FILE` prints them",
    )])))]
    pub digest: String,
}

/// The model of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
    "model.name cannot change: clients ask for it; make a new ModelDeployment to serve another name",
)])))]
pub struct Model {
    /// The name it is served under; `metadata.name` when absent. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$')",
        "write lower-case letters, digits, '-' and '_', a letter or digit at both ends",
    )])))]
    pub name: Option<String>,
    /// For people and for answers (`model_version`); any change is a new release.
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.+]*[A-Za-z0-9])?$')",
        "write letters, digits, '-', '_', '.' and '+', like 1.4.0, and quote it",
    )])))]
    pub version: String,
    /// The ONNX file.
    pub source: Source,
    /// Only where the model leaves something open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"], "x-kubernetes-validations" = rules(&[(
        "self.all(a, !has(a.shapes) || self.all(b, !has(b.shapes) || a.shapes.size() == b.shapes.size()))",
        "give every input that has shapes as many of them: the first of one goes with the first of the others",
    ), (
        "self.all(a, !has(a.padding) || self.exists(m, m.name == a.padding.mask && m.name != a.name && has(m.shapes)))",
        "padding.mask must name another of the inputs, which needs shapes too: it is what tells the model what is real",
    ), (
        "!self.exists(a, has(a.shapes)) || !self.exists(b, has(b.batchAxis))",
        "write shapes or batchAxis, not both: with several shapes requests have one row",
    ), (
        "!self.exists(a, has(a.shapes)) || !self.exists(b, has(b.state))",
        "write shapes or state, not both: what a sequence carries has one shape",
    )])))]
    pub inputs: Vec<ModelInput>,
    /// In order of preference; the first that fits a target is taken. None: the source as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variants: Vec<Variant>,
    /// A release whose inputs or outputs differ from the stable one's is refused unless this is set.
    #[serde(default)]
    pub allow_contract_change: bool,
}

/// What the model leaves open about one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.state) || has(self.value) != (has(self.shape) || has(self.shapes) || has(self.batchAxis))",
    "write shape, which fixes open dimensions, or shapes, of which a request takes the smallest that fits, or batchAxis, along which clients may send several rows; or value, which makes the input a constant",
), (
    "!has(self.shapes) || (!has(self.shape) && !has(self.batchAxis))",
    "write shapes without shape and without batchAxis: each of them is whole, and requests have one row",
), (
    "!has(self.padding) || has(self.shapes)",
    "padding fills a request up to one of several shapes: write shapes too",
), (
    "!has(self.shape) || !has(self.batchAxis) || (self.batchAxis < self.shape.size() && self.shape[self.batchAxis] == 1)",
    "shape must have 1 at batchAxis, which counts from 0: a gateway runs one row at a time",
), (
    "!has(self.state) || !has(self.value)",
    "value makes the input a constant, which leaves nothing to carry: for what a sequence begins with write state.initial",
), (
    "!has(self.state) || !has(self.batchAxis)",
    "rows of a batch are run apart from each other, so no state goes from one to the next: write state or batchAxis",
)])))]
pub struct ModelInput {
    /// As the model names it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Every dimension, outermost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"), inner(range(min = 1, max = 2_147_483_647)))]
    pub shape: Option<Vec<i64>>,
    /// The input becomes this constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub value: Option<Vec<i64>>,
    /// The axis, from 0, along which clients may send several rows at once. The model is compiled for one row, and refused if
    /// rows of a batch see each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 7))]
    pub batch_axis: Option<i64>,
    /// A few shapes that share weights; a request takes the smallest that fits. The first of one input goes with the first of the
    /// others, and is the one that golden vectors have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 8), extend("x-kubernetes-list-type" = "atomic"), inner(length(max = 8), inner(range(min = 1, max = 2_147_483_647))), transform = lists_of_lists)]
    pub shapes: Option<Vec<Vec<i64>>>,
    /// Lets requests be shorter than one of `shapes`: this input is filled up, and another one hides that from the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding: Option<Padding>,
    /// Clients do not send the input: gateways carry it from request to request of a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<InputState>,
}

/// What fills an input up to one of its shapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Padding {
    /// The input that tells the model what is real: it is 0 where this one is filled up, and needs `shapes` of its own. A model
    /// that does not heed it is refused.
    #[schemars(length(min = 1, max = 253))]
    pub mask: String,
    /// What this input is filled up with.
    #[serde(default)]
    pub value: i64,
}

/// How an input is filled in that clients do not send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputState {
    /// The output that becomes this input of the sequence's next request; of the same shape and type. Answers have it only where it
    /// is asked for by name.
    #[schemars(length(min = 1, max = 253))]
    pub output: String,
    /// When the input is what it was in the beginning again.
    #[serde(default)]
    pub reset: StateReset,
    /// What it is in the beginning: one number for all elements, or all of them, row by row. Absent: zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub initial: Option<Vec<i64>>,
}

/// When state begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum StateReset {
    /// With the first request of a sequence, and when another release takes over.
    #[default]
    OnSwap,
    /// With every request: nothing is carried, and requests need no sequence.
    PerRequest,
}

/// Sequences of a model that carries state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sequences {
    /// How many may be under way at once on one gateway; a request that would begin one more is refused with 429.
    #[serde(default = "Sequences::default_max")]
    #[schemars(range(min = 1, max = 65_536))]
    pub max: i32,
    /// A sequence that no request came for in so long is forgotten; at most 24h.
    #[serde(default = "Sequences::default_max_idle")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Span::RULE, Span::NOT_ZERO])))]
    pub max_idle: Span,
}

impl Sequences {
    fn default_max() -> i32 {
        256
    }
    fn default_max_idle() -> Span {
        "1m".into()
    }
}

impl Default for Sequences {
    fn default() -> Self {
        Self { max: Self::default_max(), max_idle: Self::default_max_idle() }
    }
}

/// One form of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "has(self.source) != (has(self.fromModel) && self.fromModel)",
    "write exactly one of source, which is another ONNX file, and fromModel: true, which is model.source as it is",
)])))]
pub struct Variant {
    /// `fp32`, `int8`, ….
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "write lower-case letters, digits and '-', a letter or digit at both ends",
    )])))]
    pub name: String,
    /// Another ONNX file with the same inputs and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// `model.source` as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_model: Option<bool>,
}

/// A HardwareTarget to build for, and what is different there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetChoice {
    /// Of the HardwareTarget.
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "write the name of a HardwareTarget, like x86-64-v3",
    )])))]
    pub name: String,
    /// Instead of `spec.runtime`, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeOverride>,
}

/// The smallest guest needs a few of the 64 KiB pages of its memory and some weights.
const MIN_MEMORY: (&str, &str) = (
    "!self.matches('^[0-9]{1,6}$') && !self.matches('^[0-9]{1,3}Ki$') && !self.matches('^0')",
    "that is less than any model needs: write at least 1Mi, like 256Mi",
);

/// Limits of one target. Absent fields are `spec.runtime`'s.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeOverride {
    /// The guest's whole memory, for one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[ByteQuantity::RULE, MIN_MEMORY])))]
    pub memory_limit: Option<ByteQuantity>,
    /// From dequeue to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Span::RULE, Span::NOT_ZERO])))]
    pub deadline: Option<Span>,
    /// Instances that serve at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub instances: Option<i32>,
    /// Requests that wait; more are refused with 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_queue: Option<i32>,
    /// Of a model whose inputs have state: how many sequences, and how long an idle one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Sequences>,
}

/// Limits that the sandbox enforces on every gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// The guest's whole memory, for one instance.
    #[serde(default = "Runtime::default_memory_limit")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[ByteQuantity::RULE, MIN_MEMORY])))]
    pub memory_limit: ByteQuantity,
    /// From dequeue to answer; absent: made from the predicted time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Span::RULE, Span::NOT_ZERO])))]
    pub deadline: Option<Span>,
    /// Instances that serve at once.
    #[serde(default = "Runtime::default_instances")]
    #[schemars(range(min = 1, max = 64))]
    pub instances: i32,
    /// Requests that wait; more are refused with 429.
    #[serde(default = "Runtime::default_max_queue")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_queue: i32,
    /// Of a model whose inputs have state: how many sequences, and how long an idle one is kept.
    #[serde(default)]
    pub sequences: Sequences,
}

impl Runtime {
    fn default_memory_limit() -> ByteQuantity {
        "256Mi".into()
    }
    fn default_instances() -> i32 {
        1
    }
    fn default_max_queue() -> i32 {
        16
    }

    /// These limits with what `choice` says of one target.
    pub fn for_target(&self, choice: Option<&RuntimeOverride>) -> Self {
        let Some(choice) = choice else { return self.clone() };
        Self {
            memory_limit: choice.memory_limit.clone().unwrap_or_else(|| self.memory_limit.clone()),
            deadline: choice.deadline.clone().or_else(|| self.deadline.clone()),
            instances: choice.instances.unwrap_or(self.instances),
            max_queue: choice.max_queue.unwrap_or(self.max_queue),
            sequences: choice.sequences.clone().unwrap_or_else(|| self.sequences.clone()),
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            memory_limit: Self::default_memory_limit(),
            deadline: None,
            instances: Self::default_instances(),
            max_queue: Self::default_max_queue(),
            sequences: Sequences::default(),
        }
    }
}

/// What a release must reproduce, before it is signed and again on every gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// The user's own golden vectors; absent: the reference evaluator makes some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
    /// How far numbers may be from what is expected.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// An output that is not finite is a failure.
    #[serde(default = "Verification::default_finite_outputs")]
    pub finite_outputs: bool,
    /// Judged in Trial, against the fallback in the same minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Span::RULE, Span::NOT_ZERO])))]
    pub max_latency_p99: Option<Span>,
}

impl Verification {
    fn default_finite_outputs() -> bool {
        true
    }
}

impl Default for Verification {
    fn default() -> Self {
        Self { golden: None, tolerance: Tolerance::default(), finite_outputs: true, max_latency_p99: None }
    }
}

const NOT_NONE: (&str, &str) = ("!self.matches('^0{1,2}([.]0)?%$')", "0% would accept any model: write more, like 95%");

/// A file of golden vectors: `inputs/NAME` with `outputs/NAME` or `labels/NAME`, as safetensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "!has(self.source.files)",
    "golden vectors are one file: leave source.files out",
)])))]
pub struct Golden {
    /// The safetensors file, at most 16 MiB.
    pub source: Source,
    /// What counts as a match.
    #[serde(default, rename = "match")]
    pub matching: GoldenMatch,
    /// How many of the vectors must match.
    #[serde(default = "Golden::default_min_matching")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Share::RULE, NOT_NONE])))]
    pub min_matching: Share,
}

impl Golden {
    fn default_min_matching() -> Share {
        "100%".into()
    }
}

/// How an answer is compared with what is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum GoldenMatch {
    /// Every number within the tolerance.
    #[default]
    Values,
    /// The index of the largest number is the label.
    ArgMax,
}

/// `|a − b| ≤ absolute + relative · |b|`, b the expected value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tolerance {
    /// In the output's unit.
    #[serde(default = "Tolerance::default_absolute")]
    pub absolute: Decimal,
    /// A share of the expected value.
    #[serde(default = "Tolerance::default_relative")]
    pub relative: Decimal,
}

impl Tolerance {
    fn default_absolute() -> Decimal {
        "1e-4".into()
    }
    fn default_relative() -> Decimal {
        "1e-3".into()
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: Self::default_absolute(), relative: Self::default_relative() }
    }
}
