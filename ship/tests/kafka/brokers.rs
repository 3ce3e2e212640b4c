//! Brokers for tests.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Everything that is waited for comes within this time, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Brokers that run; they end when the last test is done with them.
pub struct Brokers {
    pub dir: tempfile::TempDir,
    base: u16,
    pub addresses: String,
    /// The first broker's address for clients with TLS and SASL.
    pub secured: String,
    count: u16,
    pids: Mutex<Vec<i32>>,
}

impl Brokers {
    pub fn start(&self) -> Result<(), String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/ship/kafka");
        let output = Command::new(script)
            .arg(self.dir.path())
            .args([self.base.to_string(), self.count.to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = said.split_whitespace();
        if words.next() != Some("ready") {
            return Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no broker").to_string());
        }
        assert_eq!(words.next(), Some(self.addresses.as_str()));
        *self.pids.lock().unwrap() = words.map(|pid| pid.parse().unwrap()).collect();
        Ok(())
    }

    pub fn kill(&self) {
        let pids: Vec<i32> = self.pids.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        pids.into_iter().for_each(kill);
    }

    /// Kills one, by its number (from 1). The others go on.
    pub fn kill_one(&self, number: i32) {
        kill(self.pids.lock().unwrap()[number as usize - 1]);
    }
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    // Its ports are free once it is gone.
    let begun = Instant::now();
    while nix::sys::signal::kill(pid, None).is_ok() && begun.elapsed() < PATIENCE {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn new_brokers(count: u16) -> Result<Arc<Brokers>, String> {
    let is_there = |program: &str| {
        Command::new(program)
            .arg(if program == "openssl" { "version" } else { "-version" })
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if let Some(missing) = ["java", "mvn", "openssl"].into_iter().find(|program| !is_there(program)) {
        return Err(format!("no {missing} here"));
    }
    // Ports that are free now, one behind the other.
    let base = (0..100)
        .find_map(|_| {
            let first = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            let needed = (1..=count).flat_map(|i| [i, 10 + i, 20 + i]);
            (first < 60_000 && needed.map(|i| first + i).all(is_free)).then_some(first)
        })
        .unwrap();
    let dir = tempfile::Builder::new().prefix("t-brokers-").tempdir().unwrap();
    let addresses: Vec<String> = (1..=count).map(|i| format!("127.0.0.1:{}", base + i)).collect();
    let (addresses, secured) = (addresses.join(","), format!("127.0.0.1:{}", base + 21));
    let brokers = Brokers { dir, base, addresses, secured, count, pids: Mutex::default() };
    brokers.start()?;
    Ok(Arc::new(brokers))
}

/// Those that all tests use together.
pub fn brokers(test: &str) -> Option<Arc<Brokers>> {
    static SHARED: Mutex<Weak<Brokers>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(brokers) = shared.upgrade() {
        return Some(brokers);
    }
    match new_brokers(1) {
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

pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(log) = std::env::var_os("LOGWEIR_SKIP_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(log)
    {
        let _ = writeln!(file, "SKIPPED {test}: {why}");
    }
}

pub fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
