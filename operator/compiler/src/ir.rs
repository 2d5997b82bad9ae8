//! The intermediate representation: a list of primitive operations on tensors whose shapes are all static.
//!
//! About 130 ONNX operators become these. Whoever works on the IR matches [`Op`] in full, without a wildcard, so that a new
//! operation does not compile before every room knows it. What each operation computes stands at its variant; the
//! reference evaluator (`crate::eval`) is the same text as code.
//!
//! Conventions, for all operations:
//! - Tensors are row-major. A scalar has the shape `[]`. A dimension may be 0 only where shape arithmetic left it so; graphs that
//!   the importer returns have none among what runs.
//! - Floating point is f32, or f64 where a tensor is; f16 and bf16 are only stored: they are moved, and cast from and to other
//!   types. Integers are computed exactly in 64 bits and wrapped to the type of the result (two's complement). Booleans are 0
//!   and 1.
//! - Unless a variant says otherwise all inputs and the output have one type.
//! - NaN goes through `Max`, `Min`, pooling and reductions.

use std::fmt;
use std::sync::Arc;

use ballast_bundle::{CountedOutput, DataType, half};

/// Element types of the IR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum DType {
    F32,
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    I64,
    U64,
    F16,
    BF16,
    F64,
}

impl DType {
    /// Numbers with a fraction, in whatever form.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::U32 | Self::I32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// How the protocol and the contract call it.
    pub const fn datatype(self) -> DataType {
        match self {
            Self::F32 => DataType::Fp32,
            Self::Bool => DataType::Bool,
            Self::U8 => DataType::Uint8,
            Self::I8 => DataType::Int8,
            Self::U16 => DataType::Uint16,
            Self::I16 => DataType::Int16,
            Self::U32 => DataType::Uint32,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::U64 => DataType::Uint64,
            Self::F16 => DataType::Fp16,
            Self::BF16 => DataType::Bf16,
            Self::F64 => DataType::Fp64,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F64 => "f64",
        })
    }
}

/// The same number; of all the NaNs the one that is written down. Which one arithmetic gives differs from processor to processor,
/// and nothing that is digested may.
pub const fn canonical(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fc0_0000) } else { x }
}

/// As [`canonical`].
pub const fn canonical_f64(x: f64) -> f64 {
    if x.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { x }
}

/// Elements of a [`Tensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Of f32, f16 and bf16 tensors; the halves are numbers that they hold exactly.
    F32(Vec<f32>),
    /// Of f64 tensors.
    F64(Vec<f64>),
    /// Of every other type: integers, u64 as its two's complement, and Booleans as 0 and 1.
    Int(Vec<i64>),
}

impl Data {
    /// These numbers as elements of a type: floats to the nearest, integers cut and wrapped.
    pub fn of(dtype: DType, values: &[f64]) -> Self {
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 => {
                Self::F32(values.iter().map(|x| crate::eval::rounded(dtype, *x as f32)).collect())
            }
            DType::F64 => Self::F64(values.to_vec()),
            _ => Self::Int(values.iter().map(|x| crate::eval::wrap(dtype, *x as i64)).collect()),
        }
    }
}

/// A tensor in memory: a constant, or a value while the reference evaluator runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Element type; it says which kind of [`Data`] there is.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// As many as the product of `shape`.
    pub data: Data,
}

impl Tensor {
    /// An f32 tensor.
    pub const fn f32(shape: Vec<usize>, data: Vec<f32>) -> Self {
        Self { dtype: DType::F32, shape, data: Data::F32(data) }
    }

    /// An f64 tensor.
    pub const fn f64(shape: Vec<usize>, data: Vec<f64>) -> Self {
        Self { dtype: DType::F64, shape, data: Data::F64(data) }
    }

