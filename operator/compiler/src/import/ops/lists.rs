//! Sequences and optionals. Their lengths are known while a model is imported, so they are lists of the importer's and nothing of
//! them is left in a plan.

use crate::ir::{DType, Op, Tensor, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::{Call, extent};
use super::layout::split_sizes;

/// Most tensors of one sequence.
const MAX_ITEMS: usize = 1 << 12;

/// Whether an operator takes sequences and optionals.
pub(in super::super) fn takes(operator: &str) -> bool {
    matches!(
        operator,
        "SequenceAt"
            | "SequenceInsert"
            | "SequenceErase"
            | "SequenceLength"
            | "ConcatFromSequence"
            | "SequenceMap"
            | "Identity"
            | "Optional"
            | "OptionalHasElement"
            | "OptionalGetElement"
    )
}

/// The items of a sequence that is input `i`.
fn items(call: &Call<'_, '_>, i: usize) -> Result<Vec<ValueId>> {
    match call.optional(i).and_then(|id| call.b.list(id)) {
        Some(items) => Ok(items.to_vec()),
        None => invalid(format!("input {i} is no sequence")),
    }
}

fn made(b: &mut Builder, items: Vec<ValueId>) -> Result<Vec<ValueId>> {
    if items.len() > MAX_ITEMS {
        return unsupported(format!("a sequence of {} tensors; at most {MAX_ITEMS}", items.len()));
    }
    Ok(vec![b.add_list(items)])
}

/// A position in a sequence of `len`; `limit` is the first that is not allowed.
fn position(call: &Call<'_, '_>, i: usize, len: usize, limit: usize) -> Result<Option<usize>> {
    let Some(position) = call.known_ints(i)? else { return Ok(None) };
    let [position] = position[..] else { return invalid("a position that is not one number") };
    let from_end = if position < 0 { position.saturating_add(len as i64) } else { position };
    match usize::try_from(from_end) {
        Ok(p) if p < limit => Ok(Some(p)),
        _ => invalid(format!("position {position} of a sequence of {len}")),
    }
}

pub(super) fn construct(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let items = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Result<_>>()?;
    made(call.b, items)
}

pub(super) fn empty(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    made(call.b, Vec::new())
}

pub(super) fn at(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let items = items(call, 0)?;
    match position(call, 1, items.len(), items.len())? {
        Some(p) => Ok(vec![items[p]]),
        None => invalid("it has no position"),
    }
}

pub(super) fn insert(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut items = items(call, 0)?;
    let tensor = call.input(1)?;
    let place = position(call, 2, items.len(), items.len() + 1)?.unwrap_or(items.len());
    items.insert(place, tensor);
    made(call.b, items)
}

pub(super) fn erase(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut items = items(call, 0)?;
    let Some(last) = items.len().checked_sub(1) else { return invalid("nothing to erase from an empty sequence") };
    let place = position(call, 1, items.len(), items.len())?.unwrap_or(last);
    items.remove(place);
    made(call.b, items)
}

pub(super) fn length(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let count = items(call, 0)?.len() as i64;
    Ok(vec![call.b.constant(Tensor::int(DType::I64, Vec::new(), vec![count]))])
}

/// Into equal parts of an extent, into parts of given extents, or into single elements, which may lose their dimension.
pub(super) fn split(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    let shape = call.b.shape(x).to_vec();
    let axis = call.axis(call.int("axis", 0), shape.len())?;
    let single = call.optional(1).is_none();
    let sizes = match call.known(1)? {
        None => vec![1; shape[axis]],
        Some(sizes) if sizes.shape.is_empty() => {
            let each = extent(sizes.ints().first().copied().unwrap_or(0))?;
            if each == 0 {
                return invalid("parts of no extent");
            }
            (0..shape[axis].div_ceil(each)).map(|i| each.min(shape[axis] - i * each)).collect()
        }
        Some(sizes) => sizes.ints().iter().map(|s| extent(*s)).collect::<Result<_>>()?,
    };
    if sizes.len() > MAX_ITEMS {
        return unsupported(format!("a sequence of {} tensors; at most {MAX_ITEMS}", sizes.len()));
    }
    let mut parts = split_sizes(call.b, x, axis, &sizes)?;
    let keep = call.flag("keepdims", true);
    if single && !keep {
        for part in &mut parts {
            let mut shape = shape.clone();
            shape.remove(axis);
            *part = call.b.reshape(*part, shape)?;
        }
    }
    made(call.b, parts)
}

pub(super) fn concat(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut items = items(call, 0)?;
    let Some(first) = items.first() else { return invalid("nothing to join in an empty sequence") };
    let new = call.flag("new_axis", false);
    let rank = call.b.rank(*first) + usize::from(new);
    let axis = call.axis(call.int("axis", 0), rank)?;
    if new {
        for item in &mut items {
            let mut shape = call.b.shape(*item).to_vec();
            if axis > shape.len() {
                return invalid("tensors of different ranks");
            }
            shape.insert(axis, 1);
            *item = call.b.reshape(*item, shape)?;
        }
    }
    Ok(vec![call.b.one(Op::Concat { axis }, &items, None)?])
}

/// What is there is itself; what is not is an empty list that is no sequence.
pub(super) fn optional(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    match call.optional(0) {
        Some(x) => Ok(vec![x]),
        None => Ok(vec![call.b.add_absent()]),
    }
}

pub(super) fn has_element(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let there = call.optional(0).is_some_and(|id| !call.b.is_absent(id));
    Ok(vec![call.b.constant(Tensor::int(DType::Bool, Vec::new(), vec![i64::from(there)]))])
}

pub(super) fn get_element(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    match call.optional(0) {
        Some(x) if !call.b.is_absent(x) => Ok(vec![x]),
        _ => invalid("an element of an optional that is empty"),
    }
}
