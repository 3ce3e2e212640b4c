//! The state of a reactor, and how it is put together.

use super::parts::answers::Answers;
use super::parts::apart::Apart;
use super::parts::between::Between;
use super::parts::changes::Changes;
use super::parts::conns::Conns;
use super::parts::dawdle::Dawdler;
use super::parts::handshakes::Handshakes;
use super::parts::lanes::Lanes;
use super::parts::limits::ConnectionLimit;
use super::parts::listeners::ListenerRun;
use super::parts::meter::Meter;
use super::parts::ready::ReadyQueue;
use super::parts::timers::Timers;
use super::parts::told::Told;
use crate::host::clock::Clock;
use crate::intake::net::Engine;
use crate::intake::spread::Spread;
use crate::metrics::accounting::Ledger;
use crate::pipeline::chunk::{Chunk, ConnId, Level, Ticket};
use crate::pipeline::commit::CommitLog;
use crate::pipeline::control::{Control, Notice};
use crate::pipeline::ring::Wake;
use crate::pipeline::shard::Shard;
use crate::session::memory::room::Room;
use crate::session::memory::tail::TailStore;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// What a reactor is made of.
pub struct Setup<E: Engine> {
    /// The engine.
    pub engine: E,
    /// Its place.
    pub seat: Seat,
    /// What it counts.
    pub books: Books,
    /// All listeners of the server, by index.
    pub listeners: Vec<ListenerRun>,
    /// Connections over all reactors.
    pub connections: Arc<ConnectionLimit>,
    /// Partial lines.
    pub tails: TailStore,
    /// Memory that is leased, shared by all reactors.
    pub room: Arc<Room>,
    /// For what does not stay as it is received; as large as the listener says that wants the most of it.
    pub scratch: Option<Box<Chunk>>,
    /// For reading what is dropped or refused.
    pub discard: Option<Box<Chunk>>,
    /// TLS handshakes a second.
    pub handshakes_per_second: usize,
    /// How long an open chunk may wait.
    pub linger: Duration,
}

/// The place of a reactor, and the threads that it works with.
pub struct Seat {
    /// Place in the shard.
    pub index: usize,
    /// Place among all reactors of the server.
    pub number: usize,
    /// Where connections go.
    pub spread: Arc<Spread>,
    /// The shard.
    pub shard: Arc<Shard>,
    /// Flags.
    pub control: Arc<Control>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Hears when standard input ends.
    pub notices: Sender<Notice>,
    /// What a reload of the configuration changes.
    pub changes: Changes,
}

/// What a reactor counts.
pub struct Books {
    /// Of lines coming in.
    pub upstream: Arc<Ledger>,
    /// Of lines evicted from rings.
    pub evictions: Arc<Ledger>,
}

/// The connections that wait to be served.
pub struct Queue {
    pub ready: ReadyQueue,
    /// Connections in the middle of a frame that wait for a chunk, out of the way of those that may be refused.
    pub parked: Vec<ConnId>,
}

/// The phase of the server: whether it drains, has stopped intake, or is not ready.
#[derive(Default)]
pub struct Phase {
    pub draining: bool,
    /// Connections that cannot be told that the disk has failed are closed.
    pub stopped: bool,
    pub not_ready: Option<&'static str>,
}

/// See the module documentation.
pub struct Reactor<E: Engine> {
    pub(super) engine: E,
    pub(super) seat: Seat,
    pub(super) books: Books,
    pub(super) listeners: Vec<ListenerRun>,
    pub(super) connections: Arc<ConnectionLimit>,
    pub(super) conns: Conns,
    pub(super) lanes: Lanes,
    pub(super) between: Between,
    pub(super) queue: Queue,
    pub(super) timers: Timers,
    pub(super) answers: Answers,
    pub(super) apart: Apart,
    pub(super) handshakes: Handshakes,
    pub(super) meter: Meter,
    pub(super) dawdler: Dawdler,
    pub(super) phase: Phase,
    pub(super) told: Told,
    /// Where small groups become durable; `None`: by syncs of the segments only.
    pub(super) commit: Option<Box<CommitLog>>,
    /// Time of this turn.
    pub(super) now: u64,
    pub(super) wall: u64,
}

impl<E: Engine> Reactor<E> {
    /// Puts a reactor together; from here on it can be woken.
    #[must_use]
    pub fn new(setup: Setup<E>) -> Self {
        // Set once: a port belongs to one reactor.
        let _ = setup.seat.shard.reactors[setup.seat.index].wake.set(Wake::new(setup.engine.waker()));
        let now = setup.seat.clock.mono_ns();
        let linger_ns = setup.linger.as_nanos() as u64;
        let mut apart = Apart::default();
        setup.listeners.iter().filter_map(|l| l.options.profile().news.as_ref()).for_each(|news| apart.listen(news));
        Reactor {
            conns: Conns::new(setup.connections.most()),
            lanes: Lanes::new(setup.listeners.iter().map(|l| &l.options), linger_ns, setup.discard),
            between: Between::new(setup.tails, setup.scratch, setup.room),
            queue: Queue { ready: ReadyQueue::new(setup.listeners.len()), parked: Vec::new() },
            timers: Timers::default(),
            answers: Answers::default(),
            apart,
            handshakes: Handshakes::new(setup.handshakes_per_second, now),
            meter: Meter::default(),
            dawdler: Dawdler::new(&setup.listeners, setup.linger),
            phase: Phase::default(),
            told: Told::default(),
            commit: None,
            now,
            wall: 0,
            engine: setup.engine,
            seat: setup.seat,
            books: setup.books,
            listeners: setup.listeners,
            connections: setup.connections,
        }
    }
}

/// What a connection of this listener waits for.
pub fn ticket(level: Level, conn: ConnId, frame: u32) -> Option<Ticket> {
    (level != Level::None).then_some(Ticket { conn, frame })
}
