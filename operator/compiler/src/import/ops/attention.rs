//! Attention over keys and values, rotary position embedding.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, UnaryOp, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::compose::{count, cut, join, pad_along, product, reduce, table};

/// Queries, keys and values as `[batch, heads, sequence, head size]`.
struct Heads {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    /// Whether the model has them as `[batch, sequence, heads · head size]`.
    packed: bool,
}

/// `[batch, sequence, heads · size] → [batch, heads, sequence, size]`
pub(super) fn split_heads(b: &mut Builder, x: ValueId, heads: usize) -> Result<ValueId> {
    let &[n, sequence, hidden] = b.shape(x) else { return invalid("an operand that has not three dimensions") };
    if heads == 0 || !hidden.is_multiple_of(heads) {
        return invalid(format!("{hidden} features for {heads} heads"));
    }
    let x = b.reshape(x, vec![n, sequence, heads, hidden / heads])?;
    b.transpose(x, vec![0, 2, 1, 3])
}

/// `[batch, heads, sequence, size] → [batch, sequence, heads · size]`
pub(super) fn merge_heads(b: &mut Builder, x: ValueId) -> Result<ValueId> {
    let &[n, heads, sequence, size] = b.shape(x) else { return invalid("an operand that has not four dimensions") };
    let x = b.transpose(x, vec![0, 2, 1, 3])?;
    b.reshape(x, vec![n, sequence, heads * size])
}

fn heads(call: &mut Call<'_, '_>) -> Result<Heads> {
    let [q, k, v] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let (of_q, of_kv) = (extent(call.int("q_num_heads", 0))?, extent(call.int("kv_num_heads", 0))?);
    let b = &mut *call.b;
    match [b.rank(q), b.rank(k), b.rank(v)] {
        [4, 4, 4] => {
            let fits = |given: usize, x: ValueId| given == 0 || given == b.shape(x)[1];
            if !fits(of_q, q) || !fits(of_kv, k) {
                return invalid(format!("{of_q} and {of_kv} heads, but its operands have other numbers of them"));
            }
            Ok(Heads { q, k, v, packed: false })
        }
        [3, 3, 3] => {
            let q = split_heads(b, q, of_q)?;
            let (k, v) = (split_heads(b, k, of_kv)?, split_heads(b, v, of_kv)?);
            Ok(Heads { q, k, v, packed: true })
        }
        ranks => invalid(format!("operands of {ranks:?} dimensions")),
    }
}

/// Which keys a query may see, besides the mask of the model.
struct Reach {
    causal: bool,
    left: Option<i64>,
    right: Option<i64>,
}

impl Reach {
    fn of(call: &Call<'_, '_>) -> Result<Self> {
        let side = |name: &str| match call.int(name, -1) {
            -1 => Ok(None),
            n if (0..1 << 24).contains(&n) => Ok(Some(n)),
            n => invalid(format!("{name} = {n}")),
        };
        Ok(Self {
            causal: call.flag("is_causal", false),
            left: side("left_window_size")?,
            right: side("right_window_size")?,
        })
    }

    /// A query at `i + offset` may see key `j` when `j − i` lies between `offset − left` and `offset + right`.
    fn bounds(&self) -> (Option<i64>, Option<i64>) {
        let right = if self.causal { Some(self.right.unwrap_or(0).min(0)) } else { self.right };
        (self.left, right)
    }
}

/// Both, where there are two.
fn and(b: &mut Builder, a: Option<ValueId>, other: ValueId) -> Result<ValueId> {
    match a {
        Some(a) => b.binary(BinaryOp::And, a, other),
        None => Ok(other),
    }
}

