//! Recurrent layers. Sequences have a fixed length here: short ones are written out, longer ones repeat one step, whose states
//! are what the loop carries. The product with the input is one for all steps.

mod cell;

use crate::ir::{BinaryOp, DType, Op, ValueId};

use super::super::build::{Builder, Result, invalid, unsupported};
use super::super::call::Call;
use super::activations;

/// Steps that are written out: what is around them fuses with them.
const MAX_UNROLLED: usize = 8;

/// Which layer; gates in the order that ONNX packs them.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    /// input, output, forget, cell
    Lstm {
        /// The forget gate is what the input gate leaves.
        input_forget: bool,
    },
    /// update, reset, hidden
    Gru { linear_before_reset: bool },
    /// one
    Plain,
}

impl Cell {
    const fn gates(self) -> usize {
        match self {
            Self::Lstm { .. } => 4,
            Self::Gru { .. } => 3,
            Self::Plain => 1,
        }
    }

    const fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Lstm { .. } => &["sigmoid", "tanh", "tanh"],
            Self::Gru { .. } => &["sigmoid", "tanh"],
            Self::Plain => &["tanh"],
        }
    }
}

pub(super) fn lstm(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let input_forget = call.flag("input_forget", false);
    layer(call, Cell::Lstm { input_forget })
}

pub(super) fn gru(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    let linear_before_reset = call.flag("linear_before_reset", false);
    layer(call, Cell::Gru { linear_before_reset })
}

pub(super) fn rnn(call: &mut Call<'_, '_>) -> Result<Vec<ValueId>> {
    layer(call, Cell::Plain)
}

/// One matrix of a stack, without the first dimension.
fn pick(b: &mut Builder, x: ValueId, index: usize) -> Result<ValueId> {
    let shape = b.shape(x)[1..].to_vec();
    let one = b.slice(x, 0, index, 1)?;
    b.reshape(one, shape)
}

/// An activation by its name in lower case, with its parameters.
struct Activation {
    name: String,
    parameters: Vec<Option<f64>>,
}

/// What only one direction reads.
struct Direction {
    /// `[seq, batch, gates · hidden]`: input times weights, biases that may be added early included.
    inputs: ValueId,
    /// `[hidden, gates · hidden]`
    recurrence: ValueId,
    /// `[gates · hidden]`: the recurrence's bias.
    bias: ValueId,
    /// `[3 · hidden]`: input, output, forget.
    peepholes: Option<ValueId>,
    /// In ONNX's order: f, g, h.
    activations: Vec<Activation>,
    /// What goes into an activation is held within ± this.
    clip: Option<f64>,
    hidden: usize,
}

impl Direction {
    /// Clipped and activated.
    fn activate(&self, b: &mut Builder, which: usize, x: ValueId) -> Result<ValueId> {
        let mut x = x;
        if let Some(clip) = self.clip {
            x = b.with(BinaryOp::Max, x, -clip)?;
            x = b.with(BinaryOp::Min, x, clip)?;
        }
        self.activate_only(b, which, x)
    }

    fn activate_only(&self, b: &mut Builder, which: usize, x: ValueId) -> Result<ValueId> {
        match self.activations.get(which) {
            Some(Activation { name, parameters }) => activations::named(b, name, x, parameters),
            None => invalid("too few activations"),
        }
    }

    /// State times recurrence, and its bias, for columns `from .. from + len` of the gates.
    fn recur(&self, b: &mut Builder, h: ValueId, from: usize, len: usize) -> Result<ValueId> {
        let r = b.slice(self.recurrence, 1, from, len)?;
        let bias = b.slice(self.bias, 0, from, len)?;
        let product = b.one(Op::MatMul, &[h, r], None)?;
        b.binary(BinaryOp::Add, product, bias)
    }
}

