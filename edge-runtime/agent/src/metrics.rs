//! Counts: per loaded release for reports and trials, and the Prometheus text of `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// How often, and how long in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) nanos: u64,
}

impl Sum {
    fn add(&mut self, time: Duration) {
        self.count = self.count.saturating_add(1);
        self.nanos = self.nanos.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    const fn micros(&self) -> u64 {
        self.nanos / 1_000
    }
}

/// Triton's counters of one model version: requests as wholes, and executions, of which a request with several rows has one
/// for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inference {
    /// Requests that were answered, from the moment that they were read whole to the answer, written.
    pub(crate) success: Sum,
    /// Executions that failed; another release may have answered the request all the same.
    pub(crate) failure: Sum,
    /// Requests: reading tensors out of them.
    pub(crate) input: Sum,
    /// Executions: waiting for an instance.
    pub(crate) queue: Sum,
    /// Executions: in the sandbox, copies in and out included.
    pub(crate) compute: Sum,
    /// Requests: writing answers.
    pub(crate) output: Sum,
    /// When one was answered last, Unix milliseconds; 0 if none was.
    pub(crate) last_millis: u64,
}

/// What an answered request took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    pub(crate) whole: Duration,
    pub(crate) input: Duration,
    pub(crate) output: Duration,
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

    /// An instance answered.
    pub(crate) fn executed(&self, model: &str, version: &str, queue: Duration, compute: Duration) {
        self.with(model, version, |i| {
            i.queue.add(queue);
            i.compute.add(compute);
        });
    }

    /// A request was answered.
    pub(crate) fn answered(&self, model: &str, version: &str, took: Took) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.with(model, version, |i| {
            i.success.add(took.whole);
            i.input.add(took.input);
            i.output.add(took.output);
            i.last_millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        });
    }

    /// An execution failed.
    pub(crate) fn failure(&self, model: &str, version: &str, after: Duration) {
        self.with(model, version, |i| i.failure.add(after));
    }

    /// What one version did so far.
    pub(crate) fn of(&self, model: &str, version: &str) -> Inference {
        let all = self.inference.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(model.to_owned(), version.to_owned())).cloned().unwrap_or_default()
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
        family("nv_inference_request_success", "Answered requests", |i| i.success.count);
        family("nv_inference_request_failure", "Executions that failed in the model", |i| i.failure.count);
        family("nv_inference_count", "Inferences", |i| i.compute.count);
        family("nv_inference_exec_count", "Executions", |i| i.compute.count);
        family("nv_inference_request_duration_us", "Answered requests, microseconds in sum", |i| i.success.micros());
        family("nv_inference_queue_duration_us", "Waiting, microseconds in sum", |i| i.queue.micros());
        family("nv_inference_compute_input_duration_us", "Reading tensors, microseconds in sum", |i| i.input.micros());
        family("nv_inference_compute_infer_duration_us", "In the sandbox, microseconds in sum", |i| i.compute.micros());
        family("nv_inference_compute_output_duration_us", "Writing answers, microseconds in sum", |i| {
            i.output.micros()
        });
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
        // Triton's series has no slot: two releases of one version are one.
        let pending = "nv_inference_pending_request_count";
        let _ = writeln!(out, "# HELP {pending} Requests that wait\n# TYPE {pending} gauge");
        let mut waiting = BTreeMap::<(&str, &str), usize>::new();
        for (model, version, _, queued) in served {
            let sum = waiting.entry((model, version)).or_default();
            *sum = sum.saturating_add(*queued);
        }
        for ((model, version), queued) in waiting {
            let (model, version) = (escape(model), escape(version));
            let _ = writeln!(out, "{pending}{{model=\"{model}\",version=\"{version}\"}} {queued}");
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
        metrics.executed("a\"b\n", "1", Duration::from_micros(3), Duration::from_micros(2));
        metrics.answered("a\"b\n", "1", Took { whole: Duration::from_micros(7), ..Took::default() });
        let text =
            metrics.render(&[("a\"b\n".into(), "1".into(), "active", 2), ("a\"b\n".into(), "1".into(), "fallback", 3)]);
        for line in [
            "nv_inference_request_success{model=\"a\\\"b\\n\",version=\"1\"} 1",
            "nv_inference_request_duration_us{model=\"a\\\"b\\n\",version=\"1\"} 7",
            "nv_inference_queue_duration_us{model=\"a\\\"b\\n\",version=\"1\"} 3",
            "nv_inference_pending_request_count{model=\"a\\\"b\\n\",version=\"1\"} 5",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
