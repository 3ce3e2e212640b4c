//! The commit logs of the reactors: recovered before the server is ready, made behind it, and given to reactors if they pay.

use super::error::StartError;
use crate::config::Options;
use crate::config::commit_log::CommitLogSize;
use crate::host::sys::{Piece, Ring, pieces};
use crate::log::commit;
use crate::log::commit::generation::Generation;
use crate::log::commit::record::BLOCK;
use crate::log::commit::recover::{self, Around};
use crate::log::data_dir::STATE_DIR;
use crate::log::disk::{Disk, DiskFile, FixedFile, append_all};
use crate::log::{Context, LogError};
use crate::pipeline::chunk::Level;
use crate::pipeline::commit::{CommitLog, Place, Progress, StreamNames};
use crate::pipeline::shard::Shard;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Small groups that each way writes, in turn, to be compared.
const GROUPS: usize = 32;
/// Times to wait, one after the other, before they are compared again: a server that starts under load has no cores to try things out.
const AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// The logs of a server.
pub struct CommitLogs {
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    /// The run of the server.
    generation: u64,
    /// What the streams are called that may use them.
    names: Arc<StreamNames>,
    /// How far each is.
    progress: Vec<Arc<Progress>>,
    /// `storage.commit_log`; off as well where no listener or engine could use it.
    size: CommitLogSize,
}

impl CommitLogs {
    /// Brings what is in the logs, and in no segment, into segments.
    ///
    /// # Errors
    /// That cannot be done: the logs stay as they are.
    pub fn recover(
        around: &Around<'_>,
        options: &Options,
        is_ring: bool,
        streams: usize,
    ) -> Result<CommitLogs, StartError> {
        let start = Instant::now();
        let (last, brought) = recover::recover(around)?;
        if brought.segments > 0 {
            let ms = start.elapsed().as_millis() as u64;
            tracing::info!(
                segments = brought.segments,
                lines = brought.lines,
                ms,
                "brought from the commit logs into segments"
            );
        }
        let is_awaited = options.listeners.iter().any(|l| l.level == Level::Durable);
        let size = if is_ring && is_awaited { options.commit_log } else { CommitLogSize::Off };
        let reactors = options.placement.shards * options.placement.reactors_per_shard;
        Ok(CommitLogs {
            disk: Arc::clone(around.disk),
            data_dir: options.data_dir.clone(),
            generation: last + 1,
            names: Arc::new(StreamNames::new(streams)),
            progress: (0..reactors).map(|_| Arc::default()).collect(),
            size,
        })
    }

    /// Begins this run, now that the last one's lines are in segments. `first` are the first segments of it.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn begin(&self, first: &BTreeMap<(String, u16), u64>) -> Result<(), LogError> {
        if self.size == CommitLogSize::Off && self.generation == 1 {
            return Ok(()); // there never was a log
        }
        Generation { number: self.generation, is_empty: false, first: first.clone() }.begin(&*self.disk, &self.data_dir)
    }

    /// After an orderly end: everything is in segments, and the next start need not look.
    pub fn end(&self) {
        if self.size == CommitLogSize::Off && self.generation == 1 {
            return;
        }
        let empty = Generation { number: self.generation, is_empty: true, first: BTreeMap::new() };
        if let Err(error) = empty.begin(&*self.disk, &self.data_dir) {
            tracing::warn!(%error, "the next start looks through the commit logs for nothing");
        }
    }

    /// Lets the log take lines of a stream whose directory lies on its device.
    pub fn admit(&self, index: usize, name: &str) {
        let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
        let state = device(&self.data_dir.join(STATE_DIR));
        if state.is_some() && state == device(&self.data_dir.join(name)) {
            self.names.admit(index, name);
        }
    }

    /// How far each log is, for the keeper.
    pub fn progress(&self) -> Vec<(Arc<Progress>, PathBuf)> {
        if self.size == CommitLogSize::Off {
            return Vec::new();
        }
        let path = |reactor: usize| commit::path(&self.data_dir, reactor as u16);
        self.progress.iter().enumerate().map(|(i, progress)| (Arc::clone(progress), path(i))).collect()
    }

    /// Makes the logs and hands them to the reactors, on a thread of its own: their blocks are written first, and tried out. Where that
    /// does not work there are none.
    pub fn start(&self, shards: &[Arc<Shard>]) {
        if let Err(error) = self.start_making(shards) {
            tracing::info!(%error, "no commit log here: durable answers come by syncs of the segments");
        }
    }

    fn start_making(&self, shards: &[Arc<Shard>]) -> io::Result<()> {
        let bytes = match self.size {
            CommitLogSize::Off => return Ok(()),
            CommitLogSize::Auto => commit::AUTO_BYTES,
            CommitLogSize::Bytes(bytes) => bytes,
        };
        let work = Making {
            disk: Arc::clone(&self.disk),
            data_dir: self.data_dir.clone(),
            generation: self.generation,
            names: Arc::clone(&self.names),
            bytes,
            compares: self.size == CommitLogSize::Auto,
        };
        // Now: once the process is confined, it may make no more of them.
        let mut ring = Ring::new(1, BLOCK)?;
        let (shards, progress) = (shards.to_vec(), self.progress.clone());
        let body = move || {
            let mut number = 0;
            for shard in &shards {
                for port in &shard.reactors {
                    let made = work.make(number, shard.index, &progress[usize::from(number)], &mut ring);
                    number += 1;
                    match made {
                        Ok(Some(log)) => {
                            let _ = port.commit.push(Box::new(log)); // the only one
                            port.wake();
                        }
                        Ok(None) => return,
                        Err(error) => {
                            return tracing::info!(%error, "no commit log here: durable answers come by syncs of the segments");
                        }
                    }
                }
            }
            tracing::info!(logs = number, bytes, "small durable groups go to the commit log");
        };
        std::thread::Builder::new().name("commit-logs".into()).spawn(body).map(drop)
    }
}

