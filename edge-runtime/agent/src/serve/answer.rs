//! Answers: JSON, then raw tensors in order where they were asked for.

use std::borrow::Cow;

use ballast_bundle::{Contract, ReleaseNumber, TensorSpec};
use bytes::Bytes;
use serde_json::{Value, json};

use super::sequence::Told;
use super::{AnsweredBy, numbers};
use crate::cloud::Said;

/// A body and, where raw tensors follow the JSON, the JSON's length.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) header: Option<usize>,
}

/// The rows of an output that are valid, and their shape.
fn valid<'b>(
    contract: &Contract,
    spec: &TensorSpec,
    bytes: &'b [u8],
    outputs: &[Vec<u8>],
) -> (Vec<u64>, Cow<'b, [u8]>) {
    let count = contract.counted(&spec.name).and_then(|counted| {
        let n = contract.outputs.iter().position(|t| t.name == counted.count)?;
        let count = i64::from_le_bytes(outputs.get(n)?.as_slice().try_into().ok()?);
        Some((counted.axis as usize, u64::try_from(count).ok()?))
    });
    match count {
        Some((axis, count)) => spec.first(axis, count, bytes),
        None => (spec.shape.clone(), Cow::Borrowed(bytes)),
    }
}

/// What an answer says of the border to the cloud. The release stays the edge's: its thresholds let the answer go.
fn border(said: &Said) -> Vec<(&'static str, String)> {
    let confidence = said.confidence.get();
    let mut all = vec![("ballast_confidence", format!("{}.{:04}", confidence / 10_000, confidence % 10_000))];
    if let Some(cloud) = &said.cloud {
        all.push(("ballast_answered_by", "cloud".to_owned()));
        all.push(("ballast_cloud_model", cloud.model.clone()));
        all.push(("ballast_cloud_version", cloud.version.clone()));
    }
    all
}

/// The protocol's answer to an inference; outputs have these shapes, but for those that count their rows. `told` is what
/// there is to say of its sequence.
#[allow(clippy::too_many_arguments)] // all that an answer says of itself
pub(crate) fn write(
    contract: &Contract,
    number: ReleaseNumber,
    (by, said): (AnsweredBy, Option<&Said>),
    id: Option<&str>,
    wanted: &[(usize, bool)],
    outputs: &[Vec<u8>],
    shapes: &[Vec<u64>],
    told: Option<&Told>,
) -> Body {
    let mut text = String::with_capacity(512);
    let mut head = json!({
        "model_name": contract.model,
        "model_version": contract.version,
        "parameters": {
            "ballast_release": number.to_string(),
            "ballast_version": contract.version,
            "ballast_answered_by": by.as_str(),
        },
    });
    if let Some(told) = told
        && let Some(parameters) = head.get_mut("parameters").and_then(Value::as_object_mut)
    {
        parameters.insert("sequence_id".to_owned(), told.id.value());
        if told.reset {
            parameters.insert("ballast_sequence_reset".to_owned(), Value::Bool(true));
        }
    }
    if let Some(parameters) = head.get_mut("parameters").and_then(Value::as_object_mut) {
        said.into_iter().flat_map(border).for_each(|(name, value)| {
            parameters.insert(name.to_owned(), json!(value));
        });
    }
    let mut head = head.to_string();
    head.pop(); // the closing brace: the outputs' numbers are written straight into the text
    text.push_str(&head);
    if let Some(id) = id {
        text.push_str(&format!(",\"id\":{}", json!(id)));
    }
    text.push_str(",\"outputs\":[");
    let mut raw: Vec<Cow<'_, [u8]>> = Vec::new();
    let mut first = true;
    for (n, binary) in wanted {
        let (Some(spec), Some(bytes)) = (contract.outputs.get(*n), outputs.get(*n)) else { continue };
        if !std::mem::take(&mut first) {
            text.push(',');
        }
        let shape = shapes.get(*n).unwrap_or(&spec.shape).clone();
        let (shape, bytes) = valid(contract, &TensorSpec { shape, ..spec.clone() }, bytes, outputs);
        let (name, shape) = (json!(spec.name), json!(shape));
        text.push_str(&format!(
            "{{\"name\":{name},\"datatype\":\"{}\",\"shape\":{shape},",
            numbers::name(spec.datatype)
        ));
        if *binary {
            text.push_str(&format!("\"parameters\":{{\"binary_data_size\":{}}}}}", bytes.len()));
            raw.push(bytes);
        } else {
            text.push_str("\"data\":");
            numbers::write(&bytes, spec.datatype, &mut text);
            text.push('}');
        }
    }
    text.push_str("]}");
    if raw.is_empty() {
        return Body { bytes: Bytes::from(text), header: None };
    }
    let header = text.len();
    let mut all = text.into_bytes();
    raw.iter().for_each(|bytes| all.extend_from_slice(bytes));
    Body { bytes: Bytes::from(all), header: Some(header) }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::contract;
    use super::*;
    use ballast_bundle::{CountedOutput, Counter, DataType};

    #[test]
    fn an_answer_has_only_the_rows_that_are_valid() {
        let mut contract = contract();
        let tensor =
            |name: &str, datatype, shape: &[u64]| TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() };
        contract.outputs = vec![tensor("y", DataType::Uint8, &[2, 3]), tensor("y.count", DataType::Int64, &[])];
        contract.counted = vec![CountedOutput { output: "y".into(), count: "y.count".into(), axis: 1 }];
        let answer = |count: i64, binary: bool| {
            let outputs = [vec![1, 2, 3, 4, 5, 6], count.to_le_bytes().to_vec()];
            write(
                &contract,
                ReleaseNumber { epoch: 1, counter: Counter(1) },
                (AnsweredBy::Active, None),
                None,
                &[(0, binary)],
                &outputs,
                &[vec![2, 3], vec![]],
                None,
            )
        };
        let text = |body: &Body| -> Value {
            serde_json::from_slice(&body.bytes[..body.header.unwrap_or(body.bytes.len())]).unwrap()
        };
        for (count, shape, data) in
            [(2, [2, 2], vec![1, 2, 4, 5]), (0, [2, 0], vec![]), (3, [2, 3], vec![1, 2, 3, 4, 5, 6])]
        {
            let plain = &text(&answer(count, false))["outputs"][0];
            assert_eq!((&plain["shape"], &plain["data"]), (&json!(shape), &json!(data)));
            let binary = answer(count, true);
            assert_eq!(text(&binary)["outputs"][0]["parameters"]["binary_data_size"], data.len());
            assert_eq!(binary.bytes[binary.header.unwrap_or(binary.bytes.len())..], data[..]);
        }
    }
}
