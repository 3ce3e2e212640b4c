//! Which segments of one stream there are. Its owner, the keeper, reads the directory once. From then on it is told of each segment
//! that is made, sealed, compressed, moved or retired, and looks at that one alone: the work is the same however many there are.

use super::disk::{Disk, read_full};
use super::names::{Kind, SegmentId};
use super::trail::{HEADER_LEN, RECORD_LEN, Trail};
use super::{Context, LogError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// A wall clock before 2020 had not been set yet when the segment was written: its time means nothing.
const CLOCK_WAS_SET_NS: u64 = 1_577_836_800_000_000_000;
/// Every file that a segment may have.
const KINDS: [Kind; 5] = [Kind::Active, Kind::Sealed, Kind::Compressed, Kind::Trail, Kind::Torn];

/// One finished segment, with its trail and its `.torn` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub id: SegmentId,
    /// When its last line was written, in nanoseconds since 1970, and no later than that of the next one. `None`: unknown.
    pub closed_ns: Option<u64>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Which files there are.
    kinds: Kinds,
}

/// Some of the files that a segment may have, a bit for each of [`KINDS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    fn add(&mut self, kind: Kind) {
        self.0 |= KINDS.iter().position(|k| *k == kind).map_or(0, |bit| 1 << bit);
    }

    fn iter(self) -> impl Iterator<Item = Kind> {
        KINDS.into_iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, kind)| kind)
    }
}

/// For each shard the first sequence that has to stay, with all behind it. A shard that is not named may go whole.
pub type Staying = BTreeMap<u16, u64>;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Catalogue {
    dir: PathBuf,
    /// Finished segments, by shard and sequence.
    finished: BTreeMap<SegmentId, Finished>,
    finished_bytes: u64,
    /// Finished ones of which a file cannot be removed.
    stuck: BTreeMap<SegmentId, Finished>,
    stuck_bytes: u64,
    /// What is being written, or was left active, and its bytes when it was looked at last.
    active: BTreeMap<SegmentId, u64>,
    /// Finished ones that nobody has compressed or moved, or found not to want it.
    fresh: BTreeSet<SegmentId>,
}

