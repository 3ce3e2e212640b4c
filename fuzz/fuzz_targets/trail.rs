//! Trails: any bytes are read up to the first record that is not whole, and what was written comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::log::checksum::crc32c;
use logweir::log::trail::{HEADER_LEN, RECORD_LEN, Trail, What};
use logweir_fuzz::bytes::Bytes;
use logweir_fuzz::segments::{header, record};

/// Whole and of a known kind, looked at from outside.
fn is_whole(record: &[u8]) -> bool {
    record.len() == RECORD_LEN && (1..=7).contains(&record[0]) && crc32c(&record[..44]).to_le_bytes() == record[44..]
}

fn read(bytes: &[u8]) -> Trail {
    let trail = Trail::parse(bytes);
    let has_header = bytes.len() >= HEADER_LEN
        && bytes.starts_with(b"LWTRAIL1")
        && crc32c(&bytes[..HEADER_LEN - 4]).to_le_bytes() == bytes[HEADER_LEN - 4..HEADER_LEN];
    assert_eq!(trail.header.is_some(), has_header);
    let rest = if has_header { &bytes[HEADER_LEN..] } else { &[] };
    let whole = rest.chunks(RECORD_LEN).take_while(|r| is_whole(r)).count();
    assert_eq!(trail.records.len(), whole, "records up to the first that is not whole");
    let marks = |what| trail.records.iter().filter(move |r| r.what == what).map(|r| r.offset);
    let joined = trail.records.iter().filter(|r| r.what == What::Synced).map(|r| r.offset.saturating_add(r.len));
    assert_eq!(trail.synced_to(), marks(What::Sync).chain(joined).fold(0, u64::max));
    assert_eq!(trail.end(), marks(What::End).next());
    trail
}

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    if choice & 1 == 0 {
        read(rest);
        return;
    }
    let mut input = Bytes(rest);
    let (head, n) = (header(&mut input), usize::from(choice >> 5));
    let records: Vec<_> = (0..n).map(|_| record(&mut input)).collect();
    let mut bytes = head.encode_whole(records.iter());
    assert_eq!(bytes.len(), HEADER_LEN + n * RECORD_LEN);
    let whole = Trail { header: Some(head), records };
    assert_eq!(read(&bytes), whole, "it comes back");
    match choice >> 1 & 3 {
        0 => {
            let flip = usize::from(input.word()) % (bytes.len() * 8);
            bytes[flip / 8] ^= 1 << (flip % 8);
            let left = (flip / 8).checked_sub(HEADER_LEN).map(|at| at / RECORD_LEN);
            let found = read(&bytes);
            assert_eq!(found.header, left.map(|_| head));
            // Nobody looks at the bytes of a record that mean nothing, but they are under its checksum.
            assert_eq!(found.records, whole.records[..left.unwrap_or(0)], "a bit flipped at {flip}");
        }
        1 => {
            bytes.truncate(usize::from(input.word()) % (bytes.len() + 1));
            let left = bytes.len().checked_sub(HEADER_LEN).map(|n| n / RECORD_LEN);
            let found = read(&bytes);
            assert_eq!(found.header, left.map(|_| head));
            assert_eq!(found.records, whole.records[..left.unwrap_or(0)], "cut to {}", bytes.len());
        }
        2 => {
            bytes.extend_from_slice(input.0);
            let found = read(&bytes);
            assert!(found.records.starts_with(&whole.records), "what comes behind changes nothing before");
        }
        _ => {
            for i in 0..bytes.len().min(4) {
                let at = usize::from(input.word()) % bytes.len();
                bytes[at] = bytes[at].wrapping_add(input.byte() | i as u8);
            }
            read(&bytes);
        }
    }
});
