//! Convolutions and pooling over windows of every kind.

use ballast_kernels::product::pack_left;
use ballast_plan::step::{BiasOf, Conv, Depthwise, Epilogue, Pool, PoolKind, Window};
use ballast_plan::{EltInstr, EltOp};

use crate::bench::{Bench, floats};
use crate::naive;
use crate::products::open;

/// A window with the output that fits `padding` on both sides.
fn window(
    [ih, iw]: [u32; 2],
    [kh, kw]: [u32; 2],
    [sh, sw]: [u32; 2],
    [pt, pl]: [u32; 2],
    [dh, dw]: [u32; 2],
) -> Window {
    let out = |i: u32, k: u32, s: u32, p: u32, d: u32| (i + 2 * p - (k - 1) * d - 1) / s + 1;
    Window { ih, iw, oh: out(ih, kh, sh, pt, dh), ow: out(iw, kw, sw, pl, dw), kh, kw, sh, sw, pt, pl, dh, dw }
}

pub fn windows() -> Vec<Window> {
    vec![
        window([8, 8], [3, 3], [1, 1], [1, 1], [1, 1]),
        window([8, 8], [3, 3], [1, 1], [0, 0], [1, 1]),
        window([9, 31], [3, 3], [2, 2], [1, 1], [1, 1]),
        window([7, 40], [5, 5], [1, 1], [2, 2], [1, 1]),
        window([24, 96], [5, 5], [2, 1], [2, 2], [1, 1]),
        window([12, 13], [3, 3], [1, 1], [2, 2], [2, 2]),
        window([11, 17], [2, 4], [3, 3], [0, 2], [1, 2]),
        window([1, 50], [1, 7], [1, 2], [0, 3], [1, 1]),
        window([5, 5], [1, 1], [2, 2], [0, 0], [1, 1]),
        window([4, 4], [4, 4], [1, 1], [0, 0], [1, 1]),
        window([3, 70], [3, 3], [1, 1], [1, 1], [1, 1]),
        window([9, 75], [5, 5], [2, 2], [2, 2], [1, 1]),
        window([6, 37], [3, 3], [1, 2], [1, 1], [1, 1]),
        window([6, 3], [5, 5], [1, 1], [2, 2], [1, 1]),
    ]
}

#[test]
fn convolutions_of_all_kinds() {
    for w in windows() {
        for shape @ [batch, groups, ic, oc] in [[1, 1, 1, 1], [2, 1, 3, 5], [1, 2, 4, 8], [1, 1, 40, 6]] {
            let mut bench = Bench::default();
            let (plane, depth) = ((w.ih * w.iw) as usize, ic * (w.kh * w.kw) as usize);
            let (input, weights) = (floats(1, batch * groups * ic * plane), floats(2, groups * oc * depth));
            let bias = floats(3, groups * oc);
            let packed: Vec<f32> = weights
                .chunks_exact(oc * depth)
                .flat_map(|group| pack_left(oc, depth, |r, c| group[r * depth + c]).collect::<Vec<_>>())
                .collect();
            let mut want = naive::conv(shape, &w, &input, &weights);
            let pixels = w.pixels() as usize;
            for (i, v) in want.iter_mut().enumerate() {
                *v = (*v + bias[i / pixels % (groups * oc)]).max(0.0);
            }
            let mut step = Conv {
                batch: batch as u32,
                groups: groups as u32,
                ic: ic as u32,
                oc: oc as u32,
                window: w,
                input: bench.arena(&input),
                weights: bench.weights(&packed),
                out: bench.room(want.len() as u64 * 4),
                epilogue: Epilogue { bias_of: BiasOf::Row, bias: bench.weights(&bias), low: 0.0, ..open() },
                ..Conv::default()
            };
            step.scratch = bench.room(step.scratch_bytes());
            bench.expect(step, step.out, &want, &format!("{shape:?} {w:?}"));
        }
    }
}

