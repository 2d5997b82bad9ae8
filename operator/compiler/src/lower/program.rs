//! From element-wise nodes to a program with registers.

use std::collections::BTreeMap;

use ballast_plan::elt::{MAX_CODE, MAX_INPUTS, MAX_REGISTERS};
use ballast_plan::{EltInstr, EltOp};

use crate::ir::{BinaryOp, DType, Graph, Node, Op, UnaryOp, ValueId, canonical};

use super::peephole::shorten;

/// A program and what it reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Program {
    /// Operands in order; each is a value that is not made in the program.
    pub(super) inputs: Vec<ValueId>,
    /// Registers, operands included.
    pub(super) registers: usize,
    /// Instructions.
    pub(super) code: Vec<EltInstr>,
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

#[derive(Debug, Default)]
struct Draft {
    inputs: Vec<ValueId>,
    code: Vec<Drafted>,
    made: BTreeMap<ValueId, Ref>,
}

/// Types whose every value an f32 holds exactly.
fn is_exact(dtype: DType) -> bool {
    match dtype {
        DType::F32 | DType::Bool | DType::U8 | DType::I8 | DType::U16 | DType::I16 => true,
        DType::U32 | DType::I32 | DType::I64 => false,
    }
}

/// A program can carry out this node.
pub(super) fn is_elementwise(graph: &Graph, node: &Node) -> bool {
    let dtype = |id: &ValueId| graph.value(*id).dtype;
    let input = node.inputs.first().map(dtype);
    let float = input == Some(DType::F32);
    match &node.op {
        Op::Unary(op) => match op {
            UnaryOp::Not => true,
            UnaryOp::Asin | UnaryOp::Acos | UnaryOp::Atan => false,
            _ => float,
        },
        Op::Binary(op) => match op {
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => true,
            BinaryOp::Mod | BinaryOp::Rem => false,
            BinaryOp::Equal | BinaryOp::Less | BinaryOp::LessOrEqual | BinaryOp::Min | BinaryOp::Max => {
                input.is_some_and(is_exact)
            }
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Pow => float,
        },
        Op::Select => node.outputs.first().map(dtype).is_some_and(is_exact),
        Op::Cast => {
            let output = node.outputs.first().map(dtype);
            // Through a float, integers stay what they are only where it holds them all; wrapping is not what it does.
            let wide = matches!(output, Some(DType::I32 | DType::I64)) && input.is_some_and(is_exact);
            float || wide || matches!(output, Some(DType::F32 | DType::Bool)) || input == Some(DType::Bool)
        }
        _ => false,
    }
}

/// Its result is not what an f32 register holds: it ends a program.
pub(super) fn ends_program(graph: &Graph, node: &Node) -> bool {
    node.op == Op::Cast && node.outputs.iter().any(|id| !matches!(graph.value(*id).dtype, DType::F32 | DType::Bool))
}

/// Its operand must come from memory, where its type is known.
pub(super) fn starts_program(graph: &Graph, node: &Node) -> bool {
    node.op == Op::Cast && node.inputs.iter().any(|id| !matches!(graph.value(*id).dtype, DType::F32 | DType::Bool))
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
        let mut draft = Draft::default();
        draft.inputs.extend(first);
        for node in nodes {
            let result = draft.node(graph, node)?;
            draft.made.insert(*node.outputs.first()?, result);
        }
        let result = *draft.made.get(nodes.last()?.outputs.first()?)?;
        if draft.code.len().checked_sub(1).map(Ref::Made) != Some(result) {
            draft.emit(EltOp::Move, &[result], 0.0);
        }
        shorten(&mut draft.code);
        draft.registers()
    }
}

impl Draft {
    fn emit(&mut self, op: EltOp, args: &[Ref], imm: f32) -> Ref {
        self.code.push((op, args.to_vec(), imm));
        Ref::Made(self.code.len() - 1)
    }

    fn read(&mut self, graph: &Graph, id: ValueId) -> Ref {
        if let Some(made) = self.made.get(&id) {
            return *made;
        }
        if let Some(i) = self.inputs.iter().position(|&known| known == id) {
            return Ref::Input(i);
        }
        if let Some(value) = scalar(graph, id) {
            let made = self.emit(EltOp::Const, &[], value);
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

    fn unary(&mut self, op: UnaryOp, x: Ref) -> Option<Ref> {
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
            UnaryOp::Reciprocal => Some(self.emit(EltOp::RevDivImm, &[x], 1.0)),
            UnaryOp::Not => Some(self.emit(EltOp::RevSubImm, &[x], 1.0)),
            UnaryOp::IsNan => {
                let number = self.emit(EltOp::Equal, &[x, x], 0.0);
                Some(self.emit(EltOp::RevSubImm, &[number], 1.0))
            }
            UnaryOp::Tan => {
                let [sin, cos] = [EltOp::Sin, EltOp::Cos].map(|op| self.emit(op, &[x], 0.0));
                Some(self.emit(EltOp::Div, &[sin, cos], 0.0))
            }
            UnaryOp::Sinh | UnaryOp::Cosh => {
                let up = self.emit(EltOp::Exp, &[x], 0.0);
                let down = self.emit(EltOp::RevDivImm, &[up], 1.0);
                let both = self.emit(if op == UnaryOp::Sinh { EltOp::Sub } else { EltOp::Add }, &[up, down], 0.0);
                Some(self.emit(EltOp::MulImm, &[both], 0.5))
            }
            // sign(x) · ln(|x| + √(x² + 1)); ln(x + √(x² − 1)); ½ ln((1 + x) ÷ (1 − x)).
            UnaryOp::Asinh | UnaryOp::Acosh => {
                let a = if op == UnaryOp::Asinh { self.emit(EltOp::Abs, &[x], 0.0) } else { x };
                let square = self.emit(EltOp::Mul, &[x, x], 0.0);
                let inner = self.emit(EltOp::AddImm, &[square], if op == UnaryOp::Asinh { 1.0 } else { -1.0 });
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
                let up = self.emit(EltOp::AddImm, &[x], 1.0);
                let down = self.emit(EltOp::RevSubImm, &[x], 1.0);
                let ratio = self.emit(EltOp::Div, &[up, down], 0.0);
                let log = self.emit(EltOp::Log, &[ratio], 0.0);
                Some(self.emit(EltOp::MulImm, &[log], 0.5))
            }
            UnaryOp::Asin | UnaryOp::Acos | UnaryOp::Atan => None,
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
            BinaryOp::Mod | BinaryOp::Rem => return None,
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
            code.push(EltInstr { op: *op, dst: dst as u32, src, imm: canonical(*imm) });
        }
        Some(Program { inputs: self.inputs, registers, code })
    }
}
