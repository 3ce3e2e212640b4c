//! The second stage of a configuration: applies defaults, checks ranges and rules, and makes one struct of options for each
//! module.

use super::commit_log::CommitLogSize;
use super::document::Written as Read;
use super::listener::{Surroundings, Written};
use super::memory::{MemoryPlan, Needs};
use super::raw::{self, Compress, Count, EngineChoice, Io, LogFormat, LogLevel, Pin, PinWord};
use super::ship::{self, ShipTarget};
use crate::host::address::Address;
use crate::host::topology::{Live, Machine, Pinning, Plan, Wanted};
use crate::intake::listener::{ListenerOptions, WhenFull};
use crate::log::names::is_stream_name;
use crate::log::real_disk::FileAccess;
use crate::pipeline::chunk::{Class, Level};
use crate::protocol::Protocols;
use crate::protocol::http::PAGES_SCRATCH;
use crate::session::memory::room::Room;
use crate::session::write::Format;
use crate::settings::units::{Size, Time};
use crate::settings::{ConfigError, ConfigErrors, Places};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toml::de::DeTable;

/// All options, divided among the modules.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where files go.
    pub data_dir: PathBuf,
    /// How long an orderly end may take.
    pub shutdown_timeout: Duration,
    /// How long readiness fails before an orderly end begins.
    pub drain_delay: Duration,
    /// TLS handshakes a second, for each reactor.
    pub tls_handshakes_per_second: usize,
    /// Bits of an IPv6 address that are one client's.
    pub ipv6_prefix: u8,
    /// Memory that is leased: for decoders and documents.
    pub room: Arc<Room>,
    /// How sockets are driven.
    pub engine: EngineChoice,
    /// Threads.
    pub placement: Placement,
    /// `buffer.memory`, in bytes.
    pub buffer_bytes: u64,
    /// Its division.
    pub memory: MemoryPlan,
    /// How long a chunk that nobody waits for may stay open.
    pub linger: Duration,
    /// Damage found at start refuses the start.
    pub strict: bool,
    /// Who may read the files.
    pub files: FileAccess,
    /// The commit logs of the reactors.
    pub commit_log: CommitLogSize,
    /// Sealed segments move there; `None`: they stay where they were written.
    pub sealed_dir: Option<PathBuf>,
    /// Metrics and health; `None`: off.
    pub admin: Option<SocketAddr>,
    /// Our own log.
    pub log: LogOptions,
    /// Connections in all.
    pub max_connections: usize,
    /// The streams in use, sorted by name.
    pub streams: Vec<StreamSettings>,
    /// The listeners, sorted by name.
    pub listeners: Vec<ListenerOptions>,
    /// Where lines go on to, sorted by name.
    pub ship: Vec<ShipTarget>,
}

/// Threads and cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Shards.
    pub shards: usize,
    /// Reactors in each.
    pub reactors_per_shard: usize,
    /// Where each goes.
    pub plan: Plan,
}

/// Our own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Least severity that is shown.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its name.
    pub name: String,
    /// How records are written; `None`: as the protocol that they come by says.
    pub format: Option<Format>,
    /// How appends are made.
    pub io: Io,
    /// Bytes of a segment at most.
    pub segment_bytes: u64,
    /// Age of an active segment at most, from its first line.
    pub segment_age: Duration,
    /// Bytes reserved ahead; 0: none.
    pub reserve_step: u64,
    /// Time between a write and its sync at most.
    pub sync_interval: Duration,
    /// Bytes between syncs at most.
    pub sync_bytes: u64,
    /// zstd's level for sealed segments; `None`: they stay plain.
    pub compress: Option<i32>,
    /// When sealed segments are deleted.
    pub retention: RetentionOptions,
}

/// When sealed segments of a stream are deleted, oldest first; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionOptions {
    /// So long after their last line.
    pub max_age: Option<Duration>,
    /// When the files of the stream, with those being written, would have more bytes.
    pub max_bytes: Option<u64>,
    /// When the file system has fewer bytes free.
    pub min_free: Option<u64>,
}

