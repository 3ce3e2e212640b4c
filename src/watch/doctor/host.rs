//! What `doctor` reads of the host.

use crate::host::sys::{self, ClockState};
use crate::host::topology::{Live, Tree};
use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use crate::host::sys::Space;

/// Files, by [`Tree`], and what no file says.
pub trait Host: Tree {
    /// Names in a directory; empty: not there.
    fn list(&self, path: &str) -> Vec<String>;
    /// The nearest directory that exists, of `dir` and what is above it, without links.
    fn existing(&self, dir: &Path) -> PathBuf;
    /// Room of the file system that holds `dir`.
    fn space(&self, dir: &Path) -> Option<Space>;
    /// Whether io_uring works, by a real accept and receive.
    ///
    /// # Errors
    /// Why not.
    fn io_uring(&self) -> Result<(), String>;
    /// Whether a file in `dir` can be written with `RWF_DONTCACHE`, by a real write; `None`: that could not be tried.
    fn dont_cache(&self, dir: &Path) -> Option<bool>;
    /// The kernel's word on its clock.
    fn clock(&self) -> Option<ClockState>;
}

/// This machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiveHost;

impl Tree for LiveHost {
    fn read(&self, path: &str) -> Option<String> {
        Live.read(path)
    }
}

impl Host for LiveHost {
    fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(format!("/{path}"));
        let names = entries.into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn existing(&self, dir: &Path) -> PathBuf {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let whole = here.join(dir);
        whole.ancestors().find_map(|d| d.canonicalize().ok()).unwrap_or(whole)
    }

    fn space(&self, dir: &Path) -> Option<Space> {
        sys::space(dir).ok()
    }

    fn io_uring(&self) -> Result<(), String> {
        // In a thread of its own: a ring belongs to the thread that made it.
        let attempt = std::thread::spawn(crate::intake::net::probe);
        attempt.join().map_err(|_| "the probe failed".to_string())?.map_err(|error| error.to_string())
    }

    fn dont_cache(&self, dir: &Path) -> Option<bool> {
        let file = nameless_file(dir, libc::O_APPEND).ok()?;
        match sys::append_vectored(file.as_fd(), &[IoSlice::new(b"probe\n")], true) {
            Ok(_) => Some(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Some(false),
            Err(_) => None,
        }
    }

    fn clock(&self) -> Option<ClockState> {
        sys::clock_state()
    }
}

/// A file without a name: gone when it is closed, however the process ends.
///
/// # Errors
/// The directory is missing or not ours, or its file system has no such files.
pub(super) fn nameless_file(dir: &Path, flags: i32) -> io::Result<std::fs::File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE | flags).open(dir)
}
