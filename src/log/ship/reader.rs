//! Goes through one shard of a stream, segment by segment, as far as it is durable: to the end of a sealed segment, in an active one to the
//! last sync mark of its trail, and in one that a sync has failed for no further until the next start has judged it. What lies behind that is waited
//! for where a commit log has it too, and where the machine was started anew since, or a start has failed: marks may be lost then. A server may run
//! meanwhile; it is never asked.

use super::Position;
use crate::host::clock::BootId;
use crate::host::mutants::mutant;
use crate::log::content::{Content, ContentReader, Files, open_kind, open_text, read_full};
use crate::log::names::{Kind, SegmentId};
use crate::log::retired::{Note, mark_path};
use crate::log::trail::{Records, What, header};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes from one place to another that have the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed {
    /// Byte behind the last, counted from the first byte that was taken.
    pub to: usize,
    /// When it was written, in nanoseconds since 1970; `None`: nobody knows.
    pub wall_ns: Option<u64>,
}

/// What [`ShardReader::take`] has taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Where it begins.
    pub from: Position,
    /// Behind its last line: where the next segment begins, if this one has ended there.
    pub to: Position,
    /// When its parts were written, in order, without gaps.
    pub times: Vec<Timed>,
}

/// Segments were deleted before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// From there on.
    pub from: Position,
    /// The segment that is next; everything before it is lost.
    pub next: u64,
}

/// Longest note of retention that is read, in bytes.
const NOTE_LONGEST: u64 = 1 << 20;

/// A segment, as far as it was read.
struct Open {
    id: SegmentId,
    kind: Kind,
    text: Box<dyn Content>,
    trail: Option<Box<dyn Content>>,
    /// How far the trail was read.
    trail_at: u64,
    /// Writes behind the place that was read to.
    writes: VecDeque<(u64, u64)>,
    synced_to: u64,
    /// A write or sync has failed: nothing behind the last sync mark is shipped as long as it is active.
    is_suspect: bool,
    /// Its trail was begun since the machine was started: none of its marks are missing.
    is_of_this_boot: bool,
    /// Behind the last byte that commit logs have too.
    logged_to: u64,
    /// Its trail says that it ends here.
    end: Option<u64>,
}

/// See the module documentation.
pub struct ShardReader {
    dir: PathBuf,
    /// Retention's note.
    retired: PathBuf,
    shard: u16,
    boot: BootId,
    at: Position,
    open: Option<Open>,
    lost: Option<Lost>,
}

impl ShardReader {
    /// Of a stream in a data directory, from there on. `boot`: which start of the machine this is.
    #[must_use]
    pub fn new(data_dir: &Path, stream: &str, shard: u16, at: Position, boot: BootId) -> ShardReader {
        let (dir, retired) = (data_dir.join(stream), mark_path(data_dir, stream, shard));
        ShardReader { dir, retired, shard, boot, at, open: None, lost: None }
    }

    /// Where it is: what comes next was not taken yet.
    #[must_use]
    pub fn at(&self) -> Position {
        self.at
    }

    /// Goes back, or forth, to a place.
    pub fn go_to(&mut self, at: Position) {
        if self.at != at {
            (self.at, self.open) = (at, None);
        }
    }

