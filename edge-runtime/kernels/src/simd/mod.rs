//! What the kernels need of a vector unit.

use core::fmt::Debug;

#[cfg(not(target_arch = "wasm32"))]
mod scalar;
#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(target_arch = "wasm32"))]
pub use scalar::Scalar;
#[cfg(target_arch = "wasm32")]
pub use wasm::Wasm;
#[cfg(target_arch = "x86_64")]
pub use x86::Avx2;

/// A vector unit: f32 lanes and the few operations that the kernels are made of.
///
/// # Safety
/// Calling anything here needs a CPU that has the unit; pointers are good for [`Simd::LANES`] floats, any alignment.
pub trait Simd: Copy + Debug + 'static {
    /// Floats of one vector: 4 or 8. Divides [`PANEL_COLS`](ballast_plan::step::PANEL_COLS).
    const LANES: usize;
    /// Lanes.
    type F: Copy;
    /// As many 32-bit integers, or twice as many of 16 bits.
    type I: Copy;

    /// Unaligned load.
    unsafe fn load(p: *const f32) -> Self::F;
    /// Unaligned store.
    unsafe fn store(p: *mut f32, v: Self::F);
    /// One value in every lane.
    unsafe fn splat(v: f32) -> Self::F;
    /// Four floats at `p`, each in every lane of its vector: one step of a P4 panel.
    unsafe fn broadcast4(p: *const f32) -> [Self::F; 4];
    /// `a + b`
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a ÷ b`
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once or twice
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `a` where either is NaN. One instruction.
    unsafe fn min_bound(a: Self::F, bound: Self::F) -> Self::F;
    /// The larger; `a` where either is NaN. One instruction.
    unsafe fn max_bound(a: Self::F, bound: Self::F) -> Self::F;
    /// √
    unsafe fn sqrt(a: Self::F) -> Self::F;
    /// Towards −∞.
    unsafe fn floor(a: Self::F) -> Self::F;
    /// Towards +∞.
    unsafe fn ceil(a: Self::F) -> Self::F;
    /// To the nearest, halves to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// Towards zero.
    unsafe fn trunc(a: Self::F) -> Self::F;
    /// All bits where `a == b`.
    unsafe fn equal(a: Self::F, b: Self::F) -> Self::F;
    /// All bits where `a < b`.
    unsafe fn less(a: Self::F, b: Self::F) -> Self::F;
    /// All bits where `a ≤ b`.
    unsafe fn less_equal(a: Self::F, b: Self::F) -> Self::F;
    /// Bit by bit.
    unsafe fn and(a: Self::F, b: Self::F) -> Self::F;
    /// Bit by bit.
    unsafe fn or(a: Self::F, b: Self::F) -> Self::F;
    /// Bits of `b` that are not in `a`.
    unsafe fn and_not(a: Self::F, b: Self::F) -> Self::F;
    /// 2 to a whole number from −126 to 127.
    unsafe fn pow2(n: Self::F) -> Self::F;
    /// A positive normal number as mantissa in [1, 2) and exponent.
    unsafe fn split(a: Self::F) -> (Self::F, Self::F);

    /// Unaligned load of 32-bit integers, or of pairs of 16-bit ones.
    unsafe fn load_i(p: *const i32) -> Self::I;
    /// Unaligned store.
    unsafe fn store_i(p: *mut i32, v: Self::I);
    /// One value in every lane.
    unsafe fn splat_i(v: i32) -> Self::I;
    /// Signed bytes, two for each lane, as 16-bit integers.
    unsafe fn load_wide(p: *const i8) -> Self::I;
    /// Four pairs of 16-bit integers at `p`, each in every lane of its vector: one step of a panel of P4 pairs.
    unsafe fn pairs4(p: *const i16) -> [Self::I; 4];
    /// As [`Simd::pairs4`], of signed bytes.
    unsafe fn pairs4_wide(p: *const i8) -> [Self::I; 4];
    /// `c + a₀ · b₀ + a₁ · b₁` over the pairs of 16-bit integers; wraps.
    unsafe fn dot_add(a: Self::I, b: Self::I, c: Self::I) -> Self::I;
    /// `a + b`, wraps.
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// `a − b` of 16-bit integers.
    unsafe fn sub_16(a: Self::I, b: Self::I) -> Self::I;
    /// Sixteen bytes at `a` and at `b`, exclusive or `flip`, as pairs of 16-bit integers without sign; of the vectors as many count
    /// as sixteen lanes are.
    unsafe fn interleave(a: *const u8, b: *const u8, flip: u8) -> [Self::I; 4];
    /// The nearest floats.
    unsafe fn to_float(v: Self::I) -> Self::F;
    /// Of whole numbers.
    unsafe fn to_int(v: Self::F) -> Self::I;
    /// Sixteen lanes that fit bytes, as bytes.
    unsafe fn store_bytes(p: *mut u8, v: [Self::I; 4], signed: bool);

    /// `mask ? a : b`
    #[inline(always)]
    unsafe fn select(mask: Self::F, a: Self::F, b: Self::F) -> Self::F {
        Self::or(Self::and(mask, a), Self::and_not(mask, b))
    }
    /// `|a|`
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        Self::and_not(Self::splat(-0.0), a)
    }
    /// `−a`
    #[inline(always)]
    unsafe fn neg(a: Self::F) -> Self::F {
        Self::sub(Self::splat(-0.0), a)
    }
    /// The smaller; NaN where either is.
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        Self::select(Self::equal(b, b), Self::min_bound(a, b), b)
    }
    /// The larger; NaN where either is.
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        Self::select(Self::equal(b, b), Self::max_bound(a, b), b)
    }
    /// The first `n` lanes from `p`, zeros behind.
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> Self::F {
        let mut lanes = [0f32; 16];
        core::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
        Self::load(lanes.as_ptr())
    }
    /// The first `n` lanes to `p`.
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: Self::F, n: usize) {
        let mut lanes = [0f32; 16];
        Self::store(lanes.as_mut_ptr(), v);
        core::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
    }
    /// Sum of all lanes.
    #[inline(always)]
    unsafe fn fold(v: Self::F, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0f32; 16];
        Self::store(lanes.as_mut_ptr(), v);
        let mut total = lanes[0];
        for &lane in &lanes[1..Self::LANES] {
            total = f(total, lane);
        }
        total
    }
}

/// Which vector unit natively built kernels use. The guest has one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Plain code, for CPUs without a unit known here and to test against.
    Scalar,
    /// 256 bits and fused multiply-add. Only to be named where [`Level::best`] gives it.
    Avx2,
}

impl Level {
    /// The best one of this CPU.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            return Self::Avx2;
        }
        Self::Scalar
    }
}

/// A function over the vector unit of a [`Level`]: `kernel! { pub fn name(args) = generic_function }`.
macro_rules! kernel {
    ($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $generic:ident) => {
        $(#[$meta])*
        pub unsafe fn $name(level: $crate::simd::Level, $($arg: $type),*) {
            #[cfg(target_arch = "wasm32")]
            {
                let _ = level;
                $generic::<$crate::simd::Wasm>($($arg),*)
            }
            #[cfg(not(target_arch = "wasm32"))]
            {
                #[cfg(target_arch = "x86_64")]
                if level == $crate::simd::Level::Avx2 {
                    #[target_feature(enable = "avx2,fma")]
                    unsafe fn with_avx2($($arg: $type),*) {
                        $generic::<$crate::simd::Avx2>($($arg),*)
                    }
                    return with_avx2($($arg),*);
                }
                let _ = level;
                $generic::<$crate::simd::Scalar>($($arg),*)
            }
        }
    };
}
pub(crate) use kernel;
