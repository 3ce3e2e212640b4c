//! What a syslog message says of itself: RFC 5424, RFC 3164, and what is sent under the name of the latter. Nothing is rejected, and
//! nothing is rewritten: what cannot be told apart stays in the message.

use std::net::Ipv6Addr;
use std::str::FromStr;

/// The parts of a message. A part that is missing, or nil, is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Facility times eight and severity, 0 to 191.
    pub pri: Option<u8>,
    /// The time, as sent.
    pub time: &'a [u8],
    /// Who says that it is from there.
    pub host: &'a [u8],
    /// The program, or Cisco's `%FACILITY-SEVERITY-MNEMONIC`.
    pub app: &'a [u8],
    /// Its process.
    pub procid: &'a [u8],
    /// The kind of message.
    pub msgid: &'a [u8],
    /// Structured data, as sent.
    pub sd: &'a [u8],
    /// The rest.
    pub msg: &'a [u8],
}

/// The names of facilities as `logger -p` takes them; those that it has no name for are called as rsyslog calls them. RFC 5424, table 1.
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// The names of severities as `logger -p` takes them. RFC 5424, table 2.
pub const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Longest name that is taken for a program. RFC 5424 has 48 for an APP-NAME; RFC 3164 has 32.
const LONGEST_APP: usize = 48;
/// Longest name that is taken for a host (RFC 5424 section 6).
const LONGEST_HOST: usize = 255;
/// Longest time: RFC 3339 with nine digits, and some more.
const LONGEST_TIME: usize = 40;

impl Message<'_> {
    /// The name of its facility.
    #[must_use]
    pub fn facility(&self) -> Option<&'static str> {
        self.pri.and_then(|pri| FACILITIES.get(usize::from(pri >> 3)).copied())
    }

    /// The name of its severity.
    #[must_use]
    pub fn severity(&self) -> Option<&'static str> {
        self.pri.and_then(|pri| SEVERITIES.get(usize::from(pri & 7)).copied())
    }
}

/// The number at the beginning of a message and its length with both brackets; `None`: it has none that is valid (RFC 5424 section
/// 6.2.1).
#[must_use]
pub fn pri(bytes: &[u8]) -> Option<(u8, usize)> {
    let digits = bytes.strip_prefix(b"<")?.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    if !(1..=3).contains(&digits) || bytes.get(digits + 1) != Some(&b'>') {
        return None;
    }
    let number = bytes[1..=digits].iter().fold(0u16, |n, b| n * 10 + u16::from(b - b'0'));
    u8::try_from(number).ok().filter(|pri| *pri <= 191).map(|pri| (pri, digits + 2))
}

/// Takes a message apart.
#[must_use]
pub fn parse(bytes: &[u8]) -> Message<'_> {
    let (pri, rest) = match pri(bytes) {
        Some((pri, len)) => (Some(pri), &bytes[len..]),
        None => (None, bytes),
    };
    let modern = pri.is_some().then(|| rfc5424(rest)).flatten();
    Message { pri, ..modern.unwrap_or_else(|| rfc3164(rest)) }
}

/// What a message says of its origin, where only its beginning is here: there may be no structured data and no message in it.
#[must_use]
pub fn origin(beginning: &[u8]) -> Message<'_> {
    let (number, rest) = match pri(beginning) {
        Some((pri, len)) => (Some(pri), &beginning[len..]),
        None => (None, beginning),
    };
    let modern = number.is_some().then(|| header(rest)).flatten();
    Message { pri: number, ..modern.map_or_else(|| rfc3164(rest), |(message, _)| message) }
}

/// A word, and what stands behind the blank after it.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == b' ')?;
    (end > 0).then(|| (&bytes[..end], &bytes[end + 1..]))
}

/// A word of RFC 5424; `-` is nil.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (word, rest) = word(bytes)?;
    word.iter().all(u8::is_ascii_graphic).then_some((if word == b"-" { b"" } else { word }, rest))
}

