//! Reading an image between its pixels, at places that are computed: the pixels around each place are gathered as rows of
//! channels and weighed.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, Tensor, UnaryOp, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::compose::{bounded, clamp, cut, product, reduce};
use super::window::{MAX_UNROLLED, attributes};

/// Most pixels that are weighed for one place.
const MAX_TAPS: usize = 64;
/// Most samples of one dimension of a region's bin.
const MAX_SAMPLES: usize = 64;

/// One pixel beside a place, along one dimension: its index (f32, inside the image), its weight, whether it is there at all.
/// Each of a shape that broadcasts to `[batch, places]`.
struct Tap {
    index: ValueId,
    weight: Option<ValueId>,
    inside: Option<ValueId>,
}

/// What lies outside of the image.
#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Zeros,
    Border,
    /// Mirrored at the centres of the outermost pixels, or at their edges.
    Reflection {
        centres: bool,
    },
}

/// Mirrored between `low` and `high`: a triangle wave.
fn reflect(b: &mut Builder, x: ValueId, low: f64, high: f64) -> Result<ValueId> {
    let range = high - low;
    if range <= 0.0 {
        return clamp(b, x, low, low);
    }
    let y = b.with(BinaryOp::Sub, x, low)?;
    let y = b.unary(UnaryOp::Abs, y)?;
    let turns = b.with(BinaryOp::Div, y, 2.0 * range)?;
    let turns = b.unary(UnaryOp::Floor, turns)?;
    let turns = b.with(BinaryOp::Mul, turns, 2.0 * range)?;
    let y = b.binary(BinaryOp::Sub, y, turns)?;
    let y = b.with(BinaryOp::Sub, y, range)?;
    let y = b.unary(UnaryOp::Abs, y)?;
    let y = b.unary(UnaryOp::Neg, y)?;
    b.with(BinaryOp::Add, y, high)
}

impl Outside {
    fn reflect(self, b: &mut Builder, x: ValueId, extent: usize) -> Result<ValueId> {
        match self {
            Self::Zeros | Self::Border => Ok(x),
            Self::Reflection { centres: true } => reflect(b, x, 0.0, extent as f64 - 1.0),
            Self::Reflection { centres: false } => reflect(b, x, -0.5, extent as f64 - 0.5),
        }
    }

    /// The pixel at a whole-numbered index.
    fn tap(self, b: &mut Builder, index: ValueId, extent: usize, weight: Option<ValueId>) -> Result<Tap> {
        let last = extent as f64 - 1.0;
        let index = self.reflect(b, index, extent)?;
        let held = clamp(b, index, 0.0, last)?;
        let inside = if self == Self::Zeros { Some(b.binary(BinaryOp::Equal, held, index)?) } else { None };
        Ok(Tap { index: held, weight, inside })
    }
}

/// `((f₀ · x + f₁) · x + f₂) · x + f₃`
fn polynomial(b: &mut Builder, x: ValueId, factors: [f64; 4]) -> Result<ValueId> {
    let mut y = b.with(BinaryOp::Mul, x, factors[0])?;
    for factor in &factors[1..3] {
        y = b.with(BinaryOp::Add, y, *factor)?;
        y = b.binary(BinaryOp::Mul, y, x)?;
    }
    b.with(BinaryOp::Add, y, factors[3])
}

/// Keys' cubic (1981) with a = −0.75: weights of the four pixels around a place at `t` after the second.
fn cubic(b: &mut Builder, t: ValueId) -> Result<[ValueId; 4]> {
    const A: f64 = -0.75;
    const NEAR: [f64; 4] = [A + 2.0, -(A + 3.0), 0.0, 1.0];
    const FAR: [f64; 4] = [A, -5.0 * A, 8.0 * A, -4.0 * A];
    let back = b.unary(UnaryOp::Neg, t)?;
    let first = b.with(BinaryOp::Add, t, 1.0)?;
    let third = b.with(BinaryOp::Add, back, 1.0)?;
    let last = b.with(BinaryOp::Add, back, 2.0)?;
    Ok([polynomial(b, first, FAR)?, polynomial(b, t, NEAR)?, polynomial(b, third, NEAR)?, polynomial(b, last, FAR)?])
}

