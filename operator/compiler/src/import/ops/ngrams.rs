//! `TfIdfVectorizer` on integers: how often each n-gram of a known vocabulary occurs in each row.

use crate::ir::{BinaryOp, DType, ReduceKind, Tensor, ValueId};

use super::super::build::{Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::compose::{bounded, cut, product, reduce};

/// Most different distances between the elements of an n-gram, times the sizes of n-grams.
const MAX_PASSES: usize = 256;

/// Each n-gram is compared with all places at once, for each distance that its elements may have.
pub(super) fn tf_idf(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let mode = call.text("mode", "");
    if !matches!(mode.as_str(), "TF" | "IDF" | "TFIDF") {
        return invalid(format!("mode {mode:?}"));
    }
    let Some(pool) = call.ints("pool_int64s") else { return unsupported("a vocabulary of strings") };
    let counts = call.ints("ngram_counts").unwrap_or_default();
    let columns = call.ints("ngram_indexes").unwrap_or_default();
    let weights = call.floats("weights").map(<[f32]>::to_vec);
    let (least, most) = (extent(call.int("min_gram_length", 1))?, extent(call.int("max_gram_length", 1))?);
    let skips = extent(call.int("max_skip_count", 0))?;
    let b = &mut *call.b;
    if !matches!(b.dtype(x), DType::I32 | DType::I64) {
        return invalid(format!("elements of {}", b.dtype(x)));
    }
    let shape = b.shape(x).to_vec();
    let (rows, length) = match shape[..] {
        [length] => (1, length),
        [rows, length] => (rows, length),
        _ => return invalid(format!("a tensor of shape {shape:?}")),
    };
    let Some(width) = columns.iter().max().and_then(|m| usize::try_from(*m).ok()).map(|m| m + 1) else {
        return invalid("ngram_indexes");
    };
    if most.saturating_mul(skips + 1) > MAX_PASSES {
        return unsupported(format!("n-grams of {most} with {skips} elements left out"));
    }
    bounded(width.saturating_mul(columns.len()))?;
    let x = b.reshape(x, vec![rows, length])?;
    let dtype = b.dtype(x);
    let zero = b.scalar(DType::F32, 0.0);
    let mut total = b.expand(zero, vec![rows, width])?;
    let mut first = 0;
    for (i, &start) in counts.iter().enumerate() {
        let size = i + 1;
        let (start, end) = (extent(start)?, counts.get(i + 1).map_or(Ok(pool.len()), |e| extent(*e))?);
        let Some(grams) = pool.get(start..end) else { return invalid(format!("ngram_counts {counts:?}")) };
        let number = grams.len() / size;
        let Some(places) = columns.get(first..first + number) else { return invalid("ngram_indexes") };
        first += number;
        if number == 0 || size < least || size > most {
            continue;
        }
        // Which column each n-gram counts in.
        let mut table = vec![0.0; number * width];
        for (gram, column) in places.iter().enumerate() {
            let Some(cell) = usize::try_from(*column).ok().and_then(|c| table.get_mut(gram * width + c)) else {
                return invalid(format!("ngram_indexes {columns:?}"));
            };
            *cell = 1.0;
        }
        let table = b.constant(Tensor::f32(vec![number, width], table));
        for distance in 1..=if size == 1 { 1 } else { skips + 1 } {
            let Some(starts) = length.checked_sub((size - 1) * distance).filter(|s| *s > 0) else { continue };
            bounded(rows.saturating_mul(starts).saturating_mul(number))?;
            let mut hit: Option<ValueId> = None;
            for k in 0..size {
                let there = cut(b, x, 1, k * distance, starts, 1)?;
                let there = b.reshape(there, vec![rows, starts, 1])?;
                let wanted = grams.chunks_exact(size).map(|g| g[k]).collect();
                let wanted = b.constant(Tensor::int(dtype, vec![number], wanted));
                let equal = b.binary(BinaryOp::Equal, there, wanted)?;
                hit = Some(match hit {
                    Some(hit) => b.binary(BinaryOp::And, hit, equal)?,
                    None => equal,
                });
            }
            let Some(hit) = hit else { continue };
            let found = b.cast(hit, DType::F32)?;
            let found = reduce(b, ReduceKind::Sum, found, &[1])?;
            let found = b.reshape(found, vec![rows, number])?;
            let found = product(b, found, table)?;
            total = b.binary(BinaryOp::Add, total, found)?;
        }
    }
    if mode == "IDF" {
        total = b.with(BinaryOp::Min, total, 1.0)?;
    }
    if let (Some(weights), true) = (weights, mode != "TF") {
        if weights.len() < width {
            return invalid(format!("{} weights for {width} columns", weights.len()));
        }
        let weights = b.constant(Tensor::f32(vec![width], weights[..width].to_vec()));
        total = b.binary(BinaryOp::Mul, total, weights)?;
    }
    let out = if shape.len() == 1 { vec![width] } else { vec![rows, width] };
    Ok(vec![b.reshape(total, out)?])
}
