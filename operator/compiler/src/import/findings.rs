//! All that is wrong with a model, and how it is told.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ballast_bundle::Reset;

use crate::onnx::{Dimension, Node, OnnxError};
use crate::{InputOverride, StateOverride, UnsupportedOperator, VerdictReason};

/// Lines of one kind that a message quotes.
const MAX_QUOTED: usize = 20;

/// Nodes that a verdict lists: it travels as JSON, and a hostile model has millions.
const MAX_LISTED: usize = 10_000;

/// An input whose shape cannot be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInput {
    /// Its name.
    pub name: String,
    /// What the model says of its shape, if anything.
    pub dims: Option<Vec<Dimension>>,
}

/// Everything that was found; empty when nothing is wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Why the file is no model.
    pub not_onnx: Option<String>,
    /// Files that hold the model's tensors and did not come along, or are not what the model says.
    pub files: BTreeSet<String>,
    /// Contradictions inside the model.
    pub invalid: Vec<String>,
    /// Operator sets that are not known, or too old.
    pub opsets: Vec<UnsupportedOperator>,
    /// Operators that are not supported.
    pub unsupported: Vec<UnsupportedOperator>,
    /// Tensors of types that are not supported.
    pub types: BTreeSet<String>,
    /// Inputs with open dimensions.
    pub open: Vec<OpenInput>,
    /// What is wrong with the user's overrides.
    pub inputs: Vec<String>,
    /// Shapes for what is open, to begin with; whether they work is known where `tried` is true.
    pub suggested: Vec<InputOverride>,
    /// The model was imported with what is suggested, as far as its operators go.
    pub tried: bool,
}

impl Findings {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every input has a shape, so that a walk sees every node as it is.
    pub(super) fn shapes_are_known(&self) -> bool {
        self.open.is_empty() && self.inputs.is_empty() && self.types.is_empty() && self.not_onnx.is_none()
    }

    /// Whether nothing is wrong but what no shape can mend: then shapes were good enough to see it.
    pub fn is_of_operators_only(&self) -> bool {
        let nothing_else = self.invalid.is_empty() && self.not_onnx.is_none() && self.opsets.is_empty();
        self.open.is_empty() && self.inputs.is_empty() && nothing_else
    }

    /// Adds operators that are not listed yet.
    pub(crate) fn merge(&mut self, more: Vec<UnsupportedOperator>) {
        let key = |u: &UnsupportedOperator| (u.operator.clone(), u.node.clone());
        let known: BTreeSet<_> = self.unsupported.iter().map(key).collect();
        let room = MAX_LISTED.saturating_sub(self.unsupported.len());
        self.unsupported.extend(more.into_iter().filter(|u| !known.contains(&key(u))).take(room));
    }

    pub(super) fn unsupported(&mut self, node: &Node<'_>, nearest: Option<String>) {
        if self.unsupported.len() >= MAX_LISTED {
            return;
        }
        self.unsupported.push(UnsupportedOperator {
            operator: node.operator(),
            node: node.label().to_owned(),
            nearest,
        });
    }

    /// The first reason in the order of [`VerdictReason`].
    pub fn reason(&self) -> VerdictReason {
        if self.not_onnx.is_some() || !self.files.is_empty() {
            VerdictReason::NotOnnx
        } else if !self.opsets.is_empty() || !self.unsupported.is_empty() {
            VerdictReason::UnsupportedOperators
        } else if !self.types.is_empty() {
            VerdictReason::UnsupportedType
        } else if !self.open.is_empty() {
            VerdictReason::OpenDimensions
        } else if !self.inputs.is_empty() {
            VerdictReason::InvalidInputs
        } else if !self.invalid.is_empty() {
            VerdictReason::NotOnnx
        } else {
            VerdictReason::Fits
        }
    }

    /// What a person reads: everything, one paragraph for each kind.
    pub fn message(&self) -> String {
        let mut out = String::new();
        if let Some(why) = &self.not_onnx {
            out.push_str(why);
            out.push('\n');
        }
        if !self.files.is_empty() {
            out.push_str("Tensors of the model lie in other files:\n");
            list(&mut out, self.files.iter().cloned());
        }
        if !self.opsets.is_empty() {
            out.push_str("The model uses operator sets that are not supported:\n");
            list(
                &mut out,
                self.opsets.iter().map(|u| format!("{}: {}", u.operator, u.nearest.as_deref().unwrap_or_default())),
            );
        }
        if !self.unsupported.is_empty() {
            let names: BTreeSet<&str> = self.unsupported.iter().map(|u| u.operator.as_str()).collect();
            let names: Vec<&str> = names.into_iter().collect();
            let _ = writeln!(out, "The model uses operators that are not supported: {}.", names.join(", "));
            list(
                &mut out,
                self.unsupported.iter().map(|u| match &u.nearest {
                    Some(nearest) => format!("{} at node {:?}: {nearest}", u.operator, u.node),
                    None => format!("{} at node {:?}", u.operator, u.node),
                }),
            );
        }
        if !self.types.is_empty() {
            out.push_str("The model has tensors of types that are not supported:\n");
            list(&mut out, self.types.iter().cloned());
        }
        if !self.open.is_empty() {
            let numbers = if self.tried {
                "these numbers work, others may"
            } else {
                "no numbers were found that work: write those that the model was made for"
            };
            let _ = writeln!(
                out,
                "The model leaves dimensions open; say them in the ModelDeployment's spec ({numbers}):\n  model:\n    inputs:"
            );
            let lines = self.yaml(&[]);
            for line in lines.lines().take(MAX_QUOTED) {
                let _ = writeln!(out, "    {line}");
            }
            let flags: Vec<String> = self
                .suggested
                .iter()
                .take(MAX_QUOTED)
                .filter_map(|o| Some(format!("--shape {}={}", o.name, times(o.shape.as_deref()?))))
                .collect();
            let _ = writeln!(out, "For ballast check: {}", printable(&flags.join(" ")));
        }
        for (what, lines) in
            [("The inputs given do not fit the model:", &self.inputs), ("The model contradicts itself:", &self.invalid)]
        {
            if !lines.is_empty() {
                let _ = writeln!(out, "{what}");
                list(&mut out, lines.iter().cloned());
            }
        }
        out.trim_end().to_owned()
    }
}

