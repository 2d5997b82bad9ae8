//! Fourier transforms of signals and of their frames; windows and mel filters.

use crate::ir::{BinaryOp, DType, Op, Tensor, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::super::tensor;
use super::compose::{bounded, cut, join, pad_along};
use super::fourier::{self, Complex};
use super::layout::number;

/// Longest transform.
const MAX_LENGTH: usize = 1 << 18;

/// A scalar that must be known.
fn scalar(call: &Call<'_, '_>, i: usize) -> Result<Option<f64>> {
    Ok(call.known(i)?.and_then(|t| number(&t)))
}

/// ONNX's `DFT`, of operator sets 17 (`axis` is an attribute) and 20 (an input).
pub(super) fn dft(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let axis = if call.opset < 20 { call.int("axis", 1) } else { scalar(call, 2)?.map_or(-2, |a| a as i64) };
    let axis = call.axis(axis, shape.len())?;
    let (inverse, onesided) = (call.flag("inverse", false), call.flag("onesided", false));
    let given = scalar(call, 1)?;
    let Some((&parts, lead)) = shape.split_last() else { return invalid("a signal without dimensions") };
    if axis >= lead.len() || !(1..=2).contains(&parts) || shape.contains(&0) {
        return invalid(format!("axis {axis} of a signal of shape {shape:?}"));
    }
    if onesided && inverse == (parts == 1) {
        return invalid("one-sided transforms are of real signals, one-sided inverse ones of complex spectra");
    }
    let default = if inverse && onesided { 2 * lead[axis].saturating_sub(1) } else { lead[axis] };
    let n = given.map_or(Ok(default), |n| extent(n as i64))?;
    if n == 0 || n > MAX_LENGTH {
        return unsupported(format!("a transform of {n}; 1 to {MAX_LENGTH} are supported"));
    }
    let b = &mut *call.b;
    // The parts stand first, then the axis.
    let rank = shape.len();
    let perm: Vec<usize> = [rank - 1, axis].into_iter().chain((0..rank - 1).filter(|d| *d != axis)).collect();
    let x = b.transpose(x, perm.clone())?;
    let wanted = if inverse && onesided { n / 2 + 1 } else { n };
    let x = pad_along(b, x, 1, (0, wanted as isize - lead[axis] as isize), 0.0)?;
    let others: Vec<usize> = b.shape(x)[2..].to_vec();
    let rows = others.iter().product();
    let x = b.reshape(x, vec![parts, wanted, rows])?;
    let y = if inverse && onesided {
        let x = complex(b, x)?;
        let y = fourier::to_real(b, x, n)?;
        b.reshape(y, vec![1, n, rows])?
    } else if inverse {
        let x = complex(b, x)?;
        let y = fourier::transform(b, x, 1.0)?.scale(b, 1.0 / n as f64)?;
        stacked(b, y)?
    } else {
        let y = spectrum(b, x, onesided)?;
        stacked(b, y)?
    };
    let out = b.shape(y)[..2].to_vec();
    let y = b.reshape(y, [out, others].concat())?;
    let mut back = vec![0; rank];
    perm.iter().enumerate().for_each(|(i, p)| back[*p] = i);
    Ok(vec![b.transpose(y, back)?])
}

/// `[parts, n, rows]` as real and imaginary parts, `[n, rows]` each; a real signal's imaginary part is zero.
fn complex(b: &mut Builder, x: ValueId) -> Result<Complex> {
    let &[parts, n, rows] = b.shape(x) else { return invalid("a transform of another rank") };
    let mut part = |at| {
        let part = cut(b, x, 0, at, 1, 1)?;
        b.reshape(part, vec![n, rows])
    };
    let re = part(0)?;
    let im = if parts == 2 { part(1)? } else { fourier::zeros(b, re)? };
    Ok(Complex { re, im })
}

/// `[2, n, rows]`
fn stacked(b: &mut Builder, y: Complex) -> Result<ValueId> {
    let y = y.map(b, |b, y| {
        let shape = [&[1], b.shape(y)].concat();
        b.reshape(y, shape)
    })?;
    join(b, &[y.re, y.im], 0)
}

/// The transform of `[parts, n, rows]`; of a real signal the first half or all.
fn spectrum(b: &mut Builder, x: ValueId, onesided: bool) -> Result<Complex> {
    let &[parts, n, rows] = b.shape(x) else { return invalid("a transform of another rank") };
    if parts == 2 {
        let x = complex(b, x)?;
        return fourier::transform(b, x, -1.0);
    }
    let x = b.reshape(x, vec![n, rows])?;
    let half = fourier::of_real(b, x)?;
    if onesided { Ok(half) } else { fourier::whole(b, half, n) }
}

/// ONNX's `STFT`: windows cut from the signal, each one transformed.
pub(super) fn stft(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let window = call.optional(2);
    let &[n, length, parts] = call.b.shape(x) else { return invalid("a signal needs three dimensions") };
    let Some(step) = scalar(call, 1)? else { return invalid("frame_step is missing") };
    let step = extent(step as i64)?;
    let onesided = call.flag("onesided", true);
    let frame = match (scalar(call, 3)?, window) {
        (Some(frame), _) => extent(frame as i64)?,
        (None, Some(window)) => call.b.graph.value(window).len(),
        (None, None) => length,
    };
    if step == 0 || frame == 0 || frame > length || !(1..=2).contains(&parts) || onesided && parts == 2 {
        return invalid(format!("frames of {frame} by {step} of a signal of {length} with {parts} parts"));
    }
    if frame > MAX_LENGTH {
        return unsupported(format!("frames of {frame}"));
    }
    let b = &mut *call.b;
    if window.is_some_and(|w| b.shape(w) != [frame]) {
        return invalid(format!("a window that has not {frame} elements"));
    }
    let frames = (length - frame) / step + 1;
    bounded(frames.saturating_mul(frame))?;
    // Element i of every frame side by side: the transform runs along the first dimension.
    let places = (0..frame).flat_map(|i| (0..frames).map(move |f| (f * step + i) as i64)).collect();
    let places = b.constant(Tensor::int(DType::I64, vec![frame, frames], places));
    let mut y = b.one(Op::Gather { axis: 1 }, &[x, places], None)?;
    if let Some(window) = window {
        let window = b.reshape(window, vec![frame, 1, 1])?;
        y = b.binary(BinaryOp::Mul, y, window)?;
    }
    let y = b.transpose(y, vec![3, 1, 0, 2])?;
    let y = b.reshape(y, vec![parts, frame, n * frames])?;
    let y = spectrum(b, y, onesided)?;
    let y = stacked(b, y)?;
    let out = b.shape(y)[1];
    let y = b.reshape(y, vec![2, out, n, frames])?;
    Ok(vec![b.transpose(y, vec![2, 3, 1, 0])?])
}

/// A table of the attribute's type.
fn typed(call: &mut Call<'_, '_>, shape: Vec<usize>, data: Vec<f32>) -> Result<Vec<ValueId>> {
    let Some(dtype) = tensor::dtype(call.int("output_datatype", 1) as i32) else {
        return unsupported("output_datatype");
    };
    let table = call.b.constant(Tensor::f32(shape, data));
    Ok(vec![call.b.cast(table, dtype)?])
}

/// `a₀ − a₁ · cos(2πi ÷ n) + a₂ · cos(4πi ÷ n)`; not periodic, the last element is the first again.
pub(super) fn window(call: &mut Call<'_, '_>, factors: [f64; 3]) -> Result<Vec<ValueId>> {
    let Some(size) = scalar(call, 0)? else { return invalid("input 0 is missing") };
    let size = extent(size as i64)?;
    bounded(size)?;
    let period = if call.flag("periodic", true) { size } else { size.saturating_sub(1) };
    let at = |i: usize| {
        let angle = 2.0 * std::f64::consts::PI * i as f64 / period as f64;
        factors[0] - factors[1] * libm::cos(angle) + factors[2] * libm::cos(2.0 * angle)
    };
    typed(call, vec![size], (0..size).map(|i| at(i) as f32).collect())
}

/// Triangles over the frequencies, equally far from one another on the mel scale.
pub(super) fn mel_weights(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut given = [0.0; 5];
    for (i, g) in given.iter_mut().enumerate() {
        let Some(number) = scalar(call, i)? else { return invalid(format!("input {i} is missing")) };
        *g = number;
    }
    let [mels, length, rate, low, high] = given;
    let (mels, bins) = (extent(mels as i64)?, extent(length as i64)? / 2 + 1);
    bounded(mels.saturating_add(2).saturating_mul(bins))?;
    let mel = |hertz: f64| 2595.0 * libm::log1p(hertz / 700.0) / std::f64::consts::LN_10;
    let (low, high) = (mel(low), mel(high));
    let step = (high - low) / (mels + 2) as f64;
    let edges: Vec<f64> = (0..mels + 2)
        .map(|i| {
            let hertz = 700.0 * libm::expm1((i as f64 * step + low) / 2595.0 * std::f64::consts::LN_10);
            ((length + 1.0) * hertz / rate).floor()
        })
        .collect();
    if edges.iter().any(|e| !(0.0..=bins as f64).contains(e)) {
        return invalid("edges beyond the spectrum");
    }
    let mut table = vec![0.0; bins * mels];
    for m in 0..mels {
        let [left, centre, right] = [edges[m], edges[m + 1], edges[m + 2]];
        for bin in 0..bins {
            let at = bin as f64;
            let height = if at == centre {
                1.0
            } else if (left..centre).contains(&at) {
                (at - left) / (centre - left)
            } else if (centre..right).contains(&at) {
                (right - at) / (right - centre)
            } else {
                0.0
            };
            table[bin * mels + m] = height as f32;
        }
    }
    typed(call, vec![bins, mels], table)
}

/// Running product along an axis: by doubling, each element times the one 1, 2, 4, … before it.
pub(super) fn cum_product(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let axis = match scalar(call, 1)? {
        Some(axis) => call.axis(axis as i64, shape.len())?,
        None => return invalid("its axis is missing"),
    };
    let (exclusive, reverse) = (call.flag("exclusive", false), call.flag("reverse", false));
    let b = &mut *call.b;
    let (dtype, n) = (b.dtype(x), shape[axis]);
    if reverse {
        x = super::compose::mirror(b, x, axis)?;
    }
    let one = b.scalar(dtype, 1.0);
    let before = |b: &mut Builder, x: ValueId, by: usize| {
        let mut lead = shape.clone();
        lead[axis] = by;
        let ones = b.expand(one, lead)?;
        let kept = cut(b, x, axis, 0, n - by, 1)?;
        join(b, &[ones, kept], axis)
    };
    if exclusive && n > 0 {
        x = before(b, x, 1)?;
    }
    let mut by = 1;
    while by < n {
        let moved = before(b, x, by)?;
        x = b.binary(BinaryOp::Mul, x, moved)?;
        by *= 2;
    }
    if reverse {
        x = super::compose::mirror(b, x, axis)?;
    }
    Ok(vec![x])
}

/// Determinants of small matrices, row by row: for each set of columns that of the first rows.
pub(super) fn determinant(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    const MAX_ROWS: usize = 8;
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let Some((lead, &[n, cols])) = shape.split_last_chunk::<2>() else { return invalid("a tensor without matrices") };
    if n != cols || n == 0 {
        return invalid(format!("matrices of {n} × {cols}"));
    }
    if n > MAX_ROWS {
        return unsupported(format!("matrices of {n} rows; at most {MAX_ROWS} are supported"));
    }
    let b = &mut *call.b;
    let flat = b.reshape(x, vec![lead.iter().product(), n * n])?;
    let mut minors: Vec<Option<ValueId>> = vec![None; 1 << n];
    for set in 1usize..1 << n {
        let row = set.count_ones() as usize - 1;
        let mut sum: Option<ValueId> = None;
        for col in (0..n).filter(|c| set >> c & 1 == 1) {
            let element = cut(b, flat, 1, row * n + col, 1, 1)?;
            let term = match minors[set & !(1 << col)] {
                Some(minor) => b.binary(BinaryOp::Mul, element, minor)?,
                None => element,
            };
            // Columns of the set after this one: each exchange turns the sign.
            let odd = (set >> (col + 1)).count_ones() % 2 == 1;
            sum = Some(match (sum, odd) {
                (None, false) => term,
                (None, true) => b.with(BinaryOp::Mul, term, -1.0)?,
                (Some(sum), false) => b.binary(BinaryOp::Add, sum, term)?,
                (Some(sum), true) => b.binary(BinaryOp::Sub, sum, term)?,
            });
        }
        minors[set] = sum;
    }
    let Some(y) = minors[(1 << n) - 1] else { return invalid("matrices without rows") };
    Ok(vec![b.reshape(y, lead.to_vec())?])
}
