//! The trail beside a segment: one small record per write and per sync, for recovery, `verify` and shipping.
//!
//! Writes and syncs that follow closely share one record (see [`super::trail_writer`]). Trails are read as a stream, because
//! one may be larger than the memory for it.
//!
//! Layout, little endian: a header of [`HEADER_LEN`] bytes, then records of [`RECORD_LEN`] bytes. Each ends with its own
//! CRC32C, so a reader stops at the first one that a crash cut short. Acknowledgements do not wait for the trail. What it lacks
//! after a crash only makes recovery more careful, never wrong.

use super::content::{Content, OfDisk, read_full};
use super::disk::DiskFile;
use super::names::SegmentId;
use crate::host::clock::BootId;
use std::io;

/// Bytes of the header.
pub const HEADER_LEN: usize = 80;
/// Bytes of a record.
pub const RECORD_LEN: usize = 48;
const MAGIC: &[u8; 8] = b"LWTRAIL1";
/// Records read at a time: 64 KiB.
const READ: usize = 1365 * RECORD_LEN;

/// Who wrote the segment, when, and what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The boot in which the segment is written.
    pub boot: BootId,
    /// The node.
    pub node: [u8; 16],
    /// The mount it is written on (0: unknown). Same boot and same mount: the page cache is still whole.
    pub mount: u64,
    /// Shard and sequence.
    pub id: SegmentId,
    /// Sequence of the segment before this one in the same stream and shard; 0: none. Makes gaps provable.
    pub previous: u64,
    /// Nanoseconds since 1970 when it became active.
    pub wall_ns: u64,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// `len` bytes were written at `offset`; `crc` is theirs.
    Write,
    /// Everything before `offset` was synced.
    Sync,
    /// A write or sync failed; bytes at and after `offset` may not be what was sent.
    Suspect,
    /// The segment is finished: it ends at `offset`.
    End,
    /// Somebody else has changed the file's length: what stands at and after `offset` is not ours.
    Foreign,
    /// As [`What::Write`], and everything before its end was synced.
    Synced,
    /// Noted before a write of `len` bytes at `offset`: with it, everything of the segment's stream is here or in an earlier segment that
    /// the commit log of a reactor (`lines`) holds, up to a record (`mono_ns`) of a generation (`wall_ns`).
    Logged,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its kind.
    pub what: What,
    /// Byte offset in the segment.
    pub offset: u64,
    /// Bytes written (0 for marks).
    pub len: u64,
    /// Lines written (0 for marks).
    pub lines: u32,
    /// CRC32C of the bytes (0 for marks).
    pub crc: u32,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
    /// Nanoseconds of the monotonic clock of the writing process.
    pub mono_ns: u64,
}

impl Header {
    /// A whole trail: this header and these records.
    #[must_use]
    pub fn encode_whole<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Vec<u8> {
        let mut bytes = self.encode().to_vec();
        records.for_each(|r| r.append_to(&mut bytes));
        bytes
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0..8].copy_from_slice(MAGIC);
        b[8..24].copy_from_slice(&self.boot);
        b[24..40].copy_from_slice(&self.node);
        b[40..48].copy_from_slice(&self.mount.to_le_bytes());
        b[48..50].copy_from_slice(&self.id.shard.to_le_bytes());
        b[52..60].copy_from_slice(&self.id.sequence.to_le_bytes());
        b[60..68].copy_from_slice(&self.previous.to_le_bytes());
        b[68..76].copy_from_slice(&self.wall_ns.to_le_bytes());
        let crc = crate::log::checksum::crc32c(&b[..76]);
        b[76..80].copy_from_slice(&crc.to_le_bytes());
        b
    }

    fn decode(b: &[u8]) -> Option<Header> {
        if b.len() < HEADER_LEN || &b[0..8] != MAGIC || u32_at(b, 76) != crate::log::checksum::crc32c(&b[..76]) {
            return None;
        }
        Some(Header {
            boot: b[8..24].try_into().ok()?,
            node: b[24..40].try_into().ok()?,
            mount: u64_at(b, 40),
            id: SegmentId { shard: u16::from_le_bytes([b[48], b[49]]), sequence: u64_at(b, 52) },
            previous: u64_at(b, 60),
            wall_ns: u64_at(b, 68),
        })
    }
}

