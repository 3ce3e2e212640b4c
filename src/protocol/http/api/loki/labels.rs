//! The labels of a stream as protobuf clients send them: `{job="x", host="y"}`, values quoted as in Go.

use crate::session::write::json::push_escaped;

/// Writes labels as a JSON object. Text that is not of this form is written as a JSON string, so that nothing of it is lost.
pub fn make(text: &[u8], put: &mut dyn FnMut(&[u8])) {
    // Twice: a text that turns out to be of another form must not be half written.
    if each(text, &mut |_, _| {}).is_some() {
        let mut is_first = true;
        put(b"{");
        let _ = each(text, &mut |name, value| {
            put(if is_first { b"\"" } else { b",\"" });
            is_first = false;
            push_escaped(name, &mut *put);
            put(b"\":\"");
            unquoted(value, &mut |bytes| push_escaped(bytes, &mut *put));
            put(b"\"");
        });
        put(b"}");
    } else {
        put(b"\"");
        push_escaped(text, &mut *put);
        put(b"\"");
    }
}

/// Calls `f` with each label: its name, and its value between the quotes.
fn each(text: &[u8], f: &mut dyn FnMut(&[u8], &[u8])) -> Option<()> {
    let mut rest = text.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    while !rest.is_empty() {
        let equals = rest.iter().position(|b| *b == b'=')?;
        let name = rest[..equals].trim_ascii();
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'.');
        if name.is_empty() || !name.iter().all(is_name) {
            return None;
        }
        let value = rest[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
        let end = closing_quote(value)?;
        f(name, &value[..end]);
        rest = value[end + 1..].trim_ascii_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(b",")?.trim_ascii_start();
        }
    }
    Some(())
}

fn closing_quote(value: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match value.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Writes what a quoted text of Go stands for (The Go Programming Language Specification, "Rune literals"). An escape that Go does not
/// know stays as it is.
fn unquoted(text: &[u8], put: &mut dyn FnMut(&[u8])) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        put(&rest[..at]);
        let escape = &rest[at..];
        let Some(kind) = escape.get(1) else { return put(escape) };
        let number = |digits: usize, radix: u32, from: usize| {
            let digits = escape.get(from..from + digits)?;
            let text = std::str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u32::from_str_radix(text, radix).ok()
        };
        let simple = |byte: u8| Some((vec_of(byte), 2));
        let found = match kind {
            b'a' => simple(7),
            b'b' => simple(8),
            b'f' => simple(12),
            b'n' => simple(b'\n'),
            b'r' => simple(b'\r'),
            b't' => simple(b'\t'),
            b'v' => simple(11),
            b'\\' | b'"' | b'\'' => simple(*kind),
            b'x' => number(2, 16, 2).map(|n| (vec_of(n as u8), 4)),
            b'0'..=b'7' => number(3, 8, 1).filter(|n| *n < 256).map(|n| (vec_of(n as u8), 4)),
            b'u' => number(4, 16, 2).and_then(char::from_u32).map(|c| (of_char(c), 6)),
            b'U' => number(8, 16, 2).and_then(char::from_u32).map(|c| (of_char(c), 10)),
            _ => None,
        };
        match found {
            Some(((bytes, len), taken)) => {
                put(&bytes[..len]);
                rest = &escape[taken..];
            }
            None => {
                put(b"\\");
                rest = &escape[1..];
            }
        }
    }
    put(rest);
}

/// A byte, and its length.
fn vec_of(byte: u8) -> ([u8; 4], usize) {
    ([byte, 0, 0, 0], 1)
}

fn of_char(c: char) -> ([u8; 4], usize) {
    let mut bytes = [0; 4];
    let len = c.encode_utf8(&mut bytes).len();
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(text: &[u8]) -> String {
        let mut out = Vec::new();
        make(text, &mut |bytes| out.extend_from_slice(bytes));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn labels_become_an_object() {
        for (text, expected) in [
            ("{}", "{}"),
            (r#"{job="x"}"#, r#"{"job":"x"}"#),
            (r#" { job = "x" , a_1="y", } "#, r#"{"job":"x","a_1":"y"}"#),
            (r#"{a="q\"\\\n\t\x41\101\u00e9\U0001F600"}"#, r#"{"a":"q\"\\\n\tAAé😀"}"#),
            (r#"{a="\q"}"#, r#"{"a":"\\q"}"#),
            (r#"{a="}, b="}"#, r#"{"a":"}, b="}"#),
            ("job=x", r#""job=x""#),
            (r#"{a="x" b="y"}"#, r#""{a=\"x\" b=\"y\"}""#),
            (r#"{a="x"#, r#""{a=\"x""#),
        ] {
            assert_eq!(made(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_becomes_json(text in proptest::collection::vec(prop_oneof![
            Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\\'), Just(b'='), Just(b','), Just(b'x'), Just(b'7'), Just(b'u'), any::<u8>(),
        ], 0..40)) {
            for text in [text.clone(), [b"{a=\"", &text[..], b"\"}"].concat()] {
                serde_json::from_str::<serde_json::Value>(&made(&text)).unwrap();
            }
        }

        #[test]
        fn what_go_quotes_comes_back(value in any::<String>()) {
            // Of Go's forms this uses those that Rust's Debug has too, and \u with its digits.
            let quoted: String = value.chars().map(|c| match c {
                '"' => "\\\"".to_string(),
                '\\' => "\\\\".to_string(),
                c if (c as u32) < 0x20 => format!("\\x{:02x}", c as u32),
                c if (c as u32) > 0xffff => format!("\\U{:08x}", c as u32),
                c if (c as u32) > 0x7f => format!("\\u{:04x}", c as u32),
                c => c.to_string(),
            }).collect();
            let object: serde_json::Value = serde_json::from_str(&made(format!("{{a=\"{quoted}\"}}").as_bytes())).unwrap();
            prop_assert_eq!(object["a"].as_str(), Some(&*value));
        }
    }
}
