//! What came in: through the stage, into the session, and what the session found into the accounts.

use super::serve::Served;
use super::{Reactor, mark_dirty, ticket};
use crate::host::mutants::mutant;
use crate::intake::net::{Engine, Kind, Lease, LeaseMark, Outcome, Received};
use crate::intake::transport::Source;
use crate::metrics::accounting::{Reason, Tally, Term};
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::room::Owner;
use crate::session::tail::TailHandle;
use crate::session::{End, Landing, Part, Refusal, Step, Turn, Window};

/// What has landed in a chunk.
struct Landed {
    landing: Landing,
    mark: LeaseMark,
    /// Bytes of the protocol in the landing.
    len: usize,
    /// Bytes of a datagram that did not fit.
    cut: usize,
}

impl<E: Engine> Reactor<E> {
    /// A receive that ended as an event.
    pub(super) fn received(&mut self, received: Received) {
        let id = received.conn;
        match self.took(received) {
            Served::More(_) => self.pending(id),
            Served::Stuck => {
                if let Some(conn) = self.conns.get(id) {
                    conn.queued = true;
                }
            }
            _ => {}
        }
    }

    pub(super) fn took(&mut self, Received { conn: id, lease, outcome }: Received) -> Served {
        let Lease { mut chunk, start, len: leased, mark } = lease;
        let is_ending = self.conns.get(id).map(|c| (c.listener, c.leaving));
        let is_ending = is_ending.is_some_and(|(listener, leaving)| leaving || self.is_ending(listener));
        let Some(conn) = self.conns.get(id) else {
            self.put_back(chunk, mark); // closed while the receive was out
            return Served::Done(0);
        };
        let (len, more, cut) = match outcome {
            Outcome::Bytes { len, more, cut } => (len, more, cut),
            Outcome::Empty => {
                // Nothing more was sent so far: with the orderly end, this is the end of the input, between requests.
                let is_opening = conn.stage.is_opening() && !conn.stage.is_clean_end();
                let over =
                    is_ending && conn.session.is_between(conn.tail.len()) && !is_opening || conn.stage.has_ended();
                self.put_back(chunk, mark);
                if self.relief.lane == Some(id) {
                    self.watch(id); // the lane is not for those who have nothing to say
                }
                let done = !over || self.finish_input(id, End::Clean);
                return if done { Served::Done(0) } else { Served::More(0) };
            }
            Outcome::End => {
                let end = if conn.stage.is_clean_end() { End::Clean } else { End::Broken(Reason::Reset) };
                self.put_back(chunk, mark);
                if end == End::Clean {
                    return if self.finish_input(id, end) { Served::Done(0) } else { Served::More(0) };
                }
                self.break_off(id, Reason::Reset, None);
                return Served::Done(0);
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
        self.stats().network_bytes.add(len as u64);
        self.stats().receives.add(1);
        let Some(conn) = self.conns.get(id) else { return Served::Done(0) };
        let held = conn.stage.held();
        let allowance = self.tails.allowance(&conn.tail, self.relief.lane == Some(id));
        let (base, landing) = match held {
            0 => (start, Landing { start, len: leased }),
            // As it was when the lease was made: nothing has come in since.
            _ => match conn.session.landing(chunk.room(), conn.tail.len(), 1) {
                Some(landing) => (start - held, landing),
                None => (start - held, Landing { start: start - held, len: 0 }),
            },
        };
        // A datagram ends in the window that it came in.
        let most = if conn.kind == Kind::Datagram { landing.len } else { allowance.min(landing.len) };
        let free = chunk.free();
        let decoded = conn.stage.decode(&mut free[base..][..held + leased], len, most);
        if base != landing.start
            && let Ok(decoded) = decoded
        {
            free.copy_within(base..base + decoded, landing.start);
        }
        let source = conn.stage.take_source();
        let wants_turn = conn.stage.wants_turn() && !conn.in_line;
        match decoded {
            Ok(decoded) => {
                if let Some(Source::Client(address)) = source
                    && !self.comes_from(id, address)
                {
                    self.put_back(chunk, mark);
                    return Served::Done(len);
                }
                if wants_turn {
                    self.take_turn(id);
                }
                self.digest(id, chunk, Landed { landing, mark, len: decoded, cut }, len, more)
            }
            Err(error) => {
                self.put_back(chunk, mark);
                self.stage_failed(id, &error);
                Served::Done(len)
            }
        }
    }

    /// Goes on with what the stage or the session holds; nothing has landed.
    pub(super) fn go_on(
        &mut self,
        id: ConnId,
        mut chunk: Box<Chunk>,
        mark: LeaseMark,
        landing: Landing,
        allowance: usize,
    ) -> Served {
        let landing = Landing { start: landing.start, len: landing.len.min(allowance) };
        let Some(conn) = self.conns.get(id) else {
            self.put_back(chunk, mark);
            return Served::Done(0);
        };
        let mut len = 0;
        if conn.session.turn() == Turn::Receive {
            match conn.stage.decode(&mut chunk.free()[landing.start..][..landing.len], 0, landing.len) {
                Ok(decoded) => len = decoded,
                Err(error) => {
                    self.put_back(chunk, mark);
                    self.stage_failed(id, &error);
                    return Served::Done(0);
                }
            }
        }
        self.digest(id, chunk, Landed { landing, mark, len, cut: 0 }, 0, true)
    }

    /// Lets the session have what landed.
    fn digest(&mut self, id: ConnId, mut chunk: Box<Chunk>, landed: Landed, received: usize, more: bool) -> Served {
        let refusal = (landed.mark == LeaseMark::Discard).then(|| self.turns_away().unwrap_or(Refusal::Overloaded));
        let is_ending = self.conns.get(id).map(|c| c.listener).is_some_and(|l| self.is_ending(l));
        let (not_ready, leaving) = (self.not_ready, is_ending || self.control.leaving());
        let is_lane = self.relief.lane == Some(id);
        let Some(conn) = self.conns.get(id) else {
            self.put_back(chunk, landed.mark);
            return Served::Done(received);
        };
        let is_old = conn.retires_ns > 0 && self.now > conn.retires_ns;
        let mut window = Window::new(chunk.free(), self.tails.tail(&mut conn.tail), self.wall);
        (window.refuse, window.now_ns) = (refusal, self.now);
        window.not_ready = not_ready;
        window.closing = leaving || is_old;
        window.is_lane = is_lane;
        let step = conn.session.input(landed.landing, landed.len, &mut window);
        if conn.kind == Kind::Datagram {
            conn.session.end_of_datagram(landed.cut, &mut window);
        }
        let received = received.max(window.worked); // decoding is work too, for which others wait
        let rest = window.rest;
        let found = Found::in_window(window);
        let room = chunk.room();
        self.book(id, &mut chunk, &found, landed.mark);
        if landed.mark == LeaseMark::Discard && found.last.lines > 0 && self.replies(id) {
            // A count beyond a dropped line would be taken for lines that are not there.
            self.put_back(chunk, landed.mark);
            self.finish_input(id, End::Broken(Reason::BufferFull));
            self.close_if_done(id);
            return Served::Done(received);
        }
        if let Some(rest) = rest {
            let at = rest.start - (room - chunk.room());
            self.beside.clear();
            self.beside.extend_from_slice(&chunk.free()[at..at + rest.len]);
            self.retire(chunk, landed.mark);
            self.watch(id);
            return self.carry_on(id, received, more);
        }
        self.put_back(chunk, landed.mark);
        self.watch(id);
        let Some(conn) = self.conns.get(id) else { return Served::Done(received) };
        if conn.session.has_output() || conn.session.is_over() || conn.stage.wants_to_send() {
            mark_dirty(&mut self.dirty, conn, id);
        }
        let said_goodbye = conn.stage.has_ended() && conn.session.turn() == Turn::Receive;
        let goes_on =
            conn.session.turn() == Turn::GoOn || (conn.session.turn() == Turn::Receive && conn.stage.pending());
        if step == Step::Close {
            self.finish_input(id, End::Broken(Reason::TooLong));
            self.stats().refused[Refused::TooLong as usize].add(1);
            self.close_if_done(id);
            return Served::Done(received);
        }
        if said_goodbye && !mutant!("goodbye_not_heard") {
            // The peer has said goodbye: no more comes, and it may wait for us to say so too.
            return if self.finish_input(id, End::Clean) { Served::Done(received) } else { Served::More(received) };
        }
        // At the orderly end one look more: what is found empty then is over.
        if more || goes_on || is_ending { Served::More(received) } else { Served::Done(received) }
    }

    /// Goes on with the rest of what was received, which lies beside the chunks, in a fresh one.
    pub(super) fn carry_on(&mut self, id: ConnId, received: usize, more: bool) -> Served {
        let Some(listener) = self.conns.get(id).map(|c| usize::from(c.listener)) else { return Served::Done(received) };
        let len = self.beside.len();
        // The second time it is a fresh one, with room for any rest and the longest record in front of it.
        for _ in 0..2 {
            let Some((mut chunk, mark)) = self.space(listener, None) else { break };
            if !chunk.is_empty() {
                self.retire(chunk, mark);
                continue;
            }
            let start = chunk.room() - len;
            chunk.free()[start..].copy_from_slice(&self.beside);
            return self.digest(
                id,
                chunk,
                Landed { landing: Landing { start, len }, mark, len, cut: 0 },
                received,
                more,
            );
        }
        let lane = self.lane_of[listener];
        self.lanes[lane].rest = Some((id, std::mem::take(&mut self.beside)));
        Served::Stuck
    }

    fn replies(&mut self, id: ConnId) -> bool {
        let listener = self.conns.get(id).map(|c| usize::from(c.listener));
        listener.is_some_and(|l| self.listeners[l].options.lines.reply_count)
    }

    /// Counts what was found, and makes runs of it or drops it.
    pub(super) fn book(&mut self, id: ConnId, chunk: &mut Chunk, found: &Found, mark: LeaseMark) {
        let Some(conn) = self.conns.get(id) else { return };
        let index = conn.listener;
        let discard = mark == LeaseMark::Discard;
        let options = &self.listeners[usize::from(index)].options;
        let kept = found.all();
        let mut entry = self.upstream.entry();
        if let Some((reason, tally)) = found.dropped
            && !mutant!("dropped_not_counted")
        {
            entry.add(index, Term::Received, tally);
            entry.add(index, Term::Dropped(reason), tally);
        }
        self.dawdler.lines += kept.lines;
        if kept.lines > 0 {
            entry.add(index, Term::Received, kept);
            let fate = if discard { Term::Dropped(Reason::BufferFull) } else { Term::Entered };
            entry.add(index, fate, kept);
        }
        drop(entry);
        if kept.lines > 0 {
            conn.holds_since_ns = self.now; // what it holds from here on is another line's
        }
        if kept.lines > 0 && !discard {
            let ticket = ticket(options.level, id).filter(|_| !mutant!("ack_on_receipt"));
            for part in found.parts() {
                let stream = part.stream.unwrap_or(options.stream);
                chunk.commit(stream, index, ticket, part.bytes, part.lines, self.now);
            }
            if ticket.is_some() {
                conn.unacked += kept.lines;
            } else if options.ack_on_receipt || mutant!("ack_on_receipt") {
                conn.session.acked(kept.lines);
                mark_dirty(&mut self.dirty, conn, id);
            }
        }
        if let LeaseMark::Lane(lane) = mark
            && kept.lines > 0
            && let Some(lines) = conn.session.awaits_writing()
        {
            let number = self.lanes[lane].number;
            chunk.announce = true;
            match self.writing.back_mut() {
                Some((n, c, l)) if (*n, *c) == (number, id) => *l = lines,
                _ => self.writing.push_back((number, id, lines)),
            }
        }
        if found.truncated.lines > 0 {
            self.stats().truncated_lines.add(found.truncated.lines);
            self.stats().truncated_bytes.add(found.truncated.bytes);
        }
    }

    /// A PROXY header said where the client really is. False: it may not come in.
    fn comes_from(&mut self, id: ConnId, address: std::net::SocketAddr) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let (listener, peer) = (conn.listener, crate::host::peer::Peer::Ip(address));
        let addresses = &self.listeners[usize::from(listener)].addresses;
        let client = addresses.client(&peer);
        let enters = client.is_none_or(|client| addresses.enter(client));
        let owner = Owner { listener, client };
        let session = self.session_for(&peer, owner);
        let Some(conn) = self.conns.get(id) else { return false };
        // Nothing of a session's is in the tail yet.
        (conn.peer, conn.session, conn.tail) = (peer, session, TailHandle::of(owner));
        conn.client = client.filter(|_| enters);
        if !enters {
            self.close(id, Some(Refused::PerAddress));
        }
        enters
    }
}

/// What a session found in a window.
pub(super) struct Found {
    before: Vec<Part>,
    last: Part,
    pub dropped: Option<(Reason, Tally)>,
    truncated: Tally,
}

impl Found {
    pub fn in_window(window: Window<'_>) -> Found {
        let last = window.last_part();
        Found { before: window.before, last, dropped: window.dropped, truncated: window.truncated }
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.before.iter().chain(std::iter::once(&self.last)).filter(|part| part.lines > 0)
    }

    fn all(&self) -> Tally {
        let mut all = Tally::default();
        self.parts().for_each(|p| all.add(Tally { lines: u64::from(p.lines), bytes: p.bytes as u64 }));
        all
    }
}
