//! Bodies of the APIs of other log servers, any bytes: each record is one line of JSON, whatever serde_json cannot read is refused where
//! a whole body is JSON, what the official decoder of a protobuf message takes is taken with all its records, and splits change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::session::write::Format;
use logweir_fuzz::{MAX_LINE, Setup, run_both, seed, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
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

#[path = "../../tests/common/push.rs"]
mod push;

/// How many records the official decoder finds. It refuses more than we do (text that is not UTF-8, fields that nobody looks at here).
fn official_records(api: &str, body: &[u8]) -> Option<usize> {
    if api == "loki" {
        let push = push::PushRequest::decode(body).ok()?;
        // Unknown fields alone are a body of something else, which is refused.
        let is_one = body.is_empty() || !push.streams.is_empty();
        return is_one.then(|| push.streams.iter().map(|stream| stream.entries.len()).sum());
    }
    let export = ExportLogsServiceRequest::decode(body).ok()?;
    let scopes = export.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    Some(scopes.map(|scope| scope.log_records.len()).sum())
}

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
    if kind == "application/x-protobuf"
        && let Some(records) = official_records(apis[0], plain)
    {
        assert!(status.starts_with('2'), "{status}: {}", text(plain));
        let lines = out.default.iter().filter(|b| **b == b'\n').count();
        // What is too long and cannot be cut is dropped.
        assert!(
            lines == records || (lines < records && plain.len() > MAX_LINE),
            "{lines} of {records}: {}",
            text(plain)
        );
    }
    if is_json && serde_json::from_slice::<IgnoredAny>(plain).is_err() {
        assert!(!status.starts_with('2'), "{status}: {}", text(plain));
    }
});
