//! Room for unfinished lines and requests: which connections wait for it, which may go on all the same, and which one ends so
//! that the others can. This is the state.

use super::conns::Conn;
use crate::host::peer::ListenerId;
use crate::pipeline::chunk::ConnId;
use crate::session::memory::room::Room;
use std::collections::VecDeque;
use std::sync::Arc;

/// Time between two connections that are ended for others, in nanoseconds, so that the room of the first is handed out first.
pub const PAUSE_NS: u64 = 50_000_000;

/// One that waits for room.
pub struct Starved {
    pub id: ConnId,
    pub listener: ListenerId,
    pub since_ns: u64,
}

/// Those that wait for room for partial lines, and what is done for them.
pub struct Relief {
    /// Oldest first.
    pub starved: VecDeque<Starved>,
    /// The one that may go on when that room is spent.
    pub lane: Option<ConnId>,
    /// Blocks that it had when it was given the lane.
    pub lane_found: usize,
    /// What had been given back when they were last looked at.
    pub fed: u64,
    /// When a connection was last ended for them.
    pub relieved_ns: u64,
    /// Memory for decoding.
    pub decoding: Arc<Room>,
    /// Leases of it that had been called in when the connections were last looked at.
    pub called_in: u64,
}

impl Relief {
    /// A state in which no connection waits.
    pub fn new(decoding: Arc<Room>) -> Relief {
        let called_in = decoding.called_in();
        Relief { starved: VecDeque::new(), lane: None, lane_found: 0, fed: 0, relieved_ns: 0, decoding, called_in }
    }

    /// A connection waits for room.
    pub fn wait(&mut self, id: ConnId, conn: &mut Conn, now: u64) {
        conn.is_starved = true;
        self.starved.push_back(Starved { id, listener: conn.listener, since_ns: now });
    }

    /// A connection is gone.
    pub fn forget(&mut self, id: ConnId, conn: &Conn) {
        if conn.is_starved {
            self.starved.retain(|other| other.id != id);
        }
        self.leave_lane(id);
    }

    /// Takes the lane away from a connection, if it has it.
    pub fn leave_lane(&mut self, id: ConnId) {
        if self.lane == Some(id) {
            self.lane = None;
        }
    }

    /// The lane must leave no more behind than it found, or the store would fill up beyond its reserve.
    pub fn settle_lane(&mut self, id: ConnId, conn: &Conn) {
        if self.lane == Some(id) && conn.tail.charged() <= self.lane_found {
            self.lane = None;
        }
    }

    /// True if the connections must look whether their leases were called in.
    pub fn is_called(&self) -> bool {
        self.decoding.called_in() != self.called_in
    }
}
