//! The way of a model through the rooms: import, lower, contract, golden vectors, verdict.

use ballast_bundle::{Contract, Limits, TensorSpec};

use crate::golden::{self, Refusal};
use crate::import::{self, Imported};
use crate::ir::{Graph, ValueId};
use crate::lower::{LowerError, Lowered, lower};
use crate::{Artifacts, CompileOutcome, CompileRequest, UnsupportedOperator, Verdict, VerdictReason, cost};

/// The runner ABI that plans are made for: `edge-runtime/runner/ABI.md`.
const RUNNER_ABI: u32 = 1 << 16;
/// Shortest deadline that is derived: a small busy machine takes a process off the CPU for tenths of a second.
const MIN_DEADLINE_MILLIS: f64 = 500.0;
/// Longest deadline that is derived.
const MAX_DEADLINE_MILLIS: f64 = 60_000.0;
/// How much slower than predicted an inference may be before it is cut off.
const DEADLINE_FACTOR: f64 = 10.0;
/// What a deadline is derived from where the target's speed is not known: the slowest built-in target.
const UNKNOWN_GFLOPS: f64 = 0.5;

/// A model that got as far as a plan.
struct Compiled {
    graph: Graph,
    lowered: Lowered,
    cost: cost::Cost,
}

/// Whether the model fits the target, with numbers; everything that is wrong at once. No golden vectors are run.
pub fn check(request: &CompileRequest) -> Verdict {
    match plan(request) {
        Ok((_, verdict)) | Err(verdict) => verdict,
    }
}

/// Compiles in this process. The caller proves the result before it signs it.
pub fn compile(request: &CompileRequest) -> CompileOutcome {
    let (compiled, mut verdict) = match plan(request) {
        Ok((compiled, verdict)) if verdict.fits => (compiled, verdict),
        Ok((_, verdict)) | Err(verdict) => return CompileOutcome::Refused(verdict),
    };
    if request.golden.is_none() {
        verdict.message.push_str(
            "\nGolden outputs are self-made: they catch a wrong compilation and bad hardware, not a bad model.",
        );
    }
    let contract = contract(request, &compiled, &verdict);
    let golden =
        golden::golden(&compiled.graph, &contract, request.golden.as_deref(), &request.model, compiled.cost.flop);
    let refuse = |reason, message| CompileOutcome::Refused(Verdict { fits: false, reason, message, ..verdict.clone() });
    let golden = match golden {
        Ok(golden) => golden,
        Err(Refusal::Invalid(message)) => return refuse(VerdictReason::InvalidGolden, message),
        Err(Refusal::Mismatch(message)) => return refuse(VerdictReason::GoldenMismatch, message),
    };
    // A contract is plain data with string keys: it always has a JSON form.
    let Ok(contract) = serde_json::to_vec(&contract) else {
        return refuse(VerdictReason::NotLowered, "The contract has no JSON form.".to_owned());
    };
    let Lowered { plan, weights, .. } = compiled.lowered;
    CompileOutcome::Built(Box::new(Artifacts { weights, plan, contract, golden, verdict }))
}

fn refused(reason: VerdictReason, unsupported: Vec<UnsupportedOperator>, message: String) -> Verdict {
    Verdict {
        fits: false,
        reason,
        unsupported,
        peak_memory_bytes: 0,
        size_bytes: 0,
        gflop: 0.0,
        predicted_latency_millis: 0.0,
        message,
    }
}

/// As far as it goes without running the model. `Ok` has a verdict that may still say no, with all its numbers.
fn plan(request: &CompileRequest) -> Result<(Compiled, Verdict), Verdict> {
    let Imported { graph, notes, .. } = import::import(&request.model, &request.inputs, &request.target.deny)
        .map_err(|findings| refused(findings.reason(), findings.unsupported.clone(), findings.message()))?;
    let cost = cost::cost(&graph);
    let lowered = match lower(&graph, &request.target) {
        Ok(lowered) => lowered,
        Err(LowerError::TooLarge { what, bytes }) => {
            let message = format!("The model needs {what} of {}; the plan format ends below 2 GiB.", mebibytes(bytes));
            return Err(refused(VerdictReason::MemoryExceeded, Vec::new(), message));
        }
        Err(LowerError::NotLowered(gaps)) => {
            let lines: Vec<String> =
                gaps.iter().map(|gap| format!("- {} at node {:?}: {}", gap.operator, gap.node, gap.detail)).collect();
            let message = format!(
                "The model has operators that cannot be compiled yet. Leave them out when exporting, or do their work in \
                 the application.\n{}",
                lines.join("\n")
            );
            let unsupported = gaps.into_iter().map(|gap| UnsupportedOperator {
                operator: gap.operator,
                node: gap.node,
                nearest: Some(gap.detail),
            });
            return Err(refused(VerdictReason::NotLowered, unsupported.collect(), message));
        }
        Err(ref e @ LowerError::Plan(ref why)) => {
            return Err(refused(
                VerdictReason::NotLowered,
                Vec::new(),
                format!("This is a fault of the compiler: {e}: {why}."),
            ));
        }
    };
    let verdict = judge(request, &lowered, &cost, &notes);
    Ok((Compiled { graph, lowered, cost }, verdict))
}

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

