//! A reactor is one thread with one engine and its connections. It receives into chunks, lets sessions find the records, pushes
//! full chunks into the ring, and sends answers when chunks come back.

mod admit;
mod apart;
mod changes;
mod commit;
mod datagrams;
mod dawdle;
mod digest;
mod ending;
mod handshakes;
mod lanes;
mod moves;
mod parts;
mod relief;
mod serve;
mod state;

pub use parts::apart::MOST_APART;
pub use parts::changes::{Change, Changes};
pub use parts::conns::bytes_per_connection;
pub use parts::limits::{AddressLimit, ConnectionLimit};
pub use parts::listeners::ListenerRun;
pub use state::{Books, Reactor, Seat, Setup};

use crate::host::peer::ListenerId;
use crate::intake::net::{Engine, Event, Sent};
use crate::metrics::accounting::Reason;
use crate::metrics::stats::{ReactorCells, Refused};
use crate::pipeline::chunk::{Class, ConnId, Ticket};
use crate::pipeline::control::NotReady;
use crate::pipeline::shard::ReactorPort;
use crate::session::{AckLevel, End, Reply, State, Turn};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time before accepting is tried again after descriptors ran out.
const ACCEPT_AGAIN_NS: u64 = 100_000_000;

impl<E: Engine> Reactor<E> {
    /// Runs until everything received is in chunks and pushed, after [`Control::drain`](crate::pipeline::control::Control::drain).
    ///
    /// # Errors
    /// The engine broke.
    pub fn run(mut self) -> io::Result<()> {
        let result = self.turn_until_drained();
        if result.is_err() {
            self.seat.spread.shut(self.seat.number);
        }
        result
    }

    fn turn_until_drained(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        loop {
            self.wait(&mut events)?;
            self.wall = self.seat.clock.wall_ns();
            self.answer_ping(&mut events);
            if self.seat.control.draining() && !self.phase.draining {
                self.begin_drain(&mut events);
            }
            events.drain(..).for_each(|event| self.handle(event));
            self.take_commit_log();
            self.take_spent();
            self.tell_logged();
            self.take_inbox();
            if self.seat.control.intake_stopped() && !self.phase.stopped {
                self.phase.stopped = true;
                self.close_those_that_cannot_be_told();
            }
            self.phase.not_ready = self.seat.control.readiness().map(NotReady::line);
            self.unblock_lanes();
            self.serve_ready();
            self.relieve();
            self.take_written();
            self.tell_news();
            self.answer();
            self.run_timers();
            self.push_due();
            self.measure();
            self.stats().tail_bytes.set(self.between.tails.used_bytes() as u64);
            self.stats().polled_instead.set(self.engine.polled_instead());
            let is_over = self.is_empty() || self.seat.control.reactors_abandoned();
            if self.phase.draining
                && is_over
                && (self.seat.spread.close(self.seat.number) || self.seat.control.reactors_abandoned())
            {
                self.close_all();
                self.give_up_logged();
                (0..self.lanes.all.len()).for_each(|lane| self.push_open(lane));
                return Ok(());
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.commit.as_ref().is_none_or(|log| log.has_told())
            && self.conns.len() == self.apart.len()
            && self.seat.spread.inbox(self.seat.number).is_empty()
    }

    /// Waits for something to do, unless there is.
    fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let mut timeout = self.timeout();
        let mut before = 0;
        if timeout != Some(Duration::ZERO) {
            before = self.seat.clock.mono_ns();
            self.about_to_sleep();
            if self.something_came() {
                timeout = Some(Duration::ZERO);
            } else {
                self.dawdle(timeout);
            }
        }
        self.engine.wait(timeout, events)?;
        self.now = self.seat.clock.mono_ns();
        if before > 0 {
            self.meter.waited(self.now.saturating_sub(before));
        }
        if let Some(wake) = self.port().wake.get() {
            wake.awake();
        }
        Ok(())
    }

    fn about_to_sleep(&self) {
        if let Some(wake) = self.port().wake.get() {
            wake.about_to_sleep();
        }
    }

    /// The last look before sleeping, at everything that others publish.
    fn something_came(&self) -> bool {
        let port = self.port();
        !port.spent.is_empty()
            || !self.seat.changes.is_empty()
            || self.seat.control.pings() != port.answered.get()
            || !self.seat.spread.inbox(self.seat.number).is_empty()
            || self.between.relief.is_called()
            || self.apart.has_news()
            || self.answers.is_written(port.written.load(Ordering::SeqCst))
            || self.seat.control.draining() != self.phase.draining
            || (self.phase.draining && self.seat.control.reactors_abandoned())
            || (self.seat.control.intake_stopped() && !self.phase.stopped)
            || self
                .lanes
                .all
                .iter()
                .any(|l| l.blocked && self.seat.shard.channel(l.class).pool.is_there_or_wait(self.seat.index))
    }

    fn timeout(&mut self) -> Option<Duration> {
        if self.can_feed() || self.lanes.can_resume() {
            return Some(Duration::ZERO);
        }
        if self.anybody_to_serve() || !self.answers.is_empty() {
            return Some(Duration::ZERO);
        }
        let linger = self.lanes.all.iter().filter_map(|l| l.due_at(self.lanes.linger_ns)).min();
        let refusal = self.next_refusal().map(|at| at + 1);
        let handshake = self.handshakes.next_turn();
        let (relief, commit) = (self.relief_due_at(), self.commit_due_at());
        let conns = &mut self.conns;
        let timer = self.timers.first(|id| conns.get(id).is_some());
        let at = [timer, linger, refusal, handshake, relief, commit];
        let at = at.into_iter().flatten().min()?;
        Some(Duration::from_nanos(at.saturating_sub(self.seat.clock.mono_ns())))
    }

    fn port(&self) -> &ReactorPort {
        &self.seat.shard.reactors[self.seat.index]
    }

    fn stats(&self) -> &ReactorCells {
        &self.port().stats
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { listener, socket, peer } => self.place(listener, socket, peer),
            Event::AcceptFailed { listener, error } => {
                self.stats().accept_failures.add(1);
                let name = &self.listeners[usize::from(listener)].options.name;
                self.told.accept_failed(self.now, (listener, name), &error);
                self.timers.accept_again(self.now + ACCEPT_AGAIN_NS, listener);
            }
            Event::Pending(id) => self.pending(id),
            Event::Received(received) => self.received(received),
            Event::Sent(sent) => self.sent(sent),
            Event::Committed(done) => {
                if let Some(log) = &mut self.commit {
                    let cells = &self.seat.shard.reactors[self.seat.index].stats.commit;
                    log.completed(done, self.now, cells);
                }
            }
            Event::Woken => {}
        }
    }

