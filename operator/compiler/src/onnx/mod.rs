//! Reads ONNX files (onnx/onnx `onnx.proto`, all IR versions so far) within bounds: hostile bytes give an error, in time and
//! memory linear in their number, without recursion deeper than [`MAX_DEPTH`].
//!
//! Our own reader instead of a crate's: raw tensor data stays where it is in the file, the number of parts is bounded before
//! they are allocated, and model-local functions are read.

mod wire;

use wire::{Field, Message};

/// Deepest nesting of graphs in attributes.
pub const MAX_DEPTH: usize = 16;
/// Most nodes, tensors, attributes, names and types of a whole model together.
pub const MAX_PARTS: usize = 2_000_000;
/// Longest name.
pub const MAX_NAME_BYTES: usize = 4096;

/// Why a file is not an ONNX model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// A part reaches beyond the end of the file.
    #[error("the file ends in the middle of a part")]
    Truncated,
    /// Not what ONNX prescribes.
    #[error("{0}")]
    Malformed(&'static str),
    /// Beyond what is read.
    #[error("the model has more than {MAX_PARTS} parts or graphs nested deeper than {MAX_DEPTH}")]
    TooComplex,
}

impl OnnxError {
    const fn malformed(what: &'static str) -> Self {
        Self::Malformed(what)
    }
}

/// A whole model.
#[derive(Debug, Clone, Default)]
pub struct Model<'a> {
    /// Version of the format.
    pub ir_version: i64,
    /// Operator sets by domain ("" is ONNX's own).
    pub opsets: Vec<(String, i64)>,
    /// What is computed.
    pub graph: Graph<'a>,
    /// Functions that the model brings along.
    pub functions: Vec<Function<'a>>,
}

/// Nodes over named values.
#[derive(Debug, Clone, Default)]
pub struct Graph<'a> {
    /// In topological order, as ONNX demands; checked by whoever walks them.
    pub nodes: Vec<Node<'a>>,
    /// Constants; some may be the default of an input of that name.
    pub initializers: Vec<Tensor<'a>>,
    /// There is a sparse constant, which is not supported.
    pub sparse: bool,
    /// Inputs.
    pub inputs: Vec<ValueInfo>,
    /// Outputs.
    pub outputs: Vec<ValueInfo>,
}

/// One node.
#[derive(Debug, Clone, Default)]
pub struct Node<'a> {
    /// Names of inputs; empty for one that is left out.
    pub inputs: Vec<String>,
    /// Names of outputs; empty for one that is not wanted.
    pub outputs: Vec<String>,
    /// May be empty.
    pub name: String,
    /// The operator.
    pub op_type: String,
    /// The operator's domain.
    pub domain: String,
    /// Which of a function's forms is called; empty for all that is no function.
    pub overload: String,
    /// Attributes.
    pub attributes: Vec<Attribute<'a>>,
}

impl Node<'_> {
    /// The operator, with its domain when that is not ONNX's own.
    pub fn operator(&self) -> String {
        if self.domain.is_empty() { self.op_type.clone() } else { format!("{}.{}", self.domain, self.op_type) }
    }

    /// The node's name, or that of its first output.
    pub fn label(&self) -> &str {
        if self.name.is_empty() { self.outputs.first().map_or("", String::as_str) } else { &self.name }
    }
}

/// A function of the model's own.
#[derive(Debug, Clone, Default)]
pub struct Function<'a> {
    /// How nodes call it.
    pub name: String,
    /// The domain under which nodes call it.
    pub domain: String,
    /// Told apart by it: functions of one name (IR version 10).
    pub overload: String,
    /// Operator sets of its body, by domain.
    pub opsets: Vec<(String, i64)>,
    /// Formal inputs.
    pub inputs: Vec<String>,
    /// Formal outputs.
    pub outputs: Vec<String>,
    /// Attributes with defaults.
    pub defaults: Vec<Attribute<'a>>,
    /// Body.
    pub nodes: Vec<Node<'a>>,
}

/// One attribute.
#[derive(Debug, Clone, Default)]
pub struct Attribute<'a> {
    /// Its name.
    pub name: String,
    /// Inside a function: the caller's attribute that gives the value.
    pub reference: String,
    /// `AttributeProto.AttributeType`, which of the fields below counts; 0 where the file does not say.
    pub kind: i32,
    /// Float.
    pub float: f32,
    /// Integer.
    pub int: i64,
    /// String.
    pub text: &'a [u8],
    /// Tensor.
    pub tensor: Option<Tensor<'a>>,
    /// Graph.
    pub graph: Option<Graph<'a>>,
    /// Floats.
    pub floats: Vec<f32>,
    /// Integers.
    pub ints: Vec<i64>,
    /// Strings.
    pub texts: Vec<&'a [u8]>,
}

