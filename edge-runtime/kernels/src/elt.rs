//! Element-wise programs over strips: each instruction goes over a strip of [`STRIP`] elements, so that its decoding costs
//! nothing and all registers stay in the first-level cache.

use core::mem::MaybeUninit;

use ballast_plan::elt::{MAX_CODE, MAX_INPUTS, MAX_REGISTERS};
use ballast_plan::step::{BiasOf, Elt, Epilogue, MAX_DIMS};
use ballast_plan::{DType, EltInstr, EltOp, EltProgram, Plan};

use crate::domain::Domain as _;
use crate::simd::{Simd, kernel};
use crate::{Memory, math};

/// Elements of a strip: 16 registers of 1 KiB are half of a small first-level cache.
pub const STRIP: usize = 256;

/// The registers' memory; a checked program writes each part before it reads it.
#[repr(C, align(64))]
struct Registers(MaybeUninit<[[f32; STRIP]; MAX_REGISTERS]>);

/// A program taken apart, with its registers.
pub struct Machine {
    code: [EltInstr; MAX_CODE],
    len: usize,
    registers: Registers,
    /// What each operand's register was last filled with.
    splats: [(*const f32, usize); MAX_INPUTS],
}

impl Machine {
    /// Of a program of the plan.
    #[inline(always)]
    pub fn new(program: &EltProgram<'_>) -> Self {
        let mut machine = Self {
            code: [EltInstr::default(); MAX_CODE],
            len: 0,
            registers: Registers(MaybeUninit::uninit()),
            splats: [(core::ptr::null(), 0); MAX_INPUTS],
        };
        for (place, instr) in machine.code.iter_mut().zip(program.code()) {
            *place = instr;
            machine.len += 1;
        }
        machine
    }

    #[inline(always)]
    fn register(&mut self, index: usize) -> *mut f32 {
        self.registers.0.as_mut_ptr().cast::<f32>().wrapping_add(index * STRIP)
    }

    /// One value repeated `n` times in operand `index`'s register.
    #[inline(always)]
    unsafe fn splat<S: Simd>(&mut self, index: usize, value: *const f32, n: usize) -> *const f32 {
        let register = self.register(index);
        let (last, filled) = self.splats[index];
        if last != value || filled < n {
            let v = S::splat(*value);
            for i in (0..n).step_by(S::LANES) {
                S::store(register.add(i), v);
            }
            self.splats[index] = (value, n);
        }
        register
    }

    /// Runs over `n ≤ STRIP` elements; `operands` are addresses of `n` floats each.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    unsafe fn run<S: Simd>(&mut self, operands: &[*const f32; MAX_INPUTS], inputs: usize, n: usize, out: *mut f32) {
        let base = self.registers.0.as_mut_ptr().cast::<f32>();
        let read = |r: u32| {
            let r = r as usize;
            // What an operation does not read is no register: its address is made, but not used.
            if r < inputs { operands[r] } else { base.wrapping_add(r.wrapping_mul(STRIP)).cast_const() }
        };
        for (i, instr) in self.code[..self.len].iter().enumerate() {
            let dst = if i + 1 == self.len { out } else { base.add(instr.dst as usize * STRIP) };
            let [a, b, c] = instr.src;
            one::<S>(instr.op, instr.imm, n, read(a), read(b), read(c), dst);
        }
    }
}

/// Gives `$value` for each vector of a strip, `$v` being the operands' vectors at `$p`. In a loop of four vectors a turn costs
/// little, and their chains overlap; it is for operations of few instructions. Macros, because closures that are called
/// from several places are not inlined, and a call for each vector costs more than most of what is computed here.
macro_rules! wide {
    ($n:ident, $dst:ident, [$($v:ident: $p:ident),*], $value:expr) => {{
        let mut i = 0;
        while i + 4 * S::LANES <= $n {
            let first = { $(let $v = S::load($p.add(i));)* $value };
            let second = { $(let $v = S::load($p.add(i + S::LANES));)* $value };
            let third = { $(let $v = S::load($p.add(i + 2 * S::LANES));)* $value };
            let fourth = { $(let $v = S::load($p.add(i + 3 * S::LANES));)* $value };
            S::store($dst.add(i), first);
            S::store($dst.add(i + S::LANES), second);
            S::store($dst.add(i + 2 * S::LANES), third);
            S::store($dst.add(i + 3 * S::LANES), fourth);
            i += 4 * S::LANES;
        }
        narrow!(i, $n, $dst, [$($v: $p),*], $value)
    }};
}

