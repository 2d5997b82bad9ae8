//! After the last step: a CUSUM (Page, Biometrika 41, 1954) over what happens from then on.

use ballast_bundle::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::{Counts, SequentialTest};

/// Page's sum of the sequential test's evidence, never below zero.
///
/// What is observed: each vote of a gateway that took the release after its last step; each gateway that went back after
/// it had voted for the release (a failure); and each day that an active gateway served without going back (a pass).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    sum: f64,
    passed: u64,
    failures: u64,
    /// Gateway-milliseconds that have not made a whole day yet.
    exposure: u64,
    at: UnixMillis,
}

impl Watch {
    /// A false alarm comes once in 10⁶ observations or later: the mean time between them is at least e^bound (Lorden,
    /// Annals of Mathematical Statistics 42, 1971). A release that fails on 10 % is found after about 13.8 ÷ 0.145 = 95.
    const BOUND: f64 = 13.8;
    const DAY: u64 = 24 * 3_600_000;

    /// Starts when the last step is passed.
    pub fn start(counts: &Counts, now: UnixMillis) -> Self {
        Self { sum: 0.0, passed: counts.passed, failures: counts.failures() + counts.relapsed, exposure: 0, at: now }
    }

    /// Takes in what happened since the last call; order within a call: passes, then failures.
    pub fn observe(mut self, counts: &Counts, test: &SequentialTest, now: UnixMillis) -> Self {
        let elapsed = now.0.saturating_sub(self.at.0);
        let exposure = self.exposure.saturating_add(elapsed.saturating_mul(counts.active));
        let failures = counts.failures() + counts.relapsed;
        let passes = counts.passed.saturating_sub(self.passed) + exposure / Self::DAY;
        let failed = failures.saturating_sub(self.failures);
        self.sum = (self.sum + test.evidence(passes, 0)).max(0.0) + test.evidence(0, failed);
        self.exposure = exposure % Self::DAY;
        self.passed = counts.passed.max(self.passed);
        // A gateway that comes back takes its failure with it, and may fail again.
        self.failures = failures;
        self.at = UnixMillis(now.0.max(self.at.0));
        self
    }

    /// The release is bad now, whatever it was before.
    pub fn is_alarm(&self) -> bool {
        self.sum >= Self::BOUND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, active: u64, relapsed: u64) -> Counts {
        Counts { passed, active, relapsed, ..Counts::default() }
    }

    #[test]
    fn many_at_once_are_an_alarm_and_a_few_a_day_in_a_large_fleet_are_not() {
        let test = SequentialTest::new(1, 10);
        let start = Watch::start(&counts(1000, 1000, 0), UnixMillis(0));
        assert!(!start.observe(&counts(1000, 995, 5), &test, UnixMillis(1)).is_alarm());
        assert!(start.observe(&counts(1000, 994, 6), &test, UnixMillis(1)).is_alarm());
        let mut calm = start;
        for day in 1..=365 {
            calm = calm.observe(&counts(1000, 995, day * 5), &test, UnixMillis(day * Watch::DAY));
            assert!(!calm.is_alarm(), "day {day}");
        }
        let mut bad = start;
        let alarm = (1..=10).find(|&day| {
            bad = bad.observe(&counts(1000, 900, day * 100), &test, UnixMillis(day * Watch::DAY));
            bad.is_alarm()
        });
        assert_eq!(alarm, Some(1));
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let test = SequentialTest::new(1, 10);
        let start = Watch::start(&counts(10, 10, 0), UnixMillis(Watch::DAY));
        assert_eq!(start.observe(&counts(10, 10, 0), &test, UnixMillis(0)), start);
    }
}
