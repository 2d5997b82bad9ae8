//! `ballast-edge` for aarch64: static, as it is shipped, in a target directory of its own that is kept from run to run.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use super::elf;
use super::tools::CC;
use crate::process::run;
use crate::workspace;

/// Rust's target of it.
pub(super) const TARGET: &str = "aarch64-unknown-linux-musl";
const PROFILE: &str = "edge";

/// Builds it; says its size and how long that took.
pub(super) fn build() -> Result<PathBuf> {
    let since = Instant::now();
    let folder = workspace::target_dir()?.join("hardware");
    let mut command = workspace::cargo();
    // In an invocation of its own: with the operator beside it, features of the cloud would be built in.
    command.args(["build", "--quiet", "--package", "ballast-edge", "--bin", "ballast-edge"]);
    command.args(["--profile", PROFILE, "--target", TARGET, "--target-dir"]).arg(&folder);
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", CC);
    command.env("CC_aarch64_unknown_linux_musl", CC);
    run(&mut command)?;
    let program = folder.join(TARGET).join(PROFILE).join("ballast-edge");
    let bytes = std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    elf::is_static_aarch64(&bytes).with_context(|| format!("{}", program.display()))?;
    println!(
        "ballast-edge for {TARGET}, static: {:.1} MB, built in {:.1} s",
        bytes.len() as f64 / 1e6,
        since.elapsed().as_secs_f64()
    );
    Ok(program)
}
