//! Values and attributes as the JSON of this protocol has them, written as plain JSON:
//!
//! ```text
//! [{"key": "a", "value": {"intValue": "1"}}, …]   becomes   {"a": 1, …}
//! ```
//!
//! 64-bit numbers are strings or numbers there, and become numbers. All were passed by a cursor before, so writing cannot fail.

use super::DEEPEST;
use crate::session::walk::json::{Cursor, NotJson, compact, stands_for};

/// What a value holds, as it was sent.
pub enum Any<'a> {
    /// The inside of a string.
    Text(&'a [u8]),
    /// An integer, without quotes if it had any.
    Integer(&'a [u8]),
    /// Something that JSON has too, or `"NaN"` and its like.
    Plain(&'a [u8]),
    /// A list of values.
    List(&'a [u8]),
    /// A list of attributes.
    Object(&'a [u8]),
    /// Nothing.
    Null,
}

/// Reads a value.
///
/// # Errors
/// It is none.
pub fn any(value: &[u8]) -> Result<Any<'_>, NotJson> {
    if value == b"null" {
        return Ok(Any::Null);
    }
    let (mut found, mut is_first) = (Any::Null, true);
    let mut cursor = Cursor::new(value, 0);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        let kind = cursor.peek();
        let value = cursor.value()?;
        let is = |name: &[u8]| stands_for(key, name);
        found = match kind {
            Some(b'"') if is(b"stringValue") => Any::Text(inside(value)),
            Some(b'"' | b'-' | b'0'..=b'9') if is(b"intValue") => {
                let digits = if kind == Some(b'"') { inside(value) } else { value };
                let mut number = Cursor::new(digits, 0);
                let is_number =
                    number.value().is_ok() && number.is_over() && digits.iter().all(|b| b"-0123456789".contains(b));
                if !is_number {
                    return Err(NotJson);
                }
                Any::Integer(digits)
            }
            Some(b't' | b'f') if is(b"boolValue") => Any::Plain(value),
            Some(b'"' | b'-' | b'0'..=b'9') if is(b"doubleValue") => Any::Plain(value),
            Some(b'"') if is(b"bytesValue") => Any::Plain(value),
            Some(b'{') if is(b"arrayValue") => list(value)?.map_or(Any::List(b"[]"), Any::List),
            Some(b'{') if is(b"kvlistValue") => list(value)?.map_or(Any::Object(b"[]"), Any::Object),
            Some(b'n') => found,
            _ if [
                &b"stringValue"[..],
                b"intValue",
                b"boolValue",
                b"doubleValue",
                b"bytesValue",
                b"arrayValue",
                b"kvlistValue",
            ]
            .iter()
            .any(|name| is(name)) =>
            {
                return Err(NotJson);
            }
            _ => found,
        };
    }
    Ok(found)
}

/// The text between the quotes of a string.
pub fn inside(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

/// `{"values": […]}`
fn list(object: &[u8]) -> Result<Option<&[u8]>, NotJson> {
    let (mut found, mut is_first) = (None, true);
    let mut cursor = Cursor::new(object, 0);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        let value = cursor.value()?;
        if stands_for(key, b"values") && value != b"null" {
            if value.first() != Some(&b'[') {
                return Err(NotJson);
            }
            found = Some(value);
        }
    }
    Ok(found)
}

/// Calls `f` with each element of a list.
pub fn each<'a>(list: &'a [u8], mut f: impl FnMut(&'a [u8]) -> Result<(), NotJson>) -> Result<(), NotJson> {
    let mut cursor = Cursor::new(list, 0);
    cursor.expect(b'[')?;
    let mut is_first = true;
    while cursor.another(is_first, b']')? {
        is_first = false;
        f(cursor.value()?)?;
    }
    Ok(())
}

/// Key and value of an attribute: the key's inside.
pub fn pair(attribute: &[u8]) -> Result<(&[u8], &[u8]), NotJson> {
    let (mut found, mut is_first): ((&[u8], &[u8]), bool) = ((b"", b"null"), true);
    let mut cursor = Cursor::new(attribute, 0);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        if stands_for(key, b"key") {
            found.0 = cursor.text()?;
        } else {
            let value = cursor.value()?;
            if stands_for(key, b"value") {
                found.1 = value;
            }
        }
    }
    Ok(found)
}

/// Checks a value, so that writing it cannot fail.
pub fn check(value: &[u8], depth: u32) -> Result<(), NotJson> {
    if depth > DEEPEST {
        return Err(NotJson);
    }
    match any(value)? {
        Any::List(list) => each(list, |value| check(value, depth + 1)),
        Any::Object(list) => check_all(list, depth + 1),
        _ => Ok(()),
    }
}

/// Checks a list of attributes.
pub fn check_all(list: &[u8], depth: u32) -> Result<(), NotJson> {
    each(list, |attribute| check(pair(attribute)?.1, depth))
}

/// Writes a list of attributes that was checked as a JSON object.
pub fn object(list: &[u8], put: &mut dyn FnMut(&[u8])) {
    let mut before: &[u8] = b"{";
    let _ = each(list, |attribute| {
        let (key, value) = pair(attribute)?;
        put(before);
        before = b",";
        put(b"\"");
        compact_inside(key, put);
        put(b"\":");
        self::value(value, put);
        Ok(())
    });
    put(if before == b"{" { b"{}" } else { b"}" });
}

/// Writes a value that was checked.
pub fn value(json: &[u8], put: &mut dyn FnMut(&[u8])) {
    match any(json) {
        Ok(Any::Text(text)) => {
            put(b"\"");
            compact_inside(text, put);
            put(b"\"");
        }
        Ok(Any::Integer(number)) => put(number),
        Ok(Any::Plain(value)) => compact(value, put),
        Ok(Any::List(list)) => {
            let mut before: &[u8] = b"[";
            let _ = each(list, |element| {
                put(before);
                before = b",";
                value(element, put);
                Ok(())
            });
            put(if before == b"[" { b"[]" } else { b"]" });
        }
        Ok(Any::Object(list)) => object(list, put),
        Ok(Any::Null) | Err(NotJson) => put(b"null"),
    }
}

fn compact_inside(text: &[u8], put: &mut dyn FnMut(&[u8])) {
    crate::session::walk::json::as_it_stands(text, put);
}
