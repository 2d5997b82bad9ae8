//! Ports, state directories, tokens: what is taken is said to be taken, and the one that has it goes on.

use std::path::Path;
use std::process::{Command, Output};

use ballast_tests::{System, binaries};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// The program must end by itself, with a failure and one sentence that holds all of `words`.
fn refuses(what: &str, command: &mut Command, words: &[&str]) {
    let output = command.output().unwrap();
    let said = said(&output);
    assert!(!output.status.success(), "{what}: {said}");
    let line = said.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "{what}: {words:?} in one line of:\n{said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
}

fn enroll(token: &str, state: &Path) -> Command {
    let file = state.with_extension("token");
    std::fs::write(&file, token).unwrap();
    let mut command = Command::new(binaries().edge);
    command.args(["enroll", "--token"]).arg(&file).arg("--state").arg(state);
    command
}

fn edge(state: &Path, http: &str) -> Command {
    let mut command = Command::new(binaries().edge);
    command.arg("run").arg("--state").arg(state).args(["--http", http]);
    command
}

#[test]
fn what_is_taken_or_cannot_be_written_is_refused_and_what_runs_goes_on() {
    let mut system = System::with_digits(1).unwrap();
    let folder = system.path().to_owned();
    let operator = |state: &Path, listen: &str| {
        let mut command = Command::new(binaries().operator);
        command.arg("--directory").arg(folder.join("fleet")).arg("--state").arg(state).args(["--listen", listen]);
        command.arg("--admin-socket").arg(folder.join("other.sock"));
        command
    };

    let token = system.token("demo").unwrap();
    refuses("a token that is used up", &mut enroll(&token, &folder.join("second")), &["used as often as it may be"]);
    refuses("no token", &mut enroll("hello", &folder.join("third")), &["not an enrolment token"]);
    let stranger = token.trim().replace("ballast-token-v1.", "ballast-token-v1.e30");
    refuses("a token that was changed", &mut enroll(&stranger, &folder.join("fourth")), &["not an enrolment token"]);

    let state = folder.join("gateways/gateway-1/state");
    let held = ["is in use by a running ballast-edge", "--state"];
    refuses("a gateway's held state", &mut edge(&state, "127.0.0.1:0"), &held);
    let held = ["is held by a running ballast-operator", "--state"];
    refuses("an operator's held state", &mut operator(&folder.join("state"), "127.0.0.1:0"), &held);

    let http = system.fleet.gateways[0].http.to_string();
    refuses("a gateway's taken port", &mut edge(&folder.join("fifth"), &http), &[&http, "in use", "--http"]);
    let listen = system.fleet.listen().to_string();
    refuses("an operator's taken port", &mut operator(&folder.join("sixth"), &listen), &[&listen, "--listen"]);

    // Nobody can write there, the administrator included.
    let file = folder.join("file");
    std::fs::write(&file, "").unwrap();
    for state in [file.join("state").as_path(), Path::new("/proc/ballast")] {
        let shown = state.display().to_string();
        let words = [shown.as_str(), "cannot be written", "--state"];
        refuses("a gateway's state", &mut edge(state, "127.0.0.1:0"), &words);
        let words = [shown.as_str(), "not writable", "--state"];
        refuses("an operator's state", &mut operator(state, "127.0.0.1:0"), &words);
    }

    system.fleet.check().unwrap();
    system.serves("1.0.0").unwrap();
}

#[test]
fn a_token_that_has_expired_enrols_nobody() {
    let mut system = System::start(0).unwrap();
    let yaml = "apiVersion: ballast.dev/v1alpha1\nkind: EnrollmentToken\nmetadata:\n  name: short\nspec:\n  labels:\n    \
                fleet: demo\n  uses: 1000\n  expiresAfter: 2s\n";
    system.put("short.yaml", yaml).unwrap();
    let token = system.until("the token's file", |system| Ok(system.token("short").ok())).unwrap();
    // It works until it has expired, however long that takes to be seen.
    let (folder, mut n) = (system.path().to_owned(), 0);
    let said = system
        .until("the token to expire", |_| {
            n += 1;
            let output = enroll(&token, &folder.join(format!("gateway-{n}"))).output()?;
            Ok((!output.status.success()).then(|| said(&output)))
        })
        .unwrap();
    assert!(said.contains("token short has expired; ask the administrator for a new one"), "{said}");
}
