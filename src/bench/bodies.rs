//! Bodies for `bench http --api`: one request of each API, made once and sent again and again, so that the generator costs little.

use super::lines;
use crate::words;
use std::fmt::Write;

words!(
    /// What a request of `bench http` looks like.
    BenchApi {
        Lines = "lines", LokiJson = "loki-json", Loki = "loki", Elasticsearch = "elasticsearch", Splunk = "splunk",
        Otlp = "otlp", OtlpJson = "otlp-json", Datadog = "datadog",
    }
);

impl std::str::FromStr for BenchApi {
    type Err = String;

    fn from_str(text: &str) -> Result<BenchApi, String> {
        use BenchApi::{Datadog, Elasticsearch, Lines, Loki, LokiJson, Otlp, OtlpJson, Splunk};
        let all = [Lines, LokiJson, Loki, Elasticsearch, Splunk, Otlp, OtlpJson, Datadog];
        let names = || all.map(|api| api.to_string()).join(", ");
        all.into_iter().find(|api| api.to_string() == text).ok_or_else(|| format!("expected one of {}", names()))
    }
}

/// A request: its path, its header fields, its body, and how long that is before compression.
pub struct Body {
    /// The path.
    pub path: &'static str,
    /// Header fields, each with its line end.
    pub headers: &'static str,
    /// The body as it is sent.
    pub bytes: Vec<u8>,
    /// Bytes before compression.
    pub plain: usize,
}

const JSON: &str = "Content-Type: application/json\r\n";
const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
/// Nanoseconds since 1970 of the first record.
const TIME: u64 = 1_800_000_000_000_000_000;

/// A request of so many records with texts of so many bytes.
pub fn body(api: BenchApi, records: u32, length: u32) -> Body {
    let texts: Vec<String> = (0..u64::from(records))
        .map(|i| {
            let mut line = Vec::new();
            lines::numbered(0, i, length as usize, &mut line);
            String::from_utf8_lossy(line.trim_ascii_end()).into_owned()
        })
        .collect();
    let numbered = || (TIME..).zip(&texts);
    let (path, headers, plain): (_, _, Vec<u8>) = match api {
        BenchApi::Lines => ("/", "", texts.iter().map(|text| format!("{text}\n")).collect::<String>().into()),
        BenchApi::LokiJson => {
            let values: Vec<String> = numbered().map(|(time, text)| format!("[\"{time}\",\"{text}\"]")).collect();
            let stream = "{\"job\":\"bench\",\"host\":\"a\"}";
            let body = format!("{{\"streams\":[{{\"stream\":{stream},\"values\":[{}]}}]}}", values.join(","));
            ("/loki/api/v1/push", JSON, body.into())
        }
        BenchApi::Loki => {
            let mut stream = field(1, b"{job=\"bench\", host=\"a\"}");
            for (time, text) in numbered() {
                let time = [number(1, time / 1_000_000_000), number(2, time % 1_000_000_000)].concat();
                stream.extend(field(2, &[field(1, &time), field(2, text.as_bytes())].concat()));
            }
            ("/loki/api/v1/push", PROTOBUF, field(1, &stream))
        }
        BenchApi::Elasticsearch => {
            let pair = |text: &String| format!("{{\"create\":{{\"_index\":\"bench\"}}}}\n{{\"message\":\"{text}\"}}\n");
            ("/_bulk", "Content-Type: application/x-ndjson\r\n", texts.iter().map(pair).collect::<String>().into())
        }
        BenchApi::Splunk => {
            let event = |text: &String| format!("{{\"time\":1800000000.5,\"host\":\"a\",\"event\":\"{text}\"}}");
            ("/services/collector/event?channel=bench", JSON, texts.iter().map(event).collect::<String>().into())
        }
        BenchApi::Otlp => {
            let text_value = |text: &str| field(1, text.as_bytes());
            let pair = |key: &str, value: &str| [field(1, key.as_bytes()), field(2, &text_value(value))].concat();
            let resource =
                field(1, &[field(1, &pair("service.name", "bench")), field(1, &pair("host.name", "a"))].concat());
            let mut scope = field(1, &field(1, b"bench"));
            for (time, text) in numbered() {
                let record = [
                    fixed64(1, time),
                    number(2, 9),
                    field(3, b"INFO"),
                    field(5, &text_value(text)),
                    field(6, &pair("thread", "main")),
                    fixed64(11, time),
                ];
                scope.extend(field(2, &record.concat()));
            }
            ("/v1/logs", PROTOBUF, field(1, &[resource, field(2, &scope)].concat()))
        }
        BenchApi::OtlpJson => {
            let mut records = String::new();
            for (i, (time, text)) in numbered().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                let _ = write!(
                    records,
                    "{comma}{{\"timeUnixNano\":\"{time}\",\"severityNumber\":9,\"severityText\":\"INFO\",\"body\":{{\"stringValue\":\"{text}\"}},\"attributes\":[{{\"key\":\"thread\",\"value\":{{\"stringValue\":\"main\"}}}}],\"observedTimeUnixNano\":\"{time}\"}}"
                ); // writing to a String cannot fail
            }
            let resource = "{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":\"bench\"}},{\"key\":\"host.name\",\"value\":{\"stringValue\":\"a\"}}]}";
            let scopes = format!("[{{\"scope\":{{\"name\":\"bench\"}},\"logRecords\":[{records}]}}]");
            let body = format!("{{\"resourceLogs\":[{{\"resource\":{resource},\"scopeLogs\":{scopes}}}]}}");
            ("/v1/logs", JSON, body.into())
        }
        BenchApi::Datadog => {
            let log = |text: &String| format!("{{\"service\":\"bench\",\"message\":\"{text}\"}}");
            let logs: Vec<String> = texts.iter().map(log).collect();
            ("/api/v2/logs", JSON, format!("[{}]", logs.join(",")).into())
        }
    };
    let length = plain.len();
    // What is too long for snappy is not sent.
    let bytes =
        if api == BenchApi::Loki { snap::raw::Encoder::new().compress_vec(&plain).unwrap_or_default() } else { plain };
    Body { path, headers, bytes, plain: length }
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// A field of a protobuf message that is text, bytes or a message.
#[must_use]
pub fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(u64::from(number << 3 | 2), &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn number(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(u64::from(number << 3), &mut out);
    varint(value, &mut out);
    out
}

fn fixed64(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(u64::from(number << 3 | 1), &mut out);
    out.extend(value.to_le_bytes());
    out
}
