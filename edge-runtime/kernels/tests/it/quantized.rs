//! Products of bytes against sums in 64 bits: every packing, type and edge, and the extremes that must not saturate on the way.

use ballast_kernels::quantized::pack_pairs;
use ballast_plan::quantized::{Bytes, IntConv, IntDepthwise, IntGemm, Lookup, Packing, Requantize};
use ballast_plan::step::{At, DType, Window};

use crate::bench::{Bench, floats};
use crate::windows::windows;

/// Random bytes from a seed, both ends among them.
fn random(seed: u64, n: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = floats(seed, n).iter().map(|x| (x * 128.0 + 128.0).clamp(0.0, 255.0) as u8).collect();
    bytes.iter_mut().enumerate().for_each(|(i, b)| match i % 7 {
        1 => *b = 0x80,
        4 => *b = 0x7f,
        5 => *b = 0,
        6 => *b = 0xff,
        _ => {}
    });
    bytes
}

fn value(dtype: DType, byte: u8) -> i64 {
    if dtype == DType::I8 { i64::from(byte.cast_signed()) } else { i64::from(byte) }
}

/// `[rows]` of exact sums with what follows them, as the step's definition has it.
fn finish(after: &Requantize, bias: &[i32], factors: &[f32], row: usize, sum: i64) -> Vec<u8> {
    let total = (sum as i32).wrapping_add(if after.biased == 1 { bias[row] } else { 0 });
    if after.dtype == DType::I32 {
        return total.to_le_bytes().to_vec();
    }
    let scaled = total as f32 * factors[row];
    if after.dtype == DType::F32 {
        return scaled.to_le_bytes().to_vec();
    }
    let rounded = f64::from(scaled).round_ties_even() + f64::from(after.zero);
    vec![(rounded.clamp(after.low.into(), after.high.into()) as i64) as u8]
}

/// Places for bias and factors of `rows`, in all the forms in which they come.
fn afters(bench: &mut Bench, rows: usize) -> (Vec<Requantize>, Vec<i32>, Vec<f32>) {
    let bias: Vec<i32> = floats(7, rows).iter().map(|x| (x * 40_000.0) as i32).collect();
    // Halves among them: 2⁻¹¹ of odd sums.
    let factors: Vec<f32> =
        (0..rows).map(|r| if r % 3 == 0 { 1.0 / 2048.0 } else { 0.0003 + 0.000_1 * r as f32 }).collect();
    let bias_bytes: Vec<u8> = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
    let base = Requantize {
        biased: 1,
        bias: bench.arena_bytes(&bias_bytes),
        factors: bench.weights(&factors),
        ..Requantize::default()
    };
    let forms = vec![
        Requantize { dtype: DType::I32, ..base },
        Requantize { dtype: DType::F32, ..base },
        Requantize { dtype: DType::U8, zero: 128, low: 0, high: 255, ..base },
        Requantize { dtype: DType::U8, zero: 3, low: 3, high: 200, biased: 0, ..base },
        Requantize { dtype: DType::I8, zero: -7, low: -128, high: 127, ..base },
    ];
    (forms, bias, factors)
}

/// The left side of a product in a packing, and what its values are.
fn left(bench: &mut Bench, packing: Packing, [m, k]: [usize; 2]) -> (Bytes, Vec<i64>) {
    let raw = random(1, m * k);
    match packing {
        Packing::Strided => {
            let zero = bench.arena_bytes(&[0x83]);
            let values = raw.iter().map(|&b| value(DType::U8, b) - 0x83).collect();
            (Bytes { at: bench.arena_bytes(&raw), dtype: DType::U8, zero, row: k as u32, col: 1, batch: 0 }, values)
        }
        Packing::Bytes => {
            let values: Vec<i64> = raw.iter().map(|&b| value(DType::I8, b)).collect();
            let packed: Vec<u8> = pack_pairs(m, k, |r, c| values[r * k + c] as i16).map(|v| v as u8).collect();
            (Bytes { at: bench.arena_bytes(&packed), ..Bytes::default() }, values)
        }
        Packing::Words => {
            let values: Vec<i64> = raw.iter().map(|&b| value(DType::U8, b) - 255).collect();
            let packed: Vec<u8> =
                pack_pairs(m, k, |r, c| values[r * k + c] as i16).flat_map(i16::to_le_bytes).collect();
            (Bytes { at: bench.arena_bytes(&packed), ..Bytes::default() }, values)
        }
    }
}

