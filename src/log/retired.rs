//! The note of what retention has deleted and of what it is deleting now: `DATA/.logweir/retired/STREAM.SHARD`.
//!
//! Its first line is the highest sequence that was ever deleted. While segments are being removed, a second line names them
//! (`retiring 4-6 9-9`); it is removed when they are gone. After a crash, only what that line names is removed. A segment with
//! a lower number stays: it may have been restored from a backup.

use super::archive::remove_moved;
use super::data_dir::STATE_DIR;
use super::disk::{Disk, read_file, replace_file};
use super::names::{Kind, SegmentId};
use super::{Context, LogError};
use crate::host::mutants::mutant;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The files of a finished segment. The trail is the last to go, because it says what the text was.
const KINDS: [Kind; 4] = [Kind::Sealed, Kind::Compressed, Kind::Torn, Kind::Trail];

/// What the note says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// The highest sequence that was deleted. 0: none.
    pub highest: u64,
    /// Sequences that are being deleted, or were when a crash came.
    pub retiring: Vec<RangeInclusive<u64>>,
}

impl Note {
    /// Reads it; `None`: it is no such note.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Note> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let highest = lines.next()?.trim().parse().ok()?;
        let mut retiring = Vec::new();
        for range in lines.next().map_or(Some(""), |line| line.strip_prefix("retiring"))?.split_whitespace() {
            let (from, to) = range.split_once('-')?;
            let (from, to) = (from.parse().ok()?, to.parse().ok()?);
            if from > to || to > highest {
                return None;
            }
            retiring.push(from..=to);
        }
        lines.next().is_none().then_some(Note { highest, retiring })
    }

    /// True while this segment is being deleted.
    #[must_use]
    pub fn is_retiring(&self, sequence: u64) -> bool {
        self.retiring.iter().any(|range| range.contains(&sequence))
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.highest);
        if !self.retiring.is_empty() {
            text += "retiring";
            for range in &self.retiring {
                let _ = write!(text, " {}-{}", range.start(), range.end()); // a String takes everything
            }
            text += "\n";
        }
        text
    }

    /// These ascending numbers as ranges.
    fn ranges(sequences: impl Iterator<Item = u64>) -> Vec<RangeInclusive<u64>> {
        let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
        for sequence in sequences {
            match ranges.last_mut() {
                Some(last) if last.end().checked_add(1) == Some(sequence) => *last = *last.start()..=sequence,
                _ => ranges.push(sequence..=sequence),
            }
        }
        ranges
    }
}

/// Where it is.
#[must_use]
pub fn mark_path(data_dir: &Path, stream: &str, shard: u16) -> PathBuf {
    data_dir.join(STATE_DIR).join("retired").join(format!("{stream}.{shard}"))
}

/// Reads the note of a shard; an empty one where there is none.
///
/// # Errors
/// It cannot be read, or is no such note.
pub fn read(disk: &dyn Disk, data_dir: &Path, stream: &str, shard: u16) -> Result<Note, LogError> {
    let path = mark_path(data_dir, stream, shard);
    match read_file(disk, &path) {
        Ok(bytes) => Note::parse(&bytes).ok_or(LogError::State {
            path,
            expected: "what retention has taken (a sequence number, and perhaps a line `retiring A-B`)",
            way_out: "delete it, and the highest number is found from the names of the files",
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Note::default()),
        Err(error) => Err(LogError::Io { what: "read", path, error }),
    }
}

fn write(disk: &dyn Disk, data_dir: &Path, stream: &str, shard: u16, note: &Note) -> Result<(), LogError> {
    let path = mark_path(data_dir, stream, shard);
    let dir = path.parent().unwrap_or(data_dir);
    disk.create_dir_all(dir).context("make directory", dir)?;
    replace_file(disk, &path, note.text().as_bytes()).context("replace", &path)
}

/// The shards of a stream that have a note.
fn shards(disk: &dyn Disk, data_dir: &Path, stream: &str) -> Result<Vec<u16>, LogError> {
    let dir = data_dir.join(STATE_DIR).join("retired");
    let names = match disk.list(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context("list", &dir)?,
    };
    let shard = |name: &String| name.strip_prefix(stream)?.strip_prefix('.')?.parse().ok();
    Ok(names.iter().filter_map(shard).collect())
}

/// Refuses notes that are at odds with the files: what is being deleted cannot be what is being written. To be called before
/// recovery gives the files other names.
///
/// # Errors
/// [`LogError::Contradiction`], or the note cannot be read.
pub fn check(disk: &dyn Disk, data_dir: &Path, stream: &str) -> Result<(), LogError> {
    let dir = data_dir.join(stream);
    for shard in shards(disk, data_dir, stream)? {
        let note = read(disk, data_dir, stream, shard)?;
        if note.retiring.is_empty() {
            continue;
        }
        for name in disk.list(&dir).context("list", &dir)? {
            let Some((id, Kind::Active)) = SegmentId::parse(&name) else { continue };
            if id.shard == shard && note.is_retiring(id.sequence) {
                let note = mark_path(data_dir, stream, shard);
                return Err(LogError::Contradiction {
                    path: dir.join(name),
                    detail: format!("{} says that it is being deleted, and it was being written", note.display()),
                    way_out: "one of them was put back from elsewhere: delete the note's line `retiring` to keep the segment",
                });
            }
        }
    }
    Ok(())
}

/// The result of a deletion.
#[derive(Debug, Default)]
pub struct Taken {
    /// They are gone.
    pub gone: Vec<SegmentId>,
    /// They were gone before: somebody else has deleted them.
    pub missing: Vec<SegmentId>,
    /// A file of each cannot be removed.
    pub stuck: Vec<(SegmentId, LogError)>,
}

/// Deletes finished segments of one shard, in ascending order. If one cannot be removed, it goes on with the others.
///
/// # Errors
/// The note could not be written, or the directory not be synced; what is left is finished by [`finish`].
pub fn retire_all(disk: &dyn Disk, data_dir: &Path, stream: &str, ids: &[SegmentId]) -> Result<Taken, LogError> {
    let mut taken = Taken::default();
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(taken) };
    let before = read(disk, data_dir, stream, first.shard)?;
    let highest = before.highest.max(last.sequence);
    let note = Note { highest, retiring: Note::ranges(ids.iter().map(|id| id.sequence)) };
    let mut early = Removed::default();
    if !mutant!("retired_without_a_note") {
        match write(disk, data_dir, stream, first.shard, &note) {
            // On a full disk there is no room for the note before something has gone. Cut off in between, a trail without its
            // text is left, and `verify` says so until the next segment is taken.
            Err(error) if error.is_full() => {
                early = remove(disk, data_dir, stream, *first, &KINDS[..2])?;
                write(disk, data_dir, stream, first.shard, &note)?;
            }
            other => other?,
        }
    }
    let mut dirs = BTreeSet::from([data_dir.join(stream)]);
    dirs.extend(early.dirs);
    for id in ids {
        match remove(disk, data_dir, stream, *id, &KINDS) {
            Ok(removed) => {
                dirs.extend(removed.dirs);
                let was_text = removed.was_text || (id == first && early.was_text);
                if was_text { &mut taken.gone } else { &mut taken.missing }.push(*id);
            }
            Err(error) => taken.stuck.push((*id, error)),
        }
    }
    for dir in &dirs {
        disk.sync_dir(dir).context("sync directory", dir)?;
    }
    Ok(taken)
}

