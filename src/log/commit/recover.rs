//! Brings what is in the commit logs and in no segment into segments, before the server is ready.
//!
//! It runs after the segments were recovered: what stayed of them is sealed, and the records of their trails that hold for it are trusted.
//! A part of a record is there if such a trail names it. Everything else is appended, in the order of the logs, to a new segment of its
//! stream, which gets its name only when it and its trail are whole. So an interrupted recovery leaves nothing that is shown, and
//! repeating it shows nothing twice: the trail of what it wrote names the same records.

use super::generation::Generation;
use super::record::{self, Part};
use super::scan::{self, Found};
use crate::host::clock::Clock;
use crate::host::mutants::mutant;
use crate::log::commit::Named;
use crate::log::content::OfDisk;
use crate::log::disk::{Disk, DiskFile};
use crate::log::import::Import;
use crate::log::names::{Kind, SegmentId, is_stream_name};
use crate::log::stream_dir::StreamDir;
use crate::log::trail::{Records, Summary, What};
use crate::log::{Context, LogError, data_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was brought into segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brought {
    /// New segments.
    pub segments: u64,
    /// Lines in them.
    pub lines: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Where things are.
pub struct Around<'a> {
    /// The disk.
    pub disk: &'a Arc<dyn Disk>,
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
    /// The data directory.
    pub data_dir: &'a Path,
    /// Where sealed segments go, if that is elsewhere.
    pub sealed_dir: Option<&'a Path>,
    /// The node.
    pub node: [u8; 16],
}

impl Around<'_> {
    /// One shard's part of the directory of a stream.
    ///
    /// # Errors
    /// As [`StreamDir::open`].
    pub fn stream_dir(&self, stream: &str, shard: u16, reserve_step: u64) -> Result<StreamDir, LogError> {
        let (disk, clock) = (Arc::clone(self.disk), Arc::clone(self.clock));
        let dir = StreamDir::open(disk, clock, self.data_dir, self.node, stream, shard, reserve_step)?;
        match self.sealed_dir {
            Some(sealed) => dir.with_state_in(sealed),
            None => Ok(dir),
        }
    }
}

/// A stream of a shard.
type Key = (String, u16);

/// Returns the number of the last generation, and what was brought. Nothing of that generation is needed any more.
///
/// # Errors
/// A log or a trail cannot be read, or a segment cannot be written: the logs stay as they are, for the next try.
pub fn recover(around: &Around<'_>) -> Result<(u64, Brought), LogError> {
    let disk = &**around.disk;
    let known = Generation::read(disk, around.data_dir)?;
    if let Some(generation) = known.as_ref().filter(|g| g.is_empty) {
        return Ok((generation.number, Brought::default()));
    }
    let logs = open_logs(disk, around.data_dir)?;
    let generation = match known {
        Some(generation) => generation,
        None => {
            let mut last = Generation::default();
            for (path, file) in &logs {
                last.number = last.number.max(scan::last_generation(&**file).context("read", path)?);
            }
            last
        }
    };
    let mut needed: Vec<(usize, Found)> = Vec::new();
    for (log, (path, file)) in logs.iter().enumerate() {
        needed.extend(scan::needed(&**file, generation.number).context("read", path)?.into_iter().map(|f| (log, f)));
    }
    // Of one log in sequence; of several as they came.
    needed.sort_by_key(|(_, found)| (found.head.mono_ns, found.head.sequence));
    let reactors = needed.iter().map(|(_, found)| found.head.reactor).collect();
    let mut replay =
        Replay { around, generation: &generation, reactors, there: BTreeMap::new(), open: BTreeMap::new() };
    for (log, found) in &needed {
        let (path, file) = &logs[*log];
        let bytes = scan::read(&**file, found).context("read", path)?;
        let parts = record::decode(&bytes).map_or(Vec::new(), |(_, parts)| parts);
        parts.iter().try_for_each(|part| replay.take(found, part))?;
    }
    let brought = replay.finish()?;
    Ok((generation.number, brought))
}

/// A log, with its path.
type OpenLog = (PathBuf, Arc<dyn DiskFile>);

/// The files of all logs, in the order of their numbers; also of reactors that are no longer there.
fn open_logs(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<OpenLog>, LogError> {
    let dir = data_dir.join(data_dir::STATE_DIR).join(super::DIR);
    let names = match disk.list(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context("list", &dir)?,
    };
    let mut numbers: Vec<u16> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let open = |number: u16| {
        let path = super::path(data_dir, number);
        let file = disk.open(&path).context("open", &path)?;
        Ok((path, file))
    };
    numbers.into_iter().map(open).collect()
}

struct Replay<'a> {
    around: &'a Around<'a>,
    generation: &'a Generation,
    /// Those that have logs with something in them.
    reactors: BTreeSet<u16>,
    /// Up to which record of each reactor everything of a stream is in segments.
    there: BTreeMap<Key, BTreeMap<u16, u64>>,
    /// The segments that are written.
    open: BTreeMap<Key, Import>,
}

