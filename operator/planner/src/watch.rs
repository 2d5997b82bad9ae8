//! After the last step: a CUSUM (Page, Biometrika 41, 1954) over what happens from then on, and a rule of its own for
//! fleets that are too small for one.

use ballast_bundle::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::state::SMALL_FLEET;
use crate::{Counts, SequentialTest};

/// Page's sum of the sequential test's evidence, never below zero.
///
/// What is observed: each vote of a gateway that took the release after its last step; each gateway that went back after
/// it had voted for the release (a failure); and each day that an active gateway served without going back (a pass).
///
/// In a small fleet the sum cannot reach its bound: that takes six failures at 1 and 10 %, and each gateway fails once.
/// There a release stays on trial until it has served for as many gateway-days as the sequential test wants clean votes
/// (32: eleven days of three gateways): the first failure until then is an alarm, as it was during the rollout. Later a
/// lone failure is more likely the gateway's own, which has gone back by itself; one that comes while an earlier one still
/// weighs (24 gateway-days at 1 and 10 %) is an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    sum: f64,
    passed: u64,
    failures: u64,
    /// Gateway-milliseconds that have not made a whole day yet.
    exposure: u64,
    /// Passes so far.
    #[serde(default)]
    served: u64,
    #[serde(default)]
    alarm: bool,
    at: UnixMillis,
}

impl Watch {
    /// A false alarm comes once in 10⁶ observations or later: the mean time between them is at least e^bound (Lorden,
    /// Annals of Mathematical Statistics 42, 1971). A release that fails on 10 % is found after about 13.8 ÷ 0.145 = 95.
    const BOUND: f64 = 13.8;
    const DAY: u64 = 24 * 3_600_000;

    /// Starts when the last step is passed.
    pub fn start(counts: &Counts, now: UnixMillis) -> Self {
        let failures = counts.failures() + counts.relapsed;
        Self { sum: 0.0, passed: counts.passed, failures, exposure: 0, served: 0, alarm: false, at: now }
    }

    /// Takes in what happened since the last call; order within a call: passes, then failures.
    pub fn observe(mut self, counts: &Counts, test: &SequentialTest, now: UnixMillis) -> Self {
        let elapsed = now.0.saturating_sub(self.at.0);
        let exposure = self.exposure.saturating_add(elapsed.saturating_mul(counts.active));
        let failures = counts.failures() + counts.relapsed;
        let passes = counts.passed.saturating_sub(self.passed) + exposure / Self::DAY;
        let failed = failures.saturating_sub(self.failures);
        self.sum = (self.sum + test.evidence(passes, 0)).max(0.0) + test.evidence(0, failed);
        self.served = self.served.saturating_add(passes);
        self.alarm = if counts.eligible < SMALL_FLEET {
            failed > 0 && (self.served < SMALL_FLEET || self.sum > test.evidence(0, 1))
        } else {
            self.sum >= Self::BOUND
        };
        self.exposure = exposure % Self::DAY;
        self.passed = counts.passed.max(self.passed);
        // A gateway that comes back takes its failure with it, and may fail again.
        self.failures = failures;
        self.at = UnixMillis(now.0.max(self.at.0));
        self
    }

    /// What was observed last says that the release is bad, whatever it was before.
    pub const fn is_alarm(&self) -> bool {
        self.alarm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, active: u64, relapsed: u64) -> Counts {
        Counts { eligible: passed, passed, active, relapsed, ..Counts::default() }
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
    fn in_a_small_fleet_the_first_failure_of_a_young_release_is_an_alarm() {
        let test = SequentialTest::new(1, 10);
        for gateways in [1, 3, 5, 31] {
            let start = Watch::start(&counts(gateways, gateways, 0), UnixMillis(0));
            assert!(!start.observe(&counts(gateways, gateways, 0), &test, UnixMillis(1)).is_alarm());
            let relapse = counts(gateways, gateways - 1, 1);
            assert!(start.observe(&relapse, &test, UnixMillis(1)).is_alarm(), "{gateways}");
            let lost = Counts { lost: 1, ..counts(gateways, gateways, 0) };
            assert!(start.observe(&lost, &test, UnixMillis(1)).is_alarm(), "{gateways}");
        }
        assert!(
            !Watch::start(&counts(32, 32, 0), UnixMillis(0))
                .observe(&counts(32, 31, 1), &test, UnixMillis(1))
                .is_alarm()
        );
    }

    #[test]
    fn in_a_small_fleet_an_old_release_is_found_by_two_failures_that_weigh_together() {
        let test = SequentialTest::new(1, 10);
        let day = |n: u64| UnixMillis(n * Watch::DAY);
        let start = Watch::start(&counts(3, 3, 0), day(0));
        // Ten days of three gateways are 30 gateway-days, eleven are 33.
        let nearly = start.observe(&counts(3, 3, 0), &test, day(10));
        assert!(nearly.observe(&counts(3, 2, 1), &test, day(10)).is_alarm());
        let old = start.observe(&counts(3, 3, 0), &test, day(11));
        let one = old.observe(&counts(3, 2, 1), &test, day(11));
        assert!(!one.is_alarm());
        // Twelve days of two gateways make up for it.
        let again = |at: u64| one.observe(&counts(3, 2, 1), &test, day(at)).observe(&counts(3, 1, 2), &test, day(at));
        assert!(again(11).is_alarm() && again(22).is_alarm());
        assert!(!again(24).is_alarm());
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let test = SequentialTest::new(1, 10);
        let start = Watch::start(&counts(10, 10, 0), UnixMillis(Watch::DAY));
        assert_eq!(start.observe(&counts(10, 10, 0), &test, UnixMillis(0)), start);
    }
}
