//! What a file holds, before anything of it is believed.

use std::collections::{BTreeMap, BTreeSet};

use crate::onnx::{Model, Node};

use super::{Findings, Functions, MAX_DEPTH, ops};

/// Counts over the whole model, functions and branches included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Nodes by operator, with its domain when that is not ONNX's own.
    pub operators: BTreeMap<String, usize>,
    /// Operator sets by domain.
    pub opsets: Vec<(String, i64)>,
}

/// Counts, and notes every operator that has no place in the compiler.
pub(super) fn take(model: &Model<'_>, functions: &Functions<'_>, deny: &[String], findings: &mut Findings) -> Census {
    let mut census = Census { operators: BTreeMap::new(), opsets: model.opsets.clone() };
    let mut called = BTreeSet::new();
    nodes(&model.graph.nodes, functions, deny, findings, &mut census, &mut called, 0);
    census
}

fn nodes<'m>(
    list: &'m [Node<'m>],
    functions: &Functions<'m>,
    deny: &[String],
    findings: &mut Findings,
    census: &mut Census,
    called: &mut BTreeSet<(&'m str, &'m str)>,
    depth: usize,
) {
    if depth > MAX_DEPTH {
        return;
    }
    for node in list {
        let key = (node.domain.as_str(), node.op_type.as_str());
        let name = if key.0.is_empty() { key.1.to_owned() } else { format!("{}.{}", key.0, key.1) };
        *census.operators.entry(name).or_default() += 1;
        if is_denied(deny, node) {
            findings.unsupported(node, Some(DENIED.to_owned()));
        } else if let Some(function) = functions.get(&key) {
            if called.insert(key) {
                nodes(&function.nodes, functions, deny, findings, census, called, depth + 1);
            }
        } else if ops::handler(key.0, key.1).is_none() {
            findings.unsupported(node, nearest(key.0, key.1));
        }
        for graph in node.attributes.iter().filter_map(|a| a.graph.as_ref()) {
            nodes(&graph.nodes, functions, deny, findings, census, called, depth + 1);
        }
    }
}

/// Why an operator that is known is refused all the same.
pub(super) const DENIED: &str = "the target's operators.deny lists it";

/// Whether a target must not be given this node: by its name as the model writes it, with or without its domain. What the
/// compiler makes of an operator does not count.
pub(super) fn is_denied(deny: &[String], node: &Node<'_>) -> bool {
    deny.iter().any(|name| {
        *name == node.op_type
            || name.strip_suffix(node.op_type.as_str()).and_then(|rest| rest.strip_suffix('.')) == Some(&node.domain)
    })
}

/// What would do instead of an operator that is not known.
pub fn nearest(domain: &str, operator: &str) -> Option<String> {
    if domain == "ai.onnx.ml"
        && let Some(advice) = ops::nearest_ml(operator)
    {
        return Some(advice.to_owned());
    }
    let advice = match operator {
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "Multinomial" | "Bernoulli" => {
            "answers must be reproducible; make the random numbers an input"
        }
        "ImageDecoder" | "StringNormalizer" | "StringSplit" | "StringConcat" | "RegexFullMatch" => {
            "do it before the request"
        }
        "Adam" | "Adagrad" | "Momentum" | "Gradient" if domain.ends_with(".training") => {
            "it is a step of training; export the model for inference"
        }
        _ if !domain.is_empty() => "it is not one of ONNX's own operators; export without runtime-specific fusion",
        _ => return None,
    };
    Some(advice.to_owned())
}
