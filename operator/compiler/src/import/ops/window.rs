//! Convolutions and pooling. One-dimensional ones become two-dimensional with a height of 1.

use crate::ir::{BinaryOp, DType, Op, PoolKind, ReduceKind, ValueId, Window};
use crate::shape::window_extent;

use super::super::build::{Result, invalid, unsupported};
use super::super::call::{Call, extent};

/// The attributes that all windows share, and what `auto_pad` makes of them.
struct Attributes {
    window: Window,
    one_dimensional: bool,
    auto_pad: String,
}

/// Two numbers of an attribute with one per spatial dimension.
fn pair(call: &Call<'_, '_>, name: &str, one_dimensional: bool, default: usize) -> Result<[usize; 2]> {
    let values = call.ints(name).unwrap_or_default();
    match (values, one_dimensional) {
        ([], _) => Ok([default; 2]),
        ([x], true) => Ok([default, extent(*x)?]),
        ([y, x], false) => Ok([extent(*y)?, extent(*x)?]),
        _ => invalid(format!("{name} = {values:?}")),
    }
}

fn attributes(call: &Call<'_, '_>, input: &[usize], kernel: Option<&[usize]>) -> Result<Attributes> {
    let one_dimensional = input.len() == 3;
    if input.len() != 3 && input.len() != 4 {
        return unsupported(format!(
            "an input of {} dimensions; one and two spatial dimensions are supported",
            input.len()
        ));
    }
    let kernel = match kernel {
        Some([x]) if one_dimensional => [1, *x],
        Some([y, x]) if !one_dimensional => [*y, *x],
        Some(other) => return invalid(format!("a window of {other:?} for an input of {} dimensions", input.len())),
        None => pair(call, "kernel_shape", one_dimensional, 1)?,
    };
    let pads = call.ints("pads").unwrap_or_default();
    if pads.iter().any(|p| *p < 0) {
        return unsupported("negative padding");
    }
    let pads = match (pads, one_dimensional) {
        ([], _) => [0; 4],
        ([before, after], true) => [0, extent(*before)?, 0, extent(*after)?],
        ([top, left, bottom, right], false) => [extent(*top)?, extent(*left)?, extent(*bottom)?, extent(*right)?],
        _ => return invalid(format!("pads = {pads:?}")),
    };
    let window = Window {
        kernel,
        strides: pair(call, "strides", one_dimensional, 1)?,
        dilations: pair(call, "dilations", one_dimensional, 1)?,
        pads,
    };
    if window.kernel.iter().chain(&window.strides).chain(&window.dilations).any(|n| *n == 0 || *n > 1 << 16) {
        return invalid("a kernel, stride or dilation of 0 or above 65536");
    }
    Ok(Attributes { window, one_dimensional, auto_pad: call.text("auto_pad", "NOTSET") })
}

/// `[n, c, w]` as `[n, c, 1, w]`.
fn lift(shape: &[usize]) -> Vec<usize> {
    match shape {
        [n, c, w] => vec![*n, *c, 1, *w],
        _ => shape.to_vec(),
    }
}

impl Attributes {
    /// Padding of `SAME_UPPER` and `SAME_LOWER`: as many outputs as `⌈input ÷ stride⌉`.
    fn pad_automatically(&mut self, input: &[usize]) -> Result<()> {
        let lower = match self.auto_pad.as_str() {
            "" | "NOTSET" => return Ok(()),
            "VALID" => {
                self.window.pads = [0; 4];
                return Ok(());
            }
            "SAME_UPPER" => false,
            "SAME_LOWER" => true,
            other => return invalid(format!("auto_pad {other:?}")),
        };
        let w = &mut self.window;
        for dim in 0..2 {
            let outputs = input[dim + 2].div_ceil(w.strides[dim]);
            let reach = (w.kernel[dim] - 1) * w.dilations[dim] + 1;
            let needed = (outputs.saturating_sub(1) * w.strides[dim] + reach).saturating_sub(input[dim + 2]);
            let (small, large) = (needed / 2, needed - needed / 2);
            (w.pads[dim], w.pads[dim + 2]) = if lower { (large, small) } else { (small, large) };
        }
        Ok(())
    }
}

pub(super) fn conv(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
    Ok(vec![convolution(call, x, w, bias)?])
}

/// With the attributes that all convolutions have, of any operands: f32 or I32.
pub(super) fn convolution(call: &mut Call<'_, '_>, x: ValueId, w: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let (shape, weights) = (call.b.shape(x).to_vec(), call.b.shape(w).to_vec());
    let mut attributes = attributes(call, &shape, Some(weights.get(2..).unwrap_or_default()))?;
    attributes.pad_automatically(&lift(&shape))?;
    let groups = extent(call.int("group", 1))?;
    let x = call.b.reshape(x, lift(&shape))?;
    let w = call.b.reshape(w, lift(&weights))?;
    let mut inputs = vec![x, w];
    inputs.extend(bias);
    let y = call.b.one(Op::Conv { window: attributes.window, groups }, &inputs, None)?;
    finish(call, y, attributes.one_dimensional).map(|y| y[0])
}

