//! One listener: defaults, ranges, and which keys belong together.

use super::checked::{Check, StreamSettings};
use super::raw::{self, Ack, Protocol, ProxyWord, Reply, TlsVersion, TooLongWord, UnterminatedWord, WhenFull};
use crate::host::address::Address;
use crate::pipeline::chunk::{Class, Level};
use crate::protocol::http::{HEAD_LANDING, HttpOptions, MOST_HEADERS, StreamChoice, Token};
use crate::protocol::lines::{self, Format, LinesOptions, TooLong};
use crate::session::AckLevel;
use crate::session::room::Room;
use crate::settings::ConfigError;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// How lines are found and written.
    pub lines: Arc<LinesOptions>,
    /// The options of `protocol = "http"`; `None`: plain lines.
    pub http: Option<Arc<HttpOptions>>,
    /// A request whose head has begun and not ended for so long ends its connection.
    pub header_timeout: Duration,
    /// A body that brings too little for so long ends its connection.
    pub body_timeout: Duration,
    /// A request that no chunk is free for is refused after so long.
    pub queue_timeout: Duration,
    /// A connection older than this (less up to a tenth, by chance) ends behind its present request; zero: never.
    pub max_connection_age: Duration,
    /// Connections begin with a PROXY header.
    pub proxy: bool,
    /// Connections are encrypted.
    pub tls: Option<TlsSettings>,
    /// Connections from one address; 0: no limit.
    pub max_connections_per_address: usize,
    /// A connection that sends nothing for so long is closed; zero: never.
    pub idle_timeout: Duration,
    /// A line that is begun and not ended for so long ends its connection; zero: never.
    pub line_timeout: Duration,
    /// Mode of the socket file.
    pub socket_mode: u32,
}

/// TLS of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Clients must have a certificate of one of these authorities, PEM.
    pub client_ca: Option<PathBuf>,
    /// And one of these subjects; empty: any.
    pub client_subjects: Vec<String>,
    /// Not older than TLS 1.3.
    pub only_13: bool,
}

impl ListenerOptions {
    /// Bytes that a connection may leave in its tail at most: a line, or a head.
    #[must_use]
    pub fn longest_tail(&self) -> usize {
        // Of requests: a head, and what came with it while those before it wait for their answers.
        self.lines.max_line_bytes.max(self.http.as_ref().map_or(0, |h| h.max_header_bytes + HEAD_LANDING))
    }

    /// Bytes that a chunk must have at least for this listener.
    #[must_use]
    pub fn least_chunk_bytes(&self) -> usize {
        lines::least_chunk_bytes(self.longest_tail(), self.lines.format)
    }
}

/// What a listener's section refers to.
pub(super) struct Around<'a> {
    /// There is no other listener.
    pub only: bool,
    /// The streams.
    pub streams: &'a [StreamSettings],
    /// The tokens.
    pub tokens: &'a BTreeMap<String, raw::Token>,
    /// Memory for decoding bodies.
    pub decoding: &'a Arc<Room>,
}

