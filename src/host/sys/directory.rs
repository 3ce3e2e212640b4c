//! Reads the names in a directory (getdents64(2)). The reader of the standard library panics when closing the directory fails,
//! which can happen on network file systems and FUSE.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Bytes asked for at once.
const BUFFER: usize = 32 << 10;
/// `d_ino`, `d_off`, `d_reclen` and `d_type` come before the name.
const NAME: usize = 19;

/// The names that are UTF-8, in no order, without `.` and `..`.
///
/// # Errors
/// It cannot be opened or read, or it is not a directory.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let file = File::open(dir)?;
    let mut buffer = vec![0_u8; BUFFER];
    let mut names = Vec::new();
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, which lives through the call.
        let n = unsafe { libc::syscall(libc::SYS_getdents64, file.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        match n {
            0 => return Ok(names),
            n if n < 0 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            n => read_entries(&buffer[..n as usize], &mut names),
        }
    }
}

fn read_entries(mut entries: &[u8], names: &mut Vec<String>) {
    while entries.len() > NAME {
        let len = usize::from(u16::from_ne_bytes([entries[16], entries[17]]));
        if len <= NAME || len > entries.len() {
            return; // not from a kernel
        }
        let name = entries[NAME..len].split(|b| *b == 0).next().unwrap_or_default();
        if let Ok(name) = std::str::from_utf8(name)
            && !matches!(name, "." | "..")
        {
            names.push(name.to_string());
        }
        entries = &entries[len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_names_are_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected: Vec<String> = (0..2000).map(|i| format!("a rather long name of a file {i}")).collect();
        expected.iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
        expected.sort();
        let mut found = names(dir.path()).unwrap();
        found.sort();
        assert_eq!(found, expected);
        let file = names(&dir.path().join(&expected[0])).unwrap_err();
        assert_eq!(file.kind(), io::ErrorKind::NotADirectory);
        assert_eq!(names(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read_entries(&bytes, &mut Vec::new());
        }
    }
}
