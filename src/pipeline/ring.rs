//! The ring from the reactors to the writer: a bounded, lock-free queue of chunks. It also wakes a thread that sleeps at either
//! end.
//!
//! The ring is as large as the pool, so a push never fails: the number of chunks is the bound. Waking follows one rule in both
//! directions. A thread publishes first and wakes the other then; a thread that wants to sleep announces it first and looks
//! once more then.

use crate::host::mutants::mutant;
use crate::host::sync::{ArrayQueue, AtomicBool, Ordering};
use crate::pipeline::chunk::Chunk;
use crate::pipeline::sleep::Waker;

/// A ring of one class into one writer.
pub struct Ring {
    queue: ArrayQueue<Box<Chunk>>,
    writer: Waker,
}

impl Ring {
    /// A ring for a pool of `chunks` chunks.
    #[must_use]
    pub fn new(chunks: usize, writer: Waker) -> Ring {
        Ring { queue: ArrayQueue::new(chunks.max(1)), writer }
    }

    /// Hands a chunk to the writer and wakes it if it sleeps (one atomic swap if it does not).
    ///
    /// # Panics
    /// If the ring is full, which it cannot be: it holds every chunk of its pool.
    pub fn push(&self, chunk: Box<Chunk>) {
        let wakes = !mutant!("wake_up_lost") || self.queue.is_empty();
        assert!(self.queue.push(chunk).is_ok(), "a ring holds all chunks of its pool");
        if wakes {
            (self.writer)();
        }
    }

    /// The oldest chunk. For the writer, and for `drop_oldest`, which evicts it.
    #[must_use]
    pub fn pop(&self) -> Option<Box<Chunk>> {
        self.queue.pop()
    }

    /// Chunks waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True when none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Wakes a thread that sleeps in its engine, with a system call only if it really sleeps.
pub struct Wake {
    asleep: AtomicBool,
    waker: Box<dyn Fn() + Send + Sync>,
}

impl Wake {
    /// `waker` makes the engine's wait return.
    #[must_use]
    pub fn new(waker: Box<dyn Fn() + Send + Sync>) -> Wake {
        Wake { asleep: AtomicBool::new(false), waker }
    }

    /// Called by other threads, after they have published what the sleeper should find.
    pub fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            (self.waker)();
        }
    }

    /// Called by the sleeper, before its last look at what others publish.
    pub fn about_to_sleep(&self) {
        // A swap, not a store: it reads what `wake` wrote before, and with it sees what was published before that.
        self.asleep.swap(true, Ordering::SeqCst);
    }

    /// Called by the sleeper once it is awake again.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::sleep::parking;
    use std::sync::Arc;

    /// Many chunks through a tiny ring with a consumer that sleeps whenever it finds nothing: a lost wake-up hangs here.
    #[test]
    fn no_wake_up_is_lost_and_order_holds() {
        let (sleeper, waker) = parking();
        let ring = Arc::new(Ring::new(2, waker));
        let free = Arc::new(ArrayQueue::new(2));
        for _ in 0..2 {
            free.push(Box::new(Chunk::new(4096).unwrap())).unwrap();
        }
        let (ring2, free2) = (Arc::clone(&ring), Arc::clone(&free));
        let producer = std::thread::spawn(move || {
            for i in 0..20_000u32 {
                let mut chunk = loop {
                    match free2.pop() {
                        Some(chunk) => break chunk,
                        None => std::thread::yield_now(),
                    }
                };
                chunk.clear();
                chunk.commit(0, 0, None, 1, i, 0);
                ring2.push(chunk);
            }
        });
        for expected in 0..20_000u32 {
            let chunk = loop {
                match ring.pop() {
                    Some(chunk) => break chunk,
                    None => sleeper.sleep(None),
                }
            };
            assert_eq!(chunk.runs()[0].lines, expected);
            free.push(chunk).unwrap();
        }
        producer.join().unwrap();
        assert!(ring.is_empty());
    }

    #[test]
    fn waking_costs_a_call_only_when_somebody_sleeps() {
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let wake = Wake::new(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        wake.wake();
        wake.about_to_sleep();
        wake.wake();
        wake.wake();
        wake.about_to_sleep();
        wake.awake();
        wake.wake();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
