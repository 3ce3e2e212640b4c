//! A batch: the chunks that the writer appends at once, and the slices of them that belong to each stream.

use super::unsynced::PerListener;
use crate::host::mutants::mutant;
use crate::metrics::accounting::Tally;
use crate::pipeline::chunk::{Chunk, Class};
use crate::pipeline::shard::Shard;
use std::io::IoSlice;

/// The writer stops gathering at this many bytes. With full chunks of 1 MiB that is one chunk an append, with small ones
/// up to 1.5 MiB: the sizes that `RWF_DONTCACHE` and the page cache like best (256 KiB to 1 MiB and a bit).
pub const GATHER_BYTES: usize = 512 * 1024;

/// Most chunks in a batch; a batch of tiny ones leaves the others to the next.
const GATHER_CHUNKS: usize = 64;

/// Where gathering left off.
pub struct Gatherer {
    /// The class whose turn it is.
    turn: usize,
    /// Bytes of a batch at most (one chunk alone may have more): the smallest segment of any stream.
    most_bytes: usize,
    /// A chunk that would have made the last batch too large; the next one begins with it.
    carried: Option<(Class, Box<Chunk>)>,
}

impl Gatherer {
    /// For batches of at most this many bytes.
    pub fn new(most_bytes: usize) -> Self {
        Gatherer { turn: 0, most_bytes, carried: None }
    }

    /// Another limit for the batches to come.
    pub fn set_most(&mut self, most_bytes: usize) {
        self.most_bytes = most_bytes;
    }

    /// The limit where segments have these sizes at most.
    pub fn most_of(segment_bytes: impl Iterator<Item = u64>) -> usize {
        segment_bytes.min().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
    }

    /// True if neither it nor the rings hold a chunk.
    pub fn is_empty(&self, shard: &Shard) -> bool {
        self.carried.is_none() && shard.channels.iter().all(|c| c.ring.is_empty())
    }
}

/// Chunks on their way to disk.
pub struct Batch {
    /// The chunks, each with its class.
    pub chunks: Vec<(Class, Box<Chunk>)>,
    /// Streams that still lack their part.
    pub pending: Vec<usize>,
    /// Streams that have theirs, with the number of the write.
    pub appended: Vec<(usize, u64)>,
}

impl Batch {
    /// Takes chunks from the rings, in turn, so that no class starves another.
    pub fn gather(shard: &Shard, from: &mut Gatherer) -> Option<Batch> {
        let mut chunks: Vec<(Class, Box<Chunk>)> = from.carried.take().into_iter().collect();
        let mut bytes = chunks.iter().map(|(_, c)| c.len()).sum::<usize>();
        let mut empty = 0;
        while bytes < GATHER_BYTES && chunks.len() < GATHER_CHUNKS && empty < shard.channels.len() {
            let channel = &shard.channels[from.turn % shard.channels.len()];
            from.turn = from.turn.wrapping_add(1);
            match channel.ring.pop() {
                Some(chunk) if !chunks.is_empty() && bytes + chunk.len() > from.most_bytes => {
                    from.carried = Some((channel.pool.class, chunk));
                    break;
                }
                Some(chunk) => {
                    bytes += chunk.len();
                    chunks.push((channel.pool.class, chunk));
                    empty = 0;
                }
                None => empty += 1,
            }
        }
        if chunks.is_empty() {
            return None;
        }
        if mutant!("batches_out_of_order") {
            chunks.reverse();
        }
        let mut pending: Vec<usize> = Vec::new();
        for run in chunks.iter().flat_map(|(_, c)| c.runs()) {
            if !pending.contains(&usize::from(run.stream)) {
                pending.push(usize::from(run.stream));
            }
        }
        Some(Batch { chunks, pending, appended: Vec::new() })
    }

    /// Notes that a stream has its part.
    pub fn done(&mut self, stream: usize, write: u64) {
        self.pending.retain(|s| *s != stream);
        self.appended.push((stream, write));
    }

    /// Makes a stream's part pending again if it was appended in this write or a later one. True if it was.
    pub fn undo(&mut self, stream: usize, from_write: u64) -> bool {
        let lost = |(s, write): &(usize, u64)| *s == stream && *write >= from_write;
        let undone = self.appended.iter().any(lost);
        if undone {
            self.appended.retain(|a| !lost(a));
            self.pending.push(stream);
        }
        undone
    }

    /// The bytes of one stream, in order.
    pub fn slices(&self, stream: usize) -> Vec<IoSlice<'_>> {
        slices_of(self.chunks.iter().map(|(_, c)| &**c), stream)
    }

    /// What of the batch belongs to one stream, by listener.
    pub fn tally(&self, stream: usize, listeners: usize) -> PerListener {
        tally_of(self.chunks.iter().map(|(_, c)| &**c), stream, listeners)
    }
}

/// The bytes of one stream in these chunks, neighbouring runs joined.
pub fn slices_of<'a>(chunks: impl Iterator<Item = &'a Chunk>, stream: usize) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::new();
    for chunk in chunks {
        let mut runs = chunk.runs().iter().filter(|r| usize::from(r.stream) == stream);
        let Some(first) = runs.next() else { continue };
        let mut joined = *first;
        for run in runs {
            if run.start == joined.start + joined.len {
                joined.len += run.len;
            } else {
                slices.push(IoSlice::new(chunk.bytes_of(&joined)));
                joined = *run;
            }
        }
        slices.push(IoSlice::new(chunk.bytes_of(&joined)));
    }
    slices
}

/// Lines and bytes of one stream in these chunks, by listener.
pub fn tally_of<'a>(chunks: impl Iterator<Item = &'a Chunk>, stream: usize, listeners: usize) -> PerListener {
    let mut tally = PerListener::new(listeners);
    for run in chunks.flat_map(Chunk::runs).filter(|r| usize::from(r.stream) == stream) {
        tally.add(run.listener, Tally { lines: u64::from(run.lines), bytes: u64::from(run.len) });
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_runs_of_a_stream_are_one_slice() {
        let mut chunk = Chunk::new(4096).unwrap();
        chunk.free()[..9].copy_from_slice(b"aabbccdda");
        chunk.commit(0, 0, None, 2, 1, 0);
        chunk.commit(0, 1, None, 2, 1, 0);
        chunk.commit(1, 1, None, 2, 1, 0);
        chunk.commit(0, 0, None, 3, 1, 0);
        let slices = slices_of([&chunk].into_iter(), 0);
        assert_eq!(slices.iter().map(|s| &**s).collect::<Vec<_>>(), [b"aabb".as_slice(), b"dda".as_slice()]);
        let tally = tally_of([&chunk].into_iter(), 0, 2);
        assert_eq!((tally.0[0].bytes, tally.0[1].bytes), (5, 2));
    }
}
