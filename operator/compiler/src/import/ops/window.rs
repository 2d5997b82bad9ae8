//! Convolutions. The kernels have two spatial dimensions: one is lifted to a height of 1, of three and more the first is a sum
//! over the window's planes.

use crate::ir::{BinaryOp, DType, Op, ValueId, Window};
use crate::shape;

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::compose::{cut, mirror, pad_along};

/// Most spatial dimensions: a tensor has at most eight.
const MAX_SPATIAL: usize = 6;
/// Most positions of a window that is unrolled: by convolutions whose weights are computed, and by what is no kernel of its own.
pub(super) const MAX_UNROLLED: usize = 1024;

/// A window over any number of spatial dimensions, at least two. See [`Window`].
#[derive(Clone)]
pub(super) struct Spatial {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) before: Vec<usize>,
    pub(super) after: Vec<usize>,
}

/// The attributes that all windows share, and what `auto_pad` makes of them.
pub(super) struct Attributes {
    pub(super) window: Spatial,
    pub(super) one_dimensional: bool,
    pub(super) auto_pad: String,
}

impl Spatial {
    /// Elements from the first to the last that a window reads.
    pub(super) fn reach(&self, dim: usize) -> usize {
        (self.kernel[dim] - 1) * self.dilations[dim] + 1
    }

    /// Windows along a dimension without ceil mode.
    pub(super) fn extent(&self, input: usize, dim: usize) -> Option<usize> {
        let padded = input.checked_add(self.before[dim])?.checked_add(self.after[dim])?;
        Some(padded.checked_sub(self.reach(dim))? / self.strides[dim] + 1)
    }

    /// Two of its dimensions.
    pub(super) fn plane(&self, rows: usize, cols: usize) -> Window {
        let pair = |of: &[usize]| [of[rows], of[cols]];
        Window {
            kernel: pair(&self.kernel),
            strides: pair(&self.strides),
            dilations: pair(&self.dilations),
            pads: [self.before[rows], self.before[cols], self.after[rows], self.after[cols]],
        }
    }

    /// One of its dimensions, as rows.
    pub(super) fn column(&self, dim: usize) -> Window {
        let plane = self.plane(dim, dim);
        let first = |of: [usize; 2]| [of[0], 1];
        Window {
            kernel: first(plane.kernel),
            strides: first(plane.strides),
            dilations: first(plane.dilations),
            pads: [plane.pads[0], 0, plane.pads[2], 0],
        }
    }

    /// All but the first dimension.
    fn rest(&self) -> Self {
        let rest = |of: &[usize]| of[1..].to_vec();
        Self {
            kernel: rest(&self.kernel),
            strides: rest(&self.strides),
            dilations: rest(&self.dilations),
            before: rest(&self.before),
            after: rest(&self.after),
        }
    }

    /// Padding of `SAME_UPPER` and `SAME_LOWER`: as many outputs as `⌈input ÷ stride⌉`. `input` begins with batch and channels.
    pub(super) fn pad_automatically(&mut self, auto_pad: &str, input: &[usize]) -> Result<()> {
        let lower = match auto_pad {
            "" | "NOTSET" => return Ok(()),
            "VALID" => {
                self.before.fill(0);
                self.after.fill(0);
                return Ok(());
            }
            "SAME_UPPER" => false,
            "SAME_LOWER" => true,
            other => return invalid(format!("auto_pad {other:?}")),
        };
        for dim in 0..self.kernel.len() {
            let outputs = input[dim + 2].div_ceil(self.strides[dim]);
            let covered = outputs.saturating_sub(1) * self.strides[dim] + self.reach(dim);
            let needed = covered.saturating_sub(input[dim + 2]);
            let (small, large) = (needed / 2, needed - needed / 2);
            (self.before[dim], self.after[dim]) = if lower { (large, small) } else { (small, large) };
        }
        Ok(())
    }
}

