//! The protocol of one connection: finds whole records in received bytes and says what to answer. Does no I/O.

pub mod json;
pub mod room;
pub mod tail;

use crate::metrics::accounting::{Reason, Tally};
use crate::protocol::http;
use std::sync::Arc;
use tail::Tail;

/// How the input of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer or an orderly shutdown ended it; what was begun may be kept.
    Clean,
    /// It broke, or a deadline passed: what was begun is dropped for this reason.
    Broken(Reason),
}

/// How sure a sender wants to be of what is acknowledged to it; each is stronger than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// What a session waits for from its client; each has its own deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing is begun.
    Nothing,
    /// The end of a line.
    Line,
    /// The end of a request's head.
    Head,
    /// More of a request's body.
    Body,
}

/// What a session's next turn needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// More input.
    Receive,
    /// Only room: it holds input that it has not gone through.
    GoOn,
    /// Its answers must be sent first.
    Wait,
}

/// Where a session wants its next bytes, counted from the start of the window's space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landing {
    /// First byte.
    pub start: usize,
    /// Most bytes that may land there.
    pub len: usize,
}

/// What a session works in: the free end of a chunk and its connection's tail.
///
/// The session arranges whole records at the start of `space` and counts them in `committed` and `lines`; the caller
/// turns those into a run (or, where the policy drops, into nothing).
pub struct Window<'a> {
    /// The free end of the chunk.
    pub space: &'a mut [u8],
    /// What the connection had begun and not ended.
    pub tail: Tail<'a>,
    /// Nanoseconds since 1970, for formats that carry the time of receipt.
    pub wall_ns: u64,
    /// Monotonic nanoseconds.
    pub now_ns: u64,
    /// Bytes of whole records at the start of `space`.
    pub committed: usize,
    /// Records in them.
    pub lines: u32,
    /// Raw bytes in `space` that were not gone through, since what becomes of them may not fit: they are for a fresh window.
    pub rest: Option<Landing>,
    /// Records that were found and dropped, and why.
    pub dropped: Option<(Reason, Tally)>,
    /// Records that were cut, and the bytes cut off.
    pub truncated: Tally,
    /// Where the records go; `None`: to the listener's stream.
    pub stream: Option<u16>,
    /// Records at the start of `space` that go to another stream than those behind them.
    pub before: Vec<Part>,
    /// Nothing of this window will be kept.
    pub refuse: Option<Refusal>,
    /// Why the server is not ready for new clients.
    pub not_ready: Option<&'static str>,
    /// The connection should end behind its present request.
    pub closing: bool,
    /// Bytes that were worked through beside those received: what a decoder made.
    pub worked: usize,
    /// This connection may go on though the room for partial lines is used up.
    pub is_lane: bool,
}

/// Records of a window that go to one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which; `None`: the listener's.
    pub stream: Option<u16>,
    /// Bytes.
    pub bytes: usize,
    /// Records.
    pub lines: u32,
}

impl<'a> Window<'a> {
    /// A window in which nothing is committed yet.
    pub fn new(space: &'a mut [u8], tail: Tail<'a>, wall_ns: u64) -> Self {
        Window {
            space,
            tail,
            wall_ns,
            now_ns: 0,
            committed: 0,
            lines: 0,
            rest: None,
            dropped: None,
            truncated: Tally::default(),
            stream: None,
            before: Vec::new(),
            refuse: None,
            not_ready: None,
            closing: false,
            worked: 0,
            is_lane: false,
        }
    }

    /// From here on records go to this stream.
    pub fn switch(&mut self, stream: u16) {
        if self.stream != Some(stream) {
            let last = self.last_part();
            if last.lines > 0 {
                self.before.push(last);
            }
            self.stream = Some(stream);
        }
    }

    /// The records since the stream was last switched.
    #[must_use]
    pub fn last_part(&self) -> Part {
        let (bytes, lines) = self.before.iter().fold((0, 0), |(b, l), part| (b + part.bytes, l + part.lines));
        Part { stream: self.stream, bytes: self.committed - bytes, lines: self.lines - lines }
    }

    /// Counts a dropped record of so many bytes. One call of a session drops for one reason only.
    pub fn drop_record(&mut self, reason: Reason, bytes: u64) {
        self.dropped.get_or_insert((reason, Tally::default())).1.add(Tally { lines: 1, bytes });
    }
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More input is welcome.
    Continue,
    /// The peer broke a rule; close once what it has coming was sent.
    Close,
}

/// The protocol state of one connection. Any split of the same input gives the same records.
pub trait Session: Send {
    /// Where to receive next, given `room` bytes of chunk and a tail of `tail_len`; `None`: only a fresh chunk is large
    /// enough. `least` is what must fit at least (a datagram; a receive worth a system call).
    fn landing(&self, room: usize, tail_len: usize, least: usize) -> Option<Landing>;

    /// Takes `len` bytes in that landed where [`Session::landing`] said.
    fn input(&mut self, landing: Landing, len: usize, window: &mut Window<'_>) -> Step;

    /// Ends a datagram of which `cut` bytes did not fit: no record goes on beyond it.
    fn end_of_datagram(&mut self, cut: usize, window: &mut Window<'_>);

    /// Room that [`Session::finish`] and [`Session::end_of_datagram`] need at most.
    fn finish_room(&self, tail_len: usize) -> usize;

    /// What it waits for, with so much in its tail.
    fn waiting(&self, tail_len: usize) -> Waiting;

    /// Changes whenever what it waits for came nearer: the deadline begins anew.
    fn mark(&self) -> u32;

    /// What the next turn needs.
    fn turn(&self) -> Turn {
        Turn::Receive
    }

    /// True where going on leaves no more in the tail than there is.
    fn frees_tail(&self) -> bool {
        false
    }

    /// True where it holds leased memory that others need: it ends.
    fn is_called_in(&self) -> bool {
        false
    }

    /// True where no request is being taken: what comes next may be refused.
    fn may_be_refused(&self) -> bool {
        true
    }

    /// True where ending the connection cuts nothing off.
    fn is_between(&self, _tail_len: usize) -> bool {
        true
    }

    /// Ends the input.
    fn finish(&mut self, end: End, window: &mut Window<'_>);

    /// So many more records of this connection have reached the listener's level.
    fn acked(&mut self, lines: u64);

    /// The first so many records of this connection are written, though not yet at the listener's level.
    fn written(&mut self, _lines: u64) {}

    /// Records so far, if somebody wants to hear when they are written rather than at the listener's level.
    fn awaits_writing(&mut self) -> Option<u64> {
        None
    }

    /// Records of this connection will never reach their level. True: there is something to say before it ends.
    fn failed(&mut self) -> bool {
        false
    }

    /// The configuration has changed: from the next request on these options hold.
    fn renew(&mut self, _options: &Arc<http::HttpOptions>) {}

    /// True where there is something to send now.
    fn has_output(&self) -> bool;

    /// True where an answer is owed, now or once something has reached its level; it is given before the connection ends.
    fn owes(&self) -> bool {
        false
    }

    /// True where it takes no more input and everything was said: the connection ends.
    fn is_over(&self) -> bool {
        false
    }

    /// Adds what is to be sent now.
    fn output(&mut self, reply: &mut http::Reply<'_>);
}
