//! `protocol = "lines"`: records end in a newline. With `reply = "count"` the sender is told how many have reached their level.

use super::{About, Entry};
use crate::host::address::{Address, Family};
use crate::host::peer::Peer;
use crate::metrics::accounting::Reason;
use crate::metrics::stats::Unexpected;
use crate::session::beginnings::Beginning;
use crate::session::lines::{
    LineOptions, Lines as Framing, TooLong, UnterminatedWord, keeps_unterminated, least_chunk,
};
use crate::session::owed::Count;
use crate::session::profile::SCRATCH_LANDING;
use crate::session::write::{Escape, Form, Format, longest_record};
use crate::session::{
    AckLevel, End, Input, Landing, Owner, Patience, Profile, Protocol, Reply, Session, State, Step, Waiting, Window,
    same,
};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use crate::settings::units::Time;
use crate::{section, words};
use memchr::memchr;
use std::io::Write;
use std::sync::Arc;

words!(
    /// `listener.NAME.reply`
    ReplyWord { None = "none", Count = "count" }
);
words!(
    /// `listener.NAME.nul`
    NulWord { Keep = "keep", Strip = "strip", Split = "split" }
);
section!(/// The keys of a lines listener.
    Keys { reply: ReplyWord, too_long: TooLong, strip_cr: bool, nul: NulWord, unterminated: UnterminatedWord, line_timeout: Time });

/// See the module documentation.
pub static ENTRY: Entry = Entry {
    name: "lines",
    port: 5170,
    runs_on: &[Family::Tcp, Family::Unix, Family::UnixDatagram, Family::Udp, Family::Stdin],
    format: |_| Format::Raw,
    leases: false,
    keys: Keys::KEYS,
    build,
};

/// The options of a listener, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinesOptions {
    /// The listener's name, for JSON.
    pub listener: String,
    /// How lines are found.
    pub framing: LineOptions,
    /// Send the count of lines that reached the acknowledgement level.
    pub reply_count: bool,
    /// How they are written.
    pub format: Format,
    /// What happens to NUL.
    pub nul: NulWord,
}

/// The protocol of a lines listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinesProtocol {
    options: LinesOptions,
    profile: Profile,
}

fn build(section: &Section<'_>, about: &About<'_>) -> Result<Arc<dyn Protocol>, ConfigError> {
    let keys: Keys = section.read()?;
    about.refuse_classic(section)?;
    let reply_count = section.word("reply", keys.reply, ReplyWord::None) == ReplyWord::Count;
    if reply_count && !about.can_answer() {
        return Err(section.error("reply", format!("nothing can be sent back over {}", about.address)));
    }
    if reply_count && keys.too_long == Some(TooLong::Drop) {
        let message = "with reply = \"count\" a line dropped in between would be taken for one that is there; expected \"truncate\" or \"close\"";
        return Err(section.error("too_long", message));
    }
    let too_long = match section.word("too_long", keys.too_long, TooLong::Truncate) {
        // There is no connection to close: the socket is everybody's.
        TooLong::Close if about.is_datagram() => TooLong::Drop,
        too_long => too_long,
    };
    let nul = section.word("nul", keys.nul, NulWord::Keep);
    let options = LinesOptions {
        listener: about.listener.to_string(),
        framing: LineOptions {
            max_line_bytes: about.max_line_bytes,
            too_long,
            strip_cr: section.flag("strip_cr", keys.strip_cr, false),
            strip_nul: nul == NulWord::Strip,
            keep_unterminated: keeps_unterminated(section, keys.unterminated),
        },
        reply_count,
        format: about.routes.own().format,
        nul,
    };
    let line = section.time("line_timeout", keys.line_timeout, "30s", "0s", "1day");
    let patience = Patience { line, head: about.header_timeout, ..Patience::default() };
    Ok(Arc::new(LinesProtocol::new(options, patience)))
}

/// Bytes that a chunk must have at least for lines of these options.
#[must_use]
pub fn least_chunk_bytes(options: &LinesOptions) -> usize {
    let longest = options.framing.max_line_bytes;
    match options.format {
        Format::Raw | Format::Classic => least_chunk(longest),
        Format::Json => longest_record(longest + 1, 0, Format::Json, Escape::Nothing),
    }
}

impl LinesProtocol {
    /// With these options.
    #[must_use]
    pub fn new(options: LinesOptions, patience: Patience) -> LinesProtocol {
        let profile = Profile {
            answers: options.reply_count,
            drop_ends: options.reply_count,
            scratch: if options.format == Format::Json { SCRATCH_LANDING } else { 0 },
            patience,
            ..Profile::new("lines", options.framing.max_line_bytes, least_chunk_bytes(&options))
        };
        LinesProtocol { options, profile }
    }
}

impl Protocol for LinesProtocol {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn session(&self, peer: &Peer, _owner: Owner) -> Box<dyn Session> {
        Box::new(Lines::new(&self.options, peer))
    }

    fn is_same(&self, other: &dyn Protocol) -> bool {
        same(self, other)
    }

    fn describe(&self) -> String {
        if self.options.reply_count { ", replying with counts".into() } else { String::new() }
    }

    fn first_line(&self, address: &Address) -> Option<String> {
        let to = match address {
            Address::Tcp(tcp) => format!("-N {} {}", tcp.ip(), tcp.port()),
            Address::Unix(path) => format!("-N -U {}", path.display()),
            Address::UnixDatagram(path) => format!("-u -w0 -U {}", path.display()),
            Address::Udp(udp) => format!("-u -w0 {} {}", udp.ip(), udp.port()),
            Address::Stdin => return None,
        };
        Some(format!("echo 'hello, log' | nc {to}"))
    }
}

