//! Finds out whether a ClientHello is complete. Only a complete one is worth a private-key operation, and until then no other
//! client has to wait.

use super::stage::HEADER;

/// Type of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// Type of a ClientHello (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;
/// Type and length of a handshake message (RFC 8446 section 4).
const MESSAGE_HEADER: usize = 4;
/// Longest record in the clear (RFC 8446 section 5.1).
const FRAGMENT_MAX: usize = 1 << 14;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The beginning of a ClientHello.
    Unfinished,
    /// A whole one.
    Hello,
    /// Something else, which costs nothing to refuse.
    Other,
}

/// Looks at the first bytes of a connection. A ClientHello may be spread over records.
pub fn look(mut bytes: &[u8]) -> First {
    // Of the message: its header, as far as it was seen, and how many bytes of it there were.
    let (mut header, mut seen) = ([0; MESSAGE_HEADER], 0);
    loop {
        let is_good = bytes.first().is_none_or(|b| *b == HANDSHAKE) && bytes.get(1).is_none_or(|b| *b == 3);
        if !is_good {
            return First::Other;
        }
        let Some((record, rest)) = bytes.split_at_checked(HEADER) else { return First::Unfinished };
        let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
        if len == 0 || len > FRAGMENT_MAX {
            return First::Other;
        }
        let part = &rest[..len.min(rest.len())];
        for (to, from) in header.iter_mut().skip(seen).zip(part) {
            *to = *from;
        }
        seen += part.len();
        if seen > 0 && header[0] != CLIENT_HELLO {
            return First::Other;
        }
        let [_, high, middle, low] = header;
        let whole = MESSAGE_HEADER + u32::from_be_bytes([0, high, middle, low]) as usize;
        if seen >= MESSAGE_HEADER && seen >= whole {
            return First::Hello;
        }
        if part.len() < len {
            return First::Unfinished;
        }
        bytes = &rest[len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
        let len = (fragment.len() as u16).to_be_bytes();
        [&[kind, 3, 1][..], &len, fragment].concat()
    }

    #[test]
    fn a_hello_is_whole_with_its_last_byte_however_it_is_cut() {
        let hello = [&[CLIENT_HELLO, 0, 1, 0][..], &[7; 256]].concat();
        for piece in [1, 3, 100, 260] {
            let wire: Vec<u8> = hello.chunks(piece).flat_map(|part| record(HANDSHAKE, part)).collect();
            for end in 0..wire.len() {
                assert_eq!(look(&wire[..end]), First::Unfinished, "{end} of {}", wire.len());
            }
            assert_eq!(look(&wire), First::Hello);
            assert_eq!(look(&[&wire[..], b"behind it"].concat()), First::Hello);
        }
    }

    #[test]
    fn what_is_no_hello_is_not_waited_for() {
        assert_eq!(look(b""), First::Unfinished);
        for other in [
            &b"GET / HTTP/1.1"[..],
            &[HANDSHAKE, 2],
            &record(21, &[1, 0]),
            &record(HANDSHAKE, &[2, 0, 0, 0]),
            &[22, 3, 1, 0, 0],
        ] {
            assert_eq!(look(other), First::Other, "{other:?}");
        }
    }
}
