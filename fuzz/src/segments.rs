//! Directories made from the input: some that no server would leave, and some that one has written.

use crate::bytes::Bytes;
use crate::disk::{MemoryDisk, Names};
use logweir::log::checksum::crc32c;
use logweir::log::disk::{Caching, Disk};
use logweir::log::names::{Kind, SegmentId};
use logweir::log::segment::{AppendOptions, SECTOR, SealedParts, Segment, Stamp};
use logweir::log::trail::{Header, Record, What};
use std::io::IoSlice;
use std::path::{Path, PathBuf};

pub const BOOT: [u8; 16] = [7; 16];
pub const MOUNT: u64 = 3;
pub const STREAM: &str = "s";

/// Any header.
pub fn header(input: &mut Bytes<'_>) -> Header {
    Header {
        boot: [input.byte(); 16],
        node: [input.byte(); 16],
        mount: input.long(),
        id: SegmentId { shard: input.word(), sequence: input.long() },
        previous: input.long(),
        wall_ns: input.long(),
    }
}

/// Any record.
pub fn record(input: &mut Bytes<'_>) -> Record {
    let what = [What::Write, What::Sync, What::Suspect, What::End, What::Foreign, What::Synced][input.below(6)];
    Record {
        what,
        offset: input.long(),
        len: input.long(),
        lines: u32::from(input.word()),
        crc: u32::from(input.word()),
        wall_ns: input.long(),
        mono_ns: input.long(),
    }
}

/// What is written at once: whole lines.
fn batch(input: &mut Bytes<'_>) -> Vec<u8> {
    let mut bytes = match input.byte() % 4 {
        0 => {
            let most = usize::from(input.byte());
            input.slice(most).to_vec()
        }
        1 => vec![b'x'; input.below(1600)],
        2 => vec![0; input.below(1600)],
        _ => b"ab\n".repeat(input.below(40)),
    };
    bytes.push(b'\n');
    bytes
}

fn lines(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|b| **b == b'\n').count() as u32
}

const NAMES: [&str; 12] = [
    "notes.txt",
    "000-1.log",
    "current-0",
    "current-0.tmp",
    "000-0000000001.trail.tmp",
    "000-0000000002.log.active.tmp",
    "other.tmp",
    "000-0000000001.log.gz",
    "0000-0000000001.log.active",
    "000-00000000001.log",
    "99999-0000000001.log.active",
    "000-0000000009.trail",
];

/// Segments, trails, what crashes and people leave: sound at first, then changed in as many places as the input asks for.
pub fn directory(input: &mut Bytes<'_>) -> Names {
    let mut names = Names::new();
    let dir = Path::new(STREAM);
    for i in 0..1 + u64::from(input.byte() % 3) {
        let id = SegmentId { shard: u16::from(input.byte() >= 200), sequence: i + 1 };
        let (content, trail) = segment(input, id);
        let mut put = |kind, bytes: &[u8]| drop(names.insert(dir.join(id.file_name(kind)), bytes.to_vec()));
        let choice = input.byte();
        match choice % 8 {
            0..5 => put(Kind::Active, &content),
            5 => put(Kind::Sealed, &content),
            6 => [Kind::Active, Kind::Sealed].into_iter().for_each(|kind| put(kind, &content)),
            _ => {}
        }
        if choice & 8 != 0 {
            put(Kind::Torn, b"old");
        }
        if let Some(trail) = trail {
            put(Kind::Trail, &trail);
        }
    }
    for _ in 0..input.byte() % 4 {
        let choice = usize::from(input.byte());
        let name = match NAMES.get(choice % (NAMES.len() + 2)) {
            Some(name) => (*name).to_string(),
            None => String::from_utf8_lossy(input.slice(choice / 8)).replace(['/', '\0'], "_"),
        };
        if !matches!(name.as_str(), "" | "." | "..") {
            let most = usize::from(input.byte());
            names.insert(dir.join(name), input.slice(most).to_vec());
        }
    }
    names
}

fn segment(input: &mut Bytes<'_>, id: SegmentId) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut content, mut records) = (Vec::new(), Vec::new());
    for _ in 0..input.byte() % 6 {
        let mut bytes = batch(input);
        let choice = input.byte();
        let (offset, end) = (content.len() as u64, (content.len() + bytes.len()) as u64);
        let mark = |what, offset| Record { what, offset, len: 0, lines: 0, crc: 0, wall_ns: 1, mono_ns: 1 };
        let mut write =
            Record { len: bytes.len() as u64, lines: lines(&bytes), crc: crc32c(&bytes), ..mark(What::Write, offset) };
        match choice % 16 {
            0..8 => records.push(write),
            8 => {}
            9 => records.push(record(input)),
            10 => {
                write.crc ^= 1 << input.below(32);
                records.push(write);
            }
            11 => {
                write.offset = write.offset.wrapping_sub(u64::from(input.byte()));
                records.push(write);
            }
            12 => {
                write.len += input.long() >> (input.byte() % 64);
                records.push(write);
            }
            13 => {
                // Written in two parts, the first of which ends anywhere.
                let cut = input.below(bytes.len());
                let (a, b) = bytes.split_at(cut);
                let part = |offset, p: &[u8]| Record {
                    len: p.len() as u64,
                    lines: lines(p),
                    crc: crc32c(p),
                    ..mark(What::Write, offset)
                };
                records.extend([part(offset, a), part(offset + cut as u64, b)]);
            }
            14 => {
                write.lines = u32::from(input.byte());
                records.push(write);
            }
            _ => {
                bytes.pop();
                records.push(write);
            }
        }
        content.extend_from_slice(&bytes);
        match choice >> 4 {
            0..4 => records.push(mark(What::Sync, end)),
            4 => records.push(mark(What::Sync, u64::from(input.word()))),
            5 => records.push(mark(What::Suspect, end)),
            6 => records.push(mark(What::End, end)),
            _ => {}
        }
    }
    damage(input, &mut content);
    (content, trail(input, id, &records))
}