/// The header of RFC 5424 (section 6.2), behind the PRI, and what stands behind it.
fn header(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (time, rest) = field(bytes.strip_prefix(b"1 ")?)?;
    if !time.is_empty() && !is_iso(time) {
        return None;
    }
    let (host, rest) = field(rest)?;
    let (app, rest) = field(rest)?;
    let (procid, rest) = field(rest)?;
    // MSGID may be what ends it where somebody leaves the structured data out; such a message is not RFC 5424.
    let (msgid, rest) = field(rest)?;
    Some((Message { time, host, app, procid, msgid, ..Message::default() }, rest))
}

/// RFC 5424 section 6, behind the PRI.
fn rfc5424(bytes: &[u8]) -> Option<Message<'_>> {
    let (message, rest) = header(bytes)?;
    let len = structured(rest)?;
    let sd = if rest.starts_with(b"-") { &b""[..] } else { &rest[..len] };
    let msg = match rest.get(len) {
        None => &b""[..],
        Some(b' ') => &rest[len + 1..],
        Some(_) => return None,
    };
    let msg = msg.strip_prefix(b"\xef\xbb\xbf").unwrap_or(msg);
    Some(Message { sd, msg, ..message })
}

/// Bytes of the structured data at the start of `bytes`: `-`, or elements (RFC 5424 section 6.3). `None`: there is none.
fn structured(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'-') {
        return Some(1);
    }
    let mut all = Elements::of(bytes);
    let mut any = false;
    while let Some(token) = all.next()? {
        any |= matches!(token, Token::Element(_));
    }
    any.then_some(all.at)
}

/// What structured data consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// An element begins; its name.
    Element(&'a [u8]),
    /// A parameter of it: its name, and its value with its escapes.
    Param(&'a [u8], &'a [u8]),
}

/// Reads structured data.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
    inside: bool,
}

impl<'a> Elements<'a> {
    /// Of these bytes, which may go on behind it.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Elements<'a> {
        Elements { bytes, at: 0, inside: false }
    }

    /// The next part. `None`: it is broken. `Some(None)`: it is over.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot say that it is broken")]
    pub fn next(&mut self) -> Option<Option<Token<'a>>> {
        let rest = &self.bytes[self.at..];
        match (self.inside, rest.first()) {
            (false, Some(b'[')) => {
                let name = name(&rest[1..])?;
                (self.at, self.inside) = (self.at + 1 + name.len(), true);
                Some(Some(Token::Element(name)))
            }
            (false, _) => Some(None),
            (true, Some(b']')) => {
                (self.at, self.inside) = (self.at + 1, false);
                self.next()
            }
            (true, Some(b' ')) => {
                let name = name(&rest[1..])?;
                let value = rest[1 + name.len()..].strip_prefix(b"=\"")?;
                let mut len = 0;
                loop {
                    match value.get(len)? {
                        b'\\' => len += 2,
                        b'"' => break,
                        b']' => return None, // must be escaped (section 6.3.3)
                        _ => len += 1,
                    }
                }
                let value = value.get(..len)?;
                self.at += 1 + name.len() + 2 + len + 1;
                Some(Some(Token::Param(name, value)))
            }
            (true, _) => None,
        }
    }
}

/// An SD-NAME (RFC 5424 section 6.3.2), without its limit of 32, which senders do not keep.
fn name(bytes: &[u8]) -> Option<&[u8]> {
    let is_name = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"');
    let len = bytes.iter().take_while(|b| is_name(b)).count();
    (len > 0).then(|| &bytes[..len])
}

/// RFC 3164 section 4.1, behind the PRI, and the variants that are sent in its place.
fn rfc3164(bytes: &[u8]) -> Message<'_> {
    let whole = Message { msg: bytes, ..Message::default() };
    let (mut host, after) = before_time(bytes);
    let Some((time, mut rest)) = time(after) else {
        // Without a time nothing says that a host follows: prose would lose its first word to it.
        return tag(bytes).map_or(whole, |(app, procid, msg)| Message { app, procid, msg, ..whole });
    };
    if let Some((from, behind)) = forwarded(rest).or_else(|| host_of(rest)).filter(|_| host.is_empty()) {
        (host, rest) = (from, behind);
    }
    let found = Message { time, host, msg: rest, ..Message::default() };
    tag(rest).map_or(found, |(app, procid, msg)| Message { app, procid, msg, ..found })
}

