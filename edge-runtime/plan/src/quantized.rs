//! Steps over bytes: exact products in 32-bit integers, and what makes bytes of them again.
//!
//! Bytes are U8 or I8; what counts is `byte − zero`, whose sums are exact. "P4 pairs" is a matrix packed in panels of four rows,
//! two neighbours of a row next to each other, `[⌈m/4⌉][k′/2][4][2]` with `k′ = k` rounded up to [`DEPTH`]; filled up with zeros.

use crate::check::{Access, Bounds, Checked, countable, sound, times};
use crate::geometry::SLACK_BYTES;
use crate::record::{choice, record};
use crate::step::{At, DType, PANEL_COLS, PANEL_ROWS, Window};

/// Depths come in multiples of this: pairs, and a vector of eight lanes takes two of them.
pub const DEPTH: u64 = 4;

choice! {
    /// How the left side of a product of bytes lies.
    pub enum Packing("packing of bytes") {
        /// Bytes with strides.
        #[default]
        Strided = 0,
        /// P4 pairs of signed bytes, their zero point taken off.
        Bytes = 1,
        /// P4 pairs of signed 16-bit integers, their zero point taken off.
        Words = 2,
    }
}

record! {
    /// Bytes with strides.
    pub struct Bytes {
        /// The first byte.
        at: At,
        /// U8 or I8.
        dtype: DType,
        /// One byte of that type: what counts as 0.
        zero: At,
        /// Bytes from row to row.
        row: u32,
        /// Bytes from column to column.
        col: u32,
        /// Bytes from one product to the next; 0 repeats.
        batch: u32,
    }
}

record! {
    /// What is done to exact sums `s`: `t = s + bias[row]`, and of that, by the type of the result:
    /// I32 `t`; F32 `f32(t) · factor[row]`;
    /// U8 and I8 `clamp(round(f32(t) · factor[row]) + zero, low, high)`, halves to even.
    pub struct Requantize {
        /// I32, U8, I8 or F32.
        dtype: DType,
        /// 1: there is a bias.
        biased: u32,
        /// I32, one for each row.
        bias: At,
        /// F32, one for each row; not for I32.
        factors: At,
        /// Zero point of the result.
        zero: i32,
        /// Smallest result.
        low: i32,
        /// Largest result.
        high: i32,
    }
}

record! {
    /// `out[b] = left[b] · right[b]`, bytes to whatever follows.
    pub struct IntGemm {
        /// How many products.
        batch: u32,
        /// Rows.
        m: u32,
        /// Columns.
        n: u32,
        /// Depth.
        k: u32,
        /// How the left side lies.
        packing: Packing,
        /// `m × k`. Packed: only `at` counts.
        left: Bytes,
        /// `k × n`.
        right: Bytes,
        /// The first element of the result.
        out: At,
        /// Elements from row to row.
        out_row: u32,
        /// Elements from column to column.
        out_col: u32,
        /// Elements from one result to the next.
        out_batch: u32,
        /// What follows.
        after: Requantize,
        /// [`IntGemm::scratch_bytes`] of arena.
        scratch: At,
    }
}

record! {
    /// Convolution of bytes as a product of weights and windows: `[batch][groups · ic][ih][iw] → [batch][groups · oc][oh][ow]`.
    pub struct IntConv {
        /// How many images.
        batch: u32,
        /// How many groups.
        groups: u32,
        /// Input planes of a group.
        ic: u32,
        /// Output planes of a group.
        oc: u32,
        /// The window; padding counts as 0, which is the zero point.
        window: Window,
        /// The first byte.
        input: At,
        /// U8 or I8.
        dtype: DType,
        /// One byte of that type.
        zero: At,
        /// Not strided.
        packing: Packing,
        /// Per group P4 pairs of `oc × (ic · kh · kw)`.
        weights: At,
        /// `[batch][groups · oc][pixels]`.
        out: At,
        /// Rows are the output planes of all groups.
        after: Requantize,
        /// [`IntConv::scratch_bytes`] of arena.
        scratch: At,
    }
}

