//! The parent's side: start, feed, bound, and believe nothing that was not checked.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use ballast_sandbox::EngineProfile;

use super::{COMPILE_WORKER, Isolation, PROVE_WORKER, Reply, Task, WorkerError, WorkerLimits, validate};
use crate::prove::{ProveRequest, Proved};
use crate::{Artifacts, CompileOutcome, CompileRequest, VerdictReason};

/// What is kept of a worker's standard error.
const MAX_STDERR_BYTES: u64 = 4096;

/// A reply that says little: how a worker is isolated, or what came of a proof.
const SHORT_REPLY_BYTES: u64 = 64 << 10;
/// What a sound reply may have besides weights: golden vectors, a plan of many steps, contract and messages.
const REPLY_BESIDE_WEIGHTS: u64 = 64 << 20;
/// How many times its size a model's weights may grow: eight by unpacking 4-bit numbers, and as much again by the padding of
/// the layouts of small matrices.
const WEIGHTS_GROWTH: u64 = 64;

/// The longest reply that an honest worker gives. It is kept in the memory of the parent, which must not depend on what a
/// hostile one writes.
fn reply_bound(request: &CompileRequest) -> u64 {
    let memory = request.runtime.memory_limit.min(request.target.memory_bytes);
    let weights = (request.model.len() as u64).saturating_mul(WEIGHTS_GROWTH).min(memory);
    // Base64 makes four bytes of three.
    weights.saturating_add(REPLY_BESIDE_WEIGHTS) / 3 * 4
}

/// Compiles in one child and proves the plan in a second one. `exe` is a program whose `compile-worker` and `prove-worker`
/// are [`compile_worker_main`](super::compile_worker_main) and [`prove_worker_main`](super::prove_worker_main). Blocks for
/// as long as `limits` allow.
pub fn run_in_worker(
    exe: &Path,
    request: &CompileRequest,
    limits: &WorkerLimits,
) -> Result<CompileOutcome, WorkerError> {
    let reply = run(exe, COMPILE_WORKER, &Task::Compile(Box::new(request.clone())), limits, reply_bound(request))?;
    let Reply::Compiled { outcome } = reply else { return Err(unexpected(&reply)) };
    let mut artifacts = match *outcome {
        CompileOutcome::Built(artifacts) => artifacts,
        CompileOutcome::Refused(verdict) if !verdict.fits && verdict.reason != VerdictReason::Fits => {
            return Ok(CompileOutcome::Refused(verdict));
        }
        CompileOutcome::Refused(_) => {
            return Err(WorkerError::Reply("it refuses a model that it says fits".to_owned()));
        }
    };
    // Seen here, and not what the worker says of it.
    artifacts.verdict.accuracy = validate::artifacts(request, &artifacts).map_err(WorkerError::Reply)?;
    match prove_in_worker(exe, &artifacts, limits)? {
        Proved::Reproduced { proof, .. } => {
            artifacts.verdict.proof = Some(proof);
            Ok(CompileOutcome::Built(artifacts))
        }
        Proved::Failed { message } => {
            let message = format!("The compiled plan does not do what the model does: {message}.");
            Ok(CompileOutcome::Refused(artifacts.verdict.refused(VerdictReason::GoldenMismatch, message)))
        }
        Proved::NotSetUp { message } => Err(WorkerError::Prove(message)),
    }
}

/// Runs the plan on its golden vectors, in a child that sees neither model nor request.
pub fn prove_in_worker(exe: &Path, artifacts: &Artifacts, limits: &WorkerLimits) -> Result<Proved, WorkerError> {
    let request = ProveRequest {
        runner: runner_for_this_host()?.to_vec(),
        plan: artifacts.plan.clone(),
        weights: artifacts.weights.clone(),
        contract: artifacts.contract.clone(),
        golden: artifacts.golden.clone(),
    };
    match run(exe, PROVE_WORKER, &Task::Prove(Box::new(request)), limits, SHORT_REPLY_BYTES)? {
        Reply::Proved { proved } => Ok(proved),
        other => Err(unexpected(&other)),
    }
}

/// Starts a worker only to learn how it is isolated: what an operator says when it starts.
pub fn check_worker(exe: &Path) -> Result<Isolation, WorkerError> {
    match run(exe, COMPILE_WORKER, &Task::Ping, &WorkerLimits::default(), SHORT_REPLY_BYTES)? {
        Reply::Pong { isolation } => Ok(isolation),
        other => Err(unexpected(&other)),
    }
}

