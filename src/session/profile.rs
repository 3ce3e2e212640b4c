//! What a reactor must know of a protocol, in plain data.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a connection may take to finish what it began. Zero: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patience {
    /// For the end of a record.
    pub line: Duration,
    /// For the end of a head or handshake.
    pub head: Duration,
    /// For more of a body that was announced.
    pub body: Duration,
    /// How long it waits for us: it is closed when for so long nothing has been answered of what it is owed.
    pub answer: Duration,
}

/// A number that changes when there is news. The thread that changes it wakes the reactors.
#[derive(Debug, Clone)]
pub struct News(pub Arc<AtomicU64>);

impl News {
    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl PartialEq for News {
    fn eq(&self, other: &News) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for News {}

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The protocol's name in configurations.
    pub name: &'static str,
    /// The schemes of addresses that people are shown: without TLS, and with TLS.
    pub schemes: [&'static str; 2],
    /// How long a client waits for a chunk before it is told that it is refused. `None`: clients of this protocol cannot be told, so they
    /// wait.
    pub refuses_after: Option<Duration>,
    /// Clients wait for answers, so answers are sent at once, and input does not gather.
    pub answers: bool,
    /// The connection ends when a record is dropped for want of a chunk, because the next answer would be taken for its own.
    pub drop_ends: bool,
    /// Bytes that a connection may leave in its tail at most.
    pub longest_tail: usize,
    /// Bytes of a chunk that the longest record needs, however it is written.
    pub least_chunk: usize,
    /// Bytes of the scratch buffer that it needs. 0: records stay where they are received.
    pub scratch: usize,
    /// Memory of a connection at most beside its tail and what is leased, in bytes.
    pub bytes_per_connection: usize,
    /// It leases memory for documents or decoders.
    pub leases: bool,
    /// Protocols that TLS offers (RFC 7301), the first before the others.
    pub alpn: &'static [&'static [u8]],
    /// Connections may move to another reactor.
    pub may_move: bool,
    /// It makes records. If not (the admin address), connections need no chunk, count for no limit but their own, and are served until the
    /// end.
    pub makes_records: bool,
    /// Tells that sessions may have something to send although they received nothing.
    pub news: Option<News>,
    /// How long a connection may take for the rest of what it began.
    pub patience: Patience,
    /// A connection older than this (less up to a tenth, by chance) ends behind its present frame; zero: never.
    pub max_connection_age: Duration,
}

/// Bytes received into the scratch buffer at once at most, behind the gap: what becomes of them should stay in the cache.
pub const SCRATCH_LANDING: usize = 96 << 10;

impl Profile {
    /// A protocol that waits for nobody and that nobody waits for: what most of the rest differs from in few points.
    #[must_use]
    pub fn new(name: &'static str, longest_tail: usize, least_chunk: usize) -> Profile {
        Profile {
            name,
            schemes: ["tcp", "tls"],
            refuses_after: None,
            answers: false,
            drop_ends: false,
            longest_tail,
            least_chunk,
            scratch: 0,
            bytes_per_connection: 0,
            leases: false,
            alpn: &[],
            may_move: true,
            makes_records: true,
            news: None,
            patience: Patience::default(),
            max_connection_age: Duration::ZERO,
        }
    }
}
