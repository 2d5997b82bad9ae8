//! Escalation as its caller sees it: every order of events in a small world, and long random runs.

mod exhaustive;
mod random;

use ballast_bundle::{ClassThresholds, Confidence, Threshold, UnixMillis};
use ballast_escalation::{BudgetLimits, Decision, Escalator, Judged, Limits, Privacy, Settings};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

fn thresholds() -> ClassThresholds {
    ClassThresholds::same(Threshold::try_from(8_500).unwrap())
}

const LIMITS: Limits =
    Limits { budget: BudgetLimits { bytes_per_day: 48, requests_per_minute: 2 }, concurrency: 2, random_share: 100 };

fn settings(thresholds: &ClassThresholds, limits: Limits) -> Settings<'_> {
    Settings { thresholds, limits, privacy: Privacy::Any, sends: Privacy::Any }
}

fn row(share: f64) -> Judged {
    Judged { class: 0, confidence: Confidence::of(share) }
}

/// Coins that are chosen and not.
const CHOSEN: u64 = 99;
const NOT_CHOSEN: u64 = 100;

fn decide(escalator: &mut Escalator, share: f64, coin: u64, now: u64) -> Decision {
    let thresholds = thresholds();
    escalator.decide(&[row(share)], 10, coin, settings(&thresholds, LIMITS), UnixMillis(now), now)
}
