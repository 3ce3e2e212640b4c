//! `format = "json"`: writes one JSON object per record, with its time, its sender, and what the sender said besides the
//! message.

use super::Record;
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
    /// What the protocol makes of bytes: JSON without line ends.
    Made(Maker, &'a [u8]),
}

/// An attribute: what a sender said besides the message.
#[derive(Debug, Clone, Copy)]
pub struct Attr<'a> {
    /// Its name.
    pub name: &'a [u8],
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
    pub fn add(&mut self, name: &'a [u8], value: Value<'a>) {
        self.all[self.len] = Attr { name, value };
        self.len += 1;
    }

    /// Adds what `value` makes of these bytes, if there are any.
    pub fn add_some(&mut self, name: &'a [u8], bytes: &'a [u8], value: impl FnOnce(&'a [u8]) -> Value<'a>) {
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
    /// `","listener":"…` up to the peer, ready to copy,
    listener: Vec<u8>,
    /// and from there up to the attributes.
    peer: Vec<u8>,
    /// The last time that was written, and its text.
    time: Cell<(u64, [u8; TIME])>,
}

impl Envelope {
    /// For one listener and peer.
    #[must_use]
    pub fn new(listener: &str, peer: &str) -> Self {
        let mut before = b"\",\"listener\":\"".to_vec();
        push_escaped(listener.as_bytes(), |b| before.extend_from_slice(b));
        let mut envelope = Envelope { listener: before, peer: Vec::new(), time: Cell::new((u64::MAX, [0; TIME])) };
        envelope.set_peer(peer);
        envelope
    }

    /// Changes the peer of the records to come.
    pub fn set_peer(&mut self, peer: impl fmt::Display) {
        self.peer.clear();
        self.peer.extend_from_slice(b"\",\"peer\":\"");
        let _ = write!(Escaping(&mut self.peer), "{peer}"); // writing to a Vec cannot fail
        self.peer.extend_from_slice(b"\",\"attrs\":{");
    }

    /// Bytes around a message at most.
    #[must_use]
    pub fn around(&self) -> usize {
        self.listener.len() + self.peer.len() + TIME + 24
    }

    /// Writes one record at the start of `to` and returns its length; `None`: it does not fit.
    pub fn write(&self, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        let mut out = Out::new(to);
        self.begin(record.wall_ns, record.attrs, &mut out);
        out.put(b"\"");
        push_escaped(record.message, |b| out.put(b));
        out.put(record.marker);
        out.put(b"\"}\n");
        out.len()
    }

    /// Writes all that stands in front of a message.
    pub(super) fn begin(&self, wall_ns: u64, attrs: &[Attr<'_>], out: &mut Out<'_>) {
        out.put(b"{\"t\":\"");
        out.put(&self.time(wall_ns));
        out.put(&self.listener);
        out.put(&self.peer);
        for (i, Attr { name, value }) in attrs.iter().enumerate() {
            out.put(if i == 0 { b"\"" } else { b",\"" });
            push_escaped(name, |b| out.put(b));
            out.put(b"\":");
            out.value(*value);
        }
        out.put(b"},\"msg\":");
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

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => {
                self.put(b"\"");
                push_escaped(text, |b| self.put(b));
                self.put(b"\"");
            }
            // What does not fit is known by the length.
            Value::Integer(number) => {
                let _ = write!(self, "{number}");
            }
            Value::Float(number) if number.is_finite() => {
                let _ = write!(self, "{number}");
            }
            Value::Float(number) => {
                let _ = write!(self, "\"{number}\"");
            }
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

/// How many bytes at the start of `bytes` stand in a JSON string as they are, and are ASCII if `ASCII` is set: nearly all of nearly all
/// logs.
#[inline]
pub fn plain_prefix<const ASCII: bool>(bytes: &[u8]) -> usize {
    // Most strings are names and numbers.
    let short = bytes.len().min(SHORT);
    let plain = plain_prefix_by_words::<ASCII>(&bytes[..short]);
    if plain < short || plain == bytes.len() { plain } else { plain + plain_prefix_by_blocks::<ASCII>(&bytes[plain..]) }
}

/// A multiple of the bytes in a word.
const SHORT: usize = 24;
/// Bytes that are looked at together,
const BLOCK: usize = 32;
/// and in one register.
const LANES: usize = 16;

fn is_special<const ASCII: bool>(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (ASCII & (byte >= 0x80))
}

fn plain_prefix_by_blocks<const ASCII: bool>(bytes: &[u8]) -> usize {
    let mut at = 0;
    for block in bytes.as_chunks::<BLOCK>().0 {
        // Without a branch, and each lane for itself, so that the compiler takes as many bytes at once as every x86-64 and ARM can.
        let mut special = [0u8; LANES];
        for lanes in block.as_chunks::<LANES>().0 {
            for (special, byte) in special.iter_mut().zip(lanes) {
                // As `is_special`, without a comparison: those make the compiler leave its vectors.
                let equals = |b: u8| 1u8.saturating_sub(byte ^ b);
                let is_high = if ASCII { byte & 0x80 } else { 0 };
                *special |= 0x20u8.saturating_sub(*byte) | equals(b'"') | equals(b'\\') | is_high;
            }
        }
        if u128::from_ne_bytes(special) != 0 {
            break;
        }
        at += BLOCK;
    }
    at + plain_prefix_by_words::<ASCII>(&bytes[at..])
}

#[inline]
fn plain_prefix_by_words<const ASCII: bool>(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte of the result has its highest bit set where the byte is below `n`; exact for bytes below 128, which others are
    // not taken for: their own highest bit is asked for too (Bit Twiddling Hacks, "Determine if a word has a byte less than n").
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    let equal = |word: u64, b: u8| below(word ^ (ONES * u64::from(b)), 1);
    let mut at = 0;
    for eight in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*eight);
        let special = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\') | if ASCII { word & HIGH } else { 0 };
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|b| !is_special::<ASCII>(**b)).count()
}

/// RFC 8259 section 7; bytes that are not UTF-8 become U+FFFD.
pub fn push_escaped(bytes: &[u8], mut put: impl FnMut(&[u8])) {
    let plain = plain_prefix::<true>(bytes);
    put(&bytes[..plain]);
    if plain == bytes.len() {
        return;
    }
    for part in bytes[plain..].utf8_chunks() {
        let valid = part.valid().as_bytes();
        let (mut plain, mut i) = (0, 0);
        while i < valid.len() {
            i += plain_prefix::<true>(&valid[i..]);
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

    #[test]
    fn what_must_be_escaped_is_found_wherever_it_stands() {
        // Words, blocks and words again.
        const LEN: usize = SHORT + 2 * BLOCK + 20;
        for b in 0..=255u8 {
            for at in 0..LEN {
                let mut bytes = [b'a'; LEN];
                bytes[at] = b;
                let stands = b >= 0x20 && b != b'"' && b != b'\\';
                let found = |bytes: &[u8]| [plain_prefix::<true>(bytes), plain_prefix::<false>(bytes)];
                let expected = |end: usize| [stands && b < 0x80, stands].map(|is| if is { end } else { at.min(end) });
                assert_eq!(found(&bytes), expected(LEN), "{b} at {at}");
                bytes[LEN - 1] = b'"';
                assert_eq!(found(&bytes), expected(LEN - 1), "{b} at {at}, and a quote");
            }
        }
    }

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
            name in proptest::collection::vec(any::<u8>(), 0..20),
            text in proptest::collection::vec(any::<u8>(), 0..50),
            whole in any::<i64>(), number in any::<f64>(),
        ) {
            let json = b"{\n  \"a\": [1,\r\n 2]\n}";
            let attr = |name, value| Attr { name, value };
            let attrs = [
                attr(&name, Value::Text(&text)),
                attr(b"\"whole\"", Value::Integer(whole)),
                attr(b"number", Value::Float(number)),
                attr(b"json", Value::Json(json)),
            ];
            let value = written(&Envelope::new("l", "p"), &Record { message: b"m", attrs: &attrs, ..Record::default() });
            let found = &value["attrs"];
            if !["\"whole\"", "number", "json"].contains(&&*String::from_utf8_lossy(&name)) {
                prop_assert_eq!(found[&*String::from_utf8_lossy(&name)].as_str().unwrap(), String::from_utf8_lossy(&text));
            }
            prop_assert_eq!(found["\"whole\""].as_i64(), Some(whole));
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
