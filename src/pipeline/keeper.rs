//! Housekeeping of sealed segments: deletes what retention says, and compresses and moves the rest as configured. It is one
//! thread of low priority, which sleeps until a segment is sealed or something is due.

use crate::host::clock::Clock;
use crate::log::LogError;
use crate::log::archive::Shelf;
use crate::log::disk::Disk;
use crate::log::names::Kind;
use crate::log::names::SegmentId;
use crate::log::retention::{Finished, Inventory, Known, Limits};
use crate::log::retired::{self, Taken};
use crate::pipeline::commit::Clearance;
use crate::pipeline::control::Control;
use crate::pipeline::sleep::Sleep;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Time between two looks at free space, where some stream has `min_free`: others use the disk too.
const LOOK_NS: u64 = 5_000_000_000;
/// btrfs commits every 30 seconds, and what was deleted is not free before; snapshots and readers keep it for longer.
const AWAIT_ROOM_NS: u64 = 120_000_000_000;
/// Time between tries after a failure.
const AGAIN_NS: u64 = 30_000_000_000;
/// The wall clock has jumped if it differs from the monotonic clock by more than this since the last look.
const JUMP_NS: u64 = 3_600_000_000_000;
/// For this long after a jump nothing is deleted for its age, because somebody may correct the clock.
const DISTRUST_NS: u64 = 3_600_000_000_000;
/// The same after the start, because the clock may not be set yet.
const DISTRUST_AT_START_NS: u64 = 60_000_000_000;

/// Time between two looks at whether the commit logs need a segment still.
const CLEAR_NS: u64 = 200_000_000;

/// Segments that are noted, deleted and synced at once.
const BATCH: usize = 4096;
/// After this many deletions of one stream the others have their turn, and free space is checked again.
const TURN: usize = 4096;

/// How one stream is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStream {
    /// Its name.
    pub name: String,
    /// Its directory, and where sealed segments go.
    pub shelf: Shelf,
    /// When they are deleted. Here `max_bytes` is for sealed segments only: the largest size of the files being written is subtracted.
    pub limits: Limits,
}

/// The counts of one stream: what was done, and what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Segments deleted, by reason: `max_age`, `max_bytes`, `min_free`, `unfinished` (what a crash had left half deleted).
    pub deleted: BTreeMap<&'static str, u64>,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Segments compressed.
    pub compressed: u64,
    /// Bytes of them before.
    pub text_bytes: u64,
    /// And after.
    pub packed_bytes: u64,
    /// Bytes moved to `sealed_dir`.
    pub moved_bytes: u64,
    /// Steps that failed. They are tried again.
    pub failures: u64,
    /// Bytes of all files of the stream.
    pub bytes: u64,
    /// Sealed segments.
    pub segments: u64,
}

/// The streams that are kept; a reload changes them.
pub type KeptStreams = Arc<RwLock<Vec<KeptStream>>>;
/// Counts, by stream.
pub type KeptCounts = Arc<Mutex<BTreeMap<String, Kept>>>;

/// Room that deletions should bring.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    /// Bytes free before.
    before: u64,
    /// Bytes deleted.
    deleted: u64,
    /// Until when the keeper waits for it, in monotonic nanoseconds.
    until_ns: u64,
}

/// See the module documentation.
pub struct Keeper {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    control: Arc<Control>,
    data_dir: PathBuf,
    streams: KeptStreams,
    counts: KeptCounts,
    known: BTreeMap<String, Known>,
    /// Wall and monotonic time of the last look.
    last: (u64, u64),
    /// Since when ages are not trusted, and for how long, in monotonic nanoseconds.
    doubt: (u64, u64),
    /// What was deleted for free space and does not show as free yet, by directory.
    awaited: BTreeMap<PathBuf, Awaited>,
    /// The last failure that was logged, so that it is logged only once.
    complaint: String,
    /// Streams of which nothing is left half deleted.
    finished: BTreeSet<String>,
    /// Segments that cannot be deleted, and when to try again.
    stuck: BTreeMap<(String, SegmentId), u64>,
    /// When free space is to be looked at, in monotonic nanoseconds.
    look_at: u64,
    /// What no commit log needs any more.
    clearance: Clearance,
}

