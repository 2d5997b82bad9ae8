//! Matrix products and convolutions of bytes: one panel of sixteen columns at a time, packed over the whole depth, under all rows. No
//! sum ever leaves its register before it is whole.

use ballast_plan::quantized::{Bytes, DEPTH, IntConv, IntGemm, Packing, packed_depth, pairs_elements};
use ballast_plan::step::PANEL_ROWS;

use super::planes::{pad, run};
use super::{After, COLS, Unsigned};
use crate::Memory;
use crate::planes::Walk;
use crate::simd::{Simd, kernel};

kernel! {
    /// A product of bytes.
    pub fn int_gemm(s: &IntGemm, memory: &Memory) = gemm_on
}

kernel! {
    /// A convolution of bytes.
    pub fn int_conv(s: &IntConv, memory: &Memory) = conv_on
}

/// P4 pairs.
#[derive(Clone, Copy)]
enum Left {
    Bytes(*const i8),
    Words(*const i16),
}

impl Left {
    unsafe fn new(packing: Packing, at: *const u8, skip: usize) -> Self {
        match packing {
            Packing::Bytes => Self::Bytes(at.cast::<i8>().add(skip)),
            Packing::Strided | Packing::Words => Self::Words(at.cast::<i16>().add(skip)),
        }
    }
}

/// Where a product goes.
struct Out {
    at: *mut u8,
    row: usize,
    col: usize,
    /// Of what follows: the row that the product's first one is.
    first_row: usize,
}

/// The right side: sixteen columns of one depth after the other, as bytes.
trait Right {
    /// From depth 0 on, columns `col..col + cols`.
    unsafe fn start(&mut self, col: usize, cols: usize);
    /// The next depth's place.
    unsafe fn advance(&mut self) -> *const u8;
    /// The columns at a depth, where all sixteen of them lie next to each other; else nothing.
    unsafe fn line(&self, depth: *const u8) -> Option<*const u8>;
    /// The same gathered; what lies behind `cols` does not matter.
    unsafe fn gather(&self, depth: *const u8, cols: usize, to: &mut [u8; COLS]);
    /// Bytes of one column lie next to each other over the depth: its first one.
    unsafe fn column(&self, col: usize) -> Option<*const u8>;
}

#[inline(always)]
unsafe fn gemm_on<S: Simd>(s: &IntGemm, memory: &Memory) {
    let after = After::new(&s.after, memory);
    let [m, n, k] = [s.m, s.n, s.k].map(|v| v as usize);
    let scratch = memory.write(s.scratch);
    let panel = scratch.add(s.left_bytes() as usize).cast::<i16>();
    let bytes = Unsigned::new(s.right.dtype, s.right.zero, memory);
    for b in 0..s.batch as usize {
        let at = |side: &Bytes| memory.read(side.at).add(b * side.batch as usize);
        let left = match s.packing {
            Packing::Strided => {
                pack_left(
                    &s.left,
                    at(&s.left),
                    [m, k],
                    Unsigned::new(s.left.dtype, s.left.zero, memory),
                    scratch.cast(),
                );
                Left::Words(scratch.cast())
            }
            packed => Left::new(packed, memory.read(s.left.at), 0),
        };
        let mut right = Strided::new(at(&s.right), s.right.row as usize, s.right.col as usize);
        let out = Out {
            at: memory.write(s.out).add(b * s.out_batch as usize * after.size()),
            row: s.out_row as usize,
            col: s.out_col as usize,
            first_row: 0,
        };
        if n == 1 {
            vector::<S>([m, k], left, &right, bytes, panel, &out, &after);
        } else {
            panels::<S, _>([m, n, k], left, &mut right, bytes, panel, &out, &after);
        }
    }
}

#[inline(always)]
unsafe fn conv_on<S: Simd>(s: &IntConv, memory: &Memory) {
    let (w, after) = (&s.window, After::new(&s.after, memory));
    let bytes = Unsigned::new(s.dtype, s.zero, memory);
    let [groups, ic, oc] = [s.groups, s.ic, s.oc].map(|v| v as usize);
    let (pixels, input_plane, k) = (w.pixels() as usize, w.ih as usize * w.iw as usize, s.depth() as usize);
    let scratch = memory.write(s.scratch);
    let panel = scratch.add(s.planes_bytes() as usize).cast::<i16>();
    let walk = Walk::new(w);
    for index in 0..s.batch as usize * groups {
        let group = index % groups;
        let input = memory.read(s.input).add(index * ic * input_plane);
        let planes = if w.is_direct() {
            input
        } else {
            (0..ic).for_each(|c| pad(w, input.add(c * input_plane), scratch.add(c * walk.plane), bytes.raw));
            scratch.cast_const()
        };
        let mut right = Windows::new(planes, walk, [w.kh as usize, w.kw as usize], w.ow as usize);
        let left = Left::new(s.packing, memory.read(s.weights), group * s.group_elements() as usize);
        let out = Out {
            at: memory.write(s.out).add(index * oc * pixels * after.size()),
            row: pixels,
            col: 1,
            first_row: group * oc,
        };
        panels::<S, _>([oc, pixels, k], left, &mut right, bytes, panel, &out, &after);
    }
}

