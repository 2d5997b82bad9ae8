//! How sure an answer is, read off one of its outputs.

use ballast_bundle::{Confidence, Rule, Scores};

/// One row's class and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Index of the first largest score.
    pub class: u32,
    /// Of the answer; 0 if any score is not finite, or a share is negative.
    pub confidence: Confidence,
}

/// Scores that no row can be read off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{numbers} scores are not rows of {classes} classes: a row has from 2 to {} scores", ScoresError::MOST_CLASSES)]
pub struct ScoresError {
    numbers: usize,
    classes: usize,
}

impl ScoresError {
    /// Of one row.
    pub const MOST_CLASSES: usize = 1 << 20;
}

/// Judges `scores`, f32 of shape `[rows, classes]` in C order, row by row.
pub fn judge(scores: &[f32], classes: usize, rule: Rule, are: Scores) -> Result<Vec<Judged>, ScoresError> {
    let fits = (2..=ScoresError::MOST_CLASSES).contains(&classes) && scores.len().is_multiple_of(classes);
    if !fits {
        return Err(ScoresError { numbers: scores.len(), classes });
    }
    Ok(scores.chunks_exact(classes).map(|row| judge_row(row, rule, are)).collect())
}

fn judge_row(row: &[f32], rule: Rule, are: Scores) -> Judged {
    let (mut class, mut largest) = (0, f32::NEG_INFINITY);
    for (n, score) in row.iter().enumerate() {
        if *score > largest {
            (class, largest) = (u32::try_from(n).unwrap_or(u32::MAX), *score);
        }
    }
    let weight = |score: &f32| match are {
        Scores::Logits => libm::exp(f64::from(*score) - f64::from(largest)),
        Scores::Probabilities => f64::from(*score),
    };
    let readable = row.iter().all(|score| score.is_finite() && (are == Scores::Logits || *score >= 0.0));
    let sum: f64 = row.iter().map(weight).sum();
    if !readable || sum <= 0.0 {
        return Judged { class, confidence: Confidence::of(0.0) };
    }
    let shares = || row.iter().map(|score| weight(score) / sum);
    let share = match rule {
        Rule::MaxSoftmax => shares().fold(0.0, f64::max),
        Rule::Margin => {
            let (mut first, mut second) = (0.0, 0.0);
            for share in shares() {
                if share > first {
                    (first, second) = (share, first);
                } else if share > second {
                    second = share;
                }
            }
            first - second
        }
        Rule::Entropy => {
            let entropy: f64 = shares().filter(|share| *share > 0.0).map(|share| -share * libm::log(share)).sum();
            #[allow(clippy::cast_precision_loss)] // at most 2²⁰
            let even = libm::log(row.len() as f64);
            1.0 - entropy / even
        }
    };
    Judged { class, confidence: Confidence::of(share) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(row: &[f32], rule: Rule, are: Scores) -> (u32, u16) {
        let judged = judge(row, row.len(), rule, are).unwrap();
        (judged[0].class, judged[0].confidence.get())
    }

    #[test]
    fn each_rule_is_its_formula() {
        let shares = [0.1, 0.7, 0.2];
        assert_eq!(one(&shares, Rule::MaxSoftmax, Scores::Probabilities), (1, 6_999), "as f32, rounded down");
        assert_eq!(one(&shares, Rule::Margin, Scores::Probabilities), (1, 4_999));
        // H = 0.8018 nats of ln 3 = 1.0986.
        assert_eq!(one(&shares, Rule::Entropy, Scores::Probabilities), (1, 2_701));
        let logits = shares.map(|share: f32| 40.0 + share.ln());
        for rule in [Rule::MaxSoftmax, Rule::Margin, Rule::Entropy] {
            let (from_logits, from_shares) =
                (one(&logits, rule, Scores::Logits), one(&shares, rule, Scores::Probabilities));
            assert!(from_logits.0 == 1 && from_logits.1.abs_diff(from_shares.1) <= 1, "{rule:?} {from_logits:?}");
            assert_eq!(one(&[0.0, 100.0], rule, Scores::Logits), (1, 10_000));
            assert_eq!(one(&[1.0, 0.0], rule, Scores::Probabilities), (0, 10_000));
            let even = one(&[3.0; 4], rule, Scores::Logits);
            assert_eq!(even, (0, if rule == Rule::MaxSoftmax { 2_500 } else { 0 }), "the first of equals");
        }
    }

    #[test]
    fn what_is_no_number_is_not_sure() {
        for row in [[f32::NAN, 1.0], [1.0, f32::INFINITY], [f32::NEG_INFINITY, 0.0]] {
            for are in [Scores::Logits, Scores::Probabilities] {
                assert_eq!(one(&row, Rule::MaxSoftmax, are).1, 0, "{row:?}");
            }
        }
        for row in [[0.0, 0.0], [-0.1, 1.1]] {
            assert_eq!(one(&row, Rule::MaxSoftmax, Scores::Probabilities).1, 0);
        }
        // Far apart, as logits may be.
        assert_eq!(one(&[f32::MIN, f32::MAX], Rule::Entropy, Scores::Logits), (1, 10_000));
    }

    #[test]
    fn rows_are_judged_one_by_one() {
        let rows = judge(&[0.9, 0.1, 0.4, 0.6], 2, Rule::MaxSoftmax, Scores::Probabilities).unwrap();
        assert_eq!(rows.iter().map(|row| row.class).collect::<Vec<_>>(), [0, 1]);
        assert!(judge(&[], 2, Rule::Margin, Scores::Logits).unwrap().is_empty());
        for (numbers, classes) in [(3, 2), (2, 0), (2, 1)] {
            let error = judge(&vec![0.0; numbers], classes, Rule::Margin, Scores::Logits).unwrap_err().to_string();
            assert!(error.contains("a row has from 2"), "{error}");
        }
    }
}
