//! Programs of 64-bit registers: every operation of both domains, every type on the way in and on the way out.

use ballast_plan::record::List;
use ballast_plan::step::{Elt, Operand, Wide};
use ballast_plan::{At, DType, Domain, EltInstr, EltOp};

use crate::bench::Bench;

/// `a op b` over `n` elements of 64 bits; `Select` takes `c`.
fn one(domain: Domain, dtype: DType, op: EltOp, operands: [&[u64]; 3]) -> (Bench, Wide) {
    let mut bench = Bench::default();
    let n = operands[0].len();
    let mut src = [0; 3];
    (0..op.reads()).for_each(|i| src[i] = i as u32);
    if op == EltOp::Const {
        src = [0x89ab_cdef, 0x4123_4567, 0];
    }
    let operand = |at| Operand { at, dtype, strides: [0, 0, 0, 0, 0, 1] };
    let places = operands.map(|v| {
        let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        operand(bench.arena_bytes(&bytes))
    });
    let elt = Elt {
        program: bench.builder.program(3, 4, &[EltInstr { op, dst: 3, src, imm: 0.0 }]),
        dims: [1, 1, 1, 1, 1, n as u32],
        out: bench.room(n as u64 * 8),
        dtype,
        operands: List::new(&places).unwrap(),
    };
    (bench, Wide { domain, elt })
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
}

#[test]
fn integers_are_exact() {
    let ends = [0, 1, -1, 2, -2, 7, -7, 63, 64, 65, 200, i64::MAX, i64::MIN, i64::MAX - 1, 1 << 53, (1 << 53) + 1];
    // Every pair, more than a strip of them.
    let pairs: Vec<(i64, i64)> = ends.iter().flat_map(|a| ends.iter().map(move |b| (*a, *b))).collect();
    let column = |f: &dyn Fn(usize) -> i64| -> Vec<u64> { (0..pairs.len()).map(|i| f(i) as u64).collect() };
    let (a, b) = (column(&|i| pairs[i].0), column(&|i| pairs[i].1));
    let c = column(&|i| i64::from(i % 3 != 0));
    type Naive = fn(i128, i128) -> i128;
    // Worked out in 128 bits and cut.
    let cases: [(EltOp, Naive); 25] = [
        (EltOp::Move, |a, _| a),
        (EltOp::Const, |_, _| 0x4123_4567_89ab_cdef),
        (EltOp::Add, |a, b| a + b),
        (EltOp::Sub, |a, b| a - b),
        (EltOp::Mul, |a, b| a * b),
        (EltOp::Div, |a, b| if b == 0 { 0 } else { a / b }),
        (EltOp::Rem, |a, b| if b == 0 { 0 } else { a % b }),
        (EltOp::Mod, |a, b| if b == 0 { 0 } else { a - b * (a as f64 / b as f64).floor() as i128 }),
        (EltOp::Min, |a, b| a.min(b)),
        (EltOp::Max, |a, b| a.max(b)),
        (EltOp::Neg, |a, _| -a),
        (EltOp::Abs, |a, _| a.abs()),
        (EltOp::Sign, |a, _| a.signum()),
        (EltOp::And, |a, b| a & b),
        (EltOp::Or, |a, b| a | b),
        (EltOp::Xor, |a, b| a ^ b),
        (EltOp::Shl, |a, b| if (0..64).contains(&b) { a << b } else { 0 }),
        (EltOp::Shr, |a, b| if (0..64).contains(&b) { i128::from(a as u64) >> b } else { 0 }),
        (EltOp::Sar, |a, b| a >> (b & 63)),
        (EltOp::DivUnsigned, |a, b| if b == 0 { 0 } else { i128::from(a as u64) / i128::from(b as u64) }),
        (EltOp::RemUnsigned, |a, b| if b == 0 { 0 } else { i128::from(a as u64) % i128::from(b as u64) }),
        (EltOp::Equal, |a, b| i128::from(a == b)),
        (EltOp::Less, |a, b| i128::from(a < b)),
        (EltOp::LessOrEqual, |a, b| i128::from(a <= b)),
        (EltOp::Select, |_, _| 0),
    ];
    for (op, naive) in cases {
        let (bench, step) = one(Domain::I64, DType::I64, op, [&a, &b, &c]);
        for (level, got) in bench.run(step, step.elt.out, a.len() * 8) {
            for (i, got) in words(&got).into_iter().enumerate() {
                let (x, y) = (i128::from(a[i] as i64), i128::from(b[i] as i64));
                let want = match op {
                    EltOp::Select => {
                        if c[i] != 0 {
                            x
                        } else {
                            y
                        }
                    }
                    // The quotient's float is off there.
                    EltOp::Mod if x.abs() > 1 << 50 || y.abs() > 1 << 50 => {
                        x.checked_rem_euclid(y).map_or(0, |rest| if rest != 0 && y < 0 { rest + y } else { rest })
                    }
                    _ => naive(x, y),
                };
                assert_eq!(got, want as u64, "{op:?} of {x} and {y}, {level}");
            }
        }
    }
    // Powers, one factor after the other.
    let bases: Vec<i64> = vec![0, 1, -1, 2, -2, 3, -7, 10, i64::MAX, i64::MIN];
    let powers = [0i64, 1, 2, 3, 13, 40, 63, 64, -1, -2];
    let a: Vec<u64> = bases.iter().flat_map(|a| [*a as u64; 10]).collect();
    let b: Vec<u64> = bases.iter().flat_map(|_| powers.map(|p| p as u64)).collect();
    for op in [EltOp::Pow, EltOp::PowUnsigned] {
        let (bench, step) = one(Domain::I64, DType::I64, op, [&a, &b, &b]);
        for (level, got) in bench.run(step, step.elt.out, a.len() * 8) {
            for (i, got) in words(&got).into_iter().enumerate() {
                let (x, y) = (a[i] as i64, b[i] as i64);
                let want = match y {
                    0.. => (0..y).fold(1i64, |p, _| p.wrapping_mul(x)),
                    _ if op == EltOp::PowUnsigned => continue,
                    _ if x == 1 || x == -1 => x * if y % 2 == 0 { x } else { 1 },
                    _ => 0,
                };
                assert_eq!(got, want as u64, "{op:?} of {x} and {y}, {level}");
            }
        }
    }
}