/// Drops the height of 1 again.
fn finish(call: &mut Call<'_, '_>, y: ValueId, one_dimensional: bool) -> Result<Vec<ValueId>> {
    if !one_dimensional {
        return Ok(vec![y]);
    }
    let mut shape = call.b.shape(y).to_vec();
    shape.remove(2);
    Ok(vec![call.b.reshape(y, shape)?])
}

pub(super) fn conv_transpose(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (shape, weights) = (call.shape(0)?, call.shape(1)?);
    let mut a = attributes(call, &shape, Some(weights.get(2..).unwrap_or_default()))?;
    let groups = extent(call.int("group", 1))?;
    let input = lift(&shape);
    let extra = pair(call, "output_padding", a.one_dimensional, 0)?;
    let wish = pair(call, "output_shape", a.one_dimensional, 0)?;
    let mut out = vec![input[0], lift(&weights)[1].saturating_mul(groups), 1, 1];
    for dim in 0..2 {
        let window = &mut a.window;
        let reach = (window.kernel[dim] - 1) * window.dilations[dim] + 1;
        let full = input[dim + 2].saturating_sub(1) * window.strides[dim] + reach + extra[dim];
        let target = match a.auto_pad.as_str() {
            _ if wish[dim] != 0 => Some(wish[dim]),
            "SAME_UPPER" | "SAME_LOWER" => Some(input[dim + 2] * window.strides[dim]),
            _ => None,
        };
        if let Some(target) = target {
            let total = full.saturating_sub(target);
            // As the operator's definition has it: SAME_UPPER gives the larger half to the end, everything else to the start.
            let (small, large) = (total / 2, total - total / 2);
            (window.pads[dim], window.pads[dim + 2]) =
                if a.auto_pad == "SAME_UPPER" { (small, large) } else { (large, small) };
            out[dim + 2] = target;
        } else {
            let Some(rows) = full.checked_sub(window.pads[dim] + window.pads[dim + 2]).filter(|n| *n > 0) else {
                return invalid("the padding is larger than the output");
            };
            out[dim + 2] = rows;
        }
    }
    let x = call.b.reshape(x, input)?;
    let w = call.b.reshape(w, lift(&weights))?;
    let patches = a.window.kernel == a.window.strides && a.window.dilations == [1; 2] && a.window.pads == [0; 4];
    let y = if patches && groups == 1 && extra == [0; 2] && wish == [0; 2] {
        patch_each(call, x, w, &out)?
    } else {
        convolve_spread(call, x, w, &a.window, groups, &out)?
    };
    finish(call, y, a.one_dimensional)
}

/// Windows that do not overlap: a product gives every input pixel its patch, and patches are put side by side.
fn patch_each(call: &mut Call<'_, '_>, x: ValueId, w: ValueId, out: &[usize]) -> Result<ValueId> {
    let (&[n, c, ih, iw], &[channels, o, kh, kw]) = (call.b.shape(x), call.b.shape(w)) else {
        return invalid("input and weights need four dimensions");
    };
    if c != channels {
        return invalid(format!("{c} channels and weights for {channels}"));
    }
    let b = &mut *call.b;
    let w = b.reshape(w, vec![c, o * kh * kw])?;
    let w = b.transpose(w, vec![1, 0])?;
    let x = b.reshape(x, vec![n, c, ih * iw])?;
    let mut y = b.one(Op::MatMul, &[w, x], None)?;
    if let Some(bias) = call.optional(2) {
        let bias = call.b.reshape(bias, vec![o, 1])?;
        let bias = call.b.expand(bias, vec![o, kh * kw])?;
        let bias = call.b.reshape(bias, vec![o * kh * kw, 1])?;
        y = call.b.binary(BinaryOp::Add, y, bias)?;
    }
    let y = call.b.reshape(y, vec![n, o, kh, kw, ih, iw])?;
    let y = call.b.transpose(y, vec![0, 1, 4, 2, 5, 3])?;
    call.b.reshape(y, out.to_vec())
}

