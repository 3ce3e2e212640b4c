//! Commit logs: whatever stands in the blocks, what is read is whole records of one generation, in sequence, and all of it that is needed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::log::commit::record::{BLOCK, Head, Part, decode, encode};
use logweir::log::commit::scan;
use logweir::log::disk::Disk;
use logweir_fuzz::bytes::Bytes;
use logweir_fuzz::disk::{MemoryDisk, Names};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Blocks of the log.
const BLOCKS: usize = 12;
const STREAMS: [&str; 3] = ["a", "other", "web-1"];

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let mut log = vec![0; BLOCKS * BLOCK];
    let mut memory = vec![0; 4 * BLOCK];
    for _ in 0..input.below(24) {
        let block = input.below(BLOCKS);
        if input.coin() {
            // Anything, over what is there.
            let bytes = input.slice(300);
            let at = (block * BLOCK + input.below(BLOCK)).min(log.len() - bytes.len());
            log[at..at + bytes.len()].copy_from_slice(bytes);
            continue;
        }
        let mut parts = Vec::new();
        for _ in 0..input.below(4) {
            let stream = STREAMS[input.below(STREAMS.len())];
            let lines = u32::from(input.byte());
            parts.push(Part { stream, listener: input.word(), lines, bytes: input.slice(2000) });
        }
        let head = Head {
            generation: 1 + u64::from(input.coin()),
            reactor: input.byte().into(),
            shard: input.byte().into(),
            sequence: u64::from(input.byte() % 16),
            freed_to: u64::from(input.byte() % 16),
            mono_ns: input.long(),
            wall_ns: input.long(),
        };
        if let Some(len) = encode(&mut memory, &head, &parts) {
            assert_eq!(decode(&memory), Some((head, parts)));
            // As far as the file goes: the rest is as a torn write leaves it.
            let at = block * BLOCK;
            let len = len.min(log.len() - at);
            log[at..at + len].copy_from_slice(&memory[..len]);
        }
    }
    let path = PathBuf::from("/commit/0");
    let names: Names = [(path.clone(), log.clone())].into_iter().collect();
    let disk = MemoryDisk::with(&names, 1);
    let file = disk.open(&path).unwrap();
    for generation in [1, 2] {
        let mut whole: BTreeMap<u64, Vec<Head>> = BTreeMap::new();
        for at in (0..log.len()).step_by(BLOCK) {
            if let Some((head, _)) = decode(&log[at..]).filter(|(head, _)| head.generation == generation) {
                whole.entry(head.sequence).or_default().push(head);
            }
        }
        let from = whole.values().flatten().map(|head| head.freed_to).max().unwrap_or(0);
        let needed = scan::needed(&*file, generation).unwrap();
        // One sequence number may stand there twice only if somebody has copied blocks about; then the last one counts.
        let is_odd = whole.values().any(|heads| heads.len() > 1);
        let expected = (from..).take_while(|sequence| whole.contains_key(sequence)).count();
        assert!(is_odd || needed.len() == expected, "{needed:?} of {whole:?}");
        for (found, sequence) in needed.iter().zip(needed.first().map_or(0, |f| f.head.sequence)..) {
            assert_eq!((found.head.generation, found.head.sequence), (generation, sequence));
            scan::read(&*file, found).unwrap();
        }
    }
    let last = scan::last_generation(&*file).unwrap();
    assert!(last <= 2 || decode(&log).is_some());
});