/// What the thread needs that makes them.
struct Making {
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    generation: u64,
    names: Arc<StreamNames>,
    bytes: u64,
    /// Whether a log must be better than syncs.
    compares: bool,
}

impl Making {
    fn make(
        &self,
        reactor: u16,
        shard: u16,
        progress: &Arc<Progress>,
        ring: &mut Ring,
    ) -> Result<Option<CommitLog>, LogError> {
        let path = commit::path(&self.data_dir, reactor);
        let dir = path.parent().unwrap_or(&self.data_dir);
        self.disk.create_dir_all(dir).context("make directory", dir)?;
        let is_made = self.disk.size_of(&path).is_ok_and(|size| size == self.bytes);
        let file = self.disk.fixed(&path, (!is_made).then_some(self.bytes)).context("open", &path)?;
        let mut tried = self.compare(dir, &file, ring).context("try", &path)?;
        let is_no_better = |(by_log, by_sync): (Duration, Duration)| self.compares && by_log * 10 > by_sync * 9;
        for pause in AGAIN {
            if !is_no_better(tried) {
                break;
            }
            std::thread::park_timeout(pause);
            tried = self.compare(dir, &file, ring).context("try", &path)?;
        }
        let (by_log, by_sync) = (tried.0.as_micros() as u64, tried.1.as_micros() as u64);
        if is_no_better(tried) {
            tracing::info!(by_log, by_sync, "no commit log: it is not quicker here than a sync (microseconds)");
            // It takes room, and memory where files are in memory. The lines of the last run are in segments.
            self.disk.remove(&path).context("remove", &path)?;
            return Ok(None);
        }
        tracing::debug!(by_log, by_sync, "a small durable group (microseconds)");
        let place = Place {
            file,
            bytes: self.bytes,
            generation: self.generation,
            reactor,
            shard,
            names: Arc::clone(&self.names),
            progress: Arc::clone(progress),
            direct_ns: if self.compares { tried.1.as_nanos() as u64 } else { 0 },
        };
        CommitLog::new(place).context("map memory for", &path).map(Some)
    }

    /// What a small group takes in the log, and one that is appended and synced, in turn. The lower quartiles: others may be busy, which
    /// makes both wait.
    fn compare(&self, dir: &Path, file: &Arc<dyn FixedFile>, ring: &mut Ring) -> io::Result<(Duration, Duration)> {
        let path = dir.join("probe.tmp");
        let _ = self.disk.remove(&path); // left by a process that died in between
        let appended = self.disk.create_new(&path)?;
        let result = self.alternate(&**file, &*appended, ring);
        self.disk.remove(&path)?;
        result
    }

    fn alternate(
        &self,
        file: &dyn FixedFile,
        appended: &dyn DiskFile,
        ring: &mut Ring,
    ) -> io::Result<(Duration, Duration)> {
        let mut memory: Vec<Piece> = pieces(1, BLOCK, false, None)?;
        let (mut by_log, mut by_sync) = (Vec::new(), Vec::new());
        let blocks = (self.bytes / BLOCK as u64).max(1);
        for i in 0..GROUPS {
            let start = Instant::now();
            append_all(appended, &[b'\n'; BLOCK - 96])?;
            appended.sync_data()?;
            by_sync.push(start.elapsed());
            let (start, offset) = (Instant::now(), (i as u64 % blocks) * BLOCK as u64);
            match file.fd() {
                Some(fd) => {
                    let piece = memory.pop().ok_or(io::ErrorKind::OutOfMemory)?;
                    ring.write(fd, piece, BLOCK, offset, 0);
                    let done = loop {
                        ring.wait(Some(Duration::from_secs(10)), false)?;
                        if let Some(done) = ring.next_done() {
                            break done;
                        }
                    };
                    memory.extend(done.written);
                    if usize::try_from(done.result) != Ok(BLOCK) {
                        return Err(io::Error::from_raw_os_error(-done.result.min(-1)));
                    }
                }
                None => file.write_at(&memory[0], offset)?,
            }
            by_log.push(start.elapsed());
        }
        let quartile = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 4]
        };
        Ok((quartile(by_log), quartile(by_sync)))
    }
}
