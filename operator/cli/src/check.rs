//! `ballast check`: a verdict per target before a byte is shipped.

use ballast_compiler::{CompileOutcome, CompileRequest, Verdict, VerdictReason};
use serde::Serialize;

use crate::args::Check;
use crate::exit::Failure;
use crate::output::{Table, print};
use crate::{compile, duration, models, progress};

/// Compilation walks graphs; a model that is a long chain must not end the program.
const STACK_BYTES: usize = 256 << 20;

/// A verdict under its target's name.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// Of the hardware target.
    pub target: String,
    /// Of the compiler.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// `check`.
pub fn run(command: &Check) -> Result<(), Failure> {
    let mut verdicts = Vec::new();
    for target in models::targets(&command.targets)? {
        let name = target.name.to_string();
        let request = models::request(&command.file, target, &command.model, None, "0.0.0")?;
        let verdict = match request.golden {
            // Whether it does what golden vectors ask is seen by compiling and running it.
            Some(_) => match compile::build(&request)? {
                CompileOutcome::Built(artifacts) => artifacts.verdict,
                CompileOutcome::Refused(verdict) => verdict,
            },
            None => look(&name, request)
                .ok_or_else(|| Failure::Failed(format!("the compiler gave up on {}", command.file.display())))?,
        };
        verdicts.push(Checked { target: name, verdict });
    }
    print(command.output.format, &verdicts, |v| table(v))?;
    let fits = |c: &Checked| c.verdict.fits;
    let enough = if command.targets.is_empty() { verdicts.iter().any(fits) } else { verdicts.iter().all(fits) };
    if enough { Ok(()) } else { Err(Failure::No(None)) }
}

fn look(target: &str, request: CompileRequest) -> Option<Verdict> {
    progress::during(format!("checking against {target}"), || {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = thread.spawn(move || ballast_compiler::check(&request));
        running.ok().and_then(|thread| thread.join().ok())
    })
}

/// Numbers in columns, then what is in the way, once per sentence.
pub fn table(verdicts: &[Checked]) -> String {
    let mut out = Table::new(&["TARGET", "VERDICT", "MEMORY", "SIZE", "GFLOP", "TIME"]);
    for Checked { target, verdict } in verdicts {
        let known = |n: u64| if n == 0 { "-".into() } else { duration::bytes(n) };
        let positive = |x: f64, text: String| if x > 0.0 { text } else { "-".into() };
        out.row([
            target.clone(),
            format!("{:?}", verdict.reason),
            known(verdict.peak_memory_bytes),
            known(verdict.size_bytes),
            positive(verdict.gflop, format!("{:.4}", verdict.gflop)),
            positive(verdict.predicted_latency_millis, format!("{:.2} ms", verdict.predicted_latency_millis)),
        ]);
    }
    let mut out = out.to_string();
    let mut seen: Vec<(&str, Vec<&str>)> = Vec::new();
    for Checked { target, verdict } in verdicts.iter().filter(|c| !c.verdict.message.is_empty()) {
        match seen.iter_mut().find(|(message, _)| *message == verdict.message) {
            Some((_, targets)) => targets.push(target),
            None => seen.push((&verdict.message, vec![target])),
        }
    }
    for (message, targets) in seen {
        let targets = if targets.len() == verdicts.len() { "all targets".to_owned() } else { targets.join(", ") };
        out.push_str(&format!("\n{targets}: {}\n", printable(message)));
    }
    let unsupported = verdicts.iter().find(|c| c.verdict.reason == VerdictReason::UnsupportedOperators);
    if let Some(Checked { target, verdict }) = unsupported {
        let mut operators = Table::new(&["OPERATOR", "NODE", "INSTEAD"]);
        for operator in &verdict.unsupported {
            let instead = operator.nearest.clone().unwrap_or_else(|| "-".into());
            operators.row([operator.operator.clone(), operator.node.clone(), instead]);
        }
        out.push_str(&format!("\nNot supported on {target}:\n{operators}"));
    }
    out
}

/// Messages may have lines of their own; other control characters do not reach the terminal.
fn printable(message: &str) -> String {
    message.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_compiler::UnsupportedOperator;

    #[test]
    fn all_that_is_in_the_way_is_listed() {
        let fits = Verdict {
            fits: true,
            reason: VerdictReason::Fits,
            unsupported: vec![],
            peak_memory_bytes: 1 << 20,
            size_bytes: 300 << 10,
            gflop: 0.0012,
            predicted_latency_millis: 0.061,
            message: String::new(),
        };
        let refused = Verdict {
            fits: false,
            reason: VerdictReason::UnsupportedOperators,
            unsupported: vec![
                UnsupportedOperator { operator: "NonMaxSuppression".into(), node: "nms_1".into(), nearest: None },
                UnsupportedOperator { operator: "Erf".into(), node: "erf".into(), nearest: Some("Tanh".into()) },
            ],
            peak_memory_bytes: 0,
            size_bytes: 0,
            gflop: 0.0,
            predicted_latency_millis: 0.0,
            message: "2 operators are not supported".into(),
        };
        let checked = |target: &str, verdict: &Verdict| Checked { target: target.into(), verdict: verdict.clone() };
        insta::assert_snapshot!(table(&[checked("x86-64", &fits), checked("cortex-a53", &refused)]), @r"
        TARGET      VERDICT               MEMORY   SIZE       GFLOP   TIME
        x86-64      Fits                  1.0 MiB  300.0 KiB  0.0012  0.06 ms
        cortex-a53  UnsupportedOperators  -        -          -       -

        cortex-a53: 2 operators are not supported

        Not supported on cortex-a53:
        OPERATOR           NODE   INSTEAD
        NonMaxSuppression  nms_1  -
        Erf                erf    Tanh
        ");
        let json = serde_json::to_value(checked("x86-64", &fits)).unwrap();
        assert_eq!((&json["target"], &json["reason"]), (&"x86-64".into(), &"Fits".into()));
    }
}