/// Notes that no segment of a shard is being deleted any more.
///
/// # Errors
/// The note cannot be written. Without room it stays: what it names is gone, and those numbers do not come back.
pub fn done(disk: &dyn Disk, data_dir: &Path, stream: &str, shard: u16) -> Result<(), LogError> {
    let note = read(disk, data_dir, stream, shard)?;
    if note.retiring.is_empty() {
        return Ok(());
    }
    match write(disk, data_dir, stream, shard, &Note { retiring: Vec::new(), ..note }) {
        Err(error) if error.is_full() => Ok(()),
        other => other,
    }
}

/// Deletes one finished segment.
///
/// # Errors
/// The step that failed; what is left is finished by [`finish`].
pub fn retire(disk: &dyn Disk, data_dir: &Path, stream: &str, id: SegmentId) -> Result<(), LogError> {
    let mut taken = retire_all(disk, data_dir, stream, &[id])?;
    if let Some((_, error)) = taken.stuck.pop() {
        return Err(error);
    }
    done(disk, data_dir, stream, id.shard)
}

/// What was removed of a segment.
#[derive(Default)]
struct Removed {
    /// More than its trail.
    was_text: bool,
    /// Other directories in which some was.
    dirs: BTreeSet<PathBuf>,
}

/// Removes the files of a segment.
fn remove(disk: &dyn Disk, data_dir: &Path, stream: &str, id: SegmentId, kinds: &[Kind]) -> Result<Removed, LogError> {
    let mut all = Removed::default();
    for kind in kinds {
        let path = data_dir.join(stream).join(id.file_name(*kind));
        let removed = remove_moved(disk, &path).context("remove", &path)?;
        all.was_text |= removed.was_there && *kind != Kind::Trail;
        all.dirs.extend(removed.other_dir);
    }
    Ok(all)
}

/// Finishes the deletions that were noted when a crash came. Returns the segments.
///
/// # Errors
/// A directory cannot be listed or synced, or a note not be read or written.
pub fn finish(disk: &dyn Disk, data_dir: &Path, stream: &str) -> Result<Taken, LogError> {
    let dir = data_dir.join(stream);
    let mut taken = Taken::default();
    for shard in shards(disk, data_dir, stream)? {
        let note = read(disk, data_dir, stream, shard)?;
        let goes =
            |sequence| note.is_retiring(sequence) || (mutant!("stale_mark_believed") && sequence <= note.highest);
        if note.retiring.is_empty() && !mutant!("stale_mark_believed") {
            continue;
        }
        let mut left = BTreeSet::new();
        for name in disk.list(&dir).context("list", &dir)? {
            if let Some((id, kind)) = SegmentId::parse(&name)
                && id.shard == shard
                && kind != Kind::Active
                && goes(id.sequence)
            {
                left.insert(id);
            }
        }
        if !left.is_empty() {
            let ids: Vec<SegmentId> = left.into_iter().collect();
            let more = retire_all(disk, data_dir, stream, &ids)?;
            taken.gone.extend(more.gone);
            taken.missing.extend(more.missing);
            taken.stuck.extend(more.stuck);
        }
        done(disk, data_dir, stream, shard)?;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_as_written() {
        for text in ["7\n", "150\nretiring 4-6 9-9 150-150\n"] {
            assert_eq!(Note::parse(text.as_bytes()).unwrap().text(), text);
        }
        assert_eq!(Note::ranges([4, 5, 6, 9, u64::MAX].into_iter()), [4..=6, 9..=9, u64::MAX..=u64::MAX]);
        let note = Note::parse(b"150\nretiring 4-6 9-9\n").unwrap();
        assert!(note.is_retiring(5) && !note.is_retiring(7) && !note.is_retiring(150));
    }

    #[test]
    fn what_is_no_note_is_not_taken_for_one() {
        for text in ["", "\n", "x", "-1", "7 8", "7\nretiring 8-8\n", "7\nretiring 5-4\n", "7\nretired 4-5", "7\n\nx"] {
            assert_eq!(Note::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