/// What is added to the scores: 0 or a mask's number where a query may look, −∞ elsewhere; nothing when it may look everywhere.
fn bias(call: &mut Call<'_, '_>, queries: usize, past: usize, keys: usize) -> Result<Option<ValueId>> {
    let reach = Reach::of(call)?;
    let lengths = call.optional(6);
    let (mut allowed, mut added) = (None, None);
    let b = &mut *call.b;
    if let Some(mut mask) = call.inputs.get(3).copied().flatten() {
        let boolean = b.dtype(mask) == DType::Bool;
        let Some(&width) = b.shape(mask).last() else { return invalid("a mask without dimensions") };
        // A short mask hides the keys after it, even one of a single column.
        if width < keys {
            let axis = b.rank(mask) - 1;
            let fill = if boolean { 0.0 } else { f64::NEG_INFINITY };
            mask = pad_along(b, mask, axis, (0, (keys - width) as isize), fill)?;
        }
        if boolean { allowed = Some(mask) } else { added = Some(mask) }
    }
    let (left, right) = reach.bounds();
    match lengths {
        // As many valid keys as each row of the batch says: the last query stands at the last of them.
        Some(lengths) => {
            let rows = b.graph.value(lengths).len();
            let lengths = b.reshape(lengths, vec![rows, 1, 1, 1])?;
            let dtype = b.dtype(lengths);
            let places = count(b, dtype, keys)?;
            let valid = b.binary(BinaryOp::Less, places, lengths)?;
            allowed = Some(and(b, allowed, valid)?);
            let q = queries as i64;
            if let Some(right) = right {
                // j ≤ i + (length − q) + right
                let least = table(b, dtype, (queries, keys), |i, j| j - i + q - right)?;
                let seen = b.binary(BinaryOp::LessOrEqual, least, lengths)?;
                allowed = Some(and(b, allowed, seen)?);
            }
            if let Some(left) = left {
                // j ≥ i + (length − q) − left
                let most = table(b, dtype, (queries, keys), |i, j| j - i + q + left)?;
                let seen = b.binary(BinaryOp::LessOrEqual, lengths, most)?;
                allowed = Some(and(b, allowed, seen)?);
            }
        }
        None if left.is_some() || right.is_some() => {
            let past = past as i64;
            let seen = table(b, DType::Bool, (queries, keys), |i, j| {
                let distance = j - i - past;
                i64::from(right.is_none_or(|r| distance <= r) && left.is_none_or(|l| distance >= -l))
            })?;
            allowed = Some(and(b, allowed, seen)?);
        }
        None => {}
    }
    let Some(allowed) = allowed else { return Ok(added) };
    let shown = match added {
        Some(added) => added,
        None => b.scalar(DType::F32, 0.0),
    };
    let hidden = b.scalar(DType::F32, f64::NEG_INFINITY);
    b.select(allowed, shown, hidden).map(Some)
}

/// Softmax over keys of `scores + bias`; a query that may look nowhere gets zeros.
fn weigh(b: &mut Builder, biased: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let axis = b.rank(biased) - 1;
    let weights = b.one(Op::Softmax { axis, log: false }, &[biased], None)?;
    let Some(bias) = bias else { return Ok(weights) };
    let best = reduce(b, ReduceKind::Max, bias, &[b.rank(bias) - 1])?;
    let blind = b.with(BinaryOp::Equal, best, f64::NEG_INFINITY)?;
    if b.known(blind).is_some_and(|t| t.ints().iter().all(|x| *x == 0)) {
        return Ok(weights);
    }
    let zero = b.scalar(DType::F32, 0.0);
    b.select(blind, zero, weights)
}

