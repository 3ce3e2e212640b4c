//! The engine on epoll, through mio.
//!
//! mio is edge-triggered: after an event, a connection is pending until a receive finds its socket empty. A receive that took
//! fewer bytes than it had room for has found it empty (epoll(7)), unless the peer has closed its side already.

use super::contract::{ConnId, Datagram, Engine, Event, Lease, ListenerId, Outcome, Received, Sent, Socket};
use super::socket::{self, Accept};
use crate::host::sys::Queue;
use crate::pipeline::commit::CommitWrite;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token, Waker};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// Connections accepted from one listener before others get their turn.
const ACCEPT_AT_ONCE: usize = 64;
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
const WAKE: Token = Token(usize::MAX);
/// Set in the tokens of listeners; generations stay below it.
const LISTENER_BIT: usize = 1 << 63;

struct Conn {
    generation: u32,
    socket: Option<Socket>,
    /// The rest of a send that waits for room in the socket.
    sending: Option<Box<(Vec<u8>, usize)>>,
    /// The peer has ended its side or the socket has failed: receives go on until they say so.
    ended: bool,
}

struct Listener {
    id: ListenerId,
    socket: socket2::Socket,
    ready: bool,
    /// Accepting failed; nothing until the retry.
    failed: bool,
    /// Closed for good; it keeps its place, since places are tokens.
    shut: bool,
}

/// See the module documentation.
pub struct EpollEngine {
    poll: Poll,
    waker: Arc<Waker>,
    events: mio::Events,
    listeners: Vec<Listener>,
    conns: Vec<Conn>,
    free: VecDeque<u32>,
}

impl EpollEngine {
    /// An engine with room for `connections` (more are possible, at the cost of a reallocation).
    ///
    /// # Errors
    /// epoll or eventfd cannot be used.
    pub fn new(connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(EpollEngine {
            poll,
            waker,
            events: mio::Events::with_capacity(EVENTS),
            listeners: Vec::new(),
            conns: Vec::with_capacity(connections),
            free: VecDeque::new(),
        })
    }

    fn live(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.index as usize).filter(|c| c.generation == id.generation && c.socket.is_some())
    }

    fn accept(listener: &mut Listener, most: usize, events: &mut Vec<Event>) {
        for _ in 0..most {
            match socket::accept(&listener.socket, listener.id, events) {
                Accept::Again => {}
                Accept::Nobody => {
                    listener.ready = false;
                    return;
                }
                Accept::Failed(error) => {
                    listener.failed = true;
                    events.push(Event::AcceptFailed { listener: listener.id, error });
                    return;
                }
            }
        }
    }

    /// Goes on with a send that had to wait.
    fn writable(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let Some(conn) = self.live(id) else { return };
        let Some(sending) = conn.sending.take() else { return };
        let (buffer, done) = *sending;
        if let Some(sent) = self.send_from(id, buffer, done) {
            if let Some(conn) = self.conns.get(id.index as usize)
                && let Some(socket) = &conn.socket
            {
                let fd = socket.fd.as_raw_fd();
                let _ = self.poll.registry().reregister(&mut SourceFd(&fd), token(id), Interest::READABLE);
            }
            events.push(Event::Sent(sent));
        }
    }

    fn send_from(&mut self, id: ConnId, buffer: Vec<u8>, done: usize) -> Option<Sent> {
        let Some(conn) = self.conns.get_mut(id.index as usize).filter(|c| c.generation == id.generation) else {
            return Some(Sent { conn: id, buffer, result: Err(io::ErrorKind::NotConnected.into()) });
        };
        let Some(socket) = &conn.socket else {
            return Some(Sent { conn: id, buffer, result: Err(io::ErrorKind::NotConnected.into()) });
        };
        let (done, mut result) = socket::send(socket, &buffer, done);
        if result.is_ok() && done < buffer.len() {
            let fd = socket.fd.as_raw_fd();
            let both = Interest::READABLE | Interest::WRITABLE;
            result = self.poll.registry().reregister(&mut SourceFd(&fd), token(id), both);
            if result.is_ok() {
                conn.sending = Some(Box::new((buffer, done)));
                return None;
            }
        }
        Some(Sent { conn: id, buffer, result })
    }
}

fn token(id: ConnId) -> Token {
    Token((id.generation as usize) << 32 | id.index as usize)
}

impl Engine for EpollEngine {
    fn listen(&mut self, listener: ListenerId, socket: socket2::Socket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        let token = Token(LISTENER_BIT | self.listeners.len());
        self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        self.listeners.push(Listener { id: listener, socket, ready: true, failed: false, shut: false });
        Ok(())
    }

