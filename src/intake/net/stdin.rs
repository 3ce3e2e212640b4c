//! Standard input as an accept source. A thread reads it (epoll refuses regular files) and writes to a socket pair, which a
//! reactor serves like any other connection.

use super::contract::{Kind, Socket};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

const READ: usize = 256 * 1024;

/// Starts the thread and returns the socket to serve. It ends when standard input does; the thread then ends too.
/// When the reactor stops reading, so does the thread, and so the pipe pushes back.
///
/// # Errors
/// No socket pair or thread can be had.
pub fn source(mut input: impl Read + Send + 'static) -> io::Result<Socket> {
    let (mut to, from) = UnixStream::pair()?;
    from.set_nonblocking(true)?;
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut buffer = vec![0; READ];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    if to.write_all(&buffer[..n]).is_err() {
                        return; // the server is ending
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "reading standard input failed");
                    return;
                }
            }
        }
    })?;
    Ok(Socket { fd: std::os::fd::OwnedFd::from(from).into(), kind: Kind::Stream, counted: None, member: None })
}
