//! Puts a server together, in the order: lock, admin, recovery, writers, sockets, reactors.

use super::engine;
use super::file_modes::FileModes;
use super::pin::{Place, placed, spawn};
use super::seats::Seats;
use super::sources::Sources;
use super::threads::Threads;
use super::{Certificates, StartError, Started};
use crate::acceptor::Acceptor;
use crate::clock::Clock;
use crate::config::Options;
use crate::control::{Control, Notice};
use crate::limits;
use crate::log::data_dir::{self};
use crate::log::disk::Disk;
use crate::log::recover::recover_dir;
use crate::log::segment::AppendOptions;
use crate::log::stream_dir::StreamDir;
use crate::metrics::accounting::{Accounting, Ledger};
use crate::metrics::render::{Metrics, RecoverySums};
use crate::net::{EpollEngine, UringEngine};
use crate::reactor::{AddressLimit, ConnectionLimit, bytes_per_connection};
use crate::shard::{Shard, ShardSize};
use crate::spread::Spread;
use crate::topology::ShardPlan;
use crate::writer::steward::Threaded;
use crate::writer::stream::{StreamOptions, StreamWriter};
use crate::writer::unsynced::SyncPolicy;
use crate::writer::{Parts, Writer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// What runs.
pub struct Running {
    pub control: Arc<Control>,
    pub metrics: Arc<Metrics>,
    pub threads: Threads,
    pub started: Started,
    pub certificates: Certificates,
}

pub(super) fn resource(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Resource { what, error }
}

/// Builds and starts everything.
pub fn build(
    options: &Options,
    notices: &Sender<Notice>,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
) -> Result<Running, StartError> {
    let control = Arc::new(Control::default());
    let lock = data_dir::lock(&**disk, &options.data_dir)?;
    let certificates = Certificates::load(options)?;
    certificates.watch().map_err(resource("watch certificates"))?;
    let placement = &options.placement;
    let max_connections =
        limits::connections_that_fit(options.max_connections, options.streams.len(), placement.shards);
    if max_connections < options.max_connections {
        tracing::warn!(max_connections, "limits.max_connections lowered to what the descriptor limit allows");
    }

    let plan = &placement.plan.shards;
    let listeners = options.listeners.len();
    let mut accounting = Accounting::new(listeners);
    let mut shards = Vec::new();
    let mut sleepers = Vec::new();
    for (index, place) in plan.iter().enumerate() {
        let (sleeper, waker) = crate::sleep::parking();
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
    let reactors = placement.shards * placement.reactors_per_shard;
    let evictions: Vec<Arc<Ledger>> = (0..reactors).map(|_| Ledger::new(listeners)).collect();
    accounting.downstream.extend(evictions.iter().cloned());
    accounting.upstream = (0..reactors).map(|_| Ledger::new(listeners)).collect();
    let upstream = accounting.upstream.clone();
    let names = options.listeners.iter().map(|l| l.name.clone()).collect();
    let metrics = Arc::new(Metrics::new(accounting, names, shards.clone(), Arc::clone(&control)));

    // Health answers while recovery runs.
    let mut admin = None;
    if let Some(address) = options.admin {
        let at = address.to_string();
        let (listener, address) =
            crate::admin::bind(address).map_err(|error| StartError::Admin { address: at, error })?;
        crate::admin::start(listener, &metrics, &control).map_err(resource("start admin threads"))?;
        admin = Some(address.to_string());
    }

    let recovery = recover(&**disk, &**clock, &options.data_dir, options.strict)?;
    let _ = metrics.recovery.set(recovery); // set here only
    let node = data_dir::node_id(&**disk, &options.data_dir)?;
    let modes = FileModes::probe(&**disk, &options.data_dir.join(data_dir::STATE_DIR));

    for (i, sleeper) in sleepers.into_iter().enumerate() {
        let shard = Arc::clone(&shards[i]);
        let start =
            || Threaded::start(shard.index, options.streams.len(), Arc::clone(clock), Arc::clone(&shard.writer));
        let mut steward = placed(plan[i].writer_place(), start).map_err(resource("start a steward"))?;
        let streams = open_streams(options, disk, clock, node, shard.index, modes, &mut steward)?;
        let writer = Writer::new(Parts {
            shard,
            control: Arc::clone(&control),
            clock: Arc::clone(clock),
            steward: Box::new(steward),
            sleeper,
            ledger: Arc::clone(&writers[i]),
            listeners,
            streams,
        });
        spawn(format!("writer-{i}"), plan[i].writer_place(), notices.clone(), move || {
            Notice::WriterEnded(writer.run())
        })
        .map_err(resource("start a writer"))?;
    }

    let mut sources = Sources::bind(options, reactors)?;
    let limit = Arc::new(ConnectionLimit::new(max_connections));
    let addresses: Vec<Arc<AddressLimit>> =
        options.listeners.iter().map(|l| Arc::new(AddressLimit::new(l.max_connections_per_address))).collect();
    let spread = Arc::new(Spread::new(shards.clone()));
    let size = max_connections.div_ceil(reactors);
    let make_rings = || (0..reactors).map(|_| UringEngine::new(size, options.memory.ring_buffers)).collect();
    let (engine, rings) = engine::choose(options.engine, make_rings)?;
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
        addresses: &addresses,
        certificates: &certificates,
        tcp: &mut sources.tcp,
    };
    match rings {
        Some(rings) => seats.fill(rings)?,
        None => {
            let engines = (0..reactors).map(|_| EpollEngine::new(size)).collect::<io::Result<_>>();
            seats.fill(engines.map_err(resource("open an epoll instance"))?)?;
        }
    }
    for handed in sources.single {
        let _ = spread.hand(None, handed); // far fewer than an inbox holds
    }
    let (mut acceptor, mut acceptor_thread) = (None, None);
    if !sources.unix.is_empty() {
        let (running, stop) =
            Acceptor::new(sources.unix, Arc::clone(&spread)).map_err(resource("watch Unix sockets"))?;
        let flags = Arc::clone(&control);
        let body = move || match running.run(&flags) {
            Ok(()) => Notice::ReactorEnded(Ok(())),
            Err(e) => Notice::ReactorEnded(Err(e.to_string())),
        };
        let thread =
            spawn("acceptor".into(), Place::default(), notices.clone(), body).map_err(resource("start an acceptor"))?;
        (acceptor, acceptor_thread) = (Some(stop), Some(thread));
    }
    shards.iter().flat_map(|s| &s.channels).for_each(|c| c.pool.warm_up());
    control.start();
    fault_in(&shards, plan).map_err(resource("start a thread"))?;
    let data_dir = std::fs::canonicalize(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone());
    Ok(Running {
        control,
        metrics,
        certificates,
        started: Started {
            listeners: sources.addresses,
            admin,
            data_dir,
            engine: engine.describe(),
            io: modes.describe(&options.streams),
            max_connections,
            connection_bytes: max_connections * bytes_per_connection(&options.listeners),
        },
        threads: Threads {
            shards,
            reactors_left: reactors + usize::from(acceptor.is_some()),
            acceptor,
            acceptor_thread,
            writers_left: placement.shards,
            clean: true,
            sockets: sources.paths,
            _lock: lock,
        },
    })
}

/// Has the kernel give the rest of the memory while the server runs already: at the first touch it would cost the reactors.
fn fault_in(shards: &[Arc<Shard>], plan: &[ShardPlan]) -> io::Result<()> {
    /// Chunks between two looks at whether the pools are needed more.
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

fn recover(disk: &dyn Disk, clock: &dyn Clock, data_dir: &Path, strict: bool) -> Result<RecoverySums, StartError> {
    let start = Instant::now();
    let mut sums = RecoverySums::default();
    for dir in data_dir::stream_dirs(disk, data_dir)? {
        for one in recover_dir(disk, clock, &dir, strict)? {
            sums.add(&one);
            let (stream, segment) = (dir.display(), one.id.sequence);
            if let Some(damage) = &one.damage {
                tracing::error!(%stream, segment, damage, "DAMAGE: durable bytes are not what they were; the file is kept as it is");
            }
            tracing::info!(%stream, segment, lines = one.lines, bytes = one.bytes, torn_bytes = one.torn_bytes, "recovered");
        }
    }
    if sums.segments > 0 {
        tracing::info!(
            segments = sums.segments,
            lines = sums.lines,
            ms = start.elapsed().as_millis() as u64,
            "recovery done"
        );
    }
    Ok(sums)
}

fn open_streams(
    options: &Options,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    node: [u8; 16],
    shard: u16,
    modes: FileModes,
    steward: &mut Threaded,
) -> Result<Vec<StreamWriter>, StartError> {
    let mut streams = Vec::new();
    for (index, settings) in options.streams.iter().enumerate() {
        let dir = StreamDir::open(
            Arc::clone(disk),
            Arc::clone(clock),
            &options.data_dir,
            node,
            &settings.name,
            shard,
            settings.reserve_step,
        )?;
        let stream_options = StreamOptions {
            name: settings.name.clone(),
            append: AppendOptions { large: modes.of(settings.io), reserve_step: settings.reserve_step },
            segment_bytes: settings.segment_bytes,
            segment_age_ns: settings.segment_age.as_nanos() as u64,
            sync: SyncPolicy { interval_ns: settings.sync_interval.as_nanos() as u64, bytes: settings.sync_bytes },
        };
        streams.push(StreamWriter::open(index, Arc::new(dir), stream_options, options.listeners.len(), steward)?);
    }
    Ok(streams)
}
