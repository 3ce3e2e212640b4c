//! Bodies of the APIs of other log servers, any bytes: each record is one line of JSON, whatever serde_json cannot read is refused where
//! a whole body is JSON, and splits change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::session::write::Format;
use logweir_fuzz::{Setup, run_both, seed, text};
use serde::de::IgnoredAny;

/// An API, a path, a media type, and whether the whole body is one JSON value.
const APIS: [(&[&str], &str, &str, bool); 10] = [
    (&["loki"], "/loki/api/v1/push", "application/json", true),
    (&["loki"], "/loki/api/v1/push", "application/x-protobuf", false),
    (&["elasticsearch"], "/_bulk", "application/x-ndjson", false),
    (&["elasticsearch"], "/logs/_doc", "application/json", true),
    (&["splunk"], "/services/collector/event", "", false),
    (&["otlp"], "/v1/logs", "application/json", true),
    (&["otlp"], "/v1/logs", "application/x-protobuf", false),
    (&["datadog"], "/api/v2/logs", "application/json", true),
    (&["gelf"], "/gelf", "", false),
    (&["journal"], "/upload", "application/vnd.fdo.journal", false),
];

fuzz_target!(|data: &[u8]| {
    let Some((seed, rest)) = seed(data) else { return };
    let [choice, plain @ ..] = rest else { return };
    let (apis, path, kind, is_json) = APIS[usize::from(*choice) % APIS.len()];
    // Loki's protobuf comes in snappy, which would hide everything from mutations.
    let packed = match (apis, kind) {
        (["loki"], "application/x-protobuf") => snap::raw::Encoder::new().compress_vec(plain).expect("it is short"),
        _ => plain.to_vec(),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    let setup = Setup { format: Format::Json, apis, chunk: 60_000, ..Setup::whole() };
    let out = run_both(&setup, &seed, &[head.as_bytes(), &packed].concat());
    let [status] = &out.statuses[..] else { panic!("{:?}", out.statuses) };
    assert!(matches!(status.as_str(), "200" | "201" | "202" | "204" | "400" | "413"), "{status}: {}", text(plain));
    for line in out.default.split_inclusive(|b| *b == b'\n') {
        assert!(line.ends_with(b"}\n"), "{}", text(line));
        serde_json::from_slice::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {}", text(line)));
    }
    if is_json && serde_json::from_slice::<IgnoredAny>(plain).is_err() {
        assert!(!status.starts_with('2'), "{status}: {}", text(plain));
    }
});
