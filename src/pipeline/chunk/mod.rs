//! Chunks: buffers of a fixed size with whole records on their way to the writer, and the runs that say what is in them.

mod pool;

pub use pool::Pool;

use crate::host::sys::{Piece, pieces};
use crate::log::commit::Named;
use std::io;

/// One connection of one reactor. The generation makes an old id miss when its place has been taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Place in the reactor's table.
    pub index: u32,
    /// How often the place has been used.
    pub generation: u32,
}

/// Where an acknowledgement goes when a run reaches its level: to a frame of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// The connection.
    pub conn: ConnId,
    /// What is acknowledged as a whole there; the connection's session numbers its own.
    pub frame: u32,
}

/// The level that the bytes of a chunk must reach before its tickets are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// No client waits.
    None,
    /// `write(2)` returned for every byte.
    Written,
    /// `fdatasync` succeeded after the write.
    Durable,
}

/// Which ring a chunk takes. From the listener's policy, never from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Never evicted: `block`, `drop_newest`, everything acknowledged.
    Lossless,
    /// May be evicted by newer chunks: `drop_oldest`.
    Lossy,
}

/// Consecutive bytes of a chunk that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index of the stream in the configuration.
    pub stream: u16,
    /// Index of the listener in the configuration.
    pub listener: u16,
    /// First byte in the chunk.
    pub start: u32,
    /// Bytes, terminators included.
    pub len: u32,
    /// Records.
    pub lines: u32,
    /// The ticket of the client that waits for them. `None`: no client waits, and runs of several connections may be joined.
    pub ticket: Option<Ticket>,
    /// Monotonic nanoseconds at which the run was received.
    pub received_ns: u64,
}

/// A fixed-size buffer of whole records and the runs in it. Belongs to one reactor and one class.
#[derive(Debug)]
pub struct Chunk {
    memory: Piece,
    len: usize,
    runs: Vec<Run>,
    /// The reactor to which the chunk returns when its level is reached.
    pub reactor: u16,
    /// What its tickets wait for.
    pub level: Level,
    /// Set by the writer where the level can never be reached.
    pub failed: bool,
    /// A client waits only for the write, while the chunk waits for more.
    pub announce: bool,
    /// Its place among the chunks of its lane.
    pub number: u64,
    is_awaited: bool,
    /// The first so many runs are in the commit log, which answers for them.
    logged: usize,
    named: Option<Named>,
}

/// A chunk that can describe fewer runs than this is full: it is not worth a receive.
pub const FEWEST_RUNS: usize = 20;

/// Runs that a chunk of `chunk_bytes` can describe. When they are used up the chunk is full, so it is sized for runs of
/// half a KiB; most chunks hold far fewer.
#[must_use]
pub const fn runs_per_chunk(chunk_bytes: usize) -> usize {
    let runs = chunk_bytes / 512;
    if runs < 128 { 128 } else { runs }
}

/// Memory that one chunk of `chunk_bytes` takes with its runs.
#[must_use]
pub const fn memory_of_chunk(chunk_bytes: usize) -> usize {
    chunk_bytes + runs_per_chunk(chunk_bytes) * size_of::<Run>() + size_of::<Chunk>()
}

