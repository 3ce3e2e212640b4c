//! Which streams the writer syncs for whom.

use super::steward::{Inline, work};
use super::steward::{Job, ToSync};
use super::stream::StreamOptions;
use super::syncers::Wanted;
use super::syncers::{InTurn, Synced};
use super::unsynced::SyncPolicy;
use super::*;
use crate::host::clock::BootId;
use crate::log::commit::Named;
use crate::log::disk::{Caching, Disk};
use crate::log::real_disk::RealDisk;
use crate::log::segment::AppendOptions;
use crate::log::stream_dir::StreamDir;
use crate::pipeline::chunk::{ConnId, Ticket};
use crate::pipeline::shard::ShardSize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
struct Time(AtomicU64);

impl Clock for Time {
    fn mono_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn wall_ns(&self) -> u64 {
        self.mono_ns()
    }
    fn boot_id(&self) -> BootId {
        [1; 16]
    }
}

/// Does everything at once, but syncs only when it is told to.
struct Patient {
    at_once: Inline,
    waiting: Arc<Mutex<VecDeque<Vec<ToSync>>>>,
    done: Arc<Mutex<VecDeque<Done>>>,
}

impl Steward for Patient {
    fn submit(&mut self, job: Job) {
        match job {
            Job::Sync(files) => self.waiting.lock().unwrap().push_back(files),
            other => self.at_once.submit(other),
        }
    }
    fn poll(&mut self) -> Option<Done> {
        self.done.lock().unwrap().pop_front().or_else(|| self.at_once.poll())
    }
    fn pause(&self, _sleeper: &dyn Sleep, _at_most: Duration) {
        panic!("the writer waits for a sync in the background");
    }
}

/// Notes which streams the writer syncs itself.
struct Noted {
    in_turn: InTurn,
    synced: Arc<Mutex<Vec<String>>>,
    /// The stream whose next sync fails.
    fails: Arc<Mutex<Option<String>>>,
}

impl Syncers for Noted {
    fn sync(&mut self, wanted: Vec<Wanted>) -> Vec<Synced> {
        let name = |one: &Wanted| one.path.parent()?.file_name()?.to_str().map(String::from);
        let names: Vec<String> = wanted.iter().filter_map(name).collect();
        let paths: Vec<_> = wanted.iter().map(|one| one.path.clone()).collect();
        let mut all = self.in_turn.sync(wanted);
        let mut fails = self.fails.lock().unwrap();
        if let Some(at) = names.iter().position(|name| fails.as_ref() == Some(name)) {
            *fails = None;
            let (path, error) = (paths[at].clone(), std::io::Error::from_raw_os_error(nix::libc::EIO));
            all[at].result = Err(crate::log::LogError::Io { what: "sync", path, error });
        }
        self.synced.lock().unwrap().extend(names);
        all
    }
}

const MINUTE: u64 = 60_000_000_000;

struct Bench {
    shard: Arc<Shard>,
    clock: Arc<Time>,
    writer: Writer,
    synced: Arc<Mutex<Vec<String>>>,
    fails: Arc<Mutex<Option<String>>>,
    waiting: Arc<Mutex<VecDeque<Vec<ToSync>>>>,
    done: Arc<Mutex<VecDeque<Done>>>,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// A writer of these streams, each synced in the background so long after a write.
    fn new(streams: &[(&str, u64)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Time(AtomicU64::new(1)));
        let time: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        let (sleeper, waker) = crate::pipeline::sleep::parking();
        let size = ShardSize { reactors: 1, chunks: vec![(Class::Lossless, 16)], chunk_bytes: 4096, node: None };
        let shard = Shard::new(0, &size, waker).unwrap();
        let (waiting, done, synced, fails) = <(Arc<_>, Arc<_>, Arc<_>, Arc<_>)>::default();
        let at_once = Inline::new(Arc::clone(&time));
        let mut steward = Box::new(Patient { at_once, waiting: Arc::clone(&waiting), done: Arc::clone(&done) });
        let mut opened = Vec::new();
        for (index, (name, interval_ns)) in streams.iter().enumerate() {
            let place = StreamDir::open(Arc::clone(&disk), Arc::clone(&time), dir.path(), [0; 16], name, 0, 0).unwrap();
            let options = StreamOptions {
                name: name.to_string(),
                append: AppendOptions { large: Caching::Keep, reserve_step: 0 },
                segment_bytes: 1 << 20,
                segment_age_ns: u64::MAX / 2,
                sync: SyncPolicy { interval_ns: *interval_ns, bytes: 1 << 20 },
            };
            let first = place.begin_first().unwrap();
            opened.push(StreamWriter::begun(index, Arc::new(place), options, first, &mut *steward));
        }
        let writer = Writer::new(Parts {
            shard: Arc::clone(&shard),
            control: Arc::default(),
            clock: Arc::clone(&time),
            steward,
            syncers: Box::new(Noted { in_turn: InTurn(time), synced: Arc::clone(&synced), fails: Arc::clone(&fails) }),
            sleeper,
            ledger: Ledger::new(1),
            streams: opened,
            changes: Arc::new(crossbeam_queue::ArrayQueue::new(1)),
        });
        Bench { shard, clock, writer, synced, fails, waiting, done, _dir: dir }
    }

