//! The protocol of one connection: finds whole records in received bytes and says what to answer. Does no I/O.

pub mod json;
pub mod lines;
pub mod tail;

use crate::metrics::accounting::{Reason, Tally};
use tail::Tail;

/// How the input of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer or an orderly shutdown ended it; what was begun may be kept.
    Clean,
    /// It broke, or a deadline passed: what was begun is dropped for this reason.
    Broken(Reason),
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
    /// Bytes of whole records at the start of `space`.
    pub committed: usize,
    /// Records in them.
    pub lines: u32,
    /// Records that were found and dropped, and why.
    pub dropped: Option<(Reason, Tally)>,
    /// Records that were cut, and the bytes cut off.
    pub truncated: Tally,
}

impl<'a> Window<'a> {
    /// A window in which nothing is committed yet.
    pub fn new(space: &'a mut [u8], tail: Tail<'a>, wall_ns: u64) -> Self {
        Window { space, tail, wall_ns, committed: 0, lines: 0, dropped: None, truncated: Tally::default() }
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

    /// True while a line is begun and not ended, whether or not anything of it is kept.
    fn is_inside_line(&self, tail_len: usize) -> bool;

    /// Ends the input.
    fn finish(&mut self, end: End, window: &mut Window<'_>);

    /// So many more records of this connection have reached the listener's level.
    fn acked(&mut self, lines: u64);

    /// Adds what is to be sent now.
    fn output(&mut self, out: &mut Vec<u8>);
}
