//! Pooling over any number of spatial dimensions: a maximum, a mean and a sum over a box are taken over two of its dimensions, then
//! over each other one. Unpooling, and columns put back into an image.

use crate::ir::{BinaryOp, DType, Op, PadMode, PoolKind, ReduceKind, Scatter, Tensor, UnaryOp, ValueId, Window};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::compose::{bounded, count, pad_along, reduce};
use super::window::{Attributes, MAX_UNROLLED, Spatial, attributes, finish, lift};

/// Shape of the outputs, without and with ceil mode.
fn outputs(window: &Spatial, input: &[usize], ceil: bool) -> Result<Vec<usize>> {
    let mut out = input.to_vec();
    for dim in 0..window.kernel.len() {
        let Some(floor) = window.extent(input[dim + 2], dim) else {
            return invalid(format!("the window is larger than the input {input:?}"));
        };
        out[dim + 2] = floor;
        // With ceil mode one more window, unless it would start in the end padding.
        let next = floor * window.strides[dim];
        let padded = input[dim + 2] + window.before[dim] + window.after[dim];
        let covered = (floor - 1) * window.strides[dim] + window.reach(dim);
        if ceil && covered < padded && next < input[dim + 2] + window.before[dim] {
            out[dim + 2] += 1;
        }
    }
    Ok(out)
}

/// The last two dimensions at once, then each one before them.
fn pool_all(b: &mut Builder, x: ValueId, kind: PoolKind, window: &Spatial, out: &[usize]) -> Result<ValueId> {
    let spatial = window.kernel.len();
    let mut shape = b.shape(x).to_vec();
    let mut pool = |x: ValueId, from: [usize; 4], window: Window, to: [usize; 2]| {
        let x = b.reshape(x, from.to_vec())?;
        b.one(Op::Pool { kind, window }, &[x], Some((DType::F32, vec![from[0], from[1], to[0], to[1]])))
    };
    let lead = |shape: &[usize], upto: usize| shape[1..upto].iter().product::<usize>();
    let (rows, cols) = (spatial, spatial + 1);
    let from = [shape[0], lead(&shape, rows), shape[rows], shape[cols]];
    let mut y = pool(x, from, window.plane(spatial - 2, spatial - 1), [out[rows], out[cols]])?;
    (shape[rows], shape[cols]) = (out[rows], out[cols]);
    for dim in (0..spatial - 2).rev() {
        let inner: usize = shape[dim + 3..].iter().product();
        let from = [shape[0], lead(&shape, dim + 2), shape[dim + 2], inner];
        y = pool(y, from, window.column(dim), [out[dim + 2], inner])?;
        shape[dim + 2] = out[dim + 2];
    }
    b.reshape(y, out.to_vec())
}

/// A pooling operator's window and the shapes before and after it.
fn prepare(call: &Call<'_, '_>, x: ValueId) -> Result<(Attributes, Vec<usize>, Vec<usize>)> {
    let shape = call.b.shape(x).to_vec();
    let mut a = attributes(call, &shape, None)?;
    let input = lift(&shape);
    a.window.pad_automatically(&a.auto_pad, &input)?;
    let out = outputs(&a.window, &input, call.flag("ceil_mode", false))?;
    Ok((a, input, out))
}

fn pool(call: &mut Call<'_, '_>, x: ValueId, kind: PoolKind) -> Result<ValueId> {
    let (a, input, out) = prepare(call, x)?;
    let b = &mut *call.b;
    let dtype = b.dtype(x);
    // Bytes are exact in f32.
    if !matches!(dtype, DType::F32 | DType::U8 | DType::I8) {
        return unsupported(format!("pooling of {dtype}"));
    }
    let x = b.cast(x, DType::F32)?;
    let x = b.reshape(x, input)?;
    let y = pool_all(b, x, kind, &a.window, &out)?;
    let y = b.cast(y, dtype)?;
    finish(b, y, a.one_dimensional)
}

pub(super) fn max_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let y = pool(call, x, PoolKind::Max)?;
    if !call.wants(1) {
        return Ok(vec![y]);
    }
    Ok(vec![y, max_indices(call)?])
}

