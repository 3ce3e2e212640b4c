//! `records = "json"`: the body is a JSON array whose elements are records, or JSON values with white space between them.
//!
//! Each record becomes one line: white space outside of strings is left out, and whatever separates two records becomes a
//! newline. Nothing is parsed into memory. The parser checks only the structure that lines depend on: brackets, strings,
//! separators.

use super::problem::{self, Problem};

/// Deepest nesting inside a record.
const DEEPEST: u32 = 127;

/// What came last, white space not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing of a value: it may begin here.
    Open,
    /// A character of a number or word, which may go on.
    Scalar,
    /// The end of a value.
    Value,
}

/// The place in a body.
#[derive(Debug, Clone)]
pub struct JsonRecords {
    /// Kinds of the open brackets, innermost last; 1 for `{`.
    open: u128,
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    last: Last,
    /// The body is an array, and is not over.
    in_array: bool,
    /// The array is over: only white space may follow.
    is_over: bool,
    /// Something other than white space has come.
    has_begun: bool,
    /// A comma between records has come: another record must follow.
    wants_record: bool,
}

impl Default for JsonRecords {
    fn default() -> Self {
        JsonRecords {
            open: 0,
            depth: 0,
            in_string: false,
            is_escaped: false,
            last: Last::Open,
            in_array: false,
            is_over: false,
            has_begun: false,
            wants_record: false,
        }
    }
}

impl JsonRecords {
    /// Turns the next bytes of the body into lines, in their place; returns how many bytes are left of them.
    ///
    /// # Errors
    /// They cannot be JSON.
    pub fn filter(&mut self, bytes: &mut [u8]) -> Result<usize, &'static Problem> {
        let mut to = 0;
        for at in 0..bytes.len() {
            if let Some(byte) = self.next(bytes[at])? {
                bytes[to] = byte;
                to += 1;
            }
        }
        Ok(to)
    }

    /// True where the body may end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.in_string && self.depth == 0 && !self.in_array
    }

    fn next(&mut self, byte: u8) -> Result<Option<u8>, &'static Problem> {
        let bad = Err(&problem::BAD_JSON);
        if self.in_string {
            match byte {
                0..0x20 => return bad,
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => (self.in_string, self.last) = (false, Last::Value),
                _ => {}
            }
            return Ok(Some(byte));
        }
        if byte.is_ascii_whitespace() {
            if self.last == Last::Scalar {
                self.last = Last::Value;
            }
            // Between values that stand one behind the other.
            let ends = self.depth == 0 && !self.in_array && !self.is_over && self.last == Last::Value;
            if ends {
                self.last = Last::Open;
            }
            return Ok(ends.then_some(b'\n'));
        }
        if self.is_over {
            return bad;
        }
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        match byte {
            b'[' if is_first => {
                self.in_array = true;
                return Ok(None);
            }
            b'{' | b'[' | b'"' if self.last != Last::Open => return bad,
            b'"' => (self.in_string, self.wants_record) = (true, false),
            b'{' | b'[' => {
                if self.depth > DEEPEST {
                    return bad;
                }
                self.open = self.open << 1 | u128::from(byte == b'{');
                (self.depth, self.wants_record) = (self.depth + 1, false);
            }
            b'}' | b']' if self.depth > 0 => {
                if (self.open & 1 == 1) != (byte == b'}') {
                    return bad;
                }
                self.open >>= 1;
                (self.depth, self.last) = (self.depth - 1, Last::Value);
            }
            b',' if self.depth == 0 => {
                if !self.in_array || self.last == Last::Open {
                    return bad;
                }
                (self.last, self.wants_record) = (Last::Open, true);
                return Ok(Some(b'\n'));
            }
            b']' if self.in_array => {
                if self.wants_record {
                    return bad;
                }
                (self.in_array, self.is_over) = (false, true);
                return Ok((self.last != Last::Open).then_some(b'\n'));
            }
            b'}' | b']' => return bad,
            b':' if self.depth == 0 => return bad,
            b',' | b':' => self.last = Last::Open,
            // Of numbers and words.
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.' if self.last != Last::Value => {
                (self.last, self.wants_record) = (Last::Scalar, false);
            }
            _ => return bad,
        }
        Ok(Some(byte))
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