    /// Goes to the last segment that there is: nothing before it is asked for.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn skip_to_last(&mut self, files: &dyn Files) -> io::Result<()> {
        let last = self.ids(files)?.into_iter().max().unwrap_or(0);
        self.go_to(Position { sequence: last, offset: 0 });
        Ok(())
    }

    /// What was found to be gone since this was asked last.
    pub fn take_lost(&mut self) -> Option<Lost> {
        self.lost.take()
    }

    /// Puts whole lines into `into`, which is emptied first: about `most` bytes, more only where a single line is longer. `None`: nothing
    /// more is durable at the moment.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn take(&mut self, files: &dyn Files, most: usize, into: &mut Vec<u8>) -> io::Result<Option<Taken>> {
        into.clear();
        loop {
            if self.open.is_none() && !self.find(files)? {
                return Ok(None);
            }
            let Some(open) = self.open.as_mut() else { return Ok(None) };
            open.look_at_trail(self.at.offset)?;
            let limit = open.limit()?;
            if self.at.offset < limit
                && let Some(mut taken) = open.lines(self.at, limit, most, into)?
            {
                if taken.to.offset == limit && open.is_over(limit)? {
                    taken.to = Position { sequence: open.id.sequence + 1, offset: 0 };
                    self.open = None;
                }
                self.at = taken.to;
                return Ok(Some(taken));
            }
            if !self.go_on(files)? {
                return Ok(None);
            }
        }
    }

    /// Opens the segment that it is in, or the next that there is. False: there is none.
    fn find(&mut self, files: &dyn Files) -> io::Result<bool> {
        let here = self.at;
        if here.sequence > 0
            && let Some(open) = Open::new(files, &self.dir, self.id(here.sequence), self.boot)?
        {
            self.open = Some(open);
            return Ok(true);
        }
        while let Some(next) = self.next_id(files, self.at.sequence)? {
            // Of one that is gone again the note of retention speaks.
            self.at = Position { sequence: next, offset: 0 };
            let Some(open) = Open::new(files, &self.dir, self.id(next), self.boot)? else { continue };
            // A name that is missing may be of a segment that never had a line. Retention says what it took.
            if here.sequence > 0 && (here.offset > 0 || self.retired(files)? >= here.sequence) {
                self.lost = Some(Lost { from: here, next });
            }
            self.open = Some(open);
            return Ok(true);
        }
        self.at = here;
        Ok(false)
    }

    fn id(&self, sequence: u64) -> SegmentId {
        SegmentId { shard: self.shard, sequence }
    }

    /// The highest segment that retention has deleted.
    fn retired(&self, files: &dyn Files) -> io::Result<u64> {
        let file = match files.open(&self.retired) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let mut bytes = Vec::new();
        ContentReader::new(&*file, 0).take(NOTE_LONGEST).read_to_end(&mut bytes)?;
        Note::parse(&bytes).map(|note| note.highest).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: no note of retention", self.retired.display()))
        })
    }

    /// The next segment of the shard whose text is there.
    fn next_id(&self, files: &dyn Files, behind: u64) -> io::Result<Option<u64>> {
        let Some(next) = self.ids(files)?.into_iter().filter(|sequence| *sequence > behind).min() else {
            return Ok(None);
        };
        // A listing may miss a file that is renamed meanwhile (readdir(3)): each between is asked for by its name.
        let first = behind.max(self.retired(files)?) + 1;
        for sequence in first..next {
            if open_text(files, &self.dir, self.id(sequence))?.is_some() {
                return Ok(Some(sequence));
            }
        }
        Ok(Some(next))
    }

    /// The segments of the shard whose text is there.
    fn ids(&self, files: &dyn Files) -> io::Result<Vec<u64>> {
        let names = match files.list(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let texts = names.iter().filter_map(|name| SegmentId::parse(name));
        let is_text = |kind: Kind| matches!(kind, Kind::Active | Kind::Sealed | Kind::Compressed);
        let texts = texts.filter(|(id, kind)| id.shard == self.shard && is_text(*kind));
        Ok(texts.map(|(id, _)| id.sequence).collect())
    }

    /// Nothing more is durable in this segment. True: it was finished, or has another name now; false: more may come.
    fn go_on(&mut self, files: &dyn Files) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(true) };
        if open.is_over(self.at.offset)? {
            (self.at, self.open) = (Position { sequence: open.id.sequence + 1, offset: 0 }, None);
            return Ok(true);
        }
        // Sealed since it was opened, without room for a note of it in the trail; or gone.
        let has_moved = open.kind == Kind::Active && open_kind(files, &self.dir, open.id, Kind::Active)?.is_none();
        if has_moved {
            self.open = None;
        }
        Ok(has_moved)
    }
}

