//! The commit log of a reactor, on disk: a file of fixed size, its blocks written before and overwritten in a circle. What it holds is
//! durable before the writer has it in a segment. A record is about lines, not places: which stream they belong to, never where in a
//! file they stand. The trails of segments name the records that they contain (see [`super::trail::What::Logged`]).

pub mod generation;
pub mod record;
pub mod recover;
pub mod scan;

use super::trail::{Record, What};
use std::path::{Path, PathBuf};

/// The directory of the commit logs, beneath `.logweir/`.
pub const DIR: &str = "commit";

/// How the trail of a segment names lines that are in a commit log too: all of the stream that this reactor has logged in this
/// generation, up to this record, is in the segment or in one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The run of the server.
    pub generation: u64,
    /// Number of the reactor, over all shards.
    pub reactor: u16,
    /// The last record.
    pub through: u64,
}

impl Named {
    /// The record of a trail that says so, of a write.
    #[must_use]
    pub fn record(&self, offset: u64, len: u64, crc: u32) -> Record {
        let (lines, wall_ns, mono_ns) = (u32::from(self.reactor), self.generation, self.through);
        Record { what: What::Logged, offset, len, lines, crc, wall_ns, mono_ns }
    }
}

/// Bytes of a log with `storage.commit_log = "auto"`.
pub const AUTO_BYTES: u64 = 16 << 20;

/// The file of one reactor's log.
#[must_use]
pub fn path(data_dir: &Path, reactor: u16) -> PathBuf {
    data_dir.join(super::data_dir::STATE_DIR).join(DIR).join(reactor.to_string())
}