    /// An integer or Boolean tensor.
    pub const fn int(dtype: DType, shape: Vec<usize>, data: Vec<i64>) -> Self {
        Self { dtype, shape, data: Data::Int(data) }
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::Int(v) => v.len(),
        }
    }

    /// Whether a dimension is 0.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of an f32 (or f16, or bf16) tensor, else nothing.
    pub fn floats(&self) -> &[f32] {
        match &self.data {
            Data::F32(v) => v,
            Data::F64(_) | Data::Int(_) => &[],
        }
    }

    /// The elements of an f64 tensor, else nothing.
    pub fn doubles(&self) -> &[f64] {
        match &self.data {
            Data::F64(v) => v,
            Data::F32(_) | Data::Int(_) => &[],
        }
    }

    /// The elements of an integer or Boolean tensor, else nothing.
    pub fn ints(&self) -> &[i64] {
        match &self.data {
            Data::F32(_) | Data::F64(_) => &[],
            Data::Int(v) => v,
        }
    }

    /// Little-endian bytes, [`DType::size`] each. NaN is always [`canonical`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() * self.dtype.size());
        match &self.data {
            Data::F32(v) => match self.dtype {
                DType::F16 => v.iter().for_each(|x| out.extend_from_slice(&half::to_fp16(*x).to_le_bytes())),
                DType::BF16 => v.iter().for_each(|x| out.extend_from_slice(&half::to_bf16(*x).to_le_bytes())),
                _ => v.iter().for_each(|x| out.extend_from_slice(&canonical(*x).to_le_bytes())),
            },
            Data::F64(v) => v.iter().for_each(|x| out.extend_from_slice(&canonical_f64(*x).to_le_bytes())),
            Data::Int(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()[..self.dtype.size()])),
        }
        out
    }

    /// The tensor that `bytes` are; `None` when their number does not fit `shape`.
    pub fn from_bytes(dtype: DType, shape: Vec<usize>, bytes: &[u8]) -> Option<Self> {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        if count.checked_mul(dtype.size())? != bytes.len() {
            return None;
        }
        macro_rules! ints {
            ($t:ty) => {
                Data::Int(
                    bytes
                        .chunks_exact(size_of::<$t>())
                        .map(|c| <$t>::from_le_bytes(c.try_into().unwrap_or_default()) as i64)
                        .collect(),
                )
            };
        }
        let data = match dtype {
            DType::F32 => {
                Data::F32(bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap_or_default())).collect())
            }
            DType::Bool => Data::Int(bytes.iter().map(|b| i64::from(*b != 0)).collect()),
            DType::U8 => ints!(u8),
            DType::I8 => ints!(i8),
            DType::U16 => ints!(u16),
            DType::I16 => ints!(i16),
            DType::U32 => ints!(u32),
            DType::I32 => ints!(i32),
            DType::I64 => ints!(i64),
            DType::U64 => ints!(u64),
            DType::F16 => {
                Data::F32(bytes.as_chunks::<2>().0.iter().map(|c| half::from_fp16(u16::from_le_bytes(*c))).collect())
            }
            DType::BF16 => {
                Data::F32(bytes.as_chunks::<2>().0.iter().map(|c| half::from_bf16(u16::from_le_bytes(*c))).collect())
            }
            DType::F64 => Data::F64(bytes.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c)).collect()),
        };
        Some(Self { dtype, shape, data })
    }
}

/// Element-wise operations of one operand, for f32 and f64 unless they say otherwise. Shape of the result: that of the operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `−x`; integers too.
    Neg,
    /// `|x|`; integers too.
    Abs,
    /// −1, 0 or 1 (NaN stays NaN); integers too.
    Sign,
    /// Towards −∞.
    Floor,
    /// Towards +∞.
    Ceil,
    /// To the nearest, halves to even.
    Round,
    /// `√x`; NaN below 0.
    Sqrt,
    /// `1 ÷ x`.
    Reciprocal,
    /// `eˣ`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Sine, radians.
    Sin,
    /// Cosine, radians.
    Cos,
    /// Tangent, radians.
    Tan,
    /// Inverse sine.
    Asin,
    /// Inverse cosine.
    Acos,
    /// Inverse tangent.
    Atan,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Hyperbolic tangent.
    Tanh,
    /// Inverse hyperbolic sine.
    Asinh,
    /// Inverse hyperbolic cosine.
    Acosh,
    /// Inverse hyperbolic tangent.
    Atanh,
    /// Gauss error function.
    Erf,
    /// `1 ÷ (1 + e⁻ˣ)`.
    Sigmoid,
    /// Booleans: the other one. Integers: the other one of every bit.
    Not,
    /// To Boolean.
    IsNan,
}

