//! What each step touches, worked out in another way than by the check: the corners of every index space are visited, in
//! numbers that cannot overflow.

use ballast_plan::control::{Item, Items, MAX_NESTING, Slide};
use ballast_plan::generic::Address;
use ballast_plan::quantized::{Bytes, Packing, Requantize};
use ballast_plan::step::{BLOCK_K, BLOCK_N, BiasOf, Conv, Epilogue, Layout, Matrix, Wide, Window};
use ballast_plan::{At, DType, Domain, Plan, Step};

/// Bytes that a step reads or writes, from the start of the arena or of the weights; `high` is behind the last one.
#[derive(Debug, Clone, Copy)]
pub struct Touch {
    pub weights: bool,
    pub low: i128,
    pub high: i128,
    pub writes: bool,
}

/// Every index from 0 to the extent, times the stride: summed over all axes, in elements.
type Axes<'a> = &'a [(i128, i128)];

fn touch(at: At, size: i128, writes: bool, axes: Axes<'_>) -> Touch {
    let corners = (0..1u32 << axes.len()).map(|corner| -> i128 {
        let index = |i: usize, extent: i128| if corner >> i & 1 == 1 { extent - 1 } else { 0 };
        axes.iter().enumerate().map(|(i, &(extent, stride))| index(i, extent) * stride).sum()
    });
    let (low, high) = corners.fold((i128::MAX, i128::MIN), |(low, high), c| (low.min(c), high.max(c)));
    let place = |element: i128| i128::from(at.offset()) + element * size;
    Touch { weights: at.is_weights(), low: place(low), high: place(high + 1), writes }
}

fn row_major(at: At, size: i128, writes: bool, extents: &[u32]) -> Touch {
    let count: i128 = extents.iter().map(|&d| i128::from(d)).product();
    touch(at, size, writes, &[(count, 1)])
}

fn up(n: i128, panel: i128) -> i128 {
    (n + panel - 1) / panel * panel
}

fn matrix(m: &Matrix, batch: u32, packed: i128, [rows, cols]: [u32; 2]) -> Touch {
    let batch = (i128::from(batch), i128::from(m.batch));
    match m.layout {
        Layout::Packed => touch(m.at, 4, false, &[batch, (packed, 1)]),
        Layout::Strided => {
            let [rows, cols] = [(rows, m.row), (cols, m.col)].map(|(n, by)| (i128::from(n), i128::from(by)));
            touch(m.at, 4, false, &[batch, rows, cols])
        }
    }
}

fn epilogue(e: &Epilogue, [batch, rows, cols]: [i128; 3], touches: &mut Vec<Touch>) {
    match e.bias_of {
        BiasOf::None => {}
        BiasOf::Row => touches.push(touch(e.bias, 4, false, &[(rows, 1)])),
        BiasOf::Column => touches.push(touch(e.bias, 4, false, &[(cols, 1)])),
    }
    for o in e.operands.as_slice() {
        let axes = [(batch, i128::from(o.batch)), (rows, i128::from(o.row)), (cols, i128::from(o.col))];
        touches.push(touch(o.at, 4, false, &axes));
    }
}

/// A plane in scratch is `[rows][sw][phase width]`: the last tap of the last window in every phase of a row.
fn plane_in_scratch(w: &Window) -> i128 {
    let [oh, ow, kh, kw, sh, sw, dh, dw] = [w.oh, w.ow, w.kh, w.kw, w.sh, w.sw, w.dh, w.dw].map(i128::from);
    let rows = (oh - 1) * sh + (kh - 1) * dh + 1;
    let cols = (ow - 1) * sw + (kw - 1) * dw + 1;
    rows * sw * ((cols + sw - 1) / sw)
}

/// The windows lie in the input as they are; otherwise they are read from planes in scratch.
fn direct(w: &Window) -> bool {
    let [oh, ow, kh, kw, dh, dw, ih, iw] = [w.oh, w.ow, w.kh, w.kw, w.dh, w.dw, w.ih, w.iw].map(i128::from);
    [w.sh, w.sw] == [1, 1] && [w.pt, w.pl] == [0, 0] && oh + (kh - 1) * dh <= ih && ow + (kw - 1) * dw <= iw
}

fn one_plane(w: &Window, scratch: At, touches: &mut Vec<Touch>) {
    if !direct(w) {
        touches.push(touch(scratch, 4, true, &[(plane_in_scratch(w), 1)]));
    }
}

