//! Checks one listener: its defaults, its ranges, and which keys can be combined. The protocol reads its own keys.

use super::checked::{Check, StreamSettings};
use super::raw::{self, Ack, FormatWord, ProxyWord, TlsVersion};
use crate::host::address::Address;
use crate::intake::listener::{ListenerOptions, TlsSettings, UDP_MAX, WhenFull};
use crate::intake::net::listen;
use crate::pipeline::chunk::{Class, Level};
use crate::protocol::{About, Entry, Protocols};
use crate::session::memory::room::Room;
use crate::session::routes::{Route, Routes, Token};
use crate::session::write::Format;
use crate::session::{AckLevel, Spoken};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What the section of a listener refers to.
pub(super) struct Surroundings<'a> {
    /// There is no other listener.
    pub only: bool,
    /// The protocols there are.
    pub protocols: Protocols,
    /// The streams.
    pub streams: &'a [StreamSettings],
    /// The tokens.
    pub tokens: &'a BTreeMap<String, Token>,
    /// Memory that is leased.
    pub room: &'a Arc<Room>,
    /// The listeners that run now; none at a start.
    pub running: &'a [ListenerOptions],
}

/// A listener's section: the keys that all have, and those of protocols.
pub(super) struct Written<'a> {
    /// The listener's name.
    pub name: &'a str,
    /// The keys that all have.
    pub common: &'a raw::Listener,
    /// The others.
    pub own: &'a DeTable<'a>,
}

