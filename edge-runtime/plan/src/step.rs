//! Steps: what a plan does, one after the other, over one arena and read-only weights.
//!
//! Shapes are row-major, strides and offsets of elements count elements, places ([`At`]) count bytes. "P4" is a matrix
//! packed in panels of four rows, `[⌈m/4⌉][k][4]`; "P16" one in panels of sixteen columns, `[⌈n/16⌉][k][16]`; both are
//! filled up with zeros. They are what the product's innermost loop reads.

#[cfg(feature = "build")]
use alloc::vec::Vec;

use crate::PlanError;
use crate::bounded::{NonZero, Suppress, Unique};
use crate::generic::{Contract, Pick, Put, Scan, Top};
use crate::quantized::{IntConv, IntDepthwise, IntGemm, Lookup};
use crate::record::{Field, List, Reader, choice, record};

/// Most dimensions of a copy or an element-wise step, after neighbours were merged.
pub const MAX_DIMS: usize = 6;
/// One number for each dimension. (Spelled as a literal: rustc 1.95 breaks on closures that capture a part of a struct whose
/// field's length is a named constant.)
pub type Extents = [u32; 6];
/// Elements from one index to the next, for each dimension.
pub type Strides = [i32; 6];
const _: () = assert!(MAX_DIMS == 6);
/// Rows of a P4 panel.
pub const PANEL_ROWS: usize = 4;
/// Columns of a P16 panel.
pub const PANEL_COLS: usize = 16;
/// Depth of a block of a product: 256 × 16 floats are 16 KiB, half of a small first-level cache.
pub const BLOCK_K: usize = 256;
/// Columns of a block of a product whose right side is packed on the way: 128 KiB, a part of a small second-level cache.
pub const BLOCK_N: usize = 128;
/// Columns of a block of a product whose right side is weights: packed already, so a block costs no scratch.
pub const BLOCK_N_PACKED: usize = 1024;
/// Rows of a block of a product whose left side is packed on the way.
pub const BLOCK_M: usize = 64;

choice! {
    /// Element types; little-endian. Booleans are bytes 0 and 1.
    pub enum DType("element type") {
        /// 32-bit float: what the steps compute in.
        #[default]
        F32 = 0,
        /// Boolean.
        Bool = 1,
        /// Unsigned byte.
        U8 = 2,
        /// Signed byte.
        I8 = 3,
        /// Signed 32-bit integer.
        I32 = 4,
        /// Signed 64-bit integer.
        I64 = 5,
        /// 64-bit float.
        F64 = 6,
        /// Unsigned 16-bit integer.
        U16 = 7,
        /// Signed 16-bit integer.
        I16 = 8,
        /// Unsigned 32-bit integer.
        U32 = 9,
        /// Unsigned 64-bit integer.
        U64 = 10,
        /// IEEE 754 half.
        F16 = 11,
        /// The upper half of a 32-bit float.
        BF16 = 12,
    }
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::I64 | Self::F64 | Self::U64 => 8,
        }
    }
}

choice! {
    /// What a step computes in. Elements of every type are converted on the way in and on the way out: to integers floats are cut
    /// towards zero and held at the type's ends, NaN gives 0; integers wrap to the type; Booleans are `≠ 0`; floats go to the
    /// nearest.
    pub enum Domain("domain") {
        /// 32-bit floats.
        #[default]
        F32 = 0,
        /// 64-bit floats.
        F64 = 1,
        /// 64-bit integers, two's complement. U64 is kept bit by bit.
        I64 = 2,
    }
}

/// A place: a byte offset below 2 GiB, in the arena or in the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct At(u32);

const IN_WEIGHTS: u32 = 1 << 31;

impl At {
    /// In the arena; `None` from 2 GiB.
    pub const fn arena(offset: u32) -> Option<Self> {
        if offset & IN_WEIGHTS == 0 { Some(Self(offset)) } else { None }
    }

    /// In the weights; `None` from 2 GiB.
    pub const fn weights(offset: u32) -> Option<Self> {
        if offset & IN_WEIGHTS == 0 { Some(Self(offset | IN_WEIGHTS)) } else { None }
    }

