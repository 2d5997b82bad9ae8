//! The shape rule of each operation: which types and shapes it takes, and which it gives.
//!
//! What passes here is safe to evaluate and to lower: every extent, index and attribute is in range.

use crate::ir::{BinaryOp, DType, Graph, Op, PadMode, ReduceKind, Repeat, Scatter, UnaryOp, Window};

/// Most elements of one tensor; a plan addresses less than 2 GiB.
pub const MAX_ELEMENTS: usize = 1 << 29;
/// Most dimensions, as the plan format has it.
pub const MAX_RANK: usize = 8;

/// A type and a shape.
pub type Typed = (DType, Vec<usize>);

/// Number of elements, if that many are allowed.
pub fn elements(shape: &[usize]) -> Result<usize, String> {
    if shape.len() > MAX_RANK {
        return Err(format!("a tensor has {} dimensions, at most {MAX_RANK} are supported", shape.len()));
    }
    shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .filter(|n| *n <= MAX_ELEMENTS)
        .ok_or_else(|| format!("a tensor of shape {shape:?} is larger than 2 GiB"))
}

/// numpy's rule: aligned at the last dimension, 1 repeats.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

fn same(a: DType, b: DType) -> Result<DType, String> {
    if a == b { Ok(a) } else { Err(format!("operands are of types {a} and {b}")) }
}

fn float(dtype: DType) -> Result<(), String> {
    if matches!(dtype, DType::F32 | DType::F64) { Ok(()) } else { Err(format!("not supported for {dtype}")) }
}

/// What has kernels of f32 only.
fn single(dtype: DType) -> Result<(), String> {
    if dtype == DType::F32 { Ok(()) } else { Err(format!("not supported for {dtype}")) }
}

/// Halves are stored, not computed in.
fn number(dtype: DType) -> Result<(), String> {
    if matches!(dtype, DType::F16 | DType::BF16) { Err(format!("not supported for {dtype}")) } else { Ok(()) }
}

fn index(dtype: DType) -> Result<(), String> {
    match dtype {
        DType::I32 | DType::I64 => Ok(()),
        other => Err(format!("indices are of type {other}")),
    }
}

fn axis(axis: usize, shape: &[usize]) -> Result<usize, String> {
    shape.get(axis).copied().ok_or_else(|| format!("axis {axis} of shape {shape:?}"))
}

/// Rows or columns that a window gives without ceil mode.
pub fn window_extent(input: usize, window: &Window, dim: usize) -> Option<usize> {
    let reach = (window.kernel[dim] - 1).checked_mul(window.dilations[dim])?.checked_add(1)?;
    let padded = input.checked_add(window.pads[dim])?.checked_add(window.pads[dim + 2])?;
    Some(padded.checked_sub(reach)? / window.strides[dim] + 1)
}

fn check_window(window: &Window) -> Result<(), String> {
    let all = window.kernel.iter().chain(&window.strides).chain(&window.dilations);
    let sane = |n: &usize| (1..=1 << 16).contains(n);
    if all.clone().all(sane) && window.pads.iter().all(|p| *p <= 1 << 16) {
        Ok(())
    } else {
        Err("the window has an extent, stride, dilation or padding that is 0 or above 65536".to_owned())
    }
}

/// Types and shapes of the outputs. `wanted` is what the importer asks for where the operation leaves it open.
pub fn outputs(op: &Op, inputs: &[(DType, &[usize])], wanted: Option<&Typed>) -> Result<Vec<Typed>, String> {
    let result = rule(op, inputs, wanted)?;
    for (_, shape) in &result {
        elements(shape)?;
    }
    Ok(result)
}

