//! Element by element.

use crate::ir::{BinaryOp, DType, Data, Tensor, UnaryOp};

use super::moves::broadcast_offsets;
use super::wrap;

pub(super) fn unary(op: UnaryOp, x: &Tensor) -> Data {
    match &x.data {
        Data::F32(v) if op == UnaryOp::IsNan => Data::Int(v.iter().map(|x| i64::from(x.is_nan())).collect()),
        Data::F32(v) => Data::F32(v.iter().map(|x| unary_float(op, *x)).collect()),
        Data::Int(v) => Data::Int(v.iter().map(|e| wrap(x.dtype, unary_int(op, *e))).collect()),
    }
}

fn unary_float(op: UnaryOp, x: f32) -> f32 {
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
        UnaryOp::Exp => libm::expf(x),
        UnaryOp::Log => libm::logf(x),
        UnaryOp::Sin => libm::sinf(x),
        UnaryOp::Cos => libm::cosf(x),
        UnaryOp::Tan => libm::tanf(x),
        UnaryOp::Asin => libm::asinf(x),
        UnaryOp::Acos => libm::acosf(x),
        UnaryOp::Atan => libm::atanf(x),
        UnaryOp::Sinh => libm::sinhf(x),
        UnaryOp::Cosh => libm::coshf(x),
        UnaryOp::Tanh => libm::tanhf(x),
        UnaryOp::Asinh => libm::asinhf(x),
        UnaryOp::Acosh => libm::acoshf(x),
        UnaryOp::Atanh => libm::atanhf(x),
        UnaryOp::Erf => libm::erff(x),
        UnaryOp::Sigmoid => 1.0 / (1.0 + libm::expf(-x)),
        UnaryOp::Not | UnaryOp::IsNan => unreachable!("the shape rule refuses it for floats"),
    }
}

fn unary_int(op: UnaryOp, x: i64) -> i64 {
    match op {
        UnaryOp::Neg => x.wrapping_neg(),
        UnaryOp::Abs => x.wrapping_abs(),
        UnaryOp::Sign => x.signum(),
        UnaryOp::Not => i64::from(x == 0),
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
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => {
            let pairs = ia.zip(ib).map(|(i, j)| (x[i], y[j]));
            match op {
                BinaryOp::Equal => Data::Int(pairs.map(|(a, b)| i64::from(a == b)).collect()),
                BinaryOp::Less => Data::Int(pairs.map(|(a, b)| i64::from(a < b)).collect()),
                BinaryOp::LessOrEqual => Data::Int(pairs.map(|(a, b)| i64::from(a <= b)).collect()),
                _ => Data::F32(pairs.map(|(a, b)| binary_float(op, a, b)).collect()),
            }
        }
        (Data::Int(x), Data::Int(y)) => {
            let compares = matches!(op, BinaryOp::Equal | BinaryOp::Less | BinaryOp::LessOrEqual);
            let dtype = if compares { DType::Bool } else { a.dtype };
            Data::Int(ia.zip(ib).map(|(i, j)| wrap(dtype, binary_int(op, x[i], y[j]))).collect())
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

fn binary_float(op: BinaryOp, a: f32, b: f32) -> f32 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Pow => libm::powf(a, b),
        BinaryOp::Min => min(a, b),
        BinaryOp::Max => max(a, b),
        BinaryOp::Rem => libm::fmodf(a, b),
        BinaryOp::Mod
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Equal
        | BinaryOp::Less
        | BinaryOp::LessOrEqual => unreachable!("the shape rule refuses it, or it is a comparison"),
    }
}

fn binary_int(op: BinaryOp, a: i64, b: i64) -> i64 {
    match op {
        BinaryOp::Add => a.wrapping_add(b),
        BinaryOp::Sub => a.wrapping_sub(b),
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::Div => a.checked_div(b).unwrap_or(if b == 0 { 0 } else { i64::MIN }),
        BinaryOp::Pow => match u32::try_from(b) {
            Ok(b) => a.wrapping_pow(b),
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
        BinaryOp::Equal => i64::from(a == b),
        BinaryOp::Less => i64::from(a < b),
        BinaryOp::LessOrEqual => i64::from(a <= b),
    }
}

pub(super) fn select(condition: &Tensor, a: &Tensor, b: &Tensor, shape: &[usize]) -> Data {
    let yes = broadcast_offsets(&condition.shape, shape).map(|i| condition.ints()[i] != 0);
    let (ia, ib) = (broadcast_offsets(&a.shape, shape), broadcast_offsets(&b.shape, shape));
    let places = yes.zip(ia.zip(ib));
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => Data::F32(places.map(|(yes, (i, j))| if yes { x[i] } else { y[j] }).collect()),
        (Data::Int(x), Data::Int(y)) => Data::Int(places.map(|(yes, (i, j))| if yes { x[i] } else { y[j] }).collect()),
        _ => unreachable!("the shape rule wants equal types"),
    }
}

pub(super) fn cast(x: &Tensor, to: DType) -> Data {
    match &x.data {
        Data::F32(v) => match to {
            DType::F32 => Data::F32(v.clone()),
            _ => Data::Int(v.iter().map(|x| saturate(to, *x)).collect()),
        },
        Data::Int(v) => match to {
            DType::F32 => Data::F32(v.iter().map(|x| *x as f32).collect()),
            _ => Data::Int(v.iter().map(|x| wrap(to, *x)).collect()),
        },
    }
}

/// Cut towards zero and held at the type's ends; NaN gives 0.
pub(crate) fn saturate(to: DType, x: f32) -> i64 {
    match to {
        DType::F32 | DType::I64 => x as i64,
        DType::Bool => i64::from(x != 0.0),
        DType::U8 => i64::from(x as u8),
        DType::I8 => i64::from(x as i8),
        DType::U16 => i64::from(x as u16),
        DType::I16 => i64::from(x as i16),
        DType::U32 => i64::from(x as u32),
        DType::I32 => i64::from(x as i32),
    }
}
