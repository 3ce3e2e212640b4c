//! A request as JSON (the specification's "JSON Protobuf Encoding"): lowerCamelCase keys, enumerations as numbers, 64-bit numbers as
//! strings or numbers, ids in hexadecimal digits; unknown keys are passed over.
//!
//! ```text
//! {"resourceLogs": [{"resource": {"attributes": […]}, "scopeLogs": [{"scope": {…}, "logRecords": [{…}, …]}, …]}, …]}
//! ```

use super::any_json::{Nothing, To, inside, object, value};
use super::protobuf::LONGEST_SERVICE;
use super::{BAD_REQUEST, JSON, done};
use crate::protocol::http::answer::Done;
use crate::protocol::http::api::{Put, Records, SERVICE, Trouble, Walk};
use crate::protocol::http::problem::Problem;
use crate::session::memory::document::Document;
use crate::session::memory::room::{Lease, NoRoom};
use crate::session::routes::Route;
use crate::session::walk::json::{Cursor, Json, NotJson, as_string, compact, plain_text, stands_for};
use crate::session::write::{Attrs, Format, Message, Value};

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
    /// How much of it is the resource,
    made_of_resource: usize,
    /// and with the scope. What follows are attributes of the present record.
    made_of_scope: usize,
    order: Order,
    /// `service.name`
    service: Vec<u8>,
    rejected: u64,
}

impl Export {
    /// At the beginning.
    pub fn new(lease: Lease) -> Export {
        Export {
            next: Next::Request,
            at: 0,
            made: Document::new(lease),
            made_of_resource: 0,
            made_of_scope: 0,
            order: Order::default(),
            service: Vec::new(),
            rejected: 0,
        }
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
                self.resource(find(&cursor, b"resource")?, records.longest())?;
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
                self.scope(find(&cursor, b"scope")?, records.longest())?;
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
                let route = records.route(|attribute| if attribute == SERVICE { &self.service[..] } else { b"" });
                let is_kept = route.format == Format::Json;
                let (from, longest) = (self.made_of_scope, records.longest());
                let mut attributes = Attributes { to: &mut self.made, from, longest, is_kept, result: Ok(()) };
                attributes.begin();
                let record = LogRecord::read(&mut cursor, &mut attributes, &mut self.order)?;
                attributes.result?;
                let (shared, attributes) = self.made.rest().split_at(self.made_of_scope);
                let (resource, scope) = shared.split_at(self.made_of_resource);
                let put = match records.is_hopeless(cursor.at() - start) {
                    true => Put::TooLong,
                    false => record.put([resource, scope, attributes], route, records),
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

    /// Writes the attributes of a resource. `longest`: what a record takes at most; of more, one byte is enough to know that it is too long.
    fn resource(&mut self, resource: &[u8], longest: usize) -> Result<(), Trouble> {
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
                    let name = plain_text(name);
                    self.service.extend_from_slice(&name[..name.len().min(LONGEST_SERVICE)]);
                }
            }
            let mut result = Ok(());
            written_object(attributes, &mut |piece| {
                result = result.and_then(|()| self.made.append_up_to(longest + 1, piece))
            });
            result?;
        }
        self.made_of_resource = self.made.rest().len();
        self.made_of_scope = self.made_of_resource;
        Ok(())
    }

    /// Likewise a scope.
    fn scope(&mut self, scope: &[u8], longest: usize) -> Result<(), Trouble> {
        self.made.keep(self.made_of_resource);
        let attributes = attributes(scope)?;
        let mut result = Ok(());
        let most = self.made_of_resource + longest + 1;
        let mut put = |piece: &[u8]| result = result.and_then(|()| self.made.append_up_to(most, piece));
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
        result?;
        self.made_of_scope = self.made.rest().len();
        Ok(())
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

/// The keys of a record.
const KEYS: [&[u8]; 10] = [
    b"\"timeUnixNano\":",
    b"\"body\":",
    b"\"attributes\":",
    b"\"severityNumber\":",
    b"\"severityText\":",
    b"\"observedTimeUnixNano\":",
    b"\"traceId\":",
    b"\"spanId\":",
    b"\"flags\":",
    b"\"eventName\":",
];
const TIME: usize = 0;
const BODY: usize = 1;
const ATTRIBUTES: usize = 2;
const SEVERITY: usize = 3;
const SEVERITY_TEXT: usize = 4;
const OBSERVED_TIME: usize = 5;
const TRACE_ID: usize = 6;
const SPAN_ID: usize = 7;
const FLAGS: usize = 8;
const EVENT_NAME: usize = 9;

/// The order in which a client writes the keys of its records: what followed each in the last one, and at the end what came first.
/// Clients keep to theirs.
#[derive(Default)]
struct Order([u8; KEYS.len() + 1]);

impl Order {
    /// Passes a key, and says which it is. `before` is the one that came before it.
    fn key(&mut self, cursor: &mut Cursor<'_>, before: &mut usize) -> Result<Option<usize>, NotJson> {
        let key = cursor.key_among(&KEYS, usize::from(self.0[*before]))?;
        if let Some(key) = key {
            (self.0[*before], *before) = (key as u8, key);
        }
        Ok(key)
    }
}

/// Where the attributes of a record are written: once, as they are checked, for those that are kept.
struct Attributes<'d> {
    to: &'d mut Document,
    /// Behind what is the same for all records.
    from: usize,
    /// What a record takes at most: one byte more is enough to know that it is too long.
    longest: usize,
    is_kept: bool,
    result: Result<(), NoRoom>,
}

