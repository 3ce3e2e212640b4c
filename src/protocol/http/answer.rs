//! Writes HTTP answers. When each is given is decided elsewhere ([`crate::session::owed`]).

use super::pages::Page;
use super::problem::{self, Problem};
use super::voice::{Refusal, Voice};
use crate::session::Reply;
use crate::session::memory::document::Document;
use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The answer of an API to a request of which every record has reached its level.
#[derive(Debug)]
pub struct Done {
    /// The status code.
    pub status: u16,
    /// `Content-Type`; empty: there is no body.
    pub kind: &'static str,
    /// The body: what stands in front, what was made while records were taken, and what stands behind.
    pub body: (&'static str, Made, &'static str),
}

/// The part of a body that is not always the same.
#[derive(Debug)]
pub enum Made {
    /// There is none.
    Nothing,
    /// A few bytes.
    Here(Vec<u8>),
    /// As many as there were records, in memory that is leased until they were sent.
    Leased(Document),
}

impl Made {
    fn bytes(&self) -> &[u8] {
        match self {
            Made::Nothing => b"",
            Made::Here(bytes) => bytes,
            Made::Leased(document) => document.rest(),
        }
    }
}

impl Done {
    /// A status without a body.
    #[must_use]
    pub fn empty(status: u16) -> Done {
        Done { status, kind: "", body: ("", Made::Nothing, "") }
    }

    /// A status and a body that is always the same.
    #[must_use]
    pub fn text(status: u16, kind: &'static str, body: &'static str) -> Done {
        Done { status, kind, body: (body, Made::Nothing, "") }
    }
}

