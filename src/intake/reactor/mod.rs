//! A reactor: one thread, one engine, its connections. Receives into chunks, lets sessions find the records, pushes full
//! chunks into the ring, sends answers when chunks come back.

mod admit;
mod changes;
mod conns;
mod dawdle;
mod digest;
mod ending;
mod handshakes;
mod lanes;
mod moves;
mod ready;
mod relief;
mod serve;

pub use admit::{AddressLimit, ConnectionLimit};
pub use changes::{Change, Changes};
pub use conns::bytes_per_connection;
pub use serve::DATAGRAM_MAX;

use crate::config::listener::ListenerOptions;
use crate::host::clock::Clock;
use crate::host::peer::ListenerId;
use crate::host::rate::RateLimit;
use crate::intake::net::{Engine, Event, Sent};
use crate::intake::spread::Spread;
use crate::intake::transport::tls::TlsAcceptor;
use crate::metrics::accounting::{Ledger, Reason};
use crate::metrics::stats::{ReactorCells, Refused};
use crate::pipeline::chunk::{Chunk, Class, ConnId, Level};
use crate::pipeline::control::{Control, NotReady, Notice};
use crate::pipeline::ring::Wake;
use crate::pipeline::shard::{ReactorPort, Shard};
use crate::protocol::http::{Date, Reply};
use crate::session::room::Room;
use crate::session::tail::TailStore;
use crate::session::{End, Turn};
use conns::Conns;
use dawdle::Dawdler;
use handshakes::Handshakes;
use lanes::Lane;
use moves::Meter;
use ready::ReadyQueue;
use relief::Relief;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Time before accepting is tried again after descriptors ran out.
const ACCEPT_AGAIN_NS: u64 = 100_000_000;
/// Answer buffers kept for reuse.
const SPARE_BUFFERS: usize = 64;

/// A listener as a reactor sees it.
#[derive(Clone)]
pub struct ListenerRun {
    /// Its options.
    pub options: ListenerOptions,
    /// Connections per address, over all reactors.
    pub addresses: Arc<AddressLimit>,
    /// Its TLS.
    pub tls: Option<Arc<TlsAcceptor>>,
    /// It is in the configuration no more: its connections end, as all do at the end of the server.
    pub is_gone: bool,
}

/// What a reactor is made of.
pub struct Setup<E: Engine> {
    /// The engine.
    pub engine: E,
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
    /// All listeners of the server, by index.
    pub listeners: Vec<ListenerRun>,
    /// What it counts of lines coming in.
    pub upstream: Arc<Ledger>,
    /// What it counts of lines evicted from rings.
    pub evictions: Arc<Ledger>,
    /// Connections over all reactors.
    pub connections: Arc<ConnectionLimit>,
    /// Partial lines.
    pub tails: TailStore,
    /// Memory for decoding bodies, shared by all reactors.
    pub decoding: Arc<Room>,
    /// For reading what `drop_newest` drops.
    pub discard: Option<Box<Chunk>>,
    /// TLS handshakes a second.
    pub handshakes_per_second: usize,
    /// How long an open chunk may wait.
    pub linger: Duration,
    /// Hears when standard input ends.
    pub notices: Sender<Notice>,
    /// What a reload of the configuration changes.
    pub changes: Changes,
}

/// See the module.
pub struct Reactor<E: Engine> {
    engine: E,
    index: usize,
    number: usize,
    spread: Arc<Spread>,
    shard: Arc<Shard>,
    control: Arc<Control>,
    clock: Arc<dyn Clock>,
    listeners: Vec<ListenerRun>,
    upstream: Arc<Ledger>,
    evictions: Arc<Ledger>,
    connections: Arc<ConnectionLimit>,
    tails: TailStore,
    discard: Option<Box<Chunk>>,
    linger_ns: u64,
    notices: Sender<Notice>,
    changes: Changes,

    conns: Conns,
    lanes: Vec<Lane>,
    /// Lane of each listener.
    lane_of: Vec<usize>,
    ready: ReadyQueue,
    relief: Relief,
    /// Connections in the middle of a request that wait for a chunk, out of the way of those that may be refused.
    parked: Vec<ConnId>,
    /// Connections with something to send or to end, once acknowledgements of this turn are in.
    dirty: Vec<ConnId>,
    idle_timers: BinaryHeap<Reverse<(u64, ConnId)>>,
    line_timers: BinaryHeap<Reverse<(u64, ConnId)>>,
    accept_again: Vec<(u64, ListenerId)>,
    spare_buffers: Vec<Vec<u8>>,
    /// The rest of what a connection received, between two chunks.
    beside: Vec<u8>,
    /// What was asked to be told when it is written: the number of its chunk, by whom, and lines of the connection.
    writing: VecDeque<(u64, ConnId, u64)>,
    handshakes: Handshakes,
    draining: bool,
    /// Connections that cannot be told that the disk has failed are closed.
    stopped: bool,
    not_ready: Option<&'static str>,
    date: Date,
    meter: Meter,
    dawdler: Dawdler,
    refused_log: RateLimit,
    /// Time of this turn.
    now: u64,
    wall: u64,
}