fn rule(op: &Op, inputs: &[(DType, &[usize])], wanted: Option<&Typed>) -> Result<Vec<Typed>, String> {
    let input = |i: usize| inputs.get(i).copied().ok_or_else(|| format!("input {i} is missing"));
    let wanted = || wanted.cloned().ok_or_else(|| "the output's shape is not known".to_owned());
    // Only a repeat may have no inputs.
    let (dtype, shape) = if let Op::Repeat(_) = op { (DType::F32, &[][..]) } else { input(0)? };
    let one = |dtype: DType, shape: Vec<usize>| Ok(vec![(dtype, shape)]);
    let along = |dim: usize, extent: usize| {
        let mut shape = shape.to_vec();
        shape[dim] = extent;
        shape
    };
    match op {
        Op::Unary(unary) => match unary {
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign => number(dtype).and_then(|()| one(dtype, shape.to_vec())),
            UnaryOp::Not if !dtype.is_float() => one(dtype, shape.to_vec()),
            UnaryOp::Not => Err(format!("not supported for {dtype}")),
            UnaryOp::IsNan => float(dtype).and_then(|()| one(DType::Bool, shape.to_vec())),
            _ => float(dtype).and_then(|()| one(dtype, shape.to_vec())),
        },
        Op::Binary(binary) => {
            let (other, b) = input(1)?;
            same(dtype, other)?;
            let unsigned = matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64);
            let fits = match binary {
                BinaryOp::Equal => true,
                BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => !dtype.is_float(),
                BinaryOp::Mod | BinaryOp::ShiftLeft => !dtype.is_float() && dtype != DType::Bool,
                BinaryOp::ShiftRight => unsigned,
                _ => dtype != DType::Bool,
            };
            if !fits {
                return Err(format!("{binary:?} is not supported for {dtype}"));
            }
            number(dtype)?;
            let dtype = match binary {
                BinaryOp::Equal | BinaryOp::Less | BinaryOp::LessOrEqual => DType::Bool,
                _ => dtype,
            };
            one(dtype, broadcast(shape, b)?)
        }
        Op::Select => {
            let ((a, sa), (b, sb)) = (input(1)?, input(2)?);
            if dtype != DType::Bool {
                return Err(format!("the condition is of type {dtype}"));
            }
            one(same(a, b)?, broadcast(&broadcast(shape, sa)?, sb)?)
        }
        Op::Cast => one(wanted()?.0, shape.to_vec()),
        Op::Conv { window, groups } => {
            let (_, w) = conv_operands(inputs, *groups, window)?;
            let extent = |dim: usize| {
                window_extent(shape[dim + 2], window, dim)
                    .ok_or_else(|| format!("the window is larger than the input {shape:?}"))
            };
            one(dtype, vec![shape[0], w[0], extent(0)?, extent(1)?])
        }
        Op::MatMul => {
            let (other, b) = input(1)?;
            same(dtype, other)?;
            if dtype == DType::Bool {
                return Err(format!("not supported for {dtype}"));
            }
            number(dtype)?;
            let (Some((lead_a, [m, k])), Some((lead_b, [k2, n]))) =
                (shape.split_last_chunk::<2>(), b.split_last_chunk::<2>())
            else {
                return Err("operands need two dimensions".to_owned());
            };
            if k != k2 {
                return Err(format!("shapes {shape:?} and {b:?} do not multiply"));
            }
            let mut out = broadcast(lead_a, lead_b)?;
            out.extend([*m, *n]);
            one(dtype, out)
        }
        Op::Pool { window, .. } => {
            single(dtype)?;
            check_window(window)?;
            let (_, out) = wanted()?;
            if shape.len() != 4 || out.len() != 4 || out[..2] != shape[..2] {
                return Err(format!("pooling of shape {shape:?} to {out:?}"));
            }
            one(dtype, out)
        }
        Op::Reduce { kind, axes } => {
            number(dtype)?;
            if dtype == DType::Bool || axes.is_empty() || !axes.is_sorted_by(|a, b| a < b) {
                return Err(format!("reduction of {dtype} over axes {axes:?}"));
            }
            let mut out = shape.to_vec();
            for dim in axes {
                if axis(*dim, shape)? == 0 && *kind == ReduceKind::Mean && !dtype.is_float() {
                    return Err("the mean of nothing".to_owned());
                }
                out[*dim] = 1;
            }
            one(dtype, out)
        }
        Op::ArgReduce { axis: dim, .. } => {
            number(dtype)?;
            if axis(*dim, shape)? == 0 {
                return Err("the largest of nothing".to_owned());
            }
            one(DType::I64, along(*dim, 1))
        }
        Op::Softmax { axis: dim, .. } => {
            single(dtype)?;
            axis(*dim, shape)?;
            one(dtype, shape.to_vec())
        }
        Op::CumSum { axis: dim, .. } => {
            number(dtype)?;
            axis(*dim, shape)?;
            one(dtype, shape.to_vec())
        }
        Op::TopK { axis: dim, .. } => {
            number(dtype)?;
            let (_, out) = wanted()?;
            let k = axis(*dim, &out)?;
            if k > axis(*dim, shape)? || out != along(*dim, k) {
                return Err(format!("the first {k} of shape {shape:?} along axis {dim}"));
            }
            Ok(vec![(dtype, out.clone()), (DType::I64, out)])
        }
        Op::Reshape => {
            let (_, out) = wanted()?;
            if elements(shape)? != elements(&out)? {
                return Err(format!("shape {shape:?} cannot become {out:?}"));
            }
            one(dtype, out)
        }
        Op::Transpose { perm } => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..shape.len()) {
                return Err(format!("{perm:?} is no permutation of {} dimensions", shape.len()));
            }
            one(dtype, perm.iter().map(|p| shape[*p]).collect())
        }
        Op::Expand => {
            let (_, out) = wanted()?;
            if broadcast(shape, &out)? != out {
                return Err(format!("shape {shape:?} does not broadcast to {out:?}"));
            }
            one(dtype, out)
        }
        Op::Concat { axis: dim } => {
            let mut total = 0usize;
            for (other, s) in inputs {
                same(dtype, *other)?;
                let extent = axis(*dim, s)?;
                if s.len() != shape.len() || *s != along(*dim, extent) {
                    return Err(format!("shapes {shape:?} and {s:?} cannot be joined along axis {dim}"));
                }
                total = total.saturating_add(extent);
            }
            one(dtype, along(*dim, total))
        }
        Op::Slice { starts, steps } => {
            let (_, out) = wanted()?;
            let inside = |d: usize| {
                let last = (starts[d] as i128) + (out[d] as i128 - 1) * (steps[d] as i128);
                out[d] == 0 || (steps[d] != 0 && starts[d] < shape[d] && last >= 0 && last < shape[d] as i128)
            };
            if [out.len(), starts.len(), steps.len()] != [shape.len(); 3] || !(0..shape.len()).all(inside) {
                return Err(format!("slice from {starts:?} by {steps:?} of shape {shape:?} to {out:?}"));
            }
            one(dtype, out)
        }
        Op::Pad { before, mode } => {
            let (_, out) = wanted()?;
            let fits = |d: usize| {
                let after = out[d] as i128 - shape[d] as i128 - before[d] as i128;
                let widest = (before[d] as i128).max(after);
                match mode {
                    PadMode::Constant(_) => true,
                    PadMode::Reflect => widest < shape[d] as i128,
                    PadMode::Edge | PadMode::Wrap => shape[d] > 0,
                }
            };
            if [out.len(), before.len()] != [shape.len(); 2] || !(0..shape.len()).all(fits) {
                return Err(format!("padding of shape {shape:?} by {before:?} to {out:?}"));
            }
            one(dtype, out)
        }
        Op::Gather { axis: dim } => {
            let (indices, s) = input(1)?;
            index(indices)?;
            let extent = axis(*dim, shape)?;
            let out = [&shape[..*dim], s, &shape[*dim + 1..]].concat();
            not_from_nothing(extent, &out)?;
            one(dtype, out)
        }
        Op::GatherElements { axis: dim } => {
            let (indices, s) = input(1)?;
            index(indices)?;
            let extent = axis(*dim, shape)?;
            fits_beside(shape, s, *dim)?;
            not_from_nothing(extent, s)?;
            one(dtype, s.to_vec())
        }
        Op::GatherNd { batch } => {
            let (indices, s) = input(1)?;
            index(indices)?;
            let (q, lead) = s.split_last().ok_or("indices need a dimension")?;
            if *batch > lead.len() || batch + q > shape.len() || lead[..*batch] != shape[..*batch] {
                return Err(format!("indices of shape {s:?} into shape {shape:?}"));
            }
            let out = [lead, &shape[batch + q..]].concat();
            not_from_nothing(shape[*batch..batch + q].iter().copied().min().unwrap_or(1), &out)?;
            one(dtype, out)
        }
        Op::ScatterElements { axis: dim, combine } => {
            combines(dtype, *combine)?;
            let ((indices, s), (updates, u)) = (input(1)?, input(2)?);
            index(indices)?;
            same(dtype, updates)?;
            let extent = axis(*dim, shape)?;
            fits_beside(shape, s, *dim)?;
            not_from_nothing(extent, s)?;
            if s != u {
                return Err(format!("indices {s:?} and updates {u:?} differ in shape"));
            }
            one(dtype, shape.to_vec())
        }
        Op::ScatterNd { combine } => {
            combines(dtype, *combine)?;
            let ((indices, s), (updates, u)) = (input(1)?, input(2)?);
            index(indices)?;
            same(dtype, updates)?;
            let (q, lead) = s.split_last().ok_or("indices need a dimension")?;
            if *q > shape.len() || u != [lead, &shape[*q..]].concat() {
                return Err(format!("indices {s:?} and updates {u:?} into shape {shape:?}"));
            }
            not_from_nothing(shape[..*q].iter().copied().min().unwrap_or(1), u)?;
            one(dtype, shape.to_vec())
        }
        Op::Resample { axis: dim, taps, indices, weights } => {
            let extent = axis(*dim, shape)?;
            if *taps == 0 || indices.len() % taps != 0 || indices.len() != weights.len() {
                return Err("a table of taps that does not fit".to_owned());
            }
            if indices.iter().any(|i| *i as usize >= extent) {
                return Err("a tap outside of the input".to_owned());
            }
            if *taps > 1 || weights.iter().any(|w| *w != 1.0) {
                single(dtype)?;
            }
            one(dtype, along(*dim, indices.len() / taps))
        }
        Op::NonZero => {
            if shape.is_empty() {
                return Err("a scalar has no indices".to_owned());
            }
            Ok(vec![(DType::I64, vec![shape.len(), elements(shape)?]), (DType::I64, Vec::new())])
        }
        Op::Unique { .. } => {
            let rows = *shape.first().ok_or("a scalar has no rows")?;
            if shape.contains(&0) {
                return Err("rows of nothing".to_owned());
            }
            let ints = || (DType::I64, vec![rows]);
            Ok(vec![(dtype, shape.to_vec()), ints(), ints(), ints(), (DType::I64, Vec::new())])
        }
        Op::Suppress { limit, iou, score, .. } => {
            let (other, s) = input(1)?;
            single(same(dtype, other)?)?;
            let (&[b, n, 4], &[b2, c, n2]) = (shape, s) else {
                return Err(format!("boxes of shape {shape:?} and scores of shape {s:?}"));
            };
            let room = b.checked_mul(c).and_then(|n| n.checked_mul(*limit)).ok_or("too many boxes")?;
            if b != b2 || n != n2 || room == 0 || *limit > n || iou.is_nan() || score.is_some_and(f32::is_nan) {
                return Err(format!("boxes of shape {shape:?} and scores of shape {s:?}, {limit} of them"));
            }
            Ok(vec![(DType::I64, vec![room, 3]), (DType::I64, Vec::new())])
        }
        Op::Repeat(repeat) => self::repeat(repeat, inputs),
        Op::Branch(branch) => {
            condition(inputs)?;
            let captured = || inputs[1..].iter().copied();
            let outputs = |graph: &Graph| graph.output_types().map(|(d, s)| (d, s.to_vec())).collect::<Vec<_>>();
            let fits = |graph: &Graph| graph.input_types().eq(captured());
            let (then, otherwise) = (outputs(&branch.then), outputs(&branch.otherwise));
            if !fits(&branch.then) || !fits(&branch.otherwise) || then != otherwise || then.is_empty() {
                return Err("the branches do not take and give the same tensors".to_owned());
            }
            Ok(then)
        }
    }
}

