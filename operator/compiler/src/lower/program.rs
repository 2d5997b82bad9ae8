//! From element-wise nodes to a program with registers.

use std::collections::BTreeMap;

use ballast_plan::elt::{MAX_CODE, MAX_INPUTS, MAX_REGISTERS};
use ballast_plan::{Domain, EltInstr, EltOp};

use crate::ir::{BinaryOp, DType, Graph, Node, Op, UnaryOp, ValueId, canonical};

use super::peephole::{drop_unused, shorten};
use super::wide::{bits, domain};

/// A program and what it reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Program {
    /// Operands in order; each is a value that is not made in the program.
    pub(super) inputs: Vec<ValueId>,
    /// Registers, operands included.
    pub(super) registers: usize,
    /// Instructions.
    pub(super) code: Vec<EltInstr>,
    /// What it computes in.
    pub(super) domain: Domain,
}

/// What an instruction reads, before registers are given out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ref {
    /// An operand of the program.
    Input(usize),
    /// What the instruction at this place made.
    Made(usize),
}

/// An instruction before registers are given out: what it does, what it reads, its immediate.
pub(super) type Drafted = (EltOp, Vec<Ref>, f32);

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    inputs: Vec<ValueId>,
    code: Vec<Drafted>,
    made: BTreeMap<ValueId, Ref>,
    domain: Domain,
    /// Constants of 64 bits; the immediate of their instructions is the place here.
    wide: Vec<u64>,
}

/// Types whose every value an f32 holds exactly.
pub(super) fn is_exact(dtype: DType) -> bool {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Bool | DType::U8 | DType::I8 | DType::U16 | DType::I16 => true,
        DType::U32 | DType::I32 | DType::U64 | DType::I64 | DType::F64 => false,
    }
}

/// Its result is not what a register of its domain holds: it ends a program.
pub(super) fn ends_program(graph: &Graph, node: &Node) -> bool {
    node.op == Op::Cast && node.outputs.iter().any(|id| !stays(domain(graph, node), graph.value(*id).dtype))
}

/// Its operand must come from memory, where its type is known.
pub(super) fn starts_program(graph: &Graph, node: &Node) -> bool {
    node.op == Op::Cast && node.inputs.iter().any(|id| !stays(domain(graph, node), graph.value(*id).dtype))
}

/// A register of the domain is a number of this type. Integers wrap within a program, too.
fn stays(domain: Option<Domain>, dtype: DType) -> bool {
    match domain {
        Some(Domain::F64) => matches!(dtype, DType::F64 | DType::Bool),
        Some(Domain::I64) => true,
        Some(Domain::F32) | None => matches!(dtype, DType::F32 | DType::Bool),
    }
}

/// The only element of a constant.
pub(super) fn scalar(graph: &Graph, id: ValueId) -> Option<f32> {
    let tensor = graph.value(id).constant.as_ref()?;
    match (tensor.len(), tensor.floats(), tensor.ints()) {
        (1, [x], _) => Some(*x),
        (1, _, [x]) if is_exact(tensor.dtype) => Some(*x as f32),
        _ => None,
    }
}

impl Program {
    /// The program of `nodes`, in order, the last of which gives the result. `first`, if any, is operand 0. `None` when it
    /// would have more operands, registers or instructions than a program may.
    pub(super) fn build(graph: &Graph, nodes: &[&Node], first: Option<ValueId>) -> Option<Self> {
        let mut draft = Draft { domain: domain(graph, nodes.first()?)?, ..Draft::default() };
        draft.inputs.extend(first);
        for (i, node) in nodes.iter().enumerate() {
            let result = match draft.domain {
                Domain::F32 => draft.node(graph, node)?,
                Domain::I64 => draft.integers(graph, node, i + 1 == nodes.len())?,
                Domain::F64 => draft.doubles(graph, node)?,
            };
            draft.made.insert(*node.outputs.first()?, result);
        }
        let result = *draft.made.get(nodes.last()?.outputs.first()?)?;
        if draft.code.len().checked_sub(1).map(Ref::Made) != Some(result) {
            draft.emit(EltOp::Move, &[result], 0.0);
        }
        match draft.domain {
            Domain::F32 => shorten(&mut draft.code),
            Domain::F64 | Domain::I64 => drop_unused(&mut draft.code),
        }
        draft.registers()
    }
}

