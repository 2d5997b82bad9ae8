//! A plan with a step of every kind, each as close to the end of its memory as it may be.

use ballast_plan::bounded::{NonZero, Suppress, Unique};
use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::control::{Block, Slide};
use ballast_plan::generic::{Address, Combine, Component, Contract, Pick, Put, Scan, Side, Top};
use ballast_plan::quantized::{Bytes, IntConv, IntDepthwise, IntGemm, Lookup, Packing, Requantize};
use ballast_plan::record::List;
use ballast_plan::step::{
    BiasOf, Conv, Copy, Depthwise, Elt, Epilogue, EpilogueOperand, Fill, Gather, Gemm, Layout, Matrix, Operand, Pool,
    PoolKind, Reduce, ReduceKind, Softmax, Wide, Window,
};
use ballast_plan::{At, DType, Domain, EltInstr, EltOp, PlanError, Step};

/// Bytes of weights that every plan here has.
pub const WEIGHTS: u32 = 1024;
/// Where results are written: the end of the arena is the end of the last of them.
const OUT: u32 = 4096;

pub fn arena(offset: u32) -> At {
    At::arena(offset).unwrap()
}

fn weights(floats: u32) -> At {
    At::weights(WEIGHTS - floats * 4).unwrap()
}

/// 5 × 7 with padding at stride 2: planes lie in scratch.
fn strided() -> Window {
    Window { ih: 5, iw: 7, oh: 3, ow: 4, kh: 3, kw: 3, sh: 2, sw: 2, pt: 1, pl: 1, dh: 1, dw: 1 }
}

/// 5 × 7, read as it lies, with a dilated window.
fn direct() -> Window {
    Window { ih: 5, iw: 7, oh: 3, ow: 3, kh: 2, kw: 3, sh: 1, sw: 1, pt: 0, pl: 0, dh: 2, dw: 2 }
}

/// Bias by row, a program, and an operand for every element: program 1 takes two.
fn epilogue(rows: u32, cols: u32) -> Epilogue {
    let operand = EpilogueOperand { at: arena(8), batch: rows * cols, row: cols, col: 1 };
    Epilogue {
        bias_of: BiasOf::Row,
        bias: weights(rows),
        low: 0.0,
        high: 6.0,
        program: 2,
        operands: List::new(&[operand]).unwrap(),
    }
}

