//! Repeats and branches: their bodies' units lie between two marks, in the same list, over the same arena.
//!
//! What lives across rounds is touched by both marks of a repeat, so that nothing else gets its place in between and no unit of
//! the body writes over it: carries, scans, stacked outputs, and what is captured. What a body makes for itself is made again
//! in each round and lives as long as anything else.

use ballast_plan::At;
use ballast_plan::control::{Block, Slide};
use ballast_plan::step::Fill;

use crate::ir::{Branch, Graph, Node, Repeat, ValueId};

use super::fuse::{Fusion, Task};
use super::place::{Buffer, Places};
use super::{Gap, LowerError, Lowering, Source, Unit, refuse};

/// Where a unit stands among the others.
pub(super) enum Mark {
    /// Steps.
    None,
    /// From here to its end: a repeat.
    Repeat(Box<dyn Fn(&Places) -> Head>),
    /// From here to its end: a branch, by the place of its condition.
    Branch(Box<dyn Fn(&Places) -> At>),
    /// The other side of the innermost branch begins.
    Otherwise,
    /// The innermost repeat or branch ends.
    End,
}

/// A repeat without its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    count: u32,
    gate: Option<At>,
    before: Vec<Slide>,
    after: Vec<Slide>,
}

/// Rows of a tensor, one for each round.
#[derive(Clone, Copy)]
struct Rows {
    /// The tensor.
    all: Source,
    /// One row.
    one: Source,
    bytes: u32,
    backward: bool,
}

impl Rows {
    /// First row and the way to the next.
    fn walk(&self, count: usize, places: &Places) -> (At, i32) {
        let step = self.bytes as i32;
        let first = self.all.at(places);
        if !self.backward {
            return (first, step);
        }
        let last = first.offset() + (count as u32 - 1) * self.bytes;
        let at = if first.is_weights() { At::weights(last) } else { At::arena(last) };
        (at.unwrap_or_default(), -step)
    }
}

impl<'g> Lowering<'g> {
    /// All units of a graph.
    pub(super) fn units_of(&mut self, graph: &'g Graph) -> Result<(), LowerError> {
        let gaps = empty(graph);
        if !gaps.is_empty() {
            return Err(LowerError::NotLowered(gaps));
        }
        let mut gaps: Vec<Gap> = Vec::new();
        for task in Fusion::new(graph).tasks() {
            if self.makes_nothing(&task) {
                continue;
            }
            match self.task(&task) {
                Err(LowerError::NotLowered(more)) => gaps.extend(more),
                other => other?,
            }
        }
        if gaps.is_empty() { Ok(()) } else { Err(LowerError::NotLowered(gaps)) }
    }

    /// All that comes of it is without elements.
    fn makes_nothing(&self, task: &Task) -> bool {
        let none = |id: &ValueId| self.graph.value(*id).is_empty();
        match task {
            Task::Product(product) => none(&product.output),
            Task::Chain(chain) => none(&chain.output),
            Task::Integer(integer) => none(&integer.output),
            Task::Node(index) | Task::Lookup(index, _) => self.graph.nodes[*index].outputs.iter().all(none),
        }
    }

    /// The units of a body, between what `before` and `after` do; both are called while its values have buffers.
    fn body(
        &mut self,
        body: &'g Graph,
        before: impl FnOnce(&mut Self),
        after: impl FnOnce(&mut Self),
    ) -> Result<(), LowerError> {
        let outside = (self.graph, self.base);
        (self.graph, self.base) = (body, self.buffers.extend(body));
        before(self);
        let result = self.units_of(body);
        if result.is_ok() {
            after(self);
        }
        (self.graph, self.base) = outside;
        result
    }

    fn mark(&mut self, mark: Mark, touched: Vec<Buffer>) {
        self.units.push(Unit {
            reads: touched,
            writes: Vec::new(),
            in_place: None,
            scratch: 0,
            mark,
            steps: Box::new(|_, _| vec![]),
        });
    }

    fn bytes(&self, id: ValueId) -> usize {
        let value = self.graph.value(id);
        value.len() * value.dtype.size()
    }

    /// A buffer that holds a value: constants are copied into one.
    fn held(&mut self, id: ValueId) -> Buffer {
        match self.source(id) {
            Source::Buffer(buffer) => buffer,
            source @ Source::Weights(_) => {
                let value = self.graph.value(id);
                let buffer = self.buffers.add(self.bytes(id) as u64);
                self.copy_all(source, buffer, value.len(), value.dtype);
                buffer
            }
        }
    }

