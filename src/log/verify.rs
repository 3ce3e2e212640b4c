//! Compares segments with their trails: is every byte on disk what was written, is every file there, is every segment there
//! that a later one names? It only reads, so a server may run meanwhile.

pub use super::content::{Content, Files, OnDisk};
use super::content::{TEXTS, open_kind, read_full};
use super::names::{Kind, SegmentId, is_stream_name};
use super::retired::{Note, mark_path};
use super::trail::{self, Record, Records, Summary};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Bytes read at a time.
const READ: usize = 1 << 20;
/// A note of retention is no longer than this.
const NOTE_MOST: usize = 64 << 10;

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Bytes that do not match their checksum: a bit has changed, or somebody wrote into the file.
    Changed,
    /// Fewer bytes than the trail says were synced, or than a sealed segment had.
    Short,
    /// A segment that its trail or a later segment names is not there, or a trail is not.
    Missing,
    /// The trail belongs to another segment, or its records do not follow each other.
    WrongTrail,
    /// A segment is there as sealed and as active.
    Twice,
    /// The file cannot be read.
    Unreadable,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The file, relative to the data directory.
    pub file: String,
    /// What is wrong.
    pub problem: Problem,
    /// First byte concerned.
    pub from: u64,
    /// Byte behind the last one concerned; as `from` where that means nothing.
    pub to: u64,
    /// In words.
    pub detail: String,
}

/// What `verify` found in the directory of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Its name.
    pub stream: String,
    /// Segments, sealed and active.
    pub segments: u64,
    /// Of them, those that are being written or wait for recovery.
    pub active: u64,
    /// Of them, those that are compressed.
    pub compressed: u64,
    /// Lines that match their checksums.
    pub lines: u64,
    /// Their bytes.
    pub bytes_proven: u64,
    /// Bytes that no checksum covers: the trail was lost in a crash, had no room, or is not written so far yet.
    pub bytes_unproven: u64,
    /// Files with what crashes cut off.
    pub torn_files: u64,
    /// Files that logweir does not write.
    pub foreign_files: u64,
    /// What is wrong.
    pub problems: Vec<Found>,
}

/// The names of the streams in a data directory, sorted.
///
/// # Errors
/// It cannot be listed.
pub fn streams(files: &dyn Files, data_dir: &Path) -> io::Result<Vec<String>> {
    let mut names = files.list(data_dir)?;
    names.retain(|name| is_stream_name(name));
    names.sort();
    Ok(names)
}

/// Looks at every file of one stream.
///
/// # Errors
/// The directory cannot be listed. A file that cannot be read is a problem of its own.
pub fn stream(files: &dyn Files, data_dir: &Path, name: &str) -> io::Result<StreamReport> {
    let dir = data_dir.join(name);
    let mut found: BTreeMap<SegmentId, BTreeSet<&'static str>> = BTreeMap::new();
    let mut report = StreamReport { stream: name.into(), ..StreamReport::default() };
    for file in files.list(&dir)? {
        match SegmentId::parse(&file) {
            Some((_, Kind::Torn)) => report.torn_files += 1,
            Some((id, kind)) => drop(found.entry(id).or_default().insert(word(kind))),
            None if file.starts_with("current-") || file.ends_with(".tmp") => {}
            None => report.foreign_files += 1,
        }
    }
    let mut look = Look { files, data_dir, dir: &dir, report, buffer: vec![0; READ] };
    for (id, kinds) in &found {
        let before = look.report.clone();
        look.segment(*id, kinds);
        if look.report.problems.len() > before.problems.len() {
            // A server may have sealed, recovered or removed it between two looks: only what is wrong twice is wrong.
            look.report = before;
            look.segment(*id, kinds);
        }
    }
    let there: BTreeSet<SegmentId> = found
        .iter()
        .filter(|(_, kinds)| ["log", "active", "zst"].iter().any(|kind| kinds.contains(kind)))
        .map(|(id, _)| *id)
        .collect();
    look.gaps(&there);
    Ok(look.report)
}

/// Tells a file whose content is wrong from one that cannot be read at all.
fn unreadable(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::InvalidData => Problem::Changed,
        _ => Problem::Unreadable,
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Sealed => "log",
        Kind::Active => "active",
        Kind::Compressed => "zst",
        Kind::Trail => "trail",
        Kind::Torn => "torn",
    }
}

struct Look<'a> {
    files: &'a dyn Files,
    data_dir: &'a Path,
    dir: &'a Path,
    report: StreamReport,
    buffer: Vec<u8>,
}

