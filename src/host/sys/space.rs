//! Tells how much room a file system has.

use std::io;
use std::path::Path;

/// What `statvfs(3)` says, made sense of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free for us.
    pub free: u64,
    /// Inodes in all; 0: made as needed.
    pub inodes: u64,
    /// Inodes free for us.
    pub inodes_free: u64,
}

/// Room in the file system that holds `path`.
///
/// # Errors
/// `statvfs(3)` failed.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let unit = stat.fragment_size() as u64;
    Ok(Space {
        total: count(stat.blocks() as u64).saturating_mul(unit),
        free: count(stat.blocks_available() as u64).saturating_mul(unit),
        inodes: count(stat.files() as u64),
        inodes_free: count(stat.files_available() as u64),
    })
}

/// Takes a negative amount as none. A full file system that has used its reserve reports a number below zero, but the fields of
/// `statvfs` have no sign.
fn count(told: u64) -> u64 {
    if i64::try_from(told).is_ok() { told } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen on full ext4 and xfs.
    #[test]
    fn less_than_none_is_none() {
        assert_eq!((count(0), count(7), count(i64::MAX as u64)), (0, 7, i64::MAX as u64));
        assert_eq!((count(5_u64.wrapping_neg()), count(u64::MAX), count(1 << 63)), (0, 0, 0));
    }

    #[test]
    fn no_more_is_free_than_there_is() {
        let space = space(Path::new(".")).unwrap();
        assert!(space.free <= space.total && space.total > 0, "{space:?}");
    }
}
