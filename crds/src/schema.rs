//! From types to CustomResourceDefinitions and YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{EnrollmentToken, Gateway, HardwareTarget, ModelDeployment};

/// `x-kubernetes-validations` out of (CEL rule, message) pairs. A message says what to write.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// Says of the lists in a list, too, that they are replaced whole.
pub(crate) fn lists_of_lists(schema: &mut schemars::Schema) {
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        items.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
    }
}

macro_rules! label_key {
    () => {
        "matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')"
    };
}
macro_rules! label_value {
    () => {
        "matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$')"
    };
}
const KEYS: &str = "write label keys of at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends; \
                    a DNS name and '/' may stand before one";
const VALUES: &str =
    "write label values of at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends, like hall-3";

/// One label key, as Kubernetes has them.
pub(crate) const LABEL_KEY: (&str, &str) = (concat!("self.", label_key!()), KEYS);
/// A list of label values.
pub(crate) const LABEL_VALUES: (&str, &str) = (concat!("self.all(v, v.", label_value!(), ")"), VALUES);

/// Rules of a map of labels. They end up in a gateway's certificate and in selectors, where nothing else is understood.
pub(crate) fn labels() -> Value {
    rules(&[
        (concat!("self.all(k, k.", label_key!(), ")"), KEYS),
        (concat!("self.all(k, self[k].", label_value!(), ")"), VALUES),
    ])
}

/// The values of a map, texts of at most `max` characters: without it the API server cannot bound the cost of a rule.
pub(crate) fn texts(max: u32) -> Value {
    json!({"type": "string", "maxLength": max})
}

/// The four definitions, as they are installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![ModelDeployment::crd(), HardwareTarget::crd(), EnrollmentToken::crd(), Gateway::crd()]
}
