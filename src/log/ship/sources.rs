//! The shards of all streams of a target, read in turn.

use super::note::Positions;
use super::reader::{Lost, ShardReader, Taken};
use super::{Position, Source};
use crate::host::clock::BootId;
use crate::log::content::Files;
use crate::log::names::{SegmentId, is_stream_name};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Which streams a target takes.
pub type Takes = Box<dyn Fn(&str) -> bool>;

/// All that a target ships from.
pub struct Sources {
    data_dir: PathBuf,
    takes: Takes,
    boot: BootId,
    readers: BTreeMap<Source, ShardReader>,
    /// The one that has its turn next.
    turn: usize,
}

/// Lines of one shard.
pub struct Piece {
    /// Of which.
    pub source: Source,
    /// Where they begin and end.
    pub taken: Taken,
}

/// The names in a directory; none where it is no directory.
fn list(files: &dyn Files, dir: &Path) -> io::Result<Vec<String>> {
    match files.list(dir) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => other,
    }
}

impl Sources {
    /// Of a data directory: the streams that `takes` says. `boot`: which start of the machine this is.
    #[must_use]
    pub fn new(data_dir: &Path, takes: Takes, boot: BootId) -> Sources {
        Sources { data_dir: data_dir.into(), takes, boot, readers: BTreeMap::new(), turn: 0 }
    }

    /// Looks for streams and shards that are new, and begins each where `known` says; others at their beginning, or `at_the_end`.
    ///
    /// # Errors
    /// A directory or a file cannot be read.
    pub fn look(&mut self, files: &dyn Files, known: &Positions, at_the_end: bool) -> io::Result<()> {
        for stream in files.list(&self.data_dir)?.into_iter().filter(|name| is_stream_name(name)) {
            if !(self.takes)(&stream) {
                continue;
            }
            let names = list(files, &self.data_dir.join(&stream))?;
            for shard in names.iter().filter_map(|name| SegmentId::parse(name)).map(|(id, _)| id.shard) {
                let source = (stream.clone(), shard);
                if self.readers.contains_key(&source) {
                    continue;
                }
                let position = match known.get(&source) {
                    Some(position) => *position,
                    None if at_the_end => self.end_of(files, &stream, shard)?,
                    None => Position::default(),
                };
                let reader = ShardReader::new(&self.data_dir, &stream, shard, position, self.boot);
                self.readers.insert(source, reader);
            }
        }
        Ok(())
    }

    /// Behind everything that is durable in a shard now.
    fn end_of(&self, files: &dyn Files, stream: &str, shard: u16) -> io::Result<Position> {
        let mut reader = ShardReader::new(&self.data_dir, stream, shard, Position::default(), self.boot);
        let mut buffer = Vec::new();
        reader.skip_to_last(files)?;
        while reader.take(files, 1 << 20, &mut buffer)?.is_some() {}
        Ok(reader.at())
    }

    /// The next lines, of whichever shard has some and its turn. `None`: nothing more is durable.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn take(&mut self, files: &dyn Files, most: usize, into: &mut Vec<u8>) -> io::Result<Option<Piece>> {
        let sources: Vec<Source> = self.readers.keys().cloned().collect();
        for i in 0..sources.len() {
            let at = (self.turn + i) % sources.len();
            let Some(reader) = self.readers.get_mut(&sources[at]) else { continue };
            if let Some(taken) = reader.take(files, most, into)? {
                self.turn = at + 1;
                return Ok(Some(Piece { source: sources[at].clone(), taken }));
            }
        }
        Ok(None)
    }

    /// What was deleted before it was shipped, since this was asked last.
    pub fn take_lost(&mut self) -> Vec<(Source, Lost)> {
        self.readers.iter_mut().filter_map(|(source, reader)| Some((source.clone(), reader.take_lost()?))).collect()
    }

    /// Shards that are further than the target has noted, though there was nothing to send: their segment has ended.
    #[must_use]
    pub fn ended(&self, shipped: &Positions) -> Positions {
        let mut at = self.positions();
        at.retain(|source, position| shipped.get(source).is_some_and(|shipped| shipped < position));
        at
    }

    /// Where every shard is.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.readers.iter().map(|(source, reader)| (source.clone(), reader.at())).collect()
    }
}
