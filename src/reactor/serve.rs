//! One connection's turn: a receive into a chunk, and what its session makes of it.

use super::{Reactor, mark_dirty, ticket};
use crate::chunk::{Chunk, ConnId};
use crate::config::raw::WhenFull;
use crate::metrics::accounting::{Reason, Tally, Term};
use crate::metrics::stats::Refused;
use crate::net::{Engine, Kind, Lease, LeaseMark, Outcome, Received};
use crate::session::{End, Landing, Step, Window};
use std::cmp::Reverse;

/// Bytes received before the engine is asked for events again, so that new connections and answers have their turn.
const SERVE_BYTES: usize = 4 << 20;
/// Largest datagram that is received whole (Linux's default `net.core.wmem_default` is 208 KiB).
pub const DATAGRAM_MAX: usize = 256 * 1024;

/// What a turn came to.
enum Served {
    /// So many bytes; look again later.
    More(usize),
    /// So many bytes, and no more for now (or for ever).
    Done(usize),
    /// No chunk: in front of the queue again.
    NoChunk,
    /// No room for a partial line: among the starved.
    NoTail,
}

impl<E: Engine> Reactor<E> {
    /// Serves ready connections, listeners in turn.
    pub(super) fn serve_ready(&mut self) {
        self.feed_starved();
        let mut bytes = 0;
        while bytes < SERVE_BYTES {
            let (lanes, lane_of, listeners) = (&self.lanes, &self.lane_of, &self.listeners);
            let can_serve =
                |l: usize| !lanes[lane_of[l]].blocked || listeners[l].options.when_full == WhenFull::DropNewest;
            let Some(id) = self.ready.pop(can_serve) else { return };
            let Some(listener) = self.conns.get(id).map(|c| c.listener) else { continue };
            if self.meter.is_moving(id) && !self.goes_on(id) {
                continue;
            }
            let served = self.serve(id);
            let n = match served {
                Served::More(n) | Served::Done(n) => n,
                Served::NoChunk => {
                    self.ready.push_front(listener, id);
                    if self.lanes[self.lane_of[usize::from(listener)]].blocked {
                        continue;
                    }
                    return; // what it needs is out for another receive
                }
                Served::NoTail => {
                    self.stats().tail_waits.add(1);
                    self.starved.push_back(id);
                    continue;
                }
            };
            bytes += n.max(64);
            self.ready.charge(listener, n);
            if let Some(conn) = self.conns.get(id) {
                if matches!(served, Served::More(_)) && !conn.ended {
                    self.ready.push(listener, id);
                } else {
                    conn.queued = false;
                    self.nudge(id);
                }
            }
        }
    }

    /// Lets those who wait for tail room try again when there is some; else the oldest partial line gets the lane.
    ///
    /// Whoever has no partial line waits for room then: the lane never leaves more behind than it found, so that the store
    /// cannot overflow, however often it changes hands.
    fn feed_starved(&mut self) {
        if !self.tails.is_spent() {
            for id in std::mem::take(&mut self.starved) {
                if let Some(conn) = self.conns.get(id) {
                    self.ready.push(conn.listener, id);
                }
            }
        } else if let Some(place) = self.lane_candidate()
            && let Some(id) = self.starved.remove(place)
            && let Some(conn) = self.conns.get(id)
        {
            self.ready.push(conn.listener, id);
            self.tail_lane = Some(id);
        }
    }

    /// Place among the starved of the oldest partial line whose rest waits, if the lane is free.
    fn lane_candidate(&mut self) -> Option<usize> {
        if self.tail_lane.is_some() {
            return None;
        }
        let mut oldest: Option<(u64, usize)> = None;
        for (place, id) in self.starved.iter().enumerate() {
            let since = self.conns.get(*id).map_or(0, |c| c.line_since_ns);
            if since > 0 && oldest.is_none_or(|(o, _)| since < o) {
                oldest = Some((since, place));
            }
        }
        oldest.map(|(_, place)| place)
    }

    /// True if [`Reactor::feed_starved`] would do something.
    pub(super) fn can_feed(&mut self) -> bool {
        !self.starved.is_empty() && (!self.tails.is_spent() || self.lane_candidate().is_some())
    }

    fn serve(&mut self, id: ConnId) -> Served {
        let Some(conn) = self.conns.get(id) else { return Served::Done(0) };
        if conn.ended {
            return Served::Done(0);
        }
        if conn.ending {
            return if self.finish_input(id, End::Clean) { Served::Done(0) } else { Served::NoChunk };
        }
        let listener = usize::from(conn.listener);
        let allowance = self.tails.allowance(&conn.tail, self.tail_lane == Some(id));
        if allowance == 0 {
            return Served::NoTail;
        }
        let is_datagram = conn.kind == Kind::Datagram;
        // Its last line ends with the datagram, in the same window.
        let closing = if is_datagram { conn.session.finish_room(0) } else { 0 };
        let wanted = move |chunk: &Chunk| if is_datagram { DATAGRAM_MAX } else { chunk.room_when_empty() / 16 };
        let Some((chunk, landing, mark)) = self.space_for(id, listener, wanted) else { return Served::NoChunk };
        let len = if is_datagram {
            landing.len.saturating_sub(closing).clamp(1, DATAGRAM_MAX)
        } else {
            landing.len.min(allowance)
        };
        match self.engine.recv(id, Lease { chunk, start: landing.start, len, mark }) {
            Some(received) => self.took(received),
            None => Served::Done(0), // the event brings the chunk back
        }
    }

