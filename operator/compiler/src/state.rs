//! State that gateways carry: whether what is asked of a model's inputs can be had, in words of the model's own tensors, and what it
//! takes.

use ballast_bundle::{State, StateInput, TensorSpec};

use crate::import::yaml;
use crate::ir::{Graph, ValueId};
use crate::judge::mebibytes;
use crate::{InputOverride, SequenceLimits, StateOverride};

/// Tensors that a sentence lists.
const SHOWN: usize = 20;

fn spec(graph: &Graph, id: ValueId, name: &str) -> TensorSpec {
    let value = graph.value(id);
    let shape = value.shape.iter().map(|d| *d as u64).collect();
    TensorSpec { name: name.to_owned(), datatype: value.dtype.datatype(), shape }
}

fn inputs(graph: &Graph) -> Vec<TensorSpec> {
    graph.inputs.iter().map(|id| spec(graph, *id, &graph.value(*id).name)).collect()
}

fn outputs(graph: &Graph) -> Vec<TensorSpec> {
    graph.outputs.iter().zip(&graph.output_names).map(|(id, name)| spec(graph, *id, name)).collect()
}

fn asked(overrides: &[InputOverride]) -> impl Iterator<Item = (&str, &StateOverride)> {
    overrides.iter().filter_map(|o| Some((o.name.as_str(), o.state.as_ref()?)))
}

fn carried(name: &str, state: &StateOverride) -> StateInput {
    StateInput {
        input: name.to_owned(),
        output: state.output.clone(),
        reset: state.reset,
        initial: state.initial.clone(),
    }
}

/// The contract's state, of a model that [`look`] finds nothing wrong with.
pub(crate) fn of(overrides: &[InputOverride], graph: &Graph, limits: &SequenceLimits) -> Option<State> {
    let all: Vec<_> = asked(overrides).collect();
    let names = graph.inputs.iter().map(|id| graph.value(*id).name.as_str());
    let inputs =
        names.filter_map(|name| all.iter().find(|(n, _)| *n == name).map(|(name, state)| carried(name, state)));
    let inputs: Vec<StateInput> = inputs.collect();
    (!inputs.is_empty()).then_some(State { inputs, max_sequences: limits.max, max_idle_millis: limits.max_idle_millis })
}

/// What the state of all sequences takes of a gateway's memory, bytes.
pub(crate) fn memory(overrides: &[InputOverride], graph: &Graph, limits: &SequenceLimits) -> u64 {
    of(overrides, graph, limits).map_or(0, |state| state.memory(&inputs(graph)))
}

/// What is in the way of carrying state as it is asked for, and what there is to say of it, a sentence each.
pub(crate) fn look(overrides: &[InputOverride], graph: &Graph, limits: &SequenceLimits) -> (Vec<String>, Vec<String>) {
    let (inputs, outputs) = (inputs(graph), outputs(graph));
    let mut wrong = Vec::new();
    let mut taken: Vec<&str> = Vec::new();
    for (name, state) in asked(overrides) {
        if let Some(why) = problem(overrides, graph, &inputs, &outputs, name, state) {
            wrong.push(why);
        }
        if taken.contains(&state.output.as_str()) {
            wrong.push(format!(
                "output {:?} is the state of two inputs; each input has an output of its own",
                state.output
            ));
        }
        taken.push(&state.output);
    }
    if !wrong.is_empty() {
        return (wrong, Vec::new());
    }
    let Some(state) = of(overrides, graph, limits) else { return (wrong, guesses(&inputs, &outputs)) };
    let mut notes: Vec<String> = state
        .inputs
        .iter()
        .map(|s| match s.reset {
            ballast_bundle::Reset::OnSwap => {
                format!(
                    "input {:?} is state: clients leave it out, gateways carry it over from output {:?}",
                    s.input, s.output
                )
            }
            ballast_bundle::Reset::PerRequest => {
                format!("input {:?} is state that begins anew with every request: clients leave it out", s.input)
            }
        })
        .collect();
    if state.needs_sequences() {
        notes.push(format!(
            "requests name a sequence (parameters.sequence_id); state is {} bytes a sequence, of up to {} sequences {}, each kept for {} s \
             without a request (runtime.sequences)",
            state.bytes(&inputs),
            state.max_sequences,
            mebibytes(state.memory(&inputs)),
            state.max_idle_millis as f64 / 1000.0
        ));
    }
    (wrong, notes)
}

