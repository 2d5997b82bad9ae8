//! Numbers in files and on the command line to a tensor's bytes, and back.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use ballast_bundle::{DataType, TensorSpec, half};
use serde_json::Value;

use crate::models::read;

/// Largest input file.
const MAX_INPUT_BYTES: u64 = 256 << 20;

/// One `NAME=VALUE` of the command line.
#[derive(Debug)]
pub struct Given {
    pub name: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Numbers(Vec<Value>),
    Raw(Vec<u8>),
    Npy { descr: String, data: Vec<u8> },
}

impl Given {
    /// Reads the file that it names, or its numbers.
    pub fn parse(argument: &str) -> anyhow::Result<Self> {
        let (name, value) = argument
            .split_once('=')
            .with_context(|| format!("{argument:?} is not an input: write NAME=FILE or NAME=@1,2,3"))?;
        let source = if let Some(numbers) = value.strip_prefix('@') {
            let numbers = numbers
                .split(',')
                .map(|n| serde_json::from_str(n.trim()).with_context(|| format!("{name}: {n:?} is not a number")))
                .collect::<anyhow::Result<_>>()?;
            Source::Numbers(numbers)
        } else {
            let path = Path::new(value);
            let bytes = read(path, MAX_INPUT_BYTES)?;
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") => {
                    let json = serde_json::from_slice(&bytes).with_context(|| format!("{value} is not JSON"))?;
                    let mut numbers = Vec::new();
                    flatten(&json, &mut numbers);
                    Source::Numbers(numbers)
                }
                Some("npy") => npy(&bytes).with_context(|| format!("{value} is not an .npy file"))?,
                _ => Source::Raw(bytes),
            }
        };
        Ok(Self { name: name.to_owned(), source })
    }

    /// As the tensor wants it: row-major, little-endian.
    pub fn bytes(&self, spec: &TensorSpec) -> anyhow::Result<Vec<u8>> {
        let name = &spec.name;
        let bytes = match &self.source {
            Source::Raw(bytes) => bytes.clone(),
            Source::Npy { descr, data } => {
                ensure!(
                    *descr == numpy_type(spec.datatype),
                    "input {name} is {:?} ({}), the file has {descr}",
                    spec.datatype,
                    numpy_type(spec.datatype)
                );
                data.clone()
            }
            Source::Numbers(numbers) => {
                let mut bytes = Vec::with_capacity(numbers.len().saturating_mul(spec.datatype.size()));
                for number in numbers {
                    element(spec.datatype, number, &mut bytes)
                        .with_context(|| format!("input {name}: {number} is no {:?}", spec.datatype))?;
                }
                bytes
            }
        };
        let size = spec.datatype.size();
        if spec.bytes() != Some(bytes.len() as u64) {
            bail!(
                "input {name} takes {} elements of shape {:?}, {} are given",
                spec.elements().unwrap_or(u64::MAX),
                spec.shape,
                bytes.len() / size
            );
        }
        Ok(bytes)
    }
}

fn flatten(json: &Value, out: &mut Vec<Value>) {
    match json {
        Value::Array(items) => items.iter().for_each(|i| flatten(i, out)),
        other => out.push(other.clone()),
    }
}

const fn numpy_type(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "|b1",
        DataType::Uint8 => "|u1",
        DataType::Int8 => "|i1",
        DataType::Uint16 => "<u2",
        DataType::Uint32 => "<u4",
        DataType::Uint64 => "<u8",
        DataType::Int16 => "<i2",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::Fp32 => "<f4",
        DataType::Fp64 => "<f8",
        DataType::Fp16 => "<f2",
        // numpy has no such type; what others save of it are two bytes of no kind.
        DataType::Bf16 => "<V2",
    }
}

/// numpy's format (numpy/lib/format.py): magic, version, header length, a Python dictionary, data.
fn npy(bytes: &[u8]) -> anyhow::Result<Source> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").context("it does not begin with numpy's magic")?;
    let (version, rest) = rest.split_first_chunk::<2>().context("cut off")?;
    let (length, rest) = if version[0] == 1 {
        let (n, rest) = rest.split_first_chunk::<2>().context("cut off")?;
        (usize::from(u16::from_le_bytes(*n)), rest)
    } else {
        let (n, rest) = rest.split_first_chunk::<4>().context("cut off")?;
        (u32::from_le_bytes(*n) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length).context("its header is cut off")?;
    let header = std::str::from_utf8(header).context("its header")?;
    ensure!(header.contains("'fortran_order': False"), "it is in Fortran's order: save numpy.ascontiguousarray(x)");
    let descr = header
        .split_once("'descr': '")
        .and_then(|(_, rest)| rest.split_once('\''))
        .context("its header has no plain type")?
        .0;
    Ok(Source::Npy { descr: descr.to_owned(), data: data.to_vec() })
}

