//! Element-wise programs over strips of 64-bit registers: exact integers, and f64.

use ballast_plan::elt::{MAX_CODE, MAX_INPUTS, MAX_REGISTERS};
use ballast_plan::step::{self, MAX_DIMS, Wide};
use ballast_plan::{EltInstr, EltOp, Plan};

use crate::Memory;
use crate::domain::{Domain, STRIP};
use crate::double;

/// Operations that a domain has beyond those of [`Domain`].
trait Registers: Domain {
    /// The constant of 64 bits.
    fn constant(bits: u64) -> Self;
    /// Whatever is not done strip by strip.
    fn other(op: EltOp, a: Self, b: Self) -> Self;
}

impl Registers for f64 {
    fn constant(bits: u64) -> Self {
        Self::from_bits(bits)
    }

    fn other(op: EltOp, a: Self, b: Self) -> Self {
        match op {
            EltOp::Rem => a % b,
            EltOp::Neg => -a,
            EltOp::Sign if a > 0.0 => 1.0,
            EltOp::Sign if a < 0.0 => -1.0,
            EltOp::Sign => a,
            EltOp::Sqrt => double::sqrt(a),
            EltOp::Floor => double::floor(a),
            EltOp::Ceil => -double::floor(-a),
            EltOp::Round => double::round(a),
            EltOp::Trunc => double::trunc(a),
            EltOp::Exp => double::exp(a),
            EltOp::Log => double::log(a),
            EltOp::Tanh => double::tanh(a),
            EltOp::Sigmoid => 1.0 / (1.0 + double::exp(-a)),
            EltOp::Erf => double::erf(a),
            EltOp::Sin => double::sin(a, 0.0),
            EltOp::Cos => double::sin(a, 1.0),
            EltOp::Atan => double::atan(a),
            EltOp::Pow => double::pow(a, b),
            // Of another domain: refused when the plan was read.
            _ => a,
        }
    }
}

/// `a` to the power of `b`, by squares.
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

impl Registers for i64 {
    fn constant(bits: u64) -> Self {
        bits as Self
    }

    fn other(op: EltOp, a: Self, b: Self) -> Self {
        let (high, low) = (a as u64, b as u64);
        match op {
            EltOp::Rem | EltOp::Mod => {
                let rest = if b == 0 { 0 } else { a.wrapping_rem(b) };
                if op == EltOp::Mod && rest != 0 && (rest < 0) != (b < 0) { rest.wrapping_add(b) } else { rest }
            }
            EltOp::Neg => a.wrapping_neg(),
            EltOp::Sign => a.signum(),
            EltOp::And => a & b,
            EltOp::Or => a | b,
            EltOp::Xor => a ^ b,
            EltOp::Shl if low < 64 => a << low,
            EltOp::Shr if low < 64 => (high >> low) as Self,
            EltOp::Shl | EltOp::Shr => 0,
            EltOp::Sar => a >> (low & 63),
            EltOp::DivUnsigned => high.checked_div(low).unwrap_or(0) as Self,
            EltOp::RemUnsigned => high.checked_rem(low).unwrap_or(0) as Self,
            EltOp::PowUnsigned => power(a, low),
            // A power below 0 is a fraction, cut to 0, unless the base is 1 or −1.
            EltOp::Pow if b < 0 => match a {
                1 => 1,
                -1 => 1 - 2 * (b & 1),
                _ => 0,
            },
            EltOp::Pow => power(a, low),
            _ => a,
        }
    }
}

/// Runs a program over whole tensors.
pub unsafe fn wide(plan: &Plan<'_>, s: &Wide, memory: &Memory) {
    match s.domain {
        step::Domain::I64 => run::<i64>(plan, s, memory),
        step::Domain::F64 | step::Domain::F32 => run::<f64>(plan, s, memory),
    }
}

#[inline(never)]
unsafe fn run<D: Registers>(plan: &Plan<'_>, s: &Wide, memory: &Memory) {
    const COL: usize = MAX_DIMS - 1;
    let e = &s.elt;
    let Some(program) = plan.program(e.program) else { return };
    let mut code = [EltInstr::default(); MAX_CODE];
    let mut len = 0;
    for (place, instr) in code.iter_mut().zip(program.code()) {
        *place = instr;
        len += 1;
    }
    let mut registers = [[D::ZERO; STRIP]; MAX_REGISTERS];
    let base = registers.as_mut_ptr().cast::<D>();
    let register = |r: u32| base.add(r as usize * STRIP);
    let operands = e.operands.as_slice();
    let cols = e.dims[COL] as usize;
    let rows: usize = e.dims[..COL].iter().map(|&d| d as usize).product();
    let mut index = [0u32; COL];
    let mut offsets = [0isize; MAX_INPUTS];
    for row in 0..rows {
        let mut start = 0;
        while start < cols {
            let n = (cols - start).min(STRIP);
            for (i, operand) in operands.iter().enumerate() {
                let stride = operand.strides[COL] as isize;
                let first = offsets[i] + start as isize * stride;
                D::load(operand.dtype, memory.read(operand.at), first, stride, n, register(i as u32));
            }
            let mut last = 0;
            for instr in &code[..len] {
                let [a, b, c] = instr.src;
                last = instr.dst;
                if instr.op == EltOp::Const {
                    let value = D::constant(u64::from(a) | u64::from(b) << 32);
                    (0..n).for_each(|i| *register(last).add(i) = value);
                } else {
                    // Only what an operation reads was checked to be a register.
                    let reads = instr.op.reads();
                    let [b, c] = [(b, 2), (c, 3)].map(|(r, with)| if reads >= with { r } else { a });
                    one(instr.op, n, register(a), register(b), register(c), register(last));
                }
            }
            D::store(e.dtype, register(last), n, memory.write(e.out), (row * cols + start) as isize, 1);
            start += n;
        }
        for d in (0..COL).rev() {
            index[d] += 1;
            let around = index[d] == e.dims[d];
            for (offset, operand) in offsets.iter_mut().zip(operands) {
                let stride = operand.strides[d] as isize;
                *offset += if around { -stride * (e.dims[d] as isize - 1) } else { stride };
            }
            if !around {
                break;
            }
            index[d] = 0;
        }
    }
}

/// One instruction over one strip.
#[inline(never)]
unsafe fn one<D: Registers>(op: EltOp, n: usize, a: *const D, b: *const D, c: *const D, dst: *mut D) {
    macro_rules! map {
        ($value:expr) => {
            for i in 0..n {
                *dst.add(i) = $value(*a.add(i), *b.add(i));
            }
        };
    }
    match op {
        EltOp::Move => map!(|x: D, _| x),
        EltOp::Add => map!(|x: D, y| x.add(y)),
        EltOp::Sub => map!(|x: D, y| x.sub(y)),
        EltOp::Mul => map!(|x: D, y| x.mul(y)),
        EltOp::Div => map!(|x: D, y| x.div(y)),
        EltOp::Min => map!(|x: D, y| x.min(y)),
        EltOp::Max => map!(|x: D, y| x.max(y)),
        EltOp::Abs => map!(|x: D, _| x.abs()),
        EltOp::Equal => map!(|x: D, y| D::truth(x == y)),
        EltOp::Less => map!(|x: D, y| D::truth(x < y)),
        EltOp::LessOrEqual => map!(|x: D, y| D::truth(x <= y)),
        EltOp::Select => {
            for i in 0..n {
                *dst.add(i) = if *c.add(i) == D::ZERO { *b.add(i) } else { *a.add(i) };
            }
        }
        op => map!(|x: D, y| D::other(op, x, y)),
    }
}
