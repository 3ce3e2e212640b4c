//! How far a commit log is, for the keeper: it deletes no segment before the log says durably that the lines in it are no longer needed
//! there. Otherwise recovery would bring deleted lines back.

use crate::host::sync::{AtomicBool, AtomicU64, Ordering};

/// See the module documentation.
#[derive(Debug)]
pub struct Progress {
    next: AtomicU64,
    marked: AtomicU64,
    is_over: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { next: AtomicU64::new(1), marked: AtomicU64::new(1), is_over: AtomicBool::new(false) }
    }
}

impl Progress {
    pub(super) fn set_next(&self, sequence: u64) {
        self.next.store(sequence, Ordering::SeqCst);
    }

    pub(super) fn set_marked(&self, sequence: u64) {
        self.marked.store(sequence, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// The sequence that the next record will have.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Nothing before this record is needed, and the log says so durably.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.marked.load(Ordering::SeqCst)
    }

    /// The log was given up, and nothing of it is needed any more; but it cannot say so. Its file must go.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}
