//! A request as a protobuf message (`opentelemetry/proto/logs/v1/logs.proto`):
//!
//! ```text
//! ExportLogsServiceRequest { repeated ResourceLogs 1 }
//! ResourceLogs { Resource { repeated KeyValue 1 } 1; repeated ScopeLogs 2 }
//! ScopeLogs { Scope { string name = 1; string version = 2; repeated KeyValue attributes = 3 } 1; repeated LogRecord 2 }
//! LogRecord { fixed64 time = 1; int severity = 2; string severity_text = 3; AnyValue body = 5; repeated KeyValue attributes = 6;
//!             fixed32 flags = 8; bytes trace_id = 9; bytes span_id = 10; fixed64 observed_time = 11; string event_name = 12 }
//! ```

use super::any_protobuf::{Parts, check, check_pair, each, object, pair, text, value};
use super::{BAD_REQUEST, PROTOBUF, done};
use crate::protocol::http::answer::Done;
use crate::protocol::http::api::{Put, Records, SERVICE, Trouble, Walk};
use crate::protocol::http::problem::Problem;
use crate::session::memory::document::Document;
use crate::session::memory::room::Lease;
use crate::session::walk::json::quoted;
use crate::session::walk::protobuf::{Field, Fields, Malformed};
use crate::session::write::json::quoted_number;
use crate::session::write::{Attrs, Message, Value};
use std::ops::Range;

/// So much of `service.name` is looked at for routes.
pub const LONGEST_SERVICE: usize = 256;

/// The place in a request.
pub struct Export {
    /// Behind the resource that is being read,
    at: usize,
    /// that resource with its scopes,
    resource: Range<usize>,
    /// behind the scope that is being read, in the resource,
    scope_at: usize,
    /// that scope with its records,
    scope: Range<usize>,
    /// and the next field in it.
    record_at: usize,
    /// What the resource and the scope look like in JSON: the same for each of their records.
    made: Document,
    /// How much of it is the resource.
    made_of_resource: usize,
    /// `service.name`
    service: Vec<u8>,
    rejected: u64,
}

impl Export {
    /// At the beginning.
    pub fn new(lease: Lease) -> Export {
        Export {
            at: 0,
            resource: 0..0,
            scope_at: 0,
            scope: 0..0,
            record_at: 0,
            made: Document::new(lease),
            made_of_resource: 0,
            service: Vec::new(),
            rejected: 0,
        }
    }

    /// Goes on to the next resource. False: there is none.
    /// `longest`: what a record takes at most; of more, one byte is enough to know that it is too long.
    fn next_resource(&mut self, bytes: &[u8], longest: usize) -> Result<bool, Trouble> {
        let mut fields = Fields::new(bytes, self.at);
        while let Some((number, field)) = fields.next_field()? {
            self.at = fields.at();
            if number != 1 {
                continue;
            }
            let start = self.at - field.bytes()?.len();
            (self.resource, self.scope_at, self.scope, self.record_at) = (start..self.at, 0, 0..0, 0);
            let resource = &bytes[self.resource.clone()];
            self.service.clear();
            each(resource, &ATTRIBUTES_OF_RESOURCE, &mut |bytes_of_pair| {
                check_pair(bytes_of_pair, 0)?;
                let (key, value) = pair(bytes_of_pair)?;
                if key == b"service.name"
                    && let Some(name) = text(value)
                {
                    self.service.clear();
                    self.service.extend_from_slice(&name[..name.len().min(LONGEST_SERVICE)]);
                }
                Ok(())
            })?;
            self.made.clear();
            let mut result = Ok(());
            object(resource, &ATTRIBUTES_OF_RESOURCE, &mut |piece| {
                result = result.and_then(|()| self.made.append_up_to(longest + 1, piece))
            });
            result?;
            self.made_of_resource = self.made.rest().len();
            return Ok(true);
        }
        Ok(false)
    }