/// AIX: `Message forwarded from HOST: `, and what stands behind it.
fn forwarded(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let from = bytes.strip_prefix(b"Message forwarded from ")?;
    let (host, rest) = word(from)?;
    let host = host.strip_suffix(b":")?;
    (!host.is_empty() && host.iter().all(u8::is_ascii_graphic)).then_some((host, rest))
}

/// The host in front of a time, and what begins with the time: behind Cisco's counters, with `logging origin-id`; behind the colon of the
/// EMBLEM format.
fn before_time(bytes: &[u8]) -> (&[u8], &[u8]) {
    let after = counters(bytes);
    if let Some(behind) = after.strip_prefix(b":").filter(|behind| time(behind).is_some()) {
        return (b"", behind);
    }
    let named = word(after).and_then(|(first, rest)| Some((first.strip_suffix(b":")?, counters(rest))));
    match named {
        Some((host, rest)) if after.len() < bytes.len() && time(after).is_none() && time(rest).is_some() => {
            (host, rest)
        }
        _ => (b"", after),
    }
}

/// What stands behind Cisco's counters: `82: `, `222: 333: `, and the mark of a clock that is not exact.
fn counters(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    for _ in 0..2 {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        match rest[digits..].strip_prefix(b": ") {
            Some(behind) if (1..=10).contains(&digits) => rest = behind,
            _ => break,
        }
    }
    match rest {
        [b'*' | b'.', behind @ ..] => behind,
        _ => rest,
    }
}

/// The time at the start, and what stands behind it and its blank. A colon behind it goes too (Cisco).
fn time(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = traditional(bytes).or_else(|| iso(bytes)).or_else(|| uptime(bytes))?;
    let (time, rest) = bytes.split_at(len);
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    match rest {
        [] => Some((time, rest)),
        [b' ', behind @ ..] => Some((time, behind)),
        _ => None,
    }
}

/// Bytes of digits at the start, if there are as many as allowed.
fn digits(bytes: &[u8], least: usize, most: usize) -> Option<usize> {
    let len = bytes.iter().take(most + 1).take_while(|b| b.is_ascii_digit()).count();
    (least..=most).contains(&len).then_some(len)
}

/// `hh:mm:ss`, with a fraction.
fn clock(bytes: &[u8]) -> Option<usize> {
    let mut at = digits(bytes, 1, 2)?;
    for _ in 0..2 {
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        at += 1;
        at += digits(&bytes[at..], 2, 2)?;
    }
    if matches!(bytes.get(at), Some(b'.' | b','))
        && let Some(fraction) = digits(&bytes[at + 1..], 1, 9)
    {
        at += 1 + fraction;
    }
    Some(at)
}

/// `Mmm dd hh:mm:ss`, with a year before or behind the time of day, a fraction and a zone.
fn traditional(bytes: &[u8]) -> Option<usize> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let month = bytes.get(..3)?;
    if !MONTHS.iter().any(|known| *known == month) || bytes.get(3) != Some(&b' ') {
        return None;
    }
    let mut at = if bytes.get(4) == Some(&b' ') { 5 } else { 4 };
    at += digits(&bytes[at..], 1, 2)?;
    let blank = |at: usize| (bytes.get(at) == Some(&b' ')).then_some(at + 1);
    at = blank(at)?;
    if let Some(year) = digits(&bytes[at..], 4, 4)
        && bytes.get(at + year) == Some(&b' ')
    {
        at += year + 1;
    }
    at += clock(&bytes[at..])?;
    let is_end = |at: usize| matches!(bytes.get(at), None | Some(b' ' | b':'));
    // Not the beginning of an IPv6 address.
    let is_year = |from: usize| {
        digits(&bytes[from..], 4, 4).is_some() && matches!(bytes[from + 4..], [] | [b' ', ..] | [b':', b' ', ..])
    };
    if let Some(year) = blank(at).filter(|from| is_year(*from)) {
        at = year + 4;
    }
    // A zone is of three to five capitals, and a colon stands behind it: else it is a host.
    if let Some(from) = blank(at) {
        let zone = bytes[from..].iter().take_while(|b| b.is_ascii_uppercase()).count();
        if (3..=5).contains(&zone) && bytes.get(from + zone) == Some(&b':') {
            at = from + zone;
        }
    }
    if let Some(b'+' | b'-' | b'Z') = bytes.get(at) {
        let zone = bytes[at..].iter().take_while(|b| matches!(b, b'+' | b'-' | b'Z' | b':' | b'0'..=b'9')).count();
        at += if bytes.get(at + zone - 1) == Some(&b':') { zone - 1 } else { zone };
    }
    is_end(at).then_some(at)
}

