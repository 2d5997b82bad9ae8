//! Operators of sequence models that carry a state, and those that rearrange sequences by length.

use crate::ir::{BinaryOp, DType, Op, Tensor, UnaryOp, ValueId, Window};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::attention::split_heads;
use super::compose::{bounded, count, cut, join, pad_along, product};

/// Most steps that a recurrence is unrolled to.
const MAX_STEPS: usize = 512;
/// Most rows of a batch that are cut and joined one by one.
const MAX_ROWS: usize = 64;

/// Depthwise over the past and the input: `[n, c, k − 1 + length] → [n, c, length]`.
pub(super) fn causal_conv(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
    let (&[n, channels, length], &[planes, 1, taps]) = (call.b.shape(x), call.b.shape(w)) else {
        return invalid("input and weights need three dimensions, the weights' second is 1");
    };
    if planes != channels || taps == 0 {
        return invalid(format!("{taps} taps of {planes} planes for {channels} channels"));
    }
    let activated = match call.text("activation", "none").as_str() {
        "none" | "" => false,
        "silu" | "swish" => true,
        other => return invalid(format!("activation {other:?}")),
    };
    let past = call.optional(3);
    let b = &mut *call.b;
    let padded = match past {
        Some(past) => join(b, &[past, x], 2)?,
        None => pad_along(b, x, 2, (taps as isize - 1, 0), 0.0)?,
    };
    if b.shape(padded) != [n, channels, length + taps - 1] {
        return invalid("a past of the wrong length");
    }
    let state = cut(b, padded, 2, length, taps - 1, 1)?;
    let wide = b.reshape(padded, vec![n, channels, 1, length + taps - 1])?;
    let weights = b.reshape(w, vec![channels, 1, 1, taps])?;
    let window = Window { kernel: [1, taps], strides: [1; 2], dilations: [1; 2], pads: [0; 4] };
    let y = super::window::convolve(b, wide, weights, bias, window, channels)?;
    let mut y = b.reshape(y, vec![n, channels, length])?;
    if activated {
        let gate = b.unary(UnaryOp::Sigmoid, y)?;
        y = b.binary(BinaryOp::Mul, y, gate)?;
    }
    Ok(vec![y, state])
}

/// Step `t` of `[batch, heads, steps, size]` as `[batch, heads, size, 1]` or `[batch, heads, 1, size]`.
fn step(b: &mut Builder, x: ValueId, t: usize, column: bool) -> Result<ValueId> {
    let x = cut(b, x, 2, t, 1, 1)?;
    let &[n, heads, _, size] = b.shape(x) else { return invalid("an operand that has not four dimensions") };
    if column { b.reshape(x, vec![n, heads, size, 1]) } else { Ok(x) }
}