impl Record {
    /// Adds the record's bytes to `bytes`.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.encode());
    }

    /// Byte behind the last one that was written.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// True if it says what was written.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.what, What::Write | What::Synced)
    }

    /// Everything before this offset was synced, as far as this record says.
    #[must_use]
    pub fn synced_to(&self) -> u64 {
        match self.what {
            What::Sync => self.offset,
            What::Synced => self.end(),
            _ => 0,
        }
    }

    fn encode(&self) -> [u8; RECORD_LEN] {
        let mut b = [0; RECORD_LEN];
        b[0] = match self.what {
            What::Write => 1,
            What::Sync => 2,
            What::Suspect => 3,
            What::End => 4,
            What::Foreign => 5,
            What::Synced => 6,
            What::Logged => 7,
        };
        b[4..8].copy_from_slice(&self.lines.to_le_bytes());
        b[8..16].copy_from_slice(&self.offset.to_le_bytes());
        b[16..24].copy_from_slice(&self.len.to_le_bytes());
        b[24..28].copy_from_slice(&self.crc.to_le_bytes());
        b[28..36].copy_from_slice(&self.wall_ns.to_le_bytes());
        b[36..44].copy_from_slice(&self.mono_ns.to_le_bytes());
        let crc = crate::log::checksum::crc32c(&b[..44]);
        b[44..48].copy_from_slice(&crc.to_le_bytes());
        b
    }

    fn decode(b: &[u8]) -> Option<Record> {
        if b.len() < RECORD_LEN || u32_at(b, 44) != crate::log::checksum::crc32c(&b[..44]) {
            return None;
        }
        let what = match b[0] {
            1 => What::Write,
            2 => What::Sync,
            3 => What::Suspect,
            4 => What::End,
            5 => What::Foreign,
            6 => What::Synced,
            7 => What::Logged,
            _ => return None,
        };
        Some(Record {
            what,
            lines: u32_at(b, 4),
            offset: u64_at(b, 8),
            len: u64_at(b, 16),
            crc: u32_at(b, 24),
            wall_ns: u64_at(b, 28),
            mono_ns: u64_at(b, 36),
        })
    }
}

pub(super) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| b[at + i]))
}

pub(super) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| b[at + i]))
}

/// A trail as read back: header and records up to the first that is not whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trail {
    /// `None`: missing, empty or cut inside the header.
    pub header: Option<Header>,
    /// In the order written.
    pub records: Vec<Record>,
}

impl Trail {
    /// Takes apart what a trail file holds; never fails, it only stops early.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Trail {
        let Some(header) = Header::decode(bytes) else { return Trail::default() };
        let records = bytes[HEADER_LEN..].chunks_exact(RECORD_LEN).map_while(Record::decode).collect();
        Trail { header: Some(header), records }
    }

    /// True if the mark of the end stands behind something that cannot be read: the trail was whole once, and has changed since.
    #[must_use]
    pub fn was_changed(bytes: &[u8]) -> bool {
        let trail = Trail::parse(bytes);
        let records = bytes.get(HEADER_LEN..).unwrap_or_default().chunks_exact(RECORD_LEN);
        let unread = records.skip(trail.records.len()).filter_map(Record::decode);
        (trail.header.is_none() || trail.end().is_none()) && unread.into_iter().any(|r| r.what == What::End)
    }

    /// Reads a whole trail into memory, for those who know that it is small.
    ///
    /// # Errors
    /// Reading failed.
    pub fn read(file: &dyn DiskFile) -> io::Result<Trail> {
        let mut trail = Trail { header: header(&OfDisk(file))?, records: Vec::new() };
        let (content, is_there) = (OfDisk(file), trail.header.is_some());
        let mut records = Records::of(&content);
        while is_there && let Some(record) = records.read()? {
            trail.records.push(record);
        }
        Ok(trail)
    }

    /// Where the finished segment ends; `None`: it is not finished, or the mark had no room.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.records.iter().find(|r| r.what == What::End).map(|r| r.offset)
    }

    /// Everything before this offset was synced, as far as the trail knows.
    #[must_use]
    pub fn synced_to(&self) -> u64 {
        self.records.iter().map(Record::synced_to).max().unwrap_or(0)
    }
}