/// The two pixels around a place.
fn linear(b: &mut Builder, x: ValueId, extent: usize, outside: Outside) -> Result<Vec<Tap>> {
    let floor = b.unary(UnaryOp::Floor, x)?;
    let after = b.binary(BinaryOp::Sub, x, floor)?;
    let before = b.unary(UnaryOp::Neg, after)?;
    let before = b.with(BinaryOp::Add, before, 1.0)?;
    let next = b.with(BinaryOp::Add, floor, 1.0)?;
    Ok(vec![outside.tap(b, floor, extent, Some(before))?, outside.tap(b, next, extent, Some(after))?])
}

/// `x [n, c, extents..]` read at all combinations of the taps of each dimension, weighed: each `[batch, places, c]`. `first` is the
/// row of the flattened image where each batch's begins, `[batch, 1]` of [`rows_type`].
fn read(b: &mut Builder, x: ValueId, first: ValueId, axes: &[Vec<Tap>]) -> Result<Vec<ValueId>> {
    let shape = b.shape(x).to_vec();
    let (n, c, extents) = (shape[0], shape[1], shape[2..].to_vec());
    let pixels: usize = extents.iter().product();
    let kind = rows_type(n * pixels);
    let combinations: usize = axes.iter().map(Vec::len).product();
    if combinations > MAX_TAPS {
        return unsupported(format!("{combinations} pixels for one place"));
    }
    let flat = b.reshape(x, vec![n, c, pixels])?;
    let rows = b.transpose(flat, vec![0, 2, 1])?;
    let rows = b.reshape(rows, vec![n * pixels, c])?;
    let mut results = Vec::with_capacity(combinations);
    for combination in 0..combinations {
        let (mut rest, mut stride) = (combination, 1usize);
        let (mut index, mut weight, mut inside): (Option<ValueId>, Option<ValueId>, Option<ValueId>) =
            (None, None, None);
        for (taps, extent) in axes.iter().zip(&extents).rev() {
            let tap = &taps[rest % taps.len()];
            rest /= taps.len();
            let place = b.cast(tap.index, kind)?;
            let place = if stride == 1 { place } else { b.with(BinaryOp::Mul, place, stride as f64)? };
            stride *= extent;
            index = Some(both(b, BinaryOp::Add, index, Some(place))?);
            if weight.is_some() || tap.weight.is_some() {
                weight = Some(both(b, BinaryOp::Mul, weight, tap.weight)?);
            }
            if inside.is_some() || tap.inside.is_some() {
                inside = Some(both(b, BinaryOp::And, inside, tap.inside)?);
            }
        }
        let index = both(b, BinaryOp::Add, index, Some(first))?;
        let index = b.cast(index, DType::I64)?;
        let mut y = b.one(Op::Gather { axis: 0 }, &[rows, index], None)?;
        let beside = |b: &mut Builder, v: ValueId| {
            let shape = [b.shape(v), &[1]].concat();
            b.reshape(v, shape)
        };
        if let Some(inside) = inside {
            let (inside, zero) = (beside(b, inside)?, b.scalar(DType::F32, 0.0));
            y = b.select(inside, y, zero)?;
        }
        if let Some(weight) = weight {
            let weight = beside(b, weight)?;
            y = b.binary(BinaryOp::Mul, y, weight)?;
        }
        results.push(y);
    }
    Ok(results)
}

/// `a op c`, or the one that is there.
fn both(b: &mut Builder, op: BinaryOp, a: Option<ValueId>, c: Option<ValueId>) -> Result<ValueId> {
    match (a, c) {
        (Some(a), Some(c)) => b.binary(op, a, c),
        (Some(a), None) | (None, Some(a)) => Ok(a),
        (None, None) => invalid("an image without dimensions"),
    }
}

/// All of them with one operation.
fn fold(b: &mut Builder, op: BinaryOp, values: Vec<ValueId>) -> Result<ValueId> {
    let mut values = values.into_iter();
    let Some(mut sum) = values.next() else { return invalid("an image without dimensions") };
    for value in values {
        sum = b.binary(op, sum, value)?;
    }
    Ok(sum)
}

