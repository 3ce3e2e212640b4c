//! What a crash has left is recovered before the server is ready. Where the disk has no room for it, the server waits: it says so to
//! whoever asks, and nothing is lost meanwhile.

use super::error::StartError;
use crate::host::clock::Clock;
use crate::log::data_dir;
use crate::log::disk::Disk;
use crate::log::recover::recover_dir;
use crate::log::retired;
use crate::pipeline::control::{Control, Notice};
use crate::server::service::Manager;
use crate::watch::render::RecoverySums;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Time between two tries on a full disk.
const AGAIN: Duration = Duration::from_secs(1);

/// Waits for room, until somebody ends the server.
pub struct Patience<'a> {
    /// Where readiness is asked for.
    pub control: &'a Control,
    /// The service manager.
    pub manager: Manager,
    /// Signals.
    pub notices: &'a Receiver<Notice>,
}

impl Patience<'_> {
    /// Repeats a step of the recovery until the disk has room for it. Each step can be repeated, wherever it was interrupted.
    ///
    /// # Errors
    /// Any other error; this one too, once a signal ends the server or a thread of it has died.
    pub fn until_there_is_room<T>(&self, mut step: impl FnMut() -> Result<T, StartError>) -> Result<T, StartError> {
        let mut waits = false;
        let result = loop {
            match step() {
                Err(StartError::Log(error)) if error.is_full() => {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::error!(%error, "no room to recover what a crash has left: not ready until there is; nothing of it is lost meanwhile");
                        self.manager.status("waits for room on the disk, to recover what a crash has left");
                        self.control.disk_full(true);
                    }
                    if self.is_over() {
                        break Err(StartError::Log(error));
                    }
                }
                other => break other,
            }
        };
        if waits {
            self.control.disk_full(false);
        }
        result
    }

    /// Waits. True: the server is to end.
    fn is_over(&self) -> bool {
        use signal_hook::consts::{SIGHUP, SIGUSR1};
        match self.notices.recv_timeout(AGAIN) {
            // A reload or a rotation means nothing before the start.
            Err(RecvTimeoutError::Timeout) | Ok(Notice::Signal(SIGHUP | SIGUSR1)) => false,
            Ok(_) | Err(RecvTimeoutError::Disconnected) => true,
        }
    }
}

/// Recovers the segments of every stream in the data directory.
///
/// # Errors
/// A file cannot be read or written, or there is damage and `strict` is set.
pub fn recover_segments(
    disk: &dyn Disk,
    clock: &dyn Clock,
    data_dir: &Path,
    strict: bool,
) -> Result<RecoverySums, StartError> {
    let start = Instant::now();
    let mut sums = RecoverySums::default();
    for dir in data_dir::stream_dirs(disk, data_dir)? {
        if let Some(stream) = dir.file_name().and_then(|name| name.to_str()) {
            retired::check(disk, data_dir, stream)?;
        }
        for one in recover_dir(disk, clock, &dir, strict)? {
            sums.add(&one);
            let (stream, segment) = (dir.display(), one.id.sequence);
            if let Some(damage) = &one.damage {
                tracing::error!(%stream, segment, damage, "DAMAGE: durable bytes have changed; the file is kept as it is");
            }
            tracing::info!(%stream, segment, lines = one.lines, bytes = one.bytes, torn_bytes = one.torn_bytes, "recovered");
        }
    }
    if sums.segments > 0 {
        tracing::info!(
            segments = sums.segments,
            lines = sums.lines,
            ms = start.elapsed().as_millis() as u64,
            "recovery done"
        );
    }
    Ok(sums)
}
