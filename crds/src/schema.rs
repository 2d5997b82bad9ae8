//! From types to CustomResourceDefinitions and YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{EnrollmentToken, Gateway, HardwareTarget, ModelDeployment};

/// `x-kubernetes-validations` out of (CEL rule, message) pairs. A message says what to write.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// The four definitions, as they are installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![ModelDeployment::crd(), HardwareTarget::crd(), EnrollmentToken::crd(), Gateway::crd()]
}
