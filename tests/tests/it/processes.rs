//! Ports, state directories, tokens: what is taken is said to be taken, and the one that has it goes on.

use std::path::Path;
use std::process::{Command, Output};

use ballast_tests::{System, binaries};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn enroll(token: &str, state: &Path) -> Output {
    let file = state.with_extension("token");
    std::fs::write(&file, token).unwrap();
    Command::new(binaries().edge).args(["enroll", "--token"]).arg(&file).arg("--state").arg(state).output().unwrap()
}

#[test]
fn a_token_that_is_used_up_enrols_nobody_else() {
    let system = System::start(1).unwrap();
    let token = std::fs::read_to_string(system.path().join("state/tokens/demo")).unwrap();
    let output = enroll(&token, &system.path().join("second"));
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(said.contains("token") && said.contains("used"), "{said}");
}

#[test]
fn a_held_state_directory_and_a_taken_port_are_refused() {
    let mut system = System::with_digits(1).unwrap();
    let state = system.path().join("gateways/gateway-1/state");
    let second = Command::new(binaries().edge)
        .arg("run")
        .arg("--state")
        .arg(&state)
        .args(["--http", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = stderr(&second);
    assert!(said.contains("state") || said.contains("lock"), "{said}");

    let operator = |state: &Path, listen: &str| {
        let mut command = Command::new(binaries().operator);
        command.arg("--directory").arg(system.directory()).arg("--state").arg(state).args(["--listen", listen]);
        command.arg("--admin-socket").arg(state.with_extension("sock")).output().unwrap()
    };
    let held = operator(&system.path().join("state"), "127.0.0.1:0");
    assert!(!held.status.success(), "{}", stderr(&held));

    let address = &system.fleet.listen().to_string();
    let taken = operator(&system.path().join("other"), address);
    assert!(!taken.status.success());
    assert!(stderr(&taken).contains(address), "{}", stderr(&taken));

    system.fleet.check().unwrap();
    system.serves("1.0.0").unwrap();
}
