//! Fourier transforms as products with constant matrices, split by factors where one matrix would be large; windows and mel filters.

use crate::ir::{BinaryOp, DType, Op, Tensor, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::super::tensor;
use super::compose::{bounded, cut, float_table, join, pad_along, product};
use super::layout::number;

/// Largest matrix of one transform: 8 MiB of f32.
const MAX_MATRIX: usize = 1 << 21;
/// Longest transform.
const MAX_LENGTH: usize = 1 << 18;

/// `e^(sign · 2πi · a ÷ n)`, with the angle reduced exactly.
fn turn(a: usize, n: usize, sign: f64) -> (f64, f64) {
    let angle = 2.0 * std::f64::consts::PI * (a % n) as f64 / n as f64;
    (libm::cos(angle), sign * libm::sin(angle))
}

/// The transform's matrix: from `n` numbers of `parts` parts (real, or real and imaginary) to the first `out` frequencies.
fn matrix(b: &mut Builder, n: usize, parts: usize, out: usize, sign: f64, scale: f64) -> Result<ValueId> {
    float_table(b, (n * parts, out * 2), |row, col| {
        let (cos, sin) = turn((row / parts) * (col / 2) % n, n, sign);
        scale
            * match (row % parts, col % 2) {
                (0, 0) | (1, 1) => cos,
                (0, _) => sin,
                _ => -sin,
            }
    })
}

/// `[rows, n, parts] → [rows, out, 2]`: the first `out` of `n` frequencies, each times `scale`. Long transforms are split as
/// Cooley and Tukey (1965) do, `n = n₁ · n₂`.
fn transform(b: &mut Builder, x: ValueId, out: usize, sign: f64, scale: f64) -> Result<ValueId> {
    let &[rows, n, parts] = b.shape(x) else { return invalid("a transform of another rank") };
    let direct = n.saturating_mul(parts).saturating_mul(out * 2);
    let split = (2..=n).take_while(|d| d * d <= n).filter(|d| n.is_multiple_of(*d)).last();
    let (Some(first), true) = (split, direct > MAX_MATRIX) else {
        if direct > MAX_MATRIX {
            return unsupported(format!("a transform of {n}, which has no factors"));
        }
        let matrix = matrix(b, n, parts, out, sign, scale)?;
        let x = b.reshape(x, vec![rows, n * parts])?;
        let y = product(b, x, matrix)?;
        return b.reshape(y, vec![rows, out, 2]);
    };
    let second = n / first;
    // Element n₂ · m₁ + m₂: over m₁ for each m₂.
    let x = b.reshape(x, vec![rows, first, second, parts])?;
    let x = b.transpose(x, vec![0, 2, 1, 3])?;
    let x = b.reshape(x, vec![rows * second, first, parts])?;
    let y = transform(b, x, first, sign, scale)?;
    // Turned by m₂ · k₁ steps of n.
    let y = b.reshape(y, vec![rows, second, first, 2])?;
    let cosines = float_table(b, (second, first), |m, k| turn(m * k, n, sign).0)?;
    let sines = float_table(b, (second, first), |m, k| turn(m * k, n, sign).1)?;
    let (cosines, sines) = (b.reshape(cosines, vec![second, first, 1])?, b.reshape(sines, vec![second, first, 1])?);
    let (real, imaginary) = (cut(b, y, 3, 0, 1, 1)?, cut(b, y, 3, 1, 1, 1)?);
    let mut sum = |p: ValueId, q: ValueId, op: BinaryOp| {
        let (p, q) = (b.binary(BinaryOp::Mul, p, cosines)?, b.binary(BinaryOp::Mul, q, sines)?);
        b.binary(op, p, q)
    };
    let (re, im) = (sum(real, imaginary, BinaryOp::Sub)?, sum(imaginary, real, BinaryOp::Add)?);
    let y = join(b, &[re, im], 3)?;
    let y = b.transpose(y, vec![0, 2, 1, 3])?;
    let y = b.reshape(y, vec![rows * first, second, 2])?;
    let y = transform(b, y, second, sign, 1.0)?;
    // Frequency k₁ + n₁ · k₂.
    let y = b.reshape(y, vec![rows, first, second, 2])?;
    let y = b.transpose(y, vec![0, 2, 1, 3])?;
    let y = b.reshape(y, vec![rows, n, 2])?;
    cut(b, y, 1, 0, out, 1)
}

/// Half a spectrum back to `n` real numbers: `[rows, n ÷ 2 + 1, 2] → [rows, n, 1]`.
fn real_inverse(b: &mut Builder, x: ValueId, n: usize) -> Result<ValueId> {
    let rows = b.shape(x)[0];
    let half = n / 2 + 1;
    if half.saturating_mul(2 * n) > MAX_MATRIX {
        return unsupported(format!("an inverse transform of half a spectrum to {n}"));
    }
    let matrix = float_table(b, (half * 2, n), |row, m| {
        let k = row / 2;
        // All but the first and, of an even number, the last stand for two.
        let twice = if k == 0 || 2 * k == n { 1.0 } else { 2.0 };
        let (cos, sin) = turn(k * m, n, 1.0);
        twice / n as f64 * if row % 2 == 0 { cos } else { -sin }
    })?;
    let x = b.reshape(x, vec![rows, half * 2])?;
    let y = product(b, x, matrix)?;
    b.reshape(y, vec![rows, n, 1])
}

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
    // The axis stands last, before the parts.
    let rank = shape.len();
    let perm: Vec<usize> = (0..rank - 1).filter(|d| *d != axis).chain([axis, rank - 1]).collect();
    let x = b.transpose(x, perm.clone())?;
    let wanted = if inverse && onesided { n / 2 + 1 } else { n };
    let x = pad_along(b, x, rank - 2, (0, wanted as isize - lead[axis] as isize), 0.0)?;
    let others: Vec<usize> = b.shape(x)[..rank - 2].to_vec();
    let rows = others.iter().product();
    let x = b.reshape(x, vec![rows, wanted, parts])?;
    let y = match (inverse, onesided) {
        (true, true) => real_inverse(b, x, n)?,
        (true, false) => transform(b, x, n, 1.0, 1.0 / n as f64)?,
        (false, true) => transform(b, x, n / 2 + 1, -1.0, 1.0)?,
        (false, false) => transform(b, x, n, -1.0, 1.0)?,
    };
    let tail = b.shape(y)[1..].to_vec();
    let y = b.reshape(y, [others, tail].concat())?;
    let mut back = vec![0; rank];
    perm.iter().enumerate().for_each(|(i, p)| back[*p] = i);
    Ok(vec![b.transpose(y, back)?])
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
    let places = (0..frames).flat_map(|f| (0..frame).map(move |i| (f * step + i) as i64)).collect();
    let places = b.constant(Tensor::int(DType::I64, vec![frames, frame], places));
    let mut y = b.one(Op::Gather { axis: 1 }, &[x, places], None)?;
    if let Some(window) = window {
        let window = b.reshape(window, vec![frame, 1])?;
        y = b.binary(BinaryOp::Mul, y, window)?;
    }
    let y = b.reshape(y, vec![n * frames, frame, parts])?;
    let out = if onesided { frame / 2 + 1 } else { frame };
    let y = transform(b, y, out, -1.0, 1.0)?;
    Ok(vec![b.reshape(y, vec![n, frames, out, 2])?])
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