/// Part of `buffer.memory` that is leased, where a listener's protocol leases any.
const LEASED_SHARE: u64 = 4;
/// Most listeners and streams: each has its counters for each thread.
const MOST: usize = 256;

/// Checks everything. `running` are the options of a server that reads its configuration again. Its streams keep their numbers,
/// because chunks name their streams by number, and its leased memory stays as it is.
///
/// # Errors
/// Every error.
pub fn check(
    read: Read<'_>,
    places: &Places,
    protocols: Protocols,
    running: Option<&Options>,
) -> Result<Options, ConfigErrors> {
    let Read { mut raw, mut own } = read;
    let check = Check { places };
    if raw.listener.is_empty() {
        raw.listener.insert("lines".into(), raw::Listener::default());
    }
    for name in raw.listener.keys() {
        own.entry(name.clone()).or_insert_with(DeTable::new);
    }
    let written: Vec<Written<'_>> =
        raw.listener.iter().map(|(name, common)| Written { name, common, own: &own[name] }).collect();
    let placement = check.placement(&raw.placement);
    let stored = check.storage(&raw.storage, &raw.retention, placement.shards as u64);
    let mut streams = check.streams(&raw.stream, &written, &stored);
    if let Some(running) = running {
        streams = renumbered(streams, &running.streams);
    }
    let entries: Vec<_> = written.iter().map(|l| check.entry(l, protocols).ok()).collect();
    // JSON takes up to seven times as much room for a line, and documents are gathered.
    let makes_json =
        written.iter().zip(&entries).any(|(l, entry)| entry.is_some_and(|e| l.default_format(e) == Format::Json));
    let buffer = raw.buffer.memory.unwrap_or(Size(if makes_json { 128 << 20 } else { 64 << 20 }));
    let leased = if entries.iter().flatten().any(|entry| entry.leases) { buffer.0 / LEASED_SHARE } else { 0 };
    let room = running.map_or_else(|| Room::new(leased as usize), |running| Arc::clone(&running.room));
    check.tokens_are_used(&raw.token, &written);
    let tokens = check.tokens(&raw.token, &streams);
    let around = Surroundings {
        only: written.len() == 1,
        protocols,
        streams: &streams,
        tokens: &tokens,
        room: &room,
        running: running.map_or(&[], |running| &running.listeners),
    };
    let listeners: Vec<_> = written.iter().filter_map(|l| places.kept(check.listener(l, &around))).collect();
    places.kept(check.addresses_differ(&listeners));
    let admin = check.admin(raw.admin.address.as_deref());
    let taken = admin.and_then(|admin| listeners.iter().find(|l| collide(&l.address, &Address::Tcp(admin))));
    if let Some(listener) = taken {
        let message = format!("{} is the address of listener.{}", listener.address, listener.name);
        places.broken(places.error("admin.address", message));
    }
    let engine = places.word("engine", raw.engine, EngineChoice::Auto);
    let log = LogOptions {
        level: places.word("log.level", raw.log.level, LogLevel::Info),
        format: places.word("log.format", raw.log.format, LogFormat::Auto),
    };
    let limits = &raw.limits;
    let shutdown_timeout = places.time("shutdown_timeout", raw.shutdown_timeout, "10s", "0s", "1h");
    let drain_delay = places.time("drain_delay", raw.drain_delay, "0s", "0s", "1h");
    let tls_handshakes_per_second =
        places.number("limits.tls_handshakes_per_second", limits.tls_handshakes_per_second, 200, 1, 1_000_000);
    let ipv6_prefix = places.number("limits.ipv6_prefix", limits.ipv6_prefix, 64, 0, 128) as u8;
    let max_connections = places.number("limits.max_connections", limits.max_connections, 16_384, 1, 1_000_000);
    let linger = places.time("buffer.linger", raw.buffer.linger, "5ms", "0s", "1s");
    let files = check.file_access(&raw.storage);
    let strict = places.flag("storage.strict", raw.storage.strict, false);
    let data_dir = PathBuf::from(places.word("data_dir", raw.data_dir, "./logweir-data".into()));
    if data_dir.as_os_str().is_empty() {
        places.note(places.error("data_dir", "expected a directory"));
    }
    places.in_force("buffer.memory", Some(format!("\"{}\"", buffer.exact())));
    let sealed_dir = places.kept(check.sealed_dir(raw.storage.sealed_dir.as_deref(), &data_dir)).flatten();
    let commit_log = check.commit_log(raw.storage.commit_log);
    let ship = ship::targets(places, &raw.ship);
    places.verdict()?;
    // What depends on everything else.
    let memory = MemoryPlan::new(&needs(buffer, &room, (engine, commit_log), &placement, &listeners, &streams, admin.is_some())).map_err(|least| {
        let longest = listeners.iter().map(|l| l.max_line_bytes).max().unwrap_or(0);
        places.error(
            "buffer.memory",
            format!(
                "{buffer} is too small for these listeners: with lines up to {} it takes {least}; lower max_line_bytes or raise buffer.memory",
                Size(longest as u64)
            ),
        )
    })?;
    Ok(Options {
        data_dir,
        shutdown_timeout,
        drain_delay,
        tls_handshakes_per_second,
        ipv6_prefix,
        room,
        engine,
        placement,
        buffer_bytes: buffer.0,
        memory,
        linger,
        strict,
        files,
        sealed_dir,
        commit_log,
        admin,
        log,
        max_connections,
        streams,
        listeners,
        ship,
    })
}

