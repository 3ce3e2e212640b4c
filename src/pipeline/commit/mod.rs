//! The commit log of a reactor: makes small groups durable through the reactor's own ring, without a thread.
//!
//! At the end of a turn, the new part of the reactor's open chunk becomes one record, and one write. When the write completes, those who
//! wait for these lines are answered. The chunk goes to the writer when it is full or has lingered, and comes back when its lines are
//! synced in their segments: then the blocks of its records are free. So a line is in memory until it is in a segment, and in the log
//! until it is durable there; the writer syncs in the background, and nobody waits for it.
//!
//! Where the log cannot take a group (it is too large, the log is full or given up, a stream lies on another device), the group goes the
//! direct way: the chunk is pushed at once, and its return is the answer. That is also how those are answered whose log write fails.

mod circle;
mod clearance;
mod names;
mod progress;

pub use crate::log::segment::Stamp;
pub use clearance::Clearance;
pub use names::StreamNames;
pub use progress::Progress;

use crate::host::mutants::mutant;
use crate::host::sys::{Piece, pieces};
use crate::log::commit::Named;
use crate::log::commit::record::{self, BLOCK, Head, Part};
use crate::log::disk::FixedFile;
use crate::metrics::accounting::Tally;
use crate::metrics::stats::CommitCells;
use crate::pipeline::chunk::{Chunk, Run, Ticket};
use circle::Circle;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Bytes of lines of a group that goes to the log; larger ones go the direct way (docs/decisions.md).
pub const GROUP_MOST: usize = 64 << 10;
/// Bytes of a record in memory: such a group, and what describes it.
pub const RECORD_BYTES: usize = GROUP_MOST + (16 << 10);
/// Several clients that bring more than this each, in one group, are bulk: the direct way is quicker for them (docs/decisions.md).
const BULK_BYTES: usize = 16 << 10;
/// Bulk stays bulk for so long: to go both ways in turn is slower than either.
const BULK_NS: u64 = 10_000_000;
/// Writes under way at most. More gain nothing: what comes meanwhile makes the next record larger.
pub const SLOTS: usize = 2;
/// How long the log may be without a record that says that all is free.
const MARK_NS: u64 = 1_000_000_000;
/// A write that takes longer than this is not waited for: its lines go the direct way too.
const LATE_NS: u64 = 1_000_000_000;
/// The average time of a write is over about this many.
const AVERAGED: u64 = 256;
/// A log whose writes take so many times as long as the direct way took when it was tried out, alone, is given up: on busy cores the
/// direct way takes two to three times as long as alone.
const SLOWER: u64 = 8;
/// It is not given up for less than this: the time runs until the reactor looks, and one with much to do looks late.
const SLOW_NS: u64 = 20_000_000;

/// A write of a record, for the engine.
pub struct CommitWrite {
    /// Which of the writes under way.
    pub slot: u16,
    /// The log.
    pub file: Arc<dyn FixedFile>,
    /// The record.
    pub memory: Piece,
    /// Its bytes.
    pub len: usize,
    /// Where it goes.
    pub offset: u64,
}

/// A write of a record that is over.
#[derive(Debug)]
pub struct Committed {
    /// As in [`CommitWrite`].
    pub slot: u16,
    /// The memory, back again.
    pub memory: Piece,
    /// Whether all of it is durable.
    pub result: io::Result<()>,
}

/// Where a log is, and whose.
pub struct Place {
    /// Its file.
    pub file: Arc<dyn FixedFile>,
    /// Bytes of it; a multiple of [`BLOCK`].
    pub bytes: u64,
    /// The run of the server.
    pub generation: u64,
    /// Number of the reactor.
    pub reactor: u16,
    /// Its shard.
    pub shard: u16,
    /// The streams that it may take lines of.
    pub names: Arc<StreamNames>,
    /// How far it is, for others.
    pub progress: Arc<Progress>,
    /// What a group takes on the direct way, in nanoseconds: a log that is slower is given up. 0: it never is.
    pub direct_ns: u64,
}

