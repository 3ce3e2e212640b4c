//! One simulated process: the real sessions, reactors, rings, writers, stewards, log and recovery, on simulated threads.

use super::client::Speaks;
use super::common::sim_disk::SimDisk;
use super::fiber::{Fiber, Flag, SimClock, below, machine, note, now, once_in, point, sleep};
use super::ledger::Promise;
use super::net::{Net, SharedNet, SimEngine};
use crossbeam_queue::ArrayQueue;
use logweir::config::{Options, Overrides, load_text};
use logweir::host::clock::Clock;
use logweir::intake::listener::ListenerOptions;
use logweir::intake::reactor::{AddressLimit, Books, ConnectionLimit, ListenerRun, Reactor, Seat, Setup};
use logweir::intake::spread::Spread;
use logweir::log::LogError;
use logweir::log::commit::generation::Generation;
use logweir::log::commit::recover::{Around, Brought};
use logweir::log::commit::{self};
use logweir::log::disk::{Caching, Disk};
use logweir::log::recover::recover_dir;
use logweir::log::segment::AppendOptions;
use logweir::log::stream_dir::StreamDir;
use logweir::metrics::accounting::{Accounting, Ledger};
use logweir::pipeline::chunk::{Chunk, Class};
use logweir::pipeline::commit::{self as commit_place, CommitLog, StreamNames};
use logweir::pipeline::control::Control;
use logweir::pipeline::shard::{Shard, ShardSize};
use logweir::pipeline::sleep::Sleep;
use logweir::pipeline::writer::steward::{Done, Job, Steward, work};
use logweir::pipeline::writer::stream::{StreamOptions, StreamWriter};
use logweir::pipeline::writer::syncers::InTurn;
use logweir::pipeline::writer::unsynced::SyncPolicy;
use logweir::pipeline::writer::{Parts, Writer};
use logweir::session::memory::tail::TailStore;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

pub const DATA: &str = "/data";

/// Every kind of listener; their streams by turns. Times are short, since nobody waits for them.
const CONFIG: &str = r#"
[placement]
shards = 1
reactors_per_shard = 1
[storage]
segment_size = "64KiB"
[listener.plain]
address = "tcp://127.0.0.1:1"
unterminated = "drop"
[listener.evicted]
address = "tcp://127.0.0.1:2"
unterminated = "drop"
when_full = "drop_oldest"
stream = "other"
[listener.dropped]
address = "tcp://127.0.0.1:3"
unterminated = "drop"
when_full = "drop_newest"
[listener.durable]
address = "tcp://127.0.0.1:4"
reply = "count"
unterminated = "drop"
[listener.written]
address = "tcp://127.0.0.1:5"
reply = "count"
ack = "written"
unterminated = "drop"
stream = "other"
[listener.received]
address = "tcp://127.0.0.1:6"
reply = "count"
ack = "received"
unterminated = "drop"
[listener.web]
protocol = "http"
address = "tcp://127.0.0.1:7"
max_header_bytes = "1KiB"
[listener.webwritten]
protocol = "http"
address = "tcp://127.0.0.1:8"
ack = "written"
max_header_bytes = "1KiB"
stream = "other"
[listener.relp]
protocol = "relp"
address = "tcp://127.0.0.1:9"
[listener.relpwritten]
protocol = "relp"
address = "tcp://127.0.0.1:10"
ack = "written"
stream = "other"
[listener.apis]
protocol = "http"
address = "tcp://127.0.0.1:11"
apis = ["loki", "elasticsearch", "splunk", "otlp", "datadog", "journal"]
format = "raw"
max_header_bytes = "1KiB"
[listener.apiswritten]
protocol = "http"
address = "tcp://127.0.0.1:12"
apis = ["loki", "elasticsearch", "splunk", "otlp", "datadog", "journal"]
format = "raw"
ack = "written"
max_header_bytes = "1KiB"
stream = "other"
[listener.numbered]
protocol = "http"
address = "tcp://127.0.0.1:13"
apis = ["splunk"]
splunk_ack = true
format = "raw"
max_header_bytes = "1KiB"
"#;

