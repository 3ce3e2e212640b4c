//! Puts a server together, in the order: lock, admin, recovery, writers, sockets, reactors.

use super::engine;
use super::pin::{Cores, spawn};
use super::{StartError, Started};
use crate::acceptor::{Acceptor, Stop};
use crate::chunk::Chunk;
use crate::clock::Clock;
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::config::raw::Io;
use crate::control::{Control, Notice};
use crate::limits;
use crate::log::data_dir::{self, Lock};
use crate::log::disk::Disk;
use crate::log::recover::recover_dir;
use crate::log::segment::AppendOptions;
use crate::log::stream_dir::StreamDir;
use crate::metrics::accounting::{Accounting, Ledger};
use crate::metrics::render::{Metrics, RecoverySums};
use crate::net::listen::{self, Address};
use crate::net::{Engine, EpollEngine, UringEngine, Kind, ListenerId, Peer, Socket, stdin};
use crate::reactor::{AddressLimit, BYTES_PER_CONNECTION, ConnectionLimit, ListenerRun, Reactor, Setup};
use crate::session::tail::TailStore;
use crate::shard::{Handed, Shard, ShardSize};
use crate::spread::Spread;
use crate::writer::steward::Threaded;
use crate::writer::stream::{StreamOptions, StreamWriter};
use crate::writer::unsynced::SyncPolicy;
use crate::writer::{Parts, Writer};
use crossbeam_utils::sync::Parker;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// What runs.
pub struct Running {
    pub control: Arc<Control>,
    pub metrics: Arc<Metrics>,
    pub threads: Threads,
    pub started: Started,
}

/// The threads, and what is needed to end them.
pub struct Threads {
    shards: Vec<Arc<Shard>>,
    acceptor: Option<Stop>,
    acceptor_thread: Option<std::thread::JoinHandle<()>>,
    reactors_left: usize,
    writers_left: usize,
    clean: bool,
    sockets: Vec<PathBuf>,
    /// Held as long as the server runs.
    _lock: Lock,
}

impl Threads {
    /// Lets acceptors hand on what waits, and end, before reactors do.
    pub fn stop_acceptors(&mut self) {
        if let Some(stop) = self.acceptor.take() {
            stop.stop();
        }
        if let Some(thread) = self.acceptor_thread.take() {
            let _ = thread.join(); // a panic was reported as a notice
        }
    }

    pub fn wake_reactors(&self) {
        self.shards.iter().flat_map(|s| &s.reactors).for_each(crate::shard::ReactorPort::wake);
    }

    pub fn wake_writers(&self) {
        self.shards.iter().for_each(|s| s.writer.unpark());
    }

    pub fn reactor_ended(&mut self, result: &Result<(), String>) {
        if let Err(error) = result {
            tracing::error!(error, "a reactor's engine failed");
            self.clean = false;
        }
        self.reactors_left -= 1;
    }

    pub fn writer_ended(&mut self, clean: bool) {
        self.clean &= clean;
        self.writers_left -= 1;
    }

    pub fn all_ended(&self, reactors: bool) -> bool {
        if reactors { self.reactors_left == 0 } else { self.writers_left == 0 }
    }

    pub fn writers_clean(&self) -> bool {
        self.clean && self.writers_left == 0 && self.reactors_left == 0
    }

    pub fn remove_sockets(&self) {
        for path in &self.sockets {
            let _ = std::fs::remove_file(path); // another server may have taken the path over
        }
    }
}

