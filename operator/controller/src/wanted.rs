//! A ModelDeployment after validation: every text read, every default filled in, nothing left that could fail.

use std::collections::BTreeMap;

use ballast_bundle::{
    DeploymentRef, Digest, Escalation, GoldenMatch, NamespaceUid, Reset, TargetName, Tolerance, TrialPolicy,
    Verification, state::MAX_IDLE_MILLIS,
};
use ballast_compiler::{InputOverride, RuntimeLimits, SequenceLimits, StateOverride, archive};
pub use ballast_crds::GatewaySelector as Selector;
use ballast_crds::{ModelDeployment, QuantityError, RETRY_ANNOTATION, Source};
use ballast_planner::{Policy, PolicyError};
use kube::ResourceExt as _;

use crate::objects::Retry;

/// Characters of an object's name, as of a label's value.
const MAX_NAME: usize = 63;

/// Why a ModelDeployment cannot be acted on. Most of these are refused before they are stored; this is the last gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWish {
    /// A quantity.
    #[error("spec.{field}: {source}")]
    Quantity {
        /// Path below spec.
        field: &'static str,
        /// What is wrong with it. In the sentence, so no `source()` besides.
        r#source: QuantityError,
    },
    /// The rollout.
    #[error("spec.{0}")]
    Rollout(PolicyError),
    /// The name becomes a file's, with more around it.
    #[error("metadata.name has {0} characters: at most {max} are taken; give the object a shorter one", max = MAX_NAME)]
    Name(usize),
    /// Anything else.
    #[error("spec.{field}: {message}")]
    Field {
        /// Path below spec.
        field: &'static str,
        /// What is wrong and what to write.
        message: String,
    },
}

/// Where a file is and which one it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRef {
    /// As written.
    pub uri: String,
    /// What it must be.
    pub digest: Digest,
    /// Files beside it that a model's tensors lie in: their paths relative to it, and what they must be.
    pub files: BTreeMap<String, Digest>,
}

impl SourceRef {
    /// Where a file beside this one is.
    pub fn beside(&self, path: &str) -> String {
        let folder = self.uri.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{path}")
    }
}

/// One form of the model, in the user's order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// `fp32`, ….
    pub name: String,
    /// Its ONNX file.
    pub source: SourceRef,
}

/// The wish.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Namespace UID and name.
    pub deployment: DeploymentRef,
    /// The namespace's name, for people.
    pub namespace_name: String,
    /// The name it is served under.
    pub model: String,
    /// `spec.model.version`.
    pub version: String,
    /// `spec.model`, for an undo.
    pub model_spec: serde_json::Value,
    /// At least one.
    pub variants: Vec<Variant>,
    /// What the model leaves open.
    pub inputs: Vec<InputOverride>,
    /// The user's golden vectors.
    pub golden: Option<SourceRef>,
    /// Which gateways.
    pub selector: Selector,
    /// Limits; by target where the spec says so.
    pub runtime: RuntimeLimits,
    /// Targets that the spec names; empty = all that are found.
    pub targets: BTreeMap<TargetName, RuntimeLimits>,
    /// What gateways check.
    pub verification: Verification,
    /// How it is rolled out.
    pub policy: Policy,
    /// For the gateways.
    pub trial: TrialPolicy,
    /// For the gateways.
    pub escalation: Option<Escalation>,
    /// Old releases kept.
    pub history: usize,
    /// Other tensors than the stable release's are meant.
    pub allow_contract_change: bool,
    /// `ballast.dev/retry`.
    pub retry: Option<Retry>,
    /// Hash of model, runtime, verification and targets.
    pub identity: Digest,
}