/// NUL is looked for in so many bytes of a connection: what ends messages with it has done so by then.
const NUL_WANTED_IN: u32 = 256 << 10;

/// The state of one connection.
pub struct Lines {
    framing: Framing,
    form: Form,
    /// Whose datagrams they are.
    peer: Peer,
    /// The count that the sender is told. `None`: it is told nothing.
    count: Option<Count>,
    mark: u32,
    beginning: Beginning,
    nul: NulWord,
    /// Bytes in which NUL is still looked for; 0 once one was noticed.
    nul_wanted_in: u32,
}

impl Lines {
    /// A new connection.
    #[must_use]
    pub fn new(options: &LinesOptions, peer: &Peer) -> Self {
        Lines {
            framing: Framing::new(options.framing),
            form: Form::new(options.format, Escape::Nothing, &options.listener, &peer.to_string()),
            peer: *peer,
            count: options.reply_count.then(Count::default),
            mark: 0,
            beginning: Beginning::default(),
            nul: options.nul,
            nul_wanted_in: if options.nul == NulWord::Keep { NUL_WANTED_IN } else { 0 },
        }
    }

    /// Looks at the first bytes, and ends lines at NUL if that is configured. Returns false if the input is certainly not a line and its
    /// sender waits for an answer.
    fn look(&mut self, input: &mut Input<'_>, window: &mut Window<'_>) -> bool {
        let is_datagram = matches!(input, Input::Datagram { .. });
        let bytes = match input {
            Input::Chunk { start, len } => &mut window.sink.space()[*start..*start + *len],
            Input::Scratch { space, start, len } => &mut space[*start..*start + *len],
            Input::Datagram { bytes, .. } => &mut **bytes,
        };
        if self.nul == NulWord::Split {
            end_at_nul(bytes);
        }
        let mut found = None;
        if self.nul_wanted_in > 0 && !bytes.is_empty() {
            // Of datagrams the last byte of each is looked at; of a stream all of its beginning, since a message may be long.
            let has_nul = if is_datagram { bytes.ends_with(b"\0") } else { memchr(0, bytes).is_some() };
            let looked_at = if is_datagram { 0 } else { u32::try_from(bytes.len()).unwrap_or(u32::MAX) };
            self.nul_wanted_in = if has_nul { 0 } else { self.nul_wanted_in.saturating_sub(looked_at) };
            found = has_nul.then_some(Unexpected::Nul);
        }
        let begins = if is_datagram { None } else { self.beginning.look(bytes) };
        let len = bytes.len() as u64;
        if let Some(what) = begins.or(found) {
            window.sink.notice(what);
        }
        // All others are stored as they come: they may be lines after all.
        if begins == Some(Unexpected::Tls) {
            window.sink.drop_record(Reason::Unexpected, len + window.tail.len() as u64);
            self.framing.abandon(window);
            return false;
        }
        true
    }
}

/// A NUL ends a line, as a newline does.
fn end_at_nul(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(nul) = memchr(0, &bytes[at..]) {
        bytes[at + nul] = b'\n';
        at += nul + 1;
    }
}

impl Session for Lines {
    fn landing(&self, tail_len: usize) -> Landing {
        match self.framing.landing(&self.form, tail_len) {
            Landing::Scratch { gap, .. } => Landing::Scratch { gap, most: SCRATCH_LANDING },
            in_chunk => in_chunk,
        }
    }

    fn input(&mut self, mut input: Input<'_>, window: &mut Window<'_>) -> Step {
        if !self.look(&mut input, window) {
            return Step::Close;
        }
        let step = match input {
            Input::Chunk { start, len } => self.framing.take_in_place(start, len, window),
            Input::Scratch { space, start, len } => {
                self.framing.take_beside(&space[start..start + len], &self.form, window)
            }
            Input::Datagram { bytes, cut, sender } => {
                if *sender != self.peer {
                    self.peer = *sender;
                    self.form.set_peer(sender);
                }
                self.framing.take_datagram(bytes, cut, &self.form, window)
            }
        };
        let went_on = window.sink.lines() > 0 || window.sink.dropped() > 0;
        self.mark = self.mark.wrapping_add(u32::from(went_on));
        step
    }

    fn finish(&mut self, end: End, window: &mut Window<'_>) {
        self.framing.finish(end, &self.form, window);
    }

    fn state(&self, tail_len: usize) -> State {
        let is_begun = self.framing.is_begun(tail_len);
        State {
            waiting: if is_begun { Waiting::Line } else { Waiting::Nothing },
            mark: self.mark,
            may_be_refused: true,
            is_between: true,
            has_output: self.count.is_some_and(|count| count.is_due()),
            finish_room: self.framing.room_to_end(&self.form, tail_len),
            ..State::default()
        }
    }

    fn reached(&mut self, _frame: u32, level: AckLevel, records: u64) {
        if level == AckLevel::Durable
            && let Some(count) = &mut self.count
        {
            count.reached(records);
        }
    }

    fn output(&mut self, reply: &mut Reply<'_>) {
        if let Some(reached) = self.count.as_mut().and_then(Count::next_due) {
            // Writing to a Vec cannot fail.
            let _ = writeln!(reply.out, "{reached}");
        }
    }
}

#[cfg(test)]
mod tests;
