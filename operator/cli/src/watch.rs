//! `rollout watch`: follows the release that the object asks for until it is somewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{Deployment, Format, Operator};
use crate::exit::Failure;
use crate::fleet::text;
use crate::output::text_out;
use crate::progress;
use crate::rollout::{count, get, problems, releases};

/// Between two looks; the operator writes its records at most once a second.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks for an object that is not there.
const SHORT_LOOK: Duration = Duration::from_millis(200);
/// A saved file is read about a second later. Who has waited for so long waits for something that nobody saved, or that
/// nobody mends.
const PATIENCE: Duration = Duration::from_secs(15);

/// What there is to see at one look.
#[derive(Debug, PartialEq)]
enum Seen<'a> {
    /// Nothing of what is wanted yet.
    NotYet(String),
    /// The release that the object asks for.
    Release(&'a Value),
    /// The object cannot be acted on, so that there is no release.
    Refused(Value),
}

/// How a release ended, if it did.
#[derive(Debug, PartialEq)]
enum End {
    Good,
    Bad,
}

/// What is said while a watch goes on: on the spinner where there is one.
struct Teller {
    bar: Option<indicatif::ProgressBar>,
    /// Said on standard error already.
    said: Vec<String>,
}

impl Teller {
    /// Where one waits now.
    fn waits(&self, what: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(what);
        }
    }

    /// A line on standard error, once.
    fn notes(&mut self, note: String) {
        if self.said.contains(&note) {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{note}")),
            None => eprintln!("{note}"),
        }
        self.said.push(note);
    }

    fn shows(&self, text: &str) -> Result<(), Failure> {
        match &self.bar {
            Some(bar) => bar.suspend(|| text_out(text)),
            None => text_out(text),
        }
    }
}

/// Follows it.
pub fn run(
    operator: &Operator,
    d: &Deployment,
    version: Option<&str>,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = (std::io::stderr().is_terminal() && d.output.format == Format::Table)
        .then(|| progress::spinner(format!("waiting for {}", d.name)));
    let mut teller = Teller { bar, said: Vec::new() };
    let mut last = String::new();
    // Since when the file asks for something that is not accepted.
    let mut blocked: Option<Instant> = None;
    let mut view = appears(operator, d, started, timeout, &mut teller)?;
    loop {
        for problem in problems(&view) {
            teller.notes(format!("not accepted: {problem}"));
        }
        let seen = look(&view, version);
        let (release, end) = match &seen {
            Seen::NotYet(why) => {
                teller.waits(format!("{}: {why}", d.name));
                (None, None)
            }
            Seen::Release(release) => (Some(*release), end(release)),
            Seen::Refused(refusal) => (Some(refusal), Some(End::Bad)),
        };
        if let Some(release) = release {
            let now = line(release);
            if now != last {
                let shown = match d.output.format {
                    Format::Table => format!("{now}\n"),
                    // One document a change: JSON by lines, YAML by documents.
                    Format::Json => format!("{release}\n"),
                    Format::Yaml => format!("---\n{}", crate::output::yaml(release)),
                };
                teller.shows(&shown)?;
                last = now;
            }
        }
        let out_of_time = timeout.is_some_and(|t| started.elapsed() >= t);
        match (end, unread(&view)) {
            (Some(End::Good), None) => return Ok(()),
            (Some(End::Bad), _) => return Err(Failure::No(None)),
            // What was accepted before is active, and that is not what the file asks for: it may be half written.
            (Some(End::Good), Some(problem)) => {
                let since = *blocked.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE || out_of_time {
                    return Err(Failure::Failed(format!(
                        "{}: {last}, and what its file asks for now is not accepted: {problem}",
                        d.name
                    )));
                }
                teller.waits(format!("{}: waiting for its file to be mended", d.name));
            }
            (None, _) => blocked = None,
        }
        if out_of_time {
            let what = match seen {
                Seen::NotYet(why) => why,
                Seen::Release(release) => format!("{} is {}", text(release, "version"), text(release, "phase")),
                Seen::Refused(_) => String::new(),
            };
            return Err(Failure::Failed(format!(
                "{}: not done within the --timeout ({what}); the rollout goes on without being watched",
                d.name
            )));
        }
        std::thread::sleep(LOOK);
        view = get(operator, d)?;
    }
}