/// Name, step, and bytes that it writes from [`OUT`] on.
pub fn steps() -> Vec<(&'static str, Step, u32)> {
    let side = |at, row, batch| Matrix { at, layout: Layout::Strided, row, col: 1, batch };
    let packed = |at| Matrix { at, layout: Layout::Packed, row: 0, col: 0, batch: 0 };
    let mut gemm = Gemm {
        batch: 2,
        m: 5,
        n: 18,
        k: 3,
        left: side(arena(0), 3, 15),
        right: side(arena(256), 18, 54),
        out: arena(OUT),
        out_row: 18,
        out_batch: 90,
        epilogue: epilogue(5, 18),
        scratch: arena(1024),
    };
    let scratchy = gemm.into();
    gemm.left = packed(weights(24));
    gemm.right = packed(weights(96));
    gemm.epilogue = Epilogue { bias_of: BiasOf::Column, bias: weights(18), ..Epilogue::default() };
    let conv = |window: Window| Conv {
        batch: 2,
        groups: 2,
        ic: 2,
        oc: 3,
        window,
        input: arena(0),
        weights: weights(2 * 4 * 2 * (window.kh * window.kw)),
        out: arena(OUT),
        epilogue: epilogue(6, window.oh * window.ow),
        scratch: arena(1200),
    };
    let depthwise = |window: Window| Depthwise {
        batch: 2,
        planes: 3,
        window,
        input: arena(0),
        weights: weights(3 * (window.kh * window.kw)),
        out: arena(OUT),
        epilogue: epilogue(3, window.oh * window.ow),
        scratch: arena(1024),
    };
    let pool = Pool {
        kind: PoolKind::MeanPadded,
        planes: 6,
        window: strided(),
        input: arena(0),
        out: arena(OUT),
        padded: [7, 9],
        scratch: arena(1024),
    };
    let copy = Copy {
        size: 8,
        dims: [1, 1, 2, 3, 4, 5],
        input: arena(4 * 8),
        input_strides: [0, 0, 60, 20, 5, -1],
        out: arena(OUT),
        out_strides: [0, 0, 1, 2, 6, 24],
    };
    let operand = |at, dtype, strides| Operand { at, dtype, strides };
    let elt = Elt {
        program: 1,
        dims: [1, 1, 1, 2, 3, 5],
        out: arena(OUT),
        dtype: DType::I64,
        operands: List::new(&[
            operand(weights(15), DType::F32, [0, 0, 0, 0, 5, 1]),
            operand(arena(29), DType::U8, [0, 0, 0, -15, -5, -1]),
        ])
        .unwrap(),
    };
    let wide = Wide {
        domain: Domain::I64,
        elt: Elt {
            program: 2,
            dtype: DType::F16,
            operands: List::new(&[
                operand(arena(29 * 4), DType::U32, [0, 0, 0, -15, -5, -1]),
                operand(weights(30), DType::U64, [0, 0, 0, 0, 5, 1]),
            ])
            .unwrap(),
            ..elt
        },
    };
    // Products of 2 × 3 × 4 and 4 × 5 numbers, with rows that overlap.
    let side = |at, dtype, outer, inner| Side { at, dtype, outer, inner };
    let contract = Contract {
        domain: Domain::I64,
        kind: ReduceKind::Sum,
        outer: [1, 1, 2, 2, 2, 5],
        inner: [1, 1, 3, 4],
        left: side(arena(99), DType::I8, [0, 0, 12, 40, -20, 0], [0, 0, 0, -4]),
        right: List::new(&[side(weights(34), DType::F32, [0, 0, 0, 0, 10, 1], [0, 0, 5, 3])]).unwrap(),
        dtype: DType::I32,
        out: arena(OUT),
    };
    let scan = Scan {
        domain: Domain::F64,
        dtype: DType::F64,
        outer: 3,
        len: 4,
        inner: 5,
        exclusive: 1,
        reverse: 1,
        input: arena(0),
        out: arena(OUT),
    };
    let top = Top {
        dtype: DType::F16,
        outer: 2,
        len: 7,
        inner: 5,
        k: 3,
        largest: 1,
        last: 0,
        nan_first: 0,
        input: arena(0),
        values: List::new(&[arena(2048)]).unwrap(),
        indices: arena(OUT),
        scratch: arena(1024),
    };
    // Two batches of three tuples of two numbers, in planes of 4 × 5 slices of 3.
    let component = |extent, stride| Component { extent, stride };
    let address = Address {
        dims: [1, 1, 1, 1, 2, 3],
        base: [0, 0, 0, 0, 60, 0],
        components: List::new(&[component(4, 15), component(5, 3)]).unwrap(),
        slice: 3,
        dtype: DType::I32,
        indices: arena(512),
    };
    let pick = Pick { address, size: 4, input: weights(120), out: arena(OUT) };
    let put = Put {
        address: Address { slice: 2, components: List::new(&[component(4, 15), component(2, 4)]).unwrap(), ..address },
        combine: Combine::Add,
        domain: Domain::F32,
        dtype: DType::BF16,
        updates: arena(0),
        out: arena(OUT),
    };
    let reduce = Reduce { kind: ReduceKind::Mean, outer: 3, len: 4, inner: 5, input: arena(0), out: arena(OUT) };
    let softmax = Softmax { outer: 3, len: 4, inner: 5, log: 0, input: arena(0), out: arena(OUT) };
    let gather = Gather {
        outer: 2,
        axis: 4,
        bytes: 12,
        count: 3,
        dtype: DType::I64,
        indices: arena(512),
        input: arena(0),
        out: arena(OUT),
    };
    let after = |dtype, rows| Requantize {
        dtype,
        biased: 1,
        bias: weights(rows),
        factors: weights(rows),
        zero: 3,
        low: 0,
        high: 100,
    };
    let bytes = |at, row, batch| Bytes { at, dtype: DType::U8, zero: at, row, col: 1, batch };
    let int_gemm = IntGemm {
        batch: 2,
        m: 5,
        n: 18,
        k: 3,
        packing: Packing::Strided,
        left: bytes(arena(0), 3, 15),
        right: bytes(arena(256), 18, 54),
        out: arena(OUT),
        out_row: 1,
        out_col: 5,
        out_batch: 90,
        after: after(DType::F32, 5),
        scratch: arena(1024),
    };
    let packed_gemm = IntGemm {
        packing: Packing::Words,
        left: Bytes { at: At::weights(WEIGHTS - 64).unwrap(), ..Bytes::default() },
        after: after(DType::I8, 5),
        ..int_gemm
    };
    let int_conv = |window: Window| IntConv {
        batch: 2,
        groups: 2,
        ic: 2,
        oc: 3,
        window,
        input: arena(0),
        dtype: DType::I8,
        zero: arena(5),
        packing: Packing::Bytes,
        weights: At::weights(WEIGHTS - 2 * 4 * (2 * window.kh * window.kw).next_multiple_of(4)).unwrap(),
        out: arena(OUT),
        after: after(DType::U8, 6),
        scratch: arena(1200),
    };
    let int_depthwise = |window: Window| IntDepthwise {
        batch: 2,
        planes: 3,
        window,
        input: arena(0),
        dtype: DType::I8,
        zero: arena(5),
        weights: At::weights(WEIGHTS - 3 * 4 * (window.kh * window.kw).div_ceil(2)).unwrap(),
        out: arena(OUT),
        after: after(DType::I32, 3),
        scratch: arena(1024),
    };
    let lookup = Lookup { count: 77, input: arena(3), table: weights(64), out: arena(OUT) };
    let non_zero = NonZero {
        dtype: DType::U16,
        rank: 3,
        dims: [2, 3, 4, 1, 1, 1, 1, 1],
        input: arena(0),
        out: arena(OUT),
        count: arena(1024),
    };
    let suppress = Suppress {
        batch: 2,
        classes: 3,
        boxes: 5,
        limit: 4,
        centered: 0,
        scored: 1,
        iou: 0.5,
        score: 0.1,
        corners: arena(0),
        scores: weights(30),
        out: arena(OUT),
        count: arena(1024),
        scratch: arena(1032),
    };
    let unique = Unique {
        dtype: DType::F64,
        rows: 6,
        len: 3,
        sorted: 1,
        input: weights(36),
        values: arena(0),
        first: arena(1024),
        inverse: arena(1072),
        counts: arena(OUT),
        count: arena(1120),
        scratch: arena(1128),
    };
    vec![
        ("non zero", non_zero.into(), 576),
        ("suppress", suppress.into(), 576),
        ("unique", unique.into(), 48),
        ("fill", Fill { out: arena(OUT), words: 7, value: 0 }.into(), 28),
        ("copy", copy.into(), 960),
        ("elt", elt.into(), 240),
        ("gemm", scratchy, 720),
        ("gemm of packed sides", gemm.into(), 720),
        ("conv", conv(strided()).into(), 576),
        ("direct conv", conv(direct()).into(), 432),
        ("depthwise", depthwise(strided()).into(), 288),
        ("direct depthwise", depthwise(direct()).into(), 216),
        ("pool", pool.into(), 288),
        ("reduce", reduce.into(), 60),
        ("softmax", softmax.into(), 240),
        ("gather", gather.into(), 72),
        ("int gemm", int_gemm.into(), 720),
        ("int gemm of a packed side", packed_gemm.into(), 180),
        ("int conv", int_conv(strided()).into(), 144),
        ("direct int conv", int_conv(direct()).into(), 108),
        ("int depthwise", int_depthwise(strided()).into(), 288),
        ("direct int depthwise", int_depthwise(direct()).into(), 216),
        ("lookup", lookup.into(), 77),
        ("wide", wide.into(), 60),
        ("contract", contract.into(), 160),
        ("contract of one side", Contract { kind: ReduceKind::Max, right: List::default(), ..contract }.into(), 160),
        ("scan", scan.into(), 480),
        ("top", top.into(), 240),
        ("top of one", Top { k: 1, values: List::default(), ..top }.into(), 80),
        ("pick", pick.into(), 72),
        ("put", put.into(), 222),
    ]
}