record! {
    /// Convolution of each plane of bytes with its own window: `[batch][planes][ih][iw] → [batch][planes][oh][ow]`.
    pub struct IntDepthwise {
        /// How many images.
        batch: u32,
        /// How many planes.
        planes: u32,
        /// The window; padding counts as the zero point.
        window: Window,
        /// The first byte.
        input: At,
        /// U8 or I8.
        dtype: DType,
        /// One byte of that type.
        zero: At,
        /// Signed 16-bit integers, `[planes][⌈taps/2⌉][2]`, filled up with zeros.
        weights: At,
        /// `[batch][planes][pixels]`.
        out: At,
        /// Rows are the planes.
        after: Requantize,
        /// [`IntDepthwise::scratch_bytes`] of arena.
        scratch: At,
    }
}

record! {
    /// `out[i] = table[input[i]]`: a function of bytes. In and out may be the same place.
    pub struct Lookup {
        /// How many.
        count: u32,
        /// Bytes; of signed ones their two's complement is the index.
        input: At,
        /// 256 bytes.
        table: At,
        /// Bytes.
        out: At,
    }
}

/// Depth with which a matrix is packed.
pub fn packed_depth(k: u64) -> u64 {
    k.div_ceil(DEPTH).saturating_mul(DEPTH)
}

/// Elements of a matrix as P4 pairs.
pub fn pairs_elements(m: u64, k: u64) -> u64 {
    times(&[m.div_ceil(PANEL_ROWS as u64), PANEL_ROWS as u64, packed_depth(k)])
}

/// Bytes of the panel of columns that is packed on the way: one panel over the whole depth, as 16-bit integers.
pub fn panel_bytes(k: u64) -> u64 {
    times(&[packed_depth(k), PANEL_COLS as u64, 2])
}

/// Bytes of a plane in scratch, behind which a vector load may read on.
fn planes_bytes(window: &Window, planes: u64) -> u64 {
    times(&[planes, window.plane_floats()]).saturating_add(SLACK_BYTES).div_ceil(64).saturating_mul(64)
}

impl IntGemm {
    /// Bytes of scratch for the left side; the panel of the right side follows.
    pub fn left_bytes(&self) -> u64 {
        match self.packing {
            Packing::Strided => times(&[pairs_elements(u64::from(self.m), u64::from(self.k)), 2]),
            Packing::Bytes | Packing::Words => 0,
        }
    }

    /// Scratch for what is packed on the way.
    pub fn scratch_bytes(&self) -> u64 {
        self.left_bytes().saturating_add(panel_bytes(u64::from(self.k)))
    }
}

impl IntConv {
    /// Depth of a group's product.
    pub fn depth(&self) -> u64 {
        times(&[u64::from(self.ic), self.window.taps()])
    }

    /// Elements of one group's weights.
    pub fn group_elements(&self) -> u64 {
        pairs_elements(u64::from(self.oc), self.depth())
    }

    /// Bytes of scratch in front of the panel: a group's padded planes.
    pub fn planes_bytes(&self) -> u64 {
        if self.window.is_direct() { 0 } else { planes_bytes(&self.window, u64::from(self.ic)) }
    }

    /// Scratch: planes, then the panel.
    pub fn scratch_bytes(&self) -> u64 {
        self.planes_bytes().saturating_add(panel_bytes(self.depth()))
    }
}

impl IntDepthwise {
    /// Scratch: one padded plane.
    pub fn scratch_bytes(&self) -> u64 {
        planes_bytes(&self.window, 1)
    }

    /// Pairs of taps of a plane.
    pub fn pairs(&self) -> u64 {
        self.window.taps().div_ceil(2)
    }
}

impl Packing {
    fn size(self) -> u32 {
        match self {
            Self::Strided | Self::Bytes => 1,
            Self::Words => 2,
        }
    }
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8)
}