/// First the streams of a running server in their order (also those that no listener names any more), then the new ones.
fn renumbered(new: Vec<StreamSettings>, running: &[StreamSettings]) -> Vec<StreamSettings> {
    let mut streams = running.to_vec();
    for settings in new {
        match streams.iter().position(|s| s.name == settings.name) {
            Some(place) => streams[place] = settings,
            None => streams.push(settings),
        }
    }
    streams
}

impl Options {
    /// What the division of memory depends on, with these listeners.
    #[must_use]
    pub fn needs_of(&self, listeners: &[ListenerOptions]) -> Needs {
        needs(
            Size(self.buffer_bytes),
            &self.room,
            (self.engine, self.commit_log),
            &self.placement,
            listeners,
            &self.streams,
            self.admin.is_some(),
        )
    }
}

fn needs(
    buffer: Size,
    room: &Room,
    (engine, commit_log): (EngineChoice, CommitLogSize),
    placement: &Placement,
    listeners: &[ListenerOptions],
    streams: &[StreamSettings],
    has_admin: bool,
) -> Needs {
    let mut lanes: Vec<(Class, usize)> = Vec::new();
    for class in [Class::Lossless, Class::Lossy] {
        let mut levels: Vec<Level> = listeners.iter().filter(|l| l.class == class).map(|l| l.level).collect();
        levels.sort();
        levels.dedup();
        if !levels.is_empty() {
            lanes.push((class, levels.len()));
        }
    }
    let mut rests: Vec<_> = listeners.iter().filter(|l| l.leaves_rests()).map(|l| (l.class, l.level)).collect();
    rests.sort();
    rests.dedup();
    Needs {
        memory: buffer.0 as usize,
        shards: placement.shards,
        reactors_per_shard: placement.reactors_per_shard,
        lanes,
        longest_tail: listeners.iter().map(ListenerOptions::longest_tail).max().unwrap_or(0),
        least_chunk_bytes: listeners.iter().map(ListenerOptions::least_chunk_bytes).max().unwrap_or(0),
        has_ring: engine != EngineChoice::Epoll,
        has_commit_log: engine != EngineChoice::Epoll
            && commit_log != CommitLogSize::Off
            && listeners.iter().any(|l| l.level == Level::Durable),
        direct_streams: streams.iter().filter(|s| s.io == Io::Direct).count(),
        discards: listeners.iter().any(|l| l.when_full == WhenFull::DropNewest || l.profile().refuses_after.is_some()),
        scratch: {
            let admin = if has_admin { PAGES_SCRATCH } else { 0 };
            listeners.iter().map(ListenerOptions::scratch_bytes).max().unwrap_or(0).max(admin)
        },
        datagrams: listeners.iter().any(ListenerOptions::is_datagram),
        rests: rests.len(),
        leased: if listeners.iter().any(|l| l.profile().leases) { room.bytes() } else { 0 },
    }
}