impl Chunk {
    /// Maps the memory; none of it is touched before it is used.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn new(bytes: usize) -> io::Result<Chunk> {
        Ok(Chunk::on(pieces(1, bytes, false, None)?.remove(0)))
    }

    /// A chunk on memory of the caller's.
    #[must_use]
    pub fn on(memory: Piece) -> Chunk {
        let runs = Vec::with_capacity(runs_per_chunk(memory.len()));
        Chunk {
            memory,
            len: 0,
            runs,
            reactor: 0,
            level: Level::None,
            failed: false,
            announce: false,
            number: 0,
            is_awaited: false,
            logged: 0,
            named: None,
        }
    }

    /// Touches its memory, so that the kernel provides it now.
    pub fn fault_in(&mut self) {
        self.memory.fault_in();
    }

    /// Empties it for reuse.
    pub fn clear(&mut self) {
        self.len = 0;
        self.runs.clear();
        self.failed = false;
        self.announce = false;
        self.is_awaited = false;
        self.logged = 0;
        self.named = None;
    }

    /// Notes that everything in it is in the commit log.
    pub fn note_logged(&mut self, named: Named) {
        self.logged = self.runs.len();
        self.is_awaited = false;
        self.named = Some(named);
    }

    /// How many of its runs are in the commit log: the first ones.
    #[must_use]
    pub fn logged(&self) -> usize {
        self.logged
    }

    /// How a trail names those of them that belong to a stream.
    #[must_use]
    pub fn named(&self) -> Option<Named> {
        self.named
    }

    /// The runs that are not in the commit log: the writer counts and answers for them.
    #[must_use]
    pub fn unlogged_runs(&self) -> &[Run] {
        &self.runs[self.logged..]
    }

    /// True where a client waits for its sync: for something in it that is not in the commit log.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Bytes of whole records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before the first record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes that still fit; 0 too when hardly any run more can be described.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.runs_left() < FEWEST_RUNS { 0 } else { self.memory.len() - self.len }
    }

    /// Runs that can still be described: a client decides how many its records become, so a [`crate::session::Sink`] is told.
    #[must_use]
    pub fn runs_left(&self) -> usize {
        self.runs.capacity() - self.runs.len()
    }

    /// Bytes that fit when it is empty.
    #[must_use]
    pub fn room_when_empty(&self) -> usize {
        self.memory.len()
    }

    /// The free part, behind the records.
    pub fn free(&mut self) -> &mut [u8] {
        &mut self.memory[self.len..]
    }

    /// The runs.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The bytes of one run.
    #[must_use]
    pub fn bytes_of(&self, run: &Run) -> &[u8] {
        &self.memory[run.start as usize..(run.start + run.len) as usize]
    }

    /// The bytes from one place to another.
    #[must_use]
    pub fn bytes_between(&self, from: u32, to: u32) -> &[u8] {
        &self.memory[from as usize..to as usize]
    }

    /// Takes the first `len` bytes of the free part in as `lines` records. Joins the last run where both belong to the
    /// same stream, listener and ticket.
    ///
    /// # Panics
    /// If there was no [`Chunk::room`], or none of [`Chunk::runs_left`]: a bug of the caller, never reachable from the network.
    pub fn commit(
        &mut self,
        stream: u16,
        listener: u16,
        ticket: Option<Ticket>,
        len: usize,
        lines: u32,
        received_ns: u64,
    ) {
        assert!(len <= self.memory.len() - self.len, "committed more than the chunk holds");
        let start = self.len as u32;
        self.len += len;
        self.is_awaited |= ticket.is_some();
        if self.runs.len() > self.logged
            && let Some(last) = self.runs.last_mut()
            && (last.stream, last.listener, last.ticket) == (stream, listener, ticket)
        {
            last.len += len as u32;
            last.lines += lines;
            return;
        }
        assert!(self.runs.len() < self.runs.capacity(), "more runs than the chunk describes");
        self.runs.push(Run { stream, listener, start, len: len as u32, lines, ticket, received_ns });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_only_what_belongs_together() {
        let mut chunk = Chunk::new(4096).unwrap();
        let conn = |i| Some(Ticket { conn: ConnId { index: i, generation: 1 }, frame: 0 });
        chunk.commit(0, 0, None, 10, 1, 5);
        chunk.commit(0, 0, None, 10, 2, 6);
        chunk.commit(0, 1, None, 10, 1, 7);
        chunk.commit(0, 1, conn(1), 10, 1, 7);
        chunk.commit(0, 1, conn(2), 10, 1, 7);
        let lens: Vec<(u32, u32)> = chunk.runs().iter().map(|r| (r.len, r.lines)).collect();
        assert_eq!(lens, [(20, 3), (10, 1), (10, 1), (10, 1)]);
        assert_eq!(chunk.len(), 50);
    }

    #[test]
    fn a_chunk_without_runs_left_has_no_room() {
        let mut chunk = Chunk::new(4096).unwrap();
        for i in 0..(runs_per_chunk(4096) - FEWEST_RUNS) as u32 + 1 {
            assert!(chunk.room() > 0);
            let conn = ConnId { index: i, generation: 0 };
            chunk.commit(0, 0, Some(Ticket { conn, frame: 0 }), 1, 1, 0);
        }
        assert_eq!(chunk.room(), 0);
        chunk.clear();
        assert_eq!(chunk.room(), 4096);
    }
}
