//! Recurrent layers, unrolled: sequences have a fixed length here. The product with the input is one for all steps.

use crate::ir::{BinaryOp, DType, Op, UnaryOp, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::Call;

/// Most steps of one layer, both directions together: each is about twenty operations.
const MAX_STEPS: usize = 1024;

/// Which layer; gates in the order that ONNX packs them.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    /// input, output, forget, cell
    Lstm,
    /// update, reset, hidden
    Gru { linear_before_reset: bool },
    /// one
    Plain,
}

impl Cell {
    const fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
            Self::Plain => 1,
        }
    }

    const fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Plain => &["Tanh"],
        }
    }
}

pub(super) fn lstm(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    layer(call, Cell::Lstm)
}

pub(super) fn gru(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let linear_before_reset = call.flag("linear_before_reset", false);
    layer(call, Cell::Gru { linear_before_reset })
}

pub(super) fn rnn(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    layer(call, Cell::Plain)
}

/// `len` indices of dimension `axis` from `start` on.
fn slice(b: &mut Builder, x: ValueId, axis: usize, start: usize, len: usize) -> Result<ValueId> {
    let mut shape = b.shape(x).to_vec();
    let mut starts = vec![0; shape.len()];
    (starts[axis], shape[axis]) = (start, len);
    let steps = vec![1; shape.len()];
    let dtype = b.dtype(x);
    b.one(Op::Slice { starts, steps }, &[x], Some((dtype, shape)))
}

/// One matrix of a stack, without the first dimension.
fn pick(b: &mut Builder, x: ValueId, index: usize) -> Result<ValueId> {
    let shape = b.shape(x)[1..].to_vec();
    let one = slice(b, x, 0, index, 1)?;
    b.reshape(one, shape)
}

/// What only one direction reads.
struct Direction {
    /// `[seq, batch, gates · hidden]`: input times weights, biases that may be added early included.
    inputs: ValueId,
    /// `[hidden, gates · hidden]`
    recurrence: ValueId,
    /// `[gates · hidden]`: the recurrence's bias.
    bias: ValueId,
}

fn check(call: &Call<'_, '_>, cell: Cell, steps: usize, directions: usize) -> Result<()> {
    for name in ["clip", "activation_alpha", "activation_beta", "input_forget"] {
        if call.attribute(name).is_some() && (name != "input_forget" || call.flag(name, false)) {
            return unsupported(name);
        }
    }
    if let Some(given) = call.attribute("activations") {
        let wanted = cell.activations().iter().cycle().take(cell.activations().len() * directions);
        if !given.texts.iter().copied().eq(wanted.map(|w| w.as_bytes())) {
            return unsupported("other activations than Sigmoid and Tanh");
        }
    }
    if call.known_ints(4)?.is_some_and(|lens| lens.iter().any(|l| *l != steps as i64)) {
        return unsupported("sequences shorter than the input");
    }
    if call.optional(7).is_some() && cell == Cell::Lstm {
        return unsupported("peepholes");
    }
    if steps.saturating_mul(directions) > MAX_STEPS {
        return unsupported(format!("{steps} steps in {directions} directions; at most {MAX_STEPS} are unrolled"));
    }
    Ok(())
}

fn layer(call: &mut Call<'_, '_>, cell: Cell) -> Result<Vec<ValueId>> {
    let (mut x, w, r) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let batch_first = call.flag("layout", false);
    if call.b.rank(x) != 3 || call.b.rank(w) != 3 || call.b.rank(r) != 3 {
        return invalid("input, weights and recurrence need three dimensions");
    }
    if batch_first {
        x = call.b.transpose(x, vec![1, 0, 2])?;
    }
    let (&[steps, batch, width], &[directions, _, hidden]) = (call.b.shape(x), call.b.shape(r)) else {
        return invalid("input and recurrence need three dimensions");
    };
    let gates = cell.gates();
    let backward = match call.text("direction", "forward").as_str() {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => return invalid(format!("direction {other:?}")),
    };
    if call.b.shape(w) != [directions, gates * hidden, width]
        || call.b.shape(r) != [directions, gates * hidden, hidden]
        || directions != backward.len()
        || steps == 0
    {
        return invalid("weights that do not fit the input");
    }
    check(call, cell, steps, directions)?;
    let (mut all, mut last_h, mut last_c) = (Vec::new(), Vec::new(), Vec::new());
    for (d, backward) in backward.into_iter().enumerate() {
        let direction = direction(call, x, d, gates, hidden)?;
        let mut h = state(call, 5, d, [batch, hidden], batch_first)?;
        let mut c = if cell == Cell::Lstm { state(call, 6, d, [batch, hidden], batch_first)? } else { h };
        let mut outputs = vec![h; steps];
        for step in 0..steps {
            let t = if backward { steps - 1 - step } else { step };
            let given = pick(call.b, direction.inputs, t)?;
            (h, c) = match cell {
                Cell::Lstm => lstm_step(call.b, &direction, given, h, c, hidden)?,
                Cell::Gru { linear_before_reset } => {
                    (gru_step(call.b, &direction, given, h, hidden, linear_before_reset)?, c)
                }
                Cell::Plain => {
                    let product = recur(call.b, &direction, h, 0, hidden)?;
                    let sum = call.b.binary(BinaryOp::Add, given, product)?;
                    (call.b.unary(UnaryOp::Tanh, sum)?, c)
                }
            };
            outputs[t] = h;
        }
        let b = &mut *call.b;
        let rows = outputs.into_iter().map(|y| b.reshape(y, vec![1, 1, batch, hidden])).collect::<Result<Vec<_>>>()?;
        all.push(b.one(Op::Concat { axis: 0 }, &rows, None)?);
        last_h.push(b.reshape(h, vec![1, batch, hidden])?);
        last_c.push(b.reshape(c, vec![1, batch, hidden])?);
    }
    let mut y = call.b.one(Op::Concat { axis: 1 }, &all, None)?;
    let mut ends =
        [call.b.one(Op::Concat { axis: 0 }, &last_h, None)?, call.b.one(Op::Concat { axis: 0 }, &last_c, None)?];
    if batch_first {
        y = call.b.transpose(y, vec![2, 0, 1, 3])?;
        for end in &mut ends {
            *end = call.b.transpose(*end, vec![1, 0, 2])?;
        }
    }
    let [h, c] = ends;
    Ok(if cell == Cell::Lstm { vec![y, h, c] } else { vec![y, h] })
}

