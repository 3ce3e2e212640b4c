//! Puts a server together, in this order: lock, admin address, recovery, writers, sockets, reactors.

use super::admin::AdminAddress;
use super::certificates::Certificates;
use super::commit_logs::CommitLogs;
use super::engine;
use super::error::{StartError, resource};
use super::file_modes::FileModes;
use super::housekeeping;
use super::live::{Live, SPARE_LISTENERS, SPARE_STREAMS};
use super::patience::Patience;
use super::pin::{placed, spawn};
use super::recovery::recover_segments;
use super::seats::{Seats, listener_runs};
use super::sources::{Source, open_all};
use super::started::{Around, Started};
use super::threads::Threads;
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::host::limits;
use crate::host::peer::ListenerId;
use crate::host::topology::ShardPlan;
use crate::intake::net::{EpollEngine, UringEngine};
use crate::intake::reactor::{Change, ConnectionLimit, MOST_APART, bytes_per_connection};
use crate::intake::spread::Spread;
use crate::log::LogError;
use crate::log::commit::recover;
use crate::log::data_dir::{self};
use crate::log::segment::AppendOptions;
use crate::metrics::accounting::{Accounting, Ledger};
use crate::pipeline::commit::Clearance;
use crate::pipeline::control::{Control, Notice};
use crate::pipeline::keeper::events::SegmentEvents;
use crate::pipeline::keeper::{KeptCounts, KeptStreams};
use crate::pipeline::shard::{Shard, ShardSize};
use crate::pipeline::writer::steward::Threaded;
use crate::pipeline::writer::stream::{StreamOptions, StreamWriter};
use crate::pipeline::writer::syncers::Together;
use crate::pipeline::writer::unsynced::SyncPolicy;
use crate::pipeline::writer::{Parts, Writer};
use crate::server::sandbox::Confinement;
use crate::watch::render::{Metrics, RecoverySums};
use crossbeam_queue::ArrayQueue;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// What runs.
pub struct Running {
    pub live: Live,
    pub threads: Threads,
    pub started: Started,
}

/// Changes of the configuration that may wait for a thread; a reload sends one to each reactor, and one for each stream.
const CHANGES: usize = 512;

