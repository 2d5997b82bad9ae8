//! What a worker gives up before it looks at its input.
//!
//! Several walls, because not every kernel has each: a user and network namespace of its own, Landlock, and a seccomp
//! filter. The filter alone already denies sockets and the opening of any file, so a worker without it does not run.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use serde::{Deserialize, Serialize};

use super::WorkerLimits;

/// The walls that stand around a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolation {
    /// Own user, network and IPC namespaces.
    pub namespaces: bool,
    /// Landlock: no file can be opened, no TCP port bound or connected, no signal sent outside.
    pub landlock: bool,
    /// The system call filter. Always true in a worker that runs.
    pub seccomp: bool,
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut walls = vec![];
        walls.extend(self.namespaces.then_some("own user, network and IPC namespaces"));
        walls.extend(self.landlock.then_some("Landlock"));
        walls.extend(self.seccomp.then_some("seccomp"));
        f.write_str(&walls.join(", "))
    }
}

/// Shuts this process off. Irreversible; call before any other thread starts.
pub(super) fn enter(limits: &WorkerLimits) -> Result<Isolation, String> {
    let words = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    // A parent that is gone wants no answer.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| words("parent death signal", &e))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| words("not dumpable", &e))?;
    let limit = |resource: Resource, value: u64| {
        let both = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, both).map_err(|e| words("resource limit", &e))
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, 64)?;
    limit(Resource::Data, limits.memory_bytes)?;
    // The soft limit kills by SIGXCPU, which the parent can tell from other deaths.
    setrlimit(
        Resource::Cpu,
        Rlimit { current: Some(limits.cpu_seconds), maximum: Some(limits.cpu_seconds.saturating_add(1)) },
    )
    .map_err(|e| words("processor time limit", &e))?;
    let namespaces = own_namespaces();
    close_other_files().map_err(|e| words("closing inherited files", &e))?;
    let landlock = landlock().unwrap_or(false);
    super::seccomp::apply().map_err(|e| words("seccomp", &e))?;
    Ok(Isolation { namespaces, landlock, seccomp: true })
}

/// Where the kernel or the administrator does not allow it, the other walls must do.
#[allow(unsafe_code)]
fn own_namespaces() -> bool {
    // SAFETY: no memory is involved; it fails in a process with several threads and then changes nothing.
    unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWIPC) == 0 }
}

/// Whatever the parent forgot to mark close-on-exec ends here.
#[allow(unsafe_code)]
fn close_other_files() -> Result<(), std::io::Error> {
    // SAFETY: this process has opened nothing yet besides its standard streams, so no owned descriptor is closed.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// All rights handled and none given.
fn landlock() -> Result<bool, landlock::RulesetError> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
