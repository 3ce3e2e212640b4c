//! Decides which sealed segments are deleted: the oldest first, within a shard in their order, and never one that is being
//! written.
//!
//! The server notes a deletion durably before it begins ([`super::retired`]). So `verify` can tell what retention deleted from
//! what somebody else did, and a crash in the middle leaves nothing half deleted.

use super::disk::{Disk, read_full};
use super::names::{Kind, SegmentId};
pub use super::retired::{finish, mark_path, retire};
use super::trail::{HEADER_LEN, RECORD_LEN, Trail};
use super::{Context, LogError};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A wall clock before 2020 had not been set yet when the segment was written: its time means nothing.
const CLOCK_WAS_SET_NS: u64 = 1_577_836_800_000_000_000;

/// When segments are deleted. Nothing is set by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nanoseconds since the last line of a segment.
    pub max_age_ns: Option<u64>,
    /// Bytes of all files of the stream, also of those that are being written.
    pub max_bytes: Option<u64>,
    /// Bytes free in the file system.
    pub min_free: Option<u64>,
}

/// One finished segment, with its trail and its `.torn` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub id: SegmentId,
    /// When its last line was written, in nanoseconds since 1970. `None`: unknown.
    pub closed_ns: Option<u64>,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What a stream's directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Finished segments, by shard and sequence.
    finished: BTreeMap<SegmentId, Finished>,
    /// Bytes of them.
    finished_bytes: u64,
    /// Bytes of what is being written, and of what cannot be removed.
    other_bytes: u64,
}

/// What is known of finished segments. They do not change, except that they are compressed.
#[derive(Debug, Default)]
pub struct Known(HashMap<(SegmentId, bool), Finished>);

impl Inventory {
    /// Looks at the directory. What is known of finished segments is not looked at again.
    ///
    /// # Errors
    /// It cannot be listed, or a file not looked at.
    pub fn read(disk: &dyn Disk, dir: &Path, known: &mut Known) -> Result<Inventory, LogError> {
        let mut kinds: BTreeMap<SegmentId, Vec<Kind>> = BTreeMap::new();
        for name in disk.list(dir).context("list", dir)? {
            if let Some((id, kind)) = SegmentId::parse(&name) {
                kinds.entry(id).or_default().push(kind);
            }
        }
        let mut inventory = Inventory::default();
        let mut still = HashMap::new();
        for (id, kinds) in kinds {
            let size = |kind: &Kind| {
                let path = dir.join(id.file_name(*kind));
                // Moved on since, or out of reach: one file must not keep the others from being seen to.
                disk.size_of(&path).unwrap_or_default()
            };
            let bytes = || kinds.iter().map(size).fold(0, u64::saturating_add);
            if kinds.contains(&Kind::Active) {
                inventory.other_bytes = inventory.other_bytes.saturating_add(bytes());
                continue;
            }
            // A trail alone is of a segment that is just being made or taken away.
            if !kinds.iter().any(|k| matches!(k, Kind::Sealed | Kind::Compressed | Kind::Torn)) {
                continue;
            }
            let key = (id, kinds.contains(&Kind::Compressed) && !kinds.contains(&Kind::Sealed));
            let one = match known.0.get(&key) {
                Some(one) => *one,
                None => Finished { id, closed_ns: closed(disk, &dir.join(id.file_name(Kind::Trail))), bytes: bytes() },
            };
            still.insert(key, one);
            inventory.finished_bytes = inventory.finished_bytes.saturating_add(one.bytes);
            inventory.finished.insert(id, one);
        }
        known.0 = still;
        inventory.fill_in_times();
        Ok(inventory)
    }

    /// Makes ages consistent: a segment is never younger than the next one, whatever the clock said.
    fn fill_in_times(&mut self) {
        let mut behind: Option<(u16, u64)> = None;
        for one in self.finished.values_mut().rev() {
            let next = behind.filter(|(shard, _)| *shard == one.id.shard).map(|(_, at)| at);
            one.closed_ns = match (one.closed_ns, next) {
                (Some(own), Some(next)) => Some(own.min(next)),
                (own, next) => own.or(next),
            };
            behind = one.closed_ns.map(|at| (one.id.shard, at)).or(behind);
        }
    }

    /// Bytes of everything.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.finished_bytes.saturating_add(self.other_bytes)
    }

    /// Finished segments, in their order.
    pub fn ids(&self) -> impl Iterator<Item = SegmentId> {
        self.finished.keys().copied()
    }

    /// True if this is one of the finished ones.
    #[must_use]
    pub fn contains(&self, id: SegmentId) -> bool {
        self.finished.contains_key(&id)
    }

    /// How many finished segments there are.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.finished.len() as u64
    }

    /// Removes a segment from the list, because it will be deleted.
    pub fn remove(&mut self, id: SegmentId) -> Option<Finished> {
        let one = self.finished.remove(&id)?;
        self.finished_bytes = self.finished_bytes.saturating_sub(one.bytes);
        Some(one)
    }

    /// Notes that the files of a segment cannot be removed. They take room, and are not chosen again.
    pub fn is_stuck(&mut self, one: Finished) {
        self.remove(one.id);
        self.other_bytes = self.other_bytes.saturating_add(one.bytes);
    }

    /// The finished segment to delete first: of the first of each shard, the one that was closed first.
    #[must_use]
    pub fn oldest(&self) -> Option<Finished> {
        // From one shard's first to the next one's, past all between: this is asked for each deletion.
        let first_from = |shard: u16| Some(*self.finished.range(SegmentId { shard, sequence: 0 }..).next()?.1);
        let firsts = std::iter::successors(first_from(0), |one| first_from(one.id.shard.checked_add(1)?));
        firsts.min_by_key(|one| (one.closed_ns.unwrap_or(u64::MAX), one.id))
    }

    /// Why the oldest segment must be deleted. `None`: it may stay. `free` are the bytes free now.
    #[must_use]
    pub fn why(&self, limits: &Limits, now_ns: u64, free: Option<u64>) -> Option<(Finished, &'static str)> {
        let oldest = self.oldest()?;
        if let (Some(most), Some(closed)) = (limits.max_age_ns, oldest.closed_ns)
            && closed.saturating_add(most) <= now_ns
        {
            return Some((oldest, "max_age"));
        }
        if limits.max_bytes.is_some_and(|most| self.bytes() > most) {
            return Some((oldest, "max_bytes"));
        }
        let too_little = limits.min_free.zip(free).is_some_and(|(least, free)| free < least);
        too_little.then_some((oldest, "min_free"))
    }

    /// When the oldest segment becomes too old, in nanoseconds since 1970; `None`: never.
    #[must_use]
    pub fn due_ns(&self, limits: &Limits) -> Option<u64> {
        Some(self.oldest()?.closed_ns?.saturating_add(limits.max_age_ns?))
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
