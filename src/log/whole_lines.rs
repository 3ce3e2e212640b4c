//! Whole lines of a file in which parts may be missing, as a crash leaves it.

use super::checksum::crc32c_append;
use super::disk::{DiskFile, read_full};
use super::segment::SECTOR;
use std::io;

/// What was found.
pub struct Past {
    /// Byte behind the last whole line.
    pub end: u64,
    /// Lines.
    pub lines: u64,
    /// Their checksum.
    pub crc: u32,
}

/// Whole lines from `start` on, up to the end or to the first hole.
///
/// # Errors
/// Reading failed.
pub fn whole_lines(
    file: &dyn DiskFile,
    start: u64,
    len: u64,
    stop_at_holes: bool,
    buffer: &mut [u8],
) -> io::Result<Past> {
    let mut past = Past { end: start, lines: 0, crc: 0 };
    let mut open_crc = 0; // of the bytes behind `past.end`, which may turn out to belong to a line
    let mut at = start;
    while at < len {
        // Reads end on sector boundaries, so that no sector is looked at in two parts.
        let until = len.min((at + buffer.len() as u64) / SECTOR * SECTOR).max(at + 1);
        let n = read_full(file, &mut buffer[..(until - at) as usize], at)?;
        if n == 0 {
            break;
        }
        let hole = if stop_at_holes { first_hole(&buffer[..n], at) } else { None };
        let bytes = &buffer[..hole.unwrap_or(n)];
        match memchr::memrchr(b'\n', bytes) {
            Some(last) => {
                past.crc = crc32c_append(if past.end == at { past.crc } else { open_crc }, &bytes[..=last]);
                open_crc = crc32c_append(past.crc, &bytes[last + 1..]);
                past.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
                past.end = at + last as u64 + 1;
            }
            None => open_crc = crc32c_append(if past.end == at { past.crc } else { open_crc }, bytes),
        }
        if hole.is_some() {
            break;
        }
        at += n as u64;
    }
    Ok(past)
}

/// Where in `bytes`, which begin at `offset` of the file and there at a line or a sector, the first hole begins.
///
/// Unsynced writes reach the disk sector by sector and in any order. A sector that did not is as it was before: what an
/// earlier write had put there, which may end anywhere (a short write ends inside a line), and NULs up to its end. So a
/// sector that ends in a NUL has a hole from its last other byte on. What the file ends with has no newline behind the hole.
fn first_hole(bytes: &[u8], offset: u64) -> Option<usize> {
    let sector = SECTOR as usize;
    let mut end = sector - (offset % SECTOR) as usize;
    while end <= bytes.len() {
        if bytes[end - 1] == 0 {
            let start = end.saturating_sub(sector);
            return Some(bytes[start..end].iter().rposition(|b| *b != 0).map_or(start, |i| start + i + 1));
        }
        end += sector;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::Disk;
    use crate::log::real_disk::RealDisk;
    const READ: usize = 1 << 20;
    use proptest::prelude::*;

    fn lines_of(content: &[u8], start: u64, stop: bool, buffer: usize) -> Past {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, content).unwrap();
        let file = RealDisk::new().open(&path).unwrap();
        whole_lines(&*file, start, content.len() as u64, stop, &mut vec![0; buffer]).unwrap()
    }

    #[test]
    fn lines_behind_a_hole_are_not_kept() {
        let mut content = b"good\n".to_vec();
        content.resize(4096, b'x');
        content[4095] = b'\n';
        content.resize(3 * 4096, 0);
        content.extend_from_slice(b"later\n");
        assert_eq!(lines_of(&content, 0, true, READ).end, 4096);
        assert_eq!(lines_of(&content, 0, false, READ).end, content.len() as u64);
    }

    #[test]
    fn a_hole_may_begin_inside_a_sector_that_was_written_in_part_before() {
        let mut content = b"durable\n".to_vec();
        content.resize(512, 0);
        content.extend_from_slice(b"rest of a lost line\nlater\n");
        assert_eq!(lines_of(&content, 0, true, READ).end, 8);
        assert_eq!(lines_of(&content, 8, true, READ).end, 8);
        let mut line = b"\0\0 not a hole".to_vec();
        line.resize(511, 0);
        line.extend_from_slice(b"x\n");
        assert_eq!(lines_of(&line, 0, true, READ).end, 513);
    }

    /// Seen on ext4 with blocks of 1 KiB: the first of a page's blocks was there, the rest was NUL, in the middle of a line.
    #[test]
    fn a_hole_may_begin_at_any_sector_in_the_middle_of_a_line() {
        for (start, end) in [(512, 1024), (1024, 4096), (1024, 1536), (3584, 8192)] {
            let mut content = b"good\n".to_vec();
            content.resize(start, b'x');
            content.resize(end, 0);
            content.extend_from_slice(b"rest of the lost line\nlater\n");
            assert_eq!(lines_of(&content, 0, true, READ).end, 5, "{start}..{end}");
        }
    }

    /// A device with sectors of 512 bytes may lose one of a page, and the write before may have been a short one.
    #[test]
    fn a_lost_sector_inside_a_page_is_a_hole_wherever_the_write_before_ended() {
        for written in [0, 1, 200, 511] {
            let mut content = b"first\n".to_vec();
            content.resize(512 + written, b'x');
            content.resize(1024, 0);
            content.extend_from_slice(b"the rest of it\nlater\n");
            content.resize(4096, b'y');
            content.push(b'\n');
            assert_eq!(lines_of(&content, 0, true, READ).end, 6, "{written}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lines_and_checksum_do_not_depend_on_the_reads(
            parts in proptest::collection::vec((0usize..9000, any::<bool>()), 1..8), start in 0usize..5000
        ) {
            let mut content = Vec::new();
            for (len, newline) in &parts {
                content.extend(std::iter::repeat_n(b'a', *len));
                if *newline { content.push(b'\n'); }
            }
            let start = start.min(content.len());
            let small = lines_of(&content, start as u64, true, 4096);
            let large = lines_of(&content, start as u64, true, READ);
            let end = memchr::memrchr(b'\n', &content[start..]).map_or(start, |i| start + i + 1);
            prop_assert_eq!(small.end, end as u64);
            prop_assert_eq!(large.end, end as u64);
            prop_assert_eq!(small.crc, crate::log::checksum::crc32c(&content[start..end]));
            prop_assert_eq!(large.crc, small.crc);
            prop_assert_eq!(small.lines, memchr::memchr_iter(b'\n', &content[start..end]).count() as u64);
        }
    }
}
