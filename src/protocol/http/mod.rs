//! `protocol = "http"`: HTTP/1.1 requests whose bodies are lines (RFC 9110, RFC 9112). A 2xx means that every line of the
//! request has reached its level.
//!
//! Bodies stream: lines go into the chunk as they arrive, whatever the length of the body. What lies between two receives
//! is either the beginning of a head or of a line, and is the connection's tail; a body that is encoded waits in leased
//! memory instead (`decode`).

mod answer;
mod body;
mod decode;
mod encoded;
mod head;
mod options;
mod problem;
mod request;
mod snappy;
mod zstandard;

pub use answer::{Date, Reply};
pub use head::MOST_HEADERS;
pub use options::{HttpOptions, StreamChoice, Token};

use crate::host::peer::Peer;
use crate::metrics::accounting::Reason;
use crate::protocol::lines::{Lines, MARKER_ROOM};
use crate::session::room::Owner;
use crate::session::{AckLevel, End, Landing, Session, Step, Turn, Waiting, Window};
use answer::{Answer, Answers, Kind, Reached};
use body::{Body, Part};
use encoded::Encoded;
use problem::Problem;
use request::problem_of;
use std::sync::Arc;

/// Answers owed to one connection at most; requests behind them wait. Bounds what a connection that pipelines can hold.
const MAX_PIPELINED: usize = 16;
/// Received at once at most while it is not known whose bytes they are.
pub const HEAD_LANDING: usize = 32 << 10;
/// Bytes of a refused body that are read, so that the connection can go on; a longer one ends it.
const SKIP_MOST: u64 = 1 << 20;
/// A body that brings so much within `body_timeout` is alive.
const PROGRESS_BYTES: u64 = 4096;

/// Memory of a connection at most, beside its tail and what is leased: its state, the answers that it is owed, and those
/// that it does not read (a refusal has up to 400 bytes).
pub const BYTES_PER_CONNECTION: usize = size_of::<Http>() + MAX_PIPELINED * (size_of::<Answer>() + 400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests, or in a head.
    Head,
    /// In the body of a request that is taken.
    Body(Body),
    /// In the body of one that is not.
    Skip(Body),
    /// No more requests: closes when everything is answered.
    Over,
}

/// The request whose body is being read.
#[derive(Debug, Clone, Copy)]
struct Request {
    level: AckLevel,
    /// Where its lines go.
    stream: Option<u16>,
    /// Lines of the connection before it.
    start: u64,
    /// Bytes of its body so far.
    wire: u64,
    closes: bool,
    is_old: bool,
    /// A line of it was dropped.
    dropped: bool,
}

/// The state of one connection.
pub struct Http {
    options: Arc<HttpOptions>,
    /// To whom leased memory is charged.
    owner: Owner,
    /// Those that hold from the next request on.
    renewed: Option<Arc<HttpOptions>>,
    lines: Lines,
    state: State,
    request: Request,
    answers: Answers,
    reached: Reached,
    /// Lines committed so far.
    total: u64,
    requests: u32,
    encoded: Option<Box<Encoded>>,
    /// The tail holds requests that wait for answers to those before them.
    paused: bool,
    /// A request asked for less than the listener's level.
    awaits_writing: bool,
    mark: u32,
}

impl Http {
    /// A new connection.
    #[must_use]
    pub fn new(options: Arc<HttpOptions>, peer: &Peer, owner: Owner) -> Http {
        let lines = Lines::new(Arc::clone(&options.lines), peer);
        let level = options.ack;
        Http {
            options,
            owner,
            renewed: None,
            lines,
            state: State::Head,
            request: Request { level, stream: None, start: 0, wire: 0, closes: false, is_old: false, dropped: false },
            answers: Answers::default(),
            reached: Reached::default(),
            total: 0,
            requests: 0,
            encoded: None,
            paused: false,
            awaits_writing: false,
            mark: 0,
        }
    }

