//! The engine on io_uring.
//!
//! A connection receives in one of two ways. For many small reads, a multishot receive fills provided buffers as input comes,
//! without a system call for each read, and [`Engine::recv`] copies them into the lease. For few large reads, `recv(2)` fills
//! the lease directly, and a multishot poll reports more input. Full buffers make a connection large; short reads make it
//! small. When one connection holds more than its share of buffers, its multishot receive ends and it is read the large way,
//! which needs no buffer. While all provided buffers are in use (because connections that hold them may not be served, for
//! example), every connection is read the large way: a multishot receive would end at once each time it is armed, whether or
//! not there is input. So no connection waits for the buffers of another, and the reactor does not run in a loop for want of
//! them.
//!
//! A share is 16 buffers. The kernel may add the buffers of one more run before it stops; with the kernels known (6.1 to 6.18)
//! that makes 32.
//!
//! Before a direct `recv(2)`, the engine looks at all completions that the kernel has posted. With `IORING_SETUP_DEFER_TASKRUN`
//! the kernel receives for us only inside our own `io_uring_enter(2)`. So everything that it has received is known then, and
//! bytes keep their order.

mod conn;
mod probe;

pub use probe::probe;

use super::contract::{
    ConnId, Datagram, Engine, Event, Kind, Lease, ListenerId, Outcome, Peer, Received, Sent, Socket,
};
use super::socket;
use crate::host::mutants::mutant;
use crate::host::sys::{Done, Op, Queue, Ring};
use crate::log::disk::FixedFile;
use crate::pipeline::commit::{CommitWrite, Committed};
use conn::{Armed, Conn, Ended, Held};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a provided buffer. A read that fills it is no small one.
pub const BUFFER_BYTES: usize = 4096;
/// Buffers that one connection may hold before its multishot is ended.
const SHARE: u16 = 16;
/// This many full buffers in a row make a connection large, this many short reads make it small.
const CHANGE_AFTER: u8 = 4;

/// After this many waits that found small reads there already, the next wait lasts a little longer, to get several reads at once.
/// Otherwise the ring would be entered for nearly each read (docs/decisions.md).
const CROWD: u32 = 8;
/// Small reads that must come of it.
const BATCH_PAYS: u32 = 4;

struct Listener {
    id: ListenerId,
    socket: Option<socket2::Socket>,
    /// An accept is under way.
    armed: bool,
}

/// See the module documentation.
pub struct UringEngine {
    ring: Ring,
    held: Held,
    wake: Arc<EventFd>,
    wake_armed: bool,
    listeners: Vec<Listener>,
    conns: Vec<Conn>,
    free: VecDeque<u32>,
    /// Times that a connection was polled because every provided buffer was in use.
    polled_instead: u64,
    /// Small reads that the last wait brought.
    small_reads: u32,
    /// How many of the last waits found small reads there already.
    crowd: u32,
    /// Events found when nobody waited for them.
    stash: Vec<Event>,
    /// Files that are written to, with the bytes that each write must write; by slot.
    commits: Vec<Option<(Arc<dyn FixedFile>, usize)>>,
}

