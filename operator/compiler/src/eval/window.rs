//! Products, convolutions and pooling.

use crate::ir::{Data, PoolKind, Tensor, Window};

use super::elementwise::{max, max_f64};
use super::moves::broadcast_offsets;

/// Positions of a window in one dimension that lie inside `0..extent`: `(place of the output, place of the input)`.
fn inside(outputs: usize, extent: usize, stride: usize, offset: isize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..outputs).filter_map(move |o| {
        let i = usize::try_from((o * stride) as isize + offset).ok()?;
        (i < extent).then_some((o, i))
    })
}

/// Where element `k` of a window lies, relative to its first output's start.
const fn offset(window: &Window, dim: usize, k: usize) -> isize {
    (k * window.dilations[dim]) as isize - window.pads[dim] as isize
}

/// Every sum runs over `c, kh, kw`, then the bias: the planes are walked in that order, all output pixels for one weight.
pub(super) fn conv(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    window: &Window,
    groups: usize,
    out: &[usize],
) -> Data {
    match (&x.data, &w.data) {
        (Data::F32(data), Data::F32(weights)) => {
            let bias = bias.map(Tensor::floats);
            let madd = |y: f32, a: f32, b: f32| y + a * b;
            Data::F32(convolve(data, weights, bias, &x.shape, window, groups, out, madd, |y, b| y + b))
        }
        (Data::F64(data), Data::F64(weights)) => {
            let bias = bias.map(Tensor::doubles);
            let madd = |y: f64, a: f64, b: f64| y + a * b;
            Data::F64(convolve(data, weights, bias, &x.shape, window, groups, out, madd, |y, b| y + b))
        }
        (Data::Int(data), Data::Int(weights)) => {
            let bias = bias.map(Tensor::ints);
            let madd = |y: i64, a: i64, b: i64| y.wrapping_add(a.wrapping_mul(b));
            let sums = convolve(data, weights, bias, &x.shape, window, groups, out, madd, i64::wrapping_add);
            Data::Int(sums.into_iter().map(|s| super::wrap(x.dtype, s)).collect())
        }
        _ => unreachable!("the shape rule wants equal types"),
    }
}

#[allow(clippy::too_many_arguments)] // one loop for two kinds of numbers
fn convolve<T: Copy + Default>(
    data: &[T],
    weights: &[T],
    bias: Option<&[T]>,
    input: &[usize],
    window: &Window,
    groups: usize,
    out: &[usize],
    madd: impl Fn(T, T, T) -> T,
    add: impl Fn(T, T) -> T,
) -> Vec<T> {
    let (&[n, channels, ih, iw], &[_, planes, oh, ow]) = (input, out) else { unreachable!("the shape rule wants 4") };
    let (ic, oc) = (channels / groups, planes / groups);
    let [kh, kw] = window.kernel;
    let mut result = vec![T::default(); n * planes * oh * ow];
    for image in 0..n {
        for o in 0..planes {
            let plane = &mut result[(image * planes + o) * oh * ow..][..oh * ow];
            for c in 0..ic {
                let input = &data[(image * channels + o / oc * ic + c) * ih * iw..][..ih * iw];
                for ky in 0..kh {
                    for kx in 0..kw {
                        let weight = weights[((o * ic + c) * kh + ky) * kw + kx];
                        let columns = inside(ow, iw, window.strides[1], offset(window, 1, kx));
                        for (oy, iy) in inside(oh, ih, window.strides[0], offset(window, 0, ky)) {
                            for (ox, ix) in columns.clone() {
                                plane[oy * ow + ox] = madd(plane[oy * ow + ox], weight, input[iy * iw + ix]);
                            }
                        }
                    }
                }
            }
            if let Some(bias) = bias {
                plane.iter_mut().for_each(|y| *y = add(*y, bias[o]));
            }
        }
    }
    result
}

pub(super) fn pool(x: &Tensor, kind: PoolKind, window: &Window, out: &[usize]) -> Data {
    match &x.data {
        Data::F64(v) => {
            let mean = |sum: f64, count: usize| sum / count as f64;
            Data::F64(pool_of(&x.shape, v, kind, window, out, f64::NEG_INFINITY, max_f64, mean))
        }
        Data::F32(_) | Data::Int(_) => {
            let mean = |sum: f32, count: usize| sum / count as f32;
            Data::F32(pool_of(&x.shape, x.floats(), kind, window, out, f32::NEG_INFINITY, max, mean))
        }
    }
}

