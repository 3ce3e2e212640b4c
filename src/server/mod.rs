//! A server: puts the parts together, starts the threads, waits for signals, ends in order.

mod build;
mod certificates;
mod engine;
mod file_modes;
mod pin;
mod seats;
mod sources;
mod threads;

use crate::clock::{Clock, SystemClock};
use crate::config::Options;
use crate::control::{Control, Notice};
use crate::log::LogError;
use crate::log::disk::Disk;
use crate::log::real_disk::RealDisk;
use crate::metrics::render::Metrics;
use build::Running;
pub use certificates::Certificates;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use threads::Threads;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something about the files.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A listener cannot listen.
    #[error("listener.{name}: cannot listen on {address}: {error}{}", hint(error))]
    Listen {
        /// Its name.
        name: String,
        /// Its address.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// A listener's certificate, key or authority.
    #[error("listener.{name}: {error}")]
    Tls {
        /// Its name.
        name: String,
        /// What is wrong.
        error: crate::transport::tls::TlsError,
    },
    /// The admin address.
    #[error("admin: cannot listen on {address}: {error}; choose another --admin, or --admin off")]
    Admin {
        /// The address.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// `engine = "io_uring"`, and it cannot be had.
    #[error(
        "engine = \"io_uring\" does not work here: {error}; set engine = \"auto\" or \"epoll\", or allow io_uring (kernel.io_uring_disabled, the container's seccomp profile)"
    )]
    IoUring {
        /// What the probe met.
        error: io::Error,
    },
    /// Threads, memory, epoll.
    #[error("cannot {what}: {error}")]
    Resource {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another --listen",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one",
        _ => "",
    }
}

/// What a server tells when it is ready.
#[derive(Debug, Clone)]
pub struct Started {
    /// Name and real address of each listener.
    pub listeners: Vec<(String, String)>,
    /// The admin address.
    pub admin: Option<String>,
    /// Where the files go, absolute.
    pub data_dir: PathBuf,
    /// The engine, and why.
    pub engine: String,
    /// How appends are made, and why.
    pub io: String,
    /// Connections at most.
    pub max_connections: usize,
    /// Memory of that many connections, in bytes.
    pub connection_bytes: usize,
}

/// A server that runs.
pub struct Server {
    control: Arc<Control>,
    metrics: Arc<Metrics>,
    notices: Receiver<Notice>,
    threads: Threads,
    certificates: Certificates,
    shutdown_timeout: Duration,
    drain_delay: Duration,
    stdin_only: bool,
    /// What it told at the start.
    pub started: Started,
}

/// Where a server's control thread hears of signals, and of its own threads.
pub type Notices = (Sender<Notice>, Receiver<Notice>);

/// Starts a server on this machine's disk and clock.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn start(options: &Options, notices: Notices) -> Result<Server, StartError> {
    start_on(options, notices, Arc::new(RealDisk::new()), Arc::new(SystemClock::new()))
}

