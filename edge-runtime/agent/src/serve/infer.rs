//! One request: answered by the release that takes it, or, when it fails there, by the one behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::FailureReason;
use ballast_sandbox::{Answer, Fault};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{AnsweredBy, Route, Router};
use crate::driver::Input;
use crate::loaded::{Busy, Loaded};
use crate::metrics::{Metrics, micros};

/// A request that failed on one release and finds the other's queue full waits so long for its turn.
const TURNS: u32 = 200;
const TURN: Duration = Duration::from_millis(10);

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// 429.
    QueueFull,
    /// 422: no release can answer this input.
    Input(String),
    /// 500.
    Failed(String),
    /// 503: the release left and nothing took its place.
    Gone,
}

/// An answer and who gave it.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) by: AnsweredBy,
}

/// Answers, on a task of its own: a client that hangs up takes nothing of it away. A release that hangs on live inputs
/// would otherwise outlast every client's patience and never be blamed.
pub(crate) async fn infer(
    router: &Arc<Router>,
    route: Route,
    inputs: Vec<Bytes>,
    driver: &mpsc::UnboundedSender<Input>,
    metrics: &Arc<Metrics>,
) -> Result<Answered, NoAnswer> {
    let (router, driver, metrics) = (Arc::clone(router), driver.clone(), Arc::clone(metrics));
    let to_its_end = tokio::spawn(async move { answered(&router, route, &inputs, &driver, &metrics).await });
    to_its_end.await.unwrap_or(Err(NoAnswer::Gone)) // the process ends
}

async fn answered(
    router: &Router,
    mut route: Route,
    inputs: &[Bytes],
    driver: &mpsc::UnboundedSender<Input>,
    metrics: &Metrics,
) -> Result<Answered, NoAnswer> {
    loop {
        let primary = Arc::clone(&route.primary);
        let by = if route.on_trial { AnsweredBy::Candidate } else { AnsweredBy::Active };
        let started = Instant::now();
        match primary.infer(inputs.to_vec()).await {
            Ok(Ok(answer)) => return Ok(counted(primary, answer, by, started, metrics)),
            Err(Busy::QueueFull) => return Err(NoAnswer::QueueFull),
            Err(Busy::Closed) => {
                // Replaced between finding it and asking it: whoever serves now answers.
                route = router.find(&primary.contract.model).ok_or(NoAnswer::Gone)?;
                if Arc::ptr_eq(&route.primary, &primary) {
                    return Err(NoAnswer::Gone);
                }
            }
            Ok(Err(fault)) => return failed(route, fault, inputs, driver, metrics).await,
        }
    }
}

fn counted(loaded: Arc<Loaded>, answer: Answer, by: AnsweredBy, started: Instant, metrics: &Metrics) -> Answered {
    let latency = started.elapsed();
    loaded.stats.answered(latency);
    metrics.success(&loaded.contract.model, &loaded.contract.version, latency, answer.compute);
    Answered { answer, loaded, by }
}

async fn failed(
    route: Route,
    fault: Fault,
    inputs: &[Bytes],
    driver: &mpsc::UnboundedSender<Input>,
    metrics: &Metrics,
) -> Result<Answered, NoAnswer> {
    let detected = Instant::now();
    let primary = &route.primary;
    let (model, version) = (primary.contract.model.clone(), primary.contract.version.clone());
    metrics.failure(&model, &version);
    if !fault.is_guests() {
        return Err(NoAnswer::Input(fault.to_string()));
    }
    primary.stats.failed();
    let blame = |fault: Fault, micros: Option<u64>| {
        // A machine without memory for an instance says nothing of the release.
        if !fault.reason().is_failure() {
            return;
        }
        let _ = driver.send(Input::Failed { model: model.clone(), id: primary.id(), fault, micros });
    };
    let Some(backup) = route.backup.clone() else {
        blame(fault.clone(), None);
        return Err(NoAnswer::Failed(format!("release {version} failed: {fault}")));
    };
    let started = Instant::now();
    match in_turn(&backup, inputs).await {
        Some(Ok(answer)) => {
            blame(fault, Some(micros(detected.elapsed())));
            metrics.fallback_answer();
            Ok(counted(backup, answer, AnsweredBy::Fallback, started, metrics))
        }
        Some(Err(other)) => {
            backup.stats.failed();
            metrics.failure(&backup.contract.model, &backup.contract.version);
            // Both releases end in infinities on it: that says something of the input, nothing of the candidate.
            if fault.reason() == FailureReason::NotFinite && other.reason() == FailureReason::NotFinite {
                return Err(NoAnswer::Input(format!("{fault}, on this release and on the one before it")));
            }
            blame(fault.clone(), None);
            Err(NoAnswer::Failed(format!("release {version} failed ({fault}), and the fallback too ({other})")))
        }
        None => {
            blame(fault, None);
            Err(NoAnswer::QueueFull)
        }
    }
}

/// Asks a release that may be busy; this request has waited once already and is not sent away for a full queue.
async fn in_turn(loaded: &Loaded, inputs: &[Bytes]) -> Option<Result<Answer, Fault>> {
    for _ in 0..TURNS {
        match loaded.infer(inputs.to_vec()).await {
            Ok(result) => return Some(result),
            Err(Busy::QueueFull) => tokio::time::sleep(TURN).await,
            Err(Busy::Closed) => return None,
        }
    }
    None
}
