//! What status says, from one table (`ballast_crds::conditions`), and the releases as the administrator's socket shows
//! them. Pure.

use ballast_bundle::UnixMillis;
use ballast_crds::conditions::{Reason, Situation, conditions, rfc3339, row};
use ballast_crds::{
    FailureSummary, ModelDeployment, ModelDeploymentStatus, Proof, ReleaseSummary, RolloutStatus, TargetStatus,
};
use serde_json::{Value, json};

use crate::records::{Phase, Record, Release};
use crate::wanted::Wanted;

/// What keeps an object from being acted on at all.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// A condition's reason.
    pub reason: Reason,
    /// For people: what, where, what to do.
    pub message: String,
}

/// The status of a deployment.
pub fn of(
    object: &ModelDeployment,
    record: Option<&Record>,
    wanted: Option<&Wanted>,
    trouble: Option<&Trouble>,
    now: UnixMillis,
) -> ModelDeploymentStatus {
    let generation = object.metadata.generation;
    let current = wanted.and_then(|w| record?.releases.iter().rev().find(|r| r.identity == w.identity));
    let (situation, message) = match (trouble, current) {
        (Some(trouble), _) => (Situation::unsigned(trouble.reason), trouble.message.clone()),
        (None, Some(release)) => (situation(release), release.message.clone()),
        (None, None) => (Situation::FirstSight, String::new()),
    };
    let some_unsupported = current.is_some_and(|r| r.targets.values().any(|t| t.release.is_none()));
    let cells = row(situation, some_unsupported);
    let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let conditions = conditions(before, &cells, &message, generation.unwrap_or_default(), now);
    let counts = current.map(|r| r.counts.shown());
    ModelDeploymentStatus {
        observed_generation: generation,
        phase: Some(cells.phase),
        conditions,
        current_release: record.and_then(Record::stable).map(summary),
        update_release: current.map(summary),
        targets: current.map(targets).unwrap_or_default(),
        gateways: counts,
        ready: counts.map(|c| format!("{}/{}", c.healthy, c.eligible)),
        rollout: current.zip(wanted).map(|(release, wanted)| rollout(release, wanted)),
        failures: record.map(failures).unwrap_or_default(),
    }
}

/// Whether phase, conditions or generation differ: what others wait for, and so is written at once.
pub fn turned(before: Option<&ModelDeploymentStatus>, after: &ModelDeploymentStatus) -> bool {
    let Some(before) = before else { return true };
    let words = |status: &ModelDeploymentStatus| -> Vec<(String, String, String)> {
        status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect()
    };
    before.phase != after.phase
        || before.observed_generation != after.observed_generation
        || before.update_release != after.update_release
        || words(before) != words(after)
}

fn situation(release: &Release) -> Situation {
    let reason = release.reason();
    match release.phase {
        Phase::Compiling if reason == Reason::NoGatewaySelected => Situation::NoGatewaySelected,
        Phase::Compiling if reason == Reason::NoEligibleGateway => Situation::NoTargetSelected,
        Phase::Compiling => match Situation::unsigned(reason) {
            obstacle @ Situation::Retrying(_) => obstacle,
            _ => Situation::Compiling,
        },
        Phase::Refused => Situation::unsigned(reason),
        Phase::RolledBack => Situation::RolledBack,
        Phase::Paused if reason == Reason::Paused => Situation::Paused,
        Phase::Paused => Situation::Halted,
        Phase::RollingOut | Phase::Active if reason == Reason::NoGatewaySelected => Situation::NoGatewayLeft,
        Phase::RollingOut | Phase::Active if reason == Reason::NoEligibleGateway => Situation::NoEligibleGateway,
        Phase::RollingOut if reason == Reason::Soaking => Situation::Soaking,
        Phase::RollingOut if reason == Reason::WaitingForGateways => Situation::WaitingForGateways,
        Phase::RollingOut => Situation::RollingOut,
        Phase::Active if release.counts.shown().failed > 0 => Situation::CompleteSomeFailed,
        Phase::Active if release.counts.silent > 0 => Situation::CompleteSomeSilent,
        Phase::Active => Situation::Complete,
        Phase::Superseded => Situation::FirstSight,
    }
}

fn summary(release: &Release) -> ReleaseSummary {
    ReleaseSummary {
        version: release.version.clone(),
        counter: release.number.map(|n| i64::try_from(n.counter.0).unwrap_or(i64::MAX)),
        digest: release.identity.to_string(),
    }
}