fn condition(inputs: &[(DType, &[usize])]) -> Result<(), String> {
    match inputs.first() {
        Some((DType::Bool, shape)) if shape.iter().product::<usize>() == 1 => Ok(()),
        _ => Err("the condition is no Boolean of one element".to_owned()),
    }
}

/// Most rounds of a repeat.
pub const MAX_ROUNDS: usize = 1 << 20;

fn repeat(repeat: &Repeat, inputs: &[(DType, &[usize])]) -> Result<Vec<Typed>, String> {
    let Repeat { count, gated, carries, scans, stacked, body } = repeat;
    if !(1..=MAX_ROUNDS).contains(count) {
        return Err(format!("{count} rounds; from 1 to {MAX_ROUNDS} are supported"));
    }
    if *gated {
        condition(inputs)?;
    }
    let outer = carries + scans.len();
    if inputs.len() < outer || body.inputs.len() != inputs.len() || body.outputs.len() != carries + stacked.len() {
        return Err("a body that does not take and give what is repeated".to_owned());
    }
    for (i, (taken, (dtype, shape))) in body.input_types().zip(inputs).enumerate() {
        let given = if (*carries..outer).contains(&i) {
            match shape.split_first() {
                Some((rows, row)) if rows == count => row,
                _ => return Err(format!("{count} rounds over shape {shape:?}")),
            }
        } else {
            shape
        };
        if taken != (*dtype, given) {
            return Err(format!("a body that takes {taken:?} is given {dtype} {given:?}"));
        }
    }
    let mut outputs = Vec::new();
    for (i, (dtype, shape)) in body.output_types().enumerate() {
        if i >= *carries {
            outputs.push((dtype, [&[*count], shape].concat()));
        } else if body.input_types().nth(i) == Some((dtype, shape)) {
            outputs.push((dtype, shape.to_vec()));
        } else {
            return Err(format!("what carry {i} becomes has another type or shape: {dtype} {shape:?}"));
        }
    }
    if outputs.is_empty() { Err("nothing comes of the repeat".to_owned()) } else { Ok(outputs) }
}