/// As [`start`], on a disk and clock of the caller's.
///
/// # Errors
/// As [`start`].
pub fn start_on(
    options: &Options,
    notices: Notices,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<Server, StartError> {
    let (sender, receiver) = notices;
    let Running { control, metrics, threads, started, certificates } = build::build(options, &sender, &disk, &clock)?;
    Ok(Server {
        control,
        metrics,
        notices: receiver,
        threads,
        certificates,
        shutdown_timeout: options.shutdown_timeout,
        drain_delay: options.drain_delay,
        stdin_only: options.listeners.iter().all(|l| l.address == crate::net::listen::Address::Stdin),
        started,
    })
}

impl Server {
    /// What `/metrics` shows, for whoever runs the server in its own process.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Runs until a signal ends it (or standard input does, where that is the only listener). True: everything received
    /// is durable and sealed.
    pub fn run(mut self, on_reload: impl Fn()) -> bool {
        loop {
            match self.notices.recv() {
                Ok(Notice::Signal(signal_hook::consts::SIGUSR1)) => {
                    tracing::info!("SIGUSR1: rotating");
                    self.control.ask_rotation();
                    self.threads.wake_writers();
                }
                Ok(Notice::Signal(signal_hook::consts::SIGHUP)) => {
                    self.certificates.reload();
                    on_reload();
                }
                Ok(Notice::Signal(signal)) => {
                    self.leave(signal);
                    break;
                }
                Ok(Notice::StdinEnded) if self.stdin_only => {
                    tracing::info!("standard input has ended");
                    break;
                }
                Ok(Notice::StdinEnded) => {}
                Ok(Notice::ReactorEnded(result)) => {
                    tracing::error!(?result, "a reactor ended by itself");
                    self.threads.reactor_ended(&result);
                    break;
                }
                Ok(Notice::WriterEnded(clean)) => {
                    self.threads.writer_ended(clean);
                    break;
                }
                Err(_) => break,
                Ok(Notice::Died(name)) => return died(&name),
            }
        }
        let clean = self.end();
        self.report(clean);
        clean
    }

    /// Says that the end is near, and serves on until load balancers have seen it.
    fn leave(&mut self, signal: i32) {
        if !self.drain_delay.is_zero() {
            tracing::info!(signal, "not ready any more; serving until drain_delay is over");
            self.control.leave();
            self.threads.wake_reactors();
            // Nothing ends by itself meanwhile, unless it breaks: then waiting is over.
            let deadline = Instant::now() + self.drain_delay;
            self.wait_for_nothing(deadline);
        }
        tracing::info!(signal, "ending: no new connections, taking in what was received");
    }

    /// Waits until the deadline; less long if a thread ends.
    fn wait_for_nothing(&mut self, deadline: Instant) {
        loop {
            match self.notices.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Notice::Signal(signal_hook::consts::SIGTERM | signal_hook::consts::SIGINT)) => {
                    tracing::warn!("second signal: not waiting for drain_delay");
                    return;
                }
                Ok(Notice::ReactorEnded(result)) => return self.threads.reactor_ended(&result),
                Ok(Notice::WriterEnded(clean)) => return self.threads.writer_ended(clean),
                Ok(Notice::Died(name)) => {
                    died(&name);
                    std::process::exit(1);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Drains, syncs, seals; false if that took too long or the disk did not take everything.
    fn end(&mut self) -> bool {
        let deadline = Instant::now() + self.shutdown_timeout;
        self.threads.stop_acceptors();
        self.control.drain();
        self.threads.wake_reactors();
        if !self.wait(deadline, true) {
            self.control.abandon_reactors();
            self.threads.wake_reactors();
            self.wait(Instant::now() + GRACE, true);
        }
        self.control.finish();
        self.threads.wake_writers();
        if !self.wait(deadline.max(Instant::now() + GRACE), false) {
            self.control.abandon_writers();
            self.threads.wake_writers();
            self.wait(Instant::now() + GRACE, false);
        }
        self.threads.remove_sockets();
        self.threads.writers_clean()
    }

    /// Waits until all reactors (or all writers) have ended. False: the time was over first.
    fn wait(&mut self, deadline: Instant, reactors: bool) -> bool {
        while !self.threads.all_ended(reactors) {
            match self.notices.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Notice::ReactorEnded(result)) => self.threads.reactor_ended(&result),
                Ok(Notice::WriterEnded(clean)) => self.threads.writer_ended(clean),
                Ok(Notice::Signal(signal_hook::consts::SIGTERM | signal_hook::consts::SIGINT)) => {
                    tracing::warn!("second signal: ending at once");
                    self.report(false);
                    std::process::exit(1);
                }
                Ok(Notice::Died(name)) => return died(&name),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    fn report(&self, clean: bool) {
        for (name, account) in self.metrics.listeners.iter().zip(self.metrics.accounting.snapshot()) {
            let mut dropped = crate::metrics::accounting::Tally::default();
            account.dropped.iter().for_each(|d| dropped.add(*d));
            tracing::info!(
                listener = name,
                received = account.received.lines,
                durable = account.durable.lines,
                not_durable = account.written.lines + account.in_flight.lines,
                dropped = dropped.lines,
                at_risk = account.at_risk.lines,
                "lines in all"
            );
        }
        if clean {
            tracing::info!("ended in order: everything received is durable");
        } else {
            tracing::error!("ended without everything being durable");
        }
    }
}

/// Time that abandoned threads get to let go.
const GRACE: Duration = Duration::from_secs(1);

fn died(name: &str) -> bool {
    // A bug. Going on with a part missing could acknowledge what is not there: end at once, recovery does the rest.
    tracing::error!(thread = name, "a thread died: ending at once");
    false
}
