//! Reading and writing where tuples of indices point.

use ballast_plan::DType;
use ballast_plan::generic::{Address, Combine, Pick, Put};
use ballast_plan::step::{self, MAX_DIMS};

use crate::Memory;
use crate::domain::Domain;

/// Calls `f` with the number of each tuple and the first element that it points to.
#[inline(always)]
unsafe fn each(s: &Address, memory: &Memory, mut f: impl FnMut(usize, usize)) {
    let indices = memory.read(s.indices);
    let components = s.components.as_slice();
    let mut index = [0u32; MAX_DIMS];
    let (mut base, mut number) = (0usize, 0usize);
    for tuple in 0..s.tuples() as usize {
        let mut place = base;
        for c in components {
            let at = match s.dtype {
                DType::I32 => i64::from(*indices.cast::<i32>().add(number)),
                _ => *indices.cast::<i64>().add(number),
            };
            number += 1;
            let extent = i64::from(c.extent);
            let at = if at < 0 { at.saturating_add(extent) } else { at };
            place += at.clamp(0, extent - 1) as usize * c.stride as usize;
        }
        f(tuple, place);
        for d in (0..MAX_DIMS).rev() {
            index[d] += 1;
            if index[d] < s.dims[d] {
                base += s.base[d] as usize;
                break;
            }
            base -= (s.dims[d] as usize - 1) * s.base[d] as usize;
            index[d] = 0;
        }
    }
}

/// Reads.
pub unsafe fn pick(s: &Pick, memory: &Memory) {
    let (input, out) = (memory.read(s.input), memory.write(s.out));
    let (size, slice) = (s.size as usize, s.address.slice as usize);
    match (slice, s.size) {
        (1, 4) => each(&s.address, memory, |t, from| *out.cast::<u32>().add(t) = *input.cast::<u32>().add(from)),
        (1, 8) => each(&s.address, memory, |t, from| *out.cast::<u64>().add(t) = *input.cast::<u64>().add(from)),
        _ => each(&s.address, memory, |t, from| {
            core::ptr::copy(input.add(from * size), out.add(t * slice * size), slice * size);
        }),
    }
}

/// Writes.
pub unsafe fn put(s: &Put, memory: &Memory) {
    if s.combine == Combine::Set {
        let (updates, out) = (memory.read(s.updates), memory.write(s.out));
        let (size, slice) = (s.dtype.size(), s.address.slice as usize);
        return each(&s.address, memory, |t, to| {
            core::ptr::copy(updates.add(t * slice * size), out.add(to * size), slice * size);
        });
    }
    match s.domain {
        step::Domain::F32 => put_in::<f32>(s, memory),
        step::Domain::F64 => put_in::<f64>(s, memory),
        step::Domain::I64 => put_in::<i64>(s, memory),
    }
}

#[inline(never)]
unsafe fn put_in<D: Domain>(s: &Put, memory: &Memory) {
    let (updates, out) = (memory.read(s.updates), memory.write(s.out));
    let slice = s.address.slice as usize;
    each(&s.address, memory, |t, to| {
        for i in 0..slice {
            let place = (to + i) as isize;
            let (mut old, mut new) = (D::ZERO, D::ZERO);
            D::load(s.dtype, out, place, 1, 1, &mut old);
            D::load(s.dtype, updates, (t * slice + i) as isize, 1, 1, &mut new);
            let lifted = |x: D| x.lifted(s.dtype);
            let value = match s.combine {
                Combine::Add => old.add(new),
                Combine::Mul => old.mul(new),
                Combine::Min => lifted(lifted(old).min(lifted(new))),
                Combine::Max => lifted(lifted(old).max(lifted(new))),
                Combine::Set => new,
            };
            D::store(s.dtype, &value, 1, out, place, 1);
        }
    });
}