/// A repeat over rows in both directions, with a gate, a branch and a repeat inside; it needs 4,096 bytes.
pub fn nested() -> Block {
    let fill = |at| Block::Step(Fill { out: arena(at), words: 2, value: 3 }.into());
    let slide = |from, from_step, to, to_step| Slide { from: arena(from), from_step, to: arena(to), to_step, bytes: 8 };
    let inner = Block::Repeat {
        count: 2,
        gate: None,
        before: vec![slide(64, 8, 128, 0)],
        after: vec![],
        body: vec![fill(136)],
    };
    Block::Repeat {
        count: 4,
        gate: Some(arena(4095)),
        before: vec![slide(0, 8, 256, 0), slide(56, -8, 264, 0)],
        after: vec![slide(256, 0, 4056, 8), slide(264, 0, 256, 0)],
        body: vec![
            fill(264),
            Block::Branch { condition: arena(256), then: vec![fill(272), inner], otherwise: vec![fill(280)] },
        ],
    }
}

/// A plan of these steps over an arena of this many bytes.
pub fn plan(steps: &[Step], arena_bytes: u32, weights_bytes: u32) -> Result<Vec<u8>, PlanError> {
    plan_of(&steps.iter().copied().map(Block::from).collect::<Vec<_>>(), arena_bytes, weights_bytes)
}