/// Element-wise operations of two operands `a`, `b`, whose shapes broadcast as numpy's do: aligned at the last dimension,
/// 1 (or a missing dimension) repeats. Both operands have one type; so has the result, Boolean for comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a + b`.
    Add,
    /// `a − b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a ÷ b`; integers are cut towards zero, and an integer ÷ 0 is 0.
    Div,
    /// `a` to the power of `b`. Integers: a power below 0 is 0 unless `a` is 1 or −1.
    Pow,
    /// The smaller one; NaN if either is.
    Min,
    /// The larger one; NaN if either is.
    Max,
    /// Remainder with the sign of `b` (Python's `%`); integers only, 0 for `b` = 0.
    Mod,
    /// Remainder with the sign of `a` (C's `fmod`); integers 0 for `b` = 0.
    Rem,
    /// Booleans and integers, bit by bit.
    And,
    /// Booleans and integers, bit by bit.
    Or,
    /// Booleans and integers, bit by bit.
    Xor,
    /// Bits of `a` moved up by `b`; integers only. `b` has no sign; from 64 on nothing is left.
    ShiftLeft,
    /// Bits of `a` moved down by `b` and filled with zeros; integers without a sign only. From 64 on nothing is left.
    ShiftRight,
    /// `a = b` to Boolean.
    Equal,
    /// `a < b` to Boolean.
    Less,
    /// `a ≤ b` to Boolean.
    LessOrEqual,
}

/// What [`Op::Reduce`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// Sum, added up in index order.
    Sum,
    /// Sum ÷ count.
    Mean,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// Product, in index order.
    Product,
    /// Sum of squares, in index order.
    SumSquares,
    /// Sum of absolute values, in index order.
    SumAbs,
}

/// A two-dimensional window: of a convolution or of pooling.
///
/// Output row `y`, window row `i` reads input row `y · strides[0] + i · dilations[0] − pads[0]`; columns likewise with index 1.
/// Positions outside the input are padding. How many output rows there are is the output's shape: with ceil mode the last
/// window may reach beyond the end padding, which then counts as outside too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Rows and columns of the window, each at least 1.
    pub kernel: [usize; 2],
    /// From one window to the next, each at least 1.
    pub strides: [usize; 2],
    /// From one element of the window to the next, each at least 1.
    pub dilations: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
}

/// What a window of [`Op::Pool`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest element; padding does not count.
    Max,
    /// The sum divided by the number of positions that lie in the input.
    Mean,
    /// The sum divided by the number of positions that lie in the input or in the declared `pads`.
    MeanPadded,
}

/// How [`Op::Pad`] fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PadMode {
    /// With this number (converted to the tensor's type).
    Constant(f64),
    /// Mirrored without the edge: `c b | a b c | b a`.
    Reflect,
    /// The edge repeats: `a a | a b c | c c`.
    Edge,
    /// Around: `b c | a b c | a b`.
    Wrap,
}

/// How [`Op::ScatterElements`] and [`Op::ScatterNd`] combine what is there with an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// The update replaces (the last one wins).
    Set,
    /// Sum, in order.
    Add,
    /// Product, in order.
    Mul,
    /// Smaller one.
    Min,
    /// Larger one.
    Max,
}

