//! The writer: one thread for each shard. It gathers chunks, appends them, syncs, and acknowledges.
//!
//! The shape of the loop gives group commit: while a sync runs, the next group gathers in the ring. The writer itself syncs at
//! once what a client waits for. The steward syncs the rest in the background. No file ever has two syncs under way, because
//! the kernel reports a lost write to only one of them.

mod background;
mod batch;
mod changes;
mod failure;
mod rotations;
pub mod steward;
pub mod stream;
pub mod syncers;
mod syncing;
pub mod unsynced;

use crate::host::clock::Clock;
use crate::host::mutants::mutant;
use crate::log::LogError;
use crate::log::segment::{AppendError, Stamp};
use crate::metrics::accounting::{Ledger, Reason, Term};
use crate::pipeline::chunk::{Chunk, Class, Level};
use crate::pipeline::control::Control;
use crate::pipeline::shard::Shard;
use crate::pipeline::sleep::Sleep;
use batch::{Batch, Gatherer};
pub use changes::{Change, Changes};
use rotations::Rotations;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use steward::{Done, Steward};
use stream::{Rotation, StreamWriter};
use syncers::Syncers;

/// Time between tries while the disk is full.
const FULL_AGAIN_NS: u64 = 100_000_000;
/// Longest sleep while something blocks, so that an abandoned shutdown is seen.
const BLOCKED_NS: u64 = 100_000_000;

/// The result of a turn of the writer.
#[derive(Debug)]
pub enum Turn {
    /// There may be more to do.
    Again,
    /// Nothing to do until somebody wakes the writer or, if given, until this monotonic time.
    Sleep(Option<u64>),
    /// Everything is written, synced and sealed (`true`), or the time for that was over.
    Ended(bool),
}

/// A chunk whose tickets wait for a sync.
struct Held {
    /// Number of the write that holds the last of it.
    write: u64,
    chunk: Box<Chunk>,
    /// The streams that have lines in it: when all of them are synced, it goes back. Others do not matter to it.
    streams: Vec<u16>,
}

/// See the module documentation.
pub struct Writer {
    shard: Arc<Shard>,
    control: Arc<Control>,
    clock: Arc<dyn Clock>,
    steward: Box<dyn Steward>,
    syncers: Box<dyn Syncers>,
    sleeper: Box<dyn Sleep>,
    ledger: Arc<Ledger>,
    streams: Vec<StreamWriter>,
    batch: Option<Batch>,
    held: VecDeque<Held>,
    held_bytes: u64,
    /// How many of them hold lines that somebody waits for, who is not answered by the commit log.
    held_awaited: usize,
    /// Somebody wants everything that is written to be synced in the background.
    is_hurried: bool,
    /// What was written up to this write is synced in the background now. What comes behind it is not: streams that are written to all
    /// the time would be synced all the time.
    hurry_to: u64,
    /// Bytes of all streams that are written and not synced, at most.
    unsynced: u64,
    /// Numbers the batches.
    writes: u64,
    gatherer: Gatherer,
    rotations: Rotations,
    /// Segments that failed. The second one stops intake.
    failures: u32,
    /// Times in a row, without a good sync in between, that somebody else had changed a segment.
    foreign_in_a_row: u32,
    /// Some lines were written and may be lost, so the end is not clean.
    any_at_risk: bool,
    /// When to try again what waits for room in a trail.
    sync_again_at: Option<u64>,
    /// Streams that come or change at a reload.
    changes: Changes,
}

enum Step {
    Done,
    /// Try again when the steward answers or this time has come.
    Blocked(u64),
}

/// What a writer is made of.
pub struct Parts {
    /// Its shard.
    pub shard: Arc<Shard>,
    /// Flags.
    pub control: Arc<Control>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Its helper.
    pub steward: Box<dyn Steward>,
    /// Syncs what clients wait for.
    pub syncers: Box<dyn Syncers>,
    /// What it sleeps on; the shard has what wakes it.
    pub sleeper: Box<dyn Sleep>,
    /// What it counts.
    pub ledger: Arc<Ledger>,
    /// Its streams, open already.
    pub streams: Vec<StreamWriter>,
    /// What a reload of the configuration changes.
    pub changes: Changes,
}

