//! Renames a file without replacing another (renameat2(2), Linux 3.15). Not every C library has a function for it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `RENAME_NOREPLACE` (`include/uapi/linux/fs.h`).
const NO_REPLACE: libc::c_uint = 1;

/// Renames; `AlreadyExists` where `to` is there.
///
/// # Errors
/// The error of the system; `InvalidInput` where the file system does not know the flag.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    let cwd = libc::AT_FDCWD;
    // SAFETY: both strings end in a NUL and live through the call, which reads them only.
    let rc = unsafe { libc::syscall(libc::SYS_renameat2, cwd, from.as_ptr(), cwd, to.as_ptr(), NO_REPLACE) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), "a").unwrap();
        std::fs::write(at("b"), "b").unwrap();
        assert_eq!(rename_new(&at("a"), &at("b")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        rename_new(&at("a"), &at("c")).unwrap();
        assert_eq!(std::fs::read(at("c")).unwrap(), b"a");
        assert_eq!(std::fs::read(at("b")).unwrap(), b"b");
        assert_eq!(rename_new(&at("none"), &at("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(rename_new(Path::new("a\0b"), &at("d")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
