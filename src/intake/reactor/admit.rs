//! Takes connections in and lets them go, within the limits.

use super::parts::conns::Conn;
use super::state::Reactor;
use crate::host::address::Address;
use crate::host::mutants::mutant;
use crate::host::peer::{Client, ListenerId, Peer};
use crate::intake::net::{Engine, Place, Socket};
use crate::intake::spread::Handed;
use crate::intake::transport::proxy::Proxy;
use crate::intake::transport::{Identity, Stage};
use crate::metrics::accounting::Reason;
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::ConnId;
use crate::pipeline::control::Notice;
use crate::session::Owner;

impl<E: Engine> Reactor<E> {
    /// A new connection: serves it here, or hands it to the reactor that has the fewest.
    pub(super) fn place(&mut self, listener: ListenerId, socket: Socket, peer: Peer) {
        if self.is_apart(listener) {
            return self.admit_apart(listener, socket, peer);
        }
        if self.phase.draining {
            self.seat.spread.keep(self.seat.number); // the others may have ended
            return self.admit(listener, socket, peer);
        }
        let handed = Handed { listener, socket, peer, moved: None };
        if let Ok(Some(kept)) = self.seat.spread.hand(Some(self.seat.number), handed) {
            self.admit(kept.listener, kept.socket, kept.peer);
        }
    }

    /// Takes a connection in, or closes it at once if a limit says so, because that is clearer for the client than a connection that hangs.
    pub(super) fn admit(&mut self, listener: ListenerId, socket: Socket, peer: Peer) {
        if self.seat.control.intake_stopped()
            && self.listeners[usize::from(listener)].options.profile().refuses_after.is_none()
        {
            self.seat.spread.leave(self.seat.number);
            return self.refuse(listener, &peer, Refused::DiskFailed);
        }
        if !self.connections.enter() {
            self.seat.spread.leave(self.seat.number);
            return self.refuse(listener, &peer, Refused::MaxConnections);
        }
        let run = &self.listeners[usize::from(listener)];
        // Behind a proxy the client's address counts, once it is known, and never the proxy's.
        let counted = if run.options.proxy { None } else { run.addresses.client(&peer) };
        if counted.is_some_and(|client| !run.addresses.enter(client)) {
            self.connections.leave();
            self.seat.spread.leave(self.seat.number);
            return self.refuse(listener, &peer, Refused::PerAddress);
        }
        if (run.options.profile().answers || run.tls.is_some()) && peer.ip().is_some() {
            let _ = socket.fd.set_tcp_nodelay(true); // answers are small and awaited; without it they only come later
        }
        let (kind, drops, member) = (socket.kind, socket.counted.clone(), socket.member.clone());
        let owner = Owner { listener, client: counted };
        let session = run.options.protocol.session(&peer, owner);
        let stage = self.stage_for(listener);
        let Ok(id) = self.engine.open(socket) else {
            self.forget(listener, counted);
            return self.refuse(listener, &peer, Refused::Descriptors);
        };
        let mut conn = Conn::new(kind, peer, owner, session, stage);
        conn.times.last_input = self.now;
        conn.times.retires = self.retirement(listener, id);
        if mutant!("lost_before_the_first_look_forgotten")
            && let (Some(queue), Some(drops)) = (self.engine.queue(id), &drops)
        {
            let _ = drops.count(queue.dropped);
        }
        conn.counted = drops;
        conn.place = member.map(|member| Box::new(Place::new(member, self.seat.shard.index, self.now)));
        if conn.stage.is_opening() {
            conn.times.line_since = self.now; // a handshake that never ends has its deadline too
        }
        self.conns.insert(id, conn);
        self.start_timers(id);
        self.stats().open.add(1);
        self.stats().accepted.add(1);
        if self.is_ending(listener) {
            self.pending(id); // was in the accept queue when the end began: take what it sent
        }
    }

    /// What lies between its socket and its session.
    pub(super) fn stage_for(&self, listener: ListenerId) -> Box<dyn Stage> {
        let run = &self.listeners[usize::from(listener)];
        let inner = match &run.tls {
            Some(tls) => tls.stage(),
            None => Box::new(Identity),
        };
        if run.options.proxy { Box::new(Proxy::new(inner)) } else { inner }
    }

    /// When a connection that begins now is too old; 0: never. It is up to a tenth earlier, so that connections that began
    /// together do not end together.
    fn retirement(&self, listener: ListenerId, id: ConnId) -> u64 {
        let age = self.listeners[usize::from(listener)].options.profile().max_connection_age.as_nanos() as u64;
        if age == 0 {
            return 0;
        }
        let seed = (u64::from(id.index) << 32 | u64::from(id.generation)) ^ self.now;
        let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54; // 0 to 1023, by Fibonacci hashing
        self.now + age - (age / 10).saturating_mul(spread) / 1024
    }

    /// The timers of a connection that is new here.
    pub(super) fn start_timers(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let options = &self.listeners[usize::from(conn.listener)].options;
        let idle = options.idle_timeout.as_nanos() as u64;
        // Standard input and datagram sockets are no connections of anybody: they do not go idle.
        if idle > 0 && options.has_connections() {
            self.timers.idle.push(conn.times.last_input + idle, id);
        }
        if conn.times.line_since > 0 {
            self.start_line_timer(id);
        }
    }

    /// Removes a connection from the counts that all reactors share.
    pub(super) fn forget(&mut self, listener: ListenerId, client: Option<Client>) {
        self.connections.leave();
        self.seat.spread.leave(self.seat.number);
        if let Some(client) = client {
            self.listeners[usize::from(listener)].addresses.leave(client);
        }
    }

    pub(super) fn refuse(&mut self, listener: ListenerId, peer: &Peer, why: Refused) {
        self.stats().refused[why as usize].add(1);
        self.told.refused(self.now, (listener, &self.listeners[usize::from(listener)].options.name), peer, why);
    }

    /// Closes a connection; what it had begun must have been finished before.
    pub(super) fn close(&mut self, id: ConnId, why: Option<Refused>) {
        self.call_off(Some(id));
        if let Some(rest) = self.lanes.take_rest_of(id) {
            self.drop_rest(&rest, Reason::Reset);
        }
        let Some(mut conn) = self.conns.remove(id) else { return };
        self.between.tails.tail(&mut conn.tail).clear();
        self.between.relief.forget(id, &conn);
        if conn.in_line {
            self.handshakes.leave(id, conn.client);
        }
        if !conn.sending {
            let mut goodbye = Vec::new();
            conn.stage.close(&mut goodbye);
            if !goodbye.is_empty() {
                let _ = self.engine.send(id, goodbye); // closed in a moment, whether or not it was sent
            }
        }
        if let Some(why) = why {
            self.stats().refused[why as usize].add(1);
            let name = &self.listeners[usize::from(conn.listener)].options.name;
            self.told.closed(self.now, (conn.listener, name), &conn.peer, why);
        }
        let conns = &mut self.conns;
        for deadlines in [&mut self.timers.idle, &mut self.timers.line, &mut self.timers.answers] {
            deadlines.compact(conns.len(), |id| conns.get(id).is_some());
        }
        self.engine.close(id);
        if self.is_apart(conn.listener) {
            return self.apart.forget(id);
        }
        self.forget(conn.listener, conn.client);
        self.stats().open.add(u64::MAX); // one less; last, so that who sees it finds the place free
        let run = &self.listeners[usize::from(conn.listener)];
        if run.options.address == Address::Stdin {
            // Sending fails only when the server is ending anyway.
            let _ = self.seat.notices.send(Notice::StdinEnded);
        }
    }
}
