//! The service manager (systemd, or whatever speaks its protocol): what it is told (sd_notify(3)), the watchdog, sockets
//! that come from it (sd_listen_fds(3)) and those it keeps over a restart (`FileDescriptorStoreMax=`).
//!
//! Without a manager nothing here does anything.

use crate::sys::inherited_sockets;
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// The name under which the admin socket is kept; no listener can be called so.
pub const ADMIN: &str = "@admin";

/// The manager, if there is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manager {
    is_there: bool,
    watchdog: Option<Duration>,
}

/// A socket from the manager.
#[derive(Debug)]
pub struct Inherited {
    /// Its name: `FileDescriptorName=`, or what we kept it as.
    pub name: String,
    /// The socket.
    pub socket: Socket,
}

impl Manager {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    #[must_use]
    pub fn from_environment() -> Manager {
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some();
        Manager { is_there, watchdog: sd_notify::watchdog_enabled().filter(|_| is_there) }
    }

    /// True if somebody listens.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// How often a sign of life is wanted at least; `None`: it is not.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(state)
        {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }

    /// The server takes lines (again).
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read again; [`Manager::ready`] must follow.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")])
            }
            Err(error) => tracing::warn!(%error, "the service manager cannot be told"),
        }
    }

    /// The end has begun.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// What is going on, for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// Every part has given a sign of life.
    pub fn alive(&self, status: &str) {
        self.tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }

    /// Has sockets kept while this process is replaced by another.
    pub fn keep<'a>(&self, name: &str, sockets: impl Iterator<Item = &'a Socket>) {
        if !self.is_there {
            return;
        }
        // One message for each: a message takes a limited number of descriptors (SCM_MAX_FD, unix(7)).
        for socket in sockets {
            let state = [NotifyState::FdStore, NotifyState::FdName(name)];
            if let Err(error) = sd_notify::notify_with_fds(&state, &[socket.as_fd()]) {
                tracing::warn!(name, %error, "the service manager does not keep this socket: a restart closes it");
            }
        }
    }

    /// Nobody needs the sockets kept under this name any more.
    pub fn forget(&self, name: &str) {
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }
}

/// The sockets that the manager has passed.
///
/// # Errors
/// The announcement is malformed.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    Ok(inherited_sockets()?.into_iter().map(|(name, socket)| Inherited { name, socket }).collect())
}

/// Takes those out that belong to a listener: by its name, else those bound to its address.
pub fn take_for(inherited: &mut Vec<Inherited>, name: &str, address: Option<&SockAddr>) -> Vec<Socket> {
    let is_named = inherited.iter().any(|i| i.name == name);
    let belongs = |i: &Inherited| {
        if is_named { i.name == name } else { address.is_some_and(|a| is_bound_to(&i.socket, a)) }
    };
    let (taken, left) = std::mem::take(inherited).into_iter().partition(belongs);
    *inherited = left;
    Vec::into_iter(taken).map(|i| i.socket).collect()
}

fn is_bound_to(socket: &Socket, address: &SockAddr) -> bool {
    let Ok(local) = socket.local_addr() else { return false };
    match address.as_socket() {
        Some(wanted) => local.as_socket() == Some(wanted),
        None => {
            address.domain() == Domain::UNIX && local.as_pathname().is_some_and(|p| Some(p) == address.as_pathname())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen::bind_tcp;

    #[test]
    fn names_come_before_addresses() {
        let bound = || bind_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let ((mut a, at_a), (mut b, at_b)) = (bound(), bound());
        let named = |name: &str, socket: Option<Socket>| Inherited { name: name.into(), socket: socket.unwrap() };
        let mut all = vec![named("lines", a.pop()), named("logweir.socket", b.pop())];
        assert_eq!(
            take_for(&mut all, "other", Some(&"127.0.0.1:1".parse::<std::net::SocketAddr>().unwrap().into())).len(),
            0
        );
        let lines = take_for(&mut all, "lines", Some(&at_b.into()));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].local_addr().unwrap().as_socket(), Some(at_a));
        assert_eq!(take_for(&mut all, "web", Some(&at_b.into())).len(), 1);
        assert!(all.is_empty());
    }
}
