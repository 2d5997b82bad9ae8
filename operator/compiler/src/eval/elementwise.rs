//! Element by element.

use ballast_bundle::half;

use crate::ir::{BinaryOp, DType, Data, Tensor, UnaryOp};

use super::moves::broadcast_offsets;
use super::wrap;

pub(super) fn unary(op: UnaryOp, x: &Tensor) -> Data {
    match &x.data {
        Data::F32(v) if op == UnaryOp::IsNan => Data::Int(v.iter().map(|x| i64::from(x.is_nan())).collect()),
        Data::F64(v) if op == UnaryOp::IsNan => Data::Int(v.iter().map(|x| i64::from(x.is_nan())).collect()),
        Data::F32(v) => Data::F32(v.iter().map(|x| unary_float(op, *x)).collect()),
        Data::F64(v) => Data::F64(v.iter().map(|x| unary_double(op, *x)).collect()),
        Data::Int(v) => Data::Int(v.iter().map(|e| wrap(x.dtype, unary_int(x.dtype, op, *e))).collect()),
    }
}

/// One function for each width; `libm` names its functions of f32 by an `f` behind.
macro_rules! unary_of {
    ($name:ident, $t:ty, $exp:ident, $log:ident, $sin:ident, $cos:ident, $tan:ident, $asin:ident, $acos:ident, $atan:ident,
     $sinh:ident, $cosh:ident, $tanh:ident, $asinh:ident, $acosh:ident, $atanh:ident, $erf:ident) => {
        fn $name(op: UnaryOp, x: $t) -> $t {
            match op {
                UnaryOp::Neg => -x,
                UnaryOp::Abs => x.abs(),
                UnaryOp::Sign => {
                    if x > 0.0 {
                        1.0
                    } else if x < 0.0 {
                        -1.0
                    } else {
                        x
                    }
                }
                UnaryOp::Floor => x.floor(),
                UnaryOp::Ceil => x.ceil(),
                UnaryOp::Round => x.round_ties_even(),
                UnaryOp::Sqrt => x.sqrt(),
                UnaryOp::Reciprocal => 1.0 / x,
                UnaryOp::Exp => libm::$exp(x),
                UnaryOp::Log => libm::$log(x),
                UnaryOp::Sin => libm::$sin(x),
                UnaryOp::Cos => libm::$cos(x),
                UnaryOp::Tan => libm::$tan(x),
                UnaryOp::Asin => libm::$asin(x),
                UnaryOp::Acos => libm::$acos(x),
                UnaryOp::Atan => libm::$atan(x),
                UnaryOp::Sinh => libm::$sinh(x),
                UnaryOp::Cosh => libm::$cosh(x),
                UnaryOp::Tanh => libm::$tanh(x),
                UnaryOp::Asinh => libm::$asinh(x),
                UnaryOp::Acosh => libm::$acosh(x),
                UnaryOp::Atanh => libm::$atanh(x),
                UnaryOp::Erf => libm::$erf(x),
                UnaryOp::Sigmoid => 1.0 / (1.0 + libm::$exp(-x)),
                UnaryOp::Not | UnaryOp::IsNan => unreachable!("the shape rule refuses it for floats"),
            }
        }
    };
}

unary_of!(
    unary_float,
    f32,
    expf,
    logf,
    sinf,
    cosf,
    tanf,
    asinf,
    acosf,
    atanf,
    sinhf,
    coshf,
    tanhf,
    asinhf,
    acoshf,
    atanhf,
    erff
);
unary_of!(unary_double, f64, exp, log, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh, erf);

fn unary_int(dtype: DType, op: UnaryOp, x: i64) -> i64 {
    match op {
        UnaryOp::Neg => x.wrapping_neg(),
        // What has no sign is its own size.
        UnaryOp::Abs if dtype == DType::U64 => x,
        UnaryOp::Sign if dtype == DType::U64 => i64::from(x != 0),
        UnaryOp::Abs => x.wrapping_abs(),
        UnaryOp::Sign => x.signum(),
        UnaryOp::Not if dtype == DType::Bool => i64::from(x == 0),
        UnaryOp::Not => !x,
        UnaryOp::Floor
        | UnaryOp::Ceil
        | UnaryOp::Round
        | UnaryOp::Sqrt
        | UnaryOp::Reciprocal
        | UnaryOp::Exp
        | UnaryOp::Log
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Tan
        | UnaryOp::Asin
        | UnaryOp::Acos
        | UnaryOp::Atan
        | UnaryOp::Sinh
        | UnaryOp::Cosh
        | UnaryOp::Tanh
        | UnaryOp::Asinh
        | UnaryOp::Acosh
        | UnaryOp::Atanh
        | UnaryOp::Erf
        | UnaryOp::Sigmoid
        | UnaryOp::IsNan => unreachable!("the shape rule refuses it for integers"),
    }
}

