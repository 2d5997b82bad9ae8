//! AVX2 with fused multiply-add.

use core::arch::x86_64::*;

use super::Simd;

/// 256 bits.
#[derive(Debug, Clone, Copy)]
pub struct Avx2;

impl Simd for Avx2 {
    const LANES: usize = 8;
    type F = __m256;
    type I = __m256i;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        _mm256_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        _mm256_storeu_ps(p, v)
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> __m256 {
        _mm256_set1_ps(v)
    }
    #[inline(always)]
    unsafe fn broadcast4(p: *const f32) -> [__m256; 4] {
        [_mm256_set1_ps(*p), _mm256_set1_ps(*p.add(1)), _mm256_set1_ps(*p.add(2)), _mm256_set1_ps(*p.add(3))]
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        _mm256_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        _mm256_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    /// `minps` gives its second operand where either is NaN.
    #[inline(always)]
    unsafe fn min_bound(a: __m256, bound: __m256) -> __m256 {
        _mm256_min_ps(bound, a)
    }
    #[inline(always)]
    unsafe fn max_bound(a: __m256, bound: __m256) -> __m256 {
        _mm256_max_ps(bound, a)
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m256) -> __m256 {
        _mm256_sqrt_ps(a)
    }
    #[inline(always)]
    unsafe fn floor(a: __m256) -> __m256 {
        _mm256_floor_ps(a)
    }
    #[inline(always)]
    unsafe fn ceil(a: __m256) -> __m256 {
        _mm256_ceil_ps(a)
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn trunc(a: __m256) -> __m256 {
        _mm256_round_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn equal(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn less(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn less_equal(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_LE_OQ>(a, b)
    }
    #[inline(always)]
    unsafe fn and(a: __m256, b: __m256) -> __m256 {
        _mm256_and_ps(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: __m256, b: __m256) -> __m256 {
        _mm256_or_ps(a, b)
    }
    #[inline(always)]
    unsafe fn and_not(a: __m256, b: __m256) -> __m256 {
        _mm256_andnot_ps(a, b)
    }
    #[inline(always)]
    unsafe fn pow2(n: __m256) -> __m256 {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
    #[inline(always)]
    unsafe fn split(a: __m256) -> (__m256, __m256) {
        let bits = _mm256_castps_si256(a);
        let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
        let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
        let mantissa = _mm256_or_si256(fraction, _mm256_set1_epi32(0x3f80_0000));
        (_mm256_castsi256_ps(mantissa), _mm256_cvtepi32_ps(exponent))
    }

    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> __m256i {
        _mm256_loadu_si256(p.cast())
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, v: __m256i) {
        _mm256_storeu_si256(p.cast(), v)
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> __m256i {
        _mm256_set1_epi32(v)
    }
    #[inline(always)]
    unsafe fn load_wide(p: *const i8) -> __m256i {
        _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast()))
    }
    #[inline(always)]
    unsafe fn pairs4(p: *const i16) -> [__m256i; 4] {
        let p = p.cast::<i32>();
        core::array::from_fn(|i| _mm256_set1_epi32(p.add(i).read_unaligned()))
    }
    #[inline(always)]
    unsafe fn pairs4_wide(p: *const i8) -> [__m256i; 4] {
        let v = _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(_mm_loadl_epi64(p.cast())));
        [
            _mm256_shuffle_epi32::<0x00>(v),
            _mm256_shuffle_epi32::<0x55>(v),
            _mm256_shuffle_epi32::<0xaa>(v),
            _mm256_shuffle_epi32::<0xff>(v),
        ]
    }
    #[inline(always)]
    unsafe fn dot_add(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_add_epi32(c, _mm256_madd_epi16(a, b))
    }
    #[inline(always)]
    unsafe fn add_i(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(a, b)
    }
    #[inline(always)]
    unsafe fn sub_16(a: __m256i, b: __m256i) -> __m256i {
        _mm256_sub_epi16(a, b)
    }
    #[inline(always)]
    unsafe fn interleave(a: *const u8, b: *const u8, flip: u8) -> [__m256i; 4] {
        let flip = _mm_set1_epi8(flip.cast_signed());
        let [a, b] = [a, b].map(|p| _mm_xor_si128(_mm_loadu_si128(p.cast()), flip));
        let low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
        let high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
        [low, high, high, high]
    }
    #[inline(always)]
    unsafe fn to_float(v: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(v)
    }
    #[inline(always)]
    unsafe fn to_int(v: __m256) -> __m256i {
        _mm256_cvtps_epi32(v)
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, v: [__m256i; 4], signed: bool) {
        // Packing works within halves; the permutation puts them in order again.
        let words = _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_packs_epi32(v[0], v[1]));
        let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        let bytes = if signed { _mm_packs_epi16(low, high) } else { _mm_packus_epi16(low, high) };
        _mm_storeu_si128(p.cast(), bytes)
    }
}