    fn stop_listening(&mut self, listener: ListenerId, events: &mut Vec<Event>) {
        for l in self.listeners.iter_mut().filter(|l| l.id == listener && !l.shut) {
            EpollEngine::accept(l, usize::MAX, events);
            let fd = l.socket.as_raw_fd();
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
            (l.ready, l.shut) = (false, true);
            if let Ok(none) = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None) {
                l.socket = none; // closes the listening socket
            }
        }
    }

    fn retry_accept(&mut self, listener: ListenerId) {
        self.listeners
            .iter_mut()
            .filter(|l| l.id == listener && !l.shut)
            .for_each(|l| (l.ready, l.failed) = (true, false));
    }

    fn open(&mut self, socket: Socket) -> io::Result<ConnId> {
        let index = match self.free.pop_front() {
            Some(index) => index,
            None => {
                self.conns.push(Conn { generation: 0, socket: None, sending: None, ended: false });
                (self.conns.len() - 1) as u32
            }
        };
        let conn = &mut self.conns[index as usize];
        let id = ConnId { index, generation: conn.generation };
        let fd = socket.fd.as_raw_fd();
        if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token(id), Interest::READABLE) {
            self.free.push_back(index);
            return Err(error);
        }
        conn.socket = Some(socket);
        conn.ended = false;
        Ok(id)
    }

    fn close(&mut self, id: ConnId) {
        drop(self.detach(id));
    }

    fn commit(&mut self, _write: CommitWrite) {
        unreachable!("a reactor on epoll has no commit log");
    }

    fn shut_down_sending(&mut self, id: ConnId) {
        if let Some(socket) = self.live(id).and_then(|c| c.socket.as_ref()) {
            let _ = socket.fd.shutdown(Shutdown::Write); // fails only where the peer has gone already
        }
    }

    fn detach(&mut self, id: ConnId) -> Option<Socket> {
        let conn = self.live(id)?;
        conn.sending = None;
        conn.generation = (conn.generation + 1) & 0x3fff_ffff; // stays below LISTENER_BIT in a token
        let socket = conn.socket.take()?;
        let fd = socket.fd.as_raw_fd();
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        self.free.push_back(id.index);
        Some(socket)
    }

    fn retain(&mut self, _conn: ConnId) {} // detaching is over at once

    fn recv(&mut self, id: ConnId, mut lease: Lease) -> Option<Received> {
        let Some((socket, ended)) = self.live(id).and_then(|c| Some((c.socket.as_ref()?, c.ended))) else {
            let outcome = Outcome::Failed(io::ErrorKind::NotConnected.into());
            return Some(Received { conn: id, lease, outcome });
        };
        let Lease { chunk, start, len, .. } = &mut lease;
        let outcome = socket::receive(socket, &mut chunk.free()[*start..*start + *len], ended);
        Some(Received { conn: id, lease, outcome })
    }

    fn recv_batch(&mut self, id: ConnId, space: &mut [u8], batch: &mut Vec<Datagram>) -> Outcome {
        match self.live(id).and_then(|c| c.socket.as_ref()) {
            Some(socket) => socket::receive_batch(socket, space, batch),
            None => Outcome::Failed(io::ErrorKind::NotConnected.into()),
        }
    }

    fn queue(&mut self, id: ConnId) -> Option<Queue> {
        self.live(id).and_then(|c| c.socket.as_ref()).and_then(socket::queue)
    }

    fn send(&mut self, conn: ConnId, buffer: Vec<u8>) -> Option<Sent> {
        self.send_from(conn, buffer, 0)
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Event>) -> io::Result<()> {
        let accepting = self.listeners.iter().any(|l| l.ready && !l.failed);
        let timeout = if accepting { Some(Duration::ZERO) } else { timeout };
        let mut events = std::mem::replace(&mut self.events, mio::Events::with_capacity(0));
        match self.poll.poll(&mut events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(e) => return Err(e),
            Ok(()) => {}
        }
        for event in &events {
            let Token(token) = event.token();
            if event.token() == WAKE {
                out.push(Event::Woken);
            } else if token & LISTENER_BIT != 0 {
                self.listeners[token & !LISTENER_BIT].ready = true;
            } else {
                let id = ConnId { index: token as u32, generation: (token >> 32) as u32 };
                let Some(conn) = self.live(id) else { continue };
                conn.ended |= event.is_read_closed() || event.is_error();
                if event.is_writable() {
                    self.writable(id, out);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    out.push(Event::Pending(id));
                }
            }
        }
        self.events = events;
        for listener in self.listeners.iter_mut().filter(|l| l.ready && !l.failed) {
            EpollEngine::accept(listener, ACCEPT_AT_ONCE, out);
        }
        Ok(())
    }

    fn dawdle(&mut self, time: Duration) {
        std::thread::park_timeout(time);
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let waker = Arc::clone(&self.waker);
        Box::new(move || {
            // The only failure is a counter at its maximum, and then the wait returns anyway.
            let _ = waker.wake();
        })
    }
}
