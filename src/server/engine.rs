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

/// The choice.
#[derive(Debug)]
pub struct Chosen {
    /// What runs.
    pub kind: Kind,
    /// Why `auto` did not take io_uring.
    pub refused: Option<io::Error>,
}

impl Chosen {
    /// For people.
    pub fn describe(&self) -> String {
        match (self.kind, &self.refused) {
            (Kind::IoUring, _) => "io_uring".into(),
            (Kind::Epoll, None) => "epoll".into(),
            (Kind::Epoll, Some(error)) => format!("epoll (io_uring does not work here: {error})"),
        }
    }

    /// For the metric: a name, and a reason out of few.
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

/// Finds out by trying: one connection, and then all rings, which may be more than the lockable memory allows.
///
/// # Errors
/// io_uring was asked for by name and does not work.
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
