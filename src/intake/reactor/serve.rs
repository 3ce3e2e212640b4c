//! Chooses the connection whose turn it is, and receives from it.

use super::state::Reactor;
use crate::host::peer::ListenerId;
use crate::intake::listener::{WIRE_ROOM, WhenFull};
use crate::intake::net::{Engine, Lease, LeaseMark};
use crate::metrics::accounting::Reason;
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::{End, Landing, Refusal, Turn};

/// Bytes received before the engine is asked for events again, so that new connections and answers have their turn.
const SERVE_BYTES: usize = 4 << 20;

/// The result of a turn.
pub(super) enum Served {
    /// This many bytes; look again later.
    More(usize),
    /// This many bytes, and no more for now (or for ever).
    Done(usize),
    /// No chunk: in front of the queue again.
    NoChunk,
    /// No room for a partial line: among the starved.
    NoTail,
    /// No chunk for the rest of what it received: it is served as soon as there is one.
    Stuck,
}

impl<E: Engine> Reactor<E> {
    /// Serves ready connections, listeners in turn.
    pub(super) fn serve_ready(&mut self) {
        self.feed_starved();
        self.unpark();
        self.give_turns();
        let mut bytes = self.serve_stuck();
        while bytes < SERVE_BYTES {
            let Some((id, since)) = self.pop_ready() else { return };
            let Some(listener) = self.conns.get(id).map(|c| c.listener) else { continue };
            if self.meter.is_moving(id) && !self.goes_on(id) {
                continue;
            }
            let served = self.serve(id, since);
            let n = match served {
                Served::More(n) | Served::Done(n) => n,
                Served::NoChunk => {
                    let blocked = self.lanes.is_blocked(usize::from(listener));
                    if blocked && self.refuses(usize::from(listener), since) {
                        // In the middle of a request that goes on when there is a chunk; those behind it may be refused.
                        self.queue.parked.push(id);
                        continue;
                    }
                    self.queue.ready.push_front(listener, id, since);
                    if blocked {
                        continue;
                    }
                    return; // what it needs is out for another receive
                }
                Served::Stuck => continue,
                Served::NoTail => {
                    self.stats().tail_waits.add(1);
                    if let Some(conn) = self.conns.get(id) {
                        self.between.relief.wait(id, conn, self.now);
                    }
                    continue;
                }
            };
            bytes += n.max(64);
            self.was_served(id, listener, &served, n);
        }
    }

    /// Ends the turn of a connection: it gets another one later, or waits for input.
    fn was_served(&mut self, id: ConnId, listener: ListenerId, served: &Served, bytes: usize) {
        self.queue.ready.charge(listener, bytes);
        if let Some(conn) = self.conns.get(id) {
            if matches!(served, Served::More(_)) && !conn.ended {
                self.queue.ready.push(listener, id, self.now);
            } else {
                conn.queued = false;
                self.nudge(id);
            }
        }
    }

    /// Goes on with what connections have received before, now that there are chunks for it. Returns its bytes.
    fn serve_stuck(&mut self) -> usize {
        let mut bytes = 0;
        for lane in 0..self.lanes.all.len() {
            let Some(rest) = self.lanes.take_rest(lane) else { continue };
            let (id, n) = (rest.conn, rest.bytes.len());
            let Some(listener) = self.conns.get(id).map(|c| c.listener) else { continue };
            let served = self.resume(rest);
            bytes += n;
            let goes_on = matches!(served, Served::More(_));
            if let Some(conn) = self.conns.get(id).filter(|c| goes_on && !c.ended) {
                // With the same chunk, as long as it is the turn of its listener. Otherwise connections that fill chunks would leave it none.
                self.queue.ready.charge(conn.listener, n);
                self.queue.ready.go_on(listener, id, self.now);
            } else if !matches!(served, Served::Stuck) {
                self.was_served(id, listener, &served, n);
            }
        }
        bytes
    }

    /// Lets those in the middle of a request go on whose lane has a chunk again.
    fn unpark(&mut self) {
        for id in std::mem::take(&mut self.queue.parked) {
            let Some(listener) = self.conns.get(id).map(|c| c.listener) else { continue };
            if self.lanes.is_blocked(usize::from(listener)) {
                self.queue.parked.push(id);
            } else {
                self.queue.ready.push(listener, id, self.now);
            }
        }
    }

