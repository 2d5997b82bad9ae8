//! One request: answered by the release that takes it, or, when it fails or has no room there, by the one behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::FailureReason;
use ballast_sandbox::{Answer, Fault};
use tokio::sync::mpsc;

use super::sequence::{Step, Told};
use super::{AnsweredBy, Route, Router};
use crate::cloud::{Cloud, Said};
use crate::driver::Input;
use crate::loaded::{Busy, Loaded, Question};
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
    /// 400: it is of no sequence, or of one that is not there.
    Sequence(String),
    /// 429: no other sequence can begin, for so many seconds.
    SequencesFull { message: String, after: u32 },
    /// 500.
    Failed(String),
    /// 504: its client's own deadline passed.
    Expired,
    /// 503: the release left, and what took its place, if anything, cannot answer this request.
    Gone(&'static str),
}

/// An answer and who gave it.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) by: AnsweredBy,
    /// Of a request of a sequence.
    pub(crate) told: Option<Told>,
    /// At the border to the cloud, where the deployment asks it.
    pub(crate) said: Option<Said>,
}

/// What an inference needs beside its inputs. Owned: it goes on when its client has left, so that no failure stays unseen.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) router: Arc<Router>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) driver: mpsc::UnboundedSender<Input>,
    /// Of a request of a sequence: its turn.
    pub(super) step: Option<Arc<Step>>,
    /// Nobody waits for the answer after this: what has not begun by then is not run.
    pub(super) expires: Option<Instant>,
}

impl Context {
    /// Answers; `by` is what the route's primary is called.
    pub(crate) async fn infer(
        self,
        mut route: Route,
        mut by: AnsweredBy,
        question: Question,
    ) -> Result<Answered, NoAnswer> {
        loop {
            let started = Instant::now();
            let fed = self.fed(&route.primary, &question);
            let went_on = self.step.as_deref().filter(|step| step.went_on());
            let stand_in = route.stand_in().is_some() && went_on.is_none();
            match route.primary.infer(fed, stand_in, self.expires).await {
                Ok(Ok(answer)) => return Ok(self.counted(route.primary, answer, by, started)),
                // What a client drove its own sequence to says nothing of the release, which is asked once more without it.
                Ok(Err(fault))
                    if fault.reason() == FailureReason::NotFinite && went_on.is_some_and(Step::begin_anew) => {}
                Ok(Err(fault)) => return self.failed(route, fault, &question, started.elapsed()).await,
                Err(Busy::Expired) => return Err(NoAnswer::Expired),
                // Another release would begin the sequence anew: who comes again loses nothing.
                Err(Busy::QueueFull) if self.step.is_some() => return Err(NoAnswer::QueueFull),
                Err(Busy::QueueFull) => {
                    // The release behind it is as good, and idle.
                    (route, by) = behind(&route).ok_or(NoAnswer::QueueFull)?;
                }
                Err(Busy::Closed) => {
                    // It failed or left while this request waited: whoever serves now answers.
                    (route, by) = self.instead_of(&route.primary)?;
                }
            }
        }
    }

    fn instead_of(&self, left: &Arc<Loaded>) -> Result<(Route, AnsweredBy), NoAnswer> {
        let gone = NoAnswer::Gone("the model was withdrawn while the request waited");
        match self.router.find(&left.contract.model) {
            Some(route) if Arc::ptr_eq(&route.primary, left) => behind(&route).ok_or(gone),
            Some(route) if !route.primary.answers_for(left) => Err(NoAnswer::Gone(
                "the model's inputs or outputs changed while the request waited; read its metadata and ask again",
            )),
            Some(route) => {
                let by = route.by();
                Ok((route, by))
            }
            None => Err(gone),
        }
    }

    fn counted(&self, loaded: Arc<Loaded>, answer: Answer, by: AnsweredBy, started: Instant) -> Answered {
        let latency = started.elapsed();
        loaded.stats.answered(latency);
        let queue = latency.saturating_sub(answer.compute);
        self.metrics.executed(&loaded.contract.model, &loaded.contract.version, queue, answer.compute);
        Answered { answer, loaded, by, told: None, said: None }
    }

    async fn failed(
        &self,
        route: Route,
        fault: Fault,
        question: &Question,
        after: Duration,
    ) -> Result<Answered, NoAnswer> {
        let detected = Instant::now();
        let primary = &route.primary;
        let (model, version) = (&primary.contract.model, &primary.contract.version);
        self.metrics.failure(model, version, after);
        if !fault.is_guests() {
            return Err(NoAnswer::Input(fault.to_string()));
        }
        primary.stats.failed();
        let blame = |fault: Fault, micros: Option<u64>| {
            // A machine without memory for an instance says nothing of the release.
            if !fault.reason().is_failure() {
                return;
            }
            let _ = self.driver.send(Input::Failed {
                deployment: primary.deployment.clone(),
                id: primary.id(),
                fault,
                micros,
            });
        };
        let Some(backup) = route.stand_in().cloned() else {
            blame(fault.clone(), None);
            let why = if route.backup.is_some() { "; the release before it has other inputs or outputs" } else { "" };
            return Err(NoAnswer::Failed(format!("release {version} failed: {fault}{why}")));
        };
        let started = Instant::now();
        match self.in_turn(primary, backup, question).await {
            Some((backup, Ok(answer))) => {
                blame(fault, Some(micros(detected.elapsed())));
                self.metrics.fallback_answer();
                Ok(self.counted(backup, answer, AnsweredBy::Fallback, started))
            }
            Some((backup, Err(other))) => {
                backup.stats.failed();
                self.metrics.failure(&backup.contract.model, &backup.contract.version, started.elapsed());
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
    async fn in_turn(
        &self,
        failed: &Arc<Loaded>,
        mut backup: Arc<Loaded>,
        question: &Question,
    ) -> Option<(Arc<Loaded>, Result<Answer, Fault>)> {
        for _ in 0..TURNS {
            match backup.infer(self.fed(&backup, question), false, None).await {
                Ok(result) => return Some((backup, result)),
                Err(Busy::QueueFull) => tokio::time::sleep(TURN).await,
                Err(Busy::Expired) => return None,
                Err(Busy::Closed) => {
                    let next = self.instead_of(&backup).ok().map(|(route, _)| route.primary);
                    backup = next.filter(|next| !Arc::ptr_eq(next, failed))?;
                }
            }
        }
        None
    }
}

/// What stands behind a route's primary, alone.
fn behind(route: &Route) -> Option<(Route, AnsweredBy)> {
    let primary = route.stand_in().cloned()?;
    Some((Route { primary, on_trial: false, backup: None }, AnsweredBy::Fallback))
}
