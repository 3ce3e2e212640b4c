//! Which sealed segments go when there is too much: oldest first, within a shard in their order, never one that is being written.
//!
//! What goes is first noted, durably, in `DATA/.logweir/retired/STREAM.SHARD`: the highest sequence that was taken away on
//! purpose. So `verify` can tell what retention took from what somebody else did, and a crash in between leaves nothing half there.

use super::archive::remove_moved;
use super::data_dir::STATE_DIR;
use super::disk::{Disk, read_file, read_full, replace_file};
use super::names::{Kind, SegmentId};
use super::trail::{HEADER_LEN, RECORD_LEN, Trail};
use super::{Context, LogError};
use crate::mutants::mutant;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A wall clock before 2020 had not been set yet when the segment was written: its time means nothing.
const CLOCK_WAS_SET_NS: u64 = 1_577_836_800_000_000_000;

/// When segments go; nothing is set by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nanoseconds since the last line of a segment.
    pub max_age_ns: Option<u64>,
    /// Bytes of all files of the stream, also of those that are being written.
    pub max_bytes: Option<u64>,
    /// Bytes free in the file system.
    pub min_free: Option<u64>,
}

/// One finished segment with its trail and what was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub id: SegmentId,
    /// When its last line was written, in nanoseconds since 1970; `None`: nobody knows.
    pub closed_ns: Option<u64>,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What a stream's directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Finished segments, by shard and sequence.
    pub finished: BTreeMap<SegmentId, Finished>,
    /// Bytes of what is being written.
    pub active_bytes: u64,
}

/// What was found out about finished segments: they do not change, but for being compressed.
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
                disk.open(&path).and_then(|file| file.len()).unwrap_or_default()
            };
            let bytes = || kinds.iter().map(size).sum::<u64>();
            if kinds.contains(&Kind::Active) {
                inventory.active_bytes += bytes();
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
            inventory.finished.insert(id, one);
        }
        known.0 = still;
        inventory.fill_in_times();
        Ok(inventory)
    }

    /// A segment is no younger than the one behind it, whatever the clock said at the time.
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
        self.active_bytes + self.finished.values().map(|one| one.bytes).sum::<u64>()
    }

    /// The finished segment that goes first: of each shard's first the one that was closed first.
    #[must_use]
    pub fn oldest(&self) -> Option<Finished> {
        let mut firsts: BTreeMap<u16, Finished> = BTreeMap::new();
        for one in self.finished.values() {
            firsts.entry(one.id.shard).or_insert(*one);
        }
        firsts.into_values().min_by_key(|one| (one.closed_ns.unwrap_or(u64::MAX), one.id))
    }

    /// Why the oldest segment is to go; `None`: it may stay. `free` are the bytes free now.
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

/// The note of what was taken away on purpose.
#[must_use]
pub fn mark_path(data_dir: &Path, stream: &str, shard: u16) -> PathBuf {
    data_dir.join(STATE_DIR).join("retired").join(format!("{stream}.{shard}"))
}

/// Reads it: the highest sequence; 0: none.
pub fn parse_mark(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Takes a finished segment away.
///
/// # Errors
/// The step that failed; what is left goes at the next try.
pub fn retire(disk: &dyn Disk, data_dir: &Path, stream: &str, id: SegmentId) -> Result<(), LogError> {
    let mark = mark_path(data_dir, stream, id.shard);
    let dir = mark.parent().unwrap_or(data_dir);
    let retired = read_file(disk, &mark).map_or(0, |bytes| parse_mark(&bytes));
    let note = || {
        disk.create_dir_all(dir).context("make directory", dir)?;
        replace_file(disk, &mark, format!("{}\n", id.sequence).as_bytes()).context("replace", &mark)
    };
    if retired < id.sequence && !mutant!("retired_without_a_note") {
        match note() {
            // On a full disk there is no room for the note before something has gone. Cut off in between, `verify` finds a trail
            // without its text, and the next look takes it away.
            Err(error) if error.is_full() => {
                for kind in [Kind::Sealed, Kind::Compressed] {
                    let path = data_dir.join(stream).join(id.file_name(kind));
                    remove_moved(disk, &path).context("remove", &path)?;
                }
                note()?;
            }
            other => other?,
        }
    }
    // The trail last: without it nobody would know what the text was.
    for kind in [Kind::Sealed, Kind::Compressed, Kind::Torn, Kind::Trail] {
        let path = data_dir.join(stream).join(id.file_name(kind));
        remove_moved(disk, &path).context("remove", &path)?;
    }
    Ok(())
}

/// Takes away what is left of segments that were to go when a crash came.
///
/// # Errors
/// As [`retire`].
pub fn finish(disk: &dyn Disk, data_dir: &Path, stream: &str) -> Result<(), LogError> {
    let dir = data_dir.join(stream);
    let mut marks: HashMap<u16, u64> = HashMap::new();
    for name in disk.list(&dir).context("list", &dir)? {
        let Some((id, kind)) = SegmentId::parse(&name) else { continue };
        let mark = *marks.entry(id.shard).or_insert_with(|| {
            read_file(disk, &mark_path(data_dir, stream, id.shard)).map_or(0, |bytes| parse_mark(&bytes))
        });
        if id.sequence <= mark && kind != Kind::Active {
            let path = dir.join(&name);
            remove_moved(disk, &path).context("remove", &path)?;
        }
    }
    Ok(())
}
