//! The open chunks of a reactor, and the connections that wait for one. There is one open chunk per class and acknowledgement
//! level, so that no line is held for a sync that its client does not wait for.

use crate::intake::listener::ListenerOptions;
use crate::intake::net::Datagram;
use crate::pipeline::chunk::ConnId;
use crate::pipeline::chunk::{Chunk, Class, Level};

/// One open chunk, or the wait for one.
pub struct Lane {
    /// The class of its chunks.
    pub class: Class,
    /// The level of its chunks.
    pub level: Level,
    /// The chunk being filled.
    pub open: Option<Box<Chunk>>,
    /// That chunk is out for a receive.
    pub is_out: bool,
    /// When its first record came.
    pub opened_ns: u64,
    /// No chunk is free, so connections of this lane wait.
    pub blocked: bool,
    pub blocked_since_ns: u64,
    /// When that was last over.
    pub unblocked_ns: u64,
    /// Number of its open chunk: what was written is told by it.
    pub number: u64,
    /// Input of a connection for which no chunk was free. It goes first, before other connections of the lane are served.
    pub rest: Option<Rest>,
    /// What clients wait for in the open chunk is offered to the commit log again when one of its writes is over.
    pub waits_for_log: bool,
}

/// Input that no chunk was free for.
pub struct Rest {
    /// Whose it is.
    pub conn: ConnId,
    /// The bytes, as they were received.
    pub bytes: Vec<u8>,
    /// The datagrams that they are; none: they are of a stream.
    pub datagrams: Vec<Datagram>,
}

impl Rest {
    /// Of these datagrams, which lie in `space`.
    pub fn of_datagrams(conn: ConnId, space: &[u8], batch: &[Datagram]) -> Rest {
        let (mut bytes, mut datagrams) = (Vec::new(), Vec::new());
        for datagram in batch {
            let start = bytes.len();
            bytes.extend_from_slice(&space[datagram.start..datagram.start + datagram.len]);
            datagrams.push(Datagram { start, ..*datagram });
        }
        Rest { conn, bytes, datagrams }
    }
}

/// The lanes of a reactor.
pub struct Lanes {
    /// All of them.
    pub all: Vec<Lane>,
    /// That of each listener.
    pub of: Vec<usize>,
    /// How long an open chunk may wait, in nanoseconds.
    pub linger_ns: u64,
    /// For reading what is dropped or refused.
    pub discard: Option<Box<Chunk>>,
}

impl Lanes {
    /// For these listeners.
    pub fn new<'a>(
        listeners: impl Iterator<Item = &'a ListenerOptions>,
        linger_ns: u64,
        discard: Option<Box<Chunk>>,
    ) -> Lanes {
        let mut lanes = Lanes { all: Vec::new(), of: Vec::new(), linger_ns, discard };
        listeners.for_each(|options| {
            let lane = lanes.for_listener(options);
            lanes.of.push(lane);
        });
        lanes
    }

    /// The place of a listener's lane; a new one where its class and level have none yet.
    pub fn for_listener(&mut self, options: &ListenerOptions) -> usize {
        let (class, level) = (options.class, options.level);
        self.all.iter().position(|l| (l.class, l.level) == (class, level)).unwrap_or_else(|| {
            self.all.push(Lane::new(class, level));
            self.all.len() - 1
        })
    }

    /// True where a listener's connections wait for a chunk.
    pub fn is_blocked(&self, listener: usize) -> bool {
        self.all[self.of[listener]].blocked
    }

    /// True where something that was received waits in a listener's lane.
    pub fn has_rest(&self, listener: usize) -> bool {
        self.all[self.of[listener]].rest.is_some()
    }

    /// Keeps input of one of a listener's connections until there is a chunk for it.
    pub fn keep_rest(&mut self, listener: usize, rest: Rest) {
        debug_assert!(!self.has_rest(listener), "whoever could leave another rest is not served");
        self.all[self.of[listener]].rest = Some(rest);
    }

    /// The rest of a lane for which there is a chunk now.
    pub fn take_rest(&mut self, lane: usize) -> Option<Rest> {
        let lane = &mut self.all[lane];
        if lane.blocked { None } else { lane.rest.take() }
    }

    /// The rest that is a connection's.
    pub fn take_rest_of(&mut self, id: ConnId) -> Option<Rest> {
        self.all.iter_mut().find_map(|lane| lane.rest.take_if(|rest| rest.conn == id))
    }

    /// True where a rest can go on.
    pub fn can_resume(&self) -> bool {
        self.all.iter().any(|lane| lane.rest.is_some() && !lane.blocked)
    }
}

impl Lane {
    /// A lane without a chunk.
    pub fn new(class: Class, level: Level) -> Self {
        Lane {
            class,
            level,
            open: None,
            is_out: false,
            opened_ns: 0,
            blocked: false,
            blocked_since_ns: 0,
            unblocked_ns: 0,
            number: 1,
            rest: None,
            waits_for_log: false,
        }
    }

    /// When its chunk is to be pushed though it is not full; `None`: it is empty.
    pub fn due_at(&self, linger_ns: u64) -> Option<u64> {
        let linger_ns = if self.waits_for_log { 2 * linger_ns } else { linger_ns };
        self.open.as_ref().filter(|c| !c.is_empty()).map(|_| self.opened_ns + linger_ns)
    }

    /// Notes the time of the first record.
    pub fn put_back(&mut self, chunk: Box<Chunk>, now: u64) {
        if self.opened_ns == 0 && !chunk.is_empty() {
            self.opened_ns = now;
        }
        self.open = Some(chunk);
        self.is_out = false;
    }
}
