//! What is served, in the protocol's words.

use ballast_bundle::{Contract, State, StateInput, TensorSpec};
use serde_json::{Map, Value, json};

use super::{Route, numbers};

/// `GET v2`.
pub(super) fn server() -> Value {
    json!({"name": "ballast-edge", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data", "statistics", "model_configuration", "model_repository"]})
}

/// `POST v2/repository/index`.
pub(super) fn index(served: &[(String, Route)], coming: &[String]) -> Value {
    let ready = |(model, route): &(String, Route)| json!({"name": model, "version": route.primary.contract.version, "state": "READY"});
    let loading = |model: &String| json!({"name": model, "state": "LOADING", "reason": "no release of it is here yet"});
    served.iter().map(ready).chain(coming.iter().map(loading)).collect()
}

/// `GET v2/models/{model}`. The versions are those that can be asked for by name; tensors are those that clients send and get. Where
/// there are several shapes, parameters list them, and the inputs that may be shorter.
pub(super) fn metadata(route: &Route) -> Value {
    let contract = &route.primary.contract;
    let tensors = |specs: &[TensorSpec], axes: Vec<Option<u32>>, clients: &dyn Fn(&TensorSpec) -> bool| -> Value {
        let tensor = |(t, axis): (&TensorSpec, Option<u32>)| json!({"name": t.name, "datatype": numbers::name(t.datatype), "shape": dims(t, axis)});
        open(contract, specs).iter().zip(axes).filter(|(t, _)| clients(t)).map(tensor).collect()
    };
    let mut versions = vec![&contract.version];
    versions.extend(route.backup.iter().map(|b| &b.contract.version).filter(|v| **v != contract.version));
    let mut said = json!({
        "name": contract.model,
        "versions": versions,
        "platform": "ballast_plan",
        "inputs": tensors(&contract.inputs, input_axes(contract), &|t| contract.state_input(&t.name).is_none()),
        "outputs": tensors(&contract.outputs, output_axes(contract), &|t| !contract.is_state_output(&t.name)),
    });
    if let (Some(buckets), Some(said)) = (&contract.buckets, said.as_object_mut()) {
        let by_name =
            |specs: Vec<TensorSpec>| specs.into_iter().map(|t| (t.name, json!(t.shape))).collect::<Map<_, _>>();
        let entry = |n: usize| {
            let (inputs, outputs) = contract.entry(n);
            json!({"inputs": by_name(inputs), "outputs": by_name(outputs)})
        };
        let shapes: Vec<Value> = (0..contract.entries()).map(entry).collect();
        let padded = contract.inputs.iter().zip(&buckets.padding).filter(|(_, padding)| padding.is_some());
        let padded: Vec<&str> = padded.map(|(t, _)| t.name.as_str()).collect();
        said.insert("parameters".to_owned(), json!({"shapes": shapes, "padded": padded}));
    }
    said
}

/// What tritonclient's `/config` reads: names, types and dimensions.
pub(super) fn config(contract: &Contract) -> Value {
    // Where rows lie along the first axis of everything, the protocol leaves that axis out.
    let (inputs, outputs) = (input_axes(contract), output_axes(contract));
    let first = inputs.iter().chain(&outputs).all(|axis| *axis == Some(0));
    let tensors = |specs: &[TensorSpec], axes: &[Option<u32>], clients: &dyn Fn(&TensorSpec) -> bool| -> Value {
        let tensor = |(t, axis): (&TensorSpec, &Option<u32>)| {
            let dims = dims(t, *axis);
            let dims = if first { dims.get(1..).unwrap_or_default() } else { &dims };
            json!({"name": t.name, "data_type": format!("TYPE_{}", numbers::name(t.datatype)), "dims": dims})
        };
        open(contract, specs).iter().zip(axes).filter(|(t, _)| clients(t)).map(tensor).collect()
    };
    let max = contract.batch.as_ref().filter(|_| first).map_or(0, |batch| batch.max);
    let mut config = json!({
        "name": contract.model,
        "platform": "ballast_plan",
        "max_batch_size": max,
        "input": tensors(&contract.inputs, &inputs, &|t| contract.state_input(&t.name).is_none()),
        "output": tensors(&contract.outputs, &outputs, &|t| !contract.is_state_output(&t.name)),
    });
    if let (Some(state), Some(config)) =
        (contract.state.as_ref().filter(|s| s.needs_sequences()), config.as_object_mut())
    {
        config.insert("sequence_batching".to_owned(), sequence_batching(contract, state));
    }
    config
}

/// How state is carried, in Triton's words.
fn sequence_batching(contract: &Contract, state: &State) -> Value {
    let one = |s: &StateInput| {
        let spec = contract.inputs.iter().find(|t| t.name == s.input)?;
        let data_type = format!("TYPE_{}", numbers::name(spec.datatype));
        Some(json!({"input_name": s.input, "output_name": s.output, "data_type": data_type, "dims": spec.shape}))
    };
    json!({
        "max_sequence_idle_microseconds": state.max_idle_millis.saturating_mul(1000),
        "oldest": {"max_candidate_sequences": state.max_sequences},
        "state": state.carried().filter_map(one).collect::<Vec<_>>(),
    })
}

fn input_axes(contract: &Contract) -> Vec<Option<u32>> {
    contract.batch.as_ref().map_or_else(|| vec![None; contract.inputs.len()], |batch| batch.inputs.clone())
}

fn output_axes(contract: &Contract) -> Vec<Option<u32>> {
    contract.batch.as_ref().map_or_else(
        || contract.outputs.iter().map(|t| contract.counted(&t.name).map(|counted| counted.axis)).collect(),
        |batch| batch.outputs.iter().map(|axis| Some(*axis)).collect(),
    )
}

/// Inputs or outputs, with -1 (here: the largest number there is) for every extent that is not the same in all shapes.
fn open(contract: &Contract, specs: &[TensorSpec]) -> Vec<TensorSpec> {
    let mut specs = specs.to_vec();
    for n in 1..contract.entries() {
        let (inputs, outputs) = contract.entry(n);
        for spec in &mut specs {
            let same = |t: &&TensorSpec| t.name == spec.name && t.shape.len() == spec.shape.len();
            let Some(other) = inputs.iter().chain(&outputs).find(same) else { continue };
            let extents = spec.shape.iter_mut().zip(&other.shape);
            extents.filter(|(mine, other)| mine != other).for_each(|(mine, _)| *mine = OPEN);
        }
    }
    specs
}

/// An extent that depends on the request.
const OPEN: u64 = u64::MAX;

/// Dimensions in the protocol's words: -1 is as many as the client sends, or as each answer has of its own.
fn dims(spec: &TensorSpec, axis: Option<u32>) -> Vec<i64> {
    let extent = |(i, d): (usize, &u64)| {
        if *d == OPEN || axis.is_some_and(|axis| axis as usize == i) {
            -1
        } else {
            i64::try_from(*d).unwrap_or(i64::MAX)
        }
    };
    spec.shape.iter().enumerate().map(extent).collect()
}
