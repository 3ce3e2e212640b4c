//! Lines that can be checked by themselves: `c=CONNECTION n=NUMBER crc=CRC32C payload`, all of one length.

use std::io::Write;

/// Least length of a numbered line with its newline.
pub const NUMBERED_MIN: usize = 40;

/// Appends a numbered line of `len` bytes, newline included.
///
/// # Panics
/// If `len` is below [`NUMBERED_MIN`].
pub fn numbered(connection: u32, number: u64, len: usize, to: &mut Vec<u8>) {
    assert!(len >= NUMBERED_MIN, "a numbered line has at least {NUMBERED_MIN} bytes");
    let start = to.len();
    // Writing to a Vec cannot fail.
    let _ = write!(to, "c={connection:05} n={number:010} crc=00000000 ");
    let head = to.len() - start;
    let filler = b"the quick brown fox jumps over the lazy dog; ";
    to.extend(filler.iter().cycle().skip(number as usize % filler.len()).take((len - 1).saturating_sub(head)));
    let crc = checksum(&to[start..]);
    let at = start + 25;
    let digits = format!("{crc:08x}");
    to[at..at + 8].copy_from_slice(digits.as_bytes());
    to.push(b'\n');
}

fn checksum(line: &[u8]) -> u32 {
    // Of everything but the checksum's own eight digits.
    crate::log::checksum::crc32c_append(crate::log::checksum::crc32c(&line[..25]), &line[33..])
}

/// Reads a numbered line (without its newline) back: connection and number; `None` if anything in it was changed.
#[must_use]
pub fn parse_numbered(line: &[u8]) -> Option<(u32, u64)> {
    if line.len() < NUMBERED_MIN - 1 || &line[..2] != b"c=" || &line[7..10] != b" n=" || &line[20..25] != b" crc=" {
        return None;
    }
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&line[range]).ok();
    let crc = u32::from_str_radix(text(25..33)?, 16).ok()?;
    (crc == checksum(line)).then_some(())?;
    Some((text(2..7)?.parse().ok()?, text(10..20)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_lines_come_back_and_changes_show() {
        for len in [NUMBERED_MIN, 41, 250] {
            let mut line = Vec::new();
            numbered(7, 123, len, &mut line);
            assert_eq!(line.len(), len);
            line.pop();
            assert_eq!(parse_numbered(&line), Some((7, 123)));
            for i in 0..line.len() {
                let mut changed = line.clone();
                changed[i] ^= 1;
                assert_ne!(parse_numbered(&changed), Some((7, 123)), "byte {i}");
            }
        }
    }
}
