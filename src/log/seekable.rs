//! Compressed segments, `NAME.log.zst`. They are zstd in frames of [`FRAME`] bytes of text each, with a table of the frames at
//! the end, so that a reader can begin anywhere. Any zstd tool reads them whole (`zstdcat`, `zstdgrep`): the table is in a
//! frame that such tools skip.
//!
//! The format is zstd's "seekable format" 0.1.0 (contrib/seekable_format/zstd_seekable_compression_format.md), without its
//! optional checksums, because each frame has zstd's own.

use super::content::{Content, read_full};
use super::disk::{DiskFile, append_all, read_full as read_from};
use std::io;
use std::sync::{Mutex, PoisonError};
use zstd::bulk::{Compressor, Decompressor};
use zstd::stream::raw::CParameter;

/// Bytes of text in a frame. A reader that seeks decompresses at most this much too much.
pub const FRAME: usize = 1 << 20;
/// The longest frame that is read in files of other programs.
const FRAME_MOST: u32 = 16 << 20;
/// Memory for compressing at the levels that are allowed: text, frame, and zstd's tables for inputs of this length (measured
/// at level 19, which takes the most; 6 MiB do at level 3).
pub const MEMORY: usize = 24 << 20;

const SKIPPABLE: u32 = 0x184D_2A5E;
const MAGIC: u32 = 0x8F92_EAB1;
/// Frames (4), descriptor (1), magic (4).
const FOOTER: usize = 9;
const ENTRY: usize = 8;

/// Compresses a file into another, which is empty, and returns the text's length and CRC32C. `go_on` is asked between frames.
///
/// # Errors
/// Reading, compressing or appending failed; `Interrupted` where `go_on` said no.
pub fn compress(
    from: &dyn DiskFile,
    to: &dyn DiskFile,
    level: i32,
    go_on: &dyn Fn() -> bool,
) -> io::Result<(u64, u32)> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    let mut text = vec![0; FRAME];
    let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME));
    let mut table = Vec::new();
    let (mut at, mut crc) = (0, 0);
    loop {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = read_from(from, &mut text, at)?;
        if n == 0 {
            break;
        }
        frame.clear();
        compressor.compress_to_buffer(&text[..n], &mut frame)?;
        append_all(to, &frame)?;
        table.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        table.extend_from_slice(&(n as u32).to_le_bytes());
        crc = crate::log::checksum::crc32c_append(crc, &text[..n]);
        at += n as u64;
    }
    let frames = (table.len() / ENTRY) as u32;
    let mut tail = SKIPPABLE.to_le_bytes().to_vec();
    tail.extend_from_slice(&((table.len() + FOOTER) as u32).to_le_bytes());
    tail.extend_from_slice(&table);
    tail.extend_from_slice(&frames.to_le_bytes());
    tail.push(0);
    tail.extend_from_slice(&MAGIC.to_le_bytes());
    append_all(to, &tail)?;
    Ok((at, crc))
}

/// The text of a compressed segment.
pub struct Seekable<C> {
    file: C,
    /// Where each frame begins: in the file, and in the text. One more for the end.
    frames: Vec<(u64, u64)>,
    /// The frame that was read last.
    last: Mutex<(Option<usize>, Vec<u8>)>,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a compressed segment: {what}"))
}

impl<C: Content> Seekable<C> {
    /// Reads the table.
    ///
    /// # Errors
    /// There is none, or it does not fit the file.
    pub fn open(file: C) -> io::Result<Seekable<C>> {
        let size = file.size()?;
        let mut footer = [0; FOOTER];
        let at = size.checked_sub(FOOTER as u64).ok_or_else(|| bad("it is too short"))?;
        read_full(&file, &mut footer, at)?;
        let count = u32_at(&footer, 0) as usize;
        if u32_at(&footer, 5) != MAGIC {
            return Err(bad("its table of frames is not there"));
        }
        // Bit 7: each entry has a checksum too. Bits 2 to 6 must be 0.
        let entry = if footer[4] & 0x80 == 0 { ENTRY } else { ENTRY + 4 };
        let len = count.checked_mul(entry).filter(|len| footer[4] & 0x7c == 0 && *len as u64 + 8 <= at);
        let len = len.ok_or_else(|| bad("its table of frames does not fit"))?;
        let mut table = vec![0; len + 8];
        let start = at - table.len() as u64;
        read_full(&file, &mut table, start)?;
        if u32_at(&table, 0) != SKIPPABLE || u32_at(&table, 4) as usize != len + FOOTER {
            return Err(bad("its table of frames does not begin where it should"));
        }
        let mut frames = Vec::with_capacity(count + 1);
        let (mut packed, mut plain) = (0, 0);
        for entry in table[8..].chunks_exact(entry) {
            frames.push((packed, plain));
            let (in_file, in_text) = (u32_at(entry, 0), u32_at(entry, 4));
            if in_text > FRAME_MOST || in_file > 2 * FRAME_MOST {
                return Err(bad("a frame is too large"));
            }
            packed += u64::from(in_file);
            plain += u64::from(in_text);
        }
        frames.push((packed, plain));
        if packed != start {
            return Err(bad("its frames do not end where the table begins"));
        }
        Ok(Seekable { file, frames, last: Mutex::new((None, Vec::new())) })
    }