impl<E: Engine> Reactor<E> {
    /// Puts a reactor together; from here on it can be woken.
    #[must_use]
    pub fn new(setup: Setup<E>) -> Self {
        let mut lanes: Vec<Lane> = Vec::new();
        let lane_of = setup.listeners.iter().map(|l| lanes::lane_for(&mut lanes, &l.options)).collect();
        // Set once: a port belongs to one reactor.
        let _ = setup.shard.reactors[setup.index].wake.set(Wake::new(setup.engine.waker()));
        let ready = ReadyQueue::new(setup.listeners.len());
        let now = setup.clock.mono_ns();
        let conns = Conns::new(setup.connections.most());
        let dawdler = Dawdler::new(&setup.listeners, setup.linger);
        Reactor {
            engine: setup.engine,
            index: setup.index,
            number: setup.number,
            spread: setup.spread,
            shard: setup.shard,
            control: setup.control,
            clock: setup.clock,
            listeners: setup.listeners,
            upstream: setup.upstream,
            evictions: setup.evictions,
            connections: setup.connections,
            tails: setup.tails,
            discard: setup.discard,
            linger_ns: setup.linger.as_nanos() as u64,
            notices: setup.notices,
            changes: setup.changes,
            conns,
            lanes,
            lane_of,
            ready,
            relief: Relief::new(setup.decoding),
            parked: Vec::new(),
            dirty: Vec::new(),
            idle_timers: BinaryHeap::new(),
            line_timers: BinaryHeap::new(),
            accept_again: Vec::new(),
            spare_buffers: Vec::new(),
            beside: Vec::new(),
            writing: VecDeque::new(),
            handshakes: Handshakes::new(setup.handshakes_per_second, now),
            draining: false,
            stopped: false,
            not_ready: None,
            date: Date::default(),
            meter: Meter::default(),
            dawdler,
            refused_log: RateLimit::new(),
            now,
            wall: 0,
        }
    }

    /// Runs until everything received is in chunks and pushed, after [`Control::drain`].
    ///
    /// # Errors
    /// The engine broke.
    pub fn run(mut self) -> io::Result<()> {
        let result = self.turn_until_drained();
        if result.is_err() {
            self.spread.shut(self.number);
        }
        result
    }

