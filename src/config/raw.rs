//! The first stage of a configuration: the keys as they were written. Every key is optional here; defaults and ranges are in
//! [`super::checked`].

use super::ship::{Compression, Delivery, Key, Partition, Sasl, Start};
use crate::intake::listener::WhenFull;
use crate::settings::units::{Size, Time};
use crate::{section, words};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A number or the word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or a whole number")]
pub enum Count {
    /// As many.
    Number(usize),
    /// Derived.
    Word(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// `auto`
    Auto,
}

/// `placement.pin`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\", \"none\" or a list of cores such as [0, 1]")]
pub enum Pin {
    /// `auto` or `none`.
    Word(PinWord),
    /// These cores, used in turn.
    Cores(Vec<usize>),
}

/// `auto` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinWord {
    /// Left to logweir.
    Auto,
    /// Left to the kernel.
    None,
}

/// `storage.commit_log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\", \"off\" or a size such as \"16MiB\"")]
pub enum CommitLog {
    /// `auto` or `off`.
    Word(CommitLogWord),
    /// Bytes of each.
    Bytes(Size),
}

/// `auto` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitLogWord {
    /// Left to logweir.
    Auto,
    /// None.
    Off,
}

words!(
    /// `engine`
    EngineChoice { Auto = "auto", Epoll = "epoll", IoUring = "io_uring" }
);
words!(
    /// `storage.io`
    Io { Auto = "auto", Append = "append", DontCache = "dontcache", Direct = "direct" }
);
words!(
    /// `storage.compress`
    Compress { None = "none", Zstd = "zstd" }
);
words!(
    /// `stream.NAME.format`
    FormatWord { Raw = "raw", Json = "json", Classic = "classic" }
);
words!(
    /// `listener.NAME.ack`
    Ack { Received = "received", Written = "written", Durable = "durable" }
);
words!(
    /// `listener.NAME.proxy_protocol`
    ProxyWord { Off = "off", Required = "required" }
);
words!(
    /// `listener.NAME.tls_min_version`
    TlsVersion { V12 = "1.2", V13 = "1.3" }
);
words!(
    /// `log.level`
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
);
words!(
    /// `log.format`
    LogFormat { Auto = "auto", Text = "text", Json = "json", Journal = "journal" }
);

section!(/// `[placement]`
    Placement { shards: Count, reactors_per_shard: Count, pin: Pin });
section!(/// `[buffer]`
    Buffer { memory: Size, linger: Time });
section!(/// `[storage]`
    Storage { io: Io, segment_size: Size, segment_age: Time, reserve_step: Size, sync_interval: Time, sync_bytes: Size, strict: bool,
              compress: Compress, compress_level: usize, commit_log: CommitLog, sealed_dir: String, file_mode: String, file_group: String });
section!(/// `[retention]`
    Retention { max_age: Time, max_bytes: Size, min_free: Size });
section!(/// `[admin]`
    Admin { address: String });
section!(/// `[limits]`
    Limits { max_connections: usize, tls_handshakes_per_second: usize, ipv6_prefix: usize });
section!(/// `[log]`
    Log { level: LogLevel, format: LogFormat });
section!(/// `[stream.NAME]`
    Stream { format: FormatWord, segment_size: Size, segment_age: Time, reserve_step: Size, sync_interval: Time, sync_bytes: Size,
             io: Io, compress: Compress, compress_level: usize, max_age: Time, max_bytes: Size, min_free: Size });
section!(/// The keys of `[listener.NAME]` that any protocol has; the others are the protocol's own.
    Listener { protocol: String, address: String, stream: String, format: FormatWord, when_full: WhenFull, ack: Ack,
               max_line_bytes: Size, receive_buffer: Size, max_connections_per_address: usize, idle_timeout: Time, header_timeout: Time,
               socket_mode: String, socket_owner: String, socket_group: String, proxy_protocol: ProxyWord, tls_cert: String,
               tls_key: String, tls_client_ca: String, tls_client_crl: String,
               tls_client_subjects: Vec<String>, tls_client_fingerprints: Vec<String>, tls_min_version: TlsVersion });
section!(/// `[token.NAME]`
    Token { sha256: String, streams: Vec<String> });
section!(/// `[ship.NAME]`
    Ship { to: String, streams: Vec<String>, topic: String, positions_topic: String, start: Start, delivery: Delivery,
           compression: Compression, partition: Partition, key: Key, headers: bool, hold: bool, hold_at_most: Size, tls: bool, tls_ca: String, tls_cert: String,
           tls_key: String, sasl_mechanism: Sasl, sasl_username: String, sasl_password_file: String });

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Raw {
    pub data_dir: Option<String>,
    pub engine: Option<EngineChoice>,
    pub shutdown_timeout: Option<Time>,
    pub drain_delay: Option<Time>,
    pub placement: Placement,
    pub buffer: Buffer,
    pub storage: Storage,
    pub retention: Retention,
    pub admin: Admin,
    pub limits: Limits,
    pub log: Log,
    pub stream: BTreeMap<String, Stream>,
    pub listener: BTreeMap<String, Listener>,
    pub token: BTreeMap<String, Token>,
    pub ship: BTreeMap<String, Ship>,
}

/// Every key there is but for those of the protocols, as `section.key`, with `NAME` where a name stands.
#[must_use]
pub fn all_keys() -> Vec<String> {
    let sections: [(&str, &[&str]); 12] = [
        ("", &["data_dir", "engine", "shutdown_timeout", "drain_delay"]),
        ("placement.", Placement::KEYS),
        ("buffer.", Buffer::KEYS),
        ("storage.", Storage::KEYS),
        ("retention.", Retention::KEYS),
        ("admin.", Admin::KEYS),
        ("limits.", Limits::KEYS),
        ("log.", Log::KEYS),
        ("stream.NAME.", Stream::KEYS),
        ("listener.NAME.", Listener::KEYS),
        ("token.NAME.", Token::KEYS),
        ("ship.NAME.", Ship::KEYS),
    ];
    sections.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}{key}"))).collect()
}
