//! `protocol = "syslog"`: messages as routers, firewalls, Unix systems and proxies send them, over a stream (RFC 6587, RFC 5425) or as
//! datagrams (RFC 5426). Each is one record, as sent, as JSON or as in syslog files. Nothing is answered.

mod framing;

use super::{About, Entry};
use crate::host::address::{Address, Family};
use crate::host::peer::Peer;
use crate::metrics::accounting::Reason;
use crate::metrics::stats::Unexpected;
use crate::section;
use crate::session::beginnings::Beginning;
use crate::session::lines::{LineOptions, TooLong, UnterminatedWord, keeps_unterminated};
use crate::session::profile::SCRATCH_LANDING;
use crate::session::routes::RouteTable;
use crate::session::syslog::writing::{self, Writing};
use crate::session::syslog::{self, EscapeWord, Shared};
use crate::session::write::Format;
use crate::session::{
    AckLevel, End, Input, Landing, Owner, Patience, Profile, Protocol, Reply, Session, State, Step, Waiting, Window,
    downcast, same,
};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use crate::settings::units::Time;
use framing::Framing;
use std::sync::Arc;

section!(/// The keys of a syslog listener.
    Keys { escape: EscapeWord, route: RouteTable, streams: Vec<String>, too_long: TooLong, unterminated: UnterminatedWord, line_timeout: Time });

/// See the module documentation.
pub static ENTRY: Entry = Entry {
    name: "syslog",
    port: 5140,
    runs_on: &[Family::Tcp, Family::Unix, Family::UnixDatagram, Family::Udp],
    format: |_| Format::Raw,
    leases: false,
    keys: Keys::KEYS,
    build,
};

/// The options of a listener, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogOptions {
    /// The listener's name, for JSON.
    pub listener: String,
    /// How long messages may be, and what happens to longer ones.
    pub framing: LineOptions,
    /// How they are written, and where they go.
    pub writing: writing::Options,
}

/// The protocol of a syslog listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogProtocol {
    options: SyslogOptions,
    profile: Profile,
}

fn build(section: &Section<'_>, about: &About<'_>) -> Result<Arc<dyn Protocol>, ConfigError> {
    let keys: Keys = section.read()?;
    let too_long = match section.word("too_long", keys.too_long, TooLong::Truncate) {
        // There is no connection to close: the socket is everybody's.
        TooLong::Close if about.is_datagram() => TooLong::Drop,
        too_long => too_long,
    };
    let shared = Shared { escape: keys.escape, route: keys.route, streams: keys.streams };
    let writing = syslog::writing(section, &shared, about.routes)?;
    let keep_unterminated = keeps_unterminated(section, keys.unterminated);
    let options = SyslogOptions {
        listener: about.listener.to_string(),
        framing: syslog::framing(about.max_line_bytes, too_long, keep_unterminated),
        writing,
    };
    let line = section.time("line_timeout", keys.line_timeout, "30s", "0s", "1day");
    let patience = Patience { line, head: about.header_timeout, ..Patience::default() };
    Ok(Arc::new(SyslogProtocol::new(options, patience)))
}

impl SyslogProtocol {
    /// With these options.
    #[must_use]
    pub fn new(options: SyslogOptions, patience: Patience) -> SyslogProtocol {
        let longest = options.framing.max_line_bytes + 2; // a terminator may be counted in
        let least_chunk = options.writing.longest_record(longest);
        let profile = Profile {
            scratch: SCRATCH_LANDING,
            bytes_per_connection: size_of::<Syslog>() + 256,
            patience,
            ..Profile::new("syslog", longest, least_chunk)
        };
        SyslogProtocol { options, profile }
    }
}

impl Protocol for SyslogProtocol {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn session(&self, peer: &Peer, _owner: Owner) -> Box<dyn Session> {
        Box::new(Syslog::new(&self.options, peer))
    }

    fn is_same(&self, other: &dyn Protocol) -> bool {
        same(self, other)
    }