    fn pending(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.queued && !conn.ended {
            conn.queued = true;
            self.queue.ready.push(conn.listener, id, self.now);
            self.will_look_for_drops(id);
        }
    }

    /// Acknowledges what the writer sent back, and frees the chunks.
    fn take_spent(&mut self) {
        while let Some(chunk) = self.port().spent.pop() {
            for run in chunk.unlogged_runs() {
                let Some(Ticket { conn: id, frame }) = run.ticket else { continue };
                let Some(conn) = self.conns.get(id) else { continue };
                conn.came_back(u64::from(run.lines), self.now);
                if self.commit.is_some() {
                    conn.direct -= u64::from(run.lines);
                }
                if chunk.failed {
                    if conn.session.failed() {
                        self.answers.mark(conn, id);
                    } else {
                        self.close(id, Some(Refused::DiskFailed));
                    }
                    continue;
                }
                conn.session.reached(frame, AckLevel::Durable, u64::from(run.lines));
                self.answers.mark(conn, id);
                self.seat.shard.reactors[self.seat.index]
                    .stats
                    .ack_latency
                    .record(self.now.saturating_sub(run.received_ns));
            }
            if let Some(log) = self.commit.as_mut().filter(|_| chunk.logged() > 0) {
                log.returned(chunk.number, chunk.failed, self.now);
            }
            self.seat.shard.release(Class::Lossless, chunk); // only lossless chunks are awaited
        }
    }

    /// Acknowledges `written` to the clients that asked only for that.
    fn take_written(&mut self) {
        let written = self.port().written.load(Ordering::Acquire);
        while let Some((Ticket { conn: id, frame }, records)) = self.answers.next_written(written) {
            if let Some(conn) = self.conns.get(id) {
                conn.came_back(0, self.now);
                conn.session.reached(frame, AckLevel::Written, records);
                self.answers.mark(conn, id);
            }
        }
    }