/// ONNX's `LinearAttention`: `S ← eᵍ · S + k ⊗ v′`, `o = scale · qᵀ · S`, unrolled over the sequence. With the delta rule `v′` is
/// `β · (v − kᵀ · S)`, else `v`.
pub(super) fn linear_attention(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [query, key, value] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let (of_q, of_kv) = (extent(call.int("q_num_heads", 0))?, extent(call.int("kv_num_heads", 0))?);
    if of_kv == 0 || of_q == 0 || of_q % of_kv != 0 {
        return invalid(format!("{of_q} heads of queries and {of_kv} of keys"));
    }
    let rule = call.text("update_rule", "gated_delta");
    let (gated, delta) = match rule.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return invalid(format!("update_rule {other:?}")),
    };
    let (past, decay, beta) = (call.optional(3), call.optional(4), call.optional(5));
    if decay.is_some() != gated || beta.is_some() != delta {
        return invalid(format!("update_rule {rule:?} and its inputs decay and beta do not fit"));
    }
    // How a chunk is computed is a hint to other runtimes.
    let (q, k, v) =
        (split_heads(call.b, query, of_q)?, split_heads(call.b, key, of_kv)?, split_heads(call.b, value, of_kv)?);
    let scale = call.float("scale", 0.0);
    let b = &mut *call.b;
    let (&[n, _, steps, size], &[.., v_size]) = (b.shape(q), b.shape(v)) else { return invalid("its operands") };
    if b.shape(k) != [n, of_kv, steps, size] || b.shape(v)[..3] != [n, of_kv, steps] || size == 0 {
        return invalid(format!("keys {:?}, values {:?}", b.shape(k), b.shape(v)));
    }
    if steps > MAX_STEPS {
        return unsupported(format!("a sequence of {steps} steps; at most {MAX_STEPS} are unrolled"));
    }
    let scale = if scale == 0.0 { 1.0 / (size as f64).sqrt() } else { scale };
    // Decays of a head, or of each of its features; the same rate for all heads repeats.
    let decay = match decay {
        Some(g) => {
            let g = split_heads(b, g, of_kv)?;
            Some(b.unary(UnaryOp::Exp, g)?)
        }
        None => None,
    };
    let beta = match beta {
        Some(beta) if b.shape(beta).last() == Some(&1) => Some(split_heads(b, beta, 1)?),
        Some(beta) => Some(split_heads(b, beta, of_kv)?),
        None => None,
    };
    let q = b.with(BinaryOp::Mul, q, scale)?;
    // The queries that share a state stand side by side.
    let q = b.reshape(q, vec![n, of_kv, of_q / of_kv, steps, size])?;
    let mut state = match past {
        Some(past) if b.shape(past) == [n, of_kv, size, v_size] => past,
        Some(past) => return invalid(format!("a past state of shape {:?}", b.shape(past))),
        None => {
            let zero = b.scalar(DType::F32, 0.0);
            b.expand(zero, vec![n, of_kv, size, v_size])?
        }
    };
    let mut outputs = Vec::with_capacity(steps);
    for t in 0..steps {
        if let Some(decay) = decay {
            let g = step(b, decay, t, true)?;
            state = b.binary(BinaryOp::Mul, state, g)?;
        }
        let mut v = step(b, v, t, false)?;
        if let Some(beta) = beta {
            let k = step(b, k, t, false)?;
            let seen = product(b, k, state)?;
            v = b.binary(BinaryOp::Sub, v, seen)?;
            let rate = step(b, beta, t, false)?;
            v = b.binary(BinaryOp::Mul, v, rate)?;
        }
        let k = step(b, k, t, true)?;
        let written = b.binary(BinaryOp::Mul, k, v)?;
        state = b.binary(BinaryOp::Add, state, written)?;
        let asked = cut(b, q, 3, t, 1, 1)?;
        let asked = b.reshape(asked, vec![n, of_kv, of_q / of_kv, size])?;
        let y = product(b, asked, state)?;
        outputs.push(b.reshape(y, vec![n, 1, of_q * v_size])?);
    }
    Ok(vec![join(b, &outputs, 1)?, state])
}

/// The first `sequence_lens[b]` elements of each sequence the other way round, the rest as they are: a gather of rows whose
/// places are `length − 1 − t` or `t`.
pub(super) fn reverse_sequence(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (x, lengths) = (call.input(0)?, call.input(1)?);
    let (time, batch) = (call.int("time_axis", 0), call.int("batch_axis", 1));
    let shape = call.b.shape(x).to_vec();
    let (&[first, second, ..], (0, 1) | (1, 0)) = (&shape[..], (time, batch)) else {
        return invalid(format!("time_axis {time} and batch_axis {batch} of shape {shape:?}"));
    };
    let time_first = time == 0;
    let (steps, rows) = if time_first { (first, second) } else { (second, first) };
    let b = &mut *call.b;
    if b.shape(lengths) != [rows] {
        return invalid(format!("lengths of shape {:?} for {rows} sequences", b.shape(lengths)));
    }
    bounded(steps.saturating_mul(rows))?;
    // [rows, steps] or [steps, rows], as the data lie.
    let lengths = b.cast(lengths, DType::F32)?;
    let lengths = b.reshape(lengths, if time_first { vec![1, rows] } else { vec![rows, 1] })?;
    let time = count(b, DType::F32, steps)?;
    let time = b.reshape(time, if time_first { vec![steps, 1] } else { vec![1, steps] })?;
    let inside = b.binary(BinaryOp::Less, time, lengths)?;
    let turned = b.binary(BinaryOp::Sub, lengths, time)?;
    let turned = b.with(BinaryOp::Sub, turned, 1.0)?;
    let place = b.select(inside, turned, time)?;
    let place = b.cast(place, DType::I64)?;
    // Rows of the flattened tensor.
    let (scale, start) = if time_first { (rows, 1) } else { (1, steps) };
    let place = b.with(BinaryOp::Mul, place, scale as f64)?;
    let starts = (0..rows as i64).map(|r| r * start as i64).collect();
    let starts = b.constant(Tensor::int(DType::I64, if time_first { vec![1, rows] } else { vec![rows, 1] }, starts));
    let place = b.binary(BinaryOp::Add, place, starts)?;
    let flat = b.reshape(x, [&[first * second], &shape[2..]].concat())?;
    let y = b.one(Op::Gather { axis: 0 }, &[flat, place], None)?;
    Ok(vec![b.reshape(y, shape)?])
}

