//! Builds that run beside the passes: at most one per deployment, started, asked for and forgotten by the passes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_bundle::{DeploymentRef, Digest, TargetName, UnixMillis};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::builder::{Builder, BuilderError, Builds, Progress};
use crate::targets::Target;
use crate::wanted::Wanted;

/// Waits between tries: 1 s, doubled up to a minute.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How a build stands.
pub enum JobState {
    /// In people's words.
    Running(String),
    /// This time, or the last time it was tried. A poll after a while tries again.
    Failed(BuilderError),
    /// All of it.
    Done(Builds),
}

struct Job {
    /// What it builds.
    of: (Digest, Vec<TargetName>),
    progress: Progress,
    task: Option<JoinHandle<()>>,
    result: Arc<Mutex<Option<Result<Builds, BuilderError>>>>,
    failures: u32,
    last: Option<BuilderError>,
    not_before: UnixMillis,
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort(); // a worker that runs ends by itself; who waits for one leaves the line
        }
    }
}

/// The jobs.
#[derive(Default)]
pub struct Jobs {
    jobs: Mutex<HashMap<DeploymentRef, Job>>,
    finished: Arc<Notify>,
}

impl Jobs {
    /// Ends when a build has ended since the last time.
    pub async fn finished(&self) {
        self.finished.notified().await;
    }

    /// The state of building `wanted` for `targets`; starts it when nothing, or something else, is being built.
    pub fn poll(&self, wanted: &Arc<Wanted>, targets: &[Target], builder: &Arc<Builder>, now: UnixMillis) -> JobState {
        let of = (wanted.identity, targets.iter().map(|t| t.name.clone()).collect::<Vec<_>>());
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = jobs.entry(wanted.deployment.clone()).or_insert_with(|| Job::idle(of.clone()));
        if job.of != of {
            *job = Job::idle(of);
        }
        let finished = job.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match finished {
            Some(Ok(builds)) => {
                job.task = None;
                return JobState::Done(builds);
            }
            Some(Err(error)) => {
                job.failed(wanted, error.clone(), now);
                return JobState::Failed(error);
            }
            None => {}
        }
        if job.task.is_none() && now >= job.not_before {
            job.start(wanted, targets.to_vec(), builder, &self.finished);
        }
        // Why it did not work is news until it does.
        job.last.clone().map_or_else(|| JobState::Running(job.progress.last()), JobState::Failed)
    }

    /// What was built was of no use yet: it is built again after a while, as if that had failed.
    pub fn set_back(&self, wanted: &Wanted, error: BuilderError, now: UnixMillis) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = jobs.get_mut(&wanted.deployment) {
            job.failed(wanted, error, now);
        }
    }

    /// Stops and forgets a deployment's build.
    pub fn forget(&self, deployment: &DeploymentRef) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(deployment);
    }
}

impl Job {
    fn idle(of: (Digest, Vec<TargetName>)) -> Self {
        Self {
            of,
            progress: Progress::default(),
            task: None,
            result: Arc::default(),
            failures: 0,
            last: None,
            not_before: UnixMillis(0),
        }
    }

    fn failed(&mut self, wanted: &Wanted, error: BuilderError, now: UnixMillis) {
        tracing::warn!(deployment = %wanted.deployment, version = wanted.version, %error, "a build did not succeed");
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(6)).min(LONGEST_WAIT);
        self.task = None;
        self.failures += 1;
        self.not_before = UnixMillis(now.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
        self.last = Some(error);
    }

    fn start(&mut self, wanted: &Arc<Wanted>, targets: Vec<Target>, builder: &Arc<Builder>, finished: &Arc<Notify>) {
        let (builder, wanted, progress) = (Arc::clone(builder), Arc::clone(wanted), self.progress.clone());
        let (result, finished) = (Arc::clone(&self.result), Arc::clone(finished));
        self.task = Some(tokio::spawn(async move {
            let built = builder.build(&wanted, targets, &progress).await;
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(built);
            finished.notify_one();
        }));
    }
}
