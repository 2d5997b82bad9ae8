//! `Attention` with packed weights and `MultiHeadAttention`.

use crate::ir::{BinaryOp, Op, ValueId};

use super::super::super::build::{Builder, Result, invalid, unsupported};
use super::super::super::call::{Call, extent};
use super::heads::{Masks, attend, join, key_mask, split};

/// A key-value cache put before keys or values: `[b, n, p, d]`.
fn after(b: &mut Builder, past: Option<ValueId>, x: ValueId) -> Result<ValueId> {
    match past {
        Some(past) => b.concat(&[past, x], 2),
        None => Ok(x),
    }
}

fn refuse_flags(call: &Call<'_, '_>, flags: &[&'static str]) -> Result<()> {
    match flags.iter().find(|flag| call.flag(flag, false)) {
        Some(flag) => unsupported(*flag),
        None => Ok(()),
    }
}

fn masks(call: &mut Call<'_, '_>, mask: Option<ValueId>, bias: Option<ValueId>, dims: [usize; 3]) -> Result<Masks> {
    let filter = call.float("mask_filter_value", -10_000.0);
    let mut masks = Masks { added: Vec::new(), causal: call.flag("unidirectional", false) };
    if let Some(mask) = mask {
        masks.added.push(key_mask(call.b, mask, dims, filter)?);
    }
    masks.added.extend(bias);
    Ok(masks)
}

/// `x [b, s, w], weights [w, q + k + v], bias?, mask?, past? [2, b, n, p, d], attention bias?` to the answer and `present`.
pub(super) fn packed(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    refuse_flags(call, &["do_rotary", "past_present_share_buffer"])?;
    let (x, weights) = (call.input(0)?, call.input(1)?);
    let heads = extent(call.int("num_heads", 0))?;
    let (&[batch, s, _], &[_, width]) = (call.b.shape(x), call.b.shape(weights)) else {
        return invalid("its input needs three dimensions and its weights two");
    };
    let sizes = match call.ints("qkv_hidden_sizes") {
        Some([q, k, v]) => [extent(*q)?, extent(*k)?, extent(*v)?],
        Some(other) => return invalid(format!("qkv_hidden_sizes = {other:?}")),
        None => [width / 3; 3],
    };
    if sizes.iter().sum::<usize>() != width {
        return invalid(format!("weights of a width of {width} for {sizes:?}"));
    }
    let mut product = call.b.one(Op::MatMul, &[x, weights], None)?;
    if let Some(bias) = call.optional(2) {
        product = call.b.binary(BinaryOp::Add, product, bias)?;
    }
    let mut start = 0;
    let mut parts = [product; 3];
    for (part, size) in parts.iter_mut().zip(sizes) {
        let columns = call.b.slice(product, 2, start, size)?;
        *part = split(call.b, columns, heads)?;
        start += size;
    }
    let [q, mut k, mut v] = parts;
    if let Some(past) = call.optional(4) {
        let shape = call.b.shape(past).get(1..).unwrap_or_default().to_vec();
        for (i, x) in [&mut k, &mut v].into_iter().enumerate() {
            let half = call.b.slice(past, 0, i, 1)?;
            let half = call.b.reshape(half, shape.clone())?;
            *x = after(call.b, Some(half), *x)?;
        }
    }
    let t = call.b.shape(k)[2];
    let masks = masks(call, call.optional(3), call.optional(5), [batch, s, t])?;
    let y = attend(call.b, [q, k, v], call.float("scale", 0.0), &masks)?;
    let mut outputs = vec![join(call.b, y)?];
    if call.wants(1) {
        let mut halves = [k, v];
        for x in &mut halves {
            let shape = [&[1], call.b.shape(*x)].concat();
            *x = call.b.reshape(*x, shape)?;
        }
        outputs.push(call.b.concat(&halves, 0)?);
    }
    Ok(outputs)
}

/// `query [b, s, w], key, value [b, t, ·] or [b, n, t, d], bias? [q + k + v], mask?, attention bias?, past key?, past value?`
/// to the answer and the keys and values that a cache would hold.
pub(super) fn multi_head(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let query = call.input(0)?;
    let heads = extent(call.int("num_heads", 0))?;
    let (Some(key), Some(value)) = (call.optional(1), call.optional(2)) else {
        return unsupported("packed queries, keys and values");
    };
    if call.optional(8).is_some() {
        return unsupported("past_sequence_length, a cache of which only a part is filled");
    }
    let mut start = 0;
    let mut parts = [query, key, value];
    for part in &mut parts {
        let rank = call.b.rank(*part);
        let width = match *call.b.shape(*part) {
            [_, _, width] => width,
            [_, n, _, d] if n == heads => n * d,
            ref other => return unsupported(format!("queries, keys or values of shape {other:?}")),
        };
        if let Some(bias) = call.optional(3)
            && rank == 3
        {
            let bias = call.b.slice(bias, 0, start, width)?;
            *part = call.b.binary(BinaryOp::Add, *part, bias)?;
        }
        start += width;
        if rank == 3 {
            *part = split(call.b, *part, heads)?;
        }
    }
    let [q, k, v] = parts;
    let (past_key, past_value) = (call.optional(6), call.optional(7));
    let k = after(call.b, past_key, k)?;
    let v = after(call.b, past_value, v)?;
    let (&[batch, _, s, _], &[_, _, t, _]) = (call.b.shape(q), call.b.shape(k)) else {
        return invalid("its heads need four dimensions");
    };
    let masks = masks(call, call.optional(4), call.optional(5), [batch, s, t])?;
    let y = attend(call.b, [q, k, v], call.float("scale", 0.0), &masks)?;
    Ok(vec![join(call.b, y)?, k, v])
}
