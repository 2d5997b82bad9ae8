//! `ballast events`: what happened to deployments, the newest last.

use hyper::Method;
use serde_json::Value;

use crate::args::{Events, Operator};
use crate::exit::Failure;
use crate::fleet::{or_dash, text};
use crate::http;
use crate::output::{Table, print};

/// `events`.
pub fn run(operator: &Operator, command: &Events) -> Result<(), Failure> {
    let path = match &command.name {
        Some(name) => {
            format!("/v1/deployments/{}/{}/events", http::segment(&command.namespace), http::segment(name))
        }
        None => "/v1/events".to_owned(),
    };
    let answer = http::operator(&operator.socket, Method::GET, &path, None)?;
    print(command.output.format, &answer, table)
}

/// One line each; a note of several lines is shown whole by `-o json`.
fn table(answer: &Value) -> String {
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return "no events\n".to_owned();
    }
    let mut out = Table::new(&["LAST SEEN", "TYPE", "REASON", "DEPLOYMENT", "COUNT", "NOTE"]);
    for event in items {
        let last = text(&event["series"], "lastObservedTime");
        let note = text(event, "note");
        let mut lines = note.lines();
        let first = lines.next().unwrap_or_default();
        out.row([
            if last.is_empty() { text(event, "eventTime") } else { last },
            text(event, "type"),
            text(event, "reason"),
            format!("{}/{}", text(&event["regarding"], "namespace"), text(&event["regarding"], "name")),
            event["series"]["count"].as_u64().unwrap_or(1).to_string(),
            or_dash(if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }),
        ]);
    }
    out.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_a_line_each_with_how_often_and_when_last() {
        let regarding = serde_json::json!({"kind": "ModelDeployment", "namespace": "default", "name": "digits"});
        let answer = serde_json::json!({"items": [
            {"type": "Warning", "reason": "UnsupportedOperators", "note": "2.0.0 on x86-64: no.\n- FancyOne", "regarding": regarding,
             "eventTime": "2026-01-01T00:00:00Z", "series": {"count": 3, "lastObservedTime": "2026-01-01T00:02:00Z"}},
            {"type": "Normal", "reason": "Fits", "note": "2.0.1 on x86-64: Fits", "regarding": regarding, "eventTime": "2026-01-01T00:03:00Z"},
        ]});
        insta::assert_snapshot!(table(&answer), @r"
        LAST SEEN             TYPE     REASON                DEPLOYMENT      COUNT  NOTE
        2026-01-01T00:02:00Z  Warning  UnsupportedOperators  default/digits  3      2.0.0 on x86-64: no. …
        2026-01-01T00:03:00Z  Normal   Fits                  default/digits  1      2.0.1 on x86-64: Fits
        ");
        assert_eq!(table(&serde_json::json!({})), "no events\n");
    }
}