/// One number per spatial dimension; a lifted dimension before them has the default.
pub(super) fn per_dimension(call: &Call<'_, '_>, name: &str, given: &[usize], default: usize) -> Result<Vec<usize>> {
    let spatial = given.len() - 2;
    let values = call.ints(name).unwrap_or_default();
    if !values.is_empty() && values.len() != spatial {
        return invalid(format!("{name} = {values:?}"));
    }
    let mut out = vec![default; spatial];
    for (o, v) in out.iter_mut().zip(values) {
        *o = extent(*v)?;
    }
    if spatial == 1 {
        out.insert(0, default);
    }
    Ok(out)
}

/// `input` is the shape as the model has it; `kernel` what the weights say, if there are any.
pub(super) fn attributes(call: &Call<'_, '_>, input: &[usize], kernel: Option<&[usize]>) -> Result<Attributes> {
    let Some(spatial) = input.len().checked_sub(2).filter(|s| (1..=MAX_SPATIAL).contains(s)) else {
        return invalid(format!("an input of {} dimensions", input.len()));
    };
    let one_dimensional = spatial == 1;
    let kernel = match kernel {
        Some(kernel) if kernel.len() == spatial => {
            let said = call.ints("kernel_shape").unwrap_or_default();
            if !said.is_empty() && !said.iter().map(|k| extent(*k)).eq(kernel.iter().map(|k| Ok(*k))) {
                return invalid(format!("kernel_shape = {said:?}, but its weights have windows of {kernel:?}"));
            }
            lift(&[&[0, 0], kernel].concat())[2..].to_vec()
        }
        Some(other) => return invalid(format!("a window of {other:?} for an input of {} dimensions", input.len())),
        None if call.ints("kernel_shape").unwrap_or_default().is_empty() => return invalid("it has no kernel_shape"),
        None => per_dimension(call, "kernel_shape", input, 1)?,
    };
    let pads = call.ints("pads").unwrap_or_default();
    if pads.iter().any(|p| *p < 0) {
        return unsupported("negative padding");
    }
    if !pads.is_empty() && pads.len() != 2 * spatial {
        return invalid(format!("pads = {pads:?}"));
    }
    let pads = pads.iter().map(|p| extent(*p)).collect::<Result<Vec<_>>>()?;
    let (mut before, mut after) = (vec![0; spatial], vec![0; spatial]);
    if !pads.is_empty() {
        (before, after) = (pads[..spatial].to_vec(), pads[spatial..].to_vec());
    }
    if one_dimensional {
        before.insert(0, 0);
        after.insert(0, 0);
    }
    let window = Spatial {
        kernel,
        strides: per_dimension(call, "strides", input, 1)?,
        dilations: per_dimension(call, "dilations", input, 1)?,
        before,
        after,
    };
    if window.kernel.iter().chain(&window.strides).chain(&window.dilations).any(|n| *n == 0 || *n > 1 << 16)
        || window.before.iter().chain(&window.after).any(|n| *n > 1 << 16)
    {
        return invalid("a kernel, stride or dilation of 0 or above 65536, or padding above that");
    }
    Ok(Attributes { window, one_dimensional, auto_pad: call.text("auto_pad", "NOTSET") })
}

/// `[n, c, w]` as `[n, c, 1, w]`.
pub(super) fn lift(shape: &[usize]) -> Vec<usize> {
    match shape {
        [n, c, w] => vec![*n, *c, 1, *w],
        _ => shape.to_vec(),
    }
}

/// Drops the height of 1 again.
pub(super) fn finish(b: &mut Builder, y: ValueId, one_dimensional: bool) -> Result<ValueId> {
    if !one_dimensional {
        return Ok(y);
    }
    let mut shape = b.shape(y).to_vec();
    shape.remove(2);
    b.reshape(y, shape)
}

pub(super) fn conv(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
    Ok(vec![convolution(call, x, w, bias)?])
}

