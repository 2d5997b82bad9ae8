//! WebAssembly's 128 bits. With relaxed SIMD a multiply-add is one instruction; without it (the flavour for Pulley) two.

use core::arch::wasm32::*;

use super::Simd;

/// simd128.
#[derive(Debug, Clone, Copy)]
pub struct Wasm;

impl Simd for Wasm {
    const LANES: usize = 4;
    type F = v128;
    type I = v128;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> v128 {
        v128_load(p.cast())
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: v128) {
        v128_store(p.cast(), v)
    }
    /// By lanes: a copy of a few bytes would become a call out of the guest.
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> v128 {
        match n {
            0 => f32x4_splat(0.0),
            1 => v128_load32_zero(p.cast()),
            2 => v128_load64_zero(p.cast()),
            3 => v128_load32_lane::<2>(v128_load64_zero(p.cast()), p.add(2).cast()),
            _ => v128_load(p.cast()),
        }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: v128, n: usize) {
        match n {
            0 => {}
            1 => v128_store32_lane::<0>(v, p.cast()),
            2 => v128_store64_lane::<0>(v, p.cast()),
            3 => {
                v128_store64_lane::<0>(v, p.cast());
                v128_store32_lane::<2>(v, p.add(2).cast());
            }
            _ => v128_store(p.cast(), v),
        }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> v128 {
        f32x4_splat(v)
    }
    /// One load and four shuffles: Cranelift turns a `load32_splat` into three instructions, two of them on one port. But
    /// the flavour for engines without relaxed SIMD also runs where a shuffle is a call (x86-64 without SSSE3).
    #[inline(always)]
    unsafe fn broadcast4(p: *const f32) -> [v128; 4] {
        #[cfg(not(target_feature = "relaxed-simd"))]
        return [
            v128_load32_splat(p.cast()),
            v128_load32_splat(p.add(1).cast()),
            v128_load32_splat(p.add(2).cast()),
            v128_load32_splat(p.add(3).cast()),
        ];
        #[cfg(target_feature = "relaxed-simd")]
        broadcast_lanes(p)
    }
    #[inline(always)]
    unsafe fn add(a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: v128, b: v128) -> v128 {
        f32x4_div(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: v128, b: v128, c: v128) -> v128 {
        #[cfg(target_feature = "relaxed-simd")]
        {
            f32x4_relaxed_madd(a, b, c)
        }
        #[cfg(not(target_feature = "relaxed-simd"))]
        {
            f32x4_add(f32x4_mul(a, b), c)
        }
    }
    /// `bound < a ? bound : a`, which is what `pmin` says. But with relaxed SIMD LLVM takes `f32x4.relaxed_min` for a `pmin`, and
    /// that one may give either operand where one is NaN; a comparison and a choice by bits stay what they are.
    #[inline(always)]
    unsafe fn min_bound(a: v128, bound: v128) -> v128 {
        if cfg!(target_feature = "relaxed-simd") {
            v128_bitselect(bound, a, f32x4_lt(bound, a))
        } else {
            f32x4_pmin(a, bound)
        }
    }
    /// As [`Simd::min_bound`].
    #[inline(always)]
    unsafe fn max_bound(a: v128, bound: v128) -> v128 {
        if cfg!(target_feature = "relaxed-simd") {
            v128_bitselect(bound, a, f32x4_lt(a, bound))
        } else {
            f32x4_pmax(a, bound)
        }
    }
    #[inline(always)]
    unsafe fn sqrt(a: v128) -> v128 {
        f32x4_sqrt(a)
    }
    #[inline(always)]
    unsafe fn floor(a: v128) -> v128 {
        f32x4_floor(a)
    }
    #[inline(always)]
    unsafe fn ceil(a: v128) -> v128 {
        f32x4_ceil(a)
    }
    #[inline(always)]
    unsafe fn round(a: v128) -> v128 {
        f32x4_nearest(a)
    }
    #[inline(always)]
    unsafe fn trunc(a: v128) -> v128 {
        f32x4_trunc(a)
    }
    #[inline(always)]
    unsafe fn equal(a: v128, b: v128) -> v128 {
        f32x4_eq(a, b)
    }
    #[inline(always)]
    unsafe fn less(a: v128, b: v128) -> v128 {
        f32x4_lt(a, b)
    }
    #[inline(always)]
    unsafe fn less_equal(a: v128, b: v128) -> v128 {
        f32x4_le(a, b)
    }
    #[inline(always)]
    unsafe fn and(a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }
    #[inline(always)]
    unsafe fn and_not(a: v128, b: v128) -> v128 {
        v128_andnot(b, a)
    }
    #[inline(always)]
    unsafe fn select(mask: v128, a: v128, b: v128) -> v128 {
        v128_bitselect(a, b, mask)
    }
    #[inline(always)]
    unsafe fn pow2(n: v128) -> v128 {
        i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(n), i32x4_splat(127)), 23)
    }
    #[inline(always)]
    unsafe fn split(a: v128) -> (v128, v128) {
        let exponent = i32x4_sub(u32x4_shr(a, 23), i32x4_splat(127));
        let mantissa = v128_or(v128_and(a, i32x4_splat(0x007f_ffff)), i32x4_splat(0x3f80_0000));
        (mantissa, f32x4_convert_i32x4(exponent))
    }

    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> v128 {
        v128_load(p.cast())
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, v: v128) {
        v128_store(p.cast(), v)
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> v128 {
        i32x4_splat(v)
    }
    #[inline(always)]
    unsafe fn load_wide(p: *const i8) -> v128 {
        i16x8_load_extend_i8x8(p)
    }
    #[inline(always)]
    unsafe fn pairs4(p: *const i16) -> [v128; 4] {
        lanes(v128_load(p.cast()))
    }
    #[inline(always)]
    unsafe fn pairs4_wide(p: *const i8) -> [v128; 4] {
        lanes(i16x8_load_extend_i8x8(p))
    }
    #[inline(always)]
    unsafe fn dot_add(a: v128, b: v128, c: v128) -> v128 {
        i32x4_add(c, i32x4_dot_i16x8(a, b))
    }
    #[inline(always)]
    unsafe fn add_i(a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn sub_16(a: v128, b: v128) -> v128 {
        i16x8_sub(a, b)
    }
    #[inline(always)]
    unsafe fn interleave(a: *const u8, b: *const u8, flip: u8) -> [v128; 4] {
        let flip = u8x16_splat(flip);
        let (a, b) = (v128_xor(v128_load(a.cast()), flip), v128_xor(v128_load(b.cast()), flip));
        let low = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
        let high = i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b);
        [
            u16x8_extend_low_u8x16(low),
            u16x8_extend_high_u8x16(low),
            u16x8_extend_low_u8x16(high),
            u16x8_extend_high_u8x16(high),
        ]
    }
    #[inline(always)]
    unsafe fn to_float(v: v128) -> v128 {
        f32x4_convert_i32x4(v)
    }
    #[inline(always)]
    unsafe fn to_int(v: v128) -> v128 {
        i32x4_trunc_sat_f32x4(v)
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, [a, b, c, d]: [v128; 4], signed: bool) {
        let (low, high) = (i16x8_narrow_i32x4(a, b), i16x8_narrow_i32x4(c, d));
        let bytes = if signed { i8x16_narrow_i16x8(low, high) } else { u8x16_narrow_i16x8(low, high) };
        v128_store(p.cast(), bytes)
    }
}

/// Each lane of 32 bits in every lane of its vector. In integers, so that an engine need not guess what the shuffle is of.
#[inline(always)]
fn lanes(v: v128) -> [v128; 4] {
    [
        i32x4_shuffle::<0, 0, 0, 0>(v, v),
        i32x4_shuffle::<1, 1, 1, 1>(v, v),
        i32x4_shuffle::<2, 2, 2, 2>(v, v),
        i32x4_shuffle::<3, 3, 3, 3>(v, v),
    ]
}

#[cfg(target_feature = "relaxed-simd")]
#[inline(always)]
unsafe fn broadcast_lanes(p: *const f32) -> [v128; 4] {
    let v = v128_load(p.cast());
    [
        i32x4_shuffle::<0, 0, 0, 0>(v, v),
        i32x4_shuffle::<1, 1, 1, 1>(v, v),
        i32x4_shuffle::<2, 2, 2, 2>(v, v),
        i32x4_shuffle::<3, 3, 3, 3>(v, v),
    ]
}