    /// In the weights, which no step writes.
    pub const fn is_weights(self) -> bool {
        self.0 & IN_WEIGHTS != 0
    }

    /// Bytes from the start of its memory.
    pub const fn offset(self) -> u32 {
        self.0 & !IN_WEIGHTS
    }
}

impl Field for At {
    fn read(r: &mut Reader<'_>) -> Result<Self, PlanError> {
        r.word().map(Self)
    }
    #[cfg(feature = "build")]
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }
}

record! {
    /// Writes one pattern over and over.
    pub struct Fill {
        /// Where.
        out: At,
        /// How many 32-bit words.
        words: u32,
        /// The word.
        value: u32,
    }
}

record! {
    /// Copies elements from one strided place to another: transposes, slices, concatenation, padding, repetition.
    pub struct Copy {
        /// Bytes of one element: 1, 4 or 8.
        size: u32,
        /// Leading dimensions are 1 where there are fewer.
        dims: Extents,
        /// The first element read.
        input: At,
        /// May be negative or 0.
        input_strides: Strides,
        /// The first element written. Input and output never overlap.
        out: At,
        /// May be negative.
        out_strides: Strides,
    }
}

record! {
    /// One operand of an element-wise step.
    pub struct Operand {
        /// The first element.
        at: At,
        /// Converted to f32 on the way in.
        dtype: DType,
        /// 0 repeats.
        strides: Strides,
    }
}

record! {
    /// An element-wise program over whole tensors.
    pub struct Elt {
        /// Which program.
        program: u32,
        /// Leading dimensions are 1 where there are fewer.
        dims: Extents,
        /// Row-major over `dims`. May be the same place as an operand that is read in the same order.
        out: At,
        /// Converted from f32 on the way out: integers are cut towards zero and saturated, Booleans are `≠ 0`.
        dtype: DType,
        /// As many as the program takes.
        operands: List<Operand, { crate::elt::MAX_INPUTS }>,
    }
}

record! {
    /// An element-wise program over whole tensors in 64-bit registers: exact integers, and f64.
    pub struct Wide {
        /// F64 or I64.
        domain: Domain,
        /// As for [`Elt`], but converted from and to the domain.
        elt: Elt,
    }
}

record! {
    /// A further operand of a program that runs on the result of a product: `[batch][row][column]`.
    pub struct EpilogueOperand {
        /// The first element, f32.
        at: At,
        /// Elements from one product to the next; 0 repeats.
        batch: u32,
        /// Elements from row to row; 0 repeats.
        row: u32,
        /// 0 or 1.
        col: u32,
    }
}

record! {
    /// What is done to the result of a product while it is in a near cache: bias, then bounds, then a program.
    pub struct Epilogue {
        /// What `bias` has one of: nothing, each row, each column.
        bias_of: BiasOf,
        /// f32.
        bias: At,
        /// Lower bound; −∞ for none. NaN stays.
        low: f32,
        /// Upper bound; +∞ for none.
        high: f32,
        /// Which program, plus one; 0 for none. Operand 0 is the result, further ones follow.
        program: u32,
        /// One less than the program takes.
        operands: List<EpilogueOperand, 4>,
    }
}

choice! {
    /// What a bias has one of.
    pub enum BiasOf("kind of bias") {
        /// No bias.
        #[default]
        None = 0,
        /// Each row.
        Row = 1,
        /// Each column.
        Column = 2,
    }
}

choice! {
    /// How one side of a product lies.
    pub enum Layout("layout of a matrix") {
        /// Row and column strides.
        #[default]
        Strided = 0,
        /// P4 on the left side, P16 on the right one.
        Packed = 1,
    }
}

record! {
    /// One side of a product.
    pub struct Matrix {
        /// The first element, f32.
        at: At,
        /// How it lies.
        layout: Layout,
        /// Strided: elements from row to row.
        row: u32,
        /// Strided: elements from column to column.
        col: u32,
        /// Elements from one product to the next; 0 repeats.
        batch: u32,
    }
}

