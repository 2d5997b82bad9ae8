//! Golden vectors: inputs with expected outputs that a release must reproduce on the very gateway before it serves.
//!
//! The file is a safetensors file (huggingface/safetensors: `u64` little-endian header length, JSON header, data) with
//! `inputs/<name>` and `outputs/<name>` of shape `[N, …the tensor's shape]`, and optionally `labels/<output>`, I64 `[N]`. A
//! bundle's file for a model of several shapes has vectors for each of them ([`join`], [`Golden::of_entries`]).
//!
//! Two files, two judgements. The user's file judges the *model*, once, by what the reference evaluator computes: numbers or
//! labels, as many as `minMatching` asks ([`Golden::check_users`], [`Tally::judge_users`]). The bundle's file, made from it,
//! carries the evaluator's own outputs and judges the *compilation and the CPU*, wherever the plan runs: every number within
//! tolerance, and the labels too ([`Golden::check`], [`Tally::judge`]).

mod compare;
mod entries;
mod pad;
mod safetensors;
mod tally;

use std::borrow::Cow;
use std::collections::BTreeMap;

use compare::{argmax, compare, one_row};
use safetensors::{dtype_name, headers};
use tally::larger;

pub use entries::join;
pub use safetensors::write;
pub use tally::{Deviation, Tally, VectorResult};

use crate::{Contract, CountedOutput, DataType, GoldenMatch, TensorSpec};

/// Largest golden file.
pub const MAX_GOLDEN_BYTES: usize = 16 << 20;
/// Most vectors.
pub const MAX_VECTORS: u64 = 4096;

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

impl Golden {
    /// Reads a file for a model with these inputs and outputs. Every input must be there; every output needs `outputs/` or
    /// `labels/` in a user's file.
    pub fn parse(bytes: &[u8], inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Result<Self, GoldenError> {
        Self::parse_counted(bytes, inputs, outputs, &[])
    }

    /// Reads a file for a model of this contract. A counted output may be given with its valid rows only, the same number in
    /// every vector; that number is then what is expected of its count.
    pub fn of_contract(bytes: &[u8], contract: &Contract) -> Result<Self, GoldenError> {
        Self::parse_counted(bytes, &contract.inputs, &contract.outputs, &contract.counted)
    }

    /// As [`Golden::parse`], for counted outputs as [`Golden::of_contract`] says.
    pub fn parse_counted(
        bytes: &[u8],
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        counted: &[CountedOutput],
    ) -> Result<Self, GoldenError> {
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
            let counts = counted.iter().find(|c| kind == "outputs" && c.output == tensor);
            if let Some(counted) = counts
                && header.dtype == dtype_name(spec.datatype)
                && let Some(rows) = pad::rows(&spec, counted.axis as usize, header.shape.get(1..).unwrap_or_default())
            {
                let [start, end] = header.data_offsets;
                let given = bytes.get(data_start..).and_then(|data| data.get(start..end)).unwrap_or_default();
                let padded = pad::padded(&spec, counted.axis as usize, rows, n, given).ok_or(GoldenError::Count(n))?;
                let stride = padded.len() / n.max(1) as usize;
                place.insert(spec.name, Stacked { start: golden.bytes.len(), stride });
                golden.bytes.extend_from_slice(&padded);
                if !headers.contains_key(&format!("outputs/{}", counted.count)) {
                    let counts: Vec<u8> = (0..n).flat_map(|_| rows.to_le_bytes()).collect();
                    golden.outputs.insert(counted.count.clone(), Stacked { start: golden.bytes.len(), stride: 8 });
                    golden.bytes.extend_from_slice(&counts);
                }
                continue;
            }
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
        let golden = Self::of_contract(bytes, contract)?;
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
            if let Some(expected) = self.output(vector, name) {
                let (actual, expected) = self.valid(vector, spec, contract, actual, expected);
                let compared = compare(spec, &actual, &expected, &verification.tolerance);
                if let Some(wrong) = compared.wrong.filter(|_| by_value) {
                    result.values.get_or_insert(format!("vector {vector}, output {name:?}: {wrong}"));
                }
                let deviation = |(element, found, expected, by): (usize, f64, f64, f64)| Deviation {
                    output: name.clone(),
                    vector: vector as u64,
                    element: element as u64,
                    found,
                    expected,
                    by,
                };
                result.absolute = larger(result.absolute.take(), compared.absolute.map(deviation));
                result.relative = larger(result.relative.take(), compared.relative.map(deviation));
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

    /// Both without rows behind as many as are expected. What is found of the count is another output, judged for itself.
    fn valid<'b>(
        &self,
        vector: usize,
        spec: &TensorSpec,
        contract: &Contract,
        actual: &'b [u8],
        expected: &'b [u8],
    ) -> (Cow<'b, [u8]>, Cow<'b, [u8]>) {
        let count = contract.counted(&spec.name).and_then(|counted| {
            let count = self.output(vector, &counted.count)?.try_into().ok().map(i64::from_le_bytes)?;
            Some((counted.axis as usize, u64::try_from(count).ok()?))
        });
        match count {
            Some((axis, count)) => (spec.first(axis, count, actual).1, spec.first(axis, count, expected).1),
            None => (Cow::Borrowed(actual), Cow::Borrowed(expected)),
        }
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
