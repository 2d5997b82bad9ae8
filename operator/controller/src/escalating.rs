//! `spec.escalation`, read.

use ballast_bundle::{
    BudgetLimits, ClassThresholds, CloudEndpoint, ConfidenceRule, Escalation, EscalationLimits, Privacy, Rule, Scores,
    Threshold,
};
use ballast_crds::{EscalationPrivacy, ScoreKind};

use crate::wanted::InvalidWish;

/// What gateways are told.
pub(crate) fn read(escalation: &ballast_crds::Escalation) -> Result<Escalation, InvalidWish> {
    let quantity = |field| move |source| InvalidWish::Quantity { field, source };
    let ballast_crds::Escalation { confidence, cloud, budget, random_share, privacy } = escalation;
    let below = confidence.below.value().map_err(quantity("escalation.confidence.below"))?;
    let deadline_millis = cloud.deadline.millis().map_err(quantity("escalation.cloud.deadline"))?;
    if deadline_millis > Escalation::MOST_DEADLINE_MILLIS {
        let message = "a client cannot be made to wait for longer than 60s".to_owned();
        return Err(InvalidWish::Field { field: "escalation.cloud.deadline", message });
    }
    let random_share = random_share.per_mille().map_err(quantity("escalation.randomShare"))?;
    Ok(Escalation {
        confidence: ConfidenceRule {
            output: confidence.output.clone(),
            rule: match confidence.rule {
                ballast_crds::ConfidenceRule::MaxSoftmax => Rule::MaxSoftmax,
                ballast_crds::ConfidenceRule::Margin => Rule::Margin,
                ballast_crds::ConfidenceRule::Entropy => Rule::Entropy,
            },
            scores: match confidence.scores {
                ScoreKind::Logits => Scores::Logits,
                ScoreKind::Probabilities => Scores::Probabilities,
            },
            thresholds: ClassThresholds::same(threshold(below)?),
        },
        cloud: CloudEndpoint {
            endpoint: cloud.endpoint.clone(),
            model: cloud.model.clone(),
            deadline_millis,
            ca: cloud.ca.clone(),
        },
        limits: EscalationLimits {
            budget: BudgetLimits {
                bytes_per_day: budget.bytes_per_day.bytes().map_err(quantity("escalation.budget.bytesPerDay"))?,
                requests_per_minute: u32::try_from(budget.requests_per_minute).unwrap_or(0),
            },
            concurrency: u32::try_from(budget.concurrency).unwrap_or(1),
            random_share: u16::try_from(random_share.saturating_mul(10)).unwrap_or(0),
        },
        privacy: match privacy {
            EscalationPrivacy::LocalOnly => Privacy::LocalOnly,
            EscalationPrivacy::Any => Privacy::Any,
        },
    })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within [0, 10,000]
fn threshold(below: f64) -> Result<Threshold, InvalidWish> {
    let parts = (below * 10_000.0).round();
    let fits = (0.0..=10_000.0).contains(&parts) && parts / 10_000.0 == below;
    let wrong = || InvalidWish::Field {
        field: "escalation.confidence.below",
        message: "write a number from 0 to 1 with at most four decimal places, like 0.85".to_owned(),
    };
    if fits { Threshold::try_from(parts as u16).map_err(|_| wrong()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: serde_json::Value) -> Result<Escalation, InvalidWish> {
        read(&serde_json::from_value(json).unwrap())
    }

    fn full(below: &str, deadline: &str) -> serde_json::Value {
        serde_json::json!({
            "confidence": {"output": "scores", "scores": "Logits", "below": below},
            "cloud": {"endpoint": "https://cloud.example", "model": "digits-large", "deadline": deadline},
            "budget": {"bytesPerDay": "1Mi"},
            "randomShare": "2.5%",
            "privacy": "Any",
        })
    }

    #[test]
    fn what_is_written_is_what_gateways_are_told() {
        let read = written(full("0.85", "2s")).unwrap();
        assert_eq!(read.confidence.thresholds, ClassThresholds::same(Threshold::try_from(8_500).unwrap()));
        assert_eq!(
            (read.confidence.rule, read.cloud.deadline_millis, read.privacy),
            (Rule::MaxSoftmax, 2_000, Privacy::Any)
        );
        assert_eq!((read.limits.budget.bytes_per_day, read.limits.budget.requests_per_minute), (1 << 20, 30));
        assert_eq!((read.limits.concurrency, read.limits.random_share), (4, 250));
        let mut silent = full("1", "300ms");
        silent.as_object_mut().unwrap().remove("privacy");
        assert_eq!(written(silent).unwrap().privacy, Privacy::LocalOnly, "nothing leaves by default");
    }

    #[test]
    fn what_cannot_be_acted_on_says_where() {
        for (below, deadline, says) in [
            ("1.1", "1s", "spec.escalation.confidence.below: write a number from 0 to 1"),
            ("0.85001", "1s", "at most four decimal places"),
            ("x", "1s", "spec.escalation.confidence.below"),
            ("0.8", "61s", "spec.escalation.cloud.deadline: a client cannot"),
            ("0.8", "soon", "spec.escalation.cloud.deadline"),
        ] {
            let error = written(full(below, deadline)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