/// A tensor as it lies in the file.
#[derive(Debug, Clone, Default)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: String,
    /// `TensorProto.DataType`.
    pub data_type: i32,
    /// Dimensions.
    pub dims: Vec<i64>,
    /// The elements as little-endian bytes, when given so.
    pub raw: Option<&'a [u8]>,
    /// float_data
    pub floats: Vec<f32>,
    /// int32_data, int64_data or uint64_data: which one `data_type` says.
    pub ints: Vec<i64>,
    /// double_data
    pub doubles: Vec<f64>,
    /// The elements are in another file.
    pub external: Option<External>,
}

/// Where a tensor's elements are, when they are not in the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct External {
    /// Path of the file, relative to the model's.
    pub location: String,
    /// First byte.
    pub offset: u64,
    /// Bytes; all that follow when it is not said.
    pub length: Option<u64>,
}

/// What an input or output is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Kind {
    #[default]
    Tensor,
    Sequence,
    Map,
    Optional,
    Sparse,
}

/// Name and type of an input or output.
#[derive(Debug, Clone, Default)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// `TensorProto.DataType`; 0 when it is no tensor, or not given.
    pub data_type: i32,
    /// What it is; the type of its elements is a tensor's only.
    pub kind: Kind,
    /// Given a shape at all.
    pub shape: Option<Vec<Dimension>>,
}

/// One dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// Fixed.
    Value(i64),
    /// Open; the name may be empty. Equal names mean equal extents.
    Open(String),
}

/// Counts what was allocated.
struct Budget {
    parts: usize,
}

impl Budget {
    fn spend(&mut self) -> Result<(), OnnxError> {
        self.parts = self.parts.checked_sub(1).ok_or(OnnxError::TooComplex)?;
        Ok(())
    }
}

/// Reads a file.
pub fn parse(bytes: &[u8]) -> Result<Model<'_>, OnnxError> {
    let mut budget = Budget { parts: MAX_PARTS };
    let mut model = Model::default();
    let mut has_graph = false;
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => model.ir_version = field.int()?,
            7 => {
                model.graph = graph(field.message()?, &mut budget, 0)?;
                has_graph = true;
            }
            8 => {
                budget.spend()?;
                model.opsets.push(opset(field.message()?)?);
            }
            25 => {
                budget.spend()?;
                model.functions.push(function(field.message()?, &mut budget)?);
            }
            _ => {}
        }
    }
    if !has_graph {
        return Err(OnnxError::malformed("it has no graph"));
    }
    if model.ir_version < 1 {
        return Err(OnnxError::malformed("it has no IR version"));
    }
    Ok(model)
}

fn opset(mut message: Message<'_>) -> Result<(String, i64), OnnxError> {
    let (mut domain, mut version) = (String::new(), 0);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => domain = field.text()?,
            2 => version = field.int()?,
            _ => {}
        }
    }
    Ok((canonical_domain(domain), version))
}

/// "ai.onnx" is another name of "".
fn canonical_domain(domain: String) -> String {
    if domain == "ai.onnx" { String::new() } else { domain }
}

fn graph<'a>(mut message: Message<'a>, budget: &mut Budget, depth: usize) -> Result<Graph<'a>, OnnxError> {
    if depth >= MAX_DEPTH {
        return Err(OnnxError::TooComplex);
    }
    let mut graph = Graph::default();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => {
                budget.spend()?;
                graph.nodes.push(node(field.message()?, budget, depth)?);
            }
            5 => {
                budget.spend()?;
                graph.initializers.push(tensor(field.message()?)?);
            }
            11 => {
                budget.spend()?;
                graph.inputs.push(value_info(field.message()?, budget)?);
            }
            12 => {
                budget.spend()?;
                graph.outputs.push(value_info(field.message()?, budget)?);
            }
            15 => graph.sparse = true,
            _ => {}
        }
    }
    Ok(graph)
}

fn name(field: Field<'_>, budget: &mut Budget) -> Result<String, OnnxError> {
    budget.spend()?;
    field.text()
}

fn node<'a>(mut message: Message<'a>, budget: &mut Budget, depth: usize) -> Result<Node<'a>, OnnxError> {
    let mut node = Node::default();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => node.inputs.push(name(field, budget)?),
            2 => node.outputs.push(name(field, budget)?),
            3 => node.name = field.text()?,
            4 => node.op_type = field.text()?,
            5 => {
                budget.spend()?;
                node.attributes.push(attribute(field.message()?, budget, depth)?);
            }
            7 => node.domain = canonical_domain(field.text()?),
            8 => node.overload = field.text()?,
            _ => {}
        }
    }
    Ok(node)
}

