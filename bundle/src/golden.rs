//! Golden vectors: inputs with expected outputs that a release must reproduce on the very gateway before it serves.
//!
//! The file is a safetensors file (huggingface/safetensors: `u64` little-endian header length, JSON header, data) with
//! `inputs/<name>` and `outputs/<name>` of shape `[N, …the tensor's shape]`, and optionally `labels/<output>`, I64 `[N]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Contract, DataType, GoldenMatch, TensorSpec, Tolerance};

/// Largest golden file.
pub const MAX_GOLDEN_BYTES: usize = 16 << 20;
/// Most vectors.
pub const MAX_VECTORS: u64 = 4096;
const MAX_HEADER_BYTES: usize = 1 << 20;

/// Why a golden file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each variant's sentence says what its fields are
pub enum GoldenError {
    #[error("the golden file has {found} bytes, at most {MAX_GOLDEN_BYTES} are allowed")]
    TooLarge { found: usize },
    #[error("the golden file is not a safetensors file: {0}")]
    NotSafetensors(&'static str),
    #[error("the golden file has no tensor {0:?}")]
    Missing(String),
    #[error("the golden file's tensor {name:?} should be {expected}, it is {found}")]
    Shape { name: String, expected: String, found: String },
    #[error("the golden file's tensor {0:?} belongs to no input or output of the model")]
    Unknown(String),
    #[error("the golden file needs 1 to {MAX_VECTORS} vectors, it has {0}")]
    Count(u64),
    #[error("the golden file has neither outputs/{0} nor labels/{0}")]
    NothingExpected(String),
}

/// One tensor of the file: where its bytes are.
#[derive(Debug, Clone)]
struct Stacked {
    start: usize,
    /// Bytes of one vector.
    stride: usize,
}

/// A golden file that fits a contract.
#[derive(Debug, Clone)]
pub struct Golden {
    bytes: Vec<u8>,
    count: usize,
    inputs: BTreeMap<String, Stacked>,
    outputs: BTreeMap<String, Stacked>,
    labels: BTreeMap<String, Stacked>,
}

#[derive(Deserialize, Serialize)]
struct Header {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [usize; 2],
}

const fn dtype_name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "BOOL",
        DataType::Uint8 => "U8",
        DataType::Uint16 => "U16",
        DataType::Uint32 => "U32",
        DataType::Uint64 => "U64",
        DataType::Int8 => "I8",
        DataType::Int16 => "I16",
        DataType::Int32 => "I32",
        DataType::Int64 => "I64",
        DataType::Fp32 => "F32",
        DataType::Fp64 => "F64",
    }
}

