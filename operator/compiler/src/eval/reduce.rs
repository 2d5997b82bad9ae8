//! Along axes.

use std::cmp::Ordering;

use crate::ir::{Data, ReduceKind, Tensor};

use super::elementwise::{max, min};
use super::{strides, wrap};

/// For each element of `x` in index order, its place in the reduced tensor.
fn places(shape: &[usize], axes: &[usize]) -> impl Iterator<Item = usize> {
    let mut reduced = shape.to_vec();
    axes.iter().for_each(|a| reduced[*a] = 1);
    let steps = strides(&reduced).into_iter().enumerate().map(|(d, s)| if axes.contains(&d) { 0 } else { s }).collect();
    super::moves::Walk::new(shape, steps, 0)
}

pub(super) fn reduce(x: &Tensor, kind: ReduceKind, axes: &[usize]) -> Data {
    let count: usize = axes.iter().map(|a| x.shape[*a]).product();
    let size = x.len().checked_div(count).unwrap_or(0);
    match &x.data {
        Data::F32(v) => {
            let start = match kind {
                ReduceKind::Sum | ReduceKind::Mean | ReduceKind::SumSquares | ReduceKind::SumAbs => 0.0,
                ReduceKind::Product => 1.0,
                ReduceKind::Max => f32::NEG_INFINITY,
                ReduceKind::Min => f32::INFINITY,
            };
            let mut out = vec![start; size];
            for (x, place) in v.iter().zip(places(&x.shape, axes)) {
                let o = &mut out[place];
                *o = match kind {
                    ReduceKind::Sum | ReduceKind::Mean => *o + x,
                    ReduceKind::SumSquares => *o + x * x,
                    ReduceKind::SumAbs => *o + x.abs(),
                    ReduceKind::Product => *o * x,
                    ReduceKind::Max => max(*o, *x),
                    ReduceKind::Min => min(*o, *x),
                };
            }
            if kind == ReduceKind::Mean {
                out.iter_mut().for_each(|o| *o /= count as f32);
            }
            Data::F32(out)
        }
        Data::Int(v) => {
            let start = match kind {
                ReduceKind::Sum | ReduceKind::Mean | ReduceKind::SumSquares | ReduceKind::SumAbs => 0,
                ReduceKind::Product => 1,
                ReduceKind::Max => i64::MIN,
                ReduceKind::Min => i64::MAX,
            };
            let mut out = vec![start; size];
            for (x, place) in v.iter().zip(places(&x.shape, axes)) {
                let o = &mut out[place];
                *o = match kind {
                    ReduceKind::Sum | ReduceKind::Mean => o.wrapping_add(*x),
                    ReduceKind::SumSquares => o.wrapping_add(x.wrapping_mul(*x)),
                    ReduceKind::SumAbs => o.wrapping_add(x.wrapping_abs()),
                    ReduceKind::Product => o.wrapping_mul(*x),
                    ReduceKind::Max => (*o).max(*x),
                    ReduceKind::Min => (*o).min(*x),
                };
            }
            if kind == ReduceKind::Mean {
                out.iter_mut().for_each(|o| *o /= count as i64);
            }
            Data::Int(out.into_iter().map(|o| wrap(x.dtype, o)).collect())
        }
    }
}

/// `(outer, extent, inner)` around an axis.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// NaN counts as more than everything.
fn order(a: f32, b: f32) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Whether `b` takes the place of the best one so far.
fn beats(best: Ordering, largest: bool, last: bool) -> bool {
    match best {
        Ordering::Equal => last,
        Ordering::Less => largest,
        Ordering::Greater => !largest,
    }
}

pub(super) fn arg(x: &Tensor, largest: bool, axis: usize, last: bool) -> Vec<i64> {
    let (outer, len, inner) = around(&x.shape, axis);
    let compare = |a: usize, b: usize| match &x.data {
        // NaN is the best of both kinds.
        Data::F32(v) if v[a].is_nan() || v[b].is_nan() => {
            let order = v[a].is_nan().cmp(&v[b].is_nan());
            if largest { order } else { order.reverse() }
        }
        Data::F32(v) => order(v[a], v[b]),
        Data::Int(v) => v[a].cmp(&v[b]),
    };
    let mut out = Vec::with_capacity(outer * inner);
    for o in 0..outer {
        for i in 0..inner {
            let place = |l: usize| (o * len + l) * inner + i;
            let best =
                (1..len).fold(0, |best, l| if beats(compare(place(best), place(l)), largest, last) { l } else { best });
            out.push(best as i64);
        }
    }
    out
}

pub(super) fn softmax(x: &Tensor, axis: usize, log: bool) -> Vec<f32> {
    let (outer, len, inner) = around(&x.shape, axis);
    let mut out = x.floats().to_vec();
    for o in 0..outer {
        for i in 0..inner {
            let place = |l: usize| (o * len + l) * inner + i;
            let largest = (0..len).fold(f32::NEG_INFINITY, |m, l| max(m, out[place(l)]));
            let mut sum = 0f32;
            for l in 0..len {
                sum += libm::expf(out[place(l)] - largest);
            }
            for l in 0..len {
                let y = &mut out[place(l)];
                *y = if log { *y - largest - libm::logf(sum) } else { libm::expf(*y - largest) / sum };
            }
        }
    }
    out
}

pub(super) fn cumsum(x: &Tensor, axis: usize, exclusive: bool, reverse: bool) -> Data {
    let (outer, len, inner) = around(&x.shape, axis);
    macro_rules! run {
        ($v:expr, $zero:expr, $add:expr) => {{
            let mut out = $v.clone();
            for o in 0..outer {
                for i in 0..inner {
                    let mut sum = $zero;
                    for l in 0..len {
                        let place = (o * len + if reverse { len - 1 - l } else { l }) * inner + i;
                        let with = $add(sum, $v[place]);
                        out[place] = if exclusive { sum } else { with };
                        sum = with;
                    }
                }
            }
            out
        }};
    }
    match &x.data {
        Data::F32(v) => Data::F32(run!(v, 0f32, |a: f32, b: f32| a + b)),
        Data::Int(v) => Data::Int(run!(v, 0i64, |a: i64, b: i64| wrap(x.dtype, a.wrapping_add(b)))),
    }
}

pub(super) fn top_k(x: &Tensor, axis: usize, largest: bool, k: usize) -> (Data, Vec<i64>) {
    let (outer, len, inner) = around(&x.shape, axis);
    let (mut sources, mut indices) = (vec![0; outer * k * inner], vec![0; outer * k * inner]);
    for o in 0..outer {
        for i in 0..inner {
            let place = |l: usize| (o * len + l) * inner + i;
            let mut ranked: Vec<usize> = (0..len).collect();
            ranked.sort_by(|a, b| {
                let order = match &x.data {
                    Data::F32(v) => order(v[place(*a)], v[place(*b)]),
                    Data::Int(v) => v[place(*a)].cmp(&v[place(*b)]),
                };
                if largest { order.reverse() } else { order }
            });
            for (rank, l) in ranked.into_iter().take(k).enumerate() {
                let to = (o * k + rank) * inner + i;
                sources[to] = place(l);
                indices[to] = l as i64;
            }
        }
    }
    (super::moves::pick(x, sources.into_iter()), indices)
}
