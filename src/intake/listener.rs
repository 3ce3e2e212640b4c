//! One listener as the reactors see it: the options that all listeners have, and its protocol.

use crate::host::address::Address;
use crate::pipeline::chunk::{Class, Level};
use crate::session::routes::Routes;
use crate::session::{Profile, Spoken};
use crate::words;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

words!(
    /// `listener.NAME.when_full`
    WhenFull { Block = "block", DropOldest = "drop_oldest", DropNewest = "drop_newest" }
);

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Its streams.
    pub routes: Arc<Routes>,
    /// The listener has a `format` of its own, which comes before that of its streams.
    pub has_own_format: bool,
    /// What happens when no chunk is free.
    pub when_full: WhenFull,
    /// Which ring its chunks take.
    pub class: Class,
    /// What its chunks wait for.
    pub level: Level,
    /// The sender is told of records as soon as they are in memory.
    pub ack_on_receipt: bool,
    /// Longest record, in bytes.
    pub max_line_bytes: usize,
    /// What its clients speak.
    pub protocol: Spoken,
    /// Connections begin with a PROXY header.
    pub proxy: bool,
    /// Connections are encrypted.
    pub tls: Option<TlsSettings>,
    /// Connections from one address; 0: no limit.
    pub max_connections_per_address: usize,
    /// A connection that sends nothing for so long is closed; zero: never.
    pub idle_timeout: Duration,
    /// Who may use the socket file.
    pub socket: SocketAccess,
    /// Bytes that may wait in the queue of each UDP socket.
    pub receive_buffer: usize,
}

/// Who may use a socket file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// Its mode.
    pub mode: u32,
    /// Its owner; `None`: this user.
    pub owner: Option<u32>,
    /// Its group; `None`: this user's.
    pub group: Option<u32>,
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
    /// That is not on one of these revocation lists, PEM.
    pub client_crl: Option<PathBuf>,
    /// And one of these subjects; empty: any.
    pub client_subjects: Vec<String>,
    /// Or it is one of those with these SHA-256 fingerprints, then also without an authority.
    pub client_fingerprints: Vec<[u8; 32]>,
    /// Not older than TLS 1.3.
    pub only_13: bool,
}

/// Room for the rest of a unit of a stage: a TLS record has 18 KiB at most (RFC 8446 section 5.2).
pub const WIRE_ROOM: usize = 20 << 10;
/// Largest datagram that is received whole (Linux's default `net.core.wmem_default` is 208 KiB).
pub const DATAGRAM_MAX: usize = 256 * 1024;

/// Largest datagram that UDP brings, rounded up to whole pages: 65,507 bytes over IPv4, 65,527 over IPv6 (RFC 768, RFC 8200).
pub const UDP_MAX: usize = 64 * 1024;
/// Datagrams received at once at most.
pub const BATCH: usize = 32;

impl ListenerOptions {
    /// What a reactor must know of its protocol.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        self.protocol.profile()
    }

    /// Index of its own stream.
    #[must_use]
    pub fn stream(&self) -> u16 {
        self.routes.own().index
    }

    /// True if a stage (TLS, PROXY) holds unfinished input between socket and session.
    #[must_use]
    pub fn has_stage(&self) -> bool {
        self.tls.is_some() || self.proxy
    }

    /// True if its connections belong to clients, so that they may come, go idle, and move. Standard input and datagram sockets do not.
    #[must_use]
    pub fn has_connections(&self) -> bool {
        matches!(self.address, Address::Tcp(_) | Address::Unix(_))
    }

    /// It receives datagrams.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self.address, Address::UnixDatagram(_) | Address::Udp(_))
    }

    /// Bytes that a connection may leave in its tail at most.
    #[must_use]
    pub fn longest_tail(&self) -> usize {
        self.profile().longest_tail
    }

    /// Bytes that a chunk must have at least for this listener.
    #[must_use]
    pub fn least_chunk_bytes(&self) -> usize {
        // What a stage holds and the rest of it lie behind the tail until they are decoded. A reload may bring one.
        self.profile().least_chunk.max(self.longest_tail() + 2 * WIRE_ROOM)
    }

    /// Bytes of a reactor's scratch buffer that it wants. One for datagrams may come with a reload, so there is always room for one.
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        (self.profile().scratch + 2 * WIRE_ROOM).max(DATAGRAM_MAX)
    }

    /// What it receives may wait in the lane for want of a chunk. Where the newest is dropped nothing waits.
    #[must_use]
    pub fn leaves_rests(&self) -> bool {
        (self.profile().scratch > 0 || self.is_datagram()) && self.when_full != WhenFull::DropNewest
    }
}