/// The activations of all directions. Each takes as many of `activation_alpha` and `activation_beta`, in order, as it has
/// parameters.
fn activations(call: &Call<'_, '_>, cell: Cell, directions: usize) -> Result<Vec<Vec<Activation>>> {
    let each = cell.activations().len();
    let given = call.texts("activations").unwrap_or_default();
    let names: Vec<String> = if given.is_empty() {
        cell.activations().iter().cycle().take(each * directions).map(|n| (*n).to_owned()).collect()
    } else {
        given.iter().map(|n| String::from_utf8_lossy(n).to_ascii_lowercase()).collect()
    };
    if names.len() != each * directions {
        return invalid(format!("{} activations", names.len()));
    }
    let list = |name: &str| call.floats(name).unwrap_or_default().iter().map(|x| f64::from(*x));
    let (mut alphas, mut betas) = (list("activation_alpha"), list("activation_beta"));
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        let Some(count) = activations::parameters(&name) else {
            return unsupported(format!("the activation {name:?}"));
        };
        let mut parameters = Vec::new();
        if count > 0 {
            parameters.push(alphas.next());
        }
        if count > 1 {
            parameters.push(betas.next());
        }
        all.push(Activation { name, parameters });
    }
    let mut all = all.into_iter();
    Ok((0..directions).map(|_| all.by_ref().take(each).collect()).collect())
}

/// Which rows of the batch still have an element at each position: `None` where all have.
fn lengths(call: &mut Call<'_, '_>, steps: usize, batch: usize) -> Result<Option<ValueId>> {
    let Some(lens) = call.optional(4) else { return Ok(None) };
    if let Some(known) = call.b.known(lens)
        && known.ints().iter().all(|len| *len >= steps as i64)
    {
        return Ok(None);
    }
    if call.b.shape(lens) != [batch] {
        return invalid("sequence_lens that do not fit the batch");
    }
    let lens = call.b.reshape(lens, vec![1, batch, 1])?;
    let lens = call.b.cast(lens, DType::I32)?;
    if steps >= 1 << 24 {
        return unsupported(format!("{steps} steps"));
    }
    let numbers = call.b.numbers(DType::I32, steps);
    let numbers = call.b.reshape(numbers, vec![steps, 1, 1])?;
    call.b.binary(BinaryOp::Less, numbers, lens).map(Some)
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
    let is_lstm = matches!(cell, Cell::Lstm { .. });
    let mut activations = activations(call, cell, directions)?.into_iter();
    let there = lengths(call, steps, batch)?;
    let (mut all, mut last_h, mut last_c) = (Vec::new(), Vec::new(), Vec::new());
    for (d, backward) in backward.into_iter().enumerate() {
        let Some(activations) = activations.next() else { return invalid("too few activations") };
        let direction = direction(call, x, d, [gates, hidden], activations)?;
        let h = state(call, 5, d, [batch, hidden], batch_first)?;
        let c = if is_lstm { state(call, 6, d, [batch, hidden], batch_first)? } else { h };
        let b = &mut *call.b;
        let run = if steps > MAX_UNROLLED { Direction::repeat } else { Direction::unroll };
        let (rows, h, c) = run(&direction, b, cell, [h, c], there, backward)?;
        all.push(b.reshape(rows, vec![steps, 1, batch, hidden])?);
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
    Ok(if is_lstm { vec![y, h, c] } else { vec![y, h] })
}

fn direction(
    call: &mut Call<'_, '_>,
    x: ValueId,
    d: usize,
    [gates, hidden]: [usize; 2],
    activations: Vec<Activation>,
) -> Result<Direction> {
    let (w, r) = (call.input(1)?, call.input(2)?);
    let bias = call.optional(3);
    let clip = call.attribute("clip").map(|_| call.float("clip", 0.0)).filter(|clip| *clip > 0.0);
    let peepholes = if gates == 4 { call.optional(7) } else { None };
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
            let early = b.slice(bias, 0, 0, size)?;
            inputs = b.binary(BinaryOp::Add, inputs, early)?;
            b.slice(bias, 0, size, size)?
        }
        None => {
            let zero = b.scalar(DType::F32, 0.0);
            b.expand(zero, vec![size])?
        }
    };
    let peepholes = match peepholes {
        Some(p) if b.rank(p) != 2 || b.shape(p)[1] != 3 * hidden || b.shape(p)[0] <= d => {
            return invalid("peepholes that do not fit");
        }
        Some(p) => Some(pick(b, p, d)?),
        None => None,
    };
    Ok(Direction { inputs, recurrence, bias, peepholes, activations, clip, hidden })
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
            let state = call.b.slice(x, 0, d, 1)?;
            call.b.reshape(state, shape.to_vec())
        }
        None => {
            let zero = call.b.scalar(DType::F32, 0.0);
            call.b.expand(zero, shape.to_vec())
        }
    }
}
