//! Notes of shipping: any text is a note or none, and what is one comes back as it was written. So are positions and what shippers say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::log::names::is_stream_name;
use logweir::log::ship::Position;
use logweir::log::ship::note::{self, Positions};
use logweir::log::ship::status::Status;
use logweir_fuzz::bytes::Bytes;

const STREAMS: [&str; 3] = ["a", "other", "web-1"];

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Some(positions) = note::parse(&text) {
        assert!(positions.keys().all(|(stream, _)| is_stream_name(stream)));
        assert_eq!(note::parse(&note::text(&positions)), Some(positions));
    }
    if let Some(position) = Position::parse(&text) {
        let (sequence, offset) = text.split_once(' ').unwrap();
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        assert!(number(sequence) && number(offset), "{text:?}");
        assert_eq!(Position::parse(&position.to_string()), Some(position));
    }
    if let Some(status) = Status::parse(&text) {
        assert_eq!(Status::parse(&status.text()), Some(status));
    }
    // And whatever is noted comes back.
    let mut input = Bytes(data);
    let mut positions = Positions::new();
    for _ in 0..input.below(20) {
        let stream = STREAMS[input.below(STREAMS.len())].to_string();
        let (shard, sequence, offset) = (input.word(), input.long(), input.long());
        positions.insert((stream, shard), Position { sequence, offset });
    }
    assert_eq!(note::parse(&note::text(&positions)), Some(positions));
});
