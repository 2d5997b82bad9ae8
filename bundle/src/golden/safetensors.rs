//! The safetensors format (huggingface/safetensors), read strictly: no byte of a file goes unseen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::GoldenError;
use crate::DataType;

const MAX_HEADER_BYTES: usize = 256 << 10;
const MAX_TENSORS: usize = 1024;

#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Header {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) data_offsets: [usize; 2],
}

pub(super) const fn dtype_name(datatype: DataType) -> &'static str {
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
        DataType::Fp16 => "F16",
        DataType::Bf16 => "BF16",
    }
}

/// Names and headers of all tensors, and where the data starts.
pub(super) fn headers(bytes: &[u8]) -> Result<(BTreeMap<String, Header>, usize), GoldenError> {
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
        let header =
            Header { dtype: dtype_name(*datatype).to_owned(), shape: shape.clone(), data_offsets: [start, end] };
        headers.insert(name.clone(), header);
    }
    let data: Vec<&[u8]> = tensors.iter().map(|(_, _, _, bytes)| *bytes).collect();
    write_headers(&headers, &data)
}

/// The file of these headers, whose offsets are into all of `data`.
pub(super) fn write_headers<B: AsRef<[u8]>>(headers: &BTreeMap<String, Header>, data: &[B]) -> Vec<u8> {
    let mut json = serde_json::to_vec(headers).unwrap_or_default();
    // The format asks for the data to start at a multiple of 8.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&json);
    for bytes in data {
        out.extend_from_slice(bytes.as_ref());
    }
    out
}