/// Why one input cannot be carried.
fn problem(
    overrides: &[InputOverride],
    graph: &Graph,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    name: &str,
    state: &StateOverride,
) -> Option<String> {
    let given = overrides.iter().find(|o| o.name == name)?;
    if given.value.is_some() {
        return Some(format!(
            "input {name:?} is given a value, which makes it a constant with nothing to carry; for what a sequence begins with write \
             state.initial"
        ));
    }
    if let Some(rows) = overrides.iter().find(|o| o.batch_axis.is_some()) {
        return Some(format!(
            "input {name:?} is state, and input {:?} has a batchAxis: rows of a batch are run apart from each other, so no state goes \
             from one to the next; leave batchAxis out",
            rows.name
        ));
    }
    let Some(input) = inputs.iter().find(|t| t.name == name) else {
        return Some(format!("input {name:?} is not there any more when constants are folded: leave its state out"));
    };
    let alike: Vec<&TensorSpec> = outputs
        .iter()
        .filter(|o| o.shape == input.shape && o.datatype == input.datatype)
        .filter(|o| graph.counted_outputs().iter().all(|c| c.output != o.name))
        .collect();
    let instead = match alike.as_slice() {
        [] => "no output of the model is like it, so leave its state out".to_owned(),
        some => {
            let each = some.iter().take(SHOWN).map(|o| {
                let shape = given.shape.as_ref().map_or_else(String::new, |shape| format!(" shape: {shape:?},"));
                let state = yaml(&StateOverride { output: o.name.clone(), ..state.clone() });
                format!("{{name: {},{shape} {state}}}", crate::import::scalar(name))
            });
            format!("write {}", each.collect::<Vec<_>>().join(" or "))
        }
    };
    let Some(output) = outputs.iter().find(|t| t.name == state.output) else {
        let names: Vec<_> = outputs.iter().take(SHOWN).map(|t| format!("{:?}", t.name)).collect();
        return Some(format!(
            "the model has no output {:?}, of which input {name:?} is to be the state; it has {}; {instead}",
            state.output,
            names.join(", ")
        ));
    };
    if graph.counted_outputs().iter().any(|c| c.output == output.name) {
        return Some(format!(
            "output {:?} has as many rows as the data says, so input {name:?} cannot carry it; {instead}",
            output.name
        ));
    }
    if input.shape != output.shape || input.datatype != output.datatype {
        return Some(format!(
            "output {:?} ({:?} {:?}) cannot become input {name:?} ({:?} {:?}), which must be of the same shape and type; {instead}",
            output.name, output.datatype, output.shape, input.datatype, input.shape
        ));
    }
    if carried(name, state).initial_bytes(input).is_none() {
        return Some(format!(
            "state.initial of input {name:?} must be one number or {} of them, each exactly a {:?}",
            input.elements().unwrap_or(0),
            input.datatype
        ));
    }
    None
}

/// Inputs that look like state that nobody asked gateways to carry: `state` and `stateN`, `h` and `hn`.
fn guesses(inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Vec<String> {
    let mut notes = Vec::new();
    if inputs.len() < 2 || outputs.len() < 2 {
        return notes;
    }
    for input in inputs {
        let stem = input.name.trim_end_matches("_in").trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
        let like = |o: &&TensorSpec| {
            let more = o.name.strip_prefix(stem);
            let end = |m: &str| matches!(m.trim_start_matches('_'), "" | "n" | "N" | "out" | "next" | "new");
            !stem.is_empty() && more.is_some_and(end) && o.shape == input.shape && o.datatype == input.datatype
        };
        let mut found = outputs.iter().filter(like);
        if let (Some(output), None) = (found.next(), found.next()) {
            let state = yaml(&StateOverride { output: output.name.clone(), ..StateOverride::default() });
            notes.push(format!(
                "input {:?} looks like state that output {:?} carries on; to let gateways carry it write {{name: {}, shape: {:?}, {state}}} \
                 under model.inputs",
                input.name,
                output.name,
                crate::import::scalar(&input.name),
                input.shape
            ));
        }
    }
    notes
}
