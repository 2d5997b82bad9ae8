//! From a deployment's file written to its bundles signed for three targets: what a user waits for after `apply`. Targets
//! are found among gateways, so the fleet has one gateway of each kind that this machine can be, and one of a target that
//! the directory itself declares.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{folder, machine};
use crate::demo;
use crate::demo::documents::{self, Deployment};
use crate::demo::fleet::{Binaries, Fleet, Seat};
use crate::process::{self, interrupted};
use crate::{python, workspace};

/// Between the newest that this machine is and the oldest that it can pretend to be.
fn middle() -> String {
    let (triple, features) = match cfg!(target_arch = "x86_64") {
        true => ("x86_64-unknown-linux-musl", "[sse3, ssse3, sse4.1, sse4.2, popcnt]"),
        false => ("aarch64-unknown-linux-musl", "[neon, crc]"),
    };
    format!(
        "\
apiVersion: ballast.dev/v1alpha1
kind: HardwareTarget
metadata:
  name: middle
spec:
  triple: {triple}
  cpuFeatures: {features}
  memory: 256Mi
  priority: 50
  match:
    facts: {{class: middle}}
"
    )
}

const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn run(binaries: Option<&Path>, rounds: u32) -> Result<ExitCode> {
    process::watch_for_interruption()?;
    let binaries = match binaries {
        Some(folder) => Binaries::of(folder),
        None => {
            let packages = ["--package", "ballast-controller", "--package", "ballast-cli"];
            process::run(workspace::cargo().args(["build", "--release"]).args(packages))?;
            // The gateway is there for the operator to have somebody to compile for; it is not measured.
            Binaries { edge: demo::build()?.edge, ..Binaries::of(&workspace::target_dir()?.join("release")) }
        }
    };
    let (digits, cls) = (workspace::digits().join("models"), python::real_models()?.join("ppocr-cls.onnx"));
    let image = [("x".to_owned(), vec![1, 3, 48, 192])];
    println!("{}", machine());
    println!("from the file written to bundles signed for three targets, ms; the first includes the runners");
    println!("{:>12} {:>12} {:>12}", "first", "digits", "PP-OCR cls");
    let mut times = Vec::new();
    for _ in 0..rounds {
        // A fresh one: nothing is known from an earlier round but what the system keeps in memory of files.
        let root = folder("release")?;
        let mut fleet = Fleet::start(&root, binaries.clone(), 3)?;
        documents::put(&fleet.directory(), "middle.yaml", middle().as_bytes())?;
        fleet.add_gateway(false)?;
        fleet.add_gateway(true)?;
        fleet.add(&Seat { held_back: true, sets: &["facts.class=middle"], ..Seat::default() })?;
        let mut round = Vec::new();
        for (name, file, shapes) in [
            ("first", digits.join("digits-1.0.0.onnx"), &[][..]),
            ("digits", digits.join("digits-2.0.0.onnx"), &[]),
            ("cls", cls.clone(), &image),
        ] {
            round.push(measure(&mut fleet, name, &file, shapes)?.as_secs_f64() * 1e3);
        }
        println!("{:>12.0} {:>12.0} {:>12.0}", round[0], round[1], round[2]);
        times.push(round);
        drop(fleet);
        let _ = std::fs::remove_dir_all(&root);
    }
    let median = |column: usize| {
        let mut sorted: Vec<f64> = times.iter().map(|round| round[column]).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    println!("median: digits {:.0} ms, PP-OCR cls {:.0} ms", median(1), median(2));
    Ok(ExitCode::SUCCESS)
}

fn measure(fleet: &mut Fleet, name: &str, file: &Path, shapes: &[(String, Vec<u64>)]) -> Result<Duration> {
    let source = format!("{name}.onnx");
    let digest = fleet.add_file(file, &source)?;
    let deployment = Deployment { shapes, ..Deployment::new(name, &source, &digest) };
    documents::put(&fleet.directory(), &format!("{name}.yaml"), deployment.yaml().as_bytes())?;
    let start = Instant::now();
    loop {
        let release = fleet.cli.release(name, "1");
        let signed = release.as_ref().map_or(0, |r| r.targets.iter().filter(|t| t.digest.is_some()).count());
        if signed == fleet.kinds() + 1 {
            return Ok(start.elapsed());
        }
        fleet.check()?;
        ensure!(!interrupted(), "interrupted");
        ensure!(
            release.as_ref().is_none_or(|r| r.phase != "Refused") && start.elapsed() < LIMIT,
            "{name}: {release:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
