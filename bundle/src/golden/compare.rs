//! One output against what is expected of it.

use crate::{DataType, TensorSpec, Tolerance, half};

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
            DataType::Fp16 => half::from_fp16(c.try_into().map(u16::from_le_bytes).unwrap_or_default()).into(),
            DataType::Bf16 => half::from_bf16(c.try_into().map(u16::from_le_bytes).unwrap_or_default()).into(),
        }
    })
}

/// One output of one vector against what is expected: the first number that is out of tolerance, and the largest differences
/// whether or not they are allowed.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// In words.
    pub(super) wrong: Option<String>,
    /// Element, found, expected, |a − b|.
    pub(super) absolute: Option<(usize, f64, f64, f64)>,
    /// The same, |a − b| as a share of |b|, or of the absolute tolerance where b is smaller than that.
    pub(super) relative: Option<(usize, f64, f64, f64)>,
}

impl Comparison {
    fn look(&mut self, i: usize, a: f64, b: f64, difference: f64, tolerance: &Tolerance) {
        let larger = |than: &Option<(usize, f64, f64, f64)>, by: f64| by.is_finite() && than.is_none_or(|t| by > t.3);
        if larger(&self.absolute, difference) {
            self.absolute = Some((i, a, b, difference));
        }
        let share = if difference == 0.0 { 0.0 } else { difference / b.abs().max(tolerance.absolute) };
        if larger(&self.relative, share) {
            self.relative = Some((i, a, b, share));
        }
    }
}

/// `|a − b| ≤ absolute + relative · |b|`; NaN equals NaN only, an infinity itself only.
pub(super) fn compare(spec: &TensorSpec, actual: &[u8], expected: &[u8], tolerance: &Tolerance) -> Comparison {
    let mut found = Comparison::default();
    if actual.len() != expected.len() {
        found.wrong = Some(format!("{} bytes instead of {}", actual.len(), expected.len()));
        return found;
    }
    // An f64 does not tell neighbours apart above 2⁵³.
    if matches!(spec.datatype, DataType::Int64 | DataType::Uint64) {
        let signed = spec.datatype == DataType::Int64;
        for (i, (a, b)) in integers(actual, signed).zip(integers(expected, signed)).enumerate() {
            let difference = (a - b).abs() as f64;
            if difference > tolerance.absolute + tolerance.relative * b.abs() as f64 {
                found.wrong.get_or_insert_with(|| format!("element {i} is {a}, expected {b}"));
            }
            found.look(i, a as f64, b as f64, difference, tolerance);
        }
        return found;
    }
    for (i, (a, b)) in elements(spec.datatype, actual).zip(elements(spec.datatype, expected)).enumerate() {
        // With an infinity the right side would be infinite too, and everything below it.
        let finite = a.is_finite() && b.is_finite();
        let near = finite && (a - b).abs() <= tolerance.absolute + tolerance.relative * b.abs();
        if !(a == b || near || (a.is_nan() && b.is_nan())) {
            found.wrong.get_or_insert_with(|| format!("element {i} is {a}, expected {b}"));
        }
        if finite {
            found.look(i, a, b, (a - b).abs(), tolerance);
        }
    }
    found
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
