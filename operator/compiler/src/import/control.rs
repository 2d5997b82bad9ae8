//! `If`, `Loop` and `Scan`.
//!
//! What is known is walked at once: the side of a branch that its condition takes, the rounds of a loop that folds away. Short
//! loops are written out; the others become repeats, whose bodies are walked once.

use crate::ir::{DType, Data, Op, Tensor, ValueId};
use crate::onnx::{self, Node};

use super::attributes::Asked;
use super::body::Rounds;
use super::build::{Problem, Result, invalid, unsupported};
use super::call::{Call, Given, resolve_axis};
use super::findings::Findings;
use super::ops::Handler;
use super::{MAX_DEPTH, Scope, Walk};

/// Rounds that are written out: as fast as a repeat of them, and what follows fuses with the last one.
pub(super) const MAX_UNROLLED: usize = 4;
/// Rounds that are written out where a repeat cannot be: shapes change from round to round.
const MAX_GROWING: usize = 256;

/// Values of outputs; nothing where what makes them is not supported, which was noted.
type Results = Vec<Option<ValueId>>;

/// Where a node stands.
pub(super) struct Place<'a, 'm> {
    pub(super) node: &'m Node<'m>,
    pub(super) given: Option<&'a Given<'m>>,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) depth: usize,
}

/// The graph before something was tried.
struct Checkpoint {
    values: usize,
    nodes: usize,
    findings: Findings,
    notes: usize,
}

/// What a loop runs over.
struct Run<'m> {
    body: &'m onnx::Graph<'m>,
    count: usize,
    /// First values of what is carried.
    carries: Vec<ValueId>,
    /// Rows along the first dimension, backwards or not.
    scans: Vec<(ValueId, bool)>,
    /// For each stacked output, backwards or not.
    stacked: Vec<bool>,
    /// A `Loop`: the body takes the round and the condition first, and gives the condition first.
    condition: Option<ValueId>,
    /// A `Loop` with a largest number of rounds.
    bounded: bool,
    /// Stacked outputs are read.
    stacks: bool,
}

/// How an attempt to write a loop out ended.
enum Unrolled {
    Done(Results),
    /// It does not fold and is too long, or its condition depends on data.
    Not,
}

impl<'m> Walk<'m> {
    pub(super) fn control(
        &mut self,
        handler: &Handler,
        place: Place<'_, 'm>,
        scopes: &mut Vec<Scope>,
    ) -> Result<Results> {
        let (label, operator) = (self.b.label.clone(), self.b.operator.clone());
        let results = match handler {
            Handler::If => self.choose(&place, scopes),
            Handler::Loop => self.counted(&place, scopes),
            Handler::SequenceMap => self.each(&place, scopes),
            Handler::FlexAttention => self.flex(&place, scopes),
            Handler::Scan | Handler::Plain(_) => self.scan(&place, scopes),
        };
        (self.b.label, self.b.operator) = (label, operator);
        results
    }

