//! One step of a recurrent layer, and one direction's steps.

use crate::ir::{BinaryOp, DType, ValueId};

use super::super::super::body::Rounds;
use super::super::super::build::{Builder, Result, invalid};
use super::{Cell, Direction, pick};

impl Direction {
    /// All steps, one after the other: rows `[seq, batch, hidden]` and the last states. `there [seq, batch, 1]` says which rows
    /// of the batch have ended: their states stay, their outputs are 0.
    pub(super) fn unroll(
        &self,
        b: &mut Builder,
        cell: Cell,
        [mut h, mut c]: [ValueId; 2],
        there: Option<ValueId>,
        backward: bool,
    ) -> Result<(ValueId, ValueId, ValueId)> {
        let steps = b.shape(self.inputs)[0];
        let mut rows = vec![h; steps];
        for step in 0..steps {
            let t = if backward { steps - 1 - step } else { step };
            let given = pick(b, self.inputs, t)?;
            let there = there.map(|there| pick(b, there, t)).transpose()?;
            let shown;
            (shown, h, c) = self.masked(b, cell, given, [h, c], there)?;
            let shape = [&[1], b.shape(shown)].concat();
            rows[t] = b.reshape(shown, shape)?;
        }
        Ok((b.concat(&rows, 0)?, h, c))
    }

    /// As [`Self::unroll`], as a loop.
    pub(super) fn repeat(
        &self,
        b: &mut Builder,
        cell: Cell,
        [h, c]: [ValueId; 2],
        there: Option<ValueId>,
        backward: bool,
    ) -> Result<(ValueId, ValueId, ValueId)> {
        let has_cell = matches!(cell, Cell::Lstm { .. });
        let scanned: Vec<ValueId> = [self.inputs].into_iter().chain(there).collect();
        let carried = if has_cell { vec![h, c] } else { vec![h] };
        b.open();
        let argument = |b: &mut Builder, like: ValueId, skip: usize| {
            let (dtype, shape) = (b.dtype(like), b.shape(like)[skip..].to_vec());
            b.argument(dtype, shape)
        };
        let states: Vec<ValueId> = carried.iter().map(|id| argument(b, *id, 0)).collect();
        let rows: Vec<ValueId> = scanned.iter().map(|id| argument(b, *id, 1)).collect();
        let state = [states[0], states.last().copied().unwrap_or(states[0])];
        let step = self.masked(b, cell, rows[0], state, rows.get(1).copied());
        let nodes = b.leave();
        let (shown, next_h, next_c) = step?;
        let next = [next_h, next_c];
        let rounds = Rounds {
            count: b.shape(self.inputs)[0],
            carries: carried
                .iter()
                .zip(&states)
                .zip(next)
                .map(|((first, state), next)| (*first, *state, next))
                .collect(),
            scans: scanned.iter().zip(&rows).map(|(all, row)| (*all, *row, backward)).collect(),
            stacked: vec![(shown, backward)],
            ..Rounds::default()
        };
        let made = b.repeat(nodes, &rounds)?;
        match made[..] {
            [h, c, rows] if has_cell => Ok((rows, h, c)),
            [h, rows] => Ok((rows, h, h)),
            _ => invalid("a layer of another form"),
        }
    }

    /// One step: what is shown, and the next states.
    fn masked(
        &self,
        b: &mut Builder,
        cell: Cell,
        given: ValueId,
        [h, c]: [ValueId; 2],
        there: Option<ValueId>,
    ) -> Result<(ValueId, ValueId, ValueId)> {
        let (new_h, new_c) = self.step(b, cell, given, h, c)?;
        let Some(there) = there else { return Ok((new_h, new_h, new_c)) };
        let zero = b.scalar(DType::F32, 0.0);
        let shown = b.select(there, new_h, zero)?;
        let has_cell = matches!(cell, Cell::Lstm { .. });
        let next_c = if has_cell { b.select(there, new_c, c)? } else { new_c };
        Ok((shown, b.select(there, new_h, h)?, next_c))
    }