fn targets(release: &Release) -> Vec<TargetStatus> {
    let number = |n: u64| (n > 0).then(|| i64::try_from(n).unwrap_or(i64::MAX));
    release
        .targets
        .iter()
        .map(|(name, build)| TargetStatus {
            name: name.to_string(),
            verdict: build.verdict.clone(),
            variant: build.variant.clone(),
            digest: build.release.as_ref().map(|r| r.manifest.digest.to_string()),
            size_bytes: number(build.size_bytes),
            peak_memory_bytes: number(build.peak_memory_bytes),
            gflop: (build.gflop > 0.0).then(|| format!("{:.4}", build.gflop)),
            predicted_latency: build.predicted_latency_millis.filter(|ms| *ms > 0.0).map(|ms| format!("{ms:.2}ms")),
            shapes: build.shapes.clone(),
            serving_memory_bytes: number(build.serving_memory_bytes),
            deadline: (build.deadline_millis > 0).then(|| format!("{}ms", build.deadline_millis)),
            accuracy: build.accuracy.clone(),
            inputs: build.inputs.clone(),
            // The compiler builds nothing that it did not prove on this host.
            proved: build.golden.map(|_| Proof::Host),
            golden: build.golden,
            unsupported_operators: build.unsupported_operators.iter().take(64).cloned().collect(),
            message: build.message.clone(),
        })
        .collect()
}

fn step(release: &Release, steps: usize) -> String {
    let step = if release.number.is_some() { (release.rollout.step + 1).min(steps) } else { 0 };
    format!("{step}/{steps}")
}

fn rollout(release: &Release, wanted: &Wanted) -> RolloutStatus {
    let decision = match release.phase {
        Phase::RolledBack => "Halt",
        Phase::Paused if release.reason() == Reason::Paused => "Pause",
        Phase::Paused => "Halt",
        Phase::Active => "Complete",
        Phase::RollingOut if release.reason() == Reason::Soaking => "Soak",
        Phase::Compiling | Phase::RollingOut | Phase::Refused | Phase::Superseded => "Wait",
    };
    RolloutStatus {
        step: step(release, wanted.policy.steps.len()),
        decision: decision.into(),
        reason: release.reason().as_str().into(),
        since: Some(rfc3339(release.since)),
    }
}

fn failures(record: &Record) -> Vec<FailureSummary> {
    record
        .failures
        .iter()
        .map(|f| FailureSummary {
            gateway: f.gateway.clone(),
            release: f.release.clone(),
            reason: f.reason.clone(),
            message: f.message.clone(),
            time: rfc3339(f.time),
        })
        .collect()
}

/// `releases` of the administrator's socket: oldest first.
pub fn releases(record: &Record, steps: usize) -> Vec<Value> {
    record
        .releases
        .iter()
        .map(|release| {
            let targets: Vec<Value> = release
                .targets
                .iter()
                .map(|(name, build)| {
                    json!({
                        "name": name,
                        "verdict": build.verdict,
                        "variant": build.variant,
                        "digest": build.release.as_ref().map(|r| r.manifest.digest),
                        "sizeBytes": build.size_bytes,
                        "peakMemoryBytes": build.peak_memory_bytes,
                        "gflop": build.gflop,
                        "predictedLatencyMillis": build.predicted_latency_millis,
                        "shapes": build.shapes,
                        "unsupportedOperators": build.unsupported_operators,
                        "accuracy": build.accuracy,
                        "inputs": build.inputs,
                        "message": build.message,
                    })
                })
                .collect();
            json!({
                "version": release.version,
                "counter": release.number.map(|n| n.counter),
                "digest": release.identity,
                "phase": release.phase,
                // What went wrong says more than that it did: the phase says that already.
                "reason": release.cause.as_deref().filter(|_| failed(release.phase)).unwrap_or(&release.reason),
                "message": release.message,
                "gateways": release.counts.shown(),
                "gatewaysReached": release.reached,
                "rollbackMillis": release.rollback_micros.map(|us| us as f64 / 1000.0),
                "targets": targets,
                "step": step(release, steps),
                "since": rfc3339(release.since),
            })
        })
        .collect()
}

const fn failed(phase: Phase) -> bool {
    matches!(phase, Phase::RolledBack | Phase::Paused)
}