impl UringEngine {
    /// An engine with room for `connections` and `buffers` provided buffers (a power of two) of [`BUFFER_BYTES`].
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or lacks what is needed.
    pub fn new(connections: usize, buffers: u16) -> io::Result<Self> {
        Ok(UringEngine {
            ring: Ring::new(buffers, BUFFER_BYTES)?,
            held: Held::new(buffers),
            wake: Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?),
            wake_armed: false,
            listeners: Vec::new(),
            conns: Vec::with_capacity(connections),
            free: VecDeque::new(),
            polled_instead: 0,
            small_reads: 0,
            crowd: 0,
            stash: Vec::new(),
            commits: Vec::new(),
        })
    }

    fn live(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.index as usize).filter(|c| c.generation == id.generation && c.is_open())
    }

    /// Looks at all completions there are.
    fn reap(&mut self, out: &mut Vec<Event>) {
        while let Some(done) = self.ring.next_done() {
            let index = done.index;
            match done.op {
                Op::Wake => {
                    self.wake_armed &= done.more;
                    out.push(Event::Woken);
                }
                Op::Accept => self.accepted(index as usize, done, out),
                Op::Recv => self.filled(index, done, out),
                Op::Poll => self.polled(index, done, out),
                Op::Send => self.sent(index, done, out),
                Op::Write => self.committed(done, out),
                Op::Cancel => {}
            }
        }
    }

    fn accepted(&mut self, index: usize, done: Done, out: &mut Vec<Event>) {
        let listener = &mut self.listeners[index];
        listener.armed &= done.more;
        if let Some(fd) = done.accepted {
            let fd = socket2::Socket::from(fd);
            // The peer may be gone already; then there is nobody to serve.
            if let Ok(address) = fd.peer_addr() {
                let peer = address.as_socket().map_or(Peer::Local, Peer::Ip);
                out.push(Event::Accepted {
                    listener: listener.id,
                    socket: Socket { fd, kind: Kind::Stream, counted: None, member: None },
                    peer,
                });
            }
        } else if listener.socket.is_some() && done.result != -libc::ECANCELED {
            let error = io::Error::from_raw_os_error(-done.result);
            if !socket::is_of_the_connection(&error) {
                out.push(Event::AcceptFailed { listener: listener.id, error });
                return;
            }
        }
        if !done.more && done.result != -libc::ECANCELED {
            self.arm_accept(index);
        }
    }

    fn arm_accept(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        if let (Some(socket), false) = (&listener.socket, listener.armed) {
            listener.armed = true;
            self.ring.accept_multi(socket.as_fd(), index as u32);
        }
    }

    /// A multishot receive brought something, or ended.
    fn filled(&mut self, index: u32, done: Done, out: &mut Vec<Event>) {
        let conn = &mut self.conns[index as usize];
        if let Some(buffer) = done.buffer {
            if conn.is_open() && done.result > 0 {
                self.held.push(&mut conn.held, buffer, done.result as u16);
                conn.saw(done.result as usize);
                self.small_reads += u32::from(done.result < BUFFER_BYTES as i32);
            } else {
                self.ring.give_back(buffer);
            }
        }
        if !done.more {
            conn.armed = Armed::Nothing;
            conn.under_way -= 1;
            match done.result {
                0 => conn.ended = Some(Ended::Clean),
                // Out of buffers, or ended by us: what is in the socket is received the other way.
                n if n > 0 || n == -libc::ENOBUFS || n == -libc::ECANCELED => {}
                errno => conn.ended = Some(Ended::Failed(-errno)),
            }
        }
        if !conn.is_open() {
            return self.release_if_over(index);
        }
        let id = conn.id(index);
        if conn.armed == Armed::Multishot && (conn.fat || conn.held.count >= SHARE) {
            self.disarm(index);
        }
        // One event is enough until it is served; the reactor knows which it has heard of.
        out.push(Event::Pending(id));
    }

    fn polled(&mut self, index: u32, done: Done, out: &mut Vec<Event>) {
        let conn = &mut self.conns[index as usize];
        if !done.more {
            conn.armed = Armed::Nothing;
            conn.under_way -= 1;
        }
        if !conn.is_open() {
            return self.release_if_over(index);
        }
        let over = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        // An error of the poll itself: what the socket has to say, recv(2) will tell.
        conn.hung_up |= done.result > 0 && done.result & i32::from(over) != 0;
        out.push(Event::Pending(conn.id(index)));
    }

    fn sent(&mut self, index: u32, done: Done, out: &mut Vec<Event>) {
        let conn = &mut self.conns[index as usize];
        conn.sending = false;
        conn.under_way -= 1;
        let Some((buffer, is_whole)) = done.sent else { return };
        if !conn.is_open() {
            return self.release_if_over(index);
        }
        let result = match done.result {
            errno if errno < 0 => Err(io::Error::from_raw_os_error(-errno)),
            _ if is_whole => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        };
        out.push(Event::Sent(Sent { conn: conn.id(index), buffer, result }));
    }

    fn committed(&mut self, done: Done, out: &mut Vec<Event>) {
        let under_way = self.commits.get_mut(done.index as usize).and_then(Option::take);
        let (Some((_, len)), Some(memory)) = (under_way, done.written) else { return };
        let result = match usize::try_from(done.result) {
            Err(_) => Err(io::Error::from_raw_os_error(-done.result)),
            Ok(n) if n == len => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        };
        out.push(Event::Committed(Committed { slot: done.index as u16, memory, result }));
    }

    /// Gives the place of a closed connection to the next, once the kernel has ended everything of the old one.
    fn release_if_over(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        if conn.under_way == 0 && conn.release() {
            self.free.push_back(index);
        }
    }

    /// A socket was found empty: asks the kernel to report more input, in the way that suits the connection now.
    fn suit(&mut self, index: u32) {
        let conn = &self.conns[index as usize];
        let is_stream = conn.socket.as_ref().is_some_and(|s| s.kind == Kind::Stream);
        if conn.armed == Armed::Poll && !conn.fat && is_stream && !self.lacks_buffers() {
            return self.disarm(index); // its end is an event, and the next look arms the other
        }
        self.arm(index);
    }

    /// The kernel has no buffer left to receive into.
    fn lacks_buffers(&self) -> bool {
        self.ring.buffers_left() == 0 && !mutant!("armed_without_buffers")
    }

    /// Asks the kernel to report input, unless it does already.
    fn arm(&mut self, index: u32) {
        let lacks_buffers = self.lacks_buffers();
        let conn = &mut self.conns[index as usize];
        let (Some(socket), Armed::Nothing, false) = (&conn.socket, conn.armed, conn.leaving) else { return };
        conn.under_way += 1;
        let suits_poll = conn.fat || socket.kind.is_datagram();
        self.polled_instead += u64::from(!suits_poll && lacks_buffers);
        if suits_poll || lacks_buffers {
            conn.armed = Armed::Poll;
            let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
            self.ring.poll_multi(socket.fd.as_fd(), events, index);
        } else {
            conn.armed = Armed::Multishot;
            self.ring.recv_multi(socket.fd.as_fd(), index);
        }
    }

    /// Asks the kernel to end its operation for the input of a connection. Its last completion says when it has.
    fn disarm(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        let op = match conn.armed {
            Armed::Multishot => Op::Recv,
            Armed::Poll => Op::Poll,
            Armed::Nothing | Armed::Stopping => return,
        };
        conn.armed = Armed::Stopping;
        self.ring.cancel(op, index);
    }

    /// Copies what the kernel has received for a connection already.
    fn copy_held(&mut self, index: u32, space: &mut [u8]) -> Outcome {
        let conn = &mut self.conns[index as usize];
        let mut len = 0;
        while let Some(front) = self.held.front(&conn.held) {
            let bytes = &self.ring.buffer(front.buffer, usize::from(front.len))[usize::from(front.at)..];
            let n = bytes.len().min(space.len() - len);
            space[len..len + n].copy_from_slice(&bytes[..n]);
            len += n;
            if n < bytes.len() {
                conn.held.at += n as u16;
                break;
            }
            self.held.pop(&mut conn.held);
            self.ring.give_back(front.buffer);
        }
        // Where nothing is being received for us, more is there or must be looked for.
        let more = conn.held.count > 0 || conn.ended.is_some() || conn.armed != Armed::Multishot;
        Outcome::Bytes { len, more }
    }

    /// `recv(2)`, and what follows from what it found.
    fn receive(&mut self, index: u32, space: &mut [u8]) -> Outcome {
        let conn = &mut self.conns[index as usize];
        let Some(socket) = &conn.socket else { return Outcome::Failed(io::ErrorKind::NotConnected.into()) };
        let outcome = socket::receive(socket, space, conn.hung_up);
        match &outcome {
            Outcome::Bytes { len, more, .. } => {
                if socket.kind == Kind::Stream {
                    conn.saw(if *more { BUFFER_BYTES } else { *len });
                }
                if !more {
                    self.suit(index);
                }
            }
            Outcome::Empty => self.suit(index),
            Outcome::End | Outcome::Failed(_) => {}
        }
        outcome
    }
}