    fn take_inbox(&mut self) {
        while let Some(handed) = self.seat.spread.inbox(self.seat.number).pop() {
            if self.listeners.get(usize::from(handed.listener)).is_none_or(|l| l.is_gone) {
                // The thread that accepted it was told of the listener after this reactor was.
                let mut events = Vec::new();
                self.take_changes(&mut events);
                events.into_iter().for_each(|event| self.handle(event));
            }
            match handed.moved {
                Some(_) => self.arrive(handed, true),
                None => self.admit(handed.listener, handed.socket, handed.peer),
            }
        }
    }

    /// Sends what sessions have to send, and closes connections that are done.
    fn answer(&mut self) {
        for id in self.answers.take_marked() {
            if let Some(conn) = self.conns.get(id) {
                conn.dirty = false;
                if !conn.sending {
                    self.speak(id);
                }
                self.close_if_done(id);
            }
        }
    }

    /// Sends what one session has to say, as far as the socket takes it.
    fn speak(&mut self, id: ConnId) {
        loop {
            let mut buffer = self.answers.buffer();
            let counts = &self.seat.shard.reactors[self.seat.index].stats.answers;
            let Some(conn) = self.conns.get(id) else { return };
            let waited = conn.state().turn == Turn::Wait;
            conn.session.output(&mut Reply { out: &mut buffer, wall_ns: self.wall, answers: counts });
            conn.was_answered();
            let State { is_over, turn, .. } = conn.state();
            if (!buffer.is_empty() || conn.stage.wants_to_send()) && conn.stage.encode(&mut buffer).is_err() {
                return self.close(id, None);
            }
            if is_over && !conn.shut {
                conn.stage.close(&mut buffer);
            }
            let goes_on = turn == Turn::GoOn || (waited && turn != Turn::Wait);
            if goes_on && !conn.queued && !conn.ended {
                // Whatever came while it waited was not looked at.
                conn.queued = true;
                self.queue.ready.push(conn.listener, id, self.now);
            }
            if buffer.is_empty() {
                self.answers.keep(buffer);
                if is_over {
                    self.part(id);
                }
                return self.nudge(id);
            }
            conn.sending = true;
            let Some(sent) = self.engine.send(id, buffer) else { return };
            if let Some(conn) = self.conns.get(id) {
                conn.sending = false;
            }
            self.answers.keep(sent.buffer);
            if sent.result.is_err() {
                self.finish_input(id, End::Broken(Reason::Reset));
                return self.close(id, None);
            }
            if is_over {
                return self.part(id);
            }
        }
    }

    fn sent(&mut self, Sent { conn: id, buffer, result }: Sent) {
        self.answers.keep(buffer);
        let Some(conn) = self.conns.get(id) else { return };
        conn.sending = false;
        if result.is_err() {
            self.finish_input(id, End::Broken(Reason::Reset));
            self.close(id, None);
            return;
        }
        self.answers.mark(conn, id);
    }

    fn begin_drain(&mut self, events: &mut Vec<Event>) {
        self.phase.draining = true;
        self.call_off(None);
        for listener in (0..self.listeners.len() as ListenerId).filter(|l| !self.is_apart(*l)).collect::<Vec<_>>() {
            self.engine.stop_listening(listener, events);
        }
        // Everybody is looked at once more.
        let ids = self.conns.ids().into_iter().filter(|id| !self.apart.has(*id)).collect::<Vec<_>>();
        ids.into_iter().for_each(|id| self.end_soon(id));
    }

    /// Looks at a connection that must end. If its input is empty, it is over.
    fn end_soon(&mut self, id: ConnId) {
        self.leave(id);
        self.pending(id);
        self.close_if_done(id); // whoever does not read is not waited for
    }

    /// The time to drain is over.
    fn close_all(&mut self) {
        for id in self.conns.ids() {
            self.finish_input(id, End::Broken(Reason::Shutdown));
            self.close(id, None);
        }
    }

    /// Intake has stopped: clients that can be told are told, the other connections are closed.
    fn close_those_that_cannot_be_told(&mut self) {
        for id in self.conns.ids() {
            let listener = self.conns.get(id).map_or(0, |c| usize::from(c.listener));
            if self.listeners[listener].options.profile().refuses_after.is_none() {
                self.finish_input(id, End::Broken(Reason::DiskFailed));
                self.close(id, Some(Refused::DiskFailed));
            }
        }
    }
}
