//! Connections spread evenly over shards and reactors, from the start and later, and their lines keep their order.

mod common;

use common::{Metrics, Server, await_that, scratch};
use logweir::bench::lines::numbered;
use logweir::config::{Overrides, load_text};
use logweir::host::clock::{BootId, Clock, SystemClock};
use logweir::log::real_disk::RealDisk;
use logweir::pipeline::control::Notice;
use logweir::server;
use logweir::watch::render;
use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn config(shards: usize, reactors: usize, more: &str) -> String {
    format!(
        "[placement]\nshards = {shards}\nreactors_per_shard = {reactors}\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n{more}"
    )
}

/// Connections of each shard, or of each reactor.
fn counts(server: &Server, of: &str, n: usize) -> Vec<f64> {
    let metrics = server.metrics();
    match of {
        "shard" => (0..n).map(|i| metrics.sum("logweir_connections", &format!("shard=\"{i}\""))).collect(),
        _ => (0..n).map(|i| metrics.sum("logweir_reactor_connections", &format!("reactor=\"{i}\""))).collect(),
    }
}

#[test]
fn eight_connections_over_two_shards_start_four_and_four() {
    for engine in ["epoll", "io_uring"] {
        let dir = scratch();
        let config = config(2, 1, "");
        let set = format!("engine={engine}");
        let server = Server::with_config_and(&dir.path().join("data"), &config, &["--set", &set]);
        let mut held = Vec::new();
        for n in 1..=8 {
            held.push(server.connect());
            await_that("the connection", || counts(&server, "shard", 2).iter().sum::<f64>() == f64::from(n));
        }
        assert_eq!(counts(&server, "shard", 2), [4.0, 4.0]);
        // Those that go make room: the next ones fill up the same shard.
        held.truncate(4);
        await_that("four gone", || counts(&server, "shard", 2).iter().sum::<f64>() == 4.0);
        held.extend((0..4).map(|_| server.connect()));
        await_that("even again", || counts(&server, "shard", 2) == [4.0, 4.0]);
    }
}

#[test]
fn at_once_or_over_a_unix_socket_they_spread_as_evenly() {
    let dir = scratch();
    let path = dir.path().join("s");
    let more = format!("[listener.local]\naddress = \"unix://{}\"", path.display());
    let server = Server::with_config(&dir.path().join("data"), &config(2, 2, &more));
    let held: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    await_that("forty", || counts(&server, "shard", 2).iter().sum::<f64>() == 40.0);
    assert_eq!(counts(&server, "shard", 2), [20.0, 20.0]);
    drop(held);
    await_that("none", || counts(&server, "shard", 2) == [0.0, 0.0]);
    let _held: Vec<_> = (0..8).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
    await_that("four and four", || counts(&server, "shard", 2) == [4.0, 4.0]);
    assert_eq!(counts(&server, "reactor", 2), [4.0, 4.0], "two and two in each shard");
}

/// How often a heavy client writes two lines. A pace, not as fast as it goes: reactors are compared by their bytes, and of
/// clients that send as fast as they are taken, one that is alone brings as many as three that share a reactor.
const PACE: Duration = Duration::from_millis(1);

/// Sets a flag, also where a check before it fails: who looks at it must not go on for ever.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A client that numbers its lines.
struct Client {
    stream: TcpStream,
    number: u32,
    next: u64,
}

impl Client {
    fn send(&mut self, lines: u64) {
        let mut buffer = Vec::new();
        (self.next..self.next + lines).for_each(|n| numbered(self.number, n, 200, &mut buffer));
        self.next += lines;
        self.stream.write_all(&buffer).unwrap();
    }
}

/// A clock that makes reactors slow: each of their turns takes five milliseconds longer. So a client that writes each
/// millisecond saturates one, which on a small machine a generator beside it could not.
/// Not from the start: a few lines would be load enough then to move connections before the test does.
struct SlowTurns {
    clock: SystemClock,
    are_slow: Arc<AtomicBool>,
}

impl Clock for SlowTurns {
    fn mono_ns(&self) -> u64 {
        self.clock.mono_ns()
    }

    fn wall_ns(&self) -> u64 {
        let is_reactor = || std::thread::current().name().is_some_and(|name| name.starts_with("reactor-"));
        if self.are_slow.load(Ordering::SeqCst) && is_reactor() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.clock.wall_ns()
    }

    fn boot_id(&self) -> BootId {
        self.clock.boot_id()
    }
}

/// A server with slow reactors, in this process.
struct Slow {
    metrics: Arc<render::Metrics>,
    notices: Sender<Notice>,
    thread: Option<JoinHandle<bool>>,
    address: SocketAddr,
    are_slow: Arc<AtomicBool>,
}

