//! JSON arrays of numbers to tensor bytes and back.

use std::fmt::Write as _;

use ballast_bundle::{DataType, TensorSpec, half};

/// Writes the elements of a valid JSON array, nested in any way, row-major as they stand; `Err` says what is wrong.
///
/// The text was checked to be JSON before; its nesting is walked without recursion.
pub(crate) fn parse(text: &str, spec: &TensorSpec) -> Result<Vec<u8>, String> {
    let want = spec.elements().unwrap_or(u64::MAX);
    let bytes = spec.bytes().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    // The contract bounds the size; a text that is shorter than one character per element cannot fill it.
    let mut out = Vec::with_capacity(bytes.min(text.len().saturating_mul(spec.datatype.size())));
    let mut found = 0u64;
    let mut rest = text.trim();
    if !rest.starts_with('[') {
        return Err(format!("data of {:?} must be an array", spec.name));
    }
    while let Some(first) = rest.chars().next() {
        if matches!(first, '[' | ']' | ',') || first.is_ascii_whitespace() {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let end = rest.find(|c: char| matches!(c, ',' | ']') || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        found += 1;
        if found <= want {
            element(word, spec.datatype, &mut out).ok_or_else(|| {
                let word: String = word.chars().take(40).collect();
                format!("element {} of {:?} is {word}, which is no {}", found - 1, spec.name, name(spec.datatype))
            })?;
        }
        rest = after;
    }
    if found != want {
        return Err(format!("{:?} has {found} elements, its shape {:?} needs {want}", spec.name, spec.shape));
    }
    Ok(out)
}

fn element(word: &str, datatype: DataType, out: &mut Vec<u8>) -> Option<()> {
    macro_rules! number {
        ($t:ty) => {{
            // Clients write whole numbers as 5.0, too.
            let value = match word.parse::<$t>() {
                Ok(value) => value,
                Err(_) => {
                    let float: f64 = word.parse().ok().filter(|f: &f64| f.fract() == 0.0)?;
                    (float >= <$t>::MIN as f64 && float <= <$t>::MAX as f64).then_some(float as $t)?
                }
            };
            out.extend_from_slice(&value.to_le_bytes());
        }};
    }
    match datatype {
        DataType::Bool => out.push(match word {
            "true" | "1" => 1,
            "false" | "0" => 0,
            _ => return None,
        }),
        DataType::Fp32 => out.extend_from_slice(&word.parse::<f32>().ok().filter(|f| f.is_finite())?.to_le_bytes()),
        DataType::Fp64 => out.extend_from_slice(&word.parse::<f64>().ok().filter(|f| f.is_finite())?.to_le_bytes()),
        DataType::Fp16 => {
            let x = half::to_fp16(word.parse::<f32>().ok().filter(|f| f.is_finite())?);
            out.extend_from_slice(&Some(x).filter(|x| half::from_fp16(*x).is_finite())?.to_le_bytes());
        }
        DataType::Bf16 => {
            let x = half::to_bf16(word.parse::<f32>().ok().filter(|f| f.is_finite())?);
            out.extend_from_slice(&Some(x).filter(|x| half::from_bf16(*x).is_finite())?.to_le_bytes());
        }
        DataType::Uint8 => number!(u8),
        DataType::Uint16 => number!(u16),
        DataType::Uint32 => number!(u32),
        DataType::Uint64 => number!(u64),
        DataType::Int8 => number!(i8),
        DataType::Int16 => number!(i16),
        DataType::Int32 => number!(i32),
        DataType::Int64 => number!(i64),
    }
    Some(())
}

/// Appends a tensor as one flat JSON array.
pub(crate) fn write(bytes: &[u8], datatype: DataType, out: &mut String) {
    macro_rules! all {
        ($t:ty) => {
            for (n, chunk) in bytes.chunks_exact(size_of::<$t>()).enumerate() {
                let value = <$t>::from_le_bytes(chunk.try_into().unwrap_or_default());
                let _ = write!(out, "{}{value}", if n == 0 { "" } else { "," });
            }
        };
    }
    macro_rules! floats {
        ($t:ty, $value:expr) => {
            for (n, chunk) in bytes.chunks_exact(size_of::<$t>()).enumerate() {
                let value = $value(<$t>::from_le_bytes(chunk.try_into().unwrap_or_default()));
                let comma = if n == 0 { "" } else { "," };
                // JSON knows no NaN. Shortest form that reads back to the same number.
                let _ = if value.is_finite() { write!(out, "{comma}{value:?}") } else { write!(out, "{comma}null") };
            }
        };
    }
    out.push('[');
    match datatype {
        DataType::Bool => {
            for (n, value) in bytes.iter().enumerate() {
                let _ = write!(out, "{}{}", if n == 0 { "" } else { "," }, *value != 0);
            }
        }
        DataType::Uint8 => all!(u8),
        DataType::Uint16 => all!(u16),
        DataType::Uint32 => all!(u32),
        DataType::Uint64 => all!(u64),
        DataType::Int8 => all!(i8),
        DataType::Int16 => all!(i16),
        DataType::Int32 => all!(i32),
        DataType::Int64 => all!(i64),
        DataType::Fp32 => floats!(f32, |x: f32| x),
        DataType::Fp64 => floats!(f64, |x: f64| x),
        DataType::Fp16 => floats!(u16, half::from_fp16),
        DataType::Bf16 => floats!(u16, half::from_bf16),
    }
    out.push(']');
}

/// Whether every element is a finite number.
pub(crate) fn is_finite(bytes: &[u8], datatype: DataType) -> bool {
    match datatype {
        DataType::Fp32 => {
            bytes.chunks_exact(4).all(|c| f32::from_le_bytes(c.try_into().unwrap_or_default()).is_finite())
        }
        DataType::Fp64 => {
            bytes.chunks_exact(8).all(|c| f64::from_le_bytes(c.try_into().unwrap_or_default()).is_finite())
        }
        DataType::Fp16 => bytes
            .chunks_exact(2)
            .all(|c| half::from_fp16(u16::from_le_bytes(c.try_into().unwrap_or_default())).is_finite()),
        DataType::Bf16 => bytes
            .chunks_exact(2)
            .all(|c| half::from_bf16(u16::from_le_bytes(c.try_into().unwrap_or_default())).is_finite()),
        DataType::Bool
        | DataType::Uint8
        | DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64 => true,
    }
}

/// The protocol's name of a type.
pub(crate) const fn name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "BOOL",
        DataType::Uint8 => "UINT8",
        DataType::Uint16 => "UINT16",
        DataType::Uint32 => "UINT32",
        DataType::Uint64 => "UINT64",
        DataType::Int8 => "INT8",
        DataType::Int16 => "INT16",
        DataType::Int32 => "INT32",
        DataType::Int64 => "INT64",
        DataType::Fp32 => "FP32",
        DataType::Fp64 => "FP64",
        DataType::Fp16 => "FP16",
        DataType::Bf16 => "BF16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(datatype: DataType, shape: &[u64]) -> TensorSpec {
        TensorSpec { name: "x".to_owned(), datatype, shape: shape.to_vec() }
    }

    #[test]
    fn nested_and_flat_arrays_are_the_same_tensor() {
        let spec = spec(DataType::Fp32, &[2, 2]);
        let flat = parse("[1, 2.5,\n-3e0 ,4]", &spec).unwrap();
        assert_eq!(parse("[[1,2.5],[-3,4]]", &spec).unwrap(), flat);
        let mut text = String::new();
        write(&flat, DataType::Fp32, &mut text);
        assert_eq!(text, "[1.0,2.5,-3.0,4.0]");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (text, datatype, says) in [
            ("[1,2,3]", DataType::Fp32, "3 elements"),
            ("[1,2,3,4,5]", DataType::Fp32, "5 elements"),
            ("[1,2,3,\"4\"]", DataType::Fp32, "element 3"),
            ("[1,2,3,1e99]", DataType::Fp32, "element 3"),
            ("[1,2,3,null]", DataType::Fp32, "element 3"),
            ("[1,2,3,256]", DataType::Uint8, "no UINT8"),
            ("[1,2,3,-1]", DataType::Uint8, "no UINT8"),
            ("[1,2,3,0.5]", DataType::Int64, "no INT64"),
            ("{\"a\":1}", DataType::Fp32, "must be an array"),
            ("[{\"a\":1},2,3,4]", DataType::Fp32, "element 0"),
        ] {
            let error = parse(text, &spec(datatype, &[2, 2])).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(parse(&deep, &spec(DataType::Fp32, &[1])).unwrap_err().contains("0 elements"));
    }

    #[test]
    fn whole_numbers_and_booleans() {
        assert_eq!(parse("[5.0]", &spec(DataType::Int32, &[1])).unwrap(), 5i32.to_le_bytes());
        assert_eq!(parse("[true,0]", &spec(DataType::Bool, &[2])).unwrap(), [1, 0]);
        let mut text = String::new();
        write(&[1, 0], DataType::Bool, &mut text);
        assert_eq!(text, "[true,false]");
        assert_eq!(parse("[1.5]", &spec(DataType::Fp16, &[1])).unwrap(), 0x3e00u16.to_le_bytes());
        assert_eq!(parse("[-2]", &spec(DataType::Bf16, &[1])).unwrap(), 0xc000u16.to_le_bytes());
        assert!(parse("[65520]", &spec(DataType::Fp16, &[1])).is_err(), "that is infinite");
        let mut halves = String::new();
        write(&0x3e00u16.to_le_bytes(), DataType::Fp16, &mut halves);
        assert_eq!(halves, "[1.5]");
        assert!(!is_finite(&f32::NAN.to_le_bytes(), DataType::Fp32) && is_finite(&[0; 8], DataType::Fp64));
    }
}
