//! Divides `buffer.memory` among its users. The result is the sum that `check` prints; every size in it is computed, none is
//! guessed.

use crate::intake::listener::BATCH;
use crate::intake::listener::DATAGRAM_MAX;
use crate::intake::net::BUFFER_BYTES;
use crate::log::direct::STAGING_BYTES;
use crate::pipeline::chunk::{Class, memory_of_chunk};
use crate::pipeline::commit::{RECORD_BYTES, SLOTS};
use crate::session::memory::tail;
use crate::settings::units::Size;
use std::fmt;

/// What the division of the memory depends on.
#[derive(Debug, Clone)]
pub struct Needs {
    /// `buffer.memory`, in bytes.
    pub memory: usize,
    /// Shards.
    pub shards: usize,
    /// Reactors in each.
    pub reactors_per_shard: usize,
    /// Open chunks that a reactor may have in each class in use: one per acknowledgement level.
    pub lanes: Vec<(Class, usize)>,
    /// Longest tail of any listener's connections.
    pub longest_tail: usize,
    /// Least chunk that every listener's longest line fits in.
    pub least_chunk_bytes: usize,
    /// The engine may be io_uring, which receives small reads into buffers of its own.
    pub has_ring: bool,
    /// Each reactor may have a commit log.
    pub has_commit_log: bool,
    /// Streams that are written with `O_DIRECT`, through an aligned copy.
    pub direct_streams: usize,
    /// Some listener drops or refuses input when the buffer is full; it reads that input into a buffer of its own.
    pub discards: bool,
    /// The scratch buffer of each reactor at least, in bytes.
    pub scratch: usize,
    /// Some listener receives datagrams, and several at once where there is room.
    pub datagrams: bool,
    /// Lanes of each reactor in which what was received may wait for a chunk.
    pub rests: usize,
    /// Memory that is leased: for decoders and documents, in bytes.
    pub leased: usize,
}

/// The division of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Chunks per shard in each class.
    pub chunks: Vec<(Class, usize)>,
    /// Budget for partial lines, per reactor.
    pub tail_budget: usize,
    /// Reserve beside the budget, per reactor: one line of the greatest length, for the connection with the lane, and what each rest may
    /// leave behind.
    pub tail_reserve: usize,
    /// Reactors in all.
    pub reactors: usize,
    /// Shards.
    pub shards: usize,
    /// Provided buffers of each reactor's ring, a power of two; 0: there is no ring.
    pub ring_buffers: u16,
    /// Whether each reactor has memory for records of a commit log.
    pub has_commit_log: bool,
    /// Streams that are written with `O_DIRECT`.
    pub direct_streams: usize,
    /// Whether each reactor has a buffer for what it drops or refuses.
    pub discards: bool,
    /// The scratch buffer of each reactor, in bytes.
    pub scratch: usize,
    /// How many rests of received input each reactor has room for. A rest is never larger than the scratch buffer.
    pub rests: usize,
    /// Memory that is leased, in bytes.
    pub leased: usize,
}

/// The size wanted for chunks: appends of 1 MiB are the fastest with `RWF_DONTCACHE`, and no slower without.
const CHUNK_WANTED: usize = 1 << 20;
/// The least size of a chunk.
const CHUNK_LEAST: usize = 64 << 10;
/// The least number of chunks of a class, besides one for each lane of each reactor: two at the writer, one in the ring.
const CHUNKS_BESIDES: usize = 3;

/// Lanes that a reactor may have: both classes at three levels.
const LANES_MOST: usize = 6;

/// Memory of a scratch buffer of so many bytes.
const fn memory_of_scratch(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { memory_of_chunk(bytes) }
}

/// What partial lines may take beyond their budget: a rest that waits for a chunk may end in one, and no room is set aside for it before.
fn tail_reserve(longest: usize, scratch: usize, rests: usize) -> usize {
    longest + rests * longest.min(scratch)
}

/// Memory for the records of a commit log that are being written.
const COMMITS: usize = SLOTS * RECORD_BYTES;

/// Aligned copies: the active segment of each stream and shard has one, and the one being sealed.
const fn copies(direct_streams: usize, shards: usize) -> usize {
    2 * direct_streams * shards
}