impl Written<'_> {
    /// The words of a list among the protocol's own keys, if it is there.
    pub fn words(&self, key: &str) -> Vec<&str> {
        match self.own.get(key).map(Spanned::get_ref) {
            Some(DeValue::Array(list)) => list.iter().filter_map(|value| value.get_ref().as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// How its records are written where neither it nor a stream says.
    pub fn default_format(&self, entry: &Entry) -> Format {
        (entry.format)(&|key| self.words(key).into_iter().map(String::from).collect())
    }

    /// The streams that it names.
    pub fn streams(&self) -> impl Iterator<Item = (&str, String)> {
        let own = (self.common.stream.as_deref().unwrap_or("default"), format!("listener.{}.stream", self.name));
        let key = format!("listener.{}.streams", self.name);
        std::iter::once(own).chain(self.words("streams").into_iter().map(move |stream| (stream, key.clone())))
    }
}

impl From<FormatWord> for Format {
    fn from(word: FormatWord) -> Self {
        match word {
            FormatWord::Raw => Format::Raw,
            FormatWord::Json => Format::Json,
            FormatWord::Classic => Format::Classic,
        }
    }
}

impl From<Ack> for AckLevel {
    fn from(word: Ack) -> Self {
        match word {
            Ack::Received => AckLevel::Received,
            Ack::Written => AckLevel::Written,
            Ack::Durable => AckLevel::Durable,
        }
    }
}

impl Check<'_> {
    /// The protocol that a section names.
    pub fn entry(&self, written: &Written<'_>, protocols: Protocols) -> Result<&'static Entry, ConfigError> {
        let name = written.common.protocol.as_deref().unwrap_or("lines");
        protocols.find(name).ok_or_else(|| {
            let known: Vec<String> = protocols.0.iter().map(|entry| format!("`{}`", entry.name)).collect();
            let message = format!("unknown value `{name}`, expected one of {}", known.join(", "));
            self.places.error(&format!("listener.{}.protocol", written.name), message)
        })
    }

    /// One `[listener.NAME]`.
    pub fn listener(&self, written: &Written<'_>, around: &Surroundings<'_>) -> Result<ListenerOptions, ConfigError> {
        let (name, raw, places) = (written.name, written.common, self.places);
        let key = |k: &str| format!("listener.{name}.{k}");
        self.name(&format!("listener.{name}"), name)?;
        let entry = self.entry(written, around.protocols)?;
        places.in_force(&key("protocol"), Some(format!("\"{}\"", entry.name)));
        let address = match &raw.address {
            Some(text) => text.parse::<Address>().map_err(|message| self.places.error(&key("address"), message))?,
            None if around.only => Address::Tcp(SocketAddr::from(([127, 0, 0, 1], entry.port))),
            None => return Err(self.places.error(&format!("listener.{name}"), "expected an `address` here")),
        };
        places.word(&key("address"), None, &address);
        self.keys_fit(written, entry, &address, around.protocols)?;
        // A sender of datagrams cannot be slowed down: what is not taken is dropped by the kernel, which does not say of whom.
        let is_udp = matches!(address, Address::Udp(_));
        let when_full_is = if is_udp { WhenFull::DropNewest } else { WhenFull::Block };
        let when_full = places.word(&key("when_full"), raw.when_full, when_full_is);
        // No datagram is longer.
        let longest = if is_udp { UDP_MAX as u64 } else { 1 << 20 };
        let max_line_bytes = places.size(&key("max_line_bytes"), raw.max_line_bytes, longest, 128, 256 << 20) as usize;
        let receive_buffer = match is_udp {
            true => {
                places.size(&key("receive_buffer"), raw.receive_buffer, listen::UDP_QUEUE as u64, 64 << 10, 1 << 30)
            }
            false => listen::UDP_QUEUE as u64,
        };
        let socket = self.socket_access(name, raw);
        let header_timeout = match raw.header_timeout.is_some() || self.begins(raw, entry) {
            true => places.time(&key("header_timeout"), raw.header_timeout, "10s", "100ms", "1h"),
            // Nothing of it begins with a header, so the key may not stand there.
            false => {
                places.in_force(&key("header_timeout"), None);
                Duration::from_secs(10)
            }
        };
        let routes = Arc::new(self.routes(written, entry, around)?);
        let about = About {
            listener: name,
            address: &address,
            routes: &routes,
            ack: raw.ack.map(AckLevel::from),
            max_line_bytes,
            header_timeout,
            tokens: around.tokens,
            room: around.room,
            running: around.running.iter().find(|running| running.name == name).map(|running| &running.protocol.0),
        };
        let section = Section::new(format!("listener.{name}"), written.own.clone(), self.places);
        let protocol = (entry.build)(&section, &about)?;
        let answers = protocol.profile().answers;
        let ack = raw.ack.unwrap_or(Ack::Durable);
        // Where nothing is answered it is worth nothing, and may contradict `when_full`.
        places.optional(&key("ack"), Some(&ack).filter(|_| answers || raw.ack.is_some()));
        // Also where nothing is ever answered, because the person who wrote `ack` relies on it. If it is only the default, `check` says what it
        // is worth.
        let is_asked = answers || raw.ack.is_some();
        if when_full == WhenFull::DropOldest && is_asked && ack != Ack::Received {
            let message = format!(
                "when_full = \"drop_oldest\" may evict what was received, so ack = \"{ack}\" cannot be promised; set ack = \"received\" or another when_full"
            );
            return Err(self.places.error(&key(if raw.ack.is_some() { "ack" } else { "when_full" }), message));
        }
        let idle = if protocol.profile().refuses_after.is_some() { "75s" } else { "1h" };
        Ok(ListenerOptions {
            name: name.to_string(),
            address,
            routes,
            has_own_format: raw.format.is_some(),
            when_full,
            class: if when_full == WhenFull::DropOldest { Class::Lossy } else { Class::Lossless },
            level: match (answers, ack) {
                (false, _) | (true, Ack::Received) => Level::None,
                (true, Ack::Written) => Level::Written,
                (true, Ack::Durable) => Level::Durable,
            },
            ack_on_receipt: answers && ack == Ack::Received,
            max_line_bytes,
            protocol: Spoken(protocol),
            max_connections_per_address: places.number(
                &key("max_connections_per_address"),
                raw.max_connections_per_address,
                4096,
                0,
                1_000_000,
            ),
            idle_timeout: places.time(&key("idle_timeout"), raw.idle_timeout, idle, "0s", "365days"),
            proxy: places.word(&key("proxy_protocol"), raw.proxy_protocol, ProxyWord::Off) == ProxyWord::Required,
            tls: self.tls(name, raw)?,
            socket,
            receive_buffer: receive_buffer as usize,
        })
    }

    /// True if connections begin with something that has a deadline of its own: a PROXY header or a TLS handshake.
    fn begins(&self, raw: &raw::Listener, entry: &Entry) -> bool {
        raw.tls_cert.is_some() || raw.proxy_protocol == Some(ProxyWord::Required) || entry.leases
    }

    /// Refuses keys that have no effect here, because the person who wrote them expects one.
    fn keys_fit(
        &self,
        written: &Written<'_>,
        entry: &Entry,
        address: &Address,
        protocols: Protocols,
    ) -> Result<(), ConfigError> {
        let (name, raw) = (written.name, written.common);
        let refuse = |key: &str, message: String| Err(self.places.error(&format!("listener.{name}.{key}"), message));
        let belongs = |owners: Vec<&str>| format!("this belongs to protocol = \"{}\"", owners.join("\" or \""));
        for key in written.own.keys().map(Spanned::get_ref) {
            if !entry.keys.contains(&&**key) {
                let owners = protocols.0.iter().filter(|p| p.keys.contains(&&**key)).map(|p| p.name);
                return refuse(key, belongs(owners.collect()));
            }
        }
        if raw.header_timeout.is_some() && !self.begins(raw, entry) {
            return refuse(
                "header_timeout",
                belongs(protocols.0.iter().filter(|p| p.leases).map(|p| p.name).collect()),
            );
        }
        if !entry.runs_on.contains(&address.family()) {
            let families: Vec<String> = entry.runs_on.iter().map(ToString::to_string).collect();
            return refuse("protocol", format!("{} needs {}", entry.name, families.join(" or ")));
        }
        if raw.receive_buffer.is_some() && !matches!(address, Address::Udp(_)) {
            return refuse("receive_buffer", "this belongs to udp:// addresses".into());
        }
        if matches!(address, Address::Tcp(_) | Address::Unix(_)) {
            return Ok(());
        }
        if raw.proxy_protocol == Some(ProxyWord::Required) {
            return refuse("proxy_protocol", "a PROXY header needs tcp:// or unix://".into());
        }
        if raw.tls_cert.is_some() {
            return refuse("tls_cert", "TLS needs tcp:// or unix://".into());
        }
        Ok(())
    }

    /// The streams that a listener may write to, and the format for each: that of the listener, else of the stream, else of the
    /// protocol.
    fn routes(&self, written: &Written<'_>, entry: &Entry, around: &Surroundings<'_>) -> Result<Routes, ConfigError> {
        let format = written.common.format.map(Format::from);
        let route = |(name, key): (&str, String)| {
            let index = self.stream_index(&key, name, around.streams)?;
            let format = format.or(around.streams[index].format).unwrap_or_else(|| written.default_format(entry));
            Ok(Route { name: name.to_string(), index: index as u16, format })
        };
        let key = |k: &str| format!("listener.{}.{k}", written.name);
        self.places.word(&key("stream"), None, written.common.stream.as_deref().unwrap_or("default"));
        self.places.optional(&key("format"), written.common.format.as_ref());
        let mut all = written.streams().map(route).collect::<Result<Vec<Route>, _>>()?;
        let own = all.remove(0);
        Ok(Routes::new(own, all))
    }

    fn stream_index(&self, key: &str, name: &str, streams: &[StreamSettings]) -> Result<usize, ConfigError> {
        let place = streams.iter().position(|s| s.name == name);
        place.ok_or_else(|| self.places.error(key, format!("no listener writes to a stream \"{name}\"")))
    }

    /// The `[token.NAME]`s.
    pub fn tokens(&self, raw: &BTreeMap<String, raw::Token>, streams: &[StreamSettings]) -> BTreeMap<String, Token> {
        let token = |(name, raw): (&String, &raw::Token)| {
            // A wrong token is kept in the list, so that listeners that name it get no second error.
            let none = Token { sha256: [0; 32], streams: Some(Vec::new()) };
            (name.clone(), self.places.kept(self.token(name, raw, streams)).unwrap_or(none))
        };
        raw.iter().map(token).collect()
    }

    fn token(&self, name: &str, raw: &raw::Token, streams: &[StreamSettings]) -> Result<Token, ConfigError> {
        let own = |k: &str| format!("token.{name}.{k}");
        self.places.optional(&own("sha256"), raw.sha256.as_ref());
        self.places.list(&own("streams"), raw.streams.as_deref());
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
                let index = |n: &String| self.stream_index(&own("streams"), n, streams).map(|i| i as u16);
                Some(names.iter().map(index).collect::<Result<_, _>>()?)
            }
        };
        Ok(Token { sha256, streams })
    }

    /// Refuses a token that no listener names, because it protects nothing.
    pub fn tokens_are_used(&self, tokens: &BTreeMap<String, raw::Token>, listeners: &[Written<'_>]) {
        for name in tokens.keys() {
            if !listeners.iter().any(|l| l.words("tokens").contains(&name.as_str())) {
                let message = format!("no listener has it in its `tokens`; add tokens = [\"{name}\"], or remove it");
                self.places.broken(self.places.error(&format!("token.{name}"), message));
            }
        }
    }

    fn tls(&self, name: &str, raw: &raw::Listener) -> Result<Option<TlsSettings>, ConfigError> {
        let own = |k: &str| format!("listener.{name}.{k}");
        self.places.optional(&own("tls_cert"), raw.tls_cert.as_ref());
        self.places.optional(&own("tls_key"), raw.tls_key.as_ref());
        self.places.optional(&own("tls_client_ca"), raw.tls_client_ca.as_ref());
        self.places.optional(&own("tls_client_crl"), raw.tls_client_crl.as_ref());
        self.places.list(&own("tls_client_subjects"), raw.tls_client_subjects.as_deref());
        self.places.list(&own("tls_client_fingerprints"), raw.tls_client_fingerprints.as_deref());
        let least = raw.tls_cert.as_ref().map(|_| raw.tls_min_version.unwrap_or(TlsVersion::V12));
        self.places.optional(&own("tls_min_version"), least.as_ref());
        let missing = |key: &str, other: &str| {
            Err(self.places.error(&format!("listener.{name}.{key}"), format!("this needs `{other}` too")))
        };
        let (cert, key) = match (&raw.tls_cert, &raw.tls_key) {
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return missing("tls_cert", "tls_key"),
            (None, Some(_)) => return missing("tls_key", "tls_cert"),
            (None, None) => {
                let others = [
                    ("tls_client_ca", raw.tls_client_ca.is_some()),
                    ("tls_client_crl", raw.tls_client_crl.is_some()),
                    ("tls_client_subjects", raw.tls_client_subjects.is_some()),
                    ("tls_client_fingerprints", raw.tls_client_fingerprints.is_some()),
                    ("tls_min_version", raw.tls_min_version.is_some()),
                ];
                let alone = others.iter().find(|(_, is_there)| *is_there);
                return alone.map_or(Ok(None), |(key, _)| missing(key, "tls_cert"));
            }
        };
        if let (None, Some(_)) = (&raw.tls_client_ca, &raw.tls_client_crl) {
            return missing("tls_client_crl", "tls_client_ca");
        }
        match (&raw.tls_client_ca, &raw.tls_client_subjects) {
            (None, Some(_)) => return missing("tls_client_subjects", "tls_client_ca"),
            (_, Some(subjects)) if subjects.is_empty() => {
                let message =
                    "expected at least one subject; leave the key out to take any certificate of the authority";
                return Err(self.places.error(&format!("listener.{name}.tls_client_subjects"), message));
            }
            _ => {}
        }
        let fingerprints = self.fingerprints(&own("tls_client_fingerprints"), raw)?;
        Ok(Some(TlsSettings {
            cert: cert.into(),
            key: key.into(),
            client_ca: raw.tls_client_ca.as_ref().map(PathBuf::from),
            client_crl: raw.tls_client_crl.as_ref().map(PathBuf::from),
            client_subjects: raw.tls_client_subjects.clone().unwrap_or_default(),
            client_fingerprints: fingerprints,
            only_13: raw.tls_min_version == Some(TlsVersion::V13),
        }))
    }
}

impl Check<'_> {
    fn fingerprints(&self, key: &str, raw: &raw::Listener) -> Result<Vec<[u8; 32]>, ConfigError> {
        let Some(all) = &raw.tls_client_fingerprints else { return Ok(Vec::new()) };
        let how = "`openssl x509 -in FILE -noout -fingerprint -sha256` prints it";
        if all.is_empty() {
            let message = "expected at least one fingerprint; leave the key out to let nobody in by a fingerprint";
            return Err(self.places.error(key, message));
        }
        let read = |text: &String| {
            let digits = text.split_once(':').filter(|(kind, _)| kind.eq_ignore_ascii_case("sha256"));
            let found = digits.and_then(|(_, hex)| hash(&hex.replace(':', "")));
            found.ok_or_else(|| {
                let message = match text.get(..5) {
                    Some(kind) if kind.eq_ignore_ascii_case("sha1:") => {
                        format!("`{text}`: SHA-1 can be forged; take the SHA-256 fingerprint: {how}")
                    }
                    _ => format!("`{text}`: expected SHA256: and 32 pairs of hexadecimal digits; {how}"),
                };
                self.places.error(key, message)
            })
        };
        all.iter().map(read).collect()
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