fn conv(c: &Conv, touches: &mut Vec<Touch>) {
    let w = &c.window;
    let depth = i128::from(c.ic) * i128::from(w.kh) * i128::from(w.kw);
    let pixels = i128::from(w.oh) * i128::from(w.ow);
    touches.push(row_major(c.input, 4, false, &[c.batch, c.groups, c.ic, w.ih, w.iw]));
    touches.push(touch(
        c.weights,
        4,
        false,
        &[(i128::from(c.groups), up(c.oc.into(), 4) * depth), (up(c.oc.into(), 4) * depth, 1)],
    ));
    touches.push(row_major(c.out, 4, true, &[c.batch, c.groups, c.oc, w.oh, w.ow]));
    epilogue(&c.epilogue, [c.batch.into(), i128::from(c.groups) * i128::from(c.oc), pixels], touches);
    let planes = if direct(w) { 0 } else { i128::from(c.ic) * plane_in_scratch(w) };
    let block = depth.min(BLOCK_K as i128) * up(pixels.min(BLOCK_N as i128), 16);
    touches.push(touch(c.scratch, 4, true, &[(planes + block, 1)]));
}

fn bytes(b: &Bytes, batch: u32, [rows, cols]: [u32; 2], touches: &mut Vec<Touch>) {
    assert!(matches!(b.dtype, DType::U8 | DType::I8), "{b:?}");
    let axes = [(batch, b.batch), (rows, b.row), (cols, b.col)].map(|(n, by)| (i128::from(n), i128::from(by)));
    touches.push(touch(b.at, 1, false, &axes));
    touches.push(touch(b.zero, 1, false, &[(1, 1)]));
}

fn requantize(after: &Requantize, rows: i128, touches: &mut Vec<Touch>) {
    if after.biased != 0 {
        touches.push(touch(after.bias, 4, false, &[(rows, 1)]));
    }
    if after.dtype != DType::I32 {
        touches.push(touch(after.factors, 4, false, &[(rows, 1)]));
    }
}

/// Elements of a matrix in panels of four rows of pairs.
fn pairs(m: i128, k: i128) -> i128 {
    up(m, 4) * up(k, 4)
}

fn width(packing: Packing) -> i128 {
    if packing == Packing::Words { 2 } else { 1 }
}

/// The numbers of all tuples.
fn address(a: &Address, touches: &mut Vec<Touch>) {
    assert!(matches!(a.dtype, DType::I32 | DType::I64), "{a:?}");
    let tuples: i128 = a.dims.iter().map(|&d| i128::from(d)).product();
    let numbers = tuples * a.components.as_slice().len() as i128;
    if numbers > 0 {
        touches.push(touch(a.indices, a.dtype.size() as i128, false, &[(numbers, 1)]));
    }
}

/// Whatever tuples may point to.
fn pointed(a: &Address, at: At, size: i128, writes: bool) -> Touch {
    let base = a.dims.iter().zip(&a.base).map(|(&d, &s)| (d.into(), s.into()));
    let indices = a.components.as_slice().iter().map(|c| (c.extent.into(), c.stride.into()));
    let axes: Vec<_> = base.chain(indices).chain([(a.slice.into(), 1)]).collect();
    touch(at, size, writes, &axes)
}