    /// From the input's part `given [batch, gates · hidden]` and the states `h`, `c` to the next ones.
    fn step(&self, b: &mut Builder, cell: Cell, given: ValueId, h: ValueId, c: ValueId) -> Result<(ValueId, ValueId)> {
        match cell {
            Cell::Lstm { input_forget } => self.lstm(b, given, h, c, input_forget),
            Cell::Gru { linear_before_reset } => Ok((self.gru(b, given, h, linear_before_reset)?, c)),
            Cell::Plain => {
                let product = self.recur(b, h, 0, self.hidden)?;
                let sum = b.binary(BinaryOp::Add, given, product)?;
                Ok((self.activate(b, 0, sum)?, c))
            }
        }
    }

    /// `x`, with what the gate of this peephole sees of the cell.
    fn peep(&self, b: &mut Builder, x: ValueId, which: usize, c: ValueId) -> Result<ValueId> {
        let Some(all) = self.peepholes else { return Ok(x) };
        let weights = b.slice(all, 0, which * self.hidden, self.hidden)?;
        let seen = b.binary(BinaryOp::Mul, weights, c)?;
        b.binary(BinaryOp::Add, x, seen)
    }

    fn lstm(
        &self,
        b: &mut Builder,
        given: ValueId,
        h: ValueId,
        c: ValueId,
        input_forget: bool,
    ) -> Result<(ValueId, ValueId)> {
        let hidden = self.hidden;
        let product = self.recur(b, h, 0, 4 * hidden)?;
        let gates = b.binary(BinaryOp::Add, given, product)?;
        let [i, o, f, g] = [0, 1, 2, 3].map(|k| b.slice(gates, 1, k * hidden, hidden));
        let (i, o, f, g) = (i?, o?, f?, g?);
        let i = self.peep(b, i, 0, c)?;
        let i = self.activate(b, 0, i)?;
        let f = if input_forget {
            let one = b.scalar(DType::F32, 1.0);
            b.binary(BinaryOp::Sub, one, i)?
        } else {
            let f = self.peep(b, f, 2, c)?;
            self.activate(b, 0, f)?
        };
        let g = self.activate(b, 1, g)?;
        let kept = b.binary(BinaryOp::Mul, f, c)?;
        let new = b.binary(BinaryOp::Mul, i, g)?;
        let c = b.binary(BinaryOp::Add, kept, new)?;
        // The output gate sees the new cell.
        let o = self.peep(b, o, 1, c)?;
        let o = self.activate(b, 0, o)?;
        let shown = self.activate_only(b, 2, c)?;
        Ok((b.binary(BinaryOp::Mul, o, shown)?, c))
    }

    fn gru(&self, b: &mut Builder, given: ValueId, h: ValueId, linear_before_reset: bool) -> Result<ValueId> {
        let hidden = self.hidden;
        let product = self.recur(b, h, 0, 2 * hidden)?;
        let first = b.slice(given, 1, 0, 2 * hidden)?;
        let gates = b.binary(BinaryOp::Add, first, product)?;
        let gates = self.activate(b, 0, gates)?;
        let (z, r) = (b.slice(gates, 1, 0, hidden)?, b.slice(gates, 1, hidden, hidden)?);
        let remembered = if linear_before_reset {
            let product = self.recur(b, h, 2 * hidden, hidden)?;
            b.binary(BinaryOp::Mul, r, product)?
        } else {
            let reset = b.binary(BinaryOp::Mul, r, h)?;
            self.recur(b, reset, 2 * hidden, hidden)?
        };
        let candidate = b.slice(given, 1, 2 * hidden, hidden)?;
        let candidate = b.binary(BinaryOp::Add, candidate, remembered)?;
        let candidate = self.activate(b, 1, candidate)?;
        // (1 − z) · candidate + z · h
        let one = b.scalar(DType::F32, 1.0);
        let open = b.binary(BinaryOp::Sub, one, z)?;
        let new = b.binary(BinaryOp::Mul, open, candidate)?;
        let kept = b.binary(BinaryOp::Mul, z, h)?;
        b.binary(BinaryOp::Add, new, kept)
    }
}
