//! Numbers of a plan on a target, and every limit that they break.

use std::collections::BTreeMap;

use crate::ir::Graph;
use crate::lower::Lowered;
use crate::{MemoryNeed, RuntimeLimits, ShapeNeed, TargetSpec, Verdict, VerdictReason, cost};

/// Shortest deadline that is derived: a small busy machine takes a process off the CPU for tenths of a second.
const MIN_DEADLINE_MILLIS: f64 = 500.0;
/// Longest deadline that is derived.
const MAX_DEADLINE_MILLIS: f64 = 60_000.0;
/// How much slower than predicted an inference may be before it is cut off.
const DEADLINE_FACTOR: f64 = 10.0;
/// What a deadline is derived from where the target's speed is not known: the slowest built-in target.
const UNKNOWN_GFLOPS: f64 = 0.5;

/// What one instance takes: the same sum as the sandbox makes.
#[cfg(feature = "worker")]
fn memory_needed(plan: u64, weights: u64, arena: u64) -> u64 {
    ballast_sandbox::memory_needed(plan, weights, arena)
}

/// What one instance takes; a test holds it to the sandbox's sum.
#[cfg(any(test, not(feature = "worker")))]
#[cfg_attr(feature = "worker", allow(dead_code))]
fn memory_needed_alone(plan: u64, weights: u64, arena: u64) -> u64 {
    let pages = |bytes: u64| bytes.div_ceil(1 << 16).saturating_mul(1 << 16);
    [plan, weights, arena].into_iter().fold(1 << 20, |sum: u64, part| sum.saturating_add(pages(part)))
}

#[cfg(not(feature = "worker"))]
fn memory_needed(plan: u64, weights: u64, arena: u64) -> u64 {
    memory_needed_alone(plan, weights, arena)
}

/// For people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Milliseconds that the arithmetic and the traffic take one after the other.
fn predict(cost: &cost::Cost, gflop: f64, gflops: f64, bandwidth: f64) -> f64 {
    if gflops <= 0.0 {
        return 0.0;
    }
    let traffic = if bandwidth > 0.0 { cost.bytes as f64 / bandwidth } else { 0.0 };
    (gflop / gflops + traffic) * 1000.0
}

/// The deadline where none is given.
fn derived_deadline(predicted: f64, gflop: f64) -> u64 {
    let predicted = if predicted > 0.0 { predicted } else { gflop / UNKNOWN_GFLOPS * 1000.0 };
    (predicted * DEADLINE_FACTOR).clamp(MIN_DEADLINE_MILLIS, MAX_DEADLINE_MILLIS).ceil() as u64
}

fn shapes(graph: &Graph) -> BTreeMap<String, Vec<u64>> {
    let inputs = graph.inputs.iter().map(|id| graph.value(*id));
    inputs.map(|value| (value.name.clone(), value.shape.iter().map(|d| *d as u64).collect())).collect()
}

fn memory(target: &TargetSpec, runtime: &RuntimeLimits, lowered: &Lowered, carried: u64) -> MemoryNeed {
    let (plan, weights) = (lowered.plan.len() as u64, lowered.weights.len() as u64);
    let instance_bytes = memory_needed(plan, weights, lowered.arena_bytes);
    let instances = runtime.instances.max(1);
    // One spare instance is kept warm. A candidate brings instances and a spare of its own.
    let serving_bytes = instance_bytes.saturating_mul(u64::from(instances) + 1).saturating_add(carried);
    MemoryNeed {
        instance_bytes,
        weights_bytes: weights,
        activations_bytes: lowered.arena_bytes,
        instances,
        state_bytes: carried,
        serving_bytes,
        rollout_bytes: serving_bytes.saturating_mul(2),
        limit_bytes: runtime.memory_limit,
        target_bytes: target.memory_bytes,
    }
}

