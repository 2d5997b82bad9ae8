//! What is told of all cases: a line per operator, what is wrong, the sum.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::case::Case;
use crate::worker::{Outcome, Refusal};

/// Cases with what came of them.
pub struct Report {
    results: Vec<(Case, Outcome)>,
}

/// Counts of one operator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub unsupported: usize,
    pub wrong: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed { .. } => self.passed += 1,
            Outcome::Unsupported { .. } => self.unsupported += 1,
            Outcome::Wrong { .. } => self.wrong += 1,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "passed {}, unsupported {}, wrong {}", self.passed, self.unsupported, self.wrong)
    }
}

impl Report {
    pub fn new(cases: Vec<Case>, outcomes: Vec<Outcome>) -> Self {
        Self { results: cases.into_iter().zip(outcomes).collect() }
    }

    fn total(&self) -> Counts {
        let mut counts = Counts::default();
        self.results.iter().for_each(|(_, outcome)| counts.add(outcome));
        counts
    }

    pub fn passed(&self) -> usize {
        self.total().passed
    }

    pub fn unsupported(&self) -> usize {
        self.total().unsupported
    }

    pub fn wrong(&self) -> usize {
        self.total().wrong
    }

    pub fn by_operator(&self) -> BTreeMap<&str, Counts> {
        let mut out: BTreeMap<&str, Counts> = BTreeMap::new();
        for (case, outcome) in &self.results {
            out.entry(&case.about.operator).or_default().add(outcome);
        }
        out
    }

    /// What cases of an operator were refused for, its own refusals first and only, where there are any.
    pub fn refusals(&self, operator: &str) -> BTreeSet<&Refusal> {
        let all =
            self.results.iter().filter(|(case, _)| case.about.operator == operator).filter_map(|(_, o)| match o {
                Outcome::Unsupported { refusals } => Some(refusals),
                Outcome::Passed { .. } | Outcome::Wrong { .. } => None,
            });
        let all: BTreeSet<&Refusal> = all.flatten().collect();
        let own: BTreeSet<&Refusal> = all.iter().copied().filter(|r| r.operator == operator).collect();
        if own.is_empty() { all } else { own }
    }

    /// All of it, for scripts.
    pub fn json(&self) -> serde_json::Value {
        let Counts { passed, unsupported, wrong } = self.total();
        let case = |(case, outcome): &(Case, Outcome)| serde_json::json!({"case": case.name, "operator": case.about.operator, "outcome": outcome});
        let cases: Vec<_> = self.results.iter().map(case).collect();
        serde_json::json!({"passed": passed, "unsupported": unsupported, "wrong": wrong, "cases": cases})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operators = self.by_operator();
        let width = operators.keys().map(|name| name.len()).max().unwrap_or(0);
        for (name, counts) in &operators {
            writeln!(f, "{name:width$}  {counts}")?;
        }
        for (case, outcome) in &self.results {
            match outcome {
                Outcome::Wrong { message } => writeln!(f, "WRONG {}: {message}", case.name)?,
                Outcome::Passed { micros, .. } if *micros > 0 => {
                    writeln!(f, "{}: {:.2} ms", case.name, *micros as f64 / 1e3)?;
                }
                Outcome::Passed { .. } | Outcome::Unsupported { .. } => {}
            }
        }
        writeln!(f, "{}", self.total())
    }
}
