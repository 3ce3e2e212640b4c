//! The state of one RELP connection.

use super::header::{self, Beginning, Command, Header, LAST_TXNR};
use super::{RelpOptions, RelpProtocol};
use crate::host::mutants::mutant;
use crate::host::peer::Peer;
use crate::metrics::accounting::Reason;
use crate::metrics::stats::Unexpected;
use crate::session::beginnings::Beginning as FirstBytes;
use crate::session::lines::{Ends, Lines};
use crate::session::owed::Owed;
use crate::session::profile::SCRATCH_LANDING;
use crate::session::syslog::writing::Writing;
use crate::session::{
    AckLevel, End, Frame, Input, Landing, Protocol, Reply, Session, State, Step, Turn, Waiting, Window, downcast,
};
use std::io::Write;
use std::sync::Arc;

/// With so many messages unanswered a connection waits. So what a client that never waits can hold is bounded, and librelp's window of 128
/// is not cut up.
const MOST_UNANSWERED: u32 = 256;
/// Bytes received at once while it is not known that they belong to one message.
const LANDING: usize = 8 << 10;
/// The shortest frame: `1 syslog 0` and a newline.
const SHORTEST: usize = 11;
/// The longest answer to a message.
const LONGEST_ANSWER: usize = 18;
/// Bytes of data of a command other than `syslog` at most: librelp's offers have about a hundred.
const MOST_OFFERS: usize = 4096;
/// Memory of a connection at most beside its tail: its state, what it is owed (messages that came together are one entry), and the answers
/// that it does not read.
pub const BYTES_PER_CONNECTION: usize = size_of::<Relp>()
    + MOST_UNANSWERED as usize * Owed::<Answer>::BYTES
    + (MOST_UNANSWERED as usize + LANDING / SHORTEST) * LONGEST_ANSWER;

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between frames, or in a header.
    Header,
    /// In the data of a frame, of which so many bytes are to come.
    Data(Header, usize),
    /// Behind the data, in front of the newline.
    End(Header),
    /// It takes no more.
    Over,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// To messages with consecutive numbers: the first, and how many.
    Taken(u32, u32),
    /// To an `open`.
    Opened(u32),
    /// To a command that is not known.
    Unknown(u32),
    /// To a `close`, with which the connection ends.
    Closed(u32),
    /// To nothing: the server ends the session.
    Goodbye,
}

/// See the module documentation.
pub struct Relp {
    options: RelpOptions,
    /// The options that hold from the next frame on.
    renewed: Option<Arc<RelpProtocol>>,
    peer: Peer,
    writing: Writing,
    lines: Lines,
    at: At,
    owed: Owed<Answer>,
    /// The numbers of the messages that are acknowledged together: the first, and how many. None are open where that is 0.
    group: (u32, u32),
    /// Their frame.
    frame: Frame,
    /// Messages that were not answered.
    unanswered: u32,
    /// The number that must come next.
    next: u32,
    is_open: bool,
    mark: u32,
    first_bytes: FirstBytes,
}

/// Why the input is not gone on with.
enum Stop {
    Full,
    Close,
}

impl Relp {
    /// A new connection.
    #[must_use]
    pub fn new(options: &RelpOptions, peer: &Peer) -> Self {
        let mut lines = Lines::new(options.framing);
        lines.begin(Ends::Count);
        Relp {
            writing: Writing::new(&options.writing, &options.listener, peer),
            options: options.clone(),
            renewed: None,
            peer: *peer,
            lines,
            at: At::Header,
            owed: Owed::default(),
            group: (0, 0),
            frame: Frame::default(),
            unanswered: 0,
            next: 1,
            is_open: false,
            mark: 0,
            first_bytes: FirstBytes::default(),
        }
    }

    /// The number that must come next.
    #[cfg(test)]
    pub fn jump_to(&mut self, txnr: u32) {
        self.next = txnr;
    }

    /// Takes over changed options, between frames.
    fn take_over(&mut self, tail_len: usize) {
        let is_between = self.at == At::Header && tail_len == 0;
        if let Some(renewed) = self.renewed.take_if(|_| is_between) {
            self.options = renewed.options().clone();
            self.lines = Lines::new(self.options.framing);
            self.lines.begin(Ends::Count);
            self.writing = Writing::new(&self.options.writing, &self.options.listener, &self.peer);
        }
    }