impl Bounds<'_> {
    fn requantize(&self, after: &Requantize, rows: u64) -> Checked {
        sound(after.biased <= 1)?;
        if after.biased == 1 {
            self.span(after.bias, rows, 4, Access::Read)?;
        }
        let ends = match after.dtype {
            DType::I32 => return Ok(()),
            DType::F32 => i32::MIN..=i32::MAX,
            DType::U8 => 0..=255,
            DType::I8 => -128..=127,
            _ => return sound(false),
        };
        sound([after.zero, after.low, after.high].iter().all(|n| ends.contains(n)) && after.low <= after.high)?;
        self.span(after.factors, rows, 4, Access::Read)
    }

    fn bytes(&self, bytes: &Bytes, batch: u32, rows: u32, cols: u32) -> Checked {
        sound(is_byte(bytes.dtype))?;
        self.span(bytes.zero, 1, 1, Access::Read)?;
        let last = |n: u32, by: u32| times(&[u64::from(n) - 1, u64::from(by)]);
        let reach =
            last(batch, bytes.batch).saturating_add(last(rows, bytes.row)).saturating_add(last(cols, bytes.col));
        self.span(bytes.at, reach.saturating_add(1), 1, Access::Read)
    }

    pub(crate) fn int_gemm(&self, g: &IntGemm) -> Checked {
        [g.batch, g.m, g.n, g.k].iter().try_for_each(|&n| countable(&[n]))?;
        let [batch, m, n, k] = [g.batch, g.m, g.n, g.k].map(u64::from);
        match g.packing {
            Packing::Strided => self.bytes(&g.left, g.batch, g.m, g.k)?,
            Packing::Bytes | Packing::Words => {
                self.span(g.left.at, pairs_elements(m, k), g.packing.size(), Access::Read)?;
            }
        }
        self.bytes(&g.right, g.batch, g.k, g.n)?;
        let last = |n: u64, by: u32| times(&[n - 1, u64::from(by)]);
        let reach = last(batch, g.out_batch).saturating_add(last(m, g.out_row)).saturating_add(last(n, g.out_col));
        self.span(g.out, reach.saturating_add(1), g.after.dtype.size() as u32, Access::Write)?;
        self.requantize(&g.after, m)?;
        self.scratch(g.scratch, g.scratch_bytes())
    }

    pub(crate) fn int_conv(&self, c: &IntConv) -> Checked {
        sound([c.batch, c.groups, c.ic, c.oc].iter().all(|&n| n >= 1))?;
        sound(c.window.is_sane() && is_byte(c.dtype) && c.packing != Packing::Strided)?;
        let [batch, groups, ic, oc] = [c.batch, c.groups, c.ic, c.oc].map(u64::from);
        let (w, pixels) = (&c.window, c.window.pixels());
        self.span(c.input, times(&[batch, groups, ic, u64::from(w.ih), u64::from(w.iw)]), 1, Access::Read)?;
        self.span(c.zero, 1, 1, Access::Read)?;
        self.span(c.weights, times(&[groups, c.group_elements()]), c.packing.size(), Access::Read)?;
        self.span(c.out, times(&[batch, groups, oc, pixels]), c.after.dtype.size() as u32, Access::Write)?;
        self.requantize(&c.after, times(&[groups, oc]))?;
        self.scratch(c.scratch, c.scratch_bytes())
    }

    pub(crate) fn int_depthwise(&self, d: &IntDepthwise) -> Checked {
        sound([d.batch, d.planes].iter().all(|&n| n >= 1) && d.window.is_sane() && is_byte(d.dtype))?;
        let [batch, planes] = [d.batch, d.planes].map(u64::from);
        let w = &d.window;
        self.span(d.input, times(&[batch, planes, u64::from(w.ih), u64::from(w.iw)]), 1, Access::Read)?;
        self.span(d.zero, 1, 1, Access::Read)?;
        self.span(d.weights, times(&[planes, d.pairs(), 2]), 2, Access::Read)?;
        self.span(d.out, times(&[batch, planes, w.pixels()]), d.after.dtype.size() as u32, Access::Write)?;
        self.requantize(&d.after, planes)?;
        self.scratch(d.scratch, d.scratch_bytes())
    }

    pub(crate) fn lookup(&self, l: &Lookup) -> Checked {
        self.span(l.input, u64::from(l.count), 1, Access::Read)?;
        self.span(l.table, 256, 1, Access::Read)?;
        self.span(l.out, u64::from(l.count), 1, Access::Write)
    }
}
