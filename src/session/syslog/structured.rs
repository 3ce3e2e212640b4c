//! Structured data as a JSON object: `{"ID":{"name":"value"}}`. A name that comes several times in an element (RFC 5424 section 6.3.3
//! allows that) has a list.

use super::message::{Elements, Token};
use crate::session::write::json::push_escaped;

/// Names and elements at most: finding those that come several times takes the square of it. What has more is written as text.
const MOST: usize = 128;

/// Writes the value of `attrs.sd`.
pub fn make(sd: &[u8], put: &mut dyn FnMut(&[u8])) {
    // Read once: a value may be as long as a message.
    let mut tokens = [Token::Element(b""); MOST];
    let (mut all, mut n) = (Elements::of(sd), 0);
    while let Some(Some(token)) = all.next() {
        if n < MOST {
            tokens[n] = token;
        }
        n += 1;
        if n > MOST {
            break;
        }
    }
    if n > MOST || is_twice(&tokens[..n]) {
        put(b"\"");
        push_escaped(sd, &mut *put);
        return put(b"\"");
    }
    let is_element = |token: &Token<'_>| matches!(token, Token::Element(_));
    put(b"{");
    for (i, element) in tokens[..n].chunk_by(|_, next| !is_element(next)).enumerate() {
        let [Token::Element(name), parameters @ ..] = element else { continue };
        put(if i == 0 { b"" } else { b"," });
        string(name, false, put);
        put(b":{");
        (0..parameters.len()).for_each(|at| parameter(parameters, at, put));
        put(b"}");
    }
    put(b"}");
}

/// Writes a parameter of an element, if it is the first of its name: with all of that name.
fn parameter(all: &[Token<'_>], at: usize, put: &mut dyn FnMut(&[u8])) {
    let name = name_of(&all[at]);
    if all[..at].iter().any(|earlier| name_of(earlier) == name) {
        return;
    }
    put(if at == 0 { b"" } else { b"," });
    string(name, false, put);
    put(b":");
    let is_list = all[at + 1..].iter().any(|later| name_of(later) == name);
    put(if is_list { b"[" } else { b"" });
    for (i, token) in all[at..].iter().filter(|token| name_of(token) == name).enumerate() {
        put(if i == 0 { b"" } else { b"," });
        if let Token::Param(_, value) = token {
            string(value, true, put);
        }
    }
    put(if is_list { b"]" } else { b"" });
}

fn name_of<'a>(token: &Token<'a>) -> &'a [u8] {
    match token {
        Token::Element(name) | Token::Param(name, _) => name,
    }
}

/// True for what has an element twice.
fn is_twice(tokens: &[Token<'_>]) -> bool {
    let elements = || tokens.iter().enumerate().filter(|(_, token)| matches!(token, Token::Element(_)));
    elements().any(|(i, one)| elements().any(|(j, other)| i < j && one == other))
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