/// Where in its input each window has its (first) largest element: a walk over the positions of the window, all windows at once.
fn max_indices(call: &mut Call<'_, '_>) -> Result<ValueId> {
    let x = call.input(0)?;
    let (a, input, out) = prepare(call, x)?;
    let columns_first = call.flag("storage_order", false);
    let (window, spatial) = (&a.window, input.len() - 2);
    let positions: usize = window.kernel.iter().product();
    if positions > MAX_UNROLLED || input.iter().product::<usize>() >= 1 << 24 {
        return unsupported(format!("indices of windows of {positions} in a tensor of shape {input:?}"));
    }
    // Elements from one index to the next, inside one plane.
    let mut strides = vec![1; spatial];
    if columns_first {
        (1..spatial).for_each(|d| strides[d] = strides[d - 1] * input[d + 1]);
    } else {
        (0..spatial - 1).rev().for_each(|d| strides[d] = strides[d + 1] * input[d + 3]);
    }
    let b = &mut *call.b;
    let mut padded = b.cast(x, DType::F32)?;
    padded = b.reshape(padded, input.clone())?;
    for dim in 0..spatial {
        // Far enough for the last window of ceil mode too.
        let reached = (out[dim + 2] - 1) * window.strides[dim] + window.reach(dim);
        let after = reached as isize - (input[dim + 2] + window.before[dim]) as isize;
        padded = pad_along(b, padded, dim + 2, (window.before[dim] as isize, after), f64::NEG_INFINITY)?;
    }
    let steps: Vec<isize> = [1, 1].into_iter().chain(window.strides.iter().map(|s| *s as isize)).collect();
    let mut best: Option<(ValueId, ValueId)> = None;
    for position in 0..positions {
        let (mut rest, mut starts, mut offset) = (position, vec![0; input.len()], 0);
        for dim in (0..spatial).rev() {
            let k = rest % window.kernel[dim];
            rest /= window.kernel[dim];
            starts[dim + 2] = k * window.dilations[dim];
            offset += starts[dim + 2] * strides[dim];
        }
        let op = Op::Slice { starts, steps: steps.clone() };
        let tap = b.one(op, &[padded], Some((DType::F32, out.clone())))?;
        let offset = b.scalar(DType::F32, offset as f64);
        best = Some(match best {
            None => (tap, offset),
            Some((value, place)) => {
                let better = b.binary(BinaryOp::Less, value, tap)?;
                (b.binary(BinaryOp::Max, value, tap)?, b.select(better, offset, place)?)
            }
        });
    }
    let Some((_, mut index)) = best else { return invalid("a window without positions") };
    // Where windows start, and planes.
    for dim in 0..spatial {
        let starts = (0..out[dim + 2]).map(|o| {
            let start = (o * window.strides[dim]) as f32 - window.before[dim] as f32;
            start * strides[dim] as f32
        });
        let starts = b.constant(Tensor::f32(vec![out[dim + 2]], starts.collect()));
        let starts = b.along(starts, dim + 2, out.len())?;
        index = b.binary(BinaryOp::Add, index, starts)?;
    }
    let planes = count(b, DType::F32, input[0] * input[1])?;
    let planes = b.with(BinaryOp::Mul, planes, input[2..].iter().product::<usize>() as f64)?;
    let planes = b.reshape(planes, [&[input[0], input[1]], &vec![1; spatial][..]].concat())?;
    let index = b.binary(BinaryOp::Add, index, planes)?;
    let index = b.expand(index, out)?;
    let index = b.cast(index, DType::I64)?;
    finish(b, index, a.one_dimensional)
}

pub(super) fn average_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![average(call, x)?])
}