/// ONNX's `TensorScatter`: an update written into a cache along `axis`, from a place that each row of the batch has of its own.
pub(super) fn tensor_scatter(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (cache, update) = (call.input(0)?, call.input(1)?);
    let shape = call.b.shape(cache).to_vec();
    let axis = call.axis(call.int("axis", -2), shape.len())?;
    let circular = match call.text("mode", "linear").as_str() {
        "linear" => false,
        "circular" => true,
        other => return invalid(format!("mode {other:?}")),
    };
    let b = &mut *call.b;
    let given = b.shape(update).to_vec();
    let same = given.len() == shape.len() && (0..shape.len()).all(|d| d == axis || given[d] == shape[d]);
    if !same || axis == 0 || given[axis] > shape[axis] {
        return invalid(format!("an update of shape {given:?} into a cache of {shape:?} along axis {axis}"));
    }
    let (length, most) = (given[axis], shape[axis]);
    let Some(starts) = call.inputs.get(2).copied().flatten() else {
        let rest = cut(b, cache, axis, length, most - length, 1)?;
        return Ok(vec![join(b, &[update, rest], axis)?]);
    };
    if b.shape(starts) != [shape[0]] {
        return invalid(format!("places of shape {:?} for {} rows", b.shape(starts), shape[0]));
    }
    if let Some(known) = b.known(starts).cloned().filter(|t| t.len() <= MAX_ROWS) {
        return known_starts(b, (cache, update), &known, axis, circular);
    }
    // Where the update's element of each place of the cache lies; outside of it the cache stays.
    bounded(most.saturating_mul(shape[0]))?;
    let starts = b.cast(starts, DType::F32)?;
    let starts = b.reshape(starts, vec![shape[0], 1])?;
    let places = count(b, DType::F32, most)?;
    let mut from = b.binary(BinaryOp::Sub, places, starts)?;
    if circular {
        // Python's remainder by the length of the cache.
        let turns = b.with(BinaryOp::Div, from, most as f64)?;
        let turns = b.unary(UnaryOp::Floor, turns)?;
        let turns = b.with(BinaryOp::Mul, turns, most as f64)?;
        from = b.binary(BinaryOp::Sub, from, turns)?;
    }
    let after = b.with(BinaryOp::Less, from, length as f64)?;
    let zero = b.scalar(DType::F32, 0.0);
    let before = b.binary(BinaryOp::LessOrEqual, zero, from)?;
    let written = b.binary(BinaryOp::And, after, before)?;
    let from = super::compose::clamp(b, from, 0.0, length as f64 - 1.0)?;
    let rows = count(b, DType::F32, shape[0])?;
    let rows = b.with(BinaryOp::Mul, rows, length as f64)?;
    let rows = b.reshape(rows, vec![shape[0], 1])?;
    let from = b.binary(BinaryOp::Add, from, rows)?;
    let from = b.cast(from, DType::I64)?;
    // [batch, axis, the others]
    let perm: Vec<usize> = [0, axis].into_iter().chain((1..shape.len()).filter(|d| *d != axis)).collect();
    let first = b.transpose(update, perm.clone())?;
    let others: Vec<usize> = b.shape(first)[2..].to_vec();
    let flat = b.reshape(first, [&[shape[0] * length], &others[..]].concat())?;
    let spread = b.one(Op::Gather { axis: 0 }, &[flat, from], None)?;
    let mut back = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, p)| back[*p] = i);
    let spread = b.transpose(spread, back)?;
    let mut aligned = vec![1; shape.len()];
    (aligned[0], aligned[axis]) = (shape[0], most);
    let written = b.reshape(written, aligned)?;
    Ok(vec![b.select(written, spread, cache)?])
}

/// Places that are known: cuts and joins.
fn known_starts(
    b: &mut Builder,
    (cache, update): (ValueId, ValueId),
    starts: &Tensor,
    axis: usize,
    circular: bool,
) -> Result<Vec<ValueId>> {
    let (most, length) = (b.shape(cache)[axis], b.shape(update)[axis]);
    let mut rows = Vec::new();
    for (row, start) in starts.ints().iter().enumerate() {
        let start = if circular { start.rem_euclid(most.max(1) as i64) } else { *start };
        let Some(start) = usize::try_from(start).ok().filter(|s| circular || s + length <= most) else {
            return invalid(format!("{length} elements written at {start} of {most}"));
        };
        let (old, new) = (cut(b, cache, 0, row, 1, 1)?, cut(b, update, 0, row, 1, 1)?);
        // What goes around the end comes first.
        let around = (start + length).saturating_sub(most);
        let parts = [
            cut(b, new, axis, length - around, around, 1)?,
            cut(b, old, axis, around, start - around, 1)?,
            cut(b, new, axis, 0, length - around, 1)?,
            cut(b, old, axis, (start + length).min(most), most - (start + length).min(most), 1)?,
        ];
        rows.push(join(b, &parts, axis)?);
    }
    Ok(vec![join(b, &rows, 0)?])
}
