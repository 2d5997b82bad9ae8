//! Counts: per loaded release for reports and trials, and the Prometheus text of `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Latencies of the newest minute, at most so many.
const KEPT: usize = 2_048;
const WINDOW: Duration = Duration::from_secs(60);

/// What one loaded release did.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    latencies: Mutex<VecDeque<(Instant, u64)>>,
}

impl Stats {
    pub(crate) fn answered(&self, latency: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.measured(latency);
    }

    /// A golden replay counts for latency, not as an answer.
    pub(crate) fn measured(&self, latency: Duration) {
        let mut all = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back((Instant::now(), micros(latency)));
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// 99th percentile of the newest minute, microseconds; `None` without enough to speak of.
    pub(crate) fn p99_micros(&self) -> Option<u64> {
        let all = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recent: Vec<u64> = all.iter().filter(|(at, _)| at.elapsed() < WINDOW).map(|(_, l)| *l).collect();
        drop(all);
        if recent.len() < 10 {
            return None;
        }
        recent.sort_unstable();
        recent.get(recent.len().saturating_mul(99).div_ceil(100).saturating_sub(1)).copied()
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Triton's counters of one model version.
#[derive(Debug, Clone, Default)]
struct Inference {
    success: u64,
    failure: u64,
    executions: u64,
    request_us: u64,
    queue_us: u64,
    compute_us: u64,
}

/// Everything that `/metrics` shows beside what is served now.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    inference: Mutex<BTreeMap<(String, String), Inference>>,
    rejected: AtomicU64,
    rollbacks: AtomicU64,
    fallback_answers: AtomicU64,
    last_rollback_us: AtomicU64,
    syncs: AtomicU64,
    sync_failures: AtomicU64,
}

/// Model versions that are counted apart; labels come from signed contracts only, and old ones leave.
const MAX_SERIES: usize = 256;

impl Metrics {
    fn with(&self, model: &str, version: &str, change: impl FnOnce(&mut Inference)) {
        let mut all = self.inference.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_SERIES && !all.contains_key(&(model.to_owned(), version.to_owned())) {
            all.pop_first();
        }
        change(all.entry((model.to_owned(), version.to_owned())).or_default());
    }

    pub(crate) fn success(&self, model: &str, version: &str, request: Duration, compute: Duration) {
        self.with(model, version, |i| {
            i.success += 1;
            i.executions += 1;
            i.request_us = i.request_us.saturating_add(micros(request));
            i.compute_us = i.compute_us.saturating_add(micros(compute));
            i.queue_us = i.queue_us.saturating_add(micros(request.saturating_sub(compute)));
        });
    }

    pub(crate) fn failure(&self, model: &str, version: &str) {
        self.with(model, version, |i| i.failure += 1);
    }

    /// 4xx before a model saw anything.
    pub(crate) fn refused(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fallback_answer(&self) {
        self.fallback_answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rollback(&self, micros: Option<u64>) {
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
        if let Some(micros) = micros {
            self.last_rollback_us.store(micros, Ordering::Relaxed);
        }
    }

    pub(crate) fn sync(&self, ok: bool) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        if !ok {
            self.sync_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prometheus' text format. `served` = (model, version, role, queued).
    pub(crate) fn render(&self, served: &[(String, String, &'static str, usize)]) -> String {
        let mut out = String::with_capacity(4 << 10);
        let all = self.inference.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut family = |name: &str, help: &str, value: fn(&Inference) -> u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for ((model, version), inference) in &all {
                let (model, version) = (escape(model), escape(version));
                let _ = writeln!(out, "{name}{{model=\"{model}\",version=\"{version}\"}} {}", value(inference));
            }
        };
        family("nv_inference_request_success", "Answered requests", |i| i.success);
        family("nv_inference_request_failure", "Requests that failed in the model", |i| i.failure);
        family("nv_inference_count", "Inferences", |i| i.executions);
        family("nv_inference_exec_count", "Executions", |i| i.executions);
        family("nv_inference_request_duration_us", "Whole requests, microseconds in sum", |i| i.request_us);
        family("nv_inference_queue_duration_us", "Waiting, microseconds in sum", |i| i.queue_us);
        family("nv_inference_compute_infer_duration_us", "In the sandbox, microseconds in sum", |i| i.compute_us);
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("ballast_requests_refused_total", "counter", "Requests refused with a 4xx", load(&self.rejected)),
            ("ballast_rollbacks_total", "counter", "Releases this gateway rolled back", load(&self.rollbacks)),
            (
                "ballast_fallback_answers_total",
                "counter",
                "Failed requests that the fallback answered",
                load(&self.fallback_answers),
            ),
            (
                "ballast_last_rollback_us",
                "gauge",
                "Detection to first answer of the fallback",
                load(&self.last_rollback_us),
            ),
            ("ballast_syncs_total", "counter", "Attempts to speak to the operator", load(&self.syncs)),
            ("ballast_sync_failures_total", "counter", "Attempts without an answer", load(&self.sync_failures)),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let _ =
            writeln!(out, "# HELP ballast_release_info Releases in a serving slot\n# TYPE ballast_release_info gauge");
        for (model, version, role, _) in served {
            let (model, version) = (escape(model), escape(version));
            let _ = writeln!(out, "ballast_release_info{{model=\"{model}\",version=\"{version}\",slot=\"{role}\"}} 1");
        }
        let _ = writeln!(out, "# HELP ballast_queue_depth Requests that wait\n# TYPE ballast_queue_depth gauge");
        for (model, version, role, queued) in served {
            // The slot tells two releases of one version apart.
            let (model, version) = (escape(model), escape(version));
            let labels = format!("model=\"{model}\",version=\"{version}\",slot=\"{role}\"");
            let _ = writeln!(out, "ballast_queue_depth{{{labels}}} {queued}");
        }
        out
    }
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_needs_something_to_speak_of() {
        let stats = Stats::default();
        for n in 1..=9 {
            stats.answered(Duration::from_micros(n));
        }
        assert_eq!(stats.p99_micros(), None);
        for n in 10..=100 {
            stats.answered(Duration::from_micros(n));
        }
        assert_eq!(stats.p99_micros(), Some(99));
    }

    #[test]
    fn labels_cannot_break_out() {
        let metrics = Metrics::default();
        metrics.success("a\"b\n", "1", Duration::from_micros(5), Duration::from_micros(2));
        let text = metrics.render(&[]);
        assert!(text.contains("nv_inference_request_success{model=\"a\\\"b\\n\",version=\"1\"} 1"), "{text}");
        assert!(text.contains("nv_inference_queue_duration_us{model=\"a\\\"b\\n\",version=\"1\"} 3"), "{text}");
    }
}
