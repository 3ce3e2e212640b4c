//! The shipper with real brokers: `tests/ship/kafka` starts them. Each line is there once, in order, for who reads what is committed.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Everything that is waited for comes within this time, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Brokers that run; they end when the last test is done with them.
struct Brokers {
    dir: tempfile::TempDir,
    base: u16,
    addresses: String,
    pids: Mutex<Vec<i32>>,
}

impl Brokers {
    fn start(&self) -> Result<(), String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/ship/kafka");
        let output = Command::new(script).arg(self.dir.path()).arg(self.base.to_string()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = said.split_whitespace();
        if words.next() != Some("ready") {
            return Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no broker").to_string());
        }
        assert_eq!(words.next(), Some(self.addresses.as_str()));
        *self.pids.lock().unwrap() = words.map(|pid| pid.parse().unwrap()).collect();
        Ok(())
    }

    fn kill(&self) {
        for pid in self.pids.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            // Its ports are free once it is gone.
            let begun = Instant::now();
            while nix::sys::signal::kill(pid, None).is_ok() && begun.elapsed() < PATIENCE {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        self.kill();
    }
}

fn new_brokers() -> Result<Arc<Brokers>, String> {
    let is_there = |program: &str| Command::new(program).arg("-version").output().is_ok_and(|o| o.status.success());
    if let Some(missing) = ["java", "mvn"].into_iter().find(|program| !is_there(program)) {
        return Err(format!("no {missing} here"));
    }
    // Ports that are free now, one behind the other.
    let base = (0..100)
        .find_map(|_| {
            let first = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            (first < 60_000 && is_free(first + 1) && is_free(first + 11)).then_some(first)
        })
        .unwrap();
    let dir = tempfile::Builder::new().prefix("t-brokers-").tempdir().unwrap();
    let (addresses, pids) = (format!("127.0.0.1:{}", base + 1), Mutex::default());
    let brokers = Brokers { dir, base, addresses, pids };
    brokers.start()?;
    Ok(Arc::new(brokers))
}

/// Those that all tests use together.
fn brokers(test: &str) -> Option<Arc<Brokers>> {
    static SHARED: Mutex<Weak<Brokers>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(brokers) = shared.upgrade() {
        return Some(brokers);
    }
    match new_brokers() {
        Ok(brokers) => {
            *shared = Arc::downgrade(&brokers);
            Some(brokers)
        }
        Err(why) => {
            skipped(test, &why);
            None
        }
    }
}

fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(log) = std::env::var_os("LOGWEIR_SKIP_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(log)
    {
        let _ = writeln!(file, "SKIPPED {test}: {why}");
    }
}

fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A node: a data directory, with a configuration that ships to topics of its own.
struct Node {
    dir: tempfile::TempDir,
    brokers: String,
    topic: String,
}

impl Node {
    fn new(brokers: &Brokers, topic: &str, more: &str) -> Node {
        let dir = tempfile::Builder::new().prefix("t-ship-").tempdir().unwrap();
        let node = Node { dir, brokers: brokers.addresses.clone(), topic: topic.into() };
        node.configure(more);
        node
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("logweir.toml")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn configure(&self, more: &str) {
        let (data, brokers, topic) = (self.data(), &self.brokers, &self.topic);
        let text = format!(
            "data_dir = \"{}\"\n[admin]\naddress = \"off\"\n\
             [storage]\nsegment_size = \"1MiB\"\nsync_interval = \"20ms\"\n\
             [placement]\nshards = 1\nreactors_per_shard = 1\n\
             [listener.a]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"a\"\n\
             [listener.b]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"b\"\n\
             [stream.a]\n[stream.b]\n\
             [ship.k]\nto = \"kafka://{brokers}\"\ntopic = \"{topic}.{{stream}}\"\npositions_topic = \"{topic}.positions\"\n{more}\n",
            data.display()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn serve(&self) -> Server {
        // Beside the shipper, where the same build has put it.
        let program = Path::new(env!("CARGO_BIN_EXE_logweir-ship")).with_file_name("logweir");
        let mut command = Command::new(program);
        command
            .args(["serve", "--config", self.config().to_str().unwrap()])
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        let mut child = command.spawn().expect("the server: cargo build --bin logweir");
        let (mut addresses, mut line) = (BTreeMap::new(), String::new());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        while !line.contains("Read it back") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the server did not start");
            if let ["lines", "from", address, "(listener", name] = line.split_whitespace().collect::<Vec<_>>()[..] {
                let address = address.rsplit("://").next().unwrap().to_string();
                addresses.insert(name.trim_end_matches(')').to_string(), address);
            }
        }
        Server { child, addresses }
    }

    fn shipper(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logweir-ship"));
        command.args(["--config", self.config().to_str().unwrap()]).stdin(Stdio::null());
        command
    }

    /// Ships all that is durable now.
    fn ship(&self) {
        assert!(self.shipper().arg("--once").status().unwrap().success());
    }

    /// How a shipper ends that cannot go on, and what it says.
    fn ship_fails(&self) -> (ExitStatus, String) {
        let output = self.shipper().arg("--once").output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What arrived for a stream, for who reads what is committed.
    fn arrived(&self, stream: &str) -> Vec<Arrived> {
        arrived(&self.brokers, &format!("{}.{stream}", self.topic))
    }
}

struct Server {
    child: Child,
    addresses: BTreeMap<String, String>,
}

impl Server {
    /// Sends numbered lines, which begin with the name of their sender.
    fn send(&self, listener: &str, sender: &str, numbers: std::ops::Range<u64>) {
        let mut stream = TcpStream::connect(&self.addresses[listener]).unwrap();
        let mut text = Vec::new();
        for number in numbers {
            writeln!(text, "{sender} {number}").unwrap();
        }
        stream.write_all(&text).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The server closes when it has taken everything in.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    }

    fn signal(&mut self, signal: nix::sys::signal::Signal) -> ExitStatus {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
        self.child.wait().unwrap()
    }

    fn stop(mut self) {
        assert!(self.signal(nix::sys::signal::Signal::SIGTERM).success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Arrived {
    partition: i32,
    line: String,
    key: Option<String>,
    headers: Vec<(String, String)>,
    time: Option<i64>,
}

fn arrived(brokers: &str, topic: &str) -> Vec<Arrived> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "ledger")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut from = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        from.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    let (mut all, mut ends, begun) = (Vec::new(), 0, Instant::now());
    while ends < from.count() {
        assert!(begun.elapsed() < PATIENCE, "the topic {topic} has no end");
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(message)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers = message.headers().map(|headers| {
                    headers.iter().map(|h| (h.key.to_string(), text(h.value.unwrap_or_default()))).collect()
                });
                all.push(Arrived {
                    partition: message.partition(),
                    line: text(message.payload().unwrap_or_default()),
                    key: message.key().map(text),
                    headers: headers.unwrap_or_default(),
                    time: message.timestamp().to_millis(),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(_)) | None => {}
        }
    }
    all
}

/// Each sender's lines once, whole and in order.
fn check(arrived: &[Arrived], sent: &[(&str, u64)]) {
    let mut next: BTreeMap<&str, u64> = sent.iter().map(|(sender, _)| (*sender, 0)).collect();
    for one in arrived {
        let (sender, number) = one.line.split_once(' ').unwrap_or_else(|| panic!("torn: {:?}", one.line));
        let next = next.get_mut(sender).unwrap_or_else(|| panic!("nobody sent {:?}", one.line));
        assert_eq!(number, next.to_string(), "of {sender}: lost, double or out of order");
        *next += 1;
    }
    assert_eq!(next.into_iter().collect::<Vec<_>>(), sent);
}

#[test]
fn each_line_arrives_once_in_order_through_rotation_and_restarts() {
    let Some(brokers) = brokers("each_line_arrives_once_in_order_through_rotation_and_restarts") else { return };
    let node = Node::new(&brokers, "restarts", "key = \"source\"\nheaders = true");
    let server = node.serve();
    server.send("a", "one", 0..200_000);
    server.send("b", "two", 0..100);
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 200_000)]);
    let two = node.arrived("b");
    check(&two, &[("two", 100)]);
    assert!(two.iter().all(|one| one.partition == two[0].partition), "order is kept by one partition");
    let key = two[0].key.clone().unwrap();
    assert!(key.ends_with("/b/0"), "{key}");
    let names: Vec<&str> = two[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["logweir.node", "logweir.stream", "logweir.shard"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!(two.iter().all(|one| (now - one.time.unwrap()).abs() < PATIENCE.as_millis() as i64), "{:?}", two[0].time);
    node.ship(); // nothing is new
    let server = node.serve();
    server.send("b", "two", 100..200);
    server.stop();
    node.ship();
    check(&node.arrived("b"), &[("two", 200)]);
    check(&node.arrived("a"), &[("one", 200_000)]);
}

#[test]
fn it_follows_a_server_and_loses_nothing_when_either_is_killed() {
    let Some(brokers) = brokers("it_follows_a_server_and_loses_nothing_when_either_is_killed") else { return };
    let node = Node::new(&brokers, "kills", "");
    let mut sent = 0;
    for round in 0..4_u64 {
        let mut server = node.serve();
        let mut shipper = node.shipper().spawn().unwrap();
        for _ in 0..10 {
            server.send("a", "one", sent..sent + 2_000);
            sent += 2_000;
        }
        if round % 2 == 0 {
            // Wherever it is now: before, in, or behind a transaction.
            std::thread::park_timeout(Duration::from_millis(300 * round));
            shipper.kill().unwrap();
        } else {
            await_that("lines to arrive", || !node.arrived("a").is_empty());
        }
        // What is synced is there after a kill as after an orderly end.
        std::thread::park_timeout(Duration::from_millis(100));
        server.signal(nix::sys::signal::Signal::SIGKILL);
        let _ = shipper.kill();
        shipper.wait().unwrap();
    }
    node.serve().stop(); // recovers what the kill has left
    node.ship();
    check(&node.arrived("a"), &[("one", sent)]);
}

#[test]
fn a_zombie_is_fenced_and_says_so() {
    let Some(brokers) = brokers("a_zombie_is_fenced_and_says_so") else { return };
    let node = Node::new(&brokers, "zombie", "");
    let server = node.serve();
    server.send("a", "one", 0..1_000);
    let zombie = node.shipper().stderr(Stdio::piped()).spawn().unwrap();
    await_that("lines to arrive", || node.arrived("a").len() == 1_000);
    // The same node on another machine: a copy of its files.
    let copy = Node { dir: tempfile::tempdir().unwrap(), brokers: node.brokers.clone(), topic: node.topic.clone() };
    assert!(Command::new("cp").arg("-r").args([node.data(), copy.data()]).status().unwrap().success());
    copy.configure("");
    copy.ship();
    server.send("a", "one", 1_000..2_000);
    let ended = zombie.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("another shipper of this target and node"), "{said}");
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 2_000)]);
}

