//! How sure an answer is, and below what it is sent on. Whole ten-thousandths, so that a gateway, the operator and a signed
//! document never differ by a rounding.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How sure the edge is of an answer: 0 (knows nothing) to 10,000 (certain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Confidence(u16);

/// Not within its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} is above {most}: confidences and thresholds are in ten-thousandths")]
pub struct OutOfRange {
    found: u16,
    most: u16,
}

impl Confidence {
    /// As sure as can be.
    pub const CERTAIN: Self = Self(10_000);

    /// Of a number from 0 to 1, rounded down, so that no answer counts as surer than it is; what is no number is not sure at
    /// all.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within [0, 10,000]
    pub fn of(share: f64) -> Self {
        if share.is_nan() { Self(0) } else { Self((share.clamp(0.0, 1.0) * 10_000.0).floor() as u16) }
    }

    /// In ten-thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Which of [`CONFIDENCE_BINS`] it falls into.
    pub fn bin(self) -> usize {
        CONFIDENCE_BINS.iter().rposition(|least| *least <= self.0).unwrap_or(0)
    }
}

impl TryFrom<u16> for Confidence {
    type Error = OutOfRange;

    fn try_from(found: u16) -> Result<Self, OutOfRange> {
        let most = Self::CERTAIN.0;
        if found <= most { Ok(Self(found)) } else { Err(OutOfRange { found, most }) }
    }
}

impl From<Confidence> for u16 {
    fn from(confidence: Confidence) -> Self {
        confidence.0
    }
}

/// Answers less sure than this are sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Threshold(u16);

impl Threshold {
    /// No answer is sent on.
    pub const NOTHING: Self = Self(0);
    /// Every answer is, also one that is certain.
    pub const EVERYTHING: Self = Self(10_001);

    /// In ten-thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether an answer as sure as this is sent on.
    pub const fn sends(self, confidence: Confidence) -> bool {
        confidence.0 < self.0
    }
}

impl TryFrom<u16> for Threshold {
    type Error = OutOfRange;

    fn try_from(found: u16) -> Result<Self, OutOfRange> {
        let most = Self::EVERYTHING.0;
        if found <= most { Ok(Self(found)) } else { Err(OutOfRange { found, most }) }
    }
}

impl From<Threshold> for u16 {
    fn from(threshold: Threshold) -> Self {
        threshold.0
    }
}

impl From<Confidence> for Threshold {
    fn from(confidence: Confidence) -> Self {
        Self(confidence.0)
    }
}

/// `0.85`; one that lets nothing pass has no such form: `everything`.
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::EVERYTHING {
            return f.write_str("everything");
        }
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        let short = text.trim_end_matches('0');
        f.write_str(if short.ends_with('.') { text.get(..3).unwrap_or(short) } else { short })
    }
}

/// Least confidence of each bin in which gateways count, in ten-thousandths; the last one ends at 10,000. Finer towards
/// certainty, where trained classifiers give most of their answers and where thresholds lie. These are also the thresholds
/// that the operator chooses among.
pub const CONFIDENCE_BINS: [u16; 32] = [
    0, 1_000, 2_000, 3_000, 4_000, 4_500, 5_000, 5_500, 6_000, 6_500, 7_000, 7_500, 8_000, 8_300, 8_600, 8_800, 9_000,
    9_200, 9_300, 9_400, 9_500, 9_600, 9_700, 9_750, 9_800, 9_850, 9_900, 9_930, 9_960, 9_980, 9_990, 9_995,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confidence_is_rounded_down_and_no_number_is_not_sure() {
        for (share, is) in [
            (0.0, 0),
            (0.849_99, 8_499),
            (0.85, 8_500),
            (1.0, 10_000),
            (7.0, 10_000),
            (-1.0, 0),
            (f64::NAN, 0),
            (f64::INFINITY, 10_000),
            (f64::NEG_INFINITY, 0),
        ] {
            assert_eq!(Confidence::of(share).get(), is, "{share}");
        }
    }

    #[test]
    fn every_confidence_has_its_bin() {
        assert!(CONFIDENCE_BINS.is_sorted_by(|a, b| a < b));
        for n in 0..=10_000 {
            let bin = Confidence(n).bin();
            assert!(CONFIDENCE_BINS[bin] <= n && CONFIDENCE_BINS.get(bin + 1).is_none_or(|next| n < *next), "{n}");
        }
    }

    #[test]
    fn what_is_as_sure_as_the_threshold_stays() {
        let half = Threshold(5_000);
        assert!(half.sends(Confidence(4_999)) && !half.sends(Confidence(5_000)));
        assert!(!Threshold::NOTHING.sends(Confidence(0)) && Threshold::EVERYTHING.sends(Confidence::CERTAIN));
    }

    #[test]
    fn numbers_out_of_range_are_not_read() {
        assert_eq!(serde_json::from_str::<Threshold>("10001").unwrap(), Threshold::EVERYTHING);
        assert!(serde_json::from_str::<Threshold>("10002").is_err());
        assert!(serde_json::from_str::<Threshold>("-1").is_err());
        assert!(serde_json::from_str::<Confidence>("10001").is_err());
        let texts = [0, 8_500, 9_995, 10_000, 10_001].map(|n| Threshold(n).to_string());
        assert_eq!(texts, ["0.0", "0.85", "0.9995", "1.0", "everything"]);
    }
}
