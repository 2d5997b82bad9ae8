//! BERT's first layer.

use crate::ir::{BinaryOp, DType, Op, ReduceKind, ValueId};

use super::super::super::build::{Result, invalid};
use super::super::super::call::Call;
use super::super::normalize::standardize;

/// `ids [b, s], segments? [b, s], words [v, h], positions [p, h], segment table?, gamma, beta, mask? [b, s], position ids?` to the
/// normalised sum of embeddings, the mask's index, and the sum itself.
pub(super) fn layer(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (ids, words, positions) = (call.input(0)?, call.input(2)?, call.input(3)?);
    let &[batch, length] = call.b.shape(ids) else { return invalid("its ids need two dimensions") };
    let epsilon = call.float("epsilon", 1e-12);
    let rows = |call: &mut Call<'_, '_>, table, index| call.b.one(Op::Gather { axis: 0 }, &[table, index], None);
    let word = rows(call, words, ids)?;
    let position = match call.optional(8) {
        Some(index) => rows(call, positions, index)?,
        None => {
            if call.b.shape(positions).first().is_none_or(|n| *n < length) {
                return invalid(format!("{length} positions are more than its table has"));
            }
            call.b.slice(positions, 0, 0, length)?
        }
    };
    let mut sum = call.b.binary(BinaryOp::Add, word, position)?;
    if let (Some(segments), Some(table)) = (call.optional(1), call.optional(4)) {
        let segment = rows(call, table, segments)?;
        sum = call.b.binary(BinaryOp::Add, sum, segment)?;
    }
    let (gamma, beta) = (call.input(5)?, call.input(6)?);
    let [y, ..] = standardize(call.b, sum, &[2], epsilon)?;
    let y = call.b.binary(BinaryOp::Mul, y, gamma)?;
    let y = call.b.binary(BinaryOp::Add, y, beta)?;
    let index = match call.optional(7) {
        // How many are not masked: of the first ones, as BERT's masks are.
        Some(mask) if call.int("mask_index_type", 0) == 1 || call.attribute("mask_index_type").is_none() => {
            let count = call.b.one(Op::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[mask], None)?;
            call.b.reshape(count, vec![batch])?
        }
        _ => {
            let zero = call.b.scalar(DType::I32, 0.0);
            call.b.expand(zero, vec![batch])?
        }
    };
    Ok(vec![y, index, sum])
}
