//! The threads of a running server, and how they end.

use super::pin::{Place, spawn};
use crate::host::peer::ListenerId;
use crate::intake::acceptor::{Acceptor, Handle};
use crate::intake::spread::Spread;
use crate::log::data_dir::Lock;
use crate::pipeline::control::{Control, Notice};
use crate::pipeline::keeper::events::SegmentEvents;
use crate::pipeline::shard::Shard;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The threads, and what is needed to end them.
pub struct Threads {
    pub(super) shards: Vec<Arc<Shard>>,
    pub(super) acceptor: Option<Handle>,
    pub(super) acceptor_thread: Option<std::thread::JoinHandle<()>>,
    pub(super) reactors_left: usize,
    pub(super) writers_left: usize,
    pub(super) clean: bool,
    /// Housekeeping, and what it is told.
    pub(super) keeper: Option<JoinHandle<()>>,
    pub(super) events: Arc<SegmentEvents>,
    /// Held as long as the server runs.
    pub(super) _locks: Vec<Lock>,
}

impl Threads {
    /// Starts the acceptor, for these sockets.
    ///
    /// # Errors
    /// The sockets cannot be watched, or the thread cannot be started.
    pub fn start_acceptor(
        &mut self,
        sockets: Vec<(ListenerId, socket2::Socket)>,
        spread: &Arc<Spread>,
        control: &Arc<Control>,
        notices: &Sender<Notice>,
    ) -> io::Result<()> {
        let (running, handle) = Acceptor::new(sockets, Arc::clone(spread))?;
        let flags = Arc::clone(control);
        let body = move || Notice::ReactorEnded(running.run(&flags).map_err(|e| e.to_string()));
        self.acceptor_thread = Some(spawn("acceptor".into(), Place::default(), notices.clone(), body)?);
        self.acceptor = Some(handle);
        self.reactors_left += 1;
        Ok(())
    }

    /// Ends the acceptors, before the reactors. They hand over first the connections that wait.
    pub fn stop_acceptors(&mut self) {
        if let Some(stop) = self.acceptor.take() {
            stop.stop();
        }
        if let Some(thread) = self.acceptor_thread.take() {
            let _ = thread.join(); // a panic was reported as a notice
        }
    }

    /// Lets housekeeping compress and move what was sealed at the end, until the deadline, and then ends it. It stops between two steps,
    /// and the next start goes on.
    pub fn stop_keeper(&mut self, control: &Control, deadline: Instant) {
        control.tidy();
        self.events.wake();
        let Some(thread) = self.keeper.take() else { return };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        control.abandon_writers(); // they have ended, and housekeeping looks at it
        let _ = thread.join(); // it says itself of what it died
    }

    pub fn wake_reactors(&self) {
        self.shards.iter().flat_map(|s| &s.reactors).for_each(crate::pipeline::shard::ReactorPort::wake);
    }

    pub fn wake_writers(&self) {
        self.shards.iter().for_each(|s| (s.writer)());
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

    /// Pings all reactors and writers, and returns the number that they answer with.
    pub fn ping(&self, control: &Control) -> u64 {
        let ping = control.ping();
        self.wake_reactors();
        self.wake_writers();
        ping
    }

    /// Waits until every reactor and writer has answered a ping, and so has taken the changes over; at most until the timeout.
    pub fn go_round(&self, control: &Control, at_most: Duration) {
        let (ping, start) = (self.ping(control), Instant::now());
        while self.silent(ping).is_some() && start.elapsed() < at_most {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// The first thread that has not answered a ping.
    pub fn silent(&self, ping: u64) -> Option<String> {
        for shard in &self.shards {
            if shard.writer_answered.get() < ping {
                return Some(format!("writer of shard {}", shard.index));
            }
            if let Some(reactor) = shard.reactors.iter().position(|r| r.answered.get() < ping) {
                return Some(format!("reactor {reactor} of shard {}", shard.index));
            }
        }
        None
    }
}
