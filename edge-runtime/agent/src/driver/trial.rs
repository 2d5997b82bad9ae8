//! What live requests and golden replays say of a release.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ballast_bundle::Digest;
use ballast_bundle::protocol::FailureReason;
use ballast_sandbox::Fault;
use ballast_slots::{Event, Phase, ReleaseId};

use super::{Driver, Input};
use crate::loaded::{Loaded, Unloadable};
use crate::probe;

/// Golden vectors that one tick of a quiet trial replays at most.
const REPLAYS: usize = 8;
/// A trial is quiet after so long without a live answer, or half its least duration where that is shorter.
const QUIET: Duration = Duration::from_secs(10);

impl Driver {
    pub(super) fn request_failed(&mut self, name: &str, id: ReleaseId, fault: &Fault, micros: Option<u64>) {
        if !fault.reason().is_failure() {
            return; // unknown: the machine's lack, not the release's
        }
        let Some(known) = self.machines.get(name).map(|m| m.state.rejected.len()) else { return };
        let event = Event::RequestFailed { on: id, reason: fault.reason(), message: fault.to_string() };
        if let Some(machine) = self.machines.get_mut(name)
            && let Some(micros) = micros
        {
            machine.rollback_micros.entry(id).or_insert(micros);
            // It is kept only for a release that this rolls back: the next write drops it otherwise.
        }
        self.event(name, &event);
        let rejected = self.machines.get(name).map(|m| m.state.rejected.iter().any(|r| r.id == id));
        if rejected == Some(true) && self.machines.get(name).is_some_and(|m| m.state.rejected.len() > known) {
            self.parts.metrics.rollback(micros);
        }
    }

    pub(super) fn tick(&mut self) {
        self.look_after_runner();
        let names: Vec<_> = self.machines.keys().cloned().collect();
        for name in names {
            self.write_again(&name);
            self.look_after_fetch(&name);
            self.look_after_unloaded(&name);
            // First of all: what is too slow must not pass its trial in the same tick.
            self.judge_latency(&name);
            self.count(&name);
            self.event(&name, &Event::Tick);
            self.look_after_trial(&name);
        }
    }

    /// Live answers since the last tick.
    fn count(&mut self, name: &str) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        let now: BTreeMap<Digest, u64> =
            machine.loaded.iter().map(|(d, l)| (*d, l.stats.answered.load(Ordering::Relaxed))).collect();
        let before = std::mem::replace(&mut machine.seen, now.clone());
        let ids: BTreeMap<Digest, ReleaseId> =
            machine.state.releases().map(|r| (r.manifest.digest, ReleaseId::from(r))).collect();
        let on_trial = machine.state.candidate.as_ref().map(|c| c.release.manifest.digest);
        for (manifest, total) in now {
            let requests = total.saturating_sub(before.get(&manifest).copied().unwrap_or(0));
            let Some(by) = ids.get(&manifest).copied().filter(|_| requests > 0) else { continue };
            if let Some(machine) = self.machines.get_mut(name).filter(|_| on_trial == Some(manifest)) {
                machine.last_live = Instant::now();
            }
            self.event(name, &Event::Answered { by, requests });
        }
    }

    /// A candidate that is slower than it may be is ended. Under ten latencies in the last minute, of it or of the release
    /// before it, there is no verdict: a p99 of less says nothing.
    fn judge_latency(&mut self, name: &str) {
        let Some(machine) = self.machines.get(name) else { return };
        let Some(candidate) = machine.state.candidate.as_ref().filter(|c| c.phase == Phase::Trial) else { return };
        let id = ReleaseId::from(&candidate.release);
        let backup = machine.state.active.as_ref().and_then(|h| machine.loaded.get(&h.release.manifest.digest));
        let (Some(loaded), Some(backup)) = (machine.loaded.get(&id.manifest), backup) else { return };
        if let Some(message) = too_slow(loaded, backup) {
            self.event(name, &Event::Rejected { of: id, reason: FailureReason::LatencyExceeded, message });
        }
    }

    /// A trial without traffic is fed with golden vectors: they count as its requests. Where there is traffic they only measure.
    fn look_after_trial(&mut self, name: &str) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        let Some(candidate) = machine.state.candidate.as_ref().filter(|c| c.phase == Phase::Trial) else { return };
        let id = ReleaseId::from(&candidate.release);
        let min_duration = candidate.trial.min_duration_millis;
        let wanted = candidate.trial.min_requests.saturating_sub(candidate.requests);
        let Some(loaded) = machine.loaded.get(&id.manifest).cloned() else { return };
        let backup =
            machine.state.active.as_ref().and_then(|h| machine.loaded.get(&h.release.manifest.digest)).cloned();
        let latency_matters = loaded.contract.verification.max_latency_p99_millis.is_some();
        let quiet = machine.last_live.elapsed() >= QUIET.min(Duration::from_millis(min_duration / 2));
        if machine.replaying || ((wanted == 0 || !quiet) && !latency_matters) {
            return;
        }
        machine.replaying = true;
        let from = machine.replayed;
        let count = REPLAYS.min(usize::try_from(wanted.max(1)).unwrap_or(REPLAYS));
        machine.replayed = from.wrapping_add(count);
        let (name, send) = (name.to_owned(), self.parts.send.clone());
        tokio::spawn(async move {
            let result = replay(&loaded, from, count).await;
            if let Some(backup) = backup.filter(|_| latency_matters) {
                // The same load on both, so that a slow minute of the machine is not put down to the candidate.
                let _ = replay(&backup, from, count).await;
            }
            let right = if result.is_ok() && quiet { count as u64 } else { 0 };
            let _ = send.send(Input::Replayed { name, id, right, result });
        });
    }

    pub(super) fn replayed(&mut self, name: &str, id: ReleaseId, right: u64, result: Result<(), Unloadable>) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        machine.replaying = false;
        match result {
            Ok(()) if right == 0 => {}
            Ok(()) => self.event(name, &Event::Answered { by: id, requests: right }),
            Err(Unloadable { reason, message }) if reason.is_failure() => {
                self.event(name, &Event::RequestFailed { on: id, reason, message });
            }
            Err(_) => {}
        }
    }
}

/// Replays some vectors, on from where the last replay ended.
async fn replay(loaded: &Arc<Loaded>, from: usize, count: usize) -> Result<(), Unloadable> {
    for n in 0..count {
        let vector = from.wrapping_add(n) % loaded.golden.len().max(1);
        let started = Instant::now();
        let wrong = probe::replay(loaded, vector).await?;
        loaded.stats.measured(started.elapsed());
        // A share of vectors may be wrong (`minMatching`); those were wrong in the probe already.
        if let Some(message) = wrong.filter(|_| !loaded.known_wrong.contains(&vector)) {
            return Err(Unloadable { reason: FailureReason::GoldenMismatch, message });
        }
    }
    Ok(())
}

/// Judged against the fallback in the same minute.
fn too_slow(loaded: &Loaded, backup: &Loaded) -> Option<String> {
    let limit = loaded.contract.verification.max_latency_p99_millis?.saturating_mul(1000);
    let (own, other) = (loaded.stats.p99_micros()?, backup.stats.p99_micros()?);
    (own > limit && other <= limit).then(|| {
        format!("p99 is {own} µs, above {limit} µs; the release before it takes {other} µs in the same minute")
    })
}
