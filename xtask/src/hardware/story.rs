//! What happens to the fleet of other CPUs, and what must come of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{program, tools};
use crate::demo::documents::{self, Deployment};
use crate::demo::fleet::{Binaries, Fleet, Seat, tail};
use crate::demo::http::Connection;
use crate::demo::status::GatewayStatus;
use crate::demo::traffic::Traffic;
use crate::process::interrupted;
use crate::{demo, python, workspace};

/// Emulated CPUs, each of which is the target of the same name, and what its owner must say for that.
const BOARDS: [(&str, &[&str]); 3] =
    [("cortex-a53", &["facts.cpu=cortex-a53"]), ("cortex-a72", &["facts.cpu=cortex-a72"]), ("cortex-a76", &[])];
/// The target of the gateway that lets only the interpreter in.
const INTERPRETED: &str = "pulley64";
/// Releases and their versions: digits with golden vectors that a user would give, the other with those that Ballast makes.
const RELEASES: [(&str, &str); 2] = [("digits", "2.0.0"), ("cls", "1")];
/// Input of PP-OCR's cls: one line of text.
const CLS_SHAPE: [u64; 4] = [1, 3, 48, 192];
/// Seconds for one inference: an emulator takes about a hundred times as long as the CPU.
const DEADLINE: u32 = 60;
/// Whatever takes longer has failed.
const LIMIT: Duration = Duration::from_secs(240);

/// Plays it. The directory with logs stays when it fails.
pub fn run() -> Result<()> {
    tools()?;
    let edge = program::build()?;
    let cls = python::real_models()?.join("ppocr-cls.onnx");
    let binaries = demo::build()?;
    let root = workspace::target_dir()?.join("hardware").join(format!("run-{}", std::process::id()));
    play(&root, &edge, &cls, binaries).with_context(|| format!("logs: {}", root.join("logs").display()))?;
    let _ = std::fs::remove_dir_all(&root);
    Ok(())
}

fn play(root: &Path, edge: &Path, cls: &Path, binaries: Binaries) -> Result<()> {
    let mut fleet = Fleet::start(root, binaries, BOARDS.len() + 1)?;
    for (cpu, sets) in BOARDS {
        fleet.add(&Seat { sets, program: &emulated(cpu, edge), ..Seat::default() })?;
    }
    fleet.add(&Seat { sets: &["engine=interpreter"], ..Seat::default() })?;
    apply(&fleet, cls)?;

    let since = Instant::now();
    let wanted: Vec<&str> = BOARDS.iter().map(|(cpu, _)| *cpu).chain([INTERPRETED]).collect();
    for (index, target) in wanted.iter().enumerate() {
        active(&mut fleet, index, target)?;
    }
    for (deployment, version) in RELEASES {
        until(&mut fleet, &format!("{deployment} to be Active everywhere"), |fleet| {
            let Some(release) = fleet.cli.release(deployment, version) else { return Ok(None) };
            let mut built: Vec<_> = release.targets.iter().filter(|t| t.digest.is_some()).map(|t| &t.name).collect();
            built.sort();
            let all = release.gateways.updated == wanted.len() as u64 && built == wanted;
            Ok((release.phase == "Active" && all).then_some(()))
        })?;
    }
    for index in 0..wanted.len() {
        answers(&mut fleet, index)?;
    }
    println!("digits and cls are Active on {} after {:.1} s", wanted.join(", "), since.elapsed().as_secs_f64());
    let speed = until(&mut fleet, "the interpreter's speed", |fleet| Ok(show(fleet, wanted.len() - 1)?.facts.speed))?;
    println!("{INTERPRETED} here: {:.3} GFLOP/s, {:.2} GB/s (measured)", speed.gflops, speed.memory_bandwidth);

    moves_to_an_older_board_and_back(&mut fleet, edge)
}

/// The state of the A76 goes on in an A53, as a memory card does: the runner on it is refused for what that CPU lacks, and the
/// gateway gets what fits. Back in the A76 it gets again what it had.
fn moves_to_an_older_board_and_back(fleet: &mut Fleet, edge: &Path) -> Result<()> {
    let index = BOARDS.iter().position(|(cpu, _)| *cpu == "cortex-a76").context("the A76")?;
    let before = log(fleet, index)?.len();
    fleet.restart_gateway(index, &emulated("cortex-a53", edge))?;
    until(fleet, "the A76's runner to be refused on an A53", |fleet| {
        let log = log(fleet, index)?;
        let said = log.get(before..).unwrap_or_default();
        let refused =
            |line: &str| line.contains("the runner cannot be used") && line.contains("not available on the host");
        Ok(said.lines().any(refused).then_some(()))
    })?;
    // Nobody said what CPU it is.
    active(fleet, index, "aarch64")?;
    answers(fleet, index)?;
    println!("the A76's state on an A53: its runner is refused, the releases are Active with that of target aarch64");
    fleet.restart_gateway(index, &emulated("cortex-a76", edge))?;
    active(fleet, index, "cortex-a76")?;
    answers(fleet, index)?;
    println!("and back on an A76 with that of cortex-a76");
    Ok(())
}