    pub(super) fn repeat(&mut self, node: &'g Node, repeat: &'g Repeat) -> Result<(), LowerError> {
        let (first, rest) = node.inputs.split_at(repeat.carries);
        let (scans, captured) = rest.split_at(repeat.scans.len());
        let count = u32::try_from(repeat.count).map_err(|_| refuse(node, "too many rounds"))?;
        let rows = |bytes: usize| u32::try_from(bytes / repeat.count).map_err(|_| refuse(node, "too large a row"));
        let captured: Vec<Buffer> = captured.iter().map(|&id| self.held(id)).collect();
        let sources: Vec<(Source, u32)> =
            scans.iter().map(|&id| Ok((self.source(id), rows(self.bytes(id))?))).collect::<Result<_, LowerError>>()?;
        let (carries, stacked) = node.outputs.split_at(repeat.carries);
        let stacked: Vec<(Buffer, u32)> = stacked
            .iter()
            .map(|&id| Ok((self.target(id), rows(self.bytes(id))?)))
            .collect::<Result<_, LowerError>>()?;
        let mut held = Vec::new();
        for (&id, &out) in first.iter().zip(carries) {
            let (source, value, out) = (self.source(id), self.graph.value(id), self.target(out));
            self.copy_all(source, out, value.len(), value.dtype);
            held.push(out);
        }
        if repeat.gated {
            for &(out, bytes) in &stacked {
                let words = (bytes as usize * repeat.count).div_ceil(4) as u32;
                self.push(&[], out, 0, move |places, _| vec![Fill { out: places.at(out), words, value: 0 }.into()]);
            }
        }
        // All that lives across rounds.
        let mut across: Vec<Buffer> = held.iter().chain(&captured).copied().collect();
        across.extend(sources.iter().filter_map(|(source, _)| source.buffer()));
        across.extend(stacked.iter().map(|(buffer, _)| *buffer));

        let flop = self.flop;
        let begin = self.units.len();
        self.mark(Mark::End, across.clone());
        let body = &repeat.body;
        let mut before = Vec::new();
        let mut after = Vec::new();
        let mut ends = across;
        let inputs = |lowering: &Self| -> Vec<Buffer> {
            body.inputs.iter().map(|&id| lowering.buffers.of(lowering.base, id)).collect()
        };
        let taken = |lowering: &mut Self| {
            let inner = inputs(lowering);
            let (carried, rest) = inner.split_at(repeat.carries);
            let (rows, rest) = rest.split_at(repeat.scans.len());
            held.iter().zip(carried).chain(captured.iter().zip(rest)).for_each(|(&a, &b)| lowering.buffers.join(a, b));
            for ((&one, &(all, bytes)), &backward) in rows.iter().zip(&sources).zip(&repeat.scans) {
                lowering.units[begin].writes.push(one);
                before.push(Rows { all, one: Source::Buffer(one), bytes, backward });
            }
        };
        let mut carried: Vec<(Source, Buffer, u32)> = Vec::new();
        let given = |lowering: &mut Self| {
            for (i, &id) in body.outputs.iter().enumerate() {
                let mut source = lowering.source(id);
                match held.get(i) {
                    Some(&to) => {
                        let value = body.value(id);
                        let lies = |b: &Buffer| source.buffer().is_some_and(|s| lowering.buffers.same(s, *b));
                        if lies(&to) {
                            continue;
                        }
                        // What another carry holds would be gone when its turn comes.
                        if held.iter().any(lies) {
                            let buffer = lowering.buffers.add((value.len() * value.dtype.size()) as u64);
                            lowering.copy_all(source, buffer, value.len(), value.dtype);
                            source = Source::Buffer(buffer);
                        }
                        carried.push((source, to, (value.len() * value.dtype.size()) as u32));
                    }
                    None => {
                        let (all, bytes) = stacked[i - repeat.carries];
                        let backward = repeat.stacked[i - repeat.carries];
                        after.push(Rows { all: Source::Buffer(all), one: source, bytes, backward });
                    }
                }
                ends.extend(source.buffer());
            }
        };
        self.body(body, taken, given)?;
        self.mark(Mark::End, ends);
        self.flop = flop.saturating_add(self.flop.saturating_sub(flop).saturating_mul(repeat.count as u64));
        let gate = repeat.gated.then(|| held[0]);
        let rounds = repeat.count;
        let head = move |places: &Places| Head {
            count,
            gate: gate.map(|gate| places.at(gate)),
            before: before
                .iter()
                .map(|rows| {
                    let (from, from_step) = rows.walk(rounds, places);
                    Slide { from, from_step, to: rows.one.at(places), to_step: 0, bytes: rows.bytes }
                })
                .collect(),
            after: after
                .iter()
                .map(|rows| {
                    let (to, to_step) = rows.walk(rounds, places);
                    Slide { from: rows.one.at(places), from_step: 0, to, to_step, bytes: rows.bytes }
                })
                .chain(carried.iter().map(|&(from, to, bytes)| Slide {
                    from: from.at(places),
                    from_step: 0,
                    to: places.at(to),
                    to_step: 0,
                    bytes,
                }))
                .collect(),
        };
        self.units[begin].mark = Mark::Repeat(Box::new(head));
        Ok(())
    }

