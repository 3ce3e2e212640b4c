//! `splunk`: what the clients of Splunk's HTTP Event Collector send (its documentation, "Format events for HTTP Event Collector" and
//! "Troubleshoot HTTP Event Collector", which has the codes).

mod acks;

pub use acks::Acks;

use super::{Api, Asked, Claim, HOST, INDEX, Put, Records, Walk, Wanted, Watcher, query_value};
use crate::protocol::http::answer::{Done, Made};
use crate::protocol::http::head::Method;
use crate::protocol::http::pages::Page;
use crate::protocol::http::problem::{self, Problem};
use crate::protocol::http::voice::{self, Refusal, Voice};
use crate::session::memory::room::Room;
use crate::session::walk::json::{Cursor, compact, plain_text, stands_for};
use crate::session::write::{Attrs, Message, Value};
use memchr::memchr;
use std::borrow::Cow;
use std::sync::Arc;

/// See the module documentation.
pub static API: Api = Api { name: "splunk", claim, token };

static VOICE: Voice = Voice {
    headers: "",
    status: |problem| said(problem).0,
    longest_wait: voice::ANY_WAIT,
    hangs_up: false,
    refuse: |problem, records| {
        let (_, code, text) = said(problem);
        let number = if problem.status == 400 { format!(",\"invalid-event-number\":{records}") } else { String::new() };
        let body = format!("{{\"text\":\"{text}\",\"code\":{code}{number}}}");
        Refusal { kind: JSON, body: body.into() }
    },
};

const JSON: &str = "application/json; charset=UTF-8";
const SUCCESS: &str = "{\"text\":\"Success\",\"code\":0}";
const HEALTHY: &str = "{\"text\":\"HEC is healthy\",\"code\":17}";

const fn bad(code: &'static str, message: &'static str) -> Problem {
    Problem { status: 400, code, message, retry_after: 0 }
}

static NO_DATA: Problem = bad("no_data", "No data");
static BAD_EVENT: Problem = bad("bad_event", "Invalid data format");
static NO_EVENT: Problem = bad("no_event", "Event field is required");
static BLANK_EVENT: Problem = bad("blank_event", "Event field cannot be blank");
static ACK_DISABLED: Problem = bad("ack_disabled", "ACK is disabled");
static NO_CHANNEL: Problem = bad("no_channel", "Data channel is missing");
static BAD_CHANNEL: Problem = bad("bad_channel", "Invalid data channel");
static QUERY_TOKEN: Problem = bad("query_token", "Query string authorization is not enabled");

/// Status, code and text of a refusal. What may be sent again gets 503: some clients drop what gets 429.
fn said(problem: &Problem) -> (u16, u16, &str) {
    match (problem.code, problem.status) {
        ("no_data", _) => (400, 5, problem.message),
        ("no_event", _) => (400, 12, problem.message),
        ("blank_event", _) => (400, 13, problem.message),
        ("ack_disabled", _) => (400, 14, problem.message),
        ("no_channel", _) => (400, 10, problem.message),
        ("bad_channel", _) => (400, 11, problem.message),
        ("query_token", _) => (400, 16, problem.message),
        ("wrong_token", _) => (403, 4, "Invalid token"),
        (_, 401) => (401, 2, "Token is required"),
        (_, 403) => (403, 7, "Incorrect index"),
        ("shutting_down", _) => (503, 23, "Server is shutting down"),
        (_, 408 | 429 | 503) => (503, 9, "Server is busy"),
        (_, 413) => (413, 27, "Request entity too large"),
        (_, 400) => (400, 6, "Invalid data format"),
        (_, status) => (status, 6, problem.message),
    }
}

fn claim(asked: &Asked<'_>) -> Option<Claim> {
    let path = asked.path.strip_prefix("/splunk").filter(|rest| rest.starts_with('/')).unwrap_or(asked.path);
    let rest = path.strip_prefix("/services/collector")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let is_post = asked.head.method == Method::Post;
    let wanted = match rest {
        "/health" | "/health/1.0" => Wanted::Healthy(Page::new(200, JSON, HEALTHY)),
        _ if asked.has_tokens
            && asked.query("token").is_some()
            && !asked.apis.query_token
            && asked.head.authorization.is_none() =>
        {
            Wanted::Refuse(&QUERY_TOKEN)
        }
        "/ack" if asked.apis.acks.is_none() => Wanted::Refuse(&ACK_DISABLED),
        "/ack" if is_post => question(asked).unwrap_or_else(Wanted::Refuse),
        "" | "/event" | "/event/1.0" | "/raw" | "/raw/1.0" | "/ack" if !is_post => {
            Wanted::Refuse(&problem::NOT_ALLOWED)
        }
        "" | "/event" | "/event/1.0" => taken(asked, Events::default()),
        "/raw" | "/raw/1.0" => taken(asked, Raw::new(asked)),
        _ => return None,
    };
    Some(Claim { voice: &VOICE, wanted })
}