/// Numbers of so many rows are computed in f32 where it holds them exactly.
const fn rows_type(rows: usize) -> DType {
    if rows < 1 << 24 { DType::F32 } else { DType::I64 }
}

/// Where the images of a batch begin: `[n, 1]`.
fn starts(b: &mut Builder, n: usize, pixels: usize) -> Result<ValueId> {
    let data = (0..n as i64).map(|i| i * pixels as i64).collect();
    let starts = b.constant(Tensor::int(DType::I64, vec![n, 1], data));
    b.cast(starts, rows_type(n * pixels))
}

/// `[batch, places, c] → [batch, c, out..]`
fn planes(b: &mut Builder, y: ValueId, out: &[usize]) -> Result<ValueId> {
    let y = b.transpose(y, vec![0, 2, 1])?;
    let lead = b.shape(y)[..2].to_vec();
    b.reshape(y, [&lead, out].concat())
}

/// ONNX's `GridSample` over any number of dimensions; the grid's last dimension counts from the innermost one.
pub(super) fn grid_sample(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, grid) = (call.input(0)?, call.input(1)?);
    let corners = call.flag("align_corners", false);
    let mode = call.text("mode", if call.opset < 20 { "bilinear" } else { "linear" });
    let outside = match call.text("padding_mode", "zeros").as_str() {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection { centres: corners },
        other => return invalid(format!("padding_mode {other:?}")),
    };
    let b = &mut *call.b;
    let (shape, places) = (b.shape(x).to_vec(), b.shape(grid).to_vec());
    let Some(dims) = shape.len().checked_sub(2).filter(|d| *d > 0 && places.len() == shape.len()) else {
        return invalid(format!("an image of shape {shape:?} and a grid of {places:?}"));
    };
    if places[0] != shape[0] || places[dims + 1] != dims || shape.contains(&0) {
        return invalid(format!("an image of shape {shape:?} and a grid of {places:?}"));
    }
    let out = places[1..=dims].to_vec();
    let total: usize = out.iter().product();
    let mut axes = Vec::with_capacity(dims);
    for (d, &extent) in shape[2..].iter().enumerate() {
        let g = cut(b, grid, dims + 1, dims - 1 - d, 1, 1)?;
        let g = b.reshape(g, vec![shape[0], total])?;
        let g = b.with(BinaryOp::Add, g, 1.0)?;
        let at = if corners {
            b.with(BinaryOp::Mul, g, (extent as f64 - 1.0) / 2.0)?
        } else {
            let y = b.with(BinaryOp::Mul, g, extent as f64)?;
            let y = b.with(BinaryOp::Sub, y, 1.0)?;
            b.with(BinaryOp::Mul, y, 0.5)?
        };
        let at = if mode == "nearest" { b.unary(UnaryOp::Round, at)? } else { at };
        // A cubic looks at the border pixel by pixel, as PyTorch and ONNX Runtime do: a place beside it has taps inside.
        let at = match outside {
            Outside::Zeros => at,
            Outside::Border if mode.ends_with("cubic") => at,
            Outside::Border => clamp(b, at, 0.0, extent as f64 - 1.0)?,
            Outside::Reflection { .. } => outside.reflect(b, at, extent)?,
        };
        axes.push(match mode.as_str() {
            "nearest" => {
                // Mirroring at edges is exact for whole numbers but for its own rounding.
                let at = b.unary(UnaryOp::Round, at)?;
                vec![outside.tap(b, at, extent, None)?]
            }
            "linear" | "bilinear" => linear(b, at, extent, outside)?,
            "cubic" | "bicubic" => {
                let floor = b.unary(UnaryOp::Floor, at)?;
                let t = b.binary(BinaryOp::Sub, at, floor)?;
                let mut taps = Vec::with_capacity(4);
                for (i, weight) in cubic(b, t)?.into_iter().enumerate() {
                    let index = b.with(BinaryOp::Add, floor, i as f64 - 1.0)?;
                    taps.push(outside.tap(b, index, extent, Some(weight))?);
                }
                taps
            }
            other => return invalid(format!("mode {other:?}")),
        });
    }
    let first = starts(b, shape[0], shape[2..].iter().product())?;
    let read = read(b, x, first, &axes)?;
    let y = fold(b, BinaryOp::Add, read)?;
    Ok(vec![planes(b, y, &out)?])
}