/// The options; read once, since reading looks at the machine. What they hold of a process (memory that is leased, Splunk's numbers) is one
/// for all: [`own_options`] are those of a process.
pub fn options() -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(own_options)
}

fn own_options() -> Options {
    let mut overrides = Overrides::default();
    const NAMES: [&str; 13] = [
        "plain",
        "evicted",
        "dropped",
        "durable",
        "written",
        "received",
        "web",
        "webwritten",
        "relp",
        "relpwritten",
        "apis",
        "apiswritten",
        "numbered",
    ];
    for name in NAMES {
        let set = |key: &str, value: &str| (format!("listener.{name}.{key}"), value.into(), "test".into());
        // JSON has six characters for one that looks like a hole.
        let longest = if name.starts_with("api") || name == "numbered" { "12KiB" } else { "4KiB" };
        overrides.set.push(set("max_line_bytes", longest));
        overrides.set.push(set("idle_timeout", "0s"));
        overrides.set.push(set("max_connections_per_address", "0"));
    }
    load_text(CONFIG, "simulation", &overrides, |_| None).unwrap()
}

/// What clients of a listener speak.
pub fn speaks(listener: &ListenerOptions) -> Speaks {
    match listener.name.as_str() {
        "durable" => Speaks::Counted(Promise::Durable),
        "written" => Speaks::Counted(Promise::Written),
        "received" => Speaks::Counted(Promise::Received),
        "web" => Speaks::Http(Promise::Durable),
        "webwritten" => Speaks::Http(Promise::Written),
        "apis" => Speaks::Apis(Promise::Durable),
        "apiswritten" => Speaks::Apis(Promise::Written),
        "numbered" => Speaks::Numbered(Promise::Durable),
        "relp" => Speaks::Relp(Promise::Durable),
        "relpwritten" => Speaks::Relp(Promise::Written),
        _ => Speaks::Lines,
    }
}

/// How large this run's processes are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub shards: usize,
    pub reactors: usize,
    /// Chunks beyond the least.
    pub spare_chunks: usize,
    pub segment_bytes: u64,
    pub segment_age_ns: u64,
    pub sync_bytes: u64,
    pub sync_interval_ns: u64,
    pub tail_budget: usize,
    /// Bytes of each commit log; 0: there is none.
    pub commit_log: u64,
}

impl Sizes {
    pub fn any() -> Sizes {
        Sizes {
            shards: 1 + usize::from(once_in(3)),
            reactors: 1 + below(3) as usize,
            spare_chunks: below(6) as usize,
            segment_bytes: [8_000, 20_000, 60_000][below(3) as usize],
            segment_age_ns: [20_000_000, 1_000_000_000_000][below(2) as usize],
            sync_bytes: [4_000, 30_000, 1 << 20][below(3) as usize],
            sync_interval_ns: [1_000_000, 30_000_000, 10_000_000_000][below(3) as usize],
            tail_budget: [2 << 10, 16 << 10][below(2) as usize],
            commit_log: [0, 8, 16, 256, 256][below(5) as usize] * 4096,
        }
    }
}

/// What a process shows to the scheduler once it serves.
pub struct Serving {
    pub control: Arc<Control>,
    pub shards: Vec<Arc<Shard>>,
    pub accounting: Accounting,
    pub net: SharedNet,
    pub fibers: Vec<Fiber>,
    /// Commit logs that are not handed over yet, by shard and place in it.
    pub logs: Vec<(usize, usize, Box<CommitLog>)>,
    pub generation: u64,
    pub reactors_over: Rc<Cell<usize>>,
    /// Writers that have ended; and whether all of them ended clean.
    pub writers_over: Rc<Cell<(usize, bool)>>,
}

struct SimSleep(Flag);

impl Sleep for SimSleep {
    fn sleep(&self, at_most: Option<Duration>) {
        point();
        if !self.0.swap(false, Ordering::SeqCst) {
            sleep(at_most.map(|t| now() + t.as_nanos() as u64));
            self.0.store(false, Ordering::SeqCst);
        }
    }
}

