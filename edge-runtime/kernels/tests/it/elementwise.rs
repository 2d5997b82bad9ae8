//! Element-wise programs, copies, reductions, softmax.

use ballast_plan::record::List;
use ballast_plan::step::{Copy, Elt, Fill, Gather, Operand, Reduce, ReduceKind, Softmax};
use ballast_plan::{DType, EltInstr, EltOp};

use crate::bench::{Bench, bytes, floats};

#[test]
fn every_operation_does_what_it_says() {
    // Whole vectors of eight, one of four, and the rest of one.
    let n = 303;
    let a: Vec<f32> = floats(1, n).iter().map(|v| v * 4.0).collect();
    let (b, c) = (floats(2, n), floats(3, n).iter().map(|v| v.round()).collect::<Vec<_>>());
    let truth = |t: bool| f32::from(u8::from(t));
    type Case<'a> = (EltOp, f32, Box<dyn Fn(f32, f32, f32) -> f32 + 'a>);
    let cases: Vec<Case<'_>> = vec![
        (EltOp::Move, 0.0, Box::new(|a, _, _| a)),
        (EltOp::Const, 1.5, Box::new(|_, _, _| 1.5)),
        (EltOp::Add, 0.0, Box::new(|a, b, _| a + b)),
        (EltOp::Sub, 0.0, Box::new(|a, b, _| a - b)),
        (EltOp::Mul, 0.0, Box::new(|a, b, _| a * b)),
        (EltOp::Div, 0.0, Box::new(|a, b, _| a / b)),
        (EltOp::Min, 0.0, Box::new(|a, b, _| a.min(b))),
        (EltOp::Max, 0.0, Box::new(|a, b, _| a.max(b))),
        (EltOp::MulAdd, 0.0, Box::new(|a, b, c| a * b + c)),
        (EltOp::AddImm, 2.0, Box::new(|a, _, _| a + 2.0)),
        (EltOp::MulImm, 2.0, Box::new(|a, _, _| a * 2.0)),
        (EltOp::MinImm, 0.5, Box::new(|a, _, _| a.min(0.5))),
        (EltOp::MaxImm, 0.5, Box::new(|a, _, _| a.max(0.5))),
        (EltOp::RevSubImm, 1.0, Box::new(|a, _, _| 1.0 - a)),
        (EltOp::RevDivImm, 1.0, Box::new(|a, _, _| 1.0 / a)),
        (EltOp::Neg, 0.0, Box::new(|a, _, _| -a)),
        (EltOp::Abs, 0.0, Box::new(|a, _, _| a.abs())),
        (EltOp::Sqrt, 0.0, Box::new(|a, _, _| a.sqrt())),
        (EltOp::Exp, 0.0, Box::new(|a, _, _| a.exp())),
        (EltOp::Log, 0.0, Box::new(|a, _, _| a.ln())),
        (EltOp::Tanh, 0.0, Box::new(|a, _, _| a.tanh())),
        (EltOp::Sigmoid, 0.0, Box::new(|a, _, _| 1.0 / (1.0 + (-a).exp()))),
        (EltOp::Floor, 0.0, Box::new(|a, _, _| a.floor())),
        (EltOp::Ceil, 0.0, Box::new(|a, _, _| a.ceil())),
        (EltOp::Round, 0.0, Box::new(|a, _, _| a.round_ties_even())),
        (EltOp::Trunc, 0.0, Box::new(|a, _, _| a.trunc())),
        (EltOp::Sign, 0.0, Box::new(|a, _, _| if a == 0.0 { 0.0 } else { a.signum() })),
        (EltOp::HardSwish, 0.0, Box::new(|a, _, _| a * (a + 3.0).clamp(0.0, 6.0) / 6.0)),
        (EltOp::Equal, 0.0, Box::new(|a, b, _| truth(a == b))),
        (EltOp::Less, 0.0, Box::new(|a, b, _| truth(a < b))),
        (EltOp::LessOrEqual, 0.0, Box::new(|a, b, _| truth(a <= b))),
        (EltOp::Select, 0.0, Box::new(|a, b, c| if c != 0.0 { a } else { b })),
        (EltOp::Pow, 0.0, Box::new(|a, b, _| a.powf(b))),
        (EltOp::Sin, 0.0, Box::new(|a, _, _| a.sin())),
        (EltOp::Cos, 0.0, Box::new(|a, _, _| a.cos())),
    ];
    for (op, imm, f) in cases {
        let mut bench = Bench::default();
        let want: Vec<f32> = (0..n).map(|i| f(a[i], b[i], c[i])).collect();
        let mut src = [0; 3];
        (0..op.reads()).for_each(|i| src[i] = i as u32);
        let operand = |at| Operand { at, dtype: DType::F32, strides: [0, 0, 0, 0, 0, 1] };
        let operands = [bench.arena(&a), bench.arena(&b), bench.arena(&c)].map(operand);
        let step = Elt {
            program: bench.builder.program(3, 4, &[EltInstr { op, dst: 3, src, imm }]),
            dims: [1, 1, 1, 1, 1, n as u32],
            out: bench.room(n as u64 * 4),
            dtype: DType::F32,
            operands: List::new(&operands).unwrap(),
        };
        bench.expect(step, step.out, &want, &format!("{op:?}"));
    }
}