impl Writer {
    /// Puts a writer together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Writer {
            gatherer: Gatherer::new(Gatherer::most_of(parts.streams.iter().map(|s| s.options.segment_bytes))),
            rotations: Rotations::new(&parts.control),
            shard: parts.shard,
            control: parts.control,
            clock: parts.clock,
            steward: parts.steward,
            syncers: parts.syncers,
            sleeper: parts.sleeper,
            ledger: parts.ledger,
            streams: parts.streams,
            batch: None,
            held: VecDeque::new(),
            held_bytes: 0,
            held_awaited: 0,
            is_hurried: false,
            hurry_to: 0,
            unsynced: 0,
            writes: 0,
            failures: 0,
            foreign_in_a_row: 0,
            any_at_risk: false,
            sync_again_at: None,
            changes: parts.changes,
        }
    }

    /// Runs until everything is written after [`Control::finish`]. True: all of it is durable and sealed.
    pub fn run(mut self) -> bool {
        loop {
            match self.turn() {
                Turn::Again => {}
                Turn::Sleep(None) => self.sleeper.sleep(None),
                Turn::Sleep(Some(at)) => self.park_until(at),
                Turn::Ended(clean) => return clean,
            }
        }
    }

    fn park_until(&self, at: u64) {
        let now = self.clock.mono_ns();
        if at > now {
            self.sleeper.sleep(Some(Duration::from_nanos(at - now)));
        }
    }

    /// One turn: results, one batch, syncs, rotations.
    pub fn turn(&mut self) -> Turn {
        let now = self.clock.mono_ns();
        self.answer_ping();
        while let Some(done) = self.steward.poll() {
            self.handle(done);
        }
        if self.control.intake_stopped() {
            return self.turn_without_disk();
        }
        self.rotations.look(&self.control, &self.shard);
        if self.batch.is_none() {
            self.batch = Batch::gather(&self.shard, &mut self.gatherer);
        }
        // Behind the gathering: a chunk with lines for a new stream was pushed after the stream was.
        self.take_changes(now);
        self.answer_ping();
        let had_batch = self.batch.is_some();
        let chunks = self.batch.as_ref().map_or(0, |batch| batch.chunks.len());
        let step = self.write_batch(now);
        if matches!(step, Step::Done) && self.rotations.is_due(chunks, self.rings_are_empty()) {
            self.streams.iter_mut().for_each(|s| s.rotate_asked = s.has_lines());
        }
        if self.held_awaited > 0 && (self.nothing_more_to_gather() || matches!(step, Step::Blocked(_))) {
            self.sync_for_waiters();
        }
        self.hurry();
        self.sync_in_background(now);
        self.streams.iter_mut().filter_map(|s| s.active.as_mut()).for_each(|active| active.trail().flush_if_due(now));
        self.rotate_idle(now);
        match step {
            Step::Blocked(_) if self.control.writers_abandoned() => self.give_up(),
            Step::Blocked(until) => Turn::Sleep(Some(until.min(now + BLOCKED_NS))),
            Step::Done if had_batch || self.batch.is_some() => Turn::Again,
            // Finishing is looked at before the rings: whoever sets it has pushed everything before.
            Step::Done if self.control.finishing() && self.rings_are_empty() => self.end(),
            Step::Done if !self.rings_are_empty() => Turn::Again,
            Step::Done => {
                let deadlines = self.streams.iter().filter_map(StreamWriter::next_deadline);
                let again = self.sync_again_at.filter(|_| self.held_awaited > 0);
                Turn::Sleep(deadlines.chain(again).min())
            }
        }
    }

    fn rings_are_empty(&self) -> bool {
        self.gatherer.is_empty(&self.shard)
    }

    /// True if it is time to sync: nothing else waits in the rings, or no chunk is left to gather more in.
    fn nothing_more_to_gather(&self) -> bool {
        let lossless = &self.shard.channel(Class::Lossless).pool;
        self.rings_are_empty() || lossless.free() == 0 || self.held_bytes >= lossless.capacity_bytes() / 4
    }

    fn stamp(&self) -> Stamp {
        Stamp { mono_ns: self.clock.mono_ns(), wall_ns: self.clock.wall_ns() }
    }

    /// Appends the part of each stream in the batch. The batch stays in its place meanwhile, because a failure must find it there.
    fn write_batch(&mut self, now: u64) -> Step {
        self.writes += 1;
        while let Some(stream) = self.batch.as_ref().and_then(|b| b.pending.last().copied()) {
            match self.append(stream, now) {
                Step::Done if self.control.intake_stopped() => return Step::Done,
                Step::Done => {}
                blocked => return blocked,
            }
        }
        if let Some(batch) = self.batch.take() {
            self.hand_on(batch);
        }
        Step::Done
    }

    /// Appends one stream's part of the batch, in a new segment where the present one is full.
    fn append(&mut self, index: usize, now: u64) -> Step {
        let policy = self.streams[index].options.sync;
        if policy.must_wait(self.unsynced) {
            self.unsynced = self.unsynced_bytes(); // what was synced since the last look was not taken off
        }
        if policy.must_wait(self.unsynced) {
            self.hurry_to = self.writes;
            self.sync_in_background(now);
            return Step::Blocked(u64::MAX);
        }
        let Some(share) = self.batch.as_ref().map(|b| b.share(index)) else { return Step::Done };
        let total = share.all;
        if self.streams[index].rotation_due(total.bytes, now) {
            match self.streams[index].rotation() {
                Rotation::Ready => self.rotate(index),
                Rotation::Soon => return Step::Blocked(u64::MAX),
                Rotation::Impossible => {}
            }
        }
        let stamp = self.stamp();
        let stream = &mut self.streams[index];
        let (Some(active), Some(batch)) = (stream.active.as_mut(), self.batch.as_mut()) else {
            return Step::Blocked(u64::MAX);
        };
        let was_empty = active.is_empty();
        let dir = &stream.dir;
        let mut slices = batch.slices(index);
        if mutant!("rotation_loses_the_next_lines") && was_empty && slices.len() > 1 {
            slices.remove(0);
        }
        let result =
            active.append(&slices, total.lines, stream.options.append, stamp, &share.named, || dir.free_bytes());
        match result {
            Ok(()) => {
                if was_empty {
                    stream.first_line_ns = stamp.mono_ns;
                }
                batch.done(index, self.writes);
                stream.fresh.add(self.writes, stamp.mono_ns, total.bytes, &share.counted);
                self.unsynced += total.bytes;
                share.counted.book(&self.ledger, &[Term::Left, Term::Written], &[]);
                self.count_append(total.bytes, stamp);
                Step::Done
            }
            Err(AppendError::Full(error)) => {
                let path = active.path.clone();
                self.disk_is_full(&path, &error);
                if mutant!("logged_lines_forgotten_by_a_full_disk")
                    && !share.named.is_empty()
                    && let Some(batch) = &mut self.batch
                {
                    batch.done(index, self.writes); // they were answered, after all
                    return Step::Done;
                }
                Step::Blocked(now + FULL_AGAIN_NS)
            }
            Err(AppendError::Foreign(what)) => {
                let path = active.path.clone();
                self.leave_to_others(index, what, path, now)
            }
            Err(AppendError::Failed(error)) => {
                self.shard.writer_stats.write_failures.add(1);
                let path = active.path.clone();
                self.fail_active(index, &LogError::Io { what: "append to", path, error });
                if self.control.intake_stopped() { Step::Done } else { Step::Blocked(0) }
            }
        }
    }

    fn unsynced_bytes(&self) -> u64 {
        self.streams.iter().map(StreamWriter::unsynced_bytes).sum()
    }

    fn count_append(&self, bytes: u64, stamp: Stamp) {
        let stats = &self.shard.writer_stats;
        stats.appends.add(1);
        stats.append_bytes.add(bytes);
        stats.write_latency.record(self.clock.mono_ns().saturating_sub(stamp.mono_ns));
        self.disk_has_room();
    }

    /// The whole batch is in files: sends its chunks back, or holds them until their sync.
    fn hand_on(&mut self, batch: Batch) {
        // Once for all of them: nothing is written in between.
        let wants = |(_, chunk): &(Class, Box<Chunk>)| chunk.level == Level::Written || chunk.announce;
        let are_secure = batch.chunks.iter().any(wants) && self.trails_are_secure();
        for (class, chunk) in batch.chunks {
            match chunk.level {
                Level::None => self.shard.release(class, chunk),
                Level::Durable if mutant!("ack_before_sync") => self.shard.give_back(chunk),
                Level::Written if are_secure => self.shard.give_back(chunk),
                Level::Written | Level::Durable => {
                    if chunk.announce && are_secure {
                        self.shard.announce_written(&chunk);
                    }
                    self.hold(chunk);
                }
            }
        }
    }

    fn hold(&mut self, chunk: Box<Chunk>) {
        self.held_bytes += chunk.len() as u64;
        self.held_awaited += usize::from(chunk.is_awaited());
        let mut streams: Vec<u16> = chunk.runs().iter().map(|run| run.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        self.held.push_back(Held { write: self.writes, chunk, streams });
    }

    /// True if chunks whose lines are in the commit log, so that nobody waits for their sync, are so many that others lack them soon.
    fn holds_too_much(&self) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let lossless = &self.shard.channel(Class::Lossless).pool;
        lossless.free() * 4 <= lossless.chunks()
    }

    fn trails_are_secure(&mut self) -> bool {
        self.streams.iter_mut().filter_map(|s| s.active.as_mut()).all(|a| a.secure_trail(false).is_ok())
    }

    /// Begins to sync everything that is written, where that is wanted and what was wanted before is done.
    fn hurry(&mut self) {
        self.is_hurried |= self.shard.take_hurry();
        if !self.is_hurried && !self.holds_too_much() {
            return;
        }
        let is_under_way =
            |s: &StreamWriter| s.active.is_some() && s.first_unsynced_write().is_some_and(|w| w <= self.hurry_to);
        if !self.streams.iter().any(is_under_way) {
            (self.is_hurried, self.hurry_to) = (false, self.writes);
        }
    }

    /// Rotates what is due by age or signal, and prepares again what could not be prepared.
    fn rotate_idle(&mut self, now: u64) {
        for index in 0..self.streams.len() {
            self.streams[index].prepare_if_due(now, &mut *self.steward);
            let stream = &self.streams[index];
            if now >= stream.sync_not_before && stream.rotation_due(0, now) && stream.rotation() == Rotation::Ready {
                self.rotate(index);
            }
        }
    }

    fn rotate(&mut self, index: usize) {
        // What somebody waits for must not move into the background: its failure would need the order of lines undone.
        let in_hand = self.batch.as_ref().is_some_and(|b| b.appended.iter().any(|(stream, _)| *stream == index));
        let is_held = self.held.iter().any(|held| held.streams.binary_search(&(index as u16)).is_ok());
        if (in_hand || is_held) && !self.sync_stream(index) {
            return;
        }
        self.release_held();
        self.streams[index].rotate(&mut *self.steward);
        self.shard.writer_stats.rotations.add(1);
    }

    fn handle(&mut self, done: Done) {
        let now = self.clock.mono_ns();
        let stats = &self.shard.writer_stats;
        match done {
            Done::Prepared { stream, result } => {
                if result.is_err() {
                    stats.rotation_failures.add(1);
                }
                self.streams[stream].prepared(result, now, &mut *self.steward);
            }
            Done::Synced { stream, id, took_ns, result } => {
                stats.sync_latency.record(took_ns);
                if self.streams[stream].active.as_ref().is_none_or(|a| a.id != id) {
                    return; // it failed by another call, or is being sealed: the seal job's own sync speaks for it
                }
                match result {
                    Ok(()) => self.background_sync_done(stream),
                    Err(error) => {
                        self.count_failed_sync(&error);
                        self.fail_active(stream, &error);
                    }
                }
            }
            Done::SealSynced { stream, took_ns, result } => {
                stats.sync_latency.record(took_ns);
                let Some(sealing) = self.streams[stream].sealing.take() else { return };
                match result {
                    Ok(()) => {
                        stats.syncs.add(1);
                        sealing.tally.book(&self.ledger, &[Term::Durable], &[Term::Written]);
                    }
                    Err(error) => {
                        self.count_failed_sync(&error);
                        self.fail_sealed(stream, &sealing, &error);
                    }
                }
            }
            Done::Sealed { stream, result, foreign } => {
                self.streams[stream].seals_running -= 1;
                let is_foreign = foreign || result.as_ref().is_err_and(LogError::is_foreign);
                stats.foreign_changes.add(u64::from(is_foreign));
                if let Err(error) = result {
                    stats.rotation_failures.add(1);
                    tracing::error!(%error, "a finished segment keeps its active name until the next start");
                }
            }
        }
    }

    /// Sleeps until the steward has a result, and takes it; or for a moment, so that the caller can look at the time. False:
    /// the time for an orderly end is over.
    fn wait_for_steward(&mut self) -> bool {
        for _ in 0..2 {
            if let Some(done) = self.steward.poll() {
                self.handle(done);
                return true;
            }
            if self.control.writers_abandoned() {
                return false;
            }
            self.answer_ping();
            self.steward.pause(&*self.sleeper, Duration::from_nanos(BLOCKED_NS));
        }
        true
    }

    /// The orderly end: sync and seal everything.
    fn end(&mut self) -> Turn {
        self.sync_for_waiters();
        while self.streams.iter().any(StreamWriter::is_busy) {
            if !self.wait_for_steward() {
                return self.give_up();
            }
        }
        if self.control.intake_stopped() {
            return Turn::Ended(false);
        }
        for stream in &mut self.streams {
            stream.close(&mut *self.steward);
        }
        while self.streams.iter().any(StreamWriter::is_busy) {
            if !self.wait_for_steward() {
                return Turn::Ended(false);
            }
        }
        Turn::Ended(!self.control.intake_stopped() && !self.any_at_risk)
    }

    /// The end after a disk failure: counts what is still in memory as dropped.
    fn give_up(&mut self) -> Turn {
        self.drop_everything(Reason::Shutdown);
        Turn::Ended(false)
    }
}

#[cfg(test)]
mod tests;
