//! Appends past the page cache. Whole blocks go through an aligned copy and `O_DIRECT`; the rest goes through ordinary appends.
//!
//! Records do not end at block boundaries. So what is before the first boundary and behind the last one goes through the page
//! cache, in order. Every byte of a batch is in the file when the append returns, no byte is written twice, and a block is
//! written in one of the two ways at any time. There is one write at a time: several writes in flight that extend the file were
//! seen to show NULs to readers.

use crate::host::sys::{Piece, pieces};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Alignment of direct writes: the page, which no common device exceeds.
pub const BLOCK: usize = 4096;
/// Bytes of one direct write at most; larger ones were no faster (docs/decisions.md). Also the memory that each file takes
/// which is written so.
pub const STAGING_BYTES: usize = 512 << 10;

/// What direct appends need: a second descriptor of the file, and the aligned copy.
pub struct Direct {
    file: File,
    staging: Piece,
}

impl Direct {
    /// For a file that is open already.
    ///
    /// # Errors
    /// The file system knows no `O_DIRECT` (`EINVAL`), or there is no memory or descriptor.
    pub fn new(file: &File) -> io::Result<Direct> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = OpenOptions::new().append(true).custom_flags(OFlag::O_DIRECT.bits()).open(path)?;
        Ok(Direct { file, staging: pieces(1, STAGING_BYTES, false, None)?.remove(0) })
    }

    /// Appends the first whole blocks of `slices`. The end of the file must be a multiple of [`BLOCK`]; where somebody else moves
    /// it meanwhile the kernel says `EINVAL`, and nothing of theirs is written over. Returns the bytes written.
    ///
    /// # Errors
    /// The error of `pwrite(2)`.
    pub fn append(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut len = 0;
        for slice in slices {
            let n = slice.len().min(STAGING_BYTES - len);
            self.staging[len..len + n].copy_from_slice(&slice[..n]);
            len += n;
            if len == STAGING_BYTES {
                break;
            }
        }
        self.file.write(&self.staging[..len / BLOCK * BLOCK])
    }
}

/// How the next bytes of a batch are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// So many through the page cache: up to the next boundary, or the rest that fills no block.
    Cached(usize),
    /// Whole blocks directly.
    Direct,
}

/// How to write the next of `left` bytes at `end`.
#[must_use]
pub fn way(end: u64, left: usize) -> Way {
    let to_boundary = (BLOCK - (end % BLOCK as u64) as usize) % BLOCK;
    match to_boundary {
        0 if left >= BLOCK => Way::Direct,
        0 => Way::Cached(left),
        head => Way::Cached(head.min(left)),
    }
}

/// The first `len` bytes of `slices`.
#[must_use]
pub fn first<'a>(slices: &'a [IoSlice<'_>], mut len: usize) -> Vec<IoSlice<'a>> {
    let mut taken = Vec::new();
    for slice in slices {
        if len == 0 {
            break;
        }
        let n = slice.len().min(len);
        taken.push(IoSlice::new(&slice[..n]));
        len -= n;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_go_directly_and_the_rest_through_the_cache() {
        assert_eq!(way(0, 5000), Way::Direct);
        assert_eq!(way(4096, 904), Way::Cached(904));
        assert_eq!(way(5000, 100), Way::Cached(100));
        assert_eq!(way(5000, 100_000), Way::Cached(3192));
        assert_eq!(way(8192, 4096), Way::Direct);
    }

    #[test]
    fn the_first_bytes_may_end_inside_a_slice() {
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defg")];
        let taken = first(&slices, 5);
        assert_eq!(taken.iter().map(|s| s.to_vec()).collect::<Vec<_>>().concat(), b"abcde");
        assert!(first(&slices, 0).is_empty());
    }
}