fn resource(what: &'static str) -> impl Fn(io::Error) -> StartError {
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
    let placement = &options.placement;
    let max_connections =
        limits::connections_that_fit(options.max_connections, options.streams.len(), placement.shards);
    if max_connections < options.max_connections {
        tracing::warn!(max_connections, "limits.max_connections lowered to what the descriptor limit allows");
    }

    let listeners = options.listeners.len();
    let mut accounting = Accounting::new(listeners);
    let mut shards = Vec::new();
    let mut parkers = Vec::new();
    for index in 0..placement.shards {
        let parker = Parker::new();
        let size = ShardSize {
            reactors: placement.reactors_per_shard,
            chunks: options.memory.chunks.clone(),
            chunk_bytes: options.memory.chunk_bytes,
        };
        let shard = Shard::new(index as u16, &size, parker.unparker().clone()).map_err(resource("map chunks"))?;
        accounting.capacity_bytes += shard.capacity_bytes();
        accounting.downstream.push(Ledger::new(listeners));
        shards.push(shard);
        parkers.push(parker);
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
    let dont_cache = disk.can_drop_cache(&options.data_dir.join(data_dir::STATE_DIR));

    let mut cores = Cores::new(&placement.pin);
    let mut pins = Vec::new();
    for _ in 0..placement.shards {
        let of_reactors: Vec<Option<usize>> = (0..placement.reactors_per_shard).map(|_| cores.next()).collect();
        pins.push((of_reactors, cores.next()));
    }
    for (i, parker) in parkers.into_iter().enumerate() {
        let shard = Arc::clone(&shards[i]);
        let mut steward = Threaded::start(shard.index, options.streams.len(), Arc::clone(clock), shard.writer.clone())
            .map_err(resource("start a steward"))?;
        let streams = open_streams(options, disk, clock, node, shard.index, dont_cache, &mut steward)?;
        let writer = Writer::new(Parts {
            shard,
            control: Arc::clone(&control),
            clock: Arc::clone(clock),
            steward: Box::new(steward),
            parker,
            ledger: Arc::clone(&writers[i]),
            listeners,
            streams,
        });
        spawn(format!("writer-{i}"), pins[i].1, notices.clone(), move || Notice::WriterEnded(writer.run()))
            .map_err(resource("start a writer"))?;
    }

    let mut sources = Sources::bind(options, reactors)?;
    let limit = Arc::new(ConnectionLimit::new(max_connections));
    let addresses: Vec<Arc<AddressLimit>> =
        options.listeners.iter().map(|l| Arc::new(AddressLimit::new(l.max_connections_per_address))).collect();
    let spread = Arc::new(Spread::new(shards.clone()));
    let engine = engine::choose(options.engine)?;
    let _ = metrics.engine.set(engine.label()); // set here only
    let size = max_connections.div_ceil(reactors);
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
        pins: &pins,
        tcp: &mut sources.tcp,
    };
    match engine.kind {
        engine::Kind::Epoll => seats.fill(|| EpollEngine::new(size))?,
        engine::Kind::IoUring => {
            let buffers = options.memory.ring_buffers;
            seats.fill(|| UringEngine::new(size, buffers))?;
        }
    }
    for handed in sources.single {
        let _ = spread.hand(None, handed); // far fewer than an inbox holds
    }
    let (mut acceptor, mut acceptor_thread) = (None, None);
    if !sources.unix.is_empty() {
        let (running, stop) = Acceptor::new(sources.unix, Arc::clone(&spread)).map_err(resource("watch Unix sockets"))?;
        let flags = Arc::clone(&control);
        let body = move || match running.run(&flags) {
            Ok(()) => Notice::ReactorEnded(Ok(())),
            Err(e) => Notice::ReactorEnded(Err(e.to_string())),
        };
        let thread = spawn("acceptor".into(), None, notices.clone(), body).map_err(resource("start an acceptor"))?;
        (acceptor, acceptor_thread) = (Some(stop), Some(thread));
    }
    control.start();
    let data_dir = std::fs::canonicalize(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone());
    Ok(Running {
        control,
        metrics,
        started: Started {
            listeners: sources.addresses,
            admin,
            data_dir,
            engine: engine.describe(),
            io: describe_io(&options.streams, dont_cache),
            max_connections,
            connection_bytes: max_connections * BYTES_PER_CONNECTION,
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

/// What reactors are made of.
struct Seats<'a> {
    options: &'a Options,
    shards: &'a [Arc<Shard>],
    control: &'a Arc<Control>,
    clock: &'a Arc<dyn Clock>,
    notices: &'a Sender<Notice>,
    upstream: &'a [Arc<Ledger>],
    evictions: &'a [Arc<Ledger>],
    connections: &'a Arc<ConnectionLimit>,
    spread: &'a Arc<Spread>,
    addresses: &'a [Arc<AddressLimit>],
    pins: &'a [(Vec<Option<usize>>, Option<usize>)],
    tcp: &'a mut HashMap<ListenerId, Vec<socket2::Socket>>,
}

impl Seats<'_> {
    /// Starts all reactors, each with an engine of its own.
    fn fill<E: Engine + Send + 'static>(&mut self, make: impl Fn() -> io::Result<E>) -> Result<(), StartError> {
        let per_shard = self.options.placement.reactors_per_shard;
        for number in 0..self.upstream.len() {
            let mut engine = make().map_err(resource("make an engine"))?;
            for (id, sockets) in &mut *self.tcp {
                if let Some(socket) = sockets.pop() {
                    engine.listen(*id, socket).map_err(resource("watch a listener"))?;
                }
            }
            let (shard, index) = (number / per_shard, number % per_shard);
            let reactor = Reactor::new(self.setup(engine, number, shard, index)?);
            let body = move || Notice::ReactorEnded(reactor.run().map_err(|e| e.to_string()));
            spawn(format!("reactor-{number}"), self.pins[shard].0[index], self.notices.clone(), body)
                .map_err(resource("start a reactor"))?;
        }
        Ok(())
    }

    fn setup<E: Engine>(&self, engine: E, number: usize, shard: usize, index: usize) -> Result<Setup<E>, StartError> {
        let memory = &self.options.memory;
        let listeners = self.options.listeners.iter().zip(self.addresses);
        let discard = if memory.discards {
            Some(Box::new(Chunk::new(memory.chunk_bytes).map_err(resource("map a buffer"))?))
        } else {
            None
        };
        Ok(Setup {
            engine,
            index,
            shard: Arc::clone(&self.shards[shard]),
            control: Arc::clone(self.control),
            clock: Arc::clone(self.clock),
            listeners: listeners
                .map(|(l, a)| ListenerRun { options: l.clone(), addresses: Arc::clone(a) })
                .collect(),
            upstream: Arc::clone(&self.upstream[number]),
            evictions: Arc::clone(&self.evictions[number]),
            connections: Arc::clone(self.connections),
            spread: Arc::clone(self.spread),
            number,
            tails: TailStore::new(memory.tail_budget, memory.tail_reserve).map_err(resource("map tails"))?,
            discard,
            linger: self.options.linger,
            notices: self.notices.clone(),
        })
    }
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
    dont_cache: bool,
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
            append: AppendOptions {
                dont_cache: settings.io != Io::Append && dont_cache,
                reserve_step: settings.reserve_step,
            },
            segment_bytes: settings.segment_bytes,
            segment_age_ns: settings.segment_age.as_nanos() as u64,
            sync: SyncPolicy { interval_ns: settings.sync_interval.as_nanos() as u64, bytes: settings.sync_bytes },
        };
        streams.push(StreamWriter::open(index, Arc::new(dir), stream_options, options.listeners.len(), steward)?);
    }
    Ok(streams)
}

