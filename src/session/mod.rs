//! The seam between reactors and protocols. A [`Protocol`] belongs to one listener: it says in plain data what a reactor must
//! know of it, and makes a [`Session`] for each connection. A session finds records in received bytes, puts them into a
//! [`Sink`], and says what to answer. It does no I/O, and a reactor knows no protocol by name.
//!
//! What protocols share is here too: who may hold how much memory ([`memory`]), the framing of lines ([`lines`]), how records
//! look on disk ([`mod@write`]), to which streams they may go ([`routes`]), and which answers are owed ([`owed`]).

pub mod beginnings;
pub mod drive;
pub mod lines;
pub mod memory;
pub mod owed;
pub mod profile;
pub mod routes;
pub mod sink;
pub mod syslog;
pub mod walk;
pub mod write;

pub use memory::room::Owner;
pub use profile::{Patience, Profile};
pub use sink::{ANY_PARTS, Found, Frame, Part, Sink};

use crate::host::address::Address;
use crate::host::peer::Peer;
use crate::metrics::accounting::Reason;
use crate::metrics::stats::AnswerCells;
use memory::tail::Tail;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// How the input of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer or an orderly shutdown ended it; what was begun may be kept.
    Clean,
    /// It broke, or a deadline passed: what was begun is dropped for this reason.
    Broken(Reason),
}

/// The levels of acknowledgement. Each is stronger than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckLevel {
    /// In our memory.
    Received,
    /// `write(2)` returned.
    Written,
    /// `fdatasync` succeeded.
    Durable,
}

/// Why nothing of a window will be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Every chunk is in use.
    Overloaded,
    /// The disk is full.
    DiskFull,
    /// The disk has failed for good.
    DiskFailed,
}

/// What a session waits for from its client; each has its own deadline ([`Patience`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Waiting {
    /// Nothing has begun.
    #[default]
    Nothing,
    /// The end of a record.
    Line,
    /// The end of what comes first: a head, a handshake.
    Head,
    /// More of the body that the head announced.
    Body,
}

/// What the next turn of a session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Turn {
    /// More input.
    #[default]
    Receive,
    /// Only room: it holds input that it has not handled yet.
    GoOn,
    /// Its answers must be sent first.
    Wait,
}

/// Where a session wants its next bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// In the chunk, behind a gap of so many bytes, and at most so many: whole records may stay where they are.
    Chunk {
        /// Bytes left free in front of them.
        gap: usize,
        /// Bytes at most.
        most: usize,
    },
    /// In the scratch buffer: what becomes of them is written into the chunk.
    Scratch {
        /// Bytes left free in front of them.
        gap: usize,
        /// Bytes at most.
        most: usize,
    },
}

impl Landing {
    /// Anywhere in the scratch buffer.
    pub const SCRATCH: Landing = Landing::Scratch { gap: 0, most: usize::MAX };

    /// Bytes left free in front, and bytes at most.
    #[must_use]
    pub fn bounds(self) -> (usize, usize) {
        match self {
            Landing::Chunk { gap, most } | Landing::Scratch { gap, most } => (gap, most),
        }
    }
}

/// Input that has come.
pub enum Input<'a> {
    /// So many bytes, in the sink's space from there on.
    Chunk {
        /// First byte.
        start: usize,
        /// How many.
        len: usize,
    },
    /// So many bytes in the scratch buffer; 0 where the session goes on with what it holds.
    Scratch {
        /// The buffer. In front of the bytes is the gap; what lies behind them is free.
        space: &'a mut [u8],
        /// First byte.
        start: usize,
        /// How many.
        len: usize,
    },
    /// One datagram. No record goes on beyond it.
    Datagram {
        /// Its bytes, as far as they were received.
        bytes: &'a mut [u8],
        /// Bytes of it that did not fit and are gone.
        cut: usize,
        /// Who sent it.
        sender: &'a Peer,
    },
}

impl Input<'_> {
    /// Bytes that have come.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Input::Chunk { len, .. } | Input::Scratch { len, .. } => *len,
            Input::Datagram { bytes, .. } => bytes.len(),
        }
    }

    /// True where nothing has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The conditions around a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct Around {
    /// Nanoseconds since 1970, for formats that carry the time of receipt.
    pub wall_ns: u64,
    /// Monotonic nanoseconds.
    pub now_ns: u64,
    /// Nothing of this window will be kept.
    pub refuse: Option<Refusal>,
    /// Why the server is not ready for new clients.
    pub not_ready: Option<&'static str>,
    /// The connection should end behind its present frame.
    pub closing: bool,
    /// This connection may go on though the room for partial lines is used up.
    pub is_lane: bool,
}

/// What a session works in.
pub struct Window<'a> {
    /// Where its records go.
    pub sink: Sink<'a>,
    /// What the connection had begun and not ended.
    pub tail: Tail<'a>,
    /// How things stand.
    pub around: Around,
    /// Bytes that were worked through beside those received: what a decoder made.
    pub worked: usize,
}

