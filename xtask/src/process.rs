//! Child processes that never outlive who started them, and the interruption that ends them.
//!
//! Every child leads a process group of its own, so that whatever it started ends with it; Ctrl-C in a terminal reaches
//! only this process, which ends its children in order.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Groups that run now, by their leaders. A leader is taken out before it is waited for: from then on its number may
/// be somebody else's.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Ctrl-C, SIGTERM and SIGHUP are remembered, and whoever waits asks with [`interrupted`]; a second one kills every
/// child and ends at once.
pub fn watch_for_interruption() -> Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            kill_all_and_exit();
        }
    })
    .context("cannot install the Ctrl-C handler")
}

/// For programs that never ask, tests for one: the first signal kills every child and ends at once.
pub fn end_children_with_us() {
    // Somebody else's handler is as good: it is ours, installed by another test of this process.
    let _ = ctrlc::set_handler(kill_all_and_exit);
}

fn kill_all_and_exit() {
    // SIGTERM first and a moment: a child that has children in groups of their own (`xtask test` has the demo, and the
    // tests' programs) kills those on its second signal.
    for (last_word, patience) in [(Signal::TERM, Duration::from_millis(700)), (Signal::KILL, Duration::ZERO)] {
        groups().iter().for_each(|leader| signal(*leader, last_word));
        std::thread::sleep(patience);
    }
    std::process::exit(130);
}

fn groups() -> MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(leader: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(leader) {
        // It may have ended already, which is what was asked.
        let _ = kill_process_group(pid, signal);
    }
}

/// Whether the user asked to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// A child that leads a process group.
#[derive(Debug)]
pub struct Group {
    child: Child,
    leader: i32,
    ended: Option<ExitStatus>,
}

impl Group {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        // Held over the start: a kill of all children finds this one or comes before it.
        let mut groups = groups();
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {program}"))?;
        let leader = i32::try_from(child.id()).context("a process id")?;
        groups.insert(leader);
        Ok(Self { child, leader, ended: None })
    }

    /// Its standard output, if that is a pipe.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            let mut groups = groups();
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_some() {
                groups.remove(&self.leader);
            }
        }
        self.ended
    }

    /// Waits for its end; an interruption asks it to end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut asked = false;
        loop {
            if let Some(status) = self.ended() {
                ensure!(!interrupted(), "interrupted");
                return Ok(status);
            }
            if interrupted() && !asked {
                asked = true;
                self.ask_to_end();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM to all of it, without waiting.
    pub fn ask_to_end(&mut self) {
        if self.ended().is_none() {
            signal(self.leader, Signal::TERM);
        }
    }

    /// SIGKILL to all of it: what a power cut looks like to the others.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            signal(self.leader, Signal::KILL);
            let mut groups = groups();
            self.ended = self.child.wait().ok();
            groups.remove(&self.leader);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A child process with its log; ended when dropped.
#[derive(Debug)]
pub struct Process {
    /// For people.
    pub name: String,
    /// Standard output and error.
    pub log: PathBuf,
    group: Group,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let group = Group::spawn(command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), group })
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.group.ended()
    }

    /// Its number, as the system's.
    pub fn id(&self) -> u32 {
        self.group.child.id()
    }

    /// As in a power cut.
    pub fn kill(&mut self) {
        self.group.kill();
    }

    /// Asks with SIGTERM without waiting.
    pub fn ask_to_end(&mut self) {
        self.group.ask_to_end();
    }

    /// SIGTERM, then SIGKILL after `patience`. Says whether it ended by itself.
    pub fn end(&mut self, patience: Duration) -> bool {
        self.ask_to_end();
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::from_secs(3));
    }
}

/// Runs a command to its end; its output goes to the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = Group::spawn(command)?.wait()?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// The command as one would type it, program's folder left out.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|a| a.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("grandchild");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display()));
        let mut group = Group::spawn(&mut command).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let grandchild = loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                break text.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "the child did not start");
            std::thread::sleep(Duration::from_millis(5));
        };
        group.kill();
        // Nobody may be there to reap it: a zombie has ended too.
        let stat = format!("/proc/{grandchild}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(Instant::now() < deadline, "the grandchild lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!groups().contains(&group.leader));
    }
}
