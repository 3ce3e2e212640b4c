//! Values and attributes as protobuf has them (`opentelemetry/proto/common/v1/common.proto`), written as plain JSON:
//!
//! ```text
//! KeyValue { string key = 1; AnyValue value = 2; }
//! AnyValue { string 1 | bool 2 | int64 3 | double 4 | { repeated AnyValue 1 } 5 | { repeated KeyValue 1 } 6 | bytes 7 }
//! ```

use super::DEEPEST;
use crate::session::walk::json::quoted;
use crate::session::walk::protobuf::{Field, Fields, Malformed};
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

/// Checks a value, so that writing it cannot fail.
pub fn check(value: &[u8], depth: u32) -> Result<(), Malformed> {
    if depth > DEEPEST {
        return Err(Malformed);
    }
    let mut fields = Fields::new(value, 0);
    while let Some((number, field)) = fields.next_field()? {
        match (number, field) {
            (1 | 7, Field::Bytes(_)) | (2 | 3, Field::Varint(_)) | (4, Field::Fixed64(_)) => {}
            (5, Field::Bytes(list)) => each(list, &[1], &mut |value| check(value, depth + 1))?,
            (6, Field::Bytes(list)) => each(list, &[1], &mut |pair| check_pair(pair, depth + 1))?,
            (1..=7, _) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(())
}

/// Checks a `KeyValue`.
pub fn check_pair(pair: &[u8], depth: u32) -> Result<(), Malformed> {
    let mut fields = Fields::new(pair, 0);
    while let Some((number, field)) = fields.next_field()? {
        match number {
            1 => drop(field.bytes()?),
            2 => check(field.bytes()?, depth)?,
            _ => {}
        }
    }
    Ok(())
}

/// Calls `f` with each field at a path: `[1, 3]` is each field 3 of each field 1. A message that is there several times is read as if it
/// were one, as protobuf has it ("Last One Wins", and that messages are merged).
pub fn each<'a>(
    message: &'a [u8],
    path: &[u32],
    f: &mut dyn FnMut(&'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let Some((number, rest)) = path.split_first() else { return f(message) };
    let mut fields = Fields::new(message, 0);
    while let Some((found, field)) = fields.next_field()? {
        if found == *number {
            each(field.bytes()?, rest, f)?;
        }
    }
    Ok(())
}

/// Key and value of a `KeyValue`.
pub fn pair(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut key, mut value): (&[u8], &[u8]) = (b"", b"");
    let mut fields = Fields::new(bytes, 0);
    while let Some((number, field)) = fields.next_field()? {
        match number {
            1 => key = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The text of a value that is one.
pub fn text(value: &[u8]) -> Option<&[u8]> {
    let mut found = None;
    let mut fields = Fields::new(value, 0);
    while let Ok(Some((number, field))) = fields.next_field() {
        if number <= 7 {
            found = if number == 1 { field.bytes().ok() } else { None };
        }
    }
    found
}

/// Writes the attributes of a message that was checked, which are its fields at this path, as a JSON object.
pub fn object(message: &[u8], path: &[u32], put: &mut dyn FnMut(&[u8])) {
    let mut before: &[u8] = b"{";
    let _ = each(message, path, &mut |bytes| {
        let (key, value) = pair(bytes)?;
        put(before);
        before = b",";
        quoted(key, put);
        put(b":");
        self::value(value, put);
        Ok(())
    });
    put(if before == b"{" { b"{}" } else { b"}" });
}

/// Writes a value that was checked as JSON. Bytes become base64, as in the JSON of protobuf.
pub fn value(bytes: &[u8], put: &mut dyn FnMut(&[u8])) {
    let (mut last, mut fields) = (None, Fields::new(bytes, 0));
    while let Ok(Some((number, field))) = fields.next_field() {
        if number <= 7 {
            last = Some((number, field)); // of several the last counts
        }
    }
    let mut out = Text(put);
    // A text that only passes things on cannot fail.
    let _ = match last {
        Some((1, Field::Bytes(text))) => {
            quoted(text, put);
            Ok(())
        }
        Some((2, Field::Varint(truth))) => out.write_str(if truth != 0 { "true" } else { "false" }),
        Some((3, Field::Varint(number))) => write!(out, "{}", number as i64),
        Some((4, Field::Fixed64(bits))) => match f64::from_bits(bits) {
            number if number.is_finite() => write!(out, "{number:?}"),
            number if number.is_nan() => out.write_str("\"NaN\""),
            number => out.write_str(if number > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }),
        },
        Some((5, Field::Bytes(list))) => {
            let mut before: &[u8] = b"[";
            let _ = each(list, &[1], &mut |bytes| {
                put(before);
                before = b",";
                value(bytes, put);
                Ok(())
            });
            put(if before == b"[" { b"[]" } else { b"]" });
            Ok(())
        }
        Some((6, Field::Bytes(list))) => {
            object(list, &[1], put);
            Ok(())
        }
        Some((7, Field::Bytes(bytes))) => write!(out, "\"{}\"", Base64Display::new(bytes, &STANDARD)),
        _ => out.write_str("null"),
    };
}

/// Text that is passed on.
struct Text<'a>(&'a mut dyn FnMut(&[u8]));

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        (self.0)(text.as_bytes());
        Ok(())
    }
}
