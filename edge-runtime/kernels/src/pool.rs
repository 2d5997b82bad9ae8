//! Pooling over planes.

use ballast_plan::step::{Pool, PoolKind, Window};

use crate::Memory;
use crate::planes::{Walk, pad};
use crate::simd::{Simd, kernel};

kernel! {
    /// Plane by plane.
    pub fn pool(s: &Pool, memory: &Memory) = pool_on
}

#[inline(always)]
unsafe fn pool_on<S: Simd>(s: &Pool, memory: &Memory) {
    let w = &s.window;
    let [oh, ow] = [w.oh, w.ow].map(|v| v as usize);
    let (input_plane, walk) = (w.ih as usize * w.iw as usize, Walk::new(w));
    let padding = if s.kind == PoolKind::Max { f32::NEG_INFINITY } else { 0.0 };
    for plane in 0..s.planes as usize {
        let input = memory.floats(s.input).add(plane * input_plane);
        let from = if w.is_direct() {
            input
        } else {
            let scratch = memory.floats_mut(s.scratch);
            pad::<S>(w, input, scratch, padding);
            scratch.cast_const()
        };
        for y in 0..oh {
            let from = from.add(y * walk.row);
            let to = memory.floats_mut(s.out).add((plane * oh + y) * ow);
            let mut x = 0;
            while x < ow {
                let n = (ow - x).min(S::LANES);
                let v = match s.kind {
                    PoolKind::Max => window::<S>(w, &walk, from.add(x), n, |a, b| S::max(a, b)),
                    PoolKind::Mean | PoolKind::MeanPadded => window::<S>(w, &walk, from.add(x), n, |a, b| S::add(a, b)),
                };
                if n == S::LANES {
                    S::store(to.add(x), v)
                } else {
                    S::store_n(to.add(x), v, n)
                }
                x += n;
            }
            if s.kind != PoolKind::Max {
                let rows = counted(s, y, w.sh, w.kh, w.dh, w.pt, w.ih, s.padded[0]);
                for x in 0..ow {
                    let cols = counted(s, x, w.sw, w.kw, w.dw, w.pl, w.iw, s.padded[1]);
                    *to.add(x) /= (rows * cols) as f32;
                }
            }
        }
    }
}

/// One vector of neighbouring windows.
#[inline(always)]
unsafe fn window<S: Simd>(w: &Window, walk: &Walk, from: *const f32, n: usize, f: impl Fn(S::F, S::F) -> S::F) -> S::F {
    let load = |ky: usize, kx: usize| {
        let at = from.add(walk.tap(ky, kx));
        if n == S::LANES { S::load(at) } else { S::load_n(at, n) }
    };
    let mut acc = load(0, 0);
    for ky in 0..w.kh as usize {
        for kx in (0..w.kw as usize).skip(usize::from(ky == 0)) {
            acc = f(load(ky, kx), acc);
        }
    }
    acc
}

/// How many elements of window `i` count along one axis; at least one, so that nothing divides by zero.
#[inline(always)]
fn counted(s: &Pool, i: usize, stride: u32, kernel: u32, dilation: u32, pad: u32, size: u32, padded: u32) -> usize {
    let start = i * stride as usize;
    let (from, to) = match s.kind {
        PoolKind::MeanPadded => (0, padded as usize),
        PoolKind::Mean | PoolKind::Max => (pad as usize, pad as usize + size as usize),
    };
    let inside = |k: &usize| (from..to).contains(&(start + k * dilation as usize));
    (0..kernel as usize).filter(inside).count().max(1)
}
