//! Products in every layout, with every epilogue.

use ballast_kernels::product::{pack_left, pack_right};
use ballast_plan::record::List;
use ballast_plan::step::{BiasOf, Epilogue, EpilogueOperand, Gemm, Layout, Matrix};
use ballast_plan::{EltInstr, EltOp};

use crate::bench::{Bench, floats};
use crate::naive;

pub fn open() -> Epilogue {
    Epilogue { low: f32::NEG_INFINITY, high: f32::INFINITY, ..Epilogue::default() }
}

/// One product with the sides packed or not, transposed or not.
fn product(
    mut bench: Bench,
    [m, n, k]: [usize; 3],
    left: Option<bool>,
    right: Option<bool>,
    epilogue: Epilogue,
) -> (Bench, Gemm) {
    let (a, b) = (floats(1, m * k), floats(2, k * n));
    let left = match left {
        None => {
            let packed: Vec<f32> = pack_left(m, k, |r, c| a[r * k + c]).collect();
            Matrix { at: bench.weights(&packed), layout: Layout::Packed, ..Matrix::default() }
        }
        Some(false) => Matrix { at: bench.arena(&a), row: k as u32, col: 1, ..Matrix::default() },
        Some(true) => {
            let turned: Vec<f32> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
            Matrix { at: bench.arena(&turned), row: 1, col: m as u32, ..Matrix::default() }
        }
    };
    let right = match right {
        None => {
            let packed: Vec<f32> = pack_right(k, n, |r, c| b[r * n + c]).collect();
            Matrix { at: bench.weights(&packed), layout: Layout::Packed, ..Matrix::default() }
        }
        Some(false) => Matrix { at: bench.arena(&b), row: n as u32, col: 1, ..Matrix::default() },
        Some(true) => {
            let turned: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            Matrix { at: bench.arena(&turned), row: 1, col: k as u32, ..Matrix::default() }
        }
    };
    let mut step = Gemm {
        batch: 1,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        left,
        right,
        out: bench.room((m * n * 4) as u64),
        out_row: n as u32,
        out_batch: 0,
        epilogue,
        ..Gemm::default()
    };
    step.scratch = bench.room(step.scratch_bytes());
    (bench, step)
}

#[test]
fn products_of_all_layouts_and_sizes() {
    let sizes = [
        [1, 1, 1],
        [4, 16, 2],
        [5, 17, 3],
        [3, 1, 300],
        [37, 1, 19],
        [1, 40, 65],
        [70, 150, 260],
        [66, 13, 513],
        [8, 1100, 5],
    ];
    for size in sizes {
        let want = naive::product(size, &floats(1, size[0] * size[2]), &floats(2, size[2] * size[1]));
        for left in [None, Some(false), Some(true)] {
            for right in [None, Some(false), Some(true)] {
                let (bench, step) = product(Bench::default(), size, left, right, open());
                bench.expect(step, step.out, &want, &format!("{size:?} {left:?} {right:?}"));
            }
        }
    }
}

#[test]
fn bias_bounds_and_program_follow_a_product() {
    for size @ [m, n, k] in [[5, 19, 7], [6, 1, 9], [9, 300, 270]] {
        let raw = naive::product(size, &floats(1, m * k), &floats(2, k * n));
        for bias_of in [BiasOf::Row, BiasOf::Column] {
            let mut bench = Bench::default();
            let bias = floats(3, if bias_of == BiasOf::Row { m } else { n });
            let (residual, scale) = (floats(4, m * n), floats(5, m));
            let code = [
                EltInstr { op: EltOp::Mul, dst: 3, src: [0, 2, 0], imm: 0.0 },
                EltInstr { op: EltOp::Add, dst: 4, src: [3, 1, 0], imm: 0.0 },
                EltInstr { op: EltOp::HardSwish, dst: 3, src: [4, 0, 0], imm: 0.0 },
            ];
            let operands = [
                EpilogueOperand { at: bench.arena(&residual), batch: 0, row: n as u32, col: 1 },
                EpilogueOperand { at: bench.arena(&scale), batch: 0, row: 1, col: 0 },
            ];
            let epilogue = Epilogue {
                bias_of,
                bias: bench.weights(&bias),
                low: -0.5,
                high: 0.75,
                program: 1 + bench.builder.program(3, 5, &code),
                operands: List::new(&operands).unwrap(),
            };
            let want: Vec<f32> = (0..m * n)
                .map(|i| {
                    let b = if bias_of == BiasOf::Row { bias[i / n] } else { bias[i % n] };
                    let x = (raw[i] + b).clamp(-0.5, 0.75) * scale[i / n] + residual[i];
                    x * (x + 3.0).clamp(0.0, 6.0) / 6.0
                })
                .collect();
            for left in [None, Some(false)] {
                let (bench, step) = product(bench.clone(), size, left, Some(false), epilogue);
                bench.expect(step, step.out, &want, &format!("{size:?} {bias_of:?} {left:?}"));
            }
        }
    }
}

#[test]
fn batches_repeat_what_has_no_stride() {
    let (m, n, k, batch) = (3, 5, 4, 3);
    let mut bench = Bench::default();
    let (a, b) = (floats(1, m * k), floats(2, batch * k * n));
    let step = Gemm {
        batch: batch as u32,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        left: Matrix { at: bench.arena(&a), row: k as u32, col: 1, ..Matrix::default() },
        right: Matrix { at: bench.arena(&b), row: n as u32, col: 1, batch: (k * n) as u32, layout: Layout::Strided },
        out: bench.room((batch * m * n * 4) as u64),
        out_row: n as u32,
        out_batch: (m * n) as u32,
        epilogue: open(),
        ..Gemm::default()
    };
    let step = Gemm { scratch: bench.room(step.scratch_bytes()), ..step };
    let want: Vec<f32> = b.chunks_exact(k * n).flat_map(|b| naive::product([m, n, k], &a, b)).collect();
    bench.expect(step, step.out, &want, "batch");
}

#[test]
fn nan_survives_bounds() {
    let mut bench = Bench::default();
    let packed: Vec<f32> = pack_left(5, 2, |_, _| 1.0).collect();
    for n in [1usize, 20] {
        let mut right = vec![0.5f32; 2 * n];
        right[n - 1] = f32::NAN;
        let step = Gemm {
            batch: 1,
            m: 5,
            n: n as u32,
            k: 2,
            left: Matrix { at: bench.weights(&packed), layout: Layout::Packed, ..Matrix::default() },
            right: Matrix { at: bench.arena(&right), row: n as u32, col: 1, ..Matrix::default() },
            out: bench.room(5 * n as u64 * 4),
            out_row: n as u32,
            epilogue: Epilogue { low: 0.0, high: 6.0, ..open() },
            ..Gemm::default()
        };
        let step = Gemm { scratch: bench.room(step.scratch_bytes()), ..step };
        let want: Vec<f32> = (0..5 * n).map(|i| if i % n == n - 1 { f32::NAN } else { 1.0 }).collect();
        bench.clone().expect(step, step.out, &want, "NaN");
    }
}
