//! Syncs the segments of several streams at once, for clients that wait for all of them. A journalling file system makes one
//! commit of syncs that run together, but one commit for each of syncs that run one after the other.

use super::steward::sync_linked;
use crate::host::clock::Clock;
use crate::log::disk::DiskFile;
use crate::log::segment::Segment;
use crate::log::trail_writer::SyncAhead;
use crate::log::{Context, LogError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Threads beside the writer's own. More gain nothing: what is asked for while a commit runs is in the next one.
const MOST: usize = 15;

/// A file to sync.
pub struct Wanted {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Its path, for messages.
    pub path: PathBuf,
    /// Bytes that it must have.
    pub len: u64,
    /// The sync of its trail that goes before.
    pub ahead: Option<SyncAhead>,
}

impl Wanted {
    /// All of a segment that was written so far.
    ///
    /// # Errors
    /// As [`Segment::sync_ahead`].
    pub fn of(segment: &mut Segment) -> Result<Wanted, LogError> {
        let ahead = segment.sync_ahead()?;
        Ok(Wanted { file: Arc::clone(&segment.file), path: segment.path.clone(), len: segment.len(), ahead })
    }
}

/// The result of a sync.
pub struct Synced {
    /// How long it took.
    pub took_ns: u64,
    /// Whether everything that was written before is durable.
    pub result: Result<(), LogError>,
}

/// Syncs files, each once, and returns when all are done.
pub trait Syncers: Send {
    /// The results are in the order of the files.
    fn sync(&mut self, wanted: Vec<Wanted>) -> Vec<Synced>;
}

fn sync_one(wanted: &Wanted, clock: &dyn Clock) -> Synced {
    let start = clock.mono_ns();
    let ahead = wanted.ahead.as_ref().map_or(Ok(()), SyncAhead::sync).context("sync trail of", &wanted.path);
    let result = ahead.and_then(|()| sync_linked(&*wanted.file, &wanted.path, wanted.len));
    Synced { took_ns: clock.mono_ns().saturating_sub(start), result }
}

/// Syncs files one after the other, on the thread of the writer.
pub struct InTurn(pub Arc<dyn Clock>);

impl Syncers for InTurn {
    fn sync(&mut self, wanted: Vec<Wanted>) -> Vec<Synced> {
        wanted.iter().map(|one| sync_one(one, &*self.0)).collect()
    }
}

/// Where answers go, and where they come from.
type Done = (Sender<(usize, Synced)>, Receiver<(usize, Synced)>);

/// Syncs files together, on threads that are started when they are first needed. With one stream there are none.
pub struct Together {
    clock: Arc<dyn Clock>,
    shard: u16,
    workers: Vec<Sender<(usize, Wanted)>>,
    done: Done,
}

impl Together {
    /// No thread is started yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, shard: u16) -> Together {
        Together { clock, shard, workers: Vec::new(), done: channel() }
    }

    /// Starts threads until there are enough, as far as the system allows.
    fn staff(&mut self, most: usize) {
        while self.workers.len() < most.min(MOST) {
            let (jobs, orders) = channel::<(usize, Wanted)>();
            let (done, clock) = (self.done.0.clone(), Arc::clone(&self.clock));
            let body = move || {
                for (place, wanted) in orders {
                    // Whatever happens, there is an answer: the writer waits for it.
                    let synced = catch_unwind(AssertUnwindSafe(|| sync_one(&wanted, &*clock))).unwrap_or_else(|_| {
                        let error = io::Error::other("a bug in syncing");
                        Synced { took_ns: 0, result: Err(LogError::Io { what: "sync", path: wanted.path, error }) }
                    });
                    if done.send((place, synced)).is_err() {
                        return;
                    }
                }
            };
            let name = format!("syncer-{}-{}", self.shard, self.workers.len());
            if std::thread::Builder::new().name(name).spawn(body).is_err() {
                return;
            }
            self.workers.push(jobs);
        }
    }
}

impl Syncers for Together {
    fn sync(&mut self, wanted: Vec<Wanted>) -> Vec<Synced> {
        self.staff(wanted.len().saturating_sub(1));
        let teams = self.workers.len() + 1;
        let mut all: Vec<Option<Synced>> = wanted.iter().map(|_| None).collect();
        let (mut own, mut out) = (Vec::new(), 0);
        for (place, one) in wanted.into_iter().enumerate() {
            let job = match self.workers.get((place % teams).wrapping_sub(1)) {
                Some(worker) => worker.send((place, one)).map_err(|returned| returned.0),
                None => Err((place, one)),
            };
            match job {
                Ok(()) => out += 1,
                Err(mine) => own.push(mine),
            }
        }
        for (place, one) in own {
            all[place] = Some(sync_one(&one, &*self.clock));
        }
        for _ in 0..out {
            if let Ok((place, synced)) = self.done.1.recv() {
                all[place] = Some(synced);
            }
        }
        all.into_iter().flatten().collect()
    }
}
