//! seccomp: the system calls that the server may make (seccomp(2)). All others return `EPERM`. So if a call is missing from the
//! list, it fails like one that the system refuses, and the server handles it as such.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Files: segments, trails, symlinks, directories.
const FILES: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_copy_file_range,
    libc::SYS_openat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
];

/// Sockets, but for making them.
const SOCKETS: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // To find out whether a socket file is somebody's still.
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
];

/// Threads, memory, time, and what the C library does by itself.
const OTHERS: &[c_long] = &[
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    // Answered with ENOSYS by the other filter, so that the C library takes `clone`, whose flags can be looked at.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill, // to itself: abort(3), in musl by the next one
    libc::SYS_tkill,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_getcpu,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older names of the same calls, which this architecture also has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_symlink,
    libc::SYS_link,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_getdents,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_create,
    libc::SYS_poll,
    libc::SYS_eventfd,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_getrlimit,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// What the engine on io_uring needs once its rings are made.
const RING: &[c_long] = &[libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// What a shipper needs besides: it is woken by inotify.
const SHIPPER: &[c_long] = &[
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_socketpair,
    libc::SYS_clock_getres,
];

/// Filters the calls of all threads, for good.
///
/// # Errors
/// In words. Nothing is filtered then.
pub fn confine_calls(has_ring: bool) -> Result<(), String> {
    confine(if has_ring { RING } else { &[] })
}

/// As [`confine_calls`], for a program that ships.
///
/// # Errors
/// In words. Nothing is filtered then.
pub fn confine_shipper_calls() -> Result<(), String> {
    confine(SHIPPER)
}

fn confine(more: &[c_long]) -> Result<(), String> {
    // Every filter is asked, and the strictest answer counts.
    for filter in [no_clone3()?, allowed(more)?] {
        seccompiler::apply_filter_all_threads(&filter).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn compile(rules: Rules, otherwise: SeccompAction, matching: SeccompAction) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|e| format!("{e:?}"))?;
    let filter = SeccompFilter::new(rules, otherwise, matching, arch).map_err(|e| e.to_string())?;
    filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())
}

fn no_clone3() -> Result<BpfProgram, String> {
    let rules = Rules::from([(libc::SYS_clone3, Vec::new())]);
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn allowed(more: &[c_long]) -> Result<BpfProgram, String> {
    let mut rules = Rules::new();
    for call in [FILES, SOCKETS, OTHERS, OLDER, more].into_iter().flatten() {
        rules.insert(*call, Vec::new());
    }
    let when = |arg: u8, op: Op, value: u64| -> Result<SeccompRule, String> {
        let condition = SeccompCondition::new(arg, Len::Dword, op, value).map_err(|e| e.to_string())?;
        SeccompRule::new(vec![condition]).map_err(|e| e.to_string())
    };
    let is_one_of =
        |arg: u8, values: &[u64]| values.iter().map(|v| when(arg, Op::Eq, *v)).collect::<Result<Vec<_>, _>>();
    // Threads, never processes.
    let threads = when(0, Op::MaskedEq(libc::CLONE_THREAD as u64), libc::CLONE_THREAD as u64)?;
    rules.insert(libc::SYS_clone, vec![threads]);
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(|family: c_int| family as u64);
    rules.insert(libc::SYS_socket, is_one_of(0, &families)?);
    #[allow(clippy::unnecessary_cast)] // they are of another type with musl
    let requests = [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TCGETS].map(|request| request as u64);
    rules.insert(libc::SYS_ioctl, is_one_of(1, &requests)?);
    rules.insert(libc::SYS_prctl, is_one_of(0, &[libc::PR_SET_NAME as u64])?);
    compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On one thread only: filters are for good.
    #[test]
    fn what_a_server_has_no_use_for_is_refused() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for filter in [no_clone3().unwrap(), allowed(&[]).unwrap()] {
                    seccompiler::apply_filter(&filter).unwrap();
                }
                let refused = |result: std::io::Result<()>| {
                    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
                };
                refused(std::process::Command::new("true").spawn().map(drop));
                refused(socket2::Socket::new(libc::AF_NETLINK.into(), socket2::Type::RAW, None).map(drop));
                refused(io_uring::IoUring::new(2).map(drop));
                refused(nix::unistd::chroot("/").map_err(std::io::Error::from));
                // And what it needs goes on.
                std::thread::spawn(|| std::fs::read("/proc/self/status").unwrap()).join().unwrap();
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().set_nonblocking(true).unwrap();
            });
        });
        std::process::Command::new("true").status().unwrap();
    }
}
