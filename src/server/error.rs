//! Why a server does not start.

use crate::host::address::Address;
use crate::log::LogError;
use std::io;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something about the files.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A signal ended a start that waited for room on the disk.
    #[error("ended while it waited for room on the disk; what a crash has left stays for the next start: {0}")]
    EndedOnFullDisk(LogError),
    /// A listener cannot listen.
    #[error("listener.{name}: cannot listen on {address}: {error}{}", hint(address, error))]
    Listen {
        /// Its name.
        name: String,
        /// Its address.
        address: Address,
        /// Why not.
        error: io::Error,
    },
    /// A listener's certificate, key or authority.
    #[error("listener.{name}: {error}")]
    Tls {
        /// Its name.
        name: String,
        /// What is wrong.
        error: crate::intake::transport::tls::TlsError,
    },
    /// The admin address.
    #[error("admin: cannot listen on {address}: {error}; choose another --admin, or --admin off")]
    Admin {
        /// The address.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// `engine = "io_uring"`, and it cannot be had.
    #[error(
        "engine = \"io_uring\" does not work here: {error}; set engine = \"auto\" or \"epoll\", or allow io_uring (kernel.io_uring_disabled, the container's seccomp profile)"
    )]
    IoUring {
        /// What the probe met.
        error: io::Error,
    },
    /// Threads, memory, epoll.
    #[error("cannot {what}: {error}")]
    Resource {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

impl StartError {
    /// True where another server has the data directory.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, StartError::Log(LogError::InUse { .. }))
    }

    /// True where starting again changes nothing: somebody has to change the configuration, or what it names.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        // Not a file system that is read-only: it may be mounted otherwise again.
        use io::ErrorKind::{AlreadyExists, InvalidInput, NotADirectory, NotFound, PermissionDenied};
        let stays = |error: &io::Error| {
            let kinds = [AlreadyExists, InvalidInput, NotADirectory, NotFound, PermissionDenied];
            kinds.contains(&error.kind())
        };
        match self {
            StartError::Tls { .. } | StartError::Log(LogError::NoDirectory { .. }) => true,
            StartError::Listen { error, .. } | StartError::Admin { error, .. } => stays(error),
            StartError::Log(LogError::Io { what, error, .. }) => is_of_the_start(what) && stays(error),
            // A container's profile or a kernel's setting may be another at the next start.
            StartError::Log(_)
            | StartError::EndedOnFullDisk(_)
            | StartError::Resource { .. }
            | StartError::IoUring { .. } => false,
        }
    }
}

/// True for what is done to the data directory itself, before there are segments.
fn is_of_the_start(what: &str) -> bool {
    ["write to directory", "make directory", "make directory in"].contains(&what)
}

fn hint(address: &Address, error: &io::Error) -> String {
    let dir = match address {
        Address::Unix(path) | Address::UnixDatagram(path) => path.parent().map(std::path::Path::display),
        Address::Tcp(_) | Address::Udp(_) | Address::Stdin => None,
    };
    match (error.kind(), dir) {
        (io::ErrorKind::AddrInUse, None) => {
            "; another program listens there: stop it, or choose another --listen".into()
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "; this host has no such address (0.0.0.0 and [::] stand for all it has)".into()
        }
        (io::ErrorKind::PermissionDenied, None) => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one, or have the service manager open it (systemd/logweir.socket)".into()
        }
        (io::ErrorKind::PermissionDenied, Some(dir)) => {
            format!("; this user may not make files in {dir}: change its owner or mode, or choose another path")
        }
        (io::ErrorKind::NotFound, Some(dir)) => {
            format!("; the directory {dir} is not there: make it (RuntimeDirectory= in a systemd unit), or choose another path")
        }
        _ => String::new(),
    }
}

pub(super) fn resource(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Resource { what, error }
}
