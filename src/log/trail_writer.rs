//! Writes a trail. Records wait in a small buffer, and are appended on request or when the buffer is full. Acknowledgements do
//! not wait for that.
//!
//! Records that follow closely are joined: writes until a sync, and synced writes with each other. Otherwise many tiny lines,
//! each with its own sync, would make the trail many times as long as the log. A joined record has the range and the checksum
//! of all its writes and the time of the last one. A sync mark never falls inside a record, because recovery must be able to
//! tell lost bytes from damaged ones.

use super::disk::{DiskFile, append_all};
use super::foreign;
use super::trail::{Header, RECORD_LEN, Record, What};
use crate::host::mutants::mutant;
use crate::log::checksum::crc32c_joined;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Records kept in memory before they are flushed: 16 KiB.
const PENDING_LIMIT: usize = 341 * RECORD_LEN;
/// Records kept while the disk is full: 1 MiB, then the trail is given up.
const PENDING_MOST: usize = 1 << 20;
/// Writes are joined within this time. So the time of a line is exact to this.
const JOIN_NS: u64 = 100_000_000;
/// Writes are joined up to this many bytes. So `verify` can say where damage is to within this.
const JOIN_BYTES: u64 = 1 << 20;
/// A mark of a sync waits no longer than this to be flushed: a kill takes what only this process knows, and recovery believes marks.
const FLUSH_NS: u64 = 100_000_000;
/// Time between tries to flush after one that failed.
const FLUSH_AGAIN_NS: u64 = 500_000_000;

/// Some writes in one record.
#[derive(Debug, Clone, Copy)]
struct Joined {
    record: Record,
    /// Wall time of the first.
    since_ns: u64,
}

impl Joined {
    fn of(record: Record) -> Joined {
        Joined { record, since_ns: record.wall_ns }
    }

    /// Joins the next write. Returns false if it needs a record of its own.
    fn join(&mut self, next: &Joined) -> bool {
        let (own, other) = (&mut self.record, &next.record);
        let is_near = other.wall_ns >= own.wall_ns && other.wall_ns - self.since_ns <= JOIN_NS;
        let Some(lines) = own.lines.checked_add(other.lines) else { return false };
        if !is_near || own.end() != other.offset || own.len.saturating_add(other.len) > JOIN_BYTES {
            return false;
        }
        own.crc = crc32c_joined(own.crc, other.crc, other.len);
        (own.len, own.lines) = (own.len + other.len, lines);
        (own.wall_ns, own.mono_ns) = (other.wall_ns, other.mono_ns);
        true
    }
}

/// See the module documentation.
pub struct TrailWriter {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    pending: Vec<u8>,
    /// Writes that are synced; what is synced next may join.
    synced: Option<Joined>,
    /// Writes behind those that are not synced; what is written next may join.
    open: Option<Joined>,
    /// A sync is under way that covers the open writes and no later ones.
    is_cut: bool,
    /// When the marks that are not flushed are to be, in monotonic nanoseconds; `None`: there are none.
    flush_at: Option<u64>,
    flushed: u64,
    broken: bool,
    /// A sync of it on another thread has failed.
    sync_failed: Arc<AtomicBool>,
    /// It names records of commit logs, and that it does so is durable.
    names_records: bool,
    /// Somebody else has changed it.
    foreign: bool,
}

/// A sync of a trail that goes before that of its segment: what the segment contains of a commit log is known by the trail only. So after
/// a power cut recovery keeps nothing of such a segment that the trail does not speak of.
pub struct SyncAhead {
    file: Arc<dyn DiskFile>,
    failed: Arc<AtomicBool>,
}

impl SyncAhead {
    /// Syncs.
    ///
    /// # Errors
    /// The trail is given up then, and what it was to speak of must not count as durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.failed.store(true, Ordering::SeqCst))
    }
}

