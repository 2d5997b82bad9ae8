//! Hard-swish is one instruction, however a model writes it out.

use ballast_plan::EltOp;

use super::*;

/// Adds one form of it.
type Form = fn(&mut Net, ValueId) -> ValueId;

fn clip(net: &mut Net, x: ValueId, low: f32, high: f32) -> ValueId {
    let [low, high] = [low, high].map(|v| net.scalar(v));
    let x = net.binary(BinaryOp::Max, x, low);
    net.binary(BinaryOp::Min, high, x)
}

fn with(net: &mut Net, op: BinaryOp, x: ValueId, value: f32) -> ValueId {
    let value = net.scalar(value);
    net.binary(op, x, value)
}

const FORMS: [(&str, Form); 4] = [
    ("divided last", Net::hard_swish),
    ("gate divided", |net, x| {
        let shifted = with(net, BinaryOp::Add, x, 3.0);
        let gate = clip(net, shifted, 0.0, 6.0);
        let gate = with(net, BinaryOp::Div, gate, 6.0);
        net.binary(BinaryOp::Mul, x, gate)
    }),
    ("hard sigmoid", |net, x| {
        let scaled = with(net, BinaryOp::Mul, x, 1.0 / 6.0);
        let shifted = with(net, BinaryOp::Add, scaled, 0.5);
        let gate = clip(net, shifted, 0.0, 1.0);
        net.binary(BinaryOp::Mul, gate, x)
    }),
    ("times a sixth last", |net, x| {
        let shifted = with(net, BinaryOp::Add, x, 3.0);
        let gate = clip(net, shifted, 0.0, 6.0);
        let product = net.binary(BinaryOp::Mul, gate, x);
        with(net, BinaryOp::Mul, product, 0.166_666_67)
    }),
];

/// The operations of all programs of a net with one output.
fn programs(mut net: Net, output: ValueId) -> Vec<Vec<EltOp>> {
    net.graph.outputs = vec![output];
    net.graph.output_names = vec!["y".into()];
    let lowered = lower(&net.graph, &target()).expect("lowers");
    let plan = Plan::parse(&lowered.plan).expect("parses");
    (0..).map_while(|i| plan.program(i)).map(|p| p.code().map(|i| i.op).collect()).collect()
}

/// A net with this form where `place` says, and what its programs must be.
fn net(form: Form, place: &str) -> (Net, ValueId, Vec<EltOp>) {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[1, 4, 9, 11]);
    let (y, ops) = match place {
        "alone" => (form(&mut net, x), vec![EltOp::HardSwish]),
        "behind a convolution" => {
            let y = net.conv(x, 6, 3, 1, 1);
            (form(&mut net, y), vec![EltOp::HardSwish])
        }
        "behind a depthwise convolution" => {
            let y = net.conv(x, 4, 3, 2, 4);
            (form(&mut net, y), vec![EltOp::HardSwish])
        }
        _ => {
            let other = net.input(DType::F32, &[1, 4, 9, 11]);
            let sum = net.binary(BinaryOp::Add, x, other);
            let swish = form(&mut net, sum);
            (net.binary(BinaryOp::Sub, swish, other), vec![EltOp::Add, EltOp::HardSwish, EltOp::Sub])
        }
    };
    (net, y, ops)
}

#[test]
fn every_form_is_one_instruction_and_means_the_same() {
    for (name, form) in FORMS {
        for place in ["alone", "behind a convolution", "behind a depthwise convolution", "in a chain"] {
            let (built, y, wanted) = net(form, place);
            assert_eq!(programs(built, y), [wanted], "{name}, {place}");
            let (built, y, _) = net(form, place);
            assert_eq!(built.check(&[y]).len(), 1, "{name}, {place}");
        }
    }
}

#[test]
fn a_gate_that_is_read_elsewhere_is_made_all_the_same() {
    let mut net = Net::default();
    let x = net.input(DType::F32, &[2, 70]);
    let shifted = with(&mut net, BinaryOp::Add, x, 3.0);
    let gate = clip(&mut net, shifted, 0.0, 6.0);
    let product = net.binary(BinaryOp::Mul, x, gate);
    let swish = with(&mut net, BinaryOp::Div, product, 6.0);
    let sum = net.binary(BinaryOp::Add, swish, gate);
    // As an operand inside of the program, then as an output of its own.
    net.check(&[sum]);
    let mut net = Net::default();
    let x = net.input(DType::F32, &[2, 70]);
    let shifted = with(&mut net, BinaryOp::Add, x, 3.0);
    let gate = clip(&mut net, shifted, 0.0, 6.0);
    let product = net.binary(BinaryOp::Mul, x, gate);
    let swish = with(&mut net, BinaryOp::Div, product, 6.0);
    net.check(&[swish, gate]);
}
