//! The open chunks of a reactor: one per class and acknowledgement level, so that nobody's chunk is held for a sync that
//! he does not wait for. And what happens when no chunk is free.

use super::Reactor;
use crate::config::listener::ListenerOptions;
use crate::config::raw::WhenFull;
use crate::host::mutants::mutant;
use crate::intake::net::{Engine, LeaseMark};
use crate::metrics::accounting::{Reason, Tally, Term};
use crate::pipeline::chunk::ConnId;
use crate::pipeline::chunk::{Chunk, Class, Level};

/// One open chunk, or the wait for one.
pub struct Lane {
    /// The class of its chunks.
    pub class: Class,
    /// The level of its chunks.
    pub level: Level,
    /// The chunk being filled.
    pub open: Option<Box<Chunk>>,
    /// That chunk is out for a receive.
    pub is_out: bool,
    /// When its first record came.
    opened_ns: u64,
    /// No chunk is free, and who needs one waits.
    pub blocked: bool,
    blocked_since_ns: u64,
    /// When that was last over.
    pub unblocked_ns: u64,
    /// Number of its open chunk: what was written is told by it.
    pub number: u64,
    /// What a connection has received and no chunk was free for: it goes first, before anybody else of the lane is served.
    pub rest: Option<(ConnId, Vec<u8>)>,
}

/// The place of a listener's lane; a new one where its class and level have none yet.
pub fn lane_for(lanes: &mut Vec<Lane>, options: &ListenerOptions) -> usize {
    let (class, level) = (options.class, options.level);
    lanes.iter().position(|l| (l.class, l.level) == (class, level)).unwrap_or_else(|| {
        lanes.push(Lane::new(class, level));
        lanes.len() - 1
    })
}

impl Lane {
    /// A lane without a chunk.
    pub fn new(class: Class, level: Level) -> Self {
        Lane {
            class,
            level,
            open: None,
            is_out: false,
            opened_ns: 0,
            blocked: false,
            blocked_since_ns: 0,
            unblocked_ns: 0,
            number: 1,
            rest: None,
        }
    }

    /// When its chunk is to be pushed though it is not full; `None`: it is empty.
    pub fn due_at(&self, linger_ns: u64) -> Option<u64> {
        self.open.as_ref().filter(|c| !c.is_empty()).map(|_| self.opened_ns + linger_ns)
    }

    /// Notes the time of the first record.
    pub fn put_back(&mut self, chunk: Box<Chunk>, now: u64) {
        if self.opened_ns == 0 && !chunk.is_empty() {
            self.opened_ns = now;
        }
        self.open = Some(chunk);
        self.is_out = false;
    }
}

impl<E: Engine> Reactor<E> {
    /// Space for a listener, as its policy says: its lane's open chunk, a fresh one, or the buffer for what is dropped.
    /// `None`: there is none, and the lane is blocked.
    ///
    /// A request that waits since `between` and has not begun may be refused instead: then too it is that buffer.
    pub(super) fn space(&mut self, listener: usize, between: Option<u64>) -> Option<(Box<Chunk>, LeaseMark)> {
        if let Some(since) = between
            && self.listeners[listener].options.http.is_some()
            && (self.turns_away().is_some() || (self.lane_is_blocked(listener) && self.refuses(listener, since)))
        {
            return self.discard.take().map(|chunk| (chunk, LeaseMark::Discard));
        }
        let mark = LeaseMark::Lane(self.lane_of[listener]);
        let lane = &mut self.lanes[self.lane_of[listener]];
        if let Some(chunk) = lane.open.take() {
            lane.is_out = true;
            return Some((chunk, mark));
        }
        let channel = self.shard.channel(lane.class);
        let when_full = self.listeners[listener].options.when_full;
        if when_full == WhenFull::DropNewest {
            return match channel.pool.take() {
                Some(chunk) => Some((self.fresh(listener, chunk), mark)),
                None => self.discard.take().map(|chunk| (chunk, LeaseMark::Discard)),
            };
        }
        if when_full == WhenFull::DropOldest
            && let Some(chunk) = channel.pool.take().or_else(|| self.evict())
        {
            return Some((self.fresh(listener, chunk), mark));
        }
        match self.shard.channel(self.lanes[self.lane_of[listener]].class).pool.take_or_wait(self.index) {
            Some(chunk) => Some((self.fresh(listener, chunk), mark)),
            None => {
                let lane = &mut self.lanes[self.lane_of[listener]];
                if !lane.blocked {
                    (lane.blocked, lane.blocked_since_ns) = (true, self.now);
                    self.stats().backpressure_events.add(1);
                }
                None
            }
        }
    }

    fn lane_is_blocked(&self, listener: usize) -> bool {
        self.lanes[self.lane_of[listener]].blocked
    }

    fn fresh(&mut self, listener: usize, mut chunk: Box<Chunk>) -> Box<Chunk> {
        let lane = &mut self.lanes[self.lane_of[listener]];
        (lane.opened_ns, lane.is_out) = (0, true);
        if std::mem::take(&mut lane.blocked) {
            // A listener of the lane that drops rather than waits found a chunk first; the others have it too.
            let waited = self.now - lane.blocked_since_ns;
            lane.unblocked_ns = self.now;
            self.shard.reactors[self.index].stats.backpressure_ns.add(waited);
        }
        chunk.level = lane.level;
        chunk.reactor = self.index as u16;
        chunk
    }

    /// The oldest chunk of the lossy ring, emptied, its lines counted as dropped.
    fn evict(&mut self) -> Option<Box<Chunk>> {
        let class = if mutant!("acked_chunk_evicted") { Class::Lossless } else { Class::Lossy };
        let mut chunk = self.shard.channel(class).ring.pop()?;
        let mut entry = self.evictions.entry();
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
        let mut blocked: Vec<usize> = (0..self.lanes.len()).filter(|i| self.lanes[*i].blocked).collect();
        blocked.sort_by_key(|i| self.lanes[*i].blocked_since_ns);
        for i in blocked {
            let pool = &self.shard.channel(self.lanes[i].class).pool;
            if let Some(chunk) = pool.take_or_wait(self.index) {
                let listener = self.lane_of.iter().position(|lane| *lane == i).unwrap_or(0);
                let chunk = self.fresh(listener, chunk);
                self.lanes[i].put_back(chunk, self.now);
            }
        }
    }

    /// Hands a lane's open chunk to the writer, if there is anything in it.
    pub(super) fn push_open(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        if let Some(mut chunk) = lane.open.take() {
            if chunk.is_empty() {
                self.shard.release(lane.class, chunk);
            } else {
                chunk.number = lane.number;
                lane.number += 1;
                self.shard.channel(lane.class).ring.push(chunk);
            }
            lane.opened_ns = 0;
        }
    }

    /// Hands on what somebody waits for, and what has lingered long enough.
    pub(super) fn push_due(&mut self) {
        for i in 0..self.lanes.len() {
            let lane = &self.lanes[i];
            let Some(due) = lane.due_at(self.linger_ns) else { continue };
            if lane.level != Level::None || due <= self.now || self.draining {
                self.push_open(i);
            }
        }
    }
}
