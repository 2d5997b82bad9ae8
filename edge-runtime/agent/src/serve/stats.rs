//! Statistics of what is served, in the shape that Triton gives them.

use ballast_bundle::Contract;
use serde_json::{Value, json};

use super::Route;
use crate::metrics::{Inference, Metrics, Sum};

/// One version of one model.
pub(super) struct Statistics {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) counts: Inference,
}

/// Of one version that is served.
pub(super) fn one(contract: &Contract, version: &str, metrics: &Metrics) -> Statistics {
    let counts = metrics.of(&contract.model, version);
    Statistics { model: contract.model.clone(), version: version.to_owned(), counts }
}

/// Of every version that can be asked for by name.
pub(super) fn of<'r>(routes: impl IntoIterator<Item = &'r Route>, metrics: &Metrics) -> Vec<Statistics> {
    let versions = |route: &Route| {
        let contract = &route.primary.contract;
        let behind = route.backup.iter().map(|b| b.contract.version.clone()).filter(|v| *v != contract.version);
        let all: Vec<_> = std::iter::once(contract.version.clone()).chain(behind).collect();
        all.into_iter().map(|version| one(contract, &version, metrics)).collect::<Vec<_>>()
    };
    routes.into_iter().flat_map(versions).collect()
}

/// The statistics extension's answer. Executions are of one row each: that is their batch size.
pub(super) fn as_json(all: &[Statistics]) -> Value {
    let sum = |sum: Sum| json!({"count": sum.count, "ns": sum.nanos});
    let one = |s: &Statistics| {
        let c = &s.counts;
        let mut batches = Vec::new();
        if c.compute.count > 0 {
            batches.push(json!({
                "batch_size": 1,
                "compute_input": sum(c.input),
                "compute_infer": sum(c.compute),
                "compute_output": sum(c.output),
            }));
        }
        json!({
            "name": s.model,
            "version": s.version,
            "last_inference": c.last_millis,
            "inference_count": c.compute.count,
            "execution_count": c.compute.count,
            "inference_stats": {
                "success": sum(c.success),
                "fail": sum(c.failure),
                "queue": sum(c.queue),
                "compute_input": sum(c.input),
                "compute_infer": sum(c.compute),
                "compute_output": sum(c.output),
                "cache_hit": sum(Sum::default()),
                "cache_miss": sum(Sum::default()),
            },
            "batch_stats": batches,
        })
    };
    json!({"model_stats": all.iter().map(one).collect::<Vec<_>>()})
}