impl Open {
    /// `None`: there is no such segment.
    fn new(files: &dyn Files, dir: &Path, id: SegmentId, boot: BootId) -> io::Result<Option<Open>> {
        let Some((text, kind)) = open_text(files, dir, id)? else { return Ok(None) };
        let trail = open_kind(files, dir, id, Kind::Trail)?;
        let (writes, trail_at) = (VecDeque::new(), 0);
        let begun = trail.as_ref().map(|trail| header(&**trail)).transpose()?.flatten();
        let is_of_this_boot =
            begun.is_some_and(|begun| begun.boot == boot) || mutant!("suspect_of_another_boot_passed_by");
        let (synced_to, is_suspect, logged_to, end) = (0, false, 0, None);
        Ok(Some(Open {
            id,
            kind,
            text,
            trail,
            trail_at,
            writes,
            synced_to,
            is_suspect,
            is_of_this_boot,
            logged_to,
            end,
        }))
    }

    /// Reads what is new in the trail.
    fn look_at_trail(&mut self, at: u64) -> io::Result<()> {
        let Some(trail) = &self.trail else { return Ok(()) };
        let mut records = Records::from(&**trail, self.trail_at);
        while let Some(record) = records.read()? {
            self.synced_to = self.synced_to.max(record.synced_to());
            if record.is_write() && record.end() > at {
                self.writes.push_back((record.end(), record.wall_ns));
            }
            match record.what {
                What::Suspect => self.is_suspect = true,
                What::Logged => self.logged_to = self.logged_to.max(record.end()),
                What::End => self.end = Some(record.offset),
                _ => {}
            }
        }
        self.trail_at = records.position();
        Ok(())
    }

    /// What lies before this offset is durable.
    fn limit(&self) -> io::Result<u64> {
        let size = self.text.size()?;
        Ok(match (self.kind, self.end) {
            (Kind::Active, None) if mutant!("shipped_beyond_the_sync") => size,
            (Kind::Active, None) => self.synced_to.min(size),
            // The mark comes behind the last sync. What others have appended behind it is not ours.
            (_, Some(end)) => end.min(size),
            _ => size,
        })
    }

    fn is_over(&self, at: u64) -> io::Result<bool> {
        if self.kind != Kind::Active || self.end.is_some() {
            return Ok(true);
        }
        let limit = self.limit()?;
        Ok(self.is_suspect && self.is_of_this_boot && at >= limit && !self.is_to_be_judged(limit)?)
    }

    /// True if a suspect segment has lines of a commit log behind its last sync mark. They were promised, and are not written again as others
    /// are: the next start says whether they stay here or go to a new segment.
    fn is_to_be_judged(&self, limit: u64) -> io::Result<bool> {
        Ok(!mutant!("logged_lines_of_a_suspect_passed_by") && self.logged_to > limit && self.text.size()? > limit)
    }

    /// Whole lines between two offsets. `None`: not one is whole.
    fn lines(&mut self, at: Position, limit: u64, most: usize, into: &mut Vec<u8>) -> io::Result<Option<Taken>> {
        let left = usize::try_from(limit - at.offset).unwrap_or(usize::MAX);
        let mut want = most.max(1).min(left);
        loop {
            let had = into.len();
            into.resize(want, 0);
            let n = read_full(&*self.text, &mut into[had..], at.offset + had as u64)?;
            into.truncate(had + n);
            let end = memchr::memrchr(b'\n', into).map_or(0, |last| last + 1);
            if end > 0 {
                into.truncate(end);
                let to = Position { offset: at.offset + end as u64, ..at };
                return Ok(Some(Taken { from: at, to, times: self.times(at.offset, to.offset) }));
            }
            if had + n < want || want == left {
                into.clear();
                return Ok(None);
            }
            want = want.saturating_mul(2).min(left);
        }
    }

    /// When the bytes between two offsets were written.
    fn times(&mut self, from: u64, to: u64) -> Vec<Timed> {
        let mut times = Vec::new();
        while let Some((end, wall_ns)) = self.writes.front().copied() {
            if end > from {
                times.push(Timed { to: (end.min(to) - from) as usize, wall_ns: Some(wall_ns) });
            }
            if end > to {
                break;
            }
            self.writes.pop_front();
            if end == to {
                break;
            }
        }
        if times.last().is_none_or(|last| last.to < (to - from) as usize) {
            times.push(Timed { to: (to - from) as usize, wall_ns: None });
        }
        times
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