impl MemoryPlan {
    /// Divides the memory.
    ///
    /// # Errors
    /// The memory is too small. The value is how much is needed at least.
    pub fn new(needs: &Needs) -> Result<MemoryPlan, Size> {
        let reactors = needs.shards * needs.reactors_per_shard;
        let least: Vec<usize> =
            needs.lanes.iter().map(|(_, lanes)| lanes * needs.reactors_per_shard + CHUNKS_BESIDES).collect();
        let least_sum: usize = least.iter().sum();
        // Small enough that there are a few times as many chunks as needed at least: that is what rides out a sync.
        let wanted = (needs.memory / (4 * least_sum * needs.shards)).clamp(CHUNK_LEAST, CHUNK_WANTED);
        let chunk_bytes = wanted.max(needs.least_chunk_bytes).next_multiple_of(4096);
        let tail_budget = (needs.memory / 8 / reactors).clamp(16 << 10, 64 << 20);
        let share = needs.memory / 64 / reactors;
        // Each datagram of a batch has room for the largest.
        let batch = if needs.datagrams { (share / DATAGRAM_MAX).min(BATCH) * DATAGRAM_MAX } else { 0 };
        let scratch_bytes = needs.scratch.max(batch);
        // A reload may bring other lanes: where there is much memory there is room for what they leave too.
        let spare_rests = share / memory_of_scratch(scratch_bytes).max(1);
        let rests = spare_rests.min(LANES_MOST).max(needs.rests);
        let tail_reserve = tail_reserve(needs.longest_tail, scratch_bytes, rests);
        let tails = reactors * tail::memory_of_store(tail_budget, tail_reserve);
        let discard = if needs.discards { reactors * memory_of_chunk(chunk_bytes) } else { 0 };
        // Few enough to stay in the cache: what a turn of the ring brings is copied out before the next.
        let buffers = (share / BUFFER_BYTES).clamp(16, 512);
        let ring_buffers = if needs.has_ring { 1 << buffers.ilog2() } else { 0 };
        let copies = copies(needs.direct_streams, needs.shards) * STAGING_BYTES;
        let scratch = reactors * (1 + rests) * memory_of_scratch(scratch_bytes);
        let rings = reactors * usize::from(ring_buffers) * BUFFER_BYTES;
        let commits = if needs.has_commit_log { reactors * COMMITS } else { 0 };
        let fixed = needs.leased + tails + scratch + discard + copies + rings + commits;
        let per_chunk = memory_of_chunk(chunk_bytes);
        let fit = needs.memory.saturating_sub(fixed) / per_chunk / needs.shards;
        if fit < least_sum {
            // What would do: the tails shrink with the memory, so this is not too small by more than their share.
            let floor = least_sum * per_chunk * needs.shards + fixed;
            return Err(Size((floor as u64).next_multiple_of(1 << 20)));
        }
        let spare = fit - least_sum;
        let classes = needs.lanes.len();
        let chunks = needs
            .lanes
            .iter()
            .zip(&least)
            .enumerate()
            .map(|(i, ((class, _), least))| (*class, least + spare / classes + usize::from(i < spare % classes)))
            .collect();
        Ok(MemoryPlan {
            chunk_bytes,
            chunks,
            tail_budget,
            tail_reserve,
            reactors,
            shards: needs.shards,
            ring_buffers,
            has_commit_log: needs.has_commit_log,
            direct_streams: needs.direct_streams,
            discards: needs.discards,
            scratch: scratch_bytes,
            rests,
            leased: needs.leased,
        })
    }

