//! `records = "json"`: the body is a JSON array whose elements are records, or JSON values with white space between them.
//!
//! Each record becomes one line: white space outside of strings goes, and whatever separates two records becomes a newline. Nothing is
//! parsed into memory, and nothing that is no JSON (RFC 8259) passes. Whether strings are UTF-8 is not checked, as for any line.

use super::problem::{self, Problem};

/// Deepest nesting inside a record.
const DEEPEST: u32 = 127;
/// UTF-8's byte order mark, which some clients put in front.
const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// What may come next, white space aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A value. `true`: or the end of the list that has just begun.
    Value(bool),
    /// A key. `true`: or the end of the object that has just begun.
    Key(bool),
    /// A colon.
    Colon,
    /// A comma, or the end of what is open.
    Comma,
}

/// What is being read that has more than one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Nothing.
    None,
    /// A string; `true`: it is a key.
    String(bool),
    /// What follows a backslash in one.
    Escape(bool),
    /// So many hexadecimal digits of an escape.
    Hex(bool, u8),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// A number.
    Number(Number),
}

/// The place in a number (RFC 8259 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    fn next(self, byte: u8) -> Option<Number> {
        use Number::{E, Exponent, Fraction, Minus, Point, Sign, Whole, Zero};
        Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Whole, b'0'..=b'9') => Whole,
            (Zero | Whole, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Whole | Fraction, b'e' | b'E') => E,
            (E, b'+' | b'-') => Sign,
            (E | Sign | Exponent, b'0'..=b'9') => Exponent,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Number::Zero | Number::Whole | Number::Fraction | Number::Exponent)
    }
}

/// The place in a body.
#[derive(Debug, Clone)]
pub struct JsonRecords {
    /// Kinds of the open brackets, innermost last; 1 for `{`.
    open: u128,
    depth: u32,
    next: Next,
    token: Token,
    /// The body is an array, and is not over.
    in_array: bool,
    /// The array is over: only white space may follow.
    is_over: bool,
    /// Something other than white space has come.
    has_begun: bool,
    /// Bytes of the byte order mark that have come.
    mark: usize,
}

impl Default for JsonRecords {
    fn default() -> Self {
        JsonRecords {
            open: 0,
            depth: 0,
            next: Next::Value(false),
            token: Token::None,
            in_array: false,
            is_over: false,
            has_begun: false,
            mark: 0,
        }
    }
}

