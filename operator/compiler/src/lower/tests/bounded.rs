//! Results with as many rows as the data says, against the reference evaluator.

use super::*;

fn outputs_of(net: &Net) -> Vec<ValueId> {
    net.graph.nodes.last().expect("a node").outputs.clone()
}

#[test]
fn indices_of_what_is_not_zero() {
    for dtype in [DType::F32, DType::Bool, DType::I64, DType::U16] {
        let mut net = Net::default();
        let x = net.input(dtype, &[3, 4, 5]);
        // Of the floats only those that a bound leaves.
        let x = if dtype == DType::F32 { net.relu(x) } else { x };
        net.add(Op::NonZero, &[x]);
        let outputs = outputs_of(&net);
        net.check(&outputs);
    }
}

#[test]
fn rows_that_differ() {
    for sorted in [false, true] {
        for (dtype, shape) in [
            (DType::F32, &[40][..]),
            (DType::Bool, &[9, 3]),
            (DType::I64, &[50, 1]),
            (DType::U16, &[1]),
            (DType::F32, &[7, 2, 2]),
        ] {
            let mut net = Net::default();
            let mut x = net.input(dtype, shape);
            if dtype == DType::F32 {
                x = net.add(Op::Unary(UnaryOp::Sign), &[x]);
            }
            net.add(Op::Unique { sorted }, &[x]);
            let outputs = outputs_of(&net);
            net.check(&outputs);
        }
    }
}

#[test]
fn boxes_that_overlap_no_better_one() {
    for (centered, iou, score, limit) in
        [(false, 0.5, None, 20), (true, 0.3, Some(0.2), 20), (false, 0.0, Some(-0.5), 3), (true, 1.0, None, 7)]
    {
        let mut net = Net::default();
        let (boxes, scores) = (net.input(DType::F32, &[2, 20, 4]), net.input(DType::F32, &[2, 3, 20]));
        // Scores in steps, so that some are equal.
        let scores = net.add(Op::Unary(UnaryOp::Round), &[scores]);
        net.add(Op::Suppress { limit, centered, iou, score }, &[boxes, scores]);
        let outputs = outputs_of(&net);
        net.check(&outputs);
    }
}
