//! Contractions and running sums of any type.

use ballast_plan::generic::{Contract, MAX_INNER, Scan, Side};
use ballast_plan::step::{self, MAX_DIMS, ReduceKind};

use crate::Memory;
use crate::domain::{Domain, STRIP};

/// Joins products.
pub unsafe fn contract(s: &Contract, memory: &Memory) {
    match s.domain {
        step::Domain::F32 => contract_in::<f32>(s, memory),
        step::Domain::F64 => contract_in::<f64>(s, memory),
        step::Domain::I64 => contract_in::<i64>(s, memory),
    }
}

/// Counts through an index space; gives false when it is through.
#[inline(always)]
fn next<const N: usize>(index: &mut [u32; N], extents: &[u32], mut moved: impl FnMut(usize, isize)) -> bool {
    for d in (0..extents.len()).rev() {
        index[d] += 1;
        if index[d] < extents[d] {
            moved(d, 1);
            return true;
        }
        moved(d, 1 - extents[d] as isize);
        index[d] = 0;
    }
    false
}

/// One side while it is walked.
struct Walk<'a> {
    side: &'a Side,
    base: *const u8,
    outer: isize,
    inner: isize,
}

impl<'a> Walk<'a> {
    unsafe fn new(side: &'a Side, memory: &Memory) -> Self {
        Self { side, base: memory.read(side.at), outer: 0, inner: 0 }
    }

    /// A strip of it, and how far its elements lie apart there: what repeats is one.
    #[inline(always)]
    unsafe fn load<D: Domain>(&self, at: usize, stride: i32, n: usize, ordered: bool, to: *mut D) -> usize {
        let first = self.outer + self.inner + at as isize * stride as isize;
        let n = if stride == 0 { 1 } else { n };
        D::load(self.side.dtype, self.base, first, stride as isize, n, to);
        if ordered {
            (0..n).for_each(|i| *to.add(i) = (*to.add(i)).lifted(self.side.dtype));
        }
        usize::from(stride != 0)
    }
}

#[inline(never)]
unsafe fn contract_in<D: Domain>(s: &Contract, memory: &Memory) {
    const COL: usize = MAX_DIMS - 1;
    const LAST: usize = MAX_INNER - 1;
    let mut left = Walk::new(&s.left, memory);
    let right = s.right.as_slice().first();
    let mut right = Walk::new(right.unwrap_or(&s.left), memory);
    let both = !s.right.as_slice().is_empty();
    let ordered = matches!(s.kind, ReduceKind::Max | ReduceKind::Min);
    let start = match s.kind {
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::SumSquares | ReduceKind::SumAbs => D::ZERO,
        ReduceKind::Product => D::ONE,
        ReduceKind::Max => D::LOWEST,
        ReduceKind::Min => D::HIGHEST,
    };
    let (mut a, mut b, mut acc) = ([D::ZERO; STRIP], [D::ZERO; STRIP], [D::ZERO; STRIP]);
    let (a, b, acc) = (a.as_mut_ptr(), b.as_mut_ptr(), acc.as_mut_ptr());
    let (cols, depth) = (s.outer[COL] as usize, s.inner[LAST] as usize);
    // Strips lie along the longer one of the two last dimensions.
    let wide = cols >= depth;
    let counted = s.inner.iter().fold(1usize, |n, &d| n.wrapping_mul(d as usize));
    let mut index = [0u32; COL];
    let mut row = 0;
    loop {
        let mut x = 0;
        while x < cols {
            let n = if wide { (cols - x).min(STRIP) } else { 1 };
            (0..n).for_each(|i| *acc.add(i) = start);
            let mut inner = [0u32; MAX_INNER];
            let extents = if wide { &s.inner[..] } else { &s.inner[..LAST] };
            (left.inner, right.inner) = (0, 0);
            loop {
                if wide {
                    let by = left.load::<D>(x, s.left.outer[COL], n, ordered, a);
                    let by_right = if both { right.load::<D>(x, right.side.outer[COL], n, false, b) } else { 0 };
                    join(s.kind, n, acc, 1, (a, by), both.then_some((b.cast_const(), by_right)));
                } else {
                    let (from_left, from_right) =
                        (x as isize * s.left.outer[COL] as isize, x as isize * right.side.outer[COL] as isize);
                    (left.inner, right.inner) = (left.inner + from_left, right.inner + from_right);
                    let mut l = 0;
                    while l < depth {
                        let m = (depth - l).min(STRIP);
                        let by = left.load::<D>(l, s.left.inner[LAST], m, ordered, a);
                        let by_right = if both { right.load::<D>(l, right.side.inner[LAST], m, false, b) } else { 0 };
                        join(s.kind, m, acc, 0, (a, by), both.then_some((b.cast_const(), by_right)));
                        l += m;
                    }
                    (left.inner, right.inner) = (left.inner - from_left, right.inner - from_right);
                }
                let more = next(&mut inner, extents, |d, by| {
                    left.inner += by * s.left.inner[d] as isize;
                    right.inner += by * right.side.inner[d] as isize;
                });
                if !more {
                    break;
                }
            }
            if s.kind == ReduceKind::Mean {
                (0..n).for_each(|i| *acc.add(i) = (*acc.add(i)).div(D::count(counted)));
            }
            if ordered {
                (0..n).for_each(|i| *acc.add(i) = (*acc.add(i)).lifted(s.dtype));
            }
            D::store(s.dtype, acc, n, memory.write(s.out), (row * cols + x) as isize, 1);
            x += n;
        }
        row += 1;
        let more = next(&mut index, &s.outer[..COL], |d, by| {
            left.outer += by * s.left.outer[d] as isize;
            right.outer += by * right.side.outer[d] as isize;
        });
        if !more {
            break;
        }
    }
}

