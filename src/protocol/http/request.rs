//! The beginning of a request: reads its head, and decides what to do with it.

use super::answer::Kind;
use super::api::{Asked, Claim, Wanted};
use super::body::Body;
use super::dialect::{self, Records};
use super::encoded::{Encoded, Reading};
use super::head::{self, Coding, Framing, Head, Method};
use super::options::{HttpOptions, token_of};
use super::pages::Shown;
use super::problem::{self, Problem};
use super::session::{Http, MAX_PIPELINED, SKIP_MOST, State};
use super::voice::{LINES, Voice};
use crate::metrics::stats::Unexpected;
use crate::session::beginnings;
use crate::session::routes::Route;
use crate::session::{AckLevel, Frame, Refusal, Window};
use memchr::{memchr_iter, memmem};
use std::borrow::Cow;
use std::sync::Arc;

/// The request whose body is being read.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where its lines go.
    pub stream: Option<u16>,
    /// What they are acknowledged as; `None`: no lines of it are taken, or its answer is owed already.
    pub frame: Option<Frame>,
    /// What it is answered with where all goes well.
    pub status: u16,
    /// The place of its token among those of the options.
    pub token: Option<usize>,
    /// As in [`Answer`].
    pub voice: &'static Voice,
    /// As in [`Answer`].
    pub origin: Option<Arc<str>>,
    /// Its lines so far.
    pub lines: u64,
    /// Bytes of its body so far.
    pub wire: u64,
    pub closes: bool,
    pub is_old: bool,
    /// A line of it was dropped.
    pub dropped: bool,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            stream: None,
            frame: None,
            status: 204,
            token: None,
            voice: &LINES,
            origin: None,
            lines: 0,
            wire: 0,
            closes: false,
            is_old: false,
            dropped: false,
        }
    }
}

/// What a head asks for.
enum Verdict<'a> {
    /// Records follow.
    Take(Take<'a>),
    /// An answer at once.
    Say(Kind),
}

/// A request that is taken.
struct Take<'a> {
    /// The stream of its lines.
    route: &'a Route,
    level: AckLevel,
    coding: Coding,
    reading: Reading,
    status: u16,
    expects: bool,
    /// The place of its token.
    token: Option<usize>,
}

type Decision<'a> = Result<Verdict<'a>, &'static Problem>;

impl Http {
    /// Reads a head, if it is whole, and returns its length.
    pub(super) fn head(&mut self, bytes: &[u8], window: &mut Window<'_>) -> Option<usize> {
        if self.answers.len() >= MAX_PIPELINED {
            window.tail.append(bytes);
            self.paused = true;
            return None;
        }
        if let Some(renewed) = self.renewed.take() {
            self.options = renewed; // a token that was taken away is worth nothing from here on
        }
        if bytes.starts_with(b"\r\n") {
            return Some(2); // RFC 9112 section 2.2
        }
        // What another protocol begins with is no request, however much more of it comes.
        if self.requests == 0
            && let Some(what) = beginnings::of(&bytes[..bytes.len().min(beginnings::LOOKED_AT)])
            && what != Unexpected::Http
        {
            window.sink.notice(what);
            self.fatal(if what == Unexpected::Http2 { &problem::VERSION } else { &problem::NOT_HTTP }, window);
            return None;
        }
        let len = memmem::find(bytes, b"\r\n\r\n").map(|i| i + 4);
        let most = self.options.max_header_bytes;
        let Some(len) = len.filter(|len| *len <= most) else {
            // What can never become a head is not waited for.
            let begun = &bytes[..bytes.len().min(most)];
            let is_no_request = !(head::is_token(&bytes[..1]) || bytes == b"\r");
            let is_bare = memchr_iter(b'\n', begun).any(|i| i == 0 || begun[i - 1] != b'\r');
            if (is_bare || is_no_request) && self.requests == 0 {
                window.sink.notice(Unexpected::NotHttp);
            }
            if is_bare {
                self.fatal(&problem::BARE_LINE_END, window);
            } else if is_no_request {
                self.fatal(&problem::NOT_HTTP, window);
            } else if bytes.len() > most {
                self.fatal(&problem::HEAD_TOO_LARGE, window);
            } else {
                window.tail.append(bytes);
            }
            return None;
        };
        let options = Arc::clone(&self.options);
        match head::read(&bytes[..len], options.max_headers) {
            Err(problem) => {
                if self.requests == 0 && *problem == problem::NOT_HTTP {
                    window.sink.notice(Unexpected::NotHttp);
                }
                self.fatal(problem, window);
                None
            }
            Ok(head) => {
                let (voice, decision) = self.decide(&options, &head, window);
                let verdict = decision.unwrap_or_else(|p| Verdict::Say(Kind::Problem(p)));
                if let Verdict::Say(Kind::Problem(why)) = &verdict
                    && *why == &problem::NOT_LINES
                {
                    window.sink.notice(Unexpected::Media);
                }
                let origin = options.dialect.allowed(&head);
                let (framing, head_only) = (head.framing, head.method == Method::Head);
                let expects = head.expects == Ok(true);
                self.requests = self.requests.saturating_add(1);
                self.mark = self.mark.wrapping_add(1);
                let is_last = options.max_requests > 0 && self.requests >= options.max_requests;
                self.request = Request {
                    closes: !head.keep_alive || is_last || window.around.closing,
                    is_old: head.is_old,
                    origin,
                    voice,
                    ..Request::default()
                };
                self.begin(verdict, framing, head_only, expects, window);
                Some(len)
            }
        }
    }

