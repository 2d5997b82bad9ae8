//! The sequential test (Wald, Sequential Analysis, 1947): how much more likely the votes are if the release is bad than if
//! it is good.

use serde::{Deserialize, Serialize};

/// Wald's test of two failure rates on votes that come one by one.
///
/// Its evidence is the log-likelihood ratio of *bad* against *good*. It halts at the upper bound for as long as the
/// rollout lasts: a good release ever gets there with a probability of at most e^−upper (Ville's inequality), however
/// many gateways there are. The lower bound ends nothing; it says when the release has proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SequentialTest {
    /// Evidence of one failure; positive.
    failure: f64,
    /// Evidence of one pass; negative.
    pass: f64,
}

impl SequentialTest {
    /// A good release is halted in so many cases at most.
    pub const FALSE_HALT: f64 = 0.01;
    /// A bad release seems to have proved itself in so many cases.
    pub const FALSE_PROOF: f64 = 0.05;

    /// Rates in per cent, `0 < good < bad < 100`; others are brought into that order, so that the test always exists.
    pub fn new(good: i32, bad: i32) -> Self {
        let good = f64::from(good.clamp(1, 98)) / 100.0;
        let bad = (f64::from(bad.clamp(2, 99)) / 100.0).max(good + 0.01);
        Self { failure: (bad / good).ln(), pass: ((1.0 - bad) / (1.0 - good)).ln() }
    }

    /// Evidence against the release, in nats.
    #[allow(clippy::cast_precision_loss)] // counts of gateways are far below 2^52
    pub fn evidence(&self, passed: u64, failed: u64) -> f64 {
        self.failure * failed as f64 + self.pass * passed as f64
    }

    /// `ln((1 − β) / α)`, Wald's upper bound.
    pub fn upper() -> f64 {
        ((1.0 - Self::FALSE_PROOF) / Self::FALSE_HALT).ln()
    }

    /// `ln(β / (1 − α))`, Wald's lower bound.
    pub fn lower() -> f64 {
        (Self::FALSE_PROOF / (1.0 - Self::FALSE_HALT)).ln()
    }

    /// The votes say that the release is bad.
    pub fn is_bad(&self, passed: u64, failed: u64) -> bool {
        self.evidence(passed, failed) >= Self::upper()
    }

    /// The votes say that the release is good.
    pub fn is_proved(&self, passed: u64, failed: u64) -> bool {
        self.evidence(passed, failed) <= Self::lower()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_ten_per_cent_halt_after_two_straight_failures_and_prove_after_32_clean_gateways() {
        let test = SequentialTest::new(1, 10);
        assert!(!test.is_bad(0, 1));
        assert!(test.is_bad(0, 2));
        assert!(!test.is_proved(31, 0));
        assert!(test.is_proved(32, 0));
        assert!(!test.is_bad(20, 2), "two of 22 is not enough to tell");
        assert!(test.is_bad(20, 3));
    }

    #[test]
    fn the_test_exists_for_any_two_rates() {
        for (good, bad) in [(1, 1), (10, 5), (98, 99), (0, 0), (-5, 400)] {
            let test = SequentialTest::new(good, bad);
            assert!(test.failure > 0.0 && test.failure.is_finite(), "{good} {bad}");
            assert!(test.pass < 0.0 && test.pass.is_finite(), "{good} {bad}");
        }
    }
}
