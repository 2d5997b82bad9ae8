//! Results with as many rows as the data says. Indices that are read back from memory are held inside their range: a plan may
//! put two results of a step into one place.

use core::cmp::Ordering;

use ballast_plan::DType;
use ballast_plan::bounded::{NonZero, Suppress, Unique};

use crate::Memory;
use crate::half::{from_bf16, from_f16};

/// Indices of elements that are not zero.
pub unsafe fn non_zero(s: &NonZero, memory: &Memory) {
    let (rank, size) = (s.rank as usize, s.dtype.size());
    let elements: usize = s.dims[..rank].iter().map(|&d| d as usize).product();
    let (input, out) = (memory.read(s.input), memory.write(s.out).cast::<i64>());
    let mut index = [0u32; 8];
    let mut count = 0;
    for i in 0..elements {
        if is_not_zero(s.dtype, input.add(i * size)) {
            for (d, &at) in index[..rank].iter().enumerate() {
                *out.add(d * elements + count) = i64::from(at);
            }
            count += 1;
        }
        for d in (0..rank).rev() {
            index[d] += 1;
            if index[d] < s.dims[d] {
                break;
            }
            index[d] = 0;
        }
    }
    for d in 0..rank {
        out.add(d * elements + count).write_bytes(0, elements - count);
    }
    *memory.write(s.count).cast::<i64>() = count as i64;
}

unsafe fn is_not_zero(dtype: DType, at: *const u8) -> bool {
    match dtype {
        DType::F32 => *at.cast::<f32>() != 0.0,
        DType::F64 => *at.cast::<f64>() != 0.0,
        DType::F16 | DType::BF16 => *at.cast::<u16>() & 0x7fff != 0,
        _ => (0..dtype.size()).any(|i| *at.add(i) != 0),
    }
}

/// Non-maximum suppression, with the answers and ties of ONNX Runtime: the better score first, of equal ones the lower index.
pub unsafe fn suppress(s: &Suppress, memory: &Memory) {
    let (boxes, limit) = (s.boxes as usize, s.limit as usize);
    let (corners, scores) = (memory.floats(s.corners), memory.floats(s.scores));
    let (out, heap) = (memory.write(s.out).cast::<i64>(), memory.write(s.scratch).cast::<u32>());
    let rows = s.batch as usize * s.classes as usize * limit;
    let mut count = 0;
    for class in 0..s.batch as usize * s.classes as usize {
        let image = class / s.classes as usize;
        let (corners, scores) = (corners.add(image * boxes * 4), scores.add(class * boxes));
        let better = |a: u32, b: u32| {
            let [x, y] = [a, b].map(|i| *scores.add((i as usize).min(boxes - 1)));
            let same = x == y || x.is_nan() && y.is_nan();
            x > y || !x.is_nan() && y.is_nan() || same && a < b
        };
        let mut left = 0;
        for i in 0..boxes {
            if s.scored == 0 || *scores.add(i) > s.score {
                *heap.add(left) = i as u32;
                left += 1;
            }
        }
        for at in (0..left / 2).rev() {
            sift(heap, at, left, &better);
        }
        let first = count;
        while left > 0 && count - first < limit {
            let best = *heap;
            left -= 1;
            *heap = *heap.add(left);
            sift(heap, 0, left, &better);
            let corner = |i: i64| corners.add(i.clamp(0, boxes as i64 - 1) as usize * 4);
            let kept = |k: usize| *out.add(k * 3 + 2);
            if (first..count).all(|k| !overlap(s, corner(i64::from(best)), corner(kept(k)))) {
                let row = [image as i64, (class % s.classes as usize) as i64, i64::from(best)];
                row.iter().enumerate().for_each(|(i, &v)| *out.add(count * 3 + i) = v);
                count += 1;
            }
        }
    }
    out.add(count * 3).write_bytes(0, (rows - count) * 3);
    *memory.write(s.count).cast::<i64>() = count as i64;
}

/// Moves what is at `at` down to where nothing below it comes first.
unsafe fn sift(heap: *mut u32, mut at: usize, len: usize, first: &impl Fn(u32, u32) -> bool) {
    loop {
        let mut top = at;
        for child in [2 * at + 1, 2 * at + 2] {
            if child < len && first(*heap.add(child), *heap.add(top)) {
                top = child;
            }
        }
        if top == at {
            return;
        }
        core::ptr::swap(heap.add(at), heap.add(top));
        at = top;
    }
}

/// Low and high end along one axis.
unsafe fn ends(s: &Suppress, corners: *const f32, axis: usize) -> [f32; 2] {
    let [a, b] = [*corners.add(axis), *corners.add(axis + 2)];
    if s.centered == 1 {
        let half = b / 2.0;
        return [a - half, a + half];
    }
    if a > b { [b, a] } else { [a, b] }
}

