//! Shapes, constants, and what rearranges whole tensors.

use crate::ir::{DType, Data, Op, Tensor, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent, resolve_axes};
use super::super::tensor;

/// Most parts that a tensor is split into.
const MAX_PARTS: usize = 1 << 16;

pub(super) fn constant(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let tensor = if call.attribute("value").is_some() {
        let Some(proto) = call.tensor("value") else { return invalid("its value is no tensor") };
        tensor::tensor(proto)?
    } else if call.attribute("value_float").is_some() {
        Tensor::f32(Vec::new(), vec![call.float("value_float", 0.0) as f32])
    } else if let Some(floats) = call.floats("value_floats") {
        Tensor::f32(vec![floats.len()], floats.to_vec())
    } else if let Some(int) = call.integer("value_int") {
        Tensor::int(DType::I64, Vec::new(), vec![int])
    } else if let Some(a) = call.ints("value_ints") {
        Tensor::int(DType::I64, vec![a.len()], a.to_vec())
    } else {
        return unsupported("a constant that is a string or sparse");
    };
    Ok(vec![call.b.constant(tensor)])
}

pub(super) fn constant_of_shape(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let Some(shape) = call.known_ints(0)? else { return invalid("input 0 is missing") };
    let shape = shape.into_iter().map(extent).collect::<Result<Vec<_>>>()?;
    let value = match call.tensor("value") {
        Some(proto) => tensor::tensor(proto)?,
        None => Tensor::f32(vec![1], vec![0.0]),
    };
    if value.len() != 1 {
        return invalid("its value should have one element");
    }
    let value = call.b.constant(Tensor { shape: Vec::new(), ..value });
    Ok(vec![call.b.expand(value, shape)?])
}

pub(super) fn shape(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    call.b.whole(call.input(0)?)?;
    let shape = call.shape(0)?;
    let rank = shape.len() as i64;
    let clamp = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize;
    let (start, end) = (clamp(call.int("start", 0)), clamp(call.int("end", rank)));
    let dims: Vec<i64> = shape.get(start..end).unwrap_or_default().iter().map(|d| *d as i64).collect();
    Ok(vec![call.b.constant(Tensor::int(DType::I64, vec![dims.len()], dims))])
}

pub(super) fn size(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    call.b.whole(call.input(0)?)?;
    let count: usize = call.shape(0)?.iter().product();
    Ok(vec![call.b.constant(Tensor::int(DType::I64, Vec::new(), vec![count as i64]))])
}

pub(super) fn reshape(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let from = call.b.shape(x).to_vec();
    let Some(wish) = call.ints_or_input("shape", 1)? else { return invalid("input 1 is missing") };
    let keep_zero = call.flag("allowzero", false);
    let mut shape = Vec::with_capacity(wish.len());
    let mut open = None;
    for (i, d) in wish.iter().enumerate() {
        shape.push(match d {
            0 if !keep_zero => {
                *from.get(i).ok_or_else(|| format!("shape {wish:?} copies a dimension that is not there"))?
            }
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            d => extent(*d)?,
        });
    }
    if let Some(i) = open {
        let (total, rest) = (from.iter().product::<usize>(), crate::shape::elements(&shape)?);
        if rest == 0 || total % rest != 0 {
            return invalid(format!("shape {from:?} cannot become {wish:?}"));
        }
        shape[i] = total / rest;
    }
    Ok(vec![call.b.reshape(x, shape)?])
}

pub(super) fn flatten(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let axis = call.int("axis", 1);
    let axis = if axis == shape.len() as i64 { shape.len() } else { call.axis(axis, shape.len())? };
    let flat = vec![shape[..axis].iter().product(), shape[axis..].iter().product()];
    Ok(vec![call.b.reshape(x, flat)?])
}

pub(super) fn squeeze(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let axes = match call.ints_or_input("axes", 1)? {
        Some(axes) => resolve_axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|d| shape[*d] == 1).collect(),
    };
    if axes.iter().any(|d| shape[*d] != 1) {
        return invalid(format!("dimensions {axes:?} of shape {shape:?} are not all 1"));
    }
    let shape = (0..shape.len()).filter(|d| !axes.contains(d)).map(|d| shape[d]).collect();
    Ok(vec![call.b.reshape(x, shape)?])
}

pub(super) fn unsqueeze(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let Some(axes) = call.ints_or_input("axes", 1)? else { return invalid("axes are missing") };
    let rank = call.b.rank(x) + axes.len();
    if rank > crate::shape::MAX_RANK {
        return unsupported(format!("a tensor of {rank} dimensions"));
    }
    let axes = resolve_axes(&axes, rank)?;
    let mut shape = call.b.shape(x).to_vec();
    axes.iter().for_each(|d| shape.insert(*d, 1));
    Ok(vec![call.b.reshape(x, shape)?])
}

