//! Values and attributes as the JSON of this protocol has them, written as plain JSON:
//!
//! ```text
//! [{"key": "a", "value": {"intValue": "1"}}, …]   becomes   {"a":1,…}
//! ```
//!
//! 64-bit numbers are strings or numbers there, and become numbers. Each byte is passed once, however deep it lies, so the same functions
//! check (into [`Nothing`]) and write.

use super::DEEPEST;
use crate::session::walk::json::{Cursor, Json, NotJson, stands_for};

/// Where values are written.
pub trait To {
    /// Writes bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Writes JSON.
    fn json(&mut self, json: Json<'_>) {
        json.write(&mut |bytes| self.put(bytes));
    }
}

impl<F: FnMut(&[u8])> To for F {
    fn put(&mut self, bytes: &[u8]) {
        self(bytes);
    }
}

/// For values that are only checked.
pub struct Nothing;

impl To for Nothing {
    fn put(&mut self, _: &[u8]) {}
    fn json(&mut self, _: Json<'_>) {}
}

/// What a value can hold (`common.proto`, `AnyValue`).
const KINDS: [&[u8]; 7] = [
    b"\"stringValue\":",
    b"\"intValue\":",
    b"\"boolValue\":",
    b"\"doubleValue\":",
    b"\"bytesValue\":",
    b"\"arrayValue\":",
    b"\"kvlistValue\":",
];
const TEXT: usize = 0;
const INTEGER: usize = 1;
const TRUTH: usize = 2;
const FLOAT: usize = 3;
const BYTES: usize = 4;
const LIST: usize = 5;
const OBJECT: usize = 6;

/// Passes a value and writes it.
///
/// # Errors
/// It is none, holds two things, or is nested too deeply.
pub fn value(cursor: &mut Cursor<'_>, depth: u32, put: &mut impl To) -> Result<(), NotJson> {
    if is_null(cursor)? {
        put.put(b"null");
        return Ok(());
    }
    let (mut is_first, mut is_set) = (true, false);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        // Most are texts.
        let Some(kind) = cursor.key_among(&KINDS, TEXT)? else {
            cursor.value()?;
            continue;
        };
        if is_null(cursor)? {
            continue;
        }
        if is_set || (depth == DEEPEST && matches!(kind, LIST | OBJECT)) {
            return Err(NotJson);
        }
        is_set = true;
        match (kind, cursor.peek()) {
            // Bytes are base64 here too.
            (TEXT | BYTES, _) => put.json(cursor.string()?),
            (INTEGER, _) => put.put(integer(cursor.value()?)?),
            (TRUTH, Some(b't' | b'f')) | (FLOAT, Some(b'"' | b'-' | b'0'..=b'9')) => {
                put.json(cursor.json()?);
            }
            (LIST, _) => {
                values(cursor, b"[]", put, |cursor, put| {
                    list(cursor, b"[]", put, |cursor, put| value(cursor, depth + 1, put))
                })?;
            }
            (OBJECT, _) => values(cursor, b"{}", put, |cursor, put| object(cursor, depth + 1, put))?,
            _ => return Err(NotJson),
        }
    }
    if !is_set {
        put.put(b"null");
    }
    Ok(())
}

/// Passes a list of attributes and writes it as an object.
///
/// # Errors
/// It is none.
pub fn object(cursor: &mut Cursor<'_>, depth: u32, put: &mut impl To) -> Result<(), NotJson> {
    list(cursor, b"{}", put, |cursor, put| attribute(cursor, depth, put))
}

/// `{"key": "a", "value": {…}}`
fn attribute(cursor: &mut Cursor<'_>, depth: u32, put: &mut impl To) -> Result<(), NotJson> {
    let (mut name, mut early, mut is_written, mut is_first) = (None, None, false, true);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        // In this order, as nearly all write them.
        let key = cursor.key_among(&[b"\"key\":", b"\"value\":"], usize::from(!is_first))?;
        is_first = false;
        match (key, name) {
            (Some(0), None) => name = Some(cursor.string()?),
            (Some(1), Some(name)) if !is_written && early.is_none() => {
                named(name, cursor, depth, put)?;
                is_written = true;
            }
            (Some(1), None) if early.is_none() => {
                // It stands in front of its name.
                cursor.peek();
                early = Some(cursor.clone());
                cursor.value()?;
            }
            _ => drop(cursor.value()?),
        }
    }
    let name = name.unwrap_or(Json { text: b"\"\"", is_compact: true });
    match early {
        _ if is_written => Ok(()),
        Some(mut value) => named(name, &mut value, depth, put),
        None => {
            put.json(name);
            put.put(b":null");
            Ok(())
        }
    }
}

fn named(name: Json<'_>, cursor: &mut Cursor<'_>, depth: u32, put: &mut impl To) -> Result<(), NotJson> {
    put.json(name);
    put.put(b":");
    value(cursor, depth, put)
}

/// Passes `null`. False: something else comes.
fn is_null(cursor: &mut Cursor<'_>) -> Result<bool, NotJson> {
    let is_it = cursor.peek() == Some(b'n');
    if is_it {
        cursor.value()?;
    }
    Ok(is_it)
}

/// The digits of an integer, which may stand in quotes.
fn integer(json: &[u8]) -> Result<&[u8], NotJson> {
    let digits = inside(json);
    let mut number = Cursor::new(digits, 0);
    let is_number = number.value().is_ok() && number.is_over() && digits.iter().all(|b| b"-0123456789".contains(b));
    if is_number { Ok(digits) } else { Err(NotJson) }
}

/// The text between the quotes of a string; anything else as it is.
pub fn inside(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

/// Passes `{"values": […]}`, whose list `f` passes and writes. Where there is none, these brackets are written.
fn values<'a, T: To>(
    cursor: &mut Cursor<'a>,
    brackets: &[u8; 2],
    put: &mut T,
    f: impl Fn(&mut Cursor<'a>, &mut T) -> Result<(), NotJson>,
) -> Result<(), NotJson> {
    let (mut is_first, mut is_written) = (true, false);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        if !stands_for(cursor.key()?, b"values") {
            cursor.value()?;
        } else if !is_null(cursor)? {
            if is_written {
                return Err(NotJson);
            }
            is_written = true;
            f(cursor, put)?;
        }
    }
    if !is_written {
        put.put(brackets);
    }
    Ok(())
}

/// Passes a list, of which `f` passes and writes each element, between these brackets.
fn list<'a, T: To>(
    cursor: &mut Cursor<'a>,
    brackets: &[u8; 2],
    put: &mut T,
    f: impl Fn(&mut Cursor<'a>, &mut T) -> Result<(), NotJson>,
) -> Result<(), NotJson> {
    cursor.expect(b'[')?;
    put.put(&brackets[..1]);
    let mut is_first = true;
    while cursor.another(is_first, b']')? {
        if !is_first {
            put.put(b",");
        }
        is_first = false;
        f(cursor, put)?;
    }
    put.put(&brackets[1..]);
    Ok(())
}
