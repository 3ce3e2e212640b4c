//! Tells which mount a directory is on, by an id that is never used again during one boot.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8, `include/uapi/linux/stat.h`): unlike `STATX_MNT_ID` it is not reused after an unmount.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// The unique id of the mount that holds `path`, or 0 where the kernel (before 6.8) cannot tell or `path` is not there.
///
/// Same boot and same mount mean that the page cache that a killed process left behind is still whole.
#[must_use]
pub fn mount_id(path: &Path) -> u64 {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return 0 };
    let mut answer = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` is NUL-terminated and lives through the call; `answer` is writable memory of the size of a statx.
    let rc = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, STATX_MNT_ID_UNIQUE, answer.as_mut_ptr()) };
    if rc != 0 {
        return 0;
    }
    // SAFETY: it was zeroed before the call, and all-zero bytes are a valid `statx`: plain integers only.
    let answer = unsafe { answer.assume_init() };
    if answer.stx_mask & STATX_MNT_ID_UNIQUE == 0 { 0 } else { answer.stx_mnt_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_at_one_directory_agree_and_a_missing_one_is_zero() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mount_id(dir.path()), mount_id(dir.path()));
        assert_eq!(mount_id(&dir.path().join("missing")), 0);
    }
}