#[derive(Clone)]
struct SimSteward {
    jobs: Arc<Mutex<VecDeque<Job>>>,
    done: Arc<Mutex<VecDeque<Done>>>,
    flag: Flag,
}

impl Steward for SimSteward {
    fn submit(&mut self, job: Job) {
        self.jobs.lock().unwrap().push_back(job);
        self.flag.store(true, Ordering::SeqCst);
    }
    fn poll(&mut self) -> Option<Done> {
        self.done.lock().unwrap().pop_front()
    }
    fn pause(&self, sleeper: &dyn Sleep, at_most: Duration) {
        sleeper.sleep(Some(at_most));
    }
}

impl SimSteward {
    /// The steward's thread: jobs in their order, for ever.
    fn run(self, writer: &Flag) {
        loop {
            let job = self.jobs.lock().unwrap().pop_front();
            match job {
                Some(job) => work(job, &SimClock, &mut InTurn(Arc::new(SimClock)), |result| {
                    note("steward", 0);
                    self.done.lock().unwrap().push_back(result);
                    writer.store(true, Ordering::SeqCst);
                }),
                None if self.flag.swap(false, Ordering::SeqCst) => {}
                None => sleep(None),
            }
        }
    }
}

/// All files but the notes of a shipper, which may run meanwhile.
fn files_of_the_server(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = disk.contents("");
    files.retain(|(path, _)| path.parent().is_none_or(|dir| !dir.ends_with(".logweir/ship")));
    files
}