unsafe fn overlap(s: &Suppress, a: *const f32, b: *const f32) -> bool {
    let (mut inner, mut first, mut second) = (1.0, 1.0, 1.0);
    // Corners are rows then columns, centres the other way; the product is the same.
    for axis in [1, 0] {
        let ([a0, a1], [b0, b1]) = (ends(s, a, axis), ends(s, b, axis));
        let (low, high) = (if a0 > b0 { a0 } else { b0 }, if a1 < b1 { a1 } else { b1 });
        if high <= low {
            return false;
        }
        (inner, first, second) = (inner * (high - low), first * (a1 - a0), second * (b1 - b0));
    }
    let union = first + second - inner;
    if inner <= 0.0 || first <= 0.0 || second <= 0.0 || union <= 0.0 {
        return false;
    }
    inner / union > s.iou
}

/// Rows that differ.
pub unsafe fn unique(s: &Unique, memory: &Memory) {
    let (rows, bytes) = (s.rows as usize, s.len as usize * s.dtype.size());
    let input = memory.read(s.input);
    let values = memory.write(s.values);
    let [first, inverse, counts] = [s.first, s.inverse, s.counts].map(|at| memory.write(at).cast::<i64>());
    let order = memory.write(s.scratch).cast::<u32>();
    let row = |i: u32| input.add((i as usize).min(rows - 1) * bytes);
    let later = |a: u32, b: u32| match compare(s, row(a), row(b)) {
        Ordering::Greater => true,
        Ordering::Equal => a > b,
        Ordering::Less => false,
    };
    (0..rows).for_each(|i| *order.add(i) = i as u32);
    for at in (0..rows / 2).rev() {
        sift(order, at, rows, &later);
    }
    for end in (1..rows).rev() {
        core::ptr::swap(order, order.add(end));
        sift(order, 0, end, &later);
    }
    // For each row its first occurrence, which stands first among its equals.
    let mut leader = *order;
    for i in 0..rows {
        let here = *order.add(i);
        if compare(s, row(here), row(leader)) != Ordering::Equal {
            leader = here;
        }
        *inverse.add((here as usize).min(rows - 1)) = i64::from(leader);
    }
    counts.write_bytes(0, rows);
    let mut count = 0;
    let mut number = |i: usize| {
        if *inverse.add(i) == i as i64 {
            *first.add(count) = i as i64;
            core::ptr::copy(input.add(i * bytes), values.add(count * bytes), bytes);
            count += 1;
        }
    };
    for i in 0..rows {
        number(if s.sorted == 1 { (*order.add(i) as usize).min(rows - 1) } else { i });
    }
    first.add(count).write_bytes(0, rows - count);
    values.add(count * bytes).write_bytes(0, (rows - count) * bytes);
    // From now on the number of each first occurrence.
    for k in 0..count {
        *order.add((*first.add(k)).clamp(0, rows as i64 - 1) as usize) = k as u32;
    }
    for i in 0..rows {
        let leader = (*inverse.add(i)).clamp(0, rows as i64 - 1) as usize;
        let k = (*order.add(leader) as usize).min(rows - 1);
        *inverse.add(i) = k as i64;
        *counts.add(k) = (*counts.add(k)).wrapping_add(1);
    }
    *memory.write(s.count).cast::<i64>() = count as i64;
}

unsafe fn compare(s: &Unique, a: *const u8, b: *const u8) -> Ordering {
    macro_rules! by {
        ($t:ty, $order:expr) => {{
            let (a, b) = (a.cast::<$t>(), b.cast::<$t>());
            let each = |i: usize| $order(*a.add(i), *b.add(i));
            (0..s.len as usize).map(each).find(|o| *o != Ordering::Equal).unwrap_or(Ordering::Equal)
        }};
    }
    fn floats<T: PartialOrd>(x: T, y: T) -> Ordering {
        // Only NaN is not equal to itself, and it comes last.
        #[allow(clippy::eq_op)]
        x.partial_cmp(&y).unwrap_or_else(|| (x != x).cmp(&(y != y)))
    }
    fn whole<T: Ord>(x: T, y: T) -> Ordering {
        x.cmp(&y)
    }
    match s.dtype {
        DType::F32 => by!(f32, floats),
        DType::F64 => by!(f64, floats),
        DType::Bool | DType::U8 => by!(u8, whole),
        DType::I8 => by!(i8, whole),
        DType::U16 => by!(u16, whole),
        DType::I16 => by!(i16, whole),
        DType::U32 => by!(u32, whole),
        DType::I32 => by!(i32, whole),
        DType::U64 => by!(u64, whole),
        DType::I64 => by!(i64, whole),
        DType::F16 => by!(u16, |x, y| floats(from_f16(x), from_f16(y))),
        DType::BF16 => by!(u16, |x, y| floats(from_bf16(x), from_bf16(y))),
    }
}