fn damage(input: &mut Bytes<'_>, content: &mut Vec<u8>) {
    let choice = input.byte();
    if choice & 4 != 0 {
        let most = usize::from(input.byte());
        content.extend_from_slice(input.slice(most));
    }
    match choice % 4 {
        1 => content.truncate(input.below(content.len() + 1)),
        2 => {
            // Sectors that did not reach the disk.
            let sector = SECTOR as usize;
            let from = (usize::from(input.byte()) * sector).min(content.len());
            let to = (from + (1 + usize::from(input.byte() % 8)) * sector).min(content.len());
            content[from..to].fill(0);
        }
        3 if !content.is_empty() => {
            let at = input.below(content.len());
            content[at] ^= 1 << input.below(8);
        }
        _ => {}
    }
}

fn trail(input: &mut Bytes<'_>, id: SegmentId, records: &[Record]) -> Option<Vec<u8>> {
    let choice = input.byte();
    let mut header = Header {
        boot: if choice & 8 == 0 { BOOT } else { [8; 16] },
        node: [1; 16],
        mount: if choice & 16 == 0 { MOUNT } else { u64::from(choice >> 6) },
        id,
        previous: if choice & 32 == 0 { id.sequence - 1 } else { 0 },
        wall_ns: 1,
    };
    let mut bytes = header.encode_whole(records.iter());
    match choice % 8 {
        4 => return None,
        5 => bytes.truncate(input.below(bytes.len() + 1)),
        6 => {
            let at = input.below(bytes.len());
            bytes[at] ^= 1 << input.below(8);
        }
        7 => {
            header.id.sequence += u64::from(input.byte() % 2);
            bytes = header.encode_whole(records.iter());
            let most = usize::from(input.byte());
            bytes.extend_from_slice(input.slice(most));
        }
        _ => {}
    }
    Some(bytes)
}

/// A segment as a server writes it.
pub struct Sound {
    pub id: SegmentId,
    pub kind: Kind,
    pub content: Vec<u8>,
    /// What it has promised.
    pub synced: u64,
}

impl Sound {
    pub fn path(&self, kind: Kind) -> PathBuf {
        Path::new(STREAM).join(self.id.file_name(kind))
    }
}

/// A directory that a server has written: sealed segments, and the last one maybe still active.
pub fn sound(input: &mut Bytes<'_>) -> (Names, Vec<Sound>) {
    let disk = MemoryDisk::default();
    let dir = Path::new(STREAM);
    let stamp = Stamp { mono_ns: 5, wall_ns: 6 };
    let options = AppendOptions { large: Caching::Keep, reserve_step: 0 };
    let (mut segments, n) = (Vec::new(), 1 + u64::from(input.byte() % 3));
    for sequence in 1..=n {
        let id = SegmentId { shard: 0, sequence };
        let path = dir.join(id.file_name(Kind::Active));
        let create = |path: &Path| disk.create_new(path).expect("a new name");
        let (file, trail) = (create(&path), create(&dir.join(id.file_name(Kind::Trail))));
        let mut segment = Segment::new(id, path.clone(), file, trail);
        let previous = sequence - 1;
        let head = Header { boot: BOOT, node: [1; 16], mount: MOUNT, id, previous, wall_ns: 1 };
        segment.trail().begin(&head);
        let (mut content, mut synced) = (Vec::new(), 0);
        for _ in 0..1 + input.byte() % 4 {
            let bytes = batch(input);
            let (a, b) = bytes.split_at(input.below(bytes.len()));
            let mut slices = [IoSlice::new(a), IoSlice::new(b)];
            segment.append(&mut slices, lines(&bytes).into(), options, stamp, &[], || 1 << 30).expect("there is room");
            content.extend_from_slice(&bytes);
            segment.secure_trail(true).expect("there is room");
            if input.coin() {
                synced = segment.len();
                segment.note_synced(synced, stamp);
            }
        }
        let mut kind = Kind::Active;
        if sequence < n || input.coin() {
            let mut parts = SealedParts { segment, suspect: false, foreign: None };
            parts.make_durable(stamp).expect("nothing fails");
            synced = parts.segment.len();
            kind = Kind::Sealed;
            disk.rename_new(&path, &dir.join(id.file_name(kind))).expect("a new name");
            parts.tidy(stamp).expect("nothing fails");
        } else {
            segment.trail().flush().expect("there is room");
        }
        segments.push(Sound { id, kind, content, synced });
    }
    (disk.names(), segments)
}