/// Starts a process: recovers, opens the streams, makes the threads. Runs in a fiber itself.
pub fn start(disk: &SimDisk, sizes: Sizes) -> Result<Serving, LogError> {
    let options = own_options();
    let clock: Arc<dyn Clock> = Arc::new(SimClock);
    let disk_too: Arc<dyn Disk> = Arc::new(disk.clone());
    for stream in &options.streams {
        let dir = Path::new(DATA).join(&stream.name);
        for one in recover_dir(&*disk_too, &*clock, &dir, false)? {
            if machine(|m| m.talks) {
                eprintln!("{} {one:?}", stream.name);
            }
            assert_eq!(one.damage, None, "no crash damages what was synced: {one:?}");
        }
        let before = files_of_the_server(disk);
        assert_eq!(recover_dir(&*disk_too, &*clock, &dir, false)?, [], "once is enough");
        assert_eq!(before, files_of_the_server(disk), "and twice is the same");
    }
    let around = Around { disk: &disk_too, clock: &clock, data_dir: Path::new(DATA), sealed_dir: None, node: [7; 16] };
    let (last, brought) = commit::recover::recover(&around)?;
    if machine(|m| m.talks) {
        eprintln!("generation {last} {brought:?}");
    }
    let before = files_of_the_server(disk);
    assert_eq!(commit::recover::recover(&around)?, (last, Brought::default()), "once is enough");
    assert_eq!(before, files_of_the_server(disk), "and twice is the same");
    let (generation, mut first) = (last + 1, BTreeMap::new());
    let names = Arc::new(StreamNames::new(options.streams.len()));
    for (i, settings) in options.streams.iter().enumerate() {
        if i == 0 || !once_in(4) {
            names.admit(i, &settings.name);
        }
    }
    let listeners = options.listeners.len();
    let control = Arc::new(Control::default());
    let mut accounting = Accounting::new(listeners);
    let least = options.listeners.iter().map(ListenerOptions::least_chunk_bytes).max().unwrap();
    // A lane for each pair of class and level, of each reactor.
    let count = |lanes: usize| lanes * sizes.reactors + 3 + sizes.spare_chunks;
    let size = ShardSize {
        reactors: sizes.reactors,
        chunks: vec![(Class::Lossless, count(3)), (Class::Lossy, count(1))],
        chunk_bytes: least.next_multiple_of(4096),
        node: None,
    };
    let (mut shards, mut fibers) = (Vec::new(), Vec::new());
    let writers_over = Rc::new(Cell::new((0, true)));
    for index in 0..sizes.shards {
        let flag = Flag::default();
        let waker = Arc::clone(&flag);
        let shard = Shard::new(index as u16, &size, Arc::new(move || waker.store(true, Ordering::SeqCst))).unwrap();
        accounting.capacity_bytes += shard.capacity_bytes();
        let ledger = Ledger::new(listeners);
        accounting.downstream.push(Arc::clone(&ledger));
        let mut steward = SimSteward { jobs: Arc::default(), done: Arc::default(), flag: Flag::default() };
        let mut streams = Vec::new();
        for (i, settings) in options.streams.iter().enumerate() {
            let (disk, clock) = (Arc::clone(&disk_too), Arc::clone(&clock));
            let dir = StreamDir::open(disk, clock, Path::new(DATA), [7; 16], &settings.name, index as u16, 8192)?;
            let stream = StreamOptions {
                name: settings.name.clone(),
                append: AppendOptions { large: Caching::Keep, reserve_step: 8192 },
                segment_bytes: sizes.segment_bytes,
                segment_age_ns: sizes.segment_age_ns,
                sync: SyncPolicy { interval_ns: sizes.sync_interval_ns, bytes: sizes.sync_bytes },
            };
            let begun = dir.begin_first()?;
            let stream = StreamWriter::begun(i, Arc::new(dir), stream, begun, &mut steward);
            first.extend(stream.first_segment().map(|(name, id)| ((name, id.shard), id.sequence)));
            streams.push(stream);
        }
        let (body, woken) = (steward.clone(), Arc::clone(&flag));
        fibers.push(Fiber::new("steward", Arc::clone(&steward.flag), move || body.run(&woken)));
        let writer = Writer::new(Parts {
            shard: Arc::clone(&shard),
            control: Arc::clone(&control),
            clock: Arc::clone(&clock),
            steward: Box::new(steward),
            syncers: Box::new(InTurn(Arc::clone(&clock))),
            sleeper: Box::new(SimSleep(Arc::clone(&flag))),
            ledger,
            streams,
            changes: Arc::new(ArrayQueue::new(1)),
        });
        let over = Rc::clone(&writers_over);
        fibers.push(Fiber::new("writer", Arc::clone(&flag), move || {
            let clean = writer.run();
            over.set((over.get().0 + 1, over.get().1 && clean));
        }));
        shards.push(shard);
    }
    Generation { number: generation, is_empty: false, first }.begin(&*disk_too, Path::new(DATA))?;
    let mut logs = Vec::new();
    for number in 0..if sizes.commit_log > 0 { sizes.shards * sizes.reactors } else { 0 } {
        let path = commit::path(Path::new(DATA), number as u16);
        let make = (disk_too.size_of(&path).ok() != Some(sizes.commit_log)).then_some(sizes.commit_log);
        let (shard, place) = (number / sizes.reactors, number % sizes.reactors);
        let log = CommitLog::new(commit_place::Place {
            file: disk_too.fixed(&path, make).map_err(|error| LogError::Io { what: "open", path, error })?,
            bytes: sizes.commit_log,
            generation,
            reactor: number as u16,
            shard: shard as u16,
            names: Arc::clone(&names),
            progress: Arc::default(),
            direct_ns: 0,
        });
        logs.push((shard, place, Box::new(log.unwrap())));
    }
    let reactors: Vec<Flag> = (0..sizes.shards * sizes.reactors).map(|_| Flag::default()).collect();
    let net = Net::new(&reactors);
    let spread = Arc::new(Spread::new(shards.clone()));
    let connections = Arc::new(ConnectionLimit::new(1000));
    let reactors_over = Rc::new(Cell::new(0));
    let (notices, _) = std::sync::mpsc::channel();
    let scratch = options.listeners.iter().map(ListenerOptions::scratch_bytes).max().unwrap();
    let tail = options.listeners.iter().map(ListenerOptions::longest_tail).max().unwrap();
    for (number, flag) in reactors.iter().enumerate() {
        let (upstream, evictions) = (Ledger::new(listeners), Ledger::new(listeners));
        accounting.upstream.push(Arc::clone(&upstream));
        accounting.downstream.push(Arc::clone(&evictions));
        let run = |options: &ListenerOptions| ListenerRun {
            options: options.clone(),
            addresses: Arc::new(AddressLimit::new(0, 64)),
            tls: None,
            is_gone: false,
        };
        // Boxed: what a coroutine takes along must be small.
        let reactor = Box::new(Reactor::new(Setup {
            engine: SimEngine { net: Rc::clone(&net), number, control: Arc::clone(&control) },
            seat: Seat {
                index: number % sizes.reactors,
                number,
                spread: Arc::clone(&spread),
                shard: Arc::clone(&shards[number / sizes.reactors]),
                control: Arc::clone(&control),
                clock: Arc::clone(&clock),
                notices: notices.clone(),
                changes: Arc::new(ArrayQueue::new(1)),
            },
            books: Books { upstream, evictions },
            listeners: options.listeners.iter().map(run).collect(),
            connections: Arc::clone(&connections),
            tails: TailStore::new(sizes.tail_budget, tail, 1000).unwrap(),
            room: Arc::clone(&options.room),
            scratch: Some(Box::new(Chunk::new(scratch).unwrap())),
            discard: Some(Box::new(Chunk::new(size.chunk_bytes).unwrap())),
            handshakes_per_second: 100,
            linger: Duration::from_millis(5),
        }));
        let over = Rc::clone(&reactors_over);
        fibers.push(Fiber::new("reactor", Arc::clone(flag), move || {
            reactor.run().unwrap();
            over.set(over.get() + 1);
        }));
    }
    control.start();
    Ok(Serving { control, shards, accounting, net, fibers, logs, generation, reactors_over, writers_over })
}

