//! A cursor over JSON text (RFC 8259). It checks all that it passes, except whether strings are UTF-8: whoever writes them on
//! replaces what is not.

use crate::host::sys::plain_prefix;
use crate::session::write::json::push_escaped;
use crate::session::write::{Message, Value};
use std::borrow::Cow;

/// Deepest nesting of a value.
pub const DEEPEST: u32 = 127;

/// The text is no JSON, or is nested too deeply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

/// A value that a [`Cursor`] has passed.
#[derive(Debug, Clone, Copy)]
pub struct Json<'a> {
    /// As it stands there.
    pub text: &'a [u8],
    /// It is ASCII without white space between its tokens.
    pub is_compact: bool,
}

impl<'a> Json<'a> {
    /// As the value of an attribute.
    #[must_use]
    pub fn value(self) -> Value<'a> {
        if self.is_compact { Value::Compact(self.text) } else { Value::Made(compact, self.text) }
    }

    /// Writes it as [`compact`] does.
    pub fn write(self, put: &mut dyn FnMut(&[u8])) {
        if self.is_compact { put(self.text) } else { compact(self.text, put) }
    }
}

/// A place in a text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// White space was passed since this was cleared,
    has_space: bool,
    /// an escape, or a byte in a string that is not ASCII.
    is_odd: bool,
}

