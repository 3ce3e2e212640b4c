//! The pool: a fixed number of chunks, and where the free ones wait.

use super::{Chunk, Class};
use crate::host::mutants::mutant;
use crate::host::sync::{ArrayQueue, AtomicBool, Ordering};
use crate::host::sys::pieces;
use crossbeam_utils::CachePadded;
use std::io;

/// Pools of at least this size ask for huge pages. In smaller ones too much of a huge page would stay unused.
const HUGE_FROM: usize = 32 << 20;
/// Free chunks that are handed out again first, so that a quiet server lives in a few MiB that stay in the cache.
const HOT: usize = 4;

/// The chunks of one class of one shard. Their number is fixed at the start.
pub struct Pool {
    /// The class whose chunks these are.
    pub class: Class,
    hot: ArrayQueue<Box<Chunk>>,
    cold: ArrayQueue<Box<Chunk>>,
    chunks: usize,
    chunk_bytes: usize,
    /// Per reactor: it found nothing and wants to be woken.
    waiting: Box<[CachePadded<AtomicBool>]>,
}

impl Pool {
    /// Maps `chunks` chunks of `chunk_bytes` for `reactors` reactors, of memory of `node` if one is named.
    ///
    /// # Errors
    /// The kernel refuses a mapping.
    pub fn new(
        class: Class,
        chunks: usize,
        chunk_bytes: usize,
        reactors: usize,
        node: Option<usize>,
    ) -> io::Result<Pool> {
        let cold = ArrayQueue::new(chunks.max(1));
        for memory in pieces(chunks, chunk_bytes, chunks * chunk_bytes >= HUGE_FROM, node)? {
            let _ = cold.push(Box::new(Chunk::on(memory)));
        }
        Ok(Pool {
            class,
            hot: ArrayQueue::new(HOT),
            cold,
            chunks,
            chunk_bytes,
            waiting: (0..reactors).map(|_| CachePadded::new(AtomicBool::new(false))).collect(),
        })
    }

    /// An empty chunk. `None`: all are in use.
    #[must_use]
    pub fn take(&self) -> Option<Box<Chunk>> {
        self.hot.pop().or_else(|| self.cold.pop())
    }

    /// Like [`Pool::take`]. If there is none, the next [`Pool::put`] names `reactor` as one to wake.
    #[must_use]
    pub fn take_or_wait(&self, reactor: usize) -> Option<Box<Chunk>> {
        if let Some(chunk) = self.take() {
            return Some(chunk);
        }
        // The flag goes up before the second look: whoever puts a chunk back in between sees one or the other.
        self.waiting[reactor].store(true, Ordering::SeqCst);
        let chunk = if mutant!("second_look_left_out") { None } else { self.take() };
        if chunk.is_some() {
            self.waiting[reactor].store(false, Ordering::SeqCst);
        }
        chunk
    }

    /// For a reactor of which something waits, before it sleeps: true if there is a chunk; else the next [`Pool::put`] names it. It has to ask
    /// again. A wake-up that came while it was awake says nothing any more, because another reactor may have taken that chunk; and a lane
    /// that found one has taken back what another lane of it still waits for.
    #[must_use]
    pub fn is_there_or_wait(&self, reactor: usize) -> bool {
        if !mutant!("slept_without_asking_again") {
            self.waiting[reactor].store(true, Ordering::SeqCst);
        }
        self.free() > 0
    }

    /// Gives a chunk back; `wake` is called with each reactor that was waiting for one.
    pub fn put(&self, mut chunk: Box<Chunk>, wake: impl FnMut(usize)) {
        chunk.clear();
        if let Err(chunk) = self.hot.push(chunk) {
            // Cannot be full: there are no more chunks than it holds.
            let _ = self.cold.push(chunk);
        }
        self.announce(wake);
    }

    fn announce(&self, mut wake: impl FnMut(usize)) {
        for (reactor, waiting) in self.waiting.iter().enumerate() {
            if waiting.load(Ordering::SeqCst) && waiting.swap(false, Ordering::SeqCst) {
                wake(reactor);
            }
        }
    }

    /// Touches the memory of the chunks that will be used first, so that the kernel provides it.
    pub fn warm_up(&self) {
        for _ in 0..HOT {
            let Some(mut chunk) = self.cold.pop() else { return };
            chunk.fault_in();
            self.put(chunk, |_| {});
        }
    }

    /// Touches the memory of up to `most` chunks that have not been used yet, and returns how many there were. Only one
    /// thread at a time may call it. `wake` as for [`Pool::put`].
    pub fn fault_in(&self, most: usize, mut wake: impl FnMut(usize)) -> usize {
        for done in 0..most {
            // Those in use have been touched, or will be in a moment.
            let Some(mut chunk) = self.cold.pop() else { return done };
            chunk.fault_in();
            let _ = self.cold.push(chunk); // came from there
            self.announce(&mut wake);
        }
        most
    }

    /// Chunks that wait here.
    #[must_use]
    pub fn free(&self) -> usize {
        self.hot.len() + self.cold.len()
    }

    /// All chunks.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Bytes of records that all chunks together can hold.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        (self.chunks * self.chunk_bytes) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_neither_lost_nor_made() {
        let pool = Pool::new(Class::Lossless, 6, 4096, 1, None).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(taken.len(), 6);
        taken.into_iter().for_each(|c| pool.put(c, |_| {}));
        assert_eq!(pool.free(), 6);
    }

    #[test]
    fn faulting_in_loses_no_chunk() {
        let pool = Pool::new(Class::Lossless, 6, 4096, 1, None).unwrap();
        pool.warm_up();
        assert_eq!((pool.hot.len(), pool.cold.len()), (4, 2));
        assert_eq!(pool.fault_in(9, |_| {}), 9, "round and round");
        let _taken = [pool.take(), pool.take()];
        assert_eq!(pool.free(), 4);
    }

    #[test]
    fn whoever_waits_is_woken_once() {
        let pool = Pool::new(Class::Lossless, 1, 4096, 2, None).unwrap();
        let chunk = pool.take_or_wait(1).unwrap();
        assert!(pool.take_or_wait(1).is_none());
        let mut woken = Vec::new();
        pool.put(chunk, |r| woken.push(r));
        let chunk = pool.take().unwrap();
        pool.put(chunk, |r| woken.push(r));
        assert_eq!(woken, [1]);
    }
}
