//! Where a message ends on a stream (RFC 6587), told apart for each: octet counting, newline and NUL, mixed on one connection.
//!
//! A count is 1 to 9 digits without a leading zero, a blank and a `<`. All else is text, since a bare line may begin with a date. Text
//! ends with a newline, and from the first PRI on also with NUL. Behind a counted message only another frame with a count or a PRI, or
//! a terminator, can stand. Where something else stands there, the count was wrong, and nobody can say where the next message begins.

use crate::metrics::accounting::Reason;
use crate::metrics::stats::Unexpected;
use crate::session::lines::{Ends, LineOptions, Lines};
use crate::session::memory::tail::Tail;
use crate::session::syslog::message;
use crate::session::syslog::writing::Writing;
use crate::session::write::Writer;
use crate::session::{End, Frame, Step, Window};
use memchr::{memchr, memchr2};

/// Most digits of a count.
const DIGITS: usize = 9;
/// Bytes at the beginning of a frame that may be needed to tell what it is: a count, a blank, and a `<` or three bytes of what is
/// compressed.
const BEGINNING: usize = DIGITS + 4;

/// Where the present frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At its beginning, of which a part may be in the tail.
    Beginning,
    /// In a message that so many more bytes belong to.
    Counted(usize),
    /// In text, which NUL ends too, or not.
    Text(bool),
}

/// What a frame is.
#[derive(Debug, PartialEq, Eq)]
enum Begins {
    /// More bytes are needed.
    Undecided,
    /// No frame: so many bytes that end the one before, or nothing.
    Terminator(usize),
    /// A count of so many digits, and what it says.
    Counted(usize, usize),
    /// Text, with a PRI or without.
    Text(bool),
    /// A message that rsyslog has compressed.
    Compressed,
}

/// A message that rsyslog has compressed: a `z`, and zlib's beginning with any level (RFC 1950 section 2.2). `None`: it is none.
fn compressed(message: &[u8]) -> Option<Begins> {
    match message {
        [b'z'] | [b'z', b'x'] => Some(Begins::Undecided),
        [b'z', b'x', 0x01 | 0x5e | 0x9c | 0xda, ..] => Some(Begins::Compressed),
        _ => None,
    }
}

/// What stands at the beginning of a frame.
fn look(bytes: &[u8]) -> Begins {
    if let Some(frame) = compressed(bytes) {
        return frame;
    }
    match bytes {
        [] | [b'\r'] => Begins::Undecided,
        [b'\n' | 0, ..] => Begins::Terminator(1),
        [b'\r', b'\n', ..] => Begins::Terminator(2),
        [b'<', ..] => match message::pri(bytes) {
            Some(_) => Begins::Text(true),
            None if bytes.len() < 5 && bytes[1..].iter().all(u8::is_ascii_digit) => Begins::Undecided,
            None => Begins::Text(false),
        },
        [b'1'..=b'9', ..] => {
            let digits = bytes.iter().take(DIGITS + 1).take_while(|b| b.is_ascii_digit()).count();
            let count = || bytes[..digits].iter().fold(0, |n, b| n * 10 + usize::from(b - b'0'));
            match &bytes[digits..] {
                _ if digits > DIGITS => Begins::Text(false),
                [] | [b' '] => Begins::Undecided,
                [b' ', b'<', ..] => Begins::Counted(digits, count()),
                [b' ', message @ ..] => compressed(message).unwrap_or(Begins::Text(false)),
                _ => Begins::Text(false),
            }
        }
        _ => Begins::Text(false),
    }
}

/// The frames of one connection.
#[derive(Debug)]
pub struct Framing {
    lines: Lines,
    longest: usize,
    at: At,
    /// The frame before had a count.
    behind_count: bool,
    /// Some frame had a PRI. From then on NUL ends text too: it may be the rest of a message that ends so and has a newline in it.
    speaks_syslog: bool,
}

impl Framing {
    /// Between frames.
    #[must_use]
    pub fn new(options: LineOptions) -> Framing {
        Framing {
            lines: Lines::new(options),
            longest: options.max_line_bytes,
            at: At::Beginning,
            behind_count: false,
            speaks_syslog: false,
        }
    }