impl Attributes<'_> {
    /// Of several lists the last counts.
    fn begin(&mut self) {
        self.to.keep(self.from);
    }
}

impl To for Attributes<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if self.is_kept && self.result.is_ok() {
            self.result = self.to.append_up_to(self.from + self.longest + 1, bytes);
        }
    }

    fn json(&mut self, json: Json<'_>) {
        if self.is_kept {
            json.write(&mut |bytes| self.put(bytes));
        }
    }
}

/// A record, as it was sent: what is there and says something.
#[derive(Default)]
struct LogRecord<'a> {
    time: Option<Value<'a>>,
    observed_time: Option<Value<'a>>,
    severity: Option<Value<'a>>,
    severity_text: Option<Value<'a>>,
    event_name: Option<Value<'a>>,
    body: Option<Message<'a>>,
    flags: Option<Value<'a>>,
    trace_id: Option<Value<'a>>,
    span_id: Option<Value<'a>>,
}

impl<'a> LogRecord<'a> {
    /// Reads a record and checks what is nested.
    fn read(
        cursor: &mut Cursor<'a>,
        attributes: &mut Attributes<'_>,
        order: &mut Order,
    ) -> Result<LogRecord<'a>, NotJson> {
        let (mut record, mut is_first, mut before) = (LogRecord::default(), true, KEYS.len());
        cursor.expect(b'{')?;
        while cursor.another(is_first, b'}')? {
            is_first = false;
            let key = order.key(cursor, &mut before)?;
            let kind = cursor.peek();
            let is_number = matches!(kind, Some(b'"' | b'0'..=b'9'));
            match (key, kind) {
                (None, _) | (_, Some(b'n')) => drop(cursor.value()?),
                (Some(BODY), Some(b'{')) => record.body = Some(body(cursor)?),
                (Some(ATTRIBUTES), Some(b'[')) => {
                    attributes.begin();
                    object(cursor, 0, attributes)?;
                }
                (Some(SEVERITY_TEXT), Some(b'"')) => record.severity_text = said(cursor)?.map(Json::value),
                (Some(EVENT_NAME), Some(b'"')) => record.event_name = said(cursor)?.map(Json::value),
                (Some(TRACE_ID), Some(b'"')) => record.trace_id = said(cursor)?.map(Json::value),
                (Some(SPAN_ID), Some(b'"')) => record.span_id = said(cursor)?.map(Json::value),
                (Some(TIME), _) if is_number => record.time = said(cursor)?.map(in_quotes),
                (Some(OBSERVED_TIME), _) if is_number => record.observed_time = said(cursor)?.map(in_quotes),
                (Some(SEVERITY), _) if is_number => record.severity = said(cursor)?.map(Json::value),
                (Some(FLAGS), _) if is_number => record.flags = said(cursor)?.map(Json::value),
                _ => return Err(NotJson),
            }
        }
        Ok(record)
    }

    /// With what was made of resource, scope and attributes.
    fn put(&self, made: [&[u8]; 3], route: &Route, records: &mut Records<'_, '_>) -> Put {
        let [resource, scope, attributes] = made.map(|object| if object == b"{}" { b"" } else { object });
        let mut attrs = Attrs::<11>::default();
        attrs.add_some(b"resource", resource, Value::Compact);
        attrs.add_some(b"scope", scope, Value::Compact);
        attrs.add_if(b"time", self.time);
        attrs.add_if(b"observed_time", self.observed_time);
        attrs.add_if(b"severity", self.severity);
        attrs.add_if(b"severity_text", self.severity_text);
        attrs.add_if(b"event_name", self.event_name);
        attrs.add_if(b"trace_id", self.trace_id);
        attrs.add_if(b"span_id", self.span_id);
        attrs.add_if(b"flags", self.flags);
        attrs.add_some(b"attributes", attributes, Value::Compact);
        records.put(route, &attrs, self.body.unwrap_or(Message::Compact(b"null")))
    }
}

/// Passes a value. `None`: it is what a protobuf message would not have either.
fn said<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Json<'a>>, NotJson> {
    Ok(Some(cursor.json()?).filter(|json| !matches!(json.text, b"\"\"" | b"0" | b"\"0\"")))
}

/// A number that may stand in quotes, as a string.
fn in_quotes(number: Json<'_>) -> Value<'_> {
    if number.text.first() == Some(&b'"') { number.value() } else { Value::Made(as_text, number.text) }
}

/// Passes the body of a record, which begins with a brace. Nearly all are a text and nothing else.
fn body<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, NotJson> {
    let mut text = cursor.clone();
    if text.eat(b'{')
        && let Ok(b"stringValue") = text.key()
        && let Ok(message) = text.text_message()
        && text.eat(b'}')
    {
        *cursor = text;
        return Ok(message);
    }
    let json = cursor.passed(|cursor| value(cursor, 0, &mut Nothing))?;
    Ok(match text_of(json) {
        Some(text) => Message::Escaped(text),
        None => Message::Made(written_value, json),
    })
}

/// Writes a number as a string.
fn as_text(number: &[u8], put: &mut dyn FnMut(&[u8])) {
    as_string(number, put);
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