fn mebibytes(bytes: u64) -> String {
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

/// Numbers, and every limit that they break.
fn judge(request: &CompileRequest, lowered: &Lowered, cost: &cost::Cost, notes: &[String]) -> Verdict {
    let (target, runtime) = (&request.target, &request.runtime);
    let (plan, weights) = (lowered.plan.len() as u64, lowered.weights.len() as u64);
    let peak = memory_needed(plan, weights, lowered.arena_bytes);
    let predicted = predict(cost, lowered.gflop, target.gflops, target.memory_bandwidth);
    let mut reason = VerdictReason::Fits;
    let mut lines = Vec::new();
    let parts = format!(
        "weights {}, activations {}, the rest plan and runner",
        mebibytes(weights),
        mebibytes(lowered.arena_bytes)
    );
    // One spare instance is kept warm.
    let instances = u64::from(runtime.instances.max(1)) + 1;
    if peak > runtime.memory_limit {
        reason = VerdictReason::MemoryExceeded;
        lines.push(format!(
            "The model needs {} of memory on {}; runtime.memoryLimit allows {} ({parts}). Raise the limit or give a smaller variant.",
            mebibytes(peak),
            target.name,
            mebibytes(runtime.memory_limit)
        ));
    }
    if peak.saturating_mul(instances) > target.memory_bytes {
        reason = VerdictReason::MemoryExceeded;
        lines.push(format!(
            "{instances} instances of {} (one of them a spare) need more than the {} that {} has ({parts}). Give a smaller \
             variant, or fewer instances.",
            mebibytes(peak),
            mebibytes(target.memory_bytes),
            target.name
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
            target.name, lowered.gflop, target.gflops
        ));
    }
    let fits = reason == VerdictReason::Fits;
    if fits {
        let time = if predicted > 0.0 { format!(", {predicted:.2} ms predicted") } else { String::new() };
        lines.push(format!(
            "Fits {}: {} of memory per instance ({parts}), {:.4} GFLOP{time}.",
            target.name,
            mebibytes(peak),
            lowered.gflop
        ));
    }
    lines.extend(notes.iter().map(|note| format!("Note: {note}.")));
    Verdict {
        fits,
        reason,
        unsupported: Vec::new(),
        peak_memory_bytes: peak,
        size_bytes: plan + weights,
        gflop: lowered.gflop,
        predicted_latency_millis: predicted,
        message: lines.join("\n"),
    }
}

fn contract(request: &CompileRequest, compiled: &Compiled, verdict: &Verdict) -> Contract {
    let spec = |id: &ValueId, name: &str| {
        let value = compiled.graph.value(*id);
        TensorSpec {
            name: name.to_owned(),
            datatype: value.dtype.datatype(),
            shape: value.shape.iter().map(|d| *d as u64).collect(),
        }
    };
    let graph = &compiled.graph;
    let deadline = request.runtime.deadline_millis.unwrap_or_else(|| {
        let known = verdict.predicted_latency_millis > 0.0;
        let predicted = if known { verdict.predicted_latency_millis } else { verdict.gflop / UNKNOWN_GFLOPS * 1000.0 };
        (predicted * DEADLINE_FACTOR).clamp(MIN_DEADLINE_MILLIS, MAX_DEADLINE_MILLIS).ceil() as u64
    });
    let mut verification = request.verification.clone();
    verification.user_golden = request.golden.is_some();
    Contract {
        format: 1,
        model: request.model_name.clone(),
        version: request.version.clone(),
        variant: request.variant.clone(),
        target: request.target.name.clone(),
        abi: RUNNER_ABI,
        plan_major: ballast_plan::MAJOR,
        inputs: graph.inputs.iter().map(|id| spec(id, &graph.value(*id).name)).collect(),
        outputs: graph.outputs.iter().zip(&graph.output_names).map(|(id, name)| spec(id, name)).collect(),
        limits: Limits {
            memory_bytes: verdict.peak_memory_bytes,
            deadline_millis: deadline,
            instances: request.runtime.instances.max(1),
            max_queue: request.runtime.max_queue,
        },
        verification,
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