impl Findings {
    /// For `spec.model.inputs`, whole: what was given, then what is suggested.
    pub fn yaml(&self, given: &[InputOverride]) -> String {
        let mut out = String::new();
        for o in given.iter().filter(|g| !self.suggested.iter().any(|s| s.name == g.name)) {
            let mut fields = vec![format!("name: {}", scalar(&o.name))];
            fields.extend(o.shape.as_ref().map(|shape| format!("shape: {shape:?}")));
            if !o.shapes.is_empty() {
                fields.push(format!("shapes: {:?}", o.shapes));
            }
            fields.extend(
                o.padding.as_ref().map(|p| format!("padding: {{mask: {}, value: {}}}", scalar(&p.mask), p.value)),
            );
            fields.extend(o.value.as_ref().map(|value| {
                let numbers: Vec<String> = value.iter().map(f64::to_string).collect();
                format!("value: [{}]", numbers.join(", "))
            }));
            fields.extend(o.batch_axis.map(|axis| format!("batchAxis: {axis}")));
            fields.extend(o.state.as_ref().map(state));
            let _ = writeln!(out, "- {{{}}}", fields.join(", "));
        }
        for o in &self.suggested {
            let said = self.open.iter().find(|i| i.name == o.name).and_then(|i| i.dims.as_deref());
            let known = given.iter().find(|g| g.name == o.name);
            let axis = known.and_then(|g| g.batch_axis).map(|axis| format!(", batchAxis: {axis}"));
            let carried = known.and_then(|g| g.state.as_ref()).map(|s| format!(", {}", state(s)));
            let more = [axis, carried].into_iter().flatten().collect::<String>();
            let _ = writeln!(
                out,
                "- {{name: {}, shape: {:?}{more}}}  # the model says {}",
                scalar(&o.name),
                o.shape.as_deref().unwrap_or_default(),
                printable(&dimensions(said))
            );
        }
        out
    }
}

/// How an input is carried, as YAML.
pub(crate) fn state(state: &StateOverride) -> String {
    let reset = match state.reset {
        Reset::OnSwap => "",
        Reset::PerRequest => ", reset: PerRequest",
    };
    let initial = if state.initial.is_empty() { String::new() } else { format!(", initial: {:?}", state.initial) };
    format!("state: {{output: {}{reset}{initial}}}", scalar(&state.output))
}

/// A name as YAML: in quotes unless it can be nothing but a word.
pub(crate) fn scalar(name: &str) -> String {
    let word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
    let taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !taken.contains(&name.to_ascii_lowercase().as_str()) { name.to_owned() } else { format!("{name:?}") }
}

fn times(shape: &[u64]) -> String {
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

/// Names come from the model: none of them begins a line of its own.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn list(out: &mut String, lines: impl ExactSizeIterator<Item = String>) {
    let total = lines.len();
    for line in lines.take(MAX_QUOTED) {
        let _ = writeln!(out, "- {line}");
    }
    if total > MAX_QUOTED {
        let _ = writeln!(out, "- and {} more", total - MAX_QUOTED);
    }
}

/// A shape as the model writes it.
pub(super) fn dimensions(dims: Option<&[Dimension]>) -> String {
    let Some(dims) = dims else { return "nothing of its shape".to_owned() };
    let dims: Vec<_> = dims
        .iter()
        .map(|d| match d {
            Dimension::Value(v) => v.to_string(),
            Dimension::Open(name) if name.is_empty() => "?".to_owned(),
            Dimension::Open(name) => name.clone(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

/// One sentence for a file that cannot be read. ONNX files begin with the field of the IR version, a number below 128.
pub(super) fn not_onnx(bytes: &[u8], error: &OnnxError) -> String {
    let begins_well = matches!(bytes, [0x08, version, ..] if *version < 0x80);
    match error {
        _ if bytes.is_empty() => "The file is empty; an ONNX model was expected.".to_owned(),
        OnnxError::Truncated if begins_well => format!(
            "The ONNX file is cut off after {} bytes: it ends in the middle of a part. Copy or download it again.",
            bytes.len()
        ),
        OnnxError::TooComplex => format!("The ONNX file is not read: {error}."),
        OnnxError::Truncated | OnnxError::Malformed(_) => {
            format!("This is not an ONNX file: {error}. Give a model as `torch.onnx.export` or `onnx.save` write it.")
        }
    }
}