/// All that a step touches.
pub fn touches(step: &Step) -> Vec<Touch> {
    let mut all = Vec::new();
    match step {
        Step::Fill(f) if f.words == 0 => {}
        Step::Fill(f) => all.push(row_major(f.out, 4, true, &[f.words])),
        Step::Copy(c) => {
            let axes = |strides: &[i32; 6]| -> Vec<(i128, i128)> {
                c.dims.iter().zip(strides).map(|(&d, &s)| (d.into(), s.into())).collect()
            };
            all.push(touch(c.input, c.size.into(), false, &axes(&c.input_strides)));
            all.push(touch(c.out, c.size.into(), true, &axes(&c.out_strides)));
        }
        Step::Elt(e) | Step::Wide(Wide { elt: e, .. }) => {
            for o in e.operands.as_slice() {
                let axes: Vec<_> = e.dims.iter().zip(&o.strides).map(|(&d, &s)| (d.into(), s.into())).collect();
                all.push(touch(o.at, o.dtype.size() as i128, false, &axes));
            }
            all.push(row_major(e.out, e.dtype.size() as i128, true, &e.dims));
        }
        Step::Gemm(g) => {
            let [m, n, k] = [g.m, g.n, g.k].map(i128::from);
            all.push(matrix(&g.left, g.batch, up(m, 4) * k, [g.m, g.k]));
            all.push(matrix(&g.right, g.batch, up(n, 16) * k, [g.k, g.n]));
            all.push(touch(g.out, 4, true, &[(g.batch.into(), g.out_batch.into()), (m, g.out_row.into()), (n, 1)]));
            epilogue(&g.epilogue, [g.batch.into(), m, n], &mut all);
            let left = if g.left.layout == Layout::Strided { up(m.min(64), 4) * k.min(256) } else { 0 };
            let right = if g.right.layout == Layout::Strided { up(n.min(128), 16) * k.min(256) } else { 0 };
            if left + right > 0 {
                all.push(touch(g.scratch, 4, true, &[(left + right, 1)]));
            }
        }
        Step::Conv(c) => conv(c, &mut all),
        Step::Depthwise(d) => {
            let w = &d.window;
            all.push(row_major(d.input, 4, false, &[d.batch, d.planes, w.ih, w.iw]));
            all.push(row_major(d.weights, 4, false, &[d.planes, w.kh, w.kw]));
            all.push(row_major(d.out, 4, true, &[d.batch, d.planes, w.oh, w.ow]));
            epilogue(&d.epilogue, [d.batch.into(), d.planes.into(), i128::from(w.oh) * i128::from(w.ow)], &mut all);
            one_plane(w, d.scratch, &mut all);
        }
        Step::Pool(p) => {
            all.push(row_major(p.input, 4, false, &[p.planes, p.window.ih, p.window.iw]));
            all.push(row_major(p.out, 4, true, &[p.planes, p.window.oh, p.window.ow]));
            one_plane(&p.window, p.scratch, &mut all);
        }
        Step::Reduce(r) => {
            all.push(row_major(r.input, 4, false, &[r.outer, r.len, r.inner]));
            all.push(row_major(r.out, 4, true, &[r.outer, r.inner]));
        }
        Step::Contract(c) => {
            for side in std::iter::once(&c.left).chain(c.right.as_slice()) {
                let outer = c.outer.iter().zip(&side.outer);
                let axes: Vec<_> =
                    outer.chain(c.inner.iter().zip(&side.inner)).map(|(&d, &s)| (d.into(), s.into())).collect();
                all.push(touch(side.at, side.dtype.size() as i128, false, &axes));
            }
            all.push(row_major(c.out, c.dtype.size() as i128, true, &c.outer));
        }
        Step::Scan(s) => {
            let shape = [s.outer, s.len, s.inner];
            all.push(row_major(s.input, s.dtype.size() as i128, false, &shape));
            all.push(row_major(s.out, s.dtype.size() as i128, true, &shape));
        }
        Step::Top(t) => {
            let size = t.dtype.size() as i128;
            assert!(t.k <= t.len, "{t:?}");
            all.push(row_major(t.input, size, false, &[t.outer, t.len, t.inner]));
            for &values in t.values.as_slice() {
                all.push(row_major(values, size, true, &[t.outer, t.k, t.inner]));
            }
            all.push(row_major(t.indices, 8, true, &[t.outer, t.k, t.inner]));
            if t.k > 1 {
                all.push(row_major(t.scratch, 16, true, &[t.len]));
            }
        }
        Step::Pick(p) => {
            address(&p.address, &mut all);
            all.push(pointed(&p.address, p.input, p.size.into(), false));
            let tuples: i128 = p.address.dims.iter().map(|&d| i128::from(d)).product();
            all.push(touch(p.out, p.size.into(), true, &[(tuples * i128::from(p.address.slice), 1)]));
        }
        Step::Put(p) => {
            let size = p.dtype.size() as i128;
            address(&p.address, &mut all);
            let tuples: i128 = p.address.dims.iter().map(|&d| i128::from(d)).product();
            all.push(touch(p.updates, size, false, &[(tuples * i128::from(p.address.slice), 1)]));
            all.push(pointed(&p.address, p.out, size, true));
        }
        Step::Softmax(s) => {
            all.push(row_major(s.input, 4, false, &[s.outer, s.len, s.inner]));
            all.push(row_major(s.out, 4, true, &[s.outer, s.len, s.inner]));
        }
        Step::Gather(g) => {
            assert!(matches!(g.dtype, DType::I32 | DType::I64), "{g:?}");
            all.push(row_major(g.indices, g.dtype.size() as i128, false, &[g.count]));
            all.push(row_major(g.input, 1, false, &[g.outer, g.axis, g.bytes]));
            all.push(row_major(g.out, 1, true, &[g.outer, g.count, g.bytes]));
        }
        Step::IntGemm(g) => {
            let [m, n, k] = [g.m, g.n, g.k].map(i128::from);
            let mut scratch = up(k, 4) * 16 * 2;
            if g.packing == Packing::Strided {
                bytes(&g.left, g.batch, [g.m, g.k], &mut all);
                scratch += pairs(m, k) * 2;
            } else {
                all.push(touch(g.left.at, width(g.packing), false, &[(pairs(m, k), 1)]));
            }
            bytes(&g.right, g.batch, [g.k, g.n], &mut all);
            let axes = [(g.batch.into(), g.out_batch.into()), (m, g.out_row.into()), (n, g.out_col.into())];
            all.push(touch(g.out, g.after.dtype.size() as i128, true, &axes));
            requantize(&g.after, m, &mut all);
            all.push(touch(g.scratch, 1, true, &[(scratch, 1)]));
        }
        Step::IntConv(c) => {
            let (w, depth) = (&c.window, i128::from(c.ic) * i128::from(c.window.kh) * i128::from(c.window.kw));
            all.push(row_major(c.input, 1, false, &[c.batch, c.groups, c.ic, w.ih, w.iw]));
            all.push(touch(c.zero, 1, false, &[(1, 1)]));
            all.push(touch(
                c.weights,
                width(c.packing),
                false,
                &[(i128::from(c.groups) * pairs(c.oc.into(), depth), 1)],
            ));
            all.push(row_major(c.out, c.after.dtype.size() as i128, true, &[c.batch, c.groups, c.oc, w.oh, w.ow]));
            requantize(&c.after, i128::from(c.groups) * i128::from(c.oc), &mut all);
            let planes = if direct(w) { 0 } else { up(i128::from(c.ic) * plane_in_scratch(w) + 64, 64) };
            all.push(touch(c.scratch, 1, true, &[(planes + up(depth, 4) * 16 * 2, 1)]));
        }
        Step::IntDepthwise(d) => {
            let (w, taps) = (&d.window, i128::from(d.window.kh) * i128::from(d.window.kw));
            all.push(row_major(d.input, 1, false, &[d.batch, d.planes, w.ih, w.iw]));
            all.push(touch(d.zero, 1, false, &[(1, 1)]));
            all.push(touch(d.weights, 2, false, &[(i128::from(d.planes) * up(taps, 2), 1)]));
            all.push(row_major(d.out, d.after.dtype.size() as i128, true, &[d.batch, d.planes, w.oh, w.ow]));
            requantize(&d.after, d.planes.into(), &mut all);
            all.push(touch(d.scratch, 1, true, &[(plane_in_scratch(w) + 16, 1)]));
        }
        Step::Lookup(l) if l.count == 0 => {}
        Step::Lookup(l) => {
            all.push(row_major(l.input, 1, false, &[l.count]));
            all.push(row_major(l.table, 1, false, &[256]));
            all.push(row_major(l.out, 1, true, &[l.count]));
        }
        Step::NonZero(s) => {
            let dims = &s.dims[..s.rank as usize];
            let elements: i128 = dims.iter().map(|&d| i128::from(d)).product();
            all.push(row_major(s.input, s.dtype.size() as i128, false, dims));
            all.push(touch(s.out, 8, true, &[(s.rank.into(), elements), (elements, 1)]));
            all.push(row_major(s.count, 8, true, &[1]));
        }
        Step::Suppress(s) => {
            all.push(row_major(s.corners, 4, false, &[s.batch, s.boxes, 4]));
            all.push(row_major(s.scores, 4, false, &[s.batch, s.classes, s.boxes]));
            all.push(row_major(s.out, 8, true, &[s.batch, s.classes, s.limit, 3]));
            all.push(row_major(s.count, 8, true, &[1]));
            all.push(row_major(s.scratch, 4, true, &[s.boxes]));
        }
        Step::Unique(s) => {
            let size = s.dtype.size() as i128;
            all.push(row_major(s.input, size, false, &[s.rows, s.len]));
            all.push(row_major(s.values, size, true, &[s.rows, s.len]));
            for at in [s.first, s.inverse, s.counts] {
                all.push(row_major(at, 8, true, &[s.rows]));
            }
            all.push(row_major(s.count, 8, true, &[1]));
            all.push(row_major(s.scratch, 4, true, &[s.rows]));
        }
    }
    all
}

