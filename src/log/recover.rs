//! Recovery: what happens to segments that a crash left active, before the server is ready.
//!
//! Same boot and same mount: the process died, so the page cache is whole, and every whole line stays (unless a record says
//! that a write-back has failed). Otherwise (power cut, kernel crash, unmount): up to the last sync mark everything must match
//! its checksum. What does not is damage, and stays as it is. After the mark, whole lines stay as far as records match, and
//! past the last record up to the first hole of NULs.
//!
//! The rest goes to `NAME.torn`. A segment whose sync failed is treated as after a power cut. Recovery can be repeated with the
//! same result, also when it was interrupted anywhere.

use super::content::{Content, OfDisk};
use super::disk::{Disk, DiskFile, append_all, read_full, replace_file, replace_file_by};
use super::foreign;
use super::names::{Kind, SegmentId};
use super::trail::{self, Header, Record, Records, Summary, What};
use super::whole_lines::{Past, whole_lines};
use super::{Context, LogError};
use crate::host::clock::{BootId, Clock};
use crate::host::mutants::mutant;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How often recovery looks again at a segment that others write to meanwhile.
const LOOKS: usize = 3;
/// Bytes read at a time.
const READ: usize = 1 << 20;

/// What recovery did with one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Which segment.
    pub id: SegmentId,
    /// Lines kept.
    pub lines: u64,
    /// Bytes kept.
    pub bytes: u64,
    /// Bytes moved to `.torn`.
    pub torn_bytes: u64,
    /// Why it counts as damaged; `None`: it is not.
    pub damage: Option<String>,
}

/// Recovers every active segment in a stream's directory, in order, and seals it.
///
/// # Errors
/// Reading or renaming failed, or there is damage and `strict` is set.
pub fn recover_dir(disk: &dyn Disk, clock: &dyn Clock, dir: &Path, strict: bool) -> Result<Vec<Recovered>, LogError> {
    let mut all = Vec::new();
    recover_each(disk, clock, dir, strict, |one| all.push(one))?;
    Ok(all)
}

/// As [`recover_dir`], and tells of each segment when it is done: also of those before one that fails.
///
/// # Errors
/// As [`recover_dir`].
pub fn recover_each(
    disk: &dyn Disk,
    clock: &dyn Clock,
    dir: &Path,
    strict: bool,
    mut told: impl FnMut(Recovered),
) -> Result<(), LogError> {
    let mut active: Vec<SegmentId> = Vec::new();
    let names = match disk.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(()), // a file that somebody put there
        other => other.context("list", dir)?,
    };
    for name in names {
        match SegmentId::parse(&name) {
            Some((id, Kind::Active)) => active.push(id),
            None if is_our_temp(&name) => {
                let path = dir.join(&name);
                disk.remove(&path).context("remove", &path)?;
            }
            _ => {}
        }
    }
    active.sort();
    active.into_iter().try_for_each(|id| recover_quietly(disk, clock, dir, id, strict).map(&mut told))
}

/// Looks again at a segment that somebody else has changed meanwhile, and leaves it as it is where they go on.
fn recover_quietly(
    disk: &dyn Disk,
    clock: &dyn Clock,
    dir: &Path,
    id: SegmentId,
    strict: bool,
) -> Result<Recovered, LogError> {
    for _ in 0..LOOKS {
        match recover_segment(disk, clock, dir, id, strict) {
            Err(LogError::Foreign { .. }) => {}
            Err(error) if error.io().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied) => {
                return left_alone(dir, id, strict, error.to_string());
            }
            other => return other,
        }
    }
    left_alone(dir, id, strict, "somebody else writes to it".into())
}

/// Reports a file that cannot be worked on, and leaves it alone, so that the others can be served. It keeps its active name.
fn left_alone(dir: &Path, id: SegmentId, strict: bool, why: String) -> Result<Recovered, LogError> {
    let detail = format!("{why}; it stays as it is until a start can finish it");
    if strict {
        return Err(LogError::Damage { path: dir.join(id.file_name(Kind::Active)), detail });
    }
    Ok(Recovered { id, lines: 0, bytes: 0, torn_bytes: 0, damage: Some(detail) })
}

/// True for a file that a process left when it died: a replacement that was not renamed yet.
fn is_our_temp(name: &str) -> bool {
    let stem = name.strip_suffix(".tmp");
    stem.is_some_and(|s| SegmentId::parse(s).is_some() || s.starts_with("current-"))
}

