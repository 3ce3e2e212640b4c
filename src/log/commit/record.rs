//! One record of a commit log: the lines of a group, on their own blocks, with a checksum over all of it. A torn or stale block is no
//! record.
//!
//! Layout, little endian: a head of [`HEAD`] bytes, for each part a description of [`PART`] bytes and the name of its stream, then the
//! bytes of all parts.

use crate::host::mutants::mutant;
use crate::log::checksum::{crc32c, crc32c_append};
use crate::log::trail::{u32_at, u64_at};

/// Unit of the file: what `O_DIRECT` writes at least, and what no common device exceeds.
pub const BLOCK: usize = 4096;
/// Bytes of the head.
pub const HEAD: usize = 64;
/// Bytes that describe a part, without the name of its stream.
pub const PART: usize = 17;
/// Longest record. A damaged length is never believed beyond it.
pub const MOST: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"LWCOMMIT";

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which run of the server wrote it. Only records of the last one count.
    pub generation: u64,
    /// Number of the reactor, over all shards.
    pub reactor: u16,
    /// Shard of the reactor.
    pub shard: u16,
    /// Its number in this log and generation, from 1 on.
    pub sequence: u64,
    /// The lines of all records before this one are durable in segments.
    pub freed_to: u64,
    /// Monotonic nanoseconds: the order of records of several logs. What was answered in one log before something was written to another
    /// has the smaller time.
    pub mono_ns: u64,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
}

/// Consecutive lines of one stream and listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Name of the stream.
    pub stream: &'a str,
    /// Index of the listener in the configuration of that time.
    pub listener: u16,
    /// Lines.
    pub lines: u32,
    /// Their bytes, terminators included.
    pub bytes: &'a [u8],
}

/// Bytes that a record of these parts takes, in whole blocks.
#[must_use]
pub fn len_of(parts: &[Part<'_>]) -> usize {
    whole(HEAD + parts.iter().map(|p| PART + p.stream.len() + p.bytes.len()).sum::<usize>())
}

fn whole(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK)
}