    /// A chunk with room for this connection's next bytes: the open one, a fresh one, or the one for what is dropped.
    fn space_for(
        &mut self,
        id: ConnId,
        listener: usize,
        wanted: impl Fn(&Chunk) -> usize,
    ) -> Option<(Box<Chunk>, Landing, LeaseMark)> {
        // The second time the chunk is fresh, and a fresh one is always large enough: its size is derived so.
        for _ in 0..2 {
            let (chunk, mark) = self.space(listener)?;
            let conn = self.conns.get(id)?;
            // A format that grows lands little in any chunk: never ask for more than half of what a fresh one gives.
            let fresh = conn.session.landing(chunk.room_when_empty(), conn.tail.len(), 1).map_or(1, |l| l.len);
            let least = if chunk.is_empty() { 1 } else { wanted(&chunk).min(fresh.div_ceil(2)) };
            match conn.session.landing(chunk.room(), conn.tail.len(), least) {
                Some(landing) => return Some((chunk, landing, mark)),
                None => self.retire(chunk, mark),
            }
        }
        None
    }

    /// Pushes a chunk that has too little room left.
    fn retire(&mut self, chunk: Box<Chunk>, mark: LeaseMark) {
        self.put_back(chunk, mark);
        if let LeaseMark::Lane(lane) = mark {
            self.push_open(lane);
        }
    }

    /// A receive that ended as an event.
    pub(super) fn received(&mut self, received: Received) {
        let id = received.conn;
        if let Served::More(_) = self.took(received) {
            self.pending(id);
        }
    }

    fn took(&mut self, Received { conn: id, lease, outcome }: Received) -> Served {
        let Lease { mut chunk, start, len: leased, mark } = lease;
        let Some(conn) = self.conns.get(id) else {
            self.put_back(chunk, mark); // closed while the receive was out
            return Served::Done(0);
        };
        let (len, more, cut) = match outcome {
            Outcome::Bytes { len, more, cut } => (len, more, cut),
            Outcome::Empty => {
                let draining = self.draining;
                self.put_back(chunk, mark);
                if !draining {
                    return Served::Done(0);
                }
                // Nothing more was sent so far: with the orderly end, this is the end of the input.
                return if self.finish_input(id, End::Clean) { Served::Done(0) } else { Served::More(0) };
            }
            Outcome::End => {
                self.put_back(chunk, mark);
                return if self.finish_input(id, End::Clean) { Served::Done(0) } else { Served::More(0) };
            }
            Outcome::Failed(_) => {
                self.put_back(chunk, mark);
                self.finish_input(id, End::Broken(Reason::Reset));
                self.close(id, None);
                return Served::Done(0);
            }
        };
        conn.last_input_ns = self.now;
        conn.share.add(self.meter.window, len);
        self.meter.received(len);
        let free = chunk.free();
        let landing = Landing { start, len: leased };
        let Ok(decoded) = conn.stage.decode(&mut free[start..start + leased], len, leased) else {
            self.put_back(chunk, mark);
            self.finish_input(id, End::Broken(Reason::Reset));
            self.close(id, None);
            return Served::Done(0);
        };
        let more = more || conn.stage.pending();
        let mut window = Window::new(free, self.tails.tail(&mut conn.tail), self.wall);
        let step = conn.session.input(landing, decoded, &mut window);
        if conn.kind == Kind::Datagram {
            conn.session.end_of_datagram(cut, &mut window);
        }
        let found = Found::in_window(&window);
        self.stats().network_bytes.add(len as u64);
        self.stats().receives.add(1);
        self.book(id, &mut chunk, &found, mark);
        self.put_back(chunk, mark);
        self.watch_line(id, found.lines > 0 || found.dropped.is_some());
        if step == Step::Close {
            self.finish_input(id, End::Broken(Reason::TooLong));
            self.stats().refused[Refused::TooLong as usize].add(1);
            self.close_if_done(id);
            return Served::Done(len);
        }
        if mark == LeaseMark::Discard && found.lines > 0 && self.replies(id) {
            // A count beyond a dropped line would be taken for lines that are not there.
            self.finish_input(id, End::Broken(Reason::BufferFull));
            self.close_if_done(id);
            return Served::Done(len);
        }
        if more {
            return Served::More(len);
        }
        // At the orderly end one look more: what is found empty then is over.
        if self.draining { Served::More(len) } else { Served::Done(len) }
    }

    fn replies(&mut self, id: ConnId) -> bool {
        let listener = self.conns.get(id).map(|c| usize::from(c.listener));
        listener.is_some_and(|l| self.listeners[l].options.lines.reply_count)
    }