#[test]
fn operands_broadcast_turn_and_convert() {
    let [x, y, z] = [3usize, 4, 270];
    let full = floats(1, x * y * z);
    let row: Vec<i64> = (0..z as i64).collect();
    let turned = floats(3, y * x);
    let mut bench = Bench::default();
    let row_bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
    let operands = [
        Operand { at: bench.arena(&full), dtype: DType::F32, strides: [0, 0, 0, (y * z) as i32, z as i32, 1] },
        Operand { at: bench.arena_bytes(&row_bytes), dtype: DType::I64, strides: [0, 0, 0, 0, 0, 1] },
        Operand { at: bench.arena(&turned), dtype: DType::F32, strides: [0, 0, 0, 1, x as i32, 0] },
    ];
    let code = [
        EltInstr { op: EltOp::Add, dst: 3, src: [0, 1, 0], imm: 0.0 },
        EltInstr { op: EltOp::Mul, dst: 4, src: [3, 2, 0], imm: 0.0 },
    ];
    let mut step = Elt {
        program: bench.builder.program(3, 5, &code),
        dims: [1, 1, 1, x as u32, y as u32, z as u32],
        out: bench.room((x * y * z * 4) as u64),
        dtype: DType::F32,
        operands: List::new(&operands).unwrap(),
    };
    let want: Vec<f32> =
        (0..x * y * z).map(|i| (full[i] + row[i % z] as f32) * turned[i / z % y * x + i / (y * z)]).collect();
    bench.clone().expect(step, step.out, &want, "broadcast");

    step.dtype = DType::I32;
    for (level, got) in bench.run(step, step.out, want.len() * 4) {
        let got = got.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()));
        assert!(got.zip(&want).all(|(g, &w)| g == w as i32), "{level}");
    }
}

/// The error function by its Taylor series, in doubles: exact enough for |x| ≤ 3.
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    (sum * 2.0 / std::f64::consts::PI.sqrt()) as f32
}

#[test]
fn chains_of_any_length_leave_no_element_out() {
    for n in (1..=18).chain([31, 33, 255, 257, 1025]) {
        let (a, b) = (floats(1, n).iter().map(|v| v * 3.0).collect::<Vec<_>>(), floats(2, n));
        let instr = |op, dst, src, imm| EltInstr { op, dst, src, imm };
        // GELU, then a gate: what exporters make of a transformer's feed-forward and of a recurrent cell.
        let code = [
            instr(EltOp::MulImm, 2, [0, 0, 0], std::f32::consts::FRAC_1_SQRT_2),
            instr(EltOp::Erf, 2, [2, 0, 0], 0.0),
            instr(EltOp::AddImm, 2, [2, 0, 0], 1.0),
            instr(EltOp::Mul, 2, [2, 0, 0], 0.0),
            instr(EltOp::MulImm, 2, [2, 0, 0], 0.5),
            instr(EltOp::Sigmoid, 3, [1, 0, 0], 0.0),
            instr(EltOp::Tanh, 4, [2, 0, 0], 0.0),
            instr(EltOp::MulAdd, 4, [3, 4, 1], 0.0),
        ];
        let want: Vec<f32> = (0..n)
            .map(|i| {
                let gelu = 0.5 * a[i] * (1.0 + erf(a[i] * std::f32::consts::FRAC_1_SQRT_2));
                gelu.tanh() / (1.0 + (-b[i]).exp()) + b[i]
            })
            .collect();
        let mut bench = Bench::default();
        let operand = |at| Operand { at, dtype: DType::F32, strides: [0, 0, 0, 0, 0, 1] };
        let operands = [bench.arena(&a), bench.arena(&b)].map(operand);
        let step = Elt {
            program: bench.builder.program(2, 5, &code),
            dims: [1, 1, 1, 1, 1, n as u32],
            out: bench.room(n as u64 * 4),
            dtype: DType::F32,
            operands: List::new(&operands).unwrap(),
        };
        bench.expect(step, step.out, &want, &format!("{n} elements"));
    }
}