    /// True if a connection of this listener that has waited since then may have its turn.
    fn can_serve(&self, listener: usize, since: u64) -> bool {
        let options = &self.listeners[listener].options;
        if !options.profile().makes_records {
            return true; // it needs no chunk
        }
        // A rest waits in the lane: a connection that could leave another one must wait for it.
        if self.leaves_another_rest(listener) && !self.refuses(listener, since) {
            return false;
        }
        !self.lanes.is_blocked(listener) || options.when_full == WhenFull::DropNewest || self.refuses(listener, since)
    }

    /// True if a frame that has waited for a chunk since then is refused now.
    pub(super) fn refuses(&self, listener: usize, since: u64) -> bool {
        self.refused_at(listener, since).is_some_and(|at| at < self.now)
    }

    /// When a frame that waits for a chunk since then is refused; `None`: never.
    fn refused_at(&self, listener: usize, since: u64) -> Option<u64> {
        let after = self.listeners[listener].options.profile().refuses_after?;
        let waits = if self.turns_away().is_some() { 0 } else { after.as_nanos() as u64 };
        since.checked_add(waits)
    }

    /// Why new frames are refused whether or not a chunk is free.
    pub(super) fn turns_away(&self) -> Option<Refusal> {
        if self.seat.control.intake_stopped() {
            Some(Refusal::DiskFailed)
        } else if self.seat.shard.writer_stats.full.get() == 1 {
            Some(Refusal::DiskFull)
        } else {
            None
        }
    }

    /// When the reactor must look at a waiting connection although no chunk is free.
    pub(super) fn next_refusal(&self) -> Option<u64> {
        let at = |l: usize| self.refused_at(l, self.queue.ready.oldest(l)?);
        (0..self.listeners.len()).filter(|l| self.lanes.is_blocked(*l)).filter_map(at).min()
    }

    /// True if a connection in the queues can have its turn.
    pub(super) fn anybody_to_serve(&self) -> bool {
        self.queue.ready.any(|listener, since| self.can_serve(listener, since))
    }

    fn pop_ready(&mut self) -> Option<(ConnId, u64)> {
        let mut ready = std::mem::take(&mut self.queue.ready);
        let popped = ready.pop(|listener, since| self.can_serve(listener, since));
        self.queue.ready = ready;
        popped
    }

    fn serve(&mut self, id: ConnId, since: u64) -> Served {
        let Some(conn) = self.conns.get(id) else { return Served::Done(0) };
        if conn.ended {
            return Served::Done(0);
        }
        if conn.ending {
            return if self.finish_input(id, End::Clean) { Served::Done(0) } else { Served::NoChunk };
        }
        let listener = usize::from(conn.listener);
        if conn.kind.is_datagram() {
            return self.serve_datagrams(id, listener);
        }
        let state = conn.state();
        if state.turn == Turn::Wait {
            return Served::Done(0); // its answers call again
        }
        let allowance = self.between.allowance(id, conn);
        if allowance == 0 && !(state.turn == Turn::GoOn && state.frees_tail) {
            return Served::NoTail;
        }
        let landing = conn.session.landing(conn.tail.len());
        let goes_on = state.turn == Turn::GoOn || conn.stage.pending();
        let held = if goes_on { 0 } else { conn.stage.held() };
        // Between frames it may be refused, and then waits since then.
        let between = (state.may_be_refused || self.seat.control.intake_stopped()).then_some(since);
        let Some((chunk, mark)) = self.place_for(id, listener, landing, between, held) else {
            let is_over = self.conns.get(id).is_none_or(|c| c.ended);
            return if is_over { Served::Done(0) } else { Served::NoChunk };
        };
        let (gap, most) = landing.bounds();
        let room = chunk.room() - gap - held;
        if goes_on {
            return self.go_on(id, chunk, mark, gap, most.min(room).min(allowance), between);
        }
        // An unfinished unit needs room for its rest, but never much more than the session takes: what it does not take waits in the stage.
        let most = if held == 0 { most } else { most.max(WIRE_ROOM) };
        let lease = Lease { chunk, start: gap + held, len: room.min(most).min(allowance), mark };
        match self.engine.recv(id, lease) {
            Some(received) => self.took(received, between),
            None => Served::Done(0), // the event brings the memory back
        }
    }