    /// Goes through `space[at..end]`.
    fn advance(&mut self, mut at: usize, end: usize, window: &mut Window<'_>) {
        loop {
            match self.state {
                State::Over => return,
                State::Head if at == end => return,
                State::Head => match self.head(at, end, window) {
                    Some(next) => at = next,
                    None => return,
                },
                State::Body(_) if self.encoded.as_ref().is_some_and(|e| e.is_active()) => {
                    return self.gather(at, end, window);
                }
                State::Body(body) => match self.body(body, at, end, window) {
                    Some(next) => at = next,
                    None => return,
                },
                State::Skip(body) => match self.skip(body, at, end, window) {
                    Some(next) => at = next,
                    None => return,
                },
            }
        }
    }

    /// Takes lines of the body and returns where it ends, if it does.
    fn body(&mut self, mut body: Body, mut at: usize, end: usize, window: &mut Window<'_>) -> Option<usize> {
        if let Some(refusal) = window.refuse {
            self.refuse(problem_of(refusal), body, window);
            return Some(at);
        }
        while at < end && body != Body::Over {
            match body.next(&window.space[at..end], self.options.max_header_bytes as u32) {
                Err(problem) => {
                    self.fatal(problem, window);
                    return None;
                }
                Ok(Part::Frame(n)) => at += n,
                Ok(Part::Content(n)) => {
                    if !self.count_body(n, window) || !self.take_lines(at, n, window) {
                        return None;
                    }
                    at += n;
                }
            }
        }
        self.state = State::Body(body);
        if body != Body::Over {
            return None;
        }
        self.complete(at, window).then_some(at)
    }

    /// Lets the lines in `space[at..at + len]` be found. False: one was too long and ended the request.
    fn take_lines(&mut self, at: usize, len: usize, window: &mut Window<'_>) -> bool {
        let (lines, dropped) = (window.lines, window.dropped.map(|(_, t)| t.lines));
        let step = self.lines.input(Landing { start: at, len }, len, window);
        self.total += u64::from(window.lines - lines);
        self.request.dropped |= window.dropped.map(|(_, t)| t.lines) != dropped;
        if step == Step::Close {
            self.fatal(&problem::LINE_TOO_LONG, window);
        }
        step == Step::Continue
    }

    /// The body is over; raw bytes up to `at` are used up. False: its last line was too long and ended the connection.
    fn complete(&mut self, at: usize, window: &mut Window<'_>) -> bool {
        let (lines, dropped) = (window.lines, window.dropped.map(|(_, t)| t.lines));
        let step = self.lines.end_body(at, window);
        self.total += u64::from(window.lines - lines);
        self.request.dropped |= window.dropped.map(|(_, t)| t.lines) != dropped;
        if step == Step::Close {
            self.fatal(&problem::LINE_TOO_LONG, window);
            return false;
        }
        let kind = if self.request.dropped { Kind::Problem(&problem::LINE_TOO_LONG) } else { Kind::Accepted };
        self.answer(kind, self.request.closes, false);
        self.state = if self.request.closes { State::Over } else { State::Head };
        self.mark = self.mark.wrapping_add(1);
        true
    }

    /// More of the body has come; enough of it, and the deadline begins anew.
    fn progress(&mut self, n: usize) {
        let before = self.request.wire / PROGRESS_BYTES;
        self.request.wire += n as u64;
        self.mark = self.mark.wrapping_add(u32::from(before != self.request.wire / PROGRESS_BYTES));
    }

    /// Counts bytes of the body. False: there are too many.
    fn count_body(&mut self, n: usize, window: &mut Window<'_>) -> bool {
        self.progress(n);
        if self.request.wire > self.options.max_body_bytes {
            self.fatal(&problem::BODY_TOO_LARGE, window);
            return false;
        }
        true
    }

