//! The state of one HTTP connection.

use super::answer::{Answer, Done, Kind, Made, write};
use super::api::Watcher;
use super::body::{Body, Part};
use super::encoded::Encoded;
use super::forms::Forms;
use super::options::HttpOptions;
use super::problem::{self, Problem};
use super::request::{Request, problem_of};
use super::voice::TEXT;
use crate::host::peer::Peer;
use crate::metrics::accounting::Reason;
use crate::protocol::http::HttpProtocol;
use crate::session::lines::Lines;
use crate::session::owed::Owed;
use crate::session::profile::SCRATCH_LANDING;
use crate::session::{
    AckLevel, End, Input, Landing, Owner, Protocol, Reply, Session, State as Standing, Step, Turn, Waiting, Window,
    downcast,
};
use std::sync::Arc;

/// Answers owed to one connection at most; requests behind them wait. Bounds what a connection that pipelines can hold.
pub const MAX_PIPELINED: usize = 16;
/// The most bytes received at once while it is not known which request they belong to.
pub const HEAD_LANDING: usize = 32 << 10;
/// Bytes of a refused body that are read, so that the connection can go on; a longer one ends it.
pub const SKIP_MOST: u64 = 1 << 20;
/// No further answer is written behind so many bytes of them: one that is long waits until those before it were sent.
const OUTPUT_MOST: usize = 64 << 10;
/// A body must bring this many bytes within `body_timeout`.
const PROGRESS_BYTES: u64 = 4096;

/// Memory of a connection at most, beside its tail and what is leased: its state, the answers that it is owed, and those
/// that it does not read (a refusal has up to 400 bytes).
pub const BYTES_PER_CONNECTION: usize = size_of::<Http>() + MAX_PIPELINED * (Owed::<Answer>::BYTES + 400);

/// The place in the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Between requests, or in a head.
    Head,
    /// In the body of a request that is taken.
    Body(Body),
    /// In the body of one that is not.
    Skip(Body),
    /// No more requests: closes when everything is answered.
    Over,
}

/// The result of handling some bytes.
enum Flow {
    /// On behind what ended there.
    On(usize),
    /// Everything was gone through, or nothing more will be.
    Stop,
    /// What is there needs a fresh chunk.
    Full(usize),
}

/// See the module documentation.
pub struct Http {
    pub(super) options: Arc<HttpOptions>,
    /// The options that hold from the next request on.
    pub(super) renewed: Option<Arc<HttpOptions>>,
    /// To whom leased memory is charged.
    pub(super) owner: Owner,
    pub(super) forms: Forms,
    lines: Lines,
    pub(super) state: State,
    pub(super) request: Request,
    pub(super) answers: Owed<Answer>,
    pub(super) requests: u32,
    pub(super) encoded: Option<Box<Encoded>>,
    /// Frames that were answered already, and who is told when all their records, of which there are so many left, have reached the level.
    pub(super) watched: Vec<(u32, u64, Box<dyn Watcher>)>,
    /// The last answer that was written, whose memory is leased until it was sent.
    sending: Option<Box<Done>>,
    /// The tail holds requests that wait for answers to those before them.
    pub(super) paused: bool,
    /// What was in the tail of requests when the chunk was full. It goes first.
    held: Vec<u8>,
    pub(super) mark: u32,
}

impl Http {
    /// A new connection.
    #[must_use]
    pub fn new(options: Arc<HttpOptions>, peer: &Peer, owner: Owner) -> Http {
        Http {
            forms: Forms::new(&options.listener, &options.routes, peer),
            lines: Lines::new(options.framing),
            options,
            renewed: None,
            owner,
            state: State::Head,
            request: Request::default(),
            answers: Owed::default(),
            requests: 0,
            encoded: None,
            watched: Vec::new(),
            sending: None,
            paused: false,
            held: Vec::new(),
            mark: 0,
        }
    }