    /// The memory that this connection's next bytes land in.
    fn place_for(
        &mut self,
        id: ConnId,
        listener: usize,
        landing: Landing,
        between: Option<u64>,
        held: usize,
    ) -> Option<(Box<Chunk>, LeaseMark)> {
        match landing {
            Landing::Chunk { gap, .. } => self.chunk_for(id, listener, between, gap, held),
            Landing::Scratch { .. } => {
                // There must be a chunk for what becomes of them: else they stay where they are.
                if self.listeners[listener].options.profile().makes_records {
                    self.has_space(listener, between)?;
                }
                self.between.scratch.take().map(|scratch| (scratch, LeaseMark::Scratch))
            }
        }
    }

    /// Looks whether there is a chunk, or the buffer for what is dropped or refused, for what is received elsewhere. Where it would go
    /// into a chunk, and a rest waits for one, that goes first: a lane keeps one rest.
    pub(super) fn has_space(&mut self, listener: usize, between: Option<u64>) -> Option<()> {
        let (chunk, mark) = self.space(listener, between)?;
        self.put_back(chunk, mark);
        let waits = mark != LeaseMark::Discard && self.leaves_another_rest(listener);
        (!waits).then_some(())
    }

    /// True where a rest waits in the listener's lane, and what it receives now could leave another.
    fn leaves_another_rest(&self, listener: usize) -> bool {
        self.lanes.has_rest(listener) && self.listeners[listener].options.leaves_rests()
    }

    /// A chunk with room for this connection's next bytes behind a gap: the open one, a fresh one, or the one for what is dropped or
    /// refused. `held`: what its stage holds.
    fn chunk_for(
        &mut self,
        id: ConnId,
        listener: usize,
        between: Option<u64>,
        gap: usize,
        held: usize,
    ) -> Option<(Box<Chunk>, LeaseMark)> {
        // The second time the chunk is fresh, and a fresh one is always large enough: its size is derived so.
        for _ in 0..2 {
            let (chunk, mark) = self.space(listener, between)?;
            // A receive is worth a system call if it is not too small.
            let fresh = chunk.room_when_empty();
            let worth = (fresh / 16).min(fresh.saturating_sub(gap).div_ceil(2)).max(1);
            let least = if chunk.is_empty() { 1 } else { worth };
            // What the stage holds must have its rest in one piece.
            let wire = if held > 0 { held + WIRE_ROOM } else { 0 };
            if chunk.room() >= gap + least.max(wire) {
                return Some((chunk, mark));
            }
            if chunk.is_empty() {
                // Its size is derived so that this cannot be; were it so, waiting would not help.
                self.put_back(chunk, mark);
                self.break_off(id, Reason::TooLong, Some(Refused::TooLong));
                return None;
            }
            self.retire(chunk, mark);
        }
        None
    }

    /// Pushes a chunk that has too little room left.
    pub(super) fn retire(&mut self, chunk: Box<Chunk>, mark: LeaseMark) {
        self.put_back(chunk, mark);
        if let LeaseMark::Lane(lane) = mark {
            self.push_open(lane);
        }
    }

    pub(super) fn put_back(&mut self, mut chunk: Box<Chunk>, mark: LeaseMark) {
        match mark {
            LeaseMark::Lane(lane) => self.lanes.all[lane].put_back(chunk, self.now),
            LeaseMark::Discard => {
                chunk.clear();
                self.lanes.discard = Some(chunk);
            }
            LeaseMark::Scratch => self.between.scratch = Some(chunk),
        }
    }

    pub(super) fn room_for(&mut self, listener: usize, room: usize) -> Option<(Box<Chunk>, LeaseMark)> {
        for _ in 0..2 {
            let (chunk, mark) = self.space(listener, None)?;
            if chunk.room() >= room {
                return Some((chunk, mark));
            }
            self.retire(chunk, mark);
        }
        None
    }
}
