//! Padded planes of bytes in scratch: as `crate::planes` has them for floats.

use ballast_plan::step::Window;

use crate::planes::pad_with;

/// Copies a plane, padded with `value` and split into the phases of its column stride.
///
/// # Safety
/// `input` has the window's input plane, `out` has `plane_floats` bytes.
pub unsafe fn pad(window: &Window, input: *const u8, out: *mut u8, value: u8) {
    // SAFETY: the walk hands on what it was given.
    pad_with(window, input, out, value, |from, to, n| unsafe { run(from, to, n) });
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
