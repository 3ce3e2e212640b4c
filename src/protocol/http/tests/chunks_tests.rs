//! Requests that fill several chunks: each goes on where it was, whatever its API.

use super::api_tests::{coded, listener, records, request};
use super::*;
use serde_json::Value;

const COUNT: usize = 3000;
const JSON: &str = "Content-Type: application/json\r\n";
const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

fn text(i: usize) -> String {
    format!("record {i} {}", "x".repeat(i % 400))
}

fn varint(mut value: usize, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// A field of protobuf that is text or a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(content.len(), &mut out);
    out.extend_from_slice(content);
    out
}

/// An API, and a request of it with all texts.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let all = |f: &dyn Fn(usize) -> String, between: &str| (0..COUNT).map(f).collect::<Vec<_>>().join(between);
    let otlp_record = |i: usize| field(2, &field(5, &field(1, text(i).as_bytes())));
    let otlp: Vec<u8> = (0..COUNT).flat_map(otlp_record).collect();
    let otlp = field(1, &field(2, &otlp));
    let entries: Vec<u8> = (0..COUNT).flat_map(|i| field(2, &field(2, text(i).as_bytes()))).collect();
    let (_, loki) = coded(6, &field(1, &[field(1, b"{a=\"b\"}"), entries].concat()));
    let values = all(&|i| format!("[\"{i}\",\"{}\"]", text(i)), ",");
    let loki_json = format!("{{\"streams\":[{{\"stream\":{{\"a\":\"b\"}},\"values\":[{values}]}}]}}");
    let logs = all(&|i| format!("{{\"body\":{{\"stringValue\":\"{}\"}}}}", text(i)), ",");
    let otlp_json = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{logs}]}}]}}]}}");
    let bulk = all(&|i| format!("{{\"index\":{{}}}}\n{{\"m\":\"{}\"}}\n", text(i)), "");
    let hec = all(&|i| format!("{{\"event\":\"{}\"}}", text(i)), "");
    let raw = all(&text, "\n");
    let datadog = format!("[{}]", all(&|i| format!("{{\"m\":\"{}\"}}", text(i)), ","));
    let gelf = all(&|i| format!("{{\"short_message\":\"x\",\"m\":\"{}\"}}", text(i)), "\n");
    let journal = all(&|i| format!("MESSAGE={}\n\n", text(i)), "");
    vec![
        ("loki", request("POST /loki/api/v1/push", PROTOBUF, &loki)),
        ("loki", request("POST /loki/api/v1/push", JSON, loki_json.as_bytes())),
        ("otlp", request("POST /v1/logs", PROTOBUF, &otlp)),
        ("otlp", request("POST /v1/logs", JSON, otlp_json.as_bytes())),
        ("elasticsearch", request("POST /_bulk", "", bulk.as_bytes())),
        ("splunk", request("POST /services/collector", "", hec.as_bytes())),
        ("splunk", request("POST /services/collector/raw", "", raw.as_bytes())),
        ("datadog", request("POST /api/v2/logs", JSON, datadog.as_bytes())),
        ("gelf", request("POST /gelf", "", gelf.as_bytes())),
        ("journal", request("POST /upload", "", journal.as_bytes())),
    ]
}

#[test]
fn what_fills_several_chunks_goes_on_where_it_was() {
    let expected: Vec<String> = (0..COUNT).map(text).collect();
    for (api, input) in requests() {
        for (chunk, piece) in [(160_000, usize::MAX), (200_001, 5000), (1 << 22, usize::MAX)] {
            let mut options = listener(&[api], Format::Json);
            options.max_body_bytes = 64 << 20;
            let out = run(options, &input, &[piece], chunk, 1 << 20);
            assert!(out.default.len() > 4 * 160_000, "it fills several");
            let message = |record: &Value| {
                let message = &record["msg"];
                message.as_str().or_else(|| message["m"].as_str()).unwrap_or_else(|| panic!("{record}")).to_string()
            };
            let found: Vec<String> = records(&out).iter().map(message).collect();
            assert_eq!(found.len(), COUNT, "{api} {chunk}");
            assert!(found == expected, "{api} {chunk}");
            assert!(statuses(&out.answers)[0].starts_with('2'), "{api}: {}", out.answers);
        }
    }
}
