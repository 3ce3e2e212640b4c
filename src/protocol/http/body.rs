//! Finds the bytes of a body and its end, by length or in chunks (RFC 9112 sections 6 and 7).

use super::head::Framing;
use super::problem::{self, Problem};
use memchr::memchr;

/// The most digits of a chunk size. No real chunk has more than 2^60 bytes.
const SIZE_DIGITS: u8 = 15;

/// The place in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes are left.
    Length(u64),
    /// In a chunk size: its value and digits so far.
    Size(u64, u8),
    /// The CR behind a chunk size was seen.
    SizeEnd(u64),
    /// So many bytes of the chunk are left.
    Chunk(u64),
    /// The chunk's bytes are over: CR, then LF.
    ChunkEnd,
    /// The CR behind the chunk's bytes was seen.
    ChunkEndLf,
    /// In the trailers: bytes of them so far, and of the present line.
    Trailer(u32, u32),
    /// In the trailers, behind a CR: bytes of them so far, and whether the line was empty.
    TrailerLf(u32, bool),
    /// Behind its last byte.
    Over,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// So many bytes of framing; skip them.
    Frame(usize),
    /// So many bytes of the body.
    Content(usize),
}

impl Body {
    /// The body behind a head.
    #[must_use]
    pub fn new(framing: Framing) -> Body {
        match framing {
            Framing::Length(0) | Framing::None => Body::Over,
            Framing::Length(n) => Body::Length(n),
            Framing::Chunked => Body::Size(0, 0),
        }
    }

    /// The least number of bytes of content that will still come.
    #[must_use]
    pub fn surely(&self) -> u64 {
        match self {
            Body::Length(n) | Body::Chunk(n) => *n,
            _ => 0,
        }
    }

    /// Looks at the next bytes (at least one) and moves on behind what it returns.
    ///
    /// # Errors
    /// They break the rules of chunks; `most_trailer` bytes of trailers are skipped, more are refused.
    pub fn next(&mut self, bytes: &[u8], most_trailer: u32) -> Result<Part, &'static Problem> {
        let first = bytes[0];
        let taken = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (next, part) = match *self {
            Body::Length(left) => {
                let n = taken(left);
                let left = left - n as u64;
                (if left == 0 { Body::Over } else { Body::Length(left) }, Part::Content(n))
            }
            Body::Chunk(left) => {
                let n = taken(left);
                let left = left - n as u64;
                (if left == 0 { Body::ChunkEnd } else { Body::Chunk(left) }, Part::Content(n))
            }
            Body::Size(size, digits) => match (first as char).to_digit(16) {
                Some(digit) if digits < SIZE_DIGITS => {
                    (Body::Size(size * 16 + u64::from(digit), digits + 1), Part::Frame(1))
                }
                None if first == b'\r' && digits > 0 => (Body::SizeEnd(size), Part::Frame(1)),
                _ => return Err(&problem::BAD_CHUNK),
            },
            Body::SizeEnd(0) if first == b'\n' => (Body::Trailer(0, 0), Part::Frame(1)),
            Body::SizeEnd(size) if first == b'\n' => (Body::Chunk(size), Part::Frame(1)),
            Body::ChunkEnd if first == b'\r' => (Body::ChunkEndLf, Part::Frame(1)),
            Body::ChunkEndLf if first == b'\n' => (Body::Size(0, 0), Part::Frame(1)),
            Body::Trailer(all, line) => match memchr(b'\r', bytes) {
                Some(0) => (Body::TrailerLf(all, line == 0), Part::Frame(1)),
                end => {
                    let n = end.unwrap_or(bytes.len());
                    let is_plain = |b: &u8| *b >= 0x20 && *b != 0x7f || *b == b'\t';
                    let begins_well = line > 0 || (first != b' ' && first != b'\t' && first != b':');
                    let all = all.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
                    if !begins_well || !bytes[..n].iter().all(is_plain) {
                        return Err(&problem::BAD_CHUNK);
                    }
                    if all > most_trailer {
                        return Err(&problem::HEAD_TOO_LARGE);
                    }
                    (Body::Trailer(all, line.saturating_add(n as u32)), Part::Frame(n))
                }
            },
            Body::TrailerLf(all, was_empty) if first == b'\n' => {
                (if was_empty { Body::Over } else { Body::Trailer(all, 0) }, Part::Frame(1))
            }
            _ => return Err(&problem::BAD_CHUNK),
        };
        *self = next;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(input: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, usize), &'static Problem> {
        let (mut body, mut out, mut at, mut piece) = (Body::new(Framing::Chunked), Vec::new(), 0, 0);
        while at < input.len() && body != Body::Over {
            let end = (at + pieces[piece % pieces.len()].max(1)).min(input.len());
            piece += 1;
            while at < end && body != Body::Over {
                match body.next(&input[at..end], 64)? {
                    Part::Frame(n) => at += n,
                    Part::Content(n) => {
                        out.extend_from_slice(&input[at..at + n]);
                        at += n;
                    }
                }
            }
        }
        assert!(body == Body::Over || at == input.len());
        Ok((out, at))
    }

    #[test]
    fn chunks_and_what_is_none() {
        let whole = |input: &str| content(input.as_bytes(), &[usize::MAX]).map(|(c, _)| String::from_utf8(c).unwrap());
        assert_eq!(whole("3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n").unwrap(), "abc0123456789");
        assert_eq!(whole("1\r\na\r\n0\r\nX: y\r\nZ: \r\n\r\n").unwrap(), "a");
        for bad in [
            "\r\n",
            "g\r\n",
            "3;x=y\r\nabc",
            "3 \r\nabc",
            " 3\r\nabc",
            "3\nabc",
            "3\r\r",
            "3\r\nabcd",
            "3\r\nabc\n",
            "0x3\r\n",
            "-1\r\n",
            "1111111111111111\r\n",
            "0\r\n X\r\n\r\n",
            "0\r\nX: a\nb\r\n\r\n",
            "0\r\n: x\r\n\r\n",
        ] {
            assert_eq!(whole(bad).unwrap_err().status, 400, "{bad:?}");
        }
        assert_eq!(whole(&format!("0\r\nX: {}\r\n\r\n", "y".repeat(80))).unwrap_err().status, 431);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            pieces in proptest::collection::vec(1usize..20, 1..8),
            behind in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend(format!("{:x}\r\n", chunk.len()).bytes());
                input.extend(chunk);
                input.extend(b"\r\n");
            }
            input.extend(b"0\r\n\r\n");
            let len = input.len();
            input.extend(behind);
            let (out, at) = content(&input, &pieces).unwrap();
            prop_assert_eq!(out, chunks.concat());
            prop_assert_eq!(at, len);
        }

        #[test]
        fn nothing_panics(input in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0')], 0..200)) {
            let _ = content(&input, &[7, 1, 100]);
        }
    }
}
