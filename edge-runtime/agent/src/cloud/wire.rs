//! The protocol's request out of a contract's inputs, and its answer into a contract's outputs.

use ballast_bundle::{Batch, Contract, TensorSpec};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::client::{Body, Reply};
use crate::serve::numbers;

/// Names, shapes and parameters of an answer.
pub(super) const MAX_HEAD: u64 = 64 << 10;

/// `rows` rows of every input, as raw tensors; all outputs are asked for.
pub(super) fn request(contract: &Contract, inputs: &[Bytes], rows: u64) -> Body {
    let axes = contract.batch.as_ref().map(|batch| &batch.inputs);
    let tensors: Vec<_> = contract
        .inputs
        .iter()
        .zip(inputs)
        .enumerate()
        .map(|(n, (spec, bytes))| {
            let axis = axes.and_then(|axes| axes.get(n).copied().flatten());
            json!({
                "name": spec.name,
                "datatype": numbers::name(spec.datatype),
                "shape": with_rows(&spec.shape, axis, rows),
                "parameters": {"binary_data_size": bytes.len()},
            })
        })
        .collect();
    let outputs: Vec<_> =
        contract.outputs.iter().map(|spec| json!({"name": spec.name, "parameters": {"binary_data": true}})).collect();
    let mut all = json!({"inputs": tensors, "outputs": outputs}).to_string().into_bytes();
    let header = all.len();
    inputs.iter().for_each(|bytes| all.extend_from_slice(bytes));
    Body { bytes: all.into(), header }
}

fn with_rows(shape: &[u64], axis: Option<u32>, rows: u64) -> Vec<u64> {
    let mut shape = shape.to_vec();
    if let Some(extent) = axis.and_then(|axis| shape.get_mut(axis as usize)) {
        *extent = rows;
    }
    shape
}

/// What an output of `rows` rows looks like.
pub(super) fn output(spec: &TensorSpec, n: usize, batch: Option<&Batch>, rows: u64) -> TensorSpec {
    let axis = batch.and_then(|batch| batch.outputs.get(n).copied());
    TensorSpec { shape: with_rows(&spec.shape, axis, rows), ..spec.clone() }
}

/// Bytes of the longest answer that can be of use.
pub(super) fn longest(contract: &Contract, rows: u64) -> u64 {
    // Some servers write numbers as text whatever they are asked for: 25 characters hold any.
    let elements = contract.outputs.iter().map(|t| t.elements().unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
    elements.saturating_mul(rows).saturating_mul(25).saturating_add(MAX_HEAD)
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    model_name: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(borrow)]
    outputs: Vec<WireOutput<'a>>,
}

#[derive(Deserialize)]
struct WireOutput<'a> {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
}

/// The cloud's outputs in the contract's order.
pub(super) struct Said {
    pub(super) outputs: Vec<Vec<u8>>,
    pub(super) model: String,
    pub(super) version: String,
}

/// Reads an answer; one whose tensors are not the contract's is refused with what is wrong.
pub(super) fn answer(reply: &Reply, contract: &Contract, rows: u64) -> Result<Said, String> {
    let length = reply.header.unwrap_or(reply.bytes.len());
    let json = reply.bytes.get(..length).ok_or("its answer is shorter than its head says")?;
    let wire: Wire<'_> = serde_json::from_slice(json).map_err(|e| format!("its answer cannot be read: {e}"))?;
    let mut at = length;
    // Raw tensors lie in the order in which the answer names them.
    let mut found: Vec<(&WireOutput<'_>, Option<&[u8]>)> = Vec::with_capacity(wire.outputs.len().min(64));
    for output in &wire.outputs {
        let raw = match output.parameters.binary_data_size {
            None => None,
            Some(size) => {
                let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size));
                let raw = end.and_then(|end| reply.bytes.get(at..end)).ok_or("its answer ends within a tensor")?;
                at = at.saturating_add(raw.len());
                Some(raw)
            }
        };
        found.push((output, raw));
    }
    let outputs = contract.outputs.iter().enumerate().map(|(n, spec)| {
        let spec = output(spec, n, contract.batch.as_ref(), rows);
        let (output, raw) = found
            .iter()
            .find(|(output, _)| output.name == spec.name)
            .ok_or_else(|| format!("it has no output {:?}", spec.name))?;
        let named = |what: &dyn std::fmt::Display| format!("its output {:?} {what}", spec.name);
        if output.datatype != numbers::name(spec.datatype) || output.shape != spec.shape {
            let datatype: String = output.datatype.chars().take(20).collect();
            let shape = output.shape.get(..output.shape.len().min(8)).unwrap_or_default();
            let (datatype_here, shape_here) = (numbers::name(spec.datatype), &spec.shape);
            return Err(named(&format!("is {datatype} {shape:?}, the edge's is {datatype_here} {shape_here:?}")));
        }
        let bytes = match (raw, output.data) {
            (Some(raw), _) => raw.to_vec(),
            (None, Some(data)) => numbers::parse(data.get(), &spec)?,
            (None, None) => return Err(named(&"has no data")),
        };
        if Some(bytes.len() as u64) != spec.bytes() {
            return Err(named(&format!("has {} bytes", bytes.len())));
        }
        if contract.verification.finite_outputs && !numbers::is_finite(&bytes, spec.datatype) {
            return Err(named(&"is not finite"));
        }
        Ok(bytes)
    });
    let text = |text: &str| text.chars().filter(|c| !c.is_control()).take(63).collect();
    let version = text(wire.model_version.as_deref().unwrap_or_default());
    Ok(Said { outputs: outputs.collect::<Result<_, String>>()?, model: text(&wire.model_name), version })
}
