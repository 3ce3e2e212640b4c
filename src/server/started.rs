//! What a server is started with, and what it tells when it is ready.

use super::service::{Inherited, Manager};
use crate::host::clock::Clock;
use crate::log::disk::Disk;
use std::path::PathBuf;
use std::sync::Arc;

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

/// What a server is started with.
pub struct Around {
    /// Its disk.
    pub disk: Arc<dyn Disk>,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// The service manager.
    pub manager: Manager,
    /// Sockets from it.
    pub inherited: Vec<Inherited>,
}