#[test]
fn products_of_bytes_are_exact() {
    let sizes = [
        [1, 1, 1],
        [4, 16, 4],
        [5, 17, 3],
        [3, 1, 301],
        [37, 1, 19],
        [9, 40, 65],
        [8, 3, 130],
        [66, 18, 33],
        [2, 33, 700],
    ];
    for [m, n, k] in sizes {
        for packing in [Packing::Strided, Packing::Bytes, Packing::Words] {
            for (dtype, zero) in [(DType::U8, 131u8), (DType::I8, 0x85)] {
                for turned in [false, true] {
                    let mut bench = Bench::default();
                    let (left, a) = left(&mut bench, packing, [m, k]);
                    let raw = random(2, k * n);
                    let b: Vec<i64> = raw.iter().map(|&x| value(dtype, x) - value(dtype, zero)).collect();
                    let lying: Vec<u8> =
                        if turned { (0..k * n).map(|i| raw[i % k * n + i / k]).collect() } else { raw.clone() };
                    let (row, col) = if turned { (1, k) } else { (n, 1) };
                    let right = Bytes {
                        at: bench.arena_bytes(&lying),
                        dtype,
                        zero: bench.arena_bytes(&[zero]),
                        row: row as u32,
                        col: col as u32,
                        batch: 0,
                    };
                    let (forms, bias, factors) = afters(&mut bench, m);
                    for after in forms {
                        // Turned: the result is written by columns too.
                        let (out_row, out_col) = if turned { (1, m) } else { (n, 1) };
                        let mut want = vec![Vec::new(); m * n];
                        for r in 0..m {
                            for c in 0..n {
                                let sum = (0..k).map(|i| a[r * k + i] * b[i * n + c]).sum();
                                want[r * out_row + c * out_col] = finish(&after, &bias, &factors, r, sum);
                            }
                        }
                        let want = want.concat();
                        let mut bench = bench.clone();
                        let mut step = IntGemm {
                            batch: 1,
                            m: m as u32,
                            n: n as u32,
                            k: k as u32,
                            packing,
                            left,
                            right,
                            out: bench.room(want.len() as u64),
                            out_row: out_row as u32,
                            out_col: out_col as u32,
                            out_batch: 0,
                            after,
                            scratch: At::default(),
                        };
                        step.scratch = bench.room(step.scratch_bytes());
                        for (level, got) in bench.run(step, step.out, want.len()) {
                            assert_eq!(
                                got, want,
                                "{level} {m}×{n}×{k} {packing:?} {dtype:?} {turned} {:?}",
                                after.dtype
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_products_do_not_saturate() {
    // −255 · −255 and −128 · −128 over the whole depth, in every pair.
    let (m, n, k) = (4, 16, 512);
    for (packing, weight) in [(Packing::Bytes, -128i16), (Packing::Words, -255)] {
        let mut bench = Bench::default();
        let packed = pack_pairs(m, k, |_, _| weight);
        let packed: Vec<u8> = match packing {
            Packing::Words => packed.flat_map(i16::to_le_bytes).collect(),
            _ => packed.map(|v| v as u8).collect(),
        };
        let (byte, zero) = if packing == Packing::Words { (0u8, 255u8) } else { (0x80, 0) };
        let right = Bytes {
            at: bench.arena_bytes(&vec![byte; k * n]),
            dtype: if packing == Packing::Words { DType::U8 } else { DType::I8 },
            zero: bench.arena_bytes(&[zero]),
            row: n as u32,
            col: 1,
            batch: 0,
        };
        let mut step = IntGemm {
            batch: 1,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            packing,
            left: Bytes { at: bench.arena_bytes(&packed), ..Bytes::default() },
            right,
            out: bench.room((m * n * 4) as u64),
            out_row: n as u32,
            out_col: 1,
            after: Requantize { dtype: DType::I32, ..Requantize::default() },
            ..IntGemm::default()
        };
        step.scratch = bench.room(step.scratch_bytes());
        let want = i32::from(weight) * i32::from(weight) * k as i32;
        for (level, got) in bench.run(step, step.out, m * n * 4) {
            assert!(got.chunks_exact(4).all(|w| w == want.to_le_bytes()), "{level} {packing:?}");
        }
    }
}

/// What a tap of a window reads, its zero point taken off: padding is 0.
fn tap(w: &Window, plane: &[i64], [y, x, ky, kx]: [u32; 4]) -> i64 {
    let row = (y * w.sh + ky * w.dh).checked_sub(w.pt).filter(|&r| r < w.ih);
    let col = (x * w.sw + kx * w.dw).checked_sub(w.pl).filter(|&c| c < w.iw);
    row.zip(col).map_or(0, |(r, c)| plane[(r * w.iw + c) as usize])
}

fn sums([batch, groups, ic, oc]: [usize; 4], w: &Window, input: &[i64], weights: &[i64]) -> Vec<i64> {
    let (plane, taps) = ((w.ih * w.iw) as usize, (w.kh * w.kw) as usize);
    let mut out = Vec::new();
    for image in 0..batch {
        for o in 0..groups * oc {
            for pixel in 0..w.oh * w.ow {
                let mut sum = 0;
                for i in 0..ic {
                    let from = &input[((image * groups + o / oc) * ic + i) * plane..][..plane];
                    for t in 0..taps as u32 {
                        let at = [pixel / w.ow, pixel % w.ow, t / w.kw, t % w.kw];
                        sum += weights[(o * ic + i) * taps + t as usize] * tap(w, from, at);
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

#[test]
fn convolutions_of_bytes_are_exact() {
    for w in windows() {
        for shape @ [batch, groups, ic, oc] in [[1, 1, 1, 1], [2, 1, 3, 5], [1, 2, 4, 8], [1, 5, 1, 1], [2, 3, 1, 1]] {
            for (dtype, zero) in [(DType::U8, 131u8), (DType::I8, 0x85)] {
                let mut bench = Bench::default();
                let depth = ic * (w.kh * w.kw) as usize;
                let raw = random(1, batch * groups * ic * (w.ih * w.iw) as usize);
                let input: Vec<i64> = raw.iter().map(|&b| value(dtype, b) - value(dtype, zero)).collect();
                let weights: Vec<i64> = random(2, groups * oc * depth).iter().map(|&b| value(DType::I8, b)).collect();
                let (forms, bias, factors) = afters(&mut bench, groups * oc);
                let (pixels, rows) = (w.pixels() as usize, groups * oc);
                let sums = sums(shape, &w, &input, &weights);
                let (input, zero) = (bench.arena_bytes(&raw), bench.arena_bytes(&[zero]));
                for after in [forms[0], forms[3], forms[4]] {
                    let want: Vec<u8> = sums
                        .iter()
                        .enumerate()
                        .flat_map(|(i, &sum)| finish(&after, &bias, &factors, i / pixels % rows, sum))
                        .collect();
                    let mut bench = bench.clone();
                    let out = bench.room(want.len() as u64);
                    let [batch, groups_, ic_, oc_] = shape.map(|v| v as u32);
                    let mut conv = IntConv {
                        batch,
                        groups: groups_,
                        ic: ic_,
                        oc: oc_,
                        window: w,
                        input,
                        dtype,
                        zero,
                        out,
                        after,
                        ..IntConv::default()
                    };
                    conv.scratch = bench.room(conv.scratch_bytes());
                    for packing in [Packing::Bytes, Packing::Words] {
                        let packed = weights
                            .chunks_exact(oc * depth)
                            .flat_map(|group| pack_pairs(oc, depth, move |r, c| group[r * depth + c] as i16));
                        let packed: Vec<u8> = match packing {
                            Packing::Words => packed.flat_map(i16::to_le_bytes).collect(),
                            _ => packed.map(|v| v as u8).collect(),
                        };
                        let mut bench = bench.clone();
                        let step = IntConv { packing, weights: bench.arena_bytes(&packed), ..conv };
                        for (level, got) in bench.run(step, out, want.len()) {
                            assert_eq!(got, want, "{level} {shape:?} {packing:?} {dtype:?} {:?} {w:?}", after.dtype);
                        }
                    }
                    if [ic, oc] != [1, 1] {
                        continue;
                    }
                    let mut pairs = Vec::new();
                    for plane in weights.chunks_exact(depth) {
                        let padded = plane.iter().copied().chain((depth % 2 == 1).then_some(0));
                        pairs.extend(padded.flat_map(|v| (v as i16).to_le_bytes()));
                    }
                    let mut step = IntDepthwise {
                        batch,
                        planes: groups_,
                        window: w,
                        input,
                        dtype,
                        zero,
                        weights: bench.arena_bytes(&pairs),
                        out,
                        after,
                        ..IntDepthwise::default()
                    };
                    step.scratch = bench.room(step.scratch_bytes());
                    for (level, got) in bench.run(step, out, want.len()) {
                        assert_eq!(got, want, "{level} depthwise {shape:?} {dtype:?} {:?} {w:?}", after.dtype);
                    }
                }
            }
        }
    }
}

#[test]
fn a_table_is_looked_up() {
    let mut bench = Bench::default();
    let (input, table) = (random(3, 77), random(4, 256));
    let want: Vec<u8> = input.iter().map(|&i| table[usize::from(i)]).collect();
    let at = bench.arena_bytes(&input);
    let table = bench.arena_bytes(&table);
    for out in [at, bench.room(77)] {
        let step = Lookup { count: 77, input: at, table, out };
        for (level, got) in bench.clone().run(step, out, 77) {
            assert_eq!(got, want, "{level}");
        }
    }
}