record! {
    /// `out[b] = left[b] · right[b]` in f32, and an epilogue.
    pub struct Gemm {
        /// How many products.
        batch: u32,
        /// Rows.
        m: u32,
        /// Columns.
        n: u32,
        /// Depth.
        k: u32,
        /// `m × k`.
        left: Matrix,
        /// `k × n`.
        right: Matrix,
        /// The first element of the result, columns next to each other.
        out: At,
        /// Elements from row to row.
        out_row: u32,
        /// Elements from one result to the next.
        out_batch: u32,
        /// What follows.
        epilogue: Epilogue,
        /// [`Gemm::scratch_bytes`] of arena.
        scratch: At,
    }
}

record! {
    /// Two-dimensional window over planes; one-dimensional ones have height 1.
    pub struct Window {
        /// Input rows.
        ih: u32,
        /// Input columns.
        iw: u32,
        /// Output rows.
        oh: u32,
        /// Output columns.
        ow: u32,
        /// Rows of the window.
        kh: u32,
        /// Columns of the window.
        kw: u32,
        /// Rows from one window to the next.
        sh: u32,
        /// Columns from one window to the next.
        sw: u32,
        /// Rows of padding above.
        pt: u32,
        /// Columns of padding to the left.
        pl: u32,
        /// Rows from one element of the window to the next.
        dh: u32,
        /// Columns from one element of the window to the next.
        dw: u32,
    }
}

record! {
    /// Convolution as a product of weights and windows: `[batch][groups · ic][ih][iw] → [batch][groups · oc][oh][ow]`.
    pub struct Conv {
        /// How many images.
        batch: u32,
        /// How many groups.
        groups: u32,
        /// Input planes of a group.
        ic: u32,
        /// Output planes of a group.
        oc: u32,
        /// The window.
        window: Window,
        /// f32.
        input: At,
        /// Per group P4 of `oc × (ic · kh · kw)`.
        weights: At,
        /// f32.
        out: At,
        /// Rows are the output planes of all groups, columns the pixels; the batch stride of operands is per image.
        epilogue: Epilogue,
        /// [`Conv::scratch_bytes`] of arena.
        scratch: At,
    }
}

record! {
    /// Convolution of each plane with its own window: `[batch][planes][ih][iw] → [batch][planes][oh][ow]`.
    pub struct Depthwise {
        /// How many images.
        batch: u32,
        /// How many planes.
        planes: u32,
        /// The window.
        window: Window,
        /// f32.
        input: At,
        /// `[planes][kh][kw]`, f32.
        weights: At,
        /// f32.
        out: At,
        /// As for a convolution; the bias is per row.
        epilogue: Epilogue,
        /// [`Window::plane_bytes`] of arena.
        scratch: At,
    }
}

choice! {
    /// What a pooling window gives.
    pub enum PoolKind("kind of pooling") {
        /// The largest; padding does not count.
        #[default]
        Max = 0,
        /// The mean of what is not padding.
        Mean = 1,
        /// The mean, padding counted as zeros.
        MeanPadded = 2,
    }
}

record! {
    /// Pooling of planes: `[planes][ih][iw] → [planes][oh][ow]`, f32.
    pub struct Pool {
        /// What a window gives.
        kind: PoolKind,
        /// Images times planes.
        planes: u32,
        /// The window.
        window: Window,
        /// f32.
        input: At,
        /// f32.
        out: At,
        /// `MeanPadded`: how many elements a window counts; it may be less than `kh · kw` at the end (ceil mode): rows
        /// and columns of input plus padding on both sides.
        padded: [u32; 2],
        /// [`Window::plane_bytes`] of arena.
        scratch: At,
    }
}

choice! {
    /// What a reduction gives.
    pub enum ReduceKind("kind of reduction") {
        /// Sum.
        #[default]
        Sum = 0,
        /// Mean.
        Mean = 1,
        /// Largest.
        Max = 2,
        /// Smallest.
        Min = 3,
        /// Product.
        Product = 4,
        /// Sum of squares.
        SumSquares = 5,
        /// Sum of absolute values.
        SumAbs = 6,
    }
}