impl Replay<'_> {
    fn take(&mut self, found: &Found, part: &Part<'_>) -> Result<(), LogError> {
        let head = &found.head;
        if !is_stream_name(part.stream) {
            let path = super::path(self.around.data_dir, head.reactor);
            let way_out = "move it away, and report this";
            return Err(LogError::State { path, expected: "names of streams", way_out });
        }
        let key = (part.stream.to_string(), head.shard);
        if !self.there.contains_key(&key) {
            let there = self.named(&key)?;
            self.there.insert(key.clone(), there);
        }
        let through = self.there.get(&key).and_then(|there| there.get(&head.reactor)).copied().unwrap_or(0);
        let is_there = if mutant!("replayed_though_there") {
            false
        } else if mutant!("not_replayed_though_missing") {
            head.sequence <= through + 1
        } else {
            head.sequence <= through
        };
        if is_there {
            return Ok(());
        }
        if !self.open.contains_key(&key) {
            let import = self.around.stream_dir(&key.0, key.1, 0)?.import()?;
            self.open.insert(key.clone(), import);
        }
        let Some(import) = self.open.get_mut(&key) else { return Ok(()) };
        import.append(part.bytes, u64::from(part.lines), head.wall_ns)?;
        let (generation, reactor, through) = (head.generation, head.reactor, head.sequence);
        import.name(Named { generation, reactor, through });
        Ok(())
    }

    /// What trusted trails of a stream name, by reactor. They say more from one segment to the next, so the newest that speaks of a
    /// reactor is enough.
    fn named(&self, key: &Key) -> Result<BTreeMap<u16, u64>, LogError> {
        let (stream, shard) = key;
        let disk = &**self.around.disk;
        let dirs = [Some(self.around.data_dir), self.around.sealed_dir];
        let dirs: Vec<PathBuf> = dirs.into_iter().flatten().map(|dir| dir.join(stream)).collect();
        let mut kinds: BTreeMap<SegmentId, Vec<(Kind, usize)>> = BTreeMap::new();
        for (place, dir) in dirs.iter().enumerate() {
            let names = match disk.list(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.context("list", dir)?,
            };
            let first = self.generation.first.get(key).copied().unwrap_or(0);
            let ids = names.iter().filter_map(|name| SegmentId::parse(name));
            for (id, kind) in ids.filter(|(id, _)| id.shard == *shard && id.sequence >= first) {
                kinds.entry(id).or_default().push((kind, place));
            }
        }
        let mut there: BTreeMap<u16, u64> = BTreeMap::new();
        for (id, kinds) in kinds.iter().rev() {
            let Some((_, place)) = kinds.iter().find(|(kind, _)| *kind == Kind::Trail) else { continue };
            let path = dirs[*place].join(id.file_name(Kind::Trail));
            let has = |wanted: Kind| {
                kinds.iter().find(|(kind, _)| *kind == wanted).map(|(_, place)| dirs[*place].join(id.file_name(wanted)))
            };
            let size = match (has(Kind::Sealed), has(Kind::Compressed)) {
                (Some(text), _) => Some(disk.size_of(&text).context("look at", &text)?),
                (None, Some(_)) => None,
                // What could not be recovered is not believed.
                (None, None) if has(Kind::Active).is_some() || has(Kind::Torn).is_some() => continue,
                (None, None) => {
                    // An interrupted recovery left it: it names what got no segment.
                    self.forget(&path)?;
                    continue;
                }
            };
            let before = there.clone();
            self.read_trail(&path, size, |reactor, through| {
                if !before.contains_key(&reactor) {
                    let known = there.entry(reactor).or_default();
                    *known = through.max(*known);
                }
            })?;
            if self.is_enough(&there) {
                break;
            }
        }
        Ok(there)
    }

    /// Nothing older can say more: each reactor's log is spoken of.
    fn is_enough(&self, there: &BTreeMap<u16, u64>) -> bool {
        self.reactors.iter().all(|reactor| there.contains_key(reactor))
    }

    fn read_trail(&self, path: &Path, size: Option<u64>, mut take: impl FnMut(u16, u64)) -> Result<(), LogError> {
        let file = self.around.disk.open(path).context("open", path)?;
        let content = OfDisk(&*file);
        let summary = Summary::read(&content).context("read", path)?;
        let end = size.or(summary.end).unwrap_or(0);
        let mut records = Records::of(&content);
        while summary.header.is_some()
            && let Some(record) = records.read().context("read", path)?
        {
            if record.what == What::Logged && record.wall_ns == self.generation.number && record.end() <= end {
                take(record.lines as u16, record.mono_ns);
            }
        }
        Ok(())
    }

    /// Removes a trail that has no segment, if it is of this generation.
    fn forget(&self, path: &Path) -> Result<(), LogError> {
        let mut is_ours = false;
        self.read_trail(path, Some(u64::MAX), |_, _| is_ours = true)?;
        if is_ours {
            self.around.disk.remove(path).context("remove", path)?;
        }
        Ok(())
    }

    /// Gives the new segments their names.
    fn finish(self) -> Result<Brought, LogError> {
        let mut brought = Brought::default();
        for ((stream, shard), import) in self.open {
            let (lines, bytes) = (import.lines(), import.bytes());
            let id = import.finish()?;
            tracing::info!(
                stream,
                shard,
                segment = id.sequence,
                lines,
                bytes,
                "brought from the commit log into a segment"
            );
            brought.segments += 1;
            brought.lines += lines;
            brought.bytes += bytes;
        }
        Ok(brought)
    }
}
