//! What this machine must have: an emulator, a C compiler and Rust's library for aarch64.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::program::TARGET;
use crate::demo::prerequisites::{answers, has_target};
use crate::process::run;
use crate::workspace;

/// The emulator of one program: system calls go to this machine's kernel.
pub(super) const QEMU: &str = "qemu-aarch64-static";
/// Compiles ring's C code and links.
pub(super) const CC: &str = "aarch64-linux-gnu-gcc";
/// Debian's packages of both. The headers are no dependency of the compiler there.
const PACKAGES: [&str; 3] = ["qemu-user-static", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Installs what is missing where that can be done without asking anybody: as root, with apt-get. Else says what to install.
pub fn tools() -> Result<()> {
    if !has_target(TARGET) {
        run(Command::new("rustup").current_dir(workspace::root()).args(["target", "add", TARGET]))?;
    }
    if missing().is_empty() {
        return Ok(());
    }
    if rustix::process::geteuid().is_root() && answers("apt-get", "--version") {
        println!("installing {} with apt-get", PACKAGES.join(", "));
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            run(command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments).args(["-qq", "-o", "Dpkg::Use-Pty=0"]))
        };
        let install = [&["install", "-y", "--no-install-recommends"][..], &PACKAGES].concat();
        apt(&["update"]).and_then(|()| apt(&install)).context(advice())?;
    }
    let missing = missing();
    if !missing.is_empty() {
        bail!("missing for gateways of other CPUs: {}. {}", missing.join(" and "), advice());
    }
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let mut missing: Vec<_> = [QEMU, CC].into_iter().filter(|program| !answers(program, "--version")).collect();
    if missing.is_empty() && !has_headers() {
        missing.push("the C library's headers for aarch64");
    }
    missing
}

/// Whether a program that includes the C library's headers compiles.
fn has_headers() -> bool {
    let mut command = Command::new(CC);
    command.args(["-fsyntax-only", "-include", "stdint.h", "-include", "string.h", "-x", "c", "/dev/null"]);
    command.output().is_ok_and(|output| output.status.success())
}

fn advice() -> String {
    format!(
        "Debian and Ubuntu: apt install {}; elsewhere: QEMU's user mode, static, and GCC for aarch64-linux-gnu",
        PACKAGES.join(" ")
    )
}