    /// The request is not taken after all; what it holds still is read past.
    fn refuse(&mut self, problem: &'static Problem, body: Body, window: &mut Window<'_>) {
        self.lines.abandon(window);
        if let Some(encoded) = &mut self.encoded {
            encoded.stop();
        }
        if self.encoded.as_ref().is_some_and(|e| e.rest.is_empty()) {
            self.encoded = None;
        }
        let closes = self.request.closes || body.surely() > SKIP_MOST;
        self.answer(Kind::Problem(problem), closes, false);
        self.request.wire = 0;
        self.state = match body {
            _ if closes => State::Over,
            Body::Over => State::Head,
            body => State::Skip(body),
        };
    }

    fn skip(&mut self, mut body: Body, mut at: usize, end: usize, window: &mut Window<'_>) -> Option<usize> {
        while at < end && body != Body::Over {
            match body.next(&window.space[at..end], self.options.max_header_bytes as u32) {
                Ok(Part::Frame(n)) => at += n,
                Ok(Part::Content(n)) => {
                    at += n;
                    self.progress(n);
                }
                Err(_) => self.request.wire = u64::MAX,
            }
            if self.request.wire > SKIP_MOST {
                self.state = State::Over; // it was answered already
                return None;
            }
        }
        self.state = if body == Body::Over { State::Head } else { State::Skip(body) };
        (body == Body::Over).then_some(at)
    }

    fn answer(&mut self, kind: Kind, closes: bool, head_only: bool) {
        self.answers.push(Answer {
            kind,
            level: self.request.level,
            end: self.total,
            lines: self.total - self.request.start,
            closes,
            is_old: self.request.is_old,
            head_only,
        });
    }

    /// Answers and ends: where the next request begins is not known, or does not matter any more.
    fn fatal(&mut self, problem: &'static Problem, window: &mut Window<'_>) {
        if self.state == State::Head {
            self.request.start = self.total;
            window.tail.clear();
        }
        self.lines.abandon(window);
        self.encoded = None;
        self.paused = false;
        self.answer(Kind::Problem(problem), true, false);
        self.state = State::Over;
    }
}

impl Session for Http {
    fn renew(&mut self, options: &Arc<HttpOptions>) {
        self.renewed = Some(Arc::clone(options));
    }

    fn landing(&self, room: usize, tail_len: usize, least: usize) -> Option<Landing> {
        let Landing { start, len } = self.lines.landing(room, tail_len, 1)?;
        // A body that ends in this receive may end without a newline, and its last line needs room for one.
        let surely = match self.state {
            State::Body(body) if self.encoded.is_none() => body.surely(),
            _ => 0,
        };
        let (start, len) = match (len as u64) < surely || self.lines.grows() {
            true => (start, len),
            false => {
                let shifted = start.max(tail_len + MARKER_ROOM + 2);
                (shifted, room.checked_sub(shifted)?)
            }
        };
        let most = usize::try_from(surely).unwrap_or(usize::MAX).saturating_add(HEAD_LANDING);
        (len >= least).then_some(Landing { start, len: len.min(most) })
    }

    fn input(&mut self, landing: Landing, len: usize, window: &mut Window<'_>) -> Step {
        window.stream = self.request.stream;
        if let Some(encoded) = &self.encoded
            && encoded.is_active()
            && !encoded.is_empty()
        {
            self.decode(window); // nothing lands while something waits
            return Step::Continue;
        }
        let (mut at, mut end) = (landing.start, landing.start + len);
        if len == 0
            && let Some(encoded) = &mut self.encoded
        {
            end += encoded.feed_rest(&mut window.space[at..at + landing.len]);
            if !encoded.is_active() && encoded.rest.is_empty() {
                self.encoded = None;
            }
        }
        if self.state == State::Head && !window.tail.is_empty() {
            at -= window.tail.len();
            window.tail.copy_to(&mut window.space[at..]);
            window.tail.clear();
            self.paused = false;
        }
        self.advance(at, end, window);
        Step::Continue
    }