impl Catalogue {
    /// Reads a stream's directory.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Catalogue, LogError> {
        let mut catalogue = Catalogue { dir: dir.to_path_buf(), ..Catalogue::default() };
        catalogue.read_again(disk)?;
        Ok(catalogue)
    }

    /// Reads the directory again. Only segments whose files are others than before are looked at.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn read_again(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        let mut there: BTreeMap<SegmentId, Kinds> = BTreeMap::new();
        for name in disk.list(&self.dir).context("list", &self.dir)? {
            if let Some((id, kind)) = SegmentId::parse(&name) {
                there.entry(id).or_default().add(kind);
            }
        }
        let known = self.finished.keys().chain(self.stuck.keys()).chain(self.active.keys());
        for gone in known.copied().filter(|id| !there.contains_key(id)).collect::<Vec<_>>() {
            self.take(gone);
        }
        // From behind, so that each finds its successor's time.
        for (id, kinds) in there.iter().rev() {
            if self.finished.get(id).or(self.stuck.get(id)).is_none_or(|one| one.kinds != *kinds) {
                self.put(disk, *id, *kinds);
            }
        }
        Ok(())
    }

    /// Looks at the files of one segment, and notes what they are now.
    pub fn look(&mut self, disk: &dyn Disk, id: SegmentId) {
        let is_there = |kind: &Kind| {
            let path = self.dir.join(id.file_name(*kind));
            !matches!(disk.link_target(&path), Err(error) if error.kind() == io::ErrorKind::NotFound)
        };
        // In the order in which a segment gets its names, so that one that is renamed meanwhile is seen.
        let mut kinds = Kinds::default();
        KINDS.into_iter().filter(is_there).for_each(|kind| kinds.add(kind));
        self.put(disk, id, kinds);
    }

    /// Looks again at what is being written: it grows.
    pub fn look_at_active(&mut self, disk: &dyn Disk) {
        for id in self.active.keys().copied().collect::<Vec<_>>() {
            match disk.size_of(&self.dir.join(id.file_name(Kind::Active))) {
                Ok(text) => {
                    let trail = disk.size_of(&self.dir.join(id.file_name(Kind::Trail))).unwrap_or_default();
                    self.active.insert(id, text.saturating_add(trail));
                }
                Err(_) => self.look(disk, id),
            }
        }
    }

    fn put(&mut self, disk: &dyn Disk, id: SegmentId, kinds: Kinds) {
        self.take(id);
        // A file may have moved on since, or be out of reach: one must not keep the others from being seen to.
        let size = |kind: Kind| disk.size_of(&self.dir.join(id.file_name(kind))).unwrap_or_default();
        let bytes = kinds.iter().map(size).fold(0, u64::saturating_add);
        if kinds.iter().any(|kind| kind == Kind::Active) {
            self.active.insert(id, bytes);
        } else if kinds.iter().any(|k| matches!(k, Kind::Sealed | Kind::Compressed | Kind::Torn)) {
            let closed_ns = closed(disk, &self.dir.join(id.file_name(Kind::Trail)));
            self.fresh.insert(id);
            self.insert(Finished { id, closed_ns, bytes, kinds });
        }
        // A trail alone is of a segment that is just being made or taken away.
    }

    /// A segment is never younger than the next one, whatever the clock said.
    fn insert(&mut self, mut one: Finished) {
        let SegmentId { shard, sequence } = one.id;
        let behind = self.finished.range(one.id..).next().map(|(_, next)| *next).filter(|next| next.id.shard == shard);
        one.closed_ns = match (one.closed_ns, behind.and_then(|next| next.closed_ns)) {
            (Some(own), Some(next)) => Some(own.min(next)),
            (own, next) => own.or(next),
        };
        if let Some(closed) = one.closed_ns {
            let first = SegmentId { shard, sequence: 0 };
            let before = self.finished.range_mut(first..SegmentId { shard, sequence }).rev();
            for (_, earlier) in before.take_while(|(_, earlier)| earlier.closed_ns.is_none_or(|at| at > closed)) {
                earlier.closed_ns = Some(closed);
            }
        }
        self.finished_bytes = self.finished_bytes.saturating_add(one.bytes);
        self.finished.insert(one.id, one);
    }

    /// Strikes a segment out: it is gone, or is about to go.
    pub fn take(&mut self, id: SegmentId) -> Option<Finished> {
        self.active.remove(&id);
        self.fresh.remove(&id);
        if let Some(one) = self.stuck.remove(&id) {
            self.stuck_bytes = self.stuck_bytes.saturating_sub(one.bytes);
        }
        let one = self.finished.remove(&id)?;
        self.finished_bytes = self.finished_bytes.saturating_sub(one.bytes);
        Some(one)
    }

    /// True if this is one of the finished segments.
    #[must_use]
    pub fn contains(&self, id: SegmentId) -> bool {
        self.finished.contains_key(&id) || self.stuck.contains_key(&id)
    }

    /// Notes that a file of a segment cannot be removed: what is left of it takes room, and is not chosen until it is tried again.
    pub fn cannot_go(&mut self, disk: &dyn Disk, id: SegmentId) {
        self.look(disk, id);
        // Nothing but its trail is left: then too it is to be tried again.
        let left = Finished { id, closed_ns: None, bytes: 0, kinds: Kinds::default() };
        let one = self.take(id).unwrap_or(left);
        self.is_stuck(one);
    }

    fn is_stuck(&mut self, one: Finished) {
        self.take(one.id);
        self.stuck_bytes = self.stuck_bytes.saturating_add(one.bytes);
        self.stuck.insert(one.id, one);
    }

    /// A segment that was stuck may be chosen again.
    pub fn try_again(&mut self, id: SegmentId) {
        if let Some(one) = self.stuck.remove(&id) {
            self.stuck_bytes = self.stuck_bytes.saturating_sub(one.bytes);
            self.insert(one);
        }
    }

    /// Bytes of everything.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.active
            .values()
            .fold(self.finished_bytes.saturating_add(self.stuck_bytes), |all, one| all.saturating_add(*one))
    }

    /// How many finished segments there are.
    #[must_use]
    pub fn segments(&self) -> u64 {
        (self.finished.len() + self.stuck.len()) as u64
    }

    /// The last finished segment of each shard that has any.
    #[must_use]
    pub fn last_of_shards(&self) -> Vec<SegmentId> {
        let last_before = |end: SegmentId| Some(*self.finished.range(..end).next_back()?.0);
        let end = SegmentId { shard: u16::MAX, sequence: u64::MAX };
        let lasts =
            std::iter::successors(last_before(end), |id| last_before(SegmentId { shard: id.shard, sequence: 0 }));
        lasts.collect()
    }

    /// The finished segments of a shard from a sequence on, in order.
    pub fn from(&self, shard: u16, sequence: u64) -> impl Iterator<Item = &Finished> {
        let (first, last) = (SegmentId { shard, sequence }, SegmentId { shard, sequence: u64::MAX });
        self.finished.range(first..=last).map(|(_, one)| one)
    }

    /// The segments of a shard from a sequence on, in order: which, whether it is being written, and bytes of its files.
    #[must_use]
    pub fn all_from(&self, shard: u16, sequence: u64) -> Vec<(u64, bool, u64)> {
        let range = SegmentId { shard, sequence }..=SegmentId { shard, sequence: u64::MAX };
        let finished = self.finished.range(range.clone()).map(|(id, one)| (id.sequence, false, one.bytes));
        let mut all: Vec<_> =
            finished.chain(self.active.range(range).map(|(id, bytes)| (id.sequence, true, *bytes))).collect();
        all.sort_unstable();
        all
    }

    /// The shards that have segments.
    #[must_use]
    pub fn shards(&self) -> BTreeSet<u16> {
        self.last_of_shards().into_iter().chain(self.active.keys().copied()).map(|id| id.shard).collect()
    }

    /// The trail of a segment.
    #[must_use]
    pub fn trail(&self, id: SegmentId) -> PathBuf {
        self.dir.join(id.file_name(Kind::Trail))
    }

    /// Segments to compress or to move, in order.
    #[must_use]
    pub fn fresh(&self) -> Vec<SegmentId> {
        self.fresh.iter().copied().collect()
    }

    /// Notes that nothing more is to be done with a segment.
    pub fn is_put_away(&mut self, id: SegmentId) {
        self.fresh.remove(&id);
    }

    /// The finished segment to delete first: of the first of each shard that may go, the one that was closed first.
    #[must_use]
    pub fn oldest(&self, staying: &Staying) -> Option<Finished> {
        // From one shard's first to the next one's, past all between: this is asked for each deletion.
        let first_from = |shard: u16| Some(*self.finished.range(SegmentId { shard, sequence: 0 }..).next()?.1);
        let firsts = std::iter::successors(first_from(0), |one| first_from(one.id.shard.checked_add(1)?));
        let may_go = |one: &Finished| staying.get(&one.id.shard).is_none_or(|from| one.id.sequence < *from);
        firsts.filter(may_go).min_by_key(|one| (one.closed_ns.unwrap_or(u64::MAX), one.id))
    }
}

/// When the last line of a segment was written: its trail's last record, else its header.
fn closed(disk: &dyn Disk, trail: &Path) -> Option<u64> {
    let file = disk.open(trail).ok()?;
    let len = file.len().ok()?;
    let records = len.checked_sub(HEADER_LEN as u64)? / RECORD_LEN as u64;
    let mut bytes = vec![0; HEADER_LEN + RECORD_LEN];
    read_full(&*file, &mut bytes[..HEADER_LEN], 0).ok()?;
    if records > 0 {
        let at = HEADER_LEN as u64 + (records - 1) * RECORD_LEN as u64;
        read_full(&*file, &mut bytes[HEADER_LEN..], at).ok()?;
    }
    let trail = Trail::parse(&bytes);
    let known = trail.records.last().map(|r| r.wall_ns).or(trail.header.map(|h| h.wall_ns));
    known.filter(|at| *at >= CLOCK_WAS_SET_NS)
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