fn direction(call: &mut Call<'_, '_>, x: ValueId, d: usize, gates: usize, hidden: usize) -> Result<Direction> {
    let (w, r) = (call.input(1)?, call.input(2)?);
    let bias = call.optional(3);
    let b = &mut *call.b;
    let size = gates * hidden;
    let w = pick(b, w, d)?;
    let w = b.transpose(w, vec![1, 0])?;
    let r = pick(b, r, d)?;
    let recurrence = b.transpose(r, vec![1, 0])?;
    let mut inputs = b.one(Op::MatMul, &[x, w], None)?;
    let bias = match bias {
        Some(bias) => {
            if b.shape(bias).get(1) != Some(&(2 * size)) {
                return invalid("a bias that does not fit");
            }
            let bias = pick(b, bias, d)?;
            let early = slice(b, bias, 0, 0, size)?;
            inputs = b.binary(BinaryOp::Add, inputs, early)?;
            slice(b, bias, 0, size, size)?
        }
        None => {
            let zero = b.scalar(DType::F32, 0.0);
            b.expand(zero, vec![size])?
        }
    };
    Ok(Direction { inputs, recurrence, bias })
}

/// The state at the start: given, or zeros.
fn state(call: &mut Call<'_, '_>, i: usize, d: usize, shape: [usize; 2], batch_first: bool) -> Result<ValueId> {
    match call.optional(i) {
        Some(mut x) => {
            if call.b.rank(x) != 3 {
                return invalid("a state needs three dimensions");
            }
            if batch_first {
                x = call.b.transpose(x, vec![1, 0, 2])?;
            }
            let state = slice(call.b, x, 0, d, 1)?;
            call.b.reshape(state, shape.to_vec())
        }
        None => {
            let zero = call.b.scalar(DType::F32, 0.0);
            call.b.expand(zero, shape.to_vec())
        }
    }
}

/// State times recurrence, and its bias, for columns `from .. from + len` of the gates.
fn recur(b: &mut Builder, direction: &Direction, h: ValueId, from: usize, len: usize) -> Result<ValueId> {
    let r = slice(b, direction.recurrence, 1, from, len)?;
    let bias = slice(b, direction.bias, 0, from, len)?;
    let product = b.one(Op::MatMul, &[h, r], None)?;
    b.binary(BinaryOp::Add, product, bias)
}

fn lstm_step(
    b: &mut Builder,
    direction: &Direction,
    given: ValueId,
    h: ValueId,
    c: ValueId,
    hidden: usize,
) -> Result<(ValueId, ValueId)> {
    let product = recur(b, direction, h, 0, 4 * hidden)?;
    let gates = b.binary(BinaryOp::Add, given, product)?;
    let [i, o, f, g] = [0, 1, 2, 3].map(|k| slice(b, gates, 1, k * hidden, hidden));
    let i = b.unary(UnaryOp::Sigmoid, i?)?;
    let o = b.unary(UnaryOp::Sigmoid, o?)?;
    let f = b.unary(UnaryOp::Sigmoid, f?)?;
    let g = b.unary(UnaryOp::Tanh, g?)?;
    let kept = b.binary(BinaryOp::Mul, f, c)?;
    let new = b.binary(BinaryOp::Mul, i, g)?;
    let c = b.binary(BinaryOp::Add, kept, new)?;
    let shown = b.unary(UnaryOp::Tanh, c)?;
    Ok((b.binary(BinaryOp::Mul, o, shown)?, c))
}

fn gru_step(
    b: &mut Builder,
    direction: &Direction,
    given: ValueId,
    h: ValueId,
    hidden: usize,
    linear_before_reset: bool,
) -> Result<ValueId> {
    let product = recur(b, direction, h, 0, 2 * hidden)?;
    let first = slice(b, given, 1, 0, 2 * hidden)?;
    let gates = b.binary(BinaryOp::Add, first, product)?;
    let gates = b.unary(UnaryOp::Sigmoid, gates)?;
    let (z, r) = (slice(b, gates, 1, 0, hidden)?, slice(b, gates, 1, hidden, hidden)?);
    let remembered = if linear_before_reset {
        let product = recur(b, direction, h, 2 * hidden, hidden)?;
        b.binary(BinaryOp::Mul, r, product)?
    } else {
        let reset = b.binary(BinaryOp::Mul, r, h)?;
        recur(b, direction, reset, 2 * hidden, hidden)?
    };
    let candidate = slice(b, given, 1, 2 * hidden, hidden)?;
    let candidate = b.binary(BinaryOp::Add, candidate, remembered)?;
    let candidate = b.unary(UnaryOp::Tanh, candidate)?;
    // (1 − z) · candidate + z · h
    let one = b.scalar(DType::F32, 1.0);
    let open = b.binary(BinaryOp::Sub, one, z)?;
    let new = b.binary(BinaryOp::Mul, open, candidate)?;
    let kept = b.binary(BinaryOp::Mul, z, h)?;
    b.binary(BinaryOp::Add, new, kept)
}