#[test]
fn a_target_that_has_forgotten_its_positions_is_not_shipped_to() {
    let Some(brokers) = brokers("a_target_that_has_forgotten_its_positions_is_not_shipped_to") else { return };
    let node = Node::new(&brokers, "forgotten", "");
    let server = node.serve();
    server.send("a", "one", 0..10);
    server.stop();
    node.ship();
    let text = std::fs::read_to_string(node.config()).unwrap();
    std::fs::write(node.config(), text.replace("forgotten.positions", "forgotten.others")).unwrap();
    let (status, said) = node.ship_fails();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("no positions of this node") && said.contains("Delete the note"), "{said}");
    check(&node.arrived("a"), &[("one", 10)]);
}

#[test]
fn only_one_shipper_of_a_target_runs() {
    let Some(brokers) = brokers("only_one_shipper_of_a_target_runs") else { return };
    let node = Node::new(&brokers, "one", "");
    let server = node.serve();
    server.send("a", "one", 0..10);
    let mut shipper = node.shipper().spawn().unwrap();
    await_that("lines to arrive", || node.arrived("a").len() == 10);
    let (status, said) = node.ship_fails();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("another shipper of k runs"), "{said}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shipper.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(shipper.wait().unwrap().success(), "SIGTERM ends it in order");
    server.stop();
}

