//! The shards of all streams of a target, read in turn.

use logweir::config::ship::{ShipTarget, Start};
use logweir::log::content::{Files, OnDisk};
use logweir::log::names::{SegmentId, is_stream_name};
use logweir::log::ship::note::Positions;
use logweir::log::ship::reader::{Lost, ShardReader, Taken};
use logweir::log::ship::{Position, Source};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// All that a target ships from.
pub struct Sources {
    data_dir: PathBuf,
    target: ShipTarget,
    readers: BTreeMap<Source, ShardReader>,
    /// The one that has its turn next.
    turn: usize,
}

/// Lines of one shard.
pub struct Piece {
    pub source: Source,
    pub taken: Taken,
}

impl Sources {
    pub fn new(data_dir: &Path, target: &ShipTarget) -> Sources {
        Sources { data_dir: data_dir.into(), target: target.clone(), readers: BTreeMap::new(), turn: 0 }
    }

    /// Looks for streams and shards that are new, and begins each where `known` says, or as the target's `start` does.
    pub fn look(&mut self, known: &Positions, is_new_target: bool) -> io::Result<()> {
        for stream in OnDisk.list(&self.data_dir)?.into_iter().filter(|name| is_stream_name(name)) {
            let dir = self.data_dir.join(&stream);
            if !self.target.takes(&stream) || !dir.is_dir() {
                continue;
            }
            let ids: Vec<SegmentId> =
                OnDisk.list(&dir)?.iter().filter_map(|name| SegmentId::parse(name)).map(|(id, _)| id).collect();
            for shard in ids.iter().map(|id| id.shard) {
                let source = (stream.clone(), shard);
                if self.readers.contains_key(&source) {
                    continue;
                }
                let position = match known.get(&source) {
                    Some(position) => *position,
                    None if is_new_target && self.target.start == Start::Now => self.end_of(&stream, shard)?,
                    None => Position::default(),
                };
                let reader = ShardReader::new(&self.data_dir, &stream, shard, position);
                self.readers.insert(source, reader);
            }
        }
        Ok(())
    }

    /// Behind everything that is durable in a shard now.
    fn end_of(&self, stream: &str, shard: u16) -> io::Result<Position> {
        let mut reader = ShardReader::new(&self.data_dir, stream, shard, Position::default());
        let mut buffer = Vec::new();
        reader.skip_to_last(&OnDisk)?;
        while reader.take(&OnDisk, 1 << 20, &mut buffer)?.is_some() {}
        Ok(reader.at())
    }

    /// The next lines, of whichever shard has some and its turn. `None`: nothing more is durable.
    pub fn take(&mut self, most: usize, into: &mut Vec<u8>) -> io::Result<Option<Piece>> {
        let sources: Vec<Source> = self.readers.keys().cloned().collect();
        for i in 0..sources.len() {
            let at = (self.turn + i) % sources.len();
            let Some(reader) = self.readers.get_mut(&sources[at]) else { continue };
            if let Some(taken) = reader.take(&OnDisk, most, into)? {
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
    pub fn ended(&self, shipped: &Positions) -> Positions {
        let mut at = self.positions();
        at.retain(|source, position| shipped.get(source).is_some_and(|shipped| shipped < position));
        at
    }

    /// Where every shard is.
    pub fn positions(&self) -> Positions {
        self.readers.iter().map(|(source, reader)| (source.clone(), reader.at())).collect()
    }
}
