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
use crate::session::walk::json::{Cursor, Json, NotJson, stands_for};
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
    /// A key of a stream, likewise.
    StreamKey(bool),
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
    /// The labels of the present stream, if it has any.
    labels: Option<Labels>,
    /// Its values were read.
    has_values: bool,
    has_streams: bool,
}

/// The labels of a stream: where they are, and that they can be written as they stand there.
#[derive(Clone)]
struct Labels {
    at: Range<usize>,
    is_compact: bool,
}

impl Push {
    /// At the beginning.
    pub fn new(tenant: Box<[u8]>) -> Push {
        Push { tenant, next: Next::Request, at: 0, labels: None, has_values: false, has_streams: false }
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
                if stands_for(key, b"streams") && cursor.eat(b'[') {
                    self.has_streams = true; // several lists are taken one behind the other
                    Next::Stream(true)
                } else {
                    cursor.value()?;
                    Next::Key(false)
                }
            }
            Next::Key(_) => Next::End,
            Next::Stream(is_first) if cursor.another(is_first, b']')? => {
                cursor.expect(b'{')?;
                (self.labels, self.has_values) = (None, false);
                Next::StreamKey(true)
            }
            Next::Stream(_) => Next::Key(false),
            Next::StreamKey(is_first) if cursor.another(is_first, b'}')? => {
                if self.stream_key(&mut cursor)? {
                    Next::Value(true)
                } else {
                    Next::StreamKey(false)
                }
            }
            Next::StreamKey(_) => Next::Stream(false),
            Next::Value(is_first) if cursor.another(is_first, b']')? => {
                if !self.value(bytes, &mut cursor, records)? {
                    return Ok(false);
                }
                Next::Value(false)
            }
            Next::Value(_) => Next::StreamKey(false),
            Next::End => return Ok(false),
        };
        self.at = cursor.at();
        Ok(true)
    }

    /// Passes a key of a stream and its value. True: its values follow, whose bracket was passed.
    fn stream_key(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, NotJson> {
        match part(cursor)? {
            Part::Labels => self.labels = Some(labels(cursor)?),
            // Twice would be two streams; and each time the rest might be looked through.
            Part::Values if self.has_values => return Err(NotJson),
            Part::Values => {
                self.has_values = true;
                if self.labels.is_none() {
                    self.labels = labels_behind(cursor.clone())?;
                }
                cursor.expect(b'[')?;
                return Ok(true);
            }
            Part::Other => drop(cursor.value()?),
        }
        Ok(false)
    }

    /// Takes one value. False: it was not taken.
    fn value(&self, bytes: &[u8], cursor: &mut Cursor<'_>, records: &mut Records<'_, '_>) -> Result<bool, NotJson> {
        let line = if cursor.peek() == Some(b'[') { pair(cursor)? } else { entry(cursor)? };
        let mut attrs = Attrs::<4>::default();
        attrs.add_some(b"tenant", &self.tenant, Value::Text);
        if let Some(Labels { at, is_compact }) = &self.labels {
            attrs.add(b"labels", Json { text: &bytes[at.clone()], is_compact: *is_compact }.value());
        }
        attrs.add_if(b"metadata", line.metadata);
        attrs.add_if(b"time", line.time);
        let route = records.route(|attribute| if attribute == TENANT { &*self.tenant } else { b"" });
        Ok(records.put(route, &attrs, line.message) != Put::Stop)
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

/// The value of a key of a stream.
enum Part {
    Labels,
    Values,
    Other,
}

/// Passes a key, and says what follows.
fn part(cursor: &mut Cursor<'_>) -> Result<Part, NotJson> {
    const KEYS: [&[u8]; 4] = [b"\"stream\":", b"\"values\":", b"\"labels\":", b"\"entries\":"];
    match (cursor.key_among(&KEYS, 0)?, cursor.peek()) {
        (None, _) | (_, Some(b'n')) => Ok(Part::Other), // also null
        (Some(0), Some(b'{')) | (Some(2), Some(b'"')) => Ok(Part::Labels),
        (Some(1 | 3), Some(b'[')) => Ok(Part::Values),
        _ => Err(NotJson),
    }
}

fn labels(cursor: &mut Cursor<'_>) -> Result<Labels, NotJson> {
    cursor.peek();
    let start = cursor.at();
    let is_compact = cursor.json()?.is_compact;
    Ok(Labels { at: start..cursor.at(), is_compact })
}

/// The labels that stand behind the values of a stream.
fn labels_behind(mut cursor: Cursor<'_>) -> Result<Option<Labels>, NotJson> {
    cursor.value()?;
    let mut found = None;
    while cursor.another(false, b'}')? {
        match part(&mut cursor)? {
            Part::Labels => found = Some(labels(&mut cursor)?),
            Part::Values | Part::Other => drop(cursor.value()?),
        }
    }
    Ok(found)
}

struct Line<'a> {
    time: Option<Value<'a>>,
    message: Message<'a>,
    metadata: Option<Value<'a>>,
}

/// `["ns since 1970", "line", {"trace": "y"}]`
fn pair<'a>(cursor: &mut Cursor<'a>) -> Result<Line<'a>, NotJson> {
    cursor.expect(b'[')?;
    let time = match cursor.peek() {
        Some(b'"' | b'0'..=b'9') => Some(cursor.json()?.value()),
        _ => return Err(NotJson),
    };
    cursor.expect(b',')?;
    let message = cursor.text_message()?;
    let mut metadata = None;
    if cursor.another(false, b']')? {
        metadata = match cursor.peek() {
            Some(b'{') => Some(cursor.json()?).filter(|json| json.text != b"{}").map(Json::value),
            _ => return Err(NotJson),
        };
        cursor.expect(b']')?;
    }
    Ok(Line { time, message, metadata })
}

/// `{"ts": "…", "line": "…"}`
fn entry<'a>(cursor: &mut Cursor<'a>) -> Result<Line<'a>, NotJson> {
    cursor.expect(b'{')?;
    let (mut time, mut message, mut is_first) = (None, None, true);
    while cursor.another(is_first, b'}')? {
        is_first = false;
        match cursor.key_among(&[b"\"ts\":", b"\"line\":"], 0)? {
            Some(1) => message = Some(cursor.text_message()?),
            Some(_) => time = Some(cursor.json()?.value()),
            None => drop(cursor.value()?),
        }
    }
    Ok(Line { time, message: message.ok_or(NotJson)?, metadata: None })
}
