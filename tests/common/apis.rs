//! Requests of the APIs of other servers that hold lines of a ledger, and what is read in their answers. The lines are ASCII, and with
//! `format = "raw"` they are on disk as they are, or as the only member of a document ([`line_of_document`]).

use logweir::bench::bodies::field;
use serde_json::json;

/// A request: its path, its headers but for what says how long the body is, its body, and the status of its success.
pub struct Request {
    pub path: String,
    pub headers: String,
    pub body: Vec<u8>,
    pub success: &'static str,
}

/// Makes a request that holds these lines.
pub type Maker = fn(&[Vec<u8>]) -> Request;

fn request(path: &str, kind: &str, body: Vec<u8>, success: &'static str) -> Request {
    let headers = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    Request { path: path.into(), headers, body, success }
}

/// Of our own.
pub fn lines(lines: &[Vec<u8>]) -> Request {
    request("/", "", lines.concat(), "204")
}

/// A line as a message: without its newline.
fn text(line: &[u8]) -> &str {
    std::str::from_utf8(&line[..line.len() - 1]).unwrap()
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// One for each API and encoding.
pub const MAKERS: [Maker; 8] = [loki_json, loki_protobuf, otlp_json, otlp_protobuf, splunk, bulk, datadog, journal];

fn splunk(lines: &[Vec<u8>]) -> Request {
    request("/services/collector/event", "", hec(lines), "200")
}

fn datadog(lines: &[Vec<u8>]) -> Request {
    let objects: Vec<String> = lines.iter().map(|line| document(line)).collect();
    request("/api/v2/logs", JSON, format!("[{}]", objects.join(", ")).into_bytes(), "202")
}

fn journal(lines: &[Vec<u8>]) -> Request {
    let body = lines.iter().map(|line| format!("MESSAGE={}\n_PID=1\n\n", text(line))).collect::<String>();
    request("/upload", "application/vnd.fdo.journal", body.into_bytes(), "202")
}

/// A line as the only member of a JSON object; on disk it is just that ([`line_of_document`]).
fn document(line: &[u8]) -> String {
    json!({ "m": text(line) }).to_string()
}

/// The line, without its newline, that such a document on disk was made of. `None`: it is none.
pub fn line_of_document(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"{") {
        return None;
    }
    let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    Some(document["m"].as_str()?.into())
}

fn loki_json(lines: &[Vec<u8>]) -> Request {
    let values: Vec<_> = lines.iter().map(|line| json!(["1", text(line)])).collect();
    let body = json!({ "streams": [{ "stream": { "job": "a" }, "values": values }] });
    request("/loki/api/v1/push", JSON, body.to_string().into_bytes(), "204")
}

/// `PushRequest { streams: [{ labels: 1, entries: [{ line: 2 }]: 2 }]: 1 }` in snappy.
pub fn push_request<'a>(labels: &str, lines: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let entries: Vec<u8> = lines.flat_map(|line| field(2, &field(2, line.as_bytes()))).collect();
    snap::raw::Encoder::new().compress_vec(&field(1, &[field(1, labels.as_bytes()), entries].concat())).unwrap()
}

fn loki_protobuf(lines: &[Vec<u8>]) -> Request {
    let body = push_request("{job=\"a\"}", lines.iter().map(|line| text(line)));
    let mut request = request("/loki/api/v1/push", PROTOBUF, body, "204");
    request.headers.push_str("Content-Encoding: snappy\r\n");
    request
}

fn bulk(lines: &[Vec<u8>]) -> Request {
    let pair = |line: &Vec<u8>| format!("{{\"create\":{{\"_index\":\"i\"}}}}\n{}\n", document(line));
    let body = lines.iter().map(pair).collect::<String>();
    request("/_bulk", "application/x-ndjson", body.into_bytes(), "200")
}

fn otlp_json(lines: &[Vec<u8>]) -> Request {
    let records: Vec<_> = lines.iter().map(|line| json!({ "body": { "stringValue": text(line) } })).collect();
    let body = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": records }] }] });
    request("/v1/logs", JSON, body.to_string().into_bytes(), "200")
}

/// `{ resource_logs: [{ scope_logs: [{ log_records: [{ body: { string_value: 1 }: 5 }]: 2 }]: 2 }]: 1 }`
pub fn export_request<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let records: Vec<u8> = texts.flat_map(|text| field(2, &field(5, &field(1, text.as_bytes())))).collect();
    field(1, &field(2, &records))
}

fn otlp_protobuf(lines: &[Vec<u8>]) -> Request {
    request("/v1/logs", PROTOBUF, export_request(lines.iter().map(|line| text(line))), "200")
}

fn hec(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| json!({ "event": text(line) }).to_string().into_bytes()).collect()
}

const CHANNEL: &str = "X-Splunk-Request-Channel: channel\r\n";

/// Of Splunk's, where a number is the answer.
pub fn events(lines: &[Vec<u8>]) -> Request {
    let mut request = request("/services/collector/event", "", hec(lines), "200");
    request.headers.push_str(CHANNEL);
    request
}

/// Which of these numbers have become true?
pub fn question(numbers: &[u64]) -> Vec<u8> {
    let body = json!({ "acks": numbers }).to_string();
    let head =
        format!("POST /services/collector/ack HTTP/1.1\r\nHost: x\r\n{CHANNEL}Content-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The number in an answer.
pub fn number(body: &[u8]) -> u64 {
    serde_json::from_slice::<serde_json::Value>(body).unwrap()["ackId"].as_u64().unwrap()
}

/// The numbers that have.
pub fn true_numbers(body: &[u8]) -> Vec<u64> {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap();
    let acks = answer["acks"].as_object().unwrap().iter();
    acks.filter(|(_, is_true)| is_true.as_bool().unwrap()).map(|(number, _)| number.parse().unwrap()).collect()
}

/// Looks whether the answer to a success says so of each record, where it says something of each.
pub fn check(body: &[u8], records: u64) {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else { return };
    if let Some(items) = answer["items"].as_array() {
        assert_eq!((items.len() as u64, &answer["errors"]), (records, &json!(false)), "{answer}");
        assert!(items.iter().all(|item| item["create"]["status"] == 201), "{answer}");
    }
}
