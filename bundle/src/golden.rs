//! Golden vectors: inputs with expected outputs that a release must reproduce on the very gateway before it serves.
//!
//! The file is a safetensors file (huggingface/safetensors: `u64` little-endian header length, JSON header, data) with
//! `inputs/<name>` and `outputs/<name>` of shape `[N, …the tensor's shape]`, and optionally `labels/<output>`, I64 `[N]`.
//!
//! Two files, two judgements. The user's file judges the *model*, once, by what the reference evaluator computes: numbers or
//! labels, as many as `minMatching` asks ([`Golden::check_users`], [`Tally::judge_users`]). The bundle's file, made from it,
//! carries the evaluator's own outputs and judges the *compilation and the CPU*, wherever the plan runs: every number within
//! tolerance, and the labels too ([`Golden::check`], [`Tally::judge`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Contract, DataType, GoldenMatch, TensorSpec, Tolerance};

/// Largest golden file.
pub const MAX_GOLDEN_BYTES: usize = 16 << 20;
/// Most vectors.
pub const MAX_VECTORS: u64 = 4096;
const MAX_HEADER_BYTES: usize = 256 << 10;
const MAX_TENSORS: usize = 1024;

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
    #[error("output {0:?} has several rows, so one label a vector says nothing: give outputs/{0}")]
    Rows(String),
    #[error("the golden file has neither outputs/{0} nor labels/{0}")]
    NothingExpected(String),
    #[error("no output of the golden file has a label: give labels/NAME, or compare numbers with match: Values")]
    NoLabel,
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
                    // One label a vector is one row to choose from.
                    if !one_row(&output) {
                        return Err(GoldenError::Rows(tensor.chars().take(100).collect()));
                    }
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
        if let Some(output) = outputs.iter().find(|t| !golden.has_values(&t.name) && !golden.has_labels(&t.name)) {
            return Err(GoldenError::NothingExpected(output.name.clone()));
        }
        Ok(golden)
    }

    /// Whether the file can judge a model the way the contract compares: numbers need `outputs/` everywhere; labels need one
    /// output at least that has a label, or one row of numbers whose largest is the label.
    pub fn can_judge(&self, contract: &Contract) -> Result<(), GoldenError> {
        let mut outputs = contract.outputs.iter();
        match contract.verification.golden_match {
            GoldenMatch::Values => match outputs.find(|t| !self.has_values(&t.name)) {
                Some(output) => Err(GoldenError::Missing(format!("outputs/{}", output.name))),
                None => Ok(()),
            },
            GoldenMatch::ArgMax => {
                if self.labels.is_empty() && !outputs.any(one_row) {
                    return Err(GoldenError::NoLabel);
                }
                Ok(())
            }
        }
    }

    /// Reads the golden layer of a bundle: every output has its expected values there.
    pub fn of_bundle(bytes: &[u8], contract: &Contract) -> Result<Self, GoldenError> {
        let golden = Self::parse(bytes, &contract.inputs, &contract.outputs)?;
        match contract.outputs.iter().find(|t| !golden.has_values(&t.name)) {
            Some(output) => Err(GoldenError::Missing(format!("outputs/{}", output.name))),
            None => Ok(golden),
        }
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
    /// `values` has one buffer of N stacked tensors per output. Labels that were only implied by the user's numbers are
    /// written out, since those numbers go.
    pub fn with_outputs(&self, contract: &Contract, values: &[Vec<u8>]) -> Vec<u8> {
        let by_label = contract.verification.golden_match == GoldenMatch::ArgMax;
        let labels_of = |spec: &TensorSpec| -> Option<Vec<u8>> {
            let labels = (0..self.count).map(|vector| match self.expected_label(vector, spec) {
                Expected::Label(label) => Some(label),
                // No answer has this index: what never had a label stays wrong.
                Expected::NoLargest => Some(-1),
                Expected::Nothing => None,
            });
            let labels: Option<Vec<i64>> = labels.collect();
            labels.filter(|_| by_label).map(|labels| labels.into_iter().flat_map(i64::to_le_bytes).collect())
        };
        let labels: Vec<Option<Vec<u8>>> = contract.outputs.iter().map(labels_of).collect();
        let stacked = |place: &BTreeMap<String, Stacked>, name: &str| {
            place.get(name).and_then(|s| self.bytes.get(s.start..s.start + s.stride * self.count)).unwrap_or_default()
        };
        let mut tensors: Vec<(String, DataType, Vec<u64>, &[u8])> = Vec::new();
        let shape = |t: &TensorSpec| [&[self.count as u64], t.shape.as_slice()].concat();
        for t in &contract.inputs {
            tensors.push((format!("inputs/{}", t.name), t.datatype, shape(t), stacked(&self.inputs, &t.name)));
        }
        for ((t, value), labels) in contract.outputs.iter().zip(values).zip(&labels) {
            tensors.push((format!("outputs/{}", t.name), t.datatype, shape(t), value));
            if let Some(labels) = labels {
                tensors.push((format!("labels/{}", t.name), DataType::Int64, vec![self.count as u64], labels));
            }
        }
        write(&tensors)
    }

    /// Compares one vector's outputs with what a bundle's file expects of them: numbers, and labels with `match: ArgMax`.
    /// An output that is not given counts as wrong.
    pub fn check(&self, vector: usize, outputs: &[(&TensorSpec, &[u8])], contract: &Contract) -> VectorResult {
        self.compare(vector, outputs, contract, true)
    }

    /// Compares one vector's outputs, computed by the reference evaluator, with what the user's file expects of them:
    /// numbers with `match: Values`, labels with `match: ArgMax`, where numbers in the file are no promise.
    pub fn check_users(&self, vector: usize, outputs: &[(&TensorSpec, &[u8])], contract: &Contract) -> VectorResult {
        self.compare(vector, outputs, contract, contract.verification.golden_match == GoldenMatch::Values)
    }

    fn compare(
        &self,
        vector: usize,
        outputs: &[(&TensorSpec, &[u8])],
        contract: &Contract,
        by_value: bool,
    ) -> VectorResult {
        let verification = &contract.verification;
        let mut result = VectorResult::default();
        for spec in &contract.outputs {
            let name = &spec.name;
            let Some((_, actual)) = outputs.iter().find(|(given, _)| given.name == *name) else {
                let sentence = format!("vector {vector}, output {name:?}: there is none");
                result.label.get_or_insert(sentence.clone());
                result.values.get_or_insert(sentence);
                continue;
            };
            if by_value
                && let Some(expected) = self.output(vector, name)
                && let Err(e) = compare(spec, actual, expected, &verification.tolerance)
            {
                result.values.get_or_insert(format!("vector {vector}, output {name:?}: {e}"));
            }
            if verification.golden_match == GoldenMatch::ArgMax {
                let found = argmax(spec, actual);
                let wrong = match self.expected_label(vector, spec) {
                    Expected::Nothing => None,
                    Expected::NoLargest => Some("a label cannot be expected of NaN".to_owned()),
                    Expected::Label(label) if found == Some(label) => None,
                    Expected::Label(label) => {
                        let found = found.map_or("none (NaN)".to_owned(), |f| f.to_string());
                        Some(format!("label {label} expected, {found} found"))
                    }
                };
                if let Some(wrong) = wrong {
                    result.label.get_or_insert(format!("vector {vector}, output {name:?}: {wrong}"));
                }
            }
        }
        result
    }

    /// The label in the file; in a file without any, the one that the expected values amount to.
    fn expected_label(&self, vector: usize, spec: &TensorSpec) -> Expected {
        if let Some(label) = self.label(vector, &spec.name) {
            return Expected::Label(label);
        }
        match self.output(vector, &spec.name) {
            Some(values) if self.labels.is_empty() && one_row(spec) => {
                argmax(spec, values).map_or(Expected::NoLargest, Expected::Label)
            }
            Some(_) | None => Expected::Nothing,
        }
    }
}