impl Look<'_> {
    fn complain(&mut self, id: SegmentId, kind: Kind, problem: Problem, range: (u64, u64), detail: String) {
        let file = format!("{}/{}", self.report.stream, id.file_name(kind));
        if let Some(last) = self.report.problems.last_mut()
            && last.file == file
            && (last.problem, problem, last.to) == (Problem::Changed, Problem::Changed, range.0)
        {
            last.to = range.1;
            last.detail = format!("bytes {}..{} do not match their checksums", last.from, last.to);
            return;
        }
        self.report.problems.push(Found { file, problem, from: range.0, to: range.1, detail });
    }

    fn open(&self, id: SegmentId, kind: Kind) -> io::Result<Option<Box<dyn Content>>> {
        open_kind(self.files, self.dir, id, kind)
    }

    /// A trail, and what it says in all.
    fn trail(&self, id: SegmentId) -> io::Result<Option<(Box<dyn Content>, Summary)>> {
        let Some(file) = self.open(id, Kind::Trail)? else { return Ok(None) };
        let says = Summary::read(&*file)?;
        Ok(Some((file, says)))
    }

    /// What retention has deleted, and is deleting.
    fn note(&self, shard: u16) -> Note {
        let path = mark_path(self.data_dir, &self.report.stream, shard);
        let mut bytes = vec![0; NOTE_MOST];
        let read = self.files.open(&path).and_then(|file| read_full(&*file, &mut bytes, 0));
        read.ok().and_then(|n| Note::parse(&bytes[..n])).unwrap_or_default()
    }

    fn segment(&mut self, id: SegmentId, kinds: &BTreeSet<&str>) {
        let note = self.note(id.shard);
        if note.is_retiring(id.sequence) {
            return; // files of it may be there or not
        }
        // The trail first: what it says was in the segment by then.
        let trail = match self.trail(id) {
            Ok(trail) => trail,
            Err(e) => return self.complain(id, Kind::Trail, Problem::Unreadable, (0, 0), e.to_string()),
        };
        // It may be sealed, or taken away as empty, between the two looks.
        let opened = TEXTS.into_iter().chain(TEXTS).find_map(|kind| match self.open(id, kind) {
            Ok(file) => file.map(|file| Ok((file, kind))),
            Err(e) => Some(Err((e, kind))),
        });
        let (file, kind) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err((e, kind))) => return self.complain(id, kind, unreadable(&e), (0, 0), e.to_string()),
            // One that never held anything durable may have been removed by a start that was killed at just this point.
            // A trail that could not be removed with its text is no gap.
            None if id.sequence <= note.highest => return,
            None if trail.is_some_and(|(_, says)| says.synced_to > 0) && self.trail(id).is_ok_and(|t| t.is_some()) => {
                let detail = "its trail is there and it is not".into();
                return self.complain(id, Kind::Sealed, Problem::Missing, (0, 0), detail);
            }
            None => return,
        };
        self.report.segments += 1;
        self.report.active += u64::from(kind == Kind::Active);
        self.report.compressed += u64::from(kind == Kind::Compressed);
        if kinds.contains("log") && kinds.contains("active") && self.open(id, Kind::Active).is_ok_and(|f| f.is_some()) {
            let detail = "it is there as sealed and as active".into();
            self.complain(id, Kind::Active, Problem::Twice, (0, 0), detail);
        }
        let Some((records, says)) = trail else {
            if file.size().is_ok_and(|size| size == 0) {
                return; // about to be used
            }
            let detail = "its trail is not there: nothing of it can be proven".into();
            self.report.bytes_unproven += file.size().unwrap_or(0);
            return self.complain(id, Kind::Trail, Problem::Missing, (0, 0), detail);
        };
        if says.was_changed && kind != Kind::Active {
            let detail = "the trail has changed: what it says of the rest cannot be read".into();
            self.complain(id, Kind::Trail, Problem::Changed, (0, 0), detail);
        }
        if says.header.is_some_and(|h| h.id != id) {
            let detail = "the trail says that it belongs to another segment".into();
            self.report.bytes_unproven += file.size().unwrap_or(0);
            return self.complain(id, Kind::Trail, Problem::WrongTrail, (0, 0), detail);
        }
        if let Err(e) = self.content(id, kind, &*file, (&*records, &says)) {
            self.complain(id, kind, unreadable(&e), (0, 0), e.to_string());
        }
    }

    /// Compares the bytes of a segment with the records of its trail.
    fn content(
        &mut self,
        id: SegmentId,
        kind: Kind,
        file: &dyn Content,
        (trail, says): (&dyn Content, &Summary),
    ) -> io::Result<()> {
        let before = self.report.problems.len();
        let len = file.size()?;
        let synced = says.synced_to;
        // What a crash leaves active is for the next start to judge, as far as it was not synced.
        let is_open = kind == Kind::Active;
        let (mut at, mut unproven) = (0, 0);
        let mut records = Records::of(trail);
        while says.header.is_some()
            && let Some(record) = records.read()?
        {
            if !record.is_write() {
                continue;
            }
            let end = record.end();
            if record.offset != at {
                let detail = format!("a record begins at {} where {at} was expected", record.offset);
                let range = (at.min(record.offset), at.max(record.offset));
                self.complain(id, Kind::Trail, Problem::WrongTrail, range, detail);
                break;
            }
            if end > len {
                if !is_open || record.offset < synced {
                    let detail = format!("{len} bytes are left of {end} that were written");
                    self.complain(id, kind, Problem::Short, (len, end), detail);
                }
                break;
            }
            match self.record(file, &record)? {
                Some(lines) => {
                    self.report.lines += lines;
                    self.report.bytes_proven += record.len;
                }
                None if is_open && record.offset >= synced => unproven += record.len,
                None => {
                    let detail = format!("bytes {at}..{end} do not match their checksum");
                    self.complain(id, kind, Problem::Changed, (at, end), detail);
                }
            }
            at = end;
        }
        let past = len.saturating_sub(at);
        if let Some(end) = says.end.filter(|end| at < *end && *end <= len && !is_open) {
            let detail = format!("the records end at {at}, the segment at {end}");
            self.complain(id, Kind::Trail, Problem::Changed, (at, end), detail);
        }
        if let Some(end) = says.end.filter(|end| *end < len && !is_open) {
            let detail = format!("{} bytes behind its end at {end}", len - end);
            self.complain(id, kind, Problem::Changed, (end, len), detail);
        }
        let most = synced.max(says.end.unwrap_or(0));
        if most > len && self.report.problems.last().is_none_or(|p| p.problem != Problem::Short) {
            let detail = format!("{len} bytes are left of {most} that were synced");
            self.complain(id, kind, Problem::Short, (len, most), detail);
        }
        if let Some(ours) = says.foreign
            && self.report.problems.len() == before
        {
            let detail = format!("somebody else has changed it while it was written: behind {ours} it is not ours");
            self.complain(id, kind, Problem::Changed, (ours, len.max(ours)), detail);
        }
        self.report.bytes_unproven += unproven + past;
        Ok(())
    }

    /// The lines of a record whose bytes match; `None`: they do not.
    fn record(&mut self, file: &dyn Content, record: &Record) -> io::Result<Option<u64>> {
        let (mut at, mut crc, mut lines, mut last) = (record.offset, 0, 0, b'\n');
        let end = record.offset + record.len;
        while at < end {
            let want = self.buffer.len().min((end - at) as usize);
            let n = read_full(file, &mut self.buffer[..want], at)?;
            if n == 0 {
                return Ok(None);
            }
            let bytes = &self.buffer[..n];
            crc = crate::log::checksum::crc32c_append(crc, bytes);
            lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
            last = bytes[n - 1];
            at += n as u64;
        }
        let is_whole = crc == record.crc && last == b'\n' && lines.min(u32::MAX.into()) == u64::from(record.lines);
        Ok(is_whole.then_some(lines))
    }

    /// Each trail names the segment before its own: is it there?
    fn gaps(&mut self, there: &BTreeSet<SegmentId>) {
        for id in there {
            let Ok(Some(file)) = self.open(*id, Kind::Trail) else { continue };
            let Ok(Some(header)) = trail::header(&*file) else { continue };
            let before = SegmentId { shard: id.shard, sequence: header.previous };
            // The oldest segments may have been taken away, with their trails; one from the middle may not.
            let is_oldest = !there.iter().any(|other| other.shard == id.shard && other < id);
            if header.previous == 0
                || header.id != *id
                || there.contains(&before)
                || is_oldest
                || before.sequence <= self.note(before.shard).highest
            {
                continue;
            }
            // Crashes leave what they cut off; and a segment before that has been reported already where its trail is there.
            let is_known =
                [Kind::Torn, Kind::Trail].into_iter().any(|kind| self.open(before, kind).is_ok_and(|f| f.is_some()));
            if !is_known {
                let detail = format!("the trail of {} names it as the one before", id.file_name(Kind::Sealed));
                self.complain(before, Kind::Sealed, Problem::Missing, (0, 0), detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trail::{Header, What};
    use super::*;

    #[test]
    fn a_record_that_goes_back_is_said_with_its_bytes_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let id = SegmentId { shard: 0, sequence: 1 };
        let header = Header { boot: [1; 16], node: [1; 16], mount: 1, id, previous: 0, wall_ns: 0 };
        let crc = crate::log::checksum::crc32c(b"abc\n");
        let record = Record { what: What::Write, offset: 0, len: 4, lines: 1, crc, wall_ns: 0, mono_ns: 0 };
        let back = Record { offset: 1, ..record };
        let put = |kind, bytes: &[u8]| std::fs::write(dir.path().join(id.file_name(kind)), bytes).unwrap();
        put(Kind::Sealed, b"abc\n");
        put(Kind::Trail, &header.encode_whole([record, back].iter()));
        let (parent, name) = (dir.path().parent().unwrap(), dir.path().file_name().unwrap().to_str().unwrap());
        let report = stream(&OnDisk, parent, name).unwrap();
        let found: Vec<_> = report.problems.iter().map(|p| (p.problem, p.from, p.to)).collect();
        assert_eq!(found, [(Problem::WrongTrail, 1, 4)]);
    }
}