fn element(datatype: DataType, number: &Value, out: &mut Vec<u8>) -> anyhow::Result<()> {
    macro_rules! integer {
        ($t:ty) => {{
            let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            let n = whole.and_then(|n| <$t>::try_from(n).ok()).context("not in its range")?;
            out.extend(n.to_le_bytes());
        }};
    }
    match datatype {
        DataType::Bool => {
            let truth = number.as_bool().or_else(|| match number.as_u64() {
                Some(n @ 0..=1) => Some(n == 1),
                _ => None,
            });
            out.push(u8::from(truth.context("neither true nor false")?));
        }
        DataType::Uint8 => integer!(u8),
        DataType::Uint16 => integer!(u16),
        DataType::Uint32 => integer!(u32),
        DataType::Uint64 => integer!(u64),
        DataType::Int8 => integer!(i8),
        DataType::Int16 => integer!(i16),
        DataType::Int32 => integer!(i32),
        DataType::Int64 => integer!(i64),
        DataType::Fp32 => out.extend((number.as_f64().context("not a number")? as f32).to_le_bytes()),
        DataType::Fp64 => out.extend(number.as_f64().context("not a number")?.to_le_bytes()),
        DataType::Fp16 => out.extend(half::to_fp16(number.as_f64().context("not a number")? as f32).to_le_bytes()),
        DataType::Bf16 => out.extend(half::to_bf16(number.as_f64().context("not a number")? as f32).to_le_bytes()),
    }
    Ok(())
}

/// A tensor's elements as JSON; what JSON has no number for (NaN, infinities) as text.
pub fn numbers(datatype: DataType, bytes: &[u8]) -> Vec<Value> {
    let float = |x: f64| serde_json::Number::from_f64(x).map_or_else(|| Value::from(x.to_string()), Value::Number);
    macro_rules! read {
        ($t:ty, $c:expr) => {
            $c.try_into().map(<$t>::from_le_bytes).unwrap_or_default()
        };
    }
    bytes
        .chunks_exact(datatype.size())
        .map(|c| match datatype {
            DataType::Bool => Value::from(c != [0]),
            DataType::Uint8 => read!(u8, c).into(),
            DataType::Uint16 => read!(u16, c).into(),
            DataType::Uint32 => read!(u32, c).into(),
            DataType::Uint64 => read!(u64, c).into(),
            DataType::Int8 => read!(i8, c).into(),
            DataType::Int16 => read!(i16, c).into(),
            DataType::Int32 => read!(i32, c).into(),
            DataType::Int64 => read!(i64, c).into(),
            // Shortest text that reads back as the same f32, not the digits of its f64.
            DataType::Fp32 => {
                let x = read!(f32, c);
                x.to_string().parse().map_or_else(|_| Value::from(x.to_string()), float)
            }
            DataType::Fp64 => float(read!(f64, c)),
            DataType::Fp16 => float(half::from_fp16(read!(u16, c)).into()),
            DataType::Bf16 => float(half::from_bf16(read!(u16, c)).into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(datatype: DataType, shape: &[u64]) -> TensorSpec {
        TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() }
    }

    #[test]
    fn numbers_become_bytes_and_come_back() {
        let given = Given::parse("x=@1,-2,0.5").unwrap();
        let spec = spec(DataType::Fp32, &[1, 3]);
        let bytes = given.bytes(&spec).unwrap();
        assert_eq!(numbers(DataType::Fp32, &bytes), [1.0.into(), (-2.0).into(), Value::from(0.5)]);
        assert_eq!(numbers(DataType::Fp32, &0.1f32.to_le_bytes()), [Value::from(0.1)]);
        assert_eq!(numbers(DataType::Fp32, &f32::NAN.to_le_bytes()), [Value::from("NaN")]);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let error = |argument: &str, datatype, shape: &[u64]| {
            format!("{:#}", Given::parse(argument).and_then(|g| g.bytes(&spec(datatype, shape))).unwrap_err())
        };
        assert!(error("x", DataType::Fp32, &[1]).contains("write NAME=FILE or NAME=@1,2,3"));
        assert!(error("x=@1,a", DataType::Fp32, &[2]).contains("\"a\" is not a number"));
        assert!(error("x=@1,2", DataType::Fp32, &[3]).contains("takes 3 elements of shape [3], 2 are given"));
        assert!(error("x=@300", DataType::Uint8, &[1]).contains("300 is no Uint8: not in its range"));
        assert!(error("x=@1.5", DataType::Int64, &[1]).contains("1.5 is no Int64"));
        assert!(error("x=/nowhere/at/all.json", DataType::Fp32, &[1]).contains("cannot open"));
    }

    #[test]
    fn numpys_own_files_are_read() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend([1f32, 2f32].iter().flat_map(|x| x.to_le_bytes()));
        let given = Given { name: "x".into(), source: npy(&file).unwrap() };
        assert_eq!(given.bytes(&spec(DataType::Fp32, &[2])).unwrap().len(), 8);
        assert!(given.bytes(&spec(DataType::Int32, &[2])).unwrap_err().to_string().contains("<f4"));
        for n in 0..file.len() - 8 {
            assert!(npy(&file[..n]).is_err(), "{n}");
        }
    }
}