/// The runner compiled for the machine that proves, with the features of its CPU that every target may have. Once.
fn runner_for_this_host() -> Result<&'static [u8], WorkerError> {
    static RUNNER: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    RUNNER
        .get_or_init(|| {
            let profile = EngineProfile::host();
            ballast_aot::precompile(ballast_aot::runner_for(&profile), &profile).map_err(|e| e.to_string())
        })
        .as_deref()
        .map_err(|e| WorkerError::Prove(e.clone()))
}

fn unexpected(reply: &Reply) -> WorkerError {
    match reply {
        Reply::NotIsolated { message } => WorkerError::Isolation(printable(message)),
        Reply::Refused { message } => WorkerError::Reply(printable(message)),
        Reply::Pong { .. } | Reply::Compiled { .. } | Reply::Proved { .. } => {
            WorkerError::Reply("it answers what was not asked".to_owned())
        }
    }
}

/// The child, killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already in most cases; both calls then do nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(
    exe: &Path,
    subcommand: &str,
    task: &Task,
    limits: &WorkerLimits,
    reply_bound: u64,
) -> Result<Reply, WorkerError> {
    let start_error = |source| WorkerError::Start { exe: exe.display().to_string(), source };
    let end = Instant::now() + limits.wall();
    let child = Command::new(exe)
        .arg(subcommand)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start_error)?;
    let mut child = Running(child);
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take())
    else {
        return Err(start_error(std::io::Error::other("no pipes")));
    };
    let (sender, output) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A child that died does not read on; its status says more than this error would.
            let _ = serde_json::to_writer(&mut stdin, limits)
                .map_err(std::io::Error::from)
                .and_then(|()| stdin.write_all(b"\n"))
                .and_then(|()| {
                    let mut buffered = std::io::BufWriter::with_capacity(1 << 16, &mut stdin);
                    serde_json::to_writer(&mut buffered, task)?;
                    buffered.flush()
                });
        });
        let words = scope.spawn(move || read_bounded(stderr, MAX_STDERR_BYTES));
        let bound = limits.reply_bytes.min(reply_bound);
        scope.spawn(move || {
            let mut reply = Vec::new();
            let read = stdout.take(bound.saturating_add(1)).read_to_end(&mut reply);
            let _ = sender.send(read.map(|_| reply));
        });
        let result = output
            .recv_timeout(limits.wall())
            .map_err(|_| WorkerError::Timeout { seconds: limits.wall_seconds })
            .and_then(|reply| Ok((reply, wait(&mut child.0, end, limits)?)));
        // Closes the pipes, so that the threads above end.
        drop(child);
        let words = words.join().unwrap_or_default();
        let (reply, status) = result?;
        let reply = reply.map_err(WorkerError::Pipe)?;
        if reply.len() as u64 > bound {
            return Err(WorkerError::Reply(format!("it is longer than {bound} bytes")));
        }
        if !status.success() {
            return Err(death(status, &words, limits));
        }
        serde_json::from_slice(&reply).map_err(|e| WorkerError::Reply(e.to_string()))
    })
}

/// Standard output is closed; the process ends at once or is not what it should be.
fn wait(child: &mut Child, end: Instant, limits: &WorkerLimits) -> Result<ExitStatus, WorkerError> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() >= end => return Err(WorkerError::Timeout { seconds: limits.wall_seconds }),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => return Err(WorkerError::Pipe(e)),
        }
    }
}

fn death(status: ExitStatus, words: &[u8], limits: &WorkerLimits) -> WorkerError {
    let stderr = String::from_utf8_lossy(words);
    if status.signal() == Some(libc::SIGXCPU) {
        return WorkerError::Timeout { seconds: limits.cpu_seconds };
    }
    // What Rust's allocator says before it aborts, and what a failed growth of a vector panics with.
    if stderr.contains("memory allocation of") {
        return WorkerError::Memory { limit: limits.memory_bytes };
    }
    WorkerError::Crashed { status: status.to_string(), stderr: printable(&stderr) }
}

/// Reads all and keeps the beginning: a child that writes must not block, and must not fill the memory.
fn read_bounded(mut from: impl Read, keep: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = from.by_ref().take(keep).read_to_end(&mut kept);
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    kept
}

fn printable(text: &str) -> String {
    text.trim().chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
