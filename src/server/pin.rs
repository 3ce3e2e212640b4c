//! Starts threads with names, on the CPUs of the plan.

use crate::host::sys::prefer_node;
use crate::host::topology::ShardPlan;
use crate::pipeline::control::Notice;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// Pins this thread to these CPUs; with none it may run anywhere. If that fails, it logs a warning and goes on.
fn stay_on(cpus: &[usize]) {
    if cpus.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    let pinned = cpus.iter().try_for_each(|cpu| set.set(*cpu)).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        let thread = std::thread::current();
        tracing::warn!(thread = thread.name(), ?cpus, %error, "cannot pin; the kernel places this thread");
    }
}

/// Where a thread belongs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place<'a> {
    /// CPUs; none: any.
    pub cpus: &'a [usize],
    /// The node of its memory.
    pub node: Option<usize>,
}

impl ShardPlan {
    /// The place of a writer and its helpers.
    pub fn writer_place(&self) -> Place<'_> {
        Place { cpus: &self.writer, node: self.node }
    }
}

impl Place<'_> {
    fn take(self) {
        stay_on(self.cpus);
        if self.node.is_some() {
            prefer_node(self.node);
        }
    }
}

/// Runs `body` on these CPUs and this node, with the memory that it touches and the threads that it starts. Then goes back.
pub fn placed<T>(place: Place<'_>, body: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(Pid::from_raw(0));
    if before.is_err() {
        return body(); // no way back from there
    }
    place.take();
    let result = body();
    if place.node.is_some() {
        prefer_node(None);
    }
    if let (false, Ok(before)) = (place.cpus.is_empty(), before) {
        let _ = sched_setaffinity(Pid::from_raw(0), &before); // where it came from
    }
    result
}

/// Starts a thread in its place that sends what `body` returns, or that it panicked.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    name: String,
    place: Place<'_>,
    notices: Sender<Notice>,
    body: impl FnOnce() -> Notice + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (cpus, node) = (place.cpus.to_vec(), place.node);
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        Place { cpus: &cpus, node }.take();
        let notice = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Notice::Died(name));
        // Sending fails only when the process is ending.
        let _ = notices.send(notice);
    })
}
