//! `format = "json"`: one object per record, with when and from whom it came.

use std::time::{Duration, UNIX_EPOCH};

/// Bytes that one input byte becomes at most (`\u00XX`; an invalid byte becomes U+FFFD, three bytes).
pub const GROWTH: usize = 6;

/// What is the same for all records of one connection.
#[derive(Debug)]
pub struct Envelope {
    /// `","listener":"…","peer":"…","attrs":{},"msg":"` ready to copy.
    middle: Vec<u8>,
}

impl Envelope {
    /// For one listener and peer.
    #[must_use]
    pub fn new(listener: &str, peer: &str) -> Self {
        let mut middle = b"\",\"listener\":\"".to_vec();
        push_escaped(listener.as_bytes(), |b| middle.extend_from_slice(b));
        middle.extend_from_slice(b"\",\"peer\":\"");
        push_escaped(peer.as_bytes(), |b| middle.extend_from_slice(b));
        middle.extend_from_slice(b"\",\"attrs\":{},\"msg\":\"");
        Envelope { middle }
    }

    /// Bytes around a message at most: opening, time (30), middle, closing and newline.
    #[must_use]
    pub fn overhead(&self) -> usize {
        self.middle.len() + 6 + 30 + 3
    }

    /// Bytes of a record with this message, but for its marker.
    #[must_use]
    pub fn record_len(&self, message: &[u8]) -> usize {
        let mut len = self.overhead();
        push_escaped(message, |bytes| len += bytes.len());
        len
    }

    /// Writes one record at the start of `to` and returns its length. `to` must hold [`Envelope::overhead`] and
    /// [`GROWTH`] times the message.
    pub fn write(&self, time: &str, message: &[u8], marker: &[u8], to: &mut [u8]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            to[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(b"{\"t\":\"");
        put(time.as_bytes());
        put(&self.middle);
        push_escaped(message, &mut put);
        put(marker);
        put(b"\"}\n");
        at
    }
}

/// RFC 3339 in UTC with milliseconds, such as `2026-11-21T08:15:00.123Z`.
#[must_use]
pub fn time(wall_ns: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(wall_ns)).to_string()
}

/// How many bytes at the start of `bytes` stand in a JSON string as they are and are ASCII: nearly all of nearly all logs. Eight
/// at a time.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte of the result has its highest bit set where the byte is below `n`; exact for bytes below 128, which others are
    // not taken for: their own highest bit is asked for too (Bit Twiddling Hacks, "Determine if a word has a byte less than n").
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    let equal = |word: u64, b: u8| below(word ^ (ONES * u64::from(b)), 1);
    let mut at = 0;
    for eight in bytes.chunks_exact(8) {
        let Ok(eight) = eight.try_into() else { break };
        let word = u64::from_le_bytes(eight);
        let special = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\') | (word & HIGH);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |b: &u8| !matches!(b, 0..0x20 | b'"' | b'\\' | 0x80..);
    at + bytes[at..].iter().take_while(|b| is_plain(b)).count()
}

/// RFC 8259 section 7; bytes that are not UTF-8 become U+FFFD.
fn push_escaped(bytes: &[u8], mut put: impl FnMut(&[u8])) {
    let plain = plain_prefix(bytes);
    put(&bytes[..plain]);
    if plain == bytes.len() {
        return;
    }
    for part in bytes[plain..].utf8_chunks() {
        let valid = part.valid().as_bytes();
        let (mut plain, mut i) = (0, 0);
        while i < valid.len() {
            i += plain_prefix(&valid[i..]);
            let Some(b) = valid.get(i) else { break };
            i += 1;
            let short: &[u8] = match b {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 => b"",
                _ => continue,
            };
            put(&valid[plain..i - 1]);
            plain = i;
            if short.is_empty() {
                let digit = |d: u8| b"0123456789abcdef"[usize::from(d)];
                put(&[b'\\', b'u', b'0', b'0', digit(b >> 4), digit(b & 15)]);
            } else {
                put(short);
            }
        }
        put(&valid[plain..]);
        if !part.invalid().is_empty() {
            put("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_must_be_escaped_is_found_wherever_it_stands() {
        for b in 0..=255u8 {
            for at in 0..20 {
                let mut bytes = [b'a'; 20];
                bytes[at] = b;
                let is_plain = (0x20..0x80).contains(&b) && b != b'"' && b != b'\\';
                assert_eq!(plain_prefix(&bytes), if is_plain { 20 } else { at }, "{b} at {at}");
                bytes[19] = b'"';
                assert_eq!(plain_prefix(&bytes), if is_plain { 19 } else { at.min(19) }, "{b} at {at}, and a quote");
            }
        }
    }

    proptest! {
        #[test]
        fn any_message_becomes_valid_json(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let envelope = Envelope::new("li\"sten", "127.0.0.1:9");
            let mut out = vec![0; envelope.overhead() + GROWTH * message.len()];
            let n = envelope.write(&time(1_700_000_000_123_000_000), &message, b"", &mut out);
            let value: serde_json::Value = serde_json::from_slice(&out[..n]).unwrap();
            prop_assert!(n <= envelope.record_len(&message));
            prop_assert_eq!(value["msg"].as_str().unwrap(), String::from_utf8_lossy(&message));
            prop_assert_eq!(value["listener"].as_str().unwrap(), "li\"sten");
            prop_assert_eq!(value["t"].as_str().unwrap(), "2023-11-14T22:13:20.123Z");
        }
    }
}