#[test]
fn a_program_may_write_over_any_of_its_operands() {
    for n in (1..=40).chain([63, 64, 65, 127, 129, 1000]) {
        let values = [floats(1, n), floats(2, n), floats(3, n)];
        for over in 0..values.len() {
            let mut bench = Bench::default();
            let places = [0, 1, 2].map(|i| bench.arena(&values[i]));
            // The first reads what the last writes over; the last reads all.
            let code = [
                EltInstr { op: EltOp::MulImm, dst: 3, src: [over as u32, 0, 0], imm: 2.0 },
                EltInstr { op: EltOp::Add, dst: 3, src: [3, 0, 0], imm: 0.0 },
                EltInstr { op: EltOp::MulAdd, dst: 4, src: [3, 1, 2], imm: 0.0 },
            ];
            let operands = places.map(|at| Operand { at, dtype: DType::F32, strides: [0, 0, 0, 0, 0, 1] });
            let step = Elt {
                program: bench.builder.program(3, 5, &code),
                dims: [1, 1, 1, 1, 1, n as u32],
                out: places[over],
                dtype: DType::F32,
                operands: List::new(&operands).unwrap(),
            };
            let [a, b, c] = &values;
            let want: Vec<f32> = (0..n).map(|i| (2.0 * values[over][i] + a[i]) * b[i] + c[i]).collect();
            bench.expect(step, step.out, &want, &format!("{n} elements over operand {over}"));
        }
    }
}

#[test]
fn hard_swish_is_exact_where_it_is_straight() {
    let x = [
        f32::NAN,
        f32::NEG_INFINITY,
        -f32::MAX,
        -3.5,
        -3.0,
        -f32::MIN_POSITIVE / 4.0,
        -0.0,
        f32::MIN_POSITIVE / 4.0,
        1.5,
        3.0,
        7.3,
        f32::MAX,
        f32::INFINITY,
    ];
    let half = f32::MIN_POSITIVE / 8.0;
    // Left of everything is 0 · −∞.
    let want = [f32::NAN, f32::NAN, 0.0, 0.0, 0.0, -half, 0.0, half, 1.125, 3.0, 7.3, f32::MAX, f32::INFINITY];
    let mut bench = Bench::default();
    let operands = [Operand { at: bench.arena(&x), dtype: DType::F32, strides: [0, 0, 0, 0, 0, 1] }];
    let step = Elt {
        program: bench.builder.program(1, 2, &[EltInstr { op: EltOp::HardSwish, dst: 1, src: [0; 3], imm: 0.0 }]),
        dims: [1, 1, 1, 1, 1, x.len() as u32],
        out: bench.room(x.len() as u64 * 4),
        dtype: DType::F32,
        operands: List::new(&operands).unwrap(),
    };
    for (level, got) in bench.run(step, step.out, x.len() * 4) {
        let got = got.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        for (i, (g, &w)) in got.zip(&want).enumerate() {
            assert!(g == w || g.is_nan() && w.is_nan(), "{level}: of {} comes {g}, not {w}", x[i]);
        }
    }
}

