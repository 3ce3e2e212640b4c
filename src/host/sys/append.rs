//! Appends with `pwritev2` and `RWF_DONTCACHE` to an `O_APPEND` file.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `RWF_DONTCACHE` (Linux 6.14, `include/uapi/linux/fs.h`): write through the page cache and drop the pages again.
const RWF_DONTCACHE: libc::c_int = 0x80;

/// `IOV_MAX` on Linux (`limits.h`, `UIO_MAXIOV`): more slices than this in one call are refused with `EINVAL`.
pub const MAX_SLICES: usize = 1024;

/// Appends `slices` to an `O_APPEND` file in one call and returns the bytes the kernel took, which may be fewer.
///
/// With `dont_cache` the kernel answers `EOPNOTSUPP` where kernel or file system lack it; the caller then leaves it out.
/// More than [`MAX_SLICES`] slices are cut to the first `MAX_SLICES`.
///
/// # Errors
/// The error of `pwritev2(2)`, `EINTR` included.
pub fn append_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>], dont_cache: bool) -> io::Result<usize> {
    let count = slices.len().min(MAX_SLICES);
    let flags = if dont_cache { RWF_DONTCACHE } else { 0 };
    // SAFETY: `IoSlice` is guaranteed to be ABI compatible with `iovec`; `slices` holds at least `count` of them and
    // borrows the memory they point to for the whole call; the descriptor is borrowed and so open. The kernel only
    // reads. Offset -1 means "the file position", which O_APPEND overrides with the end of the file.
    let n = unsafe {
        libc::pwritev2(fd.as_raw_fd(), slices.as_ptr().cast::<libc::iovec>(), count as libc::c_int, -1, flags)
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// Writes `bytes` at `offset` and waits until they are durable (`RWF_DSYNC`, Linux 4.7). Returns the bytes written.
///
/// # Errors
/// The error of `pwritev2(2)`.
pub fn write_synced(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: one iovec that covers `bytes`, which is borrowed for the whole call and only read; the descriptor is open.
    let n = unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const slice, 1, offset as libc::off_t, libc::RWF_DSYNC) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn slices_land_in_order_behind_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"a\n").unwrap();
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let n = append_vectored(file.as_fd(), &[IoSlice::new(b"b\n"), IoSlice::new(b"c\n")], false).unwrap();
        assert_eq!(n, 4);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\nc\n");
    }

    #[test]
    fn more_slices_than_the_kernel_takes_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let slices: Vec<IoSlice<'_>> = (0..MAX_SLICES + 5).map(|_| IoSlice::new(b"x")).collect();
        assert_eq!(append_vectored(file.as_fd(), &slices, false).unwrap(), MAX_SLICES);
    }

    #[test]
    fn a_synced_write_lands_at_its_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(write_synced(file.as_fd(), b"xy", 3).unwrap(), 2);
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0xy");
    }

    #[test]
    fn an_error_of_the_kernel_is_returned() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = append_vectored(file.as_fd(), &[IoSlice::new(b"x")], false).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