impl Golden {
    /// Reads a file for a model with these inputs and outputs. Every input must be there; every output needs `outputs/` or
    /// `labels/` in a user's file.
    pub fn parse(bytes: &[u8], inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Result<Self, GoldenError> {
        if bytes.len() > MAX_GOLDEN_BYTES {
            return Err(GoldenError::TooLarge { found: bytes.len() });
        }
        let (headers, data_start) = headers(bytes)?;
        let mut golden = Self {
            bytes: bytes.to_vec(),
            count: 0,
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        let mut count = None;
        for (name, header) in &headers {
            let missing = || GoldenError::Unknown(name.chars().take(100).collect());
            let (kind, tensor) = name.split_once('/').ok_or_else(missing)?;
            let find = |specs: &[TensorSpec]| specs.iter().find(|t| t.name == tensor).cloned().ok_or_else(missing);
            let (spec, place) = match kind {
                "inputs" => (find(inputs)?, &mut golden.inputs),
                "outputs" => (find(outputs)?, &mut golden.outputs),
                "labels" => {
                    let output = find(outputs)?;
                    (TensorSpec { name: output.name, datatype: DataType::Int64, shape: Vec::new() }, &mut golden.labels)
                }
                _ => return Err(missing()),
            };
            let n = header.shape.first().copied().unwrap_or(0);
            if n == 0 || n > MAX_VECTORS || count.is_some_and(|c| c != n) {
                return Err(GoldenError::Count(n));
            }
            count = Some(n);
            let fits =
                header.shape.get(1..) == Some(spec.shape.as_slice()) && header.dtype == dtype_name(spec.datatype);
            let stride = spec.bytes().unwrap_or(u64::MAX);
            let [start, end] = header.data_offsets;
            if !fits || stride.checked_mul(n) != Some((end as u64).saturating_sub(start as u64)) {
                return Err(GoldenError::Shape {
                    name: name.chars().take(100).collect(),
                    expected: format!("{} [N, {:?}]", dtype_name(spec.datatype), spec.shape),
                    found: format!("{} {:?}", header.dtype.chars().take(10).collect::<String>(), header.shape),
                });
            }
            if bytes.get(data_start..).is_none_or(|data| data.get(start..end).is_none()) {
                return Err(GoldenError::NotSafetensors("a tensor lies outside the file"));
            }
            place.insert(spec.name, Stacked { start: data_start + start, stride: stride as usize });
        }
        golden.count = count.ok_or(GoldenError::Count(0))? as usize;
        if let Some(input) = inputs.iter().find(|t| !golden.inputs.contains_key(&t.name)) {
            return Err(GoldenError::Missing(format!("inputs/{}", input.name)));
        }
        if golden.outputs.is_empty() && golden.labels.is_empty() {
            let name = outputs.first().map(|t| t.name.clone()).unwrap_or_default();
            return Err(GoldenError::NothingExpected(name));
        }
        Ok(golden)
    }

    /// Number of vectors.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Never true of a file that was read.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the file says what this output's values should be.
    pub fn has_values(&self, output: &str) -> bool {
        self.outputs.contains_key(output)
    }

    /// Whether the file labels this output.
    pub fn has_labels(&self, output: &str) -> bool {
        self.labels.contains_key(output)
    }

    fn slice(&self, place: &BTreeMap<String, Stacked>, vector: usize, name: &str) -> Option<&[u8]> {
        let stacked = place.get(name)?;
        if vector >= self.count {
            return None;
        }
        let start = stacked.start.checked_add(stacked.stride.checked_mul(vector)?)?;
        self.bytes.get(start..start.checked_add(stacked.stride)?)
    }

    /// Bytes of one input of one vector.
    pub fn input(&self, vector: usize, name: &str) -> Option<&[u8]> {
        self.slice(&self.inputs, vector, name)
    }

    /// Bytes of one expected output of one vector.
    pub fn output(&self, vector: usize, name: &str) -> Option<&[u8]> {
        self.slice(&self.outputs, vector, name)
    }

    /// The label of one output of one vector.
    pub fn label(&self, vector: usize, name: &str) -> Option<i64> {
        self.slice(&self.labels, vector, name)?.try_into().ok().map(i64::from_le_bytes)
    }

    /// The file again, with `outputs/` replaced by what the reference evaluator gave: what a signed bundle carries.
    /// `values` has one buffer of N stacked tensors per output.
    pub fn with_outputs(&self, inputs: &[TensorSpec], outputs: &[TensorSpec], values: &[Vec<u8>]) -> Vec<u8> {
        let stacked = |place: &BTreeMap<String, Stacked>, name: &str| {
            place.get(name).and_then(|s| self.bytes.get(s.start..s.start + s.stride * self.count)).unwrap_or_default()
        };
        let mut tensors: Vec<(String, DataType, Vec<u64>, &[u8])> = Vec::new();
        let shape = |t: &TensorSpec| [&[self.count as u64], t.shape.as_slice()].concat();
        for t in inputs {
            tensors.push((format!("inputs/{}", t.name), t.datatype, shape(t), stacked(&self.inputs, &t.name)));
        }
        for (t, value) in outputs.iter().zip(values) {
            tensors.push((format!("outputs/{}", t.name), t.datatype, shape(t), value));
            if self.has_labels(&t.name) {
                let labels = stacked(&self.labels, &t.name);
                tensors.push((format!("labels/{}", t.name), DataType::Int64, vec![self.count as u64], labels));
            }
        }
        write(&tensors)
    }

    /// Compares one vector's outputs with what is expected of them.
    pub fn check(&self, vector: usize, outputs: &[(&TensorSpec, &[u8])], contract: &Contract) -> VectorResult {
        let verification = &contract.verification;
        let mut result = VectorResult { values: None, label: None };
        for (spec, actual) in outputs {
            if let Some(expected) = self.output(vector, &spec.name)
                && result.values.is_none()
                && let Err(e) = compare(spec, actual, expected, &verification.tolerance)
            {
                result.values = Some(format!("vector {vector}, output {:?}: {e}", spec.name));
            }
            if verification.golden_match == GoldenMatch::ArgMax
                && result.label.is_none()
                && let Some(label) = self.label(vector, &spec.name)
            {
                let found = argmax(spec, actual);
                if found != Some(label) {
                    let found = found.map_or("nothing (not finite)".to_owned(), |f| f.to_string());
                    result.label =
                        Some(format!("vector {vector}, output {:?}: label {label} expected, {found} found", spec.name));
                }
            }
        }
        result
    }
}

/// What was wrong with one vector, if anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VectorResult {
    /// `outputs/` were not met within tolerance.
    pub values: Option<String>,
    /// `labels/` were not met.
    pub label: Option<String>,
}

/// Adds vectors up to a judgement.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    vectors: u64,
    wrong_values: u64,
    wrong_labels: u64,
    first: Option<String>,
}

impl Tally {
    /// Counts one vector.
    pub fn add(&mut self, result: VectorResult) {
        self.vectors += 1;
        self.wrong_values += u64::from(result.values.is_some());
        self.wrong_labels += u64::from(result.label.is_some());
        if self.first.is_none() {
            self.first = result.label.or(result.values);
        }
    }

    /// Share of vectors whose labels matched, per mille.
    pub fn labels_per_mille(&self) -> u64 {
        (self.vectors - self.wrong_labels) * 1000 / self.vectors.max(1)
    }