/// ONNX's `Attention`: `softmax(cap(scale · Q · Kᵀ) + bias) · V`, with the heads of keys and values shared by groups of queries.
pub(super) fn attention(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let Heads { q, mut k, mut v, packed } = heads(call)?;
    // Halves and doubles of a softmax are computed in f32 as everywhere.
    if !matches!(call.int("softmax_precision", 1), 1 | 10 | 11 | 16) {
        return unsupported("softmax_precision");
    }
    let mode = call.int("qk_matmul_output_mode", 0);
    if !(0..=3).contains(&mode) {
        return invalid(format!("qk_matmul_output_mode = {mode}"));
    }
    let mut past = 0;
    match (call.optional(4), call.optional(5)) {
        (Some(_), Some(_)) if call.optional(6).is_some() => {
            return invalid("both past keys and lengths of a cache are given");
        }
        (Some(keys), Some(values)) => {
            if call.b.rank(keys) != 4 {
                return invalid("past keys need four dimensions");
            }
            past = call.b.shape(keys)[2];
            k = join(call.b, &[keys, k], 2)?;
            v = join(call.b, &[values, v], 2)?;
        }
        (None, None) => {}
        _ => return invalid("past keys and past values come together"),
    }
    let (&[n, q_heads, queries, size], &[_, kv_heads, keys, _], &[.., v_size]) =
        (call.b.shape(q), call.b.shape(k), call.b.shape(v))
    else {
        return invalid("operands need four dimensions");
    };
    if kv_heads == 0 || q_heads % kv_heads != 0 || call.b.shape(v)[1] != kv_heads || size == 0 {
        return invalid(format!("{q_heads} heads of queries and {kv_heads} of keys"));
    }
    let scale = if call.attribute("scale").is_some() { call.float("scale", 1.0) } else { 1.0 / (size as f64).sqrt() };
    if scale.is_nan() || scale < 0.0 {
        return invalid(format!("scale = {scale}"));
    }
    let cap = call.float("softcap", 0.0);
    let bias = bias(call, queries, past, keys)?;
    let b = &mut *call.b;
    // The queries of the heads that share keys are the rows of one product.
    let rows = q_heads / kv_heads * queries;
    let scaled = b.with(BinaryOp::Mul, q, scale)?;
    let scaled = b.reshape(scaled, vec![n, kv_heads, rows, size])?;
    let turned = b.transpose(k, vec![0, 1, 3, 2])?;
    let raw = product(b, scaled, turned)?;
    let shape = vec![n, q_heads, queries, keys];
    let raw = b.reshape(raw, shape.clone())?;
    let capped = if cap > 0.0 {
        let y = b.with(BinaryOp::Div, raw, cap)?;
        let y = b.unary(UnaryOp::Tanh, y)?;
        b.with(BinaryOp::Mul, y, cap)?
    } else {
        raw
    };
    let biased = match bias {
        Some(bias) => b.binary(BinaryOp::Add, capped, bias)?,
        None => capped,
    };
    if b.shape(biased) != shape {
        return invalid(format!("a mask that makes scores of {shape:?} larger"));
    }
    let weights = weigh(b, biased, bias)?;
    let grouped = b.reshape(weights, vec![n, kv_heads, rows, keys])?;
    let y = product(b, grouped, v)?;
    let y = b.reshape(y, vec![n, q_heads, queries, v_size])?;
    let y = if packed { merge_heads(b, y)? } else { y };
    Ok(vec![y, k, v, [raw, capped, biased, weights][mode as usize]])
}