/// Where the pixels of an image of a known size lie after an affine map: `[n, size.., dimensions]`.
pub(super) fn affine_grid(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let theta = call.input(0)?;
    let Some(size) = call.known_ints(1)? else { return invalid("input 1 is missing") };
    let size = size.into_iter().map(extent).collect::<Result<Vec<_>>>()?;
    let corners = call.flag("align_corners", false);
    let [n, _, spatial @ ..] = &size[..] else { return invalid(format!("size {size:?}")) };
    let dims = spatial.len();
    if !(2..=3).contains(&dims) || call.b.shape(theta) != [*n, dims, dims + 1] {
        return invalid(format!("size {size:?} and maps of shape {:?}", call.b.shape(theta)));
    }
    let total = crate::shape::elements(spatial)?;
    bounded(total.saturating_mul(dims + 1))?;
    // Rows of (x, y, (z,) 1).
    let mut places = Vec::with_capacity(total * (dims + 1));
    for i in 0..total {
        let mut rest = i;
        for &extent in spatial.iter().rev() {
            let at = (rest % extent) as f64;
            rest /= extent;
            let steps = if corners { extent as f64 - 1.0 } else { extent as f64 };
            let first = if corners { -1.0 } else { -1.0 + 1.0 / steps };
            places.push((if at == 0.0 { first } else { first + at * 2.0 / steps }) as f32);
        }
        places.push(1.0);
    }
    let b = &mut *call.b;
    let places = b.constant(Tensor::f32(vec![total, dims + 1], places));
    let turned = b.transpose(theta, vec![0, 2, 1])?;
    let y = product(b, places, turned)?;
    Ok(vec![b.reshape(y, [&[*n], spatial, &[dims]].concat())?])
}

