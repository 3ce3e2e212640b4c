//! Answers: in the order of the requests, each when everything of its request has reached its level.

use super::problem::Problem;
use crate::metrics::stats::StatusCells;
use crate::session::AckLevel;
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every line of the request has reached its level: 204.
    Accepted,
    /// `100 Continue`.
    Continue,
    /// A probe: 200 and this text.
    Text(&'static str),
    /// A probe of readiness that fails: 503 and this text.
    NotReady(&'static str),
    /// What may be asked here.
    Options,
    /// It was not taken.
    Problem(&'static Problem),
}

/// One answer, given or awaited.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// What is answered.
    pub kind: Kind,
    /// For [`Kind::Accepted`]: what must be true of its lines first.
    pub level: AckLevel,
    /// Lines of the connection up to the end of this request.
    pub end: u64,
    /// Lines of this request that were received.
    pub lines: u64,
    /// The connection ends behind it.
    pub closes: bool,
    /// The request was HTTP/1.0, whose clients must be told that the connection stays.
    pub is_old: bool,
    /// The request was HEAD.
    pub head_only: bool,
}

/// Lines of a connection that have reached each level.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reached {
    /// `write(2)` returned.
    pub written: u64,
    /// What the listener's level asks for.
    pub level: u64,
}

impl Answer {
    fn is_due(&self, reached: Reached) -> bool {
        match (self.kind, self.level) {
            (Kind::Accepted, AckLevel::Durable) => reached.level >= self.end,
            (Kind::Accepted, AckLevel::Written) => reached.level.max(reached.written) >= self.end,
            _ => true,
        }
    }
}

/// The time of day as HTTP writes it (RFC 9110 section 5.6.7), made once a second.
#[derive(Debug, Default)]
pub struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// The text for so many nanoseconds since 1970.
    pub fn at(&mut self, wall_ns: u64) -> &str {
        let second = wall_ns / 1_000_000_000;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.text
    }
}

/// Where answers are written.
pub struct Reply<'a> {
    /// The bytes.
    pub out: &'a mut Vec<u8>,
    /// The value of `Date`.
    pub date: &'a str,
    /// How many of each status were given.
    pub statuses: &'a StatusCells,
}

/// The answers that a connection is still owed.
#[derive(Debug, Default)]
pub struct Answers {
    queue: VecDeque<Answer>,
}

impl Answers {
    /// How many are owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True where none is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds one at the end.
    pub fn push(&mut self, answer: Answer) {
        self.queue.push_back(answer);
    }

    /// True if one can be given now.
    #[must_use]
    pub fn is_due(&self, reached: Reached) -> bool {
        self.queue.front().is_some_and(|a| a.is_due(reached))
    }

    /// What was not acknowledged yet never will be; the connection ends behind it.
    pub fn fail(&mut self, problem: &'static Problem) {
        for answer in &mut self.queue {
            if answer.kind == Kind::Accepted {
                answer.kind = Kind::Problem(problem);
            }
        }
        if let Some(last) = self.queue.back_mut() {
            last.closes = true;
        }
    }

    /// Writes what is due. True: the last of it ends the connection.
    pub fn write(&mut self, reached: Reached, reply: &mut Reply<'_>) -> bool {
        while let Some(answer) = self.queue.front().copied().filter(|a| a.is_due(reached)) {
            self.queue.pop_front();
            write(&answer, reply);
            if answer.closes {
                self.queue.clear();
                return true;
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > 4 {
            self.queue = VecDeque::new(); // an idle connection holds nothing
        }
        false
    }
}

/// What a request to `OPTIONS` and one with a wrong method are told.
const ALLOW: &str = "Allow: POST, GET, HEAD, OPTIONS\r\n";

fn write(answer: &Answer, reply: &mut Reply<'_>) {
    let connection = match (answer.closes, answer.is_old) {
        (true, _) => "Connection: close\r\n",
        (false, true) => "Connection: keep-alive\r\n",
        (false, false) => "",
    };
    let status = match answer.kind {
        Kind::Accepted | Kind::Options => 204,
        Kind::Continue => 100,
        Kind::Text(_) => 200,
        Kind::NotReady(_) => 503,
        Kind::Problem(problem) => problem.status,
    };
    reply.statuses.count(status);
    let (out, date) = (&mut *reply.out, reply.date);
    // Writing to a Vec cannot fail.
    let _ = match answer.kind {
        Kind::Accepted => {
            for part in ["HTTP/1.1 204 No Content\r\nDate: ", date, "\r\n", connection, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
            Ok(())
        }
        Kind::Continue => write!(out, "HTTP/1.1 100 Continue\r\n\r\n"),
        Kind::Options => write!(out, "HTTP/1.1 204 No Content\r\nDate: {date}\r\n{ALLOW}{connection}\r\n"),
        Kind::Text(text) | Kind::NotReady(text) => {
            let (line, retry) =
                if status == 200 { ("200 OK", "") } else { ("503 Service Unavailable", "Retry-After: 5\r\n") };
            let body = if answer.head_only { "" } else { text };
            write!(
                out,
                "HTTP/1.1 {line}\r\nDate: {date}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{retry}{connection}\r\n{body}",
                text.len()
            )
        }
        Kind::Problem(problem) => {
            let body = format!(
                "{{\"code\":\"{}\",\"message\":\"{}\",\"lines_received\":{}}}\n",
                problem.code, problem.message, answer.lines
            );
            let extra = match problem.status {
                401 => "WWW-Authenticate: Bearer realm=\"logweir\"\r\n",
                405 => ALLOW,
                415 => "Accept-Encoding: gzip, zstd, deflate, snappy\r\n",
                _ => "",
            };
            let retry = match problem.retry_after {
                0 => String::new(),
                seconds => format!("Retry-After: {seconds}\r\n"),
            };
            write!(
                out,
                "HTTP/1.1 {} {}\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{retry}{extra}{connection}\r\n{}",
                problem.status,
                phrase(problem.status),
                body.len(),
                if answer.head_only { "" } else { &body }
            )
        }
    };
}

fn phrase(status: u16) -> &'static str {
    match status {
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