#[test]
fn doubles_are_as_the_standard_library_has_them() {
    let n = 300;
    let a: Vec<f64> = (0..n).map(|i| f64::from(i) * 0.037 - 5.1).collect();
    let b: Vec<f64> = (0..n).map(|i| f64::from((i * 7) % 11) - 4.5).collect();
    let c: Vec<f64> = (0..n).map(|i| f64::from(i % 2)).collect();
    let bits = |v: &[f64]| -> Vec<u64> { v.iter().map(|x| x.to_bits()).collect() };
    type Naive = fn(f64, f64) -> f64;
    let cases: [(EltOp, Naive); 30] = [
        (EltOp::Move, |a, _| a),
        (EltOp::Const, |_, _| f64::from_bits(0x4123_4567_89ab_cdef)),
        (EltOp::Add, |a, b| a + b),
        (EltOp::Sub, |a, b| a - b),
        (EltOp::Mul, |a, b| a * b),
        (EltOp::Div, |a, b| a / b),
        (EltOp::Rem, |a, b| a % b),
        (EltOp::Min, f64::min),
        (EltOp::Max, f64::max),
        (EltOp::Neg, |a, _| -a),
        (EltOp::Abs, |a, _| a.abs()),
        (EltOp::Sign, |a, _| if a == 0.0 { 0.0 } else { a.signum() }),
        (EltOp::Equal, |a, b| f64::from(u8::from(a == b))),
        (EltOp::Less, |a, b| f64::from(u8::from(a < b))),
        (EltOp::LessOrEqual, |a, b| f64::from(u8::from(a <= b))),
        (EltOp::Sqrt, |a, _| a.sqrt()),
        (EltOp::Exp, |a, _| a.exp()),
        (EltOp::Log, |a, _| a.ln()),
        (EltOp::Tanh, |a, _| a.tanh()),
        (EltOp::Sigmoid, |a, _| 1.0 / (1.0 + (-a).exp())),
        (EltOp::Floor, |a, _| a.floor()),
        (EltOp::Ceil, |a, _| a.ceil()),
        (EltOp::Round, |a, _| a.round_ties_even()),
        (EltOp::Trunc, |a, _| a.trunc()),
        (EltOp::Sin, |a, _| a.sin()),
        (EltOp::Cos, |a, _| a.cos()),
        (EltOp::Atan, |a, _| a.atan()),
        (EltOp::Pow, f64::powf),
        (EltOp::Select, |_, _| 0.0),
        // The integral of the bell curve, added up.
        (EltOp::Erf, |a, _| {
            let h = a / 2000.0;
            let f = |i: i32| (-(h * f64::from(i)).powi(2)).exp();
            let inner: f64 = (1..2000).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
            (f(0) + inner + f(2000)) * h / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
        }),
    ];
    for (op, naive) in cases {
        let (bench, step) = one(Domain::F64, DType::F64, op, [&bits(&a), &bits(&b), &bits(&c)]);
        for (level, got) in bench.run(step, step.elt.out, a.len() * 8) {
            for (i, got) in words(&got).into_iter().map(f64::from_bits).enumerate() {
                let want = match op {
                    EltOp::Select => {
                        if c[i] != 0.0 {
                            a[i]
                        } else {
                            b[i]
                        }
                    }
                    _ => naive(a[i], b[i]),
                };
                let same =
                    got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= 1e-12 * want.abs().max(1e-3);
                assert!(same, "{op:?} of {} and {}, {level}: {got}, not {want}", a[i], b[i]);
            }
        }
    }
}

/// These numbers as halves.
fn half(v: u8) -> u16 {
    match v {
        0 => 0,
        1 => 0x3c00,
        7 => 0x4700,
        _ => 0x5640,
    }
}

