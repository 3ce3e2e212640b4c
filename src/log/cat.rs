//! Reads lines back, in the order of shard and sequence.

use super::content::{Content, ContentReader, TEXTS};
use super::names::{Kind, SegmentId};
use std::io::{self, Read, Write};
use std::path::Path;

const READ: usize = 256 * 1024;

/// The segments of a stream in reading order, sealed, compressed or active. It includes segments of which only the trail was seen,
/// because the text may have been renamed while the directory was being read.
///
/// # Errors
/// The directory cannot be listed.
pub fn segments(stream_dir: &Path) -> io::Result<Vec<SegmentId>> {
    let mut ids: Vec<SegmentId> = crate::host::sys::names(stream_dir)?
        .into_iter()
        .filter_map(|name| SegmentId::parse(&name))
        .filter(|(_, kind)| TEXTS.contains(kind) || *kind == Kind::Trail)
        .map(|(id, _)| id)
        .collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// Copies whole lines of `from` to `to`; a torn line at the end is never shown.
///
/// # Errors
/// Reading or writing failed.
pub fn copy_lines(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; READ];
    let mut held: Vec<u8> = Vec::new(); // a line that is longer than what was read of it so far
    let mut copied = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let Some(last) = memchr::memrchr(b'\n', &buffer[..n]) else {
            held.extend_from_slice(&buffer[..n]);
            continue;
        };
        to.write_all(&held)?;
        to.write_all(&buffer[..=last])?;
        copied += (held.len() + last + 1) as u64;
        held.clear();
        held.extend_from_slice(&buffer[last + 1..n]);
    }
}

/// Copies the whole lines between two offsets.
///
/// # Errors
/// Reading or writing failed.
pub fn copy_range(from: &dyn Content, start: u64, end: u64, to: &mut impl Write) -> io::Result<u64> {
    copy_lines(&mut ContentReader::new(from, start).take(end.saturating_sub(start)), to)
}

/// Makes control bytes visible, for terminals: everything below space but newline and tab, and DEL, as `\xNN`.
pub struct Escaping<W: Write> {
    to: W,
    /// The last byte written may be the first of a control; it comes out with the next one.
    holds_c2: bool,
}

impl<W: Write> Escaping<W> {
    /// In front of `to`.
    pub fn new(to: W) -> Self {
        Escaping { to, holds_c2: false }
    }
}

/// C1 controls arrive as UTF-8 (0xC2 0x80..0x9F) and are controls to a terminal too.
fn is_c1(next: Option<&u8>) -> bool {
    next.is_some_and(|n| (0x80..0xa0).contains(n))
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.holds_c2 && !bytes.is_empty() {
            self.holds_c2 = false;
            self.to.write_all(if is_c1(bytes.first()) { b"\\xc2" } else { b"\xc2" })?;
        }
        let mut plain = 0;
        for (i, b) in bytes.iter().enumerate() {
            if *b == 0xc2 && i + 1 == bytes.len() {
                self.to.write_all(&bytes[plain..i])?;
                self.holds_c2 = true;
                return Ok(bytes.len());
            }
            let c1 = *b == 0xc2 && is_c1(bytes.get(i + 1));
            if (*b < 0x20 && *b != b'\n' && *b != b'\t') || *b == 0x7f || c1 {
                self.to.write_all(&bytes[plain..i])?;
                write!(self.to, "\\x{b:02x}")?;
                plain = i + 1;
            }
        }
        self.to.write_all(&bytes[plain..])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.holds_c2) {
            self.to.write_all(b"\xc2")?;
        }
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_not_shown() {
        let mut out = Vec::new();
        copy_lines(&mut &b"one\ntwo\nthr"[..], &mut out).unwrap();
        assert_eq!(out, b"one\ntwo\n");
    }

    #[test]
    fn lines_longer_than_the_buffer_come_out_whole() {
        let mut content = vec![b'x'; 3 * READ];
        content.push(b'\n');
        let mut out = Vec::new();
        copy_lines(&mut &content[..], &mut out).unwrap();
        assert!(out == content);
    }

    #[test]
    fn terminals_see_no_control_bytes() {
        let mut out = Vec::new();
        Escaping::new(&mut out).write_all(b"a\x1b[31m\tb\x7f\xc2\x9bc\n").unwrap();
        assert_eq!(out, b"a\\x1b[31m\tb\\x7f\\xc2\x9bc\n");
    }

    /// A line longer than what is read at a time is written in two parts.
    #[test]
    fn a_control_in_two_parts_is_one() {
        let mut line = vec![b'x'; READ - 1];
        line.extend_from_slice("\u{9b}31m\n".as_bytes());
        let (mut out, mut plain) = (Vec::new(), Vec::new());
        copy_lines(&mut &line[..], &mut Escaping::new(&mut out)).unwrap();
        assert_eq!(out[READ - 1..], *b"\\xc2\x9b31m\n");
        let mut escaping = Escaping::new(&mut plain);
        escaping.write_all(b"\xc2").unwrap();
        escaping.write_all(b"\xa7 5\xc2").unwrap();
        escaping.flush().unwrap();
        assert_eq!(plain, b"\xc2\xa7 5\xc2");
    }
}
