//! Results with as many rows as the data says; behind those there are zeros.

use std::cmp::Ordering;

use super::strides;
use crate::ir::{DType, Data, Tensor};

fn count(n: usize) -> Tensor {
    Tensor::int(DType::I64, Vec::new(), vec![n as i64])
}

/// See [`Op::NonZero`](crate::ir::Op::NonZero).
pub(super) fn non_zero(x: &Tensor) -> Vec<Tensor> {
    let (rank, elements) = (x.shape.len(), x.len());
    let found: Vec<usize> = match &x.data {
        Data::F32(v) => (0..elements).filter(|i| v[*i] != 0.0).collect(),
        Data::F64(v) => (0..elements).filter(|i| v[*i] != 0.0).collect(),
        Data::Int(v) => (0..elements).filter(|i| v[*i] != 0).collect(),
    };
    let strides = strides(&x.shape);
    let mut indices = vec![0; rank * elements];
    for (n, i) in found.iter().enumerate() {
        for d in 0..rank {
            indices[d * elements + n] = (i / strides[d] % x.shape[d]) as i64;
        }
    }
    vec![Tensor::int(DType::I64, vec![rank, elements], indices), count(found.len())]
}

/// See [`Op::Unique`](crate::ir::Op::Unique).
pub(super) fn unique(x: &Tensor, sorted: bool) -> Vec<Tensor> {
    let rows = x.shape[0];
    let len = x.len() / rows;
    let compare = |a: usize, b: usize| -> Ordering {
        let each = |i: usize| match &x.data {
            Data::F32(v) => {
                let (a, b) = (v[a * len + i], v[b * len + i]);
                a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            Data::F64(v) => {
                let (a, b) = (v[a * len + i], v[b * len + i]);
                a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            Data::Int(v) if x.dtype == DType::U64 => {
                v[a * len + i].cast_unsigned().cmp(&v[b * len + i].cast_unsigned())
            }
            Data::Int(v) => v[a * len + i].cmp(&v[b * len + i]),
        };
        (0..len).map(each).find(|o| *o != Ordering::Equal).unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|a, b| compare(*a, *b).then(a.cmp(b)));
    // The first occurrence of each row, and those of all that differ.
    let mut leader = vec![0; rows];
    let mut leaders: Vec<usize> = Vec::new();
    for row in order {
        match leaders.last() {
            Some(last) if compare(*last, row) == Ordering::Equal => {}
            _ => leaders.push(row),
        }
        leader[row] = leaders[leaders.len() - 1];
    }
    if !sorted {
        leaders.sort_unstable();
    }
    let mut number = vec![0; rows];
    leaders.iter().enumerate().for_each(|(n, row)| number[*row] = n);
    let inverse: Vec<i64> = leader.iter().map(|row| number[*row] as i64).collect();
    let (mut first, mut counts) = (vec![0; rows], vec![0; rows]);
    leaders.iter().enumerate().for_each(|(n, row)| first[n] = *row as i64);
    inverse.iter().for_each(|n| counts[*n as usize] += 1);
    let data = match &x.data {
        Data::F32(v) => {
            let mut out: Vec<f32> = leaders.iter().flat_map(|r| &v[r * len..(r + 1) * len]).copied().collect();
            out.resize(x.len(), 0.0);
            Data::F32(out)
        }
        Data::F64(v) => {
            let mut out: Vec<f64> = leaders.iter().flat_map(|r| &v[r * len..(r + 1) * len]).copied().collect();
            out.resize(x.len(), 0.0);
            Data::F64(out)
        }
        Data::Int(v) => {
            let mut out: Vec<i64> = leaders.iter().flat_map(|r| &v[r * len..(r + 1) * len]).copied().collect();
            out.resize(x.len(), 0);
            Data::Int(out)
        }
    };
    let ints = |v: Vec<i64>| Tensor::int(DType::I64, vec![rows], v);
    let values = Tensor { dtype: x.dtype, shape: x.shape.clone(), data };
    vec![values, ints(first), ints(inverse), ints(counts), count(leaders.len())]
}

/// See [`Op::Suppress`](crate::ir::Op::Suppress).
pub(super) fn suppress(
    boxes: &Tensor,
    scores: &Tensor,
    limit: usize,
    centered: bool,
    iou: f32,
    score: Option<f32>,
) -> Vec<Tensor> {
    let (batch, n, classes) = (boxes.shape[0], boxes.shape[1], scores.shape[1]);
    let mut rows: Vec<[usize; 3]> = Vec::new();
    for image in 0..batch {
        let corner = |i: usize| &boxes.floats()[(image * n + i) * 4..][..4];
        for class in 0..classes {
            let scores = &scores.floats()[(image * classes + class) * n..][..n];
            let mut order: Vec<usize> = (0..n).filter(|i| score.is_none_or(|s| scores[*i] > s)).collect();
            order.sort_by(|a, b| {
                let (x, y) = (scores[*a], scores[*b]);
                y.partial_cmp(&x).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan())).then(a.cmp(b))
            });
            let mut kept: Vec<usize> = Vec::new();
            for i in order {
                if kept.len() == limit {
                    break;
                }
                if kept.iter().all(|k| overlap(corner(i), corner(*k), centered) <= iou) {
                    kept.push(i);
                }
            }
            rows.extend(kept.into_iter().map(|i| [image, class, i]));
        }
    }
    let room = batch * classes * limit;
    let mut out: Vec<i64> = rows.iter().flatten().map(|v| *v as i64).collect();
    out.resize(room * 3, 0);
    vec![Tensor::int(DType::I64, vec![room, 3], out), count(rows.len())]
}

/// Intersection over union; below every threshold where either is empty.
fn overlap(a: &[f32], b: &[f32], centered: bool) -> f32 {
    let ends = |c: &[f32], axis: usize| {
        let (x, y) = (c[axis], c[axis + 2]);
        match centered {
            true => (x - y / 2.0, x + y / 2.0),
            false if x > y => (y, x),
            false => (x, y),
        }
    };
    let (mut inner, mut first, mut second) = (1.0, 1.0, 1.0);
    for axis in [1, 0] {
        let ((a0, a1), (b0, b1)) = (ends(a, axis), ends(b, axis));
        let (low, high) = (if a0 > b0 { a0 } else { b0 }, if a1 < b1 { a1 } else { b1 });
        if high <= low {
            return f32::NEG_INFINITY;
        }
        (inner, first, second) = (inner * (high - low), first * (a1 - a0), second * (b1 - b0));
    }
    let union: f32 = first + second - inner;
    if inner <= 0.0 || first <= 0.0 || second <= 0.0 || union <= 0.0 { f32::NEG_INFINITY } else { inner / union }
}