/// ONNX's `RoiAlign`: each bin of each region is the mean (or the largest weighed pixel) of samples spread over it.
pub(super) fn roi_align(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [x, rois, batch] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let (oh, ow) = (extent(call.int("output_height", 1))?, extent(call.int("output_width", 1))?);
    let ratio = extent(call.int("sampling_ratio", 0))?;
    let scale = call.float("spatial_scale", 1.0);
    let default = if call.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let half_pixel = match call.text("coordinate_transformation_mode", default).as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return invalid(format!("coordinate_transformation_mode {other:?}")),
    };
    let largest = match call.text("mode", "avg").to_lowercase().as_str() {
        "avg" => false,
        "max" => true,
        other => return invalid(format!("mode {other:?}")),
    };
    if ratio == 0 && call.b.known(rois).is_none() {
        return unsupported("sampling_ratio 0 with regions that are computed; export with a fixed sampling_ratio");
    }
    let b = &mut *call.b;
    let (&[n, c, h, w], &[regions, 4]) = (b.shape(x), b.shape(rois)) else {
        return invalid("an image needs four dimensions, regions four numbers");
    };
    if b.shape(batch) != [regions] || n * h * w == 0 || oh * ow == 0 {
        return invalid("as many images' numbers as regions are needed");
    }
    let scaled = b.with(BinaryOp::Mul, rois, scale)?;
    let scaled = b.with(BinaryOp::Sub, scaled, if half_pixel { 0.5 } else { 0.0 })?;
    // Along one dimension: taps of every sample [regions, bins · samples], how many samples a bin has [regions, 1], and the most.
    let mut along = |low: usize, bins: usize, extent: usize| -> Result<(Vec<ValueId>, ValueId, usize)> {
        let start = cut(b, scaled, 1, low, 1, 1)?;
        let end = cut(b, scaled, 1, low + 2, 1, 1)?;
        let mut size = b.binary(BinaryOp::Sub, end, start)?;
        if !half_pixel {
            size = b.with(BinaryOp::Max, size, 1.0)?;
        }
        let bin = b.with(BinaryOp::Div, size, bins as f64)?;
        let samples = if ratio > 0 { b.scalar(DType::F32, ratio as f64) } else { b.unary(UnaryOp::Ceil, bin)? };
        let most = match b.known(samples) {
            Some(t) => t.floats().iter().copied().fold(0.0, f32::max),
            None => 0.0,
        };
        if most > MAX_SAMPLES as f32 {
            return unsupported(format!("bins of {most} samples"));
        }
        let most = (most as usize).max(1);
        let held = b.with(BinaryOp::Max, samples, 1.0)?;
        // start + bin · (p + (i + ½) ÷ samples)
        let numbers = |f: &dyn Fn(usize) -> f32| Tensor::f32(vec![1, bins * most], (0..bins * most).map(f).collect());
        let which = b.constant(numbers(&|i| (i / most) as f32));
        let inner = b.constant(numbers(&|i| (i % most) as f32 + 0.5));
        let inner = b.binary(BinaryOp::Div, inner, held)?;
        let at = b.binary(BinaryOp::Add, inner, which)?;
        let at = b.binary(BinaryOp::Mul, at, bin)?;
        let at = b.binary(BinaryOp::Add, at, start)?;
        // Samples beyond the image weigh nothing; those beside it are held at its edge.
        let low = b.scalar(DType::F32, -1.0);
        let after = b.binary(BinaryOp::LessOrEqual, low, at)?;
        let before = b.with(BinaryOp::LessOrEqual, at, extent as f64)?;
        let mut valid = b.binary(BinaryOp::And, after, before)?;
        if ratio == 0 {
            let number = b.constant(numbers(&|i| (i % most) as f32));
            let counted = b.binary(BinaryOp::Less, number, samples)?;
            valid = b.binary(BinaryOp::And, valid, counted)?;
        }
        let held_at = clamp(b, at, 0.0, extent as f64 - 1.0)?;
        let full = vec![regions, bins * most];
        Ok((vec![b.expand(held_at, full.clone())?, b.expand(valid, full)?], samples, most))
    };
    let (rows, row_samples, row_most) = along(1, oh, h)?;
    let (cols, col_samples, col_most) = along(0, ow, w)?;
    let (tall, wide) = (oh * row_most, ow * col_most);
    bounded(regions.saturating_mul(tall).saturating_mul(wide).saturating_mul(c))?;
    // Every row with every column.
    let mut spread = |v: ValueId, row: bool| {
        let v = b.reshape(v, if row { vec![regions, tall, 1] } else { vec![regions, 1, wide] })?;
        let v = b.expand(v, vec![regions, tall, wide])?;
        b.reshape(v, vec![regions, tall * wide])
    };
    let (y, x_at) = (spread(rows[0], true)?, spread(cols[0], false)?);
    let (y_valid, x_valid) = (spread(rows[1], true)?, spread(cols[1], false)?);
    let valid = b.binary(BinaryOp::And, y_valid, x_valid)?;
    let axes = [linear(b, y, h, Outside::Border)?, linear(b, x_at, w, Outside::Border)?];
    let first = b.cast(batch, rows_type(n * h * w))?;
    let first = b.with(BinaryOp::Mul, first, (h * w) as f64)?;
    let first = b.reshape(first, vec![regions, 1])?;
    let read = read(b, x, first, &axes)?;
    let y = fold(b, if largest { BinaryOp::Max } else { BinaryOp::Add }, read)?;
    let valid = b.reshape(valid, vec![regions, tall * wide, 1])?;
    let zero = b.scalar(DType::F32, 0.0);
    let y = b.select(valid, y, zero)?;
    let y = b.reshape(y, vec![regions, oh, row_most, ow, col_most * c])?;
    let kind = if largest { ReduceKind::Max } else { ReduceKind::Sum };
    let y = reduce(b, kind, y, &[2])?;
    let y = b.reshape(y, vec![regions, oh * ow, col_most, c])?;
    let y = reduce(b, kind, y, &[2])?;
    let mut y = b.reshape(y, vec![regions, oh * ow, c])?;
    if !largest {
        let samples = b.binary(BinaryOp::Mul, row_samples, col_samples)?;
        let samples = b.with(BinaryOp::Max, samples, 1.0)?;
        let samples = b.expand(samples, vec![regions, 1])?;
        let samples = b.reshape(samples, vec![regions, 1, 1])?;
        y = b.binary(BinaryOp::Div, y, samples)?;
    }
    Ok(vec![planes(b, y, &[oh, ow])?])
}