pub(super) fn binary(op: BinaryOp, a: &Tensor, b: &Tensor, shape: &[usize]) -> Data {
    let (ia, ib) = (broadcast_offsets(&a.shape, shape), broadcast_offsets(&b.shape, shape));
    macro_rules! floats {
        ($x:expr, $y:expr, $kind:path, $each:ident) => {{
            let pairs = ia.zip(ib).map(|(i, j)| ($x[i], $y[j]));
            match op {
                BinaryOp::Equal => Data::Int(pairs.map(|(a, b)| i64::from(a == b)).collect()),
                BinaryOp::Less => Data::Int(pairs.map(|(a, b)| i64::from(a < b)).collect()),
                BinaryOp::LessOrEqual => Data::Int(pairs.map(|(a, b)| i64::from(a <= b)).collect()),
                _ => $kind(pairs.map(|(a, b)| $each(op, a, b)).collect()),
            }
        }};
    }
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => floats!(x, y, Data::F32, binary_float),
        (Data::F64(x), Data::F64(y)) => floats!(x, y, Data::F64, binary_double),
        (Data::Int(x), Data::Int(y)) => {
            let compares = matches!(op, BinaryOp::Equal | BinaryOp::Less | BinaryOp::LessOrEqual);
            let dtype = if compares { DType::Bool } else { a.dtype };
            let each: fn(BinaryOp, i64, i64) -> i64 = if a.dtype == DType::U64 { binary_unsigned } else { binary_int };
            Data::Int(ia.zip(ib).map(|(i, j)| wrap(dtype, each(op, x[i], y[j]))).collect())
        }
        _ => unreachable!("the shape rule wants equal types"),
    }
}

/// The smaller one; NaN if either is.
pub(super) const fn min(a: f32, b: f32) -> f32 {
    if a.is_nan() || a < b { a } else { b }
}

/// The larger one; NaN if either is.
pub(super) const fn max(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// As [`min`].
pub(super) const fn min_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// As [`max`].
pub(super) const fn max_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

macro_rules! binary_of {
    ($name:ident, $t:ty, $pow:ident, $fmod:ident, $min:ident, $max:ident) => {
        fn $name(op: BinaryOp, a: $t, b: $t) -> $t {
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div => a / b,
                BinaryOp::Pow => libm::$pow(a, b),
                BinaryOp::Min => $min(a, b),
                BinaryOp::Max => $max(a, b),
                BinaryOp::Rem => libm::$fmod(a, b),
                BinaryOp::Mod
                | BinaryOp::And
                | BinaryOp::Or
                | BinaryOp::Xor
                | BinaryOp::ShiftLeft
                | BinaryOp::ShiftRight
                | BinaryOp::Equal
                | BinaryOp::Less
                | BinaryOp::LessOrEqual => unreachable!("the shape rule refuses it, or it is a comparison"),
            }
        }
    };
}

binary_of!(binary_float, f32, powf, fmodf, min, max);
binary_of!(binary_double, f64, pow, fmod, min_f64, max_f64);

/// `a` to the power of `b`, by squares; wraps.
fn power(a: i64, mut b: u64) -> i64 {
    let (mut square, mut result) = (a, 1i64);
    while b > 0 {
        if b & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        b >>= 1;
    }
    result
}

fn binary_int(op: BinaryOp, a: i64, b: i64) -> i64 {
    match op {
        BinaryOp::Add => a.wrapping_add(b),
        BinaryOp::Sub => a.wrapping_sub(b),
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::Div => a.checked_div(b).unwrap_or(if b == 0 { 0 } else { i64::MIN }),
        BinaryOp::Pow => match u64::try_from(b) {
            Ok(b) => power(a, b),
            // Below zero the power is a fraction, cut to 0, unless the base is 1 or −1.
            Err(_) => match a {
                1 => 1,
                -1 => 1 - 2 * (b & 1),
                _ => 0,
            },
        },
        BinaryOp::Min => a.min(b),
        BinaryOp::Max => a.max(b),
        BinaryOp::Mod => {
            let rest = a.checked_rem(b).unwrap_or(0);
            if rest != 0 && (rest < 0) != (b < 0) { rest.wrapping_add(b) } else { rest }
        }
        BinaryOp::Rem => a.checked_rem(b).unwrap_or(0),
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        BinaryOp::ShiftLeft => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0),
        BinaryOp::ShiftRight => {
            u32::try_from(b).ok().and_then(|b| a.cast_unsigned().checked_shr(b)).unwrap_or(0).cast_signed()
        }
        BinaryOp::Equal => i64::from(a == b),
        BinaryOp::Less => i64::from(a < b),
        BinaryOp::LessOrEqual => i64::from(a <= b),
    }
}

