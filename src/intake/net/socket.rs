//! What both engines do directly with a socket.

use super::contract::{Datagram, Event, Kind, ListenerId, Outcome, Peer, Socket};
use crate::host::mutants::mutant;
use crate::host::sys;
use crate::intake::listener::{BATCH, DATAGRAM_MAX, UDP_MAX};
use nix::sys::socket::MsgFlags;
use nix::sys::socket::{MultiHeaders, SockaddrStorage};
use std::cell::RefCell;
use std::io::{self, IoSliceMut, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

/// The result of an attempt to accept.
#[derive(Debug)]
pub enum Accept {
    /// A connection, or one that was gone already: try again.
    Again,
    /// No connection waits.
    Nobody,
    /// The listener cannot accept.
    Failed(io::Error),
}

/// Accepts one connection from a non-blocking listener, into `events`.
pub fn accept(socket: &socket2::Socket, listener: ListenerId, events: &mut Vec<Event>) -> Accept {
    match socket.accept() {
        Ok((fd, address)) => {
            if fd.set_nonblocking(true).is_ok() {
                let peer = address.as_socket().map_or(Peer::Local, Peer::Ip);
                events.push(Event::Accepted {
                    listener,
                    socket: Socket { fd, kind: Kind::Stream, counted: None, member: None },
                    peer,
                });
            }
            Accept::Again
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Accept::Nobody,
        Err(e) if e.kind() == io::ErrorKind::Interrupted || is_of_the_connection(&e) => Accept::Again,
        Err(error) => Accept::Failed(error),
    }
}

/// Errors of the new connection, not of the listener; the next one may be fine (accept(2)).
pub fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}

/// Sends `bytes` from `from` on, as far as the socket takes them now. Returns the new position.
pub fn send(socket: &Socket, bytes: &[u8], from: usize) -> (usize, io::Result<()>) {
    let mut done = from;
    while done < bytes.len() {
        match (&socket.fd).write(&bytes[done..]) {
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return (done, Err(e)),
        }
    }
    (done, Ok(()))
}

/// `recv(2)` from a stream. `hung_up`: the peer is known to have ended its side, so that a short read is not the last.
pub fn receive(socket: &Socket, space: &mut [u8], hung_up: bool) -> Outcome {
    let room = space.len();
    loop {
        return match nix::sys::socket::recv(socket.fd.as_raw_fd(), space, MsgFlags::empty()) {
            Ok(0) => Outcome::End,
            Ok(len) => Outcome::Bytes { len, more: len == room || hung_up },
            Err(nix::Error::EINTR) => continue,
            Err(nix::Error::EAGAIN) => Outcome::Empty,
            Err(e) => Outcome::Failed(e.into()),
        };
    }
}

thread_local! {
    /// Where the kernel says what it received; made once for each thread that receives datagrams.
    static HEADERS: RefCell<MultiHeaders<SockaddrStorage>> = RefCell::new(MultiHeaders::preallocate(BATCH, None));
}

/// `recvmmsg(2)`: as many datagrams as wait and fit, each in a slot of its own, as large as the largest datagram of the socket, or as what
/// there is.
pub fn receive_batch(socket: &Socket, space: &mut [u8], batch: &mut Vec<Datagram>) -> Outcome {
    let largest = if socket.kind == Kind::Udp { UDP_MAX } else { DATAGRAM_MAX };
    let slot = largest.min(space.len()).max(1);
    // MSG_TRUNC answers the real length of each.
    let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    HEADERS.with_borrow_mut(|headers| {
        let mut rest = space.chunks_exact_mut(slot);
        let slots = rest.len().min(BATCH);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(rest.next().unwrap_or_default())]);
        let before = batch.len();
        match nix::sys::socket::recvmmsg(socket.fd.as_raw_fd(), headers, &mut slices[..slots], flags, None) {
            Ok(received) => {
                batch.extend(received.enumerate().map(|(i, message)| {
                    let len = message.bytes.min(slot);
                    let sender = message.address.as_ref().and_then(sender).map_or(Peer::Local, Peer::Ip);
                    let cut = if mutant!("cut_datagram_taken_for_whole") { 0 } else { message.bytes - len };
                    Datagram { start: i * slot, len, cut, sender }
                }));
                let len = batch[before..].iter().map(|d| d.len).sum();
                Outcome::Bytes { len, more: batch.len() - before == slots }
            }
            Err(nix::Error::EINTR) => Outcome::Bytes { len: 0, more: true },
            Err(nix::Error::EAGAIN) => Outcome::Empty,
            Err(error) => Outcome::Failed(error.into()),
        }
    })
}

/// The queue of a UDP socket. From that of another the kernel drops nothing: senders of Unix datagrams wait.
pub fn queue(socket: &Socket) -> Option<sys::Queue> {
    (socket.kind == Kind::Udp).then(|| sys::queue(socket.fd.as_fd()).ok()).flatten()
}

fn sender(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|a| SocketAddr::new(a.ip().into(), a.port()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::new(a.ip().into(), a.port())))
}
