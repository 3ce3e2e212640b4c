//! What the black-box tests share: a running server, clients, awaiting.
#![allow(dead_code)] // each test binary uses its part

pub mod apis;
pub mod faulty_disk;
pub mod http;
pub mod image;
pub mod ledger;
pub mod manager;
pub mod programs;
pub mod running;
pub mod sim_disk;
pub mod syslog;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_logweir");

/// How long anything may take before a test gives up; never a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits a condition by looking again and again.
pub fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// As [`await_that`]; false where it does not come in a few seconds.
pub fn is_awaited(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > PATIENCE / 6 {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    true
}

/// Says that a test could not run here, where CI collects it.
pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(log) = std::env::var_os("LOGWEIR_SKIP_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(log)
    {
        let _ = writeln!(file, "SKIPPED {test}: {why}");
    }
}

/// Says what a test of several has run, where CI collects it.
pub fn ran(test: &str, what: &str) {
    if let Some(log) = std::env::var_os("LOGWEIR_RAN_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(log)
    {
        let _ = writeln!(file, "{test}: {what}");
    }
}

/// A server of its own process; killed when dropped.
pub struct Server {
    child: Child,
    pub listeners: HashMap<String, String>,
    pub admin: Option<SocketAddr>,
    pub data_dir: PathBuf,
    pub introduction: String,
}

impl Server {
    /// Starts on free ports, with `lines` on TCP unless `args` say otherwise.
    pub fn start(data_dir: &Path, args: &[&str]) -> Server {
        Server::start_with(data_dir, args, Stdio::null(), |_| {})
    }

    /// With a configuration given as text.
    pub fn with_config(data_dir: &Path, config: &str) -> Server {
        Server::with_config_and(data_dir, config, &[])
    }

    /// With a configuration given as text, and more arguments.
    pub fn with_config_and(data_dir: &Path, config: &str, args: &[&str]) -> Server {
        let path = data_dir.with_extension("toml");
        std::fs::write(&path, config).unwrap();
        let mut all = vec!["--config", path.to_str().unwrap()];
        all.extend_from_slice(args);
        Server::start_with(data_dir, &all, Stdio::null(), |_| {})
    }

    pub fn start_with(data_dir: &Path, args: &[&str], stdin: Stdio, change: impl FnOnce(&mut Command)) -> Server {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--admin", "127.0.0.1:0", "--data-dir"]).arg(data_dir).args(args);
        if !args.iter().any(|a| *a == "--config" || *a == "--listen") {
            command.args(["--listen", "tcp://127.0.0.1:0"]);
        }
        change(&mut command);
        match Server::launch(command.stdin(stdin), data_dir) {
            Ok(server) => server,
            Err((status, said)) => panic!("the server did not start, {status}: {said}"),
        }
    }

    /// Runs a command that becomes a server, and reads how it introduces itself; or says how it ended instead.
    pub fn launch(command: &mut Command, data_dir: &Path) -> Result<Server, (ExitStatus, String)> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut introduction = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        while !introduction.contains("Read it back") {
            if out.read_line(&mut introduction).unwrap() == 0 {
                return Err((child.wait().unwrap(), introduction));
            }
        }
        let mut listeners = HashMap::new();
        let mut admin = None;
        for line in introduction.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["lines", "from", address, "(listener", name] => {
                    listeners.insert(name.trim_end_matches(')').to_string(), (*address).to_string());
                }
                ["metrics", url, ..] => {
                    admin = url.trim_start_matches("http://").split('/').next().and_then(|a| a.parse().ok());
                }
                _ => {}
            }
        }
        Ok(Server { child, listeners, admin, data_dir: data_dir.to_path_buf(), introduction })
    }

    /// True once it has ended.
    pub fn is_gone(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self, listener: &str) -> SocketAddr {
        self.listeners[listener].rsplit("://").next().unwrap().parse().unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address("lines")).unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap()
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it may be gone already
        self.child.wait().unwrap();
    }

    /// GET on the admin address: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.admin.unwrap(), path)
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").1)
    }

    /// What readers see, once all that was answered is in the segments: what the commit log has made durable follows within `buffer.linger`.
    pub fn cat(&self) -> Vec<u8> {
        await_that("what was answered is in the segments", || {
            let admin = self.admin.filter(|admin| TcpStream::connect(admin).is_ok());
            admin.is_none_or(|_| {
                let metrics = self.metrics();
                let sum = |name: &str| metrics.sum(name, "");
                sum("logweir_durable_bytes_total") + sum("logweir_written_bytes") <= sum("logweir_appended_bytes_total")
            })
        });
        cat(&self.data_dir)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_string())
}

/// `logweir cat` of a data directory.
pub fn cat(data_dir: &Path) -> Vec<u8> {
    let output = logweir(&["cat", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Any other command of the program.
pub fn logweir(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

/// One scrape.
#[derive(Debug)]
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    pub fn parse(text: &str) -> Metrics {
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_string(), value.parse().ok()?))
        };
        Metrics(text.lines().filter(|l| !l.starts_with('#')).filter_map(value).collect())
    }

    /// The sum over all series of that name whose labels hold `label`.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let is = |key: &str| key.split('{').next() == Some(name) && key.contains(label);
        self.0.iter().filter(|(key, _)| is(key)).map(|(_, value)| value).sum()
    }

    /// Holds the accounting identity to its word.
    pub fn check_accounts(&self) {
        for unit in ["lines", "bytes"] {
            let count = |term: &str| self.sum(&format!("logweir_{term}_{unit}_total"), "");
            let level = |term: &str| self.sum(&format!("logweir_{term}_{unit}"), "");
            let others = count("durable") + level("written") + level("in_flight") + count("dropped") + count("at_risk");
            assert_eq!(count("received"), others, "{unit}: {:?}", self.accounts());
            assert_eq!(level("unaccounted"), 0.0, "{unit}");
            assert!(level("in_flight") >= 0.0, "{unit}");
        }
        assert!(self.sum("logweir_in_flight_bytes", "") <= self.sum("logweir_buffer_bytes", ""));
    }

    pub fn accounts(&self) -> Vec<(&String, &f64)> {
        self.0.iter().filter(|(k, v)| k.contains("lines") && **v != 0.0).collect()
    }
}

/// Sends `lines` in one connection and ends it cleanly; returns when the server has read everything.
/// The active segment of shard 0 of the stream `default`: the file that `current-0` is another name of.
pub fn current(data_dir: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let dir = data_dir.join("default");
    let link = std::fs::metadata(dir.join("current-0")).ok()?;
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !name.starts_with("current-") && std::fs::symlink_metadata(path).is_ok_and(|m| m.ino() == link.ino())
    };
    std::fs::read_dir(&dir).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find(is_it)
}

pub fn send_all(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
}

/// Bytes that a server has put into the files of all streams and the lines in them.
pub fn lines_of(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]), "the last line is not terminated");
    lines
}

/// A directory on the disk that holds the build, deleted at the end: /tmp may be small or in memory.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("t-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Sends numbered lines of many lengths until the server is gone, and keeps the ledger by the counts it hears.
pub fn acked_client(mut stream: TcpStream, account: &ledger::Account) {
    let reader = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in BufReader::new(reader).lines() {
                match line.ok().and_then(|l| l.parse().ok()) {
                    Some(count) => account.acked.store(count, Ordering::SeqCst),
                    None => return,
                }
            }
        });
        let (mut next, mut buffer) = (0, Vec::new());
        loop {
            buffer.clear();
            for _ in 0..20 {
                account.line(next, &mut buffer);
                next += 1;
            }
            account.sent.store(next, Ordering::SeqCst);
            if stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
}
