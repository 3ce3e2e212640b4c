//! Chooses the engine, and says why.

use super::error::StartError;
use crate::config::raw::EngineChoice;
use crate::intake::net;
use std::io;

/// The engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `net::EpollEngine`
    Epoll,
    /// `net::UringEngine`
    IoUring,
}

/// The engine that was chosen, and why.
#[derive(Debug)]
pub struct Chosen {
    /// What runs.
    pub kind: Kind,
    /// Why `auto` did not take io_uring.
    pub refused: Option<io::Error>,
}

impl Chosen {
    /// The choice in words.
    pub fn describe(&self) -> String {
        match (self.kind, &self.refused) {
            (Kind::IoUring, _) => "io_uring".into(),
            (Kind::Epoll, None) => "epoll".into(),
            (Kind::Epoll, Some(error)) => format!("epoll (io_uring does not work here: {error})"),
        }
    }

    /// The labels of the metric: the name, and one of a few reasons.
    pub fn label(&self) -> (&'static str, &'static str) {
        match (self.kind, &self.refused) {
            (Kind::IoUring, _) => ("io_uring", "works"),
            (Kind::Epoll, None) => ("epoll", "configured"),
            (Kind::Epoll, Some(error)) => ("epoll", reason(error)),
        }
    }
}

fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "not permitted",
        io::ErrorKind::OutOfMemory => "no memory",
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => "kernel too old",
        _ => "probe failed",
    }
}

/// Tries io_uring with one connection, and then with all rings, which may need more locked memory than is allowed.
///
/// # Errors
/// The configuration asks for io_uring, and it does not work.
pub fn choose<R>(
    choice: EngineChoice,
    make_rings: impl FnOnce() -> io::Result<R>,
) -> Result<(Chosen, Option<R>), StartError> {
    if choice == EngineChoice::Epoll {
        return Ok((Chosen { kind: Kind::Epoll, refused: None }, None));
    }
    match net::probe().and_then(|()| make_rings()) {
        Ok(rings) => Ok((Chosen { kind: Kind::IoUring, refused: None }, Some(rings))),
        Err(error) if choice == EngineChoice::IoUring => Err(StartError::IoUring { error }),
        Err(error) => {
            tracing::warn!(%error, "engine = \"auto\": epoll, because io_uring does not work here");
            Ok((Chosen { kind: Kind::Epoll, refused: Some(error) }, None))
        }
    }
}