record! {
    /// `[outer][len][inner] → [outer][inner]`, f32.
    pub struct Reduce {
        /// What it gives.
        kind: ReduceKind,
        /// Outer extent.
        outer: u32,
        /// What is reduced, at least 1.
        len: u32,
        /// Inner extent.
        inner: u32,
        /// f32.
        input: At,
        /// f32.
        out: At,
    }
}

record! {
    /// Softmax over `len` of `[outer][len][inner]`, f32. In and out may be the same place.
    pub struct Softmax {
        /// Outer extent.
        outer: u32,
        /// What sums to one, at least 1.
        len: u32,
        /// Inner extent.
        inner: u32,
        /// 1: the logarithm of it.
        log: u32,
        /// f32.
        input: At,
        /// f32.
        out: At,
    }
}

record! {
    /// `out[o][i][..] = data[o][indices[i]][..]`. Indices below zero count from the end; those outside are held at the ends.
    pub struct Gather {
        /// Outer extent.
        outer: u32,
        /// Extent of the axis that is picked from, at least 1.
        axis: u32,
        /// Bytes behind one index.
        bytes: u32,
        /// How many indices.
        count: u32,
        /// I32 or I64.
        dtype: DType,
        /// The indices.
        indices: At,
        /// What is picked from.
        input: At,
        /// `[outer][count][bytes]`.
        out: At,
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $kind:literal,)*) => {
        /// One step.
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[allow(clippy::large_enum_variant)] // decoded in place, one at a time; the guest has no allocator to box with
        pub enum Step { $($(#[$doc])* $name($name),)* }

        impl Step {
            /// From kind and body.
            pub(crate) fn decode(kind: u32, body: &[u8]) -> Result<Self, PlanError> {
                let mut r = Reader::new(body);
                let step = match kind {
                    $($kind => Self::$name(Field::read(&mut r)?),)*
                    _ => return Err(PlanError::UnknownStep(kind)),
                };
                // A step that needs more fields gets a new kind: an old runner must not skip what it does not know.
                if r.is_empty() { Ok(step) } else { Err(PlanError::Value { what: "length of a step", value: body.len() as u32 }) }
            }

            /// Kind, length of the body, body.
            #[cfg(feature = "build")]
            pub(crate) fn encode(&self, out: &mut Vec<u8>) {
                let mut body = Vec::new();
                let kind: u32 = match self { $(Self::$name(step) => { step.write(&mut body); $kind })* };
                kind.write(out);
                (body.len() as u32).write(out);
                out.extend_from_slice(&body);
            }
        }

        $(impl From<$name> for Step {
            fn from(step: $name) -> Self {
                Self::$name(step)
            }
        })*
    };
}

steps! {
    /// Kind 1.
    Fill = 1,
    /// Kind 2.
    Copy = 2,
    /// Kind 3.
    Elt = 3,
    /// Kind 4.
    Gemm = 4,
    /// Kind 5.
    Conv = 5,
    /// Kind 6.
    Depthwise = 6,
    /// Kind 7.
    Pool = 7,
    /// Kind 8.
    Reduce = 8,
    /// Kind 9.
    Softmax = 9,
    /// Kind 10.
    Gather = 10,
    /// Kind 11.
    Wide = 11,
    /// Kind 12.
    Contract = 12,
    /// Kind 13.
    Scan = 13,
    /// Kind 14.
    Top = 14,
    /// Kind 15.
    Pick = 15,
    /// Kind 16.
    Put = 16,
    /// Kind 30.
    IntGemm = 30,
    /// Kind 31.
    IntConv = 31,
    /// Kind 32.
    IntDepthwise = 32,
    /// Kind 33.
    Lookup = 33,
    /// Kind 40.
    NonZero = 40,
    /// Kind 41.
    Suppress = 41,
    /// Kind 42.
    Unique = 42,
}
