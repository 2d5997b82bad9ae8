//! Rollouts: shown, followed, paused, resumed, tried again, undone.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::args::{Deployment, Operator, Rollout};
use crate::exit::Failure;
use crate::fleet::{or_dash, text};
use crate::output::{Table, print};
use crate::{http, watch};

/// `rollout …`.
pub fn run(operator: &Operator, command: &Rollout) -> Result<(), Failure> {
    match command {
        Rollout::Status(d) => print(d.output.format, &get(operator, d)?, table),
        Rollout::Watch { deployment, model_version, timeout } => {
            watch::run(operator, deployment, model_version.as_deref(), timeout.map(|t| Duration::from_millis(t.0)))
        }
        Rollout::Pause(d) => act(operator, d, "pause", None, "paused"),
        Rollout::Resume(d) => act(operator, d, "resume", None, "resumed"),
        Rollout::Retry(d) => act(operator, d, "retry", None, "will be tried again"),
        Rollout::Undo { deployment, to } => {
            act(operator, deployment, "undo", to.map(|to| json!({"to": to})), "goes back to")
        }
    }
}

fn path(d: &Deployment, action: &str) -> String {
    format!("/v1/deployments/{}/{}{action}", http::segment(&d.namespace), http::segment(&d.name))
}

/// Object, status and releases.
pub fn get(operator: &Operator, d: &Deployment) -> Result<Value, Failure> {
    http::operator(&operator.socket, Method::GET, &path(d, ""), None)
}

fn act(operator: &Operator, d: &Deployment, action: &str, body: Option<Value>, done: &str) -> Result<(), Failure> {
    let answer = http::operator(&operator.socket, Method::POST, &path(d, &format!("/{action}")), body.as_ref())?;
    let version = text(&answer["spec"]["model"], "version");
    print(d.output.format, &answer, |_| match action {
        // Which one was found is the operator's word.
        "undo" => format!("{} {done} {version}\n", d.name),
        _ => format!("{} {done}\n", d.name),
    })
}

/// Oldest first.
pub fn releases(view: &Value) -> &[Value] {
    view.get("releases").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A count of a release's gateways.
pub fn count(release: &Value, key: &str) -> u64 {
    release["gateways"][key].as_u64().unwrap_or(0)
}

fn table(view: &Value) -> String {
    let mut out =
        Table::new(&["VERSION", "COUNTER", "PHASE", "STEP", "READY", "FAILED", "SILENT", "TARGETS", "REASON", "SINCE"]);
    for release in releases(view) {
        let targets = release["targets"].as_array().into_iter().flatten().map(|t| text(t, "name"));
        out.row([
            text(release, "version"),
            or_dash(text(release, "counter")),
            text(release, "phase"),
            or_dash(text(release, "step")),
            format!("{}/{}", count(release, "healthy"), count(release, "eligible")),
            count(release, "failed").to_string(),
            count(release, "silent").to_string(),
            or_dash(targets.collect::<Vec<_>>().join(",")),
            or_dash(text(release, "reason")),
            or_dash(text(release, "since")),
        ]);
    }
    let mut out = if releases(view).is_empty() { "no release yet\n".to_owned() } else { out.to_string() };
    for release in releases(view) {
        let message = text(release, "message");
        if !message.is_empty() {
            out.push_str(&format!("\n{}: {}\n", text(release, "version"), plain(&message)));
        }
    }
    for problem in problems(view) {
        out.push_str(&format!("\nNOT ACCEPTED: {problem}\n"));
    }
    out
}

/// What keeps a newer wish from being seen, a line each: the rest of the view speaks of what was accepted before.
pub fn problems(view: &Value) -> impl Iterator<Item = String> {
    view["sourceProblems"].as_array().into_iter().flatten().map(|problem| {
        let (file, line, message) = (text(problem, "file"), text(problem, "line"), text(problem, "message"));
        plain(&match (file.is_empty(), line.is_empty()) {
            (true, _) => message,
            (false, true) => format!("{file}: {message}"),
            (false, false) => format!("{file} line {line}: {message}"),
        })
    })
}

/// In one line, and without what could move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> Value {
        json!({"releases": [
            {"version": "1.0.0", "counter": 1767225600000u64, "phase": "Superseded", "reason": "Superseded", "gateways": {"eligible": 5, "healthy": 0}, "targets": [{"name": "x86-64"}, {"name": "x86-64-v3"}]},
            {"version": "3.0.0", "phase": "Refused", "reason": "GoldenMismatch", "message": "12 of 40 golden vectors\nhave the right label", "targets": []},
            {"version": "4.0.0", "counter": 1767225700000u64, "phase": "RollingOut", "step": "1/3", "since": "2026-01-01T00:02:00Z",
             "gateways": {"eligible": 5, "healthy": 2, "failed": 1, "silent": 0, "pending": 2}, "targets": [{"name": "x86-64"}]},
        ]})
    }

    #[test]
    fn a_rollout_is_a_line_per_release_and_the_reasons_below() {
        insta::assert_snapshot!(table(&view()), @r"
        VERSION  COUNTER        PHASE       STEP  READY  FAILED  SILENT  TARGETS           REASON          SINCE
        1.0.0    1767225600000  Superseded  -     0/5    0       0       x86-64,x86-64-v3  Superseded      -
        3.0.0    -              Refused     -     0/0    0       0       -                 GoldenMismatch  -
        4.0.0    1767225700000  RollingOut  1/3   2/5    1       0       x86-64            -               2026-01-01T00:02:00Z

        3.0.0: 12 of 40 golden vectors have the right label
        ");
        assert_eq!(table(&json!({})), "no release yet\n");
    }

    #[test]
    fn what_was_not_accepted_stands_below_what_goes_on() {
        let mut view = view();
        view["releases"].as_array_mut().unwrap().truncate(1);
        view["sourceProblems"] = json!([
            {"file": "digits.yaml", "line": 12, "message": "spec.modle: is not a field here;\nwhat was accepted before stays in force"},
            {"file": "digits.yaml", "message": "is larger than 1048576 bytes"},
            {"file": "", "message": "/fleet has no fleet.yaml: is it mounted?"},
        ]);
        insta::assert_snapshot!(table(&view), @r"
        VERSION  COUNTER        PHASE       STEP  READY  FAILED  SILENT  TARGETS           REASON      SINCE
        1.0.0    1767225600000  Superseded  -     0/5    0       0       x86-64,x86-64-v3  Superseded  -

        NOT ACCEPTED: digits.yaml line 12: spec.modle: is not a field here; what was accepted before stays in force

        NOT ACCEPTED: digits.yaml: is larger than 1048576 bytes

        NOT ACCEPTED: /fleet has no fleet.yaml: is it mounted?
        ");
        assert!(
            table(&json!({"sourceProblems": view["sourceProblems"]})).starts_with("no release yet\n\nNOT ACCEPTED")
        );
    }
}
