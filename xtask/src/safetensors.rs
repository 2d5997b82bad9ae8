//! Reads the example's image files (safetensors: u64 header length, JSON header, raw little-endian data).
//! The files are ours; the reader still refuses what does not add up, so that a broken checkout says so.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// One tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Outermost first.
    pub shape: Vec<usize>,
    /// `F32`, `I64`, ….
    pub dtype: String,
    /// Little-endian, row-major.
    pub bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// All tensors of a file by name.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} is not a safetensors file", path.display()))
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let (length, rest) = bytes.split_first_chunk::<8>().context("shorter than its header")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    ensure!(length <= rest.len(), "the header is longer than the file");
    let (header, data) = rest.split_at(length);
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)?;
    let mut out = BTreeMap::new();
    for (name, entry) in header {
        if name == "__metadata__" {
            continue;
        }
        let Entry { dtype, shape, data_offsets: [start, end] } = serde_json::from_value(entry)?;
        let size = match dtype.as_str() {
            "F32" => 4,
            "I64" => 8,
            other => bail!("{name} has type {other}; F32 and I64 are read"),
        };
        let bytes = data.get(start..end).with_context(|| format!("{name} lies outside the file"))?;
        let want = shape.iter().try_fold(size, |n: usize, d| n.checked_mul(*d));
        ensure!(want == Some(bytes.len()), "{name}: {} bytes do not make shape {shape:?}", bytes.len());
        out.insert(name, Tensor { shape, dtype, bytes: bytes.to_vec() });
    }
    Ok(out)
}

impl Tensor {
    /// The elements of an F32 tensor.
    pub fn f32(&self) -> Result<Vec<f32>> {
        ensure!(self.dtype == "F32", "{} is not F32", self.dtype);
        Ok(self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// The tensor cut along its first axis.
    pub fn rows(&self) -> Vec<Vec<u8>> {
        let rows = self.shape.first().copied().unwrap_or(0).max(1);
        self.bytes.chunks(self.bytes.len() / rows).map(<[u8]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_live_images_read() {
        let tensors = read(&crate::workspace::digits().join("live.safetensors")).expect("committed with the example");
        let images = &tensors["images"];
        assert_eq!(images.shape, [104, 1, 1, 8, 8]);
        assert_eq!(images.rows().len(), 104);
        assert_eq!(images.rows()[0].len(), 256);
        let nan = tensors["expected/4.0.0"].f32().unwrap().iter().filter(|x| x.is_nan()).count();
        assert_eq!(nan, 40, "ten scores of each of the four blank images");
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let file =
            |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
        assert!(parse(&file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4])).is_ok());
        for (header, data) in [
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4][..]),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 3]),
            (r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]),
            ("{", &[]),
        ] {
            assert!(parse(&file(header, data)).is_err(), "{header}");
        }
        assert!(parse(&[255; 8]).is_err());
    }
}
