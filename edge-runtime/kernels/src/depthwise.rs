//! Convolution of each plane with its own window.

use ballast_plan::Plan;
use ballast_plan::step::Depthwise;

use crate::Memory;
use crate::elt::Tail;
use crate::planes::{Walk, pad};
use crate::simd::{Simd, kernel};

kernel! {
    /// Plane by plane.
    pub fn depthwise(plan: &Plan<'_>, s: &Depthwise, memory: &Memory) = depthwise_on
}

#[inline(always)]
unsafe fn depthwise_on<S: Simd>(plan: &Plan<'_>, s: &Depthwise, memory: &Memory) {
    let mut tail = Tail::new(plan, &s.epilogue, memory);
    let w = &s.window;
    let [kh, kw, oh, ow] = [w.kh, w.kw, w.oh, w.ow].map(|v| v as usize);
    let (input_plane, pixels, taps) = (w.ih as usize * w.iw as usize, oh * ow, kh * kw);
    let walk = Walk::new(w);
    let (low, high) = tail.bounds().unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    let bounds = (S::splat(low), S::splat(high));
    for b in 0..s.batch as usize {
        for plane in 0..s.planes as usize {
            let index = b * s.planes as usize + plane;
            let input = memory.floats(s.input).add(index * input_plane);
            let from = if w.is_direct() {
                input
            } else {
                let scratch = memory.floats_mut(s.scratch);
                pad(w, input, scratch, 0.0);
                scratch.cast_const()
            };
            let weights = memory.floats(s.weights).add(plane * taps);
            let out = memory.floats_mut(s.out).add(index * pixels);
            let bias = S::splat(tail.row_bias(plane));
            for y in 0..oh {
                let from = from.add(y * walk.row);
                let to = out.add(y * ow);
                let mut x = 0;
                while x + 4 * S::LANES <= ow {
                    let v = vectors::<S, 4>(from.add(x), weights, [kh, kw], &walk, bias, bounds);
                    (0..4).for_each(|i| S::store(to.add(x + i * S::LANES), v[i]));
                    x += 4 * S::LANES;
                }
                while x + S::LANES <= ow {
                    let [v] = vectors::<S, 1>(from.add(x), weights, [kh, kw], &walk, bias, bounds);
                    S::store(to.add(x), v);
                    x += S::LANES;
                }
                for x in x..ow {
                    *to.add(x) = pixel(from.add(x), weights, [kh, kw], &walk, tail.row_bias(plane), [low, high]);
                }
            }
            tail.finish::<S>(b, plane, 0, pixels, out);
        }
    }
}

/// `V` vectors of neighbouring pixels.
#[inline(always)]
unsafe fn vectors<S: Simd, const V: usize>(
    from: *const f32,
    weights: *const f32,
    [kh, kw]: [usize; 2],
    walk: &Walk,
    bias: S::F,
    (low, high): (S::F, S::F),
) -> [S::F; V] {
    let mut acc = [bias; V];
    for ky in 0..kh {
        for kx in 0..kw {
            let weight = S::splat(*weights.add(ky * kw + kx));
            let from = from.add(walk.tap(ky, kx));
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = S::fma(S::load(from.add(v * S::LANES)), weight, *acc);
            }
        }
    }
    acc.map(|v| S::min_bound(S::max_bound(v, low), high))
}

#[inline(always)]
unsafe fn pixel(
    from: *const f32,
    weights: *const f32,
    [kh, kw]: [usize; 2],
    walk: &Walk,
    bias: f32,
    [low, high]: [f32; 2],
) -> f32 {
    let mut sum = bias;
    for ky in 0..kh {
        for kx in 0..kw {
            sum += *from.add(walk.tap(ky, kx)) * *weights.add(ky * kw + kx);
        }
    }
    let sum = if low > sum { low } else { sum };
    if high < sum { high } else { sum }
}
