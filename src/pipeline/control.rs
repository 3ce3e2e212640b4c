//! What the control thread tells the other threads, and what they tell it.

use crate::host::mutants::mutant;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A message to the control thread.
#[derive(Debug)]
pub enum Notice {
    /// A signal arrived.
    Signal(i32),
    /// Standard input has ended and everything of it is in chunks.
    StdinEnded,
    /// A reactor or acceptor has ended.
    ReactorEnded(Result<(), String>),
    /// A writer has ended; true: everything is durable and sealed.
    WriterEnded(bool),
    /// A thread panicked: a bug. The process must not go on as if it were whole.
    Died(String),
}

/// Why the server is not ready for new lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The disk failed twice.
    DiskFailed,
    /// An orderly end is near, or under way.
    ShuttingDown,
    /// Recovery is not done, or not all listeners are open.
    Starting,
    /// A writer waits for room, or the start does.
    DiskFull,
}

impl NotReady {
    /// The text for a probe.
    #[must_use]
    pub fn line(self) -> &'static str {
        match self {
            NotReady::DiskFailed => "disk failed\n",
            NotReady::ShuttingDown => "shutting down\n",
            NotReady::Starting => "starting\n",
            NotReady::DiskFull => "disk full\n",
        }
    }
}

/// Flags shared by all threads of a server. Whoever sets one wakes those who should see it.
#[derive(Debug, Default)]
pub struct Control {
    /// An orderly end is near: not ready any more, but serving still.
    leaving: AtomicBool,
    /// Reactors: stop accepting, take in what was received, end.
    draining: AtomicBool,
    /// Writers: reactors are gone; write, sync and seal everything, end.
    finish: AtomicBool,
    /// The time for reactors to drain is over: they stop.
    abandon_reactors: AtomicBool,
    /// The time for writers is over too.
    abandon_writers: AtomicBool,
    /// Everything is sealed: housekeeping finishes and ends.
    tidying: AtomicBool,
    /// Counts SIGUSR1.
    rotations_asked: AtomicU64,
    /// Counts the pings of the watchdog, which every reactor and writer answers.
    pings: AtomicU64,
    /// All listeners are open and recovery is done.
    started: AtomicBool,
    /// The disk failed twice: nothing is taken in any more.
    stopped: AtomicBool,
    /// Writers that wait for room.
    full_writers: AtomicU64,
    stopped_because: Mutex<String>,
}

macro_rules! flag {
    ($set:ident, $get:ident, $field:ident, $doc:literal) => {
        #[doc = concat!("Sets: ", $doc)]
        pub fn $set(&self) {
            self.$field.store(true, Ordering::SeqCst);
        }
        #[doc = concat!("True: ", $doc)]
        #[must_use]
        pub fn $get(&self) -> bool {
            self.$field.load(Ordering::SeqCst)
        }
    };
}

impl Control {
    flag!(leave, leaving, leaving, "an orderly end is near: readiness fails, clients are asked to go elsewhere.");
    flag!(drain, draining, draining, "reactors stop accepting, take in what was received, and end.");
    flag!(finish, finishing, finish, "writers write, sync and seal everything, and end.");
    flag!(abandon_reactors, reactors_abandoned, abandon_reactors, "the time for reactors to drain is over.");
    flag!(abandon_writers, writers_abandoned, abandon_writers, "the time for writers to write, sync and seal is over.");
    flag!(tidy, tidying, tidying, "everything is sealed; housekeeping puts it away, and ends.");
    flag!(start, started, started, "the server takes lines.");

    /// Asks for a rotation.
    pub fn ask_rotation(&self) {
        self.rotations_asked.fetch_add(1, Ordering::SeqCst);
    }

    /// How many rotations were asked for.
    #[must_use]
    pub fn rotations_asked(&self) -> u64 {
        self.rotations_asked.load(Ordering::SeqCst)
    }

    /// Pings every reactor and writer, and returns the number that they answer with. Those that sleep must be woken.
    pub fn ping(&self) -> u64 {
        self.pings.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The number of the last ping.
    #[must_use]
    pub fn pings(&self) -> u64 {
        self.pings.load(Ordering::SeqCst)
    }

    /// Stops intake for good. The first reason stays.
    pub fn stop_intake(&self, because: &str) {
        let mut reason = self.stopped_because.lock().unwrap_or_else(PoisonError::into_inner);
        if reason.is_empty() {
            *reason = because.to_string();
        }
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// True once intake has stopped for good.
    #[must_use]
    pub fn intake_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Notes that one more writer waits for room, or one less. The start counts as one.
    pub fn disk_full(&self, is_full: bool) {
        let change = if is_full { 1 } else { 1_u64.wrapping_neg() };
        self.full_writers.fetch_add(change, Ordering::SeqCst);
    }

    /// Why the server is not ready for lines; `None`: it is. All probes, on every address, get their answer from here.
    #[must_use]
    pub fn readiness(&self) -> Option<NotReady> {
        if self.intake_stopped() {
            Some(NotReady::DiskFailed)
        } else if self.draining() || self.leaving() {
            Some(NotReady::ShuttingDown)
        } else if self.full_writers.load(Ordering::SeqCst) > 0 && !mutant!("ready_on_a_full_disk") {
            Some(NotReady::DiskFull)
        } else if !self.started() {
            Some(NotReady::Starting)
        } else {
            None
        }
    }

    /// The same in words, with the reason of a failure.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let why = self.readiness()?.line().trim_end();
        if !self.intake_stopped() {
            return Some(why.into());
        }
        let reason = self.stopped_because.lock().unwrap_or_else(PoisonError::into_inner);
        Some(format!("{why}: {reason}"))
    }
}
