//! Threads with names and, if configured, cores.

use crate::control::Notice;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// Cores for threads, in turn.
pub struct Cores {
    list: Vec<usize>,
    next: usize,
}

impl Cores {
    /// Empty: the kernel's choice.
    pub fn new(list: &[usize]) -> Self {
        Cores { list: list.to_vec(), next: 0 }
    }

    /// The next thread's core.
    pub fn next(&mut self) -> Option<usize> {
        let core = self.list.get(self.next % self.list.len().max(1)).copied();
        self.next += 1;
        core
    }
}

/// Starts a thread that sends what `body` returns, or that it panicked.
///
/// # Errors
/// No thread can be had.
pub fn spawn(
    name: String,
    core: Option<usize>,
    notices: Sender<Notice>,
    body: impl FnOnce() -> Notice + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        if let Some(core) = core {
            let mut set = CpuSet::new();
            let pinned = set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
            if let Err(error) = pinned {
                tracing::warn!(thread = name, core, %error, "cannot pin; the kernel places this thread");
            }
        }
        let notice = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Notice::Died(name));
        // Nobody listens any more only when the process is ending.
        let _ = notices.send(notice);
    })
}