/// As [`wide`], vector by vector from `$i` on.
macro_rules! narrow {
    ($i:expr, $n:ident, $dst:ident, [$($v:ident: $p:ident),*], $value:expr) => {{
        let mut i = $i;
        while i + S::LANES <= $n {
            $(let $v = S::load($p.add(i));)*
            S::store($dst.add(i), $value);
            i += S::LANES;
        }
        if i < $n {
            $(let $v = S::load_n($p.add(i), $n - i);)*
            S::store_n($dst.add(i), $value, $n - i);
        }
    }};
}

/// One instruction over one strip.
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn one<S: Simd>(op: EltOp, imm: f32, n: usize, a: *const f32, b: *const f32, c: *const f32, dst: *mut f32) {
    let i = S::splat(imm);
    let one = S::splat(1.0);
    macro_rules! map {
        (|$x:ident| $value:expr) => { wide!(n, dst, [$x: a], $value) };
        (|$x:ident, $y:ident| $value:expr) => { wide!(n, dst, [$x: a, $y: b], $value) };
        (|$x:ident, $y:ident, $z:ident| $value:expr) => { wide!(n, dst, [$x: a, $y: b, $z: c], $value) };
    }
    macro_rules! long {
        (|$x:ident| $value:expr) => { narrow!(0, n, dst, [$x: a], $value) };
        (|$x:ident, $y:ident| $value:expr) => { narrow!(0, n, dst, [$x: a, $y: b], $value) };
    }
    match op {
        EltOp::Move => map!(|x| x),
        EltOp::Const => narrow!(0, n, dst, [], i),
        EltOp::Add => map!(|x, y| S::add(x, y)),
        EltOp::Sub => map!(|x, y| S::sub(x, y)),
        EltOp::Mul => map!(|x, y| S::mul(x, y)),
        EltOp::Div => map!(|x, y| S::div(x, y)),
        EltOp::Min => map!(|x, y| S::min(x, y)),
        EltOp::Max => map!(|x, y| S::max(x, y)),
        EltOp::MulAdd => map!(|x, y, z| S::fma(x, y, z)),
        EltOp::AddImm => map!(|x| S::add(x, i)),
        EltOp::MulImm => map!(|x| S::mul(x, i)),
        EltOp::MinImm => map!(|x| S::min_bound(x, i)),
        EltOp::MaxImm => map!(|x| S::max_bound(x, i)),
        EltOp::RevSubImm => map!(|x| S::sub(i, x)),
        EltOp::RevDivImm => map!(|x| S::div(i, x)),
        EltOp::Neg => map!(|x| S::neg(x)),
        EltOp::Abs => map!(|x| S::abs(x)),
        EltOp::Sqrt => map!(|x| S::sqrt(x)),
        EltOp::Exp => long!(|x| math::exp::<S>(x)),
        EltOp::Log => long!(|x| math::log::<S>(x)),
        EltOp::Tanh => long!(|x| math::tanh::<S>(x)),
        EltOp::Sigmoid => long!(|x| math::sigmoid::<S>(x)),
        EltOp::Erf => long!(|x| math::erf::<S>(x)),
        EltOp::Floor => map!(|x| S::floor(x)),
        EltOp::Ceil => map!(|x| S::ceil(x)),
        EltOp::Round => map!(|x| S::round(x)),
        EltOp::Trunc => map!(|x| S::trunc(x)),
        EltOp::Sign => long!(|x| {
            let zero = S::splat(0.0);
            let up = S::and(S::less(zero, x), one);
            let down = S::and(S::less(x, zero), S::splat(-1.0));
            S::select(S::equal(x, x), S::or(up, down), x)
        }),
        EltOp::HardSwish => map!(|x| {
            let gate = S::add(x, S::splat(3.0));
            let gate = S::min_bound(S::max_bound(gate, S::splat(0.0)), S::splat(6.0));
            // The gate first: it is exactly 1 from 3 on, and nothing overflows.
            S::mul(x, S::mul(gate, S::splat(1.0 / 6.0)))
        }),
        EltOp::Equal => map!(|x, y| S::and(S::equal(x, y), one)),
        EltOp::Less => map!(|x, y| S::and(S::less(x, y), one)),
        EltOp::LessOrEqual => map!(|x, y| S::and(S::less_equal(x, y), one)),
        EltOp::Select => map!(|x, y, z| S::select(S::equal(z, S::splat(0.0)), y, x)),
        EltOp::Pow => long!(|x, y| math::pow::<S>(x, y)),
        EltOp::Sin => long!(|x| math::sin::<S>(x, 0.0)),
        EltOp::Cos => long!(|x| math::sin::<S>(x, 1.0)),
        EltOp::Atan => long!(|x| math::atan::<S>(x)),
        EltOp::Rem => (0..n).for_each(|i| *dst.add(i) = *a.add(i) % *b.add(i)),
        // Of integers: refused when the plan was read.
        EltOp::Mod
        | EltOp::And
        | EltOp::Or
        | EltOp::Xor
        | EltOp::Shl
        | EltOp::Shr
        | EltOp::Sar
        | EltOp::DivUnsigned
        | EltOp::RemUnsigned
        | EltOp::PowUnsigned => {}
    }
}