impl<'a> Cursor<'a> {
    /// At this place of a text.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at, has_space: false, is_odd: false }
    }

    /// The place.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is no white space.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
            self.has_space = true;
        }
        self.bytes.get(self.at).copied()
    }

    /// Passes this byte, and white space before it. False: something else comes, and nothing of it was passed.
    pub fn eat(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    /// As [`Cursor::eat`], where nothing else may come.
    ///
    /// # Errors
    /// Something else comes.
    pub fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.eat(byte) { Ok(()) } else { Err(NotJson) }
    }

    /// True where the text has ended: what is no JSON might become it with more behind it.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// True where only white space is left.
    pub fn is_over(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Inside of an object or list behind its first byte: true where another member comes. `is_first`: none was read yet. `end` is the
    /// closing bracket, which is passed where none comes.
    ///
    /// # Errors
    /// Neither a member nor the end comes.
    pub fn another(&mut self, is_first: bool, end: u8) -> Result<bool, NotJson> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !is_first => {
                self.at += 1;
                // A comma is followed by a member.
                if self.peek() == Some(end) { Err(NotJson) } else { Ok(true) }
            }
            Some(_) if is_first => Ok(true),
            _ => Err(NotJson),
        }
    }

    /// Reads a key and passes its colon: what stands between the quotes, escapes as they are.
    ///
    /// # Errors
    /// None comes.
    pub fn key(&mut self) -> Result<&'a [u8], NotJson> {
        let key = self.text()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// As [`Cursor::key`]: which of these it is. They are given as clients without white space write them, with quotes and colon. The one
    /// that is guessed costs a comparison.
    ///
    /// # Errors
    /// None comes.
    #[inline]
    pub fn key_among(&mut self, keys: &[&[u8]], guess: usize) -> Result<Option<usize>, NotJson> {
        if let Some(key) = keys.get(guess)
            && self.bytes[self.at..].starts_with(key)
        {
            self.at += key.len();
            return Ok(Some(guess));
        }
        let key = self.key()?;
        Ok(keys.iter().position(|quoted| stands_for(key, &quoted[1..quoted.len() - 2])))
    }

    /// Reads a string: what stands between the quotes, escapes as they are.
    ///
    /// # Errors
    /// None comes.
    pub fn text(&mut self) -> Result<&'a [u8], NotJson> {
        self.expect(b'"')?;
        let start = self.at;
        self.rest_of_text()?;
        Ok(&self.bytes[start..self.at - 1])
    }

    /// Reads a value: its text as it stands there.
    ///
    /// # Errors
    /// None comes, or it is nested deeper than [`DEEPEST`].
    pub fn value(&mut self) -> Result<&'a [u8], NotJson> {
        let is_text = self.peek() == Some(b'"');
        let start = self.at;
        if is_text {
            self.at += 1;
            self.rest_of_text()?;
            return Ok(&self.bytes[start..self.at]);
        }
        // The kinds of the open brackets, innermost last; 1 for `{`.
        let (mut open, mut depth) = (0u128, 0);
        loop {
            match self.peek().ok_or(NotJson)? {
                b'"' => {
                    self.at += 1;
                    self.rest_of_text()?;
                }
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    let is_object = bracket == b'{';
                    if !self.eat(if is_object { b'}' } else { b']' }) {
                        if depth == DEEPEST {
                            return Err(NotJson);
                        }
                        (open, depth) = (open << 1 | u128::from(is_object), depth + 1);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            // A value has ended.
            loop {
                if depth == 0 {
                    return Ok(&self.bytes[start..self.at]);
                }
                let is_object = open & 1 == 1;
                match self.peek().ok_or(NotJson)? {
                    b',' => {
                        self.at += 1;
                        if is_object {
                            self.key()?;
                        }
                        break;
                    }
                    byte if byte == if is_object { b'}' } else { b']' } => {
                        self.at += 1;
                        (open, depth) = (open >> 1, depth - 1);
                    }
                    _ => return Err(NotJson),
                }
            }
        }
    }

    /// The text that `pass` passes, behind white space.
    ///
    /// # Errors
    /// What comes is not what it expects.
    pub fn passed(&mut self, pass: impl FnOnce(&mut Self) -> Result<(), NotJson>) -> Result<&'a [u8], NotJson> {
        self.peek();
        let start = self.at;
        pass(self)?;
        Ok(&self.bytes[start..self.at])
    }

    /// As [`Cursor::value`], as a message: one that needs no more work is told from others.
    ///
    /// # Errors
    /// As there.
    pub fn message(&mut self) -> Result<Message<'a>, NotJson> {
        self.peek();
        (self.has_space, self.is_odd) = (false, false);
        let value = self.value()?;
        Ok(match value {
            [b'"', inside @ .., b'"'] if self.is_odd => Message::Escaped(inside),
            [b'"', inside @ .., b'"'] => Message::Plain(inside),
            value if !self.has_space && (!self.is_odd || std::str::from_utf8(value).is_ok()) => Message::Compact(value),
            value => Message::Json(value),
        })
    }

    /// As [`Cursor::value`]: a value that needs no more work is told from others.
    ///
    /// # Errors
    /// As there.
    pub fn json(&mut self) -> Result<Json<'a>, NotJson> {
        self.peek();
        (self.has_space, self.is_odd) = (false, false);
        let text = self.value()?;
        Ok(Json { text, is_compact: !self.has_space && !self.is_odd })
    }

    /// As [`Cursor::json`], where only a string may come.
    ///
    /// # Errors
    /// None comes.
    pub fn string(&mut self) -> Result<Json<'a>, NotJson> {
        if self.peek() == Some(b'"') { self.json() } else { Err(NotJson) }
    }

    /// As [`Cursor::text`], as a message.
    ///
    /// # Errors
    /// As there.
    pub fn text_message(&mut self) -> Result<Message<'a>, NotJson> {
        self.is_odd = false;
        let text = self.text()?;
        Ok(if self.is_odd { Message::Escaped(text) } else { Message::Plain(text) })
    }

    fn word(&mut self, word: &[u8]) -> Result<(), NotJson> {
        let there = &self.bytes[self.at..self.bytes.len().min(self.at + word.len())];
        if !word.starts_with(there) {
            return Err(NotJson);
        }
        self.at += there.len();
        if there == word { Ok(()) } else { Err(NotJson) }
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let n = self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += n;
        if n > 0 { Ok(()) } else { Err(NotJson) }
    }

    fn next_is(&mut self, set: &[u8]) -> bool {
        let is_it = self.bytes.get(self.at).is_some_and(|b| set.contains(b));
        self.at += usize::from(is_it);
        is_it
    }

    /// RFC 8259 section 6.
    fn number(&mut self) -> Result<(), NotJson> {
        self.next_is(b"-");
        if !self.next_is(b"0") {
            self.digits()?;
        }
        if self.next_is(b".") {
            self.digits()?;
        }
        if self.next_is(b"eE") {
            self.next_is(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    /// What kind of escape begins here.
    fn escape(&mut self) -> Option<u8> {
        self.is_odd = true;
        self.bytes.get(self.at + 1).copied()
    }

    /// Passes the rest of a string and its quote (RFC 8259 section 7).
    fn rest_of_text(&mut self) -> Result<(), NotJson> {
        loop {
            let (plain, is_ascii) = plain_prefix::<false>(&self.bytes[self.at..]);
            self.at += plain;
            self.is_odd |= !is_ascii;
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => match self.escape() {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
                    Some(b'u') => {
                        let digits = &self.bytes[self.at + 2..self.bytes.len().min(self.at + 6)];
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return Err(NotJson);
                        }
                        self.at += 2 + digits.len();
                        if digits.len() < 4 {
                            return Err(NotJson);
                        }
                    }
                    None => {
                        self.at += 1;
                        return Err(NotJson);
                    }
                    _ => return Err(NotJson),
                },
                _ => return Err(NotJson), // a control character, or the end
            }
        }
    }
}