impl<'a> Window<'a> {
    /// A window in which nothing is committed yet: `sink`, and what the connection has begun.
    #[must_use]
    pub fn new(sink: Sink<'a>, tail: Tail<'a>, around: Around) -> Self {
        Window { sink, tail, around, worked: 0 }
    }

    /// What was found in it, and how much was worked through beside what was received.
    #[must_use]
    pub fn close(self) -> (Found, usize) {
        (self.sink.found(), self.worked)
    }
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Everything was handled; the session takes more input.
    Continue,
    /// This many bytes of the input were handled, and the next record needs a fresh chunk. The rest comes again with one. If all input
    /// was handled, the session holds the rest itself, and its turn is [`Turn::GoOn`].
    Full(usize),
    /// The peer broke a rule: close the connection after the last answers. Of a datagram, nothing more is taken.
    Close,
}

/// The state of a session, as plain data, because reactors ask often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// What it waits for.
    pub waiting: Waiting,
    /// Changes whenever the session makes progress. Then the deadline begins anew.
    pub mark: u32,
    /// What the next turn needs.
    pub turn: Turn,
    /// Its next turn will leave no more in the tail than there is.
    pub frees_tail: bool,
    /// It holds leased memory that others need: it ends.
    pub is_called_in: bool,
    /// No frame is open, so the next one may be refused.
    pub may_be_refused: bool,
    /// Ending the connection cuts nothing off.
    pub is_between: bool,
    /// There is something to send now.
    pub has_output: bool,
    /// An answer is owed, now or when something has reached its level. The connection does not end before it is given.
    pub owes: bool,
    /// It takes no more input and has sent everything, so the connection ends.
    pub is_over: bool,
    /// Room that [`Session::finish`] needs at most for a clean end.
    pub finish_room: usize,
}

/// Where answers are written.
pub struct Reply<'a> {
    /// The bytes.
    pub out: &'a mut Vec<u8>,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
    /// How many answers of each code were given.
    pub answers: &'a AnswerCells,
}

/// The protocol state of one connection. Any split of the same input gives the same records.
pub trait Session: Send {
    /// Where to receive next, with so much in the tail. Not asked of datagram sockets.
    fn landing(&self, tail_len: usize) -> Landing;

    /// Takes in what has come; what is in the tail came before it.
    fn input(&mut self, input: Input<'_>, window: &mut Window<'_>) -> Step;

    /// Ends the input.
    fn finish(&mut self, end: End, window: &mut Window<'_>);

    /// How it stands, with so much in its tail.
    fn state(&self, tail_len: usize) -> State;

    /// This many more records of a frame have reached the level. [`AckLevel::Durable`] stands for the level of the listener, whichever
    /// that is.
    fn reached(&mut self, frame: u32, level: AckLevel, records: u64);

    /// Records of this connection will never reach their level. Returns true if there is something to send before it ends.
    fn failed(&mut self) -> bool {
        false
    }

    /// Adds what is to be sent now.
    fn output(&mut self, reply: &mut Reply<'_>);

    /// Takes over a changed configuration of the same protocol. It holds from the next frame on.
    fn renew(&mut self, _protocol: &Arc<dyn Protocol>) {}
}

/// The protocol of one listener, as it is configured.
pub trait Protocol: Any + fmt::Debug + Send + Sync {
    /// What a reactor must know of it.
    fn profile(&self) -> &Profile;

    /// A new connection. Leased memory is charged to `owner`.
    fn session(&self, peer: &Peer, owner: Owner) -> Box<dyn Session>;

    /// True if the other is the same protocol with the same options.
    fn is_same(&self, other: &dyn Protocol) -> bool;

    /// What `logweir check` adds to the line of a listener: `, replying with counts`.
    fn describe(&self) -> String {
        String::new()
    }

    /// A command that sends a first line to this address, for whoever starts a server by hand.
    fn first_line(&self, _address: &Address) -> Option<String> {
        None
    }
}

/// A protocol among the options of a listener, which can be compared.
#[derive(Debug, Clone)]
pub struct Spoken(pub Arc<dyn Protocol>);

impl PartialEq for Spoken {
    fn eq(&self, other: &Spoken) -> bool {
        self.0.is_same(&*other.0)
    }
}

impl Eq for Spoken {}

impl std::ops::Deref for Spoken {
    type Target = Arc<dyn Protocol>;

    fn deref(&self) -> &Arc<dyn Protocol> {
        &self.0
    }
}

/// As [`Protocol::is_same`], for options that can be compared.
#[must_use]
pub fn same<T: Protocol + PartialEq>(this: &T, other: &dyn Protocol) -> bool {
    (other as &dyn Any).downcast_ref::<T>().is_some_and(|other| other == this)
}

/// A protocol as its own type. `None`: it is another one.
#[must_use]
pub fn downcast<T: Protocol>(protocol: &Arc<dyn Protocol>) -> Option<Arc<T>> {
    let any: Arc<dyn Any + Send + Sync> = Arc::clone(protocol) as Arc<dyn Any + Send + Sync>;
    any.downcast().ok()
}
