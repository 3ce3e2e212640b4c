//! Finds out whether io_uring works here, by doing what the engine will do.

use super::UringEngine;
use crate::intake::net::{Engine, Event, Kind, Lease, LeaseMark, Outcome, Received, Socket};
use crate::pipeline::chunk::Chunk;
use socket2::{Domain, Type};
use std::io::{self, Write};
use std::time::Duration;

/// Accepts a connection, receives and answers over it, and ends it. Call it in a thread that does not use rings otherwise.
///
/// # Errors
/// Why it does not work: in words, with the errno where the kernel gave one.
pub fn probe() -> io::Result<()> {
    let mut engine = UringEngine::new(1, 8).map_err(|e| named("io_uring_setup", &e))?;
    let mut events = Vec::new();
    let listener = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // autobind (unix(7)): an abstract name that nobody else has
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &nix::sys::socket::UnixAddr::new_unnamed())?;
    listener.listen(1)?;
    let address = listener.local_addr()?;
    engine.listen(0, listener)?;
    let client = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    client.connect(&address)?;
    let socket = find(&mut engine, &mut events, "accept", |e| match e {
        Event::Accepted { socket, .. } => Ok(socket),
        Event::AcceptFailed { error, .. } => Err(error),
        _ => Err(io::ErrorKind::Other.into()),
    })?;
    debug_assert_eq!(socket.kind, Kind::Stream);
    let conn = engine.open(Socket { fd: socket.fd, kind: socket.kind, counted: None, member: None })?;
    (&client).write_all(b"probe")?;
    find(&mut engine, &mut events, "recv", |e| match e {
        Event::Pending(_) => Ok(()),
        _ => Err(io::ErrorKind::Other.into()),
    })?;
    let chunk = Box::new(Chunk::new(4096)?);
    let lease = Lease { chunk, start: 0, len: 64, mark: LeaseMark::Discard };
    match engine.recv(conn, lease) {
        Some(Received { outcome: Outcome::Bytes { len: 5, .. }, .. }) => {}
        other => return Err(io::Error::other(format!("recv: expected 5 bytes, got {:?}", other.map(|r| r.outcome)))),
    }
    match engine.send(conn, b"answer".to_vec()) {
        Some(sent) => sent.result.map_err(|e| named("send", &e)),
        None => Err(io::Error::other("send: the socket takes nothing")),
    }
}

/// Waits for one event; the operations that are tried take no time.
fn find<T>(
    engine: &mut UringEngine,
    events: &mut Vec<Event>,
    what: &str,
    take: impl FnOnce(Event) -> io::Result<T>,
) -> io::Result<T> {
    for _ in 0..10 {
        if let Some(event) = events.pop() {
            return take(event).map_err(|e| named(what, &e));
        }
        engine.wait(Some(Duration::from_millis(100)), events).map_err(|e| named("io_uring_enter", &e))?;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: no completion")))
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