    pub(super) fn call<'c>(&'c mut self, place: &'c Place<'_, 'm>) -> Call<'c, 'm> {
        let inputs = place.inputs.clone();
        Call {
            b: &mut self.b,
            node: place.node,
            given: place.given,
            inputs,
            opset: self.opset,
            asked: Asked::default(),
        }
    }

    fn graph(&mut self, place: &Place<'_, 'm>, name: &str) -> Result<&'m onnx::Graph<'m>> {
        let graph = self.call(place).attribute(name).and_then(|a| a.graph.as_ref());
        graph.ok_or_else(|| Problem::Invalid(format!("it has no {name}")))
    }

    /// A body in a scope of its own, given these arguments.
    pub(super) fn walk_body(
        &mut self,
        graph: &'m onnx::Graph<'m>,
        arguments: &[ValueId],
        place: &Place<'_, 'm>,
        scopes: &mut Vec<Scope>,
    ) -> Results {
        if place.depth >= MAX_DEPTH {
            self.findings.invalid.push("bodies are nested too deep".to_owned());
            return Vec::new();
        }
        let mut scope = Scope::default();
        self.initializers(graph, &mut scope);
        scope.extend(graph.inputs.iter().zip(arguments).map(|(info, id)| (info.name.clone(), Some(*id))));
        scopes.push(scope);
        self.nodes(&graph.nodes, place.given, scopes, place.depth + 1);
        let find = |name: &String| scopes.iter().rev().find_map(|s| s.get(name)).copied();
        let mut results = Vec::new();
        for output in &graph.outputs {
            let found = find(&output.name);
            if found.is_none() {
                self.findings.invalid.push(format!("nothing makes {:?}, which a body gives", output.name));
            }
            results.push(found.flatten());
        }
        scopes.pop();
        self.b.label = place.node.label().to_owned();
        self.b.operator = place.node.operator();
        results
    }

    fn choose(&mut self, place: &Place<'_, 'm>, scopes: &mut Vec<Scope>) -> Result<Results> {
        let condition = self.call(place).input(0)?;
        if let Some(known) = self.b.known(condition) {
            let taken = known.ints().first().copied().ok_or("a condition without elements".to_owned())? != 0;
            let graph = self.graph(place, if taken { "then_branch" } else { "else_branch" })?;
            return Ok(self.walk_body(graph, &[], place, scopes));
        }
        let mut side = |name: &str| {
            let graph = self.graph(place, name)?;
            self.b.open();
            let results = self.walk_body(graph, &[], place, scopes);
            Ok::<_, Problem>((self.b.leave(), results))
        };
        let ((then, given), (otherwise, others)) = (side("then_branch")?, side("else_branch")?);
        let (Some(given), Some(others)) = (all(given), all(others)) else { return Ok(Vec::new()) };
        let typed = |ids: &[ValueId]| -> Vec<String> {
            ids.iter().map(|id| format!("{} {:?}", self.b.dtype(*id), self.b.shape(*id))).collect()
        };
        let (a, b) = (typed(&given), typed(&others));
        if a != b {
            return unsupported(format!(
                "its branches give different tensors ({} and {}), and its condition is computed from the model's inputs; fix \
                 the input that decides it with model.inputs[].value",
                a.join(", "),
                b.join(", ")
            ));
        }
        let outputs = self.b.branch(condition, [(then, given), (otherwise, others)])?;
        Ok(outputs.into_iter().map(Some).collect())
    }

    /// `SequenceMap`: the body once for each item. Inputs that are sequences give it one item each, tensors are the same for all.
    fn each(&mut self, place: &Place<'_, 'm>, scopes: &mut Vec<Scope>) -> Result<Results> {
        let body = self.graph(place, "body")?;
        let Some(inputs) = all(place.inputs.clone()) else { return invalid("an input is missing") };
        let lists: Vec<Option<Vec<ValueId>>> = inputs.iter().map(|id| self.b.list(*id).map(<[_]>::to_vec)).collect();
        let Some(count) = lists.first().and_then(|l| l.as_ref()).map(Vec::len) else {
            return invalid("its first input is no sequence");
        };
        if lists.iter().flatten().any(|l| l.len() != count) || body.inputs.len() != inputs.len() {
            return invalid("inputs that do not fit its body");
        }
        let mut results: Vec<Option<Vec<ValueId>>> = vec![Some(Vec::new()); body.outputs.len()];
        for item in 0..count {
            let argument = |(id, list): (&ValueId, &Option<Vec<ValueId>>)| {
                list.as_ref().map_or(Some(*id), |list| list.get(item).copied())
            };
            let Some(arguments) = inputs.iter().zip(&lists).map(argument).collect::<Option<Vec<_>>>() else {
                return invalid("inputs that do not fit its body");
            };
            let mut made = self.walk_body(body, &arguments, place, scopes).into_iter();
            for result in &mut results {
                *result = result.take().zip(made.next().flatten()).map(|(mut list, made)| {
                    list.push(made);
                    list
                });
            }
        }
        Ok(results.into_iter().map(|list| list.map(|list| self.b.add_list(list))).collect())
    }

    fn counted(&mut self, place: &Place<'_, 'm>, scopes: &mut Vec<Scope>) -> Result<Results> {
        let body = self.graph(place, "body")?;
        let call = self.call(place);
        let count = match call.optional(0) {
            None => None,
            Some(id) => match call.b.known(id) {
                Some(tensor) => Some(tensor.ints().first().copied().ok_or("a trip count without elements".to_owned())?),
                None => {
                    return unsupported(
                        "its trip count is computed from the model's inputs; fix the input that decides it with \
                         model.inputs[].value, or export with a fixed length",
                    );
                }
            },
        };
        let condition = call.optional(1);
        let carries = (2..call.node.inputs.len()).map(|i| call.input(i)).collect::<Result<Vec<_>>>()?;
        let condition = match condition {
            Some(id) => self.b.reshape(id, Vec::new())?,
            None => self.b.scalar(DType::Bool, 1.0),
        };
        if body.inputs.len() != 2 + carries.len() || body.outputs.len() < 1 + carries.len() {
            return invalid("a body that does not take and give what is carried");
        }
        let stacked = vec![false; body.outputs.len() - 1 - carries.len()];
        let stacks = place.node.outputs.iter().skip(carries.len()).any(|name| !name.is_empty());
        let bounded = count.is_some_and(|n| n < 1 << 40);
        let count = usize::try_from(count.unwrap_or(i64::MAX).max(0)).unwrap_or(usize::MAX);
        let run = Run { body, count, carries, scans: Vec::new(), stacked, condition: Some(condition), bounded, stacks };
        self.run(&run, place, scopes)
    }

    fn scan(&mut self, place: &Place<'_, 'm>, scopes: &mut Vec<Scope>) -> Result<Results> {
        let body = self.graph(place, "body")?;
        let old = self.opset < 9;
        let call = self.call(place);
        let scans = usize::try_from(call.int("num_scan_inputs", 0)).unwrap_or(0);
        let from = usize::from(old);
        let inputs = (from..call.node.inputs.len()).map(|i| call.input(i)).collect::<Result<Vec<_>>>()?;
        let Some(carries) = inputs.len().checked_sub(scans).filter(|_| scans > 0) else {
            return invalid("fewer inputs than it scans");
        };
        let Some(stacked) = body.outputs.len().checked_sub(carries) else {
            return invalid("a body that gives less than what is carried");
        };
        if body.inputs.len() != inputs.len() {
            return invalid("a body that does not take what is given");
        }
        let flags = |name: &str, n: usize| -> Result<Vec<bool>> {
            let given = call.ints(name).unwrap_or(&[]);
            if given.is_empty() || given.len() == n {
                Ok((0..n).map(|i| given.get(i).is_some_and(|d| *d == 1)).collect())
            } else {
                invalid(format!("{name} of {} numbers", given.len()))
            }
        };
        let backward = flags(if old { "directions" } else { "scan_input_directions" }, scans)?;
        let reversed = flags("scan_output_directions", stacked)?;
        let axes = |name: &str| call.ints(name).unwrap_or(&[]).to_vec();
        let (input_axes, output_axes) = (axes("scan_input_axes"), axes("scan_output_axes"));
        let lengths = if old { call.known_ints(0)? } else { None };
        let mut rows = Vec::new();
        for (i, id) in inputs[carries..].iter().enumerate() {
            let axis = resolve_axis(input_axes.get(i).copied().unwrap_or(0), self.b.rank(*id))?;
            rows.push(self.front(*id, axis)?);
        }
        if old {
            return self.scan_batches(body, &inputs[..carries], &rows, (&backward, stacked), lengths, place, scopes);
        }
        let count = self.b.shape(rows[0])[0];
        if count == 0 || rows.iter().any(|id| self.b.shape(*id)[0] != count) {
            return invalid("scanned inputs of different lengths, or of none");
        }
        let run = Run {
            body,
            count,
            carries: inputs[..carries].to_vec(),
            scans: rows.into_iter().zip(backward).collect(),
            stacked: reversed,
            condition: None,
            bounded: true,
            stacks: true,
        };
        let mut results = self.run(&run, place, scopes)?;
        for (i, result) in results.iter_mut().skip(carries).enumerate() {
            if let (Some(id), Some(axis)) = (result.as_mut(), output_axes.get(i)) {
                let rank = self.b.rank(*id);
                let axis = resolve_axis(*axis, rank)?;
                let mut perm: Vec<usize> = (1..rank).collect();
                perm.insert(axis, 0);
                *id = self.b.transpose(*id, perm)?;
            }
        }
        Ok(results)
    }

    /// Operator set 8: a first dimension of everything is the batch, the second of what is scanned the sequence.
    #[allow(clippy::too_many_arguments)]
    fn scan_batches(
        &mut self,
        body: &'m onnx::Graph<'m>,
        carries: &[ValueId],
        rows: &[ValueId],
        (backward, stacked): (&[bool], usize),
        lengths: Option<Vec<i64>>,
        place: &Place<'_, 'm>,
        scopes: &mut Vec<Scope>,
    ) -> Result<Results> {
        let (batch, count) = match self.b.shape(rows[0]) {
            [batch, count, ..] if *batch > 0 && *count > 0 => (*batch, *count),
            other => return invalid(format!("a scanned input of shape {other:?}")),
        };
        if lengths.is_some_and(|l| l.iter().any(|n| *n != count as i64)) {
            return unsupported("sequences shorter than the input");
        }
        let fits = |id: &ValueId, lead: &[usize]| self.b.shape(*id).starts_with(lead);
        if !carries.iter().all(|id| fits(id, &[batch])) || !rows.iter().all(|id| fits(id, &[batch, count])) {
            return invalid("inputs of different batches or lengths");
        }
        let mut all_results: Vec<Vec<ValueId>> = Vec::new();
        for index in 0..batch {
            let mut pick = |id: &ValueId| self.row(*id, index);
            let carries = carries.iter().map(&mut pick).collect::<Result<Vec<_>>>()?;
            let rows = rows.iter().map(&mut pick).collect::<Result<Vec<_>>>()?;
            let scans = rows.into_iter().zip(backward.iter().copied()).collect();
            let stacked = vec![false; stacked];
            let run = Run { body, count, carries, scans, stacked, condition: None, bounded: true, stacks: true };
            let Some(results) = all(self.run(&run, place, scopes)?) else { return Ok(Vec::new()) };
            all_results.push(results);
        }
        let outputs = carries.len() + stacked;
        let mut results = Vec::new();
        for i in 0..outputs {
            let each: Vec<ValueId> = all_results.iter().filter_map(|r| r.get(i).copied()).collect();
            results.push(Some(self.stack(&each)?));
        }
        Ok(results)
    }

    fn run(&mut self, run: &Run<'m>, place: &Place<'_, 'm>, scopes: &mut Vec<Scope>) -> Result<Results> {
        let checkpoint = self.checkpoint();
        if let Unrolled::Done(results) = self.unroll(run, MAX_UNROLLED, place, scopes)? {
            return Ok(results);
        }
        self.roll_back(checkpoint);
        let checkpoint = self.checkpoint();
        let result = self.repeat(run, place, scopes);
        let sound = self.findings == checkpoint.findings;
        let why = match result {
            Ok(results) if sound || run.count > MAX_GROWING => return Ok(results),
            Err(Problem::Invalid(why)) if run.count > MAX_GROWING => return unsupported(why),
            Err(Problem::Unsupported(why)) => return unsupported(why),
            Err(Problem::Invalid(why)) => why,
            Ok(_) => "a round does not take what the one before it gives".to_owned(),
        };
        // Shapes that change, or sequences that grow.
        self.roll_back(checkpoint);
        match self.unroll(run, MAX_GROWING, place, scopes)? {
            Unrolled::Done(results) => Ok(results),
            Unrolled::Not => unsupported(why),
        }
    }

    /// Round after round, as long as the condition is known. More than `most` rounds only while everything folds.
    fn unroll(
        &mut self,
        run: &Run<'m>,
        most: usize,
        place: &Place<'_, 'm>,
        scopes: &mut Vec<Scope>,
    ) -> Result<Unrolled> {
        let mut carries = run.carries.clone();
        let mut stacked: Vec<Vec<ValueId>> = vec![Vec::new(); run.stacked.len()];
        let mut condition = run.condition;
        let before = self.b.graph.nodes.len();
        let known = |walk: &Self, id: ValueId| walk.b.known(id).and_then(|t| t.ints().first().copied());
        let mut round = 0;
        while round < run.count {
            match condition.map(|id| known(self, id)) {
                Some(None) => return Ok(Unrolled::Not),
                Some(Some(0)) => break,
                Some(Some(_)) | None => {}
            }
            let mut arguments = self.leading(run, round);
            arguments.extend(&carries);
            for (id, backward) in &run.scans {
                arguments.push(self.row(*id, if *backward { run.count - 1 - round } else { round })?);
            }
            let Some(mut results) = all(self.walk_body(run.body, &arguments, place, scopes)) else {
                return Ok(Unrolled::Done(Vec::new()));
            };
            if run.condition.is_some() {
                let next = results.remove(0);
                condition = Some(self.b.reshape(next, Vec::new())?);
            }
            let rows = results.split_off(carries.len().min(results.len()));
            carries = results;
            stacked.iter_mut().zip(rows).for_each(|(all, row)| all.push(row));
            round += 1;
            if self.b.graph.nodes.len() > before && run.count > most {
                return Ok(Unrolled::Not);
            }
            if self.walked > super::MAX_WALKED {
                return Ok(Unrolled::Done(Vec::new()));
            }
        }
        let mut results: Results = carries.into_iter().map(Some).collect();
        if stacked.is_empty() {
            return Ok(Unrolled::Done(results));
        }
        if round == 0 {
            let Some(rows) = self.rows_of_no_round(run, place, scopes) else { return Ok(Unrolled::Done(Vec::new())) };
            results.extend(rows.into_iter().map(Some));
            return Ok(Unrolled::Done(results));
        }
        for (mut rows, backward) in stacked.into_iter().zip(&run.stacked) {
            if *backward {
                rows.reverse();
            }
            results.push(Some(self.stack(&rows)?));
        }
        Ok(Unrolled::Done(results))
    }

    /// What a loop that never runs stacks: nothing, of the type and shape that its body would give.
    fn rows_of_no_round(
        &mut self,
        run: &Run<'m>,
        place: &Place<'_, 'm>,
        scopes: &mut Vec<Scope>,
    ) -> Option<Vec<ValueId>> {
        let mut arguments = self.leading(run, 0);
        arguments.extend(&run.carries);
        self.b.open();
        let results = self.walk_body(run.body, &arguments, place, scopes);
        self.b.leave();
        let results = all(results)?;
        let skipped = run.carries.len() + usize::from(run.condition.is_some());
        let empty = |id: &ValueId| {
            let dtype = self.b.dtype(*id);
            let data = Data::of(dtype, &[]);
            Tensor { dtype, shape: [&[0], self.b.shape(*id)].concat(), data }
        };
        let rows: Vec<Tensor> = results.iter().skip(skipped).map(empty).collect();
        Some(rows.into_iter().map(|tensor| self.b.constant(tensor)).collect())
    }

    /// The arguments that a `Loop`'s body takes first, when they are known: the round, and that it goes on.
    fn leading(&mut self, run: &Run<'m>, round: usize) -> Vec<ValueId> {
        if run.condition.is_none() {
            return Vec::new();
        }
        let round = Tensor::int(DType::I64, round_shape(run.body), vec![round as i64]);
        vec![self.b.constant(round), self.b.scalar(DType::Bool, 1.0)]
    }

    fn repeat(&mut self, run: &Run<'m>, place: &Place<'_, 'm>, scopes: &mut Vec<Scope>) -> Result<Results> {
        let mut arguments = Vec::new();
        let mut rounds = Rounds { count: run.count, ..Rounds::default() };
        self.b.open();
        let leading = run.condition.map(|_| {
            let round = self.b.argument(DType::I64, round_shape(run.body));
            let gate = self.b.argument(DType::Bool, Vec::new());
            arguments.extend([round, gate]);
            (round, gate)
        });
        let argument = |walk: &mut Self, like: ValueId, skip: usize| {
            let (dtype, shape) = (walk.b.dtype(like), walk.b.shape(like)[skip..].to_vec());
            walk.b.argument(dtype, shape)
        };
        let carried: Vec<ValueId> = run.carries.iter().map(|id| argument(self, *id, 0)).collect();
        let rows: Vec<ValueId> = run.scans.iter().map(|(id, _)| argument(self, *id, 1)).collect();
        arguments.extend(carried.iter().chain(&rows));
        let results = all(self.walk_body(run.body, &arguments, place, scopes));
        // The condition as a scalar is made inside.
        let results = results.map(|mut results| {
            let next = leading.map(|_| results.remove(0)).map(|id| self.b.reshape(id, Vec::new()));
            (results, next)
        });
        let nodes = self.b.leave();
        let Some((mut results, next)) = results else { return Ok(Vec::new()) };
        let next = next.transpose()?;
        let stacked = results.split_off(carried.len().min(results.len()));
        rounds.carries = run.carries.iter().zip(&carried).zip(&results).map(|((a, b), c)| (*a, *b, *c)).collect();
        rounds.scans = run.scans.iter().zip(&rows).map(|((id, backward), row)| (*id, *row, *backward)).collect();
        rounds.stacked = stacked.iter().zip(&run.stacked).map(|(id, backward)| (*id, *backward)).collect();
        let mut gated = 0;
        if let (Some((round, gate)), Some(next), Some(first)) = (leading, next, run.condition) {
            let reads = |id: ValueId| nodes.iter().any(|n| n.inputs.contains(&id)) || results.contains(&id);
            let known = |id: ValueId| self.b.known(id).and_then(|t| t.ints().first().copied());
            let goes_on = known(first).is_some_and(|c| c != 0) && (next == gate || known(next).is_some_and(|c| c != 0));
            if !goes_on || reads(gate) || stacked.contains(&gate) {
                if run.stacks && !rounds.stacked.is_empty() {
                    return unsupported("how many rows it stacks is computed from the model's inputs");
                }
                rounds.stacked.clear();
                rounds.gated = true;
                rounds.carries.insert(0, (first, gate, next));
                gated = 1;
            }
            if !run.bounded {
                return unsupported("it has no largest number of rounds; give a constant trip count when exporting");
            }
            if reads(round) || stacked.contains(&round) {
                if run.count > crate::shape::MAX_ROUNDS {
                    return unsupported(format!("{} rounds", run.count));
                }
                let shape = [&[run.count], &round_shape(run.body)[..]].concat();
                let table = Tensor::int(DType::I64, shape, (0..run.count as i64).collect());
                rounds.scans.push((self.b.constant(table), round, false));
            }
        }
        let outputs = self.b.repeat(nodes, &rounds)?;
        Ok(outputs.into_iter().skip(gated).map(Some).collect())
    }

    /// One row along the first dimension, without that dimension.
    fn row(&mut self, x: ValueId, index: usize) -> Result<ValueId> {
        let Some((_, row)) = self.b.shape(x).split_first() else { return invalid("rows of a scalar") };
        let (row, dtype) = (row.to_vec(), self.b.dtype(x));
        let shape = [&[1], &row[..]].concat();
        let mut starts = vec![0; shape.len()];
        starts[0] = index;
        let steps = vec![1; shape.len()];
        let one = self.b.one(Op::Slice { starts, steps }, &[x], Some((dtype, shape)))?;
        self.b.reshape(one, row)
    }

    /// Along a new first dimension.
    fn stack(&mut self, rows: &[ValueId]) -> Result<ValueId> {
        let rows = rows.iter().map(|id| self.b.reshape(*id, [&[1], self.b.shape(*id)].concat()));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        self.b.one(Op::Concat { axis: 0 }, &rows, None)
    }

    /// Dimension `axis` first.
    fn front(&mut self, x: ValueId, axis: usize) -> Result<ValueId> {
        let mut perm: Vec<usize> = (0..self.b.rank(x)).collect();
        perm.remove(axis);
        perm.insert(0, axis);
        self.b.transpose(x, perm)
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            values: self.b.graph.values.len(),
            nodes: self.b.graph.nodes.len(),
            findings: self.findings.clone(),
            notes: self.notes.len(),
        }
    }

    fn roll_back(&mut self, checkpoint: Checkpoint) {
        self.b.roll_back(checkpoint.nodes, checkpoint.values);
        self.findings = checkpoint.findings;
        self.notes.truncate(checkpoint.notes);
    }
}

/// All of them, if all are known.
fn all(results: Results) -> Option<Vec<ValueId>> {
    results.into_iter().collect()
}

/// The shape of a round's number: a scalar, or one element where the body says so.
fn round_shape(body: &onnx::Graph<'_>) -> Vec<usize> {
    let declared = body.inputs.first().and_then(|info| info.shape.as_ref());
    vec![1; declared.map_or(0, Vec::len).min(1)]
}