    /// Goes on to the next scope of the resource. False: there is none.
    fn next_scope(&mut self, bytes: &[u8], longest: usize) -> Result<bool, Trouble> {
        let resource = &bytes[self.resource.clone()];
        let mut fields = Fields::new(resource, self.scope_at);
        while let Some((number, field)) = fields.next_field()? {
            self.scope_at = fields.at();
            if number != 2 {
                continue;
            }
            let end = self.resource.start + self.scope_at;
            (self.scope, self.record_at) = (end - field.bytes()?.len()..end, 0);
            self.made.keep(self.made_of_resource);
            let most = self.made_of_resource + longest + 1;
            let mut result = Ok(());
            scope_as_json(&bytes[self.scope.clone()], &mut |piece| {
                result = result.and_then(|()| self.made.append_up_to(most, piece))
            })?;
            result?;
            return Ok(true);
        }
        Ok(false)
    }

    fn walk_on(&mut self, bytes: &[u8], records: &mut Records<'_, '_>) -> Result<usize, Trouble> {
        loop {
            if !self.records(bytes, records)? {
                return Ok(0);
            }
            let longest = records.longest();
            if !self.next_scope(bytes, longest)? && !self.next_resource(bytes, longest)? {
                return Ok(bytes.len());
            }
        }
    }

    /// Takes the records of the scope. False: not all of them.
    fn records(&mut self, bytes: &[u8], records: &mut Records<'_, '_>) -> Result<bool, Trouble> {
        let scope = &bytes[self.scope.clone()];
        let route = records.route(|attribute| if attribute == SERVICE { &self.service[..] } else { b"" });
        let (resource, scope_made) = self.made.rest().split_at(self.made_of_resource.min(self.made.rest().len()));
        let mut fields = Fields::new(scope, self.record_at);
        while let Some((number, field)) = fields.next_field()? {
            if number == 2 {
                let record = field.bytes()?;
                let put = match records.is_hopeless(record.len()) {
                    true => Put::TooLong,
                    false => LogRecord::read(record)?.put(resource, scope_made, route, records),
                };
                match put {
                    Put::Stop => return Ok(false),
                    Put::TooLong => self.rejected += 1,
                    Put::Done => {}
                }
            }
            self.record_at = fields.at();
        }
        Ok(true)
    }
}

impl Walk for Export {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        self.walk_on(bytes, records).map_err(|trouble| trouble.problem(&BAD_REQUEST))
    }

    fn tells_of_dropped(&self) -> bool {
        true
    }

    fn done(&mut self) -> Done {
        done(PROTOBUF, self.rejected)
    }
}

/// From a `ResourceLogs`.
const ATTRIBUTES_OF_RESOURCE: [u32; 2] = [1, 1];
/// From a `ScopeLogs`.
const ATTRIBUTES_OF_SCOPE: [u32; 2] = [1, 3];

/// The body of a `LogRecord`.
const BODY: u32 = 5;

/// What a `ScopeLogs` says of its scope.
#[derive(Default)]
struct Scope<'a> {
    name: &'a [u8],
    version: &'a [u8],
    has_attributes: bool,
}

