//! Owns what lies between the sockets and the chunks of a reactor: partial lines, the connections that wait for room and the
//! one that ends to give it, and the scratch buffer. (Leased memory belongs to all reactors; [`Relief`] looks after this
//! reactor's part of it.)

use super::conns::Conn;
use super::relief::Relief;
use crate::intake::net::Datagram;
use crate::pipeline::chunk::{Chunk, ConnId};
use crate::session::memory::room::Room;
use crate::session::memory::tail::TailStore;
use std::sync::Arc;

/// See the module documentation.
pub struct Between {
    /// Partial lines and heads.
    pub tails: TailStore,
    /// Who waits for room, and what is done for them.
    pub relief: Relief,
    /// The scratch buffer. It is away only during the turn of one connection. `None` also if no listener needs it.
    pub scratch: Option<Box<Chunk>>,
    /// The list of datagrams in the scratch buffer, kept here so that its memory is reused.
    pub batch: Vec<Datagram>,
}

impl Between {
    /// With these stores.
    #[must_use]
    pub fn new(tails: TailStore, scratch: Option<Box<Chunk>>, room: Arc<Room>) -> Between {
        Between { tails, relief: Relief::new(room), scratch, batch: Vec::new() }
    }

    /// True for the one connection that may go on though the room for partial lines is spent.
    #[must_use]
    pub fn is_lane(&self, id: ConnId) -> bool {
        self.relief.lane == Some(id)
    }

    /// Bytes that a connection may receive now without leaving more behind than there is room for. 0: it waits.
    #[must_use]
    pub fn allowance(&self, id: ConnId, conn: &Conn) -> usize {
        self.tails.allowance(&conn.tail, self.is_lane(id))
    }
}
