//! A request as JSON (the specification's "JSON Protobuf Encoding"): lowerCamelCase keys, enumerations as numbers, 64-bit numbers as
//! strings or numbers, ids in hexadecimal digits; unknown keys are passed over.
//!
//! ```text
//! {"resourceLogs": [{"resource": {"attributes": […]}, "scopeLogs": [{"scope": {…}, "logRecords": [{…}, …]}, …]}, …]}
//! ```

use super::any_json::{Nothing, inside, object, value};
use super::protobuf::LONGEST_SERVICE;
use super::{BAD_REQUEST, JSON, as_made, done};
use crate::protocol::http::answer::Done;
use crate::protocol::http::api::{Put, Records, SERVICE, Trouble, Walk};
use crate::protocol::http::problem::Problem;
use crate::session::memory::document::Document;
use crate::session::memory::room::Lease;
use crate::session::routes::Route;
use crate::session::walk::json::{Cursor, NotJson, as_string, compact, stands_for, which};
use crate::session::write::{Attrs, Message, Value};

/// Which part of the request comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The object.
    Request,
    /// A key of it. `true`: none was read yet.
    Key(bool),
    /// An element of `resourceLogs`, likewise.
    Resource(bool),
    /// A key of such an element.
    ResourceKey(bool),
    /// An element of `scopeLogs`.
    Scope(bool),
    /// A key of such an element.
    ScopeKey(bool),
    /// An element of `logRecords`.
    Record(bool),
    /// Nothing but white space.
    End,
}

/// The place in a request.
pub struct Export {
    next: Next,
    at: usize,
    /// What the resource and the scope look like on disk: the same for each of their records.
    made: Document,
    /// How much of it is the resource.
    made_of_resource: usize,
    /// `service.name`, as it stands in JSON.
    service: Vec<u8>,
    rejected: u64,
}

impl Export {
    /// At the beginning.
    pub fn new(lease: Lease) -> Export {
        let made = Document::new(lease);
        Export { next: Next::Request, at: 0, made, made_of_resource: 0, service: Vec::new(), rejected: 0 }
    }

    /// One step. False: nothing more is taken in this turn.
    fn step(&mut self, bytes: &[u8], records: &mut Records<'_, '_>) -> Result<bool, Trouble> {
        let mut cursor = Cursor::new(bytes, self.at);
        self.next = match self.next {
            Next::Request => {
                cursor.expect(b'{')?;
                Next::Key(true)
            }
            Next::Key(is_first) if cursor.another(is_first, b'}')? => {
                let key = cursor.key()?;
                if list_of(key, b"resourceLogs", &mut cursor)? { Next::Resource(true) } else { Next::Key(false) }
            }
            Next::Key(_) => Next::End,
            Next::Resource(is_first) if cursor.another(is_first, b']')? => {
                cursor.expect(b'{')?;
                self.resource(find(&cursor, b"resource")?)?;
                Next::ResourceKey(true)
            }
            Next::Resource(_) => Next::Key(false),
            Next::ResourceKey(is_first) if cursor.another(is_first, b'}')? => {
                let key = cursor.key()?;
                if list_of(key, b"scopeLogs", &mut cursor)? { Next::Scope(true) } else { Next::ResourceKey(false) }
            }
            Next::ResourceKey(_) => Next::Resource(false),
            Next::Scope(is_first) if cursor.another(is_first, b']')? => {
                cursor.expect(b'{')?;
                self.scope(find(&cursor, b"scope")?)?;
                Next::ScopeKey(true)
            }
            Next::Scope(_) => Next::ResourceKey(false),
            Next::ScopeKey(is_first) if cursor.another(is_first, b'}')? => {
                let key = cursor.key()?;
                if list_of(key, b"logRecords", &mut cursor)? { Next::Record(true) } else { Next::ScopeKey(false) }
            }
            Next::ScopeKey(_) => Next::Scope(false),
            Next::Record(is_first) if cursor.another(is_first, b']')? => {
                cursor.peek();
                let start = cursor.at();
                let record = LogRecord::read(&mut cursor)?;
                let (resource, scope) = self.made.rest().split_at(self.made_of_resource.min(self.made.rest().len()));
                let route = records.route(|attribute| if attribute == SERVICE { &self.service[..] } else { b"" });
                let put = match records.is_hopeless(cursor.at() - start) {
                    true => Put::TooLong,
                    false => record.put(resource, scope, route, records),
                };
                match put {
                    Put::Stop => return Ok(false),
                    Put::TooLong => self.rejected += 1,
                    Put::Done => {}
                }
                Next::Record(false)
            }
            Next::Record(_) => Next::ScopeKey(false),
            Next::End => return Ok(false),
        };
        self.at = cursor.at();
        Ok(true)
    }

