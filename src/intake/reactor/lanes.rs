//! The open chunks of a reactor: one per class and acknowledgement level, so that nobody's chunk is held for a sync that
//! he does not wait for. And what happens when no chunk is free.

use super::Reactor;
use crate::host::mutants::mutant;
use crate::intake::listener::ListenerOptions;
use crate::intake::listener::WhenFull;
use crate::intake::net::{Datagram, Engine, LeaseMark};
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
    rest: Option<Rest>,
}

/// Input that no chunk was free for.
pub struct Rest {
    /// Whose it is.
    pub conn: ConnId,
    /// The bytes, as they were received.
    pub bytes: Vec<u8>,
    /// The datagrams that they are; none: they are of a stream.
    pub datagrams: Vec<Datagram>,
    /// More input may wait behind it.
    pub more: bool,
}

impl Rest {
    /// Of these datagrams, which lie in `space`.
    pub fn of_datagrams(conn: ConnId, space: &[u8], batch: &[Datagram], more: bool) -> Rest {
        let (mut bytes, mut datagrams) = (Vec::new(), Vec::new());
        for datagram in batch {
            let start = bytes.len();
            bytes.extend_from_slice(&space[datagram.start..datagram.start + datagram.len]);
            datagrams.push(Datagram { start, ..*datagram });
        }
        Rest { conn, bytes, datagrams, more }
    }
}

/// The lanes of a reactor.
pub struct Lanes {
    /// All of them.
    pub all: Vec<Lane>,
    /// That of each listener.
    pub of: Vec<usize>,
    /// How long an open chunk may wait, in nanoseconds.
    pub linger_ns: u64,
    /// For reading what is dropped or refused.
    pub discard: Option<Box<Chunk>>,
}

impl Lanes {
    /// For these listeners.
    pub fn new<'a>(
        listeners: impl Iterator<Item = &'a ListenerOptions>,
        linger_ns: u64,
        discard: Option<Box<Chunk>>,
    ) -> Lanes {
        let mut lanes = Lanes { all: Vec::new(), of: Vec::new(), linger_ns, discard };
        listeners.for_each(|options| {
            let lane = lanes.for_listener(options);
            lanes.of.push(lane);
        });
        lanes
    }

    /// The place of a listener's lane; a new one where its class and level have none yet.
    pub fn for_listener(&mut self, options: &ListenerOptions) -> usize {
        let (class, level) = (options.class, options.level);
        self.all.iter().position(|l| (l.class, l.level) == (class, level)).unwrap_or_else(|| {
            self.all.push(Lane::new(class, level));
            self.all.len() - 1
        })
    }

    /// True where a listener's connections wait for a chunk.
    pub fn is_blocked(&self, listener: usize) -> bool {
        self.all[self.of[listener]].blocked
    }

    /// True where something that was received waits in a listener's lane.
    pub fn has_rest(&self, listener: usize) -> bool {
        self.all[self.of[listener]].rest.is_some()
    }

    /// Keeps input of one of a listener's connections until there is a chunk for it.
    pub fn keep_rest(&mut self, listener: usize, rest: Rest) {
        debug_assert!(!self.has_rest(listener), "whoever could leave another rest is not served");
        self.all[self.of[listener]].rest = Some(rest);
    }

    /// The rest of a lane for which there is a chunk now.
    pub fn take_rest(&mut self, lane: usize) -> Option<Rest> {
        let lane = &mut self.all[lane];
        if lane.blocked { None } else { lane.rest.take() }
    }

    /// The rest that is a connection's.
    pub fn take_rest_of(&mut self, id: ConnId) -> Option<Rest> {
        self.all.iter_mut().find_map(|lane| lane.rest.take_if(|rest| rest.conn == id))
    }

    /// True where a rest can go on.
    pub fn can_resume(&self) -> bool {
        self.all.iter().any(|lane| lane.rest.is_some() && !lane.blocked)
    }
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
                chunk.number = lane.number;
                lane.number += 1;
                self.seat.shard.channel(lane.class).ring.push(chunk);
            }
            lane.opened_ns = 0;
        }
    }

    /// Hands on what somebody waits for, and what has lingered long enough.
    pub(super) fn push_due(&mut self) {
        for i in 0..self.lanes.all.len() {
            let lane = &self.lanes.all[i];
            let Some(due) = lane.due_at(self.lanes.linger_ns) else { continue };
            if lane.level != Level::None || due <= self.now || self.phase.draining {
                self.push_open(i);
            }
        }
    }
}
