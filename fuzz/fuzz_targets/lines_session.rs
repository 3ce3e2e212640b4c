//! Lines, any bytes, every option: the same as a reader that does it the obvious way, whole and in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::metrics::stats::Unexpected;
use logweir::session::lines::TooLong;
use logweir::session::write::Format;
use logweir_fuzz::framing::{Feed, case, obvious, run, same_counts};
use logweir_fuzz::{seed, text};

fuzz_target!(|data: &[u8]| {
    let Some((seed, rest)) = seed(data) else { return };
    let [choice, size, input @ ..] = rest else { return };
    if logweir::session::beginnings::of(&input[..input.len().min(6)]) == Some(Unexpected::Tls) {
        return; // it ends the connection
    }
    let case = case(*choice, *size, Format::Raw);
    let (expected, records) = obvious(&case, input);
    for feed in [Feed::whole(&case.options), Feed::varied(&case.options, &seed)] {
        let got = run(&case, &feed, input);
        assert_eq!(text(&got.bytes), text(&expected.bytes), "in pieces of {:?}", feed.pieces);
        same_counts(&case, &got, &expected);
        // And by counting alone: every byte is in the file, or dropped, or cut off.
        if !got.closed && !case.options.framing.strips() && case.options.framing.too_long != TooLong::Close {
            let markers: usize = records.iter().map(|r| r.marker.len()).sum();
            let found = (got.bytes.len() - markers) as u64 + got.dropped.bytes + got.cut.bytes;
            let added = found - input.len() as u64;
            let is_open = input.last().is_some_and(|b| *b != b'\n');
            assert!(added <= u64::from(is_open), "{found} bytes of {}", input.len());
        }
    }
});
