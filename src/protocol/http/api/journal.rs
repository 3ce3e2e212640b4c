//! `journal`: what systemd-journal-upload sends (systemd's `JOURNAL_EXPORT_FORMATS`, "Journal Export Format"). The body may go on for
//! hours: entries are taken as they come, and the answer stands for all of them.

use super::{Api, Asked, Claim, HOST, Put, Records, SERVICE, Walk, Wanted};
use crate::protocol::http::answer::Done;
use crate::protocol::http::head::Method;
use crate::protocol::http::problem::{self, Problem};
use crate::protocol::http::voice;
use crate::session::walk::json::quoted;
use crate::session::write::{Attr, Message, Value};
use memchr::memchr;

/// See the module documentation.
pub static API: Api = Api { name: "journal", claim, token: |_| None };

static BAD_ENTRY: Problem =
    Problem { status: 400, code: "bad_entry", message: "the body is not in the journal export format", retry_after: 0 };

/// Of an entry with more fields, those with the same name stand one behind the other instead of in a list. The journal itself has at
/// most 1024 in an entry; real ones have 20 to 50.
const MOST_LISTED: usize = 128;

fn claim(asked: &Asked<'_>) -> Option<Claim> {
    let path = asked.path.strip_prefix("/journald").filter(|rest| rest.starts_with('/')).unwrap_or(asked.path);
    let wanted = match (path, asked.head.method) {
        ("/upload", Method::Post) => Wanted::Take { walk: Box::new(Entries::default()), coding: None },
        ("/upload", _) => Wanted::Refuse(&problem::NOT_ALLOWED),
        _ => return None,
    };
    Some(Claim { voice: &voice::TEXT, wanted })
}

/// The place in a body.
#[derive(Default)]
struct Entries {
    /// So many bytes at the start of what is left hold no whole entry.
    known: usize,
    /// What is left of an entry that is too long, which is passed over without being gathered.
    passing: Option<Passing>,
}

/// What comes next of an entry that is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    /// A field, or the empty line.
    Field,
    /// The rest of a line.
    Line,
    /// The length of a value,
    Length,
    /// so many bytes of it,
    Value(u64),
    /// and the newline behind it.
    Newline,
}

impl Passing {
    /// One step over these bytes: how many it takes, and what comes behind them; `None`: the entry has ended. No byte is taken where
    /// there are too few.
    fn step(self, bytes: &[u8]) -> Result<(usize, Option<Passing>), &'static Problem> {
        let end_of_line = memchr(b'\n', bytes);
        let line = &bytes[..end_of_line.unwrap_or(bytes.len())];
        Ok(match (self, end_of_line) {
            (Passing::Field, Some(0)) => (1, None),
            (Passing::Field, Some(at)) => {
                (at + 1, Some(if line.contains(&b'=') { Passing::Field } else { Passing::Length }))
            }
            (Passing::Field, None) if line.contains(&b'=') => (line.len(), Some(Passing::Line)),
            (Passing::Field, None) if line.len() > LONGEST_NAME => return Err(&BAD_ENTRY),
            (Passing::Field, None) => (0, Some(self)),
            (Passing::Line, Some(at)) => (at + 1, Some(Passing::Field)),
            (Passing::Line, None) => (line.len(), Some(self)),
            (Passing::Length, _) => match length(bytes)? {
                Some(length) => (8, Some(Passing::Value(length))),
                None => (0, Some(self)),
            },
            (Passing::Value(0), _) => (0, Some(Passing::Newline)),
            (Passing::Value(left), _) => {
                let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                (taken, Some(Passing::Value(left - taken as u64)))
            }
            (Passing::Newline, Some(0)) => (1, Some(Passing::Field)),
            (Passing::Newline, _) if bytes.is_empty() => (0, Some(self)),
            (Passing::Newline, _) => return Err(&BAD_ENTRY),
        })
    }
}

/// The longest name of a field; the journal itself allows 64 bytes.
const LONGEST_NAME: usize = 1024;

/// The length of a value that stands in front of it. `None`: not all of it is there.
fn length(bytes: &[u8]) -> Result<Option<u64>, &'static Problem> {
    let Some(length) = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return Ok(None) };
    if length < 1 << 40 { Ok(Some(length)) } else { Err(&problem::DOCUMENT_TOO_LARGE) }
}

/// What comes at a place of a body.
enum Next<'a> {
    /// A field, and the place behind it.
    Field(&'a [u8], &'a [u8], usize),
    /// The empty line behind an entry, and the place behind it.
    End(usize),
    /// Not enough of it is there.
    Part,
}

