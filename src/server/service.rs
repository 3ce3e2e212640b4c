//! The service manager (systemd, or another with its protocol): what the server tells it (sd_notify(3)), the watchdog, the
//! sockets that it passes (sd_listen_fds(3)), and the sockets that it keeps during a restart (`FileDescriptorStoreMax=`).
//!
//! Without a manager nothing here does anything.

use crate::host::address::Address;
use crate::host::sys::inherited_sockets;
use sd_notify::NotifyState;
use socket2::{Socket, Type};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// The name under which the manager keeps the admin socket. No listener can have this name.
pub const ADMIN: &str = "@@admin";

/// The manager, if there is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manager {
    is_there: bool,
    watchdog: Option<Duration>,
}

/// A socket from the manager.
#[derive(Debug)]
pub struct Inherited {
    /// Its name: `FileDescriptorName=`, or the one under which the manager has kept it.
    pub name: String,
    /// The socket.
    pub socket: Socket,
}

impl Manager {
    /// The manager that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    #[must_use]
    pub fn from_environment() -> Manager {
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some();
        Manager { is_there, watchdog: sd_notify::watchdog_enabled().filter(|_| is_there) }
    }

    /// True if there is a manager.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// How often the manager wants a sign of life at least. `None`: never.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(state)
        {
            tracing::warn!(%error, "cannot send a message to the service manager");
        }
    }

    /// Tells the manager that the server takes lines (again).
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Tells the manager that the configuration is being read again; [`Manager::ready`] must follow.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")])
            }
            Err(error) => tracing::warn!(%error, "cannot send a message to the service manager"),
        }
    }

    /// Tells the manager that the server is stopping.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// Sets the line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// Asks for so much time from now on before the start counts as hung (`EXTEND_TIMEOUT_USEC`, sd_notify(3)).
    pub fn more_time_to_start(&self, time: Duration) {
        self.tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// Feeds the watchdog.
    pub fn alive(&self, status: &str) {
        self.tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }

    /// Gives sockets to the manager, which keeps them while this process is replaced by another.
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

    /// Tells the manager to close the sockets that it keeps under this name.
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

/// True where the manager has passed sockets: what listens there already is ours.
#[must_use]
pub fn inherits() -> bool {
    std::env::var_os("LISTEN_FDS").is_some()
}

/// The name under which the manager keeps the sockets of a listener. No unit has such a name.
#[must_use]
pub fn kept_name(listener: &str) -> String {
    format!("@{listener}")
}

/// Removes and returns the sockets of a listener, with their names: those that a unit has given its name, else those bound to its address.
/// Sockets that were kept for it at another address are left over, because the configuration has changed.
pub fn take_for(inherited: &mut Vec<Inherited>, name: &str, address: &Address) -> Vec<Inherited> {
    let is_named = !name.starts_with('@') && inherited.iter().any(|i| i.name == name);
    let is_any = matches!(address, Address::Tcp(ip) | Address::Udp(ip) if ip.port() == 0);
    let belongs = |i: &Inherited| {
        if is_named {
            return i.name == name;
        }
        // The kernel chose the port: only the name can tell.
        (!is_any || i.name == name || i.name == kept_name(name)) && is_bound_to(&i.socket, address)
    };
    let (taken, left) = std::mem::take(inherited).into_iter().partition(belongs);
    *inherited = left;
    taken
}

fn is_bound_to(socket: &Socket, address: &Address) -> bool {
    let (Ok(local), Ok(kind)) = (socket.local_addr(), socket.r#type()) else { return false };
    match address {
        Address::Tcp(wanted) | Address::Udp(wanted) => {
            let fits =
                |a: std::net::SocketAddr| a.ip() == wanted.ip() && (wanted.port() == 0 || a.port() == wanted.port());
            let is_of_kind = kind == if matches!(address, Address::Tcp(_)) { Type::STREAM } else { Type::DGRAM };
            is_of_kind && local.as_socket().is_some_and(fits)
        }
        Address::Unix(path) => kind == Type::STREAM && local.as_pathname() == Some(path),
        Address::UnixDatagram(path) => kind == Type::DGRAM && local.as_pathname() == Some(path),
        Address::Stdin => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::net::listen::bind_tcp;

    #[test]
    fn a_units_name_comes_before_addresses_and_ours_does_not() {
        let bound = || bind_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let ((mut a, _), (mut b, at_b), (mut c, at_c)) = (bound(), bound(), bound());
        let named = |name: &str, socket: Option<Socket>| Inherited { name: name.into(), socket: socket.unwrap() };
        let mut all = vec![named("lines", a.pop()), named("logweir.socket", b.pop()), named("@web", c.pop())];
        let taken = |all: &mut Vec<Inherited>, name: &str, at: std::net::SocketAddr| {
            take_for(all, name, &Address::Tcp(at)).into_iter().map(|i| i.name).collect::<Vec<_>>()
        };
        assert!(taken(&mut all, "other", "127.0.0.1:1".parse().unwrap()).is_empty());
        assert_eq!(taken(&mut all, "lines", at_b), ["lines"]);
        assert!(taken(&mut all, "web", "127.0.0.1:1".parse().unwrap()).is_empty(), "its address has changed");
        assert!(taken(&mut all, "new", "127.0.0.1:0".parse().unwrap()).is_empty(), "nobody else's for any port");
        assert_eq!(taken(&mut all, "renamed", at_c), ["@web"], "and the listener has another name");
        assert_eq!(taken(&mut all, "b", at_b), ["logweir.socket"]);
        assert!(all.is_empty());
    }
}