/// ONNX's `RotaryEmbedding`: pairs of features turned by the angles whose cosines and sines are given.
pub(super) fn rotary(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [x, mut cosines, mut sines] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let interleaved = call.flag("interleaved", false);
    let original = call.b.shape(x).to_vec();
    let heads = extent(call.int("num_heads", 0))?;
    // [batch, sequence, heads, size]
    let x = match original[..] {
        [_, of_x, ..] if original.len() == 4 => {
            if heads != 0 && heads != of_x {
                return invalid(format!("{heads} heads of shape {original:?}"));
            }
            call.b.transpose(x, vec![0, 2, 1, 3])?
        }
        [n, sequence, hidden] if heads > 0 && hidden.is_multiple_of(heads) => {
            call.b.reshape(x, vec![n, sequence, heads, hidden / heads])?
        }
        _ => return invalid(format!("{heads} heads of shape {original:?}")),
    };
    let size = call.b.shape(x)[3];
    let turned = match extent(call.int("rotary_embedding_dim", 0))? {
        0 => size,
        dim => dim,
    };
    if turned > size || !turned.is_multiple_of(2) {
        return invalid(format!("{turned} of {size} features are turned"));
    }
    if let Some(places) = call.optional(3) {
        let mut pick = |cache: ValueId| call.b.one(Op::Gather { axis: 0 }, &[cache, places], None);
        (cosines, sines) = (pick(cosines)?, pick(sines)?);
    }
    let b = &mut *call.b;
    let half = turned / 2;
    for angles in [&mut cosines, &mut sines] {
        let &[n, sequence, pairs] = b.shape(*angles) else { return invalid("angles without a batch") };
        if pairs != half {
            return invalid(format!("angles of {pairs} pairs for {half}"));
        }
        *angles = b.reshape(*angles, vec![n, sequence, 1, half])?;
    }
    let (first, second) = if interleaved {
        (cut(b, x, 3, 0, half, 2)?, cut(b, x, 3, 1, half, 2)?)
    } else {
        (cut(b, x, 3, 0, half, 1)?, cut(b, x, 3, half, half, 1)?)
    };
    let mut turn = |a: ValueId, c: ValueId, op: BinaryOp| {
        let (a, c) = (b.binary(BinaryOp::Mul, cosines, a)?, b.binary(BinaryOp::Mul, sines, c)?);
        b.binary(op, a, c)
    };
    let (real, imaginary) = (turn(first, second, BinaryOp::Sub)?, turn(second, first, BinaryOp::Add)?);
    let y = if interleaved {
        let shape = b.shape(real).to_vec();
        let pair = [shape.clone(), vec![1]].concat();
        let (real, imaginary) = (b.reshape(real, pair.clone())?, b.reshape(imaginary, pair)?);
        let y = b.one(Op::Concat { axis: 4 }, &[real, imaginary], None)?;
        b.reshape(y, [&shape[..3], &[turned]].concat())?
    } else {
        join(b, &[real, imaginary], 3)?
    };
    let y = if turned < size {
        let rest = cut(b, x, 3, turned, size - turned, 1)?;
        join(b, &[y, rest], 3)?
    } else {
        y
    };
    let y = if original.len() == 4 { b.transpose(y, vec![0, 2, 1, 3])? } else { b.reshape(y, original)? };
    Ok(vec![y])
}

/// `FlexAttention`'s `scale · Q · Kᵀ`: `[batch, heads, queries, keys]`.
pub(in crate::import) fn flex_scores(call: &mut Call<'_, '_>) -> Result<ValueId> {
    let [q, k, v] = [call.input(0)?, call.input(1)?, call.input(2)?];
    if !matches!(call.int("softmax_precision", 1), 1 | 10 | 11 | 16) {
        return unsupported("softmax_precision");
    }
    let (&[n, q_heads, queries, size], &[_, kv_heads, keys, _], &[_, v_heads, values, _]) =
        (call.b.shape(q), call.b.shape(k), call.b.shape(v))
    else {
        return invalid("operands need four dimensions");
    };
    if kv_heads == 0 || q_heads % kv_heads != 0 || v_heads != kv_heads || values != keys || size == 0 {
        return invalid(format!("{q_heads} heads of queries, {kv_heads} of {keys} keys, {v_heads} of {values} values"));
    }
    let scale = if call.attribute("scale").is_some() { call.float("scale", 1.0) } else { 1.0 / (size as f64).sqrt() };
    if scale.is_nan() || scale < 0.0 {
        return invalid(format!("scale = {scale}"));
    }
    let b = &mut *call.b;
    let scaled = b.with(BinaryOp::Mul, q, scale)?;
    let scaled = b.reshape(scaled, vec![n, kv_heads, q_heads / kv_heads * queries, size])?;
    let turned = b.transpose(k, vec![0, 1, 3, 2])?;
    let scores = product(b, scaled, turned)?;
    b.reshape(scores, vec![n, q_heads, queries, keys])
}

/// The values weighed.
pub(in crate::import) fn flex_values(call: &mut Call<'_, '_>, weights: ValueId) -> Result<ValueId> {
    let v = call.input(2)?;
    let b = &mut *call.b;
    let (&[n, q_heads, queries, keys], &[_, kv_heads, _, size]) = (b.shape(weights), b.shape(v)) else {
        return invalid("operands need four dimensions");
    };
    let grouped = b.reshape(weights, vec![n, kv_heads, q_heads / kv_heads * queries, keys])?;
    let y = product(b, grouped, v)?;
    b.reshape(y, vec![n, q_heads, queries, size])
}