/// Waits until the operator knows the object: right after its file was saved for the first time it does not.
fn appears(
    operator: &Operator,
    d: &Deployment,
    started: Instant,
    timeout: Option<Duration>,
    teller: &mut Teller,
) -> Result<Value, Failure> {
    let patience = timeout.unwrap_or(PATIENCE);
    loop {
        let why = match get(operator, d) {
            Err(Failure::Missing(why)) => why,
            answer => return answer,
        };
        if started.elapsed() >= patience {
            let waited = patience.as_secs_f64();
            return Err(Failure::Missing(format!(
                "{why}; waited {waited} s for it: save its file in the operator's directory"
            )));
        }
        teller.waits(format!("{}: {why}", d.name));
        teller.notes(format!("waiting up to {} s until the operator knows it: {why}", patience.as_secs_f64()));
        std::thread::sleep(SHORT_LOOK);
    }
}

/// Why the object's file is not accepted. A directory that is not there as a whole asks for nothing.
fn unread(view: &Value) -> Option<String> {
    let of_files = view["sourceProblems"].as_array()?.iter().filter(|problem| !text(problem, "file").is_empty());
    problems(&json!({"sourceProblems": of_files.collect::<Vec<_>>()})).next()
}

/// Releases of an older generation say nothing of what the object asks for now: a person may have saved it a moment ago.
fn look<'a>(view: &'a Value, version: Option<&str>) -> Seen<'a> {
    let wanted = &view["spec"]["model"]["version"];
    if let Some(version) = version
        && wanted != version
    {
        return Seen::NotYet(format!(
            "the operator has read version {}, not {version}",
            wanted.as_str().unwrap_or("-")
        ));
    }
    let status = &view["status"];
    let (generation, observed) = (&view["metadata"]["generation"], &status["observedGeneration"]);
    if generation != observed {
        return Seen::NotYet(format!("the operator has not looked at generation {generation} yet"));
    }
    let digest = &status["updateRelease"]["digest"];
    let release = releases(view).iter().rev().find(|release| digest.is_string() && release["digest"] == *digest);
    if let Some(release) = release {
        return Seen::Release(release);
    }
    let condition = |kind: &str| {
        let all = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().find(|c| c["type"] == kind && c["status"] == "True")
    };
    match condition("Stalled") {
        Some(stalled) => Seen::Refused(json!({
            "version": wanted,
            "phase": status["phase"],
            "reason": stalled["reason"],
            "message": stalled["message"],
        })),
        None => Seen::NotYet("there is no release yet".into()),
    }
}

fn end(release: &Value) -> Option<End> {
    match text(release, "phase").as_str() {
        "Active" => Some(End::Good),
        "RolledBack" | "Refused" | "Superseded" | "Paused" => Some(End::Bad),
        _ => None,
    }
}

