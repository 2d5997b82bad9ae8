//! Padded planes of bytes in scratch: as `crate::planes` has them for floats.

use ballast_plan::step::Window;

/// Copies a plane, padded with `value` and split into the phases of its column stride.
///
/// # Safety
/// `input` has the window's input plane, `out` has `plane_floats` bytes.
pub unsafe fn pad(window: &Window, input: *const u8, out: *mut u8, value: u8) {
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
            if sw == 1 {
                run(start, to.add(first), last - first);
            } else {
                for i in 0..last - first {
                    *to.add(first + i) = *start.add(i * sw);
                }
            }
            fill(to.add(last), phase - last, value);
        }
    }
}

/// Copies `n` bytes, words at a time: in the guest a copy of any length is a call out of it.
///
/// # Safety
/// `from` and `to` have `n` bytes and do not overlap.
#[inline(always)]
pub unsafe fn run(from: *const u8, to: *mut u8, n: usize) {
    let mut i = 0;
    while i + 8 <= n {
        to.add(i).cast::<u64>().write_unaligned(from.add(i).cast::<u64>().read_unaligned());
        i += 8;
    }
    while i < n {
        *to.add(i) = *from.add(i);
        i += 1;
    }
}

#[inline(always)]
unsafe fn fill(to: *mut u8, n: usize, value: u8) {
    for i in 0..n {
        *to.add(i) = value;
    }
}
