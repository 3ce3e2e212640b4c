//! One segment while it is written: its appends, its reserved room, and its trail.

use super::commit::Named;
use super::disk::{Caching, DiskFile};
use super::foreign::{self, Foreign};
use super::names::{Kind, SegmentId};
use super::trail::{Record, What};
use super::trail_writer::{SyncAhead, TrailWriter};
use super::{LogError, is_full};
use crate::host::mutants::mutant;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Appends at least this large go through `RWF_DONTCACHE` or `O_DIRECT` where that is on; smaller ones lose badly with them
/// (0.22 and 0.08 against 0.8 GB/s at 4 KiB, 2.9 and 1.9 against 2.4 at 256 KiB, measured on ext4 and Linux 6.18).
pub const LARGE_FROM_BYTES: u64 = 256 * 1024;

/// Unit in which recovery looks for holes: what a device writes whole or not at all. File systems write pages of 4 KiB, but a
/// device with sectors of 512 bytes may have some of a page's when the power goes.
pub const SECTOR: u64 = 512;

/// Bytes looked at at a time before they are written.
const PIECE: usize = 32 << 10;

/// An open segment.
pub struct Segment {
    /// Shard and sequence.
    pub id: SegmentId,
    /// Path while active, for messages.
    pub path: PathBuf,
    /// The file; shared with the thread that syncs and seals.
    pub file: Arc<dyn DiskFile>,
    /// Set by whoever sees a sync of the file fail: it must never be synced again.
    pub sync_failed: Arc<AtomicBool>,
    trail: TrailWriter,
    len: u64,
    lines: u64,
    reserved_to: u64,
    /// Up to here bytes of an append that failed may lie behind those that are counted; 0: there are none.
    rest_to: u64,
    can_reserve: bool,
    /// From where on a sync still has to come, and the checksum of what was written since.
    unsynced: (u64, u32),
    /// A batch that recovery could take for a hole was written since the trail was last synced.
    trail_must_sync: bool,
}

/// How appends behave; the same for all segments of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendOptions {
    /// How large appends treat the page cache; small ones always go through it.
    pub large: Caching,
    /// Bytes to reserve at a time; 0 reserves nothing.
    pub reserve_step: u64,
}

/// The moment of a write, read once per turn of the writer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stamp {
    /// Nanoseconds of the monotonic clock.
    pub mono_ns: u64,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room. Nothing of the batch is in the file; try again when there is room.
    #[error("no room: {0}")]
    Full(io::Error),
    /// The segment must not be used any more.
    #[error("{0}")]
    Failed(io::Error),
    /// Somebody else has changed the file: it must not be used any more. The batch goes into another.
    #[error("{0}")]
    Foreign(Foreign),
}

