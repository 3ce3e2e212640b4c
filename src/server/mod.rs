//! A server: puts the parts together, starts the threads, waits for signals, and ends in order.

mod admin;
mod build;
mod certificates;
mod commit_logs;
mod engine;
mod error;
mod file_modes;
mod housekeeping;
mod live;
mod patience;
mod pin;
mod recovery;
pub mod rehearsal;
mod reload;
pub mod sandbox;
mod seats;
pub mod service;
mod sources;
mod started;
mod threads;
mod watchdog;

use crate::config::{ConfigErrors, Options};
use crate::host::clock::{Clock, SystemClock};
use crate::log::disk::Disk;
use crate::log::real_disk::RealDisk;
use crate::pipeline::control::Notice;
use crate::server::sandbox::Confinement;
use crate::server::service::{Inherited, Manager};
use crate::watch::render::Metrics;
use build::Running;
pub use certificates::{Certificates, now};
pub use error::StartError;
use live::Live;
pub use started::{Around, Started};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use threads::Threads;
use watchdog::Watchdog;

pub use reload::Report;

/// A server that runs.
pub struct Server {
    live: Live,
    notices: Receiver<Notice>,
    threads: Threads,
    watchdog: Watchdog,
    /// What the server told when it was ready.
    pub started: Started,
}

/// The channel on which the control thread hears of signals and of its own threads.
pub type Notices = (Sender<Notice>, Receiver<Notice>);

/// Starts a server on this machine's disk and clock.
///
/// # Errors
/// The server cannot start.
pub fn start(
    options: &Options,
    notices: Notices,
    manager: Manager,
    inherited: Vec<Inherited>,
) -> Result<Server, StartError> {
    let (disk, clock) = (Arc::new(RealDisk::for_others(options.files)), Arc::new(SystemClock::new()));
    start_around(options, notices, Around { disk, clock, manager, inherited })
}

