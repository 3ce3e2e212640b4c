//! A push request as a protobuf message (Loki's `pkg/push/push.proto`):
//!
//! ```text
//! PushRequest { repeated Stream streams = 1; }
//! Stream { string labels = 1; repeated Entry entries = 2; }
//! Entry { Timestamp timestamp = 1; string line = 2; repeated Label structuredMetadata = 3; }
//! Label { string name = 1; string value = 2; }
//! Timestamp { int64 seconds = 1; int32 nanos = 2; }
//! ```

use super::{BAD_BODY, done, labels};
use crate::protocol::http::answer::Done;
use crate::protocol::http::api::{Put, Records, TENANT, Walk};
use crate::protocol::http::problem::Problem;
use crate::session::walk::json::quoted;
use crate::session::walk::protobuf::{Field, Fields, Malformed};
use crate::session::write::json::quoted_number;
use crate::session::write::{Attrs, Message, Value};
use std::ops::Range;

/// How a request goes on.
enum Step {
    Again,
    /// Nothing more is taken in this turn.
    Stop,
    End,
}

/// The place in a request.
pub struct Push {
    tenant: Box<[u8]>,
    /// Behind the stream that is being read, or that was read last,
    at: usize,
    /// that stream,
    stream: Range<usize>,
    /// its labels, which may stand behind its entries,
    labels: Range<usize>,
    /// and the next field in it.
    entry: usize,
    has_streams: bool,
}

impl Push {
    /// At the beginning.
    pub fn new(tenant: Box<[u8]>) -> Push {
        Push { tenant, at: 0, stream: 0..0, labels: 0..0, entry: 0, has_streams: false }
    }

    /// Takes the present stream, and goes on to the next.
    fn step(&mut self, bytes: &[u8], records: &mut Records<'_, '_>) -> Result<Step, Malformed> {
        if !self.stream(bytes, records)? {
            return Ok(Step::Stop);
        }
        let mut fields = Fields::new(bytes, self.at);
        let Some((number, field)) = fields.next_field()? else { return Ok(Step::End) };
        (self.at, self.stream, self.entry) = (fields.at(), 0..0, 0);
        if number == 1 {
            let len = field.bytes()?.len();
            self.stream = self.at - len..self.at;
            self.has_streams = true;
            self.labels = labels_of(bytes, &self.stream)?;
        }
        Ok(Step::Again)
    }

    /// Takes what is left of the present stream. False: not all of it was taken.
    fn stream(&mut self, bytes: &[u8], records: &mut Records<'_, '_>) -> Result<bool, Malformed> {
        let stream = &bytes[self.stream.clone()];
        let labels = &bytes[self.labels.clone()];
        let route = records.route(|attribute| if attribute == TENANT { &*self.tenant } else { b"" });
        let mut fields = Fields::new(stream, self.entry);
        while let Some((number, field)) = fields.next_field()? {
            if number == 2 {
                let entry = Entry::read(field.bytes()?)?;
                let time = entry.time.to_le_bytes();
                let mut attrs = Attrs::<4>::default();
                attrs.add_some(b"tenant", &self.tenant, Value::Text);
                attrs.add_some(b"labels", labels, |text| Value::Made(labels::make, text));
                if entry.has_metadata {
                    attrs.add(b"metadata", Value::Made(metadata, entry.bytes));
                }
                if entry.has_time {
                    attrs.add(b"time", Value::Made(nanoseconds, &time));
                }
                if records.put(route, &attrs, Message::Text(entry.line)) == Put::Stop {
                    return Ok(false);
                }
            }
            self.entry = fields.at();
        }
        Ok(true)
    }
}

impl Walk for Push {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        loop {
            match self.step(bytes, records) {
                Ok(Step::Again) => {}
                Ok(Step::Stop) => return Ok(0),
                Ok(Step::End) => break,
                Err(Malformed) => return Err(&BAD_BODY),
            }
        }
        // A body of something else may look like a message of unknown fields: it must not be taken for an empty request.
        if !self.has_streams && !bytes.is_empty() { Err(&BAD_BODY) } else { Ok(bytes.len()) }
    }

    fn done(&mut self) -> Done {
        done()
    }
}

/// Where the labels of a stream are. It is looked through once, however many turns it takes.
fn labels_of(bytes: &[u8], stream: &Range<usize>) -> Result<Range<usize>, Malformed> {
    let mut found = 0..0;
    let mut fields = Fields::new(&bytes[stream.clone()], 0);
    while let Some((number, field)) = fields.next_field()? {
        if number == 1 {
            let end = stream.start + fields.at(); // the last one counts
            found = end - field.bytes()?.len()..end;
        }
    }
    Ok(found)
}

struct Entry<'a> {
    bytes: &'a [u8],
    /// In nanoseconds since 1970.
    time: i128,
    has_time: bool,
    line: &'a [u8],
    has_metadata: bool,
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Result<Entry<'a>, Malformed> {
        let mut entry = Entry { bytes, time: 0, has_time: false, line: b"", has_metadata: false };
        let (mut seconds, mut nanos) = (0, 0);
        let mut fields = Fields::new(bytes, 0);
        while let Some((number, field)) = fields.next_field()? {
            match number {
                1 => {
                    entry.has_time = true;
                    let mut parts = Fields::new(field.bytes()?, 0);
                    while let Some((number, part)) = parts.next_field()? {
                        match number {
                            1 => seconds = part.varint()? as i64,
                            2 => nanos = part.varint()? as i32,
                            _ => {}
                        }
                    }
                }
                2 => entry.line = field.bytes()?,
                3 => {
                    label(field)?;
                    entry.has_metadata = true;
                }
                _ => {}
            }
        }
        entry.time = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Ok(entry)
    }
}

/// Writes a time, of which these are the sixteen bytes, as the JSON of this API has it.
fn nanoseconds(time: &[u8], put: &mut dyn FnMut(&[u8])) {
    if let Some(bytes) = time.first_chunk() {
        quoted_number(i128::from_le_bytes(*bytes), put);
    }
}

fn label(field: Field<'_>) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut name, mut value): (&[u8], &[u8]) = (b"", b"");
    let mut fields = Fields::new(field.bytes()?, 0);
    while let Some((number, field)) = fields.next_field()? {
        match number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// Writes the structured metadata of an entry that was read before as a JSON object.
fn metadata(entry: &[u8], put: &mut dyn FnMut(&[u8])) {
    let mut fields = Fields::new(entry, 0);
    let mut before: &[u8] = b"{";
    while let Ok(Some((number, field))) = fields.next_field() {
        if number == 3
            && let Ok((name, value)) = label(field)
        {
            put(before);
            before = b",";
            quoted(name, put);
            put(b":");
            quoted(value, put);
        }
    }
    put(b"}");
}