    fn begin(
        &mut self,
        verdict: Verdict<'_>,
        framing: Framing,
        head_only: bool,
        expects: bool,
        window: &mut Window<'_>,
    ) {
        let body = Body::new(framing);
        let kind = match verdict {
            Verdict::Say(kind) => kind,
            Verdict::Take(Take { route, level, coding, reading, status, expects, token }) => {
                match self.encoded_for(coding, reading, window.around.now_ns) {
                    Err(problem) => Kind::Problem(problem),
                    Ok(()) => {
                        self.forms.set(route.format);
                        if expects && body != Body::Over {
                            self.answer(Kind::Continue, false, false);
                        }
                        let frame = self.answers.open(level);
                        (self.request.stream, self.request.frame) = (Some(route.index), Some(frame));
                        (self.request.status, self.request.token) = (status, token);
                        window.sink.to(self.request.stream, frame);
                        self.state = State::Body(body);
                        return;
                    }
                }
            }
        };
        // A client that waits for leave to send a body may send the next request instead: which, cannot be told.
        let closes = self.request.closes || (expects && body != Body::Over) || body.surely() > SKIP_MOST;
        if let Kind::Made(_) = kind {
            self.request.frame = Some(self.answers.open(AckLevel::Durable));
            self.answers.add(1); // the page, which is on its way
        }
        self.answer(kind, closes, head_only);
        self.state = match body {
            _ if closes => State::Over,
            Body::Over => State::Head,
            body => State::Skip(body),
        };
    }

    fn encoded_for(&mut self, coding: Coding, reading: Reading, now_ns: u64) -> Result<(), &'static Problem> {
        if coding != Coding::Identity || !matches!(reading, Reading::Lines) {
            match &mut self.encoded {
                Some(encoded) => encoded.begin(coding, reading, &self.options, self.owner, now_ns)?,
                none => *none = Some(Encoded::new(coding, reading, &self.options, self.owner, now_ns)?),
            }
        }
        Ok(())
    }

    /// Decides what to do with a request, and how its client is spoken to.
    fn decide<'a>(
        &self,
        options: &'a HttpOptions,
        head: &Head<'_>,
        window: &Window<'_>,
    ) -> (&'static Voice, Decision<'a>) {
        let path = options.apis.path(head.path);
        let (apis, room, now_ns) = (&options.apis, &options.room, window.around.now_ns);
        let has_tokens = !options.tokens.is_empty();
        let asked = Asked { head, path, apis, has_tokens, room, owner: self.owner, now_ns };
        // Browsers ask before they send, also to an API.
        let others = if head.method == Method::Options { &[][..] } else { &options.apis.others[..] };
        for api in others {
            if let Some(Claim { voice, wanted }) = (api.claim)(&asked) {
                let given = (api.token)(&asked).or_else(|| head.authorization.and_then(token_of));
                return (voice, claimed(wanted, given, options, head, window));
            }
        }
        (&LINES, decide(options, head, path, window))
    }
}