/// ONNX's `DeformConv` over two dimensions: a convolution whose window's positions are moved by computed offsets.
pub(super) fn deform_conv(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [x, weights, offsets] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let (bias, mask) = (call.optional(3), call.optional(4));
    let (shape, kernel) = (call.shape(0)?, call.shape(1)?);
    let (&[n, c, h, w], &[planes_out, per_group, kh, kw]) = (&shape[..], &kernel[..]) else {
        return unsupported(format!("an image of shape {shape:?}; two spatial dimensions are supported"));
    };
    let window = attributes(call, &shape, Some(&kernel[2..]))?.window;
    let (groups, shared) = (extent(call.int("group", 1))?, extent(call.int("offset_group", 1))?);
    let b = &mut *call.b;
    let &[_, _, oh, ow] = b.shape(offsets) else { return invalid("offsets need four dimensions") };
    let taps = kh * kw;
    let fits = groups > 0
        && shared > 0
        && c == per_group * groups
        && planes_out % groups == 0
        && c % shared == 0
        && b.shape(offsets)[..2] == [n, shared * taps * 2]
        && window.extent(h, 0) == Some(oh)
        && window.extent(w, 1) == Some(ow)
        && mask.is_none_or(|m| b.shape(m) == [n, shared * taps, oh, ow]);
    if !fits || taps > MAX_UNROLLED {
        return invalid(format!("an image of {shape:?}, weights {kernel:?}, offsets {:?}", b.shape(offsets)));
    }
    bounded(taps.saturating_mul(oh).saturating_mul(ow))?;
    // Where each position of the window lies before it is moved: [1, taps · oh · ow].
    let offsets = b.reshape(offsets, vec![n * shared, taps, 2, oh * ow])?;
    let mut axes = Vec::with_capacity(2);
    for (dim, extent) in [h, w].into_iter().enumerate() {
        let places = (0..taps * oh * ow).map(|i| {
            let (tap, place) = (i / (oh * ow), i % (oh * ow));
            let (k, o) = if dim == 0 { (tap / kw, place / ow) } else { (tap % kw, place % ow) };
            (o * window.strides[dim] + k * window.dilations[dim]) as f32 - window.before[dim] as f32
        });
        let places = b.constant(Tensor::f32(vec![1, taps * oh * ow], places.collect()));
        let moved = cut(b, offsets, 2, dim, 1, 1)?;
        let moved = b.reshape(moved, vec![n * shared, taps * oh * ow])?;
        let at = b.binary(BinaryOp::Add, moved, places)?;
        axes.push(linear(b, at, extent, Outside::Zeros)?);
    }
    let image = b.reshape(x, vec![n * shared, c / shared, h, w])?;
    let first = starts(b, n * shared, h * w)?;
    let read = read(b, image, first, &axes)?;
    // [n · shared, taps · places, channels]
    let mut y = fold(b, BinaryOp::Add, read)?;
    if let Some(mask) = mask {
        let mask = b.reshape(mask, vec![n * shared, taps * oh * ow, 1])?;
        y = b.binary(BinaryOp::Mul, y, mask)?;
    }
    let y = b.transpose(y, vec![0, 2, 1])?;
    let y = b.reshape(y, vec![n * groups, per_group * taps, oh * ow])?;
    let mut weights = b.reshape(weights, vec![groups, planes_out / groups, per_group * taps])?;
    if n > 1 {
        weights = b.expand(weights, vec![n, groups, planes_out / groups, per_group * taps])?;
        weights = b.reshape(weights, vec![n * groups, planes_out / groups, per_group * taps])?;
    }
    let y = product(b, weights, y)?;
    let y = b.reshape(y, vec![n, planes_out, oh, ow])?;
    Ok(vec![match bias {
        Some(bias) => {
            let bias = b.along(bias, 1, 4)?;
            b.binary(BinaryOp::Add, y, bias)?
        }
        None => y,
    }])
}
