//! What of a budget outlives the process: `escalation/NAME.json`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ballast_bundle::UnixMillis;
use ballast_escalation::{Escalator, Kept};
use serde::{Deserialize, Serialize};

use crate::error::in_full;
use crate::state::{FORMAT, StateDir};

const DAY: u64 = 24 * 3_600_000;

#[derive(Debug, Serialize, Deserialize)]
struct KeptFile {
    format: u32,
    kept: Kept,
}

/// An escalator and its file.
pub(super) struct Keeping {
    dir: Arc<StateDir>,
    file: String,
    escalator: Mutex<Escalator>,
    /// One write at a time, each of what is newest.
    writing: tokio::sync::Mutex<()>,
    started: Instant,
}

impl Keeping {
    /// Goes on with what was kept. A file that cannot be read says nothing of what was spent, so the day counts as spent.
    pub(super) fn open(dir: Arc<StateDir>, deployment: &str, now: UnixMillis) -> Self {
        let file = format!("escalation/{deployment}.json");
        let kept = match dir.read::<KeptFile>(&file) {
            Ok(file) => file.map(|file| file.kept),
            Err(error) => {
                tracing::error!(error = in_full(&error), "nothing is sent to the cloud for the rest of the day");
                Some(Kept { day: now.0 / DAY, bytes: u64::MAX })
            }
        };
        let escalator = Mutex::new(Escalator::new(kept, now));
        Self { dir, file, escalator, writing: tokio::sync::Mutex::default(), started: Instant::now() }
    }

    /// Time that never goes back, in milliseconds, and the escalator.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Escalator, u64) -> T) -> T {
        let tick = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        act(&mut self.escalator.lock().unwrap_or_else(PoisonError::into_inner), tick)
    }

    /// Whether what was paid so far is on disk.
    pub(super) async fn keep(self: &Arc<Self>) -> bool {
        let _one = self.writing.lock().await;
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let kept = this.with(|escalator, _| escalator.kept());
            let written = this.dir.write(&this.file, &KeptFile { format: FORMAT, kept });
            if written.is_ok() {
                this.with(|escalator, _| escalator.written(kept));
            }
            written
        });
        match written.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(error = in_full(&error), "the budget could not be written");
                false
            }
            Err(_) => false,
        }
    }
}
