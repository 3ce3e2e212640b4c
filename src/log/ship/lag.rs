//! How far behind a target is in one shard: what was written and is not there yet. It is read from trails, each record once.

use super::Position;
use crate::log::content::OfDisk;
use crate::log::disk::DiskFile;
use crate::log::trail::Records;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// What a target has not got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Bytes of text.
    pub bytes: u64,
    /// Lines, as far as trails say.
    pub lines: u64,
    /// When the oldest of them was written, in nanoseconds since 1970.
    pub oldest_ns: Option<u64>,
}

impl Behind {
    /// Adds another shard.
    pub fn add(&mut self, other: Behind) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.lines = self.lines.saturating_add(other.lines);
        self.oldest_ns = self.oldest_ns.into_iter().chain(other.oldest_ns).min();
    }
}

/// A segment that there is.
#[derive(Debug, Clone, Copy)]
pub struct There {
    /// Which.
    pub sequence: u64,
    /// It grows.
    pub is_active: bool,
    /// Bytes of its files, which count where it has no trail.
    pub bytes: u64,
}

/// How far a trail was read, and what stood there.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    at: u64,
    lines: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct Segment {
    /// To the end.
    all: Cursor,
    /// As far as the target has it.
    had: Cursor,
    /// When the first write behind that was.
    oldest_ns: Option<u64>,
    /// It grows no more, and was read.
    is_read: bool,
}

/// One shard, for one target.
#[derive(Debug, Default)]
pub struct ShardLag {
    at: Position,
    segments: BTreeMap<u64, Segment>,
}

impl ShardLag {
    /// What is behind this position, of these segments (in order). `open` opens a trail; `None`: there is none.
    ///
    /// # Errors
    /// A trail cannot be read.
    pub fn look(
        &mut self,
        at: Position,
        there: &[There],
        open: &dyn Fn(u64) -> Option<Arc<dyn DiskFile>>,
    ) -> io::Result<Behind> {
        if at < self.at {
            self.segments.clear();
        }
        self.at = at;
        self.segments
            .retain(|sequence, _| there.iter().any(|one| one.sequence == *sequence && *sequence >= at.sequence));
        let mut behind = Behind::default();
        for one in there.iter().filter(|one| one.sequence >= at.sequence) {
            let segment = self.segments.entry(one.sequence).or_default();
            let had = if one.sequence == at.sequence { at.offset } else { 0 };
            let is_new = had > segment.had.end;
            if !segment.is_read || is_new {
                match open(one.sequence) {
                    Some(trail) => segment.read(&*trail, had)?,
                    None => segment.all.end = one.bytes,
                }
                segment.is_read = !one.is_active;
            }
            behind.add(Behind {
                bytes: segment.all.end.saturating_sub(had),
                lines: segment.all.lines.saturating_sub(segment.had.lines),
                oldest_ns: segment.oldest_ns.filter(|_| segment.all.end > had),
            });
        }
        Ok(behind)
    }
}

impl Segment {
    fn read(&mut self, trail: &dyn DiskFile, had: u64) -> io::Result<()> {
        let file = OfDisk(trail);
        let mut records = Records::from(&file, self.all.at);
        while let Some(record) = records.read()? {
            if record.is_write() {
                self.all.lines += u64::from(record.lines);
                self.all.end = self.all.end.max(record.end());
            }
        }
        self.all.at = records.position();
        let mut records = Records::from(&file, self.had.at);
        self.oldest_ns = None;
        loop {
            self.had.at = records.position();
            match records.read()? {
                Some(record) if record.is_write() && record.end() > had => {
                    self.oldest_ns = Some(record.wall_ns);
                    break;
                }
                Some(record) if record.is_write() => {
                    self.had.lines += u64::from(record.lines);
                    self.had.end = self.had.end.max(record.end());
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::Disk;
    use crate::log::real_disk::RealDisk;
    use crate::log::trail::{Record, What};
    use std::path::Path;

    fn write(offset: u64, len: u64, lines: u32, wall_ns: u64) -> Record {
        Record { what: What::Write, offset, len, lines, crc: 0, wall_ns, mono_ns: 0 }
    }

    fn add(dir: &Path, sequence: u64, records: &[Record]) {
        let path = dir.join(sequence.to_string());
        let mut bytes = std::fs::read(&path).unwrap_or_else(|_| vec![0; crate::log::trail::HEADER_LEN]);
        records.iter().for_each(|record| record.append_to(&mut bytes));
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_is_behind_a_position_is_counted_and_each_record_read_once() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new());
        let open = |sequence: u64| disk.open(&dir.path().join(sequence.to_string())).ok();
        let there = |sequence, is_active, bytes| There { sequence, is_active, bytes };
        let at = |sequence, offset| Position { sequence, offset };
        add(dir.path(), 1, &[write(0, 100, 10, 5), write(100, 50, 5, 6)]);
        add(dir.path(), 2, &[write(0, 30, 3, 7)]);
        let mut lag = ShardLag::default();
        let all = [there(1, false, 0), there(2, true, 0), there(9, false, 77)];
        let look = |lag: &mut ShardLag, position| lag.look(position, &all, &open).unwrap();
        let behind = |bytes, lines, oldest_ns| Behind { bytes, lines, oldest_ns };
        assert_eq!(look(&mut lag, at(0, 0)), behind(180 + 77, 18, Some(5)), "one has no trail");
        assert_eq!(look(&mut lag, at(1, 100)), behind(80 + 77, 8, Some(6)));
        assert_eq!(look(&mut lag, at(1, 150)), behind(30 + 77, 3, Some(7)));
        add(dir.path(), 2, &[Record { what: What::Sync, ..write(30, 0, 0, 8) }, write(30, 10, 1, 9)]);
        assert_eq!(look(&mut lag, at(2, 30)), behind(10 + 77, 1, Some(9)));
        assert_eq!(look(&mut lag, at(2, 40)), behind(77, 0, None));
        // In the middle of a write: its lines are not there yet, as far as anybody knows.
        assert_eq!(look(&mut lag, at(1, 120)), behind(30 + 40 + 77, 9, Some(6)), "back again: a note that was deleted");
        assert_eq!(look(&mut lag, at(10, 0)), Behind::default());
    }
}