    /// Hands the writer a chunk with a line for each of these streams.
    fn push(&self, streams: &[u16], level: Level, is_awaited: bool, is_logged: bool) {
        let mut chunk = self.shard.channel(Class::Lossless).pool.take().unwrap();
        for stream in streams {
            chunk.free()[..2].copy_from_slice(b"x\n");
            let ticket = Ticket { conn: ConnId { index: 0, generation: 0 }, frame: 0 };
            chunk.commit(*stream, 0, is_awaited.then_some(ticket), 2, 1, 0);
        }
        if is_logged {
            chunk.note_logged(Named { generation: 1, reactor: 0, through: 1 });
        }
        (chunk.level, chunk.reactor) = (level, 0);
        self.shard.channel(Class::Lossless).ring.push(chunk);
    }

    /// Turns until there is nothing more to do. Returns how many chunks came back.
    fn run(&mut self) -> usize {
        while matches!(self.writer.turn(), Turn::Again) {}
        let mut back = 0;
        while let Some(chunk) = self.shard.reactors[0].spent.pop() {
            back += 1;
            self.shard.release(Class::Lossless, chunk);
        }
        back
    }

    /// The steward syncs what it was asked for. Returns those streams.
    fn sync(&self) -> Vec<usize> {
        let files: Vec<ToSync> = std::mem::take(&mut *self.waiting.lock().unwrap()).into_iter().flatten().collect();
        let streams = files.iter().map(|file| file.stream).collect();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let mut syncers = InTurn(Arc::clone(&clock));
        work(Job::Sync(files), &*clock, &mut syncers, |done| self.done.lock().unwrap().push_back(done));
        streams
    }
}

#[test]
fn who_waits_for_a_quiet_stream_does_not_pay_for_busy_ones() {
    let mut it = Bench::new(&[("busy", 5), ("quiet", MINUTE), ("other", MINUTE)]);
    it.push(&[0], Level::None, false, false);
    it.run();
    it.clock.0.fetch_add(5, Ordering::SeqCst);
    it.run();
    assert_eq!(it.waiting.lock().unwrap().len(), 1, "a sync of the busy one is under way, and takes long");
    it.push(&[0, 2], Level::None, false, false);
    it.push(&[1], Level::Durable, true, false);
    assert_eq!((it.run(), it.synced.lock().unwrap().clone()), (1, vec!["quiet".to_string()]));
}

#[test]
fn a_chunk_goes_back_when_all_of_its_streams_are_synced() {
    let mut it = Bench::new(&[("a", MINUTE), ("b", 5), ("c", MINUTE)]);
    it.push(&[0, 1], Level::Durable, true, true);
    it.push(&[1], Level::Durable, true, true);
    it.push(&[2], Level::None, false, false);
    assert_eq!(it.run(), 0, "its lines are in the log, so nobody waits for a sync");
    it.clock.0.fetch_add(5, Ordering::SeqCst);
    it.run();
    assert_eq!(it.sync(), [1]);
    assert_eq!(it.run(), 1, "the second, and not the first");
    it.shard.hurry();
    it.run();
    assert_eq!(it.sync(), [0, 2], "together");
    assert_eq!(it.run(), 1);
    assert!(it.synced.lock().unwrap().is_empty());
}

#[test]
fn a_hurry_ends_though_lines_keep_coming() {
    let mut it = Bench::new(&[("a", MINUTE), ("b", MINUTE)]);
    it.push(&[0, 1], Level::None, false, false);
    it.run();
    it.shard.hurry();
    it.run();
    it.push(&[0, 1], Level::None, false, false);
    it.run();
    assert_eq!(it.sync(), [0, 1]);
    it.run();
    assert_eq!(it.sync(), [0; 0], "what came meanwhile is not hurried");
    it.shard.hurry();
    it.run();
    assert_eq!(it.sync(), [0, 1]);
}

/// What a commit log has answered may be in the ring still when somebody asks for a rotation.
#[test]
fn a_rotation_takes_along_what_is_in_the_ring() {
    let mut it = Bench::new(&[("a", MINUTE)]);
    let rotations = |it: &Bench| it.shard.writer_stats.rotations.get();
    it.push(&[0], Level::Durable, true, true);
    it.writer.control.ask_rotation();
    it.run();
    assert_eq!(rotations(&it), 1, "though nothing was in the segment when it was asked for");
    it.writer.control.ask_rotation();
    it.run();
    assert_eq!(rotations(&it), 1, "an empty one is not rotated");
    it.push(&[0], Level::Durable, true, true);
    it.run();
    assert_eq!(rotations(&it), 1, "nor later, when there is something");
    // Lines in the segment, and more in the ring: all of them go into the one that is sealed.
    it.push(&[0], Level::Durable, true, true);
    it.writer.control.ask_rotation();
    it.run();
    assert_eq!(rotations(&it), 2);
    let sealed = crate::log::cat::segments(&it._dir.path().join("a")).unwrap();
    let file = it._dir.path().join("a").join(sealed[1].file_name(crate::log::names::Kind::Sealed));
    assert_eq!(std::fs::read(file).unwrap(), b"x\nx\n");
}

/// What comes back is durable for whoever waits for it.
#[test]
fn lines_whose_sync_failed_are_written_again_before_anybody_is_answered_though_another_streams_sync_succeeds() {
    let mut it = Bench::new(&[("a", MINUTE), ("b", MINUTE)]);
    it.push(&[0], Level::Durable, true, false);
    it.push(&[1], Level::Durable, true, false);
    *it.fails.lock().unwrap() = Some("a".into());
    assert_eq!(it.run(), 2, "in the end");
    let synced = it.synced.lock().unwrap().clone();
    assert_eq!(synced.iter().filter(|name| *name == "a").count(), 2, "the second time in a new segment: {synced:?}");
}