impl Slow {
    fn start(data: &Path, config: &str, engine: &str) -> Slow {
        let mut overrides = Overrides::default();
        for (key, value) in [("admin.address", "off"), ("engine", engine), ("data_dir", data.to_str().unwrap())] {
            overrides.set.push((key.into(), value.into(), "test".into()));
        }
        let options = load_text(config, "test", &overrides, |_| None).unwrap();
        let (notices, receiver) = channel();
        let are_slow = Arc::new(AtomicBool::new(false));
        let clock = Arc::new(SlowTurns { clock: SystemClock::new(), are_slow: Arc::clone(&are_slow) });
        let both = (notices.clone(), receiver);
        let server = server::start_on(&options, both, Arc::new(RealDisk::new()), clock).unwrap();
        let address = server.started.listeners[0].1.trim_start_matches("tcp://").parse().unwrap();
        let metrics = server.metrics();
        let thread = Some(std::thread::spawn(move || server.run(|_| unreachable!("nobody sends SIGHUP"))));
        Slow { metrics, notices, thread, address, are_slow }
    }

    fn scrape(&self) -> Metrics {
        Metrics::parse(&self.metrics.render())
    }

    fn of_reactors(&self, name: &str) -> Vec<f64> {
        let metrics = self.scrape();
        (0..4).map(|r| metrics.sum(name, &format!("reactor=\"{r}\""))).collect()
    }

    fn connections(&self) -> Vec<f64> {
        self.of_reactors("logweir_reactor_connections")
    }

    /// The reactor that serves a client: the one whose bytes rise when it sends a line.
    fn reactor_of(&self, client: &mut Client) -> usize {
        let bytes = || self.of_reactors("logweir_reactor_received_bytes_total");
        let before = bytes();
        client.send(1);
        let mut found = None;
        await_that("the line", || {
            found = bytes().iter().zip(&before).position(|(now, then)| now > then);
            found.is_some()
        });
        found.unwrap()
    }

    fn stop(mut self) -> bool {
        self.notices.send(Notice::Signal(15)).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Beside clients that wait for nothing, a listener with answers: reactors make no pauses then, which are no work. And chunks
/// stay open for many turns: one that a connection leaves behind must not be overtaken.
const BESIDE: &str =
    "\n[listener.other]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n[buffer]\nlinger = \"200ms\"\n";

fn heavy_connections_move_until_each_reactor_has_two(engine: &str, reply: &str) {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Slow::start(&data, &config(1, 4, if reply.is_empty() { BESIDE } else { reply }), engine);
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..32 {
        clients.push(Client { stream: TcpStream::connect(server.address).unwrap(), number, next: 0 });
        await_that("the connection", || server.connections().iter().sum::<f64>() == f64::from(number + 1));
    }
    let mut homes: HashMap<usize, Vec<Client>> = HashMap::new();
    for mut client in clients {
        homes.entry(server.reactor_of(&mut client)).or_default().push(client);
    }
    let moved = server.scrape().sum("logweir_connections_moved_total", "");
    assert!(homes.values().all(|clients| clients.len() == 8), "they start evenly; {moved} moved");
    // Those of one reactor become heavy.
    server.are_slow.store(true, Ordering::SeqCst);
    let mut heavy = homes.remove(&0).unwrap();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let goes_on = |phase: &str| {
        let then = rounds.load(Ordering::SeqCst);
        await_that(phase, || rounds.load(Ordering::SeqCst) > then + 2_000);
    };
    std::thread::scope(|scope| {
        let _stop = SetAtEnd(&stop);
        for client in &mut heavy {
            if !reply.is_empty() {
                let mut answers = client.stream.try_clone().unwrap();
                scope.spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
            }
            let (stop, rounds) = (&stop, &rounds);
            scope.spawn(move || {
                let mut next = Instant::now();
                while !stop.load(Ordering::SeqCst) {
                    client.send(2);
                    rounds.fetch_add(1, Ordering::SeqCst);
                    next += PACE;
                    std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
                }
                if !reply.is_empty() {
                    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
                }
            });
        }
        goes_on("before");
        await_that("the first move", || server.scrape().sum("logweir_connections_moved_total", "") > 0.0);
        goes_on("during");
        // Six of the eight must move, two to each of the others, which had eight idle ones before.
        await_that("two at each reactor", || server.connections() == [2.0, 10.0, 10.0, 10.0]);
        goes_on("after");
    });
    assert!(server.scrape().sum("logweir_connections_moved_total", "") >= 6.0);
    let lines: u64 = heavy.iter().chain(homes.values().flatten()).map(|client| client.next).sum();
    drop((heavy, homes));
    await_that("all closed", || server.scrape().sum("logweir_connections", "") == 0.0);
    server.scrape().check_accounts();
    assert!(server.stop());
    // Every line is there, once, unchanged and in its connection's order.
    let verified = common::logweir(&["bench", "verify", "--data-dir", data.to_str().unwrap()]);
    let report = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && report.contains(&format!("lines={lines}")), "{lines} of {report}");
}

#[test]
fn heavy_connections_move_with_epoll() {
    heavy_connections_move_until_each_reactor_has_two("epoll", "");
}

#[test]
fn heavy_connections_move_with_io_uring() {
    heavy_connections_move_until_each_reactor_has_two("io_uring", "");
}

#[test]
fn heavy_connections_that_wait_for_answers_move_too() {
    heavy_connections_move_until_each_reactor_has_two("epoll", "reply = \"count\"\nack = \"written\"");
}
