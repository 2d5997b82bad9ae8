//! Steps whose results have as many rows as the data says.

use ballast_plan::bounded::{NonZero, Suppress, Unique};

use crate::ir::{Node, ValueId};

use super::place::Buffer;
use super::{LowerError, Lowering, Source, plan_type, refuse};

impl Lowering<'_> {
    fn reads_and_writes(&mut self, node: &Node) -> (Vec<Source>, Vec<Buffer>) {
        let reads = node.inputs.iter().map(|id: &ValueId| self.source(*id)).collect();
        (reads, node.outputs.iter().map(|id| self.target(*id)).collect())
    }

    /// The unit pushed last writes all these.
    fn last_writes(&mut self, writes: &[Buffer]) {
        if let Some(unit) = self.units.last_mut() {
            unit.writes = writes.to_vec();
        }
    }

    pub(super) fn non_zero(&mut self, node: &Node) -> Result<(), LowerError> {
        let x = self.graph.value(node.inputs[0]);
        let mut dims = [1; 8];
        dims.iter_mut().zip(&x.shape).for_each(|(to, d)| *to = *d as u32);
        let step = NonZero { dtype: plan_type(x.dtype), rank: x.shape.len() as u32, dims, ..NonZero::default() };
        let (reads, writes) = self.reads_and_writes(node);
        let (&[input], &[out, count]) = (reads.as_slice(), writes.as_slice()) else {
            return Err(refuse(node, "outputs"));
        };
        self.push(&reads, out, 0, move |places, _| {
            vec![NonZero { input: input.at(places), out: places.at(out), count: places.at(count), ..step }.into()]
        });
        self.last_writes(&writes);
        Ok(())
    }

    pub(super) fn unique(&mut self, node: &Node, sorted: bool) -> Result<(), LowerError> {
        let x = self.graph.value(node.inputs[0]);
        let rows = x.shape[0];
        let (dtype, len, sorted) = (plan_type(x.dtype), (x.len() / rows) as u32, u32::from(sorted));
        let step = Unique { dtype, rows: rows as u32, len, sorted, ..Unique::default() };
        let (reads, writes) = self.reads_and_writes(node);
        let (&[input], &[values, first, inverse, counts, count]) = (reads.as_slice(), writes.as_slice()) else {
            return Err(refuse(node, "outputs"));
        };
        self.push(&reads, values, (rows * 4) as u64, move |places, scratch| {
            let at = |buffer| places.at(buffer);
            vec![
                Unique {
                    input: input.at(places),
                    values: at(values),
                    first: at(first),
                    inverse: at(inverse),
                    counts: at(counts),
                    count: at(count),
                    scratch,
                    ..step
                }
                .into(),
            ]
        });
        self.last_writes(&writes);
        Ok(())
    }

    pub(super) fn suppress(
        &mut self,
        node: &Node,
        (limit, centered): (usize, bool),
        (iou, score): (f32, Option<f32>),
    ) -> Result<(), LowerError> {
        let (boxes, scores) = (self.graph.value(node.inputs[0]), self.graph.value(node.inputs[1]));
        let [batch, count, classes] = [boxes.shape[0], boxes.shape[1], scores.shape[1]].map(|n| n as u32);
        let step = Suppress {
            batch,
            classes,
            boxes: count,
            limit: limit as u32,
            centered: u32::from(centered),
            scored: u32::from(score.is_some()),
            iou,
            score: score.unwrap_or_default(),
            ..Suppress::default()
        };
        let (reads, writes) = self.reads_and_writes(node);
        let (&[corners, scores], &[out, valid]) = (reads.as_slice(), writes.as_slice()) else {
            return Err(refuse(node, "outputs"));
        };
        self.flop += u64::from(batch) * u64::from(classes) * u64::from(count) * 32;
        self.push(&reads, out, u64::from(count) * 4, move |places, scratch| {
            let [corners, scores] = [corners, scores].map(|source| source.at(places));
            vec![Suppress { corners, scores, out: places.at(out), count: places.at(valid), scratch, ..step }.into()]
        });
        self.last_writes(&writes);
        Ok(())
    }
}
