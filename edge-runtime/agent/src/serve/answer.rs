//! Answers: JSON, then raw tensors in order where they were asked for.

use ballast_bundle::{Batch, Contract, ReleaseNumber};
use bytes::Bytes;
use serde_json::json;

use super::{AnsweredBy, numbers};

/// A body and, where raw tensors follow the JSON, the JSON's length.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) header: Option<usize>,
}

/// The protocol's answer to an inference; with the rows that it was of, where the model takes several.
pub(crate) fn write(
    contract: &Contract,
    number: ReleaseNumber,
    by: AnsweredBy,
    id: Option<&str>,
    wanted: &[(usize, bool)],
    outputs: &[Vec<u8>],
    rows: Option<(&Batch, u64)>,
) -> Body {
    let mut text = String::with_capacity(512);
    let head = json!({
        "model_name": contract.model,
        "model_version": contract.version,
        "parameters": {
            "ballast_release": number.to_string(),
            "ballast_version": contract.version,
            "ballast_answered_by": by.as_str(),
        },
    });
    let mut head = head.to_string();
    head.pop(); // the closing brace: the outputs' numbers are written straight into the text
    text.push_str(&head);
    if let Some(id) = id {
        text.push_str(&format!(",\"id\":{}", json!(id)));
    }
    text.push_str(",\"outputs\":[");
    let mut raw: Vec<&[u8]> = Vec::new();
    let mut first = true;
    for (n, binary) in wanted {
        let (Some(spec), Some(bytes)) = (contract.outputs.get(*n), outputs.get(*n)) else { continue };
        if !std::mem::take(&mut first) {
            text.push(',');
        }
        let mut shape = spec.shape.clone();
        let extent = rows.and_then(|(batch, rows)| Some((shape.get_mut(*batch.outputs.get(*n)? as usize)?, rows)));
        if let Some((extent, rows)) = extent {
            *extent = rows;
        }
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
            numbers::write(bytes, spec.datatype, &mut text);
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