/// What is answered.
#[derive(Debug)]
pub enum Kind {
    /// Every line of the request has reached its level: this status, commonly 204.
    Accepted(u16),
    /// The same, as an API says it.
    Done(Box<Done>),
    /// `100 Continue`.
    Continue,
    /// A probe: 200 and this text.
    Text(&'static str),
    /// A probe of readiness that fails: 503 and this text.
    NotReady(&'static str),
    /// This page.
    Page(Box<Page>),
    /// A page that is being made; the answer waits until it was made this many times.
    Made(u64),
    /// The methods that are allowed here.
    Options,
    /// The request was refused.
    Problem(&'static Problem),
}

impl Kind {
    /// True for a success, which waits for records.
    pub fn is_success(&self) -> bool {
        matches!(self, Kind::Accepted(_) | Kind::Done(_))
    }
}

/// One answer, given or awaited.
#[derive(Debug)]
pub struct Answer {
    /// What is answered.
    pub kind: Kind,
    /// How its client is spoken to.
    pub voice: &'static Voice,
    /// Lines of this request that were received.
    pub lines: u64,
    /// The connection ends behind it.
    pub closes: bool,
    /// The request was HTTP/1.0, whose clients must be told that the connection stays.
    pub is_old: bool,
    /// The request was HEAD.
    pub head_only: bool,
    /// The origin of a page whose scripts may read the answer; `*`: any.
    pub origin: Option<Arc<str>>,
}

/// The time of day as HTTP writes it (RFC 9110 section 5.6.7), made once a second.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// The text for so many nanoseconds since 1970.
    fn at(&mut self, wall_ns: u64) -> &str {
        let second = wall_ns / 1_000_000_000;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.text
    }
}

thread_local! {
    /// One clock text for all connections of a reactor, because making it costs more than the rest of an answer.
    static DATE: RefCell<Date> = RefCell::default();
}

/// Writes an answer.
pub fn write(answer: &Answer, reply: &mut Reply<'_>) {
    DATE.with_borrow_mut(|date| write_at(answer, date.at(reply.wall_ns), reply.out));
}

/// The answer to `OPTIONS`, and to a wrong method.
const ALLOW: &str = "Allow: POST, PUT, GET, HEAD, OPTIONS\r\n";
/// What scripts of a page may send. Browsers ask for it before they send (the Fetch standard, "CORS-preflight request").
const PREFLIGHT: &str = "Access-Control-Allow-Methods: POST, PUT\r\n\
    Access-Control-Allow-Headers: Authorization, Content-Type, Content-Encoding, X-Logweir-Ack, DD-API-KEY, \
    X-Scope-OrgID, X-Splunk-Request-Channel\r\nAccess-Control-Max-Age: 600\r\n";

impl Answer {
    /// True where the connection ends instead.
    pub fn is_withheld(&self) -> bool {
        self.voice.hangs_up && matches!(self.kind, Kind::Problem(_)) && matches!(self.status(), 429 | 503)
    }

    /// Its status code.
    pub fn status(&self) -> u16 {
        match &self.kind {
            Kind::Accepted(status) => *status,
            Kind::Done(done) => done.status,
            Kind::Options => 204,
            Kind::Continue => 100,
            Kind::Text(_) => 200,
            Kind::NotReady(_) | Kind::Made(_) => 503,
            Kind::Page(page) => page.status,
            Kind::Problem(problem) => (self.voice.status)(problem),
        }
    }
}

fn write_at(answer: &Answer, date: &str, out: &mut Vec<u8>) {
    let connection = match (answer.closes, answer.is_old) {
        (true, _) => "Connection: close\r\n",
        (false, true) => "Connection: keep-alive\r\n",
        (false, false) => "",
    };
    let status = answer.status();
    let own = answer.voice.headers;
    let cors = match answer.origin.as_deref() {
        None => own.to_string(),
        Some("*") => format!("{own}Access-Control-Allow-Origin: *\r\n"),
        Some(origin) => format!("{own}Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"),
    };
    // Writing to a Vec cannot fail.
    let _ = match &answer.kind {
        Kind::Accepted(_) => {
            let line = match status {
                200 => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: ",
                201 => "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nDate: ",
                202 => "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nDate: ",
                _ => "HTTP/1.1 204 No Content\r\nDate: ",
            };
            for part in [line, date, "\r\n", &cors, connection, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
            Ok(())
        }
        Kind::Done(done) => {
            let Done { kind, body: (front, made, behind), .. } = &**done;
            let made = made.bytes();
            let length = front.len() + made.len() + behind.len();
            let head = write!(out, "HTTP/1.1 {status} {}\r\nDate: {date}\r\n", phrase(status));
            if !kind.is_empty() {
                let _ = write!(out, "Content-Type: {kind}\r\n");
            }
            if status != 204 {
                let _ = write!(out, "Content-Length: {length}\r\n");
            }
            for part in [cors.as_bytes(), connection.as_bytes(), b"\r\n", front.as_bytes(), made, behind.as_bytes()] {
                out.extend_from_slice(part);
            }
            head
        }
        Kind::Continue => write!(out, "HTTP/1.1 100 Continue\r\n\r\n"),
        Kind::Options => {
            let preflight = if cors.is_empty() { "" } else { PREFLIGHT };
            write!(out, "HTTP/1.1 204 No Content\r\nDate: {date}\r\n{ALLOW}{cors}{preflight}{connection}\r\n")
        }
        Kind::Text(text) | Kind::NotReady(text) => {
            let (line, retry) =
                if status == 200 { ("200 OK", "") } else { ("503 Service Unavailable", "Retry-After: 5\r\n") };
            let body = if answer.head_only { "" } else { text };
            write!(
                out,
                "HTTP/1.1 {line}\r\nDate: {date}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{retry}{cors}{connection}\r\n{body}",
                text.len()
            )
        }
        Kind::Page(page) => {
            let length = page.body.len();
            let head = write!(
                out,
                "HTTP/1.1 {status} {}\r\nDate: {date}\r\nContent-Type: {}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
                 X-Content-Type-Options: nosniff\r\n{}{own}{connection}\r\n",
                phrase(status),
                page.kind,
                page.headers
            );
            if !answer.head_only {
                out.extend_from_slice(&page.body);
            }
            head
        }
        Kind::Made(_) => Ok(()), // it has become a page before it is due
        Kind::Problem(problem) => {
            let Refusal { kind, body } = (answer.voice.refuse)(problem, answer.lines);
            let extra = match problem.status {
                401 => "WWW-Authenticate: Bearer realm=\"logweir\", Basic realm=\"logweir\"\r\n",
                405 => ALLOW,
                415 if *problem == &problem::UNSUPPORTED_CODING => "Accept-Encoding: gzip, zstd, deflate, snappy\r\n",
                _ => "",
            };
            let retry = match problem.retry_after.min(answer.voice.longest_wait) {
                // What an API lets its clients send again.
                0 if matches!(status, 429 | 503) => "Retry-After: 1\r\n".into(),
                0 => String::new(),
                seconds => format!("Retry-After: {seconds}\r\n"),
            };
            let head = write!(
                out,
                "HTTP/1.1 {status} {}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{retry}{extra}{cors}{connection}\r\n",
                phrase(status),
                body.len(),
            );
            if !answer.head_only {
                out.extend_from_slice(&body);
            }
            head
        }
    };
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    }
}
