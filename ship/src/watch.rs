//! Wakes the shipper when something in the directories of streams has changed, and not before.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// See the module documentation.
pub struct Watch {
    inotify: Inotify,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    pub fn new() -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Watch { inotify, watched: BTreeSet::new() })
    }

    /// Watches a directory, once.
    pub fn add(&mut self, dir: &Path) -> io::Result<()> {
        if self.watched.insert(dir.to_path_buf()) {
            let what = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            self.inotify.add_watch(dir, what)?;
        }
        Ok(())
    }

    /// Waits until something has changed or `other` can be read, at most so long. True: `other` can be read.
    pub fn wait(&self, other: BorrowedFd<'_>, at_most: Option<Duration>) -> io::Result<bool> {
        let timeout = at_most.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
        let mut all = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN), PollFd::new(other, PollFlags::POLLIN)];
        match poll(&mut all, timeout) {
            Err(Errno::EINTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let is_called = all[1].any().unwrap_or(false);
        // What it says is not looked at: everything is looked at when something has changed.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        Ok(is_called)
    }

    /// Waits for `other` alone. True: it can be read.
    pub fn wait_only(&self, other: BorrowedFd<'_>, at_most: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let mut all = [PollFd::new(other, PollFlags::POLLIN)];
        match poll(&mut all, timeout) {
            Err(Errno::EINTR) | Ok(_) => Ok(all[0].any().unwrap_or(false)),
            Err(error) => Err(error.into()),
        }
    }
}
