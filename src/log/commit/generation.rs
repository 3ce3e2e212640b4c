//! The number of the run of the server whose records count, in `.logweir/generation`. A new one begins when all that is needed of the
//! old one is durable in segments: so nothing is brought back twice, and no stale block is believed.

use crate::log::disk::{Disk, read_file, replace_file};
use crate::log::{Context, LogError};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generation {
    /// Its number; 0: none yet.
    pub number: u64,
    /// It has ended in order: its logs hold nothing that is needed.
    pub is_empty: bool,
    /// Sequence of the first segment of it, by stream and shard. Trails of earlier segments say nothing about it.
    pub first: BTreeMap<(String, u16), u64>,
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(crate::log::data_dir::STATE_DIR).join("generation")
}

impl Generation {
    /// Reads the last one; `None`: there is no note of any.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Generation>, LogError> {
        let path = path(data_dir);
        let bytes = match read_file(disk, &path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context("read", &path)?,
        };
        let parsed = std::str::from_utf8(&bytes).ok().and_then(Generation::parse);
        let way_out = "delete it, and the number is found from the records of the commit logs";
        parsed.map(Some).ok_or(LogError::State { path, expected: "the number of a run of the server", way_out })
    }

    fn parse(text: &str) -> Option<Generation> {
        let mut lines = text.lines();
        let (number, is_empty) = match lines.next()?.split_once(' ') {
            Some((number, "empty")) => (number, true),
            Some(_) => return None,
            None => (text.lines().next()?, false),
        };
        let mut first = BTreeMap::new();
        for line in lines {
            let (stream, rest) = line.split_once('.')?;
            let (shard, sequence) = rest.split_once(' ')?;
            first.insert((stream.to_string(), shard.parse().ok()?), sequence.parse().ok()?);
        }
        Some(Generation { number: number.parse().ok()?, is_empty, first })
    }

    /// Makes it the one that counts. Durable when it returns.
    ///
    /// # Errors
    /// The file cannot be replaced.
    pub fn begin(&self, disk: &dyn Disk, data_dir: &Path) -> Result<(), LogError> {
        let path = path(data_dir);
        let mut text = format!("{}{}\n", self.number, if self.is_empty { " empty" } else { "" });
        for ((stream, shard), sequence) in &self.first {
            text += &format!("{stream}.{shard} {sequence}\n");
        }
        replace_file(disk, &path, text.as_bytes()).context("replace", &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::real_disk::RealDisk;

    #[test]
    fn it_comes_back_as_begun_and_nothing_else_is_believed() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new());
        std::fs::create_dir(dir.path().join(".logweir")).unwrap();
        assert_eq!(Generation::read(&disk, dir.path()).unwrap(), None);
        let first = BTreeMap::from([(("web-1".to_string(), 0), 12), (("default".to_string(), 3), 1)]);
        for generation in [
            Generation { number: 7, is_empty: false, first },
            Generation { number: 8, is_empty: true, ..Generation::default() },
        ] {
            generation.begin(&disk, dir.path()).unwrap();
            assert_eq!(Generation::read(&disk, dir.path()).unwrap(), Some(generation));
        }
        for bad in ["", "x\n", "7 full\n", "7\nweb 1\n", "7\nweb.0\n"] {
            std::fs::write(path(dir.path()), bad).unwrap();
            assert!(matches!(Generation::read(&disk, dir.path()), Err(LogError::State { .. })), "{bad:?}");
        }
    }
}
