//! The PROXY protocol, versions 1 and 2: a proxy in front tells the address of its client.
//!
//! It follows haproxy's `doc/proxy-protocol.txt`. The header is required, because a client that may leave it out may also forge
//! it.

use super::{Source, Stage, StageError};
use crate::log::checksum::{crc32c, crc32c_append};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with its CRLF (section 2.1).
const V1_MAX: usize = 107;
/// What version 2 begins with (section 2.2).
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 in front of the addresses.
const V2_FIXED: usize = 16;
/// Largest length that a header of version 2 may declare; the specification expects receivers to take 536 bytes.
pub const V2_MAX: usize = 4096;
/// Type of the TLV with the checksum of the header (section 2.2.3).
const TLV_CRC32C: u8 = 0x03;

/// Takes the PROXY header off a connection and gives the rest to the stage inside.
///
/// Holds the part of the header that was received, 4 KiB + 16 bytes at most, and nothing once it is complete.
pub struct Proxy {
    inner: Box<dyn Stage>,
    state: State,
    source: Option<Source>,
}

enum State {
    Header(Vec<u8>),
    Open,
    Failed(StageError),
}

impl Proxy {
    /// In front of `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn Stage>) -> Proxy {
        Proxy { inner, state: State::Header(Vec::new()), source: None }
    }
}

impl Stage for Proxy {
    fn held(&self) -> usize {
        match self.state {
            State::Open => self.inner.held(),
            _ => 0,
        }
    }

    fn decode(&mut self, space: &mut [u8], landed: usize, most: usize) -> Result<usize, StageError> {
        let header = match &mut self.state {
            State::Open => return self.inner.decode(space, landed, most),
            State::Failed(error) => return Err(error.clone()),
            State::Header(header) => header,
        };
        let given = space.len();
        let bytes = space.get(..landed).ok_or(StageError::NoSpace { given, needed: landed })?;
        let (used, source) = match absorb(header, bytes) {
            Ok(Some(complete)) => complete,
            Ok(None) => return Ok(0),
            Err(error) => {
                self.state = State::Failed(error.clone());
                return Err(error);
            }
        };
        self.state = State::Open;
        self.source = Some(source);
        let front = self.inner.held();
        let rest = landed - used;
        if rest == 0 {
            return Ok(0);
        }
        if front + rest > given {
            return Err(StageError::NoSpace { given, needed: front + rest });
        }
        space.copy_within(used..landed, front);
        self.inner.decode(space, rest, most)
    }

    fn pending(&self) -> bool {
        self.inner.pending()
    }

    fn encode(&mut self, bytes: &mut Vec<u8>) -> Result<(), StageError> {
        self.inner.encode(bytes)
    }

    fn wants_to_send(&self) -> bool {
        self.inner.wants_to_send()
    }

    fn close(&mut self, bytes: &mut Vec<u8>) {
        self.inner.close(bytes);
    }

    fn is_clean_end(&self) -> bool {
        match &self.state {
            State::Header(header) => header.is_empty(),
            State::Open => self.inner.is_clean_end(),
            State::Failed(_) => false,
        }
    }

    fn is_opening(&self) -> bool {
        !matches!(self.state, State::Open) || self.inner.is_opening()
    }

    fn has_ended(&self) -> bool {
        self.inner.has_ended()
    }

    fn wants_turn(&self) -> bool {
        self.inner.wants_turn()
    }

    fn take_turn(&mut self) {
        self.inner.take_turn();
    }

    fn take_source(&mut self) -> Option<Source> {
        self.source.take()
    }
}

/// Adds to `header` what belongs to it. Once it is complete: how many of `bytes` did, and what it says.
fn absorb(header: &mut Vec<u8>, bytes: &[u8]) -> Result<Option<(usize, Source)>, StageError> {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let wanted = match header.first() {
            None => 1,
            Some(b'P') => memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1).min(V1_MAX - header.len()),
            Some(_) if header.len() < V2_FIXED => V2_FIXED - header.len(),
            Some(_) => v2_len(header)? - header.len(),
        };
        let taken = wanted.min(rest.len());
        header.extend_from_slice(&rest[..taken]);
        used += taken;
        if let Some(source) = complete(header)? {
            *header = Vec::new();
            return Ok(Some((used, source)));
        }
        if used == bytes.len() {
            return Ok(None);
        }
    }
}

