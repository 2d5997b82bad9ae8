//! A batch and its rows: bytes side by side along one axis.

use serde::{Deserialize, Serialize};

use crate::{Contract, TensorSpec};

/// Most rows that any contract may allow.
pub const MAX_ROWS: u32 = 64;

/// Inputs may be sent with several rows at once; each is run alone, which the compiler showed to give the same answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// One per input of the contract: the axis along which rows lie; `None` where all rows share the input.
    pub inputs: Vec<Option<u32>>,
    /// One per output.
    pub outputs: Vec<u32>,
    /// Most rows of one request.
    pub max: u32,
}

impl Batch {
    /// Whether it speaks of this contract: an axis of extent 1 everywhere, and at least one input with rows.
    pub fn fits(&self, contract: &Contract) -> bool {
        let single = |spec: &TensorSpec, axis: u32| spec.shape.get(axis as usize) == Some(&1);
        self.inputs.len() == contract.inputs.len()
            && self.outputs.len() == contract.outputs.len()
            && self.inputs.iter().any(Option::is_some)
            && self.inputs.iter().zip(&contract.inputs).all(|(axis, spec)| axis.is_none_or(|axis| single(spec, axis)))
            && self.outputs.iter().zip(&contract.outputs).all(|(axis, spec)| single(spec, *axis))
            && (1..=MAX_ROWS).contains(&self.max)
    }
}

/// Elements before the axis, and bytes of one row from there on. Where those are none, there is nothing to walk.
fn strides(spec: &TensorSpec, axis: usize) -> (usize, usize) {
    let product = |dims: Option<&[u64]>| {
        dims.unwrap_or_default().iter().fold(1usize, |n, d| n.saturating_mul(usize::try_from(*d).unwrap_or(usize::MAX)))
    };
    let inner = product(spec.shape.get(axis.saturating_add(1)..)).saturating_mul(spec.datatype.size());
    (if inner == 0 { 0 } else { product(spec.shape.get(..axis)) }, inner)
}

/// Rows of `spec` (extent 1 along `axis`) as one tensor.
pub fn join<B: AsRef<[u8]>>(spec: &TensorSpec, axis: usize, rows: &[B]) -> Vec<u8> {
    let (outer, inner) = strides(spec, axis);
    let mut out = Vec::with_capacity(rows.iter().map(|row| row.as_ref().len()).sum());
    for at in 0..outer {
        let start = at.saturating_mul(inner);
        rows.iter().for_each(|row| {
            out.extend_from_slice(row.as_ref().get(start..start.saturating_add(inner)).unwrap_or_default())
        });
    }
    out
}

/// Row `n` of a batch of `rows`.
pub fn part(spec: &TensorSpec, axis: usize, batch: &[u8], rows: usize, n: usize) -> Vec<u8> {
    let (outer, inner) = strides(spec, axis);
    let mut out = Vec::with_capacity(outer.saturating_mul(inner).min(batch.len()));
    for at in 0..outer {
        let start = at.saturating_mul(rows).saturating_add(n).saturating_mul(inner);
        out.extend_from_slice(batch.get(start..start.saturating_add(inner)).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataType;

    #[test]
    fn any_number_of_rows_of_nothing_is_no_work() {
        let most = u64::from(u32::MAX);
        let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![most, most, 1, 0] };
        assert!(join(&spec, 2, &[[0u8; 0]; 3]).is_empty());
        assert!(part(&spec, 2, &[], 3, 1).is_empty());
    }

    #[test]
    fn a_batch_is_its_rows_along_any_axis() {
        for axis in 0..3 {
            let mut shape = vec![2, 3];
            shape.insert(axis, 1);
            let spec = TensorSpec { name: "x".into(), datatype: DataType::Uint16, shape };
            let rows: Vec<Vec<u8>> = (0..4).map(|n| (0..12).map(|i| n * 12 + i).collect()).collect();
            let batch = join(&spec, axis, &rows);
            assert_eq!(batch.len(), 48);
            for (n, row) in rows.iter().enumerate() {
                assert_eq!(part(&spec, axis, &batch, 4, n), *row, "axis {axis}");
            }
        }
        let spec = TensorSpec { name: "x".into(), datatype: DataType::Uint8, shape: vec![2, 1, 2] };
        assert_eq!(join(&spec, 1, &[[1, 2, 3, 4], [5, 6, 7, 8]]), [1, 2, 5, 6, 3, 4, 7, 8]);
    }

    #[test]
    fn bytes_that_are_not_there_are_not_read() {
        let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![2, 1, 3] };
        assert!(part(&spec, 1, &[1, 2, 3], 9, 8).is_empty());
        assert!(part(&spec, 9, &[1, 2, 3], usize::MAX, usize::MAX).is_empty());
        assert!(join(&spec, 1, &[[1u8, 2, 3]]).is_empty());
    }
}