/// Joins a strip, element by element (`step` 1) or all into one (`step` 0).
#[inline(never)]
unsafe fn join<D: Domain>(
    kind: ReduceKind,
    n: usize,
    acc: *mut D,
    step: usize,
    (a, by): (*const D, usize),
    right: Option<(*const D, usize)>,
) {
    macro_rules! each {
        ($join:expr) => {
            for i in 0..n {
                let x = *a.add(i * by);
                let to = acc.add(i * step);
                *to = $join(*to, x);
            }
        };
    }
    if let Some((b, by_right)) = right {
        for i in 0..n {
            let x = (*a.add(i * by)).mul(*b.add(i * by_right));
            let to = acc.add(i * step);
            *to = if kind == ReduceKind::Product { (*to).mul(x) } else { (*to).add(x) };
        }
        return;
    }
    match kind {
        ReduceKind::Sum | ReduceKind::Mean => each!(|o: D, x: D| o.add(x)),
        ReduceKind::Product => each!(|o: D, x: D| o.mul(x)),
        ReduceKind::SumSquares => each!(|o: D, x: D| o.add(x.mul(x))),
        ReduceKind::SumAbs => each!(|o: D, x: D| o.add(x.abs())),
        ReduceKind::Max => each!(|o: D, x: D| o.max(x)),
        ReduceKind::Min => each!(|o: D, x: D| o.min(x)),
    }
}

/// Running sums.
pub unsafe fn scan(s: &Scan, memory: &Memory) {
    match s.domain {
        step::Domain::F32 => scan_in::<f32>(s, memory),
        step::Domain::F64 => scan_in::<f64>(s, memory),
        step::Domain::I64 => scan_in::<i64>(s, memory),
    }
}

#[inline(never)]
unsafe fn scan_in<D: Domain>(s: &Scan, memory: &Memory) {
    let [outer, len, inner] = [s.outer, s.len, s.inner].map(|v| v as usize);
    let (input, out) = (memory.read(s.input), memory.write(s.out));
    // Rows that run at once: neighbours, or where there are none, whole rows.
    let (groups, lanes, lane) = if inner == 1 { (1, outer, len) } else { (outer, inner, 1) };
    let (mut x, mut sum) = ([D::ZERO; STRIP], [D::ZERO; STRIP]);
    for group in 0..groups {
        let mut at = 0;
        while at < lanes {
            let n = (lanes - at).min(STRIP);
            sum[..n].fill(D::ZERO);
            for l in 0..len {
                let l = if s.reverse == 1 { len - 1 - l } else { l };
                let first = (group * len * inner + at * lane + l * inner) as isize;
                D::load(s.dtype, input, first, lane as isize, n, x.as_mut_ptr());
                if s.exclusive == 1 {
                    D::store(s.dtype, sum.as_ptr(), n, out, first, lane as isize);
                }
                sum.iter_mut().zip(&x).for_each(|(sum, &x)| *sum = sum.add(x));
                if s.exclusive == 0 {
                    D::store(s.dtype, sum.as_ptr(), n, out, first, lane as isize);
                }
            }
            at += n;
        }
    }
}
