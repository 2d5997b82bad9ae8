//! The API server's checks without an API server: the same schemas, the same CEL rules, the same sentences.

mod structure;

use std::fmt;

use kube_cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{API_VERSION, Rollout, definitions};

/// Schema keywords that the structure check knows.
pub const CHECKED_KEYWORDS: &[&str] = structure::CHECKED;

/// More than this are not listed.
pub const MAX_VIOLATIONS: usize = 20;

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: `spec.rollout.steps[0].gateways`.
    pub path: String,
    /// What is wrong, and what to write.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Why an object is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Refused(pub Vec<Violation>);

struct Kind {
    name: String,
    namespaced: bool,
    schema: Value,
    compiled: CompiledSchema,
}

/// The kinds of this API with their rules compiled. Costly to make: keep one.
pub struct Admission {
    kinds: Vec<Kind>,
    validator: Validator,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kinds.iter().map(|kind| &kind.name)).finish()
    }
}

impl Default for Admission {
    fn default() -> Self {
        let kinds = definitions()
            .into_iter()
            .filter_map(|definition| {
                let schema = definition.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()?;
                let schema = serde_json::to_value(schema).ok()?;
                let compiled = compile_schema(&schema);
                let namespaced = definition.spec.scope == "Namespaced";
                Some(Kind { name: definition.spec.names.kind, namespaced, schema, compiled })
            })
            .collect();
        Self { kinds, validator: Validator::new() }
    }
}

impl Admission {
    /// Whether objects of a kind live in namespaces; `None` when it is no kind of this API.
    pub fn is_namespaced(&self, kind: &str) -> Option<bool> {
        self.kinds.iter().find(|known| known.name == kind).map(|known| known.namespaced)
    }

    /// Checks an object as the API server would on create (`old` is `None`) or update, and fills its defaults in.
    /// `status` is dropped: it is never a wish.
    pub fn admit(&self, object: &Value, old: Option<&Value>) -> Result<Value, Refused> {
        let refuse = |path: &str, message: String| Err(Refused(vec![Violation { path: path.to_owned(), message }]));
        let Some(map) = object.as_object() else { return refuse("", "the document is not an object".to_owned()) };
        let word = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
        if word("apiVersion") != API_VERSION {
            return refuse("apiVersion", format!("{:?} is not known: write {API_VERSION}", word("apiVersion")));
        }
        let Some(kind) = self.kinds.iter().find(|kind| kind.name == word("kind")) else {
            let names: Vec<_> = self.kinds.iter().map(|kind| kind.name.as_str()).collect();
            return refuse("kind", format!("{:?} is not known: write one of {}", word("kind"), names.join(", ")));
        };
        let mut object = object.clone();
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        let object = apply_defaults(&kind.schema, &object);
        let mut violations = Vec::new();
        metadata(object.get("metadata"), kind.namespaced, &mut violations);
        // The schema leaves these three to the API server itself.
        let mut own = object.clone();
        if let Some(map) = own.as_object_mut() {
            map.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
        }
        structure::check(&kind.schema, &own, "", &mut violations);
        // Rules speak of fields that are there and of the right type; with a broken structure they only confuse.
        if violations.is_empty()
            && let Err(errors) = self.validator.validate_compiled(&kind.compiled, &object, old)
        {
            violations.extend(
                errors
                    .as_slice()
                    .iter()
                    .map(|error| Violation { path: error.field_path.clone(), message: error.message.clone() }),
            );
        }
        // What CEL cannot afford to say, see `Rollout::check`.
        if violations.is_empty()
            && let Some(rollout) = object.pointer("/spec/rollout")
            && let Ok(rollout) = Rollout::deserialize(rollout)
            && let Err(message) = rollout.check()
        {
            violations.push(Violation { path: "spec.rollout.steps".to_owned(), message });
        }
        violations.truncate(MAX_VIOLATIONS);
        if violations.is_empty() { Ok(object) } else { Err(Refused(violations)) }
    }
}

const METADATA: &[&str] = &["name", "namespace", "labels", "annotations"];

fn metadata(metadata: Option<&Value>, namespaced: bool, out: &mut Vec<Violation>) {
    let mut say = |key: &str, message: String| {
        let path = if key.is_empty() { "metadata".to_owned() } else { format!("metadata.{key}") };
        out.push(Violation { path, message });
    };
    let Some(map) = metadata.and_then(Value::as_object) else {
        return say("", "is missing: write metadata: {name: …}".to_owned());
    };
    for key in map.keys().filter(|key| !METADATA.contains(&key.as_str())) {
        say(key, format!("is not a field here: write one of {}", METADATA.join(", ")));
    }
    for (key, required) in [("name", true), ("namespace", false)] {
        match map.get(key) {
            Some(Value::String(name)) if is_dns_label(name) => {}
            None if !required => {}
            None => say(key, "is missing".to_owned()),
            Some(_) => {
                say(
                    key,
                    "write at most 63 lower-case letters, digits and '-', a letter or digit at both ends".to_owned(),
                );
            }
        }
    }
    if !namespaced && map.contains_key("namespace") {
        say("namespace", "this kind belongs to no namespace: leave it out".to_owned());
    }
    for key in ["labels", "annotations"] {
        if map.get(key).is_some_and(|v| !v.as_object().is_some_and(|m| m.values().all(Value::is_string))) {
            say(key, "write texts: put numbers and true or false in quotes".to_owned());
        }
    }
}

/// RFC 1123 label. HardwareTargets may have dots in their names in Kubernetes; ours never do.
fn is_dns_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 63
        && bytes.first().is_some_and(word)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || *b == b'-')
}