/// u64: what two's complement does not do.
fn binary_unsigned(op: BinaryOp, a: i64, b: i64) -> i64 {
    let (x, y) = (a.cast_unsigned(), b.cast_unsigned());
    match op {
        BinaryOp::Div => x.checked_div(y).unwrap_or(0).cast_signed(),
        BinaryOp::Mod | BinaryOp::Rem => x.checked_rem(y).unwrap_or(0).cast_signed(),
        BinaryOp::Pow => power(a, y),
        BinaryOp::Min => x.min(y).cast_signed(),
        BinaryOp::Max => x.max(y).cast_signed(),
        BinaryOp::Less => i64::from(x < y),
        BinaryOp::LessOrEqual => i64::from(x <= y),
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight
        | BinaryOp::Equal => binary_int(op, a, b),
    }
}

pub(super) fn select(condition: &Tensor, a: &Tensor, b: &Tensor, shape: &[usize]) -> Data {
    let yes = broadcast_offsets(&condition.shape, shape).map(|i| condition.ints()[i] != 0);
    let (ia, ib) = (broadcast_offsets(&a.shape, shape), broadcast_offsets(&b.shape, shape));
    let places = yes.zip(ia.zip(ib));
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => Data::F32(places.map(|(yes, (i, j))| if yes { x[i] } else { y[j] }).collect()),
        (Data::F64(x), Data::F64(y)) => Data::F64(places.map(|(yes, (i, j))| if yes { x[i] } else { y[j] }).collect()),
        (Data::Int(x), Data::Int(y)) => Data::Int(places.map(|(yes, (i, j))| if yes { x[i] } else { y[j] }).collect()),
        _ => unreachable!("the shape rule wants equal types"),
    }
}

/// An f32 as the nearest number of this type of floats.
pub(crate) fn rounded(to: DType, x: f32) -> f32 {
    match to {
        DType::F16 => half::from_fp16(half::to_fp16(x)),
        DType::BF16 => half::from_bf16(half::to_bf16(x)),
        _ => x,
    }
}

pub(super) fn cast(x: &Tensor, to: DType) -> Data {
    macro_rules! float {
        ($v:expr, $to_f64:expr, $to_f32:expr) => {
            match to {
                DType::F64 => Data::F64($v.iter().map($to_f64).collect()),
                _ => Data::F32($v.iter().map(|x| rounded(to, $to_f32(x))).collect()),
            }
        };
    }
    match &x.data {
        Data::F32(v) if to.is_float() => float!(v, |x| f64::from(*x), |x: &f32| *x),
        Data::F64(v) if to.is_float() => float!(v, |x| *x, |x: &f64| *x as f32),
        Data::Int(v) if to.is_float() && x.dtype == DType::U64 => {
            float!(v, |x| x.cast_unsigned() as f64, |x: &i64| x.cast_unsigned() as f32)
        }
        Data::Int(v) if to.is_float() => float!(v, |x| *x as f64, |x: &i64| *x as f32),
        // Exact: what is cut and held of an f32 is that of its f64.
        Data::F32(v) => Data::Int(v.iter().map(|x| saturate(to, f64::from(*x))).collect()),
        Data::F64(v) => Data::Int(v.iter().map(|x| saturate(to, *x)).collect()),
        Data::Int(v) => Data::Int(v.iter().map(|x| wrap(to, *x)).collect()),
    }
}

/// Cut towards zero and held at the type's ends; NaN gives 0.
pub(crate) fn saturate(to: DType, x: f64) -> i64 {
    match to {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::I64 => x as i64,
        DType::U64 => (x as u64).cast_signed(),
        DType::Bool => i64::from(x != 0.0),
        DType::U8 => i64::from(x as u8),
        DType::I8 => i64::from(x as i8),
        DType::U16 => i64::from(x as u16),
        DType::I16 => i64::from(x as i16),
        DType::U32 => i64::from(x as u32),
        DType::I32 => i64::from(x as i32),
    }
}
