//! What talks to an operator, with none there; its own tests have one.

use crate::{ballast, text};

#[test]
fn without_an_operator_every_command_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    for command in [
        &["gateways", "list"][..],
        &["gateways", "show", "gw"],
        &["rollout", "status", "digits"],
        &["rollout", "watch", "digits"],
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
