//! Why a server does not start.

use crate::log::LogError;
use std::io;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something about the files.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A listener cannot listen.
    #[error("listener.{name}: cannot listen on {address}: {error}{}", hint(error))]
    Listen {
        /// Its name.
        name: String,
        /// Its address.
        address: String,
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

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another --listen",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one",
        _ => "",
    }
}

pub(super) fn resource(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Resource { what, error }
}
