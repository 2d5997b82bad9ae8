//! The system call filter of a worker: no sockets, no files, no other processes, no namespaces, no kernel features that it
//! has no use for. What is denied fails with `EPERM`, so that code that only tries goes on.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// Denied whatever their arguments.
const DENIED: &[libc::c_long] = &[
    // Network, and what reaches it by another way.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Files.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_mq_open,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    // Other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_setpriority,
    // The system.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setrlimit,
    libc::SYS_personality,
];

/// The older calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const DENIED_OLD: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_OLD: &[libc::c_long] = &[];

/// On x86-64 the same calls again by their x32 numbers, which kernels with x32 take from any process.
const X32: i64 = if cfg!(target_arch = "x86_64") { 0x4000_0000 } else { 0 };

/// Puts the filter in force, for every thread and for good.
pub(super) fn apply() -> Result<(), seccompiler::Error> {
    // clone3 hides its flags behind a pointer; "not known" makes the C library use clone, whose flags can be seen.
    apply_filter_all_threads(&program(one(libc::SYS_clone3, vec![]), libc::ENOSYS)?)?;
    apply_filter_all_threads(&program(denied()?, libc::EPERM)?)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn one(call: libc::c_long, rules: Vec<SeccompRule>) -> Rules {
    BTreeMap::from([(call, rules.clone()), (call | X32, rules)])
}

fn denied() -> Result<Rules, seccompiler::BackendError> {
    let mut all = Rules::new();
    for call in DENIED.iter().chain(DENIED_OLD) {
        all.append(&mut one(*call, vec![]));
    }
    let when = |argument: u8, length, operator, value: u64| {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
    };
    // Threads yes, processes no.
    let thread = libc::CLONE_THREAD as u64;
    all.append(&mut one(libc::SYS_clone, vec![when(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?]));
    // A process may abort itself; nobody else.
    let own = u64::from(std::process::id());
    all.append(&mut one(libc::SYS_tgkill, vec![when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?]));
    // Limits can be read, not set.
    all.append(&mut one(libc::SYS_prlimit64, vec![when(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?]));
    Ok(all)
}

fn program(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let deny = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, deny, arch)?.try_into()
}
