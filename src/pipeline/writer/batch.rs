//! A batch: the chunks that the writer appends at once, and the slices of them that belong to each stream.

use super::unsynced::PerListener;
use crate::host::mutants::mutant;
use crate::log::commit::Named;
use crate::metrics::accounting::Tally;
use crate::pipeline::chunk::{Chunk, Class, Run};
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

/// A run of a batch: its stream, the place of its chunk, and its place in that.
type Place = (u16, u16, u32);

/// Chunks on their way to disk.
pub struct Batch {
    /// The chunks, each with its class.
    pub chunks: Vec<(Class, Box<Chunk>)>,
    /// All their runs, by stream, and those of a stream in their order: a look at one stream costs what it has, whatever the others have.
    places: Vec<Place>,
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
        let places = places_of(&chunks);
        let mut pending: Vec<usize> = places.iter().map(|(stream, ..)| usize::from(*stream)).collect();
        pending.dedup();
        Some(Batch { chunks, places, pending, appended: Vec::new() })
    }

    /// The runs of one stream, each with its chunk and its place there.
    fn runs_of(&self, stream: usize) -> impl Iterator<Item = (&Chunk, usize)> {
        let from = self.places.partition_point(|(of, ..)| usize::from(*of) < stream);
        let of_it = self.places[from..].iter().take_while(move |(of, ..)| usize::from(*of) == stream);
        of_it.map(|(_, chunk, run)| (&*self.chunks[usize::from(*chunk)].1, *run as usize))
    }

    /// Notes that a stream has its part.
    pub fn done(&mut self, stream: usize, write: u64) {
        // It is the last one: those are taken first.
        match self.pending.last() {
            Some(last) if *last == stream => drop(self.pending.pop()),
            _ => self.pending.retain(|s| *s != stream),
        }
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
        joined(self.runs_of(stream))
    }

    /// What of the batch belongs to one stream.
    pub fn share(&self, stream: usize) -> Share {
        Share::of(self.runs_of(stream))
    }
}

/// What of some chunks belongs to one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// All of it.
    pub all: Tally,
    /// What the writer counts, by listener. The rest is in the commit log, and is counted there.
    pub counted: PerListener,
    /// How a trail names that rest.
    pub named: Vec<Named>,
}

impl Share {
    fn of<'a>(runs: impl Iterator<Item = (&'a Chunk, usize)>) -> Share {
        let mut share = Share::default();
        for (chunk, place) in runs {
            let run = &chunk.runs()[place];
            let tally = Tally { lines: u64::from(run.lines), bytes: u64::from(run.len) };
            share.all.add(tally);
            match chunk.named().filter(|_| place < chunk.logged()) {
                None => share.counted.add(run.listener, tally),
                Some(named) => match share.named.iter_mut().find(|n| n.reactor == named.reactor) {
                    Some(before) => *before = named,
                    None => share.named.push(named),
                },
            }
        }
        share
    }
}

/// The runs of these chunks, sorted by stream.
fn places_of(chunks: &[(Class, Box<Chunk>)]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::with_capacity(chunks.iter().map(|(_, chunk)| chunk.runs().len()).sum());
    for (place, (_, chunk)) in chunks.iter().enumerate() {
        places.extend(chunk.runs().iter().enumerate().map(|(run, of)| (of.stream, place as u16, run as u32)));
    }
    // With one stream, which is common, they are sorted already.
    places.sort_unstable();
    places
}

/// The bytes of these runs, neighbours joined.
fn joined<'a>(runs: impl Iterator<Item = (&'a Chunk, usize)>) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::new();
    let mut open: Option<(&Chunk, Run)> = None;
    for (chunk, run) in runs.map(|(chunk, place)| (chunk, chunk.runs()[place])) {
        match &mut open {
            Some((of, before)) if std::ptr::eq(*of, chunk) && run.start == before.start + before.len => {
                before.len += run.len
            }
            _ => {
                slices.extend(open.replace((chunk, run)).map(|(chunk, run)| IoSlice::new(chunk.bytes_of(&run))));
            }
        }
    }
    slices.extend(open.map(|(chunk, run)| IoSlice::new(chunk.bytes_of(&run))));
    slices
}

/// The runs of one stream in these chunks.
fn of_stream<'a>(chunks: impl Iterator<Item = &'a Chunk>, stream: usize) -> impl Iterator<Item = (&'a Chunk, usize)> {
    let runs = chunks.flat_map(|chunk| (0..chunk.runs().len()).map(move |place| (chunk, place)));
    runs.filter(move |(chunk, place)| usize::from(chunk.runs()[*place].stream) == stream)
}

/// The bytes of one stream in these chunks, neighbouring runs joined.
pub fn slices_of<'a>(chunks: impl Iterator<Item = &'a Chunk>, stream: usize) -> Vec<IoSlice<'a>> {
    joined(of_stream(chunks, stream))
}

/// What of these chunks belongs to one stream.
pub fn share_of<'a>(chunks: impl Iterator<Item = &'a Chunk>, stream: usize) -> Share {
    Share::of(of_stream(chunks, stream))
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
        let tally = share_of([&chunk].into_iter(), 0).counted;
        let mut expected = PerListener::default();
        expected.add(0, Tally { lines: 2, bytes: 5 });
        expected.add(1, Tally { lines: 1, bytes: 2 });
        assert_eq!(tally, expected);
        let chunks = vec![(Class::Lossless, Box::new(chunk))];
        let batch = Batch { places: places_of(&chunks), chunks, pending: Vec::new(), appended: Vec::new() };
        let bytes = |stream| batch.slices(stream).iter().map(|s| s.to_vec()).collect::<Vec<_>>();
        assert_eq!(bytes(0), [b"aabb".to_vec(), b"dda".to_vec()]);
        assert_eq!(bytes(1), [b"cc".to_vec()]);
        assert!(bytes(2).is_empty());
        assert_eq!((batch.share(0).counted, batch.share(2)), (expected, Share::default()));
    }
}
