//! Holds: what readers still need, so that retention leaves it alone. A reader notes the first segment that it needs of each shard in a
//! file `.logweir/holds/NAME`, which it keeps locked (flock(2)) as long as it lives: what one that died has held is free at once.
//!
//! A reader that does not come on holds nothing after [`REFRESHED_WITHIN`], and `min_free` counts for more than holds: with it no reader
//! can fill the disk.

use super::catalogue::Staying;
use super::names::{SegmentId, is_stream_name};
use crate::host::clock::Clock;
use std::collections::BTreeMap;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// A hold that was not refreshed for so long holds nothing.
pub const REFRESHED_WITHIN: Duration = Duration::from_secs(600);
/// A reader notes that it goes on no more often than this.
const REFRESH: Duration = Duration::from_secs(10);
/// Longest file that is read, in bytes: a hold of every shard of thousands of streams is smaller.
const LONGEST: u64 = 1 << 20;

/// By stream and shard the first sequence that is held.
type Needs = BTreeMap<(String, u16), u64>;

/// A hold, until it is dropped.
pub struct Hold {
    path: PathBuf,
    /// Locked.
    file: File,
    needs: Needs,
    clock: Box<dyn Clock>,
    refreshed_ns: u64,
}

impl Hold {
    /// Holds these segments of streams, and all behind them. `state` is the data directory's `.logweir`; `reader` becomes part of the
    /// file's name.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn take(
        state: &Path,
        reader: &str,
        clock: Box<dyn Clock>,
        needs: impl IntoIterator<Item = (String, SegmentId)>,
    ) -> io::Result<Hold> {
        let dir = dir(state);
        if !dir.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
            std::fs::set_permissions(&dir, Permissions::from_mode(0o755))?; // whatever the umask says
        }
        let path = dir.join(format!("{reader}-{}-{:x}", std::process::id(), clock.wall_ns()));
        let mut first = Needs::new();
        for (stream, id) in needs {
            let held = first.entry((stream, id.shard)).or_insert(id.sequence);
            *held = id.sequence.min(*held);
        }
        let file = note(&path, &first, clock.wall_ns())?;
        let refreshed_ns = clock.mono_ns();
        Ok(Hold { path, file, needs: first, clock, refreshed_ns })
    }

    /// The reader, which goes through the shards in their order, is at this segment now: those before it may go.
    ///
    /// # Errors
    /// It cannot be noted. What was held before stays held.
    pub fn is_at(&mut self, stream: &str, id: SegmentId) -> io::Result<()> {
        self.needs.retain(|(name, shard), _| name != stream || *shard >= id.shard);
        if let Some(held) = self.needs.get_mut(&(stream.to_string(), id.shard)) {
            *held = id.sequence;
        }
        self.renew()
    }

    /// The reader is done with a stream.
    ///
    /// # Errors
    /// As [`Hold::is_at`].
    pub fn is_done_with(&mut self, stream: &str) -> io::Result<()> {
        self.needs.retain(|(name, _), _| name != stream);
        self.renew()
    }

    /// The reader goes on. Costs nothing most of the time.
    ///
    /// # Errors
    /// As [`Hold::is_at`].
    pub fn goes_on(&mut self) -> io::Result<()> {
        let ago = self.clock.mono_ns().saturating_sub(self.refreshed_ns);
        if u128::from(ago) < REFRESH.as_nanos() { Ok(()) } else { self.renew() }
    }

    fn renew(&mut self) -> io::Result<()> {
        self.file = note(&self.path, &self.needs, self.clock.wall_ns())?; // the new one is locked before the old one is let go
        self.refreshed_ns = self.clock.mono_ns();
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // what is left of it is not locked, and goes at the next look
    }
}

fn dir(state: &Path) -> PathBuf {
    state.join("holds")
}

/// Replaces a hold's file by a new one, which is locked before it has the name.
fn note(path: &Path, needs: &Needs, wall_ns: u64) -> io::Result<File> {
    let temp = path.with_extension("tmp");
    let mut file = File::create(&temp)?;
    // The server may be another user: what it cannot read holds nothing.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.lock()?;
    let mut text = String::new();
    needs.iter().for_each(|((stream, shard), first)| text += &format!("{stream} {shard} {first}\n"));
    file.write_all(text.as_bytes())?;
    file.set_modified(UNIX_EPOCH + Duration::from_nanos(wall_ns))?;
    std::fs::rename(&temp, path)?;
    Ok(file)
}

