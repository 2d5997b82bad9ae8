//! `FlexAttention`: attention whose scores and weights pass through graphs of the model's own.

use crate::ir::{Op, ValueId};

use super::build::{Result, invalid};
use super::control::Place;
use super::ops::attention::{flex_scores, flex_values};
use super::{Scope, Walk};

impl<'m> Walk<'m> {
    /// `prob_mod(softmax(score_mod(scale · Q · Kᵀ))) · V`
    pub(super) fn flex(&mut self, place: &Place<'_, 'm>, scopes: &mut Vec<Scope>) -> Result<Vec<Option<ValueId>>> {
        let scores = flex_scores(&mut self.call(place))?;
        let Some(scores) = self.through("score_mod", scores, place, scopes)? else { return Ok(Vec::new()) };
        let weights = self.b.one(Op::Softmax { axis: 3, log: false }, &[scores], None)?;
        let Some(weights) = self.through("prob_mod", weights, place, scopes)? else { return Ok(Vec::new()) };
        Ok(vec![Some(flex_values(&mut self.call(place), weights)?)])
    }

    /// What a graph of one input and one output makes of `x`; nothing where it has operators that are not supported.
    fn through(
        &mut self,
        name: &str,
        x: ValueId,
        place: &Place<'_, 'm>,
        scopes: &mut Vec<Scope>,
    ) -> Result<Option<ValueId>> {
        let Some(graph) = self.call(place).attribute(name).and_then(|a| a.graph.as_ref()) else { return Ok(Some(x)) };
        if graph.inputs.len() != 1 || graph.outputs.len() != 1 {
            return invalid(format!("{name} has {} inputs and {} outputs", graph.inputs.len(), graph.outputs.len()));
        }
        let Some(y) = self.walk_body(graph, &[x], place, scopes).into_iter().next().flatten() else { return Ok(None) };
        let (dtype, shape) = (self.b.dtype(x), self.b.shape(x).to_vec());
        if self.b.shape(y) != shape {
            return invalid(format!("{name} gives shape {:?} for {shape:?}", self.b.shape(y)));
        }
        self.b.cast(y, dtype).map(Some)
    }
}
