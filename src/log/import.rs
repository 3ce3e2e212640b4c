//! A segment that is written whole, while nobody reads it: it has another name until it and its trail are durable.
//!
//! The trail gets its name first. A trail without a segment is nothing to readers; a segment without a trail would say nothing of what is
//! in it.

use super::checksum::crc32c_append;
use super::commit::Named;
use super::disk::{Disk, DiskFile, append_all, replace_file, temp_name};
use super::names::{Kind, SegmentId};
use super::stream_dir::StreamDir;
use super::trail::{Header, Record, What};
use super::{Context, LogError};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes gathered before they are written.
const GATHER: usize = 64 << 10;
/// Bytes that one record of the trail speaks of at most.
const SPAN: u64 = 1 << 20;

/// See the module documentation.
pub struct Import {
    disk: Arc<dyn Disk>,
    id: SegmentId,
    header: Header,
    /// Its name in the end.
    path: PathBuf,
    trail: PathBuf,
    temp: PathBuf,
    file: Arc<dyn DiskFile>,
    gathered: Vec<u8>,
    /// What was written, in the records of the trail.
    records: Vec<Record>,
    named: Vec<Named>,
    bytes: u64,
    lines: u64,
    is_finished: bool,
}

impl StreamDir {
    /// Begins a segment that is written whole.
    ///
    /// # Errors
    /// As [`StreamDir::prepare`].
    pub fn import(&self) -> Result<Import, LogError> {
        let id = self.take_name()?;
        let path = self.file(id, Kind::Sealed);
        let temp = temp_name(&path);
        let disk = Arc::clone(self.disk());
        let file = disk.create_new(&temp).context("create", &temp)?;
        Ok(Import {
            disk,
            id,
            header: self.header(id),
            trail: self.file(id, Kind::Trail),
            path,
            temp,
            file,
            gathered: Vec::new(),
            records: Vec::new(),
            named: Vec::new(),
            bytes: 0,
            lines: 0,
            is_finished: false,
        })
    }
}

impl Import {
    /// Adds whole lines that were received at this time.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&mut self, bytes: &[u8], lines: u64, wall_ns: u64) -> Result<(), LogError> {
        let (offset, len) = (self.bytes, bytes.len() as u64);
        let more = u32::try_from(lines).unwrap_or(u32::MAX);
        match self.records.last_mut() {
            Some(last) if last.len + len <= SPAN => {
                last.crc = crc32c_append(last.crc, bytes);
                (last.len, last.lines, last.wall_ns) = (last.len + len, last.lines.saturating_add(more), wall_ns);
            }
            _ => {
                let crc = crc32c_append(0, bytes);
                self.records.push(Record { what: What::Write, offset, len, lines: more, crc, wall_ns, mono_ns: 0 });
            }
        }
        self.bytes += len;
        self.lines += lines;
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHER { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), LogError> {
        append_all(&*self.file, &self.gathered).context("write", &self.temp)?;
        self.gathered.clear();
        Ok(())
    }

    /// Notes what of a commit log it contains.
    pub fn name(&mut self, named: Named) {
        match self.named.iter_mut().find(|n| n.reactor == named.reactor) {
            Some(before) => *before = named,
            None => self.named.push(named),
        }
    }

    /// Lines in it.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Bytes in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it durable, and gives it its name.
    ///
    /// # Errors
    /// The step that failed; then there is no such segment.
    pub fn finish(mut self) -> Result<SegmentId, LogError> {
        self.write()?;
        self.file.sync_all().context("sync", &self.temp)?;
        let name = |named: &Named| named.record(0, self.bytes, 0);
        let mark = Record {
            what: What::Sync,
            offset: self.bytes,
            len: 0,
            lines: 0,
            crc: 0,
            wall_ns: self.header.wall_ns,
            mono_ns: 0,
        };
        let mut records = self.records.clone();
        records.extend(self.named.iter().map(name));
        records.extend([mark, Record { what: What::End, ..mark }]);
        let trail = self.header.encode_whole(records.iter());
        replace_file(&*self.disk, &self.trail, &trail).context("write", &self.trail)?;
        self.disk.rename_new(&self.temp, &self.path).context("rename", &self.temp)?;
        self.is_finished = true;
        let dir = self.path.parent().unwrap_or(&self.path).to_path_buf();
        self.disk.sync_dir(&dir).context("sync directory", &dir)?;
        Ok(self.id)
    }
}

impl Drop for Import {
    /// One that was not finished leaves nothing behind: its room may be what the next try needs.
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.disk.remove(&self.temp);
        }
    }
}