/// With the attributes that all convolutions have, of any operands: f32 or I32.
pub(super) fn convolution(call: &mut Call<'_, '_>, x: ValueId, w: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let (shape, weights) = (call.b.shape(x).to_vec(), call.b.shape(w).to_vec());
    let mut attributes = attributes(call, &shape, Some(weights.get(2..).unwrap_or_default()))?;
    attributes.window.pad_automatically(&attributes.auto_pad, &lift(&shape))?;
    let groups = extent(call.int("group", 1))?;
    let b = &mut *call.b;
    let x = b.reshape(x, lift(&shape))?;
    let w = b.reshape(w, lift(&weights))?;
    let y = convolve_all(b, x, w, bias, &attributes.window, groups)?;
    finish(b, y, attributes.one_dimensional)
}

/// A convolution over two or more spatial dimensions.
pub(super) fn convolve_all(
    b: &mut Builder,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
    window: &Spatial,
    groups: usize,
) -> Result<ValueId> {
    if window.kernel.len() == 2 {
        return convolve(b, x, w, bias, window.plane(0, 1), groups);
    }
    let (shape, weights) = (b.shape(x).to_vec(), b.shape(w).to_vec());
    let Some(outputs) = window.extent(shape[2], 0) else {
        return invalid(format!("the window is larger than the input {shape:?}"));
    };
    if window.kernel[0] > MAX_UNROLLED {
        return unsupported(format!("a window of {} planes", window.kernel[0]));
    }
    let x = pad_along(b, x, 2, (window.before[0] as isize, window.after[0] as isize), 0.0)?;
    let planes_first: Vec<usize> = [0, 2, 1].into_iter().chain(3..shape.len()).collect();
    let x = b.transpose(x, planes_first.clone())?;
    let rest = window.rest();
    let mut sum: Option<ValueId> = None;
    for k in 0..window.kernel[0] {
        let planes = cut(b, x, 1, k * window.dilations[0], outputs, window.strides[0])?;
        let planes = b.reshape(planes, [&[shape[0] * outputs, shape[1]], &shape[3..]].concat())?;
        let slab = cut(b, w, 2, k, 1, 1)?;
        let slab = b.reshape(slab, [&weights[..2], &weights[3..]].concat())?;
        let y = convolve_all(b, planes, slab, None, &rest, groups)?;
        sum = Some(match sum {
            Some(sum) => b.binary(BinaryOp::Add, sum, y)?,
            None => y,
        });
    }
    let Some(y) = sum else { return invalid("a window without planes") };
    let out = b.shape(y).to_vec();
    let y = b.reshape(y, [&[shape[0], outputs], &out[1..]].concat())?;
    let y = b.transpose(y, planes_first)?;
    match bias {
        Some(bias) => {
            let bias = b.along(bias, 1, shape.len())?;
            b.binary(BinaryOp::Add, y, bias)
        }
        None => Ok(y),
    }
}

