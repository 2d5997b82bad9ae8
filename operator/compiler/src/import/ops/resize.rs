//! Resizing: every mode is a table of taps per axis.

use crate::ir::{DType, Op, Tensor, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent, resolve_axis};

#[derive(Clone)]
struct Mode {
    interpolation: String,
    coordinates: String,
    rounding: String,
    cubic: f64,
    exclude_outside: bool,
    extrapolation: f64,
    antialias: bool,
}

/// Most taps that the steps of a plan for resampling take.
const MAX_RESAMPLED: usize = 4;
/// Most pixels that one output is made of.
const MAX_TAPS: usize = 4096;
/// Beyond this a position is outside of every axis, and neighbours of it are still numbers.
const FAR: f64 = (1u64 << 40) as f64;

/// Where output position `o` lies on the input's axis.
fn position(mode: &Mode, o: usize, input: usize, output: usize, scale: f64, region: (f64, f64)) -> Result<f64> {
    let (o, input_f, output_f) = (o as f64, input as f64, output as f64);
    Ok(match mode.coordinates.as_str() {
        "half_pixel" => (o + 0.5) / scale - 0.5,
        "pytorch_half_pixel" => {
            if output > 1 {
                (o + 0.5) / scale - 0.5
            } else {
                0.0
            }
        }
        "half_pixel_symmetric" => {
            let adjustment = output_f / (input_f * scale);
            let offset = input_f / 2.0 * (1.0 - adjustment);
            offset + (o + 0.5) / scale - 0.5
        }
        "asymmetric" => o / scale,
        "align_corners" => {
            // The wished length may be a fraction that the output's extent cuts: the definition, and ONNX's cases, take it as it is
            // (ONNX Runtime takes the extent).
            let wished = input_f * scale;
            if wished == 1.0 || output == 1 { 0.0 } else { o * (input_f - 1.0) / (wished - 1.0) }
        }
        "tf_crop_and_resize" => {
            let (start, end) = region;
            if output > 1 {
                start * (input_f - 1.0) + o * (end - start) * (input_f - 1.0) / (output_f - 1.0)
            } else {
                0.5 * (start + end) * (input_f - 1.0)
            }
        }
        other => return unsupported(format!("coordinate_transformation_mode {other:?}")),
    })
}

