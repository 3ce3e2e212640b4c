//! A node: its server, its shipper, and what has arrived.

use crate::brokers::{Brokers, PATIENCE};
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
use std::time::{Duration, Instant};

/// A node: a data directory, with a configuration that ships to topics of its own.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub brokers: String,
    pub topic: String,
}

impl Node {
    pub fn new(brokers: &Brokers, topic: &str, more: &str) -> Node {
        let dir = tempfile::Builder::new().prefix("t-ship-").tempdir().unwrap();
        let node = Node { dir, brokers: brokers.addresses.clone(), topic: topic.into() };
        node.configure(more);
        node
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("logweir.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn configure(&self, more: &str) {
        self.configure_with(&self.brokers, more, "");
    }

    /// With other brokers, more keys of the target, and more sections of the server.
    pub fn configure_with(&self, brokers: &str, more: &str, server: &str) {
        let (data, topic) = (self.data(), &self.topic);
        let text = format!(
            "data_dir = \"{}\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [storage]\nsegment_size = \"1MiB\"\nsync_interval = \"20ms\"\n\
             [placement]\nshards = 1\nreactors_per_shard = 1\n\
             [listener.a]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"a\"\n\
             [listener.b]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"b\"\n\
             [stream.a]\n[stream.b]\n{server}\n\
             [ship.k]\nto = \"kafka://{brokers}\"\ntopic = \"{topic}.{{stream}}\"\npositions_topic = \"{topic}.positions\"\n{more}\n",
            data.display()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, more: &[&str]) -> Server {
        self.serve_by(|command| {
            command.args(more);
        })
    }

    /// With a command that is changed first.
    pub fn serve_by(&self, change: impl FnOnce(&mut Command)) -> Server {
        // Beside the shipper, where the same build has put it.
        let program = Path::new(env!("CARGO_BIN_EXE_logweir-ship")).with_file_name("logweir");
        let mut command = Command::new(program);
        command.args(["serve", "--config", self.config().to_str().unwrap()]);
        change(&mut command);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
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
            if let Some(("", rest)) = line.trim().split_once("metrics      http://") {
                addresses.insert("admin".into(), rest.split('/').next().unwrap().to_string());
            }
        }
        Server { child, addresses }
    }

    /// The shipper of the target `k`.
    pub fn shipper(&self) -> Command {
        self.shipper_of("k")
    }

    pub fn shipper_of(&self, target: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logweir-ship"));
        command.args(["--config", self.config().to_str().unwrap(), target]).stdin(Stdio::null());
        command
    }

    /// Process numbers of shippers of a target, and of what looks after them (`None`).
    pub fn processes(&self, target: Option<&str>) -> Vec<i32> {
        let config = self.config();
        let is_one = |pid: &i32| {
            let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
            let words: Vec<String> = line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
            words.first().is_some_and(|program| program.ends_with("logweir-ship"))
                && words.iter().any(|word| Path::new(word) == config)
                && words.last().copied() == Some(target.unwrap_or("--until-stdin-ends"))
        };
        let all = std::fs::read_dir("/proc").unwrap();
        all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_one).collect()
    }

    /// Ships all that is durable now.
    pub fn ship(&self) {
        assert!(self.shipper().arg("--once").status().unwrap().success());
    }

    /// How a shipper ends that cannot go on, and what it says.
    pub fn ship_fails(&self) -> (ExitStatus, String) {
        let output = self.shipper().arg("--once").output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The lines of a stream that its files have.
    pub fn on_disk(&self, stream: &str) -> Vec<String> {
        let program = Path::new(env!("CARGO_BIN_EXE_logweir-ship")).with_file_name("logweir");
        let output = Command::new(program)
            .args(["cat", "--data-dir"])
            .arg(self.data())
            .args(["--stream", stream])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect()
    }

    /// What arrived for a stream, for who reads what is committed.
    pub fn arrived(&self, stream: &str) -> Vec<Arrived> {
        arrived(&self.brokers, &format!("{}.{stream}", self.topic))
    }
}

pub struct Server {
    pub child: Child,
    addresses: BTreeMap<String, String>,
}

impl Server {
    /// A connection to a listener.
    pub fn connect(&self, listener: &str) -> TcpStream {
        TcpStream::connect(&self.addresses[listener]).unwrap()
    }

    /// Sends numbered lines, which begin with the name of their sender.
    pub fn send(&self, listener: &str, sender: &str, numbers: std::ops::Range<u64>) {
        let mut stream = self.connect(listener);
        let mut text = Vec::new();
        for number in numbers {
            writeln!(text, "{sender} {number}").unwrap();
        }
        stream.write_all(&text).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The server closes when it has taken everything in.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    }

    /// A metric of a target; `None`: it is not there.
    pub fn metric(&self, name: &str, target: &str) -> Option<f64> {
        self.metric_of(&format!("{name}{{target=\"{target}\"}}"))
    }

    /// A metric with its labels; `None`: it is not there.
    pub fn metric_of(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(&self.addresses["admin"]).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        let of = format!("{name} ");
        text.lines().find_map(|line| line.strip_prefix(&of)).map(|value| value.parse().unwrap())
    }

    /// Tells it to read its configuration again.
    pub fn reload(&self) {
        kill(self.child.id() as i32, nix::sys::signal::Signal::SIGHUP);
    }

    pub fn signal(&mut self, signal: nix::sys::signal::Signal) -> ExitStatus {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
        self.child.wait().unwrap()
    }

    pub fn stop(mut self) {
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
pub struct Arrived {
    pub partition: i32,
    pub line: String,
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub time: Option<i64>,
}

pub fn arrived(brokers: &str, topic: &str) -> Vec<Arrived> {
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
pub fn check(arrived: &[Arrived], sent: &[(&str, u64)]) {
    let mut next: BTreeMap<&str, u64> = sent.iter().map(|(sender, _)| (*sender, 0)).collect();
    for one in arrived {
        let (sender, number) = one.line.split_once(' ').unwrap_or_else(|| panic!("torn: {:?}", one.line));
        let next = next.get_mut(sender).unwrap_or_else(|| panic!("nobody sent {:?}", one.line));
        assert_eq!(number, next.to_string(), "of {sender}: lost, double or out of order");
        *next += 1;
    }
    assert_eq!(next.into_iter().collect::<Vec<_>>(), sent);
}

/// Sends a signal.
pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}
