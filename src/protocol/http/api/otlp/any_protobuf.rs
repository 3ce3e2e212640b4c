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

/// A value. It may be there several times: then its parts are read as if they were one message.
#[derive(Debug, Clone, Copy)]
pub enum Parts<'a> {
    /// Once.
    One(&'a [u8]),
    /// In each field of this number of a message.
    Each(&'a [u8], u32),
}

/// No value.
impl Default for Parts<'_> {
    fn default() -> Self {
        Parts::One(b"")
    }
}

/// What a value is: of several the last counts.
struct Kind<'a> {
    number: u32,
    field: Field<'a>,
    /// So many fields came before it and those of its number that stand directly in front of it. Those are lists that are merged.
    skipped: usize,
    /// There is one such field.
    is_alone: bool,
}

impl<'a> Parts<'a> {
    /// With one more part, which was found in this field of a message.
    #[must_use]
    pub fn and(found: Option<Parts<'a>>, part: &'a [u8], message: &'a [u8], number: u32) -> Option<Parts<'a>> {
        Some(if found.is_none() { Parts::One(part) } else { Parts::Each(message, number) })
    }

    /// Calls `f` with each field that is a value.
    fn fields(self, mut f: impl FnMut(u32, Field<'a>)) {
        let mut fields_of = |part| {
            let mut fields = Fields::new(part, 0);
            while let Ok(Some((number, field))) = fields.next_field() {
                if number <= 7 {
                    f(number, field);
                }
            }
        };
        match self {
            Parts::One(part) => fields_of(part),
            Parts::Each(message, number) => drop(each(message, &[number], &mut |part| {
                fields_of(part);
                Ok(())
            })),
        }
    }

    fn kind(self) -> Option<Kind<'a>> {
        let (mut kind, mut count): (Option<Kind<'_>>, _) = (None, 0);
        self.fields(|number, field| {
            let before = kind.as_ref().filter(|before| before.number == number);
            let (skipped, is_alone) = before.map_or((count, true), |before| (before.skipped, false));
            kind = Some(Kind { number, field, skipped, is_alone });
            count += 1;
        });
        kind
    }

    /// Calls `f` with each element of a list, or of a list of pairs.
    fn elements(self, kind: &Kind<'a>, f: &mut dyn FnMut(&'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
        if kind.is_alone {
            return each(kind.field.bytes()?, &[1], f);
        }
        let (mut result, mut count) = (Ok(()), 0);
        self.fields(|_, field| {
            if count >= kind.skipped && result.is_ok() {
                result = field.bytes().and_then(|list| each(list, &[1], f));
            }
            count += 1;
        });
        result
    }
}

/// Key and value of a `KeyValue`.
pub fn pair(bytes: &[u8]) -> Result<(&[u8], Parts<'_>), Malformed> {
    let (mut key, mut value): (&[u8], _) = (b"", None);
    let mut fields = Fields::new(bytes, 0);
    while let Some((number, field)) = fields.next_field()? {
        match number {
            1 => key = field.bytes()?,
            2 => value = Parts::and(value, field.bytes()?, bytes, number),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_default()))
}

/// The text of a value that is one.
pub fn text(value: Parts<'_>) -> Option<&[u8]> {
    let mut found = None;
    value.fields(|number, field| found = if number == 1 { field.bytes().ok() } else { None });
    found
}

/// Writes the attributes of a message that was checked, which are its fields at this path, as a JSON object.
pub fn object(message: &[u8], path: &[u32], put: &mut dyn FnMut(&[u8])) {
    object_of(&mut |f| each(message, path, f), put);
}

/// Calls a function with each of some pairs.
type EachPair<'p, 'a> = dyn FnMut(&mut dyn FnMut(&'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> + 'p;

fn object_of(pairs: &mut EachPair<'_, '_>, put: &mut dyn FnMut(&[u8])) {
    let mut before: &[u8] = b"{";
    let _ = pairs(&mut |bytes| {
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
pub fn value(parts: Parts<'_>, put: &mut dyn FnMut(&[u8])) {
    let Some(kind) = parts.kind() else { return put(b"null") };
    let mut out = Text(put);
    // A text that only passes things on cannot fail.
    let _ = match (kind.number, kind.field) {
        (1, Field::Bytes(text)) => {
            quoted(text, put);
            Ok(())
        }
        (2, Field::Varint(truth)) => out.write_str(if truth != 0 { "true" } else { "false" }),
        (3, Field::Varint(number)) => write!(out, "{}", number as i64),
        (4, Field::Fixed64(bits)) => match f64::from_bits(bits) {
            number if number.is_finite() => write!(out, "{number:?}"),
            number if number.is_nan() => out.write_str("\"NaN\""),
            number => out.write_str(if number > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }),
        },
        (5, _) => {
            let mut before: &[u8] = b"[";
            let _ = parts.elements(&kind, &mut |bytes| {
                put(before);
                before = b",";
                value(Parts::One(bytes), put);
                Ok(())
            });
            put(if before == b"[" { b"[]" } else { b"]" });
            Ok(())
        }
        (6, _) => {
            object_of(&mut |f| parts.elements(&kind, f), put);
            Ok(())
        }
        (7, Field::Bytes(bytes)) => write!(out, "\"{}\"", Base64Display::new(bytes, &STANDARD)),
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