fn plan_of(blocks: &[Block], arena_bytes: u32, weights_bytes: u32) -> Result<Vec<u8>, PlanError> {
    let mut builder = PlanBuilder::new();
    let instr = |op, dst, src| EltInstr { op, dst, src, imm: 0.5 };
    builder.program(1, 2, &[instr(EltOp::Tanh, 1, [0; 3])]);
    builder.program(2, 4, &[instr(EltOp::Mul, 2, [0, 1, 0]), instr(EltOp::MulAdd, 3, [2, 0, 1])]);
    builder.program(2, 4, &[instr(EltOp::Const, 2, [7, 8, 0]), instr(EltOp::Xor, 3, [0, 2, 0])]);
    let def = |name: &str, dims: &[u32], at| TensorDef { name: name.into(), dtype: DType::F32, dims: dims.into(), at };
    builder.entry_of("main", vec![def("x", &[2, 3], 0)], vec![def("y", &[7], 8)], blocks);
    builder.finish(arena_bytes, weights_bytes, 1)
}

/// All of them in one plan, and its bytes of arena: behind the longest result nothing is left.
pub fn everything() -> Vec<u8> {
    let all = steps();
    let written = all.iter().map(|&(_, _, bytes)| bytes).max().unwrap();
    let blocks: Vec<Block> = all.iter().map(|&(_, step, _)| step.into()).chain([nested()]).collect();
    plan_of(&blocks, OUT + written, WEIGHTS).unwrap()
}

#[test]
fn a_step_may_use_its_memory_to_the_last_byte_and_no_further() {
    for (name, step, written) in steps() {
        let arena = OUT + written;
        plan(&[step], arena, WEIGHTS).unwrap_or_else(|e| panic!("{name}: {e}"));
        let error = plan(&[step], arena - 1, WEIGHTS).unwrap_err();
        assert!(matches!(error, PlanError::OutOfBounds { step: 0 }), "{name}: {error}");
        if super::touch::touches(&step).iter().any(|t| t.weights) {
            let error = plan(&[step], arena, WEIGHTS - 1).unwrap_err();
            assert!(matches!(error, PlanError::OutOfBounds { step: 0 }), "{name}: {error}");
        }
    }
}

#[test]
fn weights_are_never_written() {
    let values = List::new(&[At::weights(0).unwrap()]).unwrap();
    let top =
        steps().into_iter().find_map(|(_, step, _)| if let Step::Top(s) = step { Some(s) } else { None }).unwrap();
    let error = plan(&[Top { values, ..top }.into()], OUT + 240, WEIGHTS).unwrap_err();
    assert!(matches!(error, PlanError::OutOfBounds { step: 0 }), "{error}");

    for (name, step, written) in steps() {
        let out = At::weights(0).unwrap();
        let step = match step {
            Step::Fill(s) => Fill { out, ..s }.into(),
            Step::Copy(s) => Copy { out, ..s }.into(),
            Step::Elt(s) => Elt { out, ..s }.into(),
            Step::Gemm(s) => Gemm { out, ..s }.into(),
            Step::Conv(s) => Conv { out, ..s }.into(),
            Step::Depthwise(s) => Depthwise { out, ..s }.into(),
            Step::Pool(s) => Pool { out, ..s }.into(),
            Step::Reduce(s) => Reduce { out, ..s }.into(),
            Step::Softmax(s) => Softmax { out, ..s }.into(),
            Step::Gather(s) => Gather { out, ..s }.into(),
            Step::IntGemm(s) => IntGemm { out, ..s }.into(),
            Step::IntConv(s) => IntConv { out, ..s }.into(),
            Step::IntDepthwise(s) => IntDepthwise { out, ..s }.into(),
            Step::Lookup(s) => Lookup { out, ..s }.into(),
            Step::NonZero(s) => NonZero { out, ..s }.into(),
            Step::Suppress(s) => Suppress { out, ..s }.into(),
            Step::Unique(s) => Unique { inverse: out, ..s }.into(),
            Step::Wide(s) => Wide { elt: Elt { out, ..s.elt }, ..s }.into(),
            Step::Contract(s) => Contract { out, ..s }.into(),
            Step::Scan(s) => Scan { out, ..s }.into(),
            Step::Top(s) => Top { indices: out, ..s }.into(),
            Step::Pick(s) => Pick { out, ..s }.into(),
            Step::Put(s) => Put { out, ..s }.into(),
        };
        let error = plan(&[step], OUT + written, WEIGHTS).unwrap_err();
        assert!(matches!(error, PlanError::OutOfBounds { step: 0 }), "{name}: {error}");
    }
}
