//! ONNX → IR: a census of the whole model, then node by node with all shapes static and constants folded on the way.
//!
//! Everything that is wrong is found before the first complaint: a node that is not supported leaves its outputs *unknown*,
//! what depends on them is skipped, and the rest goes on.

mod attributes;
mod body;
pub(crate) mod build;
pub(crate) mod call;
mod census;
mod control;
mod counted;
mod findings;
mod flex;
mod halves;
mod inputs;
mod nearest;
mod ops;
mod prune;
mod qdq;
mod suggest;
mod tensor;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attributes::Asked;
use build::{Builder, Problem};
use call::{Call, Given};

use crate::ir::{Counted, DType, Graph, ValueId};
use crate::onnx::{self, Function, Node};
use crate::{InputOverride, archive};

pub use census::Census;
pub use findings::{Findings, OpenInput};
pub(crate) use findings::{scalar, state as yaml};
pub use nearest::nearest;
pub use suggest::suggestions;

/// Deepest nesting of functions and branches.
const MAX_DEPTH: usize = 24;
/// Most nodes that are walked, calls of functions and branches included.
const MAX_WALKED: usize = 500_000;

/// A model in IR.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Ready to be evaluated and lowered.
    pub graph: Graph,
    /// What was assumed, for people.
    pub notes: Vec<String>,
    /// What the file holds.
    pub census: Census,
}

/// Reads a model and makes it static. `deny` are ONNX operators that the target must not be given. `bytes` may be an archive of a
/// model and the files that its tensors lie in.
pub fn import(bytes: &[u8], overrides: &[InputOverride], deny: &[String]) -> Result<Imported, Box<Findings>> {
    let mut findings = Findings::default();
    let parts = match archive::unpack(bytes) {
        Ok(parts) => parts,
        Err(e) => {
            findings.not_onnx = Some(format!("The model's archive cannot be used: {e}."));
            return Err(Box::new(findings));
        }
    };
    let model = match onnx::parse(parts.model) {
        Ok(model) => model,
        Err(e) => {
            findings.not_onnx = Some(findings::not_onnx(parts.model, &e));
            return Err(Box::new(findings));
        }
    };
    let mut functions = Functions::new();
    for function in &model.functions {
        if functions.insert((&function.domain, &function.name, &function.overload), function).is_some() {
            findings.invalid.push(format!("two functions are called {:?}", function.name));
        }
    }
    let opset = census::version(&model.opsets, "").unwrap_or(1);
    let census = census::take(&model, &functions, deny, &mut findings);
    let mut walk = Walk {
        b: Builder::default(),
        files: parts.files,
        functions,
        opset,
        deny,
        findings,
        notes: Vec::new(),
        single: BTreeSet::new(),
        short: Vec::new(),
        walked: 0,
    };
    let mut scopes = vec![Scope::default()];
    if let Some(scope) = scopes.first_mut() {
        walk.initializers(&model.graph, scope);
        walk.inputs(&model.graph, overrides, scope);
    }
    // A walk that knows all shapes sees what is taken and what folds away. One that does not sees less than the census,
    // which counts every branch: then both lists together are all that can be said.
    let counted = std::mem::take(&mut walk.findings.unsupported);
    let whole = walk.findings.shapes_are_known();
    // What a set that is not known makes of its operators is not known either.
    let understood = walk.findings.opsets.is_empty();
    if understood {
        walk.nodes(&model.graph.nodes, None, &mut scopes, 0);
        walk.outputs(&model.graph, &scopes);
    }
    if !whole || !understood {
        walk.findings.merge(counted);
    }
    let Walk { mut b, findings, mut notes, single, .. } = walk;
    if !single.is_empty() {
        let names: Vec<_> = single.into_iter().collect();
        notes.push(format!("{} of FP64 tensors is computed in FP32", names.join(", ")));
    }
    notes.extend(std::mem::take(&mut b.notes));
    if !findings.is_empty() {
        return Err(Box::new(findings));
    }
    prune::prune(&mut b.graph);
    Ok(Imported { graph: b.graph, notes, census })
}