impl TrailWriter {
    /// A writer for the new, empty file of that name.
    #[must_use]
    pub fn new(file: Arc<dyn DiskFile>, path: PathBuf) -> Self {
        TrailWriter {
            file,
            path,
            pending: Vec::with_capacity(PENDING_LIMIT),
            synced: None,
            open: None,
            is_cut: false,
            flush_at: None,
            flushed: 0,
            broken: false,
            sync_failed: Arc::default(),
            names_records: false,
            foreign: false,
        }
    }

    /// True once somebody else has changed or deleted the file. Then nobody reads what is written to it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Bytes that the trail has, or will have once it is flushed.
    #[must_use]
    pub fn size(&self) -> u64 {
        let joined = [self.synced, self.open].iter().flatten().count() * RECORD_LEN;
        self.flushed.saturating_add((self.pending.len() + joined) as u64)
    }

    /// The header; must be the first thing written.
    pub fn begin(&mut self, header: &Header) {
        self.pending.extend_from_slice(&header.encode_whole(std::iter::empty()));
    }

    /// A sync begins: what is written from now on is not covered by its mark.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// When [`TrailWriter::flush_if_due`] has something to do, in monotonic nanoseconds; `None`: not before another mark.
    #[must_use]
    pub fn flush_at(&self) -> Option<u64> {
        self.flush_at.filter(|_| !self.is_broken())
    }

    /// Flushes marks that have waited for long enough. Not where somebody waits for an answer: nobody is answered sooner for it.
    pub fn flush_if_due(&mut self, now_ns: u64) {
        if self.flush_at().is_some_and(|at| at <= now_ns) {
            self.settle();
            self.make_room();
            if !self.pending.is_empty() {
                self.flush_at = Some(now_ns.saturating_add(FLUSH_AGAIN_NS));
            }
        }
    }

    /// Adds a record; flushes by itself when the buffer is full.
    pub fn push(&mut self, record: &Record) {
        match record.what {
            What::Write => self.write(Joined::of(*record)),
            What::Sync => self.mark(record),
            _ => {
                self.settle();
                self.keep(record);
            }
        }
    }

    /// Names records of commit logs whose lines are about to be written, and hands that to the kernel. The first time it is made durable,
    /// with all that was written before: from then on recovery knows that nothing counts of which the trail does not speak.
    ///
    /// # Errors
    /// As [`TrailWriter::flush`], and as [`TrailWriter::sync`] the first time.
    pub fn name(&mut self, records: &[Record]) -> io::Result<()> {
        if !self.names_records {
            self.settle(); // later, writes that are not noted yet may still be joined by others
        }
        records.iter().for_each(|record| self.keep(record));
        let result = if self.names_records { self.append_kept() } else { self.sync() };
        match result {
            Ok(()) => self.names_records = true,
            // They come again with the next try: kept, they would fill the memory for as long as there is no room.
            Err(_) => self.pending.truncate(self.pending.len().saturating_sub(records.len() * RECORD_LEN)),
        }
        result
    }

    /// The sync that must go before the next one of the segment, if there is any: of a trail that speaks of every write so far.
    ///
    /// # Errors
    /// As [`TrailWriter::flush`]; the segment must not be synced then, unless it gets its sealed name before anybody is told.
    pub fn sync_ahead(&mut self) -> io::Result<Option<SyncAhead>> {
        if !self.names_records || mutant!("text_synced_before_its_trail") {
            return Ok(None);
        }
        self.flush()?;
        Ok(Some(SyncAhead { file: Arc::clone(&self.file), failed: Arc::clone(&self.sync_failed) }))
    }

    /// Nothing more is written to it.
    fn is_broken(&self) -> bool {
        self.broken || self.sync_failed.load(Ordering::SeqCst)
    }

    fn write(&mut self, next: Joined) {
        if !self.is_cut
            && let Some(open) = &mut self.open
            && open.join(&next)
        {
            return;
        }
        if self.open.is_some() {
            self.settle();
        }
        (self.open, self.is_cut) = (Some(next), false);
    }

