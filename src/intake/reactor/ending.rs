//! Ends connections: their input, their last answers, and their deadlines.

use super::state::Reactor;
use crate::host::mutants::mutant;
use crate::intake::net::Engine;
use crate::intake::transport::StageError;
use crate::metrics::accounting::{Reason, Term};
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::ConnId;
use crate::session::{ANY_PARTS, Around, End, Sink, Waiting, Window};

/// How long a client may take to read its last answer and end its side: a socket that is closed with unread input is
/// reset, and the reset can overtake the answer (RFC 9112 section 9.6).
const LINGER_NS: u64 = 5_000_000_000;

impl<E: Engine> Reactor<E> {
    /// Keeps the time since which a connection owes the rest of what it began, and its timer.
    pub(super) fn watch(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = self.conns.get(id) else { return };
        let (mark, waiting) = (conn.state().mark, conn.waiting());
        let went_on = mark != conn.mark;
        conn.mark = mark;
        self.between.relief.settle_lane(id, conn);
        match conn.tail.charged() {
            0 => conn.times.holds_since = 0,
            _ if conn.times.holds_since == 0 => conn.times.holds_since = now,
            _ => {}
        }
        if waiting == Waiting::Nothing {
            conn.times.line_since = 0;
            return;
        }
        if went_on || conn.times.line_since == 0 {
            conn.times.line_since = now;
        }
        self.start_line_timer(id);
    }

    /// How long a connection may take for the rest of what it began, in nanoseconds; 0: for ever.
    fn patience(&mut self, id: ConnId) -> u64 {
        let Some(conn) = self.conns.get(id) else { return 0 };
        let waiting = conn.waiting();
        let patience = self.listeners[usize::from(conn.listener)].options.profile().patience;
        let timeout = match waiting {
            Waiting::Nothing | Waiting::Line => patience.line,
            Waiting::Head => patience.head,
            Waiting::Body => patience.body,
        };
        timeout.as_nanos() as u64
    }

    /// Sets the timer of the connection's deadline, unless an earlier one is set.
    pub(super) fn start_line_timer(&mut self, id: ConnId) {
        let timeout = self.patience(id);
        let Some(conn) = self.conns.get(id) else { return };
        let due = conn.times.line_since + timeout;
        if timeout > 0 && (conn.times.line_timer == 0 || due < conn.times.line_timer) {
            conn.times.line_timer = due;
            self.timers.line.push(due, id);
        }
    }

    pub(super) fn run_timers(&mut self) {
        let now = self.now;
        while let Some((_, id)) = self.timers.idle.pop_due(now) {
            let Some(conn) = self.conns.get(id) else { continue };
            if conn.shut || conn.ended {
                // Only its last answers are left. Once they can all be given, the client has a while to read them.
                if conn.times.lingers_until == 0 && conn.unacked == 0 {
                    conn.times.lingers_until = now + LINGER_NS;
                }
                match conn.times.lingers_until {
                    0 => self.timers.idle.push(now + LINGER_NS, id),
                    until if now < until => self.timers.idle.push(until, id),
                    _ => {
                        let why = (!conn.shut).then_some(Refused::Idle);
                        self.close(id, why);
                    }
                }
                continue;
            }
            let timeout = self.listeners[usize::from(conn.listener)].options.idle_timeout.as_nanos() as u64;
            if timeout == 0 {
                continue; // it was taken out of the configuration
            }
            let due = conn.times.last_input + timeout;
            // Input that waits for us is not idleness, nor is waiting for an acknowledgement.
            if due > now || conn.queued || conn.unacked > 0 {
                self.timers.idle.push(due.max(now + timeout / 8 + 1), id);
            } else {
                self.break_off(id, Reason::LineTimeout, Some(Refused::Idle));
            }
        }
        while let Some((at, id)) = self.timers.line.pop_due(now) {
            let is_lane = self.between.is_lane(id);
            let timeout = self.patience(id);
            let Some(conn) = self.conns.get(id) else { continue };
            if at != conn.times.line_timer {
                continue; // an earlier one has taken its place
            }
            let waits_for_chunk = self.lanes.is_blocked(usize::from(conn.listener));
            conn.times.line_timer = 0;
            if conn.times.line_since == 0 || timeout == 0 {
                continue;
            }
            let due = conn.times.line_since + timeout;
            // What waits for us is not late, unless it wants more room than there is while it holds some, or has the lane.
            if due > now || (conn.queued && !conn.is_starved && (!is_lane || waits_for_chunk)) {
                let again = due.max(now + timeout / 8 + 1);
                conn.times.line_timer = again;
                self.timers.line.push(again, id);
            } else {
                self.break_off(id, Reason::LineTimeout, Some(Refused::LineTimeout));
            }
        }
        if !mutant!("unanswered_never_let_go") {
            self.close_unanswered();
        }
        self.look_for_drops();
        while let Some(listener) = self.timers.next_accept(now) {
            self.engine.retry_accept(listener);
        }
    }

    /// Closes connections to which nothing was answered for too long. The client knows what to do then, and does not wait for ever.
    fn close_unanswered(&mut self) {
        while let Some((at, id)) = self.timers.answers.pop_due(self.now) {
            let Some(conn) = self.conns.get(id).filter(|conn| conn.times.answer_timer == at) else { continue };
            conn.times.answer_timer = 0;
            let timeout = self.listeners[usize::from(conn.listener)].options.profile().patience.answer;
            if conn.times.owed_since == 0 || timeout.is_zero() || !conn.state().owes {
                conn.times.owed_since = 0;
                continue;
            }
            let due = conn.times.owed_since + timeout.as_nanos() as u64;
            if due > self.now {
                conn.times.answer_timer = due;
                self.timers.answers.push(due, id);
            } else {
                self.finish_input(id, End::Broken(Reason::Reset));
                self.close(id, Some(Refused::AnswerTimeout));
            }
        }
    }

