//! Padded planes in scratch: what windows slide over without a border to mind.

use ballast_plan::step::Window;

use crate::simd::Simd;

/// How the taps of a window find their elements in a plane, be it the input itself or its padded copy.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Floats from one plane to the next.
    pub plane: usize,
    /// Floats from one output row to the next.
    pub row: usize,
    /// Floats from one row of taps to the next.
    pub tap_row: usize,
    /// Floats from one phase of the column stride to the next.
    pub phase: usize,
    sw: usize,
    dw: usize,
}

impl Walk {
    /// How `window` walks: over the input if that needs no padding, else over what [`pad`] made.
    pub fn new(window: &Window) -> Self {
        if window.is_direct() {
            Self::over(window, window.ih as usize * window.iw as usize, window.iw as usize)
        } else {
            Self::padded(window)
        }
    }

    /// How it walks over what [`pad`] made, needed or not.
    pub fn padded(window: &Window) -> Self {
        Self::over(window, window.plane_floats() as usize, window.row_floats() as usize)
    }

    fn over(window: &Window, plane: usize, row: usize) -> Self {
        Self {
            plane,
            row: row * window.sh as usize,
            tap_row: row * window.dh as usize,
            phase: window.phase_width() as usize,
            sw: window.sw as usize,
            dw: window.dw as usize,
        }
    }

    /// Floats from the plane's start to what tap `(ky, kx)` of the first window reads; the next window in the row reads the
    /// next float.
    #[inline(always)]
    pub fn tap(&self, ky: usize, kx: usize) -> usize {
        let x = kx * self.dw;
        if self.sw == 1 {
            return ky * self.tap_row + x;
        }
        ky * self.tap_row + x % self.sw * self.phase + x / self.sw
    }
}

/// Copies a plane of floats into scratch, padded with `value` and split into the phases of its column stride.
///
/// # Safety
/// `input` has the window's input plane, `out` has `plane_floats`.
#[inline(always)]
pub unsafe fn pad<S: Simd>(window: &Window, input: *const f32, out: *mut f32, value: f32) {
    // SAFETY: the walk hands on what it was given.
    pad_with(window, input, out, value, |from, to, n| unsafe { elements::<S>(from, to, n) });
}

/// [`pad`] for any elements; `run` copies so many of them that lie next to each other.
///
/// # Safety
/// `input` has the window's input plane, `out` has as many elements as `plane_floats` says.
#[inline(always)]
pub unsafe fn pad_with<T: Copy>(
    window: &Window,
    input: *const T,
    out: *mut T,
    value: T,
    run: impl Fn(*const T, *mut T, usize),
) {
    let (rows, phase) = (window.padded_rows() as usize, window.phase_width() as usize);
    let (sw, iw, ih) = (window.sw as usize, window.iw as usize, window.ih as usize);
    let (pt, pl) = (window.pt as usize, window.pl as usize);
    for y in 0..rows {
        let row = out.add(y * sw * phase);
        if y < pt || y - pt >= ih {
            fill(row, sw * phase, value);
            continue;
        }
        let from = input.add((y - pt) * iw);
        for p in 0..sw {
            let to = row.add(p * phase);
            // Phase element i is column i·sw + p of the padded row: inside the input for i in first..last.
            let first = pl.saturating_sub(p).div_ceil(sw).min(phase);
            let last = (pl + iw).saturating_sub(p).div_ceil(sw).clamp(first, phase);
            fill(to, first, value);
            let start = from.wrapping_add(first * sw + p).wrapping_sub(pl);
            match sw {
                1 => run(start, to.add(first), last - first),
                2 => gather::<2, T>(start, to.add(first), last - first),
                _ => (0..last - first).for_each(|i| *to.add(first + i) = *start.add(i * sw)),
            }
            fill(to.add(last), phase - last, value);
        }
    }
}

/// Copies `n` floats to where they do not overlap, by vectors: in the guest a copy of any length is a call out of it.
///
/// # Safety
/// `from` and `to` have `n` floats.
#[inline(always)]
pub unsafe fn elements<S: Simd>(from: *const f32, to: *mut f32, n: usize) {
    let mut i = 0;
    while i + S::LANES <= n {
        S::store(to.add(i), S::load(from.add(i)));
        i += S::LANES;
    }
    if i < n {
        S::store_n(to.add(i), S::load_n(from.add(i), n - i), n - i);
    }
}

#[inline(always)]
unsafe fn gather<const STRIDE: usize, T: Copy>(from: *const T, to: *mut T, n: usize) {
    for i in 0..n {
        *to.add(i) = *from.add(i * STRIDE);
    }
}

#[inline(always)]
unsafe fn fill<T: Copy>(to: *mut T, n: usize, value: T) {
    for i in 0..n {
        *to.add(i) = value;
    }
}