/// What refuses a request that may be sent again.
fn busy() -> &'static Problem {
    &problem::OVERLOADED
}

/// The channel that a request names.
fn channel<'a>(asked: &'a Asked<'_>) -> Result<&'a [u8], &'static Problem> {
    let named = asked.head.field("x-splunk-request-channel").or_else(|| asked.query("channel").map(str::as_bytes));
    let named = named.filter(|name| !name.is_empty()).ok_or(&NO_CHANNEL)?;
    if acks::is_name(named) { Ok(named) } else { Err(&BAD_CHANNEL) }
}

fn question(asked: &Asked<'_>) -> Result<Wanted, &'static Problem> {
    let acks = asked.apis.acks.clone().ok_or(&ACK_DISABLED)?;
    let walk = acks::Question::new(acks, channel(asked)?, asked.now_ns, asked.lease());
    Ok(Wanted::Take { walk: Box::new(walk), coding: None })
}

/// A request whose records are taken: answered when they are durable, or at once with a number, where the listener does that.
fn taken(asked: &Asked<'_>, walk: impl Walk + 'static) -> Wanted {
    let Some(acks) = &asked.apis.acks else {
        return Wanted::Take { walk: Box::new(walk), coding: None };
    };
    match channel(asked) {
        Ok(channel) => {
            let (acks, room) = (Arc::clone(acks), Arc::clone(asked.room));
            let walk = Numbered { walk, acks, room, channel: channel.into(), ticket: None, number: 0 };
            Wanted::Take { walk: Box::new(walk), coding: None }
        }
        Err(problem) => Wanted::Refuse(problem),
    }
}

/// A body whose answer is a number, which it gets when it is looked at first: the client may write here then.
struct Numbered<W> {
    walk: W,
    acks: Arc<Acks>,
    room: Arc<Room>,
    channel: Box<[u8]>,
    ticket: Option<acks::Ticket>,
    number: u64,
}

impl<W: Walk> Walk for Numbered<W> {
    fn is_document(&self) -> bool {
        self.walk.is_document()
    }

    fn walk(&mut self, bytes: &[u8], is_last: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        if self.ticket.is_none() {
            self.ticket = Some(self.acks.give(&self.channel, &self.room, records.now().1)?);
        }
        self.walk.walk(bytes, is_last, records)
    }

    fn needs_durable(&self) -> bool {
        true
    }

    fn watcher(&mut self) -> Option<Box<dyn Watcher>> {
        let ticket = self.ticket.take()?;
        self.number = ticket.number;
        Some(Box::new(ticket))
    }

    fn done(&mut self) -> Done {
        let body = format!("{{\"text\":\"Success\",\"code\":0,\"ackId\":{}}}", self.number);
        Done { status: 200, kind: JSON, body: ("", Made::Here(body.into_bytes()), "") }
    }
}

/// `Authorization: Splunk TOKEN`, or `?token=TOKEN` where the listener allows it.
fn token<'a>(asked: &Asked<'a>) -> Option<Cow<'a, [u8]>> {
    let Some(given) = asked.head.authorization else {
        let token = asked.query("token").filter(|_| asked.apis.query_token)?;
        return Some(query_value(token).into());
    };
    let (scheme, token) = given.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"splunk ").then(|| token.trim_ascii().into())
}

fn done() -> Done {
    Done::text(200, JSON, SUCCESS)
}

/// The place in a body of events: objects one behind the other, with or without something between them, or in a list.
#[derive(Default)]
struct Events {
    has_some: bool,
    /// So many bytes at the start of what is left hold no whole event.
    known: usize,
}

/// An event, as far as it is taken apart. All is JSON as it was sent; empty: it is not there.
#[derive(Default)]
struct Event<'a> {
    event: &'a [u8],
    time: &'a [u8],
    host: &'a [u8],
    source: &'a [u8],
    sourcetype: &'a [u8],
    index: &'a [u8],
    fields: &'a [u8],
}

impl Walk for Events {
    fn is_document(&self) -> bool {
        false
    }

    fn walk(&mut self, bytes: &[u8], is_last: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        // Looked at again only when there is twice as much: a long event that comes in small pieces costs no more than that.
        if !is_last && bytes.len() < 2 * self.known {
            return Ok(0);
        }
        let mut at = 0;
        loop {
            let between = |b: &&u8| matches!(**b, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']');
            at += bytes[at..].iter().take_while(between).count();
            if at == bytes.len() {
                break;
            }
            let mut cursor = Cursor::new(bytes, at);
            let found = if cursor.peek() == Some(b'{') { cursor.value().ok() } else { None };
            let Some(object) = found else {
                if is_last || !cursor.is_at_end() {
                    return Err(&BAD_EVENT);
                }
                break;
            };
            if put(object, records)? == Put::Stop {
                break;
            }
            self.has_some = true;
            at = cursor.at();
        }
        self.known = if records.stopped().is_some() { 0 } else { bytes.len() - at };
        if is_last && !self.has_some && records.stopped().is_none() { Err(&NO_DATA) } else { Ok(at) }
    }

