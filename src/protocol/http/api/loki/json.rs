//! A push request as JSON:
//!
//! ```text
//! {"streams": [{"stream": {"job": "x"}, "values": [["ns since 1970", "line", {"trace": "y"}], …]}, …]}
//! ```
//!
//! and its older form, whose streams are `{"labels": "{job=\"x\"}", "entries": [{"ts": "…", "line": "…"}, …]}`.

use super::{BAD_BODY, done};
use crate::protocol::http::answer::Done;
use crate::protocol::http::api::{Put, Records, TENANT, Walk};
use crate::protocol::http::problem::Problem;
use crate::session::walk::json::{Cursor, NotJson, compact, stands_for};
use crate::session::write::{Attrs, Message, Value};
use std::ops::Range;

/// Which part of the request comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The object.
    Request,
    /// A key of it. `true`: none was read yet.
    Key(bool),
    /// A stream in the list, likewise.
    Stream(bool),
    /// A value of a stream, likewise.
    Value(bool),
    /// Nothing but white space.
    End,
}

/// The place in a request.
pub struct Push {
    tenant: Box<[u8]>,
    next: Next,
    at: usize,
    /// The labels of the present stream; empty: it has none.
    labels: Range<usize>,
    /// Behind the present stream.
    behind: usize,
    has_streams: bool,
}

/// A stream, as far as it was read.
#[derive(Default)]
struct Stream {
    labels: Range<usize>,
    /// The list of its values.
    values: Option<usize>,
}

impl Push {
    /// At the beginning.
    pub fn new(tenant: Box<[u8]>) -> Push {
        Push { tenant, next: Next::Request, at: 0, labels: 0..0, behind: 0, has_streams: false }
    }

    /// One step. False: nothing more is taken in this turn.
    fn step(&mut self, bytes: &[u8], records: &mut Records<'_, '_>) -> Result<bool, NotJson> {
        let mut cursor = Cursor::new(bytes, self.at);
        self.next = match self.next {
            Next::Request => {
                cursor.expect(b'{')?;
                Next::Key(true)
            }
            Next::Key(is_first) if cursor.another(is_first, b'}')? => {
                let key = cursor.key()?;
                if stands_for(key, b"streams") && !self.has_streams && cursor.eat(b'[') {
                    self.has_streams = true;
                    Next::Stream(true)
                } else {
                    cursor.value()?;
                    Next::Key(false)
                }
            }
            Next::Key(_) => Next::End,
            Next::Stream(is_first) if cursor.another(is_first, b']')? => {
                let stream = stream(&mut cursor)?;
                self.labels = stream.labels;
                match stream.values {
                    None => Next::Stream(false),
                    Some(values) => {
                        self.behind = cursor.at();
                        cursor = Cursor::new(bytes, values);
                        cursor.expect(b'[')?;
                        Next::Value(true)
                    }
                }
            }
            Next::Stream(_) => Next::Key(false),
            Next::Value(is_first) if cursor.another(is_first, b']')? => {
                if !self.value(bytes, &mut cursor, records)? {
                    return Ok(false);
                }
                Next::Value(false)
            }
            Next::Value(_) => {
                cursor = Cursor::new(bytes, self.behind);
                Next::Stream(false)
            }
            Next::End => return Ok(false),
        };
        self.at = cursor.at();
        Ok(true)
    }

    /// Takes one value. False: it was not taken.
    fn value(&self, bytes: &[u8], cursor: &mut Cursor<'_>, records: &mut Records<'_, '_>) -> Result<bool, NotJson> {
        let value = if cursor.peek() == Some(b'[') { pair(cursor)? } else { entry(cursor)? };
        let labels = &bytes[self.labels.clone()];
        let metadata: &[u8] = if value.metadata == b"{}" { b"" } else { value.metadata };
        let made = |json| Value::Made(compact, json);
        let mut attrs = Attrs::<4>::default();
        attrs.add_some(b"tenant", &self.tenant, Value::Text);
        attrs.add_some(b"labels", labels, made);
        attrs.add_some(b"metadata", metadata, made);
        attrs.add_some(b"time", value.time, made);
        let route = records.route(|attribute| if attribute == TENANT { &*self.tenant } else { b"" });
        Ok(records.put(route, &attrs, Message::Escaped(value.line)) != Put::Stop)
    }
}

impl Walk for Push {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        while self.step(bytes, records).map_err(|NotJson| &BAD_BODY)? {}
        if self.next != Next::End {
            return Ok(0);
        }
        // Without `streams` it is something else, which must not be taken for an empty request.
        let is_whole = Cursor::new(bytes, self.at).is_over() && self.has_streams;
        if is_whole { Ok(bytes.len()) } else { Err(&BAD_BODY) }
    }

    fn done(&mut self) -> Done {
        done()
    }
}

/// Passes a stream, and says where its parts are.
fn stream(cursor: &mut Cursor<'_>) -> Result<Stream, NotJson> {
    let (mut found, mut is_first) = (Stream::default(), true);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        let kind = cursor.peek();
        let start = cursor.at();
        cursor.value()?;
        let is = |name: &[u8]| stands_for(key, name);
        match kind {
            Some(b'{') if is(b"stream") => found.labels = start..cursor.at(),
            Some(b'"') if is(b"labels") => found.labels = start..cursor.at(),
            Some(b'[') if is(b"values") || is(b"entries") => found.values = Some(start),
            Some(b'n') => {} // null
            _ if [&b"stream"[..], b"labels", b"values", b"entries"].iter().any(|name| is(name)) => return Err(NotJson),
            _ => {}
        }
    }
    Ok(found)
}

#[derive(Default)]
struct Line<'a> {
    time: &'a [u8],
    /// Between its quotes.
    line: &'a [u8],
    metadata: &'a [u8],
}

/// `["ns since 1970", "line", {"trace": "y"}]`
fn pair<'a>(cursor: &mut Cursor<'a>) -> Result<Line<'a>, NotJson> {
    cursor.expect(b'[')?;
    let time = match cursor.peek() {
        Some(b'"' | b'0'..=b'9') => cursor.value()?,
        _ => return Err(NotJson),
    };
    cursor.expect(b',')?;
    let mut found = Line { time, line: cursor.text()?, metadata: b"" };
    if cursor.another(false, b']')? {
        found.metadata = match cursor.peek() {
            Some(b'{') => cursor.value()?,
            _ => return Err(NotJson),
        };
        cursor.expect(b']')?;
    }
    Ok(found)
}

/// `{"ts": "…", "line": "…"}`
fn entry<'a>(cursor: &mut Cursor<'a>) -> Result<Line<'a>, NotJson> {
    cursor.expect(b'{')?;
    let (mut found, mut has_line, mut is_first) = (Line::default(), false, true);
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        if stands_for(key, b"line") {
            (found.line, has_line) = (cursor.text()?, true);
        } else if stands_for(key, b"ts") {
            found.time = cursor.value()?;
        } else {
            cursor.value()?;
        }
    }
    if has_line { Ok(found) } else { Err(NotJson) }
}
