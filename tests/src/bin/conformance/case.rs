//! A case as it lies in its folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ballast_bundle::DataType;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// Where it is and what it is about.
#[derive(Debug, Clone)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    pub folder: PathBuf,
    pub about: About,
}

/// `case.json`, which may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Under which it is counted.
    pub operator: String,
    /// All that the model has.
    pub operators: Vec<String>,
    /// `|found − expected| ≤ absolute + relative · |expected|`.
    pub absolute: f64,
    pub relative: f64,
}

impl About {
    /// Of a model as users have them: compared as verdicts do.
    fn of(name: &str) -> Self {
        Self { operator: name.to_owned(), operators: vec![name.to_owned()], absolute: 1e-4, relative: 1e-3 }
    }
}

impl Case {
    pub fn open(folder: &Path) -> Result<Self> {
        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let path = folder.join("case.json");
        let about = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => About::of(&name),
            Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
        };
        Ok(Self { name, folder: folder.to_owned(), about })
    }

    pub fn is_about(&self, word: &str) -> bool {
        self.name.contains(word) || self.about.operators.iter().any(|o| o.contains(word))
    }

    pub fn read(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(file);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// One tensor of one vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Row-major, little-endian.
    pub bytes: Vec<u8>,
}

/// Inputs and expected outputs by name.
#[derive(Debug, Default, Clone)]
pub struct Vector {
    pub inputs: BTreeMap<String, Array>,
    pub outputs: BTreeMap<String, Array>,
}

/// The vectors of a golden file.
pub fn vectors(golden: &[u8]) -> Result<Vec<Vector>> {
    let file = SafeTensors::deserialize(golden)?;
    let mut vectors: Vec<Vector> = Vec::new();
    for (name, view) in file.tensors() {
        let (kind, tensor) = name.split_once('/').with_context(|| format!("tensor {name:?} has no kind"))?;
        let (count, shape) = view.shape().split_first().with_context(|| format!("tensor {name:?} is not stacked"))?;
        if vectors.is_empty() {
            vectors.resize(*count, Vector::default());
        }
        ensure!(*count > 0 && vectors.len() == *count, "tensor {name:?} has {count} vectors");
        let stride = view.data().len() / count;
        for (i, vector) in vectors.iter_mut().enumerate() {
            let bytes = view.data()[i * stride..(i + 1) * stride].to_vec();
            let array = Array { dtype: view.dtype(), shape: shape.to_vec(), bytes };
            let place = match kind {
                "inputs" => &mut vector.inputs,
                "outputs" => &mut vector.outputs,
                _ => anyhow::bail!("tensor {name:?} is neither an input nor an output"),
            };
            place.insert(tensor.to_owned(), array);
        }
    }
    Ok(vectors)
}

/// The Open Inference Protocol's name of a type, as contracts write it.
pub fn protocol_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BOOL => "BOOL",
        Dtype::U8 => "UINT8",
        Dtype::U16 => "UINT16",
        Dtype::U32 => "UINT32",
        Dtype::U64 => "UINT64",
        Dtype::I8 => "INT8",
        Dtype::I16 => "INT16",
        Dtype::I32 => "INT32",
        Dtype::I64 => "INT64",
        Dtype::F16 => "FP16",
        Dtype::BF16 => "BF16",
        Dtype::F32 => "FP32",
        Dtype::F64 => "FP64",
        _ => "a type that contracts do not have",
    }
}

/// Whether a contract means the same type.
pub fn same_type(contract: DataType, dtype: Dtype) -> bool {
    serde_json::to_value(contract).is_ok_and(|name| name == protocol_name(dtype))
}
