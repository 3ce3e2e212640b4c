//! Gives the calling thread the lowest priority.

use std::io;

/// `IOPRIO_WHO_PROCESS`, `IOPRIO_CLASS_IDLE`, `IOPRIO_CLASS_SHIFT` (`include/uapi/linux/ioprio.h`), for which libc has no names.
const WHO_PROCESS: libc::c_int = 1;
const CLASS_IDLE: libc::c_int = 3;
const CLASS_SHIFT: libc::c_int = 13;

/// Gives this thread the CPU and the disk only when no other thread wants them (nice 19, idle I/O class). Returns false where that is
/// not allowed; the thread then has normal priority.
pub fn lowest_priority() -> bool {
    // SAFETY: both take numbers only; 0 is the calling thread (setpriority(2), "C library/kernel differences"; ioprio_set(2)).
    let (nice, io) = unsafe {
        (
            libc::setpriority(libc::PRIO_PROCESS, 0, 19),
            libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE << CLASS_SHIFT),
        )
    };
    if nice != 0 || io != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "housekeeping runs at normal priority");
    }
    nice == 0 && io == 0
}

#[cfg(test)]
mod tests {
    /// It is the thread's own: another one stays as it was.
    #[test]
    fn only_this_thread_gives_way() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = nice();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                super::lowest_priority();
                assert_eq!(nice(), 19);
            });
        });
        assert_eq!(nice(), before);
    }
}