/// Reads the header of a trail; `None`: empty or cut inside it.
///
/// # Errors
/// Reading failed.
pub fn header(file: &dyn Content) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER_LEN];
    let n = read_full(file, &mut bytes, 0)?;
    Ok(Header::decode(&bytes[..n]))
}

/// The records of a trail, one after the other, up to the first that is not whole.
pub struct Records<'a> {
    file: &'a dyn Content,
    /// Where the next read begins.
    at: u64,
    buffer: Vec<u8>,
    /// What of the buffer was not taken yet.
    taken: usize,
    /// Take what is whole behind what is not.
    skips: bool,
}

impl<'a> Records<'a> {
    /// From the first.
    #[must_use]
    pub fn of(file: &'a dyn Content) -> Records<'a> {
        Records { file, at: HEADER_LEN as u64, buffer: Vec::new(), taken: 0, skips: false }
    }

    /// From where another reader has stopped, or from the first (0).
    #[must_use]
    pub fn from(file: &'a dyn Content, position: u64) -> Records<'a> {
        Records { at: position.max(HEADER_LEN as u64), ..Records::of(file) }
    }

    /// Where the next record begins: a file that grows can be read on from there.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at.saturating_sub((self.buffer.len() - self.taken) as u64)
    }

    /// The next one.
    ///
    /// # Errors
    /// Reading failed.
    pub fn read(&mut self) -> io::Result<Option<Record>> {
        loop {
            if self.buffer.len() - self.taken < RECORD_LEN {
                self.buffer.resize(READ, 0);
                let n = read_full(self.file, &mut self.buffer, self.at)?;
                self.buffer.truncate(n / RECORD_LEN * RECORD_LEN);
                (self.at, self.taken) = (self.at.saturating_add(self.buffer.len() as u64), 0);
                if self.buffer.is_empty() {
                    return Ok(None);
                }
            }
            let record = Record::decode(&self.buffer[self.taken..]);
            if record.is_some() || self.skips {
                self.taken += RECORD_LEN;
            }
            if record.is_some() || !self.skips {
                return Ok(record);
            }
        }
    }
}

/// What a whole trail says, in one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// `None`: missing, empty or cut inside the header. Then there are no records.
    pub header: Option<Header>,
    /// Everything before this offset was synced, as far as the trail knows.
    pub synced_to: u64,
    /// Where the finished segment ends; `None`: it is not finished, or the mark had no room.
    pub end: Option<u64>,
    /// A write or sync failed.
    pub is_suspect: bool,
    /// From where on the segment is not ours.
    pub foreign: Option<u64>,
    /// The mark of the end stands behind something that cannot be read: the trail was whole once, and has changed since.
    pub was_changed: bool,
}