#[test]
fn at_least_once_loses_nothing_and_needs_no_transactions() {
    let Some(brokers) = brokers("at_least_once_loses_nothing_and_needs_no_transactions") else { return };
    let node = Node::new(&brokers, "least", "delivery = \"at_least_once\"\npartition = \"spread\"");
    let server = node.serve();
    server.send("a", "one", 0..50_000);
    server.stop();
    node.ship();
    let arrived = node.arrived("a");
    let mut numbers: Vec<u64> =
        arrived.iter().map(|one| one.line.split_once(' ').unwrap().1.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..50_000).collect::<Vec<_>>());
    let mut partitions: Vec<i32> = arrived.iter().map(|one| one.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert!(partitions.len() > 1, "spread over the partitions");
}

#[test]
fn brokers_that_die_and_come_back_have_each_line_once() {
    // Its own: the others' go on.
    let brokers = match new_brokers() {
        Ok(brokers) => brokers,
        Err(why) => return skipped("brokers_that_die_and_come_back_have_each_line_once", &why),
    };
    let node = Node::new(&brokers, "dead", "");
    let server = node.serve();
    let mut shipper = node.shipper().spawn().unwrap();
    server.send("a", "one", 0..5_000);
    await_that("lines to arrive", || !node.arrived("a").is_empty());
    server.send("a", "one", 5_000..100_000);
    brokers.kill();
    server.send("a", "one", 100_000..110_000);
    brokers.start().unwrap();
    await_that("the rest to arrive", || node.arrived("a").len() >= 110_000);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shipper.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(shipper.wait().unwrap().success());
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 110_000)]);
}