/// Writes a record at the start of `memory`, and returns its bytes in whole blocks; `None`: it does not fit.
#[must_use]
pub fn encode(memory: &mut [u8], head: &Head, parts: &[Part<'_>]) -> Option<usize> {
    let len = len_of(parts);
    if len > memory.len() || len > MOST {
        return None;
    }
    let mut at = HEAD;
    let put = |memory: &mut [u8], at: &mut usize, bytes: &[u8]| {
        memory[*at..*at + bytes.len()].copy_from_slice(bytes);
        *at += bytes.len();
    };
    for part in parts {
        put(memory, &mut at, &[u8::try_from(part.stream.len()).ok()?]);
        put(memory, &mut at, &part.listener.to_le_bytes());
        put(memory, &mut at, &[0; 2]);
        put(memory, &mut at, &part.lines.to_le_bytes());
        put(memory, &mut at, &u32::try_from(part.bytes.len()).ok()?.to_le_bytes());
        put(memory, &mut at, &crc32c(part.bytes).to_le_bytes());
        put(memory, &mut at, part.stream.as_bytes());
    }
    for part in parts {
        put(memory, &mut at, part.bytes);
    }
    memory[at..len].fill(0);
    let total = at as u32;
    memory[0..8].copy_from_slice(MAGIC);
    memory[8..12].copy_from_slice(&total.to_le_bytes());
    memory[12..14].copy_from_slice(&head.reactor.to_le_bytes());
    memory[14..16].copy_from_slice(&head.shard.to_le_bytes());
    memory[16..24].copy_from_slice(&head.generation.to_le_bytes());
    memory[24..32].copy_from_slice(&head.sequence.to_le_bytes());
    memory[32..40].copy_from_slice(&head.freed_to.to_le_bytes());
    memory[40..48].copy_from_slice(&head.mono_ns.to_le_bytes());
    memory[48..52].copy_from_slice(&(parts.len() as u32).to_le_bytes());
    memory[52..60].copy_from_slice(&head.wall_ns.to_le_bytes());
    let crc = checksum(memory, at);
    memory[60..64].copy_from_slice(&crc.to_le_bytes());
    Some(len)
}

/// Over all of a record but the checksum itself.
fn checksum(record: &[u8], total: usize) -> u32 {
    if mutant!("commit_checksum_of_the_head_only") {
        return crc32c(&record[..60]);
    }
    crc32c_append(crc32c(&record[..60]), &record[HEAD..total])
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

/// The generation and the length of what may be a record and begins here; nothing is checked but that it could be one.
#[must_use]
pub fn glance(bytes: &[u8]) -> Option<(u64, usize)> {
    if bytes.len() < HEAD || &bytes[..8] != MAGIC {
        return None;
    }
    let total = u32_at(bytes, 8) as usize;
    (HEAD..=MOST).contains(&total).then(|| (u64_at(bytes, 16), total))
}

/// Takes a record apart; `None`: it is none, or not whole.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(Head, Vec<Part<'_>>)> {
    let (generation, total) = glance(bytes)?;
    if bytes.len() < total || u32_at(bytes, 60) != checksum(bytes, total) {
        return None;
    }
    let head = Head {
        generation,
        reactor: u16_at(bytes, 12),
        shard: u16_at(bytes, 14),
        sequence: u64_at(bytes, 24),
        freed_to: u64_at(bytes, 32),
        mono_ns: u64_at(bytes, 40),
        wall_ns: u64_at(bytes, 52),
    };
    let count = u32_at(bytes, 48) as usize;
    let (mut at, mut parts, mut lens) = (HEAD, Vec::new(), Vec::new());
    for _ in 0..count {
        let described = bytes[..total].get(at..at + PART)?;
        let name_len = usize::from(described[0]);
        let name = bytes[..total].get(at + PART..at + PART + name_len)?;
        let stream = std::str::from_utf8(name).ok()?;
        let (len, crc) = (u32_at(described, 9) as usize, u32_at(described, 13));
        parts.push(Part { stream, listener: u16_at(described, 1), lines: u32_at(described, 5), bytes: &[] });
        lens.push((len, crc));
        at += PART + name_len;
    }
    for (part, (len, crc)) in parts.iter_mut().zip(lens) {
        part.bytes = bytes[..total].get(at..at.checked_add(len)?)?;
        at += len;
        if crc32c(part.bytes) != crc {
            return None;
        }
    }
    (at == total).then_some((head, parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        Head { generation: 7, reactor: 3, shard: 1, sequence: 42, freed_to: 40, mono_ns: 99, wall_ns: 98 }
    }

    fn parts() -> [Part<'static>; 3] {
        [
            Part { stream: "a", listener: 0, lines: 2, bytes: b"one\ntwo\n" },
            Part { stream: "other", listener: 9, lines: 1, bytes: b"three\n" },
            Part { stream: "a", listener: 0, lines: 1, bytes: b"four\n" },
        ]
    }

    #[test]
    fn a_record_comes_back_as_written_and_fills_whole_blocks() {
        let mut memory = vec![0xff; 3 * BLOCK];
        let len = encode(&mut memory, &head(), &parts()).unwrap();
        assert_eq!(len, BLOCK);
        assert_eq!(decode(&memory), Some((head(), parts().to_vec())));
        let empty = encode(&mut memory, &head(), &[]).unwrap();
        assert_eq!((empty, decode(&memory)), (BLOCK, Some((head(), Vec::new()))));
        let long = vec![b'x'; BLOCK];
        let part = Part { stream: "a", listener: 0, lines: 1, bytes: &long };
        assert_eq!(encode(&mut memory, &head(), &[part]), Some(2 * BLOCK));
        assert_eq!(encode(&mut memory[..BLOCK], &head(), &[part]), None, "no room");
    }

    #[test]
    fn each_changed_byte_makes_it_none() {
        let mut memory = vec![0; BLOCK];
        encode(&mut memory, &head(), &parts()).unwrap();
        let total = glance(&memory).unwrap().1;
        for at in 0..total {
            memory[at] ^= 1;
            assert_eq!(decode(&memory), None, "byte {at}");
            memory[at] ^= 1;
        }
    }

    #[test]
    fn a_torn_record_is_none() {
        let long: Vec<u8> = (0..3 * BLOCK).map(|i| i as u8).collect();
        let mut memory = vec![0; 5 * BLOCK];
        let part = Part { stream: "a", listener: 0, lines: 1, bytes: &long };
        let len = encode(&mut memory, &head(), &[part]).unwrap();
        assert_eq!(len, 4 * BLOCK);
        for sector in 0..glance(&memory).unwrap().1 / 512 {
            let mut torn = memory.clone();
            torn[sector * 512..(sector + 1) * 512].fill(0);
            assert_eq!(decode(&torn), None, "sector {sector}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), whole in any::<bool>()) {
            if whole && bytes.len() >= HEAD {
                bytes[..8].copy_from_slice(MAGIC);
                let total = bytes.len();
                bytes[8..12].copy_from_slice(&(total as u32).to_le_bytes());
                let count = u32::from(bytes[70 % total]);
                bytes[48..52].copy_from_slice(&count.to_le_bytes());
                let crc = checksum(&bytes, total);
                bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = decode(&bytes);
        }
    }
}
