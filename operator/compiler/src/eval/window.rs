//! Products, convolutions and pooling.

use crate::ir::{Data, PoolKind, Tensor, Window};

use super::elementwise::max;
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
) -> Vec<f32> {
    let (&[n, channels, ih, iw], &[_, planes, oh, ow]) = (&x.shape[..], out) else {
        unreachable!("the shape rule wants 4")
    };
    let (ic, oc) = (channels / groups, planes / groups);
    let (data, weights) = (x.floats(), w.floats());
    let [kh, kw] = window.kernel;
    let mut result = vec![0f32; n * planes * oh * ow];
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
                                plane[oy * ow + ox] += weight * input[iy * iw + ix];
                            }
                        }
                    }
                }
            }
            if let Some(bias) = bias {
                let b = bias.floats()[o];
                plane.iter_mut().for_each(|y| *y += b);
            }
        }
    }
    result
}

pub(super) fn pool(x: &Tensor, kind: PoolKind, window: &Window, out: &[usize]) -> Vec<f32> {
    let (&[n, channels, ih, iw], &[_, _, oh, ow]) = (&x.shape[..], out) else { unreachable!("the shape rule wants 4") };
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
    for plane in x.floats().chunks_exact(ih * iw) {
        for oy in 0..oh {
            for ox in 0..ow {
                let (mut sum, mut largest, mut count) = (0f32, f32::NEG_INFINITY, 0usize);
                for iy in positions(0, oy).filter(|i| (0..ih as isize).contains(i)) {
                    for ix in positions(1, ox).filter(|i| (0..iw as isize).contains(i)) {
                        let x = plane[iy as usize * iw + ix as usize];
                        sum += x;
                        largest = max(largest, x);
                        count += 1;
                    }
                }
                result.push(match kind {
                    PoolKind::Max => largest,
                    PoolKind::Mean => sum / count as f32,
                    PoolKind::MeanPadded => sum / (declared(0, ih, oy) * declared(1, iw, ox)) as f32,
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
        (Data::Int(x), Data::Int(y)) => {
            let sums = product!(0i64, x, y, |o: i64, l: i64, r: i64| o.wrapping_add(l.wrapping_mul(r)));
            Data::Int(sums.into_iter().map(|s| super::wrap(a.dtype, s)).collect())
        }
        _ => unreachable!("the shape rule wants equal types"),
    }
}