/// Numbers, and every limit that they break. `carried`: bytes of all sequences' state.
pub(crate) fn judge(
    target: &TargetSpec,
    runtime: &RuntimeLimits,
    lowered: &Lowered,
    graphs: &[(Graph, cost::Cost)],
    carried: u64,
    notes: &[String],
) -> Verdict {
    let need = memory(target, runtime, lowered, carried);
    let shapes: Vec<ShapeNeed> = graphs
        .iter()
        .zip(&lowered.gflop)
        .map(|((graph, cost), gflop)| ShapeNeed {
            inputs: shapes(graph),
            gflop: *gflop,
            predicted_latency_millis: predict(cost, *gflop, target.gflops, target.memory_bandwidth),
        })
        .collect();
    // Of the largest shape.
    let predicted = shapes.iter().map(|shape| shape.predicted_latency_millis).fold(0.0, f64::max);
    let gflop = lowered.gflop.iter().copied().fold(0.0, f64::max);
    let shapes = if shapes.len() > 1 { shapes } else { Vec::new() };
    let mut reason = VerdictReason::Fits;
    let mut lines = Vec::new();
    let mut notes = notes.to_vec();
    let parts = format!(
        "weights {}, activations {}, the rest plan and runner",
        mebibytes(need.weights_bytes),
        mebibytes(need.activations_bytes)
    );
    if need.instance_bytes > runtime.memory_limit {
        reason = VerdictReason::MemoryExceeded;
        lines.push(format!(
            "The model needs {} of memory on {}; runtime.memoryLimit allows {} ({parts}). Raise the limit or give a smaller variant.",
            mebibytes(need.instance_bytes),
            target.name,
            mebibytes(runtime.memory_limit)
        ));
    }
    if need.serving_bytes > target.memory_bytes {
        reason = VerdictReason::MemoryExceeded;
        lines.push(format!(
            "{} instances of {} (one of them a spare){} need more than the {} that {} has ({parts}). Give a smaller variant, or \
             fewer instances{}.",
            u64::from(need.instances) + 1,
            mebibytes(need.instance_bytes),
            match need.state_bytes {
                0 => String::new(),
                bytes => format!(" and {} for the state of sequences", mebibytes(bytes)),
            },
            mebibytes(target.memory_bytes),
            target.name,
            if need.state_bytes > 0 { " or sequences (runtime.sequences.max)" } else { "" }
        ));
    } else if need.rollout_bytes > target.memory_bytes {
        notes.push(format!(
            "a next version of this size would not be tried beside this one: both need {}, {} has {}; a gateway that has no \
             more puts it off (InsufficientMemory)",
            mebibytes(need.rollout_bytes),
            target.name,
            mebibytes(target.memory_bytes)
        ));
    }
    if let Some(deadline) = runtime.deadline_millis
        && predicted > deadline as f64
    {
        if reason == VerdictReason::Fits {
            reason = VerdictReason::DeadlineExceeded;
        }
        lines.push(format!(
            "One inference is predicted to take {predicted:.1} ms on {} ({:.3} GFLOP at {:.2} GFLOP/s); runtime.deadline is \
             {deadline} ms.",
            target.name, gflop, target.gflops
        ));
    }
    if reason == VerdictReason::Fits {
        let time = if predicted > 0.0 { format!(", {predicted:.2} ms predicted") } else { String::new() };
        lines.push(format!(
            "Fits {}: {} of memory per instance ({parts}), {} with the spare, {:.4} GFLOP{time}.",
            target.name,
            mebibytes(need.instance_bytes),
            mebibytes(need.serving_bytes),
            gflop
        ));
    }
    if !shapes.is_empty() {
        let each: Vec<String> = shapes.iter().map(|shape| format!("- {shape}")).collect();
        lines.push(format!("Shapes, of which a request takes the smallest that fits:\n{}", each.join("\n")));
    }
    lines.extend(notes.iter().map(|note| format!("Note: {note}.")));
    Verdict {
        peak_memory_bytes: need.instance_bytes,
        memory: Some(need),
        size_bytes: (lowered.plan.len() + lowered.weights.len()) as u64,
        gflop,
        predicted_latency_millis: predicted,
        shapes,
        deadline_millis: runtime.deadline_millis.unwrap_or_else(|| derived_deadline(predicted, gflop)),
        notes,
        ..Verdict::new(reason, lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "worker")]
    #[test]
    fn memory_is_counted_as_the_sandbox_counts_it() {
        for [plan, weights, arena] in [[0, 0, 0], [1, 1, 1], [65_536, 65_537, 12_345_678], [u64::MAX, 1, 1]] {
            assert_eq!(super::memory_needed_alone(plan, weights, arena), super::memory_needed(plan, weights, arena));
        }
    }

    #[test]
    fn arithmetic_and_traffic_add_up() {
        let cost = crate::cost::Cost { flop: 0, bytes: 2_000_000, weights: 0 };
        assert!((super::predict(&cost, 0.5, 10.0, 1e9) - 52.0).abs() < 1e-9);
        assert_eq!(super::predict(&cost, 0.5, 0.0, 1e9), 0.0);
    }
}