/// What a header says, or `None` while bytes of it are missing.
fn complete(header: &[u8]) -> Result<Option<Source>, StageError> {
    let is_prefix = |of: &[u8]| header.iter().zip(of).all(|(a, b)| a == b);
    if is_prefix(b"PROXY ") {
        if header.ends_with(b"\n") {
            return v1(header).map(Some);
        }
        if header.len() >= V1_MAX {
            return Err(StageError::BadProxyHeader("version 1: longer than 107 bytes"));
        }
        return Ok(None);
    }
    if !is_prefix(&V2_SIGNATURE) {
        return Err(StageError::NoProxyHeader);
    }
    if header.len() < V2_FIXED || header.len() < v2_len(header)? {
        return Ok(None);
    }
    v2(header).map(Some)
}

/// Section 2.1, with the line's end.
fn v1(header: &[u8]) -> Result<Source, StageError> {
    let bad = StageError::BadProxyHeader;
    let line = header.strip_suffix(b"\r\n").ok_or(bad("version 1: does not end with CR LF"))?;
    let line = line.strip_prefix(b"PROXY ").ok_or(StageError::NoProxyHeader)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Source::Local); // whatever stands behind is to be ignored
    }
    let line = std::str::from_utf8(line).map_err(|_| bad("version 1: not ASCII"))?;
    let fields: Vec<&str> = line.split(' ').collect();
    let &[family, source, destination, source_port, destination_port] = fields.as_slice() else {
        return Err(bad("version 1: not of the form PROXY TCP4|TCP6 source destination port port"));
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    if !matches!(family, "TCP4" | "TCP6") {
        return Err(bad("version 1: neither TCP4 nor TCP6 nor UNKNOWN"));
    }
    let (Some(source), Some(_)) = (address(source), address(destination)) else {
        return Err(bad("version 1: an address is not of its family"));
    };
    let (Some(port), Some(_)) = (port(source_port), port(destination_port)) else {
        return Err(bad("version 1: a port is not a number from 0 to 65535"));
    };
    Ok(Source::Client(SocketAddr::new(source, port)))
}

/// Digits only, no zero in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Length of a header of version 2 of which the fixed part is there.
fn v2_len(header: &[u8]) -> Result<usize, StageError> {
    let bad = StageError::BadProxyHeader;
    let declared = match header {
        [_, _, _, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err(bad("version 2: too short")),
    };
    if declared > V2_MAX {
        return Err(bad("version 2: declares more than 4096 bytes"));
    }
    Ok(V2_FIXED + declared)
}

/// Section 2.2; the whole header.
fn v2(header: &[u8]) -> Result<Source, StageError> {
    let bad = StageError::BadProxyHeader;
    let (fixed, body) = header.split_at_checked(V2_FIXED).ok_or(bad("version 2: too short"))?;
    match fixed[12] {
        0x20 => return Ok(Source::Local), // family, addresses and TLVs are to be ignored
        0x21 => {}
        other if other >> 4 != 2 => return Err(bad("version 2: its version is not 2")),
        _ => return Err(bad("version 2: its command is neither LOCAL nor PROXY")),
    }
    let addresses = match fixed[13] {
        0x00 => return Ok(Source::Local), // nobody says what an unspecified family's block looks like
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(bad("version 2: unknown address family or transport")),
    };
    let (addresses, tlvs) =
        body.split_at_checked(addresses).ok_or(bad("version 2: shorter than the addresses of its family"))?;
    check_tlvs(header, tlvs)?;
    let source = match *addresses {
        [a, b, c, d, _, _, _, _, high, low, _, _] => {
            Source::Client(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        [ref ip @ .., high, low, _, _] if addresses.len() == 36 => match ip.first_chunk::<16>() {
            Some(ip) => Source::Client(SocketAddr::new(Ipv6Addr::from(*ip).into(), u16::from_be_bytes([high, low]))),
            None => Source::Local,
        },
        _ => Source::Local,
    };
    Ok(source)
}

/// The TLVs fill the header exactly, and the checksum is right if there is one.
fn check_tlvs(header: &[u8], tlvs: &[u8]) -> Result<(), StageError> {
    let bad = StageError::BadProxyHeader;
    let mut rest = tlvs;
    let mut is_checked = false;
    while !rest.is_empty() {
        let [kind, high, low, value @ ..] = rest else { return Err(bad("version 2: a TLV is cut off")) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, behind) = value.split_at_checked(len).ok_or(bad("version 2: a TLV is longer than the header"))?;
        if *kind == TLV_CRC32C {
            let expected = value.try_into().map_err(|_| bad("version 2: the checksum is not of 4 bytes"))?;
            if is_checked {
                return Err(bad("version 2: more than one checksum"));
            }
            is_checked = true;
            let end = header.len() - behind.len();
            let crc = crc32c_append(crc32c(&header[..end - len]), &[0; 4]);
            if crc32c_append(crc, behind) != u32::from_be_bytes(expected) {
                return Err(bad("version 2: the checksum does not match"));
            }
        }
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
