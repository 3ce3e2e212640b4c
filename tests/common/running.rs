//! A server in the test's own process.

use super::faulty_disk::{Faults, FaultyDisk};
use super::{Metrics, cat, lines_of};
use logweir::config::{Overrides, load_text};
use logweir::host::clock::SystemClock;
use logweir::pipeline::control::Notice;
use logweir::server::{self, Server, StartError};
use logweir::watch::render;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A server in this process, on a disk that the test can break. Stopped when dropped.
pub struct Running {
    pub faults: Arc<Faults>,
    pub metrics: Arc<render::Metrics>,
    notices: Sender<Notice>,
    thread: Option<JoinHandle<bool>>,
    addresses: Vec<(String, SocketAddr)>,
    pub admin: Option<SocketAddr>,
    data: PathBuf,
}

impl Running {
    pub fn start(data: &Path, config: &str) -> Running {
        Running::start_on(data, config, "off")
    }

    pub fn start_with_admin(data: &Path, config: &str) -> Running {
        Running::start_on(data, config, "127.0.0.1:0")
    }

    fn start_on(data: &Path, config: &str, admin: &str) -> Running {
        Running::start_on_disk(data, config, admin, FaultyDisk::new(), channel()).unwrap()
    }

    /// On a disk that may be broken already, with the channel that signals come by.
    pub fn start_on_disk(
        data: &Path,
        config: &str,
        admin: &str,
        disk: FaultyDisk,
        (notices, receiver): (Sender<Notice>, Receiver<Notice>),
    ) -> Result<Running, StartError> {
        let mut overrides = Overrides::default();
        let mut set = |key: &str, value: &str| overrides.set.push((key.into(), value.into(), "test".into()));
        set("data_dir", data.to_str().unwrap());
        set("admin.address", admin);
        let options = load_text(config, "test", &overrides, |_| None).unwrap();
        let faults = Arc::clone(&disk.faults);
        let channel = (notices.clone(), receiver);
        let server: Server = server::start_on(&options, channel, Arc::new(disk), Arc::new(SystemClock::new()))?;
        let address = |a: &String| a.rsplit("://").next().unwrap().parse().unwrap();
        let addresses = server.started.listeners.iter().map(|(name, a)| (name.clone(), address(a))).collect();
        let admin = server.started.admin.as_ref().map(|a| a.parse().unwrap());
        let metrics = server.metrics();
        let thread = std::thread::spawn(move || server.run(|_| unreachable!("nobody sends SIGHUP")));
        Ok(Running { faults, metrics, notices, thread: Some(thread), addresses, admin, data: data.to_path_buf() })
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.addresses.iter().find(|(n, _)| n == name).unwrap().1
    }

    pub fn connect(&self, name: &str) -> TcpStream {
        TcpStream::connect(self.address(name)).unwrap()
    }

    pub fn scrape(&self) -> Metrics {
        let metrics = Metrics::parse(&self.metrics.render());
        metrics.check_accounts();
        metrics
    }

    pub fn count(&self, name: &str, label: &str) -> f64 {
        self.scrape().sum(name, label)
    }

    pub fn stop(&mut self) -> bool {
        self.notices.send(Notice::Signal(signal_hook::consts::SIGTERM)).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn lines(&self) -> Vec<Vec<u8>> {
        lines_of(&cat(&self.data)).into_iter().map(<[u8]>::to_vec).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.faults.heal();
        self.faults.open_gate();
        let _ = self.notices.send(Notice::Signal(signal_hook::consts::SIGTERM));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
