//! `ballast check`: a verdict per target before a byte is shipped.

use ballast_compiler::{CompileRequest, TargetSpec, Verdict};
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
    let targets = models::targets(&command.targets)?;
    let Some(first) = targets.first() else { return Err(Failure::Usage("there are no targets".into())) };
    let request = models::request(&command.file, first.clone(), &command.model, None, "0.0.0")?;
    let names: Vec<String> = targets.iter().map(|t| t.name.to_string()).collect();
    let verdicts = match request.golden {
        // Whether it does what golden vectors ask is seen by compiling and running it.
        Some(_) => run_golden(request, targets)?,
        None => look(request, targets)
            .ok_or_else(|| Failure::Failed(format!("the compiler gave up on {}", command.file.display())))?,
    };
    let verdicts: Vec<Checked> =
        names.into_iter().zip(verdicts).map(|(target, verdict)| Checked { target, verdict }).collect();
    print(command.output.format, &verdicts, |v| table(v))?;
    ending(&verdicts, command.targets.is_empty())
}

/// The exit code: what was asked is whether all of the targets fit, or `any`.
fn ending(verdicts: &[Checked], any: bool) -> Result<(), Failure> {
    let fits = verdicts.iter().filter(|c| c.verdict.fits).count();
    let bad = |c: &Checked| c.verdict.reason.is_bad_input();
    match fits {
        n if n == verdicts.len() || (any && n > 0) => Ok(()),
        0 if verdicts.iter().any(bad) => Err(Failure::BadInput(None)),
        0 => Err(Failure::No(None)),
        _ => Err(Failure::Mixed),
    }
}

fn run_golden(mut request: CompileRequest, targets: Vec<TargetSpec>) -> Result<Vec<Verdict>, Failure> {
    // What does not fit anywhere is not compiled anywhere.
    let looked = look(request.clone(), targets.clone()).unwrap_or_default();
    let mut verdicts = Vec::with_capacity(targets.len());
    for (i, target) in targets.into_iter().enumerate() {
        verdicts.push(match looked.get(i).filter(|verdict| !verdict.fits) {
            Some(refused) => refused.clone(),
            None => {
                request.target = target;
                compile::build(&request)?.into_verdict()
            }
        });
    }
    Ok(verdicts)
}

fn look(request: CompileRequest, targets: Vec<TargetSpec>) -> Option<Vec<Verdict>> {
    let (count, megabytes) = (targets.len(), request.model.len() >> 20);
    progress::steps(format!("reading {megabytes} MiB of model"), |say| {
        let (sender, begun) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = thread.spawn(move || {
            let mut n = 0;
            ballast_compiler::check_targets(&request, &targets, |target| {
                n += 1;
                drop(sender.send(format!("checking against {target} ({n} of {count})")));
            })
        });
        begun.iter().for_each(say);
        running.ok().and_then(|thread| thread.join().ok())
    })
}