/// The primitive operations. Inputs are named in order; those in brackets may be missing (the list is then shorter).
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `x → y`, see [`UnaryOp`].
    Unary(UnaryOp),
    /// `a, b → y`, see [`BinaryOp`].
    Binary(BinaryOp),
    /// `condition (Boolean), a, b → condition ? a : b`, all three broadcast.
    Select,
    /// `x → y` of the output's type. Float to integer: cut towards zero, saturated at the type's ends, NaN gives 0. Integer to
    /// integer: wrapped. To Boolean: `x ≠ 0` (NaN is true). To a float: nearest, halves to even; f16 and bf16 by way of f32.
    Cast,
    /// `x [n, c, ih, iw], w [o, c ÷ groups, kh, kw], (bias [o]) → [n, o, oh, ow]`, f32 or I32. `window.kernel` = `[kh, kw]`. Output
    /// plane `k` belongs to group `k ÷ (o ÷ groups)` and reads the input planes of that group. Summed over
    /// `c, kh, kw` in that order, bias last. One-dimensional convolutions come with a height of 1.
    Conv {
        /// Where windows lie.
        window: Window,
        /// Divides `c` and `o`.
        groups: usize,
    },
    /// `a [.., m, k], b [.., k, n] → [.., m, n]`, f32 or I32. Both have at least two dimensions; those before broadcast as in
    /// [`BinaryOp`]. Summed over `k` in order.
    MatMul,
    /// `x [n, c, ih, iw] → [n, c, oh, ow]`, f32. See [`PoolKind`].
    Pool {
        /// What a window gives.
        kind: PoolKind,
        /// Where windows lie.
        window: Window,
    },
    /// `x → y`: reduced over `axes` (sorted, distinct), which stay with extent 1.
    Reduce {
        /// What it gives.
        kind: ReduceKind,
        /// Never empty.
        axes: Vec<usize>,
    },
    /// `x → y (I64)`: index of the largest or smallest element along `axis`, which stays with extent 1. NaN counts as the
    /// largest (and as the smallest).
    ArgReduce {
        /// The largest, else the smallest.
        largest: bool,
        /// Along which axis.
        axis: usize,
        /// Of equal ones the last, else the first.
        last: bool,
    },
    /// `x → eˣ⁻ᵐᵃˣ ÷ Σ eˣ⁻ᵐᵃˣ` along `axis`, or the logarithm of that, `x − max − log Σ eˣ⁻ᵐᵃˣ`; f32.
    Softmax {
        /// Along which axis.
        axis: usize,
        /// The logarithm.
        log: bool,
    },
    /// `x → y`: running sum along `axis`.
    CumSum {
        /// Along which axis.
        axis: usize,
        /// Each element is left out of its own sum.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    },
    /// `x → values, indices (I64)`: the first `k` (the outputs' extent along `axis`) in order of value; of equal ones the
    /// lower index comes first. NaN counts as the largest.
    TopK {
        /// Along which axis.
        axis: usize,
        /// Descending, else ascending.
        largest: bool,
    },
    /// `x → y`: the same elements in the output's shape.
    Reshape,
    /// `x → y`: dimension `i` of the output is dimension `perm[i]` of the input.
    Transpose {
        /// A permutation.
        perm: Vec<usize>,
    },
    /// `x → y`: broadcast to the output's shape, which has at least as many dimensions.
    Expand,
    /// `x₀, x₁, … → y`: joined along `axis`.
    Concat {
        /// Along which axis.
        axis: usize,
    },
    /// `x → y`: `y[i] = x[starts + i · steps]` in each dimension; every index lies inside. The extents are the output's.
    Slice {
        /// First index, per dimension.
        starts: Vec<usize>,
        /// Not 0, may be negative, per dimension.
        steps: Vec<isize>,
    },
    /// `x → y`: `y[i] = x[i − before]`; what lies outside is filled. Negative `before` cuts. The extents are the output's.
    Pad {
        /// Elements added before, per dimension.
        before: Vec<isize>,
        /// How it fills.
        mode: PadMode,
    },
    /// `x [outer.., axis, inner..], indices (I32 or I64) → [outer.., ..indices' shape, inner..]`. An index below 0
    /// counts from the end; one that is outside even then is held at the ends.
    Gather {
        /// Which dimension is picked from.
        axis: usize,
    },
    /// `x, indices (I32 or I64) → y` of the indices' shape: `y[..][j][..] = x[..][indices[..][j][..]][..]` along `axis`; indices
    /// as in [`Op::Gather`].
    GatherElements {
        /// Which dimension is picked from.
        axis: usize,
    },
    /// `x, indices (I32 or I64) → y`: the last dimension of `indices`, of extent `q`, addresses dimensions
    /// `batch .. batch + q` of `x`; the first `batch` dimensions of both are walked together.
    GatherNd {
        /// Leading dimensions that both share.
        batch: usize,
    },
    /// `x, indices (I32 or I64), updates → y`: `x`, with `updates` put where [`Op::GatherElements`] would read.
    ScatterElements {
        /// Which dimension is addressed.
        axis: usize,
        /// How values combine.
        combine: Scatter,
    },
    /// `x, indices (I32 or I64), updates → y`: `x`, with `updates` put where [`Op::GatherNd`] with `batch` 0 would read.
    ScatterNd {
        /// How values combine.
        combine: Scatter,
    },
    /// `x → y`: each output position along `axis` is a weighted sum of `taps` input positions:
    /// `y[o] = Σₜ weights[o · taps + t] · x[indices[o · taps + t]]`, in that order. One such step per axis is every ONNX `Resize`;
    /// nearest has one tap of weight 1 (a plain copy, any type), linear two, cubic four.
    Resample {
        /// Along which axis.
        axis: usize,
        /// Taps per output position, at least 1.
        taps: usize,
        /// Each below the input's extent.
        indices: Vec<u32>,
        /// As many as `indices`.
        weights: Vec<f32>,
    },
    /// `x → indices (I64) [rank, elements], count (I64)`: row `d` has the indices along dimension `d` of the elements that are
    /// not zero (NaN is not), in row-major order; `count` columns, and zeros behind them. At least one dimension.
    NonZero,
    /// `x [n, ..] → values [n, ..], first (I64) [n], inverse (I64) [n], counts (I64) [n], count (I64)`: the rows that differ,
    /// where each occurs first, which of them each row of `x` is, and how often each occurs; `count` rows, and zeros behind
    /// them. NaN equals NaN and is the largest.
    Unique {
        /// In ascending order, the first elements deciding first; else in the order of first occurrence.
        sorted: bool,
    },
    /// `boxes [b, n, 4], scores [b, c, n] → chosen (I64) [b · c · limit, 3], count (I64)`, f32: non-maximum suppression. Of each
    /// image and class, boxes in the order of their scores (of equal ones the lower index first; NaN last) that no chosen one
    /// of the same class overlaps by more than `iou`; at most `limit`. Rows are image, class, box; `count` of them, and zeros
    /// behind. Boxes without area overlap nothing.
    Suppress {
        /// At least 1, at most `n`.
        limit: usize,
        /// Boxes are centre x, centre y, width, height; else two opposite corners, each y before x.
        centered: bool,
        /// Intersection over union.
        iou: f32,
        /// Only boxes with a larger score count.
        score: Option<f32>,
    },
    /// A graph that runs again and again, see [`Repeat`].
    Repeat(Arc<Repeat>),
    /// One graph or the other, see [`Branch`].
    Branch(Arc<Branch>),
}

