//! What vectors add up to: a judgement in one sentence.

use serde::{Deserialize, Serialize};

use crate::{Contract, GoldenMatch};

/// The largest difference that was seen between a number and what was expected of it, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deviation {
    /// The output's name.
    pub output: String,
    /// Which golden vector, from 0.
    pub vector: u64,
    /// Which element of the output, row-major, from 0.
    pub element: u64,
    /// The number.
    pub found: f64,
    /// What it should be.
    pub expected: f64,
    /// The difference, in the output's unit or as a share.
    pub by: f64,
}

/// What was wrong with one vector, if anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VectorResult {
    /// `outputs/` were not met within tolerance.
    pub values: Option<String>,
    /// `labels/` were not met.
    pub label: Option<String>,
    /// Largest difference in the output's unit, of finite numbers; allowed or not.
    pub absolute: Option<Deviation>,
    /// Largest difference as a share of what is expected, or of the absolute tolerance where less than that is expected.
    pub relative: Option<Deviation>,
}

/// Adds vectors up to a judgement.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    vectors: u64,
    wrong_values: u64,
    wrong_labels: u64,
    first_value: Option<String>,
    first_label: Option<String>,
    absolute: Option<Deviation>,
    relative: Option<Deviation>,
}

/// The larger of two, the first one of equals.
pub(super) fn larger(before: Option<Deviation>, next: Option<Deviation>) -> Option<Deviation> {
    match (before, next) {
        (Some(before), Some(next)) => Some(if next.by > before.by { next } else { before }),
        (before, next) => before.or(next),
    }
}

impl Tally {
    /// Counts one vector.
    pub fn add(&mut self, result: VectorResult) {
        self.vectors += 1;
        self.wrong_values += u64::from(result.values.is_some());
        self.wrong_labels += u64::from(result.label.is_some());
        self.first_value = self.first_value.take().or(result.values);
        self.first_label = self.first_label.take().or(result.label);
        self.absolute = larger(self.absolute.take(), result.absolute);
        self.relative = larger(self.relative.take(), result.relative);
    }

    /// The largest differences that were seen, allowed or not: in the output's unit, and as a share.
    pub const fn worst(&self) -> (Option<&Deviation>, Option<&Deviation>) {
        (self.absolute.as_ref(), self.relative.as_ref())
    }

    /// Vectors that have what the contract compares.
    pub const fn matching(&self, contract: &Contract) -> u64 {
        self.vectors.saturating_sub(match contract.verification.golden_match {
            GoldenMatch::Values => self.wrong_values,
            GoldenMatch::ArgMax => self.wrong_labels,
        })
    }

    /// Vectors counted.
    pub const fn vectors(&self) -> u64 {
        self.vectors
    }

    /// Share of vectors that are right, per mille, rounded down: a share that is asked for is reached or it is not.
    const fn right_per_mille(&self, wrong: u64) -> u64 {
        let vectors = if self.vectors == 0 { 1 } else { self.vectors };
        self.vectors.saturating_sub(wrong).saturating_mul(1000) / vectors
    }

    /// Of a bundle's file, wherever the plan runs. `Err` has one sentence. Labels are the user's and may be missed by the
    /// share that the contract allows; the values are the reference evaluator's and must all be met.
    pub fn judge(&self, contract: &Contract) -> Result<(), String> {
        match contract.verification.golden_match {
            GoldenMatch::ArgMax => self.judge_labels(contract)?,
            GoldenMatch::Values => {}
        }
        self.judge_values(1000)
    }

    /// Of the user's file, by what the reference evaluator computed: what they asked for, as often as they asked.
    pub fn judge_users(&self, contract: &Contract) -> Result<(), String> {
        match contract.verification.golden_match {
            GoldenMatch::ArgMax => self.judge_labels(contract),
            GoldenMatch::Values => self.judge_values(needed(contract)),
        }
    }

    fn judge_labels(&self, contract: &Contract) -> Result<(), String> {
        self.judge_share(self.wrong_labels, "have the right label", needed(contract), self.first_label.as_deref())
    }

    fn judge_values(&self, needed: u64) -> Result<(), String> {
        let first = self.first_value.as_deref();
        self.judge_share(self.wrong_values, "are reproduced within tolerance", needed, first)
    }

    fn judge_share(&self, wrong: u64, what: &str, needed: u64, first: Option<&str>) -> Result<(), String> {
        if self.vectors == 0 {
            return Err("no golden vector was run".to_owned());
        }
        if self.right_per_mille(wrong) < needed { Err(self.sentence(wrong, what, needed, first)) } else { Ok(()) }
    }

    fn sentence(&self, wrong: u64, what: &str, needed: u64, first: Option<&str>) -> String {
        let right = self.vectors.saturating_sub(wrong);
        let first = first.unwrap_or("none was looked at");
        let needed = match needed {
            1000 => "all are".to_owned(),
            n if n % 10 == 0 => format!("{} % are", n / 10),
            n => format!("{}.{} % are", n / 10, n % 10),
        };
        format!("{right} of {} golden vectors {what}, {needed} needed; the first that fails: {first}", self.vectors)
    }
}

/// Per mille of the vectors that the user asks to match. Nobody can ask for none.
fn needed(contract: &Contract) -> u64 {
    u64::from(contract.verification.min_matching_per_mille.clamp(1, 1000))
}