/// Numbers in columns, then what is in the way, once per sentence.
pub fn table(verdicts: &[Checked]) -> String {
    let mut out =
        Table::new(&["TARGET", "VERDICT", "MEMORY", "WITH SPARE", "SIZE", "GFLOP", "TIME", "DEADLINE", "ACCURACY"]);
    for Checked { target, verdict } in verdicts {
        let known = |n: u64| if n == 0 { "-".into() } else { duration::bytes(n) };
        let positive = |x: f64, text: String| if x > 0.0 { text } else { "-".into() };
        out.row([
            target.clone(),
            format!("{:?}", verdict.reason),
            known(verdict.peak_memory_bytes),
            known(verdict.memory.map_or(0, |m| m.serving_bytes)),
            known(verdict.size_bytes),
            positive(verdict.gflop, format!("{:.4}", verdict.gflop)),
            positive(verdict.predicted_latency_millis, format!("{:.2} ms", verdict.predicted_latency_millis)),
            positive(verdict.deadline_millis as f64, format!("{} ms", verdict.deadline_millis)),
            verdict.accuracy.as_ref().map_or("-".into(), |a| format!("{}/{}", a.matching, a.vectors)),
        ]);
    }
    let mut out = out.to_string();
    // What is said of every target is said once; a target that fits has said all in its row but for this.
    let mut seen: Vec<(String, Vec<&str>)> = Vec::new();
    for Checked { target, verdict } in verdicts {
        let mut lines = Vec::new();
        for line in verdict.message.lines().filter(|line| !(verdict.fits && line.starts_with("Fits "))) {
            lines.push(line);
        }
        let message = lines.join("\n");
        if message.is_empty() {
            continue;
        }
        match seen.iter_mut().find(|(known, _)| *known == message) {
            Some((_, targets)) => targets.push(target),
            None => seen.push((message, vec![target])),
        }
    }
    for (message, targets) in seen {
        let targets = if targets.len() == verdicts.len() { "all targets".to_owned() } else { targets.join(", ") };
        out.push_str(&format!("\n{targets}: {}\n", printable(&message)));
    }
    if let Some(Checked { target, verdict }) = verdicts.iter().find(|c| !c.verdict.unsupported.is_empty()) {
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
    use ballast_compiler::{UnsupportedOperator, VerdictReason};

    #[test]
    fn all_that_is_in_the_way_is_listed() {
        let fits = Verdict {
            peak_memory_bytes: 1 << 20,
            size_bytes: 300 << 10,
            gflop: 0.0012,
            predicted_latency_millis: 0.061,
            deadline_millis: 500,
            ..Verdict::new(VerdictReason::Fits, "Fits x86-64: with ease.\nNote: its batch is 1.".into())
        };
        let refused = Verdict {
            unsupported: vec![
                UnsupportedOperator { operator: "NonMaxSuppression".into(), node: "nms_1".into(), nearest: None },
                UnsupportedOperator { operator: "Erf".into(), node: "erf".into(), nearest: Some("Tanh".into()) },
            ],
            ..Verdict::new(VerdictReason::UnsupportedOperators, "2 operators are not supported".into())
        };
        let checked = |target: &str, verdict: &Verdict| Checked { target: target.into(), verdict: verdict.clone() };
        insta::assert_snapshot!(table(&[checked("x86-64", &fits), checked("cortex-a53", &refused)]), @r"
        TARGET      VERDICT               MEMORY   WITH SPARE  SIZE       GFLOP   TIME     DEADLINE  ACCURACY
        x86-64      Fits                  1.0 MiB  -           300.0 KiB  0.0012  0.06 ms  500 ms    -
        cortex-a53  UnsupportedOperators  -        -           -          -       -        -         -

        x86-64: Note: its batch is 1.

        cortex-a53: 2 operators are not supported

        Not supported on cortex-a53:
        OPERATOR           NODE   INSTEAD
        NonMaxSuppression  nms_1  -
        Erf                erf    Tanh
        ");
        let json = serde_json::to_value(checked("x86-64", &fits)).unwrap();
        assert_eq!((&json["target"], &json["reason"]), (&"x86-64".into(), &"Fits".into()));
    }

    #[test]
    fn a_script_learns_from_the_exit_code_what_a_person_reads() {
        let of = |reasons: &[VerdictReason]| -> Vec<Checked> {
            let checked = |r: &VerdictReason| Checked { target: "t".into(), verdict: Verdict::new(*r, String::new()) };
            reasons.iter().map(checked).collect()
        };
        use VerdictReason::{Fits, MemoryExceeded, NotOnnx};
        assert!(ending(&of(&[Fits, Fits]), false).is_ok());
        assert!(ending(&of(&[Fits, MemoryExceeded]), true).is_ok());
        assert!(matches!(ending(&of(&[Fits, MemoryExceeded]), false), Err(Failure::Mixed)));
        assert!(matches!(ending(&of(&[MemoryExceeded, MemoryExceeded]), true), Err(Failure::No(None))));
        assert!(matches!(ending(&of(&[NotOnnx, NotOnnx]), false), Err(Failure::BadInput(None))));
    }
}
