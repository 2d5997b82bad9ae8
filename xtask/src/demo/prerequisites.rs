//! What must be there before anything starts, and how to get it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::workspace;

/// The target of the runner's Wasm guest.
pub const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// All that is missing at once, each with what to do.
pub fn check(model: Option<&Path>) -> Result<()> {
    let mut missing = Vec::new();
    if !cfg!(target_os = "linux") {
        missing
            .push("Linux: the gateway and the operator run on Linux only; use a virtual machine or WSL 2".to_owned());
    }
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        missing.push("an x86-64 or aarch64 machine: the demo needs native code for two targets".to_owned());
    }
    if !has_target(WASM_TARGET) {
        missing.push(format!("Rust's standard library for the Wasm guest: rustup target add {WASM_TARGET}"));
    }
    if !answers("cc", "--version") {
        missing.push("a C compiler (for TLS): Debian and Ubuntu: apt install build-essential; Fedora: dnf install gcc; Alpine: apk add build-base".to_owned());
    }
    let digits = workspace::digits();
    for file in ["models/digits-1.0.0.onnx", "live.safetensors", "golden.safetensors"] {
        if !digits.join(file).is_file() {
            missing.push(format!("{}: clone the repository again", digits.join(file).display()));
        }
    }
    if let Some(model) = model
        && !model.is_file()
    {
        missing.push(format!("{}: --model takes an ONNX file", model.display()));
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing:\n  - {}", missing.join("\n  - "))
}

/// Whether the pinned toolchain can build for `target`.
pub fn has_target(target: &str) -> bool {
    let output = Command::new("rustc").current_dir(workspace::root()).args(["--print", "sysroot"]).output();
    let Ok(output) = output else { return false };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    sysroot.join("lib/rustlib").join(target).join("lib").is_dir()
}

/// Whether a program is there.
pub fn answers(program: &str, argument: &str) -> bool {
    let quiet =
        Command::new(program).arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|s| s.success())
}
