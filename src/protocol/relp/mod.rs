//! `protocol = "relp"`: syslog messages with an answer for each, as librelp and rsyslog's omrelp speak it. A message is answered when it
//! has reached the listener's level, never before, and never with a refusal, because librelp forgets a message that was refused.

pub mod header;
mod session;

pub use session::Relp;

use super::{About, Entry};
use crate::host::address::Family;
use crate::host::peer::Peer;
use crate::section;
use crate::session::lines::{LineOptions, TooLong};
use crate::session::profile::SCRATCH_LANDING;
use crate::session::routes::RouteTable;
use crate::session::syslog::{self, EscapeWord, Shared, writing};
use crate::session::write::Format;
use crate::session::{AckLevel, Owner, Patience, Profile, Protocol, Session, same};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use crate::settings::units::Time;
use std::sync::Arc;

section!(/// The keys of a RELP listener.
    Keys { escape: EscapeWord, route: RouteTable, streams: Vec<String>, too_long: TooLong, line_timeout: Time, answer_timeout: Time });

/// See the module documentation.
pub static ENTRY: Entry = Entry {
    name: "relp",
    port: 2514,
    runs_on: &[Family::Tcp, Family::Unix],
    format: |_| Format::Raw,
    leases: false,
    keys: Keys::KEYS,
    build,
};

/// The options of a listener, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelpOptions {
    /// The listener's name, for JSON.
    pub listener: String,
    /// How long messages may be, and what happens to longer ones.
    pub framing: LineOptions,
    /// How they are written, and where they go.
    pub writing: writing::Options,
    /// The level at which a message is answered.
    pub ack: AckLevel,
}

/// The protocol of a RELP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelpProtocol {
    options: RelpOptions,
    profile: Profile,
}

fn build(section: &Section<'_>, about: &About<'_>) -> Result<Arc<dyn Protocol>, ConfigError> {
    let keys: Keys = section.read()?;
    let too_long = section.word("too_long", keys.too_long, TooLong::Truncate);
    if too_long == TooLong::Close {
        let message = "the sender would bring the message again for ever; expected \"truncate\" or \"drop\"";
        return Err(section.error("too_long", message));
    }
    let shared = Shared { escape: keys.escape, route: keys.route, streams: keys.streams };
    let options = RelpOptions {
        listener: about.listener.to_string(),
        framing: syslog::framing(about.max_line_bytes, too_long, false),
        writing: syslog::writing(section, &shared, about.routes)?,
        ack: about.ack.unwrap_or(AckLevel::Durable),
    };
    let line = section.time("line_timeout", keys.line_timeout, "30s", "0s", "1day");
    // Before librelp gives up by itself, after 90 s (omrelp's `timeout`).
    let answer = section.time("answer_timeout", keys.answer_timeout, "60s", "0s", "1day");
    let patience = Patience { line, head: about.header_timeout, answer, ..Patience::default() };
    Ok(Arc::new(RelpProtocol::new(options, patience)))
}

impl RelpProtocol {
    /// With these options.
    #[must_use]
    pub fn new(options: RelpOptions, patience: Patience) -> RelpProtocol {
        let longest = options.framing.max_line_bytes + 2; // a terminator may be counted in
        let profile = Profile {
            schemes: ["relp", "relp+tls"],
            answers: true,
            // An answer to what comes later would not say that it is missing; without any it is sent again.
            drop_ends: true,
            scratch: SCRATCH_LANDING,
            bytes_per_connection: session::BYTES_PER_CONNECTION,
            patience,
            ..Profile::new("relp", longest, options.writing.longest_record(longest))
        };
        RelpProtocol { options, profile }
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &RelpOptions {
        &self.options
    }
}

impl Protocol for RelpProtocol {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn session(&self, peer: &Peer, _owner: Owner) -> Box<dyn Session> {
        Box::new(Relp::new(&self.options, peer))
    }

    fn is_same(&self, other: &dyn Protocol) -> bool {
        same(self, other)
    }
}

#[cfg(test)]
mod tests;
