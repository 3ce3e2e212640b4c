//! Takes the descriptors that the service manager has passed to this process (sd_listen_fds(3)).

use socket2::Socket;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes them over, each with its name. Once in a process: a second call finds none.
///
/// # Errors
/// The variables that announce them (`LISTEN_FDS`, `LISTEN_FDNAMES`) are not as they should be, or a descriptor is not open.
pub fn inherited_sockets() -> io::Result<Vec<(String, Socket)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let found = sd_notify::listen_fds_with_names()?;
    // SAFETY: LISTEN_PID names this process, so the manager opened these descriptors for it and nobody else in it owns them
    // (they are open: setting their close-on-exec flag has just succeeded); `TAKEN` keeps them from being taken twice.
    Ok(found.map(|(fd, name)| (name, unsafe { Socket::from_raw_fd(fd) })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Owned twice they would be closed twice, the second time as somebody else's.
    #[test]
    fn they_are_taken_once() {
        let _first = inherited_sockets().unwrap();
        assert!(inherited_sockets().unwrap().is_empty());
    }
}
