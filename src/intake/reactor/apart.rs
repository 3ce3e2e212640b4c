//! Serves the connections of the admin address. They bring no records, so they need no chunk. They count for no limit but their
//! own, and they are served until the reactor ends, so that a probe gets an answer whatever other clients do.

use super::parts::apart::{MOST_APART, worth};
use super::parts::conns::Conn;
use super::state::Reactor;
use crate::host::peer::{ListenerId, Peer};
use crate::intake::net::{Engine, LeaseMark, Socket};
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::{ANY_PARTS, Around, Input, Owner, Sink, Window};

impl<E: Engine> Reactor<E> {
    /// True for a listener that makes no records.
    pub(super) fn is_apart(&self, listener: ListenerId) -> bool {
        !self.listeners[usize::from(listener)].options.profile().makes_records
    }

    /// Takes a connection in. If all places are taken, one connection makes room.
    pub(super) fn admit_apart(&mut self, listener: ListenerId, socket: Socket, peer: Peer) {
        if self.apart.len() >= MOST_APART {
            let conns = &mut self.conns;
            let least = |id: &&ConnId| conns.get(**id).map_or(0, |conn| worth(conn));
            if let Some(id) = self.apart.conns.iter().min_by_key(least).copied() {
                self.close(id, None);
            }
        }
        if peer.ip().is_some() {
            let _ = socket.fd.set_tcp_nodelay(true); // answers are small and awaited
        }
        let (kind, owner) = (socket.kind, Owner { listener, client: None });
        let session = self.listeners[usize::from(listener)].options.protocol.session(&peer, owner);
        let stage = self.stage_for(listener);
        let Ok(id) = self.engine.open(socket) else { return self.refuse(listener, &peer, Refused::Descriptors) };
        let mut conn = Conn::new(kind, peer, owner, session, stage);
        conn.times.last_input = self.now;
        self.conns.insert(id, conn);
        self.apart.conns.push(id);
        self.start_timers(id);
    }

    /// Lets connections that wait for news look whether they have something to send.
    pub(super) fn tell_news(&mut self) {
        for id in self.apart.heard_by() {
            if let Some(conn) = self.conns.get(*id) {
                self.answers.mark(conn, *id);
            }
        }
    }

    /// Gives a session what landed in the scratch buffer. There is no chunk, because it makes no records.
    pub(super) fn enter_apart(&mut self, id: ConnId, mut scratch: Box<Chunk>, start: usize, len: usize, most: usize) {
        if let Some(conn) = self.conns.get(id) {
            let around =
                Around { wall_ns: self.wall, now_ns: self.now, not_ready: self.phase.not_ready, ..Around::default() };
            let mut window =
                Window::new(Sink::new(&mut [], ANY_PARTS), self.between.tails.tail(&mut conn.tail), around);
            let space = &mut scratch.free()[..start + most.max(len)];
            let _ = conn.session.input(Input::Scratch { space, start, len }, &mut window); // how it stands says the rest
        }
        self.put_back(scratch, LeaseMark::Scratch);
    }
}
