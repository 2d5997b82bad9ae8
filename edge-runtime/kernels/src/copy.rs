//! Moving elements without computing.

use ballast_plan::DType;
use ballast_plan::step::{Copy, Fill, Gather, MAX_DIMS};

use crate::Memory;

/// Writes one word over and over.
pub unsafe fn fill(s: &Fill, memory: &Memory) {
    let out = memory.write(s.out).cast::<u32>();
    for i in 0..s.words as usize {
        *out.add(i) = s.value;
    }
}

/// Copies strided elements.
pub unsafe fn copy(s: &Copy, memory: &Memory) {
    let (from, to) = (memory.read(s.input), memory.write(s.out));
    match s.size {
        1 => strided(s, from, to),
        2 => strided(s, from.cast::<u16>(), to.cast()),
        4 => strided(s, from.cast::<u32>(), to.cast()),
        _ => strided(s, from.cast::<u64>(), to.cast()),
    }
}

unsafe fn strided<T: core::marker::Copy>(s: &Copy, from: *const T, to: *mut T) {
    const ROW: usize = MAX_DIMS - 2;
    const COL: usize = MAX_DIMS - 1;
    let outer = s.dims[..ROW].iter().fold(1usize, |all, &d| all.saturating_mul(d as usize));
    let mut index = [0u32; ROW];
    let (mut from, mut to) = (from, to);
    for _ in 0..outer {
        let rows = [s.dims[ROW] as usize, s.dims[COL] as usize];
        let strides = |s: &[i32; MAX_DIMS]| [s[ROW] as isize, s[COL] as isize];
        matrix(from, to, rows, strides(&s.input_strides), strides(&s.out_strides));
        for d in (0..ROW).rev() {
            let (step_in, step_out) = (s.input_strides[d] as isize, s.out_strides[d] as isize);
            index[d] += 1;
            if index[d] < s.dims[d] {
                from = from.wrapping_offset(step_in);
                to = to.wrapping_offset(step_out);
                break;
            }
            let back = s.dims[d] as isize - 1;
            from = from.wrapping_offset(-step_in * back);
            to = to.wrapping_offset(-step_out * back);
            index[d] = 0;
        }
    }
}

/// Rows and columns; the transposing case in blocks, so that both sides stay in the first-level cache.
unsafe fn matrix<T: core::marker::Copy>(
    from: *const T,
    to: *mut T,
    [rows, cols]: [usize; 2],
    [from_row, from_col]: [isize; 2],
    [to_row, to_col]: [isize; 2],
) {
    if from_col == 1 && to_col == 1 {
        for y in 0..rows {
            core::ptr::copy(from.offset(y as isize * from_row), to.offset(y as isize * to_row), cols);
        }
        return;
    }
    const BLOCK: usize = 16;
    for y0 in (0..rows).step_by(BLOCK) {
        for x0 in (0..cols).step_by(BLOCK) {
            for y in y0..(y0 + BLOCK).min(rows) {
                let from = from.offset(y as isize * from_row);
                let to = to.offset(y as isize * to_row);
                for x in x0..(x0 + BLOCK).min(cols) {
                    *to.offset(x as isize * to_col) = *from.offset(x as isize * from_col);
                }
            }
        }
    }
}

/// Picks slices by index.
pub unsafe fn gather(s: &Gather, memory: &Memory) {
    let (indices, input, out) = (memory.read(s.indices), memory.read(s.input), memory.write(s.out));
    let (bytes, axis, count) = (s.bytes as usize, i64::from(s.axis), s.count as usize);
    for i in 0..count {
        let index = match s.dtype {
            DType::I32 => i64::from(*indices.cast::<i32>().add(i)),
            _ => *indices.cast::<i64>().add(i),
        };
        let index = if index < 0 { index.saturating_add(axis) } else { index };
        let index = index.clamp(0, axis - 1) as usize;
        for o in 0..s.outer as usize {
            let from = input.add((o * s.axis as usize + index) * bytes);
            core::ptr::copy(from, out.add((o * count + i) * bytes), bytes);
        }
    }
}
