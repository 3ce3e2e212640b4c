//! Notices what other programs do to a file that is being written: append to it, cut it, write over it, or move it away.
//!
//! Only logweir should write to its data directory, but others do: `echo >> current-0`, logrotate, a backup that is restored.
//! Then the server cuts nothing that it did not write, and acknowledges nothing that such a change may have removed.

use super::disk::{DiskFile, read_full};
use super::{Context, LogError};
use crate::host::mutants::mutant;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;

/// Bytes read at a time.
const READ: usize = 64 << 10;

/// What somebody else has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Somebody has appended. Our bytes are unchanged.
    Longer {
        /// Bytes that are ours.
        ours: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The file is shorter than what we wrote.
    Shorter {
        /// Bytes that were ours.
        ours: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Bytes that we wrote have changed.
    Overwritten,
    /// Its name is gone, or belongs to another file.
    Gone,
    /// Its trail was changed or is gone; the text is as it was.
    Trail,
}

impl Foreign {
    /// True if every byte that we wrote is still there, under our name.
    #[must_use]
    pub fn left_ours_alone(self) -> bool {
        matches!(self, Foreign::Longer { .. } | Foreign::Trail)
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Longer { ours, found } => {
                write!(f, "somebody else appended to it: logweir wrote {ours} bytes, it has {found}")
            }
            Foreign::Shorter { ours, found } => {
                write!(f, "somebody else has cut it: logweir wrote {ours} bytes, {found} are left")
            }
            Foreign::Overwritten => write!(f, "somebody else has written over its lines"),
            Foreign::Gone => write!(f, "somebody else has moved, replaced or deleted it"),
            Foreign::Trail => write!(f, "somebody else has changed or deleted its trail"),
        }
    }
}

/// Compares a file's length with what we wrote.
///
/// # Errors
/// The file cannot be looked at.
pub fn length(file: &dyn DiskFile, ours: u64) -> io::Result<Option<Foreign>> {
    if mutant!("counted_length_trusted") {
        return Ok(None);
    }
    let found = file.len()?;
    Ok(match found.cmp(&ours) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(Foreign::Longer { ours, found }),
        std::cmp::Ordering::Less => Some(Foreign::Shorter { ours, found }),
    })
}

/// Checks that the file still has its name and everything that we wrote. Nobody finds what is synced into a file without its name.
///
/// # Errors
/// It is not ([`LogError::Foreign`]), or cannot be looked at.
pub fn still_there(file: &dyn DiskFile, path: &Path, ours: u64) -> Result<(), LogError> {
    let foreign = match file.is_at(path).context("look at", path)? {
        false => Some(Foreign::Gone),
        true => length(file, ours).context("look at", path)?.filter(|what| !what.left_ours_alone()),
    };
    match foreign {
        Some(what) => Err(LogError::Foreign { path: path.to_path_buf(), what }),
        None => Ok(()),
    }
}

/// Cuts what a failed append of `batch` has left behind `ours`, and gives reserved room back. What is there and is not the
/// beginning of the batch is somebody else's: nothing is cut then.
///
/// # Errors
/// The file cannot be looked at or cut.
pub fn cut_back(file: &dyn DiskFile, ours: u64, batch: &[IoSlice<'_>]) -> io::Result<Option<Foreign>> {
    match length(file, ours)? {
        Some(Foreign::Longer { found, .. }) if begins(file, ours, found, batch)? => {}
        None => {}
        foreign => return Ok(foreign),
    }
    file.truncate(ours)?;
    Ok(None)
}

/// True if the bytes from `from` to `to` are the first ones of `batch`.
fn begins(file: &dyn DiskFile, from: u64, to: u64, batch: &[IoSlice<'_>]) -> io::Result<bool> {
    let mut buffer = vec![0; READ];
    let mut at = from;
    for piece in batch.iter().flat_map(|slice| slice.chunks(READ)) {
        let want = usize::try_from(to - at).unwrap_or(usize::MAX).min(piece.len());
        let n = read_full(file, &mut buffer[..want], at)?;
        if n < want || buffer[..n] != piece[..n] {
            return Ok(false);
        }
        at += n as u64;
        if at == to {
            return Ok(true);
        }
    }
    Ok(at == to)
}

/// The checksum of some bytes of a file, as far as it reaches.
///
/// # Errors
/// It cannot be read.
pub fn checksum(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<u32> {
    let mut buffer = vec![0; READ];
    let (mut at, mut crc) = (from, 0);
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(usize::MAX).min(READ);
        let n = read_full(file, &mut buffer[..want], at)?;
        if n == 0 {
            break;
        }
        crc = crate::log::checksum::crc32c_append(crc, &buffer[..n]);
        at += n as u64;
    }
    Ok(crc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::{Caching, Disk};
    use crate::log::real_disk::RealDisk;

    #[test]
    fn what_a_failed_append_left_is_cut_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = RealDisk::new().create_new(&path).unwrap();
        let append = |bytes: &[u8]| file.append(&[IoSlice::new(bytes)], Caching::Keep).unwrap();
        let batch = [IoSlice::new(b"one\n"), IoSlice::new(b"two\n")];
        append(b"ours\n");
        append(b"one\ntw");
        assert_eq!(cut_back(&*file, 5, &batch).unwrap(), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"ours\n");
        append(b"one\ntw");
        append(b"mark\n");
        assert_eq!(cut_back(&*file, 5, &batch).unwrap(), Some(Foreign::Longer { ours: 5, found: 16 }));
        assert_eq!(std::fs::read(&path).unwrap(), b"ours\none\ntwmark\n");
        file.truncate(3).unwrap();
        assert_eq!(cut_back(&*file, 5, &batch).unwrap(), Some(Foreign::Shorter { ours: 5, found: 3 }));
        assert_eq!(file.len().unwrap(), 3, "nothing is lengthened either");
    }

    #[test]
    fn a_file_that_was_moved_or_replaced_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("f"), dir.path().join("f.1"));
        let file = RealDisk::new().create_new(&path).unwrap();
        let gone = |ours| match still_there(&*file, &path, ours) {
            Err(LogError::Foreign { what, .. }) => Some(what),
            other => other.map(|()| None).unwrap(),
        };
        assert_eq!(gone(0), None);
        assert_eq!(gone(1), Some(Foreign::Shorter { ours: 1, found: 0 }));
        std::fs::hard_link(&path, &other).unwrap();
        assert_eq!(gone(0), None, "a second name takes nothing away");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(gone(0), Some(Foreign::Gone), "though it still has a name");
        std::fs::write(&path, "another").unwrap();
        assert_eq!(gone(0), Some(Foreign::Gone));
    }
}
