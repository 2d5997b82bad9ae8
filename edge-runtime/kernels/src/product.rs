//! Matrix products and convolutions, in blocks that stay in near caches, around one tile of 4 × 16 results.
//!
//! The tile reads its left side four rows at a time as one vector and broadcasts lanes, and is unrolled twice over the
//! depth: in WebAssembly under Cranelift the fastest of the shapes tried. What is not packed by the compiler is packed
//! here, block by block; a convolution packs its windows, so that it never exists as a matrix.

use ballast_plan::Plan;
use ballast_plan::geometry::p4_floats;
use ballast_plan::step::{BLOCK_K, BLOCK_M, BLOCK_N, Conv, Gemm, Layout, Matrix, PANEL_COLS, PANEL_ROWS};

use crate::Memory;
use crate::elt::Tail;
use crate::planes::{Walk, elements, pad};
use crate::simd::{Simd, kernel};

kernel! {
    /// A product.
    pub fn gemm(plan: &Plan<'_>, s: &Gemm, memory: &Memory) = gemm_on
}

kernel! {
    /// A convolution.
    pub fn conv(plan: &Plan<'_>, s: &Conv, memory: &Memory) = conv_on
}

/// The left side of one product.
#[derive(Clone, Copy)]
enum Left {
    /// P4.
    Packed(*const f32),
    /// Row and column strides, and a buffer for a block of it.
    Strided { at: *const f32, row: usize, col: usize, buffer: *mut f32 },
}

/// The right side of one product: something that fills panels.
trait Right {
    /// The panel of depth `k0..k0 + depth` and columns `col..col + 16`, if it exists already.
    unsafe fn panel(&self, k0: usize, col: usize) -> Option<*const f32>;
    /// Packs `cols ≤ 16` columns from `col` on into a panel `[depth][16]`; what lies behind `cols` does not matter.
    unsafe fn pack<S: Simd>(&self, k0: usize, depth: usize, col: usize, cols: usize, to: *mut f32);
}

/// One product and where it goes.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    block_n: usize,
    left: Left,
    out: *mut f32,
    out_row: usize,
    /// For the epilogue: which product of the batch, and the row that its first one is.
    batch: usize,
    first_row: usize,
    buffer: *mut f32,
}

#[inline(always)]
unsafe fn gemm_on<S: Simd>(plan: &Plan<'_>, s: &Gemm, memory: &Memory) {
    let mut tail = Tail::new(plan, &s.epilogue, memory);
    let [m, n, k] = [s.m, s.n, s.k].map(|v| v as usize);
    let scratch = memory.floats_mut(s.scratch);
    for b in 0..s.batch as usize {
        let at = |matrix: &Matrix| memory.floats(matrix.at).add(b * matrix.batch as usize);
        let left = match s.left.layout {
            Layout::Packed => Left::Packed(at(&s.left)),
            Layout::Strided => {
                Left::Strided { at: at(&s.left), row: s.left.row as usize, col: s.left.col as usize, buffer: scratch }
            }
        };
        let product = Product {
            m,
            n,
            k,
            block_n: s.block_n(),
            left,
            out: memory.floats_mut(s.out).add(b * s.out_batch as usize),
            out_row: s.out_row as usize,
            batch: b,
            first_row: 0,
            buffer: scratch.wrapping_add(s.left_block_floats() as usize),
        };
        let right = at(&s.right);
        match (s.right.layout, left) {
            (Layout::Strided, Left::Packed(left)) if n == 1 => {
                vector::<S>(&product, left, right, s.right.row as usize, &mut tail);
            }
            (Layout::Strided, _) => {
                blocks::<S, _>(
                    &product,
                    &Strided { at: right, row: s.right.row as usize, col: s.right.col as usize },
                    &mut tail,
                );
            }
            (Layout::Packed, _) => blocks::<S, _>(&product, &PackedRight { at: right, k }, &mut tail),
        }
    }
}

#[inline(always)]
unsafe fn conv_on<S: Simd>(plan: &Plan<'_>, s: &Conv, memory: &Memory) {
    let mut tail = Tail::new(plan, &s.epilogue, memory);
    let w = &s.window;
    let [groups, ic, oc] = [s.groups, s.ic, s.oc].map(|v| v as usize);
    let (pixels, input_plane) = (w.pixels() as usize, w.ih as usize * w.iw as usize);
    let scratch = memory.floats_mut(s.scratch);
    let buffer = memory.write(s.scratch).wrapping_add(s.planes_bytes() as usize).cast();
    let walk = Walk::new(w);
    for b in 0..s.batch as usize {
        for g in 0..groups {
            let input = memory.floats(s.input).add((b * groups + g) * ic * input_plane);
            let planes = if w.is_direct() {
                input
            } else {
                (0..ic).for_each(|c| pad::<S>(w, input.add(c * input_plane), scratch.add(c * walk.plane), 0.0));
                scratch.cast_const()
            };
            let windows = Windows { planes, walk, kh: w.kh as usize, kw: w.kw as usize, ow: w.ow as usize };
            let product = Product {
                m: oc,
                n: pixels,
                k: s.depth() as usize,
                block_n: BLOCK_N,
                left: Left::Packed(memory.floats(s.weights).add(g * s.group_floats() as usize)),
                out: memory.floats_mut(s.out).add((b * groups + g) * oc * pixels),
                out_row: pixels,
                batch: b,
                first_row: g * oc,
                buffer,
            };
            blocks::<S, _>(&product, &windows, &mut tail);
        }
    }
}

/// All blocks of a product.
#[inline(always)]
unsafe fn blocks<S: Simd, R: Right>(p: &Product, right: &R, tail: &mut Tail<'_>) {
    let (bounds, columns) = (tail.bounds(), tail.column_bias());
    for n0 in (0..p.n).step_by(p.block_n) {
        let cols = (p.n - n0).min(p.block_n);
        for k0 in (0..p.k).step_by(BLOCK_K) {
            let depth = (p.k - k0).min(BLOCK_K);
            let last = if k0 + depth == p.k { bounds } else { None };
            if right.panel(k0, n0).is_none() {
                for col in (0..cols).step_by(PANEL_COLS) {
                    right.pack::<S>(k0, depth, n0 + col, (cols - col).min(PANEL_COLS), p.buffer.add(col * depth));
                }
            }
            let block_m = if matches!(p.left, Left::Packed(_)) { p.m } else { BLOCK_M };
            for m0 in (0..p.m).step_by(block_m) {
                let rows = (p.m - m0).min(block_m);
                let (left, left_panel) = left_block(&p.left, m0, rows, k0, depth, p.k);
                for col in (0..cols).step_by(PANEL_COLS) {
                    let panel = right.panel(k0, n0 + col).unwrap_or(p.buffer.add(col * depth));
                    let width = (cols - col).min(PANEL_COLS);
                    let mut bias_of_columns = [0f32; PANEL_COLS];
                    if let (0, Some(bias)) = (k0, columns) {
                        for (i, place) in bias_of_columns.iter_mut().enumerate().take(width) {
                            *place = *bias.add(n0 + col + i);
                        }
                    }
                    for row in (0..rows).step_by(PANEL_ROWS) {
                        let out = p.out.add((m0 + row) * p.out_row + n0 + col);
                        let height = (rows - row).min(PANEL_ROWS);
                        let a = left.add(row / PANEL_ROWS * left_panel);
                        let start = if k0 > 0 {
                            Start::Result
                        } else if columns.is_some() {
                            Start::Columns(bias_of_columns.as_ptr())
                        } else {
                            Start::Rows(tail.row_biases(p.first_row + m0 + row, height))
                        };
                        edge_or_tile::<S>(depth, a, panel, out, p.out_row, [height, width], start, last);
                    }
                }
            }
        }
        if tail.has_program() {
            for row in 0..p.m {
                tail.finish::<S>(p.batch, p.first_row + row, n0, cols, p.out.add(row * p.out_row + n0));
            }
        }
    }
}

/// Address of a packed block of the left side, and floats from panel to panel.
#[inline(always)]
unsafe fn left_block(left: &Left, m0: usize, rows: usize, k0: usize, depth: usize, k: usize) -> (*const f32, usize) {
    match *left {
        Left::Packed(at) => (at.add(m0 * k + k0 * PANEL_ROWS), k * PANEL_ROWS),
        Left::Strided { at, row, col, buffer } => {
            for r0 in (0..rows).step_by(PANEL_ROWS) {
                let to = buffer.add(r0 * depth);
                for r in 0..PANEL_ROWS {
                    // Rows that do not exist repeat the last one; their results are dropped.
                    let from = at.add((m0 + (r0 + r).min(rows - 1)) * row + k0 * col);
                    for i in 0..depth {
                        *to.add(i * PANEL_ROWS + r) = *from.add(i * col);
                    }
                }
            }
            (buffer, depth * PANEL_ROWS)
        }
    }
}

/// What a tile starts from.
#[derive(Clone, Copy)]
enum Start {
    /// One number for each row.
    Rows([f32; PANEL_ROWS]),
    /// One number for each column, [`PANEL_COLS`] of them.
    Columns(*const f32),
    /// What the blocks before left in the result.
    Result,
}

/// A tile of any size: one that is cut off at an edge goes through a whole one beside the result.
#[inline(always)]
unsafe fn edge_or_tile<S: Simd>(
    depth: usize,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
    out_row: usize,
    [height, width]: [usize; 2],
    start: Start,
    bounds: Option<(f32, f32)>,
) {
    if height == PANEL_ROWS && width == PANEL_COLS {
        return tile::<S>(depth, a, b, out, out_row, start, bounds);
    }
    let mut whole = [0f32; PANEL_ROWS * PANEL_COLS];
    if matches!(start, Start::Result) {
        for r in 0..height {
            for c in 0..width {
                whole[r * PANEL_COLS + c] = *out.add(r * out_row + c);
            }
        }
    }
    if width <= PANEL_COLS / 4 && S::LANES == PANEL_COLS / 4 {
        narrow::<S>(depth, a, b, whole.as_mut_ptr(), start, bounds);
    } else {
        tile::<S>(depth, a, b, whole.as_mut_ptr(), PANEL_COLS, start, bounds);
    }
    for r in 0..height {
        for c in 0..width {
            *out.add(r * out_row + c) = whole[r * PANEL_COLS + c];
        }
    }
}

/// A whole tile.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
unsafe fn tile<S: Simd>(
    depth: usize,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
    out_row: usize,
    start: Start,
    bounds: Option<(f32, f32)>,
) {
    if S::LANES == 4 {
        tile_of::<S, 4>(depth, a, b, out, out_row, start, bounds);
    } else {
        tile_of::<S, 2>(depth, a, b, out, out_row, start, bounds);
    }
}

/// The leftmost vector of a tile only: for results with one to four columns.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
unsafe fn narrow<S: Simd>(
    depth: usize,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
    start: Start,
    bounds: Option<(f32, f32)>,
) {
    tile_of::<S, 1>(depth, a, b, out, PANEL_COLS, start, bounds);
}

#[inline(always)]
unsafe fn tile_of<S: Simd, const V: usize>(
    depth: usize,
    a: *const f32,
    b: *const f32,
    out: *mut f32,
    out_row: usize,
    start: Start,
    bounds: Option<(f32, f32)>,
) {
    let acc: [[S::F; V]; PANEL_ROWS] = match start {
        Start::Rows(values) => values.map(|v| [S::splat(v); V]),
        Start::Columns(at) => [core::array::from_fn(|v| S::load(at.add(v * S::LANES))); PANEL_ROWS],
        Start::Result => {
            core::array::from_fn(|r| core::array::from_fn(|v| S::load(out.add(r * out_row + v * S::LANES))))
        }
    };
    let mut acc = multiply::<S, V>(depth, a, b, acc);
    if let Some((low, high)) = bounds {
        let (low, high) = (S::splat(low), S::splat(high));
        acc = acc.map(|row| row.map(|lane| S::min_bound(S::max_bound(lane, low), high)));
    }
    for (r, row) in acc.iter().enumerate() {
        for (v, &lane) in row.iter().enumerate() {
            S::store(out.add(r * out_row + v * S::LANES), lane);
        }
    }
}

/// The innermost loop: `acc += a · b` over the whole depth.
#[inline(always)]
unsafe fn multiply<S: Simd, const V: usize>(
    depth: usize,
    mut a: *const f32,
    mut b: *const f32,
    mut acc: [[S::F; V]; PANEL_ROWS],
) -> [[S::F; V]; PANEL_ROWS] {
    macro_rules! step {
        ($i:literal) => {
            let lanes = S::broadcast4(a.add($i * PANEL_ROWS));
            for v in 0..V {
                let right = S::load(b.add($i * PANEL_COLS + v * S::LANES));
                for r in 0..PANEL_ROWS {
                    acc[r][v] = S::fma(lanes[r], right, acc[r][v]);
                }
            }
        };
    }
    for _ in 0..depth / 2 {
        step!(0);
        step!(1);
        a = a.add(2 * PANEL_ROWS);
        b = b.add(2 * PANEL_COLS);
    }
    if depth % 2 == 1 {
        step!(0);
    }
    acc
}

/// A product with one column: every weight is read once, so that what counts is to keep loads in flight.
#[inline(always)]
unsafe fn vector<S: Simd>(p: &Product, left: *const f32, right: *const f32, right_row: usize, tail: &mut Tail<'_>) {
    const PANELS: usize = 4;
    let bounds = tail.bounds();
    let panel = p.k * PANEL_ROWS;
    for m0 in (0..p.m).step_by(PANELS * PANEL_ROWS) {
        let panels = (p.m - m0).div_ceil(PANEL_ROWS).min(PANELS);
        let at = left.add(m0 * p.k);
        let mut sums = [0f32; PANELS * PANEL_ROWS];
        match panels {
            4 => columns::<S, 4>(p.k, at, panel, right, right_row, &mut sums),
            3 => columns::<S, 3>(p.k, at, panel, right, right_row, &mut sums),
            2 => columns::<S, 2>(p.k, at, panel, right, right_row, &mut sums),
            _ => columns::<S, 1>(p.k, at, panel, right, right_row, &mut sums),
        }
        for (r, &sum) in sums.iter().enumerate().take(p.m - m0) {
            let bias = tail.column_bias().map_or(tail.row_bias(m0 + r), |bias| *bias);
            let mut value = sum + bias;
            if let Some((low, high)) = bounds {
                value = if low > value { low } else { value };
                value = if high < value { high } else { value };
            }
            *p.out.add((m0 + r) * p.out_row) = value;
        }
    }
    if tail.has_program() {
        for row in 0..p.m {
            tail.finish::<S>(p.batch, p.first_row + row, 0, 1, p.out.add(row * p.out_row));
        }
    }
}

/// `P` panels of four rows times one column. Written over floats: four of them are what a panel's row is on every unit.
#[inline(always)]
unsafe fn columns<S: Simd, const P: usize>(
    k: usize,
    left: *const f32,
    panel: usize,
    right: *const f32,
    right_row: usize,
    sums: &mut [f32; 16],
) {
    let zero = [S::splat(0.0); P];
    if S::LANES == PANEL_ROWS {
        // Two depths at a time, each with its own sums: twice the additions in flight.
        let (mut even, mut odd) = (zero, zero);
        let mut i = 0;
        while i + 2 <= k {
            let (x0, x1) = (S::splat(*right.add(i * right_row)), S::splat(*right.add((i + 1) * right_row)));
            for p in 0..P {
                let at = left.add(p * panel + i * PANEL_ROWS);
                even[p] = S::fma(S::load(at), x0, even[p]);
                odd[p] = S::fma(S::load(at.add(PANEL_ROWS)), x1, odd[p]);
            }
            i += 2;
        }
        if i < k {
            let x = S::splat(*right.add(i * right_row));
            for (p, even) in even.iter_mut().enumerate() {
                *even = S::fma(S::load(left.add(p * panel + i * PANEL_ROWS)), x, *even);
            }
        }
        for p in 0..P {
            S::store(sums.as_mut_ptr().add(p * PANEL_ROWS), S::add(even[p], odd[p]));
        }
    } else {
        for (p, row) in sums.chunks_exact_mut(PANEL_ROWS).enumerate().take(P) {
            for i in 0..k {
                let x = *right.add(i * right_row);
                for (r, sum) in row.iter_mut().enumerate() {
                    *sum += *left.add(p * panel + i * PANEL_ROWS + r) * x;
                }
            }
        }
    }
}

/// P16.
struct PackedRight {
    at: *const f32,
    k: usize,
}

impl Right for PackedRight {
    #[inline(always)]
    unsafe fn panel(&self, k0: usize, col: usize) -> Option<*const f32> {
        Some(self.at.add(col * self.k + k0 * PANEL_COLS))
    }
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, _: usize, _: usize, _: usize, _: usize, _: *mut f32) {}
}

