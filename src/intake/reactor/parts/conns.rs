//! The table of a reactor's connections, by the ids that its engine gives.

use super::meter::Share;
use crate::host::peer::{Client, ListenerId, Peer};
use crate::intake::listener::ListenerOptions;
use crate::intake::net::{Counted, Kind, Place};
use crate::intake::transport::Stage;
use crate::intake::transport::proxy::V2_MAX;
use crate::intake::transport::tls::BYTES_PER_TLS_CONNECTION;
use crate::pipeline::chunk::ConnId;
use crate::session::memory::tail::{self, TailHandle};
use crate::session::{Owner, Session, State, Waiting};

/// Times of one connection, in monotonic nanoseconds; 0: there is none.
#[derive(Debug, Default, Clone, Copy)]
pub struct Times {
    /// Until when it may read its last answers; 0: they are not all given yet.
    pub lingers_until: u64,
    /// When its entry among the line timers is due; 0: it has none.
    pub line_timer: u64,
    /// When it becomes too old; 0: never.
    pub retires: u64,
    /// Of the last input.
    pub last_input: u64,
    /// Of the first byte of what is begun and not ended.
    pub line_since: u64,
    /// Since when it holds room that others could have.
    pub holds_since: u64,
    /// When an answer was last given or the first of those that are owed now began to be.
    pub owed_since: u64,
    /// When its entry among the timers of answers is due; 0: it has none.
    pub answer_timer: u64,
}

/// One connection.
pub struct Conn {
    /// The datagrams of its socket that are read yet, at most; it ends behind them, or as soon as nothing waits. `None`: it stays.
    pub leaving: Option<usize>,
    /// Where it came in.
    pub listener: ListenerId,
    /// Stream or datagrams.
    pub kind: Kind,
    /// The other end.
    pub peer: Peer,
    /// The client for which limits count it. `None`: no client.
    pub client: Option<Client>,
    /// Between the socket and the session.
    pub stage: Box<dyn Stage>,
    /// The protocol.
    pub session: Box<dyn Session>,
    /// The line that is begun and not ended.
    pub tail: TailHandle,
    /// It is in the ready queue, among the starved, or out for a receive.
    pub queued: bool,
    /// Its input is over; only answers are awaited.
    pub ended: bool,
    /// Its input ended cleanly, and the last line waits for a chunk.
    pub ending: bool,
    /// It is in the list of those with something to say.
    pub dirty: bool,
    /// A send is out.
    pub sending: bool,
    /// It waits for room for its partial line.
    pub is_starved: bool,
    /// Its TLS handshake waits for its turn.
    pub in_line: bool,
    /// Everything was sent, and our side is shut down. Further input is read and ignored.
    pub shut: bool,
    /// What the session's mark was.
    pub mark: u32,
    /// Records in chunks that have not come back.
    pub unacked: u64,
    /// Those of them that went the direct way, past the commit log.
    pub direct: u64,
    /// Which of the datagrams that the kernel drops from its queue are counted.
    pub counted: Option<Counted>,
    /// Its place among sockets between which busy senders are evened out.
    pub place: Option<Box<Place>>,
    /// It has an entry among the timers for that.
    pub looks_for_drops: bool,
    /// Its times.
    pub times: Times,
    /// What it received lately.
    pub share: Share,
}

impl Conn {
    /// A connection that has received nothing here yet.
    pub fn new(kind: Kind, peer: Peer, owner: Owner, session: Box<dyn Session>, stage: Box<dyn Stage>) -> Conn {
        Conn {
            leaving: None,
            listener: owner.listener,
            kind,
            peer,
            client: owner.client,
            stage,
            session,
            tail: TailHandle::of(owner),
            queued: false,
            ended: false,
            ending: false,
            dirty: false,
            sending: false,
            is_starved: false,
            in_line: false,
            shut: false,
            mark: 0,
            unacked: 0,
            direct: 0,
            counted: None,
            place: None,
            looks_for_drops: false,
            times: Times::default(),
            share: Share::default(),
        }
    }

    /// So many records in chunks have come back, or reached a level that somebody waited for.
    pub fn came_back(&mut self, records: u64, now: u64) {
        self.unacked -= records;
        self.times.owed_since = if self.unacked == 0 { 0 } else { now };
    }

    /// Its session has said what it had to say: where it owes nothing any more, the time for answers begins with the next record, though
    /// what was answered as written may not be durable yet.
    pub fn was_answered(&mut self) {
        if self.times.answer_timer != 0 && !self.state().owes {
            self.times.owed_since = 0;
        }
    }

    /// How its session stands.
    pub fn state(&self) -> State {
        self.session.state(self.tail.len())
    }

    /// What it owes.
    pub fn waiting(&self) -> Waiting {
        match self.state().waiting {
            _ if self.stage.is_opening() => Waiting::Head,
            Waiting::Nothing if self.stage.held() > 0 && !self.ended => Waiting::Line, // a record of TLS that is begun
            waiting => waiting,
        }
    }
}

/// Memory of a connection's state, for the printed sum: this table, the engine's, the session, two timers, its own blocks. Measured: see
/// docs/performance.md.
const BYTES_PER_CONNECTION: usize = size_of::<Option<(u32, Conn)>>() + 64 + 112 + 64 + tail::BYTES_PER_CONNECTION;

/// The most memory of a connection to any of these listeners, besides what is leased.
#[must_use]
pub fn bytes_per_connection(listeners: &[ListenerOptions]) -> usize {
    let of = |l: &ListenerOptions| {
        let tls = if l.tls.is_some() { BYTES_PER_TLS_CONNECTION } else { 0 };
        let proxy = if l.proxy { V2_MAX } else { 0 };
        BYTES_PER_CONNECTION + l.profile().bytes_per_connection + tls + proxy
    };
    listeners.iter().map(of).max().unwrap_or(BYTES_PER_CONNECTION)
}

/// The table.
pub struct Conns {
    places: Vec<Option<(u32, Conn)>>,
    count: usize,
}

impl Conns {
    /// Room for `most`; the pages are touched as connections come.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Conns { places: Vec::with_capacity(most), count: 0 }
    }

    /// Puts a connection in its place.
    pub fn insert(&mut self, id: ConnId, conn: Conn) {
        let index = id.index as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        if self.places[index].replace((id.generation, conn)).is_none() {
            self.count += 1;
        }
    }

    /// The connection, unless it is gone.
    pub fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        match self.places.get_mut(id.index as usize) {
            Some(Some((generation, conn))) if *generation == id.generation => Some(conn),
            _ => None,
        }
    }

    /// Takes it out.
    pub fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.get(id)?;
        self.count -= 1;
        self.places[id.index as usize].take().map(|(_, conn)| conn)
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.places.iter().enumerate().filter_map(|(i, place)| {
            let (generation, conn) = place.as_ref()?;
            Some((ConnId { index: i as u32, generation: *generation }, conn))
        })
    }

    /// The ids of all that are there.
    #[must_use]
    pub fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|(id, _)| id).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }
}