/// All panels of a product.
#[inline(always)]
unsafe fn panels<S: Simd, R: Right>(
    [m, n, k]: [usize; 3],
    left: Left,
    right: &mut R,
    bytes: Unsigned,
    panel: *mut i16,
    out: &Out,
    after: &After,
) {
    let pairs = packed_depth(k as u64) as usize / 2;
    for col in (0..n).step_by(COLS) {
        let cols = (n - col).min(COLS);
        pack_panel::<S, R>(right, k, pairs, col, cols, bytes, panel);
        for row in (0..m).step_by(PANEL_ROWS) {
            let skip = row * pairs * 2;
            let acc = if cols <= COLS / 4 && S::LANES == COLS / 4 {
                narrow::<S>(pairs, left, skip, panel)
            } else {
                tile::<S>(pairs, left, skip, panel)
            };
            for (r, &sums) in acc.iter().enumerate().take(m - row) {
                let to = out.at.add(((row + r) * out.row + col * out.col) * after.size());
                after.store::<S>(out.first_row + row + r, sums, cols, to, out.col);
            }
        }
    }
}

/// Packs `cols` columns over the whole depth as pairs of 16-bit integers, `[pairs][16][2]`.
#[inline(always)]
unsafe fn pack_panel<S: Simd, R: Right>(
    right: &mut R,
    k: usize,
    pairs: usize,
    col: usize,
    cols: usize,
    bytes: Unsigned,
    panel: *mut i16,
) {
    let zero = bytes.pair::<S>();
    if right.column(col).is_some() {
        for c in 0..cols {
            let from = right.column(col + c).unwrap_or(core::ptr::null());
            for p in 0..pairs {
                let at = |i: usize| if i < k { bytes.centred(*from.add(i)) } else { 0 };
                let to = panel.add((p * COLS + c) * 2);
                (*to, *to.add(1)) = (at(2 * p), at(2 * p + 1));
            }
        }
        return;
    }
    // What is behind the depth counts nothing, its weights are 0: the last line again.
    let mut lines = [[0u8; COLS]; 2];
    right.start(col, cols);
    let mut last = core::ptr::null();
    for p in 0..pairs {
        let mut depths = [last; 2];
        for (half, depth) in depths.iter_mut().enumerate() {
            if 2 * p + half < k {
                last = right.advance();
            }
            *depth = last;
        }
        let [mut from_a, mut from_b] = [lines[0].as_ptr(), lines[1].as_ptr()];
        match (right.line(depths[0]), right.line(depths[1])) {
            (Some(a), Some(b)) => [from_a, from_b] = [a, b],
            _ => {
                let [line_a, line_b] = &mut lines;
                right.gather(depths[0], cols, line_a);
                right.gather(depths[1], cols, line_b);
            }
        }
        let both = S::interleave(from_a, from_b, bytes.flip);
        let to = panel.add(p * COLS * 2).cast::<i32>();
        for (v, &pair) in both.iter().enumerate().take(COLS / S::LANES) {
            S::store_i(to.add(v * S::LANES), S::sub_16(pair, zero));
        }
    }
}

/// A tile of 4 × 16.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
unsafe fn tile<S: Simd>(pairs: usize, left: Left, skip: usize, panel: *const i16) -> [[S::I; 4]; PANEL_ROWS] {
    if S::LANES == 4 { tile_of::<S, 4>(pairs, left, skip, panel) } else { tile_of::<S, 2>(pairs, left, skip, panel) }
}

/// Its leftmost vector only.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
unsafe fn narrow<S: Simd>(pairs: usize, left: Left, skip: usize, panel: *const i16) -> [[S::I; 4]; PANEL_ROWS] {
    tile_of::<S, 1>(pairs, left, skip, panel)
}