impl Check<'_> {
    /// One `[listener.NAME]`.
    pub fn listener(
        &self,
        name: &str,
        raw: &raw::Listener,
        around: &Around<'_>,
    ) -> Result<ListenerOptions, ConfigError> {
        let streams = around.streams;
        let is_http = raw.protocol == Some(Protocol::Http);
        let key = |k: &str| format!("listener.{name}.{k}");
        self.name(&format!("listener.{name}"), name)?;
        let address = match &raw.address {
            Some(text) => text.parse::<Address>().map_err(|message| self.places.error(&key("address"), message))?,
            None if around.only => Address::Tcp(SocketAddr::from(([127, 0, 0, 1], if is_http { 9880 } else { 5170 }))),
            None => return Err(self.places.error(&format!("listener.{name}"), "expected an `address` here")),
        };
        let stream_name = raw.stream.as_deref().unwrap_or("default");
        let stream = streams.iter().position(|s| s.name == stream_name).unwrap_or(0);
        let when_full = raw.when_full.unwrap_or(WhenFull::Block);
        self.keys_fit(name, raw, is_http, &address)?;
        let reply_count = raw.reply == Some(Reply::Count);
        let acks = reply_count || is_http;
        let answers = matches!(address, Address::Tcp(_) | Address::Unix(_));
        if reply_count && !answers {
            return Err(self.places.error(&key("reply"), format!("nothing can be sent back over {address}")));
        }
        let ack = raw.ack.unwrap_or(Ack::Durable);
        // Also where nothing is ever answered: who wrote `ack` believes in it. Where it is only the default, `check` says what it is worth.
        let is_asked = acks || raw.ack.is_some();
        if when_full == WhenFull::DropOldest && is_asked && ack != Ack::Received {
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
        let choices = self.choices(name, raw, stream, streams)?;
        let any_json = choices.iter().any(|c| c.format == Format::Json);
        let lines = Arc::new(LinesOptions {
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
            format: if any_json { Format::Json } else { Format::Raw },
        });
        let http = match is_http {
            true => Some(Arc::new(self.http(name, raw, &lines, choices, around)?)),
            false => None,
        };
        Ok(ListenerOptions {
            name: name.to_string(),
            address,
            stream: stream as u16,
            when_full,
            class: if when_full == WhenFull::DropOldest { Class::Lossy } else { Class::Lossless },
            level: match (acks, ack) {
                (false, _) | (true, Ack::Received) => Level::None,
                (true, Ack::Written) => Level::Written,
                (true, Ack::Durable) => Level::Durable,
            },
            ack_on_receipt: acks && ack == Ack::Received,
            lines,
            http,
            max_connections_per_address: self.number(
                &key("max_connections_per_address"),
                raw.max_connections_per_address,
                4096,
                0,
                1_000_000,
            )?,
            idle_timeout: self.time(
                &key("idle_timeout"),
                raw.idle_timeout,
                if is_http { "75s" } else { "1h" },
                "0s",
                "365days",
            )?,
            line_timeout: self.time(&key("line_timeout"), raw.line_timeout, "30s", "0s", "1day")?,
            header_timeout: self.time(&key("header_timeout"), raw.header_timeout, "10s", "100ms", "1h")?,
            body_timeout: self.time(&key("body_timeout"), raw.body_timeout, "30s", "100ms", "1h")?,
            queue_timeout: self.time(&key("queue_timeout"), raw.queue_timeout, "1s", "0s", "1h")?,
            max_connection_age: self.time(&key("max_connection_age"), raw.max_connection_age, "0s", "0s", "365days")?,
            proxy: raw.proxy_protocol == Some(ProxyWord::Required),
            tls: self.tls(name, raw)?,
            socket_mode,
        })
    }

    /// Keys that mean nothing where they stand are refused: whoever wrote them expects something of them.
    fn keys_fit(&self, name: &str, raw: &raw::Listener, is_http: bool, address: &Address) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| Err(self.places.error(&format!("listener.{name}.{key}"), message));
        let http_only = [
            ("streams", raw.streams.is_some()),
            ("tokens", raw.tokens.is_some()),
            ("max_header_bytes", raw.max_header_bytes.is_some()),
            ("max_headers", raw.max_headers.is_some()),
            ("max_body_bytes", raw.max_body_bytes.is_some()),
            ("max_decoded_bytes", raw.max_decoded_bytes.is_some()),
            ("max_requests", raw.max_requests.is_some()),
            ("header_timeout", raw.header_timeout.is_some() && raw.tls_cert.is_none() && raw.proxy_protocol.is_none()),
            ("body_timeout", raw.body_timeout.is_some()),
            ("queue_timeout", raw.queue_timeout.is_some()),
            ("max_connection_age", raw.max_connection_age.is_some()),
        ];
        let lines_only = [
            ("reply", raw.reply.is_some()),
            ("unterminated", raw.unterminated.is_some()),
            ("line_timeout", raw.line_timeout.is_some()),
        ];
        if let Some((key, _)) = http_only.iter().find(|(_, is_set)| *is_set && !is_http) {
            return refuse(key, "this belongs to protocol = \"http\"");
        }
        if let Some((key, _)) = lines_only.iter().find(|(_, is_set)| *is_set && is_http) {
            return refuse(key, "this belongs to protocol = \"lines\"");
        }
        let is_stream = matches!(address, Address::Tcp(_) | Address::Unix(_));
        if is_stream {
            return Ok(());
        }
        if is_http {
            return refuse("protocol", "http needs tcp:// or unix://");
        }
        if raw.proxy_protocol == Some(ProxyWord::Required) {
            return refuse("proxy_protocol", "a PROXY header needs tcp:// or unix://");
        }
        if raw.tls_cert.is_some() {
            return refuse("tls_cert", "TLS needs tcp:// or unix://");
        }
        Ok(())
    }

    /// The streams that a listener may write to, its own first.
    fn choices(
        &self,
        name: &str,
        raw: &raw::Listener,
        own: usize,
        streams: &[StreamSettings],
    ) -> Result<Vec<StreamChoice>, ConfigError> {
        let choice =
            |i: usize| StreamChoice { name: streams[i].name.clone(), index: i as u16, format: streams[i].format };
        let mut choices = vec![choice(own)];
        for stream in raw.streams.iter().flatten() {
            let index = self.stream_index(&format!("listener.{name}.streams"), stream, streams)?;
            if choices.iter().all(|c| usize::from(c.index) != index) {
                choices.push(choice(index));
            }
        }
        Ok(choices)
    }

    fn stream_index(&self, key: &str, name: &str, streams: &[StreamSettings]) -> Result<usize, ConfigError> {
        let place = streams.iter().position(|s| s.name == name);
        place.ok_or_else(|| self.places.error(key, format!("no listener writes to a stream \"{name}\"")))
    }

    fn http(
        &self,
        name: &str,
        raw: &raw::Listener,
        lines: &Arc<LinesOptions>,
        streams: Vec<StreamChoice>,
        around: &Around<'_>,
    ) -> Result<HttpOptions, ConfigError> {
        let key = |k: &str| format!("listener.{name}.{k}");
        if raw.tokens.as_ref().is_some_and(Vec::is_empty) {
            return Err(self
                .places
                .error(&key("tokens"), "expected at least one token; leave the key out to let anybody write"));
        }
        let tokens = raw.tokens.iter().flatten().map(|token| self.token(&key("tokens"), token, around));
        let max_headers = self.number(&key("max_headers"), raw.max_headers, 64, 1, MOST_HEADERS)?;
        Ok(HttpOptions {
            lines: Arc::clone(lines),
            ack: match raw.ack.unwrap_or(Ack::Durable) {
                Ack::Received => AckLevel::Received,
                Ack::Written => AckLevel::Written,
                Ack::Durable => AckLevel::Durable,
            },
            max_header_bytes: self.size(&key("max_header_bytes"), raw.max_header_bytes, 16 << 10, 256, 1 << 20)?
                as usize,
            max_headers,
            max_body_bytes: self.size(&key("max_body_bytes"), raw.max_body_bytes, 64 << 20, 1, 1 << 50)?,
            max_decoded_bytes: self.size(&key("max_decoded_bytes"), raw.max_decoded_bytes, 1 << 30, 1, 1 << 50)?,
            max_requests: self.number(&key("max_requests"), raw.max_requests, 0, 0, u32::MAX as usize)? as u32,
            tokens: tokens.collect::<Result<_, _>>()?,
            decoding: Arc::clone(around.decoding),
            streams,
        })
    }

    fn token(&self, key: &str, name: &str, around: &Around<'_>) -> Result<Token, ConfigError> {
        let Some(raw) = around.tokens.get(name) else {
            return Err(self.places.error(key, format!("there is no [token.{name}]")));
        };
        let own = |k: &str| format!("token.{name}.{k}");
        let Some(hex) = &raw.sha256 else {
            let message = "expected `sha256` here: printf %s \"$TOKEN\" | sha256sum";
            return Err(self.places.error(&format!("token.{name}"), message));
        };
        let sha256 = hash(hex).ok_or_else(|| {
            let message = "expected 64 hexadecimal digits: printf %s \"$TOKEN\" | sha256sum";
            self.places.error(&own("sha256"), message)
        })?;
        let streams = match &raw.streams {
            None => None,
            Some(names) => {
                let index = |n: &String| self.stream_index(&own("streams"), n, around.streams).map(|i| i as u16);
                Some(names.iter().map(index).collect::<Result<_, _>>()?)
            }
        };
        Ok(Token { sha256, streams })
    }

    /// A token that no listener asks for protects nothing, whatever its owner thinks.
    pub fn tokens_are_used(
        &self,
        tokens: &BTreeMap<String, raw::Token>,
        listeners: &BTreeMap<String, raw::Listener>,
    ) -> Result<(), ConfigError> {
        for name in tokens.keys() {
            if !listeners.values().flat_map(|l| l.tokens.iter().flatten()).any(|used| used == name) {
                let message = format!("no listener has it in its `tokens`; add tokens = [\"{name}\"], or remove it");
                return Err(self.places.error(&format!("token.{name}"), message));
            }
        }
        Ok(())
    }

    fn tls(&self, name: &str, raw: &raw::Listener) -> Result<Option<TlsSettings>, ConfigError> {
        let missing = |key: &str, other: &str| {
            Err(self.places.error(&format!("listener.{name}.{key}"), format!("this needs `{other}` too")))
        };
        let (cert, key) = match (&raw.tls_cert, &raw.tls_key) {
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return missing("tls_cert", "tls_key"),
            (None, Some(_)) => return missing("tls_key", "tls_cert"),
            (None, None) => {
                return match (&raw.tls_client_ca, &raw.tls_client_subjects, &raw.tls_min_version) {
                    (Some(_), _, _) => missing("tls_client_ca", "tls_cert"),
                    (_, Some(_), _) => missing("tls_client_subjects", "tls_cert"),
                    (_, _, Some(_)) => missing("tls_min_version", "tls_cert"),
                    _ => Ok(None),
                };
            }
        };
        match (&raw.tls_client_ca, &raw.tls_client_subjects) {
            (None, Some(_)) => return missing("tls_client_subjects", "tls_client_ca"),
            (_, Some(subjects)) if subjects.is_empty() => {
                let message =
                    "expected at least one subject; leave the key out to take any certificate of the authority";
                return Err(self.places.error(&format!("listener.{name}.tls_client_subjects"), message));
            }
            _ => {}
        }
        Ok(Some(TlsSettings {
            cert: cert.into(),
            key: key.into(),
            client_ca: raw.tls_client_ca.as_ref().map(PathBuf::from),
            client_subjects: raw.tls_client_subjects.clone().unwrap_or_default(),
            only_13: raw.tls_min_version == Some(TlsVersion::V13),
        }))
    }
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