impl Draft {
    pub(super) fn emit(&mut self, op: EltOp, args: &[Ref], imm: f32) -> Ref {
        self.code.push((op, args.to_vec(), imm));
        Ref::Made(self.code.len() - 1)
    }

    /// A constant of 64 bits.
    pub(super) fn constant(&mut self, bits: u64) -> Ref {
        let place = self.wide.iter().position(|known| *known == bits).unwrap_or_else(|| {
            self.wide.push(bits);
            self.wide.len() - 1
        });
        self.emit(EltOp::Const, &[], place as f32)
    }

    /// An operation with an immediate, or what it is made of in a domain that has none.
    pub(super) fn with(&mut self, op: EltOp, x: Ref, imm: f32) -> Ref {
        if self.domain == Domain::F32 {
            return self.emit(op, &[x], imm);
        }
        let c = self.constant(f64::from(imm).to_bits());
        match op {
            EltOp::AddImm => self.emit(EltOp::Add, &[x, c], 0.0),
            EltOp::RevSubImm => self.emit(EltOp::Sub, &[c, x], 0.0),
            EltOp::RevDivImm => self.emit(EltOp::Div, &[c, x], 0.0),
            _ => self.emit(EltOp::Mul, &[x, c], 0.0),
        }
    }

    pub(super) fn read(&mut self, graph: &Graph, id: ValueId) -> Ref {
        if let Some(made) = self.made.get(&id) {
            return *made;
        }
        if let Some(i) = self.inputs.iter().position(|&known| known == id) {
            return Ref::Input(i);
        }
        let constant = match self.domain {
            Domain::F32 => scalar(graph, id).map(|value| self.emit(EltOp::Const, &[], value)),
            Domain::F64 | Domain::I64 => bits(graph, id, self.domain).map(|bits| self.constant(bits)),
        };
        if let Some(made) = constant {
            self.made.insert(id, made);
            return made;
        }
        self.inputs.push(id);
        Ref::Input(self.inputs.len() - 1)
    }

    fn node(&mut self, graph: &Graph, node: &Node) -> Option<Ref> {
        let input = |i: usize| node.inputs.get(i).copied();
        match &node.op {
            Op::Unary(op) => {
                let x = self.read(graph, input(0)?);
                self.unary(*op, x)
            }
            Op::Binary(op) => self.binary(graph, *op, input(0)?, input(1)?),
            Op::Select => {
                let [c, a, b] = [input(0)?, input(1)?, input(2)?].map(|id| self.read(graph, id));
                Some(self.emit(EltOp::Select, &[a, b, c], 0.0))
            }
            Op::Cast => {
                let x = self.read(graph, input(0)?);
                if graph.value(*node.outputs.first()?).dtype == DType::Bool
                    && graph.value(input(0)?).dtype != DType::Bool
                {
                    let zero = self.emit(EltOp::Const, &[], 0.0);
                    let equal = self.emit(EltOp::Equal, &[x, zero], 0.0);
                    return Some(self.emit(EltOp::RevSubImm, &[equal], 1.0));
                }
                Some(x)
            }
            _ => None,
        }
    }