/// What readers hold now, by stream. Removes the files of those that have ended. `wall_ns` is the time, since 1970.
#[must_use]
pub fn held(state: &Path, wall_ns: u64) -> BTreeMap<String, Staying> {
    let dir = dir(state);
    let mut held: BTreeMap<String, Staying> = BTreeMap::new();
    for name in crate::host::sys::names(&dir).unwrap_or_default() {
        let path = dir.join(&name);
        // One that is gone again, or that cannot be read, holds nothing.
        let Ok(text) = read(&path, wall_ns) else { continue };
        for (stream, shard, first) in text.iter().flat_map(|text| text.lines()).filter_map(parse) {
            let held = held.entry(stream.to_string()).or_default().entry(shard).or_insert(first);
            *held = first.min(*held);
        }
    }
    held
}

/// The text of a hold; `None`: it holds nothing.
fn read(path: &Path, wall_ns: u64) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let now = UNIX_EPOCH + Duration::from_nanos(wall_ns);
    let is_old = now.duration_since(about.modified()?).is_ok_and(|ago| ago > REFRESHED_WITHIN);
    if !about.is_file() {
        return Ok(None);
    }
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) if is_old => Ok(None),
        Err(TryLockError::WouldBlock) if path.extension().is_none() => {
            let mut text = String::new();
            file.take(LONGEST).read_to_string(&mut text)?;
            Ok(Some(text))
        }
        Err(TryLockError::WouldBlock) => Ok(None), // the next file of a hold, not yet under its name
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => {
            // Its reader has ended; unless this is the one before, and the name is of another by now. A new one may not be locked yet.
            let is_there =
                std::fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (about.dev(), about.ino()));
            if is_there && (path.extension().is_none() || is_old) {
                std::fs::remove_file(path)?;
            }
            Ok(None)
        }
    }
}

fn parse(line: &str) -> Option<(&str, u16, u64)> {
    let mut words = line.split(' ');
    let (stream, shard, first) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (is_stream_name(stream) && words.next().is_none()).then_some((stream, shard, first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;

    fn clock() -> Box<dyn Clock> {
        Box::new(SystemClock::new())
    }

    fn id(shard: u16, sequence: u64) -> SegmentId {
        SegmentId { shard, sequence }
    }

    #[test]
    fn what_two_readers_need_is_held_from_the_earlier_one_on() {
        let state = tempfile::tempdir().unwrap();
        let mut one =
            Hold::take(state.path(), "cat", clock(), [("web".into(), id(0, 7)), ("web".into(), id(1, 3))]).unwrap();
        let two =
            Hold::take(state.path(), "cat", clock(), [("web".into(), id(0, 5)), ("db".into(), id(0, 1))]).unwrap();
        assert_eq!(held(state.path(), clock().wall_ns())["web"], Staying::from([(0, 5), (1, 3)]));
        assert_eq!(held(state.path(), clock().wall_ns())["db"], Staying::from([(0, 1)]));
        drop(two);
        assert_eq!(
            held(state.path(), clock().wall_ns()),
            BTreeMap::from([("web".into(), Staying::from([(0, 7), (1, 3)]))])
        );
        one.is_at("web", id(0, 9)).unwrap();
        assert_eq!(held(state.path(), clock().wall_ns())["web"], Staying::from([(0, 9), (1, 3)]));
        one.is_at("web", id(1, 4)).unwrap();
        assert_eq!(held(state.path(), clock().wall_ns())["web"], Staying::from([(1, 4)]));
        one.is_done_with("web").unwrap();
        assert_eq!(held(state.path(), clock().wall_ns()), BTreeMap::new());
    }

    #[test]
    fn one_that_died_or_stalls_holds_nothing() {
        let state = tempfile::tempdir().unwrap();
        let hold = Hold::take(state.path(), "cat", clock(), [("web".into(), id(0, 7))]).unwrap();
        let file = dir(state.path()).join("cat-1-1");
        std::fs::write(&file, "web 0 1\n").unwrap(); // nobody locks it
        assert_eq!(held(state.path(), clock().wall_ns())["web"], Staying::from([(0, 7)]));
        assert!(!file.exists(), "it is tidied up");
        let later = clock().wall_ns() + (REFRESHED_WITHIN + Duration::from_secs(1)).as_nanos() as u64;
        assert_eq!(held(state.path(), later), BTreeMap::new());
        drop(hold);
    }

    #[test]
    fn what_is_no_hold_holds_nothing() {
        for line in ["", "web", "web 0", "web x 1", "web 0 1 2", "../x 0 1", "web -1 1"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
        assert_eq!(parse("web 3 44"), Some(("web", 3, 44)));
    }
}