    fn resource(&mut self, resource: &[u8]) -> Result<(), Trouble> {
        self.made.clear();
        self.service.clear();
        if let Some(attributes) = attributes(resource)? {
            let (mut cursor, mut is_first) = (Cursor::new(attributes, 0), true);
            cursor.expect(b'[')?;
            while cursor.another(is_first, b']')? {
                is_first = false;
                let attribute = cursor.value()?;
                if stands_for(inside(member(attribute, b"key")?), b"service.name")
                    && let Some(name) = text_of(member(attribute, b"value")?)
                {
                    self.service.clear();
                    self.service.extend_from_slice(&name[..name.len().min(LONGEST_SERVICE)]);
                }
            }
            let mut result = Ok(());
            written_object(attributes, &mut |piece| result = result.and_then(|()| self.made.append(piece)));
            result?;
        }
        self.made_of_resource = self.made.rest().len();
        Ok(())
    }

    fn scope(&mut self, scope: &[u8]) -> Result<(), Trouble> {
        self.made.keep(self.made_of_resource);
        let attributes = attributes(scope)?;
        let mut result = Ok(());
        let mut put = |piece: &[u8]| result = result.and_then(|()| self.made.append(piece));
        let mut before: &[u8] = b"{";
        for (name, key) in [(&b"name"[..], &b"\"name\":"[..]), (b"version", b"\"version\":")] {
            let text = member(scope, name)?;
            if text.first() == Some(&b'"') && text != b"\"\"" {
                put(before);
                before = b",";
                put(key);
                compact(text, &mut put);
            }
        }
        if let Some(attributes) = attributes.filter(|list| !is_empty(list)) {
            put(before);
            before = b",";
            put(b"\"attributes\":");
            written_object(attributes, &mut put);
        }
        if before == b"," {
            put(b"}");
        }
        Ok(result?)
    }
}

impl Walk for Export {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        while self.step(bytes, records).map_err(|trouble| trouble.problem(&BAD_REQUEST))? {}
        if self.next != Next::End {
            return Ok(0);
        }
        if Cursor::new(bytes, self.at).is_over() { Ok(bytes.len()) } else { Err(&BAD_REQUEST) }
    }

    fn tells_of_dropped(&self) -> bool {
        true
    }

    fn done(&mut self) -> Done {
        done(JSON, self.rejected)
    }
}

/// Behind a key: true if it has this name and a list begins, whose bracket is passed. Any other value is passed whole.
fn list_of(key: &[u8], name: &[u8], cursor: &mut Cursor<'_>) -> Result<bool, NotJson> {
    let is_it = stands_for(key, name);
    if is_it && cursor.eat(b'[') {
        return Ok(true);
    }
    let value = cursor.value()?;
    if is_it && value != b"null" { Err(NotJson) } else { Ok(false) }
}

/// The member of this name of an object whose bracket was passed; empty: it has none. Clients write it first, so what follows it is not
/// looked at.
fn find<'a>(cursor: &Cursor<'a>, name: &[u8]) -> Result<&'a [u8], NotJson> {
    let (mut cursor, mut is_first) = (cursor.clone(), true);
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        let value = cursor.value()?;
        if stands_for(key, name) && value != b"null" {
            return if value.first() == Some(&b'{') { Ok(value) } else { Err(NotJson) };
        }
    }
    Ok(b"")
}

/// The member of this name of an object, which may be empty bytes; empty: it has none.
fn member<'a>(object: &'a [u8], name: &[u8]) -> Result<&'a [u8], NotJson> {
    if object.is_empty() {
        return Ok(b"");
    }
    let (mut found, mut is_first): (&[u8], bool) = (b"", true);
    let mut cursor = Cursor::new(object, 0);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        let value = cursor.value()?;
        if stands_for(key, name) {
            found = value;
        }
    }
    Ok(found)
}

/// The attributes of a resource or scope, checked.
fn attributes(of: &[u8]) -> Result<Option<&[u8]>, NotJson> {
    let list = member(of, b"attributes")?;
    match list {
        b"" | b"null" => Ok(None),
        list => {
            object(&mut Cursor::new(list, 0), 0, &mut Nothing)?;
            Ok(Some(list))
        }
    }
}

fn is_empty(list: &[u8]) -> bool {
    let mut cursor = Cursor::new(list, 0);
    cursor.eat(b'[') && cursor.eat(b']')
}

/// A record, as it was sent. Empty: the part is not there.
#[derive(Default)]
struct LogRecord<'a> {
    time: &'a [u8],
    observed_time: &'a [u8],
    severity: &'a [u8],
    severity_text: &'a [u8],
    event_name: &'a [u8],
    body: &'a [u8],
    attributes: &'a [u8],
    flags: &'a [u8],
    trace_id: &'a [u8],
    span_id: &'a [u8],
}

