//! What talks to an operator: with none there, and with one that answers what a test says. Whole-system tests have a real one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{ballast, text};

/// Answers one request after the other; the last answer again and again.
fn operator(dir: &Path, answers: Vec<(u16, Value)>) -> PathBuf {
    let socket = dir.join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for (turn, stream) in listener.incoming().enumerate() {
            let (status, body) = &answers[turn.min(answers.len() - 1)];
            answer(stream.unwrap(), *status, &body.to_string());
        }
    });
    socket
}

fn answer(mut stream: UnixStream, status: u16, body: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).unwrap();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).unwrap();
}

fn active(version: &str, problems: Value) -> (u16, Value) {
    let release = json!({"version": version, "digest": "a", "phase": "Active"});
    let view = json!({
        "metadata": {"generation": 1},
        "spec": {"model": {"version": version}},
        "status": {"observedGeneration": 1, "updateRelease": {"digest": "a"}},
        "releases": [release],
        "sourceProblems": problems,
    });
    (200, view)
}

fn missing() -> (u16, Value) {
    (404, json!({"error": "there is no ModelDeployment digits in namespace default"}))
}

#[test]
fn a_watch_waits_for_a_deployment_whose_file_was_just_saved() {
    let dir = tempfile::tempdir().unwrap();
    let socket = operator(dir.path(), vec![missing(), missing(), active("1.0.0", json!([]))]);
    let ran = ballast(["rollout", "watch", "digits", "--socket", text(&socket)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "1.0.0 Active\n"), "{}", ran.err);
    assert_eq!(
        ran.err,
        "waiting up to 15 s until the operator knows it: there is no ModelDeployment digits in namespace default\n"
    );
}

#[test]
fn a_watch_does_not_wait_for_ever_for_what_nobody_saved() {
    let dir = tempfile::tempdir().unwrap();
    let socket = operator(dir.path(), vec![missing()]);
    let ran = ballast(["rollout", "watch", "digits", "--timeout", "1s", "--socket", text(&socket)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{}", ran.err);
    let lines: Vec<&str> = ran.err.lines().collect();
    let [waiting, error] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(waiting.starts_with("waiting up to 1 s"), "{waiting}");
    assert!(error.starts_with("error: there is no ModelDeployment digits in namespace default; waited 1 s"), "{error}");
}

#[test]
fn a_watch_takes_no_release_for_the_one_that_a_broken_file_asks_for() {
    let problem = json!([{"file": "digits.yaml", "line": 12, "message": "spec.modle: is not a field here"}]);
    let said = "not accepted: digits.yaml line 12: spec.modle: is not a field here";
    let dir = tempfile::tempdir().unwrap();
    let socket = operator(dir.path(), vec![active("1.0.0", problem.clone())]);
    let ran = ballast(["rollout", "watch", "digits", "--timeout", "1s", "--socket", text(&socket)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "1.0.0 Active\n"), "{}", ran.err);
    assert!(ran.err.starts_with(&format!("{said}\nerror: ")) && ran.err.matches("line 12").count() == 2, "{}", ran.err);
    // Half written, and then whole.
    let dir = tempfile::tempdir().unwrap();
    let socket = operator(dir.path(), vec![active("1.0.0", problem), active("2.0.0", json!([]))]);
    let ran = ballast(["rollout", "watch", "digits", "--socket", text(&socket)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "1.0.0 Active\n2.0.0 Active\n"), "{}", ran.err);
    assert_eq!(ran.err.trim_end(), said);
    // A directory that is not there asks for nothing.
    let dir = tempfile::tempdir().unwrap();
    let away = json!([{"file": "", "message": "/fleet has no fleet.yaml: is it mounted?"}]);
    let socket = operator(dir.path(), vec![active("1.0.0", away)]);
    let ran = ballast(["rollout", "watch", "digits", "--socket", text(&socket)]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "1.0.0 Active\n"), "{}", ran.err);
}

#[test]
fn without_an_operator_every_command_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    for command in [
        &["gateways", "list"][..],
        &["gateways", "show", "gw"],
        &["rollout", "status", "digits"],
        &["rollout", "watch", "digits"],
        &["events"],
        &["events", "digits"],
        &["rollout", "pause", "digits"],
        &["rollout", "resume", "digits"],
        &["rollout", "retry", "digits"],
        &["rollout", "undo", "digits"],
        &["token", "create", "press"],
    ] {
        let ran = ballast(command.iter().copied().chain(["--socket", text(&socket)]));
        ran.fails(4, &["no operator answers on", text(&socket), "--socket", "BALLAST_SOCKET"]);
    }
}

#[test]
fn completions_are_scripts_for_their_shell() {
    for (shell, says) in [("bash", "_ballast()"), ("zsh", "#compdef ballast"), ("fish", "complete -c ballast")] {
        assert!(ballast(["completion", shell]).good().contains(says), "{shell}");
    }
    assert_eq!(ballast(["completion", "cmd"]).code, Some(2));
}

#[test]
fn a_wrong_label_is_refused_before_anybody_is_asked() {
    ballast(["token", "create", "press", "--label", "bottling"]).fails(1, &["\"bottling\"", "write KEY=VALUE"]);
}
