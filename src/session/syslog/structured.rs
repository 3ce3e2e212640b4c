//! Structured data as a JSON object: `{"ID":{"name":"value"}}`. A name that comes several times in an element (RFC 5424 section 6.3.3
//! allows that) has a list.

use super::message::{Elements, Token};
use crate::session::write::json::push_escaped;

/// Names and elements at most: finding those that come several times takes the square of it. What has more is written as text.
const MOST: usize = 128;

/// Writes the value of `attrs.sd`.
pub fn make(sd: &[u8], put: &mut dyn FnMut(&[u8])) {
    if is_unusual(sd) {
        put(b"\"");
        push_escaped(sd, &mut *put);
        return put(b"\"");
    }
    let mut all = Elements::of(sd);
    let mut separator: &[u8] = b"{";
    let mut begins = all;
    while let Some(Some(token)) = all.next() {
        match token {
            Token::Element(name) => {
                put(separator);
                string(name, false, put);
                put(b":{");
                (separator, begins) = (b"},", all);
                // The first parameter has no comma in front of it.
                let mut ahead = all;
                if !matches!(ahead.next(), Some(Some(Token::Param(..)))) {
                    continue;
                }
            }
            Token::Param(name, value) => parameter(name, value, begins, all, put),
        }
    }
    put(if separator == b"{" { b"{}" } else { b"}}" });
}

/// Writes a parameter of an element that begins there, if it is the first of its name: with all of that name.
fn parameter(name: &[u8], value: &[u8], begins: Elements<'_>, mut behind: Elements<'_>, put: &mut dyn FnMut(&[u8])) {
    let mut before = begins;
    let mut is_first = true;
    while let Some(Some(Token::Param(earlier, found))) = before.next() {
        if std::ptr::eq(found, value) && std::ptr::eq(earlier, name) {
            break;
        }
        is_first = false;
        if earlier == name {
            return;
        }
    }
    put(if is_first { b"" } else { b"," });
    string(name, false, put);
    put(b":");
    let mut count = 1;
    let mut rest = behind;
    while let Some(Some(Token::Param(later, _))) = rest.next() {
        count += usize::from(later == name);
    }
    if count == 1 {
        return string(value, true, put);
    }
    put(b"[");
    string(value, true, put);
    while let Some(Some(Token::Param(later, value))) = behind.next() {
        if later == name {
            put(b",");
            string(value, true, put);
        }
    }
    put(b"]");
}

/// A JSON string; of a value the escapes of structured data are undone: `\"`, `\\` and `\]`. Any other backslash is one (RFC 5424 section
/// 6.3.3).
fn string(bytes: &[u8], is_value: bool, put: &mut dyn FnMut(&[u8])) {
    put(b"\"");
    let mut from = 0;
    if is_value {
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at..] {
                [b'\\', b'"' | b'\\' | b']', ..] => {
                    push_escaped(&bytes[from..at], &mut *put);
                    from = at + 1;
                    at += 2;
                }
                _ => at += 1,
            }
        }
    }
    push_escaped(&bytes[from..], &mut *put);
    put(b"\"");
}

/// True for what has too many parts, or an element twice.
fn is_unusual(sd: &[u8]) -> bool {
    let (mut all, mut parts) = (Elements::of(sd), 0);
    while let Some(Some(token)) = all.next() {
        parts += 1;
        if parts > MOST {
            return true;
        }
        let Token::Element(name) = token else { continue };
        let mut later = all;
        while let Some(Some(token)) = later.next() {
            if token == Token::Element(name) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(sd: &[u8]) -> serde_json::Value {
        let mut out = Vec::new();
        make(sd, &mut |b| out.extend_from_slice(b));
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)))
    }

    #[test]
    fn elements_parameters_escapes_and_repeated_names() {
        let sd = br#"[x@1 a="1" b="q\"b\\s\]e\n" a="2"][y][z c=""]"#;
        let expected = serde_json::json!({"x@1": {"a": ["1", "2"], "b": "q\"b\\s]e\\n"}, "y": {}, "z": {"c": ""}});
        assert_eq!(made(sd), expected);
        assert_eq!(
            made(b"[origin ip=\"192.0.2.1\" ip=\"192.0.2.129\"]"),
            serde_json::json!({"origin": {"ip": ["192.0.2.1", "192.0.2.129"]}})
        );
        assert_eq!(made(b"[a][a b=\"1\"]"), "[a][a b=\"1\"]", "an element twice stays text");
        let many = format!("[x{}]", " a=\"1\"".repeat(1000));
        assert_eq!(made(many.as_bytes()), many.as_str());
    }

    proptest! {
        #[test]
        fn any_structured_data_makes_valid_json(sd in "(\\[[a-c]( [a-c]=\"([a-z\\n\u{e9}]|\\\\[\"\\\\\\]n])*\")*\\]){1,4}") {
            let _ = made(sd.as_bytes());
        }

        #[test]
        fn and_so_does_anything_else(sd in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = made(&sd);
        }
    }
}
