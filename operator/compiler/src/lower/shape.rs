//! Strides, broadcasting, and dimensions merged so that inner loops are long.

use ballast_plan::step::{Extents, MAX_DIMS, Strides};

/// Elements from one index to the next, per dimension, of a tensor that lies densely.
pub(super) fn dense(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d] as i64;
    }
    strides
}

/// Strides with which a dense tensor of `shape` is read as one of `out`, as numpy broadcasts.
pub(super) fn broadcast(shape: &[usize], out: &[usize]) -> Vec<i64> {
    let missing = out.len() - shape.len().min(out.len());
    let dense = dense(shape);
    (0..out.len()).map(|d| if d < missing || shape[d - missing] == 1 { 0 } else { dense[d - missing] }).collect()
}

/// Dimensions and, for several tensors walked together, their strides; as a step has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) dims: Extents,
    pub(super) strides: Vec<Strides>,
}

impl Walk {
    /// Leaves out extents of 1 and merges neighbours that every tensor walks as one. `None` when more dimensions remain than a
    /// step has, or a number is out of its range.
    pub(super) fn merged(dims: &[usize], strides: &[Vec<i64>]) -> Option<Self> {
        let mut kept: Vec<(usize, Vec<i64>)> = Vec::new();
        for (d, &extent) in dims.iter().enumerate() {
            if extent == 1 {
                continue;
            }
            let here: Vec<i64> = strides.iter().map(|s| s[d]).collect();
            match kept.last_mut() {
                Some((outer, before)) if before.iter().zip(&here).all(|(&b, &h)| b == h * extent as i64) => {
                    *outer *= extent;
                    *before = here;
                }
                _ => kept.push((extent, here)),
            }
        }
        let free = MAX_DIMS.checked_sub(kept.len())?;
        let mut walk = Self { dims: [1; MAX_DIMS], strides: vec![[0; MAX_DIMS]; strides.len()] };
        for (d, (extent, here)) in kept.into_iter().enumerate() {
            walk.dims[free + d] = u32::try_from(extent).ok()?;
            for (to, stride) in walk.strides.iter_mut().zip(here) {
                to[free + d] = i32::try_from(stride).ok()?;
            }
        }
        Some(walk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge_where_every_tensor_allows_it() {
        let shape = [2, 3, 4, 5];
        let whole = broadcast(&shape, &shape);
        let channel = broadcast(&[3, 1, 1], &shape);
        assert_eq!(channel, [0, 1, 0, 0]);
        let walk = Walk::merged(&shape, std::slice::from_ref(&whole)).unwrap();
        assert_eq!(walk.dims, [1, 1, 1, 1, 1, 120]);
        let walk = Walk::merged(&shape, &[whole, channel]).unwrap();
        assert_eq!(walk.dims, [1, 1, 1, 2, 3, 20]);
        assert_eq!(walk.strides, [[0, 0, 0, 60, 20, 1], [0, 0, 0, 0, 1, 0]]);
    }
}
