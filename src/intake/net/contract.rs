//! The contract of an engine: how a reactor talks to sockets. It knows no protocol.
//!
//! The contract is completion-shaped, and buffers have one owner at any time. A [`Lease`] goes to the engine with
//! [`Engine::recv`] and comes back in a [`Received`]: at once, if the engine could receive on the spot, otherwise as an event.
//! An idle connection holds no buffer. When input waits, the engine reports [`Event::Pending`], and the reactor leases a buffer
//! when it has room. Until then the connection stays pending without further events. So a reactor pauses a connection by not
//! leasing a buffer.

pub use crate::host::peer::{ListenerId, Peer};
pub use crate::pipeline::chunk::ConnId;

use super::counted::Counted;
use super::steering::Member;
use crate::host::sys::Queue;
use crate::pipeline::chunk::Chunk;
use crate::pipeline::commit::{CommitWrite, Committed};
use std::io;
use std::time::Duration;

/// Stream or datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes in order; ends.
    Stream,
    /// Separate messages from any sender; it never ends.
    Datagram,
    /// Datagrams of UDP, which are smaller, and which the kernel drops where the queue is full.
    Udp,
}

impl Kind {
    /// True where each receive brings a whole datagram.
    #[must_use]
    pub fn is_datagram(self) -> bool {
        self != Kind::Stream
    }
}

/// A non-blocking socket.
#[derive(Debug)]
pub struct Socket {
    /// The descriptor.
    pub fd: socket2::Socket,
    /// What it carries.
    pub kind: Kind,
    /// Which of the datagrams that the kernel drops from its queue are counted. `None`: it drops none.
    pub counted: Option<Counted>,
    /// Which one it is of a group, between which busy senders are evened out.
    pub member: Option<Member>,
}

/// Memory lent to the engine: a part of the free end of a chunk. Nobody else touches the chunk until it is back.
#[derive(Debug)]
pub struct Lease {
    /// The chunk.
    pub chunk: Box<Chunk>,
    /// First byte to receive into, counted from the chunk's [`Chunk::free`].
    pub start: usize,
    /// Bytes that may be received; at least 1.
    pub len: usize,
    /// A mark of the lender, which comes back unchanged.
    pub mark: LeaseMark,
}

/// Where the memory of a lease comes from, and goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseMark {
    /// The open chunk of a lane.
    Lane(usize),
    /// The buffer for what is dropped.
    Discard,
    /// The scratch buffer.
    Scratch,
}

/// One datagram of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// First byte, in the memory that it was received into.
    pub start: usize,
    /// Bytes received.
    pub len: usize,
    /// Bytes of it that did not fit and are gone.
    pub cut: usize,
    /// Who sent it.
    pub sender: Peer,
}

/// How a receive ended.
#[derive(Debug)]
pub enum Outcome {
    /// `len` bytes are there. `more`: ask again, without waiting for an event.
    Bytes {
        /// Bytes received.
        len: usize,
        /// More input may wait already.
        more: bool,
    },
    /// Nothing there now; an event will follow.
    Empty,
    /// The peer ended its side cleanly.
    End,
    /// The connection is broken.
    Failed(io::Error),
}

/// A receive that is over, with its lease.
#[derive(Debug)]
pub struct Received {
    /// The connection.
    pub conn: ConnId,
    /// The memory, back again.
    pub lease: Lease,
    /// What happened.
    pub outcome: Outcome,
}

/// A send that is over, with its buffer.
#[derive(Debug)]
pub struct Sent {
    /// The connection.
    pub conn: ConnId,
    /// The buffer, back again.
    pub buffer: Vec<u8>,
    /// `Ok` when every byte was taken by the kernel.
    pub result: io::Result<()>,
}