impl<'a> LogRecord<'a> {
    /// Reads a record and checks what is nested.
    fn read(cursor: &mut Cursor<'a>) -> Result<LogRecord<'a>, NotJson> {
        const KEYS: [&[u8]; 10] = [
            b"timeUnixNano",
            b"body",
            b"attributes",
            b"severityNumber",
            b"severityText",
            b"observedTimeUnixNano",
            b"traceId",
            b"spanId",
            b"flags",
            b"eventName",
        ];
        let (mut record, mut is_first) = (LogRecord::default(), true);
        cursor.expect(b'{')?;
        while cursor.another(is_first, b'}')? {
            is_first = false;
            let name = which(cursor.key()?, &KEYS);
            let kind = cursor.peek();
            let (Some(name), true) = (name, kind != Some(b'n')) else {
                cursor.value()?;
                continue;
            };
            let part = match (name, kind) {
                (b"body", Some(b'{')) => cursor.passed(|cursor| value(cursor, 0, &mut Nothing))?,
                (b"attributes", Some(b'[')) => cursor.passed(|cursor| object(cursor, 0, &mut Nothing))?,
                (b"severityText" | b"eventName" | b"traceId" | b"spanId", Some(b'"')) => cursor.value()?,
                (
                    b"timeUnixNano" | b"observedTimeUnixNano" | b"severityNumber" | b"flags",
                    Some(b'"' | b'0'..=b'9'),
                ) => cursor.value()?,
                _ => return Err(NotJson),
            };
            match name {
                b"timeUnixNano" => record.time = part,
                b"body" => record.body = part,
                b"attributes" => record.attributes = part,
                b"severityNumber" => record.severity = part,
                b"severityText" => record.severity_text = part,
                b"observedTimeUnixNano" => record.observed_time = part,
                b"traceId" => record.trace_id = part,
                b"spanId" => record.span_id = part,
                b"flags" => record.flags = part,
                _ => record.event_name = part,
            }
        }
        Ok(record)
    }

    fn put(&self, resource: &[u8], scope: &[u8], route: &Route, records: &mut Records<'_, '_>) -> Put {
        // What a protobuf message would not have either.
        let some = |value: &'a [u8]| if matches!(value, b"\"\"" | b"0" | b"\"0\"") { b"" } else { value };
        let (as_made, as_sent) = (|bytes| Value::Made(as_made, bytes), |json| Value::Made(compact, json));
        let mut attrs = Attrs::<11>::default();
        attrs.add_some(b"resource", if resource == b"{}" { b"" } else { resource }, as_made);
        attrs.add_some(b"scope", scope, as_made);
        attrs.add_some(b"time", some(self.time), |number| Value::Made(as_text, number));
        attrs.add_some(b"observed_time", some(self.observed_time), |number| Value::Made(as_text, number));
        attrs.add_some(b"severity", some(self.severity), as_sent);
        attrs.add_some(b"severity_text", some(self.severity_text), as_sent);
        attrs.add_some(b"event_name", some(self.event_name), as_sent);
        attrs.add_some(b"trace_id", some(self.trace_id), as_sent);
        attrs.add_some(b"span_id", some(self.span_id), as_sent);
        attrs.add_some(b"flags", some(self.flags), as_sent);
        let attributes = if is_empty(self.attributes) { b"" } else { self.attributes };
        attrs.add_some(b"attributes", attributes, |list| Value::Made(written_object, list));
        let message = match text_of(self.body) {
            Some(text) => Message::Escaped(text),
            None if self.body.is_empty() => Message::Json(b"null"),
            None => Message::Made(written_value, self.body),
        };
        records.put(route, &attrs, message)
    }
}

/// Writes a number that may stand in quotes as a string.
fn as_text(number: &[u8], put: &mut dyn FnMut(&[u8])) {
    as_string(inside(number), put);
}

/// The inside of the text of a value that was checked and is one.
fn text_of(value: &[u8]) -> Option<&[u8]> {
    match member(value, b"stringValue") {
        Ok([b'"', inside @ .., b'"']) => Some(inside),
        _ => None,
    }
}

/// Writes a value that was checked, so that nothing can be wrong with it.
fn written_value(json: &[u8], put: &mut dyn FnMut(&[u8])) {
    let _ = value(&mut Cursor::new(json, 0), 0, &mut |bytes: &[u8]| put(bytes));
}

/// Writes a list of attributes that was checked, likewise.
fn written_object(list: &[u8], put: &mut dyn FnMut(&[u8])) {
    let _ = object(&mut Cursor::new(list, 0), 0, &mut |bytes: &[u8]| put(bytes));
}