#[inline(always)]
unsafe fn tile_of<S: Simd, const V: usize>(
    pairs: usize,
    left: Left,
    skip: usize,
    panel: *const i16,
) -> [[S::I; 4]; PANEL_ROWS] {
    let zero = S::splat_i(0);
    let mut acc = [[zero; V]; PANEL_ROWS];
    let mut b = panel.cast::<i32>();
    macro_rules! step {
        ($lanes:expr, $i:literal) => {
            let lanes = $lanes;
            for v in 0..V {
                let right = S::load_i(b.add($i * COLS + v * S::LANES));
                for r in 0..PANEL_ROWS {
                    acc[r][v] = S::dot_add(lanes[r], right, acc[r][v]);
                }
            }
        };
    }
    // Depths come in multiples of four, so pairs are even.
    match left {
        Left::Bytes(at) => {
            let mut a = at.add(skip);
            for _ in 0..pairs / 2 {
                step!(S::pairs4_wide(a), 0);
                step!(S::pairs4_wide(a.add(2 * PANEL_ROWS)), 1);
                (a, b) = (a.add(4 * PANEL_ROWS), b.add(2 * COLS));
            }
        }
        Left::Words(at) => {
            let mut a = at.add(skip);
            for _ in 0..pairs / 2 {
                step!(S::pairs4(a), 0);
                step!(S::pairs4(a.add(2 * PANEL_ROWS)), 1);
                (a, b) = (a.add(4 * PANEL_ROWS), b.add(2 * COLS));
            }
        }
    }
    acc.map(|row| core::array::from_fn(|v| if v < V { row[v % V] } else { zero }))
}

/// A product with one column: a lane for each row, each weight read once.
#[inline(always)]
unsafe fn vector<S: Simd>(
    [m, k]: [usize; 2],
    left: Left,
    right: &Strided,
    bytes: Unsigned,
    panel: *mut i16,
    out: &Out,
    after: &After,
) {
    let pairs = packed_depth(k as u64) as usize / 2;
    // Every pair four times, so that it meets the four rows of a panel.
    for p in 0..pairs {
        let at = |i: usize| if i < k { bytes.centred(*right.at.add(i * right.row)) } else { 0 };
        let both = [at(2 * p), at(2 * p + 1)];
        for r in 0..PANEL_ROWS {
            let to = panel.add((p * PANEL_ROWS + r) * 2);
            (*to, *to.add(1)) = (both[0], both[1]);
        }
    }
    let steps = pairs * PANEL_ROWS / S::LANES;
    for row in (0..m).step_by(PANEL_ROWS) {
        let skip = row * pairs * 2;
        // Two vectors of sums: twice the additions in flight.
        let mut acc = [S::splat_i(0); 2];
        let b = panel.cast::<i32>();
        for i in 0..steps {
            let x = S::load_i(b.add(i * S::LANES));
            let w = match left {
                Left::Bytes(at) => S::load_wide(at.add(skip + i * S::LANES * 2)),
                Left::Words(at) => S::load_i(at.add(skip + i * S::LANES * 2).cast()),
            };
            acc[i % 2] = S::dot_add(w, x, acc[i % 2]);
        }
        let mut lanes = [0i32; COLS];
        S::store_i(lanes.as_mut_ptr(), S::add_i(acc[0], acc[1]));
        for r in 0..PANEL_ROWS.min(m - row) {
            let sum = (r..S::LANES).step_by(PANEL_ROWS).fold(0i32, |sum, i| sum.wrapping_add(lanes[i]));
            let to = out.at.add((row + r) * out.row * after.size());
            after.store::<S>(out.first_row + row + r, [S::splat_i(sum); 4], 1, to, 1);
        }
    }
}

/// Row and column strides.
struct Strided {
    at: *const u8,
    row: usize,
    col: usize,
    next: *const u8,
    whole: bool,
}

impl Strided {
    fn new(at: *const u8, row: usize, col: usize) -> Self {
        Self { at, row, col, next: at, whole: false }
    }
}

