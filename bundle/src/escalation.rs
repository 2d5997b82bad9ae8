//! What an assignment says of asking the cloud: how sure an answer must be, who is asked, and within which limits.

use serde::{Deserialize, Serialize};

use crate::ClassThresholds;

/// What of the shares of the classes makes an answer a sure one. Each goes from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// The largest share (Hendrycks and Gimpel, 2017).
    MaxSoftmax,
    /// The largest less the second largest.
    Margin,
    /// One less the entropy of the shares over that of an even distribution, `1 − H ÷ ln K`.
    Entropy,
}

/// What the output's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scores {
    /// The softmax is still to be taken.
    Logits,
    /// Shares already; they are divided by their sum.
    Probabilities,
}

/// What may leave a gateway; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Privacy {
    /// Nothing that was made from an input.
    #[default]
    LocalOnly,
    /// Features that the head of a split model makes.
    Features,
    /// Inputs as they are.
    Any,
}

/// How sure an answer must be to stay.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfidenceRule {
    /// The output, FP32, whose last axis is the classes.
    pub output: String,
    /// How its numbers become a confidence.
    pub rule: Rule,
    /// What its numbers are.
    pub scores: Scores,
    /// Below these an answer is sent on.
    pub thresholds: ClassThresholds,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudEndpoint {
    /// `https://HOST[:PORT][/PREFIX]` of an Open Inference Protocol server.
    pub endpoint: String,
    /// What the model is called there; its inputs and outputs are those of the edge's.
    pub model: String,
    /// After so long the edge's own answer is given, milliseconds.
    pub deadline_millis: u64,
    /// PEM certificates that sign the server's; absent: the fleet's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Bytes and requests that may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetLimits {
    /// Both ways, per day of UTC. 0: nothing is ever sent.
    pub bytes_per_day: u64,
    /// Per minute of UTC. 0: nothing is ever sent.
    pub requests_per_minute: u32,
}

/// Limits of what goes to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EscalationLimits {
    /// Bytes a day and requests a minute.
    pub budget: BudgetLimits,
    /// Requests that are under way at once.
    pub concurrency: u32,
    /// Of 10,000 requests so many are chosen by chance for labels, whatever their confidence.
    pub random_share: u16,
}

/// Joint inference of one deployment. What may leave is also the gateway's owner's to say: the stricter of both counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Escalation {
    /// How sure.
    pub confidence: ConfidenceRule,
    /// Whom.
    pub cloud: CloudEndpoint,
    /// Within what.
    pub limits: EscalationLimits,
    /// What may leave.
    #[serde(default)]
    pub privacy: Privacy,
}

impl Escalation {
    /// Longest time that a client is made to wait for the cloud, milliseconds.
    pub const MOST_DEADLINE_MILLIS: u64 = 60_000;
    /// Most requests under way.
    pub const MOST_CONCURRENCY: u32 = 64;

    /// Whether every number is one that can be acted on. `is_name`: what a model may be called.
    pub(crate) fn is_sound(&self, is_name: impl Fn(&str) -> bool) -> bool {
        let Self { confidence, cloud, limits, privacy: _ } = self;
        cloud.endpoint.starts_with("https://")
            && cloud.endpoint.len() <= 2048
            && is_name(&cloud.model)
            && (1..=Self::MOST_DEADLINE_MILLIS).contains(&cloud.deadline_millis)
            && cloud.ca.as_ref().is_none_or(|ca| ca.len() <= 64 << 10)
            && (1..=Self::MOST_CONCURRENCY).contains(&limits.concurrency)
            && limits.random_share <= 10_000
            && confidence.output.len() <= 253
    }
}
