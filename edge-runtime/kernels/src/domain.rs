//! What a step computes in, and elements of every type on their way in and out.

use ballast_plan::DType;

use crate::half::{from_bf16, from_f16, to_bf16, to_f16};

/// Elements of a strip: small enough for near caches, long enough that choosing what to do with it costs nothing.
pub const STRIP: usize = 128;

/// A domain of numbers.
pub trait Domain: Copy + PartialOrd + 'static {
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// Not above any number.
    const LOWEST: Self;
    /// Not below any number.
    const HIGHEST: Self;

    /// `n` elements of any type, `stride` apart, from element `first` on.
    ///
    /// # Safety
    /// They exist, aligned; `to` has room.
    unsafe fn load(dtype: DType, base: *const u8, first: isize, stride: isize, n: usize, to: *mut Self);
    /// `n` numbers as elements of any type, `stride` apart, from element `first` on.
    ///
    /// # Safety
    /// As for [`Domain::load`].
    unsafe fn store(dtype: DType, from: *const Self, n: usize, base: *mut u8, first: isize, stride: isize);
    /// `a + b`; integers wrap.
    fn add(self, b: Self) -> Self;
    /// `a − b`
    fn sub(self, b: Self) -> Self;
    /// `a · b`
    fn mul(self, b: Self) -> Self;
    /// `a ÷ b`; integers: towards zero, 0 for `b` = 0
    fn div(self, b: Self) -> Self;
    /// `|a|`
    fn abs(self) -> Self;
    /// A count.
    fn count(n: usize) -> Self;
    /// Numbers of a type in their order: of U64 the upper half is below 0 here, and comes above the lower one by this. Its own
    /// inverse.
    #[inline(always)]
    fn lifted(self, _: DType) -> Self {
        self
    }

    /// The smaller; NaN if either is.
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        if self < b || !self.is_number() { self } else { b }
    }
    /// The larger; NaN if either is.
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        if self > b || !self.is_number() { self } else { b }
    }
    /// Not NaN.
    #[allow(clippy::eq_op, reason = "that is how NaN is found")]
    #[inline(always)]
    fn is_number(self) -> bool {
        self == self
    }
    /// 1 or 0.
    #[inline(always)]
    fn truth(yes: bool) -> Self {
        if yes { Self::ONE } else { Self::ZERO }
    }
}

macro_rules! moves {
    ($d:ty) => {
        unsafe fn load(dtype: DType, base: *const u8, first: isize, stride: isize, n: usize, to: *mut Self) {
            macro_rules! each {
                ($t:ty, $convert:expr) => {{
                    let mut from = base.cast::<$t>().offset(first);
                    for i in 0..n {
                        *to.add(i) = $convert(*from);
                        from = from.wrapping_offset(stride);
                    }
                }};
            }
            match dtype {
                DType::F32 => each!(f32, |v: f32| v as $d),
                DType::Bool => each!(u8, |v: u8| Self::truth(v != 0)),
                DType::U8 => each!(u8, |v: u8| v as $d),
                DType::I8 => each!(i8, |v: i8| v as $d),
                DType::U16 => each!(u16, |v: u16| v as $d),
                DType::I16 => each!(i16, |v: i16| v as $d),
                DType::I32 => each!(i32, |v: i32| v as $d),
                DType::U32 => each!(u32, |v: u32| v as $d),
                DType::I64 => each!(i64, |v: i64| v as $d),
                DType::U64 => each!(u64, |v: u64| v as $d),
                DType::F64 => each!(f64, |v: f64| v as $d),
                DType::F16 => each!(u16, |v: u16| from_f16(v) as $d),
                DType::BF16 => each!(u16, |v: u16| from_bf16(v) as $d),
            }
        }

        unsafe fn store(dtype: DType, from: *const Self, n: usize, base: *mut u8, first: isize, stride: isize) {
            macro_rules! each {
                ($t:ty, $convert:expr) => {{
                    let mut to = base.cast::<$t>().offset(first);
                    for i in 0..n {
                        *to = $convert(*from.add(i));
                        to = to.wrapping_offset(stride);
                    }
                }};
            }
            match dtype {
                DType::F32 => each!(f32, |v: $d| v as f32),
                DType::Bool => each!(u8, |v: $d| u8::from(v != Self::ZERO)),
                DType::U8 => each!(u8, |v: $d| v as u8),
                DType::I8 => each!(i8, |v: $d| v as i8),
                DType::U16 => each!(u16, |v: $d| v as u16),
                DType::I16 => each!(i16, |v: $d| v as i16),
                DType::I32 => each!(i32, |v: $d| v as i32),
                DType::U32 => each!(u32, |v: $d| v as u32),
                DType::I64 => each!(i64, |v: $d| v as i64),
                DType::U64 => each!(u64, |v: $d| v as u64),
                DType::F64 => each!(f64, |v: $d| v as f64),
                DType::F16 => each!(u16, |v: $d| to_f16(v as f32)),
                DType::BF16 => each!(u16, |v: $d| to_bf16(v as f32)),
            }
        }
    };
}

macro_rules! float {
    ($d:ident) => {
        impl Domain for $d {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = $d::NEG_INFINITY;
            const HIGHEST: Self = $d::INFINITY;
            moves!($d);
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self + b
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self - b
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self * b
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                self / b
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $d::abs(self)
            }
            #[inline(always)]
            fn count(n: usize) -> Self {
                n as $d
            }
        }
    };
}

float!(f32);
float!(f64);

impl Domain for i64 {
    const ZERO: Self = 0;
    const ONE: Self = 1;
    const LOWEST: Self = Self::MIN;
    const HIGHEST: Self = Self::MAX;
    moves!(i64);
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.wrapping_add(b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.wrapping_sub(b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.wrapping_mul(b)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        if b == 0 { 0 } else { self.wrapping_div(b) }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.wrapping_abs()
    }
    #[inline(always)]
    fn count(n: usize) -> Self {
        n as Self
    }
    #[inline(always)]
    fn lifted(self, dtype: DType) -> Self {
        if dtype == DType::U64 { self ^ Self::MIN } else { self }
    }
}
