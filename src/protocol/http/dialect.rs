//! What some clients need differently: another success status, JSON bodies, CORS.

use super::head::Head;
use super::problem::{self, Problem};
use crate::words;
use std::sync::Arc;

words!(
    /// `listener.NAME.records`, and `records` of a request's query: what of a body is a record.
    Records { Lines = "lines", Json = "json" }
);

/// Success statuses that can be chosen.
const SUCCESSES: [u16; 4] = [200, 201, 202, 204];

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The status of a request whose lines were taken.
    pub status: u16,
    /// What of a body is a record.
    pub records: Records,
    /// Origins of pages whose scripts may send lines; `*` stands for all.
    pub origins: Vec<Arc<str>>,
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect { status: 204, records: Records::Lines, origins: Vec::new() }
    }
}

/// True for a success status that can be chosen.
#[must_use]
pub fn is_success(status: usize) -> bool {
    SUCCESSES.iter().any(|known| usize::from(*known) == status)
}

/// True for what `cors_origins` may hold: `*`, `null`, or a scheme, a host and perhaps a port (RFC 6454 section 6.2).
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"/\\@?#*,".contains(&b));
    text == "*"
        || text == "null"
        || text.split_once("://").is_some_and(|(scheme, host)| is_plain(scheme) && is_plain(host))
}

impl Dialect {
    /// The value of a key of the query, if it is there.
    fn asked<'a>(head: &Head<'a>, key: &str) -> Option<&'a str> {
        head.query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }

    /// The status that a request asks for, or the listener's.
    ///
    /// # Errors
    /// It asks for a status that cannot be chosen.
    pub fn status(&self, head: &Head<'_>) -> Result<u16, &'static Problem> {
        let Some(text) = Dialect::asked(head, "status") else { return Ok(self.status) };
        text.parse().ok().filter(|status| SUCCESSES.contains(status)).ok_or(&problem::BAD_STATUS)
    }

    /// What of the body is a record, as the request or the listener says.
    ///
    /// # Errors
    /// It asks for something other than lines or json.
    pub fn records(&self, head: &Head<'_>) -> Result<Records, &'static Problem> {
        match Dialect::asked(head, "records") {
            None => Ok(self.records),
            Some("lines") => Ok(Records::Lines),
            Some("json") => Ok(Records::Json),
            Some(_) => Err(&problem::BAD_RECORDS),
        }
    }

    /// The value of `Access-Control-Allow-Origin` for this request. `None`: the answer has no such field.
    #[must_use]
    pub fn allowed(&self, head: &Head<'_>) -> Option<Arc<str>> {
        let origin = head.origin?;
        self.origins.iter().find(|allowed| &***allowed == "*" || allowed.as_bytes() == origin).cloned()
    }
}

/// Media types that are not lines, whatever their content: forms, archives, pictures, and binary protocols. Compressed ones may be lines
/// where `Content-Encoding` says how.
#[must_use]
pub fn is_media(kind: &[u8], is_encoded: bool) -> bool {
    const FAMILIES: [&[u8]; 5] = [b"multipart/", b"image/", b"audio/", b"video/", b"font/"];
    const BINARY: [&[u8]; 9] = [
        b"application/x-protobuf",
        b"application/protobuf",
        b"application/vnd.google.protobuf",
        b"application/grpc",
        b"application/msgpack",
        b"application/x-msgpack",
        b"application/vnd.msgpack",
        b"application/pdf",
        b"application/x-thrift",
    ];
    const PACKED: [&[u8]; 5] =
        [b"application/gzip", b"application/x-gzip", b"application/zip", b"application/zstd", b"application/x-tar"];
    let kind = kind.split(|b| *b == b';').next().unwrap_or(kind).trim_ascii().to_ascii_lowercase();
    let is = |list: &[&[u8]]| list.contains(&kind.as_slice());
    FAMILIES.iter().any(|family| kind.starts_with(family)) || is(&BINARY) || (!is_encoded && is(&PACKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_that_are_not_lines() {
        for kind in ["multipart/form-data; boundary=x", "Image/PNG", "application/x-protobuf", "application/gzip"] {
            assert!(is_media(kind.as_bytes(), false), "{kind}");
        }
        for kind in [
            "text/plain",
            "application/json",
            "application/x-www-form-urlencoded",
            "application/x-ndjson",
            "",
            "application/octet-stream",
        ] {
            assert!(!is_media(kind.as_bytes(), false), "{kind}");
        }
        assert!(!is_media(b"application/gzip", true));
    }

    #[test]
    fn origins() {
        for good in ["*", "null", "https://a.example", "http://localhost:3000", "http://[::1]:80"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "a.example", "https://", "https://a.example/", "https://*.example", "https://a b"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