/// A convolution over two spatial dimensions. The kernels of f32 want weights that are known; with computed ones it is a product
/// of the weights with what lies under each window.
pub(super) fn convolve(
    b: &mut Builder,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
    window: Window,
    groups: usize,
) -> Result<ValueId> {
    let mut inputs = vec![x, w];
    inputs.extend(bias);
    let op = Op::Conv { window, groups };
    let [kh, kw] = window.kernel;
    if b.known(w).is_some() || b.dtype(x) != DType::F32 || kh * kw > MAX_UNROLLED {
        return b.one(op, &inputs, None);
    }
    let typed: Vec<_> = inputs.iter().map(|id| (b.dtype(*id), b.shape(*id))).collect();
    let out = shape::outputs(&op, &typed, None)?.remove(0).1;
    let (&[n, channels, ..], &[_, planes, oh, ow]) = (b.shape(x), &out[..]) else { return invalid("its operands") };
    let [top, left, bottom, right] = window.pads.map(|p| p as isize);
    let x = pad_along(b, x, 2, (top, bottom), 0.0)?;
    let x = pad_along(b, x, 3, (left, right), 0.0)?;
    let mut taps = Vec::with_capacity(kh * kw);
    for (y, x_at) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
        let starts = vec![0, 0, y * window.dilations[0], x_at * window.dilations[1]];
        let steps = vec![1, 1, window.strides[0] as isize, window.strides[1] as isize];
        let tap = b.one(Op::Slice { starts, steps }, &[x], Some((DType::F32, vec![n, channels, oh, ow])))?;
        taps.push(b.reshape(tap, vec![n, channels, 1, oh * ow])?);
    }
    let patches = b.one(Op::Concat { axis: 2 }, &taps, None)?;
    let depth = channels / groups * kh * kw;
    let mut w = b.reshape(w, vec![groups, planes / groups, depth])?;
    if n > 1 && groups > 1 {
        // A product repeats one operand over one run of dimensions.
        w = b.expand(w, vec![n, groups, planes / groups, depth])?;
        w = b.reshape(w, vec![n * groups, planes / groups, depth])?;
    }
    let patches = b.reshape(patches, vec![n * groups, depth, oh * ow])?;
    let y = b.one(Op::MatMul, &[w, patches], None)?;
    let y = b.reshape(y, out)?;
    match bias {
        Some(bias) => {
            let bias = b.along(bias, 1, 4)?;
            b.binary(BinaryOp::Add, y, bias)
        }
        None => Ok(y),
    }
}

pub(super) fn conv_transpose(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (shape, weights) = (call.shape(0)?, call.shape(1)?);
    let mut a = attributes(call, &shape, Some(weights.get(2..).unwrap_or_default()))?;
    let groups = extent(call.int("group", 1))?;
    let input = lift(&shape);
    let extra = per_dimension(call, "output_padding", &shape, 0)?;
    let wish = per_dimension(call, "output_shape", &shape, 0)?;
    let spatial = input.len() - 2;
    let mut out = vec![1; input.len()];
    (out[0], out[1]) = (input[0], lift(&weights)[1].saturating_mul(groups));
    for dim in 0..spatial {
        let window = &mut a.window;
        let full = input[dim + 2].saturating_sub(1) * window.strides[dim] + window.reach(dim) + extra[dim];
        let target = match a.auto_pad.as_str() {
            _ if wish[dim] != 0 => Some(wish[dim]),
            "SAME_UPPER" | "SAME_LOWER" => Some(input[dim + 2] * window.strides[dim]),
            "" | "NOTSET" | "VALID" => None,
            other => return invalid(format!("auto_pad {other:?}")),
        };
        if let Some(target) = target {
            let total = full.saturating_sub(target);
            // As the operator's definition has it: SAME_UPPER gives the larger half to the end, everything else to the start.
            let (small, large) = (total / 2, total - total / 2);
            (window.before[dim], window.after[dim]) =
                if a.auto_pad == "SAME_UPPER" { (small, large) } else { (large, small) };
            out[dim + 2] = target;
        } else {
            if a.auto_pad == "VALID" {
                (window.before[dim], window.after[dim]) = (0, 0);
            }
            let Some(rows) = full.checked_sub(window.before[dim] + window.after[dim]).filter(|n| *n > 0) else {
                return invalid("the padding is larger than the output");
            };
            out[dim + 2] = rows;
        }
    }
    let bias = call.optional(2);
    let b = &mut *call.b;
    let x = b.reshape(x, input)?;
    let w = b.reshape(w, lift(&weights))?;
    let plain = |of: &[usize], n: usize| of.iter().all(|x| *x == n);
    let patches = spatial == 2
        && a.window.kernel == a.window.strides
        && plain(&a.window.dilations, 1)
        && plain(&a.window.before, 0)
        && plain(&a.window.after, 0);
    let y = if patches && groups == 1 && plain(&extra, 0) && plain(&wish, 0) {
        patch_each(b, x, w, bias, &out)?
    } else {
        convolve_spread(b, x, w, bias, &a.window, groups, &out)?
    };
    Ok(vec![finish(b, y, a.one_dimensional)?])
}