/// The general case: pixels spread by the stride with zeros between them, convolved with the mirrored window.
fn convolve_spread(
    call: &mut Call<'_, '_>,
    x: ValueId,
    w: ValueId,
    window: &Window,
    groups: usize,
    out: &[usize],
) -> Result<ValueId> {
    let (&[n, c, ih, iw], &[channels, per_group, kh, kw]) = (call.b.shape(x), call.b.shape(w)) else {
        return invalid("input and weights need four dimensions");
    };
    if c != channels || groups == 0 || c % groups != 0 {
        return invalid(format!("{c} channels, weights for {channels}, {groups} groups"));
    }
    let b = &mut *call.b;
    let zeros = crate::ir::PadMode::Constant(0.0);
    let [sh, sw] = window.strides;
    let mut x = x;
    if window.strides != [1; 2] {
        x = b.reshape(x, vec![n * c, ih, 1, iw, 1])?;
        let op = Op::Pad { before: vec![0; 5], mode: zeros };
        x = b.one(op, &[x], Some((DType::F32, vec![n * c, ih, sh, iw, sw])))?;
        x = b.reshape(x, vec![n, c, ih * sh, iw * sw])?;
    }
    // As long as the mirrored window needs to give every output; the zeros after the last pixel may be cut again.
    let (mut before, mut padded) = (vec![0; 4], vec![n, c, 0, 0]);
    for dim in 0..2 {
        let reach = (window.kernel[dim] - 1) * window.dilations[dim];
        before[dim + 2] = reach as isize - window.pads[dim] as isize;
        padded[dim + 2] = out[dim + 2] + reach;
    }
    x = b.one(Op::Pad { before, mode: zeros }, &[x], Some((DType::F32, padded)))?;
    let w = b.reshape(w, vec![groups, c / groups, per_group, kh, kw])?;
    let w = b.transpose(w, vec![0, 2, 1, 3, 4])?;
    let shape = vec![groups * per_group, c / groups, kh, kw];
    let w = b.reshape(w, shape.clone())?;
    let mirror = Op::Slice { starts: vec![0, 0, kh - 1, kw - 1], steps: vec![1, 1, -1, -1] };
    let w = b.one(mirror, &[w], Some((DType::F32, shape)))?;
    let mut inputs = vec![x, w];
    inputs.extend(call.optional(2));
    let window = Window { strides: [1; 2], pads: [0; 4], ..*window };
    call.b.one(Op::Conv { window, groups }, &inputs, None)
}

fn pool(call: &mut Call<'_, '_>, kind: PoolKind) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    pool_of(call, x, kind)
}

fn pool_of(call: &mut Call<'_, '_>, x: ValueId, kind: PoolKind) -> Result<Vec<ValueId>> {
    let shape = call.b.shape(x).to_vec();
    let mut a = attributes(call, &shape, None)?;
    let input = lift(&shape);
    a.pad_automatically(&input)?;
    let ceil = call.flag("ceil_mode", false);
    let mut out = input.clone();
    for dim in 0..2 {
        let Some(floor) = window_extent(input[dim + 2], &a.window, dim) else {
            return invalid(format!("the window is larger than the input {shape:?}"));
        };
        out[dim + 2] = floor;
        // With ceil mode one more window, unless it would start in the end padding.
        let w = &a.window;
        let next = floor * w.strides[dim];
        let padded = input[dim + 2] + w.pads[dim] + w.pads[dim + 2];
        let reach = (w.kernel[dim] - 1) * w.dilations[dim] + 1;
        if ceil && (floor - 1) * w.strides[dim] + reach < padded && next < input[dim + 2] + w.pads[dim] {
            out[dim + 2] += 1;
        }
    }
    let dtype = call.b.dtype(x);
    if dtype != DType::F32 {
        // Bytes are exact in f32.
        if !matches!(dtype, DType::U8 | DType::I8) {
            return unsupported(format!("pooling of {dtype}"));
        }
        let x = call.b.cast(x, DType::F32)?;
        let x = call.b.reshape(x, input)?;
        let y = call.b.one(Op::Pool { kind, window: a.window }, &[x], Some((DType::F32, out)))?;
        let y = call.b.cast(y, dtype)?;
        return finish(call, y, a.one_dimensional);
    }
    let x = call.b.reshape(x, input)?;
    let y = call.b.one(Op::Pool { kind, window: a.window }, &[x], Some((DType::F32, out)))?;
    finish(call, y, a.one_dimensional)
}

pub(super) fn max_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    if call.wants(1) {
        return unsupported("the second output (indices)");
    }
    pool(call, PoolKind::Max)
}

pub(super) fn average_pool(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    Ok(vec![average(call, x)?])
}

/// Average pooling of `x` with the attributes of the operator.
pub(super) fn average(call: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId> {
    let padded = call.flag("count_include_pad", false);
    pool_of(call, x, if padded { PoolKind::MeanPadded } else { PoolKind::Mean }).map(|y| y[0])
}

pub(super) fn global_pool(call: &mut Call<'_, '_>, kind: ReduceKind) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let rank = call.b.rank(x);
    if rank < 3 {
        return invalid(format!("a tensor of {rank} dimensions"));
    }
    Ok(vec![call.b.one(Op::Reduce { kind, axes: (2..rank).collect() }, &[x], None)?])
}