/// Writes a value that a [`Cursor`] has passed without white space between its tokens. Nothing else changes: the order of keys, the text
/// of numbers and escapes stay; bytes that are not UTF-8 become U+FFFD.
pub fn compact(json: &[u8], put: &mut dyn FnMut(&[u8])) {
    let is_utf8 = std::str::from_utf8(json).is_ok();
    let mut put = |bytes: &[u8]| if is_utf8 { put(bytes) } else { replaced(bytes, put) };
    let (mut from, mut at) = (0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                put(&json[from..at]);
                at += 1;
                from = at;
            }
            b'"' => at = end_of_text(json, at + 1),
            _ => at += 1,
        }
    }
    put(&json[from..]);
}

/// The place behind the quote that ends a string.
fn end_of_text(json: &[u8], mut at: usize) -> usize {
    loop {
        at += plain_prefix::<false>(&json[at.min(json.len())..]).0;
        match json.get(at) {
            Some(b'\\') => at += 2,
            _ => return (at + 1).min(json.len()),
        }
    }
}

/// Writes bytes with U+FFFD for what is not UTF-8.
fn replaced(bytes: &[u8], put: &mut dyn FnMut(&[u8])) {
    for part in bytes.utf8_chunks() {
        put(part.valid().as_bytes());
        if !part.invalid().is_empty() {
            put("\u{fffd}".as_bytes());
        }
    }
}

/// Writes the inside of a string that a [`Cursor`] has passed as it stands there; bytes that are not UTF-8 become U+FFFD.
pub fn as_it_stands(text: &[u8], put: &mut dyn FnMut(&[u8])) {
    match std::str::from_utf8(text) {
        Ok(_) => put(text),
        Err(_) => replaced(text, put),
    }
}

/// As [`as_it_stands`], with quotes around it.
pub fn as_string(text: &[u8], put: &mut dyn FnMut(&[u8])) {
    put(b"\"");
    as_it_stands(text, put);
    put(b"\"");
}

/// Writes what the inside of a string stands for. Half of a surrogate pair becomes U+FFFD.
pub fn unescape(text: &[u8], mut put: impl FnMut(&[u8])) {
    let mut rest = text;
    while let Some(plain) = memchr::memchr(b'\\', rest) {
        put(&rest[..plain]);
        rest = &rest[plain + 1..];
        let Some((kind, behind)) = rest.split_first() else { return };
        rest = behind;
        let one: &[u8] = match kind {
            b'n' => b"\n",
            b't' => b"\t",
            b'r' => b"\r",
            b'b' => b"\x08",
            b'f' => b"\x0c",
            b'u' => {
                let (unit, behind) = unit(rest);
                rest = behind;
                let mut made = char::from_u32(unit);
                if (0xd800..0xdc00).contains(&unit)
                    && let [b'\\', b'u', low @ ..] = rest
                    && let (low @ 0xdc00..0xe000, behind) = self::unit(low)
                {
                    made = char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
                    rest = behind;
                }
                put(made.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => std::slice::from_ref(kind),
        };
        put(one);
    }
    put(rest);
}

/// So much of a text is looked at for rules, which name less.
const LOOKED_AT: usize = 4096;

/// What the inside of a string stands for, or its beginning if it is longer than any rule.
#[must_use]
pub fn plain_text(text: &[u8]) -> Cow<'_, [u8]> {
    let text = &text[..text.len().min(LOOKED_AT)];
    if memchr::memchr(b'\\', text).is_none() {
        return text.into();
    }
    let mut plain = Vec::new();
    unescape(text, |bytes| plain.extend_from_slice(bytes));
    plain.into()
}

/// The number of four hexadecimal digits, and what follows.
fn unit(bytes: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = bytes.split_at(bytes.len().min(4));
    let value = |b: &u8| (*b as char).to_digit(16).unwrap_or(0);
    (digits.iter().fold(0, |n, b| n << 4 | value(b)), rest)
}

/// True where the inside of a string stands for this text.
#[must_use]
pub fn stands_for(text: &[u8], plain: &[u8]) -> bool {
    // Every escape is longer than what it stands for.
    if text.len() <= plain.len() || memchr::memchr(b'\\', text).is_none() {
        return text == plain;
    }
    let (mut rest, mut fits) = (plain, true);
    unescape(text, |piece| match rest.strip_prefix(piece) {
        Some(behind) if fits => rest = behind,
        _ => fits = false,
    });
    fits && rest.is_empty()
}

/// Writes text as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD.
pub fn quoted(text: &[u8], put: &mut dyn FnMut(&[u8])) {
    put(b"\"");
    push_escaped(text, &mut *put);
    put(b"\"");
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