    fn put_back(&mut self, mut chunk: Box<Chunk>, mark: LeaseMark) {
        match mark {
            LeaseMark::Lane(lane) => self.lanes[lane].put_back(chunk, self.now),
            LeaseMark::Discard => {
                chunk.clear();
                self.discard = Some(chunk);
            }
        }
    }

    /// Counts what was found, and makes a run of it or drops it.
    fn book(&mut self, id: ConnId, chunk: &mut Chunk, found: &Found, mark: LeaseMark) {
        let Some(conn) = self.conns.get(id) else { return };
        let index = conn.listener;
        let discard = mark == LeaseMark::Discard;
        let options = &self.listeners[usize::from(index)].options;
        let kept = Tally { lines: u64::from(found.lines), bytes: found.bytes as u64 };
        let mut entry = self.upstream.entry();
        if let Some((reason, tally)) = found.dropped {
            entry.add(index, Term::Received, tally);
            entry.add(index, Term::Dropped(reason), tally);
        }
        if found.lines > 0 {
            entry.add(index, Term::Received, kept);
            let fate = if discard { Term::Dropped(Reason::BufferFull) } else { Term::Entered };
            entry.add(index, fate, kept);
        }
        drop(entry);
        if found.lines > 0 && !discard {
            let ticket = ticket(options.level, id);
            chunk.commit(options.stream, index, ticket, found.bytes, found.lines, self.now);
            if ticket.is_some() {
                conn.unacked += kept.lines;
            } else if options.ack_on_receipt {
                conn.session.acked(kept.lines);
                mark_dirty(&mut self.dirty, conn, id);
            }
        }
        if found.truncated.lines > 0 {
            self.stats().truncated_lines.add(found.truncated.lines);
            self.stats().truncated_bytes.add(found.truncated.bytes);
        }
    }

    /// Keeps the time since which a partial line stands, and its timer.
    fn watch_line(&mut self, id: ConnId, line_ended: bool) {
        let now = self.now;
        let Some(conn) = self.conns.get(id) else { return };
        if (line_ended || conn.tail.is_empty()) && self.tail_lane == Some(id) {
            self.tail_lane = None;
        }
        if !conn.session.is_inside_line(conn.tail.len()) {
            conn.line_since_ns = 0;
            return;
        }
        if line_ended || conn.line_since_ns == 0 {
            conn.line_since_ns = now;
        }
        let timeout = self.listeners[usize::from(conn.listener)].options.line_timeout.as_nanos() as u64;
        if timeout > 0 && !conn.line_timer {
            conn.line_timer = true;
            self.line_timers.push(Reverse((conn.line_since_ns + timeout, id)));
        }
    }

    /// Ends a connection's input. After a clean end it is closed when nothing is owed to it any more; one that broke is for
    /// the caller to close. False: its last line waits for a chunk.
    pub(super) fn finish_input(&mut self, id: ConnId, end: End) -> bool {
        let Some(conn) = self.conns.get(id) else { return true };
        if conn.ended {
            return true;
        }
        let listener = usize::from(conn.listener);
        if end == End::Clean {
            let room = conn.session.finish_room(conn.tail.len());
            conn.ending = true;
            let Some((mut chunk, mark)) = self.room_for(listener, room) else { return false };
            let Some(conn) = self.conns.get(id) else { return true };
            let mut window = Window::new(chunk.free(), self.tails.tail(&mut conn.tail), self.wall);
            conn.session.finish(end, &mut window);
            let found = Found::in_window(&window);
            self.book(id, &mut chunk, &found, mark);
            self.put_back(chunk, mark);
        } else {
            let mut window = Window::new(&mut [], self.tails.tail(&mut conn.tail), self.wall);
            conn.session.finish(end, &mut window);
            let found = Found::in_window(&window);
            if let Some((reason, tally)) = found.dropped {
                let mut entry = self.upstream.entry();
                entry.add(listener as u16, Term::Received, tally);
                entry.add(listener as u16, Term::Dropped(reason), tally);
            }
        }
        if let Some(conn) = self.conns.get(id) {
            conn.ended = true;
            conn.line_since_ns = 0;
        }
        if self.tail_lane == Some(id) {
            self.tail_lane = None;
        }
        if end == End::Clean {
            self.close_if_done(id);
        }
        true
    }

    fn room_for(&mut self, listener: usize, room: usize) -> Option<(Box<Chunk>, LeaseMark)> {
        for _ in 0..2 {
            let (chunk, mark) = self.space(listener)?;
            if chunk.room() >= room {
                return Some((chunk, mark));
            }
            self.retire(chunk, mark);
        }
        None
    }

    /// Closes a connection whose input is over once nothing is owed to it any more.
    pub(super) fn close_if_done(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        // At the orderly end nobody waits for a client that does not read its answers.
        if conn.ended && conn.unacked == 0 && (!conn.sending || self.draining) && !conn.dirty {
            self.close(id, None);
        }
    }
}

/// What a session found in a window.
struct Found {
    bytes: usize,
    lines: u32,
    dropped: Option<(Reason, Tally)>,
    truncated: Tally,
}

impl Found {
    fn in_window(window: &Window<'_>) -> Found {
        Found { bytes: window.committed, lines: window.lines, dropped: window.dropped, truncated: window.truncated }
    }
}