/// A depthwise convolution with bias, bounds and a program; an element of the last plane is not a number.
fn depthwise([batch, planes]: [usize; 2], w: Window) {
    /// What must stay as it was behind the result: two of the widest vectors.
    const BEHIND: usize = 32;
    let mut bench = Bench::default();
    let (plane, pixels) = ((w.ih * w.iw) as usize, w.pixels() as usize);
    let (mut input, weights) = (floats(1, batch * planes * plane), floats(2, planes * w.taps() as usize));
    if planes > 1 {
        input[planes * plane - 1 - plane / 2] = f32::NAN;
    }
    let bias = floats(3, planes);
    let mut want = naive::conv([batch, planes, 1, 1], &w, &input, &weights);
    for (i, v) in want.iter_mut().enumerate() {
        *v = -(*v + bias[i / pixels % planes]).clamp(-0.25, 0.5);
    }
    let negate = [EltInstr { op: EltOp::Neg, dst: 1, src: [0; 3], imm: 0.0 }];
    let program = 1 + bench.builder.program(1, 2, &negate);
    let epilogue = Epilogue {
        bias_of: BiasOf::Row,
        bias: bench.weights(&bias),
        low: -0.25,
        high: 0.5,
        program,
        ..Epilogue::default()
    };
    let mut step = Depthwise {
        batch: batch as u32,
        planes: planes as u32,
        window: w,
        weights: bench.weights(&weights),
        epilogue,
        ..Depthwise::default()
    };
    step.scratch = bench.room(w.plane_bytes());
    step.input = bench.arena(&input);
    step.out = bench.room((want.len() + BEHIND) as u64 * 4);
    // Room is filled with what is not a number either.
    want.extend([f32::NAN; BEHIND]);
    bench.expect(step, step.out, &want, &format!("{batch} {planes} {w:?}"));
}

#[test]
fn depthwise_convolutions_of_all_kinds() {
    for w in windows() {
        for planes in [[1, 1], [2, 3]] {
            depthwise(planes, w);
        }
    }
}

#[test]
fn depthwise_rows_of_every_length() {
    // Around one, four and eight vectors of 4, 8 and 16 lanes, and what their last one overlaps.
    let lengths = (1..=20).chain([23, 31, 32, 33, 35, 36, 39, 47, 63, 64, 65, 71, 72, 79, 127, 128, 129, 135, 145]);
    for ow in lengths {
        for (k, [sh, sw], dh) in [
            (3, [1, 1], 1),
            (3, [2, 2], 1),
            (3, [1, 2], 1),
            (3, [1, 1], 2),
            (5, [1, 1], 1),
            (5, [2, 2], 1),
            (5, [2, 1], 1),
            (2, [1, 1], 1),
        ] {
            // Without padding, with the same on all sides, on the left and above only, on the right and below only.
            for [before, behind] in [[0, 0], [k / 2, k / 2], [k - 1, 0], [0, k - 1]] {
                let oh = 2;
                let covered = |n: u32, s: u32, d: u32| (n - 1) * s + (k - 1) * d + 1;
                let rest = |covered: u32| covered.checked_sub(before + behind).filter(|&n| n > 0);
                let (Some(ih), Some(iw)) = (rest(covered(oh, sh, dh)), rest(covered(ow, sw, 1))) else { continue };
                let (pt, pl) = (before, before);
                depthwise([1, 2], Window { ih, iw, oh, ow, kh: k, kw: k, sh, sw, pt, pl, dh, dw: 1 });
            }
        }
    }
}

#[test]
fn pooling_of_all_kinds() {
    for w in windows() {
        for kind in [PoolKind::Max, PoolKind::Mean, PoolKind::MeanPadded] {
            let mut bench = Bench::default();
            let input = floats(1, 3 * (w.ih * w.iw) as usize);
            let want = naive::pool(kind, 3, &w, &input);
            let mut step = Pool {
                kind,
                planes: 3,
                window: w,
                input: bench.arena(&input),
                out: bench.room(want.len() as u64 * 4),
                padded: [w.ih + 2 * w.pt, w.iw + 2 * w.pl],
                ..Pool::default()
            };
            step.scratch = bench.room(w.plane_bytes());
            bench.expect(step, step.out, &want, &format!("{kind:?} {w:?}"));
        }
    }
}
