//! What the tests of all APIs share.

use super::*;
use crate::protocol::http::api::Api;

/// A listener with these APIs.
pub fn listener(apis: &[&str], format: Format) -> HttpOptions {
    let mut options = options(format, TooLong::Truncate, AckLevel::Durable);
    options.apis.others = apis.iter().map(|name| Api::find(name).unwrap()).collect();
    options.framing.max_line_bytes = 20_000;
    options
}

/// One request as it is sent.
pub fn request(head: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{head} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What comes of some input in one piece.
pub fn answer(apis: &[&str], input: &[u8]) -> Output {
    run(listener(apis, Format::Json), input, &[usize::MAX], 1 << 20, 1 << 20)
}

/// The records of the listener's own stream, as they are in JSON.
pub fn records(out: &Output) -> Vec<serde_json::Value> {
    out.default.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

/// Header, and body as it is sent with it.
pub fn coded(coding: u8, body: &[u8]) -> (String, Vec<u8>) {
    let (body, name) = encode(coding, body);
    (format!("Content-Encoding: {name}\r\n"), body)
}

/// The first answer's head and body.
pub fn parts(out: &Output) -> (&str, &str) {
    out.answers.split_once("\r\n\r\n").unwrap()
}
