//! How a release reaches the gateways.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::rules;
use crate::{Share, Span};

/// How a release reaches the gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Cumulative, increasing within each unit; the last is 100%.
    #[serde(default = "Rollout::default_steps")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = rules(&[
        ("self.size() > 0 && self[self.size() - 1].gateways == '100%'", LAST_STEP),
    ])))]
    pub steps: Vec<Step>,
    /// How long a step is watched after its last gateway passed.
    #[serde(default = "Rollout::default_soak")]
    pub soak: Span,
    /// A gateway that fetched the release and is then silent for so long has failed. At least 3 × the sync wait.
    #[serde(default = "Rollout::default_silence_deadline")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Span::RULE, Span::NOT_ZERO])))]
    pub silence_deadline: Span,
    /// Of the sequential test.
    #[serde(default)]
    pub failure_rate: FailureRate,
    /// When a gateway's own trial ends well.
    #[serde(default)]
    pub trial: Trial,
    /// What happens when the test says that the release is bad.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// No further gateway takes the release while this is set.
    #[serde(default)]
    pub paused: bool,
}

impl Rollout {
    fn default_steps() -> Vec<Step> {
        let percent = |text: &str| Step { gateways: StepSize::Share(text.into()) };
        vec![Step { gateways: StepSize::Count(1) }, percent("10%"), percent("100%")]
    }
    fn default_soak() -> Span {
        "10m".into()
    }
    fn default_silence_deadline() -> Span {
        "1h".into()
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            steps: Self::default_steps(),
            soak: Self::default_soak(),
            silence_deadline: Self::default_silence_deadline(),
            failure_rate: FailureRate::default(),
            trial: Trial::default(),
            on_failure: OnFailure::default(),
            paused: false,
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// a count from 1 on, or a share of the eligible gateways above 0%, like "10%" (rounded up)
    #[schemars(schema_with = "step_size_schema")]
    pub gateways: StepSize,
}

/// A number of gateways, `1`, or a share of them, `"10%"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StepSize {
    /// So many.
    Count(i64),
    /// So many of the eligible.
    Share(Share),
}

/// No CEL on this value: the API server cannot bound the length of an int-or-string, so it would refuse the rule as too
/// costly. Bounds and pattern say the same; [`Rollout::check`] says the rest with a sentence.
fn step_size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "pattern": "^(100%|[1-9][0-9]?([.][0-9])?%|0[.][1-9]%)$",
    })
}

const LAST_STEP: &str = "the last step must be gateways: \"100%\"";

impl Rollout {
    /// Steps increase within each unit and end with everybody. The API server's schema says only the latter, so whoever
    /// acts on a rollout asks this too.
    pub fn check(&self) -> Result<(), String> {
        let (mut count, mut share) = (0, 0);
        for step in &self.steps {
            match &step.gateways {
                StepSize::Count(n) if *n <= count => {
                    return Err(format!("steps that count gateways must increase: {n} does not come after {count}"));
                }
                StepSize::Count(n) => count = *n,
                StepSize::Share(text) => {
                    let next = text.per_mille().map_err(|error| error.to_string())?;
                    if next <= share {
                        let before = f64::from(share) / 10.0;
                        return Err(format!("steps in per cent must increase: {text} does not come after {before}%"));
                    }
                    share = next;
                }
            }
        }
        if share == 1000 && self.steps.last().is_some_and(|step| matches!(step.gateways, StepSize::Share(_))) {
            Ok(())
        } else {
            Err(LAST_STEP.to_owned())
        }
    }
}

impl StepSize {
    /// Gateways out of `eligible`: rounded up, at least 1, never more than there are.
    /// A share that cannot be read counts as one gateway: the slowest choice.
    pub fn of(&self, eligible: u64) -> u64 {
        let wanted = match self {
            Self::Count(n) => u64::try_from(*n).unwrap_or(1),
            Self::Share(share) => (eligible.saturating_mul(u64::from(share.per_mille().unwrap_or(0)))).div_ceil(1000),
        };
        wanted.max(1).min(eligible)
    }
}

/// The two failure rates that the sequential test tells apart, in per cent of the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "self.good < self.bad",
    "failureRate.good must be below failureRate.bad, like 1 and 10",
)])))]
pub struct FailureRate {
    /// A release that fails on so many is still good.
    #[serde(default = "FailureRate::default_good")]
    #[schemars(range(min = 1, max = 98))]
    pub good: i32,
    /// A release that fails on so many is bad.
    #[serde(default = "FailureRate::default_bad")]
    #[schemars(range(min = 2, max = 99))]
    pub bad: i32,
}

impl FailureRate {
    fn default_good() -> i32 {
        1
    }
    fn default_bad() -> i32 {
        10
    }
}

impl Default for FailureRate {
    fn default() -> Self {
        Self { good: 1, bad: 10 }
    }
}

/// When a gateway's own trial of a release ends well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// At least so long.
    #[serde(default = "Trial::default_min_duration")]
    pub min_duration: Span,
    /// At least so many requests; without traffic golden replays count.
    #[serde(default = "Trial::default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: i64,
    /// More failures than this roll back.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_failures: i64,
}

impl Trial {
    fn default_min_duration() -> Span {
        "1m".into()
    }
    fn default_min_requests() -> i64 {
        20
    }
}

impl Default for Trial {
    fn default() -> Self {
        Self { min_duration: Self::default_min_duration(), min_requests: Self::default_min_requests(), max_failures: 0 }
    }
}

/// What happens when a release turns out bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnFailure {
    /// Every gateway goes back to the stable release.
    #[default]
    Rollback,
    /// No further gateway takes it; those that have it keep it, and a person decides.
    Pause,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_rounded_up_at_least_one_and_never_more_than_there_are() {
        let share = |text: &str| StepSize::Share(text.into());
        for (step, eligible, want) in [
            (StepSize::Count(1), 5, 1),
            (StepSize::Count(9), 5, 5),
            (StepSize::Count(1), 0, 0),
            (share("10%"), 5, 1),
            (share("10%"), 11, 2),
            (share("0.1%"), 100_000, 100),
            (share("100%"), 7, 7),
            (share("nonsense"), 7, 1),
        ] {
            assert_eq!(step.of(eligible), want, "{step:?} of {eligible}");
        }
    }
}
