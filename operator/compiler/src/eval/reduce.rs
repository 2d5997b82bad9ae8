//! Along axes.

use std::cmp::Ordering;

use crate::ir::{DType, Data, ReduceKind, Tensor};

use super::elementwise::{max, max_f64, min, min_f64, saturate};
use super::{strides, wrap};

/// For each element of `x` in index order, its place in the reduced tensor.
fn places(shape: &[usize], axes: &[usize]) -> impl Iterator<Item = usize> {
    let mut reduced = shape.to_vec();
    axes.iter().for_each(|a| reduced[*a] = 1);
    let steps = strides(&reduced).into_iter().enumerate().map(|(d, s)| if axes.contains(&d) { 0 } else { s }).collect();
    super::moves::Walk::new(shape, steps, 0)
}

/// Integers in the order of i64: those of u64 above 2⁶³ are below zero in two's complement. Its own inverse.
const fn lifted(dtype: DType, x: i64) -> i64 {
    if matches!(dtype, DType::U64) { x ^ i64::MIN } else { x }
}

pub(super) fn reduce(x: &Tensor, kind: ReduceKind, axes: &[usize]) -> Data {
    let dtype = x.dtype;
    let count: usize = axes.iter().map(|a| x.shape[*a]).product();
    let size = x.shape.iter().enumerate().map(|(d, n)| if axes.contains(&d) { 1 } else { *n }).product();
    macro_rules! floats {
        ($v:expr, $t:ty, $min:ident, $max:ident) => {{
            let start = match kind {
                ReduceKind::Sum | ReduceKind::Mean | ReduceKind::SumSquares | ReduceKind::SumAbs => 0.0,
                ReduceKind::Product => 1.0,
                ReduceKind::Max => <$t>::NEG_INFINITY,
                ReduceKind::Min => <$t>::INFINITY,
            };
            let mut out = vec![start; size];
            for (x, place) in $v.iter().zip(places(&x.shape, axes)) {
                let o = &mut out[place];
                *o = match kind {
                    ReduceKind::Sum | ReduceKind::Mean => *o + x,
                    ReduceKind::SumSquares => *o + x * x,
                    ReduceKind::SumAbs => *o + x.abs(),
                    ReduceKind::Product => *o * x,
                    ReduceKind::Max => $max(*o, *x),
                    ReduceKind::Min => $min(*o, *x),
                };
            }
            if kind == ReduceKind::Mean {
                out.iter_mut().for_each(|o| *o /= count as $t);
            }
            out
        }};
    }
    match &x.data {
        Data::F32(v) => Data::F32(floats!(v, f32, min, max)),
        Data::F64(v) => Data::F64(floats!(v, f64, min_f64, max_f64)),
        Data::Int(v) => {
            let start = match kind {
                ReduceKind::Sum | ReduceKind::Mean | ReduceKind::SumSquares | ReduceKind::SumAbs => 0,
                ReduceKind::Product => 1,
                ReduceKind::Max => saturate(dtype, f64::NEG_INFINITY),
                ReduceKind::Min => saturate(dtype, f64::INFINITY),
            };
            let mut out = vec![start; size];
            for (x, place) in v.iter().zip(places(&x.shape, axes)) {
                let o = &mut out[place];
                *o = match kind {
                    ReduceKind::Sum | ReduceKind::Mean => o.wrapping_add(*x),
                    ReduceKind::SumSquares => o.wrapping_add(x.wrapping_mul(*x)),
                    ReduceKind::SumAbs if dtype == DType::U64 => o.wrapping_add(*x),
                    ReduceKind::SumAbs => o.wrapping_add(x.wrapping_abs()),
                    ReduceKind::Product => o.wrapping_mul(*x),
                    ReduceKind::Max => lifted(dtype, lifted(dtype, *o).max(lifted(dtype, *x))),
                    ReduceKind::Min => lifted(dtype, lifted(dtype, *o).min(lifted(dtype, *x))),
                };
            }
            if kind == ReduceKind::Mean && count > 0 {
                out.iter_mut().for_each(|o| match dtype {
                    DType::U64 => *o = (o.cast_unsigned() / count as u64).cast_signed(),
                    _ => *o /= count as i64,
                });
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
fn order<T: Into<f64> + Copy>(a: T, b: T) -> Ordering {
    let (a, b) = (a.into(), b.into());
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
    // NaN is the best of both kinds.
    let with_nan = |a: bool, b: bool| if largest { a.cmp(&b) } else { b.cmp(&a) };
    let compare = |a: usize, b: usize| match &x.data {
        Data::F32(v) if v[a].is_nan() || v[b].is_nan() => with_nan(v[a].is_nan(), v[b].is_nan()),
        Data::F64(v) if v[a].is_nan() || v[b].is_nan() => with_nan(v[a].is_nan(), v[b].is_nan()),
        Data::F32(v) => order(v[a], v[b]),
        Data::F64(v) => order(v[a], v[b]),
        Data::Int(v) => lifted(x.dtype, v[a]).cmp(&lifted(x.dtype, v[b])),
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

pub(super) fn softmax(x: &Tensor, axis: usize, log: bool) -> Data {
    let (outer, len, inner) = around(&x.shape, axis);
    macro_rules! rows {
        ($v:expr, $t:ty, $max:ident, $exp:ident, $ln:ident) => {{
            let mut out = $v.to_vec();
            for o in 0..outer {
                for i in 0..inner {
                    let place = |l: usize| (o * len + l) * inner + i;
                    let largest = (0..len).fold(<$t>::NEG_INFINITY, |m, l| $max(m, out[place(l)]));
                    let mut sum: $t = 0.0;
                    for l in 0..len {
                        sum += libm::$exp(out[place(l)] - largest);
                    }
                    for l in 0..len {
                        let y = &mut out[place(l)];
                        *y = if log { *y - largest - libm::$ln(sum) } else { libm::$exp(*y - largest) / sum };
                    }
                }
            }
            out
        }};
    }
    match &x.data {
        Data::F64(v) => Data::F64(rows!(v, f64, max_f64, exp, log)),
        Data::F32(_) | Data::Int(_) => Data::F32(rows!(x.floats(), f32, max, expf, logf)),
    }
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
        Data::F64(v) => Data::F64(run!(v, 0f64, |a: f64, b: f64| a + b)),
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
                    Data::F64(v) => order(v[place(*a)], v[place(*b)]),
                    Data::Int(v) => lifted(x.dtype, v[place(*a)]).cmp(&lifted(x.dtype, v[place(*b)])),
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