#[allow(clippy::too_many_arguments)] // two calls
fn pool_of<T: Copy + Default + std::ops::AddAssign>(
    shape: &[usize],
    data: &[T],
    kind: PoolKind,
    window: &Window,
    out: &[usize],
    lowest: T,
    larger: impl Fn(T, T) -> T,
    mean: impl Fn(T, usize) -> T,
) -> Vec<T> {
    let (&[n, channels, ih, iw], &[_, _, oh, ow]) = (shape, out) else { unreachable!("the shape rule wants 4") };
    let mut result = Vec::with_capacity(n * channels * oh * ow);
    let positions = |dim: usize, o: usize| {
        let start = (o * window.strides[dim]) as isize - window.pads[dim] as isize;
        (0..window.kernel[dim]).map(move |k| start + (k * window.dilations[dim]) as isize)
    };
    // How many positions lie in the input and its declared padding.
    let declared = |dim: usize, extent: usize, o: usize| {
        let end = (extent + window.pads[dim + 2]) as isize;
        positions(dim, o).filter(|i| *i >= -(window.pads[dim] as isize) && *i < end).count()
    };
    for plane in data.chunks_exact((ih * iw).max(1)) {
        for oy in 0..oh {
            for ox in 0..ow {
                let (mut sum, mut largest, mut count) = (T::default(), lowest, 0usize);
                for iy in positions(0, oy).filter(|i| (0..ih as isize).contains(i)) {
                    for ix in positions(1, ox).filter(|i| (0..iw as isize).contains(i)) {
                        let x = plane[iy as usize * iw + ix as usize];
                        sum += x;
                        largest = larger(largest, x);
                        count += 1;
                    }
                }
                result.push(match kind {
                    PoolKind::Max => largest,
                    PoolKind::Mean => mean(sum, count),
                    PoolKind::MeanPadded => mean(sum, declared(0, ih, oy) * declared(1, iw, ox)),
                });
            }
        }
    }
    result
}

pub(super) fn matmul(a: &Tensor, b: &Tensor, shape: &[usize]) -> Data {
    let (Some((lead, [m, n])), Some((lead_a, [_, k])), Some((lead_b, _))) =
        (shape.split_last_chunk::<2>(), a.shape.split_last_chunk::<2>(), b.shape.split_last_chunk::<2>())
    else {
        unreachable!("the shape rule wants two dimensions")
    };
    let (m, n, k) = (*m, *n, *k);
    let batches = broadcast_offsets(lead_a, lead).zip(broadcast_offsets(lead_b, lead));
    macro_rules! product {
        ($zero:expr, $x:expr, $y:expr, $madd:expr) => {{
            let mut result = Vec::with_capacity(shape.iter().product());
            for (i, j) in batches {
                let (x, y) = (&$x[i * m * k..][..m * k], &$y[j * k * n..][..k * n]);
                for row in 0..m {
                    let start = result.len();
                    result.resize(start + n, $zero);
                    let out = &mut result[start..];
                    for depth in 0..k {
                        let left = x[row * k + depth];
                        for (o, right) in out.iter_mut().zip(&y[depth * n..][..n]) {
                            *o = $madd(*o, left, *right);
                        }
                    }
                }
            }
            result
        }};
    }
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => Data::F32(product!(0f32, x, y, |o: f32, l: f32, r: f32| o + l * r)),
        (Data::F64(x), Data::F64(y)) => Data::F64(product!(0f64, x, y, |o: f64, l: f64, r: f64| o + l * r)),
        (Data::Int(x), Data::Int(y)) => {
            let sums = product!(0i64, x, y, |o: i64, l: i64, r: i64| o.wrapping_add(l.wrapping_mul(r)));
            Data::Int(sums.into_iter().map(|s| super::wrap(a.dtype, s)).collect())
        }
        _ => unreachable!("the shape rule wants equal types"),
    }
}
