//! Takes a reload of the configuration over into a running reactor: listeners are added, changed and removed.
//!
//! The control thread decides what can change and binds what is new. A reactor only takes the change over, between two turns.

use super::parts::changes::Change;
use super::parts::dawdle::Dawdler;
use super::parts::listeners::ListenerRun;
use super::state::Reactor;
use crate::host::peer::ListenerId;
use crate::intake::net::{Engine, Event};
use std::sync::Arc;

impl<E: Engine> Reactor<E> {
    /// Answers a ping, after taking over the changes that came before it. The watchdog and reloads wait for that.
    pub(super) fn answer_ping(&mut self, events: &mut Vec<Event>) {
        let ping = self.seat.control.pings(); // changes that came before it are in the queue
        self.take_changes(events);
        if ping != self.port().answered.get() && self.commit.is_some() {
            // Whoever asks for a rotation then finds in the segment what was answered.
            (0..self.lanes.all.len()).for_each(|lane| self.push_open(lane));
        }
        self.port().answered.set(ping);
    }

    pub(super) fn take_changes(&mut self, events: &mut Vec<Event>) {
        while let Some(change) = self.seat.changes.pop() {
            self.change(change, events);
        }
    }

    fn change(&mut self, change: Change, events: &mut Vec<Event>) {
        for id in change.stopped {
            self.engine.stop_listening(id, events);
            self.timers.forget_listener(id);
            self.leave_datagrams(id);
        }
        self.lanes.linger_ns = change.linger.as_nanos() as u64;
        self.handshakes.set_rate(change.handshakes_per_second, self.now);
        for (id, run) in change.listeners {
            self.change_listener(id, run);
        }
        self.dawdler = Dawdler::new(&self.listeners, change.linger);
        for (id, socket) in change.sockets {
            if self.phase.draining {
                continue; // the end has begun: nothing new is accepted
            }
            if let Err(error) = self.engine.listen(id, socket) {
                let name = &self.listeners[usize::from(id)].options.name;
                tracing::error!(listener = name, %error, "a reactor cannot watch the new socket; the others accept for it");
            }
        }
    }

    /// Reads what waits in a datagram socket that a listener gives up, and closes it. Another listener may have it by now.
    fn leave_datagrams(&mut self, listener: ListenerId) {
        for id in self.conns.ids() {
            if self.conns.get(id).is_some_and(|conn| conn.listener == listener) {
                self.leave(id);
                self.pending(id);
            }
        }
    }

    fn change_listener(&mut self, id: ListenerId, run: ListenerRun) {
        let place = usize::from(id);
        let lane = self.lanes.for_listener(&run.options);
        let (protocol, is_gone) = (Arc::clone(&run.options.protocol), run.is_gone);
        if place < self.listeners.len() {
            (self.listeners[place], self.lanes.of[place]) = (run, lane);
        } else {
            self.listeners.push(run);
            self.lanes.of.push(lane);
            self.queue.ready.grow(1);
        }
        let conns = &mut self.conns;
        self.timers.idle.retain(|conn| conns.get(conn).is_some_and(|c| c.listener != id));
        for conn in self.conns.ids() {
            let Some(of) = self.conns.get(conn).filter(|c| c.listener == id) else { continue };
            of.session.renew(&protocol);
            if of.shut || of.ended {
                self.timers.idle.push(self.now, conn); // what is left of it has its own deadline
            } else {
                self.start_timers(conn);
            }
            if is_gone {
                self.end_soon(conn);
            }
        }
    }

    /// True if a connection ends as soon as nothing of it waits: at the end of the server, or of its listener.
    pub(super) fn is_ending(&self, listener: ListenerId) -> bool {
        (self.phase.draining && !self.is_apart(listener)) || self.listeners[usize::from(listener)].is_gone
    }
}
