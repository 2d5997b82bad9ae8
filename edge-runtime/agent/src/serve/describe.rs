//! What is served, in the protocol's words.

use ballast_bundle::{Contract, TensorSpec};
use serde_json::{Value, json};

use super::{Route, numbers};

/// `GET v2`.
pub(super) fn server() -> Value {
    json!({"name": "ballast-edge", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"]})
}

/// `POST v2/repository/index`.
pub(super) fn index(served: &[(String, Route)], coming: &[String]) -> Value {
    let ready = |(model, route): &(String, Route)| json!({"name": model, "version": route.primary.contract.version, "state": "READY"});
    let loading = |model: &String| json!({"name": model, "state": "LOADING", "reason": "no release of it is here yet"});
    served.iter().map(ready).chain(coming.iter().map(loading)).collect()
}

/// `GET v2/models/{model}`. The versions are those that can be asked for by name.
pub(super) fn metadata(route: &Route) -> Value {
    let contract = &route.primary.contract;
    let tensors = |specs: &[TensorSpec]| -> Value {
        let tensor = |t: &TensorSpec| json!({"name": t.name, "datatype": numbers::name(t.datatype), "shape": t.shape});
        specs.iter().map(tensor).collect()
    };
    let mut versions = vec![&contract.version];
    versions.extend(route.backup.iter().map(|b| &b.contract.version).filter(|v| **v != contract.version));
    json!({
        "name": contract.model,
        "versions": versions,
        "platform": "ballast_plan",
        "inputs": tensors(&contract.inputs),
        "outputs": tensors(&contract.outputs),
    })
}

/// What tritonclient's `/config` reads: names, types and dimensions.
pub(super) fn config(contract: &Contract) -> Value {
    let tensors = |specs: &[TensorSpec]| -> Value {
        let tensor = |t: &TensorSpec| json!({"name": t.name, "data_type": format!("TYPE_{}", numbers::name(t.datatype)), "dims": t.shape});
        specs.iter().map(tensor).collect()
    };
    json!({
        "name": contract.model,
        "platform": "ballast_plan",
        "max_batch_size": 0,
        "input": tensors(&contract.inputs),
        "output": tensors(&contract.outputs),
    })
}