    /// Goes through bytes that lie beside the sink. Returns how many were handled, and why not all.
    fn advance(&mut self, bytes: &[u8], window: &mut Window<'_>) -> (usize, Option<Stop>) {
        let mut at = 0;
        while at < bytes.len() {
            let taken = match self.at {
                At::Header => self.header(&bytes[at..], window),
                At::Data(header, left) => self.data(header, left, &bytes[at..], window),
                At::End(header) => self.end(header, bytes[at], window),
                At::Over => return (bytes.len(), None),
            };
            match taken {
                Ok(n) => at += n,
                Err(stop) => return (at, Some(stop)),
            }
        }
        (at, None)
    }

    fn header(&mut self, bytes: &[u8], window: &mut Window<'_>) -> Result<usize, Stop> {
        let held = window.tail.len();
        let mut beginning = [0; header::LONGEST];
        window.tail.copy_to(&mut beginning);
        let n = bytes.len().min(header::LONGEST - held);
        beginning[held..held + n].copy_from_slice(&bytes[..n]);
        let found = match header::read(&beginning[..held + n]) {
            Beginning::Header(header) => header,
            Beginning::Half if held + n < header::LONGEST => {
                window.tail.append(&bytes[..n]);
                return Ok(n);
            }
            Beginning::Half | Beginning::Broken => return Err(self.broken(bytes.len(), window)),
        };
        let is_in_turn = found.txnr == self.next;
        let is_allowed = match found.command {
            Command::Open => !self.is_open,
            Command::Syslog => self.is_open,
            Command::Close | Command::Unknown => true,
        };
        if !is_in_turn || !is_allowed || (found.command != Command::Syslog && found.data > MOST_OFFERS) {
            return Err(self.broken(bytes.len(), window));
        }
        window.tail.clear();
        let has_data = found.data > 0 || found.command == Command::Syslog;
        self.at = if has_data { At::Data(found, found.data) } else { At::End(found) };
        Ok(found.len - held)
    }

    /// The data of a frame. A message becomes a record; the offers of clients are the same everywhere, so they are read past.
    fn data(&mut self, header: Header, left: usize, bytes: &[u8], window: &mut Window<'_>) -> Result<usize, Stop> {
        let n = bytes.len().min(left);
        let is_whole = n == left;
        if header.command == Command::Syslog {
            let step = match is_whole {
                true => self.message(&bytes[..n], header, window),
                false => self.lines.gather(&bytes[..n], window),
            };
            match step {
                Step::Continue => {}
                Step::Full(_) => return Err(Stop::Full),
                Step::Close => return Err(Stop::Close),
            }
        }
        self.at = if is_whole { At::End(header) } else { At::Data(header, left - n) };
        Ok(n)
    }

    /// Ends a message: it is one more of the group.
    fn message(&mut self, last: &[u8], header: Header, window: &mut Window<'_>) -> Step {
        if self.group.1 == 0 {
            self.group.0 = header.txnr;
            let is_early = mutant!("relp_answered_on_receipt");
            let frame = self.owed.open(if is_early { AckLevel::Received } else { self.options.ack });
            self.frame = frame;
        }
        self.writing.direct(&self.lines, (last, 0), self.frame, window);
        let before = window.sink.lines();
        let step = self.lines.complete(last, &self.writing, window);
        match step {
            Step::Continue => {
                // Also one that was too long and is dropped: its sender would bring it again for ever.
                self.group.1 += 1;
                self.owed.add(window.sink.lines() - before);
            }
            Step::Full(_) | Step::Close if self.group.1 == 0 => self.owed.withdraw(),
            Step::Full(_) | Step::Close => {}
        }
        step
    }

    /// Owes the answer to the messages that have come together.
    fn end_group(&mut self) {
        let (first, count) = std::mem::take(&mut self.group);
        if count > 0 {
            self.unanswered += count;
            self.owed.close(Answer::Taken(first, count));
        }
    }

    /// The newline behind a frame.
    fn end(&mut self, header: Header, byte: u8, window: &mut Window<'_>) -> Result<usize, Stop> {
        if byte != b'\n' {
            return Err(self.broken(1, window));
        }
        self.mark = self.mark.wrapping_add(1);
        self.next = if header.txnr == LAST_TXNR { 1 } else { header.txnr + 1 };
        self.at = At::Header;
        let answer = match header.command {
            Command::Syslog => return Ok(1),
            Command::Open => {
                self.is_open = true;
                Answer::Opened(header.txnr)
            }
            Command::Close => Answer::Closed(header.txnr),
            Command::Unknown => Answer::Unknown(header.txnr),
        };
        self.end_group();
        self.owed.say(answer);
        if answer != Answer::Opened(header.txnr) {
            self.at = At::Over;
        }
        Ok(1)
    }