    /// `Err` has one sentence. The user's own expectation (labels, or values that are theirs) may be missed by the share that
    /// the contract allows; values that the reference evaluator made must all be met.
    pub fn judge(&self, contract: &Contract) -> Result<(), String> {
        let verification = &contract.verification;
        let needed = u64::from(verification.min_matching_per_mille.min(1000));
        let share = |wrong: u64| (self.vectors - wrong) * 1000 / self.vectors.max(1);
        let by_label = verification.golden_match == GoldenMatch::ArgMax;
        let values_needed = if by_label || !verification.user_golden { 1000 } else { needed };
        let first = self.first.as_deref().unwrap_or("no vector was run");
        if self.vectors == 0 {
            return Err("no golden vector was run".to_owned());
        }
        if by_label && share(self.wrong_labels) < needed {
            return Err(format!(
                "{} of {} golden vectors have the right label, {}.{} % are needed; first: {first}",
                self.vectors - self.wrong_labels,
                self.vectors,
                needed / 10,
                needed % 10
            ));
        }
        if share(self.wrong_values) < values_needed {
            return Err(format!(
                "{} of {} golden vectors are reproduced within tolerance; first: {first}",
                self.vectors - self.wrong_values,
                self.vectors
            ));
        }
        Ok(())
    }
}

/// Elements of a tensor as f64; integers above 2⁵³ lose their last bits, which no tolerance asks for.
fn elements(datatype: DataType, bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    bytes.chunks_exact(datatype.size()).map(move |c| {
        macro_rules! read {
            ($t:ty) => {
                c.try_into().map(<$t>::from_le_bytes).unwrap_or_default() as f64
            };
        }
        match datatype {
            DataType::Bool | DataType::Uint8 => read!(u8),
            DataType::Uint16 => read!(u16),
            DataType::Uint32 => read!(u32),
            DataType::Uint64 => read!(u64),
            DataType::Int8 => read!(i8),
            DataType::Int16 => read!(i16),
            DataType::Int32 => read!(i32),
            DataType::Int64 => read!(i64),
            DataType::Fp32 => read!(f32),
            DataType::Fp64 => read!(f64),
        }
    })
}

/// `|a − b| ≤ absolute + relative · |b|`; NaN equals NaN only, an infinity itself only.
fn compare(spec: &TensorSpec, actual: &[u8], expected: &[u8], tolerance: &Tolerance) -> Result<(), String> {
    if actual.len() != expected.len() {
        return Err(format!("{} bytes instead of {}", actual.len(), expected.len()));
    }
    for (i, (a, b)) in elements(spec.datatype, actual).zip(elements(spec.datatype, expected)).enumerate() {
        let equal =
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance.absolute + tolerance.relative * b.abs();
        if !equal {
            return Err(format!("element {i} is {a}, expected {b}"));
        }
    }
    Ok(())
}

/// Index of the largest element along the last axis of a tensor with one row; `None` when one is NaN.
fn argmax(spec: &TensorSpec, bytes: &[u8]) -> Option<i64> {
    let mut best: Option<(i64, f64)> = None;
    for (i, x) in elements(spec.datatype, bytes).enumerate() {
        if x.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, b)| x > b) {
            best = Some((i as i64, x));
        }
    }
    best.map(|(i, _)| i)
}

fn headers(bytes: &[u8]) -> Result<(BTreeMap<String, Header>, usize), GoldenError> {
    let length =
        bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or(GoldenError::NotSafetensors("too short"))?;
    let length = usize::try_from(length)
        .ok()
        .filter(|l| *l <= MAX_HEADER_BYTES)
        .ok_or(GoldenError::NotSafetensors("its header claims more than 1 MiB"))?;
    let header = bytes.get(8..8 + length).ok_or(GoldenError::NotSafetensors("its header is cut off"))?;
    let mut raw: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|_| GoldenError::NotSafetensors("its header is not JSON"))?;
    raw.remove("__metadata__");
    let mut headers = BTreeMap::new();
    for (name, value) in raw {
        let header = serde_json::from_value(value)
            .map_err(|_| GoldenError::NotSafetensors("a tensor's header lacks dtype, shape or data_offsets"))?;
        headers.insert(name, header);
    }
    Ok((headers, 8 + length))
}

/// A safetensors file of `(name, type, shape, bytes)`; the same bytes for the same tensors.
pub fn write(tensors: &[(String, DataType, Vec<u64>, &[u8])]) -> Vec<u8> {
    let mut headers = BTreeMap::new();
    let mut end = 0;
    for (name, datatype, shape, bytes) in tensors {
        let start = end;
        end += bytes.len();
        headers.insert(
            name,
            Header { dtype: dtype_name(*datatype).to_owned(), shape: shape.clone(), data_offsets: [start, end] },
        );
    }
    let mut json = serde_json::to_vec(&headers).unwrap_or_default();
    // The format asks for the data to start at a multiple of 8.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&json);
    for (_, _, _, bytes) in tensors {
        out.extend_from_slice(bytes);
    }
    out
}
