//! How streams are kept, and the counts of what was done.

use super::targets::TargetHold;
use crate::log::archive::Shelf;
use crate::log::retention::Limits;
use crate::log::ship::lag::Behind;
use crate::log::ship::status::Status;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

/// How one stream is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStream {
    /// Its name.
    pub name: String,
    /// Its directory, and where sealed segments go.
    pub shelf: Shelf,
    /// When they are deleted. Here `max_bytes` is for sealed segments only: the largest size of the files being written is subtracted.
    pub limits: Limits,
    /// Targets that get it.
    pub targets: Vec<TargetHold>,
}

/// The counts of one stream: what was done, and what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Segments deleted, by reason: `max_age`, `max_bytes`, `min_free`, `unfinished` (what a crash had left half deleted).
    pub deleted: BTreeMap<&'static str, u64>,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Segments compressed.
    pub compressed: u64,
    /// Bytes of them before.
    pub text_bytes: u64,
    /// And after.
    pub packed_bytes: u64,
    /// Bytes moved to `sealed_dir`.
    pub moved_bytes: u64,
    /// Steps that failed. They are tried again.
    pub failures: u64,
    /// Bytes of all files of the stream.
    pub bytes: u64,
    /// Sealed segments.
    pub segments: u64,
}

/// The streams that are kept; a reload changes them.
pub type KeptStreams = Arc<RwLock<Vec<KeptStream>>>;
/// How shipping to a target stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetState {
    /// What was written and is not there yet.
    pub behind: Behind,
    /// How old the oldest of that was when the keeper looked, in nanoseconds.
    pub age_ns: u64,
    /// What its shipper says; `None`: it never ran.
    pub status: Option<Status>,
    /// Its shipper runs.
    pub is_up: bool,
    /// Retention would delete something that it has not got.
    pub is_holding: bool,
    /// What was deleted before it was there, since the server's start: lines, as far as trails say, and bytes of files.
    pub lost: (u64, u64),
}

/// What the keeper tells.
#[derive(Debug, Default)]
pub struct Told {
    /// Counts, by stream.
    pub streams: Mutex<BTreeMap<String, Kept>>,
    /// Targets, by name.
    pub targets: Mutex<BTreeMap<String, TargetState>>,
}

/// Shared with whoever shows it.
pub type KeptCounts = Arc<Told>;