/// `carries, scans, captured → carries, stacked`: runs `body` for `count` rounds.
///
/// Inputs: the carries' first values, then the scans, each with `count` as its first extent, then whatever else the body reads.
/// The body takes the same in the same order, of a scan one row without that first dimension; it gives the carries' next
/// values, then a row of each stacked output. Outputs: the carries' last values, then the rows, stacked along a new first
/// dimension of `count`.
#[derive(Debug, Clone, PartialEq)]
pub struct Repeat {
    /// Most rounds, at least 1.
    pub count: usize,
    /// The first carry is a Boolean of one element, read before each round: false ends it. Rows of rounds that did not run
    /// are zeros.
    pub gated: bool,
    /// How many carries.
    pub carries: usize,
    /// For each scan: round `i` takes row `count − 1 − i`, else row `i`.
    pub scans: Vec<bool>,
    /// For each stacked output: round `i` gives row `count − 1 − i`, else row `i`.
    pub stacked: Vec<bool>,
    /// What a round does. Its values are its own.
    pub body: Graph,
}

impl Repeat {
    /// Which row round `round` takes or gives.
    pub const fn row(&self, round: usize, backward: bool) -> usize {
        if backward { self.count - 1 - round } else { round }
    }
}

/// `condition (Boolean of one element), captured → the outputs of the graph that ran`.
///
/// Both graphs take all that either reads, in one order, and give outputs of the same types and shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// Runs when the condition is true.
    pub then: Graph,
    /// Runs when it is false.
    pub otherwise: Graph,
}

impl Op {
    /// The graphs inside of it.
    pub fn bodies(&self) -> Vec<&Graph> {
        match self {
            Self::Repeat(repeat) => vec![&repeat.body],
            Self::Branch(branch) => vec![&branch.then, &branch.otherwise],
            _ => Vec::new(),
        }
    }

