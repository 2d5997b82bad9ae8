//! Element-wise programs: short register programs that the runner carries out over strips of elements which stay in
//! the first-level cache, alone or on the result of a product or convolution.
//!
//! A program is one of a domain: f32, f64 or 64-bit integers. Most operations are of every domain; the others say so.
//!
//! Registers `0..inputs` are the operands, further ones are temporaries. The value of the last instruction is the result.

#[cfg(feature = "build")]
use alloc::vec::Vec;

use crate::PlanError;
use crate::record::{Field, Reader, choice, record};
use crate::step::Domain;

/// Most operands of a program.
pub const MAX_INPUTS: usize = 8;
/// Most registers, operands included.
pub const MAX_REGISTERS: usize = 16;
/// Most instructions.
pub const MAX_CODE: usize = 64;

choice! {
    /// What an instruction computes. `a`, `b`, `c` are registers, `i` is the immediate. Comparisons give 1 or 0.
    /// NaN goes through everything except comparisons.
    pub enum EltOp("element-wise operation") {
        /// `a`
        #[default]
        Move = 0,
        /// f32: `i`; otherwise the 64 bits of the first two sources, the lower half first
        Const = 1,
        /// `a + b`
        Add = 2,
        /// `a − b`
        Sub = 3,
        /// `a · b`
        Mul = 4,
        /// `a ÷ b`; integers: cut towards zero, 0 for `b` = 0
        Div = 5,
        /// the smaller one
        Min = 6,
        /// the larger one
        Max = 7,
        /// `a · b + c`, rounded once or twice as the target does it best
        MulAdd = 8,
        /// `a + i`
        AddImm = 9,
        /// `a · i`
        MulImm = 10,
        /// `min(a, i)`; `i` is a number
        MinImm = 11,
        /// `max(a, i)`; `i` is a number
        MaxImm = 12,
        /// `i − a`
        RevSubImm = 13,
        /// `i ÷ a`
        RevDivImm = 14,
        /// `−a`
        Neg = 15,
        /// `|a|`
        Abs = 16,
        /// `√a`
        Sqrt = 17,
        /// `eᵃ`
        Exp = 18,
        /// natural logarithm
        Log = 19,
        /// hyperbolic tangent
        Tanh = 20,
        /// `1 ÷ (1 + e⁻ᵃ)`
        Sigmoid = 21,
        /// Gauss error function
        Erf = 22,
        /// towards −∞
        Floor = 23,
        /// towards +∞
        Ceil = 24,
        /// to the nearest, halves to even
        Round = 25,
        /// −1, 0 or 1
        Sign = 26,
        /// `a · min(max(a + 3, 0), 6) ÷ 6`
        HardSwish = 27,
        /// `a == b`
        Equal = 28,
        /// `a < b`
        Less = 29,
        /// `a ≤ b`
        LessOrEqual = 30,
        /// `c ≠ 0 ? a : b`
        Select = 31,
        /// `a` to the power of `b`
        Pow = 32,
        /// sine
        Sin = 33,
        /// cosine
        Cos = 34,
        /// towards zero
        Trunc = 35,
        /// remainder of `a ÷ b` with the sign of `a`; integers: 0 for `b` = 0
        Rem = 36,
        /// inverse tangent
        Atan = 37,
        /// remainder with the sign of `b`, 0 for `b` = 0; integers only
        Mod = 38,
        /// both bits; integers only
        And = 39,
        /// either bit; integers only
        Or = 40,
        /// one bit of the two; integers only
        Xor = 41,
        /// `a` moved up by `b` bits, 0 from 64 on and below 0; integers only
        Shl = 42,
        /// `a` moved down by `b` bits and filled with zeros, 0 from 64 on and below 0; integers only
        Shr = 43,
        /// `a` moved down by `b` bits, 0 to 63, and filled with its sign; integers only
        Sar = 44,
        /// `a ÷ b`, both without a sign; 0 for `b` = 0; integers only
        DivUnsigned = 45,
        /// remainder of [`EltOp::DivUnsigned`]; integers only
        RemUnsigned = 46,
        /// `a` to the power of `b`, which has no sign; integers only
        PowUnsigned = 47,
    }
}

impl EltOp {
    /// How many of `a`, `b`, `c` it reads.
    pub const fn reads(self) -> usize {
        match self {
            Self::Const => 0,
            Self::Move
            | Self::AddImm
            | Self::MulImm
            | Self::MinImm
            | Self::MaxImm
            | Self::RevSubImm
            | Self::RevDivImm
            | Self::Neg
            | Self::Abs
            | Self::Sqrt
            | Self::Exp
            | Self::Log
            | Self::Tanh
            | Self::Sigmoid
            | Self::Erf
            | Self::Floor
            | Self::Ceil
            | Self::Round
            | Self::Sign
            | Self::HardSwish
            | Self::Sin
            | Self::Cos
            | Self::Atan
            | Self::Trunc => 1,
            Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Div
            | Self::Min
            | Self::Max
            | Self::Equal
            | Self::Less
            | Self::LessOrEqual
            | Self::Pow
            | Self::Rem
            | Self::Mod
            | Self::And
            | Self::Or
            | Self::Xor
            | Self::Shl
            | Self::Shr
            | Self::Sar
            | Self::DivUnsigned
            | Self::RemUnsigned
            | Self::PowUnsigned => 2,
            Self::MulAdd | Self::Select => 3,
        }
    }

