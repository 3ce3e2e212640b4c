//! The null sink for datagrams shows what one thread can do at all: a loop of `recvmmsg(2)` that counts newlines and appends what came. It
//! has no framing, trail, sync or limits.

use super::null_sink::{Appender, CHUNK};
use crate::host::output::say;
use crate::host::sys;
use crate::intake::net::listen;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Datagrams of one call at most, as in the server.
const BATCH: usize = 32;
/// Bytes of a datagram at most; what is longer is cut.
const SLOT: usize = 4096;
/// It ends when nothing has come for so long, after something has.
const QUIET: Duration = Duration::from_secs(1);

/// Runs until the senders are quiet.
pub fn run(at: SocketAddr, queue: usize, mut appender: Appender) -> io::Result<()> {
    let (sockets, address) = listen::bind_udp(at, 1, queue)?;
    let Some(socket) = sockets.first() else { return Ok(()) };
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(QUIET))?;
    say!("null sink on udp://{address}");
    let mut memory = vec![0; BATCH * SLOT];
    let mut chunk: Vec<u8> = Vec::with_capacity(CHUNK);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let (mut datagrams, mut newlines, mut bytes) = (0_u64, 0, 0);
    loop {
        let mut slots = memory.chunks_exact_mut(SLOT);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
        let mut lens = [0; BATCH];
        // Waits for the first one only.
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None) {
            Ok(received) => lens.iter_mut().zip(received).for_each(|(len, message)| *len = message.bytes),
            Err(nix::Error::EINTR) => continue,
            Err(nix::Error::EAGAIN) if datagrams == 0 => continue,
            Err(nix::Error::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
        for (slot, len) in memory.chunks_exact(SLOT).zip(lens).filter(|(_, len)| *len > 0) {
            newlines += memchr::memchr_iter(b'\n', &slot[..len]).count() as u64;
            chunk.extend_from_slice(&slot[..len]);
            (datagrams, bytes) = (datagrams + 1, bytes + len as u64);
        }
        if chunk.len() + BATCH * SLOT > CHUNK {
            appender.append(&chunk)?;
            chunk.clear();
        }
    }
    appender.append(&chunk)?;
    let lost = sys::queue(socket.as_fd())?.dropped;
    say!("null sink datagrams={datagrams} newlines={newlines} bytes={bytes} lost={lost}");
    Ok(())
}