    fn turn_until_drained(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        loop {
            self.wait(&mut events)?;
            self.wall = self.clock.wall_ns();
            self.answer_ping(&mut events);
            if self.control.draining() && !self.draining {
                self.begin_drain(&mut events);
            }
            events.drain(..).for_each(|event| self.handle(event));
            self.take_spent();
            self.take_inbox();
            if self.control.intake_stopped() && !self.stopped {
                self.stopped = true;
                self.close_those_that_cannot_be_told();
            }
            self.not_ready = self.control.readiness().map(NotReady::line);
            self.unblock_lanes();
            self.serve_ready();
            self.relieve();
            self.take_written();
            self.answer();
            self.run_timers();
            self.push_due();
            self.measure();
            self.stats().tail_bytes.set(self.tails.used_bytes() as u64);
            self.stats().polled_instead.set(self.engine.polled_instead());
            let is_over = self.is_empty() || self.control.reactors_abandoned();
            if self.draining && is_over && (self.spread.close(self.number) || self.control.reactors_abandoned()) {
                self.close_all();
                (0..self.lanes.len()).for_each(|lane| self.push_open(lane));
                return Ok(());
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.conns.is_empty() && self.spread.inbox(self.number).is_empty()
    }

    /// Waits for something to do, unless there is.
    fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let mut timeout = self.timeout();
        let mut before = 0;
        if timeout != Some(Duration::ZERO) {
            before = self.clock.mono_ns();
            self.about_to_sleep();
            if self.something_came() {
                timeout = Some(Duration::ZERO);
            } else {
                self.dawdle(timeout);
            }
        }
        self.engine.wait(timeout, events)?;
        self.now = self.clock.mono_ns();
        if before > 0 {
            self.meter.waited(self.now.saturating_sub(before));
        }
        if let Some(wake) = self.port().wake.get() {
            wake.awake();
        }
        Ok(())
    }

    fn about_to_sleep(&self) {
        if let Some(wake) = self.port().wake.get() {
            wake.about_to_sleep();
        }
    }

    /// The last look before sleeping, at everything that others publish.
    fn something_came(&self) -> bool {
        let port = self.port();
        !port.spent.is_empty()
            || !self.changes.is_empty()
            || self.control.pings() != port.answered.get()
            || !self.spread.inbox(self.number).is_empty()
            || self.relief.is_called()
            || self.writing.front().is_some_and(|(number, ..)| *number <= port.written.load(Ordering::SeqCst))
            || self.control.draining() != self.draining
            || (self.draining && self.control.reactors_abandoned())
            || (self.control.intake_stopped() && !self.stopped)
            || self.lanes.iter().any(|l| l.blocked && self.shard.channel(l.class).pool.free() > 0)
    }

    fn timeout(&mut self) -> Option<Duration> {
        let is_stuck = |l: &Lane| l.rest.is_some() && !l.blocked;
        if self.can_feed() || self.lanes.iter().any(is_stuck) {
            return Some(Duration::ZERO);
        }
        if self.anybody_to_serve() || !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        let first = |heap: &BinaryHeap<Reverse<(u64, ConnId)>>| heap.peek().map(|Reverse((at, _))| *at);
        let linger = self.lanes.iter().filter_map(|l| l.due_at(self.linger_ns)).min();
        let accept = self.accept_again.iter().map(|(at, _)| *at).min();
        let refusal = self.next_refusal().map(|at| at + 1);
        let handshake = self.handshakes.next_turn();
        let relief = self.relief_due_at();
        let at = [first(&self.idle_timers), first(&self.line_timers), linger, accept, refusal, handshake, relief];
        let at = at.into_iter().flatten().min()?;
        Some(Duration::from_nanos(at.saturating_sub(self.clock.mono_ns())))
    }

    fn port(&self) -> &ReactorPort {
        &self.shard.reactors[self.index]
    }

    fn stats(&self) -> &ReactorCells {
        &self.port().stats
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { listener, socket, peer } => self.place(listener, socket, peer),
            Event::AcceptFailed { listener, error } => {
                self.stats().accept_failures.add(1);
                if let Some(missed) = self.refused_log.allow(self.now) {
                    let name = &self.listeners[usize::from(listener)].options.name;
                    tracing::warn!(listener = name, %error, missed, "cannot accept; trying again shortly");
                }
                self.accept_again.push((self.now + ACCEPT_AGAIN_NS, listener));
            }
            Event::Pending(id) => self.pending(id),
            Event::Received(received) => self.received(received),
            Event::Sent(sent) => self.sent(sent),
            Event::Woken => {}
        }
    }

    fn pending(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.queued && !conn.ended {
            conn.queued = true;
            self.ready.push(conn.listener, id, self.now);
        }
    }

    /// Acknowledges what the writer sent back, and frees the chunks.
    fn take_spent(&mut self) {
        while let Some(chunk) = self.port().spent.pop() {
            for run in chunk.runs() {
                let Some(id) = run.ticket else { continue };
                let Some(conn) = self.conns.get(id) else { continue };
                conn.unacked -= u64::from(run.lines);
                if chunk.failed {
                    if conn.session.failed() {
                        mark_dirty(&mut self.dirty, conn, id);
                    } else {
                        self.close(id, Some(Refused::DiskFailed));
                    }
                    continue;
                }
                conn.session.acked(u64::from(run.lines));
                mark_dirty(&mut self.dirty, conn, id);
                self.shard.reactors[self.index].stats.ack_latency.record(self.now.saturating_sub(run.received_ns));
            }
            self.shard.release(Class::Lossless, chunk); // only lossless chunks are awaited
        }
    }

    /// Tells those who asked for no more than that what was written.
    fn take_written(&mut self) {
        let written = self.port().written.load(Ordering::Acquire);
        while let Some((number, id, lines)) = self.writing.front().copied()
            && number <= written
        {
            self.writing.pop_front();
            if let Some(conn) = self.conns.get(id) {
                conn.session.written(lines);
                mark_dirty(&mut self.dirty, conn, id);
            }
        }
    }