/// Average pooling of `x` with the attributes of the operator.
pub(super) fn average(call: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId> {
    let padded = call.flag("count_include_pad", false);
    pool(call, x, if padded { PoolKind::MeanPadded } else { PoolKind::Mean })
}

fn power(call: &Call<'_, '_>) -> Result<i64> {
    match call.int("p", 2) {
        p @ 1.. => Ok(p),
        p => invalid(format!("p = {p}")),
    }
}

/// `|x|ᵖ`
fn raised(b: &mut Builder, x: ValueId, p: i64) -> Result<ValueId> {
    match p {
        1 => b.unary(UnaryOp::Abs, x),
        2 => b.binary(BinaryOp::Mul, x, x),
        _ => {
            let x = b.unary(UnaryOp::Abs, x)?;
            b.with(BinaryOp::Pow, x, p as f64)
        }
    }
}

/// The `p`-th root of what is not negative.
fn root(b: &mut Builder, x: ValueId, p: i64) -> Result<ValueId> {
    match p {
        1 => Ok(x),
        2 => b.unary(UnaryOp::Sqrt, x),
        _ => b.with(BinaryOp::Pow, x, 1.0 / p as f64),
    }
}

/// `(Σ |x|ᵖ)^(1 ÷ p)` over each window: a mean over windows that are padded with zeros beforehand, times their size.
pub(super) fn lp_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, p) = (call.input(0)?, power(call)?);
    let (mut a, input, out) = prepare(call, x)?;
    let b = &mut *call.b;
    let x = b.reshape(x, input.clone())?;
    let mut y = raised(b, x, p)?;
    for dim in 0..a.window.kernel.len() {
        let reached = (out[dim + 2] - 1) * a.window.strides[dim] + a.window.reach(dim);
        let after = reached as isize - (input[dim + 2] + a.window.before[dim]) as isize;
        y = pad_along(b, y, dim + 2, (a.window.before[dim] as isize, after), 0.0)?;
    }
    a.window.before.fill(0);
    a.window.after.fill(0);
    y = pool_all(b, y, PoolKind::Mean, &a.window, &out)?;
    y = b.with(BinaryOp::Mul, y, a.window.kernel.iter().product::<usize>() as f64)?;
    y = root(b, y, p)?;
    Ok(vec![finish(b, y, a.one_dimensional)?])
}

/// Over all spatial dimensions.
fn everywhere(call: &Call<'_, '_>, x: ValueId) -> Result<Vec<usize>> {
    let rank = call.b.rank(x);
    if rank < 3 { invalid(format!("a tensor of {rank} dimensions")) } else { Ok((2..rank).collect()) }
}

pub(super) fn global_pool(call: &mut Call<'_, '_>, kind: ReduceKind) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let axes = everywhere(call, x)?;
    Ok(vec![reduce(call.b, kind, x, &axes)?])
}

pub(super) fn global_lp_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, p) = (call.input(0)?, power(call)?);
    let axes = everywhere(call, x)?;
    let y = raised(call.b, x, p)?;
    let y = reduce(call.b, ReduceKind::Sum, y, &axes)?;
    Ok(vec![root(call.b, y, p)?])
}

/// Each element goes back to the place that `MaxPool` took it from; zeros elsewhere.
pub(super) fn max_unpool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let shape = call.shape(0)?;
    let a = attributes(call, &shape, None)?;
    let input = lift(&shape);
    let mut out = input.clone();
    for dim in 0..a.window.kernel.len() {
        let full = (input[dim + 2].saturating_sub(1) * a.window.strides[dim]).saturating_add(a.window.kernel[dim]);
        let Some(rows) = full.checked_sub(a.window.before[dim] + a.window.after[dim]).filter(|n| *n > 0) else {
            return invalid("the padding is larger than the output");
        };
        out[dim + 2] = rows;
    }
    let wish = match call.known_ints(2)? {
        Some(wish) => Some(lift(&wish.into_iter().map(extent).collect::<Result<Vec<_>>>()?)),
        None => None,
    };
    let b = &mut *call.b;
    let (dtype, total, placed) = (b.dtype(x), crate::shape::elements(&out)?, crate::shape::elements(&input)?);
    let x = b.reshape(x, vec![placed])?;
    let indices = b.reshape(indices, vec![placed])?;
    let zero = b.scalar(dtype, 0.0);
    let empty = b.expand(zero, vec![total])?;
    let y = b.one(Op::ScatterElements { axis: 0, combine: Scatter::Set }, &[empty, indices, x], None)?;
    let mut y = b.reshape(y, out.clone())?;
    if let Some(wish) = wish {
        if wish.len() != out.len() || wish[..2] != out[..2] || wish.iter().zip(&out).any(|(w, o)| w < o) {
            return invalid(format!("output_shape {wish:?} for an output of {out:?}"));
        }
        let op = Op::Pad { before: vec![0; out.len()], mode: PadMode::Constant(0.0) };
        y = b.one(op, &[y], Some((dtype, wish)))?;
    }
    Ok(vec![finish(b, y, a.one_dimensional)?])
}

