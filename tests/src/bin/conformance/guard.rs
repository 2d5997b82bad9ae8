//! Runs cases in child processes, each case with a time limit; a child that dies or hangs is replaced.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use ballast_sandbox::EngineProfile;

use crate::case::Case;
use crate::worker::{Options, Outcome};

/// One outcome per case, in their order.
pub fn run(cases: &[Case], jobs: usize, limit: Duration, options: &Options) -> Result<Vec<Outcome>> {
    let folder = tempfile::tempdir()?;
    let code = folder.path().join("runner.cwasm");
    let profile = EngineProfile::host();
    std::fs::write(&code, ballast_aot::precompile(ballast_aot::runner_for(&profile), &profile)?)?;
    let waiting: Mutex<VecDeque<usize>> = Mutex::new((0..cases.len()).collect());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut found: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let work = || -> Result<Vec<(usize, Outcome)>> {
            let (mut worker, mut found) = (None, Vec::new());
            while let Some(index) = next() {
                let mut ready = match worker.take() {
                    Some(worker) => worker,
                    None => Worker::start(&code, options)?,
                };
                let (outcome, lives) = ready.ask(&cases[index], limit);
                if lives {
                    worker = Some(ready);
                }
                found.push((index, outcome));
            }
            Ok(found)
        };
        let threads: Vec<_> = (0..jobs.clamp(1, cases.len())).map(|_| scope.spawn(work)).collect();
        let results = threads.into_iter().map(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")));
        results.collect::<Result<Vec<_>>>().map(|lists| lists.into_iter().flatten().collect())
    })?;
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, outcome)| outcome).collect())
}

/// This program as a worker.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Worker {
    fn start(code: &Path, options: &Options) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--worker").arg(code).args(["--rounds", &options.rounds.to_string()]);
        for (name, is_asked) in [("--native", options.native), ("--memory", options.memory)] {
            if is_asked {
                command.arg(name);
            }
        }
        for (name, folder) in [("--plans", &options.plans), ("--contracts", &options.contracts)] {
            if let Some(folder) = folder {
                command.arg(name).arg(folder);
            }
        }
        // A panic's words are in its outcome.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (stdin, stdout) = (child.stdin.take().context("a pipe")?, child.stdout.take().context("a pipe")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, lines })
    }

    /// What came of the case, and whether the worker can go on.
    fn ask(&mut self, case: &Case, limit: Duration) -> (Outcome, bool) {
        let wrong = |message: String| Outcome::Wrong { message };
        let asked = writeln!(self.stdin, "{}", case.folder.display()).and_then(|()| self.stdin.flush());
        let died = || wrong("the process died".to_owned());
        if asked.is_err() {
            return (died(), false);
        }
        match self.lines.recv_timeout(limit) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(outcome) => (outcome, true),
                Err(e) => (wrong(format!("the worker said what it should not ({e}): {line}")), false),
            },
            Err(RecvTimeoutError::Timeout) => (wrong(format!("did not end within {} s", limit.as_secs())), false),
            Err(RecvTimeoutError::Disconnected) => (died(), false),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
