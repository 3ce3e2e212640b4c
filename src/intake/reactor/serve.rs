//! One connection's turn: a receive into a chunk, and what its session makes of it.

use super::Reactor;
use crate::config::raw::WhenFull;
use crate::host::peer::ListenerId;
use crate::intake::net::{Engine, Kind, Lease, LeaseMark};
use crate::metrics::accounting::Reason;
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::protocol::lines::Format;
use crate::session::{End, Landing, Refusal, Turn};

/// Bytes received before the engine is asked for events again, so that new connections and answers have their turn.
const SERVE_BYTES: usize = 4 << 20;
/// Largest datagram that is received whole (Linux's default `net.core.wmem_default` is 208 KiB).
pub const DATAGRAM_MAX: usize = 256 * 1024;

/// Room for the rest of a unit of a stage: a TLS record has 18 KiB at most (RFC 8446 section 5.2).
const WIRE_ROOM: usize = 20 << 10;

/// What a turn came to.
pub(super) enum Served {
    /// So many bytes; look again later.
    More(usize),
    /// So many bytes, and no more for now (or for ever).
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
                    let blocked = self.lanes[self.lane_of[usize::from(listener)]].blocked;
                    if blocked && self.refuses(usize::from(listener), since) {
                        // In the middle of a request that goes on when there is a chunk; those behind it may be refused.
                        self.parked.push(id);
                        continue;
                    }
                    self.ready.push_front(listener, id, since);
                    if blocked {
                        continue;
                    }
                    return; // what it needs is out for another receive
                }
                Served::Stuck => continue,
                Served::NoTail => {
                    self.stats().tail_waits.add(1);
                    if let Some(conn) = self.conns.get(id) {
                        self.relief.wait(id, conn, self.now);
                    }
                    continue;
                }
            };
            bytes += n.max(64);
            self.was_served(id, listener, &served, n);
        }
    }

    /// A connection has had its turn, with so many bytes: it has another later, or waits for input.
    fn was_served(&mut self, id: ConnId, listener: ListenerId, served: &Served, bytes: usize) {
        self.ready.charge(listener, bytes);
        if let Some(conn) = self.conns.get(id) {
            if matches!(served, Served::More(_)) && !conn.ended {
                self.ready.push(listener, id, self.now);
            } else {
                conn.queued = false;
                self.nudge(id);
            }
        }
    }

    /// Goes on with what connections have received before, now that there are chunks for it. Returns its bytes.
    fn serve_stuck(&mut self) -> usize {
        let mut bytes = 0;
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].blocked {
                continue;
            }
            let Some((id, rest)) = self.lanes[lane].rest.take() else { continue };
            let Some(listener) = self.conns.get(id).map(|c| c.listener) else { continue };
            let n = rest.len();
            self.beside = rest;
            let served = self.carry_on(id, 0, true);
            if !matches!(served, Served::Stuck) {
                bytes += n;
                self.was_served(id, listener, &served, n);
            }
        }
        bytes
    }

    /// Lets those in the middle of a request go on whose lane has a chunk again.
    fn unpark(&mut self) {
        for id in std::mem::take(&mut self.parked) {
            let Some(listener) = self.conns.get(id).map(|c| c.listener) else { continue };
            if self.lanes[self.lane_of[usize::from(listener)]].blocked {
                self.parked.push(id);
            } else {
                self.ready.push(listener, id, self.now);
            }
        }
    }

    /// True if a connection of this listener that has waited since then may have its turn.
    fn can_serve(&self, listener: usize, since: u64) -> bool {
        // A rest waits in the lane: whoever could leave another one comes after it.
        let lines = &self.listeners[listener].options;
        if self.lanes[self.lane_of[listener]].rest.is_some()
            && lines.http.is_none()
            && lines.lines.format == Format::Json
        {
            return false;
        }
        !self.lanes[self.lane_of[listener]].blocked
            || self.listeners[listener].options.when_full == WhenFull::DropNewest
            || self.refuses(listener, since)
    }

    /// True if a request that has waited for a chunk since then is refused now.
    pub(super) fn refuses(&self, listener: usize, since: u64) -> bool {
        self.refused_at(listener, since).is_some_and(|at| at < self.now)
    }

    /// When a request that waits for a chunk since then is refused; `None`: never.
    fn refused_at(&self, listener: usize, since: u64) -> Option<u64> {
        let options = &self.listeners[listener].options;
        let waits = if self.turns_away().is_some() { 0 } else { options.queue_timeout.as_nanos() as u64 };
        if options.http.is_some() { since.checked_add(waits) } else { None }
    }

    /// Why new requests are refused whether or not a chunk is free.
    pub(super) fn turns_away(&self) -> Option<Refusal> {
        if self.control.intake_stopped() {
            Some(Refusal::DiskFailed)
        } else if self.shard.writer_stats.full.get() == 1 {
            Some(Refusal::DiskFull)
        } else {
            None
        }
    }

    /// When somebody in the queues has to be looked at though no chunk is free.
    pub(super) fn next_refusal(&self) -> Option<u64> {
        let blocked = |l: &usize| self.lanes[self.lane_of[*l]].blocked;
        let at = |l: usize| self.refused_at(l, self.ready.oldest(l)?);
        (0..self.listeners.len()).filter(blocked).filter_map(at).min()
    }

    /// True if a connection in the queues can have its turn.
    pub(super) fn anybody_to_serve(&self) -> bool {
        self.ready.any(|listener, since| self.can_serve(listener, since))
    }

    fn pop_ready(&mut self) -> Option<(ConnId, u64)> {
        let mut ready = std::mem::take(&mut self.ready);
        let popped = ready.pop(|listener, since| self.can_serve(listener, since));
        self.ready = ready;
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
        let turn = conn.session.turn();
        if turn == Turn::Wait {
            return Served::Done(0); // its answers call again
        }
        let allowance = self.tails.allowance(&conn.tail, self.relief.lane == Some(id));
        let frees_tail = turn == Turn::GoOn && conn.session.frees_tail();
        if allowance == 0 && !frees_tail {
            return Served::NoTail;
        }
        let is_datagram = conn.kind == Kind::Datagram;
        // Its last line ends with the datagram, in the same window.
        let closing = if is_datagram { conn.session.finish_room(0) } else { 0 };
        let wanted = move |chunk: &Chunk| if is_datagram { DATAGRAM_MAX } else { chunk.room_when_empty() / 16 };
        let goes_on = turn == Turn::GoOn || conn.stage.pending();
        let refused = conn.session.may_be_refused() || self.control.intake_stopped();
        let held = if goes_on { 0 } else { conn.stage.held() };
        let between = refused.then_some(since);
        let Some((chunk, landing, mark)) = self.space_for(id, listener, between, held, wanted) else {
            let is_over = self.conns.get(id).is_none_or(|c| c.ended);
            return if is_over { Served::Done(0) } else { Served::NoChunk };
        };
        if goes_on {
            return self.go_on(id, chunk, mark, landing, allowance);
        }
        let (start, len) = if is_datagram {
            (landing.start, landing.len.saturating_sub(closing).clamp(1, DATAGRAM_MAX))
        } else if held == 0 {
            (landing.start, landing.len.min(allowance))
        } else {
            // An unfinished unit needs room for its rest, wherever the session wants what becomes of it.
            let base = wire_base(&chunk, &landing, held);
            // Never much more than the session takes: what it does not take waits in the stage.
            (base + held, (chunk.room() - base - held).min(landing.len.max(WIRE_ROOM)).min(allowance))
        };
        match self.engine.recv(id, Lease { chunk, start, len, mark }) {
            Some(received) => self.took(received),
            None => Served::Done(0), // the event brings the chunk back
        }
    }

    /// A chunk with room for this connection's next bytes: the open one, a fresh one, or the one for what is dropped or
    /// refused. `between`: no request of it is under way, and it waits since then. `held`: what its stage holds.
    fn space_for(
        &mut self,
        id: ConnId,
        listener: usize,
        between: Option<u64>,
        held: usize,
        wanted: impl Fn(&Chunk) -> usize,
    ) -> Option<(Box<Chunk>, Landing, LeaseMark)> {
        // The second time the chunk is fresh, and a fresh one is always large enough: its size is derived so.
        for _ in 0..2 {
            let (chunk, mark) = self.space(listener, between)?;
            if held > 0 && !chunk.is_empty() && chunk.room() < held + WIRE_ROOM {
                self.retire(chunk, mark); // what the stage holds must have its rest in one piece; a fresh chunk has room
                continue;
            }
            let conn = self.conns.get(id)?;
            // A format that grows lands little in any chunk: never ask for more than half of what a fresh one gives.
            let fresh = conn.session.landing(chunk.room_when_empty(), conn.tail.len(), 1).map_or(1, |l| l.len);
            let least = if chunk.is_empty() { 1 } else { wanted(&chunk).min(fresh.div_ceil(2)) };
            match conn.session.landing(chunk.room(), conn.tail.len(), least) {
                Some(landing) => return Some((chunk, landing, mark)),
                None if chunk.is_empty() => {
                    // Its size is derived so that this cannot be; were it so, waiting would not help.
                    self.put_back(chunk, mark);
                    self.break_off(id, Reason::TooLong, Some(Refused::TooLong));
                    return None;
                }
                None => self.retire(chunk, mark),
            }
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
            LeaseMark::Lane(lane) => self.lanes[lane].put_back(chunk, self.now),
            LeaseMark::Discard => {
                chunk.clear();
                self.discard = Some(chunk);
            }
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

/// Where what lands begins, so that what the stage holds and a whole record fit in front of the end of the chunk: where the
/// session wants it if there is so much room, else at the beginning of what is free.
pub(super) fn wire_base(chunk: &Chunk, landing: &Landing, held: usize) -> usize {
    if chunk.room() >= landing.start + held + WIRE_ROOM { landing.start } else { 0 }
}