#[test]
fn copies_turn_reverse_and_repeat() {
    let [x, y, z] = [5usize, 33, 18];
    let a = floats(1, x * y * z);
    let mut bench = Bench::default();
    let at = bench.arena(&a);
    let strides = |s: [i32; 3]| [0, 0, 0, s[0], s[1], s[2]];
    let mut step = Copy {
        size: 4,
        dims: [1, 1, 1, x as u32, y as u32, z as u32],
        input: at,
        input_strides: strides([(y * z) as i32, z as i32, 1]),
        out: bench.room((x * y * z * 4) as u64),
        out_strides: strides([1, x as i32, (x * y) as i32]),
    };
    let turned: Vec<f32> = (0..x * y * z).map(|i| a[i % x * y * z + i / x % y * z + i / (x * y)]).collect();
    bench.clone().expect(step, step.out, &turned, "transpose");

    step.out_strides = step.input_strides;
    step.input_strides = strides([0, z as i32, -1]);
    step.input = ballast_plan::At::arena(at.offset() + (z as u32 - 1) * 4).unwrap();
    let reversed: Vec<f32> = (0..x * y * z).map(|i| a[i / z % y * z + z - 1 - i % z]).collect();
    bench.expect(step, step.out, &reversed, "reverse, repeated");
}

#[test]
fn fill_and_gather() {
    let mut bench = Bench::default();
    let out = bench.room(40);
    bench.expect(Fill { out, words: 10, value: 2.5f32.to_bits() }, out, &[2.5; 10], "fill");

    let a = floats(1, 2 * 4 * 3);
    let indices: Vec<u8> = [3i64, -4, 99, i64::MIN].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut bench = Bench::default();
    let step = Gather {
        outer: 2,
        axis: 4,
        bytes: 12,
        count: 4,
        dtype: DType::I64,
        indices: bench.arena_bytes(&indices),
        input: bench.arena_bytes(&bytes(&a)),
        out: bench.room(2 * 4 * 12),
    };
    let pick = [3, 0, 3, 0];
    let want: Vec<f32> = (0..24).map(|i| a[i / 12 * 12 + pick[i / 3 % 4] * 3 + i % 3]).collect();
    bench.expect(step, step.out, &want, "gather");
}

#[test]
fn reductions_and_softmax() {
    for shape @ [outer, len, inner] in [[1, 1, 1], [3, 100, 1], [2, 37, 1], [2, 9, 5], [1, 3, 64], [4, 5, 2]] {
        let a = floats(1, outer * len * inner);
        let lanes = |f: &dyn Fn(&[f32]) -> Vec<f32>| {
            let mut out = vec![0f32; a.len()];
            let mut length = 0;
            for o in 0..outer {
                for i in 0..inner {
                    let lane: Vec<f32> = (0..len).map(|l| a[(o * len + l) * inner + i]).collect();
                    let result = f(&lane);
                    length = result.len();
                    for (l, v) in result.into_iter().enumerate() {
                        out[(o * length + l) * inner + i] = v;
                    }
                }
            }
            out.truncate(outer * length * inner);
            out
        };
        type Naive = fn(&[f32]) -> f32;
        let kinds: [(ReduceKind, Naive); 7] = [
            (ReduceKind::Sum, |l| l.iter().sum()),
            (ReduceKind::Mean, |l| l.iter().sum::<f32>() / l.len() as f32),
            (ReduceKind::Max, |l| l.iter().copied().fold(f32::MIN, f32::max)),
            (ReduceKind::Min, |l| l.iter().copied().fold(f32::MAX, f32::min)),
            (ReduceKind::Product, |l| l.iter().product()),
            (ReduceKind::SumSquares, |l| l.iter().map(|v| v * v).sum()),
            (ReduceKind::SumAbs, |l| l.iter().map(|v| v.abs()).sum()),
        ];
        let [o, l, i] = shape.map(|v| v as u32);
        for (kind, naive) in kinds {
            let mut bench = Bench::default();
            let want = lanes(&|lane| vec![naive(lane)]);
            let step = Reduce {
                kind,
                outer: o,
                len: l,
                inner: i,
                input: bench.arena(&a),
                out: bench.room(want.len() as u64 * 4),
            };
            bench.expect(step, step.out, &want, &format!("{kind:?} {shape:?}"));
        }
        for log in [0, 1] {
            let mut bench = Bench::default();
            let want = lanes(&|lane| {
                let sum: f32 = lane.iter().map(|v| v.exp()).sum();
                lane.iter().map(|v| if log == 1 { v - sum.ln() } else { v.exp() / sum }).collect()
            });
            let at = bench.arena(&a);
            let step = Softmax { outer: o, len: l, inner: i, log, input: at, out: at };
            bench.expect(step, at, &want, &format!("softmax {log} {shape:?}"));
        }
    }
}
