//! The load generator for datagrams: each thread sends from its sockets in turn, many datagrams with one call.

use super::generate::{PACE_STEP, Pace, Part, SendArgs, Sent, split};
use super::lines;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

/// Datagrams of one call at most.
const BATCH: usize = 32;

/// Bytes of a datagram over IPv4 at most (RFC 768, RFC 791).
const LONGEST: usize = 65_507;

/// One socket, which is one sender.
struct Sender {
    socket: UdpSocket,
    number: u32,
    left: u64,
    next: u64,
}

/// Sends everything, as fast as the pace allows.
///
/// # Errors
/// A socket cannot be made, or nobody listens there.
pub fn send(args: &SendArgs, to: SocketAddr) -> io::Result<Sent> {
    let sender = |Part { number, lines }| {
        let from: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        if args.segments {
            setsockopt(&socket, sockopt::UdpGsoSegment, &(args.line_bytes as i32))?;
        }
        Ok(Sender { socket, number, left: lines, next: 0 })
    };
    // Whoever has nothing to send sends nothing: no bytes at all would be a datagram too.
    let senders = |parts: Vec<Part>| parts.into_iter().filter(|part| part.lines > 0).map(sender).collect();
    let all: Vec<Vec<Sender>> = split(args).into_iter().map(senders).collect::<io::Result<_>>()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|senders| scope.spawn(|| drive(senders, args))).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
    })?;
    Ok(Sent { lines: args.lines, seconds: start.elapsed().as_secs_f64() })
}

fn drive(mut senders: Vec<Sender>, args: &SendArgs) -> io::Result<()> {
    let len = args.line_bytes as usize;
    let mut bytes = vec![b'x'; len * BATCH];
    bytes.chunks_exact_mut(len).for_each(|line| line[len - 1] = b'\n');
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let pace = Pace::new(args, senders.iter().map(|sender| sender.left).sum());
    let mut sent = 0;
    while !senders.is_empty() {
        for sender in &mut senders {
            let mut allowed = pace.allowed(sent);
            while allowed == 0 {
                std::thread::park_timeout(PACE_STEP);
                allowed = pace.allowed(sent);
            }
            let most = BATCH.min(allowed).min(usize::try_from(sender.left).unwrap_or(BATCH));
            if args.sequence {
                bytes.clear();
                (sender.next..).take(most).for_each(|n| lines::numbered(sender.number, n, len, &mut bytes));
            }
            let bytes = &bytes[..len * most];
            let n = match args.segments {
                true => put_segments(&sender.socket, bytes, len)?,
                false => put(&sender.socket, bytes, len, &mut headers)?,
            };
            (sender.left, sender.next, sent) = (sender.left - n, sender.next + n, sent + n);
        }
        senders.retain(|sender| sender.left > 0);
    }
    Ok(())
}

/// Sends as much as one datagram can hold, to be cut into pieces of `len` bytes. How many.
fn put_segments(socket: &UdpSocket, bytes: &[u8], len: usize) -> io::Result<u64> {
    let most = (LONGEST / len).max(1) * len;
    let sent = socket.send(&bytes[..bytes.len().min(most)])?;
    Ok((sent / len) as u64)
}

/// Sends datagrams of `len` bytes each. How many the kernel took.
fn put(socket: &UdpSocket, bytes: &[u8], len: usize, headers: &mut MultiHeaders<SockaddrStorage>) -> io::Result<u64> {
    let slices: Vec<[IoSlice<'_>; 1]> = bytes.chunks_exact(len).map(|line| [IoSlice::new(line)]).collect();
    let nobody = vec![None; slices.len()]; // they are connected
    let refused = || Err(io::Error::other("nobody listens there"));
    let sent = loop {
        match sendmmsg(socket.as_raw_fd(), headers, &slices, &nobody, [], MsgFlags::empty()) {
            Ok(sent) => break sent.count(),
            // Memory is short for a moment.
            Err(nix::Error::EINTR | nix::Error::ENOBUFS) => {}
            Err(nix::Error::ECONNREFUSED) => return refused(),
            Err(error) => return Err(error.into()),
        }
    };
    // What has stopped it is forgotten with its count: one by itself shows it again.
    match slices.get(sent) {
        Some(next) => match socket.send(&next[0]).and_then(|_| socket.take_error()) {
            Ok(None) => Ok(sent as u64 + 1),
            Ok(Some(error)) | Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused(),
            Ok(Some(error)) | Err(error) => Err(error),
        },
        None => Ok(sent as u64),
    }
}
