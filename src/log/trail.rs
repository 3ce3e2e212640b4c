//! The trail beside a segment: one small record per write and per sync, for recovery, `verify` and shipping.
//!
//! Layout, little endian: a header of [`HEADER_LEN`] bytes, then records of [`RECORD_LEN`] bytes, each closed by its own
//! CRC32C, so that a reader stops at the first one that a crash cut short. The trail is flushed off the
//! acknowledgement path; what it lacks after a crash only makes recovery more careful, never wrong.

use super::disk::{DiskFile, append_all, read_full};
use super::foreign;
use super::names::SegmentId;
use crate::clock::BootId;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of the header.
pub const HEADER_LEN: usize = 80;
/// Bytes of a record.
pub const RECORD_LEN: usize = 48;
const MAGIC: &[u8; 8] = b"LWTRAIL1";
/// Records kept in memory before they are flushed: 16 KiB.
const PENDING_LIMIT: usize = 341 * RECORD_LEN;
/// Records kept while the disk is full: 1 MiB, then the trail is given up.
const PENDING_MOST: usize = 1 << 20;

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
        let crc = crate::checksum::crc32c(&b[..76]);
        b[76..80].copy_from_slice(&crc.to_le_bytes());
        b
    }

    fn decode(b: &[u8]) -> Option<Header> {
        if b.len() < HEADER_LEN || &b[0..8] != MAGIC || u32_at(b, 76) != crate::checksum::crc32c(&b[..76]) {
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

    fn encode(&self) -> [u8; RECORD_LEN] {
        let mut b = [0; RECORD_LEN];
        b[0] = match self.what {
            What::Write => 1,
            What::Sync => 2,
            What::Suspect => 3,
            What::End => 4,
            What::Foreign => 5,
        };
        b[4..8].copy_from_slice(&self.lines.to_le_bytes());
        b[8..16].copy_from_slice(&self.offset.to_le_bytes());
        b[16..24].copy_from_slice(&self.len.to_le_bytes());
        b[24..28].copy_from_slice(&self.crc.to_le_bytes());
        b[28..36].copy_from_slice(&self.wall_ns.to_le_bytes());
        b[36..44].copy_from_slice(&self.mono_ns.to_le_bytes());
        let crc = crate::checksum::crc32c(&b[..44]);
        b[44..48].copy_from_slice(&crc.to_le_bytes());
        b
    }

    fn decode(b: &[u8]) -> Option<Record> {
        if b.len() < RECORD_LEN || u32_at(b, 44) != crate::checksum::crc32c(&b[..44]) {
            return None;
        }
        let what = match b[0] {
            1 => What::Write,
            2 => What::Sync,
            3 => What::Suspect,
            4 => What::End,
            5 => What::Foreign,
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

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| b[at + i]))
}

fn u32_at(b: &[u8], at: usize) -> u32 {
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

    /// Reads a trail from an open file.
    ///
    /// # Errors
    /// What reading answers.
    pub fn read(file: &dyn DiskFile) -> io::Result<Trail> {
        let mut bytes = vec![0; file.len()? as usize];
        let n = read_full(file, &mut bytes, 0)?;
        Ok(Trail::parse(&bytes[..n]))
    }

    /// Where the finished segment ends; `None`: it is not finished, or the mark had no room.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.records.iter().find(|r| r.what == What::End).map(|r| r.offset)
    }

    /// Everything before this offset was synced, as far as the trail knows.
    #[must_use]
    pub fn synced_to(&self) -> u64 {
        self.records.iter().filter(|r| r.what == What::Sync).map(|r| r.offset).max().unwrap_or(0)
    }
}

/// Writes a trail: keeps records in a small buffer and appends them when asked or when it is full.
pub struct TrailWriter {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    pending: Vec<u8>,
    flushed: u64,
    broken: bool,
    /// Somebody else has changed it.
    foreign: bool,
}

impl TrailWriter {
    /// A writer for the new, empty file of that name.
    #[must_use]
    pub fn new(file: Arc<dyn DiskFile>, path: PathBuf) -> Self {
        TrailWriter {
            file,
            path,
            pending: Vec::with_capacity(PENDING_LIMIT),
            flushed: 0,
            broken: false,
            foreign: false,
        }
    }

    /// True once somebody else has changed or deleted the file: what is written to it is read by nobody.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// The header; must be the first thing written.
    pub fn begin(&mut self, header: &Header) {
        self.pending.extend_from_slice(&header.encode());
    }

    /// Adds a record; flushes by itself when the buffer is full.
    pub fn push(&mut self, record: &Record) {
        if self.pending.len() + RECORD_LEN > PENDING_LIMIT
            && let Err(error) = self.flush()
        {
            // Without room the records wait. A trail that is given up makes recovery treat the rest as past its end.
            self.broken |= !super::is_full(&error) || self.pending.len() >= PENDING_MOST;
        }
        if !self.broken {
            self.pending.extend_from_slice(&record.encode());
        }
    }

    /// Hands the buffered records to the kernel.
    ///
    /// # Errors
    /// The append failed; the file is cut back to whole records and the records stay buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the trail had been given up"));
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.file.is_at(&self.path)? || foreign::length(&*self.file, self.flushed)?.is_some() {
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
            let _ = Trail::parse(&bytes);
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