pub(super) fn transpose(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let rank = call.b.rank(x);
    let perm = match call.ints("perm") {
        Some(perm) => perm.iter().map(|p| call.axis(*p, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).rev().collect(),
    };
    Ok(vec![call.b.transpose(x, perm)?])
}

pub(super) fn expand(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let Some(wish) = call.known_ints(1)? else { return invalid("input 1 is missing") };
    let wish = wish.into_iter().map(extent).collect::<Result<Vec<_>>>()?;
    // Both sides broadcast: a wish of 1 keeps what is there.
    let shape = crate::shape::broadcast(call.b.shape(x), &wish)?;
    Ok(vec![call.b.expand(x, shape)?])
}

/// `[a, b]` repeated `[r, s]` times is `[1, a, 1, b]` broadcast to `[r, a, s, b]`.
pub(super) fn tile(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let Some(repeats) = call.known_ints(1)? else { return invalid("input 1 is missing") };
    let repeats = repeats.into_iter().map(extent).collect::<Result<Vec<_>>>()?;
    if repeats.len() != shape.len() {
        return invalid(format!("{repeats:?} repeats of shape {shape:?}"));
    }
    let mut y = x;
    // One dimension after the other keeps the rank low.
    for (d, r) in repeats.into_iter().enumerate().filter(|(_, r)| *r != 1) {
        let now = call.b.shape(y).to_vec();
        let outer: usize = now[..d].iter().product();
        let inner: usize = now[d..].iter().product();
        y = call.b.reshape(y, vec![outer, 1, inner])?;
        y = call.b.expand(y, vec![outer, r, inner])?;
        let mut out = now;
        out[d] = out[d].checked_mul(r).ok_or_else(|| "the result is larger than 2 GiB".to_owned())?;
        y = call.b.reshape(y, out)?;
    }
    Ok(vec![y])
}

pub(super) fn concat(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let parts = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Result<Vec<_>>>()?;
    join(call, &parts)
}

/// `parts` joined along the operator's axis.
pub(super) fn join(call: &mut Call<'_, '_>, parts: &[ValueId]) -> Result<Vec<ValueId>> {
    let Some(&first) = parts.first() else { return invalid("nothing to join") };
    let mut parts = parts.to_vec();
    let rank = call.b.rank(first);
    let default = if call.opset < 4 { 1 } else { 0 };
    let axis = call.axis(call.int("axis", default), rank)?;
    // Empty parts come from shape arithmetic and contribute nothing.
    if parts.len() > 1 && parts.iter().any(|p| call.b.rank(*p) == rank && call.b.shape(*p)[axis] != 0) {
        parts.retain(|p| call.b.shape(*p).get(axis) != Some(&0));
    }
    Ok(vec![call.b.one(Op::Concat { axis }, &parts, None)?])
}

pub(super) fn split(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let axis = call.axis(call.int("axis", 0), shape.len())?;
    let outputs = call.node.outputs.len();
    let sizes = match call.ints_or_input("split", 1)? {
        Some(sizes) => sizes.into_iter().map(extent).collect::<Result<Vec<_>>>()?,
        None => {
            // Equal parts, the last one smaller where it does not come out even.
            let parts = extent(call.int("num_outputs", outputs as i64))?.max(1);
            if parts > MAX_PARTS {
                return invalid(format!("{parts} parts"));
            }
            let each = shape[axis].div_ceil(parts);
            (0..parts).map(|i| each.min(shape[axis].saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().sum::<usize>() != shape[axis] || sizes.len() < outputs {
        return invalid(format!("parts {sizes:?} of shape {shape:?} along axis {axis}"));
    }
    split_sizes(call.b, x, axis, &sizes)
}

/// Parts of these extents along `axis`, which must add up to its own.
pub(super) fn split_sizes(b: &mut Builder, x: ValueId, axis: usize, sizes: &[usize]) -> Result<Vec<ValueId>> {
    let extent = b.shape(x)[axis];
    if sizes.iter().try_fold(0usize, |n, s| n.checked_add(*s)) != Some(extent) {
        return invalid(format!("parts {sizes:?} of an extent of {extent}"));
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        parts.push(b.slice(x, axis, start, *size)?);
        start += size;
    }
    Ok(parts)
}

pub(super) fn depth_to_space(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let block = extent(call.int("blocksize", 0))?;
    let &[n, c, h, w] = call.b.shape(x) else { return invalid("its input needs four dimensions") };
    if block == 0 || block > 1 << 10 || c % (block * block) != 0 {
        return invalid(format!("{c} channels in blocks of {block}"));
    }
    let depth = c / (block * block);
    let (split, perm) = match call.text("mode", "DCR").as_str() {
        "DCR" => (vec![n, block, block, depth, h, w], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => (vec![n, depth, block, block, h, w], vec![0, 1, 4, 2, 5, 3]),
        other => return invalid(format!("mode {other:?}")),
    };
    let y = call.b.reshape(x, split)?;
    let y = call.b.transpose(y, perm)?;
    Ok(vec![call.b.reshape(y, vec![n, depth, h * block, w * block])?])
}

pub(super) fn space_to_depth(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let block = extent(call.int("blocksize", 0))?;
    let &[n, c, h, w] = call.b.shape(x) else { return invalid("its input needs four dimensions") };
    if block == 0 || block > 1 << 10 || h % block != 0 || w % block != 0 {
        return invalid(format!("{h} × {w} in blocks of {block}"));
    }
    let y = call.b.reshape(x, vec![n, c, h / block, block, w / block, block])?;
    let perm = match call.text("mode", "DCR").as_str() {
        "DCR" => vec![0, 3, 5, 1, 2, 4],
        "CRD" => vec![0, 1, 3, 5, 2, 4],
        other => return invalid(format!("mode {other:?}")),
    };
    let y = call.b.transpose(y, perm)?;
    Ok(vec![call.b.reshape(y, vec![n, c * block * block, h / block, w / block])?])
}

/// The elements as f64, for attributes that may be of any type.
pub(super) fn number(tensor: &Tensor) -> Option<f64> {
    match &tensor.data {
        Data::F32(v) => v.first().map(|x| f64::from(*x)),
        Data::F64(v) => v.first().copied(),
        Data::Int(v) => v.first().map(|x| *x as f64),
    }
}