    /// Goes through `bytes[at..]`.
    fn advance(&mut self, bytes: &[u8], mut at: usize, window: &mut Window<'_>) -> Step {
        let start = at;
        loop {
            let flow = match self.state {
                State::Over => Flow::Stop,
                State::Head if at == bytes.len() => Flow::Stop,
                State::Head => self.head(&bytes[at..], window).map_or(Flow::Stop, |n| Flow::On(at + n)),
                State::Body(body) if self.is_encoded() => {
                    let is_full = self.gather(body, &bytes[at..], window);
                    if is_full { Flow::Full(bytes.len()) } else { Flow::Stop }
                }
                State::Body(body) => self.body(body, bytes, at, window),
                State::Skip(body) => self.skip(body, bytes, at),
            };
            match flow {
                Flow::On(next) => at = next,
                Flow::Stop => return Step::Continue,
                Flow::Full(at) => return Step::Full(at - start),
            }
        }
    }

    fn is_encoded(&self) -> bool {
        self.encoded.as_ref().is_some_and(|e| e.is_active())
    }

    /// Takes lines of the body, to where it ends if it does.
    fn body(&mut self, mut body: Body, bytes: &[u8], mut at: usize, window: &mut Window<'_>) -> Flow {
        if let Some(refusal) = window.around.refuse {
            self.refuse(problem_of(refusal), body, window);
            return Flow::On(at);
        }
        let most_trailer = self.options.max_header_bytes as u32;
        while at < bytes.len() && body != Body::Over {
            let before = body;
            match body.next(&bytes[at..], most_trailer) {
                Err(problem) => {
                    self.fatal(problem, window);
                    return Flow::Stop;
                }
                Ok(Part::Frame(n)) => at += n,
                Ok(Part::Content(n)) => {
                    if !self.count_body(n, window) {
                        return Flow::Stop;
                    }
                    match self.take_lines(&bytes[at..at + n], window) {
                        Step::Continue => at += n,
                        Step::Close => return Flow::Stop,
                        Step::Full(taken) => {
                            // The rest of it comes again.
                            self.request.wire -= (n - taken) as u64;
                            body = before;
                            if taken > 0 {
                                let _ = body.next(&bytes[at..at + taken], most_trailer); // it was good a moment ago
                            }
                            self.state = State::Body(body);
                            return Flow::Full(at + taken);
                        }
                    }
                }
            }
        }
        self.state = State::Body(body);
        if body != Body::Over {
            return Flow::Stop;
        }
        if !self.complete(window) {
            return Flow::Full(at);
        }
        if self.state == State::Over { Flow::Stop } else { Flow::On(at) }
    }

    /// Takes in what was received beside the sink, or goes on with what is held.
    fn beside(&mut self, space: &mut [u8], mut start: usize, len: usize, window: &mut Window<'_>) -> Step {
        if let Some(encoded) = &self.encoded
            && encoded.is_active()
            && !encoded.is_empty()
        {
            // Nothing lands while something waits.
            return if self.decode(window) { Step::Full(len) } else { Step::Continue };
        }
        let (mut end, mut fed) = (start + len, 0);
        if len == 0
            && let Some(encoded) = &mut self.encoded
        {
            fed = encoded.feed_rest(&mut space[start..]);
            end += fed;
        }
        let mut before = self.held.len();
        if before > 0 {
            start -= before;
            space[start..start + before].copy_from_slice(&std::mem::take(&mut self.held));
        } else if self.state == State::Head && !window.tail.is_empty() {
            before = window.tail.len();
            start -= before;
            window.tail.copy_to(&mut space[start..]);
            window.tail.clear();
            self.paused = false;
        }
        match self.advance(&space[..end], start, window) {
            Step::Full(n) => {
                if n < before {
                    self.held = space[start + n..start + before].to_vec();
                }
                let taken = n.saturating_sub(before);
                if fed > 0 {
                    self.keep_rest(&space[end - (fed - taken)..end]); // what came from behind a body goes back there
                    return Step::Full(len);
                }
                Step::Full(taken)
            }
            step => step,
        }
    }

