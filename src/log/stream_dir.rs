//! One shard's part of the directory of a stream: makes segments, seals them, and keeps `current-SHARD`.

use super::disk::{Disk, DiskFile, read_file, replace_file};
use super::foreign::{self, Foreign};
use super::names::{Kind, SegmentId, current_link};
use super::segment::{SealedParts, Segment};
use super::trail::Header;
use super::{Context, LogError};
use crate::host::clock::Clock;
use crate::host::mutants::mutant;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The files of one stream that one shard writes.
pub struct StreamDir {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    state: PathBuf,
    /// A second file that notes the highest sequence.
    second_state: Option<PathBuf>,
    node: [u8; 16],
    shard: u16,
    /// Highest sequence that is durable in the state file; the next segment gets the one after it.
    highest: AtomicU64,
    /// Sequence of the segment that was begun last; 0: none yet. Goes into the next one's trail.
    begun: AtomicU64,
    reserve_step: AtomicU64,
    /// Number of the file that `current` is a name of; 0: none that is known.
    pointed_at: AtomicU64,
}

impl StreamDir {
    /// Opens (makes) the directory and finds the highest sequence ever used.
    ///
    /// # Errors
    /// The directory cannot be made or read, or the state file holds no number.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        data_dir: &Path,
        node: [u8; 16],
        stream: &str,
        shard: u16,
        reserve_step: u64,
    ) -> Result<Self, LogError> {
        let dir = data_dir.join(stream);
        disk.create_dir_all(&dir).context("make directory", &dir)?;
        let states = data_dir.join(super::data_dir::STATE_DIR).join("sequence");
        disk.create_dir_all(&states).context("make directory", &states)?;
        let state = states.join(format!("{stream}.{shard}"));
        let known = known_sequence(&*disk, &state)?;
        let seen = disk
            .list(&dir)
            .context("list", &dir)?
            .iter()
            .filter_map(|name| SegmentId::parse(name))
            .filter(|(id, _)| id.shard == shard)
            .map(|(id, _)| id.sequence)
            .max()
            .unwrap_or(0);
        // Each of them may have been lost or put back by somebody: the highest wins, or a name would come back.
        let retired = super::retired::read(&*disk, data_dir, stream, shard)?.highest;
        if known < seen.max(retired) {
            tracing::warn!(
                stream,
                shard,
                known,
                seen,
                retired,
                "the note of the last sequence is behind what the files say: going on from the highest"
            );
        }
        let (highest, begun) = (AtomicU64::new(known.max(seen).max(retired)), AtomicU64::new(seen));
        let reserve_step = AtomicU64::new(reserve_step);
        let pointed_at = AtomicU64::new(0);
        Ok(StreamDir {
            disk,
            clock,
            dir,
            state,
            second_state: None,
            node,
            shard,
            highest,
            begun,
            reserve_step,
            pointed_at,
        })
    }

    /// Keeps the highest sequence beneath this directory too: one that stays where the stream's own may be in memory.
    ///
    /// # Errors
    /// As [`StreamDir::open`].
    pub fn with_state_in(mut self, data_dir: &Path) -> Result<Self, LogError> {
        let states = data_dir.join(super::data_dir::STATE_DIR).join("sequence");
        self.disk.create_dir_all(&states).context("make directory", &states)?;
        let name = self.state.file_name().unwrap_or_default();
        let second = states.join(name);
        self.highest.fetch_max(known_sequence(&*self.disk, &second)?, Ordering::Relaxed);
        self.second_state = Some(second);
        Ok(self)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Bytes free in its file system; 0 where that cannot be told.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.disk.free_bytes(&self.dir).unwrap_or(0)
    }

    /// Reserves so much ahead in the segments to come.
    pub fn set_reserve_step(&self, bytes: u64) {
        self.reserve_step.store(bytes, Ordering::Relaxed);
    }

    /// Makes the first segment, begins it and points `current` at it.
    ///
    /// # Errors
    /// As [`StreamDir::prepare`]; what was made is removed again.
    pub fn begin_first(&self) -> Result<Segment, LogError> {
        let mut active = self.prepare()?;
        self.begin(&mut active);
        match self.point_current(active.id) {
            Ok(()) => Ok(active),
            Err(error @ LogError::State { .. }) => {
                tracing::warn!(%error, "`current-SHARD` cannot be made, so `tail -F` cannot follow");
                Ok(active)
            }
            Err(error) => {
                let _ = self.discard(&active);
                Err(error)
            }
        }
    }

    /// Makes the next segment: its sequence is durable before the name is used, its room is reserved, and its directory
    /// entry is synced before the first line goes in.
    ///
    /// # Errors
    /// The step that failed; what was made is removed again.
    pub fn prepare(&self) -> Result<Segment, LogError> {
        let id = self.take_name()?;
        let (path, trail_path) = (self.file(id, Kind::Active), self.file(id, Kind::Trail));
        // A file of that name that is there already is somebody else's, and stays: the next try takes the next name.
        let file = self.disk.create_new(&path).context("create", &path)?;
        let trail = match self.disk.create_new(&trail_path).context("create", &trail_path) {
            Ok(trail) => trail,
            Err(error) => {
                let _ = self.disk.remove(&path);
                return Err(error);
            }
        };
        let made = self.make(id, &path, file, trail);
        if made.is_err() {
            let _ = self.disk.remove(&path);
            let _ = self.disk.remove(&trail_path);
        }
        made
    }

    /// The name of the next segment. No other gets it, whatever happens: its sequence is durable.
    pub(super) fn take_name(&self) -> Result<SegmentId, LogError> {
        self.disk.create_dir_all(&self.dir).context("make directory", &self.dir)?;
        let highest = self.highest.load(Ordering::Relaxed);
        let sequence = highest.checked_add(1).ok_or_else(|| LogError::State {
            path: self.state.clone(),
            expected: "a sequence that can go on",
            way_out: "no name is left in this stream and shard: use another stream",
        })?;
        if !mutant!("sequence_restarts") {
            for state in self.second_state.iter().chain([&self.state]) {
                // Somebody may have deleted it.
                let states = state.parent().unwrap_or(&self.dir);
                self.disk.create_dir_all(states).context("make directory", states)?;
                replace_file(&*self.disk, state, format!("{sequence}\n").as_bytes()).context("replace", state)?;
            }
        }
        self.highest.store(sequence, Ordering::Relaxed);
        Ok(SegmentId { shard: self.shard, sequence })
    }

    fn make(
        &self,
        id: SegmentId,
        path: &Path,
        file: Arc<dyn DiskFile>,
        trail: Arc<dyn DiskFile>,
    ) -> Result<Segment, LogError> {
        let mut segment = Segment::new(id, path.to_path_buf(), file, trail);
        segment
            .reserve(1, self.reserve_step.load(Ordering::Relaxed), || self.free_bytes())
            .context("reserve room for", path)?;
        if !mutant!("no_directory_sync") {
            self.disk.sync_dir(&self.dir).context("sync directory", &self.dir)?;
        }
        Ok(segment)
    }

    /// Writes the trail's header: from now on the segment is in use.
    pub fn begin(&self, segment: &mut Segment) {
        let header = self.header(segment.id);
        segment.trail().begin(&header);
        if let Err(error) = segment.trail().flush() {
            tracing::warn!(file = %segment.path.display(), %error, "the trail cannot be written yet");
        }
    }

    /// The header of the trail of a segment that is in use from now on.
    pub(super) fn header(&self, id: SegmentId) -> Header {
        Header {
            boot: self.clock.boot_id(),
            node: self.node,
            mount: self.disk.mount_id(&self.dir),
            id,
            previous: self.begun.swap(id.sequence, Ordering::Relaxed),
            wall_ns: self.clock.wall_ns(),
        }
    }

    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Renames the active file to its sealed name, without replacing, and makes that durable.
    ///
    /// # Errors
    /// The step that failed; the file then keeps its active name until the next start.
    pub fn seal(&self, parts: &SealedParts) -> Result<(), LogError> {
        let from = &parts.segment.path;
        if !parts.segment.file.is_at(from).context("look at", from)? {
            return Err(LogError::Foreign { path: from.clone(), what: Foreign::Gone });
        }
        let to = self.file(parts.segment.id, Kind::Sealed);
        self.disk.rename_new(from, &to).context("rename", from)?;
        self.disk.sync_dir(&self.dir).context("sync directory", &self.dir)
    }

    /// Makes `current-SHARD` a link to the active segment, by rename. It is a hard link, because GNU tail notices at once that a name
    /// belongs to another file, but looks at symlinks only now and then. Where the file system has no hard links it is a symlink.
    ///
    /// # Errors
    /// It cannot be made; nothing but `tail -F` depends on it.
    pub fn point_current(&self, id: SegmentId) -> Result<(), LogError> {
        let link = self.dir.join(current_link(self.shard));
        self.is_ours_to_point(&link)?;
        let temp = link.with_extension("tmp");
        let (target, active) = (id.file_name(Kind::Active), self.file(id, Kind::Active));
        let make = || match self.disk.link(&active, &temp) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists || e.kind() == io::ErrorKind::NotFound => Err(e),
            // As many reasons as file systems: no such links, too many of them, not allowed.
            Err(_) => self.disk.symlink(&target, &temp),
            Ok(()) => Ok(()),
        };
        match make() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&temp).context("remove", &temp)?;
                make()
            }
            other => other,
        }
        .context("link", &temp)?;
        self.disk.rename_over(&temp, &link).context("rename", &temp)?;
        if let Ok((names, number)) = self.disk.names_of(&link) {
            self.pointed_at.store(if names > 1 { number } else { 0 }, Ordering::Relaxed);
        }
        // Where both are names of one file, rename(2) does nothing.
        match self.disk.remove(&temp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).context("remove", &temp),
            _ => Ok(()),
        }
    }

    /// Removes the link, at an orderly end.
    pub fn drop_current(&self) {
        let link = self.dir.join(current_link(self.shard));
        if self.is_ours_to_point(&link).is_ok() {
            let _ = self.disk.remove(&link);
        }
    }

    /// Checks that `current-SHARD` is ours: a symlink, or one of several names of a segment. logrotate and other programs may have made a
    /// file of that name, and somebody may have written lines into it.
    fn is_ours_to_point(&self, link: &Path) -> Result<(), LogError> {
        match self.disk.link_target(link) {
            Ok(None) => match self.disk.names_of(link).context("look at", link)? {
                (names, number) if names > 1 || (number > 0 && number == self.pointed_at.load(Ordering::Relaxed)) => {
                    Ok(())
                }
                // What recovery leaves where the last run ended before its first line: it removes the empty segment, not this name of it.
                _ if self.disk.size_of(link).is_ok_and(|bytes| bytes == 0) => Ok(()),
                _ => Err(LogError::State {
                    path: link.to_path_buf(),
                    expected: "the segment that is being written",
                    way_out: "move it away",
                }),
            },
            Ok(Some(_)) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(LogError::Io { what: "look at", path: link.to_path_buf(), error }),
        }
    }

    /// Removes a segment that never held a line.
    ///
    /// # Errors
    /// The file cannot be removed, or somebody else has put something into it.
    pub fn discard(&self, segment: &Segment) -> Result<(), LogError> {
        let path = &segment.path;
        foreign::still_there(&*segment.file, path, 0)?;
        if let Some(what) = segment.touched().context("look at", path)? {
            return Err(LogError::Foreign { path: path.clone(), what });
        }
        self.disk.remove(&segment.path).context("remove", &segment.path)?;
        let trail = self.file(segment.id, Kind::Trail);
        self.disk.remove(&trail).context("remove", &trail)
    }

    pub(super) fn file(&self, id: SegmentId, kind: Kind) -> PathBuf {
        self.dir.join(id.file_name(kind))
    }
}

fn known_sequence(disk: &dyn Disk, state: &Path) -> Result<u64, LogError> {
    match read_file(disk, state) {
        Ok(bytes) => parse_number(&bytes)
            .ok_or_else(|| LogError::State {
                path: state.to_path_buf(),
                expected: "a sequence number",
                way_out: "delete it, and the highest number is found from the names of the files and what retention has noted",
            }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(LogError::Io { what: "read", path: state.to_path_buf(), error }),
    }
}

fn parse_number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;
    use crate::log::real_disk::RealDisk;

    #[test]
    fn a_name_never_comes_back_though_every_file_is_gone() {
        let data = tempfile::tempdir().unwrap();
        let open = || {
            let (disk, clock) = (Arc::new(RealDisk::new()), Arc::new(SystemClock::new()));
            StreamDir::open(disk, clock, data.path(), [1; 16], "s", 0, 0).unwrap()
        };
        for sequence in 1..4 {
            let dir = open();
            let segment = dir.prepare().unwrap();
            assert_eq!(segment.id.sequence, sequence);
            dir.discard(&segment).unwrap();
            assert_eq!(std::fs::read_dir(data.path().join("s")).unwrap().count(), 0);
        }
    }
}
