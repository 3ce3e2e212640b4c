//! What is meant: defaults, ranges and rules, and one struct of options per module.

use super::document::{ConfigError, Places};
use super::memory::{MemoryPlan, Needs};
use super::raw::{self, Ack, Count, EngineChoice, FormatWord, Io, LogFormat, LogLevel, Pin, PinWord, Raw, Reply};
use super::raw::{TooLongWord, UnterminatedWord, WhenFull};
use super::units::{Size, Time};
use crate::chunk::{Class, Level};
use crate::log::names::is_stream_name;
use crate::net::listen::Address;
use crate::session::lines::{self, Format, LinesOptions, TooLong};
use crate::topology::{Live, Machine, Pinning, Plan, Wanted};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything, divided among the modules.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where files go.
    pub data_dir: PathBuf,
    /// How long an orderly end may take.
    pub shutdown_timeout: Duration,
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
    /// How records are written.
    pub format: Format,
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
}

/// One listener.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Index of its stream.
    pub stream: u16,
    /// What happens when no chunk is free.
    pub when_full: WhenFull,
    /// Which ring its chunks take.
    pub class: Class,
    /// What its chunks wait for.
    pub level: Level,
    /// The sender is told of records as soon as they are in memory.
    pub ack_on_receipt: bool,
    /// The protocol's options.
    pub lines: Arc<LinesOptions>,
    /// Connections from one address; 0: no limit.
    pub max_connections_per_address: usize,
    /// A connection that sends nothing for so long is closed; zero: never.
    pub idle_timeout: Duration,
    /// A line that is begun and not ended for so long ends its connection; zero: never.
    pub line_timeout: Duration,
    /// Mode of the socket file.
    pub socket_mode: u32,
}

/// Most listeners and streams: each has its counters for each thread.
const MOST: usize = 256;

/// Checks everything.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(raw: Raw, places: &Places) -> Result<Options, ConfigError> {
    let check = Check { places };
    check.no_retention("retention", raw.retention.max_age, raw.retention.max_bytes, raw.retention.min_free)?;
    let mut raw_listeners = raw.listener;
    if raw_listeners.is_empty() {
        raw_listeners.insert("lines".into(), raw::Listener::default());
    }
    let streams = check.streams(&raw.stream, &raw_listeners, &raw.storage)?;
    let listeners = raw_listeners
        .iter()
        .map(|(name, listener)| check.listener(name, listener, raw_listeners.len() == 1, &streams))
        .collect::<Result<Vec<_>, _>>()?;
    check.addresses_differ(&listeners)?;
    let placement = check.placement(&raw.placement)?;
    let buffer = raw.buffer.memory.unwrap_or(Size(64 << 20));
    let memory = MemoryPlan::new(&needs(buffer, raw.engine, &placement, &listeners, &streams)).map_err(|least| {
        let longest = listeners.iter().map(|l| l.lines.max_line_bytes).max().unwrap_or(0);
        places.error(
            "buffer.memory",
            format!(
                "{buffer} is too small for these listeners: with lines up to {} it takes {least}; lower max_line_bytes or raise buffer.memory",
                Size(longest as u64)
            ),
        )
    })?;
    let admin = match raw.admin.address.as_deref() {
        Some("off") => None,
        Some(text) => Some(text.replace("localhost:", "127.0.0.1:").parse().map_err(|_| {
            places.error(
                "admin.address",
                format!("expected IP:PORT such as \"127.0.0.1:9610\", or \"off\", not \"{text}\""),
            )
        })?),
        None => Some(SocketAddr::from(([127, 0, 0, 1], 9610))),
    };
    let data_dir = PathBuf::from(raw.data_dir.as_deref().unwrap_or("./logweir-data"));
    if data_dir.as_os_str().is_empty() {
        return Err(places.error("data_dir", "expected a directory"));
    }
    Ok(Options {
        data_dir,
        shutdown_timeout: check.time("shutdown_timeout", raw.shutdown_timeout, "10s", "0s", "1h")?,
        engine: raw.engine.unwrap_or(EngineChoice::Auto),
        placement,
        buffer_bytes: buffer.0,
        memory,
        linger: check.time("buffer.linger", raw.buffer.linger, "5ms", "0s", "1s")?,
        strict: raw.storage.strict.unwrap_or(false),
        admin,
        log: LogOptions {
            level: raw.log.level.unwrap_or(LogLevel::Info),
            format: raw.log.format.unwrap_or(LogFormat::Auto),
        },
        max_connections: check.number("limits.max_connections", raw.limits.max_connections, 16_384, 1, 1_000_000)?,
        streams,
        listeners,
    })
}