/// True where two cannot listen at once: on the same address, or with the same port where one of them is all addresses of the host. Port 0 is
/// a free one.
fn collide(one: &Address, other: &Address) -> bool {
    let (one, other) = match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) | (Address::Udp(one), Address::Udp(other)) => (one, other),
        _ => return one == other,
    };
    // `[::]` is all addresses of IPv4 as well (ipv6(7)).
    let holds = |all: &SocketAddr, one: &SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || holds(one, other) || holds(other, one))
}

/// The defaults of streams: `[storage]` and `[retention]`, checked.
struct Stored<'a> {
    defaults: StreamSettings,
    compress: Compress,
    compress_level: usize,
    retention: &'a raw::Retention,
    shards: u64,
}

pub(super) struct Check<'a> {
    pub places: &'a Places,
}

impl Check<'_> {
    pub fn name(&self, key: &str, name: &str) -> Result<(), ConfigError> {
        if is_stream_name(name) {
            return Ok(());
        }
        Err(self.places.error(key, format!("expected a name of 1 to 64 of a-z, 0-9, _ and -, not \"{name}\"")))
    }

    /// When a stream's segments are deleted; its own keys come before those of `[retention]`, and 0 is "never".
    fn retention(
        &self,
        name: &str,
        raw: &raw::Stream,
        stored: &Stored<'_>,
        segment_bytes: u64,
    ) -> Result<RetentionOptions, ConfigError> {
        let key = |own: bool, key: &str| if own { format!("stream.{name}.{key}") } else { format!("retention.{key}") };
        let (age, bytes) = (raw.max_age.or(stored.retention.max_age), raw.max_bytes.or(stored.retention.max_bytes));
        let free = raw.min_free.or(stored.retention.min_free);
        let own = |key: &str| format!("stream.{name}.{key}");
        self.places.optional(&own("max_age"), age.as_ref());
        self.places.optional(&own("max_bytes"), bytes.map(Size::exact).as_ref());
        self.places.optional(&own("min_free"), free.map(Size::exact).as_ref());
        let (age, bytes) = (age.filter(|t| !t.0.is_zero()), bytes.filter(|s| s.0 > 0));
        if let Some(age) =
            age.filter(|age| age.0 < Duration::from_secs(1) || age.0 > Duration::from_secs(36_500 * 86_400))
        {
            let message = format!("expected 1s to 36500days, not {age}");
            return Err(self.places.error(&key(raw.max_age.is_some(), "max_age"), message));
        }
        // What is being written is not deleted, and as much again is needed for what is sealed.
        let least = segment_bytes.saturating_mul(stored.shards).saturating_mul(2);
        if let Some(most) = bytes.filter(|most| most.0 < least) {
            let message = format!(
                "{most} is too little: {} shard(s) with segments of {} need {} at least; lower segment_size or raise it",
                stored.shards,
                Size(segment_bytes),
                Size(least)
            );
            return Err(self.places.error(&key(raw.max_bytes.is_some(), "max_bytes"), message));
        }
        let free = free.filter(|s| s.0 > 0);
        Ok(RetentionOptions { max_age: age.map(|t| t.0), max_bytes: bytes.map(|s| s.0), min_free: free.map(|s| s.0) })
    }

    fn admin(&self, text: Option<&str>) -> Option<SocketAddr> {
        let text = text.unwrap_or("127.0.0.1:9610");
        self.places.in_force("admin.address", Some(format!("\"{text}\"")));
        if text == "off" {
            return None;
        }
        let address = text.replace("localhost:", "127.0.0.1:").parse().map_err(|_| {
            let message = format!("expected IP:PORT such as \"127.0.0.1:9610\", or \"off\", not \"{text}\"");
            self.places.error("admin.address", message)
        });
        self.places.kept(address)
    }

    fn sealed_dir(&self, text: Option<&str>, data_dir: &Path) -> Result<Option<PathBuf>, ConfigError> {
        self.places.in_force(
            "storage.sealed_dir",
            Some(toml::Value::String(text.unwrap_or("").replace('$', "$$")).to_string()),
        );
        let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            return Err(self.places.error("storage.sealed_dir", format!("expected an absolute path, not \"{text}\"")));
        }
        // As they are in the end, where they exist: one of them may be relative, or a symlink.
        let real =
            |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or(path.into());
        let (own, data) = (real(&path), real(data_dir));
        if own.starts_with(&data) || data.starts_with(&own) {
            return Err(self
                .places
                .error("storage.sealed_dir", "expected a directory outside of data_dir that does not contain it"));
        }
        Ok(Some(path))
    }

    fn placement(&self, raw: &raw::Placement) -> Placement {
        let count = |key: &str, value: Option<Count>| match value {
            Some(Count::Number(n)) => Some(self.places.number(key, Some(n), 1, 1, 64)),
            _ => {
                self.places.in_force(key, Some("\"auto\"".into()));
                None
            }
        };
        let shown = match &raw.pin {
            Some(Pin::Cores(list)) => format!("{list:?}"),
            Some(Pin::Word(PinWord::None)) => "\"none\"".into(),
            _ => "\"auto\"".into(),
        };
        self.places.in_force("placement.pin", Some(shown));
        let wrong = |message: String| {
            self.places.note(self.places.error("placement.pin", message));
            Pinning::None
        };
        let pinning = match &raw.pin {
            Some(Pin::Cores(list)) if list.is_empty() => {
                wrong("expected at least one core, \"auto\" or \"none\"".into())
            }
            Some(Pin::Cores(list)) => match list.iter().find(|core| **core >= nix::sched::CpuSet::count()) {
                Some(core) => wrong(format!("there is no core {core}")),
                None => Pinning::Cpus(list.clone()),
            },
            Some(Pin::Word(PinWord::None)) => Pinning::None,
            Some(Pin::Word(PinWord::Auto)) | None => Pinning::Auto,
        };
        let wanted = Wanted {
            shards: count("placement.shards", raw.shards),
            reactors_per_shard: count("placement.reactors_per_shard", raw.reactors_per_shard),
            pinning,
        };
        let plan = Plan::new(&Machine::read(&Live), &wanted);
        Placement { shards: plan.shards.len(), reactors_per_shard: plan.reactors_per_shard(), plan }
    }

    /// `[storage]` and `[retention]`, which are the defaults of all streams.
    fn storage<'a>(&self, raw: &raw::Storage, retention: &'a raw::Retention, shards: u64) -> Stored<'a> {
        let places = self.places;
        places.optional("retention.max_age", retention.max_age.as_ref());
        places.optional("retention.max_bytes", retention.max_bytes.map(Size::exact).as_ref());
        places.optional("retention.min_free", retention.min_free.map(Size::exact).as_ref());
        let defaults = StreamSettings {
            name: String::new(),
            format: None,
            io: places.word("storage.io", raw.io, Io::Auto),
            segment_bytes: places.size("storage.segment_size", raw.segment_size, 256 << 20, 64 << 10, 1 << 40),
            segment_age: places.time("storage.segment_age", raw.segment_age, "1h", "1s", "365days"),
            reserve_step: places.size("storage.reserve_step", raw.reserve_step, 64 << 20, 0, 1 << 34),
            sync_interval: places.time("storage.sync_interval", raw.sync_interval, "500ms", "1ms", "1h"),
            sync_bytes: places.size("storage.sync_bytes", raw.sync_bytes, 64 << 20, 64 << 10, 1 << 34),
            compress: None,
            retention: RetentionOptions::default(),
        };
        let compress = places.word("storage.compress", raw.compress, Compress::None);
        let compress_level = places.number("storage.compress_level", raw.compress_level, 3, 1, 19);
        Stored { defaults, compress, compress_level, retention, shards }
    }

    fn streams(
        &self,
        raw: &std::collections::BTreeMap<String, raw::Stream>,
        listeners: &[Written<'_>],
        stored: &Stored<'_>,
    ) -> Vec<StreamSettings> {
        for name in raw.keys() {
            self.places.kept(self.name(&format!("stream.{name}"), name));
        }
        let mut names: Vec<(&str, String)> = listeners.iter().flat_map(Written::streams).collect();
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        if names.len() > MOST {
            let message = format!("expected at most {MOST} streams, not {}", names.len());
            self.places.note(self.places.error("listener", message));
            names.truncate(MOST);
        }
        let none = raw::Stream::default();
        let mut streams = Vec::new();
        for (name, key) in names {
            self.places.kept(self.name(&key, name));
            streams.push(self.stream(name, raw.get(name).unwrap_or(&none), stored));
        }
        streams
    }

    fn stream(&self, name: &str, raw: &raw::Stream, stored: &Stored<'_>) -> StreamSettings {
        let (places, defaults) = (self.places, &stored.defaults);
        let key = |key: &str| format!("stream.{name}.{key}");
        let time = |k: &str, own: Option<Time>, default: Duration, least: &str, most: &str| {
            places.time(&key(k), own, &Time(default).to_string(), least, most)
        };
        places.optional(&key("format"), raw.format.as_ref());
        let compress = places.word(&key("compress"), raw.compress, stored.compress);
        let level = places.number(&key("compress_level"), raw.compress_level, stored.compress_level, 1, 19);
        let segment_bytes =
            places.size(&key("segment_size"), raw.segment_size, defaults.segment_bytes, 64 << 10, 1 << 40);
        StreamSettings {
            name: name.to_string(),
            format: raw.format.map(Format::from),
            io: places.word(&key("io"), raw.io, defaults.io),
            segment_bytes,
            segment_age: time("segment_age", raw.segment_age, defaults.segment_age, "1s", "365days"),
            reserve_step: places.size(&key("reserve_step"), raw.reserve_step, defaults.reserve_step, 0, 1 << 34),
            sync_interval: time("sync_interval", raw.sync_interval, defaults.sync_interval, "1ms", "1h"),
            sync_bytes: places.size(&key("sync_bytes"), raw.sync_bytes, defaults.sync_bytes, 64 << 10, 1 << 34),
            compress: (compress == Compress::Zstd).then_some(level as i32),
            retention: places.kept(self.retention(name, raw, stored, segment_bytes)).unwrap_or_default(),
        }
    }

    fn addresses_differ(&self, listeners: &[ListenerOptions]) -> Result<(), ConfigError> {
        if listeners.len() > MOST {
            return Err(self
                .places
                .error("listener", format!("expected at most {MOST} listeners, not {}", listeners.len())));
        }
        for (i, listener) in listeners.iter().enumerate() {
            if let Some(other) = listeners[..i].iter().find(|other| collide(&other.address, &listener.address)) {
                let message = match other.address == listener.address {
                    true => format!("{} is the address of listener.{} too", listener.address, other.name),
                    false => format!(
                        "{} is part of {}, the address of listener.{}",
                        listener.address, other.address, other.name
                    ),
                };
                return Err(self.places.error(&format!("listener.{}.address", listener.name), message));
            }
        }
        Ok(())
    }
}