/// What follows a product or convolution, ready to run over rows of its result.
pub struct Tail<'a> {
    epilogue: &'a Epilogue,
    memory: &'a Memory,
    machine: Option<Machine>,
}

impl<'a> Tail<'a> {
    /// Of a step of `plan`.
    #[inline(always)]
    pub fn new(plan: &Plan<'_>, epilogue: &'a Epilogue, memory: &'a Memory) -> Self {
        let program = epilogue.program.checked_sub(1).and_then(|index| plan.program(index));
        Self { epilogue, memory, machine: program.map(|p| Machine::new(&p)) }
    }

    /// The bias of a row, or 0.
    #[inline(always)]
    pub unsafe fn row_bias(&self, row: usize) -> f32 {
        match self.epilogue.bias_of {
            BiasOf::Row => *self.memory.floats(self.epilogue.bias).add(row),
            BiasOf::None | BiasOf::Column => 0.0,
        }
    }

    /// The biases of up to four rows.
    #[inline(always)]
    pub unsafe fn row_biases(&self, row: usize, n: usize) -> [f32; 4] {
        let mut biases = [0f32; 4];
        if self.epilogue.bias_of == BiasOf::Row {
            let from = self.memory.floats(self.epilogue.bias).add(row);
            for (i, bias) in biases.iter_mut().enumerate().take(n) {
                *bias = *from.add(i);
            }
        }
        biases
    }

    /// The biases of columns, if columns have some.
    #[inline(always)]
    pub unsafe fn column_bias(&self) -> Option<*const f32> {
        match self.epilogue.bias_of {
            BiasOf::Column => Some(self.memory.floats(self.epilogue.bias)),
            BiasOf::None | BiasOf::Row => None,
        }
    }

    /// Lower and upper bound, if there are any.
    #[inline(always)]
    pub fn bounds(&self) -> Option<(f32, f32)> {
        let (low, high) = (self.epilogue.low, self.epilogue.high);
        if low == f32::NEG_INFINITY && high == f32::INFINITY { None } else { Some((low, high)) }
    }

    /// There is a program to run.
    #[inline(always)]
    pub fn has_program(&self) -> bool {
        self.machine.is_some()
    }

    /// Runs the program on `n` neighbouring results of one row, in place.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    pub unsafe fn finish<S: Simd>(&mut self, batch: usize, row: usize, col: usize, n: usize, out: *mut f32) {
        let Some(machine) = &mut self.machine else { return };
        let operands = self.epilogue.operands.as_slice();
        let mut start = 0;
        while start < n {
            let strip = (n - start).min(STRIP);
            let mut addresses = [core::ptr::null::<f32>(); MAX_INPUTS];
            addresses[0] = out.add(start);
            for (i, operand) in operands.iter().enumerate() {
                let first = batch * operand.batch as usize + row * operand.row as usize;
                let first = self.memory.floats(operand.at).add(first);
                addresses[i + 1] = match operand.col {
                    0 => machine.splat::<S>(i + 1, first, strip),
                    _ => first.add(col + start),
                };
            }
            machine.run::<S>(&addresses, operands.len() + 1, strip, out.add(start));
            start += strip;
        }
    }
}