/// What a file says of one output's label in one vector.
enum Expected {
    Label(i64),
    /// Numbers without a largest one: NaN is among them.
    NoLargest,
    Nothing,
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
    first_value: Option<String>,
    first_label: Option<String>,
}

impl Tally {
    /// Counts one vector.
    pub fn add(&mut self, result: VectorResult) {
        self.vectors += 1;
        self.wrong_values += u64::from(result.values.is_some());
        self.wrong_labels += u64::from(result.label.is_some());
        self.first_value = self.first_value.take().or(result.values);
        self.first_label = self.first_label.take().or(result.label);
    }

    /// Vectors counted.
    pub const fn vectors(&self) -> u64 {
        self.vectors
    }

    /// Share of vectors that are right, per mille, rounded down: a share that is asked for is reached or it is not.
    const fn right_per_mille(&self, wrong: u64) -> u64 {
        let vectors = if self.vectors == 0 { 1 } else { self.vectors };
        self.vectors.saturating_sub(wrong).saturating_mul(1000) / vectors
    }

    /// Of a bundle's file, wherever the plan runs. `Err` has one sentence. Labels are the user's and may be missed by the
    /// share that the contract allows; the values are the reference evaluator's and must all be met.
    pub fn judge(&self, contract: &Contract) -> Result<(), String> {
        match contract.verification.golden_match {
            GoldenMatch::ArgMax => self.judge_labels(contract)?,
            GoldenMatch::Values => {}
        }
        self.judge_values(1000)
    }

    /// Of the user's file, by what the reference evaluator computed: what they asked for, as often as they asked.
    pub fn judge_users(&self, contract: &Contract) -> Result<(), String> {
        match contract.verification.golden_match {
            GoldenMatch::ArgMax => self.judge_labels(contract),
            GoldenMatch::Values => self.judge_values(needed(contract)),
        }
    }

