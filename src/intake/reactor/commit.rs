//! The reactor's side of its commit log: offers it what clients wait for at the end of a turn, and answers them.

use super::state::Reactor;
use crate::host::mutants::mutant;
use crate::intake::net::Engine;
use crate::metrics::accounting::{Reason, Term};
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::{Class, Level, Run};
use crate::pipeline::commit::{Offer, Stamp, Told, Waiter};
use crate::pipeline::control::NotReady;
use crate::session::AckLevel;

impl<E: Engine> Reactor<E> {
    /// Takes the log over, once there is one.
    pub(super) fn take_commit_log(&mut self) {
        if self.commit.is_some() || self.port().commit.is_empty() {
            return;
        }
        // What is awaited so far is on the direct way.
        (0..self.lanes.all.len()).for_each(|lane| self.push_open(lane));
        for id in self.conns.ids() {
            if let Some(conn) = self.conns.get(id) {
                conn.direct = conn.unacked;
            }
        }
        self.commit = self.port().commit.pop();
    }

    /// Offers the log what clients wait for in the open chunk of a lane. Returns false if that goes the direct way: the chunk is to be
    /// pushed now.
    pub(super) fn commit_group(&mut self, lane: usize) -> bool {
        let (Some(log), lane) = (&mut self.commit, &mut self.lanes.all[lane]) else { return false };
        let Some(chunk) = lane.open.as_mut().filter(|_| (lane.class, lane.level) == (Class::Lossless, Level::Durable))
        else {
            return false;
        };
        lane.waits_for_log = false;
        // While a writer waits for room, nothing new is answered that has no room in a segment.
        let has_failed = matches!(self.seat.control.readiness(), Some(NotReady::DiskFull | NotReady::DiskFailed));
        if has_failed && !mutant!("logged_on_a_full_disk") {
            return false;
        }
        // The lines of a connection stay in order, in the files and in what is acknowledged: none may be durable in the log while others
        // before it are on the direct way.
        let overtakes = |run: &Run| run.ticket.is_some_and(|t| self.conns.get(t.conn).is_some_and(|c| c.direct > 0));
        if chunk.unlogged_runs().iter().any(overtakes) && !mutant!("logged_lines_overtake_direct_ones") {
            return false;
        }
        let stamp = Stamp { mono_ns: self.now, wall_ns: self.wall };
        match log.offer(chunk, lane.number, stamp) {
            Offer::Write(write) => self.engine.commit(write),
            Offer::Wait => lane.waits_for_log = true,
            Offer::Direct => return false,
        }
        true
    }

    /// Answers those whose lines are durable, and has the writer sync what the log needs to be synced.
    pub(super) fn tell_logged(&mut self) {
        while let Some(told) = self.commit.as_mut().and_then(|log| log.next_told()) {
            self.tell_record(told);
        }
        let Some(log) = &mut self.commit else { return };
        log.free(self.now);
        log.publish(&self.seat.shard.reactors[self.seat.index].stats.commit);
        if let Some(write) = log.mark(Stamp { mono_ns: self.now, wall_ns: self.wall }) {
            self.engine.commit(write);
        }
        if log.wants_sync(self.now) {
            self.seat.shard.hurry(); // the open chunk follows when it has lingered
        }
    }

    fn tell_record(&mut self, told: Told) {
        let fate = if told.is_durable { Term::Durable } else { Term::Dropped(Reason::DiskFailed) };
        let mut entry = self.books.evictions.entry();
        for (listener, tally) in &told.lines {
            entry.add(*listener, Term::Left, *tally);
            entry.add(*listener, fate, *tally);
        }
        drop(entry);
        for waiter in told.waiters {
            self.tell_waiter(waiter, told.is_durable);
        }
    }

    fn tell_waiter(&mut self, waiter: Waiter, is_durable: bool) {
        let Waiter { ticket, lines, received_ns } = waiter;
        let (id, lines) = (ticket.conn, u64::from(lines));
        let Some(conn) = self.conns.get(id) else { return };
        conn.came_back(lines, self.now);
        if is_durable {
            conn.session.reached(ticket.frame, AckLevel::Durable, lines);
            self.answers.mark(conn, id);
            self.stats().ack_latency.record(self.now.saturating_sub(received_ns));
        } else if conn.session.failed() {
            self.answers.mark(conn, id);
        } else {
            self.close(id, Some(Refused::DiskFailed));
        }
    }

    /// The time to drain is over: what the log has not made durable yet is counted as not durable.
    pub(super) fn give_up_logged(&mut self) {
        let Some(log) = &mut self.commit else { return };
        let mut entry = self.books.evictions.entry();
        for (listener, tally) in log.give_up_told() {
            entry.add(listener, Term::Left, tally);
            entry.add(listener, Term::Dropped(Reason::Shutdown), tally);
        }
    }

    /// When the log has something to do, in monotonic nanoseconds.
    pub(super) fn commit_due_at(&self) -> Option<u64> {
        let log = self.commit.as_ref()?;
        [log.mark_at(), log.look_at()].into_iter().flatten().min()
    }
}
