//! The header of a RELP frame: `TXNR SP COMMAND SP DATALEN`, and a blank in front of its data, if it has any (relp.md of librelp,
//! "Syntax").

/// Bytes of the longest header: nine digits, 32 letters, nine digits, and three blanks.
pub const LONGEST: usize = 9 + 1 + 32 + 1 + 9 + 1;
/// The greatest transaction number; the one behind it is 1.
pub const LAST_TXNR: u32 = 999_999_999;

/// What a frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Begins a session, with offers.
    Open,
    /// A message.
    Syslog,
    /// Ends a session.
    Close,
    /// Something else.
    Unknown,
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The transaction number, 1 to [`LAST_TXNR`].
    pub txnr: u32,
    /// The command.
    pub command: Command,
    /// Bytes of data.
    pub data: usize,
    /// Bytes of the header, with the blank in front of the data.
    pub len: usize,
}

/// What stands at the beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// A whole header.
    Header(Header),
    /// The beginning of one.
    Half,
    /// No RELP.
    Broken,
}

/// Up to nine digits at the start of `bytes`: their number, and how many they are. `None`: there are none, or too many.
fn number(bytes: &[u8]) -> Option<(u32, usize)> {
    let digits = bytes.iter().take(10).take_while(|b| b.is_ascii_digit()).count();
    let value = || bytes[..digits].iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    (1..=9).contains(&digits).then(|| (value(), digits))
}

/// Reads a header.
#[must_use]
pub fn read(bytes: &[u8]) -> Beginning {
    parse(bytes).unwrap_or(Beginning::Broken)
}

/// `None`: broken.
fn parse(bytes: &[u8]) -> Option<Beginning> {
    if bytes.is_empty() {
        return Some(Beginning::Half);
    }
    let (txnr, mut at) = number(bytes)?;
    match bytes.get(at) {
        None => return Some(Beginning::Half),
        Some(b' ') if txnr > 0 => at += 1,
        Some(_) => return None, // also 0, which only servers use
    }
    let letters = bytes[at..].iter().take(33).take_while(|b| b.is_ascii_alphabetic()).count();
    if letters > 32 {
        return None;
    }
    let command = match &bytes[at..at + letters] {
        b"open" => Command::Open,
        b"syslog" => Command::Syslog,
        b"close" => Command::Close,
        _ => Command::Unknown,
    };
    match bytes.get(at + letters) {
        None => return Some(Beginning::Half),
        Some(b' ') if letters > 0 => at += letters + 1,
        Some(_) => return None,
    }
    if at == bytes.len() {
        return Some(Beginning::Half);
    }
    let (data, digits) = number(&bytes[at..])?;
    at += digits;
    let len = match bytes.get(at) {
        None => return Some(Beginning::Half),
        // librelp leaves the blank out where no data follow.
        Some(b'\n') if data == 0 => at,
        Some(b' ') => at + 1,
        Some(_) => return None,
    };
    Some(Beginning::Header(Header { txnr, command, data: data as usize, len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_whole_or_not_at_all() {
        let of = |txnr, command, data, len| Beginning::Header(Header { txnr, command, data, len });
        for (bytes, expected) in [
            (&b"1 open 85 relp_version=0"[..], of(1, Command::Open, 85, 10)),
            (b"2 syslog 5 hello\n", of(2, Command::Syslog, 5, 11)),
            (b"5 close 0\n", of(5, Command::Close, 0, 9)),
            (b"5 close 0 \n", of(5, Command::Close, 0, 10)),
            (b"999999999 syslog 999999999 ", of(LAST_TXNR, Command::Syslog, 999_999_999, 27)),
            (b"3 starttls 0\n", of(3, Command::Unknown, 0, 12)),
            (b"0 syslog 1 x", Beginning::Broken),
            (b"1000000000 syslog 1 x", Beginning::Broken),
            (b"1 syslog 1000000000 x", Beginning::Broken),
            (b"1  syslog 1 x", Beginning::Broken),
            (b"1 sys-log 1 x", Beginning::Broken),
            (b"1 syslog x", Beginning::Broken),
            (b"1 syslog 5\n", Beginning::Broken),
            (b"<13>hello", Beginning::Broken),
            (b"GET / HTTP/1.1", Beginning::Broken),
        ] {
            assert_eq!(read(bytes), expected, "{}", bytes.escape_ascii());
            if let Beginning::Header(header) = expected {
                // Without what stands behind the length, more could come.
                let least = if bytes[header.len - 1] == b' ' { header.len } else { header.len + 1 };
                (0..least).for_each(|n| assert_eq!(read(&bytes[..n]), Beginning::Half, "{n}"));
            }
        }
        let long = [b"1 ", &[b'a'; 33][..], b" 1 x"].concat();
        assert_eq!(read(&long), Beginning::Broken);
    }
}
