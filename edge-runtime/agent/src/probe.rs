//! Golden vectors, replayed on this very machine.

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_bundle::golden::VectorResult;
use ballast_bundle::protocol::FailureReason;

use crate::loaded::{Busy, Loaded, Unloadable};

/// Replays every vector; what is wrong rejects the release. What may be wrong is remembered for later replays.
pub(crate) async fn probe(mut loaded: Loaded) -> Result<Loaded, Unloadable> {
    let mut results = Vec::new();
    let mut known_wrong = BTreeSet::new();
    for vector in 0..loaded.golden.len() {
        let result = compare(&loaded, vector).await?;
        if result.values.is_some() || result.label.is_some() {
            known_wrong.insert(vector);
        }
        results.push(result);
    }
    let judged = loaded.golden.judge(results);
    judged.map_err(|message| Unloadable { reason: FailureReason::GoldenMismatch, message })?;
    loaded.known_wrong = known_wrong;
    Ok(loaded)
}

/// Replays one vector; says what is wrong with the answer, if anything.
pub(crate) async fn replay(loaded: &Loaded, vector: usize) -> Result<Option<String>, Unloadable> {
    let result = compare(loaded, vector).await?;
    Ok(result.values.or(result.label))
}

async fn compare(loaded: &Loaded, vector: usize) -> Result<VectorResult, Unloadable> {
    loop {
        match loaded.infer(loaded.golden.question(vector), false, None).await {
            Ok(Ok(answer)) => return Ok(loaded.golden.check(vector, &answer)),
            Ok(Err(fault)) => {
                let message = format!("golden vector {vector}: {fault}");
                return Err(Unloadable { reason: fault.reason(), message });
            }
            // Live requests come first.
            Err(Busy::QueueFull) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(Busy::Closed | Busy::Expired) => {
                let message = "the release was replaced while its golden vectors were replayed".to_owned();
                return Err(Unloadable { reason: FailureReason::InsufficientMemory, message });
            }
        }
    }
}
