//! Operators whose results have as many rows as the data says.

use crate::ir::{DType, Op, Tensor, ValueId};

use super::super::build::{Result, invalid, unsupported};
use super::super::call::{Call, extent};

pub(super) fn non_zero(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let mut x = call.input(0)?;
    call.b.whole(x)?;
    if call.b.rank(x) == 0 {
        x = call.b.reshape(x, vec![1])?;
    }
    let found = call.b.apply(Op::NonZero, &[x], None)?;
    Ok(vec![call.b.count(found[0], found[1], 1)?])
}

/// Rows that a list of Booleans marks: their indices, then those rows.
pub(super) fn compress(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (mut x, marks) = (call.input(0)?, call.input(1)?);
    call.b.whole(marks)?;
    let axis = match call.integer("axis") {
        Some(axis) => call.axis(axis, call.b.rank(x))?,
        None => {
            let elements = call.b.shape(x).iter().product();
            call.b.whole(x)?;
            x = call.b.reshape(x, vec![elements])?;
            0
        }
    };
    let &[most] = call.b.shape(marks) else { return invalid("a condition that is no list") };
    if most > call.b.shape(x)[axis] || call.b.dtype(marks) != DType::Bool {
        return invalid("a condition that does not fit");
    }
    let found = call.b.apply(Op::NonZero, &[marks], None)?;
    let indices = call.b.count(found[0], found[1], 1)?;
    let rows = call.b.shape(indices)[1];
    let indices = call.b.reshape(indices, vec![rows])?;
    Ok(vec![call.b.one(Op::Gather { axis }, &[x, indices], None)?])
}

pub(super) fn unique(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let x = call.input(0)?;
    call.b.whole(x)?;
    let sorted = call.flag("sorted", true);
    let rank = call.b.rank(x);
    let axis = call.integer("axis").map(|a| call.axis(a, rank)).transpose()?;
    let rows = match axis {
        Some(axis) => {
            let mut perm: Vec<usize> = (0..rank).filter(|d| *d != axis).collect();
            perm.insert(0, axis);
            call.b.transpose(x, perm)?
        }
        None => {
            let elements = call.b.shape(x).iter().product();
            call.b.reshape(x, vec![elements])?
        }
    };
    let found = call.b.apply(Op::Unique { sorted }, &[rows], None)?;
    let &[values, first, inverse, counts, count] = found.as_slice() else { return invalid("outputs") };
    let mut values = call.b.count(values, count, 0)?;
    if let Some(axis) = axis {
        let mut perm: Vec<usize> = (1..rank).collect();
        perm.insert(axis, 0);
        values = call.b.transpose(values, perm)?;
    }
    Ok(vec![values, call.b.count(first, count, 0)?, inverse, call.b.count(counts, count, 0)?])
}

pub(super) fn non_max_suppression(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let (boxes, scores) = (call.input(0)?, call.input(1)?);
    let first = |list: Option<Vec<f32>>| list.and_then(|l| l.first().copied());
    let limit = call.known_ints(2)?.and_then(|l| l.first().copied()).unwrap_or(0);
    let iou = first(call.known_floats(3)?).unwrap_or(0.0);
    let score = first(call.known_floats(4)?);
    let centered = match call.int("center_point_box", 0) {
        0 => false,
        1 => true,
        other => return unsupported(format!("center_point_box {other}")),
    };
    if !(0.0..=1.0).contains(&iou) || score.is_some_and(f32::is_nan) {
        return invalid("a threshold outside of 0 to 1");
    }
    let limit = extent(limit.max(0).min(call.b.shape(boxes).get(1).map_or(0, |n| *n as i64)))?;
    if limit == 0 {
        return Ok(vec![call.b.constant(Tensor::int(DType::I64, vec![0, 3], Vec::new()))]);
    }
    let found = call.b.apply(Op::Suppress { limit, centered, iou, score }, &[boxes, scores], None)?;
    Ok(vec![call.b.count(found[0], found[1], 0)?])
}
