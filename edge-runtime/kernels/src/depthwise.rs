//! Convolution of each plane with its own window.
//!
//! The windows that nearly all models have, 3 × 3 and 5 × 5 at strides 1 and 2 without dilation, are unrolled over their
//! taps: there a tap is a load at a fixed distance and a multiply-add. All others go tap by tap.

use ballast_plan::Plan;
use ballast_plan::step::{Depthwise, Window};

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
    let (input_plane, pixels, taps) = (w.ih as usize * w.iw as usize, w.oh as usize * w.ow as usize, w.taps() as usize);
    let walk = Walk::new(w);
    let bounds = tail.bounds().unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    for b in 0..s.batch as usize {
        for plane in 0..s.planes as usize {
            let index = b * s.planes as usize + plane;
            let input = memory.floats(s.input).add(index * input_plane);
            let from = if w.is_direct() {
                input
            } else {
                let scratch = memory.floats_mut(s.scratch);
                pad::<S>(w, input, scratch, 0.0);
                scratch.cast_const()
            };
            let out = memory.floats_mut(s.out).add(index * pixels);
            let p = Plane {
                from,
                weights: memory.floats(s.weights).add(plane * taps),
                out,
                rows: w.oh as usize,
                cols: w.ow as usize,
                walk,
                bias: tail.row_bias(plane),
                bounds,
            };
            match (w.kh, w.kw, w.sw, w.dw) {
                (3, 3, 1, 1) => square::<S, 3, 1>(&p),
                (3, 3, 2, 1) => square::<S, 3, 2>(&p),
                (5, 5, 1, 1) => square::<S, 5, 1>(&p),
                (5, 5, 2, 1) => square::<S, 5, 2>(&p),
                _ => any::<S>(&p, w),
            }
            tail.finish::<S>(b, plane, 0, pixels, out);
        }
    }
}

/// One plane's work.
struct Plane {
    from: *const f32,
    weights: *const f32,
    out: *mut f32,
    rows: usize,
    cols: usize,
    walk: Walk,
    bias: f32,
    bounds: (f32, f32),
}

impl Plane {
    /// All pixels of all rows: as `many` vectors or `one` at a time at an element of the input's rows. The last vector of a
    /// row overlaps the one before: it computes the same again, because nothing reads `out` before the plane is done. Rows
    /// shorter than a vector go pixel by pixel.
    #[inline(always)]
    unsafe fn fill<S: Simd, const MANY: usize>(
        &self,
        many: impl Fn(*const f32) -> [S::F; MANY],
        one: impl Fn(*const f32) -> S::F,
        pixel: impl Fn(*const f32) -> f32,
    ) {
        let (low, high) = (S::splat(self.bounds.0), S::splat(self.bounds.1));
        let store = |to: *mut f32, v: S::F| S::store(to, S::min_bound(S::max_bound(v, low), high));
        for y in 0..self.rows {
            let (from, to) = (self.from.add(y * self.walk.row), self.out.add(y * self.cols));
            let mut x = 0;
            while x + MANY * S::LANES <= self.cols {
                let v = many(from.add(x));
                (0..MANY).for_each(|i| store(to.add(x + i * S::LANES), v[i]));
                x += MANY * S::LANES;
            }
            if self.cols >= S::LANES {
                while x < self.cols {
                    let at = x.min(self.cols - S::LANES);
                    store(to.add(at), one(from.add(at)));
                    x = at + S::LANES;
                }
            }
            for x in x..self.cols {
                let sum = pixel(from.add(x));
                let sum = if self.bounds.0 > sum { self.bounds.0 } else { sum };
                *to.add(x) = if self.bounds.1 < sum { self.bounds.1 } else { sum };
            }
        }
    }

    /// One pixel, tap by tap.
    #[inline(always)]
    unsafe fn pixel(&self, from: *const f32, [kh, kw]: [usize; 2]) -> f32 {
        let mut sum = self.bias;
        for ky in 0..kh {
            for kx in 0..kw {
                sum += *from.add(self.walk.tap(ky, kx)) * *self.weights.add(ky * kw + kx);
            }
        }
        sum
    }
}

/// A `K × K` window without dilation, at column stride `SW`.
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn square<S: Simd, const K: usize, const SW: usize>(p: &Plane) {
    // Each weight in every lane once: a plane reads them from the first-level cache as they are.
    let weights: [[S::F; K]; K] =
        core::array::from_fn(|ky| core::array::from_fn(|kx| S::splat(*p.weights.add(ky * K + kx))));
    let bias = S::splat(p.bias);
    let at = |from: *const f32| unrolled::<S, K, SW, 1>(from, &weights, &p.walk, bias)[0];
    p.fill::<S, 8>(|from| unrolled::<S, K, SW, 8>(from, &weights, &p.walk, bias), at, |from| p.pixel(from, [K, K]));
}

/// `V` vectors of neighbouring pixels; with eight of them the multiply-adds wait for loads and not for each other.
#[inline(always)]
unsafe fn unrolled<S: Simd, const K: usize, const SW: usize, const V: usize>(
    from: *const f32,
    weights: &[[S::F; K]; K],
    walk: &Walk,
    bias: S::F,
) -> [S::F; V] {
    let mut acc = [bias; V];
    for (ky, weights) in weights.iter().enumerate() {
        for (kx, &weight) in weights.iter().enumerate() {
            // As `Walk::tap`, but only the row's and the phase's starts are left to be computed.
            let from = from.add(ky * walk.tap_row + kx % SW * walk.phase).add(kx / SW);
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = S::fma(S::load(from.add(v * S::LANES)), weight, *acc);
            }
        }
    }
    acc
}

/// Any window.
#[inline(always)]
unsafe fn any<S: Simd>(p: &Plane, w: &Window) {
    let k = [w.kh as usize, w.kw as usize];
    let bias = S::splat(p.bias);
    let at = |from: *const f32| tap_by_tap::<S, 1>(p, from, k, bias)[0];
    p.fill::<S, 4>(|from| tap_by_tap::<S, 4>(p, from, k, bias), at, |from| p.pixel(from, k));
}

#[inline(always)]
unsafe fn tap_by_tap<S: Simd, const V: usize>(
    p: &Plane,
    from: *const f32,
    [kh, kw]: [usize; 2],
    bias: S::F,
) -> [S::F; V] {
    let mut acc = [bias; V];
    for ky in 0..kh {
        for kx in 0..kw {
            let weight = S::splat(*p.weights.add(ky * kw + kx));
            let from = from.add(p.walk.tap(ky, kx));
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = S::fma(S::load(from.add(v * S::LANES)), weight, *acc);
            }
        }
    }
    acc
}
