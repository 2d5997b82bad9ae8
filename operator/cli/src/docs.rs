//! `docs/cli.md`, made from the command line's own definition.

use clap::{Arg, Command};

/// The whole reference.
pub fn markdown(mut command: Command) -> String {
    command.build();
    let mut out = String::from(
        "# The command line\n\nMade from the program; do not edit: `BALLAST_UPDATE=1 cargo test -p ballast-cli docs` writes it, and a test compares.\n\n\
         `ballast` talks to an operator over its administration socket (`--socket`, `BALLAST_SOCKET`), to gateways over HTTP,\n\
         and does the rest by itself. Installed or linked as `kubectl-ballast` on the `PATH` it is `kubectl ballast`.\n\n\
         Results go to standard output, everything else to standard error. `-o json` and `-o yaml` are for programs and\n\
         keep their fields.\n\n## Exit codes\n\n",
    );
    out.push_str(crate::exit::TABLE);
    out.push_str(include_str!("verdict.md"));
    section(&mut out, &command, &[]);
    out
}

fn section(out: &mut String, command: &Command, parents: &[&str]) {
    let path = [parents, &[command.get_name()]].concat();
    for child in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        if child.has_subcommands() {
            section(out, child, &path);
        } else {
            page(out, child, &path);
        }
    }
}

fn page(out: &mut String, command: &Command, parents: &[&str]) {
    let name = [parents, &[command.get_name()]].concat().join(" ");
    out.push_str(&format!("\n## {name}\n\n{}\n\n```\n{name}", about(command)));
    let shown = || command.get_arguments().filter(|a| !a.is_hide_set() && !a.is_global_set() && !meta(a));
    for argument in shown().filter(|a| a.is_positional()) {
        out.push_str(&format!(" {}", placeholder(argument)));
    }
    out.push_str(" [OPTIONS]\n```\n\n| argument | what |\n|---|---|\n");
    for argument in shown() {
        let mut names = Vec::new();
        names.extend(argument.get_short().map(|s| format!("-{s}")));
        names.extend(argument.get_long().map(|l| format!("--{l}")));
        let mut left = if argument.is_positional() { placeholder(argument) } else { names.join(", ") };
        if !argument.is_positional() && argument.get_action().takes_values() {
            left.push_str(&format!(" {}", placeholder(argument)));
        }
        out.push_str(&format!("| `{left}` | {} |\n", help(argument).replace('|', "\\|")));
    }
}

fn meta(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

fn about(command: &Command) -> String {
    command.get_about().map(|about| format!("{about}.")).unwrap_or_default()
}

fn placeholder(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| argument.get_id().to_string().to_uppercase(), ToString::to_string)
}

fn help(argument: &Arg) -> String {
    let mut text = argument.get_help().map(|h| h.to_string().replace('\n', " ")).unwrap_or_default();
    // clap takes the full stop off the end.
    if !text.is_empty() && !text.ends_with('.') {
        text.push('.');
    }
    let values: Vec<String> = argument.get_possible_values().iter().map(|v| format!("`{}`", v.get_name())).collect();
    if !values.is_empty() && argument.get_action().takes_values() {
        text.push_str(&format!(" One of {}.", values.join(", ")));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && argument.get_action().takes_values() {
        text.push_str(&format!(" Default `{}`.", defaults.join(" ")));
    }
    if argument.is_required_set() && !argument.is_positional() {
        text.push_str(" Required.");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Args;

    #[test]
    fn the_page_is_what_the_program_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let made = markdown(Args::command());
        if std::env::var_os("BALLAST_UPDATE").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == made, "docs/cli.md is not what the program says: run this test with BALLAST_UPDATE=1");
    }

    #[test]
    fn every_command_and_argument_is_on_the_page() {
        let made = markdown(Args::command());
        for command in [
            "check",
            "compile",
            "infer",
            "inspect",
            "verify",
            "token create",
            "gateways list",
            "gateways show",
            "rollout status",
            "rollout watch",
            "rollout pause",
            "rollout resume",
            "rollout retry",
            "rollout undo",
            "completion",
        ] {
            assert!(made.contains(&format!("\n## ballast {command}\n")), "{command}");
        }
        assert!(made.contains("| `-o, --output FORMAT` |") && made.contains("`--timeout DURATION`"));
        assert!(!made.contains("ballast docs"));
    }
}