    fn take_inbox(&mut self) {
        while let Some(handed) = self.spread.inbox(self.number).pop() {
            if usize::from(handed.listener) >= self.listeners.len() {
                // Whoever accepted it knows the listener already: it was told after this reactor was.
                let mut events = Vec::new();
                self.take_changes(&mut events);
                events.into_iter().for_each(|event| self.handle(event));
            }
            match handed.moved {
                Some(_) => self.arrive(handed, true),
                None => self.admit(handed.listener, handed.socket, handed.peer),
            }
        }
    }

    /// Sends what sessions have to say, and closes what is done.
    fn answer(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            if let Some(conn) = self.conns.get(id) {
                conn.dirty = false;
                if !conn.sending {
                    self.speak(id);
                }
                self.close_if_done(id);
            }
        }
    }

    /// Sends what one session has to say, as far as the socket takes it.
    fn speak(&mut self, id: ConnId) {
        loop {
            let mut buffer = self.spare_buffers.pop().unwrap_or_default();
            let statuses = &self.shard.reactors[self.index].stats.statuses;
            let Some(conn) = self.conns.get(id) else { return };
            let waited = conn.session.turn() == Turn::Wait;
            conn.session.output(&mut Reply { out: &mut buffer, date: self.date.at(self.wall), statuses });
            let is_over = conn.session.is_over();
            if (!buffer.is_empty() || conn.stage.wants_to_send()) && conn.stage.encode(&mut buffer).is_err() {
                return self.close(id, None);
            }
            if is_over && !conn.shut {
                conn.stage.close(&mut buffer);
            }
            let turn = conn.session.turn();
            let goes_on = turn == Turn::GoOn || (waited && turn != Turn::Wait);
            if goes_on && !conn.queued && !conn.ended {
                // Whatever came while it waited was not looked at.
                conn.queued = true;
                self.ready.push(conn.listener, id, self.now);
            }
            if buffer.is_empty() {
                self.keep_buffer(buffer);
                if is_over {
                    self.part(id);
                }
                return self.nudge(id);
            }
            conn.sending = true;
            let Some(sent) = self.engine.send(id, buffer) else { return };
            if let Some(conn) = self.conns.get(id) {
                conn.sending = false;
            }
            self.keep_buffer(sent.buffer);
            if sent.result.is_err() {
                self.finish_input(id, End::Broken(Reason::Reset));
                return self.close(id, None);
            }
            if is_over {
                return self.part(id);
            }
        }
    }

    fn sent(&mut self, Sent { conn: id, buffer, result }: Sent) {
        self.keep_buffer(buffer);
        let Some(conn) = self.conns.get(id) else { return };
        conn.sending = false;
        if result.is_err() {
            self.finish_input(id, End::Broken(Reason::Reset));
            self.close(id, None);
            return;
        }
        mark_dirty(&mut self.dirty, conn, id);
    }

    fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        if self.spare_buffers.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare_buffers.push(buffer);
        }
    }

    fn begin_drain(&mut self, events: &mut Vec<Event>) {
        self.draining = true;
        self.call_off(None);
        for listener in 0..self.listeners.len() as ListenerId {
            self.engine.stop_listening(listener, events);
        }
        // Everybody is looked at once more.
        self.conns.ids().into_iter().for_each(|id| self.end_soon(id));
    }

    /// Looks at a connection that is to end: what is found empty then is over.
    fn end_soon(&mut self, id: ConnId) {
        self.pending(id);
        self.close_if_done(id); // whoever does not read is not waited for
    }

    /// The time to drain is over.
    fn close_all(&mut self) {
        for id in self.conns.ids() {
            self.finish_input(id, End::Broken(Reason::Shutdown));
            self.close(id, None);
        }
    }

    /// Nothing is taken in any more: who can be told so is told, the others are closed.
    fn close_those_that_cannot_be_told(&mut self) {
        for id in self.conns.ids() {
            let listener = self.conns.get(id).map_or(0, |c| usize::from(c.listener));
            if self.listeners[listener].options.http.is_none() {
                self.finish_input(id, End::Broken(Reason::DiskFailed));
                self.close(id, Some(Refused::DiskFailed));
            }
        }
    }
}

fn mark_dirty(dirty: &mut Vec<ConnId>, conn: &mut conns::Conn, id: ConnId) {
    if !conn.dirty {
        conn.dirty = true;
        dirty.push(id);
    }
}

/// What a connection of this listener waits for.
fn ticket(level: Level, id: ConnId) -> Option<ConnId> {
    (level != Level::None).then_some(id)
}
