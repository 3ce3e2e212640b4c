//! Recognises the first bytes of a connection that speaks another protocol than its listener expects. So a misconfigured sender
//! shows up in the log, not only in the files.

use crate::metrics::stats::Unexpected;

/// How many of the first bytes of a connection are looked at.
pub const LOOKED_AT: usize = 64;

/// The protocol that begins with these first bytes of a connection. `None`: no known one.
#[must_use]
pub fn of(first: &[u8]) -> Option<Unexpected> {
    match first {
        // RFC 8446 section 5.1: handshake, version 3.x, length, ClientHello.
        [0x16, 3, 0..=4, _, _, 1, ..] => Some(Unexpected::Tls),
        // RFC 1952, RFC 8878; RFC 1950 with the window and levels that zlib writes.
        [0x1f, 0x8b, 8, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x78, 0x01 | 0x9c | 0xda, ..] => {
            Some(Unexpected::Compressed)
        }
        // Lumberjack, versions 1 and 2: window size, JSON, data, compressed.
        [b'1' | b'2', b'W', 0, 0, _, _, ..] | [b'2', b'C' | b'J', 0, ..] | [b'1', b'D', 0, 0, ..] => {
            Some(Unexpected::Beats)
        }
        // MessagePack: an array of two to four whose first is a string, a tag.
        [0x92..=0x94, 0xa1..=0xbf | 0xd9, ..] => Some(Unexpected::Forward),
        // Python's SocketHandler: four bytes of length, then a pickle of protocol 1 to 5, which is a dictionary.
        [0, _, _, _, 0x80, 1..=5, ..] | [0, _, _, _, b'}', b'q', ..] => Some(Unexpected::Pickle),
        // The PROXY protocol, versions 1 and 2.
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] | [b'\r', b'\n', b'\r', b'\n', 0, b'\r', b'\n', b'Q', ..] => {
            Some(Unexpected::Proxy)
        }
        _ if first.starts_with(b"PRI * HTTP/2.0") => Some(Unexpected::Http2),
        _ if first.starts_with(b"SSH-2.0-") => Some(Unexpected::Ssh),
        _ if is_request(first) => Some(Unexpected::Http),
        _ => counted(first),
    }
}

/// A method of HTTP, a target, and the version. Without that it may be the line of a log: `GET / 200 12 ms`.
fn is_request(first: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"CONNECT"];
    let mut words = first.splitn(3, |b| *b == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    method.is_some_and(|method| METHODS.contains(&method))
        && target.is_some_and(|target| !target.is_empty())
        && version.is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// Beginnings with a number: octet counting (RFC 6587 section 3.4.1: `83 <14>…`) and RELP (`1 open 85 …`).
fn counted(first: &[u8]) -> Option<Unexpected> {
    let digits = first.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=6).contains(&digits) || first[0] == b'0' {
        return None;
    }
    match &first[digits..] {
        [b' ', b'<', digit, ..] if digit.is_ascii_digit() => Some(Unexpected::OctetCounting),
        rest if rest.starts_with(b" open ") => Some(Unexpected::Relp),
        _ => None,
    }
}

/// Keeps the first bytes of a connection until they can be judged.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    bytes: [u8; LOOKED_AT],
    len: u8,
    is_judged: bool,
}

impl Default for Beginning {
    fn default() -> Self {
        Beginning { bytes: [0; LOOKED_AT], len: 0, is_judged: false }
    }
}

impl Beginning {
    /// Looks at what came next. `Some` at most once.
    pub fn look(&mut self, bytes: &[u8]) -> Option<Unexpected> {
        if self.is_judged {
            return None;
        }
        let have = usize::from(self.len);
        let n = bytes.len().min(LOOKED_AT - have);
        self.bytes[have..have + n].copy_from_slice(&bytes[..n]);
        self.len += n as u8;
        let found = of(&self.bytes[..have + n]);
        self.is_judged = found.is_some() || have + n == LOOKED_AT;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_are_known_and_lines_are_not() {
        for (first, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], Unexpected::Tls),
            (b"GET / HTTP/1.1\r\nHost: x", Unexpected::Http),
            (b"POST /ingest/x HTTP/1.1\r\n", Unexpected::Http),
            (b"DELETE /x HTTP/1.1\r\n", Unexpected::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Unexpected::Http2),
            (b"83 <14>1 2026-11-27T00:00", Unexpected::OctetCounting),
            (b"1 open 85 relp_version=0", Unexpected::Relp),
            (b"2W\0\0\0\x01", Unexpected::Beats),
            (b"\x92\xa3app\x93", Unexpected::Forward),
            (b"\0\0\x02\x15\x80\x05\x95", Unexpected::Pickle),
            (b"\0\0\x01\xb0}q\x00(X", Unexpected::Pickle),
            (b"PROXY TCP4 192.0.2.1", Unexpected::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Unexpected::Proxy),
            (b"\x1f\x8b\x08\0", Unexpected::Compressed),
            (b"SSH-2.0-OpenSSH_9.2", Unexpected::Ssh),
        ] {
            assert_eq!(of(first), Some(expected), "{}", first.escape_ascii());
            // In pieces of one byte it is found too, once.
            let mut beginning = Beginning::default();
            let found: Vec<Unexpected> = first.chunks(1).filter_map(|piece| beginning.look(piece)).collect();
            assert_eq!(found, [expected], "{}", first.escape_ascii());
        }
        let lines: [&[u8]; 11] = [
            b"2C4F99 sensor ok",
            b"x^2 is a square",
            b"GET / 200 12 - 3.1 ms",
            b"hello, log\n",
            b"<14>Nov 27 00:00:00 host app: x",
            b"2026-11-27T00:00:00Z GET / 200",
            b"{\"message\": \"x\"}",
            b"GET 200 /index.html",
            b"12 monkeys <3",
            b"0 <1>",
            b"\0\0\0\0",
        ];
        for line in lines {
            assert_eq!(of(line), None, "{}", line.escape_ascii());
        }
    }
}
