//! The note of how far a target has everything: `.logweir/ship/NAME`. The shipper replaces it after the target's commit, so it may lag
//! behind and is never ahead. The server keeps from retention what it does not name yet.

use super::{Position, Source};
use crate::log::data_dir::STATE_DIR;
use crate::log::disk::{Disk, read_file, replace_file};
use crate::log::names::is_stream_name;
use crate::log::{Context, LogError};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// By stream and shard.
pub type Positions = BTreeMap<Source, Position>;

/// Where the note of a target is.
#[must_use]
pub fn path(data_dir: &Path, target: &str) -> PathBuf {
    data_dir.join(STATE_DIR).join("ship").join(target)
}

/// One line for each shard: `STREAM SHARD SEQUENCE OFFSET`.
#[must_use]
pub fn text(positions: &Positions) -> String {
    positions.iter().map(|((stream, shard), position)| format!("{stream} {shard} {position}\n")).collect()
}

/// Reads it back; `None`: it is no such note.
#[must_use]
pub fn parse(text: &str) -> Option<Positions> {
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (stream, shard) = (words.next()?, words.next()?.parse().ok()?);
        is_stream_name(stream).then_some(((stream.to_string(), shard), Position::parse(words.next()?)?))
    };
    text.lines().map(line).collect()
}

/// Reads the note of a target; `None`: there is none.
///
/// # Errors
/// It cannot be read, or is no such note.
pub fn read(disk: &dyn Disk, data_dir: &Path, target: &str) -> Result<Option<Positions>, LogError> {
    let path = path(data_dir, target);
    let bytes = match read_file(disk, &path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.context("read", &path)?,
    };
    let positions = std::str::from_utf8(&bytes).ok().and_then(parse);
    let way_out = "delete it: the shipper takes the positions from the target";
    positions.map(Some).ok_or(LogError::State { path, expected: "lines STREAM SHARD SEQUENCE OFFSET", way_out })
}

/// Replaces the note, durably.
///
/// # Errors
/// It cannot be written.
pub fn write(disk: &dyn Disk, data_dir: &Path, target: &str, positions: &Positions) -> Result<(), LogError> {
    let path = path(data_dir, target);
    let dir = path.parent().unwrap_or(data_dir);
    disk.create_dir_all(dir).context("make directory", dir)?;
    replace_file(disk, &path, text(positions).as_bytes()).context("replace", &path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::real_disk::RealDisk;

    #[test]
    fn a_note_comes_back_as_written() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new());
        assert_eq!(read(&disk, dir.path(), "k").unwrap(), None);
        let at = |sequence, offset| Position { sequence, offset };
        let positions = Positions::from([(("web".into(), 0), at(7, 0)), (("web".into(), 3), at(1, 99))]);
        write(&disk, dir.path(), "k", &positions).unwrap();
        assert_eq!(read(&disk, dir.path(), "k").unwrap(), Some(positions));
        for bad in ["web", "web 0", "web 0 1", "WEB 0 1 2", "web 0 1 2 3", "web 65536 1 2", "web -1 1 2"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
