//! The files: segments, their trails, rotation, recovery. It knows no network and no threads.
//!
//! Every access goes through [`disk::Disk`], so that tests can simulate a power cut at any call.

pub mod archive;
pub mod cat;
pub mod catalogue;
pub mod checksum;
pub mod commit;
pub mod content;
pub mod data_dir;
pub mod direct;
pub mod disk;
pub mod foreign;
pub mod holds;
pub mod import;
pub mod names;
pub mod real_disk;
pub mod recover;
pub mod retention;
pub mod retired;
pub mod seekable;
pub mod segment;
pub mod ship;
pub mod stream_dir;
pub mod timeline;
pub mod trail;
pub mod trail_writer;
pub mod verify;
pub mod whole_lines;

use std::io;
use std::path::PathBuf;

/// What can go wrong with the files, with the file it went wrong on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A system call failed.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "sync".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// Something else is where a directory should be.
    #[error("{} is not a directory, or points to none; move it away, or choose another directory", path.display())]
    NoDirectory {
        /// What is there.
        path: PathBuf,
    },
    /// Another server has the data directory.
    #[error("data directory {} is in use by another logweir (it holds the lock on {}); stop that one or use another --data-dir", dir.display(), lock.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// Recovery found durable bytes that have changed, and `strict` is set.
    #[error("damage in {}: {detail}; set storage.strict = false to start anyway and keep the file as it is", path.display())]
    Damage {
        /// The segment.
        path: PathBuf,
        /// What does not match.
        detail: String,
    },
    /// Somebody else has changed a file that is being written.
    #[error("{}: {what}; nothing but logweir may write to its data directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was done to it.
        what: foreign::Foreign,
    },
    /// A file of `.logweir/` does not hold what it should.
    #[error("{} does not hold {expected}; something other than logweir has changed it: {way_out}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// Two files contradict each other.
    #[error("{}: {detail}; {way_out}", path.display())]
    Contradiction {
        /// One of them.
        path: PathBuf,
        /// What the other says.
        detail: String,
        /// What to do.
        way_out: &'static str,
    },
}

impl LogError {
    /// The system error beneath, if there is one.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            LogError::Io { error, .. } => Some(error),
            _ => None,
        }
    }

    /// True where it was not the disk that failed: somebody else has changed the file.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self, LogError::Foreign { .. })
    }

    /// True where a file or directory is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.io().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    /// True where there is no room, which passes by itself.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.io().is_some_and(is_full)
    }
}

/// True for the errors that mean "no room": `ENOSPC`, `EDQUOT`.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Turns an `io::Error` into a [`LogError`] with its file.
pub(crate) trait Context<T> {
    /// Adds what was tried, and on what.
    fn context(self, what: &'static str, path: &std::path::Path) -> Result<T, LogError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &'static str, path: &std::path::Path) -> Result<T, LogError> {
        self.map_err(|error| LogError::Io { what, path: path.to_path_buf(), error })
    }
}