/// What an engine reports.
#[derive(Debug)]
pub enum Event {
    /// A new connection, not yet opened.
    Accepted {
        /// Where it came in.
        listener: ListenerId,
        /// The socket.
        socket: Socket,
        /// The other end.
        peer: Peer,
    },
    /// Accepting failed (descriptors used up); nothing is accepted here until [`Engine::retry_accept`].
    AcceptFailed {
        /// Which listener.
        listener: ListenerId,
        /// Why.
        error: io::Error,
    },
    /// Input waits.
    Pending(ConnId),
    /// A receive that was not over at once.
    Received(Received),
    /// A send that was not over at once.
    Sent(Sent),
    /// A write to the commit log is over.
    Committed(Committed),
    /// Somebody called the waker.
    Woken,
}

/// Drives the sockets of one reactor. Used by one thread.
pub trait Engine {
    /// Accepts from `socket` from now on.
    ///
    /// # Errors
    /// The socket cannot be watched.
    fn listen(&mut self, listener: ListenerId, socket: socket2::Socket) -> io::Result<()>;
    /// Accepts what is still in the queue, into `events`, and then closes the listener. If a listener is closed with a queue, the kernel
    /// resets the connections in it.
    fn stop_listening(&mut self, listener: ListenerId, events: &mut Vec<Event>);
    /// Tries again after [`Event::AcceptFailed`].
    fn retry_accept(&mut self, listener: ListenerId);
    /// Takes a socket over; [`Event::Pending`] follows when input waits.
    ///
    /// # Errors
    /// The socket cannot be watched; it is closed.
    fn open(&mut self, socket: Socket) -> io::Result<ConnId>;
    /// Closes. No event of this connection follows; leases that are out come back as [`Event::Received`].
    fn close(&mut self, conn: ConnId);
    /// Gives the socket of a connection back, for another engine. No send may be under way. `None`: not yet; first take what was received
    /// for it with [`Engine::recv`], and try again at the next [`Event::Pending`]. The connection gets no other event until then.
    fn detach(&mut self, conn: ConnId) -> Option<Socket>;
    /// Cancels an [`Engine::detach`] that is not over: the connection stays.
    fn retain(&mut self, conn: ConnId);
    /// Receives from a stream into the lease; one receive at a time per connection. `None`: an event will bring the lease back. Both
    /// engines finish at once. The reactor relies on that: it sets no room for partial lines aside while a receive is under way.
    fn recv(&mut self, conn: ConnId, lease: Lease) -> Option<Received>;
    /// Receives what waits of a datagram socket, as far as there is room, and adds it to `batch`; never waits. The bytes of the outcome
    /// are those of all of them, and `more` says that others may wait.
    fn recv_batch(&mut self, conn: ConnId, space: &mut [u8], batch: &mut Vec<Datagram>) -> Outcome;
    /// The queue of a UDP socket; `None`: it is another one, or the kernel does not say.
    fn queue(&mut self, _conn: ConnId) -> Option<Queue> {
        None
    }
    /// Sends all of `buffer`; one send at a time per connection. `None`: an event will bring the buffer back.
    fn send(&mut self, conn: ConnId, buffer: Vec<u8>) -> Option<Sent>;
    /// Writes a record of the commit log; [`Event::Committed`] follows.
    fn commit(&mut self, write: CommitWrite);
    /// Tells the peer that nothing more is sent; receiving goes on. No send may be out.
    fn shut_down_sending(&mut self, conn: ConnId);
    /// Waits for events, at most `timeout` (`None`: for ever), and adds them.
    ///
    /// # Errors
    /// The engine itself is broken.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;
    /// Lets input gather for this long before the next [`Engine::wait`], because no client waits for an answer. Wake-ups are noticed
    /// afterwards.
    fn dawdle(&mut self, _time: Duration) {}
    /// How many times so far a connection was polled because no provided buffer was left.
    fn polled_instead(&self) -> u64 {
        0
    }
    /// Makes [`Engine::wait`] return, from any thread.
    fn waker(&self) -> Box<dyn Fn() + Send + Sync>;
}