impl Segment {
    /// Wraps a new, empty file and its new, empty trail.
    #[must_use]
    pub fn new(id: SegmentId, path: PathBuf, file: Arc<dyn DiskFile>, trail: Arc<dyn DiskFile>) -> Self {
        let trail_path = path.with_file_name(id.file_name(Kind::Trail));
        Segment {
            id,
            path,
            file,
            sync_failed: Arc::default(),
            trail: TrailWriter::new(trail, trail_path),
            len: 0,
            lines: 0,
            reserved_to: 0,
            rest_to: 0,
            can_reserve: true,
            unsynced: (0, 0),
            trail_must_sync: false,
        }
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True before the first write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lines written.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Bytes of its trail.
    #[must_use]
    pub fn trail_len(&self) -> u64 {
        self.trail.size()
    }

    /// When marks of its trail are to be flushed, in monotonic nanoseconds.
    #[must_use]
    pub fn flush_at(&self) -> Option<u64> {
        self.trail.flush_at()
    }

    /// The trail, for its header and for flushing.
    pub fn trail(&mut self) -> &mut TrailWriter {
        &mut self.trail
    }

    /// Makes sure that `need` more bytes have reserved room. Reserves `step` bytes, but never more than 1 % of `free()`
    /// beyond what is needed now.
    ///
    /// # Errors
    /// Only "no room"; a file system that cannot reserve is remembered and written to without.
    pub fn reserve(&mut self, need: u64, step: u64, free: impl FnOnce() -> u64) -> io::Result<()> {
        let end = self.len.saturating_add(need);
        if step == 0 || !self.can_reserve || end <= self.reserved_to {
            return Ok(());
        }
        let missing = end - self.reserved_to;
        let wanted = step.min(free() / 100).max(missing);
        let result = match self.file.reserve(self.reserved_to, wanted) {
            Err(e) if is_full(&e) && wanted > missing => self.file.reserve(self.reserved_to, missing).map(|()| missing),
            other => other.map(|()| wanted),
        };
        match result {
            Ok(got) => self.reserved_to += got,
            Err(e) if is_full(&e) => return Err(e),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {} // without the room this once
            Err(e) => {
                self.can_reserve = false;
                tracing::info!(file = %self.path.display(), error = %e, "cannot reserve room here; appending without a reserve");
            }
        }
        Ok(())
    }

    /// Appends whole lines: all of `slices` or, after an error, nothing.
    ///
    /// # Errors
    /// [`AppendError::Full`] leaves the segment usable, [`AppendError::Failed`] does not.
    pub fn append(
        &mut self,
        slices: &[IoSlice<'_>],
        lines: u64,
        options: AppendOptions,
        stamp: Stamp,
        named: &[Named],
        free: impl FnOnce() -> u64,
    ) -> Result<(), AppendError> {
        let bytes: u64 = slices.iter().map(|s| s.len() as u64).sum();
        if let Some(foreign) = self.touched().map_err(AppendError::Failed)? {
            return Err(AppendError::Foreign(foreign));
        }
        self.reserve(bytes, options.reserve_step, free).map_err(AppendError::Full)?;
        let (mut crc, mut at) = (0, self.len);
        // In pieces that stay in the cache between the two looks at them.
        for piece in slices.iter().flat_map(|slice| slice.chunks(PIECE)) {
            crc = crate::log::checksum::crc32c_append(crc, piece);
            self.trail_must_sync |= ends_sector_in_nul(piece, at);
            at += piece.len() as u64;
        }
        self.name_ahead(named, bytes, crc)?;
        let caching = if bytes >= LARGE_FROM_BYTES { options.large } else { Caching::Keep };
        self.rest_to = self.len + bytes;
        if let Err(error) = append_slices(&*self.file, slices, caching) {
            let half_stays = mutant!("half_a_batch_left_by_a_full_disk");
            let cut = if half_stays { Ok(None) } else { foreign::cut_back(&*self.file, self.len, slices) };
            self.reserved_to = self.len; // truncate(2) gave the reservation back
            if cut.is_ok() {
                self.rest_to = 0;
            }
            return Err(match cut {
                Ok(Some(foreign)) => AppendError::Foreign(foreign),
                Ok(None) if is_full(&error) => AppendError::Full(error),
                _ => AppendError::Failed(error),
            });
        }
        // Somebody may have appended between the look before and the write. Then the place of the batch is unknown.
        match foreign::length(&*self.file, self.len + bytes).map_err(AppendError::Failed)? {
            Some(Foreign::Longer { found, .. }) => {
                let foreign = Foreign::Longer { ours: self.len, found };
                return Err(AppendError::Foreign(self.unless_overwritten(foreign).map_err(AppendError::Failed)?));
            }
            Some(foreign) => return Err(AppendError::Foreign(foreign)),
            None => {}
        }
        let record = Record {
            what: What::Write,
            offset: self.len,
            len: bytes,
            lines: lines.min(u32::MAX.into()) as u32,
            crc,
            wall_ns: stamp.wall_ns,
            mono_ns: stamp.mono_ns,
        };
        self.trail.push(&record);
        self.rest_to = 0;
        self.len += bytes;
        self.lines += lines;
        self.unsynced.1 = crate::log::checksum::crc32c_joined(self.unsynced.1, crc, bytes);
        Ok(())
    }

    /// Notes what of the commit logs the next bytes contain. The kernel has that before it has them: so whatever is in the file after a
    /// kill, recovery knows.
    fn name_ahead(&mut self, named: &[Named], len: u64, crc: u32) -> Result<(), AppendError> {
        if named.is_empty() || mutant!("trail_names_nothing") {
            return Ok(());
        }
        let records: Vec<Record> = named.iter().map(|named| named.record(self.len, len, crc)).collect();
        self.trail.name(&records).map_err(|error| match error {
            error if is_full(&error) => AppendError::Full(error),
            _ if self.trail.is_foreign() => AppendError::Foreign(Foreign::Trail),
            error => AppendError::Failed(error),
        })
    }

    /// What somebody else has done to the file or its trail, if anything.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn touched(&self) -> io::Result<Option<Foreign>> {
        match foreign::length(&*self.file, self.len)? {
            None if self.trail.is_foreign() => Ok(Some(Foreign::Trail)),
            // This is the rest of our own failed append, which could not be cut back or looked at.
            Some(Foreign::Longer { found, .. }) if found <= self.rest_to => Ok(None),
            Some(longer @ Foreign::Longer { .. }) => self.unless_overwritten(longer).map(Some),
            other => Ok(other),
        }
    }

    /// A program that copies another file over ours may make it longer too. So bytes that were not synced yet are compared with their
    /// checksum; if they have changed, they must not be acknowledged.
    fn unless_overwritten(&self, longer: Foreign) -> io::Result<Foreign> {
        let (from, crc) = self.unsynced;
        Ok(if foreign::checksum(&*self.file, from, self.len)? == crc { longer } else { Foreign::Overwritten })
    }

    /// The sync of its trail that must go before its own, if there is any. There is none where somebody else has changed the trail: what
    /// recovery makes of that is theirs.
    ///
    /// # Errors
    /// The trail has no room, or cannot be written: nothing may be acknowledged then.
    pub fn sync_ahead(&mut self) -> Result<Option<SyncAhead>, LogError> {
        match self.trail.sync_ahead() {
            Err(_) if self.trail.is_foreign() => Ok(None),
            Err(error) => Err(LogError::Io { what: "write trail of", path: self.path.clone(), error }),
            Ok(ahead) => Ok(ahead),
        }
    }

    /// Syncs the trail if that is needed before an acknowledgement: recovery can tell a line that looks like a hole from a real hole
    /// only by its record.
    ///
    /// # Errors
    /// The trail cannot be written or synced; nothing may be acknowledged then.
    pub fn secure_trail(&mut self, durable: bool) -> io::Result<()> {
        if !self.trail_must_sync || mutant!("trail_not_synced") {
            return Ok(());
        }
        if durable {
            self.trail.sync()?;
            self.trail_must_sync = false;
            Ok(())
        } else {
            self.trail.flush()
        }
    }

    /// Notes in the trail that everything before `offset` was synced.
    pub fn note_synced(&mut self, offset: u64, stamp: Stamp) {
        if offset == self.len {
            self.unsynced = (offset, 0);
        }
        self.note(What::Sync, offset, stamp);
    }

    /// Notes in the trail that bytes from `offset` on cannot be trusted.
    pub fn note_suspect(&mut self, offset: u64, stamp: Stamp) {
        self.note(What::Suspect, offset, stamp);
    }

    /// Notes in the trail that what stands from `offset` on is not ours.
    fn note_foreign(&mut self, offset: u64, stamp: Stamp) {
        self.note(What::Foreign, offset, stamp);
    }

    fn note(&mut self, what: What, offset: u64, stamp: Stamp) {
        let Stamp { mono_ns, wall_ns } = stamp;
        self.trail.push(&Record { what, offset, len: 0, lines: 0, crc: 0, wall_ns, mono_ns });
    }
}

/// Appends every byte of `slices`, in as many calls as the kernel wants.
fn append_slices(file: &dyn DiskFile, slices: &[IoSlice<'_>], caching: Caching) -> io::Result<()> {
    let mut slices = slices.to_vec();
    let mut slices = &mut slices[..];
    IoSlice::advance_slices(&mut slices, 0); // skips leading empty slices
    let mut tries_again = 3;
    while !slices.is_empty() {
        match file.append(slices, caching) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) if mutant!("short_write_taken_for_whole") => return Ok(()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && tries_again > 0 => tries_again -= 1,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// True if, in these bytes, a sector of the file ends in a NUL: recovery could take such a line for a hole, which reaches to the
/// end of its sector (see [`super::recover`]). Most such lines are no holes; a needless yes costs one sync.
fn ends_sector_in_nul(bytes: &[u8], offset: u64) -> bool {
    let first = (SECTOR - 1 - offset % SECTOR) as usize;
    bytes.iter().skip(first).step_by(SECTOR as usize).any(|b| *b == 0)
}

/// What sealing works on, once the writer is done with a segment.
pub struct SealedParts {
    /// The segment, for its trail and its length.
    pub segment: Segment,
    /// A sync or write failed: the file must not be synced again. It keeps its active name and a mark in its trail.
    pub suspect: bool,
    /// What somebody else has done to the file: said and counted, marked in its trail.
    pub foreign: Option<Foreign>,
}

impl SealedParts {
    /// Syncs. Everything in the file is durable after it; where the answer is false only once it has its sealed name, since its
    /// trail has no room and recovery could take some of it for holes.
    ///
    /// # Errors
    /// The step that failed. After a failed sync the segment is suspect; also where somebody else has taken lines away.
    pub fn make_durable(&mut self, stamp: Stamp) -> Result<bool, LogError> {
        use super::Context;
        let segment = &mut self.segment;
        let path = segment.path.clone();
        if segment.sync_failed.load(Ordering::SeqCst) {
            let error = io::Error::other("an earlier sync of it failed");
            return Err(LogError::Io { what: "sync", path, error });
        }
        let is_spoken_of = match segment.sync_ahead() {
            Ok(ahead) => ahead.map_or(Ok(()), |ahead| ahead.sync()).context("sync trail of", &path).map(|()| true)?,
            Err(error) if error.is_full() => false,
            Err(error) => return Err(error),
        };
        segment.file.sync_data().context("sync", &path)?;
        if !segment.file.is_at(&path).context("look at", &path)? {
            return Err(LogError::Foreign { path, what: Foreign::Gone });
        }
        match segment.touched().context("look at", &path)? {
            Some(what) if !what.left_ours_alone() => return Err(LogError::Foreign { path, what }),
            other => self.foreign = other,
        }
        let is_secure = match segment.secure_trail(true) {
            Err(error) if !is_full(&error) => return Err(LogError::Io { what: "sync trail of", path, error }),
            other => other.is_ok() && is_spoken_of,
        };
        segment.note_synced(segment.len, stamp);
        Ok(is_secure)
    }

    /// Marks the segment as suspect, in its trail too: that is another file, and its mark should survive.
    pub fn give_up(&mut self, stamp: Stamp) {
        self.suspect = true;
        self.segment.note_suspect(self.segment.len, stamp);
        if let Err(error) = self.segment.trail.sync() {
            tracing::warn!(file = %self.segment.path.display(), %error, "the trail of a failed segment is incomplete");
        }
    }

    /// Gives back what was reserved and not used, and makes that and the trail durable. Not needed for the lines. What
    /// somebody else has appended stays.
    ///
    /// # Errors
    /// The step that failed.
    pub fn tidy(&mut self, stamp: Stamp) -> Result<(), LogError> {
        use super::Context;
        let segment = &mut self.segment;
        let path = segment.path.clone();
        let len = match segment.touched().context("look at", &path)? {
            None => segment.len,
            Some(foreign) => {
                self.foreign = Some(foreign);
                segment.note_foreign(segment.len, stamp);
                segment.file.len().context("look at", &path)?
            }
        };
        segment.file.truncate(len).context("truncate", &path)?;
        segment.file.sync_all().context("sync", &path)?;
        segment.note(What::End, segment.len, stamp);
        if let Err(error) = segment.trail.sync() {
            tracing::warn!(file = %path.display(), %error, "the trail of this segment is incomplete");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(parts: &[&[u8]], offset: u64) -> bool {
        let mut at = offset;
        parts.iter().any(|part| {
            at += part.len() as u64;
            ends_sector_in_nul(part, at - part.len() as u64)
        })
    }

    #[test]
    fn lines_that_look_like_holes_are_seen_where_they_lie_in_the_file() {
        let mut line = vec![0u8; 8192];
        line.push(b'\n');
        assert!(found(&[&line], 0) && found(&[&line], 511) && found(&[b"x\n", &line], 100));
        assert!(!found(&[&[b'x'; 9000]], 0));
        assert!(found(&[b"x\n", &[0; 510]], 0), "a hole may begin anywhere");
        assert!(!found(&[b"x\n", &[0; 509], b"\n"], 0), "and reaches to the end of its sector");
        assert!(found(&[&[0; 300], &[0; 300]], 0));
        assert!(!found(&[&[0; 300], &[b'x'; 300]], 0));
    }
}