/// Windows that do not overlap: a product gives every input pixel its patch, and patches are put side by side.
fn patch_each(b: &mut Builder, x: ValueId, w: ValueId, bias: Option<ValueId>, out: &[usize]) -> Result<ValueId> {
    let (&[n, c, ih, iw], &[channels, o, kh, kw]) = (b.shape(x), b.shape(w)) else {
        return invalid("input and weights need four dimensions");
    };
    if c != channels {
        return invalid(format!("{c} channels and weights for {channels}"));
    }
    let w = b.reshape(w, vec![c, o * kh * kw])?;
    let w = b.transpose(w, vec![1, 0])?;
    let x = b.reshape(x, vec![n, c, ih * iw])?;
    let mut y = b.one(Op::MatMul, &[w, x], None)?;
    if let Some(bias) = bias {
        let bias = b.reshape(bias, vec![o, 1])?;
        let bias = b.expand(bias, vec![o, kh * kw])?;
        let bias = b.reshape(bias, vec![o * kh * kw, 1])?;
        y = b.binary(BinaryOp::Add, y, bias)?;
    }
    let y = b.reshape(y, vec![n, o, kh, kw, ih, iw])?;
    let y = b.transpose(y, vec![0, 1, 4, 2, 5, 3])?;
    b.reshape(y, out.to_vec())
}

/// The general case: pixels spread by the stride with zeros between them, convolved with the mirrored window.
fn convolve_spread(
    b: &mut Builder,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
    window: &Spatial,
    groups: usize,
    out: &[usize],
) -> Result<ValueId> {
    let (input, weights) = (b.shape(x).to_vec(), b.shape(w).to_vec());
    let (n, c, per_group, spatial) = (input[0], input[1], weights[1], input.len() - 2);
    if weights.len() != input.len() || c != weights[0] || groups == 0 || c % groups != 0 {
        return invalid(format!("{c} channels, weights for {}, {groups} groups", weights[0]));
    }
    if spatial > 3 {
        return unsupported(format!("{spatial} spatial dimensions; up to three are supported"));
    }
    let zeros = crate::ir::PadMode::Constant(0.0);
    let mut x = x;
    if window.strides.iter().any(|s| *s != 1) {
        // Each pixel becomes the first of as many as the stride.
        let (mut single, mut spread, mut flat) = (vec![n * c], vec![n * c], vec![n, c]);
        for dim in 0..spatial {
            let (pixels, stride) = (input[dim + 2], window.strides[dim]);
            single.extend([pixels, 1]);
            spread.extend([pixels, stride]);
            flat.push(pixels * stride);
        }
        x = b.reshape(x, single)?;
        let op = Op::Pad { before: vec![0; spread.len()], mode: zeros };
        x = b.one(op, &[x], Some((DType::F32, spread)))?;
        x = b.reshape(x, flat)?;
    }
    // As long as the mirrored window needs to give every output; the zeros after the last pixel may be cut again.
    let (mut before, mut padded) = (vec![0; input.len()], input.clone());
    for dim in 0..spatial {
        let reach = window.reach(dim) - 1;
        before[dim + 2] = reach as isize - window.before[dim] as isize;
        padded[dim + 2] = out[dim + 2] + reach;
    }
    x = b.one(Op::Pad { before, mode: zeros }, &[x], Some((DType::F32, padded)))?;
    let kernel = &weights[2..];
    let w = b.reshape(w, [&[groups, c / groups, per_group], kernel].concat())?;
    let w = b.transpose(w, [0, 2, 1].into_iter().chain(3..3 + spatial).collect())?;
    let mut w = b.reshape(w, [&[groups * per_group, c / groups], kernel].concat())?;
    for dim in 0..spatial {
        w = mirror(b, w, dim + 2)?;
    }
    let zero = vec![0; spatial];
    let window = Spatial { strides: vec![1; spatial], before: zero.clone(), after: zero, ..window.clone() };
    convolve_all(b, x, w, bias, &window, groups)
}