/// Row and column strides.
struct Strided {
    at: *const f32,
    row: usize,
    col: usize,
}

impl Right for Strided {
    #[inline(always)]
    unsafe fn panel(&self, _: usize, _: usize) -> Option<*const f32> {
        None
    }
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, k0: usize, depth: usize, col: usize, cols: usize, to: *mut f32) {
        let from = self.at.add(k0 * self.row + col * self.col);
        if self.col == 1 && cols == PANEL_COLS {
            for i in 0..depth {
                copy16::<S>(from.add(i * self.row), to.add(i * PANEL_COLS));
            }
        } else {
            for i in 0..depth {
                for c in 0..cols {
                    *to.add(i * PANEL_COLS + c) = *from.add(i * self.row + c * self.col);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn copy16<S: Simd>(from: *const f32, to: *mut f32) {
    for v in (0..PANEL_COLS).step_by(S::LANES) {
        S::store(to.add(v), S::load(from.add(v)));
    }
}

/// The windows of a convolution as columns of a matrix that exists only panel by panel.
struct Windows {
    planes: *const f32,
    walk: Walk,
    kh: usize,
    kw: usize,
    ow: usize,
}

impl Right for Windows {
    #[inline(always)]
    unsafe fn panel(&self, _: usize, _: usize) -> Option<*const f32> {
        None
    }
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, k0: usize, depth: usize, col: usize, cols: usize, to: *mut f32) {
        let taps = self.kh * self.kw;
        let (mut c, mut ky, mut kx) = (k0 / taps, k0 % taps / self.kw, k0 % self.kw);
        let (oy, ox) = (col / self.ow, col % self.ow);
        let in_one_row = cols == PANEL_COLS && ox + PANEL_COLS <= self.ow;
        for i in 0..depth {
            let to = to.add(i * PANEL_COLS);
            let tap = self.planes.add(c * self.walk.plane + self.walk.tap(ky, kx));
            if in_one_row {
                copy16::<S>(tap.add(oy * self.walk.row + ox), to);
            } else {
                // Columns go on in the next rows of pixels.
                let (mut y, mut x, mut done) = (oy, ox, 0);
                while done < cols {
                    let run = (self.ow - x).min(cols - done);
                    let from = tap.add(y * self.walk.row + x);
                    elements::<S>(from, to.add(done), run);
                    (y, x, done) = (y + 1, 0, done + run);
                }
            }
            kx += 1;
            if kx == self.kw {
                (kx, ky) = (0, ky + 1);
            }
            if ky == self.kh {
                (ky, c) = (0, c + 1);
            }
        }
    }
}

/// Packs a matrix as P4: what the compiler does with weights on the left side.
pub fn pack_left(m: usize, k: usize, at: impl Fn(usize, usize) -> f32) -> impl Iterator<Item = f32> {
    let floats = p4_floats(m as u64, k as u64) as usize;
    (0..floats).map(move |i| {
        let (panel, depth, r) = (i / (k * PANEL_ROWS), i / PANEL_ROWS % k, i % PANEL_ROWS);
        let row = panel * PANEL_ROWS + r;
        if row < m { at(row, depth) } else { 0.0 }
    })
}

/// Packs a matrix as P16: what the compiler does with weights on the right side.
pub fn pack_right(k: usize, n: usize, at: impl Fn(usize, usize) -> f32) -> impl Iterator<Item = f32> {
    (0..n.div_ceil(PANEL_COLS) * PANEL_COLS * k).map(move |i| {
        let (panel, depth, c) = (i / (k * PANEL_COLS), i / PANEL_COLS % k, i % PANEL_COLS);
        let col = panel * PANEL_COLS + c;
        if col < n { at(depth, col) } else { 0.0 }
    })
}