impl JsonRecords {
    /// Turns the next bytes of the body into lines, in their place; returns how many bytes are left of them.
    ///
    /// # Errors
    /// They are no JSON.
    pub fn filter(&mut self, bytes: &mut [u8]) -> Result<usize, &'static Problem> {
        let mut to = 0;
        for at in 0..bytes.len() {
            if let Some(byte) = self.byte(bytes[at]).ok_or(&problem::BAD_JSON)? {
                bytes[to] = byte;
                to += 1;
            }
        }
        Ok(to)
    }

    /// True where the body may end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let may_end = match self.token {
            Token::None => true,
            Token::Number(number) => number.may_end(),
            Token::Word(rest) => rest.is_empty(),
            Token::String(_) | Token::Escape(_) | Token::Hex(..) => false,
        };
        may_end && self.depth == 0 && !self.in_array
    }

    /// What becomes of one byte: itself, another, or nothing. `None`: this is no JSON.
    fn byte(&mut self, byte: u8) -> Option<Option<u8>> {
        match self.token {
            Token::String(is_key) => {
                match byte {
                    0..0x20 => return None,
                    b'\\' => self.token = Token::Escape(is_key),
                    b'"' => {
                        self.token = Token::None;
                        self.next = if is_key { Next::Colon } else { Next::Comma };
                    }
                    _ => {}
                }
                return Some(Some(byte));
            }
            Token::Escape(is_key) => {
                self.token = match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Token::String(is_key),
                    b'u' => Token::Hex(is_key, 4),
                    _ => return None,
                };
                return Some(Some(byte));
            }
            Token::Hex(is_key, left) => {
                self.token = match (byte.is_ascii_hexdigit(), left) {
                    (false, _) => return None,
                    (true, 1) => Token::String(is_key),
                    (true, left) => Token::Hex(is_key, left - 1),
                };
                return Some(Some(byte));
            }
            Token::Word([first, rest @ ..]) => {
                self.token = Token::Word(rest);
                return (byte == *first).then_some(Some(byte));
            }
            Token::Number(number) => match number.next(byte) {
                Some(next) => {
                    self.token = Token::Number(next);
                    return Some(Some(byte));
                }
                None if number.may_end() => {}
                None => return None,
            },
            Token::Word([]) | Token::None => {}
        }
        // A word or number ends in front of this byte.
        if self.token != Token::None {
            (self.token, self.next) = (Token::None, Next::Comma);
        }
        self.between(byte)
    }

    /// A byte outside of tokens.
    fn between(&mut self, byte: u8) -> Option<Option<u8>> {
        if !self.has_begun && BOM.get(self.mark) == Some(&byte) {
            self.mark += 1;
            return Some(None);
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            // Between values that stand one behind the other.
            let ends = self.depth == 0 && !self.in_array && !self.is_over && self.next == Next::Comma;
            if ends {
                self.next = Next::Value(false);
            }
            return Some(ends.then_some(b'\n'));
        }
        if self.is_over || !matches!(self.mark, 0 | 3) {
            return None;
        }
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        match (self.next, byte) {
            (Next::Value(_), b'[') if is_first => {
                (self.in_array, self.next) = (true, Next::Value(true));
                return Some(None);
            }
            (Next::Value(_), b'{' | b'[') => {
                if self.depth > DEEPEST {
                    return None;
                }
                let is_object = byte == b'{';
                (self.open, self.depth) = (self.open << 1 | u128::from(is_object), self.depth + 1);
                self.next = if is_object { Next::Key(true) } else { Next::Value(true) };
            }
            (Next::Value(_), b'"') => self.token = Token::String(false),
            (Next::Key(_), b'"') => self.token = Token::String(true),
            (Next::Value(_), b't') => self.token = Token::Word(b"rue"),
            (Next::Value(_), b'f') => self.token = Token::Word(b"alse"),
            (Next::Value(_), b'n') => self.token = Token::Word(b"ull"),
            (Next::Value(_), b'-') => self.token = Token::Number(Number::Minus),
            (Next::Value(_), b'0') => self.token = Token::Number(Number::Zero),
            (Next::Value(_), b'1'..=b'9') => self.token = Token::Number(Number::Whole),
            (Next::Colon, b':') => self.next = Next::Value(false),
            (Next::Comma, b',') if self.depth > 0 => {
                self.next = if self.open & 1 == 1 { Next::Key(false) } else { Next::Value(false) };
            }
            (Next::Comma, b',') if self.in_array => {
                self.next = Next::Value(false);
                return Some(Some(b'\n'));
            }
            (Next::Comma | Next::Key(true), b'}') if self.depth > 0 && self.open & 1 == 1 => self.close(),
            (Next::Comma | Next::Value(true), b']') if self.depth > 0 && self.open & 1 == 0 => self.close(),
            (Next::Comma | Next::Value(true), b']') if self.depth == 0 && self.in_array => {
                let has_records = self.next == Next::Comma;
                (self.in_array, self.is_over) = (false, true);
                return Some(has_records.then_some(b'\n'));
            }
            _ => return None,
        }
        Some(Some(byte))
    }

    fn close(&mut self) {
        (self.open, self.depth, self.next) = (self.open >> 1, self.depth - 1, Next::Comma);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn lines(body: &[u8], pieces: &[usize]) -> Option<Vec<u8>> {
        let (mut records, mut out, mut at) = (JsonRecords::default(), Vec::new(), 0);
        for piece in pieces.iter().cycle() {
            if at == body.len() {
                break;
            }
            let end = (at + piece).min(body.len());
            let mut bytes = body[at..end].to_vec();
            let n = records.filter(&mut bytes).ok()?;
            out.extend_from_slice(&bytes[..n]);
            at = end;
        }
        records.is_whole().then_some(out)
    }

    #[test]
    fn records_become_lines() {
        let of = |body: &str| lines(body.as_bytes(), &[usize::MAX]).map(|out| String::from_utf8(out).unwrap());
        for (body, expected) in [
            ("[]", ""),
            (" [ ] ", ""),
            ("[{\"a\": 1}, {\"b\" : [ 1 , 2 ]}]", "{\"a\":1}\n{\"b\":[1,2]}\n"),
            ("[\n  {\n    \"a\": \"x, ] } \\\" y\"\n  }\n]\n", "{\"a\":\"x, ] } \\\" y\"}\n"),
            ("[1, \"a\", null, [2]]", "1\n\"a\"\nnull\n[2]\n"),
            ("{\"a\": 1}", "{\"a\":1}"),
            ("{\"a\": 1}\n{\"a\": 2}\n\n", "{\"a\":1}\n{\"a\":2}\n"),
            ("", ""),
            ("\u{feff}[1]", "1\n"),
            (
                "[-0.5e+10, 0, 1E2, true, false, null, \"\\u00e4\\n\"]",
                "-0.5e+10\n0\n1E2\ntrue\nfalse\nnull\n\"\\u00e4\\n\"\n",
            ),
            ("[{\"a\": {}, \"b\": [[], {}]}]", "{\"a\":{},\"b\":[[],{}]}\n"),
        ] {
            assert_eq!(of(body).as_deref(), Some(expected), "{body:?}");
        }
        for bad in [
            "[1 2]",
            "[1,]",
            "[,1]",
            "[1",
            "{\"a\": 1",
            "[{]}",
            "]",
            "}",
            "[1]]",
            "[1] 2",
            "[\"a\nb\"]",
            "{}{}",
            "a b: c",
            "[\"a\" \"b\"]",
            "[\"a]",
            "[1}",
            "{\"a\" 1}",
            ",",
            "1,2",
            "hello world",
            "abc",
            "tru e",
            "[nul]",
            "[tru]",
            "[1..2]",
            "[01]",
            "[1.]",
            "[-]",
            "[1e]",
            "[+1]",
            "[{a:1}]",
            "[{\"a\":1,}]",
            "[{\"a\":}]",
            "[{\"a\"}]",
            "[\"\\x\"]",
            "[\"\\u12g4\"]",
            "[[1,]]",
            "\u{feff}\u{feff}[1]",
            "[truefalse]",
            "[\"a\": 1]",
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(of(&"[".repeat(1000)), None);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\u{e4}\n\t\"\\\\]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z\"]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_element_is_a_line_however_it_is_written_and_cut(
            values in proptest::collection::vec(value(), 0..6), pretty in any::<bool>(),
            pieces in proptest::collection::vec(1usize..40, 1..5),
        ) {
            let whole = Value::from(values.clone());
            let body = if pretty { serde_json::to_string_pretty(&whole) } else { serde_json::to_string(&whole) }.unwrap();
            let out = lines(body.as_bytes(), &pieces).unwrap();
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.lines().count(), values.len());
            for (line, value) in text.lines().zip(&values) {
                prop_assert_eq!(&serde_json::from_str::<Value>(line).unwrap(), value);
            }
        }

        #[test]
        fn nothing_panics_and_lines_are_never_more_than_bytes(
            body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'['), Just(b'"'), Just(b','), Just(b'{'), Just(b' ')], 0..100),
        ) {
            let mut records = JsonRecords::default();
            let mut bytes = body.clone();
            if let Ok(n) = records.filter(&mut bytes) {
                prop_assert!(n <= body.len());
            }
        }
    }
}
