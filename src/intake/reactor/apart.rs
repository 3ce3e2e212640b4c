//! Connections of which no records come: those of the admin address. They need no chunk, count for no limit but their own, and are
//! served until the reactor ends: a probe is answered whatever the senders do.

use super::Reactor;
use super::conns::Conn;
use crate::host::peer::{ListenerId, Peer};
use crate::intake::net::{Engine, LeaseMark, Socket};
use crate::metrics::stats::Refused;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::profile::News;
use crate::session::{Around, Input, Owner, Window};

/// Connections at once. Beyond them one makes room: the oldest that has asked nothing yet, else that has not read its answer.
pub const MOST_APART: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub struct Apart {
    /// The oldest first.
    conns: Vec<ConnId>,
    /// What their sessions hear by, and how far they have.
    news: Option<(News, u64)>,
}

impl Apart {
    /// Those of a listener may hear news.
    pub fn listen(&mut self, news: &News) {
        self.news = Some((news.clone(), news.get()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// True where there is news that they have not heard.
    pub fn has_news(&self) -> bool {
        self.news.as_ref().is_some_and(|(news, heard)| news.get() != *heard)
    }

    /// Who is to hear the news, if there is any.
    fn to_hear(&mut self) -> &[ConnId] {
        match &mut self.news {
            Some((news, heard)) if news.get() != *heard => {
                *heard = news.get();
                &self.conns
            }
            _ => &[],
        }
    }

    /// Whether a connection is one of them.
    pub fn has(&self, id: ConnId) -> bool {
        self.conns.contains(&id)
    }

    /// One is gone.
    pub fn forget(&mut self, id: ConnId) {
        self.conns.retain(|other| *other != id);
    }
}

/// How soon a connection makes room for another: the least first.
fn worth(conn: &Conn) -> u8 {
    match (conn.state().owes, conn.sending) {
        (false, false) => 0,
        (_, true) => 1,
        (true, false) => 2,
    }
}

impl<E: Engine> Reactor<E> {
    /// True for a listener of which no records come.
    pub(super) fn is_apart(&self, listener: ListenerId) -> bool {
        !self.listeners[usize::from(listener)].options.profile().makes_records
    }

    /// Takes a connection in. There is always a place.
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
        let Ok(id) = self.engine.open(socket) else { return self.refuse(listener, Refused::Descriptors) };
        let mut conn = Conn::new(kind, peer, owner, session, stage);
        conn.times.last_input = self.now;
        self.conns.insert(id, conn);
        self.apart.conns.push(id);
        self.start_timers(id);
    }

    /// Lets those who wait for news look whether they have something to say.
    pub(super) fn tell_news(&mut self) {
        for id in self.apart.to_hear() {
            if let Some(conn) = self.conns.get(*id) {
                self.answers.mark(conn, *id);
            }
        }
    }

    /// Lets a session have what landed in the scratch buffer; there is no chunk, since no records come of it.
    pub(super) fn enter_apart(&mut self, id: ConnId, mut scratch: Box<Chunk>, start: usize, len: usize, most: usize) {
        if let Some(conn) = self.conns.get(id) {
            let around =
                Around { wall_ns: self.wall, now_ns: self.now, not_ready: self.phase.not_ready, ..Around::default() };
            let mut window = Window::new(&mut [], self.between.tails.tail(&mut conn.tail), around);
            let space = &mut scratch.free()[..start + most.max(len)];
            let _ = conn.session.input(Input::Scratch { space, start, len }, &mut window); // how it stands says the rest
        }
        self.put_back(scratch, LeaseMark::Scratch);
    }
}