    /// Takes in what was received in its place: of a body that does not end there.
    fn in_place(&mut self, start: usize, len: usize, window: &mut Window<'_>) {
        let State::Body(mut body) = self.state else { return };
        if let Some(refusal) = window.around.refuse {
            self.refuse(problem_of(refusal), body, window);
            let State::Skip(body) = self.state else { return };
            let space = window.sink.space();
            let _ = self.skip(body, &space[start..start + len], 0); // nothing follows
            return;
        }
        let most_trailer = self.options.max_header_bytes as u32;
        // All of it is content: it was asked for no more than that.
        let _ = body.next(&window.sink.space()[start..start + len], most_trailer);
        self.state = State::Body(body);
        if !self.count_body(len, window) {
            return;
        }
        let before = (window.sink.lines(), window.sink.dropped());
        let step = self.lines.take_in_place(start, len, window);
        self.note(before, window);
        if step == Step::Close {
            self.fatal(&problem::LINE_TOO_LONG, window);
        }
    }

    /// Lets the lines in `bytes` be found. Where one was too long, the request has ended.
    pub(super) fn take_lines(&mut self, bytes: &[u8], window: &mut Window<'_>) -> Step {
        let before = (window.sink.lines(), window.sink.dropped());
        let step = self.lines.take_beside(bytes, self.forms.now(), window);
        self.note(before, window);
        if step == Step::Close {
            self.fatal(&problem::LINE_TOO_LONG, window);
        }
        step
    }

    /// Counts what was found since the sink had so many lines and so many had been dropped.
    pub(super) fn note(&mut self, (lines, dropped): (u64, u64), window: &Window<'_>) {
        let found = window.sink.lines() - lines;
        self.request.lines += found;
        self.answers.add(found);
        self.request.dropped |= window.sink.dropped() > dropped;
    }

    /// The body is over. False: its last line needs a fresh chunk first.
    pub(super) fn complete(&mut self, window: &mut Window<'_>) -> bool {
        if window.sink.room() < self.lines.room_to_end(self.forms.now(), window.tail.len()) {
            return false;
        }
        let before = (window.sink.lines(), window.sink.dropped());
        let step = self.lines.end_begun(self.forms.now(), 0, window);
        self.note(before, window);
        if step == Step::Close {
            self.fatal(&problem::LINE_TOO_LONG, window);
            return true;
        }
        self.end(Kind::Accepted(self.request.status));
        true
    }

    /// Ends the request behind its body: all of it was taken, or a record was too long.
    pub(super) fn end(&mut self, success: Kind) {
        let kind = if self.request.dropped { Kind::Problem(&problem::LINE_TOO_LONG) } else { success };
        self.answer(kind, self.request.closes, false);
        self.state = if self.request.closes { State::Over } else { State::Head };
        self.mark = self.mark.wrapping_add(1);
    }

    /// More of the body has come; enough of it, and the deadline begins anew.
    fn progress(&mut self, n: usize) {
        let before = self.request.wire / PROGRESS_BYTES;
        self.request.wire += n as u64;
        self.mark = self.mark.wrapping_add(u32::from(before != self.request.wire / PROGRESS_BYTES));
    }

    /// Counts bytes of the body. False: there are too many.
    pub(super) fn count_body(&mut self, n: usize, window: &mut Window<'_>) -> bool {
        self.progress(n);
        let is_endless = self.encoded.as_ref().is_some_and(|encoded| encoded.is_endless());
        if self.request.wire > self.options.max_body_bytes && !is_endless {
            self.fatal(&problem::BODY_TOO_LARGE, window);
            return false;
        }
        true
    }

