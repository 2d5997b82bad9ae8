//! Just enough of ONNX's wire format to write small models.

fn varint(mut x: u64, out: &mut Vec<u8>) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

/// A number under a field.
pub fn int(field: u64, x: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(x as u64, &mut out);
    out
}

/// Bytes under a field: a string or a message.
pub fn part(field: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3 | 2, &mut out);
    varint(bytes.as_ref().len() as u64, &mut out);
    out.extend_from_slice(bytes.as_ref());
    out
}

/// A dimension: fixed, or open under a name.
pub enum Dim {
    Is(i64),
    Open(&'static str),
}

/// A named tensor of a `TensorProto.DataType`.
pub fn value(name: &str, data_type: i64, dims: &[Dim]) -> Vec<u8> {
    let dims: Vec<u8> = dims
        .iter()
        .flat_map(|d| {
            part(
                1,
                match d {
                    Dim::Is(x) => int(1, *x),
                    Dim::Open(name) => part(2, name),
                },
            )
        })
        .collect();
    let tensor = [int(1, data_type), part(2, dims)].concat();
    [part(1, name), part(2, part(1, tensor))].concat()
}

/// An operator.
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    inputs.iter().for_each(|i| out.extend(part(1, i)));
    outputs.iter().for_each(|o| out.extend(part(2, o)));
    out.extend(part(4, operator));
    attributes.iter().for_each(|a| out.extend(part(5, a)));
    out
}

/// An attribute that is a graph.
pub fn graph_attribute(name: &str, graph: &[u8]) -> Vec<u8> {
    [part(1, name), part(6, graph), int(20, 5)].concat()
}

/// A constant of f32.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let dims: Vec<u8> = dims.iter().flat_map(|d| int(1, *d)).collect();
    [dims, int(2, 1), part(8, name), part(9, raw)].concat()
}

/// A constant of Booleans or integers of one byte.
pub fn bytes(name: &str, data_type: i64, dims: &[i64], values: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|d| int(1, *d)).collect();
    [dims, int(2, data_type), part(8, name), part(9, values)].concat()
}

/// What a graph is made of.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Vec<u8>>,
    pub constants: Vec<Vec<u8>>,
    pub inputs: Vec<Vec<u8>>,
    pub outputs: Vec<Vec<u8>>,
}

impl Graph {
    pub fn bytes(&self) -> Vec<u8> {
        let all = [(1, &self.nodes), (5, &self.constants), (11, &self.inputs), (12, &self.outputs)];
        all.into_iter().flat_map(|(field, list)| list.iter().flat_map(move |b| part(field, b))).collect()
    }

    /// The whole file, with operator set 17.
    pub fn model(&self) -> Vec<u8> {
        [int(1, 8), part(7, self.bytes()), part(8, int(2, 17))].concat()
    }
}

/// One input `x` and one output `y` of f32, and nodes between them.
pub fn chain(dims: &[Dim], nodes: Vec<Vec<u8>>) -> Graph {
    Graph { nodes, constants: vec![], inputs: vec![value("x", 1, dims)], outputs: vec![value("y", 1, &[])] }
}
