//! Joint inference: which answers the cloud is asked for, whom, and within which limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::rules;
use crate::{ByteQuantity, Decimal, Share, Span};

/// What the edge is not sure of, the cloud is asked. Whatever the cloud does, the edge's own answer stands after the
/// deadline. A change acts within one sync; it is no new release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Escalation {
    /// When an answer is not sure.
    pub confidence: Confidence,
    /// Who is asked.
    pub cloud: Cloud,
    /// What that may cost.
    #[serde(default)]
    pub budget: Budget,
    /// Of all requests so many are also asked by chance, whatever their confidence and behind the client's back, to learn how
    /// often edge and cloud agree.
    #[serde(default = "Escalation::default_random_share")]
    pub random_share: Share,
    /// What may leave a gateway. Its owner's `privacy` must allow it, too.
    #[serde(default)]
    pub privacy: EscalationPrivacy,
}

impl Escalation {
    fn default_random_share() -> Share {
        "0%".into()
    }
}

/// What may leave a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EscalationPrivacy {
    /// Nothing that was made from an input: the cloud is never asked.
    #[default]
    LocalOnly,
    /// Inputs as they are.
    Any,
}

const UP_TO_ONE: (&str, &str) = (
    "self.matches('^(0([.][0-9]{1,4})?|1([.]0{1,4})?)$')",
    "write a number from 0 to 1 with at most four decimal places, like 0.85",
);

/// How sure an answer is, and how sure it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Confidence {
    /// The output, FP32, whose last axis is the classes.
    #[schemars(length(min = 1, max = 253))]
    pub output: String,
    /// How its numbers become a confidence between 0 and 1.
    #[serde(default)]
    pub rule: ConfidenceRule,
    /// Whether its numbers are shares already, or the softmax is still to be taken.
    pub scores: ScoreKind,
    /// Answers less sure than this are asked for.
    #[schemars(extend("x-kubernetes-validations" = rules(&[Decimal::RULE, UP_TO_ONE])))]
    pub below: Decimal,
}

/// What makes an answer a sure one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConfidenceRule {
    /// The largest share.
    #[default]
    MaxSoftmax,
    /// The largest less the second largest.
    Margin,
    /// One less the entropy of the shares over that of an even distribution.
    Entropy,
}

/// What the numbers of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ScoreKind {
    /// The softmax is still to be taken.
    Logits,
    /// Shares already.
    Probabilities,
}

/// An Open Inference Protocol server with a model of the same inputs and outputs. Gateways show it their own certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cloud {
    /// `https://HOST[:PORT][/PREFIX]`; `/v2/models/MODEL/infer` comes after it.
    #[schemars(length(max = 2048), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^https://[^/?#@ ]+(/[^?# ]*)?$')",
        "write https://HOST, https://HOST:PORT or either with a path, without user, '?' and '#'",
    )])))]
    pub endpoint: String,
    /// What the model is called there.
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('^[a-z0-9]([-a-z0-9_]*[a-z0-9])?$')",
        "write lower-case letters, digits, '-' and '_', a letter or digit at both ends",
    )])))]
    pub model: String,
    /// After so long the edge's own answer is given; at most 60s.
    #[serde(default = "Cloud::default_deadline")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[Span::RULE, Span::NOT_ZERO, (
        "self.matches('^([0-9]{1,4}ms|[1-5]?[0-9]s|60s)$')",
        "write one number of ms or s, at most 60s, like 300ms",
    )])))]
    pub deadline: Span,
    /// PEM certificates that sign the server's; absent: those that sign the fleet's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536), extend("x-kubernetes-validations" = rules(&[(
        "self.matches('-----BEGIN CERTIFICATE-----')",
        "write PEM certificates, as they stand in a .crt or .pem file",
    )])))]
    pub ca: Option<String>,
}

impl Cloud {
    fn default_deadline() -> Span {
        "300ms".into()
    }
}

/// What asking may cost, on each gateway. Both are kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Both ways, TLS included, per day of UTC. 0 sends nothing.
    #[serde(default = "Budget::default_bytes_per_day")]
    pub bytes_per_day: ByteQuantity,
    /// Per minute of UTC. 0 sends nothing.
    #[serde(default = "Budget::default_requests_per_minute")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub requests_per_minute: i32,
    /// Under way at once.
    #[serde(default = "Budget::default_concurrency")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: i32,
}

impl Budget {
    fn default_bytes_per_day() -> ByteQuantity {
        "50Mi".into()
    }
    fn default_requests_per_minute() -> i32 {
        30
    }
    fn default_concurrency() -> i32 {
        4
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes_per_day: Self::default_bytes_per_day(),
            requests_per_minute: Self::default_requests_per_minute(),
            concurrency: Self::default_concurrency(),
        }
    }
}