/// Whether the importer has a place for an operator at all; `domain` is empty for ONNX's own. What of it is not supported, a
/// model's findings say.
pub fn knows(domain: &str, operator: &str) -> bool {
    ops::handler(domain, operator).is_some()
}

/// A node of f64 that is computed in f32, because there is no other way: its inputs are cast to it, and what it makes back.
fn in_single(
    call: &mut Call<'_, '_>,
    handler: ops::Plain,
    inputs: Vec<Option<ValueId>>,
) -> build::Result<Vec<ValueId>> {
    call.inputs = inputs;
    for i in 0..call.inputs.len() {
        if let Some(id) = call.inputs[i]
            && call.b.dtype(id) == DType::F64
        {
            call.inputs[i] = Some(call.b.cast(id, DType::F32)?);
        }
    }
    let mut outputs = handler(call)?;
    for id in &mut outputs {
        if call.b.dtype(*id) == DType::F32 {
            *id = call.b.cast(*id, DType::F64)?;
        }
    }
    Ok(outputs)
}

/// By domain, name and overload.
type Functions<'m> = BTreeMap<(&'m str, &'m str, &'m str), &'m Function<'m>>;

/// As a node calls it.
fn called<'m>(node: &'m Node<'_>) -> (&'m str, &'m str, &'m str) {
    (&node.domain, &node.op_type, &node.overload)
}
/// What a name stands for; `None` while what makes it is not supported.
type Scope = BTreeMap<String, Option<ValueId>>;

struct Walk<'m> {
    b: Builder,
    /// Beside the model, by path.
    files: BTreeMap<String, &'m [u8]>,
    functions: Functions<'m>,
    /// Of ONNX's own operators, where the walk is: functions have sets of their own.
    opset: i64,
    deny: &'m [String],
    findings: Findings,
    notes: Vec<String>,
    /// Operators whose f64 is computed in f32.
    single: BTreeSet<String>,
    /// Outputs, by node and index, that nodes have and their operators are not imported with.
    short: Vec<(&'m Node<'m>, usize)>,
    walked: usize,
}

impl<'m> Walk<'m> {
    fn initializers(&mut self, graph: &'m onnx::Graph<'m>, scope: &mut Scope) {
        if graph.sparse {
            self.findings.types.insert("a sparse constant".to_owned());
        }
        for proto in &graph.initializers {
            let tensor = match &proto.external {
                Some(external) => match self.beside(external) {
                    Ok(raw) => tensor::tensor(&onnx::Tensor { raw: Some(raw), external: None, ..proto.clone() }),
                    Err(e) => {
                        self.findings.files.insert(format!("constant {:?}: {e}", proto.name));
                        scope.insert(proto.name.clone(), None);
                        continue;
                    }
                },
                None => tensor::tensor(proto),
            };
            let id = match tensor {
                Ok(tensor) => {
                    let id = self.b.graph.add_constant(proto.name.clone(), Arc::new(tensor));
                    if let Some(dtype) = tensor::stored(proto.data_type) {
                        self.b.note_half(id, dtype);
                    }
                    Some(id)
                }
                Err(e) => {
                    self.findings.invalid.push(format!("constant {:?}: {e}", proto.name));
                    None
                }
            };
            scope.insert(proto.name.clone(), id);
        }
    }

