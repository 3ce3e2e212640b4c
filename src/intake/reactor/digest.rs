//! Handles received bytes: takes them through the transport stage into the session, and counts what the session found.

use super::parts::lanes::Rest;
use super::serve::Served;
use super::state::{Reactor, ticket};
use crate::host::mutants::mutant;
use crate::host::peer::Peer;
use crate::intake::net::{Datagram, Engine, Lease, LeaseMark, Outcome, Received};
use crate::intake::transport::Source;
use crate::metrics::accounting::{Reason, Term};
use crate::metrics::stats::{Refused, Unexpected};
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::memory::tail::TailHandle;
use crate::session::{ANY_PARTS, AckLevel, Around, End, Found, Input, Owner, Refusal, Sink, Step, Turn, Window};

/// After this many decoded bytes other connections have their turn.
const TURN_BYTES: usize = 1 << 20;

/// Input for a session.
struct Landed {
    /// First byte.
    start: usize,
    /// How many; 0: the session goes on with what it holds.
    len: usize,
    /// Bytes of memory from there on.
    memory: usize,
    /// Bytes that came from the socket for it.
    received: usize,
    /// More input may wait.
    more: bool,
    /// As in [`Reactor::space`].
    between: Option<u64>,
}

/// What a session has made of some input.
pub(super) struct Entered {
    /// What it said.
    pub(super) step: Step,
    /// Something was found.
    pub(super) is_found: bool,
    /// Bytes that a decoder made.
    worked: usize,
    /// The client speaks another protocol.
    is_unexpected: bool,
}

impl<E: Engine> Reactor<E> {
    /// A receive that ended as an event.
    pub(super) fn received(&mut self, received: Received) {
        let id = received.conn;
        match self.took(received, None) {
            Served::More(_) => self.pending(id),
            Served::Stuck => {
                if let Some(conn) = self.conns.get(id) {
                    conn.queued = true;
                }
            }
            _ => {}
        }
    }

    /// Handles the end of the input, or that there is none. `None`: there is input.
    pub(super) fn without_input(&mut self, id: ConnId, outcome: &Outcome) -> Option<Served> {
        let Some(conn) = self.conns.get(id) else { return Some(Served::Done(0)) };
        match outcome {
            Outcome::Bytes { .. } => None,
            Outcome::Empty => {
                // Nothing more was sent so far: with the orderly end, this is the end of the input, between frames.
                let (leaving, listener) = (conn.leaving.is_some(), conn.listener);
                let is_ending = leaving || self.is_ending(listener);
                let conn = self.conns.get(id)?;
                let is_opening = conn.stage.is_opening() && !conn.stage.is_clean_end();
                let over = is_ending && conn.state().is_between && !is_opening || conn.stage.has_ended();
                if self.between.is_lane(id) {
                    self.watch(id); // the lane is not for those who have nothing to say
                }
                let done = !over || self.finish_input(id, End::Clean);
                Some(if done { Served::Done(0) } else { Served::More(0) })
            }
            Outcome::End if conn.stage.is_clean_end() => {
                let done = self.finish_input(id, End::Clean);
                Some(if done { Served::Done(0) } else { Served::More(0) })
            }
            Outcome::End => {
                self.break_off(id, Reason::Reset, None);
                Some(Served::Done(0))
            }
            Outcome::Failed(_) => {
                self.finish_input(id, End::Broken(Reason::Reset));
                self.close(id, None);
                Some(Served::Done(0))
            }
        }
    }

