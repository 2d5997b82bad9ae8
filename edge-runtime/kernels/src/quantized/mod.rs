//! Steps over bytes: exact integer products and what makes bytes of them again.
//!
//! Bytes are widened to 16 bits with their zero point taken off while they are packed, so that every sum of two products is exact in 32
//! bits whatever the types are, `−255 · −255` included; one instruction multiplies and adds pairs on every unit (`pmaddwd`, and
//! what `i32x4.dot_i16x8_s` becomes). Answers are the same bits everywhere.

mod depthwise;
mod lookup;
mod planes;
mod product;

pub use depthwise::int_depthwise;
pub use lookup::lookup;
pub use product::{int_conv, int_gemm, pack_pairs};

use ballast_plan::DType;
use ballast_plan::quantized::Requantize;
use ballast_plan::step::At;

use crate::Memory;
use crate::simd::Simd;

/// Lanes of a row of a tile.
const COLS: usize = ballast_plan::step::PANEL_COLS;

/// Bytes without sign and what is taken off them: a signed byte is one without sign, 128 higher, once its first bit is flipped.
#[derive(Clone, Copy)]
struct Unsigned {
    flip: u8,
    /// 0 to 255.
    zero: i16,
    /// The byte that counts as 0, as it lies in memory.
    raw: u8,
}

impl Unsigned {
    unsafe fn new(dtype: DType, zero: At, memory: &Memory) -> Self {
        let flip = if dtype == DType::I8 { 0x80 } else { 0 };
        let raw = *memory.read(zero);
        Self { flip, zero: i16::from(raw ^ flip), raw }
    }

    /// The zero point in both halves of every lane.
    #[inline(always)]
    unsafe fn pair<S: Simd>(self) -> S::I {
        S::splat_i(i32::from(self.zero) | i32::from(self.zero) << 16)
    }

    /// A byte with its zero point taken off.
    #[inline(always)]
    fn centred(self, byte: u8) -> i16 {
        i16::from(byte ^ self.flip) - self.zero
    }
}

/// What follows exact sums, with its addresses.
#[derive(Clone, Copy)]
struct After {
    dtype: DType,
    biased: bool,
    bias: *const i32,
    factors: *const f32,
    zero: f32,
    low: f32,
    high: f32,
}

impl After {
    unsafe fn new(s: &Requantize, memory: &Memory) -> Self {
        Self {
            dtype: s.dtype,
            biased: s.biased == 1,
            bias: memory.read(s.bias).cast(),
            factors: memory.read(s.factors).cast(),
            zero: s.zero as f32,
            // Bounds of what the zero point is added to; differences of bytes are exact.
            low: s.low.wrapping_sub(s.zero) as f32,
            high: s.high.wrapping_sub(s.zero) as f32,
        }
    }

    fn size(&self) -> usize {
        self.dtype.size()
    }

    /// Sixteen sums of `row`, of which `width` count, to `out`, elements `step` apart.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, row: usize, sums: [S::I; 4], width: usize, out: *mut u8, step: usize) {
        let vectors = COLS / S::LANES;
        let bias = S::splat_i(if self.biased { *self.bias.add(row) } else { 0 });
        let sums = sums.map(|v| S::add_i(v, bias));
        let direct = width == COLS && step == 1;
        if self.size() == 1 {
            let factor = S::splat(*self.factors.add(row));
            let [low, high, zero] = [self.low, self.high, self.zero].map(|v| S::splat(v));
            let bytes = sums.map(|v| {
                let x = S::round(S::mul(S::to_float(v), factor));
                S::to_int(S::add(S::min_bound(S::max_bound(x, low), high), zero))
            });
            if direct {
                return S::store_bytes(out, bytes, self.dtype == DType::I8);
            }
            let mut line = [0u8; COLS];
            S::store_bytes(line.as_mut_ptr(), bytes, self.dtype == DType::I8);
            for (i, &byte) in line.iter().enumerate().take(width) {
                *out.add(i * step) = byte;
            }
            return;
        }
        let mut line = [0i32; COLS];
        let to = if direct { out.cast() } else { line.as_mut_ptr() };
        for (v, &sums) in sums.iter().enumerate().take(vectors) {
            if self.dtype == DType::F32 {
                let x = S::mul(S::to_float(sums), S::splat(*self.factors.add(row)));
                S::store(to.add(v * S::LANES).cast(), x);
            } else {
                S::store_i(to.add(v * S::LANES), sums);
            }
        }
        if !direct {
            let out = out.cast::<i32>();
            for (i, &word) in line.iter().enumerate().take(width) {
                *out.add(i * step) = word;
            }
        }
    }
}