    /// The bytes of a tensor in another file.
    fn beside(&self, external: &onnx::External) -> Result<&'m [u8], String> {
        let onnx::External { location, offset, length } = external;
        let path = archive::safe_path(archive::canonical(location)).map_err(|e| e.to_string())?;
        let Some(file) = self.files.get(path) else {
            let there: Vec<_> = self.files.keys().map(|f| format!("{f:?}")).collect();
            let there = if there.is_empty() {
                "no other file came along".to_owned()
            } else {
                format!("there are {}", there.join(", "))
            };
            return Err(format!(
                "it lies in the file {path:?}, and {there}; name it in the source's files ({{path: {path}, digest: sha256:...}}), or \
                 make the source a .tar of the model and its files"
            ));
        };
        let start = usize::try_from(*offset).ok();
        let end = match length {
            Some(length) => start.and_then(|s| s.checked_add(usize::try_from(*length).ok()?)),
            None => Some(file.len()),
        };
        start.zip(end).and_then(|(start, end)| file.get(start..end)).ok_or_else(|| {
            format!(
                "it lies at byte {offset} of the file {path:?}, which ends after {} bytes; it is cut off, or belongs to \
                 another model",
                file.len()
            )
        })
    }

    fn nodes(&mut self, nodes: &'m [Node<'m>], given: Option<&Given<'m>>, scopes: &mut Vec<Scope>, depth: usize) {
        for node in nodes {
            self.walked += 1;
            if self.walked > MAX_WALKED {
                self.findings.invalid.push(format!("the model unfolds to more than {MAX_WALKED} nodes"));
                return;
            }
            let results = self.node(node, given, scopes, depth);
            let Some(scope) = scopes.last_mut() else { return };
            for (i, name) in node.outputs.iter().enumerate() {
                let result = results.get(i).copied().flatten();
                if !name.is_empty() {
                    // Nobody may read it; exporters name outputs that nobody reads.
                    if result.is_none() && !results.is_empty() {
                        self.short.push((node, i));
                    }
                    scope.insert(name.clone(), result);
                }
            }
        }
    }

    /// The values of the node's outputs; shorter where nothing is known.
    fn node(
        &mut self,
        node: &'m Node<'m>,
        given: Option<&Given<'m>>,
        scopes: &mut Vec<Scope>,
        depth: usize,
    ) -> Vec<Option<ValueId>> {
        let find = |name: &str| scopes.iter().rev().find_map(|s| s.get(name)).copied();
        let mut inputs = Vec::with_capacity(node.inputs.len());
        let mut all_known = true;
        for name in &node.inputs {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            match find(name) {
                Some(Some(id)) => inputs.push(Some(id)),
                Some(None) => all_known = false,
                None => {
                    self.findings
                        .invalid
                        .push(format!("node {:?} reads {name:?}, which nothing before it makes", node.label()));
                    all_known = false;
                }
            }
        }
        let place = control::Place { node, given, inputs, depth };
        if census::is_denied(self.deny, node) {
            return self.denied(place, all_known, scopes);
        }
        self.known_or_not(place, all_known, scopes)
    }

    /// A node that the target must not be given: only if its answer is known now, so that the target never computes it.
    fn denied(
        &mut self,
        place: control::Place<'_, 'm>,
        all_known: bool,
        scopes: &mut Vec<Scope>,
    ) -> Vec<Option<ValueId>> {
        let node = place.node;
        let before = self.findings.unsupported.len();
        let results = self.known_or_not(place, all_known, scopes);
        let folded = |id: &Option<ValueId>| id.is_some_and(|id| self.b.graph.value(id).constant.is_some());
        if results.is_empty() || !results.iter().all(folded) {
            // What else is wrong with the node does not matter any more.
            self.findings.unsupported.truncate(before);
            self.findings.unsupported(node, Some(census::DENIED.to_owned()));
        }
        results
    }

    fn known_or_not(
        &mut self,
        place: control::Place<'_, 'm>,
        all_known: bool,
        scopes: &mut Vec<Scope>,
    ) -> Vec<Option<ValueId>> {
        let control::Place { node, given, inputs, depth } = place;
        self.b.label = node.label().to_owned();
        self.b.operator = node.operator();
        if let Some(function) = self.functions.get(&called(node)).copied() {
            return if all_known { self.function(node, function, given, &inputs, depth) } else { Vec::new() };
        }
        if !node.overload.is_empty() {
            let (label, name, overload) = (node.label(), node.operator(), &node.overload);
            self.findings
                .invalid
                .push(format!("node {label:?} calls {name} {overload:?}, a function that is not there"));
            return Vec::new();
        }
        let Some(handler) = ops::handler(&node.domain, &node.op_type) else {
            self.findings.unsupported(node, nearest(&node.domain, &node.op_type));
            return Vec::new();
        };
        if !all_known {
            return Vec::new();
        }
        let no_tensor = inputs.iter().flatten().any(|id| self.b.is_no_tensor(*id));
        if no_tensor && !(node.domain.is_empty() && ops::takes_lists(&node.op_type)) {
            let detail = "an input is a sequence or an empty optional, where a tensor was expected".to_owned();
            self.findings.unsupported(node, Some(detail));
            return Vec::new();
        }
        let result = match handler {
            ops::Handler::Plain(handler) => {
                let half = self.b.half_of(node, &inputs);
                if let (Some(dtype), "Cast" | "CastLike", Some(Some(x))) = (half, node.op_type.as_str(), inputs.first())
                    && self.b.halves.get(x) == Some(&dtype)
                {
                    return vec![Some(*x)];
                }
                let doubles = inputs.iter().flatten().any(|id| self.b.dtype(*id) == DType::F64);
                let kept = doubles.then(|| inputs.clone());
                let asked = Asked::default();
                let mut call = Call { b: &mut self.b, node, given, inputs, opset: self.opset, asked };
                let result = match (handler(&mut call), kept) {
                    (Err(problem), Some(inputs)) => match in_single(&mut call, handler, inputs) {
                        Ok(ids) => {
                            self.single.insert(node.operator());
                            Ok(ids)
                        }
                        Err(_) => Err(problem),
                    },
                    (result, _) => result,
                };
                let result = call.complaint(result.is_err()).map_or(result, Err);
                if let (Some(dtype), Ok(ids)) = (half, &result) {
                    ids.iter().for_each(|id| self.b.note_half(*id, dtype));
                }
                result.map(|ids| ids.into_iter().map(Some).collect())
            }
            ops::Handler::If
            | ops::Handler::Loop
            | ops::Handler::Scan
            | ops::Handler::SequenceMap
            | ops::Handler::FlexAttention => {
                self.control(&handler, control::Place { node, given, inputs, depth }, scopes)
            }
        };
        match result {
            Ok(results) => results,
            Err(Problem::Unsupported(detail)) => {
                self.findings.unsupported(node, Some(detail));
                Vec::new()
            }
            Err(Problem::Invalid(detail)) => {
                self.findings.invalid.push(format!("node {:?} ({}): {detail}", node.label(), node.op_type));
                Vec::new()
            }
        }
    }

    /// The body of a function of the model's own, in a scope of its own.
    fn function(
        &mut self,
        node: &'m Node<'m>,
        function: &'m Function<'m>,
        given: Option<&Given<'m>>,
        inputs: &[Option<ValueId>],
        depth: usize,
    ) -> Vec<Option<ValueId>> {
        if depth >= MAX_DEPTH {
            self.findings.invalid.push(format!("function {:?} calls itself, or is nested too deep", function.name));
            return Vec::new();
        }
        let mut attributes: Given<'m> = function.defaults.iter().map(|a| (a.name.clone(), a)).collect();
        for attribute in &node.attributes {
            if attribute.reference.is_empty() {
                attributes.insert(attribute.name.clone(), attribute);
            } else if let Some(value) = given.and_then(|g| g.get(&attribute.reference)) {
                attributes.insert(attribute.name.clone(), value);
            }
        }
        let mut scope = Scope::default();
        for (name, id) in function.inputs.iter().zip(inputs) {
            if id.is_some() {
                scope.insert(name.clone(), *id);
            }
        }
        let mut scopes = vec![scope];
        let outer = self.opset;
        self.opset = census::version(&function.opsets, "").unwrap_or(outer);
        self.nodes(&function.nodes, Some(&attributes), &mut scopes, depth + 1);
        self.opset = outer;
        function.outputs.iter().map(|name| scopes.iter().find_map(|s| s.get(name)).copied().flatten()).collect()
    }

    fn outputs(&mut self, graph: &'m onnx::Graph<'m>, scopes: &[Scope]) {
        let mut seen = BTreeSet::new();
        for output in &graph.outputs {
            if !seen.insert(output.name.as_str()) {
                self.findings.invalid.push(format!("two outputs are called {:?}", output.name));
            }
            match scopes.first().and_then(|s| s.get(&output.name)) {
                Some(Some(id)) if self.b.is_no_tensor(*id) => {
                    self.findings.types.insert(format!(
                        "output {:?} is a sequence or an optional; make its tensors outputs of their own",
                        output.name
                    ));
                }
                Some(Some(id)) => {
                    let id = &self.as_declared(output, *id);
                    self.b.graph.outputs.push(*id);
                    self.b.graph.output_names.push(output.name.clone());
                    if self.b.graph.value(*id).is_empty() {
                        self.findings.types.insert(format!(
                            "output {:?} has no elements; leave it out of the model's outputs",
                            output.name
                        ));
                    }
                }
                // What is unknown without a finding comes of outputs that an operator is not imported with.
                Some(None) if self.findings.is_empty() => {
                    for (node, i) in std::mem::take(&mut self.short) {
                        self.findings.unsupported(node, Some(format!("its output {i}")));
                    }
                }
                Some(None) => {}
                None => self.findings.invalid.push(format!("nothing makes the output {:?}", output.name)),
            }
        }
        self.counts();
        if graph.outputs.is_empty() {
            self.findings.invalid.push("the model has no outputs".to_owned());
        }
    }

    /// How many rows of an output are valid is an output too, behind the model's own.
    fn counts(&mut self) {
        for (output, id) in self.b.graph.outputs.clone().into_iter().enumerate() {
            let Some((count, axis)) = self.b.count_of(id) else { continue };
            let name = format!("{}.count", self.b.graph.output_names[output]);
            if self.b.graph.output_names.contains(&name) || self.b.graph.outputs.len() >= inputs::MAX_TENSORS {
                self.findings.invalid.push(format!("there is no room for an output {name:?}"));
                return;
            }
            self.b.graph.counted.push(Counted { output, count: self.b.graph.outputs.len(), axis });
            self.b.graph.outputs.push(count);
            self.b.graph.output_names.push(name);
        }
    }

    fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// An output in the type that the model declares, where that is stored otherwise than computed.
    fn as_declared(&mut self, output: &onnx::ValueInfo, id: ValueId) -> ValueId {
        let found = self.b.dtype(id);
        match tensor::stored(output.data_type) {
            Some(wanted) if wanted != found && tensor::computed(wanted) == DType::F32 && found == DType::F32 => {
                (self.b.label, self.b.operator) = (output.name.clone(), "Cast".to_owned());
                self.b.cast(id, wanted).unwrap_or(id)
            }
            _ => id,
        }
    }

    /// The type of an input's elements.
    fn element_type(&mut self, info: &onnx::ValueInfo) -> Option<DType> {
        let (name, data_type) = (&info.name, info.data_type);
        let found = tensor::stored(data_type);
        match found {
            None => {
                let advice = match info.kind {
                    onnx::Kind::Tensor if data_type == 8 => {
                        " of strings; encode them before the request and give numbers to the model"
                    }
                    onnx::Kind::Tensor => "",
                    onnx::Kind::Sequence => "; make each of its tensors an input of its own",
                    onnx::Kind::Map => "; make its values one tensor",
                    onnx::Kind::Optional => "; export the model with the value always there, or without it",
                    onnx::Kind::Sparse => "; make it a dense one",
                };
                let what = match info.kind {
                    onnx::Kind::Tensor if data_type == 8 => "a tensor".to_owned(),
                    onnx::Kind::Tensor => format!("of type {}", tensor::type_name(data_type)),
                    onnx::Kind::Sequence => "a sequence".to_owned(),
                    onnx::Kind::Map => "a map".to_owned(),
                    onnx::Kind::Optional => "an optional".to_owned(),
                    onnx::Kind::Sparse => "a sparse tensor".to_owned(),
                };
                self.findings.types.insert(format!("input {name:?} is {what}{advice}"));
            }
            Some(DType::F16 | DType::BF16) => {
                self.note(format!(
                    "input {name:?} is {}, what is made of it is computed in FP32",
                    tensor::type_name(data_type)
                ));
            }
            Some(_) => {}
        }
        found
    }
}