impl Summary {
    /// Reads all of it.
    ///
    /// # Errors
    /// Reading failed.
    pub fn read(file: &dyn Content) -> io::Result<Summary> {
        let mut summary = Summary { header: header(file)?, ..Summary::default() };
        let mut records = Records::of(file);
        while summary.header.is_some()
            && let Some(record) = records.read()?
        {
            summary.synced_to = summary.synced_to.max(record.synced_to());
            match record.what {
                What::End => drop(summary.end.get_or_insert(record.offset)),
                What::Foreign => drop(summary.foreign.get_or_insert(record.offset)),
                What::Suspect => summary.is_suspect = true,
                What::Write | What::Sync | What::Synced | What::Logged => {}
            }
        }
        records.skips = true;
        while summary.end.is_none()
            && !summary.was_changed
            && let Some(record) = records.read()?
        {
            summary.was_changed = record.what == What::End;
        }
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            boot: [7; 16],
            node: [9; 16],
            mount: 3,
            id: SegmentId { shard: 2, sequence: 5 },
            previous: 4,
            wall_ns: 1,
        }
    }

    struct Bytes(Vec<u8>);

    impl Content for Bytes {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            let from = self.0.get(offset as usize..).unwrap_or_default();
            let n = from.len().min(into.len());
            into[..n].copy_from_slice(&from[..n]);
            Ok(n)
        }
    }

    fn record(offset: u64, what: What) -> Record {
        Record { what, offset, len: 10, lines: 2, crc: 77, wall_ns: 5, mono_ns: 6 }
    }

    #[test]
    fn a_trail_comes_back_as_written() {
        let mut bytes = header().encode().to_vec();
        let records = [record(0, What::Write), record(10, What::Sync), record(10, What::Suspect)];
        records.iter().for_each(|r| bytes.extend_from_slice(&r.encode()));
        let trail = Trail::parse(&bytes);
        assert_eq!(trail.header, Some(header()));
        assert_eq!(trail.records, records);
        assert_eq!(trail.synced_to(), 10);
    }

    proptest! {
        #[test]
        fn a_cut_trail_is_a_prefix(cut in 0usize..(HEADER_LEN + 4 * RECORD_LEN)) {
            let mut bytes = header().encode().to_vec();
            (0..4).for_each(|i| bytes.extend_from_slice(&record(i, What::Write).encode()));
            let trail = Trail::parse(&bytes[..cut]);
            prop_assert_eq!(trail.records.len(), cut.saturating_sub(HEADER_LEN) / RECORD_LEN);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (Trail::parse(&bytes), Summary::read(&Bytes(bytes.clone())).unwrap());
        }

        /// Reading as a stream says the same as having all of it in memory.
        #[test]
        fn a_stream_of_records_is_the_same_as_all_at_once(
            kinds in proptest::collection::vec(0u8..6, 0..4000), bad in proptest::option::of(0usize..4000)
        ) {
            let mut bytes = header().encode().to_vec();
            for (i, kind) in kinds.iter().enumerate() {
                let what = [What::Write, What::Sync, What::Suspect, What::End, What::Foreign, What::Synced][usize::from(*kind)];
                record(i as u64, what).append_to(&mut bytes);
            }
            if let Some(at) = bad.map(|at| HEADER_LEN + at * RECORD_LEN).filter(|at| *at < bytes.len()) {
                bytes[at + 5] ^= 1;
            }
            let (trail, changed, file) = (Trail::parse(&bytes), Trail::was_changed(&bytes), Bytes(bytes));
            let summary = Summary::read(&file).unwrap();
            prop_assert_eq!((summary.header, summary.synced_to, summary.end), (trail.header, trail.synced_to(), trail.end()));
            prop_assert_eq!(summary.was_changed, changed);
            let (mut records, mut all) = (Records::of(&file), Vec::new());
            while let Some(one) = records.read().unwrap() {
                all.push(one);
            }
            prop_assert_eq!(all, trail.records);
        }

        #[test]
        fn a_flipped_bit_ends_the_trail_there(at in HEADER_LEN..HEADER_LEN + 3 * RECORD_LEN, bit in 0u8..8) {
            let mut bytes = header().encode().to_vec();
            (0..3).for_each(|i| bytes.extend_from_slice(&record(i, What::Write).encode()));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Trail::parse(&bytes).records.len(), (at - HEADER_LEN) / RECORD_LEN);
        }
    }
}