impl Keeper {
    /// A keeper for these streams.
    #[must_use]
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        control: Arc<Control>,
        data_dir: &Path,
        streams: KeptStreams,
        counts: KeptCounts,
        clearance: Clearance,
    ) -> Keeper {
        let now = clock.mono_ns();
        let last = (clock.wall_ns(), now);
        Keeper {
            disk,
            clock,
            control,
            data_dir: data_dir.to_path_buf(),
            streams,
            counts,
            known: BTreeMap::new(),
            last,
            doubt: (now, DISTRUST_AT_START_NS),
            awaited: BTreeMap::new(),
            complaint: String::new(),
            finished: BTreeSet::new(),
            stuck: BTreeMap::new(),
            look_at: 0,
            clearance,
        }
    }

    /// Works until the end of the server begins.
    pub fn run(mut self, sleeper: &dyn Sleep) {
        while !self.control.draining() {
            let next = self.pass();
            let now = self.clock.mono_ns();
            sleeper.sleep(next.map(|at| Duration::from_nanos(at.saturating_sub(now))));
        }
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner).clone();
        if streams.iter().all(|s| s.shelf.home.is_none()) {
            return;
        }
        // What was just sealed moves too: the directory it is in may be in memory.
        while !self.control.tidying() {
            sleeper.sleep(None);
        }
        for stream in &streams {
            let moves = Shelf { compress: None, ..stream.shelf.clone() };
            let left = KeptStream { shelf: moves, limits: Limits::default(), name: stream.name.clone() };
            if let Err(error) = self.put_away(&left, &[]) {
                tracing::warn!(stream = stream.name, %error, "not every segment was moved; the next start goes on with it");
            }
        }
    }

    /// True while there is time for another step.
    fn may_go_on(&self) -> bool {
        !self.control.draining() || (self.control.tidying() && !self.control.writers_abandoned())
    }

    /// Does what is due. Returns when something is due next, in monotonic nanoseconds; `None`: nothing is.
    pub fn pass(&mut self) -> Option<u64> {
        self.look_at_clock();
        self.clearance.look(&*self.disk);
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut due: Option<u64> = None;
        // A full disk first, and again between all other work: lines wait for it.
        self.look_at = 0;
        self.make_room_if_due(&streams);
        // Then what is to go, of all streams; what stays is put away last, which may take long.
        for work in [Keeper::delete as fn(&mut Keeper, &KeptStream, &[KeptStream]) -> _, Keeper::put_away] {
            for stream in &streams {
                if self.control.draining() {
                    return None;
                }
                match work(self, stream, &streams) {
                    Ok(at) => due = due.into_iter().chain(at).min(),
                    Err(error) => {
                        self.count(&stream.name, |kept| kept.failures += 1);
                        let again = self.clock.mono_ns().saturating_add(AGAIN_NS);
                        due = Some(due.map_or(again, |at| at.min(again)));
                        let text = error.to_string();
                        if text != self.complaint {
                            tracing::warn!(stream = stream.name, %error, "housekeeping failed; trying again");
                            self.complaint = text;
                        }
                    }
                }
            }
        }
        let looks = streams.iter().any(|s| s.limits.min_free.is_some()).then_some(self.look_at);
        let now = self.clock.mono_ns();
        let again = self.stuck.values().copied().filter(|at| *at > now);
        let clear = self.clearance.is_pending().then(|| now.saturating_add(CLEAR_NS));
        due.into_iter().chain(looks).chain(again).chain(clear).min()
    }

    fn count(&self, stream: &str, change: impl FnOnce(&mut Kept)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(stream.to_string()).or_default());
    }

    fn look_at_clock(&mut self) {
        let (wall, mono) = (self.clock.wall_ns(), self.clock.mono_ns());
        let expected = self.last.0.saturating_add(mono.saturating_sub(self.last.1));
        if wall.abs_diff(expected) > JUMP_NS {
            self.doubt = (mono, DISTRUST_NS);
            tracing::warn!(
                seconds = wall.abs_diff(expected) / 1_000_000_000,
                "the wall clock has jumped; for an hour nothing is deleted for its age"
            );
        }
        self.last = (wall, mono);
    }

    /// Nothing is deleted for its age before this monotonic time. A short `max_age` waits no longer than itself.
    fn age_counts_from(&self, limits: &Limits) -> u64 {
        let (began, lasts) = self.doubt;
        began.saturating_add(lasts.min(limits.max_age_ns.unwrap_or(0)))
    }

    /// The files of a stream, without those that cannot be deleted at the moment.
    fn inventory(&mut self, stream: &KeptStream) -> Result<Inventory, LogError> {
        let known = self.known.entry(stream.name.clone()).or_default();
        let mut inventory = Inventory::read(&*self.disk, &stream.shelf.dir, known)?;
        if stream.limits != Limits::default() {
            let needed: Vec<SegmentId> =
                inventory.ids().filter(|id| !self.clearance.is_clear(&stream.name, *id)).collect();
            for one in needed.into_iter().filter_map(|id| inventory.remove(id)).collect::<Vec<_>>() {
                inventory.is_stuck(one);
            }
        }
        let (bytes, segments, now) = (inventory.bytes(), inventory.segments(), self.clock.mono_ns());
        self.count(&stream.name, |kept| (kept.bytes, kept.segments) = (bytes, segments));
        self.stuck.retain(|(name, id), _| *name != stream.name || inventory.contains(*id));
        for ((_, id), _) in self.stuck.iter().filter(|((name, _), again)| *name == stream.name && **again > now) {
            if let Some(one) = inventory.remove(*id) {
                inventory.is_stuck(one);
            }
        }
        Ok(inventory)
    }

    /// Deletes segments of one stream that are too old or too many.
    fn delete(&mut self, stream: &KeptStream, streams: &[KeptStream]) -> Result<Option<u64>, LogError> {
        self.finish(stream)?;
        let age_from = self.age_counts_from(&stream.limits);
        let mut limits = stream.limits;
        limits.min_free = None; // over all streams, in another place
        if self.clock.mono_ns() < age_from {
            limits.max_age_ns = None;
        }
        let mut inventory = self.inventory(stream)?;
        loop {
            let (mut touched, mut turn) = (BTreeSet::new(), 0);
            let more = loop {
                if turn >= TURN || self.control.draining() {
                    break inventory.why(&limits, self.clock.wall_ns(), None).is_some();
                }
                let mut batch = Vec::new();
                while batch.len() < BATCH
                    && let Some((oldest, why)) = inventory.why(&limits, self.clock.wall_ns(), None)
                {
                    inventory.remove(oldest.id);
                    batch.push((oldest, why));
                }
                if batch.is_empty() {
                    break false;
                }
                turn += batch.len();
                touched.extend(batch.iter().map(|(one, _)| one.id.shard));
                for one in self.retire(stream, &batch, &mut inventory)? {
                    inventory.is_stuck(one);
                }
            };
            self.note_done(stream, &touched)?;
            if !more || self.control.draining() {
                let (wall, mono) = (self.clock.wall_ns(), self.clock.mono_ns());
                let in_mono = |at: u64| mono.saturating_add(at.saturating_sub(wall)).max(age_from);
                return Ok(inventory.due_ns(&stream.limits).map(in_mono));
            }
            // What is sealed meanwhile is seen to in the next pass: to list the directory in each turn costs as much as the deletions.
            if self.make_room_if_due(streams) {
                inventory = self.inventory(stream)?;
            }
        }
    }

    /// Compresses and moves the other segments, as configured.
    fn put_away(&mut self, stream: &KeptStream, streams: &[KeptStream]) -> Result<Option<u64>, LogError> {
        let shelf = &stream.shelf;
        if shelf.home.is_none() && shelf.compress.is_none() {
            return Ok(None);
        }
        let ids: Vec<SegmentId> = self.inventory(stream)?.ids().collect();
        let mut failed = None;
        for id in ids {
            if !shelf.wants(&*self.disk, id) {
                continue;
            }
            self.make_room_if_due(streams);
            let put = match shelf.put_away(&*self.disk, id, &|| self.may_go_on()) {
                Err(_) if !self.may_go_on() => return Ok(None),
                // One that cannot be read must not keep the others here.
                Err(error) => {
                    failed.get_or_insert(error);
                    continue;
                }
                Ok(put) => put,
            };
            self.count(&stream.name, |kept| {
                if let Some((text, packed)) = put.compressed {
                    kept.compressed += 1;
                    kept.text_bytes += text;
                    kept.packed_bytes += packed;
                }
                kept.moved_bytes += put.moved;
            });
        }
        self.inventory(stream)?; // for the counts
        failed.map_or(Ok(None), Err)
    }

    /// Finishes, once, the deletions that a crash interrupted.
    fn finish(&mut self, stream: &KeptStream) -> Result<(), LogError> {
        if self.finished.contains(&stream.name) {
            return Ok(());
        }
        let taken = retired::finish(&*self.disk, &self.data_dir, &stream.name)?;
        self.finished.insert(stream.name.clone());
        for id in &taken.gone {
            self.say_deleted(stream, *id, 0, "unfinished");
        }
        self.say_stuck(stream, taken);
        Ok(())
    }

    fn say_deleted(&self, stream: &KeptStream, id: SegmentId, bytes: u64, why: &'static str) {
        tracing::info!(stream = stream.name, segment = id.file_name(Kind::Sealed), bytes, why, "deleted");
        self.count(&stream.name, |kept| {
            *kept.deleted.entry(why).or_default() += 1;
            kept.deleted_bytes = kept.deleted_bytes.saturating_add(bytes);
        });
    }

    /// Logs once for each segment that it cannot be deleted, and counts each try.
    fn say_stuck(&mut self, stream: &KeptStream, taken: Taken) {
        let again = self.clock.mono_ns().saturating_add(AGAIN_NS);
        for (id, error) in taken.stuck {
            self.count(&stream.name, |kept| kept.failures += 1);
            if self.stuck.insert((stream.name.clone(), id), again).is_none() {
                tracing::warn!(stream = stream.name, %error, "a segment cannot be deleted; going on with the others");
            }
        }
    }

    /// Deletes segments of a stream. Returns those that cannot be deleted.
    fn retire(
        &mut self,
        stream: &KeptStream,
        batch: &[(Finished, &'static str)],
        inventory: &mut Inventory,
    ) -> Result<Vec<Finished>, LogError> {
        let mut shards: BTreeMap<u16, Vec<SegmentId>> = BTreeMap::new();
        batch.iter().for_each(|(one, _)| shards.entry(one.id.shard).or_default().push(one.id));
        let mut stuck = Vec::new();
        for ids in shards.values() {
            let taken = retired::retire_all(&*self.disk, &self.data_dir, &stream.name, ids).inspect_err(|_| {
                self.finished.remove(&stream.name); // the note may name what is half there
            })?;
            let gone: BTreeSet<SegmentId> = taken.gone.iter().copied().collect();
            for (one, why) in batch.iter().filter(|(one, _)| gone.contains(&one.id)) {
                self.say_deleted(stream, one.id, one.bytes, why);
            }
            let failed: BTreeSet<SegmentId> = taken.stuck.iter().map(|(id, _)| *id).collect();
            stuck.extend(batch.iter().map(|(one, _)| *one).filter(|one| failed.contains(&one.id)));
            self.say_stuck(stream, taken);
        }
        let (bytes, segments) = (inventory.bytes(), inventory.segments());
        self.count(&stream.name, |kept| (kept.bytes, kept.segments) = (bytes, segments));
        Ok(stuck)
    }

    fn note_done(&mut self, stream: &KeptStream, shards: &BTreeSet<u16>) -> Result<(), LogError> {
        for shard in shards {
            retired::done(&*self.disk, &self.data_dir, &stream.name, *shard)?;
        }
        Ok(())
    }

    /// True if it was due: then segments of any stream may be gone.
    fn make_room_if_due(&mut self, streams: &[KeptStream]) -> bool {
        let is_due = self.clock.mono_ns() >= self.look_at && streams.iter().any(|s| s.limits.min_free.is_some());
        if is_due {
            self.make_room(streams);
            self.look_at = self.clock.mono_ns().saturating_add(LOOK_NS);
        }
        is_due
    }

    /// While too little is free, deletes the oldest segment of all streams on that file system.
    fn make_room(&mut self, streams: &[KeptStream]) {
        let mut inventories: Vec<(&KeptStream, Inventory)> = Vec::new();
        for stream in streams.iter().filter(|s| s.limits.min_free.is_some()) {
            if let Ok(inventory) = self.inventory(stream) {
                inventories.push((stream, inventory));
            }
        }
        let now = self.clock.mono_ns();
        // Asked once: what is deleted does not show everywhere at once, and must not be deleted for twice.
        let mut free: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for (stream, _) in &inventories {
            let dir = place(stream);
            let Ok(bytes) = self.disk.free_bytes(dir) else { continue };
            let shown = |a: &Awaited| bytes >= a.before.saturating_add(a.deleted / 2) || now >= a.until_ns;
            let promised = match self.awaited.get(dir) {
                Some(awaited) if !shown(awaited) => awaited.before.saturating_add(awaited.deleted),
                _ => {
                    self.awaited.remove(dir);
                    0
                }
            };
            free.insert(dir.clone(), bytes.max(promised));
        }
        let mut touched: BTreeMap<usize, BTreeSet<u16>> = BTreeMap::new();
        while !self.control.draining() {
            // By stream, so that a batch of each goes at once.
            let mut batches: BTreeMap<usize, Vec<(Finished, &'static str)>> = BTreeMap::new();
            for _ in 0..BATCH {
                let candidates = inventories.iter().enumerate().filter_map(|(at, (stream, inventory))| {
                    let limits = Limits { min_free: stream.limits.min_free, ..Limits::default() };
                    let (oldest, why) = inventory.why(&limits, 0, free.get(place(stream)).copied())?;
                    Some((oldest, why, at))
                });
                let first = candidates.min_by_key(|(oldest, ..)| (oldest.closed_ns.unwrap_or(u64::MAX), oldest.id));
                let Some((oldest, why, at)) = first else { break };
                let (stream, inventory) = &mut inventories[at];
                inventory.remove(oldest.id);
                let dir = place(stream).clone();
                let before = free.get(&dir).copied().unwrap_or(0);
                free.insert(dir.clone(), before.saturating_add(oldest.bytes));
                let until_ns = now.saturating_add(AWAIT_ROOM_NS);
                let awaited = self.awaited.entry(dir).or_insert(Awaited { before, deleted: 0, until_ns });
                (awaited.deleted, awaited.until_ns) = (awaited.deleted.saturating_add(oldest.bytes), until_ns);
                batches.entry(at).or_default().push((oldest, why));
            }
            if batches.is_empty() {
                break;
            }
            for (at, batch) in batches {
                let (stream, inventory) = &mut inventories[at];
                touched.entry(at).or_default().extend(batch.iter().map(|(one, _)| one.id.shard));
                match self.retire(stream, &batch, inventory) {
                    // No room comes of those.
                    Ok(stuck) => stuck.into_iter().for_each(|one| {
                        inventory.is_stuck(one);
                        if let Some(free) = free.get_mut(place(stream)) {
                            *free = free.saturating_sub(one.bytes);
                        }
                        if let Some(awaited) = self.awaited.get_mut(place(stream)) {
                            awaited.deleted = awaited.deleted.saturating_sub(one.bytes);
                        }
                    }),
                    Err(error) => {
                        self.count(&stream.name, |kept| kept.failures += 1);
                        tracing::warn!(stream = stream.name, %error, "segments cannot be deleted; trying again");
                        return;
                    }
                }
            }
        }
        for (at, shards) in touched {
            let (stream, _) = &inventories[at];
            if let Err(error) = self.note_done(stream, &shards) {
                self.finished.remove(&stream.name);
                tracing::debug!(stream = stream.name, %error, "the note of a deletion cannot be cleared yet");
            }
        }
    }
}

/// The directory in which the sealed segments of a stream end up.
fn place(stream: &KeptStream) -> &PathBuf {
    stream.shelf.home.as_ref().unwrap_or(&stream.shelf.dir)
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