fn needs(
    buffer: Size,
    engine: Option<EngineChoice>,
    placement: &Placement,
    listeners: &[ListenerOptions],
    streams: &[StreamSettings],
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
    Needs {
        memory: buffer.0 as usize,
        shards: placement.shards,
        reactors_per_shard: placement.reactors_per_shard,
        lanes,
        max_line_bytes: listeners.iter().map(|l| l.lines.max_line_bytes).max().unwrap_or(0),
        least_chunk_bytes: listeners.iter().map(|l| lines::least_chunk_bytes(&l.lines)).max().unwrap_or(0),
        has_ring: engine != Some(EngineChoice::Epoll),
        direct_streams: streams.iter().filter(|s| s.io == Io::Direct).count(),
        discards: listeners.iter().any(|l| l.when_full == WhenFull::DropNewest),
    }
}

struct Check<'a> {
    places: &'a Places,
}

impl Check<'_> {
    fn time(
        &self,
        key: &str,
        value: Option<Time>,
        default: &str,
        least: &str,
        most: &str,
    ) -> Result<Duration, ConfigError> {
        let parse = |text: &str| Time::parse(text).unwrap_or(Time(Duration::ZERO));
        let value = value.unwrap_or_else(|| parse(default));
        if value < parse(least) || value > parse(most) {
            return Err(self.places.error(key, format!("expected {least} to {most}, not {value}")));
        }
        Ok(value.0)
    }

    fn size(&self, key: &str, value: Option<Size>, default: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
        let value = value.unwrap_or(Size(default));
        if value.0 < least || value.0 > most {
            return Err(self.places.error(key, format!("expected {} to {}, not {value}", Size(least), Size(most))));
        }
        Ok(value.0)
    }

    fn number(
        &self,
        key: &str,
        value: Option<usize>,
        default: usize,
        least: usize,
        most: usize,
    ) -> Result<usize, ConfigError> {
        let value = value.unwrap_or(default);
        if value < least || value > most {
            return Err(self.places.error(key, format!("expected {least} to {most}, not {value}")));
        }
        Ok(value)
    }

    fn name(&self, key: &str, name: &str) -> Result<(), ConfigError> {
        if is_stream_name(name) {
            return Ok(());
        }
        Err(self.places.error(key, format!("expected a name of 1 to 64 of a-z, 0-9, _ and -, not \"{name}\"")))
    }

    fn no_retention(
        &self,
        section: &str,
        age: Option<Time>,
        bytes: Option<Size>,
        free: Option<Size>,
    ) -> Result<(), ConfigError> {
        let set = [("max_age", age.is_some()), ("max_bytes", bytes.is_some()), ("min_free", free.is_some())];
        match set.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(self.places.error(
                &format!("{section}.{key}"),
                "this version deletes nothing by itself; leave the key out and remove sealed segments (*.log) with another tool",
            )),
            None => Ok(()),
        }
    }

    fn placement(&self, raw: &raw::Placement) -> Result<Placement, ConfigError> {
        let count = |key: &str, value: Option<Count>| match value {
            Some(Count::Number(n)) => self.number(key, Some(n), n, 1, 64).map(Some),
            _ => Ok(None),
        };
        let pinning = match &raw.pin {
            Some(Pin::Cores(list)) if list.is_empty() => {
                return Err(self.places.error("placement.pin", "expected at least one core, \"auto\" or \"none\""));
            }
            Some(Pin::Cores(list)) => Pinning::Cpus(list.clone()),
            Some(Pin::Word(PinWord::None)) => Pinning::None,
            Some(Pin::Word(PinWord::Auto)) | None => Pinning::Auto,
        };
        if let Pinning::Cpus(list) = &pinning
            && let Some(core) = list.iter().find(|core| **core >= nix::sched::CpuSet::count())
        {
            return Err(self.places.error("placement.pin", format!("there is no core {core}")));
        }
        let wanted = Wanted {
            shards: count("placement.shards", raw.shards)?,
            reactors_per_shard: count("placement.reactors_per_shard", raw.reactors_per_shard)?,
            pinning,
        };
        let plan = Plan::new(&Machine::read(&Live), &wanted);
        Ok(Placement { shards: plan.shards.len(), reactors_per_shard: plan.reactors_per_shard(), plan })
    }

    fn streams(
        &self,
        raw: &std::collections::BTreeMap<String, raw::Stream>,
        listeners: &std::collections::BTreeMap<String, raw::Listener>,
        storage: &raw::Storage,
    ) -> Result<Vec<StreamSettings>, ConfigError> {
        for (name, stream) in raw {
            self.name(&format!("stream.{name}"), name)?;
            self.no_retention(&format!("stream.{name}"), stream.max_age, stream.max_bytes, stream.min_free)?;
        }
        let mut names: Vec<(&str, String)> = listeners
            .iter()
            .map(|(name, l)| (l.stream.as_deref().unwrap_or("default"), format!("listener.{name}.stream")))
            .collect();
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        if names.len() > MOST {
            return Err(self.places.error("listener", format!("expected at most {MOST} streams, not {}", names.len())));
        }
        let none = raw::Stream::default();
        names
            .into_iter()
            .map(|(name, key)| {
                self.name(&key, name)?;
                self.stream(name, raw.get(name).unwrap_or(&none), storage)
            })
            .collect()
    }

    fn stream(&self, name: &str, raw: &raw::Stream, storage: &raw::Storage) -> Result<StreamSettings, ConfigError> {
        // Errors name the section in which the value stands.
        let key = |own: bool, key: &str| if own { format!("stream.{name}.{key}") } else { format!("storage.{key}") };
        macro_rules! value {
            ($key:ident) => {
                (key(raw.$key.is_some(), stringify!($key)), raw.$key.or(storage.$key))
            };
        }
        let (segment_size, segment_age) = (value!(segment_size), value!(segment_age));
        let (reserve_step, sync_interval, sync_bytes) =
            (value!(reserve_step), value!(sync_interval), value!(sync_bytes));
        let io = raw.io.or(storage.io).unwrap_or(Io::Auto);
        Ok(StreamSettings {
            name: name.to_string(),
            format: match raw.format.unwrap_or(FormatWord::Raw) {
                FormatWord::Raw => Format::Raw,
                FormatWord::Json => Format::Json,
            },
            io,
            segment_bytes: self.size(&segment_size.0, segment_size.1, 256 << 20, 64 << 10, 1 << 40)?,
            segment_age: self.time(&segment_age.0, segment_age.1, "1h", "1s", "365days")?,
            reserve_step: self.size(&reserve_step.0, reserve_step.1, 64 << 20, 0, 1 << 34)?,
            sync_interval: self.time(&sync_interval.0, sync_interval.1, "500ms", "1ms", "1h")?,
            sync_bytes: self.size(&sync_bytes.0, sync_bytes.1, 64 << 20, 64 << 10, 1 << 34)?,
        })
    }

    fn listener(
        &self,
        name: &str,
        raw: &raw::Listener,
        only: bool,
        streams: &[StreamSettings],
    ) -> Result<ListenerOptions, ConfigError> {
        let key = |k: &str| format!("listener.{name}.{k}");
        self.name(&format!("listener.{name}"), name)?;
        let address = match &raw.address {
            Some(text) => text.parse::<Address>().map_err(|message| self.places.error(&key("address"), message))?,
            None if only => Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 5170))),
            None => return Err(self.places.error(&format!("listener.{name}"), "expected an `address` here")),
        };
        let stream_name = raw.stream.as_deref().unwrap_or("default");
        let stream = streams.iter().position(|s| s.name == stream_name).unwrap_or(0);
        let when_full = raw.when_full.unwrap_or(WhenFull::Block);
        let reply_count = raw.reply == Some(Reply::Count);
        let answers = matches!(address, Address::Tcp(_) | Address::Unix(_));
        if reply_count && !answers {
            return Err(self.places.error(&key("reply"), format!("nothing can be sent back over {address}")));
        }
        let ack = raw.ack.unwrap_or(Ack::Durable);
        if when_full == WhenFull::DropOldest && reply_count && ack != Ack::Received {
            let message = format!(
                "when_full = \"drop_oldest\" may evict what was received, so ack = \"{ack}\" cannot be promised; set ack = \"received\" or another when_full"
            );
            return Err(self.places.error(&key(if raw.ack.is_some() { "ack" } else { "when_full" }), message));
        }
        if reply_count && raw.too_long == Some(TooLongWord::Drop) {
            let message = "with reply = \"count\" a line dropped in between would be taken for one that is there; expected \"truncate\" or \"close\"";
            return Err(self.places.error(&key("too_long"), message));
        }
        let max_line = self.size(&key("max_line_bytes"), raw.max_line_bytes, 1 << 20, 128, 256 << 20)? as usize;
        let mode = raw.socket_mode.as_deref().unwrap_or("0660");
        let socket_mode = u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o777).ok_or_else(|| {
            self.places.error(&key("socket_mode"), format!("expected a mode such as \"0660\", not \"{mode}\""))
        })?;
        Ok(ListenerOptions {
            name: name.to_string(),
            address,
            stream: stream as u16,
            when_full,
            class: if when_full == WhenFull::DropOldest { Class::Lossy } else { Class::Lossless },
            level: match (reply_count, ack) {
                (false, _) | (true, Ack::Received) => Level::None,
                (true, Ack::Written) => Level::Written,
                (true, Ack::Durable) => Level::Durable,
            },
            ack_on_receipt: reply_count && ack == Ack::Received,
            lines: Arc::new(LinesOptions {
                listener: name.to_string(),
                max_line_bytes: max_line,
                too_long: match raw.too_long.unwrap_or(TooLongWord::Truncate) {
                    TooLongWord::Truncate => TooLong::Truncate,
                    TooLongWord::Drop => TooLong::Drop,
                    TooLongWord::Close => TooLong::Close,
                },
                strip_cr: raw.strip_cr.unwrap_or(false),
                keep_unterminated: raw.unterminated != Some(UnterminatedWord::Drop),
                reply_count,
                format: streams[stream].format,
            }),
            max_connections_per_address: self.number(
                &key("max_connections_per_address"),
                raw.max_connections_per_address,
                4096,
                0,
                1_000_000,
            )?,
            idle_timeout: self.time(&key("idle_timeout"), raw.idle_timeout, "1h", "0s", "365days")?,
            line_timeout: self.time(&key("line_timeout"), raw.line_timeout, "30s", "0s", "1day")?,
            socket_mode,
        })
    }

    fn addresses_differ(&self, listeners: &[ListenerOptions]) -> Result<(), ConfigError> {
        if listeners.len() > MOST {
            return Err(self
                .places
                .error("listener", format!("expected at most {MOST} listeners, not {}", listeners.len())));
        }
        for (i, listener) in listeners.iter().enumerate() {
            let free_port = matches!(listener.address, Address::Tcp(a) if a.port() == 0);
            let same = listeners[..i].iter().find(|other| other.address == listener.address);
            if let (Some(other), false) = (same, free_port) {
                let message = format!("{} is the address of listener.{} too", listener.address, other.name);
                return Err(self.places.error(&format!("listener.{}.address", listener.name), message));
            }
        }
        Ok(())
    }
}
