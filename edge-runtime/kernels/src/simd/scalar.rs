//! Four floats without a vector unit.

use super::Simd;

/// Plain code.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

type F = [f32; 4];

#[inline(always)]
fn map(a: F, f: impl Fn(f32) -> f32) -> F {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

#[inline(always)]
fn mask(on: bool) -> f32 {
    f32::from_bits(if on { u32::MAX } else { 0 })
}

#[inline(always)]
fn bits(a: F, b: F, f: impl Fn(u32, u32) -> u32) -> F {
    zip(a, b, |a, b| f32::from_bits(f(a.to_bits(), b.to_bits())))
}

impl Simd for Scalar {
    const LANES: usize = 4;
    type F = F;
    type I = [i32; 4];

    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        p.cast::<F>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F) {
        p.cast::<F>().write_unaligned(v)
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> F {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn broadcast4(p: *const f32) -> [F; 4] {
        [[*p; 4], [*p.add(1); 4], [*p.add(2); 4], [*p.add(3); 4]]
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        Self::add(Self::mul(a, b), c)
    }
    #[inline(always)]
    unsafe fn min_bound(a: F, bound: F) -> F {
        zip(a, bound, |a, b| if b < a { b } else { a })
    }
    #[inline(always)]
    unsafe fn max_bound(a: F, bound: F) -> F {
        zip(a, bound, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    unsafe fn sqrt(a: F) -> F {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    unsafe fn floor(a: F) -> F {
        map(a, f32::floor)
    }
    #[inline(always)]
    unsafe fn ceil(a: F) -> F {
        map(a, f32::ceil)
    }
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        map(a, f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn trunc(a: F) -> F {
        map(a, f32::trunc)
    }
    #[inline(always)]
    unsafe fn equal(a: F, b: F) -> F {
        zip(a, b, |a, b| mask(a == b))
    }
    #[inline(always)]
    unsafe fn less(a: F, b: F) -> F {
        zip(a, b, |a, b| mask(a < b))
    }
    #[inline(always)]
    unsafe fn less_equal(a: F, b: F) -> F {
        zip(a, b, |a, b| mask(a <= b))
    }
    #[inline(always)]
    unsafe fn and(a: F, b: F) -> F {
        bits(a, b, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(a: F, b: F) -> F {
        bits(a, b, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn and_not(a: F, b: F) -> F {
        bits(a, b, |a, b| !a & b)
    }
    #[inline(always)]
    unsafe fn pow2(n: F) -> F {
        map(n, |n| f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn split(a: F) -> (F, F) {
        let mantissa = map(a, |a| f32::from_bits(a.to_bits() & 0x007f_ffff | 0x3f80_0000));
        let exponent = map(a, |a| ((a.to_bits() >> 23) as i32 - 127) as f32);
        (mantissa, exponent)
    }

    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> [i32; 4] {
        p.cast::<[i32; 4]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, v: [i32; 4]) {
        p.cast::<[i32; 4]>().write_unaligned(v)
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> [i32; 4] {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn load_wide(p: *const i8) -> [i32; 4] {
        core::array::from_fn(|i| pair(i16::from(*p.add(2 * i)), i16::from(*p.add(2 * i + 1))))
    }
    #[inline(always)]
    unsafe fn pairs4(p: *const i16) -> [[i32; 4]; 4] {
        Self::load_i(p.cast()).map(|lane| [lane; 4])
    }
    #[inline(always)]
    unsafe fn pairs4_wide(p: *const i8) -> [[i32; 4]; 4] {
        Self::load_wide(p).map(|lane| [lane; 4])
    }
    #[inline(always)]
    unsafe fn dot_add(a: [i32; 4], b: [i32; 4], c: [i32; 4]) -> [i32; 4] {
        core::array::from_fn(|i| {
            let ([a0, a1], [b0, b1]) = (halves(a[i]), halves(b[i]));
            c[i].wrapping_add(a0 * b0).wrapping_add(a1 * b1)
        })
    }
    #[inline(always)]
    unsafe fn add_i(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        core::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn sub_16(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        core::array::from_fn(|i| {
            let ([a0, a1], [b0, b1]) = (halves(a[i]), halves(b[i]));
            pair((a0 - b0) as i16, (a1 - b1) as i16)
        })
    }
    #[inline(always)]
    unsafe fn interleave(a: *const u8, b: *const u8, flip: u8) -> [[i32; 4]; 4] {
        let at = |p: *const u8, i: usize| i16::from(*p.add(i) ^ flip);
        core::array::from_fn(|v| core::array::from_fn(|i| pair(at(a, v * 4 + i), at(b, v * 4 + i))))
    }
    #[inline(always)]
    unsafe fn to_float(v: [i32; 4]) -> F {
        v.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn to_int(v: F) -> [i32; 4] {
        v.map(|x| x as i32)
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, v: [[i32; 4]; 4], _: bool) {
        for (i, x) in v.iter().flatten().enumerate() {
            *p.add(i) = *x as u8;
        }
    }
}

#[inline(always)]
fn pair(low: i16, high: i16) -> i32 {
    i32::from(low) & 0xffff | i32::from(high) << 16
}

#[inline(always)]
fn halves(x: i32) -> [i32; 2] {
    [i32::from(x as i16), x >> 16]
}
