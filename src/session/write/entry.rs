//! Records that come with attributes, out of documents: how they look on disk.

use super::json::{Attr, Maker, Out, Value, push_escaped};
use super::{Form, MARKER_ROOM};
use crate::host::sys::plain_prefix;
use crate::session::walk::json::{as_it_stands, compact, unescape};
use memchr::memchr_iter;
use std::io::Write;

/// What a record says, as its sender encoded it.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// Text as it is.
    Text(&'a [u8]),
    /// The inside of a JSON string that was found to be valid, escapes as they are.
    Escaped(&'a [u8]),
    /// The same in UTF-8.
    Sound(&'a [u8]),
    /// The inside of a JSON string in ASCII and without escapes: what stands there is the text.
    Plain(&'a [u8]),
    /// Another JSON value that was found to be valid.
    Json(&'a [u8]),
    /// The same without white space between its tokens, in UTF-8.
    Compact(&'a [u8]),
    /// What the protocol makes of bytes: a JSON value on one line.
    Made(Maker, &'a [u8]),
}

impl<'a> Message<'a> {
    /// Of a JSON value that was found to be valid.
    #[must_use]
    pub fn of_json(json: &'a [u8]) -> Message<'a> {
        match json {
            [b'"', inside @ .., b'"'] => Message::Escaped(inside),
            json => Message::Json(json),
        }
    }

    /// Its bytes as they were sent.
    #[must_use]
    pub fn sent(&self) -> &'a [u8] {
        match self {
            Message::Text(bytes)
            | Message::Escaped(bytes)
            | Message::Sound(bytes)
            | Message::Plain(bytes)
            | Message::Json(bytes)
            | Message::Compact(bytes)
            | Message::Made(_, bytes) => bytes,
        }
    }

    /// Its first `most` bytes, or a few less so that no character or escape is cut in two, and how many bytes that leaves out. JSON
    /// that is no text cannot be cut.
    #[must_use]
    pub fn cut(self, most: usize) -> Option<(Message<'a>, usize)> {
        let sent = self.sent();
        if sent.len() <= most {
            return Some((self, 0));
        }
        let kept = match self {
            Message::Text(text) => &text[..whole_characters(text, most)],
            Message::Escaped(text) | Message::Sound(text) => &text[..whole_characters(text, whole_escapes(text, most))],
            Message::Plain(text) => return Some((Message::Plain(&text[..most]), sent.len() - most)),
            Message::Json(_) | Message::Compact(_) | Message::Made(..) => return None,
        };
        let message = if matches!(self, Message::Text(_)) { Message::Text(kept) } else { Message::Escaped(kept) };
        Some((message, sent.len() - kept.len()))
    }

    /// The same, looked at once for all: whether it is UTF-8, or needs escapes, need not be asked again.
    #[must_use]
    pub fn looked_at(self) -> Message<'a> {
        match self {
            Message::Text(text) if plain_prefix::<true>(text).0 == text.len() => Message::Plain(text),
            Message::Escaped(text) if std::str::from_utf8(text).is_ok() => Message::Sound(text),
            other => other,
        }
    }
}

/// The greatest length up to `most` that cuts no character of UTF-8.
fn whole_characters(text: &[u8], most: usize) -> usize {
    let is_inside = |at: usize| text.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    let start = (most.saturating_sub(3)..=most).rev().find(|at| !is_inside(*at));
    start.unwrap_or(most) // it is no UTF-8
}

/// The greatest length up to `most` that cuts no escape; of a surrogate pair that is cut, the half that is left stands for U+FFFD.
fn whole_escapes(text: &[u8], most: usize) -> usize {
    let mut end = 0;
    while let Some(next) = memchr::memchr(b'\\', &text[end..most]) {
        let start = end + next;
        let len = if text.get(start + 1) == Some(&b'u') { 6 } else { 2 };
        if start + len > most {
            return start;
        }
        end = start + len;
    }
    most
}

/// One record out of a document.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// What the sender said besides the message. It is kept only in JSON.
    pub attrs: &'a [Attr<'a>],
    /// The message.
    pub message: Message<'a>,
    /// Bytes of it that were cut off.
    pub cut: usize,
    /// When it was received, in nanoseconds since 1970.
    pub wall_ns: u64,
}

impl Entry<'_> {
    /// True if text or JSON of it is not UTF-8: in JSON some of it is replaced.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        let is_bad = |bytes: &[u8]| std::str::from_utf8(bytes).is_err();
        let attr = |attr: &Attr<'_>| match attr.value {
            Value::Text(bytes) | Value::Json(bytes) => is_bad(bytes),
            _ => false,
        };
        // Of bytes that are no text, or looked at.
        let is_made =
            matches!(self.message, Message::Made(..) | Message::Compact(_) | Message::Sound(_) | Message::Plain(_));
        (!is_made && is_bad(self.message.sent())) || self.attrs.iter().any(attr)
    }
}