    /// Refuses the request after all. The rest of its body is read and ignored.
    pub(super) fn refuse(&mut self, problem: &'static Problem, body: Body, window: &mut Window<'_>) {
        self.lines.abandon(window);
        if let Some(encoded) = &mut self.encoded {
            encoded.stop();
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

    fn skip(&mut self, mut body: Body, bytes: &[u8], mut at: usize) -> Flow {
        while at < bytes.len() && body != Body::Over {
            match body.next(&bytes[at..], self.options.max_header_bytes as u32) {
                Ok(Part::Frame(n)) => at += n,
                Ok(Part::Content(n)) => {
                    at += n;
                    self.progress(n);
                }
                Err(_) => self.request.wire = u64::MAX,
            }
            if self.request.wire > SKIP_MOST {
                self.state = State::Over; // it was answered already
                return Flow::Stop;
            }
        }
        self.state = if body == Body::Over { State::Head } else { State::Skip(body) };
        if body == Body::Over { Flow::On(at) } else { Flow::Stop }
    }

    /// Owes an answer: to the request whose lines are being taken, if some are, else in its turn.
    pub(super) fn answer(&mut self, kind: Kind, closes: bool, head_only: bool) {
        let Request { lines, is_old, voice, .. } = self.request;
        let answer = Answer { kind, voice, lines, closes, is_old, head_only, origin: self.request.origin.clone() };
        let waits = answer.kind.is_success() || matches!(answer.kind, Kind::Made(_));
        match (self.request.frame.take(), waits) {
            (Some(_), true) => self.answers.close(answer),
            (Some(_), _) => self.answers.close_at_once(answer),
            (None, _) => self.answers.say(answer),
        }
    }

    /// Answers and ends the connection, because it is not known (or does not matter) where the next request begins.
    pub(super) fn fatal(&mut self, problem: &'static Problem, window: &mut Window<'_>) {
        if self.state == State::Head {
            self.request.lines = 0;
            window.tail.clear();
        }
        self.lines.abandon(window);
        self.encoded = None;
        self.paused = false;
        self.held.clear();
        self.answer(Kind::Problem(problem), true, false);
        self.state = State::Over;
    }
}

impl Http {
    /// Answers requests for pages that have been made meanwhile.
    fn take_made(&mut self) {
        let Some((made, page)) = self.options.site.as_ref().and_then(|site| site.0.made()) else { return };
        self.answers.settle(|answer| match answer.kind {
            Kind::Made(time) if time <= made => {
                answer.kind = Kind::Page(Box::new(page.clone()));
                true
            }
            _ => false,
        });
    }
}

impl Session for Http {
    fn landing(&self, tail_len: usize) -> Landing {
        let surely = match self.state {
            State::Body(body) if self.encoded.is_none() => body.surely(),
            _ => 0,
        };
        let surely = usize::try_from(surely).unwrap_or(usize::MAX);
        if surely > HEAD_LANDING
            && self.held.is_empty()
            && let Landing::Chunk { gap, .. } = self.lines.landing(self.forms.now(), tail_len)
        {
            // Never up to the end of the body, which may need room for a newline that it lacks.
            return Landing::Chunk { gap, most: surely - 1 };
        }
        let gap = self.held.len() + if self.state == State::Head { tail_len } else { 0 };
        Landing::Scratch { gap, most: surely.saturating_add(HEAD_LANDING).min(SCRATCH_LANDING) }
    }

    fn input(&mut self, input: Input<'_>, window: &mut Window<'_>) -> Step {
        if let Some(frame) = self.request.frame {
            window.sink.to(self.request.stream, frame);
        }
        let step = match input {
            Input::Chunk { start, len } => {
                self.in_place(start, len, window);
                Step::Continue
            }
            Input::Datagram { .. } => Step::Close, // it does not run on datagrams
            Input::Scratch { space, start, len } => self.beside(space, start, len, window),
        };
        if self.encoded.as_ref().is_some_and(|e| !e.is_active() && e.rest.is_empty()) {
            self.encoded = None; // and what it leased
        }
        step
    }

    fn finish(&mut self, end: End, window: &mut Window<'_>) {
        if self.state == State::Head {
            self.request.lines = 0; // nothing of it was received
            if !self.options.apis.others.is_empty() {
                self.request.voice = &TEXT; // it is not known whose client this is, and some drop what gets 408
            }
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
        self.lines.finish(End::Broken(reason), self.forms.now(), window);
        self.encoded = None;
        self.paused = false;
        self.held.clear();
        match problem {
            Some(problem) if inside => self.answer(Kind::Problem(problem), true, false),
            _ => {}
        }
        self.state = State::Over;
    }

    fn state(&self, tail_len: usize) -> Standing {
        let waiting = match self.state {
            State::Head if tail_len > 0 && !self.paused => Waiting::Head,
            State::Head | State::Over => Waiting::Nothing,
            State::Body(_) | State::Skip(_) => Waiting::Body,
        };
        let turn = match &self.encoded {
            Some(encoded) if !encoded.is_empty() => Turn::GoOn,
            // What would be received could only be kept.
            _ if self.state == State::Head && self.answers.len() >= MAX_PIPELINED => Turn::Wait,
            Some(encoded) if !encoded.rest.is_empty() => Turn::GoOn,
            _ if self.paused || !self.held.is_empty() || self.state == State::Body(Body::Over) => Turn::GoOn,
            _ => Turn::Receive,
        };
        Standing {
            waiting,
            mark: self.mark,
            turn,
            frees_tail: self.paused || !self.held.is_empty() || self.state == State::Body(Body::Over),
            is_called_in: self.encoded.as_ref().is_some_and(|e| e.is_called_in()),
            may_be_refused: !matches!(self.state, State::Body(_)),
            is_between: self.state == State::Over || (self.state == State::Head && (tail_len == 0 || self.paused)),
            has_output: self.answers.is_due(),
            owes: !self.answers.is_empty() || !self.watched.is_empty(),
            is_over: self.state == State::Over && self.answers.is_empty() && self.watched.is_empty(),
            finish_room: 0,
        }
    }

    fn reached(&mut self, frame: u32, level: AckLevel, records: u64) {
        self.answers.reached(frame, level, records);
        self.tell_watchers(frame, level, records);
    }

    fn failed(&mut self) -> bool {
        let Request { lines, is_old, voice, .. } = self.request;
        let kind = Kind::Problem(&problem::DISK_FAILED);
        let inside = matches!(self.state, State::Body(_));
        let origin = self.request.origin.clone();
        let open = Answer { kind, voice, lines, closes: true, is_old, head_only: false, origin };
        let instead = |answer: &mut Answer| {
            if answer.kind.is_success() {
                answer.kind = Kind::Problem(&problem::DISK_FAILED);
            }
        };
        self.answers.fail(instead, inside.then_some(open));
        if let Some(last) = self.answers.last_mut() {
            last.closes = true;
        }
        (self.encoded, self.paused, self.request.frame) = (None, false, None);
        self.held.clear();
        self.watched.clear();
        self.state = State::Over;
        true
    }

    fn output(&mut self, reply: &mut Reply<'_>) {
        self.take_made();
        self.sending = None; // what was written then is with the kernel
        while reply.out.len() < OUTPUT_MOST
            && let Some(answer) = self.answers.next_due()
        {
            let is_withheld = answer.is_withheld();
            if !is_withheld {
                write(&answer, reply);
            }
            if self.options.site.is_none() {
                reply.answers.count(answer.status());
            }
            if answer.closes || is_withheld {
                self.answers.clear();
                self.state = State::Over;
            }
            if let Kind::Done(done) = answer.kind {
                self.sending = Some(done).filter(|done| matches!(done.body.1, Made::Leased(_)));
            }
        }
    }

    fn renew(&mut self, protocol: &Arc<dyn Protocol>) {
        self.renewed = downcast::<HttpProtocol>(protocol).map(|http| Arc::clone(http.options()));
    }
}
