//! Moves connections from a saturated reactor to another one of its shard that has less to do.
//!
//! Each reactor measures itself over short windows of time: how long it did not wait, and how many bytes it received. A
//! saturated reactor looks for a connection whose share fits the difference to the least loaded other reactor. It gives that
//! connection away once nothing is owed to it and the open chunk of its lane was pushed. The ring keeps the order of pushes, so
//! the lines of the connection keep theirs.

use super::parts::conns::Conn;
use super::parts::meter::{MOST_MOVED, SATURATED, SETTLE, STAY, Step, WINDOW_NS, fitting};
use super::state::Reactor;
use crate::host::mutants::mutant;
use crate::host::peer::{Client, ListenerId, Peer};
use crate::intake::net::{Engine, Kind};
use crate::intake::spread::{Handed, Moved};
use crate::metrics::accounting::{Reason, Tally, Term};
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::ConnId;
use crate::pipeline::shard::ReactorPort;
use crate::session::Owner;
use crate::session::Turn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl<E: Engine> Reactor<E> {
    /// Ends a window of time, publishes it, and chooses a connection to give away if that would help.
    pub(super) fn measure(&mut self) {
        if self.seat.shard.reactors.len() < 2 {
            return;
        }
        let elapsed = self.now.saturating_sub(self.meter.since_ns);
        if elapsed < WINDOW_NS {
            return;
        }
        let mine = self.meter.bytes.saturating_mul(WINDOW_NS) / elapsed;
        let busy = elapsed.saturating_sub(self.meter.waited_ns) * 100 / elapsed;
        let load = &self.port().load;
        load.bytes.set(mine);
        load.until_ns.set(self.now);
        (self.meter.since_ns, self.meter.waited_ns, self.meter.bytes) = (self.now, 0, 0);
        self.meter.window += 1;
        if let Some((id, to)) = self.meter.moving
            && self.meter.window >= self.meter.settled
        {
            self.stay(id, to); // something of it does not come to an end: its input must not wait for that
        }
        // A window much longer than it should be was spent on something else.
        if busy >= SATURATED
            && elapsed < 4 * WINDOW_NS
            && !self.phase.draining
            && self.meter.window >= self.meter.settled
        {
            self.choose_move(mine);
        }
    }

    fn choose_move(&mut self, mine: u64) {
        if self.meter.moving.is_some() {
            return;
        }
        let shard = Arc::clone(&self.seat.shard);
        let others = shard.reactors.iter().enumerate().filter(|(i, _)| *i != self.seat.index);
        let load = |port: &ReactorPort| {
            // Who sleeps does not publish.
            let is_old = self.now.saturating_sub(port.load.until_ns.get()) > 2 * WINDOW_NS;
            if is_old { 0 } else { port.load.bytes.get() }
        };
        let Some((to, port)) = others.min_by_key(|(_, port)| load(port)) else { return };
        let (theirs, window) = (load(port), self.meter.window);
        let listeners = &self.listeners;
        let may_move = |c: &Conn| {
            let options = &listeners[usize::from(c.listener)].options;
            c.kind == Kind::Stream
                && !c.sending
                && !c.ended
                && !c.ending
                && c.share.stays_until <= window
                && options.has_connections()
                && options.profile().may_move
        };
        let shares = self.conns.iter().filter(|(_, c)| may_move(c)).map(|(id, c)| (id, c.share.of_last(window)));
        let Some(id) = fitting(mine, theirs, shares) else { return };
        if !port.load.guest.swap(true, Ordering::AcqRel) {
            self.meter.moving = Some((id, to));
            self.meter.settled = window + SETTLE;
            self.try_move();
        }
    }

    /// The chosen connection has its turn. Returns false if it must not be served, because it has moved or is about to.
    pub(super) fn goes_on(&mut self, id: ConnId) -> bool {
        if let Some(conn) = self.conns.get(id) {
            conn.queued = false;
        }
        if self.try_move() == Step::Wait {
            return false;
        }
        // Where it stays after all, it has its place in the queue already.
        self.conns.get(id).is_some_and(|conn| !std::mem::replace(&mut conn.queued, true))
    }

    /// Gives the chosen connection away if nothing is owed to it and it is between two receives. Called again when that may
    /// have changed.
    fn try_move(&mut self) -> Step {
        let Some((id, to)) = self.meter.moving else { return Step::Serve };
        let is_lane = self.between.is_lane(id);
        let Some(listener) = self.conns.get(id).map(|c| c.listener) else { return self.stay(id, to) };
        let (lane, is_ending) = (self.lanes.of[usize::from(listener)], self.is_ending(listener));
        let Some(conn) = self.conns.get(id) else { return self.stay(id, to) };
        if conn.ended || conn.ending || is_ending || is_lane {
            return self.stay(id, to);
        }
        if conn.queued || conn.unacked > 0 || conn.sending || conn.dirty || self.lanes.all[lane].is_out {
            return Step::Wait; // its turn, the writer or the socket calls again
        }
        let opens = conn.stage.is_opening();
        if conn.tail.len() > MOST_MOVED
            || opens
            || conn.stage.pending()
            || conn.state().turn != Turn::Receive
            || conn.shut
        {
            return self.stay(id, to);
        }
        // Not yet: the engine has something of it still, which is to be received here.
        let Some(socket) = self.engine.detach(id) else { return Step::Serve };
        let Some(mut conn) = self.conns.remove(id) else { return Step::Wait };
        if !mutant!("moved_without_its_chunk") {
            self.push_open(lane);
        }
        let mut tail = vec![0; conn.tail.len()];
        let mut held = self.between.tails.tail(&mut conn.tail);
        held.copy_to(&mut tail);
        held.clear();
        drop(held);
        let moved = Moved {
            stage: conn.stage,
            session: conn.session,
            tail,
            last_input_ns: conn.times.last_input,
            line_since_ns: conn.times.line_since,
            retires_ns: conn.times.retires,
            client: conn.client,
        };
        self.stats().open.add(u64::MAX); // one less
        self.meter.moving = None;
        let handed = Handed { listener: conn.listener, socket, peer: conn.peer, moved: Some(Box::new(moved)) };
        match self.seat.spread.shift(self.seat.number, self.seat.number - self.seat.index + to, handed) {
            Ok(()) => self.stats().moved.add(1),
            Err(handed) => {
                self.seat.shard.reactors[to].load.guest.store(false, Ordering::Release);
                self.arrive(handed, false);
            }
        }
        Step::Wait
    }

    /// The chosen connection does not move after all.
    fn stay(&mut self, id: ConnId, to: usize) -> Step {
        self.meter.moving = None;
        self.seat.shard.reactors[to].load.guest.store(false, Ordering::Release);
        let window = self.meter.window;
        if let Some(conn) = self.conns.get(id) {
            conn.share.stays_until = window + STAY;
        }
        self.engine.retain(id);
        self.pending(id); // it may have been passed over while it waited to go
        Step::Serve
    }

    /// After a receive, acknowledgements or a send: the chosen connection may go now.
    pub(super) fn nudge(&mut self, id: ConnId) {
        if self.meter.is_moving(id) {
            self.try_move();
        }
    }

    /// Forgets the move, if it is of this connection, or in any case (`None`).
    pub(super) fn call_off(&mut self, closed: Option<ConnId>) {
        if let Some((id, to)) = self.meter.moving
            && closed.is_none_or(|closed| closed == id)
        {
            self.stay(id, to);
        }
    }

    /// Goes on with a connection that another reactor has given away.
    pub(super) fn arrive(&mut self, handed: Handed, as_guest: bool) {
        let Some(moved) = handed.moved else { return };
        if as_guest {
            self.port().load.guest.store(false, Ordering::Release);
        }
        let kind = handed.socket.kind;
        let Ok(id) = self.engine.open(handed.socket) else {
            let lost = moved.tail.len() as u64;
            return self.lose(handed.listener, &handed.peer, moved.client, lost);
        };
        let owner = Owner { listener: handed.listener, client: moved.client };
        let mut conn = Conn::new(kind, handed.peer, owner, moved.session, moved.stage);
        self.between.tails.tail(&mut conn.tail).append(&moved.tail);
        conn.session.renew(&self.listeners[usize::from(handed.listener)].options.protocol); // it may have changed on the way
        (conn.times.last_input, conn.times.line_since) = (moved.last_input_ns, moved.line_since_ns);
        conn.times.retires = moved.retires_ns;
        conn.mark = conn.state().mark;
        conn.share.stays_until = self.meter.window + STAY;
        self.conns.insert(id, conn);
        self.stats().open.add(1);
        self.start_timers(id);
        if self.is_ending(handed.listener) {
            self.pending(id);
        }
        self.phase.stopped = false; // looked at again, should the disk have failed meanwhile
    }

    /// A connection cannot be watched here: it is closed, and what it had begun is lost with it.
    fn lose(&mut self, listener: ListenerId, peer: &Peer, client: Option<Client>, bytes: u64) {
        if bytes > 0 {
            let tally = Tally { lines: 1, bytes };
            let mut entry = self.books.upstream.entry();
            entry.add(listener, Term::Received, tally);
            entry.add(listener, Term::Dropped(Reason::Reset), tally);
        }
        self.forget(listener, client);
        self.refuse(listener, peer, Refused::Descriptors);
    }
}