impl<'a> Scope<'a> {
    /// Reads and checks it. It goes over all records once, since the scope may stand anywhere among them.
    fn read(scope_logs: &'a [u8]) -> Result<Scope<'a>, Malformed> {
        let mut scope = Scope::default();
        each(scope_logs, &[1], &mut |bytes| {
            let mut fields = Fields::new(bytes, 0);
            while let Some((number, field)) = fields.next_field()? {
                match number {
                    1 => scope.name = field.bytes()?,
                    2 => scope.version = field.bytes()?,
                    3 => {
                        check_pair(field.bytes()?, 0)?;
                        scope.has_attributes = true;
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(scope)
    }
}

/// Writes the scope of a `ScopeLogs`, if it says something, as a JSON object.
fn scope_as_json(scope_logs: &[u8], put: &mut dyn FnMut(&[u8])) -> Result<(), Malformed> {
    let Scope { name, version, has_attributes } = Scope::read(scope_logs)?;
    let mut before: &[u8] = b"{";
    for (key, text) in [(&b"\"name\":"[..], name), (b"\"version\":", version)] {
        if !text.is_empty() {
            put(before);
            before = b",";
            put(key);
            quoted(text, put);
        }
    }
    if has_attributes {
        put(before);
        before = b",";
        put(b"\"attributes\":");
        object(scope_logs, &ATTRIBUTES_OF_SCOPE, put);
    }
    if before == b"," {
        put(b"}");
    }
    Ok(())
}

/// A record whose parts were checked.
#[derive(Default)]
struct LogRecord<'a> {
    bytes: &'a [u8],
    time: u64,
    observed_time: u64,
    severity: i32,
    severity_text: &'a [u8],
    event_name: &'a [u8],
    body: Option<Parts<'a>>,
    has_attributes: bool,
    flags: u32,
    trace_id: &'a [u8],
    span_id: &'a [u8],
}

impl<'a> LogRecord<'a> {
    fn read(bytes: &'a [u8]) -> Result<LogRecord<'a>, Malformed> {
        let mut record = LogRecord { bytes, ..LogRecord::default() };
        let mut fields = Fields::new(bytes, 0);
        while let Some((number, field)) = fields.next_field()? {
            match number {
                1 => record.time = field.fixed64()?,
                2 => record.severity = field.varint()? as i32, // of a longer number its low bits, as protobuf has it
                3 => record.severity_text = field.bytes()?,
                BODY => {
                    let body = field.bytes()?;
                    check(body, 0)?;
                    record.body = Parts::and(record.body, body, bytes, BODY);
                }
                6 => {
                    check_pair(field.bytes()?, 0)?;
                    record.has_attributes = true;
                }
                8 => match field {
                    Field::Fixed32(flags) => record.flags = flags,
                    _ => return Err(Malformed),
                },
                9 => record.trace_id = field.bytes()?,
                10 => record.span_id = field.bytes()?,
                11 => record.observed_time = field.fixed64()?,
                12 => record.event_name = field.bytes()?,
                _ => {}
            }
        }
        Ok(record)
    }

    fn put(
        &self,
        resource: &[u8],
        scope: &[u8],
        route: &crate::session::routes::Route,
        records: &mut Records<'_, '_>,
    ) -> Put {
        let (time, observed) = (self.time.to_le_bytes(), self.observed_time.to_le_bytes());
        let mut attrs = Attrs::<11>::default();
        attrs.add_some(b"resource", if resource == b"{}" { b"" } else { resource }, Value::Compact);
        attrs.add_some(b"scope", scope, Value::Compact);
        if self.time > 0 {
            attrs.add(b"time", Value::Made(nanoseconds, &time));
        }
        if self.observed_time > 0 {
            attrs.add(b"observed_time", Value::Made(nanoseconds, &observed));
        }
        if self.severity != 0 {
            attrs.add(b"severity", Value::Integer(self.severity.into()));
        }
        attrs.add_some(b"severity_text", self.severity_text, Value::Text);
        attrs.add_some(b"event_name", self.event_name, Value::Text);
        attrs.add_some(b"trace_id", self.trace_id, |id| Value::Made(hex, id));
        attrs.add_some(b"span_id", self.span_id, |id| Value::Made(hex, id));
        if self.flags > 0 {
            attrs.add(b"flags", Value::Integer(i64::from(self.flags)));
        }
        if self.has_attributes {
            attrs.add(b"attributes", Value::Made(|record, put| object(record, &[6], put), self.bytes));
        }
        let body = self.body.unwrap_or_default();
        let message = match (text(body), body) {
            (Some(text), _) => Message::Text(text),
            (None, Parts::One(body)) => Message::Made(|body, put| value(Parts::One(body), put), body),
            (None, Parts::Each(record, _)) => {
                Message::Made(|record, put| value(Parts::Each(record, BODY), put), record)
            }
        };
        records.put(route, &attrs, message)
    }
}

/// Writes a time, of which these are the eight bytes, as the JSON of this protocol has it.
fn nanoseconds(time: &[u8], put: &mut dyn FnMut(&[u8])) {
    if let Some(bytes) = time.first_chunk() {
        quoted_number(u64::from_le_bytes(*bytes), put);
    }
}

/// Writes bytes as a string of hexadecimal digits, as the JSON of this protocol has ids.
fn hex(bytes: &[u8], put: &mut dyn FnMut(&[u8])) {
    put(b"\"");
    for byte in bytes {
        let digit = |d: u8| b"0123456789abcdef"[usize::from(d)];
        put(&[digit(byte >> 4), digit(byte & 15)]);
    }
    put(b"\"");
}