    /// What has come is no RELP, or out of turn: nothing behind it can be told apart.
    fn broken(&mut self, len: usize, window: &mut Window<'_>) -> Stop {
        window.sink.notice(Unexpected::NotRelp);
        window.sink.drop_record(Reason::Unexpected, (window.tail.len() + len) as u64);
        self.lines.abandon(window);
        self.at = At::Over;
        Stop::Close
    }
}

impl Session for Relp {
    fn landing(&self, _tail_len: usize) -> Landing {
        let surely = if let At::Data(_, left) = self.at { left } else { 0 };
        Landing::Scratch { gap: 0, most: surely.saturating_add(LANDING).min(SCRATCH_LANDING) }
    }

    fn input(&mut self, input: Input<'_>, window: &mut Window<'_>) -> Step {
        let Input::Scratch { space, start, len } = input else { return Step::Close };
        let bytes = &space[start..start + len];
        self.take_over(window.tail.len());
        let what = self.first_bytes.look(bytes).filter(|what| *what != Unexpected::Relp);
        let (taken, stop) = self.advance(bytes, window);
        what.into_iter().for_each(|what| window.sink.notice(what)); // it says more than that it is no RELP
        if window.around.refuse.is_some() && self.group.1 > 0 {
            // They are dropped: nobody may be told that they were taken, and the connection ends.
            self.at = At::Over;
            self.group = (0, 0);
            self.owed.withdraw();
            return Step::Continue;
        }
        self.end_group();
        match stop {
            None => Step::Continue,
            Some(Stop::Full) => Step::Full(taken),
            Some(Stop::Close) => Step::Close,
        }
    }

    fn finish(&mut self, end: End, window: &mut Window<'_>) {
        let reason = match end {
            End::Clean => Reason::Unterminated,
            End::Broken(reason) => reason,
        };
        match self.at {
            // Behind the last byte of a message only its newline is missing: it counts.
            At::Data(header, _) if header.command == Command::Syslog => {
                self.lines.finish(End::Broken(reason), &self.writing, window);
            }
            _ => window.tail.clear(),
        }
        let says_goodbye = self.at != At::Over && self.is_open && !matches!(end, End::Broken(Reason::Reset));
        if says_goodbye {
            self.owed.say(Answer::Goodbye);
        }
        self.at = At::Over;
    }

    fn state(&self, tail_len: usize) -> State {
        let is_between = self.at == At::Header && tail_len == 0;
        State {
            waiting: if is_between || self.at == At::Over { Waiting::Nothing } else { Waiting::Line },
            mark: self.mark,
            turn: if self.unanswered >= MOST_UNANSWERED { Turn::Wait } else { Turn::Receive },
            may_be_refused: true,
            is_between: is_between || self.at == At::Over,
            has_output: self.owed.is_due(),
            owes: !self.owed.is_empty(),
            is_over: self.at == At::Over && self.owed.is_empty(),
            ..State::default()
        }
    }

    fn reached(&mut self, frame: u32, level: AckLevel, records: u64) {
        self.owed.reached(frame, level, records);
    }

    fn output(&mut self, reply: &mut Reply<'_>) {
        while let Some(answer) = self.owed.next_due() {
            let out = &mut *reply.out;
            // Writing to a Vec cannot fail.
            match answer {
                Answer::Taken(first, count) => {
                    self.unanswered -= count;
                    let mut txnr = first;
                    for _ in 0..count {
                        let _ = writeln!(out, "{txnr} rsp 6 200 OK");
                        txnr = if txnr == LAST_TXNR { 1 } else { txnr + 1 };
                    }
                }
                Answer::Opened(txnr) => {
                    let offers = concat!(
                        "200 OK\nrelp_version=0\nrelp_software=logweir,",
                        env!("CARGO_PKG_VERSION"),
                        "\ncommands=syslog"
                    );
                    let _ = writeln!(out, "{txnr} rsp {} {offers}", offers.len());
                }
                Answer::Unknown(txnr) => {
                    let text = "500 this command is not known here";
                    let _ = writeln!(out, "{txnr} rsp {} {text}\n0 serverclose 0", text.len());
                }
                Answer::Closed(txnr) => {
                    let _ = writeln!(out, "{txnr} rsp 0\n0 serverclose 0");
                }
                Answer::Goodbye => {
                    let _ = writeln!(out, "0 serverclose 0");
                }
            }
        }
    }

    fn renew(&mut self, protocol: &Arc<dyn Protocol>) {
        self.renewed = downcast(protocol);
    }
}
