//! What a file holds, before anything of it is believed.

use std::collections::{BTreeMap, BTreeSet};

use crate::UnsupportedOperator;
use crate::onnx::{Model, Node};

use super::{Findings, Functions, MAX_DEPTH, called, nearest, ops};

/// Counts over the whole model, functions and branches included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Nodes by operator, with its domain when that is not ONNX's own.
    pub operators: BTreeMap<String, usize>,
    /// Operator sets by domain.
    pub opsets: Vec<(String, i64)>,
}

/// Operator sets whose meaning the importer has: domain, the oldest, the newest.
const SETS: [(&str, i64, i64); 4] =
    [("", 7, 28), ("ai.onnx.ml", 1, 5), ("ai.onnx.preview", 1, 1), ("com.microsoft", 1, 1)];

/// What these operators mean is what they have meant since the first operator set: they may be of any that is older than
/// [`SETS`] has.
const EVER_THE_SAME: [&str; 5] = ["Identity", "Not", "Shape", "Size", "Transpose"];

/// The operator set of a domain among those that a model or a function imports.
pub(super) fn version(opsets: &[(String, i64)], domain: &str) -> Option<i64> {
    opsets.iter().find(|(d, _)| d == domain).map(|(_, version)| *version)
}

/// Counts, and notes every operator and every operator set that has no place in the compiler.
pub(super) fn take(model: &Model<'_>, functions: &Functions<'_>, deny: &[String], findings: &mut Findings) -> Census {
    let census = Census { operators: BTreeMap::new(), opsets: model.opsets.clone() };
    let mut count = Count { functions, deny, findings, census, called: BTreeSet::new(), sets: BTreeSet::new() };
    count.nodes(&model.graph.nodes, &model.opsets, 0);
    let Count { census, sets, .. } = count;
    findings.opsets = sets.into_iter().filter_map(|(domain, version)| refused_set(domain, version)).collect();
    census
}

struct Count<'c, 'm> {
    functions: &'c Functions<'m>,
    deny: &'c [String],
    findings: &'c mut Findings,
    census: Census,
    /// Functions that were counted already.
    called: BTreeSet<(&'m str, &'m str, &'m str)>,
    /// Operator sets that nodes are of.
    sets: BTreeSet<(&'m str, i64)>,
}

impl<'m> Count<'_, 'm> {
    fn nodes(&mut self, list: &'m [Node<'m>], opsets: &'m [(String, i64)], depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        for node in list {
            *self.census.operators.entry(node.operator()).or_default() += 1;
            let key = called(node);
            if let Some(function) = self.functions.get(&key) {
                if is_denied(self.deny, node) {
                    self.findings.unsupported(node, Some(DENIED.to_owned()));
                } else if self.called.insert(key) {
                    // One that says nothing is of the sets around it.
                    let own = if function.opsets.is_empty() { opsets } else { &function.opsets };
                    self.nodes(&function.nodes, own, depth + 1);
                }
            } else {
                let known = ops::handler(&node.domain, &node.op_type).is_some();
                if is_denied(self.deny, node) {
                    self.findings.unsupported(node, Some(DENIED.to_owned()));
                } else if !known {
                    self.findings.unsupported(node, nearest(&node.domain, &node.op_type));
                }
                // A model that says nothing of ONNX's own set is of the time before there were sets.
                let assumed = (opsets.is_empty() && node.domain.is_empty()).then_some(1);
                let any_age = node.domain.is_empty() && EVER_THE_SAME.contains(&node.op_type.as_str());
                let version = version(opsets, &node.domain).or(assumed);
                if let Some(version) = version.filter(|version| !any_age || *version > 7) {
                    self.sets.insert((&node.domain, version));
                }
            }
            for graph in node.attributes.iter().filter_map(|a| a.graph.as_ref()) {
                self.nodes(&graph.nodes, opsets, depth + 1);
            }
        }
    }
}

/// What is said of an operator set outside of [`SETS`]; of domains that have no operators here, their operators say it.
fn refused_set(domain: &str, version: i64) -> Option<UnsupportedOperator> {
    let (_, oldest, newest) = SETS.into_iter().find(|(known, ..)| *known == domain)?;
    let which = if version > newest {
        format!("the newest that the compiler knows is {newest}")
    } else if version < oldest {
        format!("the oldest that the compiler takes is {oldest}")
    } else {
        return None;
    };
    let advice = if domain.is_empty() {
        // What every exporter of the last years writes.
        format!(
            "export with operator set {oldest} to {newest} (torch.onnx.export(..., opset_version=18)), or convert with \
             onnx.version_converter.convert_version(model, 18)"
        )
    } else {
        format!("export with operator set {oldest} to {newest} of it")
    };
    let name = if domain.is_empty() { "ai.onnx" } else { domain };
    Some(UnsupportedOperator {
        operator: format!("operator set {version} of {name}"),
        node: String::new(),
        nearest: Some(format!("{which}; {advice}")),
    })
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
