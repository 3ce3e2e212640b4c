//! The writer's helper. It prepares the next segment, syncs in the background, and seals. So the writer can append while a sync
//! runs, and a rotation costs it the exchange of two pointers.

use super::syncers::{InTurn, Synced, Syncers, Together, Wanted};
use crate::host::clock::Clock;
use crate::host::mutants::mutant;
use crate::log::LogError;
use crate::log::disk::DiskFile;
use crate::log::foreign::still_there;
use crate::log::names::SegmentId;
use crate::log::segment::{SealedParts, Segment, Stamp};
use crate::log::stream_dir::StreamDir;
use crate::pipeline::keeper::events::SegmentEvents;
use crate::pipeline::sleep::{Sleep, Waker};
use crossbeam_queue::ArrayQueue;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A job for the steward.
pub enum Job {
    /// Make the next segment.
    Prepare {
        /// Index of the stream.
        stream: usize,
        /// Where.
        dir: Arc<StreamDir>,
    },
    /// Sync active segments, together.
    Sync(Vec<ToSync>),
    /// Make a finished segment durable, give its unused room back, rename it, point `current` at its successor.
    Seal {
        /// Index of the stream.
        stream: usize,
        /// Where.
        dir: Arc<StreamDir>,
        /// The segment.
        parts: Box<SealedParts>,
        /// What `current` is to point at; `None`: nothing, the server ends.
        next: Option<SegmentId>,
    },
}

/// An active segment to sync.
pub struct ToSync {
    /// Index of the stream.
    pub stream: usize,
    /// Which segment.
    pub id: SegmentId,
    /// To be set if it fails: a seal job may be waiting behind this one.
    pub failed: Arc<AtomicBool>,
    /// Its file.
    pub wanted: Wanted,
}

/// The result of a job.
pub enum Done {
    /// The next segment, or why there is none.
    Prepared {
        /// Index of the stream.
        stream: usize,
        /// The result.
        result: Result<Box<Segment>, LogError>,
    },
    /// Everything written before the job was given is durable, or not.
    Synced {
        /// Index of the stream.
        stream: usize,
        /// Which segment.
        id: SegmentId,
        /// How long it took.
        took_ns: u64,
        /// The result.
        result: Result<(), LogError>,
    },
    /// Everything in a finished segment is durable, or not. Comes before [`Done::Sealed`]; not for a suspect segment.
    SealSynced {
        /// Index of the stream.
        stream: usize,
        /// How long it took.
        took_ns: u64,
        /// The result.
        result: Result<(), LogError>,
    },
    /// The segment has its final name, or not. In the second case the next start handles it.
    Sealed {
        /// Index of the stream.
        stream: usize,
        /// The result.
        result: Result<(), LogError>,
        /// Somebody else had changed it; all our lines are in it.
        foreign: bool,
    },
}

/// Does jobs, in a thread of its own or, in tests, at once.
pub trait Steward: Send {
    /// Takes a job; jobs are done in the order given.
    fn submit(&mut self, job: Job);
    /// A result, if there is one.
    fn poll(&mut self) -> Option<Done>;
    /// Sleeps until there may be a result, at most so long. Not at all where jobs are done on the spot.
    fn pause(&self, sleeper: &dyn Sleep, at_most: Duration);
}

/// Does one job, handing results on as they come.
pub fn work(job: Job, clock: &dyn Clock, syncers: &mut dyn Syncers, mut done: impl FnMut(Done)) {
    match job {
        Job::Prepare { stream, dir } => done(Done::Prepared { stream, result: dir.prepare().map(Box::new) }),
        Job::Sync(files) => {
            let (mut whose, mut wanted) = (Vec::new(), Vec::new());
            for file in files {
                whose.push((file.stream, file.id, file.failed));
                wanted.push(file.wanted);
            }
            for ((stream, id, failed), Synced { took_ns, result }) in whose.into_iter().zip(syncers.sync(wanted)) {
                failed.store(result.is_err(), Ordering::SeqCst);
                done(Done::Synced { stream, id, took_ns, result });
            }
        }
        Job::Seal { stream, dir, mut parts, next } => {
            if !parts.suspect {
                let start = clock.mono_ns();
                let stamp = Stamp { mono_ns: start, wall_ns: clock.wall_ns() };
                if mutant!("rename_before_sync") {
                    let _ = dir.seal(&parts);
                }
                let synced = parts.make_durable(stamp);
                if synced.is_err() {
                    parts.give_up(stamp);
                }
                // Where the trail has no room, lines are durable once their file has its sealed name.
                let (result, named) = match synced {
                    Ok(true) => (Ok(()), None),
                    Ok(false) => {
                        let tidied = parts.tidy(stamp);
                        (dir.seal(&parts), Some(tidied))
                    }
                    Err(error) => (Err(error), None),
                };
                let has_failed = result.is_err();
                done(Done::SealSynced { stream, took_ns: clock.mono_ns().saturating_sub(start), result });
                if let Some(tidied) = named {
                    point(&dir, next);
                    let result = if has_failed { Ok(()) } else { tidied };
                    return done(Done::Sealed { stream, result, foreign: is_foreign(&parts) });
                }
            }
            let result = seal(&dir, clock, &mut parts, next);
            done(Done::Sealed { stream, result, foreign: is_foreign(&parts) });
        }
    }
}