/// Builds and starts a server.
pub fn build(
    options: &Options,
    (notices, receiver): (&Sender<Notice>, &Receiver<Notice>),
    around: Around,
) -> Result<Running, StartError> {
    let Around { disk, clock, manager, mut inherited } = around;
    let (disk, clock) = (&disk, &clock);
    let control = Arc::new(Control::default());
    let mut locks = vec![data_dir::lock(&**disk, &options.data_dir)?];
    if let Some(dir) = &options.sealed_dir {
        locks.push(data_dir::lock(&**disk, dir)?);
    }
    let certificates = Certificates::load(&options.listeners)?;
    certificates.watch().map_err(resource("watch certificates"))?;
    let placement = &options.placement;
    let reactors = placement.shards * placement.reactors_per_shard;
    let listening = options.listeners.len() * reactors;
    let max_connections =
        limits::connections_that_fit(options.max_connections, options.streams.len(), placement.shards, listening);
    if max_connections < options.max_connections {
        tracing::warn!(max_connections, "limits.max_connections lowered to what the descriptor limit allows");
    }

    let plan = &placement.plan.shards;
    let listeners = options.listeners.len() + SPARE_LISTENERS;
    let mut accounting = Accounting::new(listeners);
    let mut shards = Vec::new();
    let mut sleepers = Vec::new();
    for (index, place) in plan.iter().enumerate() {
        let (sleeper, waker) = crate::pipeline::sleep::parking();
        let size = ShardSize {
            reactors: placement.reactors_per_shard,
            chunks: options.memory.chunks.clone(),
            chunk_bytes: options.memory.chunk_bytes,
            node: place.node,
        };
        let shard =
            placed(place.writer_place(), || Shard::new(index as u16, &size, waker)).map_err(resource("map chunks"))?;
        accounting.capacity_bytes += shard.capacity_bytes();
        accounting.downstream.push(Ledger::new(listeners));
        shards.push(shard);
        sleepers.push(sleeper);
    }
    let writers = accounting.downstream.clone();
    let evictions: Vec<Arc<Ledger>> = (0..reactors).map(|_| Ledger::new(listeners)).collect();
    accounting.downstream.extend(evictions.iter().cloned());
    accounting.upstream = (0..reactors).map(|_| Ledger::new(listeners)).collect();
    let upstream = accounting.upstream.clone();
    let names = options.listeners.iter().map(|l| l.name.clone()).collect();
    let metrics = Arc::new(Metrics::new(accounting, names, shards.clone(), Arc::clone(&control)));

    let expiry = certificates.clone();
    let _ = metrics.expiry.set(Box::new(move || expiry.expiry())); // set here only
    let spread = Arc::new(Spread::new(shards.clone()));
    let limit = Arc::new(ConnectionLimit::new(max_connections));
    let runs = listener_runs(options, &certificates);
    let changes: Vec<crate::intake::reactor::Changes> =
        (0..reactors).map(|_| Arc::new(ArrayQueue::new(CHANGES))).collect();
    let admin = match options.admin {
        Some(address) => Some(AdminAddress::open(address, &mut inherited, manager, &metrics, &control, &spread)?),
        None => None,
    };
    let admin_address = admin.as_ref().map(|admin| admin.address.to_string());
    let (seen, admin) = match admin {
        Some(admin) => {
            let (all, place) = admin.behind(&runs, listeners);
            (all, Some((place, admin.socket)))
        }
        None => (runs.clone(), None),
    };
    let size = max_connections.div_ceil(reactors) + MOST_APART;
    let make_rings = || (0..reactors).map(|_| UringEngine::new(size, options.memory.ring_buffers)).collect();
    let (engine, rings) = engine::choose(options.engine, make_rings)?;
    let is_ring = rings.is_some();
    let _ = metrics.engine.set(engine.label()); // set here only
    let mut seats = Seats {
        options,
        shards: &shards,
        control: &control,
        clock,
        notices,
        upstream: &upstream,
        evictions: &evictions,
        connections: &limit,
        spread: &spread,
        listeners: &seen,
        changes: &changes,
        admin,
    };
    // Health answers while recovery runs: reactors first, and the other sockets when there is somebody to write what comes.
    match rings {
        Some(rings) => seats.fill(rings)?,
        None => {
            let engines = (0..reactors).map(|_| EpollEngine::new(size)).collect::<io::Result<_>>();
            seats.fill(engines.map_err(resource("open an epoll instance"))?)?;
        }
    }
    let begun = Begun { control: &control, shards: &shards };

    manager.status("recovering what a crash has left");
    let patience = Patience { control: &control, manager, notices: receiver };
    patience.until_there_is_room(|| housekeeping::find_again(&**disk, options))?;
    let mut recovery = RecoverySums::default();
    patience.until_there_is_room(|| {
        recover_segments(&**disk, &**clock, &options.data_dir, options.strict, &mut recovery)
    })?;
    let _ = metrics.recovery.set(recovery); // set here only
    let node = patience.until_there_is_room(|| data_dir::make_node_id(&**disk, &options.data_dir, &locks[0]))?;
    let (data_dir, sealed_dir) = (options.data_dir.as_path(), options.sealed_dir.as_deref());
    let around = recover::Around { disk, clock, data_dir, sealed_dir, node };
    let streams = options.streams.len() + SPARE_STREAMS;
    let commit_logs = patience.until_there_is_room(|| CommitLogs::recover(&around, options, is_ring, streams))?;
    let modes = FileModes::probe(&**disk, &options.data_dir.join(data_dir::STATE_DIR));

    let (keeper_sleeper, keep) = crate::pipeline::sleep::parking();
    let events = Arc::new(SegmentEvents::new(keep));
    let writer_changes: Vec<crate::pipeline::writer::Changes> =
        shards.iter().map(|_| Arc::new(ArrayQueue::new(CHANGES))).collect();
    let (mut opened, mut first) = (Vec::new(), BTreeMap::new());
    for (i, sleeper) in sleepers.into_iter().enumerate() {
        let shard = Arc::clone(&shards[i]);
        let most = options.streams.len() + SPARE_STREAMS;
        let (writer, told) = (Arc::clone(&shard.writer), Arc::clone(&events));
        let start = || Threaded::start(shard.index, most, Arc::clone(clock), writer, told);
        let mut steward = placed(plan[i].writer_place(), start).map_err(resource("start a steward"))?;
        let streams = open_streams(&around, options, shard.index, modes, &mut steward, &patience)?;
        first.extend(
            streams
                .iter()
                .filter_map(|stream| stream.first_segment())
                .map(|(name, id)| ((name, id.shard), id.sequence)),
        );
        opened.push(Writer::new(Parts {
            shard,
            control: Arc::clone(&control),
            clock: Arc::clone(clock),
            steward: Box::new(steward),
            syncers: Box::new(Together::new(Arc::clone(clock), i as u16)),
            sleeper,
            ledger: Arc::clone(&writers[i]),
            streams,
            changes: Arc::clone(&writer_changes[i]),
        }));
    }
    options.streams.iter().enumerate().for_each(|(index, stream)| commit_logs.admit(index, &stream.name));
    patience.until_there_is_room(|| commit_logs.begin(&first))?;
    for (i, writer) in opened.into_iter().enumerate() {
        spawn(format!("writer-{i}"), plan[i].writer_place(), notices.clone(), move || {
            Notice::WriterEnded(writer.run())
        })
        .map_err(resource("start a writer"))?;
    }

    let mut sources = open_all(&options.listeners, reactors, &mut inherited)?;
    // Before any is kept: a name stands for all that are kept under it.
    for left in &inherited {
        tracing::warn!(name = left.name, "a socket from the service manager belongs to no listener; it is closed");
        manager.forget(&left.name);
    }
    for (listener, source) in options.listeners.iter().zip(&mut sources) {
        let is_forgotten = inherited.iter().any(|left| source.kept_as.contains(&left.name));
        if !source.is_inherited || is_forgotten {
            source.keep(&listener.name, manager);
        }
    }
    drop(inherited);
    for (number, changes) in changes.iter().enumerate() {
        let socket = |(id, source): (usize, &mut Source)| Some((id as ListenerId, source.per_reactor.pop()?));
        let sockets = sources.iter_mut().enumerate().filter_map(socket).collect();
        let change = Change {
            listeners: Vec::new(),
            stopped: Vec::new(),
            sockets,
            handshakes_per_second: options.tls_handshakes_per_second,
            linger: options.linger,
        };
        let _ = changes.push(change); // the first: there is room
        let per_shard = placement.reactors_per_shard;
        shards[number / per_shard].reactors[number % per_shard].wake();
    }
    let mut shared = Vec::new();
    for (id, source) in sources.iter_mut().enumerate() {
        source.handed(id as ListenerId).into_iter().for_each(|(to, handed)| spread.place(to, handed));
        shared.extend(source.shared.drain(..).map(|socket| (id as ListenerId, socket)));
    }
    let mut threads = Threads {
        shards: shards.clone(),
        reactors_left: reactors,
        acceptor: None,
        acceptor_thread: None,
        writers_left: placement.shards,
        clean: true,
        keeper: None,
        events: Arc::clone(&events),
        _locks: locks,
    };
    if !shared.is_empty() {
        threads.start_acceptor(shared, &spread, &control, notices).map_err(resource("start an acceptor"))?;
    }
    shards.iter().flat_map(|s| &s.channels).for_each(|c| c.pool.warm_up());
    let kept_streams = options.streams.iter().map(|s| housekeeping::kept(s, options)).collect();
    let kept: KeptStreams = Arc::new(RwLock::new(kept_streams));
    let counts = KeptCounts::default();
    let data_dir = std::fs::canonicalize(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone());
    let _ = metrics.kept.set((Arc::clone(&counts), Arc::clone(disk), data_dir.clone())); // set here only
    let work = ((Arc::clone(&kept), counts, events), Clearance::new(commit_logs.progress()));
    threads.keeper = Some(housekeeping::start(disk, clock, &control, &options.data_dir, work, keeper_sleeper)?);
    begun.done();
    control.start();
    commit_logs.start(&shards);
    fault_in(&shards, plan).map_err(resource("start a thread"))?;
    Ok(Running {
        started: Started {
            listeners: options
                .listeners
                .iter()
                .zip(&sources)
                .map(|(l, s)| (l.name.clone(), s.address.to_string()))
                .collect(),
            admin: admin_address,
            data_dir,
            engine: engine.describe(),
            io: modes.describe(&options.streams),
            max_connections,
            connection_bytes: max_connections * bytes_per_connection(&options.listeners),
        },
        threads,
        live: Live {
            options: options.clone(),
            runs,
            sources,
            changes,
            writer_changes,
            shards,
            spread,
            connections: limit,
            control,
            metrics,
            certificates,
            commit_logs,
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            node,
            modes,
            kept,
            manager,
            confinement: Confinement::default(),
            streams_at_start: options.streams.len(),
            notices: notices.clone(),
        },
    })
}