    fn decompress(&self, frame: usize, text: &mut Vec<u8>) -> io::Result<()> {
        let ((from, begin), (to, end)) = (self.frames[frame], self.frames[frame + 1]);
        let mut packed = vec![0; (to - from) as usize];
        let n = read_full(&self.file, &mut packed, from)?;
        text.clear();
        text.reserve_exact((end - begin) as usize);
        let damaged = |_| bad(&format!("frame {frame}, bytes {from}..{to} of the file, does not decompress"));
        Decompressor::new()?.decompress_to_buffer(&packed[..n], text).map_err(damaged)?;
        if text.len() as u64 != end - begin {
            return Err(bad(&format!("frame {frame} holds less than its table says")));
        }
        Ok(())
    }
}

impl<C: Content> Content for Seekable<C> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.frames.last().map_or(0, |(_, plain)| *plain))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let frame = self.frames.partition_point(|(_, plain)| *plain <= offset);
        let Some(frame) = frame.checked_sub(1).filter(|f| f + 1 < self.frames.len()) else { return Ok(0) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, text) = &mut *last;
        if *number != Some(frame) {
            *number = None;
            self.decompress(frame, text)?;
            *number = Some(frame);
        }
        let from = &text[(offset - self.frames[frame].1) as usize..];
        let n = from.len().min(into.len());
        into[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::content::ContentReader;
    use crate::log::disk::Disk;
    use crate::log::real_disk::RealDisk;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Read;

    /// Compresses `text` and returns the file with its directory.
    fn compressed(text: &[u8], level: i32) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), text).unwrap();
        let disk = RealDisk::new();
        let (from, to) = (disk.open(&dir.path().join("a")).unwrap(), disk.create_new(&dir.path().join("b")).unwrap());
        let done = compress(&*from, &*to, level, &|| true).unwrap();
        assert_eq!(done, (text.len() as u64, crate::log::checksum::crc32c(text)));
        let file = File::open(dir.path().join("b")).unwrap();
        (dir, file)
    }

    fn text(len: usize) -> Vec<u8> {
        (0..).flat_map(|i: u32| format!("line {i} of {}\n", i * 7).into_bytes()).take(len).collect()
    }

    #[test]
    fn any_part_can_be_read() {
        let text = text(2 * FRAME + 12345);
        let (_dir, file) = compressed(&text, 3);
        let seekable = Seekable::open(file).unwrap();
        assert_eq!(seekable.size().unwrap(), text.len() as u64);
        for at in [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME + 12344, 2 * FRAME + 12345, 9 << 20] {
            let mut into = [0; 100];
            let n = read_full(&seekable, &mut into, at as u64).unwrap();
            assert_eq!(&into[..n], &text[at.min(text.len())..(at + 100).min(text.len())], "{at}");
        }
        let mut all = Vec::new();
        ContentReader::new(&seekable, 0).read_to_end(&mut all).unwrap();
        assert!(all == text);
    }

    #[test]
    fn other_tools_read_it_whole() {
        let text = text(FRAME + 10);
        let (_dir, file) = compressed(&text, 1);
        assert!(zstd::decode_all(file).unwrap() == text);
        let (_dir, empty) = compressed(b"", 1);
        assert_eq!(Seekable::open(empty).unwrap().size().unwrap(), 0);
    }

    #[test]
    fn compressing_stays_within_its_memory() {
        for level in [1, 3, 19] {
            let mut context = zstd::zstd_safe::CCtx::create();
            context.set_parameter(CParameter::CompressionLevel(level)).unwrap();
            let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME));
            context.compress2(&mut packed, &text(FRAME)).unwrap();
            // And the text, the frame, and as much for reading it back.
            let all = context.sizeof() + 4 * FRAME + (64 << 10);
            println!("level {level}: {} KiB of tables", context.sizeof() >> 10);
            assert!(all <= MEMORY, "level {level}: {all}");
        }
    }

    #[test]
    fn it_can_be_called_off() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), text(2 * FRAME)).unwrap();
        let disk = RealDisk::new();
        let (from, to) = (disk.open(&dir.path().join("a")).unwrap(), disk.create_new(&dir.path().join("b")).unwrap());
        let error = compress(&*from, &*to, 3, &|| false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_changed_bit_is_found() {
        let text = text(FRAME + 100);
        let (dir, file) = compressed(&text, 3);
        let size = file.size().unwrap();
        for at in [10, size / 2, size - 3, size - 12, size - 20] {
            let mut bytes = std::fs::read(dir.path().join("b")).unwrap();
            bytes[at as usize] ^= 4;
            let path = dir.path().join("c");
            std::fs::write(&path, bytes).unwrap();
            let read = Seekable::open(File::open(&path).unwrap()).and_then(|seekable| {
                let mut all = Vec::new();
                ContentReader::new(&seekable, 0).read_to_end(&mut all).map(|_| all)
            });
            assert!(read.is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0u32..20, descriptor in any::<u8>(),
        ) {
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.push(descriptor);
            bytes.extend_from_slice(&MAGIC.to_le_bytes());
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("f"), bytes).unwrap();
            if let Ok(seekable) = Seekable::open(File::open(dir.path().join("f")).unwrap()) {
                let _ = read_full(&seekable, &mut [0; 1000], 0);
            }
        }
    }
}