/// How many operands a step passes to which program.
fn calls(step: &Step) -> Option<(u32, usize)> {
    let of = |e: &Epilogue| e.program.checked_sub(1).map(|program| (program, 1 + e.operands.as_slice().len()));
    match step {
        Step::Elt(e) | Step::Wide(Wide { elt: e, .. }) => Some((e.program, e.operands.as_slice().len())),
        Step::Gemm(g) => of(&g.epilogue),
        Step::Conv(c) => of(&c.epilogue),
        Step::Depthwise(d) => of(&d.epilogue),
        _ => None,
    }
}

/// What a slide touches in all rounds.
fn slide(s: &Slide, count: u32) -> [Touch; 2] {
    let of = |at, step: i32, writes| touch(at, 1, writes, &[(count.into(), step.into()), (s.bytes.into(), 1)]);
    [of(s.from, s.from_step, false), of(s.to, s.to_step, true)]
}

/// What controls steps, and how deep it is nested.
fn assert_control(plan: &Plan<'_>, items: Items<'_>, depth: usize) {
    assert!(depth <= MAX_NESTING);
    let inside = |t: Touch| {
        let memory = if t.weights { plan.weights_bytes() } else { plan.arena_bytes() };
        assert!(t.low >= 0 && t.low < t.high && t.high <= memory.into() && !(t.weights && t.writes), "{t:?}");
    };
    for item in items {
        match item {
            Item::Step(_) => {}
            Item::Repeat(repeat) => {
                assert!(repeat.count >= 1);
                repeat.before().chain(repeat.after()).flat_map(|s| slide(&s, repeat.count)).for_each(inside);
                repeat.gate.into_iter().for_each(|gate| inside(row_major(gate, 1, false, &[1])));
                assert_control(plan, repeat.body(), depth + 1);
            }
            Item::Branch(branch) => {
                inside(row_major(branch.condition, 1, false, &[1]));
                assert_control(plan, branch.then(), depth + 1);
                assert_control(plan, branch.otherwise(), depth + 1);
            }
        }
    }
}

