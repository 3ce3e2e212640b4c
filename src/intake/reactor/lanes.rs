//! Opens chunks, pushes them into the ring, and handles the case that no chunk is free. There is one open chunk per class and
//! acknowledgement level, so that no line is held for a sync that its client does not wait for.

use super::state::Reactor;
use crate::host::mutants::mutant;
use crate::intake::listener::WhenFull;
use crate::intake::net::{Engine, LeaseMark};
use crate::metrics::accounting::{Reason, Tally, Term};
use crate::pipeline::chunk::{Chunk, Class, Level};

impl<E: Engine> Reactor<E> {
    /// Space for a listener, as its policy says: its lane's open chunk, a fresh one, or the buffer for what is dropped.
    /// `None`: there is none, and the lane is blocked.
    ///
    /// A request that waits since `between` and has not begun may be refused instead: then too it is that buffer.
    pub(super) fn space(&mut self, listener: usize, between: Option<u64>) -> Option<(Box<Chunk>, LeaseMark)> {
        if let Some(since) = between
            && self.listeners[listener].options.profile().refuses_after.is_some()
            && (self.turns_away().is_some() || (self.lanes.is_blocked(listener) && self.refuses(listener, since)))
        {
            return self.lanes.discard.take().map(|chunk| (chunk, LeaseMark::Discard));
        }
        let mark = LeaseMark::Lane(self.lanes.of[listener]);
        let lane = &mut self.lanes.all[self.lanes.of[listener]];
        if let Some(chunk) = lane.open.take() {
            lane.is_out = true;
            return Some((chunk, mark));
        }
        let channel = self.seat.shard.channel(lane.class);
        let when_full = self.listeners[listener].options.when_full;
        if when_full == WhenFull::DropNewest {
            return match channel.pool.take() {
                Some(chunk) => Some((self.fresh(listener, chunk), mark)),
                None => self.lanes.discard.take().map(|chunk| (chunk, LeaseMark::Discard)),
            };
        }
        if when_full == WhenFull::DropOldest
            && let Some(chunk) = channel.pool.take().or_else(|| self.evict())
        {
            return Some((self.fresh(listener, chunk), mark));
        }
        match self.seat.shard.channel(self.lanes.all[self.lanes.of[listener]].class).pool.take_or_wait(self.seat.index)
        {
            Some(chunk) => Some((self.fresh(listener, chunk), mark)),
            None => {
                let lane = &mut self.lanes.all[self.lanes.of[listener]];
                if !lane.blocked {
                    (lane.blocked, lane.blocked_since_ns) = (true, self.now);
                    self.stats().backpressure_events.add(1);
                }
                None
            }
        }
    }

    fn fresh(&mut self, listener: usize, mut chunk: Box<Chunk>) -> Box<Chunk> {
        let lane = &mut self.lanes.all[self.lanes.of[listener]];
        (lane.opened_ns, lane.is_out) = (0, true);
        if std::mem::take(&mut lane.blocked) {
            // A listener of the lane that drops rather than waits found a chunk first; the others have it too.
            let waited = self.now - lane.blocked_since_ns;
            lane.unblocked_ns = self.now;
            self.seat.shard.reactors[self.seat.index].stats.backpressure_ns.add(waited);
        }
        chunk.level = lane.level;
        chunk.reactor = self.seat.index as u16;
        chunk
    }

    /// The oldest chunk of the lossy ring, emptied, its lines counted as dropped.
    fn evict(&mut self) -> Option<Box<Chunk>> {
        let class = if mutant!("acked_chunk_evicted") { Class::Lossless } else { Class::Lossy };
        let mut chunk = self.seat.shard.channel(class).ring.pop()?;
        let mut entry = self.books.evictions.entry();
        for run in chunk.runs() {
            let tally = Tally { lines: u64::from(run.lines), bytes: u64::from(run.len) };
            entry.add(run.listener, Term::Left, tally);
            if !mutant!("evicted_not_counted") {
                entry.add(run.listener, Term::Dropped(Reason::Evicted), tally);
            }
        }
        drop(entry);
        chunk.clear();
        Some(chunk)
    }

    /// Gives blocked lanes the chunks that have become free.
    pub(super) fn unblock_lanes(&mut self) {
        // Who has waited longest first, or one lane would take every chunk that comes back.
        let mut blocked: Vec<usize> = (0..self.lanes.all.len()).filter(|i| self.lanes.all[*i].blocked).collect();
        blocked.sort_by_key(|i| self.lanes.all[*i].blocked_since_ns);
        for i in blocked {
            let pool = &self.seat.shard.channel(self.lanes.all[i].class).pool;
            if let Some(chunk) = pool.take_or_wait(self.seat.index) {
                let listener = self.lanes.of.iter().position(|lane| *lane == i).unwrap_or(0);
                let chunk = self.fresh(listener, chunk);
                self.lanes.all[i].put_back(chunk, self.now);
            }
        }
    }

    /// Hands a lane's open chunk to the writer, if there is anything in it.
    pub(super) fn push_open(&mut self, lane: usize) {
        let lane = &mut self.lanes.all[lane];
        if let Some(mut chunk) = lane.open.take() {
            if chunk.is_empty() {
                self.seat.shard.release(lane.class, chunk);
            } else {
                if !chunk.is_awaited() && chunk.logged() == 0 {
                    chunk.level = Level::None; // no sync for its sake, and no way back
                }
                if self.commit.is_some() && chunk.is_awaited() {
                    for run in chunk.unlogged_runs() {
                        if let Some(conn) = run.ticket.and_then(|ticket| self.conns.get(ticket.conn)) {
                            conn.direct += u64::from(run.lines);
                        }
                    }
                }
                chunk.number = lane.number;
                lane.number += 1;
                self.seat.shard.channel(lane.class).ring.push(chunk);
            }
            (lane.opened_ns, lane.waits_for_log) = (0, false);
        }
    }

    /// Pushes chunks with lines that clients wait for, and chunks that have lingered long enough.
    pub(super) fn push_due(&mut self) {
        for i in 0..self.lanes.all.len() {
            let lane = &self.lanes.all[i];
            if lane.due_at(self.lanes.linger_ns).is_none() {
                continue;
            }
            let is_awaited = lane.open.as_ref().is_some_and(|chunk| chunk.is_awaited());
            // What has lingered is in the log first, so that nobody waits for a sync.
            let goes_directly = is_awaited && !self.commit_group(i);
            let due = self.lanes.all[i].due_at(self.lanes.linger_ns).unwrap_or(self.now);
            if goes_directly || due <= self.now || self.phase.draining {
                self.push_open(i);
            }
        }
    }
}