    /// Ends a connection's input. After a clean end it is closed when nothing is owed to it any more; one that broke is for
    /// the caller to close. False: its last line waits for a chunk.
    pub(super) fn finish_input(&mut self, id: ConnId, end: End) -> bool {
        let Some(conn) = self.conns.get(id) else { return true };
        if conn.ended {
            return true;
        }
        if let Some(rest) = self.lanes.take_rest_of(id) {
            self.drop_rest(&rest, if let End::Broken(reason) = end { reason } else { Reason::Reset });
        }
        let Some(conn) = self.conns.get(id) else { return true };
        let listener = usize::from(conn.listener);
        let is_kept = mutant!("fragment_kept_after_a_reset") && end == End::Broken(Reason::Reset);
        let end = if is_kept { End::Clean } else { end };
        let room = if end == End::Clean { conn.state().finish_room } else { 0 };
        if room > 0 {
            conn.ending = true;
            let Some((mut chunk, mark)) = self.room_for(listener, room) else { return false };
            let Some(conn) = self.conns.get(id) else { return true };
            let around = Around { wall_ns: self.wall, now_ns: self.now, ..Around::default() };
            let most_parts = chunk.runs_left();
            let mut window =
                Window::new(Sink::new(chunk.free(), most_parts), self.between.tails.tail(&mut conn.tail), around);
            conn.session.finish(end, &mut window);
            let (found, _) = window.close();
            self.book(id, &mut chunk, &found, mark);
            self.put_back(chunk, mark);
        } else {
            let mut window =
                Window::new(Sink::new(&mut [], ANY_PARTS), self.between.tails.tail(&mut conn.tail), Around::default());
            conn.session.finish(end, &mut window);
            let (found, _) = window.close();
            if let Some((reason, tally)) = found.dropped {
                let of = (listener as u16, self.listeners[listener].options.name.as_str());
                self.told.dropped(self.now, of, &conn.peer, reason, tally);
                let mut entry = self.books.upstream.entry();
                entry.add(listener as u16, Term::Received, tally);
                entry.add(listener as u16, Term::Dropped(reason), tally);
            }
        }
        if let Some(conn) = self.conns.get(id) {
            conn.ended = true;
            conn.times.line_since = 0;
            let state = conn.state();
            if state.has_output || state.is_over {
                self.answers.mark(conn, id);
            }
        }
        self.between.relief.leave_lane(id);
        if end == End::Clean {
            self.close_if_done(id);
        }
        true
    }

    /// Ends a connection for a reason, once what is owed to it was sent.
    pub(super) fn break_off(&mut self, id: ConnId, reason: Reason, why: Option<Refused>) {
        self.finish_input(id, End::Broken(reason));
        if let Some(conn) = self.conns.get(id)
            && conn.state().owes
        {
            if let Some(why) = why {
                self.count_closed(id, why);
            }
            self.timers.idle.push(self.now + LINGER_NS, id);
            return; // closed behind its last answer, or when the client has long not read it
        }
        self.close(id, why);
    }

    /// A stage cannot go on; what it has to say of it is sent if it can be at once.
    pub(super) fn stage_failed(&mut self, id: ConnId, error: &StageError) {
        self.finish_input(id, End::Broken(Reason::Reset));
        let Some(conn) = self.conns.get(id) else { return };
        let listener = usize::from(conn.listener);
        if conn.stage.wants_to_send() && !conn.sending {
            let mut buffer = Vec::new();
            if conn.stage.encode(&mut buffer).is_ok() || !buffer.is_empty() {
                let _ = self.engine.send(id, buffer); // closed in a moment, whether or not it was sent
            }
        }
        self.told.failed(self.now, (listener as u16, &self.listeners[listener].options.name), &conn.peer, error);
        self.close(id, Some(Refused::Transport));
    }

    /// Closes a connection whose input is over once nothing is owed to it any more.
    pub(super) fn close_if_done(&mut self, id: ConnId) {
        let Some(listener) = self.conns.get(id).map(|c| c.listener) else { return };
        let is_ending = self.is_ending(listener);
        let Some(conn) = self.conns.get(id) else { return };
        // At the orderly end nobody waits for a client that does not read its answers.
        if conn.ended && conn.unacked == 0 && (!conn.sending || is_ending) && !conn.dirty {
            self.close(id, None);
        }
    }

    /// Everything was sent to a connection: closes it in a way that does not cut off what was sent.
    pub(super) fn part(&mut self, id: ConnId) {
        let Some(listener) = self.conns.get(id).map(|c| c.listener) else { return };
        let is_ending = self.is_ending(listener);
        let Some(conn) = self.conns.get(id) else { return };
        if conn.ended || is_ending {
            return self.close(id, None);
        }
        if !conn.shut {
            conn.shut = true;
            conn.times.lingers_until = self.now + LINGER_NS;
            conn.times.line_since = 0;
            self.engine.shut_down_sending(id);
            self.timers.idle.push(self.now + LINGER_NS, id);
            self.pending(id); // what it has sent is read past
        }
    }
}
