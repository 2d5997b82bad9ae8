//! Programs of 64-bit registers: exact integers, and f64.

use ballast_plan::{Domain, EltOp};

use crate::ir::{BinaryOp, DType, Graph, Node, Op, UnaryOp, ValueId};

use super::program::{Draft, Ref, is_exact};

/// What carries out an element-wise node; `None`: it is not one, or one of halves.
pub(super) fn domain(graph: &Graph, node: &Node) -> Option<Domain> {
    let dtype = |id: &ValueId| graph.value(*id).dtype;
    let (input, output) = (dtype(node.inputs.first()?), dtype(node.outputs.first()?));
    match &node.op {
        Op::Unary(_) => of(input),
        Op::Binary(op) => match op {
            // Small integers are exact in f32, which is faster.
            BinaryOp::Equal | BinaryOp::Less | BinaryOp::LessOrEqual | BinaryOp::Min | BinaryOp::Max
                if is_exact(input) =>
            {
                Some(Domain::F32)
            }
            _ => of(input),
        },
        Op::Select if is_exact(output) => Some(Domain::F32),
        Op::Select => of(output),
        Op::Cast => Some(match (input, output) {
            (DType::F32 | DType::F16 | DType::BF16 | DType::Bool, _) => Domain::F32,
            (DType::F64, _) | (_, DType::F64) => Domain::F64,
            (_, DType::F32 | DType::F16 | DType::BF16 | DType::Bool) => Domain::F32,
            // Through a float, integers stay what they are only where it holds them all; wrapping is not what it does.
            (_, DType::I32 | DType::I64) if is_exact(input) => Domain::F32,
            _ => Domain::I64,
        }),
        _ => None,
    }
}

/// What computes with elements of a type.
fn of(dtype: DType) -> Option<Domain> {
    match dtype {
        DType::F32 | DType::Bool => Some(Domain::F32),
        DType::F64 => Some(Domain::F64),
        DType::F16 | DType::BF16 => None,
        DType::U8 | DType::I8 | DType::U16 | DType::I16 | DType::U32 | DType::I32 | DType::U64 | DType::I64 => {
            Some(Domain::I64)
        }
    }
}

/// The 64 bits of a constant with one element, as a program of this domain has it.
pub(super) fn bits(graph: &Graph, id: ValueId, domain: Domain) -> Option<u64> {
    let tensor = graph.value(id).constant.as_ref().filter(|t| t.len() == 1)?;
    match domain {
        Domain::I64 => tensor.ints().first().map(|x| x.cast_unsigned()),
        Domain::F64 => {
            let whole = tensor.ints().first().map(|x| *x as f64);
            let x = tensor.doubles().first().copied().or(tensor.floats().first().map(|x| f64::from(*x))).or(whole)?;
            Some(crate::ir::canonical_f64(x).to_bits())
        }
        Domain::F32 => None,
    }
}

impl Draft {
    /// A constant of 64 bits.
    fn int(&mut self, x: i64) -> Ref {
        self.constant(x.cast_unsigned())
    }

    /// Integers in the order of i64, and back.
    fn lifted(&mut self, x: Ref) -> Ref {
        let top = self.int(i64::MIN);
        self.emit(EltOp::Xor, &[x, top], 0.0)
    }

    /// Wraps a register to a type. What is stored is wrapped by the store.
    fn wrapped(&mut self, x: Ref, dtype: DType) -> Ref {
        match dtype {
            DType::U8 | DType::U16 | DType::U32 => {
                let mask = self.int((1 << (8 * dtype.size())) - 1);
                self.emit(EltOp::And, &[x, mask], 0.0)
            }
            DType::I8 | DType::I16 | DType::I32 => {
                let by = self.int(64 - 8 * dtype.size() as i64);
                let up = self.emit(EltOp::Shl, &[x, by], 0.0);
                self.emit(EltOp::Sar, &[up, by], 0.0)
            }
            DType::Bool | DType::I64 | DType::U64 | DType::F32 | DType::F64 | DType::F16 | DType::BF16 => x,
        }
    }

