//! One output against what is expected of it.

use crate::{DataType, TensorSpec, Tolerance};

/// Elements of a tensor as f64.
fn elements(datatype: DataType, bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    bytes.chunks_exact(datatype.size()).map(move |c| {
        macro_rules! read {
            ($t:ty) => {
                c.try_into().map(<$t>::from_le_bytes).unwrap_or_default() as f64
            };
        }
        match datatype {
            DataType::Bool | DataType::Uint8 => read!(u8),
            DataType::Uint16 => read!(u16),
            DataType::Uint32 => read!(u32),
            DataType::Uint64 => read!(u64),
            DataType::Int8 => read!(i8),
            DataType::Int16 => read!(i16),
            DataType::Int32 => read!(i32),
            DataType::Int64 => read!(i64),
            DataType::Fp32 => read!(f32),
            DataType::Fp64 => read!(f64),
        }
    })
}

/// `|a − b| ≤ absolute + relative · |b|`; NaN equals NaN only, an infinity itself only.
pub(super) fn compare(spec: &TensorSpec, actual: &[u8], expected: &[u8], tolerance: &Tolerance) -> Result<(), String> {
    if actual.len() != expected.len() {
        return Err(format!("{} bytes instead of {}", actual.len(), expected.len()));
    }
    // An f64 does not tell neighbours apart above 2⁵³.
    if matches!(spec.datatype, DataType::Int64 | DataType::Uint64) {
        let signed = spec.datatype == DataType::Int64;
        for (i, (a, b)) in integers(actual, signed).zip(integers(expected, signed)).enumerate() {
            if (a - b).abs() as f64 > tolerance.absolute + tolerance.relative * b.abs() as f64 {
                return Err(format!("element {i} is {a}, expected {b}"));
            }
        }
        return Ok(());
    }
    for (i, (a, b)) in elements(spec.datatype, actual).zip(elements(spec.datatype, expected)).enumerate() {
        // With an infinity the right side would be infinite too, and everything below it.
        let near = a.is_finite() && b.is_finite() && (a - b).abs() <= tolerance.absolute + tolerance.relative * b.abs();
        if !(a == b || near || (a.is_nan() && b.is_nan())) {
            return Err(format!("element {i} is {a}, expected {b}"));
        }
    }
    Ok(())
}

/// 64-bit integers, with room for their differences.
fn integers(bytes: &[u8], signed: bool) -> impl Iterator<Item = i128> + '_ {
    bytes.chunks_exact(8).map(move |c| {
        let raw = c.try_into().map(u64::from_le_bytes).unwrap_or_default();
        if signed { i128::from(raw.cast_signed()) } else { i128::from(raw) }
    })
}

/// Whether a vector's output is one row, so that one label can stand for it.
pub(super) fn one_row(spec: &TensorSpec) -> bool {
    spec.shape.last().is_some() && spec.elements() == spec.shape.last().copied()
}

/// Index of the largest element along the last axis of a tensor with one row; `None` when one is NaN.
pub(super) fn argmax(spec: &TensorSpec, bytes: &[u8]) -> Option<i64> {
    let mut best: Option<(i64, f64)> = None;
    for (i, x) in elements(spec.datatype, bytes).enumerate() {
        if x.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, b)| x > b) {
            best = Some((i as i64, x));
        }
    }
    best.map(|(i, _)| i)
}
