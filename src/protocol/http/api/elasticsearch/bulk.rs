//! `_bulk`: lines in pairs, what to do and a document. Pairs are taken as they come. A document that cannot be taken fails alone; a
//! line that does not say what to do fails the request, because from there on nobody knows which line is what.

use super::JSON;
use crate::host::mutants::mutant;
use crate::protocol::http::answer::{Done, Made};
use crate::protocol::http::api::{INDEX, Put, Records, Walk};
use crate::protocol::http::problem::{self, Problem};
use crate::session::memory::document::Document;
use crate::session::memory::room::{Lease, NoRoom};
use crate::session::walk::json::{Cursor, NotJson, as_string, compact, plain_text, quoted, stands_for};
use crate::session::write::{Attr, Message, Value};
use memchr::memchr;
use std::borrow::Cow;

static TOO_MANY: Problem = Problem {
    status: 413,
    code: "too_many_items",
    message: "the answer to so many items finds no room in a quarter of buffer.memory: send fewer in a request",
    retry_after: 0,
};

static BAD_ACTION: Problem = Problem {
    status: 400,
    code: "bad_action",
    message: "malformed action/metadata line: expected index, create, update or delete with an object, and a line with the document behind it",
    retry_after: 0,
};

const BAD_DOCUMENT: &str =
    "\"type\":\"document_parsing_exception\",\"reason\":\"the document is no JSON object on one line\"";
const TOO_LONG: &str =
    "\"type\":\"document_parsing_exception\",\"reason\":\"the document is larger than max_line_bytes and was dropped\"";
const NOT_STORED: &str = "\"type\":\"illegal_argument_exception\",\"reason\":\"this server only stores: update and delete are not possible\"";

/// The place in a request.
pub struct Bulk {
    /// The index that the path names, for lines that name none.
    index: Box<[u8]>,
    /// One for each pair, as they are answered,
    items: Option<Document>,
    /// and how many bytes of them there may be: with what is gathered of the body, one request may hold so much.
    most_items: usize,
    /// Where an item is put together.
    text: Vec<u8>,
    failed: bool,
    /// So many bytes at the start of what is left hold no whole pair.
    known: usize,
}

/// What a line says is to be done.
struct Action<'a> {
    name: &'static str,
    /// As it stands in JSON; empty: none.
    index: &'a [u8],
    id: &'a [u8],
}

impl Bulk {
    /// At the beginning.
    pub fn new(index: &str, lease: Lease) -> Bulk {
        Bulk {
            index: index.as_bytes().into(),
            most_items: lease.most() / 2,
            items: Some(Document::new(lease)),
            text: Vec::new(),
            failed: false,
            known: 0,
        }
    }

    /// Adds the answer to one pair.
    fn item(&mut self, action: &Action<'_>, error: Option<&str>) -> Result<(), NoRoom> {
        let Some(items) = &mut self.items else { return Ok(()) };
        let text = &mut self.text;
        text.clear();
        let mut put = |bytes: &[u8]| text.extend_from_slice(bytes);
        put(if items.is_empty() { b"{\"" } else { b",{\"" });
        put(action.name.as_bytes());
        put(b"\":{\"_index\":");
        if action.index.is_empty() {
            quoted(&self.index, &mut put);
        } else {
            as_string(action.index, &mut put);
        }
        if !action.id.is_empty() {
            put(b",\"_id\":");
            compact(action.id, &mut put);
        }
        match error {
            None => put(b",\"status\":201}}"),
            Some(error) => {
                put(b",\"status\":400,\"error\":{");
                put(error.as_bytes());
                put(b"}}}");
                self.failed = true;
            }
        }
        // Sent again it would be as long.
        if items.rest().len() + text.len() > self.most_items { Err(NoRoom::Never) } else { items.append(text) }
    }
}

/// Why an item finds no room.
fn no_room(why: NoRoom) -> &'static Problem {
    match why {
        NoRoom::Never => &TOO_MANY,
        NoRoom::Now => &problem::NO_ROOM,
    }
}

impl Walk for Bulk {
    fn is_document(&self) -> bool {
        false
    }