    /// It can be computed in this domain. Immediates are f32.
    pub const fn is_of(self, domain: Domain) -> bool {
        match self {
            Self::Move
            | Self::Const
            | Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Div
            | Self::Rem
            | Self::Min
            | Self::Max
            | Self::Neg
            | Self::Abs
            | Self::Sign
            | Self::Equal
            | Self::Less
            | Self::LessOrEqual
            | Self::Select
            | Self::Pow => true,
            Self::Sqrt
            | Self::Exp
            | Self::Log
            | Self::Tanh
            | Self::Sigmoid
            | Self::Erf
            | Self::Floor
            | Self::Ceil
            | Self::Round
            | Self::Trunc
            | Self::Sin
            | Self::Cos
            | Self::Atan => matches!(domain, Domain::F32 | Domain::F64),
            Self::MulAdd
            | Self::AddImm
            | Self::MulImm
            | Self::MinImm
            | Self::MaxImm
            | Self::RevSubImm
            | Self::RevDivImm
            | Self::HardSwish => matches!(domain, Domain::F32),
            Self::Mod
            | Self::And
            | Self::Or
            | Self::Xor
            | Self::Shl
            | Self::Shr
            | Self::Sar
            | Self::DivUnsigned
            | Self::RemUnsigned
            | Self::PowUnsigned => matches!(domain, Domain::I64),
        }
    }
}

record! {
    /// One instruction.
    pub struct EltInstr {
        /// What it computes.
        op: EltOp,
        /// Register that takes the value; never one of the operands.
        dst: u32,
        /// Registers that it reads; those that it does not read are 0.
        src: [u32; 3],
        /// The immediate of the operations that have one, else 0. (A wide constant lies in `src`.)
        imm: f32,
    }
}

const INSTR_BYTES: usize = 24;
/// Operands, registers and length of a program.
const HEAD_BYTES: usize = 12;

/// A program that was checked: every register exists and is written before it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EltProgram<'a> {
    inputs: usize,
    registers: usize,
    code: &'a [u8],
}

impl<'a> EltProgram<'a> {
    /// Operands.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Registers, operands included.
    pub fn registers(&self) -> usize {
        self.registers
    }

    /// Every operation is one of this domain.
    pub fn is_of(&self, domain: Domain) -> bool {
        self.code().all(|instr| instr.op.is_of(domain))
    }

    /// How many instructions.
    pub fn len(&self) -> usize {
        self.code.len() / INSTR_BYTES
    }

    /// How many bytes of a plan.
    pub(crate) fn bytes(&self) -> usize {
        HEAD_BYTES + self.code.len()
    }

    /// Never: a program has at least one instruction.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }

    /// The instructions in order.
    pub fn code(&self) -> impl Iterator<Item = EltInstr> + use<'a> {
        self.code.chunks_exact(INSTR_BYTES).filter_map(|bytes| EltInstr::read(&mut Reader::new(bytes)).ok())
    }

    pub(crate) fn read(r: &mut Reader<'a>, index: u32) -> Result<Self, PlanError> {
        let inputs = r.at_most("operands of a program", MAX_INPUTS as u32)? as usize;
        let registers = r.at_most("registers of a program", MAX_REGISTERS as u32)? as usize;
        let len = r.at_most("length of a program", MAX_CODE as u32)? as usize;
        let code = r.bytes(len * INSTR_BYTES)?;
        let malformed = PlanError::Program(index);
        if len == 0 || inputs > registers {
            return Err(malformed);
        }
        let mut written = (1u32 << inputs) - 1;
        let mut body = Reader::new(code);
        while !body.is_empty() {
            let instr = EltInstr::read(&mut body)?;
            if instr.src.iter().take(instr.op.reads()).any(|&s| s >= 32 || written & (1 << s) == 0) {
                return Err(malformed);
            }
            if (instr.dst as usize) < inputs || instr.dst as usize >= registers {
                return Err(malformed);
            }
            written |= 1 << instr.dst;
        }
        Ok(Self { inputs, registers, code })
    }

    /// How a program of these instructions lies in a plan.
    #[cfg(feature = "build")]
    pub fn encode(inputs: usize, registers: usize, code: &[EltInstr]) -> Vec<u8> {
        let mut out = Vec::new();
        for n in [inputs, registers, code.len()] {
            (n as u32).write(&mut out);
        }
        code.iter().for_each(|instr| instr.write(&mut out));
        out
    }
}