    /// Changes the options, between messages.
    pub fn renew(&mut self, options: LineOptions) {
        (self.lines, self.longest) = (Lines::new(options), options.max_line_bytes);
    }

    /// True where a message is begun, with so much in the tail.
    #[must_use]
    pub fn is_begun(&self, tail_len: usize) -> bool {
        self.at != At::Beginning || tail_len > 0
    }

    /// Room that ending what is begun needs at most.
    #[must_use]
    pub fn room_to_end(&self, writer: &Writing, tail_len: usize) -> usize {
        if self.is_begun(tail_len) { writer.room_for(tail_len) } else { 0 }
    }

    /// Takes in what lies beside the sink.
    pub fn take(&mut self, bytes: &[u8], writer: &Writing, window: &mut Window<'_>) -> Step {
        let mut at = 0;
        while at < bytes.len() {
            let taken = match self.at {
                At::Beginning => self.begin(&bytes[at..], writer, window),
                At::Counted(left) => self.take_counted(&bytes[at..], left, writer, window),
                At::Text(nul_ends) => self.take_text(&bytes[at..], nul_ends, writer, window),
            };
            match taken {
                Ok(n) => at += n,
                Err(Step::Full(n)) => return Step::Full(at + n),
                Err(other) => return other,
            }
        }
        Step::Continue
    }

    /// Tells what frame begins. Returns how many bytes belong to its beginning and are done with.
    fn begin(&mut self, bytes: &[u8], writer: &Writing, window: &mut Window<'_>) -> Result<usize, Step> {
        let held = window.tail.len();
        if held == 0 && !self.behind_count {
            let run = self.take_run(bytes, writer, window);
            if run > 0 {
                return Ok(run);
            }
        }
        let mut beginning = [0; BEGINNING];
        window.tail.copy_to(&mut beginning);
        let n = bytes.len().min(BEGINNING - held);
        beginning[held..held + n].copy_from_slice(&bytes[..n]);
        match look(&beginning[..held + n]) {
            Begins::Undecided => {
                window.tail.append(&bytes[..n]);
                Ok(n)
            }
            Begins::Terminator(len) => {
                window.tail.clear();
                Ok(len - held)
            }
            Begins::Counted(digits, count) => {
                window.tail.clear();
                self.lines.begin(Ends::Count);
                self.at = At::Counted(count);
                Ok(digits + 1 - held)
            }
            Begins::Text(has_pri) if has_pri || !self.behind_count => {
                self.lines.begin(Ends::Terminator);
                self.speaks_syslog |= has_pri;
                (self.at, self.behind_count) = (At::Text(self.speaks_syslog), false);
                Ok(0)
            }
            Begins::Text(_) => Err(self.refuse(Unexpected::Count, bytes.len(), window)),
            Begins::Compressed => Err(self.refuse(Unexpected::CompressedSyslog, bytes.len(), window)),
        }
    }

    /// Many lines that are written as they are, at once. Returns how many bytes; 0: the first frame is something else.
    fn take_run(&mut self, bytes: &[u8], writer: &Writing, window: &mut Window<'_>) -> usize {
        if !writer.keeps_lines() {
            return 0;
        }
        let (mut end, mut lines) = (0, 0);
        let most = window.sink.room();
        while bytes.get(end) == Some(&b'<') {
            let Some(len) = memchr2(b'\n', 0, &bytes[end..]) else { break };
            let line = &bytes[end..end + len];
            // What is not simply a line is looked at by itself.
            if bytes[end + len] == 0 || line.ends_with(b"\r") || len > self.longest || message::pri(line).is_none() {
                break;
            }
            if end + len + 1 > most {
                break;
            }
            (end, lines) = (end + len + 1, lines + 1);
        }
        window.sink.free()[..end].copy_from_slice(&bytes[..end]);
        window.sink.commit(end, lines);
        self.speaks_syslog |= end > 0;
        end
    }