impl Serving {
    /// A commit log is ready for its reactor.
    pub fn hand_over_a_log(&mut self) {
        if let Some((shard, place, log)) = self.logs.pop() {
            let _ = self.shards[shard].reactors[place].commit.push(log);
            self.shards[shard].reactors[place].wake();
        }
    }

    /// Behind an orderly end that was clean.
    pub fn empty_the_logs(&self, disk: &SimDisk) {
        let empty = Generation { number: self.generation, is_empty: true, first: BTreeMap::new() };
        let _ = empty.begin(disk, Path::new(DATA));
    }

    /// Raises the flags of all reactors, as the control thread does.
    pub fn wake_reactors(&self) {
        self.shards.iter().flat_map(|s| &s.reactors).for_each(logweir::pipeline::shard::ReactorPort::wake);
    }

    pub fn wake_writers(&self) {
        self.shards.iter().for_each(|s| (s.writer)());
    }

    /// The account of the moment: it must balance, always.
    pub fn scrape(&self) -> Vec<logweir::metrics::accounting::Account> {
        let accounts = self.accounting.snapshot();
        let mut in_flight = 0;
        for (listener, account) in options().listeners.iter().zip(&accounts) {
            assert!(account.residual().is_zero(), "listener {}: {account:?}", listener.name);
            for level in [account.in_flight, account.written] {
                assert!(level.bytes < 1 << 60 && level.lines < 1 << 60, "listener {}: {account:?}", listener.name);
            }
            in_flight += account.in_flight.bytes;
        }
        assert!(in_flight <= self.accounting.capacity_bytes, "{in_flight} bytes in flight");
        accounts
    }
}

/// A process that may not have come far yet.
pub struct Process {
    boot: Fiber,
    result: Rc<RefCell<Option<Result<Serving, LogError>>>>,
}

impl Process {
    pub fn new(disk: &SimDisk, sizes: Sizes) -> Process {
        let (disk, result) = (disk.clone(), Rc::new(RefCell::new(None)));
        let slot = Rc::clone(&result);
        let body = move || {
            let started = start(&disk, sizes);
            *slot.borrow_mut() = Some(started);
        };
        Process { boot: Fiber::new("boot", Arc::new(AtomicBool::new(false)), body), result }
    }

    /// Goes on with starting. The result, once there is one.
    pub fn step(&mut self) -> Option<Result<Serving, LogError>> {
        if !self.boot.is_runnable() {
            let at = self.boot.wakes_at().expect("starting waits for nobody");
            machine(|m| m.now = m.now.max(at));
        }
        self.boot.run();
        self.result.borrow_mut().take()
    }
}