/// Decides what to do with a request that an API has claimed.
fn claimed<'a>(
    wanted: Wanted,
    given: Option<Cow<'_, [u8]>>,
    options: &'a HttpOptions,
    head: &Head<'_>,
    window: &Window<'_>,
) -> Decision<'a> {
    let route = options.routes.own();
    let token = |stream| options.authorize(given.as_deref(), stream);
    let (reading, own_coding, token, level) = match wanted {
        Wanted::Say(page) => return Ok(Verdict::Say(Kind::Page(Box::new(page)))),
        Wanted::Readiness => return Ok(Verdict::Say(readiness(window))),
        Wanted::Healthy(page) => {
            let kind = window.around.not_ready.map_or_else(|| Kind::Page(Box::new(page)), Kind::NotReady);
            return Ok(Verdict::Say(kind));
        }
        Wanted::Refuse(problem) => return Err(problem),
        Wanted::SayIfAllowed(page) => {
            token(None)?;
            return Ok(Verdict::Say(Kind::Page(Box::new(page))));
        }
        Wanted::Lines => (Reading::Lines, None, token(Some(route.index))?, options.level(head)?),
        Wanted::Take { walk, coding } => {
            let level = if walk.needs_durable() { options.ack } else { options.level(head)? };
            (Reading::Walk(walk), coding, token(None)?, level)
        }
    };
    let coding = match (own_coding, head.coding) {
        (Some(Coding::Guess), _) => Coding::Guess,
        (Some(own), Ok(Coding::Identity)) => own,
        (_, coding) => coding?,
    };
    take(Take { route, level, coding, reading, status: 204, expects: false, token }, options, head, window)
}

/// The last questions about a request whose records would be taken.
fn take<'a>(take: Take<'a>, options: &HttpOptions, head: &Head<'_>, window: &Window<'_>) -> Decision<'a> {
    match head.framing {
        Framing::None => return Err(&problem::LENGTH_REQUIRED),
        Framing::Length(n) if n > options.max_body_bytes => return Err(&problem::BODY_TOO_LARGE),
        _ => {}
    }
    let expects = head.expects?;
    match window.around.refuse {
        Some(refusal) => Err(problem_of(refusal)),
        None => Ok(Verdict::Take(Take { expects, ..take })),
    }
}

fn readiness(window: &Window<'_>) -> Kind {
    window.around.not_ready.map_or(Kind::Text("ready\n"), Kind::NotReady)
}

/// Decides what to do with a request that no API has claimed.
fn decide<'a>(options: &'a HttpOptions, head: &Head<'_>, path: &str, window: &Window<'_>) -> Decision<'a> {
    if let Some(site) = &options.site {
        return match head.method {
            Method::Get | Method::Head => match site.0.show(head.path, head.wants_html) {
                Shown::Now(page) => Ok(Verdict::Say(Kind::Page(Box::new(page)))),
                Shown::Later(time) => Ok(Verdict::Say(Kind::Made(time))),
                Shown::Nothing => Err(&problem::NO_PAGE),
            },
            _ => Err(&problem::READ_ONLY),
        };
    }
    match (head.method, path) {
        (Method::Options, _) => return Ok(Verdict::Say(Kind::Options)),
        // Not with a query: some handlers send records so (Python's HTTPHandler by default), and would take any answer for a success.
        (Method::Get | Method::Head, "/") if head.query.is_empty() => {
            return Ok(Verdict::Say(Kind::Text("logweir takes lines: POST / or POST /ingest/STREAM\n")));
        }
        (Method::Get | Method::Head, "/healthz") => return Ok(Verdict::Say(Kind::Text("ok\n"))),
        (Method::Get | Method::Head, "/readyz") => {
            return Ok(Verdict::Say(readiness(window)));
        }
        _ if !options.apis.lines => return Err(&problem::NO_API),
        _ => {}
    }
    let route = options.route(path, head.method);
    if !matches!(head.method, Method::Post | Method::Put) {
        // With tokens, a client without one must not learn the names of streams.
        let is_known = route.is_ok() || (!options.tokens.is_empty() && path.starts_with("/ingest/"));
        return Err(if is_known { &problem::NOT_ALLOWED } else { &problem::NOT_FOUND });
    }
    let given = head.authorization.and_then(token_of);
    let token = options.authorize(given.as_deref(), route.ok().map(|r| r.index))?;
    let route = route?;
    let coding = head.coding?;
    let level = options.level(head)?;
    let (status, records) = (options.dialect.status(head)?, options.dialect.records(head)?);
    if head.content_type.is_some_and(|kind| dialect::is_media(kind, coding != Coding::Identity)) {
        return Err(&problem::NOT_LINES);
    }
    let reading = if records == Records::Json { Reading::Json(Box::default()) } else { Reading::Lines };
    take(Take { route, level, coding, reading, status, expects: false, token }, options, head, window)
}

pub(super) fn problem_of(refusal: Refusal) -> &'static Problem {
    match refusal {
        Refusal::Overloaded => &problem::OVERLOADED,
        Refusal::DiskFull => &problem::DISK_FULL,
        Refusal::DiskFailed => &problem::DISK_FAILED,
    }
}
