//! A running server as a reload sees it: its options, and the ways to change them.

use super::certificates::Certificates;
use super::commit_logs::CommitLogs;
use super::file_modes::FileModes;
use super::sources::Source;
use crate::config::Options;
use crate::host::clock::Clock;
use crate::intake::reactor::{self, ConnectionLimit, ListenerRun};
use crate::intake::spread::Spread;
use crate::log::disk::Disk;
use crate::pipeline::control::{Control, Notice};
use crate::pipeline::keeper::KeptStreams;
use crate::pipeline::shard::Shard;
use crate::pipeline::writer;
use crate::server::sandbox::Confinement;
use crate::server::service::Manager;
use crate::watch::render::Metrics;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// How many listeners reloads may add. Their accounts are made at the start.
pub const SPARE_LISTENERS: usize = 16;
/// How many streams reloads may add.
pub const SPARE_STREAMS: usize = 16;

/// The state of a running server. Listeners and streams keep their indices for as long as it runs.
pub struct Live {
    /// What is in force; `options.listeners` are those of `runs`.
    pub options: Options,
    /// The listeners, also those that were removed.
    pub runs: Vec<ListenerRun>,
    /// Their sockets.
    pub sources: Vec<Source>,
    /// The queue of changes to each reactor.
    pub changes: Vec<reactor::Changes>,
    /// The queue of changes to each writer.
    pub writer_changes: Vec<writer::Changes>,
    pub shards: Vec<Arc<Shard>>,
    pub spread: Arc<Spread>,
    pub connections: Arc<ConnectionLimit>,
    pub control: Arc<Control>,
    pub metrics: Arc<Metrics>,
    pub certificates: Certificates,
    pub commit_logs: CommitLogs,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub node: [u8; 16],
    pub modes: FileModes,
    pub kept: KeptStreams,
    pub manager: Manager,
    pub confinement: Confinement,
    pub streams_at_start: usize,
    pub notices: Sender<Notice>,
}

impl Live {
    /// Leaves the sockets to the threads that accept from them, which close them once their queues are empty.
    pub fn let_go_of_sockets(&mut self) {
        self.sources.iter_mut().for_each(Source::let_go);
    }

    /// Removes the socket files that this server made, unless the service manager keeps the sockets.
    pub fn remove_socket_files(&self) {
        if !self.manager.is_there() {
            self.sources.iter().for_each(Source::remove_file);
        }
    }
}