/// The reactors that run while the rest is built. If that fails, they end.
struct Begun<'a> {
    control: &'a Control,
    shards: &'a [Arc<Shard>],
}

impl Begun<'_> {
    fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.control.drain();
        self.control.abandon_reactors();
        self.shards.iter().flat_map(|s| &s.reactors).for_each(crate::pipeline::shard::ReactorPort::wake);
    }
}

/// Touches the rest of the memory while the server runs already, so that the reactors do not wait for the kernel at the first use.
fn fault_in(shards: &[Arc<Shard>], plan: &[ShardPlan]) -> io::Result<()> {
    /// Chunks to touch before looking again whether the reactors need the pools.
    const STEP: usize = 4;
    let work: Vec<(Arc<Shard>, ShardPlan)> = shards.iter().cloned().zip(plan.iter().cloned()).collect();
    let body = move || {
        for (shard, plan) in work {
            placed(plan.writer_place(), || {
                for pool in shard.channels.iter().map(|c| &c.pool) {
                    let mut left = pool.chunks();
                    while left > 0 && pool.fault_in(STEP.min(left), |r| shard.reactors[r].wake()) > 0 {
                        left = left.saturating_sub(STEP);
                        std::thread::yield_now();
                    }
                }
            });
        }
    };
    std::thread::Builder::new().name("fault-in".into()).spawn(body).map(drop)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How a writer stores a stream.
pub(super) fn stored(settings: &StreamSettings, modes: FileModes) -> StreamOptions {
    StreamOptions {
        name: settings.name.clone(),
        append: AppendOptions { large: modes.of(settings.io), reserve_step: settings.reserve_step },
        segment_bytes: settings.segment_bytes,
        segment_age_ns: nanos(settings.segment_age),
        sync: SyncPolicy { interval_ns: nanos(settings.sync_interval), bytes: settings.sync_bytes },
    }
}

fn open_streams(
    around: &recover::Around<'_>,
    options: &Options,
    shard: u16,
    modes: FileModes,
    steward: &mut Threaded,
    patience: &Patience<'_>,
) -> Result<Vec<StreamWriter>, StartError> {
    let mut streams = Vec::new();
    for (index, settings) in options.streams.iter().enumerate() {
        let (dir, first) = patience.until_there_is_room(|| {
            let dir = around.stream_dir(&settings.name, shard, settings.reserve_step)?;
            let first = dir.begin_first()?;
            Ok::<_, LogError>((dir, first))
        })?;
        streams.push(StreamWriter::begun(index, Arc::new(dir), stored(settings, modes), first, steward));
    }
    Ok(streams)
}
