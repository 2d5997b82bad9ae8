//! Counted outputs of which a file has only the valid rows.

use super::MAX_GOLDEN_BYTES;
use crate::TensorSpec;

/// How many rows along `axis` a tensor of this shape has; `None` if more than there is room for, or anything else differs.
pub(super) fn rows(spec: &TensorSpec, axis: usize, found: &[u64]) -> Option<u64> {
    let same = |d: usize| d == axis || found.get(d) == spec.shape.get(d);
    let rows = *found.get(axis)?;
    let fits = rows <= *spec.shape.get(axis)?;
    (found.len() == spec.shape.len() && fits && (0..found.len()).all(same)).then_some(rows)
}

/// `vectors` tensors with zeros behind their rows. `None` when that is more than a golden file may be, or `given` is not as long
/// as it should be.
pub(super) fn padded(spec: &TensorSpec, axis: usize, rows: u64, vectors: u64, given: &[u8]) -> Option<Vec<u8>> {
    let size = |dims: &[u64]| dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let total = spec.bytes()?.checked_mul(vectors)?;
    if total > MAX_GOLDEN_BYTES as u64 || total == 0 {
        return None;
    }
    let row = size(spec.shape.get(axis + 1..)?)?.checked_mul(spec.datatype.size() as u64)?;
    let (part, whole) = (rows.checked_mul(row)? as usize, spec.shape.get(axis)?.checked_mul(row)? as usize);
    let outer = size(spec.shape.get(..axis)?)?.checked_mul(vectors)? as usize;
    if part.checked_mul(outer)? != given.len() {
        return None;
    }
    let mut out = Vec::with_capacity(total as usize);
    for i in 0..outer {
        out.extend_from_slice(given.get(i * part..(i + 1) * part)?);
        out.resize((i + 1) * whole, 0);
    }
    Some(out)
}