/// Somebody who waits for lines of a record.
#[derive(Debug, Clone, Copy)]
pub struct Waiter {
    /// Who.
    pub ticket: Ticket,
    /// Lines.
    pub lines: u32,
    /// When they were received, in monotonic nanoseconds.
    pub received_ns: u64,
}

/// What became of the lines of one record, for the reactor to answer and to count.
#[derive(Debug)]
pub struct Told {
    /// Who waits.
    pub waiters: Vec<Waiter>,
    /// The lines, by listener.
    pub lines: Vec<(u16, Tally)>,
    /// They are durable, or never will be.
    pub is_durable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Writing,
    Written,
    Failed,
}

#[derive(Debug)]
struct Record {
    sequence: u64,
    state: State,
    /// Number of the chunk with its lines; of a record without lines that of the record before it.
    chunk: u64,
    since_ns: u64,
    /// What its write says is free.
    freed_to: u64,
    /// The chunk has come back: its lines are synced in segments.
    is_synced: bool,
    /// The chunk has come back: its lines are in no segment and never will be.
    has_failed: bool,
    /// To be told, until it is.
    told: Option<Owed>,
}

/// Who waits for the lines of a record, and how many those are, by listener.
type Owed = (Vec<Waiter>, Vec<(u16, Tally)>);

/// What the log does with a group.
pub enum Offer {
    /// This write makes it durable.
    Write(CommitWrite),
    /// As many writes as there may be are under way; it is asked again when one completes.
    Wait,
    /// It goes the direct way.
    Direct,
}

/// See the module documentation.
pub struct CommitLog {
    place: Place,
    circle: Circle,
    /// Those whose blocks are in use, in sequence. There are thousands: each is looked at when something happens to it, never all of them.
    records: VecDeque<Record>,
    next: u64,
    /// The last record with lines.
    last_lines: u64,
    /// All records before this one are written.
    written_to: u64,
    /// Everybody who waits for records before this one was told.
    told_to: u64,
    /// Nobody needs the records before this one any more.
    done_to: u64,
    /// Memory of the writes that are not under way, by slot.
    spare: Vec<(u16, Piece)>,
    /// Everything before this record is free, and the log says so.
    marked: u64,
    /// When a record is due that says so.
    mark_at: Option<u64>,
    /// Nothing is written to it any more.
    is_over: bool,
    /// Somebody was asked to sync since this sequence.
    asked_for: u64,
    /// Until then everything goes the direct way, in monotonic nanoseconds: several clients bring much.
    bulk_until: u64,
    /// Average time of a write, in nanoseconds.
    average_ns: u64,
    /// Sequence and bytes of the write under way in each slot.
    writing: [(u64, u64); SLOTS],
}

/// True if several clients bring so much at once that a sync costs little of it: then writing everything twice costs more.
fn is_bulk(runs: &[Run], bytes: usize) -> bool {
    let mut clients = 0;
    let mut last = None;
    for ticket in runs.iter().filter_map(|run| run.ticket) {
        clients += usize::from(last.replace(ticket.conn) != Some(ticket.conn));
    }
    clients > 1 && bytes > clients * BULK_BYTES
}

impl Record {
    /// Nobody needs it any more.
    fn is_done(&self) -> bool {
        self.is_synced && self.told.is_none() && self.state != State::Writing
    }
}

impl CommitLog {
    /// An empty log.
    ///
    /// # Errors
    /// There is no memory for its writes.
    pub fn new(place: Place) -> io::Result<CommitLog> {
        let blocks = u32::try_from(place.bytes / BLOCK as u64).unwrap_or(u32::MAX);
        let spare = pieces(SLOTS, RECORD_BYTES, false, None)?.into_iter().enumerate();
        let spare = spare.map(|(slot, piece)| (slot as u16, piece)).collect();
        Ok(CommitLog {
            place,
            circle: Circle::new(blocks),
            records: VecDeque::new(),
            next: 1,
            last_lines: 0,
            written_to: 1,
            told_to: 1,
            done_to: 1,
            spare,
            marked: 1,
            mark_at: None,
            is_over: false,
            asked_for: 0,
            bulk_until: 0,
            average_ns: 0,
            writing: [(0, 0); SLOTS],
        })
    }