    /// A node of integers. `last`: its result goes to memory only.
    pub(super) fn integers(&mut self, graph: &Graph, node: &Node, last: bool) -> Option<Ref> {
        let inputs: Vec<Ref> = node.inputs.iter().map(|&id| self.read(graph, id)).collect();
        let dtype = graph.value(*node.inputs.first()?).dtype;
        let output = graph.value(*node.outputs.first()?).dtype;
        let result = match (&node.op, inputs.as_slice()) {
            (Op::Unary(op), &[x]) => self.unary_int(*op, dtype, x)?,
            (Op::Binary(op), &[a, b]) if dtype == DType::U64 => self.binary_unsigned(*op, a, b)?,
            (Op::Binary(op), &[a, b]) => self.emit(binary(*op)?, &[a, b], 0.0),
            (Op::Select, &[c, a, b]) => self.emit(EltOp::Select, &[a, b, c], 0.0),
            (Op::Cast, &[x]) => x,
            _ => return None,
        };
        Some(if last || node.op == Op::Select { result } else { self.wrapped(result, output) })
    }

    fn unary_int(&mut self, op: UnaryOp, dtype: DType, x: Ref) -> Option<Ref> {
        Some(match op {
            UnaryOp::Neg => self.emit(EltOp::Neg, &[x], 0.0),
            UnaryOp::Abs if dtype == DType::U64 => x,
            UnaryOp::Abs => self.emit(EltOp::Abs, &[x], 0.0),
            UnaryOp::Sign if dtype == DType::U64 => {
                let [zero, one] = [0, 1].map(|n| self.int(n));
                let none = self.emit(EltOp::Equal, &[x, zero], 0.0);
                self.emit(EltOp::Sub, &[one, none], 0.0)
            }
            UnaryOp::Sign => self.emit(EltOp::Sign, &[x], 0.0),
            UnaryOp::Not => {
                let all = self.int(-1);
                self.emit(EltOp::Xor, &[x, all], 0.0)
            }
            _ => return None,
        })
    }

    fn binary_unsigned(&mut self, op: BinaryOp, a: Ref, b: Ref) -> Option<Ref> {
        Some(match op {
            BinaryOp::Less | BinaryOp::LessOrEqual => {
                let [a, b] = [a, b].map(|x| self.lifted(x));
                self.emit(binary(op)?, &[a, b], 0.0)
            }
            BinaryOp::Min | BinaryOp::Max => {
                let [a, b] = [a, b].map(|x| self.lifted(x));
                let chosen = self.emit(binary(op)?, &[a, b], 0.0);
                self.lifted(chosen)
            }
            BinaryOp::Div => self.emit(EltOp::DivUnsigned, &[a, b], 0.0),
            BinaryOp::Rem | BinaryOp::Mod => self.emit(EltOp::RemUnsigned, &[a, b], 0.0),
            BinaryOp::Pow => self.emit(EltOp::PowUnsigned, &[a, b], 0.0),
            _ => self.emit(binary(op)?, &[a, b], 0.0),
        })
    }

    /// A node of f64.
    pub(super) fn doubles(&mut self, graph: &Graph, node: &Node) -> Option<Ref> {
        let inputs: Vec<Ref> = node.inputs.iter().map(|&id| self.read(graph, id)).collect();
        match (&node.op, inputs.as_slice()) {
            (Op::Unary(op), &[x]) => self.unary(*op, x),
            (Op::Binary(op), &[a, b]) => Some(self.emit(binary(*op)?, &[a, b], 0.0)),
            (Op::Select, &[c, a, b]) => Some(self.emit(EltOp::Select, &[a, b, c], 0.0)),
            // Truth is what differs from 0: the store does that, also within a program.
            (Op::Cast, &[x]) if graph.value(*node.outputs.first()?).dtype == DType::Bool => {
                let zero = self.constant(0);
                let none = self.emit(EltOp::Equal, &[x, zero], 0.0);
                Some(self.with(EltOp::RevSubImm, none, 1.0))
            }
            (Op::Cast, &[x]) => Some(x),
            _ => None,
        }
    }
}

fn binary(op: BinaryOp) -> Option<EltOp> {
    Some(match op {
        BinaryOp::Add => EltOp::Add,
        BinaryOp::Sub => EltOp::Sub,
        BinaryOp::Mul => EltOp::Mul,
        BinaryOp::Div => EltOp::Div,
        BinaryOp::Pow => EltOp::Pow,
        BinaryOp::Min => EltOp::Min,
        BinaryOp::Max => EltOp::Max,
        BinaryOp::Mod => EltOp::Mod,
        BinaryOp::Rem => EltOp::Rem,
        BinaryOp::And => EltOp::And,
        BinaryOp::Or => EltOp::Or,
        BinaryOp::Xor => EltOp::Xor,
        BinaryOp::ShiftLeft => EltOp::Shl,
        BinaryOp::ShiftRight => EltOp::Shr,
        BinaryOp::Equal => EltOp::Equal,
        BinaryOp::Less => EltOp::Less,
        BinaryOp::LessOrEqual => EltOp::LessOrEqual,
    })
}
