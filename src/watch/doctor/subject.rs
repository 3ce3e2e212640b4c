//! What a configuration needs of the host.

use crate::config::Options;
use crate::config::raw::{EngineChoice, Io};
use crate::host::address::Address;
use std::path::PathBuf;
use std::time::Duration;

/// The retention of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Older segments are deleted.
    pub max_age: Option<Duration>,
    /// The oldest are deleted above so many bytes.
    pub max_bytes: Option<u64>,
    /// The oldest are deleted while less than so many bytes are free.
    pub min_free: Option<u64>,
}

impl Retention {
    /// True if retention bounds the size of the files, whatever is sent.
    fn is_bounded(&self) -> bool {
        self.max_bytes.is_some() || self.min_free.is_some()
    }
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamNeeds {
    /// Its name.
    pub name: String,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes reserved ahead.
    pub reserve_step: u64,
    /// Some of its writes are made with `RWF_DONTCACHE` where that works.
    pub wants_dont_cache: bool,
    /// Its retention.
    pub retention: Retention,
}

impl StreamNeeds {
    /// True if retention bounds the size of its files.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.retention.is_bounded()
    }
}

/// The part of a configuration that depends on the host.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Where files go.
    pub data_dir: PathBuf,
    /// `limits.max_connections`
    pub max_connections: usize,
    /// `buffer.memory`
    pub buffer_bytes: u64,
    /// Bytes that one connection may take besides.
    pub connection_bytes: usize,
    /// `engine`
    pub engine: EngineChoice,
    /// Shards.
    pub shards: usize,
    /// Reactors in each.
    pub reactors_per_shard: usize,
    /// Shards are tied to nodes.
    pub is_pinned_to_nodes: bool,
    /// Where sealed segments move to, if they do.
    pub sealed_dir: Option<PathBuf>,
    /// Listeners.
    pub listeners: usize,
    /// Datagram listeners.
    pub datagrams: usize,
    /// Some listener takes TCP.
    pub has_tcp: bool,
    /// Streams.
    pub streams: Vec<StreamNeeds>,
}

impl Subject {
    /// Takes it from the options.
    #[must_use]
    pub fn new(options: &Options) -> Subject {
        let is_datagram = |a: &Address| !matches!(a, Address::Tcp(_) | Address::Unix(_) | Address::Stdin);
        let streams = options.streams.iter().map(|s| StreamNeeds {
            name: s.name.clone(),
            segment_bytes: s.segment_bytes,
            reserve_step: s.reserve_step,
            wants_dont_cache: matches!(s.io, Io::Auto | Io::DontCache),
            retention: Retention {
                max_age: s.retention.max_age,
                max_bytes: s.retention.max_bytes,
                min_free: s.retention.min_free,
            },
        });
        let plan = &options.placement.plan;
        Subject {
            data_dir: options.data_dir.clone(),
            max_connections: options.max_connections,
            buffer_bytes: options.buffer_bytes,
            connection_bytes: crate::intake::reactor::bytes_per_connection(&options.listeners),
            engine: options.engine,
            shards: options.placement.shards,
            reactors_per_shard: options.placement.reactors_per_shard,
            is_pinned_to_nodes: plan.shards.iter().any(|s| s.node.is_some()),
            sealed_dir: options.sealed_dir.clone(),
            listeners: options.listeners.len(),
            datagrams: options.listeners.iter().filter(|l| is_datagram(&l.address)).count(),
            has_tcp: options.listeners.iter().any(|l| matches!(l.address, Address::Tcp(_))),
            streams: streams.collect(),
        }
    }

    /// Bytes that logweir may take at most: lines, connections, program.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        /// Program text, stacks, everything that is not counted with the lines.
        const PROGRAM: u64 = 16 << 20;
        self.buffer_bytes + (self.max_connections * self.connection_bytes) as u64 + PROGRAM
    }

    /// Descriptors that it may take at most, as `limits::connections_that_fit` counts them.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        let listening = self.listeners * self.shards * self.reactors_per_shard * 2;
        (128 + self.streams.len() * self.shards * 10 + listening + self.max_connections) as u64
    }

    /// Threads that carry lines: reactors and writers.
    #[must_use]
    pub fn busy_threads(&self) -> usize {
        self.shards * (self.reactors_per_shard + 1)
    }
}