/// Halves and Booleans are only replaced.
fn combines(dtype: DType, combine: Scatter) -> Result<(), String> {
    match combine {
        Scatter::Set => Ok(()),
        _ if dtype == DType::Bool => Err(format!("{combine:?} is not supported for {dtype}")),
        _ => number(dtype),
    }
}

fn not_from_nothing(extent: usize, out: &[usize]) -> Result<(), String> {
    if extent == 0 && !out.contains(&0) { Err("an element of nothing".to_owned()) } else { Ok(()) }
}

fn fits_beside(shape: &[usize], indices: &[usize], dim: usize) -> Result<(), String> {
    let fits = |d: usize| d == dim || indices[d] <= shape[d];
    if shape.len() == indices.len() && (0..shape.len()).all(fits) {
        Ok(())
    } else {
        Err(format!("indices of shape {indices:?} into shape {shape:?} along axis {dim}"))
    }
}

type Operands<'a> = (&'a [usize], &'a [usize]);

fn conv_operands<'a>(inputs: &[(DType, &'a [usize])], groups: usize, window: &Window) -> Result<Operands<'a>, String> {
    check_window(window)?;
    let [(a, x), (b, w), rest @ ..] = inputs else { return Err("input or weights are missing".to_owned()) };
    if rest.len() > 1 {
        return Err("more than three inputs".to_owned());
    }
    let dtype = same(*a, *b)?;
    if !matches!(dtype, DType::F32 | DType::I32 | DType::F64) {
        return Err(format!("not supported for {dtype}"));
    }
    if x.len() != 4 || w.len() != 4 || w[2..] != window.kernel || groups == 0 {
        return Err(format!("input of shape {x:?}, weights of shape {w:?}"));
    }
    let (channels, planes) = (w[1].checked_mul(groups).ok_or("too many planes")?, w[0]);
    if x[1] != channels || channels % groups != 0 || planes % groups != 0 {
        return Err(format!("input of shape {x:?}, weights of shape {w:?}, {groups} groups"));
    }
    if let Some((other, bias)) = rest.first() {
        same(dtype, *other)?;
        if *bias != [planes] {
            return Err(format!("a bias of shape {bias:?} for {planes} planes"));
        }
    }
    Ok((x, w))
}