    fn mark(&mut self, mark: &Record) {
        match self.open {
            Some(mut open) if open.record.end() == mark.offset => {
                open.record.what = What::Synced;
                (self.open, self.is_cut) = (None, false);
                if !self.synced.as_mut().is_some_and(|synced| synced.join(&open)) {
                    self.settle();
                    self.synced = Some(open);
                }
            }
            None if self.synced.is_some_and(|synced| synced.record.end() == mark.offset) => {}
            _ => {
                self.settle();
                self.keep(mark);
            }
        }
        self.flush_at.get_or_insert(mark.mono_ns.saturating_add(FLUSH_NS));
    }

    /// Closes the open records, so that nothing joins them any more.
    fn settle(&mut self) {
        let joined = [self.synced.take(), self.open.take()];
        self.is_cut = false;
        joined.iter().flatten().for_each(|joined| self.keep(&joined.record));
    }

    fn keep(&mut self, record: &Record) {
        if self.pending.len() + RECORD_LEN > PENDING_LIMIT {
            self.make_room();
        }
        if !self.is_broken() {
            record.append_to(&mut self.pending);
        }
    }

    fn make_room(&mut self) {
        if let Err(error) = self.append_pending() {
            // Without room the records wait. A trail that is given up makes recovery treat the rest as past its end.
            self.broken |= !super::is_full(&error) || self.pending.len() >= PENDING_MOST;
        }
    }