impl Right for Strided {
    #[inline(always)]
    unsafe fn start(&mut self, col: usize, cols: usize) {
        self.next = self.at.add(col * self.col);
        self.whole = self.col == 1 && cols == COLS;
    }
    #[inline(always)]
    unsafe fn advance(&mut self) -> *const u8 {
        let here = self.next;
        self.next = here.wrapping_add(self.row);
        here
    }
    #[inline(always)]
    unsafe fn line(&self, depth: *const u8) -> Option<*const u8> {
        self.whole.then_some(depth)
    }
    #[inline(always)]
    unsafe fn gather(&self, depth: *const u8, cols: usize, to: &mut [u8; COLS]) {
        for (c, to) in to.iter_mut().enumerate().take(cols) {
            *to = *depth.add(c * self.col);
        }
    }
    #[inline(always)]
    unsafe fn column(&self, col: usize) -> Option<*const u8> {
        (self.row == 1 && self.col != 1).then(|| self.at.add(col * self.col))
    }
}

/// The windows of a convolution as columns of a matrix that exists only panel by panel.
struct Windows {
    planes: *const u8,
    walk: Walk,
    kernel: [usize; 2],
    ow: usize,
    /// The next depth: plane, and row and column of the window.
    plane: *const u8,
    tap: [usize; 2],
    /// The first column's pixel, and bytes from the window's start to it.
    pixel: [usize; 2],
    offset: usize,
    whole: bool,
}

impl Windows {
    fn new(planes: *const u8, walk: Walk, kernel: [usize; 2], ow: usize) -> Self {
        Self { planes, walk, kernel, ow, plane: planes, tap: [0; 2], pixel: [0; 2], offset: 0, whole: false }
    }
}

impl Right for Windows {
    #[inline(always)]
    unsafe fn start(&mut self, col: usize, cols: usize) {
        let [y, x] = [col / self.ow, col % self.ow];
        (self.plane, self.tap, self.pixel) = (self.planes, [0; 2], [y, x]);
        self.offset = y * self.walk.row + x;
        self.whole = cols == COLS && x + COLS <= self.ow;
    }
    #[inline(always)]
    unsafe fn advance(&mut self) -> *const u8 {
        let here = self.plane.add(self.walk.tap(self.tap[0], self.tap[1]));
        self.tap[1] += 1;
        if self.tap[1] == self.kernel[1] {
            self.tap = [self.tap[0] + 1, 0];
        }
        if self.tap[0] == self.kernel[0] {
            self.tap = [0; 2];
            self.plane = self.plane.wrapping_add(self.walk.plane);
        }
        here
    }
    #[inline(always)]
    unsafe fn line(&self, depth: *const u8) -> Option<*const u8> {
        self.whole.then(|| depth.add(self.offset))
    }
    #[inline(always)]
    unsafe fn gather(&self, depth: *const u8, cols: usize, to: &mut [u8; COLS]) {
        // Columns go on in the next rows of pixels.
        let ([mut y, mut x], mut done) = (self.pixel, 0);
        while done < cols {
            let n = (self.ow - x).min(cols - done);
            run(depth.add(y * self.walk.row + x), to.as_mut_ptr().add(done), n);
            (y, x, done) = (y + 1, 0, done + n);
        }
    }
    #[inline(always)]
    unsafe fn column(&self, _: usize) -> Option<*const u8> {
        None
    }
}

/// Packs a left side that is not weights.
unsafe fn pack_left(side: &Bytes, at: *const u8, [m, k]: [usize; 2], bytes: Unsigned, to: *mut i16) {
    let depth = packed_depth(k as u64) as usize;
    for row in 0..m.div_ceil(PANEL_ROWS) * PANEL_ROWS {
        let to = to.add(row / PANEL_ROWS * PANEL_ROWS * depth + row % PANEL_ROWS * 2);
        for i in 0..depth {
            let value = if row < m && i < k {
                bytes.centred(*at.add(row * side.row as usize + i * side.col as usize))
            } else {
                0
            };
            *to.add(i / 2 * PANEL_ROWS * 2 + i % 2) = value;
        }
    }
}

/// Packs a matrix as P4 pairs: what the compiler does with weights.
pub fn pack_pairs(m: usize, k: usize, at: impl Fn(usize, usize) -> i16) -> impl Iterator<Item = i16> {
    let depth = packed_depth(k as u64) as usize;
    debug_assert!(depth.is_multiple_of(DEPTH as usize));
    (0..pairs_elements(m as u64, k as u64) as usize).map(move |i| {
        let (panel, inside) = (i / (PANEL_ROWS * depth), i % (PANEL_ROWS * depth));
        let (pair, r, half) = (inside / (2 * PANEL_ROWS), inside / 2 % PANEL_ROWS, inside % 2);
        let (row, column) = (panel * PANEL_ROWS + r, pair * 2 + half);
        if row < m && column < k { at(row, column) } else { 0 }
    })
}
