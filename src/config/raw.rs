//! What was written, as written. Every key is optional here; defaults and ranges are in [`super::checked`].

use crate::settings::units::{Size, Time};
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

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`")] #[serde(rename = $text)] $word),+
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$word => $text),+ })
            }
        }
    };
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
    FormatWord { Raw = "raw", Json = "json" }
);
words!(
    /// `listener.NAME.protocol`
    Protocol { Lines = "lines", Http = "http" }
);
words!(
    /// `listener.NAME.when_full`
    WhenFull { Block = "block", DropOldest = "drop_oldest", DropNewest = "drop_newest" }
);
words!(
    /// `listener.NAME.ack`
    Ack { Received = "received", Written = "written", Durable = "durable" }
);
words!(
    /// `listener.NAME.too_long`
    TooLongWord { Truncate = "truncate", Drop = "drop", Close = "close" }
);
words!(
    /// `listener.NAME.unterminated`
    UnterminatedWord { Keep = "keep", Drop = "drop" }
);
words!(
    /// `listener.NAME.reply`
    Reply { None = "none", Count = "count" }
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

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)] // each key is documented in config/logweir.toml, which a test holds complete
        pub struct $name { $(pub $key: Option<$type>),* }

        impl $name {
            /// The keys, for the test that holds the documentation complete.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];
        }
    };
}

section!(/// `[placement]`
    Placement { shards: Count, reactors_per_shard: Count, pin: Pin });
section!(/// `[buffer]`
    Buffer { memory: Size, linger: Time });
section!(/// `[storage]`
    Storage { io: Io, segment_size: Size, segment_age: Time, reserve_step: Size, sync_interval: Time, sync_bytes: Size, strict: bool,
              compress: Compress, compress_level: usize, sealed_dir: String });
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
section!(/// `[listener.NAME]`
    Listener { protocol: Protocol, address: String, stream: String, when_full: WhenFull, ack: Ack, reply: Reply,
               max_line_bytes: Size, too_long: TooLongWord, strip_cr: bool, unterminated: UnterminatedWord,
               max_connections_per_address: usize, idle_timeout: Time, line_timeout: Time, socket_mode: String,
               streams: Vec<String>, tokens: Vec<String>, max_header_bytes: Size, max_headers: usize, max_body_bytes: Size,
               max_decoded_bytes: Size, max_requests: usize, header_timeout: Time, body_timeout: Time, queue_timeout: Time,
               max_connection_age: Time, proxy_protocol: ProxyWord, tls_cert: String, tls_key: String, tls_client_ca: String,
               tls_client_subjects: Vec<String>, tls_min_version: TlsVersion });
section!(/// `[token.NAME]`
    Token { sha256: String, streams: Vec<String> });

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
}

/// Every key there is, as `section.key`, with `NAME` where a name stands.
#[must_use]
pub fn all_keys() -> Vec<String> {
    let sections: [(&str, &[&str]); 11] = [
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
    ];
    sections.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}{key}"))).collect()
}