    fn judge_labels(&self, contract: &Contract) -> Result<(), String> {
        self.judge_share(self.wrong_labels, "have the right label", needed(contract), self.first_label.as_deref())
    }

    fn judge_values(&self, needed: u64) -> Result<(), String> {
        let first = self.first_value.as_deref();
        self.judge_share(self.wrong_values, "are reproduced within tolerance", needed, first)
    }

    fn judge_share(&self, wrong: u64, what: &str, needed: u64, first: Option<&str>) -> Result<(), String> {
        if self.vectors == 0 {
            return Err("no golden vector was run".to_owned());
        }
        if self.right_per_mille(wrong) < needed { Err(self.sentence(wrong, what, needed, first)) } else { Ok(()) }
    }

    fn sentence(&self, wrong: u64, what: &str, needed: u64, first: Option<&str>) -> String {
        let right = self.vectors.saturating_sub(wrong);
        let first = first.unwrap_or("none was looked at");
        let needed = match needed {
            1000 => "all are".to_owned(),
            n if n % 10 == 0 => format!("{} % are", n / 10),
            n => format!("{}.{} % are", n / 10, n % 10),
        };
        format!("{right} of {} golden vectors {what}, {needed} needed; the first that fails: {first}", self.vectors)
    }
}

/// Per mille of the vectors that the user asks to match. Nobody can ask for none.
fn needed(contract: &Contract) -> u64 {
    u64::from(contract.verification.min_matching_per_mille.clamp(1, 1000))
}

/// Elements of a tensor as f64.
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
    // An f64 does not tell neighbours apart above 2⁵³.
    if matches!(spec.datatype, DataType::Int64 | DataType::Uint64) {
        let signed = spec.datatype == DataType::Int64;
        for (i, (a, b)) in integers(actual, signed).zip(integers(expected, signed)).enumerate() {
            if (a - b).abs() as f64 > tolerance.absolute + tolerance.relative * b.abs() as f64 {
                return Err(format!("element {i} is {a}, expected {b}"));
            }
        }
        return Ok(());
    }
    for (i, (a, b)) in elements(spec.datatype, actual).zip(elements(spec.datatype, expected)).enumerate() {
        // With an infinity the right side would be infinite too, and everything below it.
        let near = a.is_finite() && b.is_finite() && (a - b).abs() <= tolerance.absolute + tolerance.relative * b.abs();
        if !(a == b || near || (a.is_nan() && b.is_nan())) {
            return Err(format!("element {i} is {a}, expected {b}"));
        }
    }
    Ok(())
}

/// 64-bit integers, with room for their differences.
fn integers(bytes: &[u8], signed: bool) -> impl Iterator<Item = i128> + '_ {
    bytes.chunks_exact(8).map(move |c| {
        let raw = c.try_into().map(u64::from_le_bytes).unwrap_or_default();
        if signed { i128::from(raw.cast_signed()) } else { i128::from(raw) }
    })
}

/// Whether a vector's output is one row, so that one label can stand for it.
fn one_row(spec: &TensorSpec) -> bool {
    spec.shape.last().is_some() && spec.elements() == spec.shape.last().copied()
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

/// Names and headers of all tensors, and where the data starts.
fn headers(bytes: &[u8]) -> Result<(BTreeMap<String, Header>, usize), GoldenError> {
    let not = GoldenError::NotSafetensors;
    let length = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or(not("it has less than 8 bytes"))?;
    let length = usize::try_from(length)
        .ok()
        .filter(|l| *l <= MAX_HEADER_BYTES)
        .ok_or(not("its header claims more than 256 KiB"))?;
    let header = bytes.get(8..8 + length).ok_or(not("its header is cut off"))?;
    let Headers(headers) = serde_json::from_slice(header)
        .map_err(|_| not("its header is not JSON of distinct tensors with dtype, shape and data_offsets"))?;
    // As the format asks: the tensors cover the data without holes or overlaps, so that no byte goes unseen.
    let mut places: Vec<[usize; 2]> = headers.values().map(|h| h.data_offsets).collect();
    places.sort_unstable();
    let mut end = 0;
    for [start, stop] in places {
        if start != end || stop < start {
            return Err(not("its tensors leave holes or overlap"));
        }
        end = stop;
    }
    if end.checked_add(8 + length) != Some(bytes.len()) {
        return Err(not("its tensors do not end where the file does"));
    }
    Ok((headers, 8 + length))
}

/// The JSON header. A map by hand, since serde's own lets the last of two equal names win.
struct Headers(BTreeMap<String, Header>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> serde::de::Visitor<'de> for Names {
            type Value = Headers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tensors by name")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    } else if headers.insert(name, map.next_value()?).is_some() || headers.len() > MAX_TENSORS {
                        return Err(serde::de::Error::custom("a tensor is named twice, or there are too many"));
                    }
                }
                Ok(Headers(headers))
            }
        }
        d.deserialize_map(Names)
    }
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
