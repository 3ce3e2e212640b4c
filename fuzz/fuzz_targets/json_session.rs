//! Lines as JSON, any bytes, every option: each record is one line of JSON that gives the line back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::metrics::stats::Unexpected;
use logweir::session::write::Format;
use logweir_fuzz::framing::{Feed, case, obvious, run, same_counts};
use logweir_fuzz::{seed, text};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Some((seed, rest)) = seed(data) else { return };
    let [choice, size, input @ ..] = rest else { return };
    if logweir::session::beginnings::of(&input[..input.len().min(6)]) == Some(Unexpected::Tls) {
        return; // it ends the connection
    }
    let case = case(*choice, *size, Format::Json);
    let (expected, records) = obvious(&case, input);
    let whole = run(&case, &Feed::whole(&case.options), input);
    same_counts(&case, &whole, &expected);
    let found: Vec<&[u8]> = whole.bytes.split_inclusive(|b| *b == b'\n').collect();
    assert_eq!(found.len(), records.len());
    for (found, record) in found.iter().zip(&records) {
        let value: Value = serde_json::from_slice(found).unwrap_or_else(|e| panic!("{}: {e}", text(found)));
        // What is not UTF-8 becomes U+FFFD, once for each part that cannot be more.
        let message = String::from_utf8_lossy(&record.kept) + record.marker.as_str();
        let all = json!({
            "t": "1970-01-01T00:00:00.000Z",
            "listener": case.options.listener,
            "peer": case.peer.to_string(),
            "attrs": {},
            "msg": message,
        });
        assert_eq!(value, all);
    }
    let varied = run(&case, &Feed::varied(&case.options, &seed), input);
    assert_eq!(text(&varied.bytes), text(&whole.bytes), "whole and in pieces");
    same_counts(&case, &varied, &whole);
});