    fn first_line(&self, address: &Address) -> Option<String> {
        // util-linux
        let to = match address {
            Address::Tcp(tcp) => format!("-T -n {} -P {}", tcp.ip(), tcp.port()),
            Address::Unix(path) | Address::UnixDatagram(path) => format!("-u {}", path.display()),
            Address::Udp(udp) => format!("-d -n {} -P {}", udp.ip(), udp.port()),
            Address::Stdin => return None,
        };
        Some(format!("logger {to} 'hello, log'"))
    }
}

/// The state of one connection, or of a datagram socket.
pub struct Syslog {
    framing: Framing,
    writing: Writing,
    /// Whose datagrams they are.
    peer: Peer,
    mark: u32,
    beginning: Beginning,
    /// The options that hold from the next message on.
    renewed: Option<Arc<SyslogProtocol>>,
}

impl Syslog {
    /// A new connection.
    #[must_use]
    pub fn new(options: &SyslogOptions, peer: &Peer) -> Self {
        Syslog {
            framing: Framing::new(options.framing),
            writing: Writing::new(&options.writing, &options.listener, peer),
            peer: *peer,
            mark: 0,
            beginning: Beginning::default(),
            renewed: None,
        }
    }

    /// Takes over changed options, between messages.
    fn take_over(&mut self, tail_len: usize) {
        if let Some(renewed) = self.renewed.take_if(|_| !self.framing.is_begun(tail_len)) {
            let options = &renewed.options;
            self.framing.renew(options.framing);
            self.writing = Writing::new(&options.writing, &options.listener, &self.peer);
        }
    }

    /// Looks at the first bytes of a connection. Returns false if they are certainly no syslog and nothing can be made of them.
    fn look(&mut self, bytes: &[u8], window: &mut Window<'_>) -> bool {
        let what = match self.beginning.look(bytes) {
            None | Some(Unexpected::OctetCounting) => return true,
            // Its stream is one zlib stream (rsyslog's `stream:always`).
            Some(Unexpected::Compressed) => Unexpected::CompressedSyslog,
            Some(what) => what,
        };
        window.sink.notice(what);
        // All others are stored as they come: they may be messages after all.
        if !matches!(what, Unexpected::Tls | Unexpected::CompressedSyslog) {
            return true;
        }
        window.sink.drop_record(Reason::Unexpected, (bytes.len() + window.tail.len()) as u64);
        self.framing.abandon(window);
        false
    }
}

impl Session for Syslog {
    fn landing(&self, _tail_len: usize) -> Landing {
        Landing::Scratch { gap: 0, most: SCRATCH_LANDING }
    }

    fn input(&mut self, input: Input<'_>, window: &mut Window<'_>) -> Step {
        self.take_over(window.tail.len());
        let step = match input {
            Input::Scratch { space, start, len } => {
                let bytes = &space[start..start + len];
                if !self.look(bytes, window) {
                    return Step::Close;
                }
                self.framing.take(bytes, &self.writing, window)
            }
            Input::Datagram { bytes, cut, sender } => {
                if *sender != self.peer {
                    self.peer = *sender;
                    self.writing.set_peer(sender);
                }
                self.framing.take_datagram(bytes, cut, &self.writing, window)
            }
            Input::Chunk { .. } => Step::Close, // nothing lands there
        };
        let went_on = window.sink.lines() > 0 || window.sink.dropped() > 0;
        self.mark = self.mark.wrapping_add(u32::from(went_on));
        step
    }

    fn finish(&mut self, end: End, window: &mut Window<'_>) {
        self.framing.finish(end, &self.writing, window);
    }

    fn state(&self, tail_len: usize) -> State {
        State {
            waiting: if self.framing.is_begun(tail_len) { Waiting::Line } else { Waiting::Nothing },
            mark: self.mark,
            may_be_refused: true,
            is_between: true,
            finish_room: self.framing.room_to_end(&self.writing, tail_len),
            ..State::default()
        }
    }

    fn reached(&mut self, _frame: u32, _level: AckLevel, _records: u64) {}

    fn output(&mut self, _reply: &mut Reply<'_>) {}

    fn renew(&mut self, protocol: &Arc<dyn Protocol>) {
        self.renewed = downcast(protocol);
    }
}

#[cfg(test)]
mod tests;