    /// Its name, for messages and counts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unary(_) => "Unary",
            Self::Binary(_) => "Binary",
            Self::Select => "Select",
            Self::Cast => "Cast",
            Self::Conv { .. } => "Conv",
            Self::MatMul => "MatMul",
            Self::Pool { .. } => "Pool",
            Self::Reduce { .. } => "Reduce",
            Self::ArgReduce { .. } => "ArgReduce",
            Self::Softmax { .. } => "Softmax",
            Self::CumSum { .. } => "CumSum",
            Self::TopK { .. } => "TopK",
            Self::Reshape => "Reshape",
            Self::Transpose { .. } => "Transpose",
            Self::Expand => "Expand",
            Self::Concat { .. } => "Concat",
            Self::Slice { .. } => "Slice",
            Self::Pad { .. } => "Pad",
            Self::Gather { .. } => "Gather",
            Self::GatherElements { .. } => "GatherElements",
            Self::GatherNd { .. } => "GatherNd",
            Self::ScatterElements { .. } => "ScatterElements",
            Self::ScatterNd { .. } => "ScatterNd",
            Self::Resample { .. } => "Resample",
            Self::NonZero => "NonZero",
            Self::Unique { .. } => "Unique",
            Self::Suppress { .. } => "Suppress",
            Self::Repeat(_) => "Repeat",
            Self::Branch(_) => "Branch",
        }
    }
}

/// Which value of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// As an index into [`Graph::values`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tensor in the graph: an input, a constant, or what one node makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// As the model calls it, or made from the node's name; for messages, not unique.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// All static.
    pub shape: Vec<usize>,
    /// Its elements, when they are known.
    pub constant: Option<Arc<Tensor>>,
}

impl Value {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The ONNX node that it comes from.
    pub name: String,
    /// That node's operator, with its domain when that is not ONNX's own.
    pub operator: String,
    /// What it does.
    pub op: Op,
    /// What it reads, in the order that [`Op`] names.
    pub inputs: Vec<ValueId>,
    /// What it makes; each value is made once.
    pub outputs: Vec<ValueId>,
}

/// A model: nodes in an order in which everything is made before it is read. Only what the outputs need is there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// All values; a [`ValueId`] is an index into them. Some may be used by nothing.
    pub values: Vec<Value>,
    /// In execution order.
    pub nodes: Vec<Node>,
    /// In the model's order. They have names and no constant.
    pub inputs: Vec<ValueId>,
    /// In the model's order, with the names of the model's outputs in [`Graph::output_names`]. May be inputs or constants too.
    pub outputs: Vec<ValueId>,
    /// As many as `outputs`.
    pub output_names: Vec<String>,
    /// Outputs of which only some rows are valid.
    pub counted: Vec<Counted>,
}

/// An output with as many rows as another output says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Index of the output.
    pub output: usize,
    /// Index of the output with the count, an I64 scalar.
    pub count: usize,
    /// The dimension whose extent it is.
    pub axis: usize,
}

impl Graph {
    /// The value; panics on an id of another graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Counted outputs as the contract has them.
    pub fn counted_outputs(&self) -> Vec<CountedOutput> {
        let name = |i: usize| self.output_names[i].clone();
        let each = |c: &Counted| CountedOutput { output: name(c.output), count: name(c.count), axis: c.axis as u32 };
        self.counted.iter().map(each).collect()
    }

    /// Types and shapes of outputs.
    pub fn output_types(&self) -> impl Iterator<Item = (DType, &[usize])> {
        self.outputs.iter().map(|id| (self.value(*id).dtype, &self.value(*id).shape[..]))
    }

    /// Types and shapes of inputs.
    pub fn input_types(&self) -> impl Iterator<Item = (DType, &[usize])> {
        self.inputs.iter().map(|id| (self.value(*id).dtype, &self.value(*id).shape[..]))
    }

    /// Adds a value.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(value);
        id
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Arc<Tensor>) -> ValueId {
        let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
        self.add_value(Value { name: name.into(), dtype, shape, constant: Some(tensor) })
    }
}