fn emulated(cpu: &str, edge: &Path) -> Vec<OsString> {
    vec![tools::QEMU.into(), "-cpu".into(), cpu.into(), edge.into()]
}

/// Writes both releases, for everybody at once.
fn apply(fleet: &Fleet, cls: &Path) -> Result<()> {
    let golden = fleet.add_file(&workspace::digits().join("golden.safetensors"), "golden.safetensors")?;
    let models: [PathBuf; 2] = [workspace::digits().join("models/digits-2.0.0.onnx"), cls.to_owned()];
    let shapes = [("x".to_owned(), CLS_SHAPE.to_vec())];
    for ((name, version), model) in RELEASES.into_iter().zip(&models) {
        let source = format!("{name}.onnx");
        let digest = fleet.add_file(model, &source)?;
        let digits = name == "digits";
        let deployment = Deployment {
            version,
            golden: digits.then_some(golden.as_str()),
            shapes: if digits { &[] } else { &shapes },
            deadline: DEADLINE,
            steps: &["\"100%\""],
            trial: 1,
            min_requests: 1,
            ..Deployment::new(name, &source, &digest)
        };
        documents::put(&fleet.directory(), &format!("{name}.yaml"), deployment.yaml().as_bytes())?;
    }
    Ok(())
}

fn show(fleet: &Fleet, index: usize) -> Result<GatewayStatus> {
    fleet.cli.gateway(&fleet.gateways.get(index).context("no such gateway")?.name)
}

/// Waits until a gateway is of `target` and has both releases Active, that is with golden vectors reproduced on it.
fn active(fleet: &mut Fleet, index: usize, target: &str) -> Result<()> {
    until(fleet, &format!("{target} to have both releases Active"), |fleet| {
        let shown = show(fleet, index)?;
        let is_active = |(deployment, version): &(&str, &str)| {
            let mut reports =
                shown.reports.iter().filter(|r| r.deployment.name == *deployment && r.version == *version);
            reports.any(|r| r.state == "Active" && r.slot.as_deref() == Some("Active"))
        };
        if let Some(failed) = shown.reports.iter().find(|r| r.state == "RolledBack") {
            bail!("{} was rolled back on {target}: {:?}", failed.deployment.name, failed.message);
        }
        Ok((shown.target.as_deref() == Some(target) && RELEASES.iter().all(is_active)).then_some(()))
    })
}

/// Fails unless the gateway gives the answers that ONNX Runtime gave for images nobody proved it with. What it reported
/// before a restart says Active, too: it may still be loading.
fn answers(fleet: &mut Fleet, index: usize) -> Result<()> {
    let (name, version) = RELEASES[0];
    let traffic = Traffic::digits(name)?;
    let gateway = fleet.gateways.get(index).context("no such gateway")?;
    let (gateway, mut connection) = (gateway.name.clone(), Connection::new(gateway.http, LIMIT));
    for image in 0..5 {
        let (body, length) = traffic.binary(image);
        let answer = until(fleet, &format!("{gateway} to answer"), |_| {
            let answer = connection.post(&format!("/v2/models/{name}/infer"), Some(length), &body)?;
            Ok((answer.status != 503).then_some(answer))
        })?;
        ensure!(answer.status == 200, "{gateway} answered {}", answer.status);
        let answered = traffic.judge(image, &answer)?;
        ensure!(answered.version == version, "{gateway} answers with {}", answered.version);
    }
    Ok(())
}

fn log(fleet: &Fleet, index: usize) -> Result<String> {
    let gateway = fleet.gateways.get(index).context("no such gateway")?;
    Ok(std::fs::read_to_string(fleet.root.join("logs").join(format!("{}.log", gateway.name)))?)
}

fn until<T>(fleet: &mut Fleet, what: &str, mut ask: impl FnMut(&Fleet) -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        ensure!(!interrupted(), "interrupted");
        fleet.check()?;
        if let Some(found) = ask(fleet)? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            let log = tail(&fleet.root.join("logs/operator.log"));
            bail!("waited {} s for {what}; the end of the operator's log:\n{log}", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
