//! Integers of every width are exact; doubles are doubles; halves are stored.

use super::*;

const INTS: [DType; 8] = [DType::U8, DType::I8, DType::U16, DType::I16, DType::U32, DType::I32, DType::U64, DType::I64];

#[test]
fn every_operation_on_integers_of_every_width() {
    for dtype in INTS {
        for op in [
            BinaryOp::Add,
            BinaryOp::Sub,
            BinaryOp::Mul,
            BinaryOp::Div,
            BinaryOp::Pow,
            BinaryOp::Min,
            BinaryOp::Max,
            BinaryOp::Mod,
            BinaryOp::Rem,
            BinaryOp::And,
            BinaryOp::Or,
            BinaryOp::Xor,
            BinaryOp::ShiftLeft,
            BinaryOp::Equal,
            BinaryOp::Less,
            BinaryOp::LessOrEqual,
        ] {
            let mut net = Net { seed: 7, ..Net::default() };
            let [a, b] = [vec![3, 50], vec![50]].map(|shape| net.input(dtype, &shape));
            let y = net.binary(op, a, b);
            assert_eq!(net.check(&[y]).len(), 1, "{op:?} of {dtype}");
        }
        for op in [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign, UnaryOp::Not] {
            let mut net = Net::default();
            let x = net.input(dtype, &[300]);
            let y = net.add(Op::Unary(op), &[x]);
            assert_eq!(net.check(&[y]).len(), 1, "{op:?} of {dtype}");
        }
    }
    for dtype in [DType::U8, DType::U16, DType::U32, DType::U64] {
        let mut net = Net::default();
        let x = net.input(dtype, &[300]);
        let by = net.graph.add_constant("by", Arc::new(Tensor::int(dtype, vec![], vec![3])));
        let y = net.binary(BinaryOp::ShiftRight, x, by);
        net.check(&[y]);
    }
}

/// What overflows in the middle of a chain wraps before it is divided, compared or widened.
#[test]
fn chains_of_integers_are_one_step_and_wrap_on_the_way() {
    for dtype in INTS {
        let mut net = Net::default();
        let [a, b] = [(); 2].map(|()| net.input(dtype, &[2, 77]));
        let three = net.graph.add_constant("three", Arc::new(Tensor::int(dtype, vec![], vec![3])));
        let sum = net.binary(BinaryOp::Add, a, b);
        let product = net.binary(BinaryOp::Mul, sum, a);
        let part = net.binary(BinaryOp::Div, product, three);
        let less = net.add(Op::Unary(UnaryOp::Neg), &[part]);
        let wide = net.add_as(Op::Cast, &[less], Some((DType::I64, &[2, 77])));
        let back = net.add_as(Op::Cast, &[wide], Some((DType::I16, &[2, 77])));
        // To I64 and I32 small integers go through f32.
        let steps = net.check(&[back]);
        assert!(steps.len() <= 3, "{dtype}: {}", kinds(&steps));
    }
}

#[test]
fn casts_between_all_types() {
    let all = [INTS.as_slice(), &[DType::Bool, DType::F32, DType::F64, DType::F16, DType::BF16]].concat();
    for from in &all {
        let mut net = Net { seed: 3, ..Net::default() };
        let x = net.input(*from, &[3, 50]);
        let outputs: Vec<ValueId> =
            all.iter().filter(|to| *to != from).map(|to| net.add_as(Op::Cast, &[x], Some((*to, &[3, 50])))).collect();
        net.check(&outputs);
    }
}

#[test]
fn choices_and_comparisons_of_wide_types() {
    for dtype in [DType::I64, DType::U64, DType::F64, DType::I32] {
        let mut net = Net::default();
        let mask = net.input(DType::Bool, &[4, 33]);
        let [a, b] = [(); 2].map(|()| net.input(dtype, &[4, 33]));
        let less = net.binary(BinaryOp::Less, a, b);
        let both = net.binary(BinaryOp::Or, less, mask);
        let y = net.add(Op::Select, &[both, a, b]);
        let z = net.binary(BinaryOp::Max, y, b);
        net.check(&[z, less]);
    }
}

#[test]
fn doubles_are_computed_in_their_own_width() {
    for op in [
        UnaryOp::Neg,
        UnaryOp::Abs,
        UnaryOp::Sign,
        UnaryOp::Floor,
        UnaryOp::Ceil,
        UnaryOp::Round,
        UnaryOp::Sqrt,
        UnaryOp::Reciprocal,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Sin,
        UnaryOp::Cos,
        UnaryOp::Tan,
        UnaryOp::Asin,
        UnaryOp::Acos,
        UnaryOp::Atan,
        UnaryOp::Sinh,
        UnaryOp::Cosh,
        UnaryOp::Tanh,
        UnaryOp::Asinh,
        UnaryOp::Acosh,
        UnaryOp::Atanh,
        UnaryOp::Erf,
        UnaryOp::Sigmoid,
        UnaryOp::IsNan,
    ] {
        for dtype in [DType::F64, DType::F32] {
            let mut net = Net::default();
            let x = net.input(dtype, &[200]);
            let y = net.add(Op::Unary(op), &[x]);
            assert_eq!(net.check(&[y]).len(), 1, "{op:?}");
        }
    }
    for op in [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Pow, BinaryOp::Rem, BinaryOp::Min]
    {
        for dtype in [DType::F64, DType::F32] {
            let mut net = Net::default();
            let [a, b] = [(); 2].map(|()| net.input(dtype, &[200]));
            let y = net.binary(op, a, b);
            net.check(&[y]);
        }
    }
    let mut net = Net::default();
    let x = net.input(DType::F64, &[5, 8]);
    let third = net.graph.add_constant("c", Arc::new(Tensor::f64(vec![], vec![1.0 / 3.0])));
    let scaled = net.binary(BinaryOp::Mul, x, third);
    let moved = net.add(Op::Transpose { perm: vec![1, 0] }, &[scaled]);
    let joined = net.add(Op::Concat { axis: 0 }, &[moved, moved]);
    let steps = net.check(&[joined]);
    assert_eq!(kinds(&steps), "Wide Copy Copy Copy");
}
