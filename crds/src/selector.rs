//! Which gateways: by the labels that a token or an administrator gave them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{LABEL_KEY, LABEL_VALUES, labels, rules, texts};

/// All of it must match; an empty selector is refused, because it would mean every gateway of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
    "gatewaySelector is empty: write matchLabels or matchExpressions; to select every gateway, give them all a label",
)])))]
pub struct GatewaySelector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = texts(63), "x-kubernetes-validations" = labels()))]
    pub match_labels: BTreeMap<String, String>,
    /// For what `matchLabels` cannot say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    "In and NotIn need values; Exists and DoesNotExist take none",
)])))]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317), extend("x-kubernetes-validations" = rules(&[LABEL_KEY])))]
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// For In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules(&[LABEL_VALUES])), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// Kubernetes' own selector operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // the names are Kubernetes'
#[schemars(inline)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl GatewaySelector {
    /// Whether these labels match. An empty selector matches nothing.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !(self.match_labels.is_empty() && self.match_expressions.is_empty())
            && self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let labels: BTreeMap<_, _> =
            [("line", "bottling"), ("site", "a")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let by = |key: &str, operator, values: &[&str]| GatewaySelector {
            match_labels: BTreeMap::new(),
            match_expressions: vec![Requirement {
                key: key.to_owned(),
                operator,
                values: values.iter().map(|&v| v.to_owned()).collect(),
            }],
        };
        assert!(by("line", Operator::In, &["bottling", "x"]).matches(&labels));
        assert!(!by("line", Operator::NotIn, &["bottling"]).matches(&labels));
        assert!(by("none", Operator::NotIn, &["bottling"]).matches(&labels));
        assert!(by("site", Operator::Exists, &[]).matches(&labels));
        assert!(!by("site", Operator::DoesNotExist, &[]).matches(&labels));
        assert!(!GatewaySelector::default().matches(&labels), "an empty selector matches nothing");
    }
}