kernel! {
    /// Runs a program over whole tensors.
    pub fn elt(plan: &Plan<'_>, s: &Elt, memory: &Memory) = elt_on
}

#[inline(always)]
unsafe fn elt_on<S: Simd>(plan: &Plan<'_>, s: &Elt, memory: &Memory) {
    const COL: usize = MAX_DIMS - 1;
    let Some(program) = plan.program(s.program) else { return };
    let mut machine = Machine::new(&program);
    let operands = s.operands.as_slice();
    let cols = s.dims[COL] as usize;
    let rows: usize = s.dims[..COL].iter().map(|&d| d as usize).product();
    let mut index = [0u32; COL];
    let mut offsets = [0isize; MAX_INPUTS];
    let out = memory.write(s.out);
    let mut converted = [0f32; STRIP];
    for row in 0..rows {
        let mut start = 0;
        while start < cols {
            let n = (cols - start).min(STRIP);
            let mut addresses = [core::ptr::null::<f32>(); MAX_INPUTS];
            for (i, operand) in operands.iter().enumerate() {
                let stride = operand.strides[COL] as isize;
                let first = offsets[i] + start as isize * stride;
                let base = memory.read(operand.at);
                addresses[i] = match (operand.dtype, stride) {
                    (DType::F32, 1) => base.cast::<f32>().offset(first),
                    (DType::F32, 0) => machine.splat::<S>(i, base.cast::<f32>().offset(first), n),
                    (dtype, _) => {
                        let register = machine.register(i);
                        load::<S>(dtype, base, first, stride, n, register);
                        register
                    }
                };
            }
            let place = row * cols + start;
            match s.dtype {
                DType::F32 => machine.run::<S>(&addresses, operands.len(), n, out.cast::<f32>().add(place)),
                dtype => {
                    machine.run::<S>(&addresses, operands.len(), n, converted.as_mut_ptr());
                    store::<S>(dtype, converted.as_ptr(), n, out, place);
                }
            }
            start += n;
        }
        for d in (0..COL).rev() {
            index[d] += 1;
            let wraps = index[d] == s.dims[d];
            for (offset, operand) in offsets.iter_mut().zip(operands) {
                let stride = operand.strides[d] as isize;
                *offset += if wraps { -stride * (s.dims[d] as isize - 1) } else { stride };
            }
            if !wraps {
                break;
            }
            index[d] = 0;
        }
    }
}

/// Strided elements of any type as floats.
#[inline(always)]
unsafe fn load<S: Simd>(dtype: DType, base: *const u8, first: isize, stride: isize, n: usize, to: *mut f32) {
    let whole = if stride == 1 && matches!(dtype, DType::U8 | DType::I8) { n / 16 * 16 } else { 0 };
    if whole > 0 {
        load_bytes::<S>(dtype == DType::I8, base.offset(first), whole, to);
    }
    f32::load(dtype, base, first + whole as isize * stride, stride, n - whole, to.add(whole));
}

/// Sixteen bytes at a time as floats.
#[inline(always)]
unsafe fn load_bytes<S: Simd>(signed: bool, from: *const u8, n: usize, to: *mut f32) {
    // A signed byte with its first bit flipped is 128 more, without sign.
    let flip = if signed { 0x80 } else { 0 };
    let (nothing, shift) = ([flip; 16], S::splat(if signed { 128.0 } else { 0.0 }));
    for i in (0..n).step_by(16) {
        let lanes = S::interleave(from.add(i), nothing.as_ptr(), flip);
        for (v, &lane) in lanes.iter().enumerate().take(16 / S::LANES) {
            S::store(to.add(i + v * S::LANES), S::sub(S::to_float(lane), shift));
        }
    }
}

/// Floats as elements of any type.
#[inline(always)]
unsafe fn store<S: Simd>(dtype: DType, from: *const f32, n: usize, base: *mut u8, place: usize) {
    let whole = if matches!(dtype, DType::U8 | DType::I8) { n / 16 * 16 } else { 0 };
    if whole > 0 {
        store_bytes::<S>(dtype == DType::I8, from, whole, base.add(place));
    }
    f32::store(dtype, from.add(whole), n - whole, base, (place + whole) as isize, 1);
}

/// Sixteen floats at a time, cut towards zero and held at the ends of the type; NaN is 0.
#[inline(always)]
unsafe fn store_bytes<S: Simd>(signed: bool, from: *const f32, n: usize, to: *mut u8) {
    let (low, high) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
    let (low, high) = (S::splat(low), S::splat(high));
    for i in (0..n).step_by(16) {
        let mut lanes = [S::splat_i(0); 4];
        for (v, lane) in lanes.iter_mut().enumerate().take(16 / S::LANES) {
            let x = S::load(from.add(i + v * S::LANES));
            let x = S::and(x, S::equal(x, x));
            *lane = S::to_int(S::trunc(S::min_bound(S::max_bound(x, low), high)));
        }
        S::store_bytes(to.add(i), lanes, signed);
    }
}