/// RFC 3339, or what ISO 8601 allows besides.
fn iso(bytes: &[u8]) -> Option<usize> {
    let len = bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len());
    let len = if len > 0 && bytes[len - 1] == b':' { len - 1 } else { len };
    is_iso(&bytes[..len]).then_some(len)
}

fn is_iso(word: &[u8]) -> bool {
    let date = |b: &[u8]| digits(b, 4, 4) == Some(4) && b.get(4) == Some(&b'-') && digits(&b[5..], 2, 2) == Some(2);
    let day = |b: &[u8]| b.get(7) == Some(&b'-') && digits(&b[8..], 2, 2) == Some(2);
    if word.len() > LONGEST_TIME || word.len() < 19 || !date(word) || !day(word) || word[10] != b'T' {
        return false;
    }
    let Some(len) = clock(&word[11..]) else { return false };
    match &word[11 + len..] {
        [] | [b'Z'] => true,
        [b'+' | b'-', zone @ ..] => {
            matches!(zone.len(), 2 | 4 | 5)
                && zone.iter().enumerate().all(|(i, b)| b.is_ascii_digit() || (i == 2 && *b == b':'))
        }
        _ => false,
    }
}

/// Cisco without a clock: the time since the start, with a colon behind it.
fn uptime(bytes: &[u8]) -> Option<usize> {
    let len = clock(bytes)?;
    (bytes.get(len) == Some(&b':')).then_some(len)
}

/// The host at the start, and what stands behind it. `None`: a tag stands there, or Cisco's mnemonic.
fn host_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = word(bytes)?;
    if first.len() > LONGEST_HOST || first[0] == b'%' || first.iter().any(u8::is_ascii_control) {
        return None;
    }
    let is_ipv6 = std::str::from_utf8(first).is_ok_and(|text| Ipv6Addr::from_str(text).is_ok());
    if !is_ipv6 && (first.ends_with(b":") || first.contains(&b'[') || rest.first() == Some(&b'[')) {
        return None;
    }
    // `HOST : %ASA-…`
    Some((first, rest.strip_prefix(b": ").unwrap_or(rest)))
}

/// Program, process and message of what begins with `app[procid]: `, `app: `, and the like.
fn tag(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let is_app = |b: &u8| b.is_ascii_graphic() && !matches!(b, b':' | b'[' | b']' | b'"' | b'{' | b'}' | b'=' | b',');
    let len = bytes.iter().take(LONGEST_APP + 1).take_while(|b| is_app(b)).count();
    if !(1..=LONGEST_APP).contains(&len) {
        return None;
    }
    let (app, rest) = bytes.split_at(len);
    if app.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let bracket = rest.strip_prefix(b"[").or_else(|| rest.strip_prefix(b" ["));
    let (procid, rest) = match bracket {
        Some(inside) => {
            let is_procid = |b: &u8| !b.is_ascii_control() && !matches!(b, b']' | b' ');
            let len = inside.iter().take(LONGEST_HOST).take_while(|b| is_procid(b)).count();
            if inside.get(len) != Some(&b']') {
                return None;
            }
            // A colon or blank behind the bracket, or the message.
            (&inside[..len], inside[len + 1..].strip_prefix(b":").unwrap_or(&inside[len + 1..]))
        }
        None => (&b""[..], rest.strip_prefix(b":")?),
    };
    // `10:15 …` and `https://…` are no tags.
    if bracket.is_none() && !matches!(rest.first(), None | Some(b' ')) {
        return None;
    }
    Some((app, procid, rest.strip_prefix(b" ").unwrap_or(rest)))
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