/// The weights of a cubic at `t` between the second and the third of four samples (Keys 1981).
fn cubic(t: f64, a: f64) -> [f64; 4] {
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// Keys' cubic at a distance.
fn cubic_at(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Taps of a filter that is stretched where the image shrinks, so that every pixel counts.
fn wide_taps(mode: &Mode, x: f64, scale: f64) -> Result<Vec<(i64, f64)>> {
    let floor = x.floor();
    let scale = scale.min(1.0);
    let half = match mode.interpolation.as_str() {
        "linear" => 1.0,
        "cubic" => 2.0,
        other => return invalid(format!("antialias with mode {other:?}")),
    };
    let before = (-half / scale).floor() + 1.0;
    let count = 2.0 - 2.0 * before;
    if count.is_nan() || count > MAX_TAPS as f64 {
        return unsupported(format!("antialias at a scale of {scale}"));
    }
    let mut taps: Vec<(i64, f64)> = (0..count as i64)
        .map(|i| {
            let place = floor + before + i as f64;
            let distance = (place - x) * scale;
            let weight = if half == 1.0 { (1.0 - distance.abs()).max(0.0) } else { cubic_at(distance, mode.cubic) };
            (place as i64, weight)
        })
        .collect();
    let sum: f64 = taps.iter().map(|(_, w)| w).sum();
    taps.iter_mut().for_each(|(_, w)| *w /= sum);
    Ok(taps)
}

/// Taps of one output position: places, which may lie outside, and weights.
fn taps(mode: &Mode, x: f64, scale: f64) -> Result<Vec<(i64, f64)>> {
    if mode.antialias && mode.interpolation != "nearest" {
        return wide_taps(mode, x, scale);
    }
    let floor = x.floor();
    Ok(match mode.interpolation.as_str() {
        "nearest" => {
            let place = match mode.rounding.as_str() {
                "round_prefer_floor" => (x - 0.5).ceil(),
                "round_prefer_ceil" => (x + 0.5).floor(),
                "floor" => floor,
                "ceil" => x.ceil(),
                other => return unsupported(format!("nearest_mode {other:?}")),
            };
            vec![(place as i64, 1.0)]
        }
        "linear" => vec![(floor as i64, 1.0 - (x - floor)), (floor as i64 + 1, x - floor)],
        "cubic" => {
            cubic(x - floor, mode.cubic).iter().enumerate().map(|(i, w)| (floor as i64 - 1 + i as i64, *w)).collect()
        }
        other => return unsupported(format!("mode {other:?}")),
    })
}

/// Many taps for each output are a product with a matrix.
fn weigh_all(
    b: &mut Builder,
    x: ValueId,
    axis: usize,
    output: usize,
    indices: &[u32],
    weights: &[f32],
) -> Result<ValueId> {
    let shape = b.shape(x).to_vec();
    let (input, taps) = (shape[axis], indices.len() / output.max(1));
    super::compose::bounded(input.saturating_mul(output))?;
    let mut matrix = vec![0.0; output * input];
    for (i, (index, weight)) in indices.iter().zip(weights).enumerate() {
        matrix[i / taps.max(1) * input + *index as usize] += weight;
    }
    let matrix = b.constant(Tensor::f32(vec![output, input], matrix));
    let inner: usize = shape[axis + 1..].iter().product();
    let x = b.reshape(x, vec![shape[..axis].iter().product(), input, inner])?;
    let y = super::compose::product(b, matrix, x)?;
    let mut out = shape;
    out[axis] = output;
    b.reshape(y, out)
}

fn along(
    call: &mut Call<'_, '_>,
    x: ValueId,
    axis: usize,
    output: usize,
    scale: f64,
    region: (f64, f64),
    mode: &Mode,
) -> Result<ValueId> {
    let input = call.b.shape(x)[axis];
    if input == 0 || output == 0 || output > 1 << 20 {
        return invalid(format!("an axis of {input} resized to {output}"));
    }
    let last = input as i64 - 1;
    let (mut indices, mut weights, mut count) = (Vec::new(), Vec::new(), 1);
    let mut outside = vec![0; output];
    for (o, outside) in outside.iter_mut().enumerate() {
        let at = position(mode, o, input, output, scale, region)?.clamp(-FAR, FAR);
        *outside = i64::from(mode.coordinates == "tf_crop_and_resize" && !(0.0..=last as f64).contains(&at));
        let mut taps = taps(mode, at, scale)?;
        super::compose::bounded(output.saturating_mul(taps.len()))?;
        if mode.exclude_outside {
            taps.iter_mut().filter(|(i, _)| !(0..=last).contains(i)).for_each(|(_, w)| *w = 0.0);
            let sum: f64 = taps.iter().map(|(_, w)| w).sum();
            taps.iter_mut().for_each(|(_, w)| *w /= sum);
        }
        count = taps.len();
        for (place, weight) in taps {
            indices.push(place.clamp(0, last) as u32);
            weights.push(weight as f32);
        }
    }
    let y = if count > MAX_RESAMPLED {
        weigh_all(call.b, x, axis, output, &indices, &weights)?
    } else {
        call.b.one(Op::Resample { axis, taps: count, indices, weights }, &[x], None)?
    };
    if outside.iter().all(|o| *o == 0) {
        return Ok(y);
    }
    // A crop that reaches beyond the image is filled there.
    let outside = call.b.constant(Tensor::int(DType::Bool, vec![output], outside));
    let outside = call.b.along(outside, axis, call.b.rank(y))?;
    let fill = call.b.scalar(call.b.dtype(y), mode.extrapolation);
    call.b.select(outside, fill, y)
}

pub(super) fn resize(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    // Operator set 10 has (X, scales); 11 and later (X, roi, scales, sizes).
    let (scales, sizes) =
        if call.opset < 11 { (call.known_floats(1)?, None) } else { (call.known_floats(2)?, call.known_ints(3)?) };
    let default = if call.opset < 11 { "asymmetric" } else { "half_pixel" };
    let rounding = if call.opset < 11 { "simple" } else { "round_prefer_floor" };
    let mode = Mode {
        interpolation: call.text("mode", "nearest"),
        coordinates: call.text("coordinate_transformation_mode", default),
        rounding: call.text("nearest_mode", rounding),
        cubic: call.float("cubic_coeff_a", -0.75),
        exclude_outside: call.flag("exclude_outside", false),
        extrapolation: call.float("extrapolation_value", 0.0),
        antialias: call.flag("antialias", false),
    };
    run(call, scales.filter(|s| !s.is_empty()), sizes.filter(|s| !s.is_empty()), &mode)
}

pub(super) fn upsample(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let scales = match call.floats("scales") {
        Some(scales) => Some(scales.to_vec()),
        None => call.known_floats(1)?,
    };
    let mode = Mode {
        interpolation: call.text("mode", "nearest"),
        coordinates: "asymmetric".to_owned(),
        rounding: "floor".to_owned(),
        cubic: -0.75,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
    };
    run(call, scales, None, &mode)
}

fn run(
    call: &mut Call<'_, '_>,
    scales: Option<Vec<f32>>,
    sizes: Option<Vec<i64>>,
    mode: &Mode,
) -> Result<Vec<ValueId>> {
    let mut x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|a| resolve_axis(*a, shape.len())).collect::<Result<Vec<_>>>()?,
        None => (0..shape.len()).collect(),
    };
    let given = scales.as_ref().map_or_else(|| sizes.as_ref().map_or(0, Vec::len), Vec::len);
    if given != axes.len() {
        return invalid(format!("{given} scales or sizes for {} dimensions", axes.len()));
    }
    let region =
        if mode.coordinates == "tf_crop_and_resize" { call.known_floats(1)?.unwrap_or_default() } else { Vec::new() };
    // One scale for all axes where the aspect ratio is kept.
    let ratios = |sizes: &[i64]| axes.iter().zip(sizes).map(|(a, s)| *s as f64 / shape[*a] as f64).collect::<Vec<_>>();
    let policy = call.text("keep_aspect_ratio_policy", "stretch");
    if !matches!(policy.as_str(), "stretch" | "not_larger" | "not_smaller") {
        return invalid(format!("keep_aspect_ratio_policy {policy:?}"));
    }
    let kept = match (policy.as_str(), &sizes) {
        ("not_larger", Some(sizes)) => Some(ratios(sizes).into_iter().fold(f64::INFINITY, f64::min)),
        ("not_smaller", Some(sizes)) => Some(ratios(sizes).into_iter().fold(0.0, f64::max)),
        _ => None,
    };
    let dtype = call.b.dtype(x);
    if dtype != DType::F32 && mode.interpolation != "nearest" {
        x = call.b.cast(x, DType::F32)?;
    }
    for (i, axis) in axes.iter().enumerate() {
        let input = shape[*axis];
        let span = match (region.get(i), region.get(i + axes.len())) {
            (Some(start), Some(end)) => (f64::from(*start), f64::from(*end)),
            _ => (0.0, 1.0),
        };
        let (output, scale) = match (&scales, &sizes, kept) {
            (Some(scales), ..) => {
                let scale = f64::from(scales[i]);
                let cut = if mode.coordinates == "tf_crop_and_resize" { span.1 - span.0 } else { 1.0 };
                (extent((input as f64 * cut * scale).floor() as i64)?, scale)
            }
            (None, Some(_), Some(scale)) => (extent((input as f64 * scale).round() as i64)?, scale),
            (None, Some(sizes), None) => {
                let output = extent(sizes[i])?;
                (output, output as f64 / input as f64)
            }
            (None, None, _) => return invalid("neither scales nor sizes"),
        };
        if scale.is_nan() || scale <= 0.0 {
            return invalid(format!("a scale of {scale}"));
        }
        // Operator set 10 rounds by direction.
        let simple = if scale < 1.0 { "ceil" } else { "floor" };
        let directed = (mode.rounding == "simple").then(|| Mode { rounding: simple.to_owned(), ..mode.clone() });
        let mode = directed.as_ref().unwrap_or(mode);
        if output != input || scale != 1.0 || mode.coordinates == "tf_crop_and_resize" {
            x = along(call, x, *axis, output, scale, span, mode)?;
        }
    }
    Ok(vec![if dtype == DType::F32 || mode.interpolation == "nearest" { x } else { call.b.cast(x, dtype)? }])
}