    /// So many bytes came from a connection's socket.
    pub(super) fn count_input(&mut self, id: ConnId, len: usize) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.times.last_input = self.now;
        conn.share.add(self.meter.window, len);
        let listener = conn.listener;
        if self.is_apart(listener) {
            return; // what senders send is counted
        }
        self.meter.received(len);
        self.stats().network_bytes.add(len as u64);
        self.stats().receives.add(1);
    }

    /// A receive is over. `between`: as in [`Reactor::space`].
    pub(super) fn took(&mut self, received: Received, between: Option<u64>) -> Served {
        let Received { conn: id, lease, outcome } = received;
        let Lease { mut chunk, start, len: leased, mark } = lease;
        let Outcome::Bytes { len, more } = outcome else {
            self.put_back(chunk, mark);
            return self.without_input(id, &outcome).unwrap_or(Served::Done(0));
        };
        self.count_input(id, len);
        let Some(conn) = self.conns.get(id) else {
            self.put_back(chunk, mark); // closed while the receive was out
            return Served::Done(0);
        };
        let held = conn.stage.held();
        let base = start - held;
        let most = conn.session.landing(conn.tail.len()).bounds().1.min(self.between.allowance(id, conn));
        let decoded = conn.stage.decode(&mut chunk.free()[base..][..held + leased], len, most);
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
                self.landed(
                    id,
                    chunk,
                    mark,
                    Landed { start: base, len: decoded, memory: decoded, received: len, more, between },
                )
            }
            Err(error) => {
                self.put_back(chunk, mark);
                self.stage_failed(id, &error);
                Served::Done(len)
            }
        }
    }

    /// Goes on with what the stage or the session holds; nothing has landed. Up to `most` bytes may, behind the gap.
    pub(super) fn go_on(
        &mut self,
        id: ConnId,
        mut chunk: Box<Chunk>,
        mark: LeaseMark,
        gap: usize,
        most: usize,
        between: Option<u64>,
    ) -> Served {
        let Some(conn) = self.conns.get(id) else {
            self.put_back(chunk, mark);
            return Served::Done(0);
        };
        let mut len = 0;
        if conn.state().turn == Turn::Receive {
            match conn.stage.decode(&mut chunk.free()[gap..][..most], 0, most) {
                Ok(decoded) => len = decoded,
                Err(error) => {
                    self.put_back(chunk, mark);
                    self.stage_failed(id, &error);
                    return Served::Done(0);
                }
            }
        }
        self.landed(id, chunk, mark, Landed { start: gap, len, memory: most, received: 0, more: true, between })
    }

    /// Lets the session have what landed.
    fn landed(&mut self, id: ConnId, mut chunk: Box<Chunk>, mark: LeaseMark, landed: Landed) -> Served {
        if mark == LeaseMark::Scratch {
            return self.take_apart(id, chunk, &landed);
        }
        let Landed { start, len, received, more, .. } = landed;
        let Some(entered) = self.enter(id, &mut chunk, mark, Input::Chunk { start, len }) else {
            self.put_back(chunk, mark);
            return Served::Done(received);
        };
        self.put_back(chunk, mark);
        self.entered(id, entered.step, mark, &entered, received.max(entered.worked), more)
    }

    /// The same from the scratch buffer: into the open chunk, and as many fresh ones as it takes. What finds none waits in the lane.
    fn take_apart(&mut self, id: ConnId, mut scratch: Box<Chunk>, landed: &Landed) -> Served {
        let Landed { start, len, memory, mut received, more, between } = *landed;
        if self.conns.get(id).map(|c| c.listener).is_some_and(|listener| self.is_apart(listener)) {
            self.enter_apart(id, scratch, start, len, memory);
            let nothing = Entered { step: Step::Continue, is_found: false, worked: 0, is_unexpected: false };
            return self.entered(id, Step::Continue, LeaseMark::Scratch, &nothing, received, more);
        }
        // Something is left that needs a fresh chunk, whether it lies here or in the session.
        let (mut at, mut is_left) = (0, len > 0);
        loop {
            let Some(listener) = self.conns.get(id).filter(|c| !c.ended).map(|c| usize::from(c.listener)) else {
                self.put_back(scratch, LeaseMark::Scratch);
                return Served::Done(received);
            };
            let Some((mut chunk, mark)) = self.space(listener, between.filter(|_| at == 0)) else {
                if is_left {
                    // It goes first when there is a chunk. Otherwise other connections would use up each fresh one.
                    let bytes = scratch.free()[start + at..start + len].to_vec();
                    self.lanes.keep_rest(listener, Rest { conn: id, bytes, datagrams: Vec::new() });
                }
                self.put_back(scratch, LeaseMark::Scratch);
                return if is_left { Served::Stuck } else { Served::More(received) };
            };
            if chunk.room() == 0 {
                self.retire(chunk, mark); // it cannot describe more runs
                continue;
            }
            let was_fresh = chunk.is_empty();
            let space = &mut scratch.free()[..start + memory.max(len)];
            let input = Input::Scratch { space, start: start + at, len: len - at };
            let Some(entered) = self.enter(id, &mut chunk, mark, input) else {
                self.put_back(chunk, mark);
                self.put_back(scratch, LeaseMark::Scratch);
                return Served::Done(received);
            };
            received = received.max(entered.worked); // decoding is work too, for which others wait
            let Step::Full(taken) = entered.step else {
                self.put_back(chunk, mark);
                self.put_back(scratch, LeaseMark::Scratch);
                return self.entered(id, entered.step, mark, &entered, received, more);
            };
            (at, is_left) = (at + taken, true);
            self.retire(chunk, mark);
            let has_had_its_turn = at == len && received > TURN_BYTES;
            if has_had_its_turn || self.drops_an_answer(id, mark, &entered) {
                self.put_back(scratch, LeaseMark::Scratch);
                return self.entered(id, Step::Continue, mark, &entered, received, more);
            }
            self.watch(id);
            if was_fresh && taken == 0 && !entered.is_found {
                // A chunk holds the longest record: its size is derived so. Were it not so, waiting would not help.
                self.put_back(scratch, LeaseMark::Scratch);
                self.break_off(id, Reason::TooLong, Some(Refused::TooLong));
                return Served::Done(received);
            }
        }
    }

    /// Goes on with input received before, now that there is a chunk. More may have come meanwhile, whose event was ignored.
    pub(super) fn resume(&mut self, rest: Rest) -> Served {
        let Rest { conn: id, bytes, datagrams } = rest;
        let Some(conn) = self.conns.get(id).filter(|c| !c.ended) else { return Served::Done(0) };
        let Some(mut scratch) = self.between.scratch.take() else { return Served::Done(0) };
        if !datagrams.is_empty() {
            scratch.free()[..bytes.len()].copy_from_slice(&bytes);
            self.between.batch = datagrams;
            return self.take_batch(id, scratch, 0, true);
        }
        let (gap, most) = conn.session.landing(conn.tail.len()).bounds();
        scratch.free()[gap..gap + bytes.len()].copy_from_slice(&bytes);
        // Where nothing of it lies here, the session goes on with what it holds, and may want memory for that.
        let memory = if bytes.is_empty() { most.min(self.between.allowance(id, conn)) } else { 0 };
        let memory = memory.min(scratch.room() - gap);
        let len = bytes.len();
        self.take_apart(id, scratch, &Landed { start: gap, len, memory, received: 0, more: true, between: None })
    }

    /// Calls the session, and counts what it finds. `None`: there is no such connection.
    pub(super) fn enter(
        &mut self,
        id: ConnId,
        chunk: &mut Chunk,
        mark: LeaseMark,
        input: Input<'_>,
    ) -> Option<Entered> {
        let refuse = (mark == LeaseMark::Discard).then(|| self.turns_away().unwrap_or(Refusal::Overloaded));
        let is_ending = self.conns.get(id).map(|c| c.listener).is_some_and(|l| self.is_ending(l));
        let leaving = is_ending || self.seat.control.leaving();
        let is_lane = self.between.is_lane(id);
        let conn = self.conns.get(id)?;
        let is_old = conn.times.retires > 0 && self.now > conn.times.retires;
        let around = Around {
            wall_ns: self.wall,
            now_ns: self.now,
            refuse,
            not_ready: self.phase.not_ready,
            closing: leaving || is_old,
            is_lane,
        };
        let most_parts = chunk.runs_left();
        let mut window =
            Window::new(Sink::new(chunk.free(), most_parts), self.between.tails.tail(&mut conn.tail), around);
        let step = conn.session.input(input, &mut window);
        let (found, worked) = window.close();
        let is_found = found.kept().lines > 0 || found.dropped.is_some();
        let is_unexpected = found.unexpected.is_some();
        self.book(id, chunk, &found, mark);
        Some(Entered { step, is_found, worked, is_unexpected })
    }

    /// True if a record was dropped, so that the next answer would be taken for its own.
    fn drops_an_answer(&mut self, id: ConnId, mark: LeaseMark, entered: &Entered) -> bool {
        let listener = self.conns.get(id).map(|c| usize::from(c.listener));
        mark == LeaseMark::Discard
            && entered.is_found
            && listener.is_some_and(|l| self.listeners[l].options.profile().drop_ends)
    }

    /// What follows from what the session has made of its input.
    pub(super) fn entered(
        &mut self,
        id: ConnId,
        step: Step,
        mark: LeaseMark,
        entered: &Entered,
        received: usize,
        more: bool,
    ) -> Served {
        if self.drops_an_answer(id, mark, entered) {
            self.finish_input(id, End::Broken(Reason::BufferFull));
            self.close_if_done(id);
            return Served::Done(received);
        }
        self.watch(id);
        let Some(conn) = self.conns.get(id) else { return Served::Done(received) };
        let state = conn.state();
        if state.has_output || state.is_over || conn.stage.wants_to_send() {
            self.answers.mark(conn, id);
        }
        let (listener, leaving) = (conn.listener, conn.leaving.is_some());
        let said_goodbye = conn.stage.has_ended() && state.turn == Turn::Receive;
        let goes_on = state.turn == Turn::GoOn || (state.turn == Turn::Receive && conn.stage.pending());
        if step == Step::Close {
            let (reason, why) = match entered.is_unexpected {
                true => (Reason::Unexpected, Refused::Unexpected),
                false => (Reason::TooLong, Refused::TooLong),
            };
            self.finish_input(id, End::Broken(reason));
            self.count_closed(id, why);
            self.close_if_done(id);
            return Served::Done(received);
        }
        if said_goodbye && !mutant!("goodbye_not_heard") {
            // The peer has said goodbye: no more comes, and it may wait for us to say so too.
            return if self.finish_input(id, End::Clean) { Served::Done(received) } else { Served::More(received) };
        }
        // At an orderly end one look more: what is found empty then is over.
        if more || goes_on || leaving || self.is_ending(listener) {
            Served::More(received)
        } else {
            Served::Done(received)
        }
    }

    /// Counts what was found, and makes runs of it or drops it.
    pub(super) fn book(&mut self, id: ConnId, chunk: &mut Chunk, found: &Found, mark: LeaseMark) {
        let Some(conn) = self.conns.get(id) else { return };
        let index = conn.listener;
        let discard = mark == LeaseMark::Discard;
        let options = &self.listeners[usize::from(index)].options;
        let kept = found.kept();
        let mut entry = self.books.upstream.entry();
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
            conn.times.holds_since = self.now; // what it holds from here on is another line's
        }
        if kept.lines > 0 && !discard {
            let on_receipt = options.ack_on_receipt || mutant!("ack_on_receipt");
            let mut told = false;
            for part in found.parts() {
                let stream = part.stream.unwrap_or(options.stream());
                // Whoever is content with less than the listener's level waits for nothing.
                let waits = part.frame.level > AckLevel::Received && !mutant!("ack_on_receipt");
                let ticket = ticket(options.level, id, part.frame.number).filter(|_| waits);
                let lines = u64::from(part.lines);
                chunk.commit(stream, index, ticket, part.bytes, part.lines, self.now);
                if ticket.is_none() && on_receipt {
                    conn.session.reached(part.frame.number, AckLevel::Durable, lines);
                    told = true;
                }
                if let (LeaseMark::Lane(lane), Some(ticket)) = (mark, ticket)
                    && part.frame.level == AckLevel::Written
                    && options.level > crate::pipeline::chunk::Level::Written
                {
                    chunk.announce = true;
                    self.answers.await_writing(self.lanes.all[lane].number, ticket, lines);
                }
                conn.unacked += if ticket.is_some() { lines } else { 0 };
            }
            if conn.unacked > 0 {
                if conn.times.owed_since == 0 {
                    conn.times.owed_since = self.now;
                }
                let timeout = options.profile().patience.answer.as_nanos() as u64;
                if timeout > 0 && conn.times.answer_timer == 0 {
                    conn.times.answer_timer = self.now + timeout;
                    self.timers.answers.push(self.now + timeout, id);
                }
            }
            if told {
                self.answers.mark(conn, id);
            }
        }
        let peer = conn.peer;
        if let Some((reason, tally)) = found.dropped {
            self.told.dropped(self.now, (index, &options.name), &peer, reason, tally);
        }
        if discard {
            self.told.dropped(self.now, (index, &options.name), &peer, Reason::BufferFull, kept);
        }
        if found.truncated.lines > 0 {
            self.told.cut(self.now, (index, &options.name), &peer, found.truncated);
            self.stats().truncated_lines.add(found.truncated.lines);
            self.stats().truncated_bytes.add(found.truncated.bytes);
        }
        if found.replaced > 0 {
            self.stats().replaced_lines.add(found.replaced);
        }
        if let Some(what) = found.unexpected {
            self.tell_unexpected(id, what);
        }
    }

    /// Counts and logs that the server closes a connection.
    pub(super) fn count_closed(&mut self, id: ConnId, why: Refused) {
        self.stats().refused[why as usize].add(1);
        let Some(conn) = self.conns.get(id) else { return };
        let name = &self.listeners[usize::from(conn.listener)].options.name;
        self.told.closed(self.now, (conn.listener, name), &conn.peer, why);
    }

    /// Counts and logs a client that speaks another protocol.
    fn tell_unexpected(&mut self, id: ConnId, what: Unexpected) {
        self.stats().unexpected[what as usize].add(1);
        let Some(conn) = self.conns.get(id) else { return };
        let name = &self.listeners[usize::from(conn.listener)].options.name;
        self.told.unexpected(self.now, (conn.listener, name), &conn.peer, what);
    }

    /// Counts the lines of a rest that no chunk was found for, as dropped for this reason: its connection ends.
    pub(super) fn drop_rest(&mut self, rest: &Rest, reason: Reason) {
        let Some(conn) = self.conns.get(rest.conn) else { return };
        let listener = conn.listener;
        let mut memory = vec![0; self.listeners[usize::from(listener)].options.least_chunk_bytes()];
        let refuse = Some(Refusal::Overloaded); // who can be told so has not been told that it was received
        let around = Around { wall_ns: self.wall, now_ns: self.now, refuse, ..Around::default() };
        let whole = [Datagram { start: 0, len: rest.bytes.len(), cut: 0, sender: Peer::Local }];
        let is_stream = rest.datagrams.is_empty();
        let pieces = if is_stream { &whole[..] } else { &rest.datagrams[..] };
        let gap = if is_stream { conn.session.landing(conn.tail.len()).bounds().0 } else { 0 };
        for Datagram { start, len, cut, sender } in pieces {
            let (mut at, end) = (*start, start + len);
            loop {
                let mut space = vec![0; gap];
                space.extend_from_slice(&rest.bytes[at..end]);
                let mut window =
                    Window::new(Sink::new(&mut memory, ANY_PARTS), self.between.tails.tail(&mut conn.tail), around);
                let input = match is_stream {
                    true => Input::Scratch { space: &mut space, start: gap, len: end - at },
                    false => Input::Datagram { bytes: &mut space, cut: *cut, sender },
                };
                let step = conn.session.input(input, &mut window);
                let (found, _) = window.close();
                let mut entry = self.books.upstream.entry();
                for (reason, tally) in [(reason, found.kept())].into_iter().chain(found.dropped) {
                    entry.add(listener, Term::Received, tally);
                    entry.add(listener, Term::Dropped(reason), tally);
                    let name = &self.listeners[usize::from(listener)].options.name;
                    self.told.dropped(self.now, (listener, name), &conn.peer, reason, tally);
                }
                drop(entry);
                match step {
                    Step::Full(n) if at + n < end && (n > 0 || found.kept().lines > 0) => at += n,
                    _ => break,
                }
            }
        }
    }

    /// Takes the address from a PROXY header. Returns false if a limit refuses that client.
    fn comes_from(&mut self, id: ConnId, address: std::net::SocketAddr) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let (listener, peer) = (conn.listener, Peer::Ip(address));
        let addresses = &self.listeners[usize::from(listener)].addresses;
        let client = addresses.client(&peer);
        let enters = client.is_none_or(|client| addresses.enter(client));
        let owner = Owner { listener, client };
        let session = self.listeners[usize::from(listener)].options.protocol.session(&peer, owner);
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
