//! `format = "json"`: writes one JSON object per record, with its time, its sender, and what the sender said besides the
//! message.

use super::Record;
use crate::host::sys::plain_prefix;
use std::cell::Cell;
use std::fmt::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes that one input byte becomes at most (`\u00XX`; an invalid byte becomes U+FFFD, three bytes).
pub const GROWTH: usize = 6;

/// Bytes around message and attributes at most: the names of the fields, the time, a listener's name (64 at most) and a peer.
pub const MOST_AROUND: usize = 512;

/// Writes a JSON value for some bytes, piece by piece.
pub type Maker = fn(&[u8], &mut dyn FnMut(&[u8]));

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Text; bytes that are not UTF-8 become U+FFFD.
    Text(&'a [u8]),
    /// A whole number.
    Integer(i64),
    /// Another number; what JSON has no number for (RFC 8259 section 6) is written as text.
    Float(f64),
    /// JSON as the sender wrote it, which the protocol has found to be valid. Line ends between its tokens become spaces.
    Json(&'a [u8]),
    /// JSON in UTF-8 and without line ends.
    Compact(&'a [u8]),
    /// What the protocol makes of bytes: such JSON.
    Made(Maker, &'a [u8]),
}

/// An attribute: what a sender said besides the message.
#[derive(Debug, Clone, Copy)]
pub struct Attr<'a> {
    /// Its name, which the protocol gives it: nothing in it has to be escaped.
    pub name: &'static [u8],
    /// Its value.
    pub value: Value<'a>,
}

/// Attributes of one record, gathered where they need no memory of their own.
#[derive(Debug)]
pub struct Attrs<'a, const MOST: usize> {
    all: [Attr<'a>; MOST],
    len: usize,
}

impl<const MOST: usize> Default for Attrs<'_, MOST> {
    fn default() -> Self {
        Attrs { all: [Attr { name: b"", value: Value::Text(b"") }; MOST], len: 0 }
    }
}

impl<'a, const MOST: usize> Attrs<'a, MOST> {
    /// Adds one.
    ///
    /// # Panics
    /// If there are `MOST` already: a bug of the caller.
    pub fn add(&mut self, name: &'static [u8], value: Value<'a>) {
        self.all[self.len] = Attr { name, value };
        self.len += 1;
    }

    /// Adds one if it is there.
    ///
    /// # Panics
    /// As [`Attrs::add`].
    pub fn add_if(&mut self, name: &'static [u8], value: Option<Value<'a>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds what `value` makes of these bytes, if there are any.
    pub fn add_some(&mut self, name: &'static [u8], bytes: &'a [u8], value: impl FnOnce(&'a [u8]) -> Value<'a>) {
        if !bytes.is_empty() {
            self.add(name, value(bytes));
        }
    }
}

impl<'a, const MOST: usize> std::ops::Deref for Attrs<'a, MOST> {
    type Target = [Attr<'a>];

    fn deref(&self) -> &[Attr<'a>] {
        &self.all[..self.len]
    }
}

/// What is the same for all records of one connection.
#[derive(Debug)]
pub struct Envelope {
    /// `","listener":"…","peer":"…","attrs":{`, ready to copy.
    around: Vec<u8>,
    /// How much of it is the listener.
    listener: usize,
    /// The last time that was written, and its text.
    time: Cell<(u64, [u8; TIME])>,
}

impl Envelope {
    /// For one listener and peer.
    #[must_use]
    pub fn new(listener: &str, peer: &str) -> Self {
        let mut around = b"\",\"listener\":\"".to_vec();
        push_escaped(listener.as_bytes(), |b| around.extend_from_slice(b));
        let listener = around.len();
        let mut envelope = Envelope { around, listener, time: Cell::new((u64::MAX, [0; TIME])) };
        envelope.set_peer(peer);
        envelope
    }

    /// Changes the peer of the records to come.
    pub fn set_peer(&mut self, peer: impl fmt::Display) {
        self.around.truncate(self.listener);
        self.around.extend_from_slice(b"\",\"peer\":\"");
        let _ = write!(Escaping(&mut self.around), "{peer}"); // writing to a Vec cannot fail
        self.around.extend_from_slice(b"\",\"attrs\":{");
    }

    /// Bytes around a message at most.
    #[must_use]
    pub fn around(&self) -> usize {
        self.around.len() + TIME + 24
    }

    /// Writes one record at the start of `to` and returns its length; `None`: it does not fit.
    pub fn write(&self, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        let mut out = Out::new(to);
        self.begin(record.wall_ns, record.attrs, &mut out);
        out.fixed(b"\"");
        push_escaped(record.message, |b| out.put(b));
        out.put(record.marker);
        out.fixed(b"\"}\n");
        out.len()
    }

    /// Writes all that stands in front of a message.
    pub(super) fn begin(&self, wall_ns: u64, attrs: &[Attr<'_>], out: &mut Out<'_>) {
        out.fixed(b"{\"t\":\"");
        out.fixed(&self.time(wall_ns));
        out.put(&self.around);
        for (i, Attr { name, value }) in attrs.iter().enumerate() {
            if i > 0 {
                out.fixed(b",");
            }
            out.fixed(b"\"");
            out.put(name);
            out.fixed(b"\":");
            out.value(*value);
        }
        out.fixed(b"},\"msg\":");
    }

    fn time(&self, wall_ns: u64) -> [u8; TIME] {
        let ms = wall_ns / 1_000_000;
        let (of, mut text) = self.time.get();
        if of != ms {
            let made = time(wall_ns);
            let made = made.as_bytes();
            let n = made.len().min(TIME);
            text[..n].copy_from_slice(&made[..n]);
            self.time.set((ms, text));
        }
        text
    }
}

/// Text that is escaped as it is written.
struct Escaping<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_escaped(text.as_bytes(), |b| self.0.extend_from_slice(b));
        Ok(())
    }
}

/// Bytes of a time as it is written.
const TIME: usize = 24;

/// RFC 3339 in UTC with milliseconds, such as `2026-11-21T08:15:00.123Z`.
#[must_use]
pub fn time(wall_ns: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(wall_ns)).to_string()
}

/// A record that is being written, as far as there is room.
pub(super) struct Out<'a> {
    to: &'a mut [u8],
    at: usize,
    fits: bool,
}

impl<'a> Out<'a> {
    pub(super) fn new(to: &'a mut [u8]) -> Out<'a> {
        Out { to, at: 0, fits: true }
    }

    /// Its length, if it fits.
    pub(super) fn len(&self) -> Option<usize> {
        self.fits.then_some(self.at)
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        match self.to.get_mut(self.at..self.at + bytes.len()) {
            Some(to) if self.fits => {
                to.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            _ => self.fits = false,
        }
    }

    /// As [`Out::put`], of so many bytes that the compiler knows: then they cost a store or two, not a call.
    #[inline(always)]
    pub(super) fn fixed<const N: usize>(&mut self, bytes: &[u8; N]) {
        match self.to.get_mut(self.at..self.at + N) {
            Some(to) if self.fits => {
                to.copy_from_slice(bytes);
                self.at += N;
            }
            _ => self.fits = false,
        }
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => {
                self.fixed(b"\"");
                push_escaped(text, |b| self.put(b));
                self.fixed(b"\"");
            }
            Value::Integer(number) => self.put(itoa::Buffer::new().format(number).as_bytes()),
            // What does not fit is known by the length.
            Value::Float(number) if number.is_finite() => {
                let _ = write!(self, "{number}");
            }
            Value::Float(number) => {
                let _ = write!(self, "\"{number}\"");
            }
            Value::Compact(json) => self.put(json),
            Value::Made(make, bytes) => make(bytes, &mut |b| self.put(b)),
            Value::Json(json) => {
                let is_end = |b: &u8| *b == b'\n' || *b == b'\r';
                for (i, piece) in json.split(is_end).enumerate() {
                    if i > 0 {
                        self.put(b" ");
                    }
                    self.put(piece);
                }
            }
        }
    }
}

impl fmt::Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// Writes a whole number as a string: 64 bits and more are more than readers of JSON keep of a number (RFC 8259 section 6).
pub fn quoted_number(number: impl itoa::Integer, put: &mut dyn FnMut(&[u8])) {
    // 40 bytes hold the longest.
    let mut quoted = [b'"'; 42];
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    quoted[1..=digits.len()].copy_from_slice(digits);
    put(&quoted[..digits.len() + 2]);
}

/// RFC 8259 section 7; bytes that are not UTF-8 become U+FFFD.
pub fn push_escaped(bytes: &[u8], mut put: impl FnMut(&[u8])) {
    let (plain, _) = plain_prefix::<true>(bytes);
    put(&bytes[..plain]);
    if plain == bytes.len() {
        return;
    }
    for part in bytes[plain..].utf8_chunks() {
        let valid = part.valid().as_bytes();
        let (mut plain, mut i) = (0, 0);
        while i < valid.len() {
            i += plain_prefix::<true>(&valid[i..]).0;
            let Some(b) = valid.get(i) else { break };
            i += 1;
            let short: &[u8] = match b {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 => b"",
                _ => continue,
            };
            put(&valid[plain..i - 1]);
            plain = i;
            if short.is_empty() {
                let digit = |d: u8| b"0123456789abcdef"[usize::from(d)];
                put(&[b'\\', b'u', b'0', b'0', digit(b >> 4), digit(b & 15)]);
            } else {
                put(short);
            }
        }
        put(&valid[plain..]);
        if !part.invalid().is_empty() {
            put("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(envelope: &Envelope, record: &Record<'_>) -> serde_json::Value {
        let attrs: usize = record.attrs.len() * 1000;
        let mut out = vec![0; envelope.around() + GROWTH * record.message.len() + attrs];
        let n = envelope.write(record, &mut out).unwrap();
        assert_eq!(out[..n].iter().position(|b| *b == b'\n'), Some(n - 1), "one line");
        assert_eq!(envelope.write(record, &mut vec![0; n - 1]), None, "and not a byte less");
        serde_json::from_slice(&out[..n]).unwrap()
    }

    proptest! {
        #[test]
        fn any_message_becomes_valid_json(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let envelope = Envelope::new("li\"sten", "127.0.0.1:9");
            for ns in [1_700_000_000_123_000_000, 1_700_000_000_123_999_999] {
                let value = written(&envelope, &Record { message: &message, wall_ns: ns, ..Record::default() });
                prop_assert_eq!(value["msg"].as_str().unwrap(), String::from_utf8_lossy(&message));
                prop_assert_eq!(value["listener"].as_str().unwrap(), "li\"sten");
                prop_assert_eq!(value["peer"].as_str().unwrap(), "127.0.0.1:9");
                prop_assert_eq!(value["t"].as_str().unwrap(), "2023-11-14T22:13:20.123Z");
                prop_assert_eq!(value["attrs"].as_object().unwrap().len(), 0);
            }
        }

        #[test]
        fn attributes_keep_name_type_and_value(
            text in proptest::collection::vec(any::<u8>(), 0..50),
            whole in any::<i64>(),
            // The first one, serde_json reads with another last bit.
            number in prop_oneof![1 => Just(4.769361150778884e158), 20 => any::<f64>()],
        ) {
            let json = b"{\n  \"a\": [1,\r\n 2]\n}";
            let attr = |name: &'static [u8], value| Attr { name, value };
            let attrs = [
                attr(b"text", Value::Text(&text)),
                attr(b"whole", Value::Integer(whole)),
                attr(b"number", Value::Float(number)),
                attr(b"json", Value::Json(json)),
            ];
            let value = written(&Envelope::new("l", "p"), &Record { message: b"m", attrs: &attrs, ..Record::default() });
            let found = &value["attrs"];
            prop_assert_eq!(found["text"].as_str().unwrap(), String::from_utf8_lossy(&text));
            prop_assert_eq!(found["whole"].as_i64(), Some(whole));
            if number.is_finite() {
                // Other parsers are exact. This one may be off by the last bit, which is much of a number that is nearly nothing.
                let read = found["number"].as_f64().unwrap();
                let last_bit = (number.abs() * 1e-15).max(f64::MIN_POSITIVE * f64::EPSILON);
                prop_assert!((read - number).abs() <= last_bit, "{} {}", read, number);
            } else {
                prop_assert_eq!(found["number"].as_str().unwrap(), number.to_string());
            }
            prop_assert_eq!(&found["json"], &serde_json::json!({"a": [1, 2]}));
        }
    }

    #[test]
    fn another_peer_takes_the_place_of_the_first() {
        let mut envelope = Envelope::new("l", "a much longer peer than the second one");
        envelope.set_peer("b");
        assert_eq!(written(&envelope, &Record::default())["peer"], "b");
    }
}