    /// Takes the part of a chunk that no record has yet.
    pub fn offer(&mut self, chunk: &mut Chunk, number: u64, stamp: Stamp) -> Offer {
        let from = chunk.logged();
        let runs = &chunk.runs()[from..];
        let bytes: usize = runs.iter().map(|run| run.len as usize).sum();
        if is_bulk(runs, bytes) {
            self.bulk_until = stamp.mono_ns.saturating_add(BULK_NS);
        }
        if self.is_over || bytes > GROUP_MOST || stamp.mono_ns < self.bulk_until {
            return Offer::Direct;
        }
        if self.spare.is_empty() {
            return Offer::Wait;
        }
        let names = Arc::clone(&self.place.names);
        let (mut parts, mut open) = (Vec::<Part<'_>>::new(), None);
        let (mut waiters, mut lines) = (Vec::new(), Vec::<(u16, Tally)>::new());
        for run in runs {
            let Some(stream) = names.get(run.stream) else { return Offer::Direct };
            let key = (run.stream, run.listener);
            let tally = Tally { lines: u64::from(run.lines), bytes: u64::from(run.len) };
            match parts.last_mut() {
                Some(last) if open == Some(key) => {
                    let before = last.bytes.len() as u32;
                    last.bytes = chunk.bytes_between(run.start - before, run.start + run.len);
                    last.lines += run.lines;
                }
                _ => {
                    let bytes = chunk.bytes_of(run);
                    parts.push(Part { stream, listener: run.listener, lines: run.lines, bytes });
                    open = Some(key);
                }
            }
            match lines.iter_mut().find(|(listener, _)| *listener == run.listener) {
                Some((_, sum)) => sum.add(tally),
                None => lines.push((run.listener, tally)),
            }
            if let Some(ticket) = run.ticket {
                waiters.push(Waiter { ticket, lines: run.lines, received_ns: run.received_ns });
            }
        }
        match self.write(&parts, stamp) {
            Some(write) => {
                let (reactor, generation) = (self.place.reactor, self.place.generation);
                let through = self.next - 1;
                if let Some(record) = self.records.back_mut() {
                    (record.chunk, record.is_synced) = (number, false);
                    record.told = Some((waiters, lines));
                }
                self.last_lines = through;
                chunk.note_logged(Named { generation, reactor, through });
                Offer::Write(write)
            }
            None => Offer::Direct,
        }
    }

    /// Makes the next record.
    fn write(&mut self, parts: &[Part<'_>], stamp: Stamp) -> Option<CommitWrite> {
        let blocks = u32::try_from(record::len_of(parts) / BLOCK).ok()?;
        let (slot, mut memory) = self.spare.pop()?;
        let sequence = self.next;
        let freed_to = self.done_to;
        let Place { generation, reactor, shard, .. } = self.place;
        let head =
            Head { generation, reactor, shard, sequence, freed_to, mono_ns: stamp.mono_ns, wall_ns: stamp.wall_ns };
        // One block stays free for a record that says what is free.
        let reserve = u32::from(!parts.is_empty());
        let fits = record::len_of(parts) <= memory.len();
        let place = if fits { self.circle.take(blocks, reserve) } else { None };
        let written = place.and_then(|start| Some((start, record::encode(&mut memory, &head, parts)?)));
        let Some((start, len)) = written else {
            self.spare.push((slot, memory));
            // What is done makes room as soon as the log says so, unless a write that says so is under way.
            let is_said = self.records.iter().rev().take(SLOTS).any(|r| r.freed_to >= self.done_to);
            if fits && self.done_to > self.marked && !is_said {
                self.mark_at = Some(stamp.mono_ns);
            }
            return None;
        };
        self.next += 1;
        self.mark_at = None;
        self.records.push_back(Record {
            sequence,
            state: State::Writing,
            chunk: self.records.back().map_or(0, |before| before.chunk),
            since_ns: stamp.mono_ns,
            freed_to,
            is_synced: true,
            has_failed: false,
            told: None,
        });
        self.place.progress.set_next(self.next);
        self.writing[usize::from(slot) % SLOTS] = (sequence, len as u64);
        let offset = u64::from(start) * BLOCK as u64;
        Some(CommitWrite { slot, file: Arc::clone(&self.place.file), memory, len, offset })
    }

    /// A record whose blocks are in use.
    fn at(&mut self, sequence: u64) -> Option<&mut Record> {
        let first = self.records.front()?.sequence;
        self.records.get_mut(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// Goes on from a record as far as `holds` does, and returns the first of which it does not hold.
    fn as_far_as(&self, from: u64, holds: impl Fn(&Record) -> bool) -> u64 {
        let first = self.records.front().map_or(self.next, |r| r.sequence);
        let from = from.max(first);
        let records = self.records.iter().skip((from - first) as usize);
        from + records.take_while(|r| holds(r)).count() as u64
    }

    /// Takes the end of a write.
    pub fn completed(&mut self, done: Committed, now_ns: u64, cells: &CommitCells) {
        let Committed { slot, memory, result } = done;
        self.spare.push((slot, memory));
        let (sequence, bytes) = self.writing[usize::from(slot) % SLOTS];
        let Some(record) = self.at(sequence) else { return };
        let (took, freed_to) = (now_ns.saturating_sub(record.since_ns), record.freed_to);
        match result {
            Err(error) => {
                record.state = State::Failed;
                self.give_up(&format!("a write failed: {error}"));
            }
            Ok(()) => {
                record.state = State::Written;
                self.marked = self.marked.max(freed_to);
                self.written_to = self.as_far_as(self.written_to, |r| r.state == State::Written);
                cells.records.add(1);
                cells.bytes.add(bytes);
                cells.latency.record(took);
                self.average_ns = (self.average_ns * (AVERAGED - 1) + took) / AVERAGED;
                let direct = self.place.direct_ns;
                if direct > 0 && self.average_ns > (SLOWER * direct).max(SLOW_NS) {
                    self.give_up("its writes take much longer than the direct way");
                }
            }
        }
        self.free(now_ns);
    }

    fn give_up(&mut self, because: &str) {
        if !std::mem::replace(&mut self.is_over, true) {
            tracing::warn!(
                reactor = self.place.reactor,
                because,
                "the commit log is given up: durable answers come by syncs of the segments"
            );
        }
        self.mark_at = None;
    }

    /// A chunk has come back: everything of it is synced in segments, or in none and never will be. Chunks come back in any order.
    pub fn returned(&mut self, number: u64, failed: bool, now_ns: u64) {
        // Chunks have ascending numbers, in the order of the records.
        let from = self.records.partition_point(|r| r.chunk < number);
        for record in self.records.iter_mut().skip(from).take_while(|r| r.chunk == number) {
            record.is_synced |= !failed;
            record.has_failed |= !record.is_synced;
        }
        self.free(now_ns);
    }

    /// Frees what is synced and told, from the oldest on, once the log says durably that it is. Recovery finds the end of what is needed
    /// by holes in the sequence; a hole among older records would hide those behind it.
    pub fn free(&mut self, now_ns: u64) {
        self.told_to = self.as_far_as(self.told_to, |r| r.told.is_none());
        self.done_to = self.as_far_as(self.done_to, Record::is_done);
        let early = mutant!("commit_block_reused_before_the_sync");
        while let Some(record) = self.records.front()
            && (early || (record.sequence < self.done_to && record.sequence < self.marked))
            && record.state != State::Writing
            && record.told.is_none()
        {
            self.records.pop_front();
            self.circle.free();
        }
        let all_done = self.done_to == self.next;
        if self.is_over && all_done {
            self.place.progress.end();
        }
        if !self.is_over && all_done && self.last_lines >= self.marked {
            self.mark_at.get_or_insert(now_ns + MARK_NS);
        }
        self.place.progress.set_marked(self.marked);
    }

    /// What can be told now. Recovery takes records up to the first that is not whole, so none counts before those before it are written;
    /// not even where their lines are in segments by now.
    pub fn next_told(&mut self) -> Option<Told> {
        let written_to = self.written_to;
        for sequence in self.told_to..self.next {
            let Some(record) = self.at(sequence) else { continue };
            let early = record.state == State::Writing && mutant!("answered_before_the_commit");
            let behind = record.state == State::Written && mutant!("answered_behind_a_hole");
            let is_durable = sequence < written_to || record.is_synced || early || behind;
            let is_settled = is_durable || (record.state == State::Failed && record.has_failed);
            if let Some((waiters, lines)) = record.told.take_if(|_| is_settled) {
                return Some(Told { waiters, lines, is_durable });
            }
        }
        None
    }

    /// Publishes how it stands.
    pub fn publish(&self, cells: &CommitCells) {
        cells.in_use.set(u64::from(!self.is_over));
        cells.given_up.set(u64::from(self.is_over));
        cells.used.set(self.circle.in_use().into());
        cells.blocks.set(self.circle.blocks().into());
    }

    /// True if nobody waits to be told anything.
    #[must_use]
    pub fn has_told(&self) -> bool {
        self.told_to == self.next
    }

    /// The records that somebody waits to be told of: as many as are under way, unless something has failed.
    fn untold(&self) -> impl Iterator<Item = &Record> {
        let first = self.records.front().map_or(self.next, |r| r.sequence);
        self.records.iter().skip(self.told_to.saturating_sub(first) as usize).filter(|r| r.told.is_some())
    }

    /// The lines of all records that nobody was told of. Nobody will be.
    pub fn give_up_told(&mut self) -> Vec<(u16, Tally)> {
        self.records.iter_mut().filter_map(|r| r.told.take()).flat_map(|(_, lines)| lines).collect()
    }

    /// True once, when so much of the log is in use that the writer should sync, or when somebody waits for a sync.
    pub fn wants_sync(&mut self, now_ns: u64) -> bool {
        let is_half_full = self.circle.in_use() >= self.circle.blocks() / 2;
        let hangs =
            |r: &Record| r.state == State::Failed || (r.state == State::Writing && now_ns > r.since_ns + LATE_NS);
        let somebody_waits = self.untold().any(|r| !r.is_synced && !r.has_failed && hangs(r));
        let is_new = self.records.front().is_some_and(|r| r.sequence >= self.asked_for);
        if (is_half_full || somebody_waits) && is_new {
            self.asked_for = self.next;
            return true;
        }
        false
    }

    /// When [`CommitLog::mark`] has something to do, in monotonic nanoseconds.
    #[must_use]
    pub fn mark_at(&self) -> Option<u64> {
        self.mark_at
    }

    /// A record that says that nothing of the log is needed any more, when it is time for that.
    pub fn mark(&mut self, stamp: Stamp) -> Option<CommitWrite> {
        self.mark_at.filter(|at| *at <= stamp.mono_ns)?;
        self.mark_at = None;
        self.write(&[], stamp)
    }

    /// When writes under way are looked at again, in monotonic nanoseconds.
    #[must_use]
    pub fn look_at(&self) -> Option<u64> {
        let writing = self.untold().find(|r| r.state == State::Writing && r.sequence >= self.asked_for);
        writing.map(|r| r.since_ns + LATE_NS + 1)
    }
}

#[cfg(test)]
mod tests;