/// Logs what somebody else has done to a finished segment.
fn is_foreign(parts: &SealedParts) -> bool {
    let Some(foreign) = parts.foreign else { return false };
    let file = parts.segment.path.display();
    tracing::error!(%file, "{foreign}; nothing is cut off, and logweir verify says where the bytes of logweir end");
    true
}

fn seal(dir: &StreamDir, clock: &dyn Clock, parts: &mut SealedParts, next: Option<SegmentId>) -> Result<(), LogError> {
    // A suspect segment keeps its active name: what of it reached the disk is for the next start's recovery to judge.
    let sealed = if parts.suspect && mutant!("suspect_sealed_as_sound") {
        dir.seal(parts)
    } else if parts.suspect {
        Ok(())
    } else {
        let tidied = parts.tidy(Stamp { mono_ns: clock.mono_ns(), wall_ns: clock.wall_ns() });
        if !mutant!("rename_before_sync") {
            dir.seal(parts)?;
        }
        parts.segment.file.forget_cache();
        tidied
    };
    point(dir, next);
    sealed
}

/// Nothing but `tail -F` depends on it.
fn point(dir: &StreamDir, next: Option<SegmentId>) {
    if let Some(Err(error)) = next.map(|next| dir.point_current(next)) {
        tracing::warn!(%error, "`current` still names the previous segment");
    }
}

/// `fdatasync`, and a look whether the file still has its name and all of the first `len` bytes: what is synced into a
/// deleted file is gone.
///
/// # Errors
/// The sync failed, or somebody else has deleted, moved or cut the file.
pub fn sync_linked(file: &dyn DiskFile, path: &std::path::Path, len: u64) -> Result<(), LogError> {
    let io = |what, error| LogError::Io { what, path: path.to_path_buf(), error };
    let mut synced = file.sync_data();
    if synced.is_err() && mutant!("sync_retried") {
        synced = file.sync_data();
    }
    synced.map_err(|e| io("sync", e))?;
    still_there(file, path, len)
}

/// Jobs that may wait: for each stream one of each kind is the most there ever is.
const JOBS_PER_STREAM: usize = 6;

/// A steward with a thread.
pub struct Threaded {
    jobs: Option<SyncSender<Job>>,
    done: Arc<ArrayQueue<Done>>,
    thread: Option<JoinHandle<()>>,
}

impl Threaded {
    /// Starts the thread; it wakes `writer` with each result, and tells the keeper of segments that are made and sealed.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        shard: u16,
        streams: usize,
        clock: Arc<dyn Clock>,
        writer: Waker,
        keeper: Arc<SegmentEvents>,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel::<Job>(streams * JOBS_PER_STREAM);
        let done = Arc::new(ArrayQueue::new(streams * JOBS_PER_STREAM * 2));
        let results = Arc::clone(&done);
        let thread = std::thread::Builder::new().name(format!("steward-{shard}")).spawn(move || {
            let mut syncers = Together::new(Arc::clone(&clock), shard);
            for job in receiver {
                let (dir, sealing) = match &job {
                    Job::Prepare { dir, .. } => (Some(Arc::clone(dir)), None),
                    Job::Seal { dir, parts, .. } => (Some(Arc::clone(dir)), Some(parts.segment.id)),
                    Job::Sync(_) => (None, None),
                };
                work(job, &*clock, &mut syncers, |result| {
                    match (&result, &dir, sealing) {
                        (Done::Prepared { result: Ok(made), .. }, Some(dir), _) => keeper.made(dir.path(), made.id),
                        (Done::Sealed { .. }, Some(dir), Some(id)) => keeper.sealed(dir.path(), id),
                        _ => {}
                    }
                    // Cannot be full: each job has at most two results, and the writer gives no new ones before.
                    let _ = results.push(result);
                    writer();
                });
            }
        })?;
        Ok(Threaded { jobs: Some(sender), done, thread: Some(thread) })
    }
}

impl Steward for Threaded {
    fn submit(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Fails only if the thread is gone, which it is only after drop.
            let _ = jobs.send(job);
        }
    }

    fn poll(&mut self) -> Option<Done> {
        self.done.pop()
    }

    fn pause(&self, sleeper: &dyn Sleep, at_most: Duration) {
        sleeper.sleep(Some(at_most));
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A steward that does each job on the spot.
pub struct Inline {
    clock: Arc<dyn Clock>,
    done: std::collections::VecDeque<Done>,
}

impl Inline {
    /// A steward without a thread.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Inline { clock, done: std::collections::VecDeque::new() }
    }
}

impl Steward for Inline {
    fn submit(&mut self, job: Job) {
        let (done, mut syncers) = (&mut self.done, InTurn(Arc::clone(&self.clock)));
        work(job, &*self.clock, &mut syncers, |result| done.push_back(result));
    }

    fn poll(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    fn pause(&self, _sleeper: &dyn Sleep, _at_most: Duration) {}
}