    fn take_counted(
        &mut self,
        bytes: &[u8],
        left: usize,
        writer: &Writing,
        window: &mut Window<'_>,
    ) -> Result<usize, Step> {
        if bytes.len() < left {
            pass(self.lines.gather(bytes, window))?;
            self.at = At::Counted(left - bytes.len());
            return Ok(bytes.len());
        }
        writer.direct(&self.lines, (&bytes[..left], 0), Frame::default(), window);
        pass(self.lines.complete(&bytes[..left], writer, window))?;
        (self.at, self.behind_count) = (At::Beginning, true);
        Ok(left)
    }

    fn take_text(
        &mut self,
        bytes: &[u8],
        nul_ends: bool,
        writer: &Writing,
        window: &mut Window<'_>,
    ) -> Result<usize, Step> {
        let end = if nul_ends { memchr2(b'\n', 0, bytes) } else { memchr(b'\n', bytes) };
        let Some(end) = end else {
            pass(self.lines.gather(bytes, window))?;
            return Ok(bytes.len());
        };
        writer.direct(&self.lines, (&bytes[..end], 0), Frame::default(), window);
        pass(self.lines.complete(&bytes[..end], writer, window))?;
        self.at = At::Beginning;
        Ok(end + 1)
    }

    /// Ends the connection: nobody can say where the next message begins, or what it says.
    fn refuse(&mut self, what: Unexpected, len: usize, window: &mut Window<'_>) -> Step {
        window.sink.notice(what);
        window.sink.drop_record(Reason::Unexpected, (window.tail.len() + len) as u64);
        self.abandon(window);
        Step::Close
    }

    /// Forgets what has begun, without counting it.
    pub fn abandon(&mut self, window: &mut Window<'_>) {
        self.lines.abandon(window);
        self.at = At::Beginning;
    }

    /// A datagram: one message, whatever it holds. Terminators behind it go.
    pub fn take_datagram(&mut self, bytes: &[u8], cut: usize, writer: &Writing, window: &mut Window<'_>) -> Step {
        if compressed(bytes) == Some(Begins::Compressed) {
            window.sink.notice(Unexpected::CompressedSyslog);
            window.sink.drop_record(Reason::Unexpected, (bytes.len() + cut) as u64);
            return Step::Continue;
        }
        let is_end = |b: &u8| matches!(b, b'\n' | 0);
        let len =
            if cut == 0 { bytes.iter().rposition(|b| !is_end(b)).map_or(0, |last| last + 1) } else { bytes.len() };
        if len == 0 && cut == 0 {
            return Step::Continue;
        }
        self.lines.begin(Ends::Terminator);
        writer.direct(&self.lines, (&bytes[..len], cut), Frame::default(), window);
        self.lines.take_record(&bytes[..len], cut as u64, writer, window)
    }

    /// Ends the input. Text may be kept after a clean end; of a counted message it is known that more was to come.
    pub fn finish(&mut self, end: End, writer: &Writing, window: &mut Window<'_>) {
        if !self.is_begun(window.tail.len()) {
            return;
        }
        let is_half = match self.at {
            At::Counted(_) => true,
            At::Text(_) => false,
            At::Beginning => {
                self.lines.begin(Ends::Terminator);
                // Of a count that was to come, or of a terminator.
                self.behind_count || is_cr(&mut window.tail)
            }
        };
        let end = if is_half && end == End::Clean { End::Broken(Reason::Unterminated) } else { end };
        writer.direct(&self.lines, (b"", 0), Frame::default(), window);
        self.lines.finish(end, writer, window);
        self.at = At::Beginning;
    }
}

/// True if the tail is a CR, and nothing else.
fn is_cr(tail: &mut Tail<'_>) -> bool {
    let mut first = [0];
    if tail.len() == 1 {
        tail.copy_to(&mut first);
    }
    first == [b'\r']
}

/// Goes on, or says why not.
fn pass(step: Step) -> Result<(), Step> {
    if step == Step::Continue { Ok(()) } else { Err(step) }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