fn recover_segment(
    disk: &dyn Disk,
    clock: &dyn Clock,
    dir: &Path,
    id: SegmentId,
    strict: bool,
) -> Result<Recovered, LogError> {
    let path = dir.join(id.file_name(Kind::Active));
    let trail_path = dir.join(id.file_name(Kind::Trail));
    let file = disk.open(&path).context("open", &path)?;
    let len = file.len().context("look at", &path)?;
    let trail = match disk.open(&trail_path) {
        Ok(file) => Trail::of(Some(file)).context("read", &trail_path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Trail::of(None).context("read", &trail_path)?,
        Err(error) => return Err(LogError::Io { what: "open", path: trail_path, error }),
    };
    let mount = disk.mount_id(dir);
    // After a failed sync the pages in the cache may be gone, or not be what the disk has.
    let suspect = trail.says.is_suspect;
    let cache_is_whole =
        !suspect && trail.says.header.is_some_and(|h| h.boot == clock.boot_id() && h.mount == mount && mount != 0);
    let mut keep = judge(&*file, len, &trail, cache_is_whole).context("read", &path)?;
    let sealed = dir.join(id.file_name(Kind::Sealed));
    // Somebody copied files about; neither is ours to throw away.
    let twice = disk.open(&sealed).is_ok();
    if twice {
        keep.damage = Some("it is there as sealed and as active; both stay as they are".into());
    }
    if let (true, Some(detail)) = (strict, &keep.damage) {
        return Err(LogError::Damage { path, detail: detail.clone() });
    }
    if twice {
        return Ok(Recovered { id, lines: keep.lines, bytes: keep.bytes, torn_bytes: 0, damage: keep.damage });
    }

    let unchanged = |file: &dyn DiskFile| match foreign::length(file, len).context("look at", &path)? {
        Some(what) => Err(LogError::Foreign { path: path.clone(), what }),
        None => Ok(()),
    };
    let torn = dir.join(id.file_name(Kind::Torn));
    if keep.bytes < len {
        copy_range(disk, &*file, keep.bytes, len, &torn).context("write", &torn)?;
    } else if keep.bytes == 0 && disk.open(&torn).is_err() && is_named_by_a_later_one(disk, dir, id)? {
        // Nothing of it is left, but it was there: or `verify` would take it for one that somebody has deleted.
        replace_file(disk, &torn, &[]).context("write", &torn)?;
    }
    unchanged(&*file)?;
    if keep.bytes == 0 && keep.damage.is_none() {
        disk.remove(&path).context("remove", &path)?;
        if trail.says.header.is_some() || disk.open(&trail_path).is_ok() {
            disk.remove(&trail_path).context("remove", &trail_path)?;
        }
    } else {
        let file = if suspect {
            // Its sync failed once, so a sync of it proves nothing any more: what stays becomes a new file of the same name.
            copy_range(disk, &*file, 0, keep.bytes, &path).context("write", &path)?;
            disk.open(&path).context("open", &path)?
        } else {
            // A sync of it may have failed without a mark in the trail, where the process died in between: the kernel takes
            // the pages for clean then. Written again, they are synced or known not to be.
            if !mutant!("failed_pages_taken_for_synced") {
                write_again(&*file, trail.says.synced_to.min(keep.bytes), keep.bytes).context("write", &path)?;
            }
            file
        };
        if !suspect {
            unchanged(&*file)?;
        }
        file.truncate(keep.bytes).context("truncate", &path)?;
        let synced = if mutant!("recovery_does_not_sync") { Ok(()) } else { file.sync_all() };
        if let Err(error) = synced {
            // The next try must not sync this file again.
            let _ = replace_file_by(disk, &trail_path, |to| with_suspect_mark(&trail, id, clock, to));
            return Err(LogError::Io { what: "sync", path, error });
        }
        replace_file_by(disk, &trail_path, |to| keep.trail_after(&trail, id, clock, to))
            .context("replace", &trail_path)?;
        disk.rename_new(&path, &sealed).context("rename", &path)?;
    }
    disk.sync_dir(dir).context("sync directory", dir)?;
    Ok(Recovered { id, lines: keep.lines, bytes: keep.bytes, torn_bytes: len - keep.bytes, damage: keep.damage })
}

/// True if the trail of a later segment says that this one came before it.
fn is_named_by_a_later_one(disk: &dyn Disk, dir: &Path, id: SegmentId) -> Result<bool, LogError> {
    let later = |(other, kind): &(SegmentId, Kind)| *kind == Kind::Trail && other.shard == id.shard && *other > id;
    for name in disk.list(dir).context("list", dir)? {
        if SegmentId::parse(&name).as_ref().is_none_or(|parsed| !later(parsed)) {
            continue;
        }
        let path = dir.join(name);
        let header = disk.open(&path).and_then(|file| trail::header(&OfDisk(&*file)));
        // One that cannot be read may name it: then an empty file too many is left, no more.
        if header.map_or(true, |header| header.is_some_and(|h| h.previous == id.sequence)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes again what was not synced, so that its pages are dirty and a sync means something.
fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; READ.min((to - from) as usize)];
    let mut at = from;
    while at < to {
        let want = buffer.len().min((to - at) as usize);
        let n = read_full(file, &mut buffer[..want], at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.rewrite(&buffer[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

/// A trail as it was found.
struct Trail {
    file: Option<Arc<dyn DiskFile>>,
    says: Summary,
}

impl Trail {
    fn of(file: Option<Arc<dyn DiskFile>>) -> io::Result<Trail> {
        let mut trail = Trail { file, says: Summary::default() };
        trail.says = Summary::read(&trail)?;
        Ok(trail)
    }

    /// Writes the trail anew: its first `records`, and `more`. It works in pieces, because a trail may be larger than the memory.
    fn copy(
        &self,
        to: &dyn DiskFile,
        header: &Header,
        records: u64,
        holds: impl Fn(&Record) -> bool,
        more: &[Record],
    ) -> io::Result<()> {
        let mut bytes = header.encode_whole(std::iter::empty());
        if self.says.header.is_some() {
            let mut all = Records::of(self);
            for _ in 0..records {
                let Some(record) = all.read()? else { break };
                if holds(&record) {
                    record.append_to(&mut bytes);
                }
                if bytes.len() >= READ {
                    append_all(to, &bytes)?;
                    bytes.clear();
                }
            }
        }
        more.iter().for_each(|record| record.append_to(&mut bytes));
        append_all(to, &bytes)
    }
}

impl Content for Trail {
    fn size(&self) -> io::Result<u64> {
        self.file.as_ref().map_or(Ok(0), |file| file.len())
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.as_ref().map_or(Ok(0), |file| file.read_at(into, offset))
    }
}

fn with_suspect_mark(trail: &Trail, id: SegmentId, clock: &dyn Clock, to: &dyn DiskFile) -> io::Result<()> {
    let (wall_ns, mono_ns) = (clock.wall_ns(), clock.mono_ns());
    let mark = Record { what: What::Suspect, offset: 0, len: 0, lines: 0, crc: 0, wall_ns, mono_ns };
    // Of no boot: whoever reads it must not take its marks for complete.
    let header = Header { boot: BootId::default(), ..trail.says.header.unwrap_or_else(|| unknown(id, clock)) };
    trail.copy(to, &header, u64::MAX, |_| true, &[mark])
}

/// The header of a trail that has lost its own.
fn unknown(id: SegmentId, clock: &dyn Clock) -> Header {
    Header { boot: BootId::default(), node: [0; 16], mount: 0, id, previous: 0, wall_ns: clock.wall_ns() }
}

/// How much of a segment stays.
struct Keep {
    bytes: u64,
    lines: u64,
    /// Records of the trail that hold for what stays.
    records: u64,
    /// The part past the last record: its start, lines and checksum.
    past: (u64, u64, u32),
    damage: Option<String>,
}

impl Keep {
    /// What was suspect has a file of its own now, and it ends elsewhere.
    fn holds(&self, record: &Record) -> bool {
        match record.what {
            What::Suspect | What::End => false,
            What::Logged => record.end() <= self.bytes,
            _ => true,
        }
    }

    /// Writes the trail as it should be from now on.
    fn trail_after(&self, trail: &Trail, id: SegmentId, clock: &dyn Clock, to: &dyn DiskFile) -> io::Result<()> {
        let header = trail.says.header.unwrap_or_else(|| unknown(id, clock));
        let (wall_ns, mono_ns) = (clock.wall_ns(), clock.mono_ns());
        let mut more = Vec::new();
        let (offset, lines, crc) = self.past;
        let len = self.bytes.saturating_sub(offset);
        if len > 0 {
            let lines = lines.min(u32::MAX.into()) as u32;
            more.push(Record { what: What::Write, offset, len, lines, crc, wall_ns, mono_ns });
        }
        // What was synced and is gone stays said: `verify` finds it short for ever.
        let offset = self.bytes.max(trail.says.synced_to);
        let mark = Record { what: What::Sync, offset, len: 0, lines: 0, crc: 0, wall_ns, mono_ns };
        more.extend([mark, Record { what: What::End, ..mark }]);
        trail.copy(to, &header, self.records, |r| self.holds(r), &more)
    }
}

fn judge(file: &dyn DiskFile, len: u64, trail: &Trail, mut cache_is_whole: bool) -> io::Result<Keep> {
    let synced = trail.says.synced_to;
    let mut damage = None;
    if len < synced {
        damage = Some(format!("{len} bytes are left of {synced} that were synced"));
    }
    let (mut at, mut lines, mut records, mut names_records) = (0, 0, 0, false);
    let mut buffer = vec![0; READ];
    // A write that does not fit ends it: it and those behind it do not hold.
    let mut unmatched = false;
    // Where writes with lines of a commit log begin and end, of those that may not be there.
    let mut named: Vec<(u64, u64)> = Vec::new();
    let mut all = Records::of(trail);
    while trail.says.header.is_some()
        && let Some(record) = all.read()?
    {
        if record.is_write() {
            let end = record.end();
            if record.offset != at || end > len {
                unmatched = true;
                break;
            }
            let unsynced = record.offset >= synced;
            if (!cache_is_whole || unsynced) && checksum(file, record.offset, end, &mut buffer)? != record.crc {
                if unsynced && mutant!("corrupt_tail_stops_the_start") {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if unsynced {
                    cache_is_whole = false; // a page that could not be written has left the cache
                    unmatched = true;
                    break; // written, never synced: lost in the crash, and all behind it is in doubt
                }
                let detail = || format!("bytes {}..{end} were synced and do not match their checksum", record.offset);
                damage.get_or_insert_with(detail);
            }
            at = end;
            lines += u64::from(record.lines);
        }
        names_records |= record.what == What::Logged;
        if record.what == What::Logged && record.end() > synced {
            named.push((record.offset, record.end()));
        }
        records += 1;
    }
    let stop_at_holes = !cache_is_whole && !mutant!("holes_kept");
    // What such a trail does not speak of was never synced, and may be what a commit log is about to bring.
    let may_be_logged = names_records && !mutant!("lines_kept_that_the_log_brings");
    let mut past = if (unmatched || may_be_logged) && !cache_is_whole {
        Past { end: at, lines: 0, crc: 0 }
    } else {
        whole_lines(file, at, len, stop_at_holes, &mut buffer)?
    };
    // Of a write with lines of a commit log all is here, or nothing: or those lines would be shown twice, when the log brings them.
    let is_half = |(from, to): &&(u64, u64)| *from < past.end && past.end < *to;
    if let Some((from, _)) = named.iter().find(is_half).filter(|_| !mutant!("half_a_logged_write_kept")) {
        past = whole_lines(file, at, (*from).max(at), stop_at_holes, &mut buffer)?;
    }
    let past_is = (at, past.lines, past.crc);
    let mut bytes = past.end.max(synced.min(len)); // damaged or not: what was durable is never moved aside
    if mutant!("torn_tail_shown") {
        bytes = len;
    }
    if mutant!("good_tail_thrown_away") {
        bytes = synced.min(len);
    }
    Ok(Keep { bytes, lines: lines + past.lines, records, past: past_is, damage })
}

fn checksum(file: &dyn DiskFile, start: u64, end: u64, buffer: &mut [u8]) -> io::Result<u32> {
    let (mut at, mut crc) = (start, 0);
    while at < end {
        let want = buffer.len().min((end - at) as usize);
        let n = read_full(file, &mut buffer[..want], at)?;
        if n == 0 {
            break;
        }
        crc = crate::log::checksum::crc32c_append(crc, &buffer[..n]);
        at += n as u64;
    }
    Ok(crc)
}

/// Makes a file of a part of another, durable and by rename, in pieces: a segment may be larger than our memory.
fn copy_range(disk: &dyn Disk, from: &dyn DiskFile, start: u64, end: u64, to: &Path) -> io::Result<()> {
    let mut buffer = vec![0; READ.min((end - start) as usize)];
    let mut at = start;
    replace_file_by(disk, to, |file| {
        while at < end {
            let want = buffer.len().min((end - at) as usize);
            let n = read_full(from, &mut buffer[..want], at)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            append_all(file, &buffer[..n])?;
            at += n as u64;
        }
        Ok(())
    })
}