/// Panics unless all that the plan's steps and tensors touch lies inside its memory, weights are not written, programs exist
/// with as many operands as they are given, and registers are written before they are read.
pub fn assert_inside(plan: &Plan<'_>) {
    for entry in plan.entries() {
        for tensor in entry.inputs().chain(entry.outputs()) {
            let elements: i128 = tensor.dims().map(i128::from).product();
            let end = i128::from(tensor.at) + elements * tensor.dtype.size() as i128;
            assert!(end <= plan.arena_bytes().into(), "{tensor:?}");
        }
        assert_control(plan, entry.items(), 0);
        for step in entry.steps() {
            for t in touches(&step) {
                let memory = if t.weights { plan.weights_bytes() } else { plan.arena_bytes() };
                assert!(t.low >= 0 && t.low < t.high && t.high <= memory.into(), "{t:?} of {memory} by {step:?}");
                assert!(!(t.weights && t.writes), "{step:?}");
            }
            if let Some((program, operands)) = calls(&step) {
                let program = plan.program(program).expect("it was checked that the program exists");
                assert_eq!(program.inputs(), operands, "{step:?}");
                let domain = if let Step::Wide(w) = &step { w.domain } else { Domain::F32 };
                assert!(program.code().all(|instr| instr.op.is_of(domain)), "{step:?}");
                let mut written: Vec<u32> = (0..operands as u32).collect();
                for instr in program.code() {
                    let read = &instr.src[..instr.op.reads()];
                    assert!(read.iter().all(|r| written.contains(r)), "{instr:?}");
                    assert!((operands..program.registers()).contains(&(instr.dst as usize)), "{instr:?}");
                    written.push(instr.dst);
                }
            }
        }
    }
}
