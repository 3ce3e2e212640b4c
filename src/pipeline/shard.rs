//! What the reactors and the writer of one shard share.

use crate::host::sync::{ArrayQueue, AtomicBool, AtomicU64, Ordering};
use crate::metrics::cells::Cell;
use crate::metrics::stats::{ReactorStats, WriterStats};
use crate::pipeline::chunk::{Chunk, Class, Pool};
use crate::pipeline::commit::CommitLog;
use crate::pipeline::ring::{Ring, Wake};
use crate::pipeline::sleep::Waker;
use crossbeam_utils::CachePadded;
use std::io;
use std::sync::{Arc, OnceLock};

/// The pool and the ring of one class.
pub struct Channel {
    /// Free chunks.
    pub pool: Pool,
    /// Full chunks.
    pub ring: Ring,
}

/// What other threads give to a reactor, and how they wake it.
pub struct ReactorPort {
    /// Chunks that reached their level (or failed), on their way back.
    pub spent: ArrayQueue<Box<Chunk>>,
    /// Set once by the reactor, before it serves anything. Padded: others write to it when they wake the reactor.
    pub wake: CachePadded<OnceLock<Wake>>,
    /// Its counts.
    pub stats: ReactorStats,
    /// How much it received lately, for reactors that could take a connection from it or give it one.
    pub load: CachePadded<Load>,
    /// Number of the last of its chunks that was written, of those with [`Chunk::announce`].
    pub written: CachePadded<AtomicU64>,
    /// The last of [`crate::pipeline::control::Control::pings`] that it answered.
    pub answered: Cell,
    /// Its commit log, once there is one. The reactor must be woken after it is put in.
    pub commit: ArrayQueue<Box<CommitLog>>,
}

/// How much a reactor received in its last window of time.
#[derive(Default)]
pub struct Load {
    /// Bytes, as of a whole window.
    pub bytes: Cell,
    /// When the window ended, in monotonic nanoseconds.
    pub until_ns: Cell,
    /// A connection is moving here, so no other one may.
    pub guest: AtomicBool,
}

impl ReactorPort {
    /// Wakes the reactor if it sleeps.
    pub fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }
}

/// One shard.
pub struct Shard {
    /// Its number.
    pub index: u16,
    /// `Class::Lossless` and, where a listener wants it, `Class::Lossy`.
    pub channels: Vec<Channel>,
    /// One per reactor.
    pub reactors: Vec<ReactorPort>,
    /// The writer's counts.
    pub writer_stats: WriterStats,
    /// The last of [`crate::pipeline::control::Control::pings`] that the writer answered.
    pub writer_answered: Cell,
    /// Wakes the writer.
    pub writer: Waker,
    /// A reactor wants everything synced in the background now.
    hurry: AtomicBool,
}

/// How large a shard is; derived in `config::memory`.
#[derive(Debug, Clone)]
pub struct ShardSize {
    /// Reactors.
    pub reactors: usize,
    /// Chunks of each class in use.
    pub chunks: Vec<(Class, usize)>,
    /// Bytes of each chunk.
    pub chunk_bytes: usize,
    /// The node whose memory it uses; `None`: any.
    pub node: Option<usize>,
}

impl Shard {
    /// Makes pools and rings.
    ///
    /// # Errors
    /// The memory cannot be mapped.
    pub fn new(index: u16, size: &ShardSize, writer: Waker) -> io::Result<Arc<Shard>> {
        let mut channels = Vec::new();
        for (class, chunks) in &size.chunks {
            let pool = Pool::new(*class, *chunks, size.chunk_bytes, size.reactors, size.node)?;
            channels.push(Channel { pool, ring: Ring::new(*chunks, Arc::clone(&writer)) });
        }
        let all: usize = size.chunks.iter().map(|(_, n)| n).sum();
        let port = || ReactorPort {
            spent: ArrayQueue::new(all.max(1)),
            wake: CachePadded::default(),
            stats: ReactorStats::default(),
            load: CachePadded::default(),
            written: CachePadded::default(),
            answered: Cell::default(),
            commit: ArrayQueue::new(1),
        };
        Ok(Arc::new(Shard {
            index,
            channels,
            reactors: (0..size.reactors).map(|_| port()).collect(),
            writer_stats: WriterStats::default(),
            writer_answered: Cell::default(),
            writer,
            hurry: AtomicBool::new(false),
        }))
    }

    /// The pool and the ring of a class.
    ///
    /// # Panics
    /// If no listener uses the class: channels are made for all that are in use.
    #[must_use]
    pub fn channel(&self, class: Class) -> &Channel {
        self.channels.iter().find(|c| c.pool.class == class).expect("a channel for each class in use")
    }

    /// Gives a chunk back to its pool, and wakes the reactors that wait for one.
    pub fn release(&self, class: Class, chunk: Box<Chunk>) {
        self.channel(class).pool.put(chunk, |reactor| self.reactors[reactor].wake());
    }

    /// Sends a chunk that reached its level back to its reactor.
    pub fn give_back(&self, chunk: Box<Chunk>) {
        let port = &self.reactors[usize::from(chunk.reactor)];
        // Cannot be full: it holds every chunk of the shard.
        let _ = port.spent.push(chunk);
        port.wake();
    }

    /// Tells a chunk's reactor that the chunk is written, before it has reached its level.
    pub fn announce_written(&self, chunk: &Chunk) {
        let port = &self.reactors[usize::from(chunk.reactor)];
        port.written.store(chunk.number, Ordering::SeqCst);
        port.wake();
    }

    /// Asks the writer to sync in the background, at once, what is written.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::SeqCst);
        (self.writer)();
    }

    /// True if that was asked for since the last look.
    #[must_use]
    pub fn take_hurry(&self) -> bool {
        self.hurry.load(Ordering::SeqCst) && self.hurry.swap(false, Ordering::SeqCst)
    }

    /// Bytes of records that all chunks can hold.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.channels.iter().map(|c| c.pool.capacity_bytes()).sum()
    }
}