    fn walk(&mut self, bytes: &[u8], is_last: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        if !is_last && memchr(b'\n', &bytes[self.known.min(bytes.len())..]).is_none() {
            self.known = bytes.len();
            return Ok(0);
        }
        let mut at = 0;
        while let Some((line, behind)) = line(bytes, at, is_last) {
            if line.trim_ascii().is_empty() {
                at = behind;
                continue;
            }
            let action = action(line).map_err(|NotJson| &BAD_ACTION)?;
            if action.name == "delete" {
                self.item(&action, Some(NOT_STORED)).map_err(no_room)?;
                at = behind;
                continue;
            }
            let Some((document, behind)) = self::line(bytes, behind, is_last) else {
                if is_last {
                    return Err(&BAD_ACTION);
                }
                break;
            };
            let error = if action.name == "update" {
                Some(NOT_STORED)
            } else {
                match object(document) {
                    Err(NotJson) => Some(BAD_DOCUMENT),
                    Ok(document) => match self.put(&action, document, records) {
                        Put::Done => None,
                        Put::TooLong if mutant!("item_lies") => None,
                        Put::TooLong => Some(TOO_LONG),
                        Put::Stop => break,
                    },
                }
            };
            self.item(&action, error).map_err(no_room)?;
            at = behind;
        }
        self.known = if records.stopped().is_some() { 0 } else { bytes.len() - at };
        Ok(at)
    }

    fn tells_of_dropped(&self) -> bool {
        true
    }

    fn done(&mut self) -> Done {
        let front = match self.failed {
            true => "{\"took\":0,\"errors\":true,\"items\":[",
            false => "{\"took\":0,\"errors\":false,\"items\":[",
        };
        Done { status: 200, kind: JSON, body: (front, self.items.take().map_or(Made::Nothing, Made::Leased), "]}") }
    }
}

impl Bulk {
    fn put(&self, action: &Action<'_>, document: Message<'_>, records: &mut Records<'_, '_>) -> Put {
        let value = match action.index {
            b"" => Value::Text(&self.index),
            index => Value::Made(as_string, index),
        };
        let mut attrs = [Attr { name: b"index", value }; 2];
        let n = if action.id.is_empty() {
            1
        } else {
            attrs[1] = Attr { name: b"id", value: Value::Made(compact, action.id) };
            2
        };
        let route = records.route(|attribute| match (attribute, action.index) {
            (INDEX, b"") => Cow::from(&*self.index),
            (INDEX, index) => plain_text(index),
            _ => Cow::default(),
        });
        records.put(route, &attrs[..n], document)
    }
}

/// The line at this place, without its end, and the place behind it. `None`: it is not whole, or there is none.
fn line(bytes: &[u8], at: usize, is_last: bool) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let (line, behind) = match memchr(b'\n', rest) {
        Some(len) => (&rest[..len], at + len + 1),
        None if is_last && !rest.is_empty() => (rest, bytes.len()),
        None => return None,
    };
    Some((line.strip_suffix(b"\r").unwrap_or(line), behind))
}

/// A line that is one JSON object.
pub fn object(line: &[u8]) -> Result<Message<'_>, NotJson> {
    let mut cursor = Cursor::new(line, 0);
    if cursor.peek() != Some(b'{') {
        return Err(NotJson);
    }
    let object = cursor.message()?;
    if cursor.is_over() { Ok(object) } else { Err(NotJson) }
}

/// `{"index": {"_index": "logs", "_id": "1"}}`
fn action(line: &[u8]) -> Result<Action<'_>, NotJson> {
    let mut cursor = Cursor::new(line, 0);
    cursor.expect(b'{')?;
    let key = cursor.key()?;
    let name = ["index", "create", "update", "delete"].into_iter().find(|name| stands_for(key, name.as_bytes()));
    let mut action = Action { name: name.ok_or(NotJson)?, index: b"", id: b"" };
    cursor.expect(b'{')?;
    let mut is_first = true;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        let kind = cursor.peek();
        if stands_for(key, b"_index") && kind == Some(b'"') {
            action.index = cursor.text()?;
        } else {
            let value = cursor.value()?;
            if stands_for(key, b"_id") && value != b"null" {
                action.id = value;
            }
        }
    }
    cursor.expect(b'}')?;
    if cursor.is_over() { Ok(action) } else { Err(NotJson) }
}