/// What is new to a person, in one line.
fn line(release: &Value) -> String {
    let mut line = format!("{} {}", text(release, "version"), text(release, "phase"));
    if release["gateways"].is_object() {
        line.push_str(&format!(": {} of {} gateways healthy", count(release, "healthy"), count(release, "eligible")));
    }
    for (key, what) in [("failed", "failed"), ("silent", "silent"), ("pending", "pending")] {
        if count(release, key) > 0 {
            line.push_str(&format!(", {} {what}", count(release, key)));
        }
    }
    let (reason, message) = (text(release, "reason"), text(release, "message"));
    let step = text(release, "step");
    if !step.is_empty() {
        line.push_str(&format!(", step {step}"));
    }
    // Messages of failures begin with their reason.
    if !reason.is_empty() && !message.starts_with(&reason) {
        line.push_str(&format!(", {reason}"));
    }
    if !message.is_empty() {
        line.push_str(&format!(": {message}"));
    }
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The object asks for `wanted` in generation 3; releases are (version, digest, phase).
    fn view(wanted: &str, observed: i64, update: Option<&str>, all: &[(&str, &str, &str)]) -> Value {
        let release = |(version, digest, phase): &(&str, &str, &str)| json!({"version": version, "digest": digest, "phase": phase});
        json!({
            "metadata": {"generation": 3},
            "spec": {"model": {"version": wanted}},
            "status": {"observedGeneration": observed, "updateRelease": update.map(|digest| json!({"digest": digest}))},
            "releases": all.iter().map(release).collect::<Vec<_>>(),
        })
    }

    fn phase(seen: &Seen<'_>) -> String {
        match seen {
            Seen::Release(release) => format!("{} {}", text(release, "version"), text(release, "phase")),
            Seen::NotYet(why) => why.clone(),
            Seen::Refused(refusal) => line(refusal),
        }
    }

    #[test]
    fn the_release_of_an_older_generation_is_not_taken_for_the_new_one() {
        let all = [("1.0.0", "a", "Active")];
        let stale = view("2.0.0", 2, Some("a"), &all);
        assert_eq!(phase(&look(&stale, None)), "the operator has not looked at generation 3 yet");
        let fresh = view("2.0.0", 3, Some("b"), &[("1.0.0", "a", "Active"), ("2.0.0", "b", "RollingOut")]);
        assert_eq!(phase(&look(&fresh, None)), "2.0.0 RollingOut");
        // The directory was not read again since the file was saved; whoever names the version waits for that, too.
        let unread = view("1.0.0", 3, Some("a"), &all);
        assert_eq!(phase(&look(&unread, None)), "1.0.0 Active");
        assert_eq!(phase(&look(&unread, Some("2.0.0"))), "the operator has read version 1.0.0, not 2.0.0");
    }

    #[test]
    fn after_an_undo_the_release_that_was_gone_back_to_is_watched() {
        let all = [("1.0.0", "a", "Active"), ("2.0.0", "b", "Superseded")];
        let undone = view("1.0.0", 3, Some("a"), &all);
        let seen = look(&undone, None);
        assert_eq!(phase(&seen), "1.0.0 Active");
        assert!(matches!(seen, Seen::Release(release) if end(release) == Some(End::Good)));
        // The same model under a new counter: the newer of the two.
        let again = view("1.0.0", 3, Some("a"), &[all[0], all[1], ("1.0.0", "a", "RollingOut")]);
        assert_eq!(phase(&look(&again, None)), "1.0.0 RollingOut");
    }

    #[test]
    fn an_object_that_cannot_be_acted_on_ends_the_watch_with_its_reason() {
        let mut refused = view("2.0.0", 3, None, &[("1.0.0", "a", "Active")]);
        assert_eq!(phase(&look(&refused, None)), "there is no release yet");
        refused["status"]["phase"] = "Refused".into();
        refused["status"]["conditions"] = json!([
            {"type": "Reconciling", "status": "False", "reason": "InvalidSpec", "message": ""},
            {"type": "Stalled", "status": "True", "reason": "InvalidSpec", "message": "rollout.soak: write 10m"},
        ]);
        assert_eq!(phase(&look(&refused, None)), "2.0.0 Refused, InvalidSpec: rollout.soak: write 10m");
    }

    #[test]
    fn watching_ends_where_a_release_does() {
        let ends = ["Active", "RolledBack", "Refused", "Superseded", "Paused", "RollingOut", "Compiling"];
        let bad = Some(End::Bad);
        let found = ends.map(|phase| end(&json!({"phase": phase})));
        assert_eq!(found, [Some(End::Good), bad, Some(End::Bad), Some(End::Bad), Some(End::Bad), None, None]);
    }

    #[test]
    fn a_line_says_what_is_new() {
        let release = json!({
            "version": "4.0.0", "phase": "RollingOut", "step": "1/3", "message": "a\nb",
            "gateways": {"eligible": 5, "healthy": 2, "failed": 1, "silent": 0, "pending": 2},
        });
        assert_eq!(line(&release), "4.0.0 RollingOut: 2 of 5 gateways healthy, 1 failed, 2 pending, step 1/3: a b");
        let failed =
            json!({"version": "4.0.0", "phase": "RolledBack", "reason": "NotFinite", "message": "NotFinite: scores"});
        assert_eq!(line(&failed), "4.0.0 RolledBack: NotFinite: scores");
    }
}