fn describe_io(streams: &[StreamSettings], dont_cache: bool) -> String {
    let append_only = streams.iter().all(|s| s.io == Io::Append);
    match (append_only, dont_cache) {
        (true, _) => "append, through the page cache, as configured".into(),
        (false, true) => "append with RWF_DONTCACHE (large writes leave the page cache to others)".into(),
        (false, false) => "append, through the page cache (kernel or file system lack RWF_DONTCACHE)".into(),
    }
}

/// The sockets of all listeners.
struct Sources {
    addresses: Vec<(String, String)>,
    tcp: HashMap<ListenerId, Vec<socket2::Socket>>,
    unix: Vec<(ListenerId, socket2::Socket)>,
    single: Vec<Handed>,
    paths: Vec<PathBuf>,
}

impl Sources {
    fn bind(options: &Options, reactors: usize) -> Result<Sources, StartError> {
        let mut sources = Sources {
            addresses: Vec::new(),
            tcp: HashMap::new(),
            unix: Vec::new(),
            single: Vec::new(),
            paths: Vec::new(),
        };
        for (id, listener) in options.listeners.iter().enumerate() {
            let id = id as ListenerId;
            let address = sources.bind_one(id, &listener.address, listener.socket_mode, reactors).map_err(|error| {
                sources.paths.iter().for_each(|p| drop(std::fs::remove_file(p)));
                StartError::Listen { name: listener.name.clone(), address: listener.address.to_string(), error }
            })?;
            sources.addresses.push((listener.name.clone(), address.to_string()));
        }
        Ok(sources)
    }

    fn bind_one(&mut self, id: ListenerId, address: &Address, mode: u32, reactors: usize) -> io::Result<Address> {
        match address {
            Address::Tcp(tcp) => {
                let (sockets, real) = listen::bind_tcp(*tcp, reactors)?;
                self.tcp.insert(id, sockets);
                return Ok(Address::Tcp(real));
            }
            Address::Unix(path) => {
                self.unix.push((id, listen::bind_unix(path, Kind::Stream, mode)?));
                self.paths.push(path.clone());
            }
            Address::UnixDatagram(path) => {
                let fd = listen::bind_unix(path, Kind::Datagram, mode)?;
                self.paths.push(path.clone());
                let socket = Socket { fd, kind: Kind::Datagram };
                self.single.push(Handed { listener: id, socket, peer: Peer::Local, moved: None });
            }
            Address::Stdin => {
                let socket = stdin::source(io::stdin())?;
                self.single.push(Handed { listener: id, socket, peer: Peer::Local, moved: None });
            }
        }
        Ok(address.clone())
    }
}
