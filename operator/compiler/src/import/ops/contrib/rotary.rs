//! Rotary position embedding (Su et al. 2021).

use crate::ir::{BinaryOp, DType, Op, ValueId};

use super::super::super::build::{Builder, Result, invalid, unsupported};
use super::super::super::call::{Call, extent};

/// `x [b, s, n · d] or [b, n, s, d], positions [1] (of the first) or [b, s], cos, sin [m, r ÷ 2]`: the first `r` numbers of each
/// head are turned in pairs.
pub(super) fn embedding(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let [x, positions, cos, sin] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    if call.flag("is_packed_batching", false) {
        return unsupported("is_packed_batching");
    }
    if call.float("scale", 1.0) != 1.0 {
        return unsupported("a scale other than 1");
    }
    let shape = call.b.shape(x).to_vec();
    let &[_, half] = call.b.shape(cos) else { return invalid("its tables need two dimensions") };
    let (heads, interleaved) = (extent(call.int("num_heads", 0))?, call.flag("interleaved", false));
    let turned = extent(call.int("rotary_embedding_dim", 0))?;
    if turned != 0 && turned != 2 * half {
        return invalid(format!("rotary_embedding_dim = {turned} for tables of {half} pairs"));
    }
    let b = &mut *call.b;
    // To [b, s, n, d].
    let rows = match shape[..] {
        [_, _, _, _] => b.transpose(x, vec![0, 2, 1, 3])?,
        [batch, s, width] => {
            let heads = if heads > 0 { heads } else { width / (2 * half).max(1) };
            if heads == 0 || width % heads != 0 {
                return invalid(format!("{heads} heads of a width of {width}"));
            }
            b.reshape(x, vec![batch, s, heads, width / heads])?
        }
        _ => return invalid(format!("an input of shape {shape:?}")),
    };
    let &[_, s, _, width] = b.shape(rows) else { return invalid("its input needs heads") };
    if half == 0 || 2 * half > width {
        return invalid(format!("tables of {half} pairs for heads of {width}"));
    }
    let index = if b.shape(positions) == [1] {
        let numbers = b.numbers(DType::I64, s);
        let first = b.cast(positions, DType::I64)?;
        let index = b.binary(BinaryOp::Add, first, numbers)?;
        b.reshape(index, vec![1, s])?
    } else {
        positions
    };
    let (cos, sin) = (table(b, cos, index)?, table(b, sin, index)?);
    let turned = b.slice(rows, 3, 0, 2 * half)?;
    let mut y = turn(b, turned, cos, sin, interleaved)?;
    if 2 * half < width {
        let rest = b.slice(rows, 3, 2 * half, width - 2 * half)?;
        y = b.concat(&[y, rest], 3)?;
    }
    let y = if shape.len() == 4 { b.transpose(y, vec![0, 2, 1, 3])? } else { b.reshape(y, shape)? };
    Ok(vec![y])
}

/// Rows of a table by position, for all heads: `[b, s, 1, r ÷ 2]`.
fn table(b: &mut Builder, table: ValueId, index: ValueId) -> Result<ValueId> {
    let rows = b.one(Op::Gather { axis: 0 }, &[table, index], None)?;
    let &[batch, s, half] = b.shape(rows) else { return invalid("its positions need two dimensions") };
    b.reshape(rows, vec![batch, s, 1, half])
}

/// Pairs are `(i, i + half)`, or neighbours when they are interleaved.
fn turn(b: &mut Builder, x: ValueId, cos: ValueId, sin: ValueId, interleaved: bool) -> Result<ValueId> {
    let &[batch, s, heads, width] = b.shape(x) else { return invalid("its input needs heads") };
    let half = width / 2;
    let part = |b: &mut Builder, i: usize| -> Result<ValueId> {
        if !interleaved {
            return b.slice(x, 3, i * half, half);
        }
        let pairs = b.reshape(x, vec![batch, s, heads, half, 2])?;
        let one = b.slice(pairs, 4, i, 1)?;
        b.reshape(one, vec![batch, s, heads, half])
    };
    let (first, second) = (part(b, 0)?, part(b, 1)?);
    let left = [b.binary(BinaryOp::Mul, first, cos)?, b.binary(BinaryOp::Mul, second, sin)?];
    let right = [b.binary(BinaryOp::Mul, first, sin)?, b.binary(BinaryOp::Mul, second, cos)?];
    let left = b.binary(BinaryOp::Sub, left[0], left[1])?;
    let right = b.binary(BinaryOp::Add, right[0], right[1])?;
    if !interleaved {
        return b.concat(&[left, right], 3);
    }
    let mut halves = [left, right];
    for y in &mut halves {
        *y = b.reshape(*y, vec![batch, s, heads, half, 1])?;
    }
    let pairs = b.concat(&halves, 4)?;
    b.reshape(pairs, vec![batch, s, heads, width])
}
