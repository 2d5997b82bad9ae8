//! What an administrator asked for through the socket: `<directory>/.ballast/KIND.NAMESPACE.NAME.json`. A user's own files
//! are never rewritten, so a wish lies over them until the user writes something else at the same place.

use std::fs;
use std::path::{Path, PathBuf};

use ballast_bundle::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::store::Identity;
use crate::objects::Retry;
use crate::state::{StateError, read_json, write_json};

/// A value that lies over one of the user's, for as long as the user's is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Over {
    /// Instead of the user's.
    value: Value,
    /// Digest of the user's value when this was asked for.
    over: Digest,
}

/// The overlay of one object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverlaidFields {
    format: u32,
    /// `spec.rollout.paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused: Option<Over>,
    /// `spec.model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Over>,
    /// The annotation `ballast.dev/retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
    /// Which retry of that release it is; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

const PAUSED: &str = "/spec/rollout/paused";
const MODEL: &str = "/spec/model";

fn digest(object: &Value, pointer: &str) -> Digest {
    Digest::of(object.pointer(pointer).unwrap_or(&Value::Null).to_string().as_bytes())
}

impl OverlaidFields {
    /// Where the overlay of an object is.
    pub fn path(directory: &Path, identity: &Identity) -> PathBuf {
        let Identity { kind, namespace, name } = identity;
        // Identities are DNS labels and kinds: no dots, no slashes.
        directory.join(".ballast").join(format!("{kind}.{namespace}.{name}.json"))
    }

    /// The one of an object, if there is one.
    pub fn read(directory: &Path, identity: &Identity) -> Result<Option<Self>, StateError> {
        read_json(&Self::path(directory, identity))
    }

    /// Keeps it; an empty one is removed.
    pub fn write(&self, directory: &Path, identity: &Identity) -> Result<(), StateError> {
        let path = Self::path(directory, identity);
        if *self == (Self { format: self.format, ..Self::default() }) {
            return match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(StateError::File { doing: "removed", path, source })
                }
                _ => Ok(()),
            };
        }
        write_json(&path, &Self { format: 1, ..self.clone() })
    }

    /// With `spec.rollout.paused` over the user's `object`. `None` takes the wish back.
    pub fn with_paused(mut self, object: &Value, paused: Option<bool>) -> Self {
        self.paused = paused.map(|paused| Over { value: paused.into(), over: digest(object, PAUSED) });
        self
    }

    /// With `spec.model` over the user's `object`.
    pub fn with_model(mut self, object: &Value, model: Value) -> Self {
        self.model = Some(Over { value: model, over: digest(object, MODEL) });
        self
    }

    /// With the annotation that asks for another try of a release.
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        (self.retry, self.attempt) = (Some(retry.counter), Some(retry.attempt));
        self
    }

    /// The user's object with these wishes over it. Those that the user has written over since are dropped.
    pub fn apply(&self, object: &Value) -> Value {
        let mut object = object.clone();
        let holds =
            |over: &Option<Over>, pointer| over.as_ref().filter(|over| over.over == digest(&object, pointer)).cloned();
        let (paused, model) = (holds(&self.paused, PAUSED), holds(&self.model, MODEL));
        if let (Some(over), Some(spec)) = (paused, object.get_mut("spec").and_then(Value::as_object_mut))
            && let Some(rollout) =
                spec.entry("rollout").or_insert_with(|| Value::Object(serde_json::Map::new())).as_object_mut()
        {
            rollout.insert("paused".into(), over.value);
        }
        if let (Some(over), Some(spec)) = (model, object.get_mut("spec").and_then(Value::as_object_mut)) {
            spec.insert("model".into(), over.value);
        }
        if let (Some(counter), Some(metadata)) = (self.retry, object.get_mut("metadata").and_then(Value::as_object_mut))
            && let Some(annotations) =
                metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new())).as_object_mut()
        {
            let retry = Retry { counter, attempt: self.attempt.unwrap_or(1) };
            annotations.insert(ballast_crds::RETRY_ANNOTATION.into(), retry.to_string().into());
        }
        object
    }
}
