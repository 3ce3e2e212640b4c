//! The threads of a running server, and how they are ended.

use crate::acceptor::Stop;
use crate::log::data_dir::Lock;
use crate::shard::Shard;
use std::path::PathBuf;
use std::sync::Arc;

/// The threads, and what is needed to end them.
pub struct Threads {
    pub(super) shards: Vec<Arc<Shard>>,
    pub(super) acceptor: Option<Stop>,
    pub(super) acceptor_thread: Option<std::thread::JoinHandle<()>>,
    pub(super) reactors_left: usize,
    pub(super) writers_left: usize,
    pub(super) clean: bool,
    pub(super) sockets: Vec<PathBuf>,
    /// Held as long as the server runs.
    pub(super) _lock: Lock,
}

impl Threads {
    /// Lets acceptors hand on what waits, and end, before reactors do.
    pub fn stop_acceptors(&mut self) {
        if let Some(stop) = self.acceptor.take() {
            stop.stop();
        }
        if let Some(thread) = self.acceptor_thread.take() {
            let _ = thread.join(); // a panic was reported as a notice
        }
    }

    pub fn wake_reactors(&self) {
        self.shards.iter().flat_map(|s| &s.reactors).for_each(crate::shard::ReactorPort::wake);
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

    pub fn remove_sockets(&self) {
        for path in &self.sockets {
            let _ = std::fs::remove_file(path); // another server may have taken the path over
        }
    }
}