/// As [`start`], on a disk and clock of the caller's, without a service manager.
///
/// # Errors
/// As [`start`].
pub fn start_on(
    options: &Options,
    notices: Notices,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<Server, StartError> {
    start_around(options, notices, Around { disk, clock, manager: Manager::default(), inherited: Vec::new() })
}

fn start_around(options: &Options, notices: Notices, around: Around) -> Result<Server, StartError> {
    let (sender, receiver) = notices;
    let manager = around.manager;
    let Running { live, threads, started } = build::build(options, (&sender, &receiver), around)?;
    Ok(Server { live, notices: receiver, threads, watchdog: Watchdog::new(manager), started })
}

impl Server {
    /// Tells the server how the process is confined, so that a reload that needs more can say so.
    pub fn confined(&mut self, confinement: Confinement) {
        self.live.confinement = confinement;
    }

    /// The text of `/metrics`, for a program that runs the server in its own process.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.live.metrics)
    }

    /// Runs until a signal ends it (or standard input does, where that is the only listener). True: everything received
    /// is durable and sealed.
    /// `read_again` brings the configuration as it is now, for a server that runs with this one, when SIGHUP asks for it.
    pub fn run(mut self, read_again: impl Fn(&Options) -> Result<Options, ConfigErrors>) -> bool {
        self.live.manager.ready(&self.status());
        loop {
            match self.next_notice(None) {
                Ok(Notice::Signal(signal_hook::consts::SIGUSR1)) => {
                    tracing::info!("SIGUSR1: rotating");
                    // What was answered goes along, though it may wait in an open chunk still.
                    self.threads.go_round(&self.live.control, ROUND);
                    self.live.control.ask_rotation();
                    self.threads.wake_writers();
                }
                Ok(Notice::Signal(signal_hook::consts::SIGHUP)) => {
                    let read = read_again(&self.live.options);
                    self.reload(read);
                }
                Ok(Notice::Signal(signal)) => {
                    self.leave(signal);
                    break;
                }
                Ok(Notice::StdinEnded) if self.is_stdin_only() => {
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

    /// Reads the configuration again and takes over what can change without a restart.
    fn reload(&mut self, read: Result<Options, ConfigErrors>) {
        self.live.manager.reloading();
        match read
            .map_err(|e| e.to_string())
            .and_then(|new| self.live.reload(new, &mut self.threads).map_err(|e| e.to_string()))
        {
            Ok(report) => {
                report.changed.iter().for_each(|what| tracing::info!(what, "reloaded"));
                report
                    .restart
                    .iter()
                    .for_each(|what| tracing::warn!(what, "restart needed: this stays as it was until then"));
                if report == Report::default() {
                    tracing::info!("reloaded: nothing has changed");
                }
            }
            Err(error) => tracing::error!(error, "the new configuration cannot be used; the old one stays in use"),
        }
        self.live.manager.ready(&self.status());
    }

    fn is_stdin_only(&self) -> bool {
        self.live.options.listeners.iter().all(|l| l.address == crate::host::address::Address::Stdin)
    }

    /// One line for the service manager.
    fn status(&self) -> String {
        let mut all = crate::metrics::accounting::Account::default();
        self.live.metrics.accounting.snapshot().iter().for_each(|account| {
            all.received.add(account.received);
            all.durable.add(account.durable);
        });
        match self.live.control.not_ready() {
            Some(why) => why,
            None => format!("{} lines received, {} durable", all.received.lines, all.durable.lines),
        }
    }

    /// The next notice, if one comes before the deadline. Meanwhile it feeds the watchdog.
    fn next_notice(&mut self, deadline: Option<Instant>) -> Result<Notice, RecvTimeoutError> {
        loop {
            let Some(until) = deadline.into_iter().chain(self.watchdog.due()).min() else {
                return self.notices.recv().map_err(|_| RecvTimeoutError::Disconnected);
            };
            match self.notices.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) if deadline.is_none_or(|d| Instant::now() < d) => {
                    let status = self.status();
                    self.watchdog.turn(&self.threads, &self.live.control, || status);
                }
                other => return other,
            }
        }
    }

    /// Waits for `drain_delay`: /readyz fails, but the server goes on serving until load balancers have noticed.
    fn leave(&mut self, signal: i32) {
        self.live.manager.stopping("ending: taking in what was received");
        let drain_delay = self.live.options.drain_delay;
        if !drain_delay.is_zero() {
            tracing::info!(signal, "not ready any more; serving until drain_delay is over");
            self.live.control.leave();
            self.threads.wake_reactors();
            // Nothing ends by itself meanwhile, unless it breaks: then waiting is over.
            let deadline = Instant::now() + drain_delay;
            self.wait_for_nothing(deadline);
        }
        tracing::info!(signal, "ending: no new connections, taking in what was received");
    }

    /// Waits until the deadline, or until a thread ends.
    fn wait_for_nothing(&mut self, deadline: Instant) {
        loop {
            match self.next_notice(Some(deadline)) {
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
        let deadline = Instant::now() + self.live.options.shutdown_timeout;
        self.live.let_go_of_sockets();
        self.threads.stop_acceptors();
        self.live.control.drain();
        self.threads.wake_reactors();
        if !self.wait(deadline, true) {
            self.live.control.abandon_reactors();
            self.threads.wake_reactors();
            self.wait(Instant::now() + GRACE, true);
        }
        self.live.control.finish();
        self.threads.wake_writers();
        if !self.wait(deadline.max(Instant::now() + GRACE), false) {
            self.live.control.abandon_writers();
            self.threads.wake_writers();
            self.wait(Instant::now() + GRACE, false);
        }
        self.threads.stop_keeper(&self.live.control, deadline);
        self.live.remove_socket_files();
        let is_clean = self.threads.writers_clean();
        if is_clean {
            self.live.commit_logs.end();
        }
        is_clean
    }

    /// Waits until all reactors (or all writers) have ended. Returns false if the time was over first.
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
        let metrics = &self.live.metrics;
        for (name, account) in metrics.listeners().iter().zip(metrics.accounting.snapshot()) {
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

/// How long a rotation waits for reactors to push what was answered.
const ROUND: Duration = Duration::from_millis(200);

/// How long the server waits for abandoned threads to stop.
const GRACE: Duration = Duration::from_secs(1);

fn died(name: &str) -> bool {
    // A bug. Going on with a part missing could acknowledge what is not there: end at once, recovery does the rest.
    tracing::error!(thread = name, "a thread died: ending at once");
    false
}