    pub(super) fn unary(&mut self, op: UnaryOp, x: Ref) -> Option<Ref> {
        let one = |draft: &mut Self, op| Some(draft.emit(op, &[x], 0.0));
        match op {
            UnaryOp::Neg => one(self, EltOp::Neg),
            UnaryOp::Abs => one(self, EltOp::Abs),
            UnaryOp::Sign => one(self, EltOp::Sign),
            UnaryOp::Floor => one(self, EltOp::Floor),
            UnaryOp::Ceil => one(self, EltOp::Ceil),
            UnaryOp::Round => one(self, EltOp::Round),
            UnaryOp::Sqrt => one(self, EltOp::Sqrt),
            UnaryOp::Exp => one(self, EltOp::Exp),
            UnaryOp::Log => one(self, EltOp::Log),
            UnaryOp::Sin => one(self, EltOp::Sin),
            UnaryOp::Cos => one(self, EltOp::Cos),
            UnaryOp::Tanh => one(self, EltOp::Tanh),
            UnaryOp::Erf => one(self, EltOp::Erf),
            UnaryOp::Sigmoid => one(self, EltOp::Sigmoid),
            UnaryOp::Reciprocal => Some(self.with(EltOp::RevDivImm, x, 1.0)),
            UnaryOp::Not => Some(self.with(EltOp::RevSubImm, x, 1.0)),
            UnaryOp::IsNan => {
                let number = self.emit(EltOp::Equal, &[x, x], 0.0);
                Some(self.with(EltOp::RevSubImm, number, 1.0))
            }
            UnaryOp::Tan => {
                let [sin, cos] = [EltOp::Sin, EltOp::Cos].map(|op| self.emit(op, &[x], 0.0));
                Some(self.emit(EltOp::Div, &[sin, cos], 0.0))
            }
            UnaryOp::Sinh | UnaryOp::Cosh => {
                let up = self.emit(EltOp::Exp, &[x], 0.0);
                let down = self.with(EltOp::RevDivImm, up, 1.0);
                let both = self.emit(if op == UnaryOp::Sinh { EltOp::Sub } else { EltOp::Add }, &[up, down], 0.0);
                Some(self.with(EltOp::MulImm, both, 0.5))
            }
            // sign(x) · ln(|x| + √(x² + 1)); ln(x + √(x² − 1)); ½ ln((1 + x) ÷ (1 − x)).
            UnaryOp::Asinh | UnaryOp::Acosh => {
                let a = if op == UnaryOp::Asinh { self.emit(EltOp::Abs, &[x], 0.0) } else { x };
                let square = self.emit(EltOp::Mul, &[x, x], 0.0);
                let inner = self.with(EltOp::AddImm, square, if op == UnaryOp::Asinh { 1.0 } else { -1.0 });
                let root = self.emit(EltOp::Sqrt, &[inner], 0.0);
                let sum = self.emit(EltOp::Add, &[a, root], 0.0);
                let log = self.emit(EltOp::Log, &[sum], 0.0);
                if op == UnaryOp::Acosh {
                    return Some(log);
                }
                let sign = self.emit(EltOp::Sign, &[x], 0.0);
                Some(self.emit(EltOp::Mul, &[log, sign], 0.0))
            }
            UnaryOp::Atanh => {
                let up = self.with(EltOp::AddImm, x, 1.0);
                let down = self.with(EltOp::RevSubImm, x, 1.0);
                let ratio = self.emit(EltOp::Div, &[up, down], 0.0);
                let log = self.emit(EltOp::Log, &[ratio], 0.0);
                Some(self.with(EltOp::MulImm, log, 0.5))
            }
            UnaryOp::Atan => one(self, EltOp::Atan),
            // 2 · atan(x ÷ (1 + √((1 − x)(1 + x)))); 2 · atan(√((1 − x) ÷ (1 + x))).
            UnaryOp::Asin | UnaryOp::Acos => {
                let (up, down) = (self.with(EltOp::AddImm, x, 1.0), self.with(EltOp::RevSubImm, x, 1.0));
                let inner = self.emit(if op == UnaryOp::Asin { EltOp::Mul } else { EltOp::Div }, &[down, up], 0.0);
                let mut half = self.emit(EltOp::Sqrt, &[inner], 0.0);
                if op == UnaryOp::Asin {
                    let below = self.with(EltOp::AddImm, half, 1.0);
                    half = self.emit(EltOp::Div, &[x, below], 0.0);
                }
                let half = self.emit(EltOp::Atan, &[half], 0.0);
                Some(self.with(EltOp::MulImm, half, 2.0))
            }
        }
    }

