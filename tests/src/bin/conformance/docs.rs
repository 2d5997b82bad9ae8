//! `docs/operators.md`: which operators there are, and what is known of each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use ballast_compiler::import;
use serde::Deserialize;

use crate::report::{Counts, Report};

/// One operator of `operators.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    domain: String,
    name: String,
    /// Operator sets that changed it.
    versions: Vec<i64>,
}

impl Operator {
    fn full_name(&self) -> String {
        if self.domain.is_empty() { self.name.clone() } else { format!("{}.{}", self.domain, self.name) }
    }
}

pub fn read(path: &Path) -> Result<Vec<Operator>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// The page.
pub fn page(operators: &[Operator], report: &Report) -> String {
    let counts = report.by_operator();
    let supported = |o: &&Operator| import::knows(&o.domain, &o.name);
    let mut out = String::from(
        "# Operators\n\n\
         Made by `cargo xtask conformance onnx --write-docs`; a test fails when it is not what the compiler does.\n\n\
         The cases are those of the pinned `onnx` package whose inputs and outputs are tensors of FP32, FP16, INT8, UINT8,\n\
         INT32, INT64 or BOOL. Each goes through the compiler and the sandbox. *Refused* is what the compiler says of cases that\n\
         it does not take, before it compiles anything; `ballast check` says it of your model, by node.\n\n",
    );
    let _ = writeln!(out, "passed {}, unsupported {}, wrong {}", report.passed(), report.unsupported(), report.wrong());
    for (domain, title) in [("", "ONNX"), ("ai.onnx.ml", "ai.onnx.ml"), ("com.microsoft", "com.microsoft")] {
        let of_domain: Vec<&Operator> = operators.iter().filter(|o| o.domain == domain).collect();
        let known: Vec<&&Operator> = of_domain.iter().filter(|o| supported(o)).collect();
        let _ = writeln!(out, "\n## {title}\n\n{} of {} operators are known.\n", known.len(), of_domain.len());
        if !known.is_empty() {
            out.push_str("| operator | changed in operator sets | cases passed | unsupported | refused |\n|---|---|---:|---:|---|\n");
        }
        for operator in known {
            out.push_str(&row(operator, counts.get(operator.full_name().as_str()), report));
        }
        let missing = of_domain.iter().filter(|o| !supported(o));
        out.push_str(&not_known(missing.copied(), &counts));
    }
    let listed = |name: &str| operators.iter().any(|o| o.full_name() == name);
    let others: Vec<_> = counts.iter().filter(|(name, _)| !listed(name)).collect();
    if !others.is_empty() {
        out.push_str("\n## Others\n\n| operator | cases passed | unsupported |\n|---|---:|---:|\n");
        for (name, c) in others {
            let _ = writeln!(out, "| {name} | {} | {} |", c.passed, c.unsupported);
        }
    }
    out
}

fn row(operator: &Operator, counts: Option<&Counts>, report: &Report) -> String {
    let versions: Vec<String> = operator.versions.iter().map(i64::to_string).collect();
    let name = operator.full_name();
    let refused: Vec<String> = report
        .refusals(&name)
        .into_iter()
        .map(|r| match (r.operator == name || r.operator.is_empty(), r.detail.as_str()) {
            (true, detail) => detail.to_owned(),
            (false, "") => format!("{} is not known", r.operator),
            (false, detail) => format!("{}: {detail}", r.operator),
        })
        .map(|text| text.replace('|', "\\|").replace('\n', " "))
        .collect();
    // Without a case there is nothing to count.
    let number = |n: fn(&Counts) -> usize| counts.map_or("–".to_owned(), |c| n(c).to_string());
    format!(
        "| {} | {} | {} | {} | {} |\n",
        operator.name,
        versions.join(", "),
        number(|c| c.passed),
        number(|c| c.unsupported),
        refused.join("; ")
    )
}

/// Operators without a place in the compiler, by what to do instead.
fn not_known<'o>(operators: impl Iterator<Item = &'o Operator>, counts: &BTreeMap<&str, Counts>) -> String {
    let mut by_advice: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for operator in operators {
        let cases = counts.get(operator.full_name().as_str()).map_or(0, |c| c.unsupported + c.wrong);
        let name = if cases > 0 { format!("{} ({cases})", operator.name) } else { operator.name.clone() };
        by_advice.entry(import::nearest(&operator.domain, &operator.name).unwrap_or_default()).or_default().push(name);
    }
    if by_advice.is_empty() {
        return String::new();
    }
    let mut out = String::from("\nNot known (with how many cases there are):\n\n");
    for (advice, names) in by_advice {
        let advice = if advice.is_empty() { String::new() } else { format!(" — {advice}") };
        let _ = writeln!(out, "- {}{advice}", names.join(", "));
    }
    out
}
