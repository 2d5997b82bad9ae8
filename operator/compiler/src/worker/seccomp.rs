//! The system call filter of a worker: a list of what computing takes (memory, threads, time, its own pipes), and nothing else. No
//! sockets, no files, no other processes, no namespaces. What is not listed fails with `EPERM`, so that code that only tries
//! goes on, and calls that future kernels bring are denied before anybody here has heard of them.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Allowed whatever their arguments. None takes a path, none makes a descriptor.
const ALLOWED: &[libc::c_long] = &[
    // Standard streams; no other file is open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_ppoll,
    // Memory. `mmap` stands below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads. `clone` stands below.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals to itself: guard pages of stacks, traps of the sandbox.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time, randomness, and what the machine is.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Here for the other filter to answer.
    libc::SYS_clone3,
    libc::SYS_memfd_create,
];

/// Not there, as far as a worker can see: whoever asks has another way. clone3 hides its flags behind a pointer, and the C library
/// then uses clone, whose flags can be seen. Files in memory are outside of the memory limit, and Wasmtime then copies.
const NOT_THERE: &[libc::c_long] = &[libc::SYS_clone3, libc::SYS_memfd_create];

/// Puts the filter in force, for every thread and for good.
pub(super) fn apply() -> Result<(), seccompiler::Error> {
    let not_there = NOT_THERE.iter().map(|call| (*call, vec![])).collect();
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    apply_filter_all_threads(&program(not_there, SeccompAction::Allow, errno(libc::ENOSYS))?)?;
    apply_filter_all_threads(&program(allowed()?, errno(libc::EPERM), SeccompAction::Allow)?)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Argument number `argument` is compared.
fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?])
}

fn allowed() -> Result<Rules, BackendError> {
    let mut all: Rules = ALLOWED.iter().map(|call| (*call, vec![])).collect();
    // Threads yes, processes no.
    let thread = libc::CLONE_THREAD as u64;
    all.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    // Private memory only, and none that grows by itself: the other kinds are not counted by RLIMIT_DATA.
    let uncounted = (libc::MAP_SHARED | libc::MAP_GROWSDOWN) as u64;
    all.insert(libc::SYS_mmap, vec![when(3, SeccompCmpOp::MaskedEq(uncounted), 0)?]);
    // A process may abort itself; nobody else.
    let own = u64::from(std::process::id());
    let own = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?;
    all.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    // Limits can be read, not set; so can what a descriptor is.
    all.insert(libc::SYS_prlimit64, vec![when(2, SeccompCmpOp::Eq, 0)?]);
    let reads = [libc::F_GETFD, libc::F_GETFL].map(|command| when(1, SeccompCmpOp::Eq, command as u64));
    all.insert(libc::SYS_fcntl, reads.into_iter().collect::<Result<_, _>>()?);
    // Names of threads and of mappings.
    let names = [libc::PR_SET_NAME, libc::PR_SET_VMA].map(|what| when(0, SeccompCmpOp::Eq, what as u64));
    all.insert(libc::SYS_prctl, names.into_iter().collect::<Result<_, _>>()?);
    // Older calls that newer architectures do not have.
    #[cfg(target_arch = "x86_64")]
    all.extend([libc::SYS_poll, libc::SYS_getrlimit].map(|call| (call, vec![])));
    Ok(all)
}

/// `listed` is done to what `rules` list, `else_` to everything else; x32's numbers are listed nowhere, other architectures end
/// the process.
fn program(rules: Rules, else_: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, else_, listed, arch)?.try_into()
}