    fn end_of_datagram(&mut self, _cut: usize, _window: &mut Window<'_>) {}

    fn finish_room(&self, _tail_len: usize) -> usize {
        0
    }

    fn waiting(&self, tail_len: usize) -> Waiting {
        match self.state {
            State::Head if tail_len > 0 && !self.paused => Waiting::Head,
            State::Head | State::Over => Waiting::Nothing,
            State::Body(_) | State::Skip(_) => Waiting::Body,
        }
    }

    fn mark(&self) -> u32 {
        self.mark
    }

    fn turn(&self) -> Turn {
        match &self.encoded {
            Some(encoded) if !encoded.is_empty() => Turn::GoOn,
            // What would be received could only be kept.
            _ if self.state == State::Head && self.answers.len() >= MAX_PIPELINED => Turn::Wait,
            Some(encoded) if !encoded.rest.is_empty() => Turn::GoOn,
            _ if self.paused => Turn::GoOn,
            _ => Turn::Receive,
        }
    }

    fn frees_tail(&self) -> bool {
        self.paused
    }

    fn is_called_in(&self) -> bool {
        self.encoded.as_ref().is_some_and(|e| e.is_called_in())
    }

    fn may_be_refused(&self) -> bool {
        !matches!(self.state, State::Body(_))
    }

    fn is_between(&self, tail_len: usize) -> bool {
        self.state == State::Over || (self.state == State::Head && (tail_len == 0 || self.paused))
    }

    fn finish(&mut self, end: End, window: &mut Window<'_>) {
        if self.state == State::Head {
            self.request.start = self.total; // nothing of it was received
        }
        let inside = match self.state {
            State::Head => !window.tail.is_empty() && !self.paused,
            State::Body(_) => true,
            State::Skip(_) | State::Over => false,
        };
        if !matches!(self.state, State::Body(_)) {
            window.tail.clear(); // the beginning of a head is no line
        }
        let (reason, problem) = match end {
            End::Clean => (Reason::Unterminated, Some(&problem::INCOMPLETE)),
            End::Broken(reason) => {
                let problem = match reason {
                    Reason::LineTimeout => Some(&problem::TIMEOUT),
                    Reason::NoRoom => Some(&problem::NO_ROOM),
                    Reason::DiskFailed => Some(&problem::DISK_FAILED),
                    Reason::Shutdown => Some(&problem::SHUTTING_DOWN),
                    _ => None,
                };
                (reason, problem)
            }
        };
        self.lines.finish(End::Broken(reason), window);
        self.encoded = None;
        self.paused = false;
        match problem {
            Some(problem) if inside => self.answer(Kind::Problem(problem), true, false),
            _ => {}
        }
        self.state = State::Over;
    }

    fn acked(&mut self, lines: u64) {
        self.reached.level += lines;
    }

    fn written(&mut self, lines: u64) {
        self.reached.written = self.reached.written.max(lines);
    }

    fn awaits_writing(&mut self) -> Option<u64> {
        let awaits = self.awaits_writing && self.reached.level < self.total;
        let goes_on = matches!(self.state, State::Body(_)) && self.request.level == AckLevel::Written;
        self.awaits_writing = awaits && goes_on;
        awaits.then_some(self.total)
    }

    fn failed(&mut self) -> bool {
        self.answers.fail(&problem::DISK_FAILED);
        (self.encoded, self.paused) = (None, false);
        if matches!(self.state, State::Body(_)) {
            self.answer(Kind::Problem(&problem::DISK_FAILED), true, false);
        }
        self.state = State::Over;
        true
    }

    fn has_output(&self) -> bool {
        self.answers.is_due(self.reached)
    }

    fn owes(&self) -> bool {
        !self.answers.is_empty()
    }

    fn is_over(&self) -> bool {
        self.state == State::Over && self.answers.is_empty()
    }

    fn output(&mut self, reply: &mut Reply<'_>) {
        if self.answers.write(self.reached, reply) {
            self.state = State::Over;
        }
    }
}

#[cfg(test)]
mod tests;