/// Five elements of a type that are in all of them, as bytes.
fn five(dtype: DType) -> Vec<u8> {
    [1u8, 0, 1, 7, 100]
        .iter()
        .flat_map(|&v| match dtype {
            DType::Bool => vec![u8::from(v != 0)],
            DType::U8 | DType::I8 => vec![v],
            DType::U16 | DType::I16 => u16::from(v).to_le_bytes().to_vec(),
            DType::U32 | DType::I32 => u32::from(v).to_le_bytes().to_vec(),
            DType::U64 | DType::I64 => u64::from(v).to_le_bytes().to_vec(),
            DType::F32 => f32::from(v).to_le_bytes().to_vec(),
            DType::F64 => f64::from(v).to_le_bytes().to_vec(),
            DType::F16 => half(v).to_le_bytes().to_vec(),
            DType::BF16 => ((f32::from(v).to_bits() >> 16) as u16).to_le_bytes().to_vec(),
        })
        .collect()
}

const TYPES: [DType; 13] = [
    DType::F32,
    DType::Bool,
    DType::U8,
    DType::I8,
    DType::I32,
    DType::I64,
    DType::F64,
    DType::U16,
    DType::I16,
    DType::U32,
    DType::U64,
    DType::F16,
    DType::BF16,
];

#[test]
fn every_type_becomes_every_other_in_every_domain() {
    for domain in [Domain::F32, Domain::F64, Domain::I64] {
        for from in TYPES {
            for to in TYPES {
                let mut bench = Bench::default();
                let at = bench.arena_bytes(&five(from));
                // Backwards: the stride counts elements of the type.
                let last = At::arena(at.offset() + 4 * from.size() as u32).unwrap();
                let operand = Operand { at: last, dtype: from, strides: [0, 0, 0, 0, 0, -1] };
                let elt = Elt {
                    program: bench.builder.program(
                        1,
                        2,
                        &[EltInstr { op: EltOp::Move, dst: 1, src: [0; 3], imm: 0.0 }],
                    ),
                    dims: [1, 1, 1, 1, 1, 5],
                    out: bench.room(40),
                    dtype: to,
                    operands: List::new(&[operand]).unwrap(),
                };
                let via_bool = from == DType::Bool;
                let forwards =
                    if via_bool { five(from).iter().flat_map(|&b| encode(to, b)).collect() } else { five(to) };
                let want: Vec<u8> = forwards.chunks_exact(to.size()).rev().flatten().copied().collect();
                let out = elt.out;
                let results = match domain {
                    Domain::F32 => bench.run(elt, out, want.len()),
                    _ => bench.run(Wide { domain, elt }, out, want.len()),
                };
                for (level, got) in results {
                    assert_eq!(got, want, "{from:?} to {to:?} in {domain:?}, {level}");
                }
            }
        }
    }
}

/// 0 or 1 as an element.
fn encode(dtype: DType, v: u8) -> Vec<u8> {
    let all = five(dtype);
    let place = if v == 0 { 1 } else { 0 };
    all[place * dtype.size()..][..dtype.size()].to_vec()
}

#[test]
fn integers_wrap_and_floats_are_held_on_the_way_out() {
    let convert = |domain, from: DType, bytes: &[u8], to: DType| {
        let mut bench = Bench::default();
        let n = bytes.len() / from.size();
        let elt = Elt {
            program: bench.builder.program(1, 2, &[EltInstr { op: EltOp::Move, dst: 1, src: [0; 3], imm: 0.0 }]),
            dims: [1, 1, 1, 1, 1, n as u32],
            dtype: to,
            operands: List::new(&[Operand { at: bench.arena_bytes(bytes), dtype: from, strides: [0, 0, 0, 0, 0, 1] }])
                .unwrap(),
            out: bench.room(8 * n as u64),
        };
        let out = elt.out;
        bench.run(Wide { domain, elt }, out, n * to.size())
    };
    let ints: Vec<u8> = [-1i64, 256 + 5, i64::MIN, -129].iter().flat_map(|v| v.to_le_bytes()).collect();
    for (_, got) in convert(Domain::I64, DType::I64, &ints, DType::U8) {
        assert_eq!(got, [255, 5, 0, 127]);
    }
    for (_, got) in convert(Domain::I64, DType::I64, &ints, DType::Bool) {
        assert_eq!(got, [1, 1, 1, 1]);
    }
    let floats: Vec<u8> = [-1.5f64, 300.7, f64::NAN, f64::INFINITY].iter().flat_map(|v| v.to_le_bytes()).collect();
    for (_, got) in convert(Domain::F64, DType::F64, &floats, DType::U8) {
        assert_eq!(got, [0, 255, 0, 255]);
    }
    for (_, got) in convert(Domain::F64, DType::F64, &floats, DType::F16) {
        let halves: Vec<u16> = got.chunks_exact(2).map(|c| u16::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(halves, [0xbe00, 0x5cb3, 0x7e00, 0x7c00]);
    }
    let unsigned: Vec<u8> = [u64::MAX, 1 << 63].iter().flat_map(|v| v.to_le_bytes()).collect();
    for (_, got) in convert(Domain::F64, DType::U64, &unsigned, DType::F64) {
        assert_eq!(words(&got), [18_446_744_073_709_551_615f64.to_bits(), 9_223_372_036_854_775_808f64.to_bits()]);
    }
}
