//! One output against what is expected: integers and Booleans exactly, numbers within tolerance, NaN where NaN is.

use safetensors::Dtype;

use crate::case::{About, Array};

/// `|found − expected| ≤ absolute + relative · |expected|`; NaN equals NaN only, an infinity itself only.
pub fn close(found: f64, expected: f64, about: &About) -> bool {
    let near = found.is_finite()
        && expected.is_finite()
        && (found - expected).abs() <= about.absolute + about.relative * expected.abs();
    near || found == expected || found.is_nan() && expected.is_nan()
}

/// Where the first difference is, in a sentence.
pub fn compare(found: &[u8], expected: &Array, about: &About) -> Result<(), String> {
    if found.len() != expected.bytes.len() {
        return Err(format!("{} bytes instead of {}", found.len(), expected.bytes.len()));
    }
    let pairs = match (reals(expected.dtype, found), reals(expected.dtype, &expected.bytes)) {
        (Some(found), Some(expected)) => found.into_iter().zip(expected),
        _ if found == expected.bytes => return Ok(()),
        _ => {
            let size = expected.bytes.len() / expected.shape.iter().product::<usize>().max(1);
            let pairs = found.chunks(size.max(1)).zip(expected.bytes.chunks(size.max(1)));
            let mut different = pairs.enumerate().filter(|(_, (a, b))| a != b);
            let Some((at, (a, b))) = different.next() else { return Ok(()) };
            let more = different.count();
            let (a, b) = (integer(expected.dtype, a), integer(expected.dtype, b));
            return Err(format!("element {at} is {a}, expected {b} ({more} more differ)"));
        }
    };
    let total = expected.shape.iter().product::<usize>();
    let mut different = pairs.enumerate().filter(|(_, (a, b))| !close(*a, *b, about));
    match different.next() {
        None => Ok(()),
        Some((at, (a, b))) => {
            Err(format!("element {at} is {a}, expected {b} ({} of {total} differ)", 1 + different.count()))
        }
    }
}

/// The elements of a floating-point tensor.
fn reals(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], real: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|b| real(*b)).collect()
    }
    match dtype {
        Dtype::F16 => Some(each(bytes, |b| half(u16::from_le_bytes(b)))),
        Dtype::BF16 => Some(each(bytes, |b| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)))),
        Dtype::F32 => Some(each(bytes, |b| f64::from(f32::from_le_bytes(b)))),
        Dtype::F64 => Some(each(bytes, f64::from_le_bytes)),
        _ => None,
    }
}

/// IEEE 754 binary16, exactly.
fn half(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// One integer, for people.
fn integer(dtype: Dtype, bytes: &[u8]) -> i128 {
    let raw = bytes.iter().rev().fold(0i128, |n, b| n << 8 | i128::from(*b));
    let signed = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
    let bits = 8 * bytes.len();
    if signed && bits > 0 && raw >> (bits - 1) == 1 { raw - (1 << bits) } else { raw }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { operator: String::new(), operators: Vec::new(), absolute: 1e-7, relative: 1e-3 }
    }

    fn floats(values: &[f32]) -> Array {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Array { dtype: Dtype::F32, shape: vec![values.len()], bytes }
    }

    #[test]
    fn numbers_are_near_and_nan_stays_where_it_is() {
        let expected = floats(&[1.0, f32::NAN, f32::INFINITY]);
        let found = |values: [f32; 3]| floats(&values).bytes;
        assert_eq!(compare(&found([1.0009, f32::NAN, f32::INFINITY]), &expected, &about()), Ok(()));
        for bad in [
            [1.002, f32::NAN, f32::INFINITY],
            [f32::NAN, f32::NAN, f32::INFINITY],
            [1.0, 0.0, f32::INFINITY],
            [1.0, f32::NAN, f32::NEG_INFINITY],
            [1.0, f32::NAN, f32::MAX],
        ] {
            assert!(compare(&found(bad), &expected, &about()).is_err(), "{bad:?}");
        }
        assert!(compare(&floats(&[1.0]).bytes, &expected, &about()).is_err());
    }

    #[test]
    fn integers_are_exact() {
        let array = |x: i32| Array { dtype: Dtype::I32, shape: vec![1], bytes: x.to_le_bytes().to_vec() };
        let error = compare(&array(-1000).bytes, &array(-1001), &about()).unwrap_err();
        assert_eq!(error, "element 0 is -1000, expected -1001 (0 more differ)");
        assert_eq!(compare(&array(7).bytes, &array(7), &about()), Ok(()));
    }

    #[test]
    fn halves_are_read() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f64::NEG_INFINITY);
    }
}
