//! The gateway as it is shipped (profile `edge`): its size, and its memory with one digits model active, the spare
//! instance warm, and nobody asking; and the speed that it measures itself, in native code and in the interpreter.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{bytes, folder, machine};
use crate::demo;
use crate::demo::documents::{self, Deployment};
use crate::demo::fleet::{Binaries, Fleet, Seat};
use crate::demo::status::Speed;
use crate::process::{self, interrupted};
use crate::workspace;

pub(super) fn run(binaries: Option<&Path>, idle: u64) -> Result<ExitCode> {
    process::watch_for_interruption()?;
    let edge = match binaries {
        Some(folder) => folder.join("ballast-edge"),
        None => {
            // In an invocation of its own: with the operator beside it, features of the cloud would be built in.
            process::run(workspace::cargo().args(["build", "--profile", "edge", "--package", "ballast-edge"]))?;
            workspace::target_dir()?.join("edge").join("ballast-edge")
        }
    };
    println!("{}", machine());
    println!("ballast-edge: {} bytes", bytes(&edge)?);

    // Operator and command line are not measured: as the demo builds them.
    let binaries = Binaries { edge, ..demo::build()? };
    let root = folder("edge")?;
    let mut fleet = Fleet::start(&root, binaries, 2)?;
    fleet.add_gateway(false)?;
    let digits = workspace::digits().join("models/digits-2.0.0.onnx");
    let digest = fleet.add_file(&digits, "digits-2.0.0.onnx")?;
    let deployment = Deployment { version: "2.0.0", ..Deployment::new("digits", "digits-2.0.0.onnx", &digest) };
    documents::put(&fleet.directory(), "digits.yaml", deployment.yaml().as_bytes())?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while fleet.cli.release("digits", "2.0.0").is_none_or(|r| r.phase != "Active") {
        fleet.check()?;
        ensure!(!interrupted() && Instant::now() < deadline, "digits 2.0.0 did not become Active");
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = std::fs::read_to_string(root.join("logs/operator.log")).context("the operator's log")?;
    for line in log.lines().filter_map(|line| line.split_once("prepared a runner ")) {
        println!("runner, native code: {}", line.1);
    }
    println!("digits 2.0.0 is active; {idle} s without a request");
    let end = Instant::now() + Duration::from_secs(idle);
    while Instant::now() < end {
        fleet.check()?;
        ensure!(!interrupted(), "interrupted");
        std::thread::sleep(Duration::from_millis(100));
    }
    let gateway = fleet.gateways.first().context("a gateway")?;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", gateway.id()))?;
    let rss = field(&rollup, "Rss:")?;
    let anonymous = field(&rollup, "Anonymous:")?;
    println!("resident: {rss} KiB, of it anonymous {anonymous} KiB, mapped from files {} KiB", rss - anonymous);
    // Only now: it would have taken the core's time and caches from the first.
    fleet.add(&Seat { sets: &["engine=interpreter"], ..Seat::default() })?;
    for (index, engine) in ["native code", "the interpreter"].into_iter().enumerate() {
        let speed = speed(&mut fleet, index)?;
        println!("{engine}: {:.2} GFLOP/s, {:.2} GB/s", speed.gflops, speed.memory_bandwidth);
    }
    drop(fleet);
    let _ = std::fs::remove_dir_all(&root);
    Ok(ExitCode::SUCCESS)
}

/// What a gateway found with its first runner.
fn speed(fleet: &mut Fleet, index: usize) -> Result<Speed> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        fleet.check()?;
        let name = &fleet.gateways.get(index).context("a gateway")?.name;
        if let Some(speed) = fleet.cli.gateway(name)?.facts.speed {
            return Ok(speed);
        }
        ensure!(!interrupted() && Instant::now() < deadline, "{name} did not measure its speed");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `Rss:    123 kB`.
fn field(rollup: &str, name: &str) -> Result<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    line.trim().strip_suffix("kB").context("kB")?.trim().parse().context("a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollups_are_read() {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let (rss, anonymous) = (field(&rollup, "Rss:").unwrap(), field(&rollup, "Anonymous:").unwrap());
        assert!(rss > anonymous && anonymous > 0, "{rss} {anonymous}");
        assert!(field(&rollup, "Nothing:").is_err());
    }
}
