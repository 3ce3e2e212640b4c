//! The protocols. Each is a folder, and a line in [`TABLE`]. A folder has the keys of the protocol in a configuration, what a
//! reactor must know of it, its session, and its tests. docs/architecture.md says how to add one.

pub mod http;
pub mod lines;
pub mod relp;
pub mod syslog;

use crate::host::address::{Address, Family};
use crate::session::memory::room::Room;
use crate::session::routes::{Routes, Token};
use crate::session::write::Format;
use crate::session::{AckLevel, Protocol};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// All protocols, as `listener.NAME.protocol` names them.
pub static TABLE: &[&Entry] = &[&lines::ENTRY, &http::ENTRY, &syslog::ENTRY, &relp::ENTRY];

/// One protocol.
#[derive(Debug)]
pub struct Entry {
    /// Its name in the configuration, and the scheme of `--listen`.
    pub name: &'static str,
    /// The TCP port of the only listener that has no `address`.
    pub port: u16,
    /// What it runs on.
    pub runs_on: &'static [Family],
    /// How its records are written where neither listener nor stream says. It is given the words of any list among its own keys.
    pub format: DefaultFormat,
    /// It leases memory for documents or decoders.
    pub leases: bool,
    /// Its own keys in `[listener.NAME]`, besides those that all protocols have. Several protocols may have a key with the same name.
    pub keys: &'static [&'static str],
    /// Makes the protocol from its keys.
    pub build: Build,
}

/// The default of `format`, from the words of the lists among the protocol's own keys.
pub type DefaultFormat = fn(&dyn Fn(&str) -> Vec<String>) -> Format;

/// Makes a protocol from its keys.
pub type Build = fn(&Section<'_>, &About<'_>) -> Result<Arc<dyn Protocol>, ConfigError>;

/// What is known of a listener when its protocol is made.
pub struct About<'a> {
    /// Its name.
    pub listener: &'a str,
    /// Where it listens.
    pub address: &'a Address,
    /// The streams that it may write to.
    pub routes: &'a Arc<Routes>,
    /// `ack`, if it is there.
    pub ack: Option<AckLevel>,
    /// Longest record, in bytes.
    pub max_line_bytes: usize,
    /// `header_timeout`
    pub header_timeout: Duration,
    /// All tokens, by name.
    pub tokens: &'a BTreeMap<String, Token>,
    /// Memory that is leased, shared by all connections of the server.
    pub room: &'a Arc<Room>,
    /// At a reload, what the listener of this name speaks until now, for what is to stay.
    pub running: Option<&'a Arc<dyn Protocol>>,
}

impl About<'_> {
    /// True where something can be sent back.
    #[must_use]
    pub fn can_answer(&self) -> bool {
        matches!(self.address.family(), Family::Tcp | Family::Unix)
    }
}

impl About<'_> {
    /// True where a record is a datagram: there is no connection to close.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self.address.family(), Family::UnixDatagram | Family::Udp)
    }

    /// Refuses `format = "classic"`, for protocols whose records do not say what it shows.
    ///
    /// # Errors
    /// A stream of the listener has this format.
    pub fn refuse_classic(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        match self.routes.any(Format::Classic) {
            true => Err(section
                .error("format", "\"classic\" needs messages that name their host and program: protocol = \"syslog\"")),
            false => Ok(()),
        }
    }
}

/// The table that a configuration is read with.
#[derive(Debug, Clone, Copy)]
pub struct Protocols(pub &'static [&'static Entry]);

impl Default for Protocols {
    fn default() -> Self {
        Protocols(TABLE)
    }
}

impl Protocols {
    /// The protocol of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static Entry> {
        self.0.iter().find(|entry| entry.name == name).copied()
    }
}