    pub(super) fn branch(&mut self, node: &'g Node, branch: &'g Branch) -> Result<(), LowerError> {
        let condition = self.source(node.inputs[0]);
        let captured: Vec<Buffer> = node.inputs[1..].iter().map(|&id| self.held(id)).collect();
        let outputs: Vec<Buffer> = node.outputs.iter().map(|&id| self.target(id)).collect();
        let flop = self.flop;
        self.mark(Mark::Branch(Box::new(move |places| condition.at(places))), condition.buffer().into_iter().collect());
        let mut dearest = 0;
        for (body, end) in [(&branch.then, Mark::Otherwise), (&branch.otherwise, Mark::End)] {
            let taken = |lowering: &mut Self| {
                for (&outer, &id) in captured.iter().zip(&body.inputs) {
                    let inner = lowering.buffers.of(lowering.base, id);
                    lowering.buffers.join(outer, inner);
                }
            };
            let given = |lowering: &mut Self| {
                for (&id, &out) in body.outputs.iter().zip(&outputs) {
                    let (source, value) = (lowering.source(id), body.value(id));
                    lowering.copy_all(source, out, value.len(), value.dtype);
                }
            };
            let before = self.flop;
            self.body(body, taken, given)?;
            dearest = dearest.max(self.flop.saturating_sub(before));
            self.mark(end, Vec::new());
        }
        self.flop = flop.saturating_add(dearest);
        Ok(())
    }
}

/// Repeats and branches that carry tensors without elements, and inputs that have none.
fn empty(graph: &Graph) -> Vec<Gap> {
    let nodes = graph.nodes.iter().filter(|n| !n.op.bodies().is_empty());
    let carried = nodes.flat_map(|n| n.inputs.iter().chain(&n.outputs).map(move |id| (*id, n.operator.as_str())));
    let inputs = graph.inputs.iter().map(|id| (*id, "Tensor"));
    let none = carried.chain(inputs).filter(|(id, _)| graph.value(*id).is_empty());
    none.map(|(id, operator)| Gap {
        operator: operator.to_owned(),
        node: graph.value(id).name.clone(),
        detail: "a tensor without elements".into(),
    })
    .collect()
}

/// What is open while units become blocks.
enum Open {
    Repeat(Head),
    Then(At),
    Otherwise(At, Vec<Block>),
}

/// The steps of all units, nested as their marks say.
pub(super) fn blocks(units: &[Unit], places: &Places) -> Vec<Block> {
    let mut open: Vec<(Open, Vec<Block>)> = Vec::new();
    let mut here = Vec::new();
    for (i, unit) in units.iter().enumerate() {
        match &unit.mark {
            Mark::None => here.extend((unit.steps)(places, places.scratch(i)).into_iter().map(Block::from)),
            Mark::Repeat(head) => open.push((Open::Repeat(head(places)), std::mem::take(&mut here))),
            Mark::Branch(condition) => open.push((Open::Then(condition(places)), std::mem::take(&mut here))),
            Mark::Otherwise => {
                if let Some((Open::Then(condition), outer)) = open.pop() {
                    open.push((Open::Otherwise(condition, std::mem::take(&mut here)), outer));
                }
            }
            Mark::End => {
                let Some((head, mut outer)) = open.pop() else { continue };
                let body = std::mem::take(&mut here);
                outer.push(match head {
                    Open::Repeat(Head { count, gate, before, after }) => {
                        Block::Repeat { count, gate, before, after, body }
                    }
                    Open::Then(condition) => Block::Branch { condition, then: body, otherwise: Vec::new() },
                    Open::Otherwise(condition, then) => Block::Branch { condition, then, otherwise: body },
                });
                here = outer;
            }
        }
    }
    here
}