impl Wanted {
    /// Reads an object. `namespace` is the UID of its namespace.
    /// `sync_millis` is how long gateways wait between two syncs.
    pub fn read(object: &ModelDeployment, namespace: &NamespaceUid, sync_millis: u64) -> Result<Self, InvalidWish> {
        let spec = &object.spec;
        let length = object.name_any().len();
        if length > MAX_NAME {
            return Err(InvalidWish::Name(length));
        }
        let quantity = |field| move |source| InvalidWish::Quantity { field, source };
        let field = |field, message: &str| InvalidWish::Field { field, message: message.into() };
        let source = source("model.source", &spec.model.source)?;
        let mut variants = Vec::new();
        for variant in &spec.model.variants {
            let own = variant.source.as_ref().map(|s| self::source("model.variants.source", s)).transpose()?;
            variants.push(Variant { name: variant.name.clone(), source: own.unwrap_or_else(|| source.clone()) });
        }
        if variants.is_empty() {
            variants.push(Variant { name: "model".into(), source });
        }
        let golden = spec.verification.golden.as_ref();
        let verification = Verification {
            golden_match: match golden.map(|g| g.matching).unwrap_or_default() {
                ballast_crds::GoldenMatch::Values => GoldenMatch::Values,
                ballast_crds::GoldenMatch::ArgMax => GoldenMatch::ArgMax,
            },
            min_matching_per_mille: match golden {
                Some(g) => g.min_matching.per_mille().map_err(quantity("verification.golden.minMatching"))?,
                None => 1000,
            },
            tolerance: Tolerance {
                absolute: spec
                    .verification
                    .tolerance
                    .absolute
                    .value()
                    .map_err(quantity("verification.tolerance.absolute"))?,
                relative: spec
                    .verification
                    .tolerance
                    .relative
                    .value()
                    .map_err(quantity("verification.tolerance.relative"))?,
            },
            finite_outputs: spec.verification.finite_outputs,
            max_latency_p99_millis: match &spec.verification.max_latency_p99 {
                Some(span) => Some(span.millis().map_err(quantity("verification.maxLatencyP99"))?),
                None => None,
            },
            user_golden: false, // the compiler says
        };
        let mut targets = BTreeMap::new();
        for choice in &spec.targets {
            let name: TargetName = choice.name.parse().map_err(|e| field("targets.name", &format!("{e}")))?;
            targets.insert(name, limits(&spec.runtime.for_target(choice.runtime.as_ref()))?);
        }
        let trial = &spec.rollout.trial;
        let retry = object.annotations().get(RETRY_ANNOTATION).and_then(|text| text.parse().ok());
        Ok(Self {
            deployment: DeploymentRef { namespace: namespace.clone(), name: object.name_any() },
            namespace_name: object.namespace().unwrap_or_else(|| "default".into()),
            model: object.model_name().to_owned(),
            version: spec.model.version.clone(),
            model_spec: serde_json::to_value(&spec.model).unwrap_or_default(), // plain data: cannot fail
            variants,
            inputs: spec
                .model
                .inputs
                .iter()
                .map(|input| InputOverride {
                    name: input.name.clone(),
                    shape: input.shape.as_ref().map(|s| s.iter().map(|d| u64::try_from(*d).unwrap_or(0)).collect()),
                    value: input.value.as_ref().map(|v| v.iter().map(|n| *n as f64).collect()),
                    batch_axis: input.batch_axis.and_then(|axis| u32::try_from(axis).ok()),
                    state: input.state.as_ref().map(state),
                    shapes: input
                        .shapes
                        .iter()
                        .flatten()
                        .map(|s| s.iter().map(|d| u64::try_from(*d).unwrap_or(0)).collect())
                        .collect(),
                    padding: input
                        .padding
                        .as_ref()
                        .map(|p| ballast_compiler::InputPadding { mask: p.mask.clone(), value: p.value }),
                })
                .collect(),
            golden: golden.map(|g| self::source("verification.golden.source", &g.source)).transpose()?,
            selector: spec.gateway_selector.clone(),
            runtime: limits(&spec.runtime)?,
            targets,
            verification,
            trial: TrialPolicy {
                min_duration_millis: trial.min_duration.millis().map_err(quantity("rollout.trial.minDuration"))?,
                min_requests: u64::try_from(trial.min_requests).unwrap_or(1),
                max_failures: u64::try_from(trial.max_failures).unwrap_or(0),
            },
            escalation: spec.escalation.as_ref().map(crate::escalating::read).transpose()?,
            policy: Policy::new(&spec.rollout, sync_millis).map_err(InvalidWish::Rollout)?,
            history: usize::try_from(spec.revision_history_limit).unwrap_or(0),
            allow_contract_change: spec.model.allow_contract_change,
            retry,
            identity: ballast_crds::release_identity(spec),
        })
    }

