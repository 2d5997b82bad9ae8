//! Steps that are plain loops over a [`Domain`]: what has no kernel of its own for f32, and all that must be exact.

use crate::record::{List, choice, record};
use crate::step::{At, DType, Domain, Extents, ReduceKind, Strides};

/// Inner dimensions of a contraction, after neighbours were merged.
pub const MAX_INNER: usize = 4;

record! {
    /// One side of a contraction.
    pub struct Side {
        /// The first element.
        at: At,
        /// Its elements' type.
        dtype: DType,
        /// Elements from one index of the result to the next; 0 repeats.
        outer: Strides,
        /// Elements from one index that is joined to the next.
        inner: [i32; 4],
    }
}

record! {
    /// `out[o] = join over i of left[o, i] · right[o, i]`: products, convolutions, reductions and pooling of any type. Joined
    /// in index order; integers wrap. Of U64, largest and smallest are those without a sign.
    pub struct Contract {
        /// What it computes in.
        domain: Domain,
        /// How elements, or their products, are joined.
        kind: ReduceKind,
        /// Extents of the result; leading dimensions are 1 where there are fewer.
        outer: Extents,
        /// Extents of what is joined, likewise.
        inner: [u32; 4],
        /// The left side.
        left: Side,
        /// The right side, if there is one; not for the largest and the smallest.
        right: List<Side, 1>,
        /// Type of the result.
        dtype: DType,
        /// Row-major over `outer`. Overlaps neither side.
        out: At,
    }
}

record! {
    /// Running sums over `len` of `[outer][len][inner]`. In and out may be the same place.
    pub struct Scan {
        /// What it computes in.
        domain: Domain,
        /// Type of all elements.
        dtype: DType,
        /// Outer extent.
        outer: u32,
        /// What is added up.
        len: u32,
        /// Inner extent.
        inner: u32,
        /// 1: each element is left out of its own sum.
        exclusive: u32,
        /// 1: from the end.
        reverse: u32,
        /// The elements.
        input: At,
        /// As many sums.
        out: At,
    }
}

record! {
    /// The first `k` in order of value over `len` of `[outer][len][inner]`, and where they are: `[outer][k][inner]`. Of equal
    /// ones those with the lower index come first.
    pub struct Top {
        /// Type of the elements.
        dtype: DType,
        /// Outer extent.
        outer: u32,
        /// What is put in order.
        len: u32,
        /// Inner extent.
        inner: u32,
        /// How many are wanted: 1 to `len`.
        k: u32,
        /// 1: the largest first, else the smallest.
        largest: u32,
        /// 1, for `k` = 1: of equal ones the one with the highest index.
        last: u32,
        /// 1: NaN comes before all numbers, else it is larger than all of them.
        nan_first: u32,
        /// The elements.
        input: At,
        /// The values, of the elements' type, if they are wanted.
        values: List<At, 1>,
        /// I64.
        indices: At,
        /// [`Top::scratch_bytes`] of arena.
        scratch: At,
    }
}

record! {
    /// One number of a tuple of indices. Below zero it counts from the end; outside it is held at the ends.
    pub struct Component {
        /// Indices that it may have, at least 1.
        extent: u32,
        /// Elements from one to the next.
        stride: u32,
    }
}

record! {
    /// Where tuples of indices point: to `slice` elements from `Σ index · stride` on, moved by `base` from tuple to tuple.
    pub struct Address {
        /// The tuples, row-major; leading dimensions are 1 where there are fewer.
        dims: Extents,
        /// Elements by which what is pointed to moves, for each dimension.
        base: Extents,
        /// A tuple's numbers.
        components: List<Component, 8>,
        /// Elements behind a tuple, at least 1.
        slice: u32,
        /// I32 or I64.
        dtype: DType,
        /// All numbers of all tuples, one after the other.
        indices: At,
    }
}

record! {
    /// Reads where tuples of indices point.
    pub struct Pick {
        /// Where they point in `input`.
        address: Address,
        /// Bytes of one element: 1, 2, 4 or 8.
        size: u32,
        /// What is picked from.
        input: At,
        /// What was picked, one after the other.
        out: At,
    }
}

choice! {
    /// What becomes of an element that is written to.
    pub enum Combine("way to combine") {
        /// It is replaced; the last one wins.
        #[default]
        Set = 0,
        /// Sum.
        Add = 1,
        /// Product.
        Mul = 2,
        /// The smaller one.
        Min = 3,
        /// The larger one.
        Max = 4,
    }
}

record! {
    /// Writes where tuples of indices point, one after the other.
    pub struct Put {
        /// Where they point in `out`.
        address: Address,
        /// How.
        combine: Combine,
        /// What it computes in.
        domain: Domain,
        /// Type of all elements.
        dtype: DType,
        /// `slice` elements for each tuple.
        updates: At,
        /// Read and written.
        out: At,
    }
}

impl Top {
    /// Scratch: an entry of 16 bytes for each element of a row.
    pub fn scratch_bytes(&self) -> u64 {
        if self.k > 1 { u64::from(self.len).saturating_mul(16) } else { 0 }
    }
}

impl Address {
    /// How many tuples there are.
    pub fn tuples(&self) -> u64 {
        self.dims.iter().fold(1, |n, &d| n.saturating_mul(u64::from(d)))
    }

    /// Elements from the first to behind the last that can be pointed to.
    pub fn reach(&self) -> u64 {
        let last = |extent: u32, stride: u32| u64::from(extent.saturating_sub(1)).saturating_mul(u64::from(stride));
        let base = self.dims.iter().zip(&self.base).map(|(&d, &s)| last(d, s));
        let indices = self.components.as_slice().iter().map(|c| last(c.extent, c.stride));
        base.chain(indices).fold(u64::from(self.slice), u64::saturating_add)
    }
}