impl Form {
    /// Writes a record out of a document at the start of `to` and returns its length; `None`: it does not fit. Newlines in a message that
    /// is written as text become `\n`, so that a record is one line.
    #[must_use]
    pub fn render_entry(&self, entry: &Entry<'_>, to: &mut [u8]) -> Option<usize> {
        let mut marker = [0; MARKER_ROOM];
        let mut rest = &mut marker[..];
        if entry.cut > 0 {
            let _ = write!(rest, " [truncated {} bytes]", entry.cut); // it holds the words and any number
        }
        let len = MARKER_ROOM - rest.len();
        let marker = &marker[..len];
        let mut out = Out::new(to);
        match self {
            Form::Raw(_) => {
                match entry.message {
                    Message::Text(text) => one_line(text, &mut |b| out.put(b)),
                    Message::Escaped(text) | Message::Sound(text) => {
                        unescape(text, |piece| one_line(piece, &mut |b| out.put(b)));
                    }
                    Message::Json(json) => compact(json, &mut |b| out.put(b)),
                    Message::Plain(bytes) | Message::Compact(bytes) => out.put(bytes),
                    Message::Made(make, bytes) => make(bytes, &mut |b| out.put(b)),
                }
                out.put(marker);
            }
            Form::Json(envelope) => {
                envelope.begin(entry.wall_ns, entry.attrs, &mut out);
                match entry.message {
                    Message::Text(text) => {
                        out.put(b"\"");
                        push_escaped(text, |b| out.put(b));
                        out.put(marker);
                        out.put(b"\"");
                    }
                    Message::Escaped(text) => {
                        out.put(b"\"");
                        as_it_stands(text, &mut |b| out.put(b));
                        out.put(marker);
                        out.put(b"\"");
                    }
                    Message::Sound(text) | Message::Plain(text) => {
                        out.fixed(b"\"");
                        out.put(text);
                        out.put(marker);
                        out.fixed(b"\"");
                    }
                    Message::Json(json) => compact(json, &mut |b| out.put(b)),
                    Message::Compact(json) => out.put(json),
                    Message::Made(make, bytes) => make(bytes, &mut |b| out.put(b)),
                }
                out.fixed(b"}");
            }
        }
        out.fixed(b"\n");
        out.len()
    }
}

fn one_line(text: &[u8], put: &mut dyn FnMut(&[u8])) {
    let mut from = 0;
    for at in memchr_iter(b'\n', text) {
        put(&text[from..at]);
        put(b"\\n");
        from = at + 1;
    }
    put(&text[from..]);
}

#[cfg(test)]
mod tests {
    use super::super::{Escape, Format};
    use super::*;
    use proptest::prelude::*;

    fn written(format: Format, entry: &Entry<'_>) -> Vec<u8> {
        let form = Form::new(format, Escape::Nothing, "l", "p");
        let mut space = vec![0; 10_000];
        let len = form.render_entry(entry, &mut space).unwrap();
        assert_eq!(form.render_entry(entry, &mut vec![0; len - 1]), None, "not a byte less");
        assert_eq!(form.render_entry(entry, &mut vec![0; len]), Some(len));
        space.truncate(len);
        assert_eq!(space.iter().position(|b| *b == b'\n'), Some(len - 1), "one line");
        space
    }

    fn entry(message: Message<'_>) -> Entry<'_> {
        Entry { attrs: &[], message, cut: 0, wall_ns: 0 }
    }

    proptest! {
        #[test]
        fn a_message_is_one_line_and_says_the_same_however_it_was_encoded(text in any::<String>(), most in 0usize..40) {
            let json = serde_json::to_string(&text).unwrap();
            let plain = Message::Text(text.as_bytes());
            let escaped = Message::of_json(json.as_bytes());
            let raw = text.replace('\n', "\\n") + "\n";
            for message in [plain, escaped] {
                prop_assert_eq!(written(Format::Raw, &entry(message)), raw.as_bytes());
                let line: serde_json::Value = serde_json::from_slice(&written(Format::Json, &entry(message))).unwrap();
                prop_assert_eq!(line["msg"].as_str(), Some(&*text));
                let (kept, cut) = message.cut(most).unwrap();
                prop_assert_eq!(kept.sent().len() + cut, message.sent().len());
                prop_assert!(kept.sent().len() <= most && (cut == 0 || kept.sent().len() + 12 > most));
                let line = written(Format::Json, &Entry { cut, ..entry(kept) });
                let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
                let expected = if cut > 0 { format!(" [truncated {cut} bytes]") } else { String::new() };
                let kept = line["msg"].as_str().unwrap().strip_suffix(&expected).unwrap().trim_end_matches('\u{fffd}').to_string();
                prop_assert!(text.starts_with(&kept));
            }
        }
    }

    #[test]
    fn values_and_attributes() {
        let attrs = [Attr { name: b"index", value: Value::Text(b"a\"b") }];
        let message = Message::of_json(b"{ \"n\": 1.0,\n \"id\": 9007199254740993 }");
        let entry = Entry { attrs: &attrs, ..entry(message) };
        assert_eq!(written(Format::Raw, &entry), b"{\"n\":1.0,\"id\":9007199254740993}\n");
        let line = String::from_utf8(written(Format::Json, &entry)).unwrap();
        let expected = "\"attrs\":{\"index\":\"a\\\"b\"},\"msg\":{\"n\":1.0,\"id\":9007199254740993}}\n";
        assert!(line.ends_with(expected), "{line}");
        assert!(message.cut(5).is_none());
    }
}
