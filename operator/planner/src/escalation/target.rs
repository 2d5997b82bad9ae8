//! `escalation.target`, parsed.

use ballast_crds::{Decimal, QuantityError};

/// How often the edge's own answers must be the cloud's, and how sure of that the thresholds must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscalationTarget {
    agreement: u16,
    confidence: u16,
}

/// Why a target cannot be aimed at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a number.
    #[error("escalation.target.{field}: {source}")]
    Quantity {
        /// `agreement` or `confidence`.
        field: &'static str,
        /// What is wrong with it. In the sentence, so no `source()` besides.
        r#source: QuantityError,
    },
    /// Not within bounds.
    #[error(
        "escalation.target.{field} is {value}: write a number from 0.5 to 0.9999 with at most four decimal places, like 0.98"
    )]
    OutOfRange {
        /// `agreement` or `confidence`.
        field: &'static str,
        /// As written.
        value: String,
    },
}

impl EscalationTarget {
    /// Reads both numbers. 1 cannot be promised from any number of labels; below one half nobody would want it.
    pub fn new(agreement: &Decimal, confidence: &Decimal) -> Result<Self, TargetError> {
        Ok(Self { agreement: share("agreement", agreement)?, confidence: share("confidence", confidence)? })
    }

    /// As a share of answers.
    pub fn agreement(self) -> f64 {
        f64::from(self.agreement) / 10_000.0
    }

    /// How often a promise may be broken.
    pub fn error_level(self) -> f64 {
        f64::from(10_000 - self.confidence) / 10_000.0
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within [5,000, 9,999]
fn share(field: &'static str, written: &Decimal) -> Result<u16, TargetError> {
    let value = written.value().map_err(|source| TargetError::Quantity { field, source })?;
    let parts = (value * 10_000.0).round();
    // What was written has at most four places if the nearest such number reads as the same number.
    let exact = parts / 10_000.0 == value;
    if exact && (5_000.0..=9_999.0).contains(&parts) {
        Ok(parts as u16)
    } else {
        Err(TargetError::OutOfRange { field, value: written.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_shares_that_can_be_promised() {
        let target = EscalationTarget::new(&"0.98".into(), &"9.5e-1".into()).unwrap();
        assert_eq!((target.agreement(), target.error_level()), (0.98, 0.05));
        for n in 5_000..=9_999u16 {
            let text = format!("0.{n:04}");
            assert_eq!(share("agreement", &text.as_str().into()), Ok(n));
        }
        for (bad, says) in [
            ("1", "from 0.5 to 0.9999"),
            ("0.49", "from 0.5 to 0.9999"),
            ("98", "from 0.5 to 0.9999"),
            ("0.98765", "four decimal places"),
            ("98%", "like 0.001"),
            ("", "like 0.001"),
        ] {
            let error = EscalationTarget::new(&bad.into(), &"0.95".into()).unwrap_err().to_string();
            assert!(error.starts_with("escalation.target.agreement") && error.contains(says), "{error}");
        }
        assert!(EscalationTarget::new(&"0.98".into(), &"1".into()).unwrap_err().to_string().contains("confidence"));
    }
}