    fn binary(&mut self, graph: &Graph, op: BinaryOp, a: ValueId, b: ValueId) -> Option<Ref> {
        let (left, right) = (scalar(graph, a), scalar(graph, b));
        // With a constant on one side, an immediate instead of a register.
        let immediate = match (op, left, right) {
            (BinaryOp::Add, _, Some(c)) => Some((EltOp::AddImm, a, c)),
            (BinaryOp::Add, Some(c), _) => Some((EltOp::AddImm, b, c)),
            (BinaryOp::Sub, _, Some(c)) => Some((EltOp::AddImm, a, -c)),
            (BinaryOp::Sub, Some(c), _) => Some((EltOp::RevSubImm, b, c)),
            (BinaryOp::Mul, _, Some(c)) => Some((EltOp::MulImm, a, c)),
            (BinaryOp::Mul, Some(c), _) => Some((EltOp::MulImm, b, c)),
            // Only where the reciprocal is exact is it the same: powers of two.
            (BinaryOp::Div, _, Some(c)) if c.is_normal() && c.to_bits() & 0x007f_ffff == 0 && (1.0 / c).is_normal() => {
                Some((EltOp::MulImm, a, 1.0 / c))
            }
            (BinaryOp::Div, Some(c), _) => Some((EltOp::RevDivImm, b, c)),
            (BinaryOp::Min, _, Some(c)) if !c.is_nan() => Some((EltOp::MinImm, a, c)),
            (BinaryOp::Min, Some(c), _) if !c.is_nan() => Some((EltOp::MinImm, b, c)),
            (BinaryOp::Max, _, Some(c)) if !c.is_nan() => Some((EltOp::MaxImm, a, c)),
            (BinaryOp::Max, Some(c), _) if !c.is_nan() => Some((EltOp::MaxImm, b, c)),
            _ => None,
        };
        if let Some((op, x, imm)) = immediate {
            let x = self.read(graph, x);
            return Some(self.emit(op, &[x], imm));
        }
        if let (BinaryOp::Pow, Some(exponent)) = (op, right) {
            let x = self.read(graph, a);
            if exponent == 2.0 {
                return Some(self.emit(EltOp::Mul, &[x, x], 0.0));
            }
            if exponent == 0.5 {
                return Some(self.emit(EltOp::Sqrt, &[x], 0.0));
            }
            if exponent == 1.0 {
                return Some(x);
            }
        }
        let [x, y] = [a, b].map(|id| self.read(graph, id));
        let op = match op {
            BinaryOp::Add => EltOp::Add,
            BinaryOp::Sub => EltOp::Sub,
            BinaryOp::Mul | BinaryOp::And => EltOp::Mul,
            BinaryOp::Div => EltOp::Div,
            BinaryOp::Pow => EltOp::Pow,
            BinaryOp::Min => EltOp::Min,
            BinaryOp::Max | BinaryOp::Or => EltOp::Max,
            BinaryOp::Equal => EltOp::Equal,
            BinaryOp::Less => EltOp::Less,
            BinaryOp::LessOrEqual => EltOp::LessOrEqual,
            BinaryOp::Xor => {
                let difference = self.emit(EltOp::Sub, &[x, y], 0.0);
                return Some(self.emit(EltOp::Abs, &[difference], 0.0));
            }
            BinaryOp::Rem => EltOp::Rem,
            BinaryOp::Mod | BinaryOp::ShiftLeft | BinaryOp::ShiftRight => return None,
        };
        Some(self.emit(op, &[x, y], 0.0))
    }

    /// Gives out registers: each result takes the lowest that nobody needs any more.
    fn registers(self) -> Option<Program> {
        if self.inputs.len() > MAX_INPUTS || self.code.len() > MAX_CODE {
            return None;
        }
        let mut last = vec![0; self.code.len()];
        for (at, (_, args, _)) in self.code.iter().enumerate() {
            for arg in args {
                if let Ref::Made(i) = arg {
                    last[*i] = at;
                }
            }
        }
        let mut holder: [Option<usize>; MAX_REGISTERS] = [None; MAX_REGISTERS];
        let mut register = vec![0; self.code.len()];
        let mut registers = self.inputs.len();
        let mut code = Vec::new();
        for (at, (op, args, imm)) in self.code.iter().enumerate() {
            let mut src = [0; 3];
            for (place, arg) in src.iter_mut().zip(args) {
                *place = match arg {
                    Ref::Input(i) => *i as u32,
                    Ref::Made(i) => register[*i] as u32,
                };
            }
            let free = |holder: &Option<usize>| holder.is_none_or(|i| last[i] <= at);
            let dst = (self.inputs.len()..MAX_REGISTERS).find(|&r| free(&holder[r]))?;
            (holder[dst], register[at]) = (Some(at), dst);
            registers = registers.max(dst + 1);
            let mut imm = canonical(*imm);
            if self.domain != Domain::F32 && *op == EltOp::Const {
                let bits = self.wide.get(imm as usize).copied().unwrap_or_default();
                (src[0], src[1], imm) = (bits as u32, (bits >> 32) as u32, 0.0);
            }
            code.push(EltInstr { op: *op, dst: dst as u32, src, imm });
        }
        Some(Program { inputs: self.inputs, registers, code, domain: self.domain })
    }
}