    /// Checks whether this division is enough for other listeners too.
    ///
    /// # Errors
    /// What it lacks, in words.
    pub fn holds(&self, needs: &Needs) -> Result<(), &'static str> {
        for (class, lanes) in &needs.lanes {
            let Some((_, chunks)) = self.chunks.iter().find(|(of, _)| of == class) else {
                return Err("buffer.memory was divided without chunks for this `when_full`");
            };
            if *chunks < lanes * (self.reactors / self.shards) + CHUNKS_BESIDES {
                return Err("buffer.memory has too few chunks for another kind of acknowledgement");
            }
        }
        let reserve = tail_reserve(needs.longest_tail, self.scratch, self.rests);
        if needs.least_chunk_bytes > self.chunk_bytes || reserve > self.tail_reserve {
            return Err("buffer.memory was divided for shorter lines");
        }
        if needs.discards && !self.discards {
            return Err("buffer.memory was divided without room to read what is refused or dropped");
        }
        if needs.scratch > self.scratch || needs.rests > self.rests {
            return Err("buffer.memory was divided without room for what this protocol or format takes apart");
        }
        if needs.leased > 0 && self.leased == 0 {
            return Err("buffer.memory was divided without room for decoders and documents");
        }
        Ok(())
    }

    /// Chunks of all shards and classes.
    #[must_use]
    pub fn all_chunks(&self) -> usize {
        self.shards * self.chunks.iter().map(|(_, n)| n).sum::<usize>()
    }

    /// The sum; never more than `buffer.memory`.
    #[must_use]
    pub fn total(&self) -> usize {
        let discard = if self.discards { self.reactors } else { 0 };
        (self.all_chunks() + discard) * memory_of_chunk(self.chunk_bytes)
            + self.reactors * tail::memory_of_store(self.tail_budget, self.tail_reserve)
            + self.reactors * usize::from(self.ring_buffers) * BUFFER_BYTES
            + copies(self.direct_streams, self.shards) * STAGING_BYTES
            + if self.has_commit_log { self.reactors * COMMITS } else { 0 }
            + self.reactors * (1 + self.rests) * memory_of_scratch(self.scratch)
            + self.leased
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |n: usize| Size(n as u64).to_string();
        let chunks = self.all_chunks();
        let one = memory_of_chunk(self.chunk_bytes);
        write!(f, "{chunks} chunks of {} (being filled, in rings, at the writers, held for a sync)", size(one))?;
        let tails = tail::memory_of_store(self.tail_budget, self.tail_reserve);
        write!(f, " + {} x {} for partial lines", self.reactors, size(tails))?;
        if self.ring_buffers > 0 {
            let ring = usize::from(self.ring_buffers) * BUFFER_BYTES;
            write!(f, " + {} x {} for small reads (io_uring)", self.reactors, size(ring))?;
        }
        if self.has_commit_log {
            write!(f, " + {} x {} for records of the commit log", self.reactors, size(COMMITS))?;
        }
        if self.direct_streams > 0 {
            let copies = copies(self.direct_streams, self.shards);
            write!(f, " + {copies} x {} for direct writes", size(STAGING_BYTES))?;
        }
        if self.discards {
            write!(f, " + {} x {} to read what is dropped or refused", self.reactors, size(one))?;
        }
        if self.scratch > 0 {
            let scratch = memory_of_scratch(self.scratch);
            let buffers = self.reactors * (1 + self.rests);
            write!(f, " + {buffers} x {} for input that is rewritten or waits for a chunk", size(scratch))?;
        }
        if self.leased > 0 {
            write!(f, " + {} to decode bodies and gather documents", size(self.leased))?;
        }
        write!(f, " = {}", size(self.total()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sum_never_exceeds_the_memory(
            memory in 0usize..512 << 20, shards in 1usize..5, reactors_per_shard in 1usize..5, line in 128usize..4 << 20,
            lossy in any::<bool>(), discards in any::<bool>(), lanes in 1usize..4,
        ) {
            let mut all = vec![(Class::Lossless, lanes)];
            if lossy { all.push((Class::Lossy, 1)); }
            let needs = Needs {
                memory, shards, reactors_per_shard, lanes: all, longest_tail: line,
                least_chunk_bytes: line + 16384, has_ring: discards, direct_streams: lanes - 1, discards, has_commit_log: discards,
                scratch: if lossy { 100_000 } else { 0 }, datagrams: discards, rests: lanes - 1, leased: if discards { memory / 4 } else { 0 },
            };
            match MemoryPlan::new(&needs) {
                Ok(plan) => {
                    prop_assert!(plan.total() <= memory, "{plan} of {memory}");
                    prop_assert!(plan.chunk_bytes >= line + 16384);
                }
                // What is asked for is enough.
                Err(enough) => {
                    let twice = Needs { memory: enough.0 as usize * 2, ..needs };
                    prop_assert!(MemoryPlan::new(&twice).is_ok());
                }
            }
        }
    }
}