    /// Hands the buffered records to the kernel.
    ///
    /// # Errors
    /// The append failed; the file is cut back to whole records and the records stay buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.settle();
        self.append_pending()
    }

    fn append_pending(&mut self) -> io::Result<()> {
        if self.is_broken() {
            return Err(io::Error::other("the trail had been given up"));
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.file.is_at(&self.path)? {
            (self.broken, self.foreign) = (true, true);
            return Err(io::Error::other("somebody else has taken the trail away"));
        }
        self.append_kept()
    }

    /// As [`TrailWriter::append_pending`], without a look at the name.
    fn append_kept(&mut self) -> io::Result<()> {
        if self.is_broken() {
            return Err(io::Error::other("the trail had been given up"));
        }
        if foreign::length(&*self.file, self.flushed)?.is_some() {
            (self.broken, self.foreign) = (true, true);
            return Err(io::Error::other("somebody else has changed the trail"));
        }
        if let Err(error) = append_all(&*self.file, &self.pending) {
            match foreign::cut_back(&*self.file, self.flushed, &[IoSlice::new(&self.pending)]) {
                Ok(None) => {}
                Ok(Some(_)) => (self.broken, self.foreign) = (true, true),
                Err(_) => self.broken = true,
            }
            return Err(error);
        }
        self.flushed += self.pending.len() as u64;
        self.pending.clear();
        self.flush_at = None;
        Ok(())
    }

    /// Makes the trail itself durable.
    ///
    /// # Errors
    /// Flush or sync failed; the trail is then given up, a failed sync being final.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data().inspect_err(|_| self.broken = true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::checksum::crc32c;
    use crate::log::disk::Disk;
    use crate::log::names::SegmentId;
    use crate::log::real_disk::RealDisk;
    use crate::log::trail::Trail;
    use proptest::prelude::*;

    struct Written {
        dir: tempfile::TempDir,
        writer: TrailWriter,
        text: Vec<u8>,
        now: u64,
    }

    impl Written {
        fn new() -> Written {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t");
            let mut writer = TrailWriter::new(RealDisk::new().create_new(&path).unwrap(), path);
            let id = SegmentId { shard: 0, sequence: 1 };
            writer.begin(&Header { boot: [1; 16], node: [1; 16], mount: 1, id, previous: 0, wall_ns: 0 });
            Written { dir, writer, text: Vec::new(), now: 1 }
        }

        fn record(&self, what: What, offset: usize, bytes: &[u8]) -> Record {
            let (offset, len, lines) = (offset as u64, bytes.len() as u64, u32::from(what == What::Write));
            Record { what, offset, len, lines, crc: crc32c(bytes), wall_ns: self.now, mono_ns: self.now }
        }

        fn write(&mut self, bytes: &[u8]) {
            let record = self.record(What::Write, self.text.len(), bytes);
            self.writer.push(&record);
            self.text.extend_from_slice(bytes);
        }

        fn sync(&mut self, to: usize) {
            let record = self.record(What::Sync, to, b"");
            self.writer.push(&record);
        }

        fn read(&mut self) -> Trail {
            self.writer.flush().unwrap();
            let bytes = std::fs::read(self.dir.path().join("t")).unwrap();
            assert_eq!(bytes.len() as u64, self.writer.size());
            Trail::parse(&bytes)
        }

        /// Every byte has its record, in order, with the right checksum; no mark falls inside one.
        fn check(&mut self) -> Trail {
            let trail = self.read();
            let mut at = 0;
            for record in trail.records.iter().filter(|r| r.is_write()) {
                assert_eq!(record.offset, at);
                at = record.end();
                assert_eq!(record.crc, crc32c(&self.text[record.offset as usize..at as usize]));
                let inside = |to: u64| record.offset < to && to < at;
                assert!(!trail.records.iter().any(|r| inside(r.synced_to())), "{:?}", trail.records);
            }
            assert_eq!(at, self.text.len() as u64);
            trail
        }
    }

    /// 96 bytes of trail for each byte of log, it was.
    #[test]
    fn tiny_lines_with_a_sync_each_make_a_short_trail() {
        let mut it = Written::new();
        for _ in 0..100_000 {
            it.write(b"\n");
            it.sync(it.text.len());
            it.now += 50_000;
        }
        let trail = it.check();
        assert_eq!(trail.synced_to(), 100_000);
        assert_eq!(trail.records.iter().map(|r| u64::from(r.lines)).sum::<u64>(), 100_000);
        assert!(trail.records.len() < 80, "{} records in five seconds", trail.records.len());
        let times: Vec<u64> = trail.records.iter().map(|r| r.wall_ns).collect();
        assert!(times.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= 2 * JOIN_NS), "each range has its time");
    }

    #[test]
    fn a_mark_never_falls_inside_a_record() {
        let mut it = Written::new();
        it.write(b"one\n");
        it.writer.cut(); // the steward syncs that much
        it.write(b"two\n");
        it.sync(4);
        it.write(b"three\n");
        let trail = it.check();
        assert_eq!(trail.synced_to(), 4);
        assert_eq!(trail.records.iter().filter(|r| r.is_write()).count(), 3);
        // The mark of what was flushed meanwhile is one of its own.
        it.sync(14);
        assert_eq!(it.check().synced_to(), 14);
    }

    #[test]
    fn a_clock_that_goes_back_joins_nothing() {
        let mut it = Written::new();
        it.now = 10 * JOIN_NS;
        it.write(b"late\n");
        it.now = 1;
        it.write(b"early\n");
        assert_eq!(it.check().records.iter().map(|r| r.wall_ns).collect::<Vec<_>>(), [10 * JOIN_NS, 1]);
    }

    proptest! {
        #[test]
        fn joined_records_say_the_same(steps in proptest::collection::vec((0u8..6, 1usize..400, 0u64..40), 1..200)) {
            let mut it = Written::new();
            let mut under_way = None;
            let mut synced = 0;
            for (kind, len, ms) in steps {
                it.now += ms * 1_000_000;
                match kind {
                    0..=2 => it.write(&vec![b'x'; len]),
                    3 if under_way.is_none() => {
                        it.sync(it.text.len());
                        synced = it.text.len();
                    }
                    4 if under_way.is_none() => {
                        it.writer.cut();
                        under_way = Some(it.text.len());
                    }
                    5 if under_way.is_some() => {
                        synced = under_way.take().unwrap_or(0);
                        it.sync(synced);
                    }
                    _ => it.writer.flush().unwrap(),
                }
            }
            prop_assert_eq!(it.check().synced_to(), synced as u64);
        }
    }
}