fn attribute<'a>(mut message: Message<'a>, budget: &mut Budget, depth: usize) -> Result<Attribute<'a>, OnnxError> {
    let mut attribute = Attribute::default();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => attribute.name = field.text()?,
            2 => attribute.float = field.float()?,
            3 => attribute.int = field.int()?,
            4 => attribute.text = field.bytes()?,
            5 => attribute.tensor = Some(tensor(field.message()?)?),
            6 => attribute.graph = Some(graph(field.message()?, budget, depth + 1)?),
            7 => field.floats_into(&mut attribute.floats)?,
            8 => field.ints_into(&mut attribute.ints)?,
            9 => {
                budget.spend()?;
                attribute.texts.push(field.bytes()?);
            }
            20 => attribute.kind = field.int32()?,
            21 => attribute.reference = field.text()?,
            _ => {}
        }
    }
    Ok(attribute)
}

fn tensor(mut message: Message<'_>) -> Result<Tensor<'_>, OnnxError> {
    let mut tensor = Tensor::default();
    let (mut external, mut is_external) = (External::default(), false);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => field.ints_into(&mut tensor.dims)?,
            2 => tensor.data_type = field.int32()?,
            4 => field.floats_into(&mut tensor.floats)?,
            5 | 7 | 11 => field.ints_into(&mut tensor.ints)?,
            8 => tensor.name = field.text()?,
            9 => tensor.raw = Some(field.bytes()?),
            10 => field.doubles_into(&mut tensor.doubles)?,
            13 => external_entry(field.message()?, &mut external)?,
            14 => is_external = field.int()? == 1,
            _ => {}
        }
    }
    tensor.external = is_external.then_some(external);
    Ok(tensor)
}

/// One key and its value. Others than these three (a checksum) say nothing that is needed.
fn external_entry(mut message: Message<'_>, external: &mut External) -> Result<(), OnnxError> {
    let (mut key, mut value) = (String::new(), String::new());
    while let Some((number, field)) = message.next()? {
        match number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    let number = || value.parse().map_err(|_| OnnxError::malformed("an offset or length in another file is no number"));
    match key.as_str() {
        "offset" => external.offset = number()?,
        "length" => external.length = Some(number()?),
        "location" => external.location = value,
        _ => {}
    }
    Ok(())
}

fn value_info(mut message: Message<'_>, budget: &mut Budget) -> Result<ValueInfo, OnnxError> {
    let mut info = ValueInfo::default();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => info.name = field.text()?,
            2 => {
                let mut kinds = field.message()?;
                while let Some((kind, field)) = kinds.next()? {
                    match kind {
                        1 => tensor_type(field.message()?, &mut info, budget)?,
                        4 => info.kind = Kind::Sequence,
                        5 => info.kind = Kind::Map,
                        8 => info.kind = Kind::Sparse,
                        9 => info.kind = Kind::Optional,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(info)
}

fn tensor_type(mut message: Message<'_>, info: &mut ValueInfo, budget: &mut Budget) -> Result<(), OnnxError> {
    while let Some((number, field)) = message.next()? {
        match number {
            1 => info.data_type = field.int32()?,
            2 => {
                let mut dims = Vec::new();
                let mut shape = field.message()?;
                while let Some((number, field)) = shape.next()? {
                    if number == 1 {
                        budget.spend()?;
                        dims.push(dimension(field.message()?)?);
                    }
                }
                info.shape = Some(dims);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Exporters also write -1, and "?" for each of several dimensions that have nothing to do with each other: open, without
/// a name.
fn dimension(mut message: Message<'_>) -> Result<Dimension, OnnxError> {
    let open = || Dimension::Open(String::new());
    let mut dimension = open();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => dimension = Some(field.int()?).filter(|extent| *extent >= 0).map_or_else(open, Dimension::Value),
            2 => dimension = Some(field.text()?).filter(|name| name != "?").map_or_else(open, Dimension::Open),
            _ => {}
        }
    }
    Ok(dimension)
}

fn function<'a>(mut message: Message<'a>, budget: &mut Budget) -> Result<Function<'a>, OnnxError> {
    let mut function = Function::default();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => function.name = field.text()?,
            4 => function.inputs.push(name(field, budget)?),
            5 => function.outputs.push(name(field, budget)?),
            7 => {
                budget.spend()?;
                function.nodes.push(node(field.message()?, budget, 0)?);
            }
            9 => {
                budget.spend()?;
                function.opsets.push(opset(field.message()?)?);
            }
            10 => function.domain = canonical_domain(field.text()?),
            11 => {
                budget.spend()?;
                function.defaults.push(attribute(field.message()?, budget, 0)?);
            }
            13 => function.overload = field.text()?,
            _ => {}
        }
    }
    Ok(function)
}