impl Engine for UringEngine {
    fn listen(&mut self, listener: ListenerId, socket: socket2::Socket) -> io::Result<()> {
        socket.set_nonblocking(false)?; // the kernel waits for us; only the last look must not block
        self.listeners.push(Listener { id: listener, socket: Some(socket), armed: false });
        self.arm_accept(self.listeners.len() - 1);
        Ok(())
    }

    fn stop_listening(&mut self, listener: ListenerId, events: &mut Vec<Event>) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].id != listener {
                continue;
            }
            let Some(socket) = self.listeners[index].socket.take() else { continue };
            if self.listeners[index].armed {
                self.ring.cancel(Op::Accept, index as u32);
            }
            while self.listeners[index].armed {
                if self.ring.wait(Some(Duration::from_millis(100)), false).is_err() {
                    break; // the next wait says so
                }
                self.reap(events);
            }
            // Connections that came after the last completion.
            if socket.set_nonblocking(true).is_ok() {
                while let socket::Accept::Again = socket::accept(&socket, listener, events) {}
            }
        }
    }

    fn retry_accept(&mut self, listener: ListenerId) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].id == listener {
                self.arm_accept(index);
            }
        }
    }

    fn open(&mut self, socket: Socket) -> io::Result<ConnId> {
        let index = self.free.pop_front().unwrap_or_else(|| {
            self.conns.push(Conn::default());
            (self.conns.len() - 1) as u32
        });
        let conn = &mut self.conns[index as usize];
        conn.socket = Some(socket);
        let id = conn.id(index);
        self.arm(index);
        Ok(id)
    }

    fn close(&mut self, id: ConnId) {
        let Some(conn) = self.live(id) else { return };
        conn.close();
        let sending = conn.sending;
        let mut held = std::mem::take(&mut conn.held);
        while let Some(front) = self.held.front(&held) {
            self.held.pop(&mut held);
            self.ring.give_back(front.buffer);
        }
        let index = id.index;
        self.disarm(index);
        if sending {
            self.ring.cancel(Op::Send, index);
        }
        self.release_if_over(index);
    }

    fn commit(&mut self, write: CommitWrite) {
        let CommitWrite { slot, file, memory, len, offset } = write;
        let Some(fd) = file.fd() else {
            let result = Err(io::ErrorKind::Unsupported.into());
            return self.stash.push(Event::Committed(Committed { slot, memory, result }));
        };
        self.ring.write(fd, memory, len, offset, slot.into());
        let place = usize::from(slot);
        if self.commits.len() <= place {
            self.commits.resize_with(place + 1, || None);
        }
        self.commits[place] = Some((file, len));
    }

    fn shut_down_sending(&mut self, id: ConnId) {
        if let Some(socket) = self.live(id).and_then(|c| c.socket.as_ref()) {
            let _ = socket.fd.shutdown(Shutdown::Write); // fails only where the peer has gone already
        }
    }

    fn detach(&mut self, id: ConnId) -> Option<Socket> {
        let conn = self.live(id)?;
        conn.leaving = true;
        if conn.under_way == 0 && conn.is_blank() {
            let socket = conn.socket.take();
            conn.close();
            self.release_if_over(id.index);
            return socket;
        }
        if conn.under_way == 0 {
            self.stash.push(Event::Pending(id)); // no completion will say it
        }
        self.disarm(id.index);
        None
    }

    fn retain(&mut self, id: ConnId) {
        if let Some(conn) = self.live(id)
            && std::mem::take(&mut conn.leaving)
            && conn.is_blank()
        {
            self.arm(id.index);
        }
    }

    fn recv(&mut self, id: ConnId, mut lease: Lease) -> Option<Received> {
        if self.live(id).is_none() {
            let outcome = Outcome::Failed(io::ErrorKind::NotConnected.into());
            return Some(Received { conn: id, lease, outcome });
        }
        let index = id.index;
        let conn = &self.conns[index as usize];
        if conn.is_blank() && matches!(conn.armed, Armed::Multishot | Armed::Stopping) {
            // The kernel may have received something that we have not looked at. (A poll receives nothing.)
            let mut found = std::mem::take(&mut self.stash);
            if self.ring.wait(Some(Duration::ZERO), false).is_ok() {
                self.reap(&mut found);
            }
            self.stash = found;
        }
        let space = &mut lease.chunk.free()[lease.start..lease.start + lease.len];
        let conn = &self.conns[index as usize];
        let outcome = match (&conn.ended, conn.armed) {
            _ if conn.held.count > 0 => self.copy_held(index, space),
            (Some(Ended::Clean), _) => Outcome::End,
            (Some(Ended::Failed(errno)), _) => Outcome::Failed(io::Error::from_raw_os_error(*errno)),
            _ => self.receive(index, space),
        };
        Some(Received { conn: id, lease, outcome })
    }

    fn recv_batch(&mut self, id: ConnId, space: &mut [u8], batch: &mut Vec<Datagram>) -> Outcome {
        let Some(conn) = self.live(id) else { return Outcome::Failed(io::ErrorKind::NotConnected.into()) };
        let Some(socket) = &conn.socket else { return Outcome::Failed(io::ErrorKind::NotConnected.into()) };
        let outcome = socket::receive_batch(socket, space, batch);
        if !matches!(outcome, Outcome::Bytes { more: true, .. } | Outcome::Failed(_)) {
            self.suit(id.index);
        }
        outcome
    }

    fn queue(&mut self, id: ConnId) -> Option<Queue> {
        self.live(id).and_then(|c| c.socket.as_ref()).and_then(socket::queue)
    }

    fn send(&mut self, id: ConnId, buffer: Vec<u8>) -> Option<Sent> {
        if self.live(id).is_none_or(|c| c.sending) {
            return Some(Sent { conn: id, buffer, result: Err(io::ErrorKind::NotConnected.into()) });
        }
        let conn = &mut self.conns[id.index as usize];
        let Some(socket) = &conn.socket else { return None };
        // What the socket takes at once is sent at once: only a client that does not read leaves a send under way.
        let (done, result) = socket::send(socket, &buffer, 0);
        match result {
            Ok(()) if done < buffer.len() => {
                conn.under_way += 1;
                conn.sending = true;
                self.ring.send(socket.fd.as_fd(), buffer, done, id.index);
                None
            }
            result => Some(Sent { conn: id, buffer, result }),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Event>) -> io::Result<()> {
        if !self.wake_armed {
            self.wake_armed = true;
            self.ring.watch_waker(self.wake.as_fd());
        }
        let timeout = if self.stash.is_empty() { timeout } else { Some(Duration::ZERO) };
        out.append(&mut self.stash);
        let (due, batch) = (self.ring.is_due(), self.crowd >= CROWD);
        self.ring.wait(timeout, batch)?;
        self.small_reads = 0;
        self.reap(out);
        let crowded = if batch { self.small_reads >= BATCH_PAYS } else { due && self.small_reads > 0 };
        self.crowd = if crowded { (self.crowd + 1).min(2 * CROWD) } else { self.crowd.saturating_sub(4) };
        Ok(())
    }

    fn dawdle(&mut self, time: Duration) {
        std::thread::park_timeout(time);
    }

    fn polled_instead(&self) -> u64 {
        self.polled_instead
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let wake = Arc::clone(&self.wake);
        Box::new(move || {
            // The only failure is a counter at its maximum, and then the wait has long returned.
            let _ = wake.write(1);
        })
    }
}