/// Columns `[n, c · window, blocks]` added up where their windows lie in the image.
pub(super) fn col_to_im(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let extents = |call: &Call<'_, '_>, i: usize| -> Result<Vec<usize>> {
        call.known_ints(i)?.unwrap_or_default().into_iter().map(extent).collect()
    };
    let (image, block) = (extents(call, 1)?, extents(call, 2)?);
    let &[n, channels, blocks] = call.b.shape(x) else { return invalid("columns need three dimensions") };
    let spatial = image.len();
    if block.len() != spatial || !(1..=3).contains(&spatial) {
        return unsupported(format!("an image of {image:?} from blocks of {block:?}; up to three dimensions"));
    }
    let given = [&[n, channels], &image[..]].concat();
    let a = attributes(call, &given, Some(&block))?;
    let (window, lifted) = (&a.window, lift(&given));
    let spatial = lifted.len() - 2;
    let positions: usize = window.kernel.iter().product();
    if positions == 0 || positions > MAX_UNROLLED || channels % positions != 0 {
        return unsupported(format!("{channels} channels of blocks of {block:?}"));
    }
    let grid = (0..spatial).map(|d| window.extent(lifted[d + 2], d)).collect::<Option<Vec<_>>>().unwrap_or_default();
    if grid.is_empty() || grid.iter().product::<usize>() != blocks {
        return invalid(format!("{blocks} blocks of {block:?} in an image of {image:?}"));
    }
    let depth = channels / positions;
    bounded(n.saturating_mul(depth).saturating_mul(lifted[2..].iter().product()))?;
    let b = &mut *call.b;
    let dtype = b.dtype(x);
    let x = b.reshape(x, vec![n, depth, positions, blocks])?;
    let zeros = PadMode::Constant(0.0);
    let mut sum: Option<ValueId> = None;
    for position in 0..positions {
        let (mut rest, mut before, mut beside) = (position, vec![0; spatial + 1], false);
        for d in (0..spatial).rev() {
            let k = rest % window.kernel[d];
            rest /= window.kernel[d];
            let first = (k * window.dilations[d]) as isize - window.before[d] as isize;
            let last = first + (grid[d] * window.strides[d]) as isize;
            beside |= last <= 0 || first >= lifted[d + 2] as isize;
            before[d + 1] = first;
        }
        // All of it lies in the padding.
        if beside {
            continue;
        }
        let tap = super::compose::cut(b, x, 2, position, 1, 1)?;
        // Blocks as far from one another as the stride, zeros between them.
        let (mut single, mut spread, mut flat) = (vec![n * depth], vec![n * depth], vec![n * depth]);
        for (d, extent) in grid.iter().enumerate() {
            single.extend([*extent, 1]);
            spread.extend([*extent, window.strides[d]]);
            flat.push(extent * window.strides[d]);
        }
        let tap = b.reshape(tap, single)?;
        let tap = b.one(Op::Pad { before: vec![0; spread.len()], mode: zeros }, &[tap], Some((dtype, spread)))?;
        let tap = b.reshape(tap, flat)?;
        let out = [&[n * depth], &lifted[2..]].concat();
        let tap = b.one(Op::Pad { before, mode: zeros }, &[tap], Some((dtype, out)))?;
        sum = Some(match sum {
            Some(sum) => b.binary(BinaryOp::Add, sum, tap)?,
            None => tap,
        });
    }
    let Some(y) = sum else { return invalid("blocks that all lie in the padding") };
    Ok(vec![b.reshape(y, [&[n, depth], &image[..]].concat())?])
}

/// Cut or padded with zeros to a shape, around the centre.
pub(super) fn center_crop_pad(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let Some(wish) = call.known_ints(1)? else { return invalid("input 1 is missing") };
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|a| call.axis(*a, shape.len())).collect::<Result<Vec<_>>>()?,
        None => (0..shape.len()).collect(),
    };
    if axes.len() != wish.len() {
        return invalid(format!("{} extents for {} dimensions", wish.len(), axes.len()));
    }
    let (mut before, mut out) = (vec![0; shape.len()], shape.clone());
    for (axis, wish) in axes.into_iter().zip(wish) {
        let (had, wish) = (shape[axis], extent(wish)?);
        before[axis] = if wish < had { -(((had - wish) / 2) as isize) } else { ((wish - had) / 2) as isize };
        out[axis] = wish;
    }
    let dtype = call.b.dtype(x);
    let op = Op::Pad { before, mode: PadMode::Constant(0.0) };
    Ok(vec![call.b.one(op, &[x], Some((dtype, out)))?])
}