    fn done(&mut self) -> Done {
        done()
    }
}

/// Takes one event.
fn put(object: &[u8], records: &mut Records<'_, '_>) -> Result<Put, &'static Problem> {
    let event = Event::read(object).ok_or(&BAD_EVENT)?;
    match event.event {
        b"" => return Err(&NO_EVENT),
        b"null" | b"\"\"" => return Err(&BLANK_EVENT),
        _ => {}
    }
    let parts: [(&[u8], &[u8]); 6] = [
        (b"time", event.time),
        (b"host", event.host),
        (b"source", event.source),
        (b"sourcetype", event.sourcetype),
        (b"index", event.index),
        (b"fields", event.fields),
    ];
    let mut attrs = Attrs::<6>::default();
    for (name, value) in parts {
        attrs.add_some(name, value, |json| Value::Made(compact, json));
    }
    let inside = |json: &'_ [u8]| -> usize { usize::from(json.len() > 1 && json[0] == b'"') };
    let text = |json| &event_text(json)[inside(json)..];
    let route = records.route(|attribute| match attribute {
        INDEX => plain_text(text(event.index)),
        HOST => plain_text(text(event.host)),
        _ => Cow::default(),
    });
    Ok(records.put(route, &attrs, Message::of_json(event.event)))
}

/// A JSON string up to its closing quote; anything else as it is.
fn event_text(json: &[u8]) -> &[u8] {
    if json.len() > 1 { json.strip_suffix(b"\"").unwrap_or(json) } else { json }
}

impl<'a> Event<'a> {
    fn read(object: &'a [u8]) -> Option<Event<'a>> {
        let (mut event, mut is_first) = (Event::default(), true);
        let mut cursor = Cursor::new(object, 0);
        cursor.expect(b'{').ok()?;
        while cursor.another(is_first, b'}').ok()? {
            is_first = false;
            let key = cursor.key().ok()?;
            let value = cursor.value().ok()?;
            let to = [
                (&b"event"[..], &mut event.event),
                (b"time", &mut event.time),
                (b"host", &mut event.host),
                (b"source", &mut event.source),
                (b"sourcetype", &mut event.sourcetype),
                (b"index", &mut event.index),
                (b"fields", &mut event.fields),
            ];
            if let Some((_, place)) = to.into_iter().find(|(name, _)| stands_for(key, name)) {
                *place = value;
            }
        }
        Some(event)
    }
}

/// The place in a body of lines, of which each is an event; the query says the rest of them.
struct Raw {
    host: Vec<u8>,
    source: Vec<u8>,
    sourcetype: Vec<u8>,
    index: Vec<u8>,
    has_some: bool,
    /// So many bytes at the start of what is left hold no newline.
    known: usize,
}

impl Raw {
    fn new(asked: &Asked<'_>) -> Raw {
        let of = |key| asked.query(key).map(query_value).unwrap_or_default();
        let (host, source, sourcetype, index) = (of("host"), of("source"), of("sourcetype"), of("index"));
        Raw { host, source, sourcetype, index, has_some: false, known: 0 }
    }
}

impl Walk for Raw {
    fn is_document(&self) -> bool {
        false
    }

    fn walk(&mut self, bytes: &[u8], is_last: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        let parts: [(&[u8], &Vec<u8>); 4] = [
            (b"host", &self.host),
            (b"source", &self.source),
            (b"sourcetype", &self.sourcetype),
            (b"index", &self.index),
        ];
        let mut attrs = Attrs::<4>::default();
        for (name, value) in parts {
            attrs.add_some(name, value, Value::Text);
        }
        let route = records.route(|attribute| match attribute {
            INDEX => &self.index[..],
            HOST => &self.host,
            _ => b"",
        });
        let (mut at, mut from) = (0, self.known);
        while at < bytes.len() {
            let end = match memchr(b'\n', &bytes[from.max(at)..]) {
                Some(n) => from.max(at) + n,
                None if is_last => bytes.len(),
                None => break,
            };
            from = 0;
            let line = bytes[at..end].strip_suffix(b"\r").unwrap_or(&bytes[at..end]);
            if !line.is_empty() {
                if records.put(route, &attrs, Message::Text(line)) == Put::Stop {
                    break;
                }
                self.has_some = true;
            }
            at = (end + 1).min(bytes.len());
        }
        self.known = if records.stopped().is_some() { 0 } else { bytes.len() - at };
        if is_last && !self.has_some && records.stopped().is_none() { Err(&NO_DATA) } else { Ok(at) }
    }

    fn done(&mut self) -> Done {
        done()
    }
}
