//! What is in order, whatever its type: every element has a key, and keys are integers.

use ballast_plan::DType;
use ballast_plan::generic::Top;

use crate::Memory;
use crate::domain::Domain as _;

/// The number that is in the order of the element: NaN above all.
#[inline(always)]
unsafe fn key(dtype: DType, base: *const u8, at: usize) -> i64 {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            let mut x = 0f64;
            f64::load(dtype, base, at as isize, 1, 1, &mut x);
            if x.is_nan() {
                return i64::MAX;
            }
            // Both zeros are one; below zero the bits run the other way.
            let bits = (x + 0.0).to_bits() as i64;
            if bits < 0 { bits ^ i64::MAX } else { bits }
        }
        _ => {
            let mut x = 0i64;
            i64::load(dtype, base, at as isize, 1, 1, &mut x);
            x.lifted(dtype)
        }
    }
}

/// An element to be put in order: by key, then by index.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
#[repr(C)]
struct Entry {
    key: i64,
    index: u64,
}

/// The first `k` of each row.
pub unsafe fn top(s: &Top, memory: &Memory) {
    let [outer, len, inner, k] = [s.outer, s.len, s.inner, s.k].map(|v| v as usize);
    let input = memory.read(s.input);
    let indices = memory.write(s.indices).cast::<i64>();
    let heap = memory.write(s.scratch).cast::<Entry>();
    // Smaller comes first.
    let rank = |at: usize| {
        let key = key(s.dtype, input, at);
        match (key == i64::MAX && is_float(s.dtype), s.largest == 1) {
            (true, _) if s.nan_first == 1 => i64::MIN,
            (_, true) => !key,
            (_, false) => key,
        }
    };
    for o in 0..outer {
        for i in 0..inner {
            let place = |l: usize| (o * len + l) * inner + i;
            let give = |to: usize, l: usize| {
                let to = (o * k + to) * inner + i;
                *indices.add(to) = l as i64;
                if let Some(&values) = s.values.as_slice().first() {
                    let size = s.dtype.size();
                    core::ptr::copy(input.add(place(l) * size), memory.write(values).add(to * size), size);
                }
            };
            if k == 1 {
                let (mut best, mut at) = (rank(place(0)), 0);
                for l in 1..len {
                    let next = rank(place(l));
                    if next < best || next == best && s.last == 1 {
                        (best, at) = (next, l);
                    }
                }
                give(0, at);
                continue;
            }
            for l in 0..len {
                *heap.add(l) = Entry { key: rank(place(l)), index: l as u64 };
            }
            for root in (0..len / 2).rev() {
                sift(heap, root, len);
            }
            for to in 0..k {
                // Held inside: a plan may put its results where its heap lies.
                give(to, ((*heap).index as usize).min(len - 1));
                let rest = len - 1 - to;
                *heap = *heap.add(rest);
                sift(heap, 0, rest);
            }
        }
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

/// Lets an entry sink to where both below it come after it.
unsafe fn sift(heap: *mut Entry, mut root: usize, len: usize) {
    let sinking = *heap.add(root);
    loop {
        let mut child = 2 * root + 1;
        if child >= len {
            break;
        }
        if child + 1 < len && *heap.add(child + 1) < *heap.add(child) {
            child += 1;
        }
        if sinking <= *heap.add(child) {
            break;
        }
        *heap.add(root) = *heap.add(child);
        root = child;
    }
    *heap.add(root) = sinking;
}
