//! Reductions and softmax over `[outer][len][inner]`.

use ballast_plan::step::{Reduce, ReduceKind, Softmax};

use crate::simd::{Simd, kernel};
use crate::{Memory, math};

kernel! {
    /// A reduction.
    pub fn reduce(s: &Reduce, memory: &Memory) = reduce_on
}

kernel! {
    /// Softmax, or its logarithm.
    pub fn softmax(s: &Softmax, memory: &Memory) = softmax_on
}

#[inline(always)]
unsafe fn reduce_on<S: Simd>(s: &Reduce, memory: &Memory) {
    let (input, out) = (memory.floats(s.input), memory.floats_mut(s.out));
    let shape = [s.outer, s.len, s.inner].map(|v| v as usize);
    let scale = if s.kind == ReduceKind::Mean { s.len as f32 } else { 1.0 };
    match s.kind {
        ReduceKind::Sum | ReduceKind::Mean => {
            fold::<S>(input, out, shape, scale, 0.0, |x| x, |a, b| S::add(a, b), |a, b| a + b)
        }
        ReduceKind::Product => fold::<S>(input, out, shape, scale, 1.0, |x| x, |a, b| S::mul(a, b), |a, b| a * b),
        ReduceKind::SumSquares => {
            fold::<S>(input, out, shape, scale, 0.0, |x| S::mul(x, x), |a, b| S::add(a, b), |a, b| a + b);
        }
        ReduceKind::SumAbs => {
            fold::<S>(input, out, shape, scale, 0.0, |x| S::abs(x), |a, b| S::add(a, b), |a, b| a + b)
        }
        ReduceKind::Max => {
            let max = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
            fold::<S>(input, out, shape, scale, f32::NEG_INFINITY, |x| x, |a, b| S::max(a, b), max);
        }
        ReduceKind::Min => {
            let min = |a: f32, b: f32| if a < b || a.is_nan() { a } else { b };
            fold::<S>(input, out, shape, scale, f32::INFINITY, |x| x, |a, b| S::min(a, b), min);
        }
    }
}

/// Lanes beyond the end start as `identity`, so that they change nothing.
#[inline(always)]
unsafe fn fold<S: Simd>(
    input: *const f32,
    out: *mut f32,
    [outer, len, inner]: [usize; 3],
    divisor: f32,
    identity: f32,
    each: impl Fn(S::F) -> S::F,
    join: impl Fn(S::F, S::F) -> S::F,
    join_lanes: impl Fn(f32, f32) -> f32,
) {
    for o in 0..outer {
        let from = input.add(o * len * inner);
        if inner == 1 {
            let mut acc = [S::splat(identity); 4];
            let mut i = 0;
            while i + 4 * S::LANES <= len {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = join(*acc, each(S::load(from.add(i + v * S::LANES))));
                }
                i += 4 * S::LANES;
            }
            while i + S::LANES <= len {
                acc[0] = join(acc[0], each(S::load(from.add(i))));
                i += S::LANES;
            }
            let total = join(join(acc[0], acc[1]), join(acc[2], acc[3]));
            let mut total = S::fold(total, &join_lanes);
            for i in i..len {
                let one = S::fold(each(S::splat(*from.add(i))), |a, _| a);
                total = join_lanes(total, one);
            }
            *out.add(o) = total / divisor;
        } else {
            let mut x = 0;
            while x < inner {
                let n = (inner - x).min(S::LANES);
                let mut acc = S::splat(identity);
                for i in 0..len {
                    let at = from.add(i * inner + x);
                    acc = join(acc, each(if n == S::LANES { S::load(at) } else { S::load_n(at, n) }));
                }
                S::store_n(out.add(o * inner + x), S::div(acc, S::splat(divisor)), n);
                x += n;
            }
        }
    }
}

#[inline(always)]
unsafe fn softmax_on<S: Simd>(s: &Softmax, memory: &Memory) {
    let (input, out) = (memory.floats(s.input), memory.floats_mut(s.out));
    let [outer, len, inner] = [s.outer, s.len, s.inner].map(|v| v as usize);
    for o in 0..outer {
        let (from, to) = (input.add(o * len * inner), out.add(o * len * inner));
        if inner == 1 {
            row::<S>(from, to, len, s.log == 1);
        } else {
            let mut x = 0;
            while x < inner {
                let n = (inner - x).min(S::LANES);
                lanes::<S>(from.add(x), to.add(x), [len, inner], n, s.log == 1);
                x += n;
            }
        }
    }
}

/// Neighbours sum to one.
#[inline(always)]
unsafe fn row<S: Simd>(from: *const f32, to: *mut f32, len: usize, log: bool) {
    let whole = len - len % S::LANES;
    let rest = len - whole;
    let mut top = f32::NEG_INFINITY;
    if whole > 0 {
        let mut v = S::load(from);
        for i in (S::LANES..whole).step_by(S::LANES) {
            v = S::max(v, S::load(from.add(i)));
        }
        top = S::fold(v, |a, b| if a > b || a.is_nan() { a } else { b });
    }
    for i in whole..len {
        let x = *from.add(i);
        top = if x > top || x.is_nan() { x } else { top };
    }
    let top = S::splat(top);
    let mut sum = S::splat(0.0);
    let mut total = 0.0;
    for i in (0..whole).step_by(S::LANES) {
        let shifted = S::sub(S::load(from.add(i)), top);
        let e = math::exp::<S>(shifted);
        sum = S::add(sum, e);
        S::store(to.add(i), if log { shifted } else { e });
    }
    if whole > 0 {
        total = S::fold(sum, |a, b| a + b);
    }
    if rest > 0 {
        let shifted = S::sub(S::load_n(from.add(whole), rest), top);
        let e = math::exp::<S>(shifted);
        let mut lanes = [0f32; 16];
        S::store(lanes.as_mut_ptr(), e);
        lanes.iter().take(rest).for_each(|e| total += e);
        S::store_n(to.add(whole), if log { shifted } else { e }, rest);
    }
    let total = S::splat(total);
    let last = if log { math::log::<S>(total) } else { S::div(S::splat(1.0), total) };
    let end = |v: S::F| if log { S::sub(v, last) } else { S::mul(v, last) };
    for i in (0..whole).step_by(S::LANES) {
        S::store(to.add(i), end(S::load(to.add(i))));
    }
    if rest > 0 {
        S::store_n(to.add(whole), end(S::load_n(to.add(whole), rest)), rest);
    }
}

/// Columns sum to one: `n` of them at once, one in each lane.
#[inline(always)]
unsafe fn lanes<S: Simd>(from: *const f32, to: *mut f32, [len, inner]: [usize; 2], n: usize, log: bool) {
    let mut top = S::load_n(from, n);
    for i in 1..len {
        top = S::max(top, S::load_n(from.add(i * inner), n));
    }
    let mut sum = S::splat(0.0);
    for i in 0..len {
        let shifted = S::sub(S::load_n(from.add(i * inner), n), top);
        let e = math::exp::<S>(shifted);
        sum = S::add(sum, e);
        S::store_n(to.add(i * inner), if log { shifted } else { e }, n);
    }
    let last = if log { math::log::<S>(sum) } else { S::div(S::splat(1.0), sum) };
    for i in 0..len {
        let v = S::load_n(to.add(i * inner), n);
        S::store_n(to.add(i * inner), if log { S::sub(v, last) } else { S::mul(v, last) }, n);
    }
}