    /// Whether a target may be built for.
    pub fn allows(&self, target: &TargetName) -> bool {
        self.targets.is_empty() || self.targets.contains_key(target)
    }

    /// Limits on one target.
    pub fn runtime_for(&self, target: &TargetName) -> RuntimeLimits {
        self.targets.get(target).unwrap_or(&self.runtime).clone()
    }
}

fn source(field: &'static str, source: &Source) -> Result<SourceRef, InvalidWish> {
    let wrong = |message: String| InvalidWish::Field { field, message };
    let digest = source.digest.parse().map_err(|e| wrong(format!("{e}")))?;
    let mut files = BTreeMap::new();
    for file in &source.files {
        archive::safe_path(&file.path).map_err(|e| wrong(e.to_string()))?;
        let digest = file.digest.parse().map_err(|e| wrong(format!("{}: {e}", file.path)))?;
        if file.path.ends_with(".onnx") {
            return Err(wrong(format!("{:?} is a model; files hold the tensors of one", file.path)));
        }
        if files.insert(file.path.clone(), digest).is_some() {
            return Err(wrong(format!("the file {:?} is listed twice", file.path)));
        }
    }
    if !files.is_empty() && source.uri.contains(['?', '#']) {
        return Err(wrong("files are found beside the model's URI, which must be without '?' and '#'".to_owned()));
    }
    if files.len() > archive::MAX_FILES {
        return Err(wrong(archive::ArchiveError::TooMany.to_string()));
    }
    Ok(SourceRef { uri: source.uri.clone(), digest, files })
}

fn state(state: &ballast_crds::InputState) -> StateOverride {
    StateOverride {
        output: state.output.clone(),
        reset: match state.reset {
            ballast_crds::StateReset::OnSwap => Reset::OnSwap,
            ballast_crds::StateReset::PerRequest => Reset::PerRequest,
        },
        initial: state.initial.clone().unwrap_or_default(),
    }
}

fn sequences(sequences: &ballast_crds::Sequences) -> Result<SequenceLimits, InvalidWish> {
    let field = "runtime.sequences.maxIdle";
    let max_idle_millis = sequences.max_idle.millis().map_err(|source| InvalidWish::Quantity { field, source })?;
    if max_idle_millis > MAX_IDLE_MILLIS {
        return Err(InvalidWish::Field { field, message: "a sequence is kept for 24h at most".to_owned() });
    }
    Ok(SequenceLimits { max: u32::try_from(sequences.max).unwrap_or(1), max_idle_millis })
}

fn limits(runtime: &ballast_crds::Runtime) -> Result<RuntimeLimits, InvalidWish> {
    let quantity = |field| move |source| InvalidWish::Quantity { field, source };
    Ok(RuntimeLimits {
        memory_limit: runtime.memory_limit.bytes().map_err(quantity("runtime.memoryLimit"))?,
        deadline_millis: match &runtime.deadline {
            Some(span) => Some(span.millis().map_err(quantity("runtime.deadline"))?),
            None => None,
        },
        instances: u32::try_from(runtime.instances).unwrap_or(1),
        max_queue: u32::try_from(runtime.max_queue).unwrap_or(1),
        sequences: sequences(&runtime.sequences)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_field_is_said_once_however_it_is_printed() {
        let wrong = ballast_crds::Span::from("soon").millis().unwrap_err();
        let cause = wrong.to_string();
        let deep = PolicyError::Quantity { field: "soak", source: wrong.clone() };
        for (error, start) in [
            (InvalidWish::Quantity { field: "runtime.deadline", source: wrong }, "spec.runtime.deadline: "),
            (InvalidWish::Rollout(deep), "spec.rollout.soak: "),
        ] {
            assert_eq!(error.to_string(), format!("{start}{cause}"));
            assert_eq!(format!("{:#}", anyhow::Error::from(error)), format!("{start}{cause}"));
        }
    }
}