/// Reads what comes at a place.
fn next(bytes: &[u8], at: usize, is_last: bool) -> Result<Next<'_>, &'static Problem> {
    let rest = &bytes[at..];
    let line = match memchr(b'\n', rest) {
        Some(len) => &rest[..len],
        None if is_last && rest.contains(&b'=') => rest,
        None => return Ok(Next::Part),
    };
    let behind = (at + line.len() + 1).min(bytes.len());
    if line.is_empty() {
        return Ok(Next::End(behind));
    }
    let (name, value, behind) = match memchr(b'=', line) {
        Some(equals) => (&line[..equals], &line[equals + 1..], behind),
        None => {
            let Some(len) = length(&bytes[behind..])?.and_then(|len| usize::try_from(len).ok()) else {
                return Ok(Next::Part);
            };
            let Some(value) = bytes.get(behind + 8..behind + 8 + len) else { return Ok(Next::Part) };
            match bytes.get(behind + 8 + len) {
                Some(b'\n') => {}
                Some(_) => return Err(&BAD_ENTRY),
                None => return Ok(Next::Part),
            }
            (line, value, behind + 9 + len)
        }
    };
    let is_name = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_';
    if name.is_empty() || !name.iter().all(is_name) {
        return Err(&BAD_ENTRY);
    }
    Ok(Next::Field(name, value, behind))
}

/// The fields of an entry that was found to be whole.
fn fields(entry: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || match next(entry, at, true) {
        Ok(Next::Field(name, value, behind)) if at < entry.len() => {
            at = behind;
            Some((name, value))
        }
        _ => None,
    })
}

impl Entries {
    /// Passes over what is left of an entry that is too long, if there is one, and returns how many bytes that took.
    fn pass(&mut self, bytes: &[u8], is_last: bool) -> Result<usize, &'static Problem> {
        let mut at = 0;
        while let Some(passing) = self.passing {
            let (taken, next) = passing.step(&bytes[at..])?;
            at += taken;
            if taken == 0 && next == self.passing {
                match passing {
                    _ if !is_last => break,
                    // The last entry may lack its empty line, and a line its end.
                    Passing::Field | Passing::Line if at == bytes.len() => self.passing = None,
                    _ => return Err(&BAD_ENTRY),
                }
            } else {
                self.passing = next;
            }
        }
        Ok(at)
    }
}

impl Walk for Entries {
    fn is_document(&self) -> bool {
        false
    }

    fn is_endless(&self) -> bool {
        true
    }

    /// There is no way to tell the uploader, which ends at anything but a success, and would come to the same entry again for ever.
    fn tells_of_dropped(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], is_last: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        let mut start = match self.pass(bytes, is_last)? {
            passed if self.passing.is_some() => return Ok(passed),
            passed => passed,
        };
        let longest = records.longest();
        // Looked at again only when there is twice as much: a long entry that comes in small pieces costs no more than that.
        if !is_last && bytes.len() < (2 * self.known).min(longest + 1) {
            return Ok(start);
        }
        let mut at = start;
        loop {
            let (end, behind) = match next(bytes, at, is_last)? {
                Next::Field(_, _, behind) => {
                    at = behind;
                    continue;
                }
                Next::End(behind) => (at, behind),
                // The last entry may lack its empty line, if the body has ended as it should.
                Next::Part if is_last && at == bytes.len() => (at, at),
                Next::Part if is_last => return Err(&BAD_ENTRY),
                Next::Part => break,
            };
            if end > start && put(&bytes[start..end], records) == Put::Stop {
                break;
            }
            (start, at) = (behind, behind);
            if is_last && at == bytes.len() {
                break;
            }
        }
        self.known = if records.stopped().is_some() { 0 } else { bytes.len() - start };
        if self.known > longest && records.is_hopeless(self.known) {
            // However it goes on: the rest of it is not gathered.
            (self.known, self.passing) = (0, Some(Passing::Field));
            return Ok(at + self.pass(&bytes[at..], is_last)?);
        }
        Ok(start)
    }

    fn done(&mut self) -> Done {
        Done::text(202, "text/plain", "OK.\n")
    }
}

/// Takes one entry.
fn put(entry: &[u8], records: &mut Records<'_, '_>) -> Put {
    if records.is_hopeless(entry.len()) {
        return Put::TooLong;
    }
    let value = |name: &[u8]| fields(entry).find(|field| field.0 == name).map_or(&b""[..], |field| field.1);
    let route = records.route(|attribute| match attribute {
        HOST => value(b"_HOSTNAME"),
        SERVICE => value(b"_SYSTEMD_UNIT"),
        _ => b"",
    });
    let attrs = [Attr { name: b"fields", value: Value::Made(object, entry) }];
    records.put(route, &attrs, Message::Text(value(b"MESSAGE")))
}

/// Writes all fields but the message as a JSON object. What has the same name stands in a list.
fn object(entry: &[u8], put: &mut dyn FnMut(&[u8])) {
    let is_listed = fields(entry).nth(MOST_LISTED).is_none();
    let mut before: &[u8] = b"{";
    let mut has_message = false;
    for (i, (name, value)) in fields(entry).enumerate() {
        if name == b"MESSAGE" && !has_message {
            has_message = true;
            continue;
        }
        let same = || fields(entry).enumerate().filter(|(_, field)| field.0 == name && name != b"MESSAGE");
        if is_listed && same().any(|(other, _)| other < i) {
            continue; // it stands in the list of the first
        }
        put(before);
        before = b",";
        quoted(name, put);
        put(b":");
        if is_listed && same().any(|(other, _)| other > i) {
            let mut before: &[u8] = b"[";
            for (_, (_, value)) in same() {
                put(before);
                before = b",";
                quoted(value, put);
            }
            put(b"]");
        } else {
            quoted(value, put);
        }
    }
    put(if before == b"{" { b"{}" } else { b"}" });
}
