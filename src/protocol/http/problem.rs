//! What can be wrong with a request, as the client is told: a status, a code for programs, and words for people.

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status code (RFC 9110 section 15).
    pub status: u16,
    /// For programs; stable.
    pub code: &'static str,
    /// In words, for people.
    pub message: &'static str,
    /// Seconds for `Retry-After`; 0: none.
    pub retry_after: u8,
}

macro_rules! problems {
    ($($name:ident = $status:literal $code:literal $message:literal $(retry $after:literal)?;)+) => {
        $(#[doc = $message] pub static $name: Problem =
            Problem { status: $status, code: $code, message: $message, retry_after: 0 $(+ $after)? };)+

        /// All of them, for the tests of what they say.
        #[cfg(test)]
        pub static ALL: &[&Problem] = &[$(&$name),+];
    };
}

problems! {
    NOT_HTTP = 400 "bad_request" "not a request that RFC 9112 allows";
    BARE_LINE_END = 400 "bad_request" "a CR or LF stands alone in the head; each line of a head must end in CRLF";
    BAD_TARGET = 400 "bad_request" "the request target is not a path";
    BAD_HOST = 400 "bad_request" "HTTP/1.1 needs exactly one valid Host header";
    BAD_LENGTH = 400 "bad_request" "Content-Length must be one plain decimal number";
    TWO_LENGTHS = 400 "bad_request" "Content-Length and Transfer-Encoding together, or one of them twice";
    OLD_CHUNKED = 400 "bad_request" "Transfer-Encoding needs HTTP/1.1";
    BAD_CHUNK = 400 "bad_chunk" "the chunked body is malformed (chunk extensions are not accepted)";
    BAD_ACK = 400 "bad_ack" "ack must be received, written or durable";
    BAD_STATUS = 400 "bad_status" "status must be 200, 201, 202 or 204";
    BAD_RECORDS = 400 "bad_records" "records must be lines or json";
    BAD_JSON = 400 "bad_json" "the body is not a JSON array of records, nor JSON values with white space between them";
    ACK_TOO_STRONG = 400 "ack_too_strong" "this listener does not acknowledge at so strong a level";
    BAD_CODING = 400 "bad_encoding" "the body is not what its Content-Encoding says";
    INCOMPLETE = 400 "incomplete" "the connection ended before the body did";
    UNAUTHORIZED = 401 "unauthorized" "a valid `Authorization: Bearer TOKEN` is needed, or the token as the password of Basic";
    WRONG_TOKEN = 401 "wrong_token" "the token is not known here; a valid `Authorization: Bearer TOKEN` is needed, or the token as the password of Basic";
    FORBIDDEN = 403 "forbidden" "this token may not write to this stream";
    NOT_FOUND = 404 "not_found" "this listener takes POST or PUT to / and /ingest/STREAM, GET /healthz and GET /readyz";
    NO_API = 404 "no_such_path" "no API of this listener has this path; see `apis` in its configuration";
    NO_STREAM = 404 "no_such_stream" "this listener has no stream of that name";
    NOT_ALLOWED = 405 "method_not_allowed" "send lines by POST or PUT; GET and HEAD are for probes";
    READ_ONLY = 405 "read_only" "this address is read-only: GET and HEAD";
    NO_PAGE = 404 "no_page" "this address has only /, /metrics, /healthz and /readyz";
    TIMEOUT = 408 "timeout" "the request took too long to arrive";
    LENGTH_REQUIRED = 411 "length_required" "a POST or PUT needs Content-Length or Transfer-Encoding: chunked";
    BODY_TOO_LARGE = 413 "body_too_large" "the body is larger than max_body_bytes";
    DECODED_TOO_LARGE = 413 "decoded_too_large" "the decoded body is larger than max_decoded_bytes, or more than 400 times what was sent";
    WINDOW_TOO_LARGE = 413 "window_too_large" "the body needs more memory to decode than there is; compress it with a smaller window or in blocks";
    DOCUMENT_TOO_LARGE = 413 "document_too_large" "the body, or one record of it, is larger than max_document_bytes";
    LINE_TOO_LONG = 413 "line_too_long" "a line was longer than max_line_bytes and was dropped";
    UNSUPPORTED_CODING = 415 "unsupported_encoding" "Content-Encoding must be one of gzip, zstd, deflate, snappy, identity";
    NOT_LINES = 415 "unsupported_media_type" "by its Content-Type the body is not text in lines; with curl use --data-binary @FILE, not -F";
    EXPECTATION = 417 "expectation_failed" "the server knows no expectation but 100-continue";
    OVERLOADED = 429 "overloaded" "the disk does not keep up and every buffer is in use" retry 1;
    NO_ROOM = 429 "no_room" "the room for unfinished requests is in use, and this request held or wanted the most of it" retry 1;
    HEAD_TOO_LARGE = 431 "head_too_large" "the head is larger than max_header_bytes or has more than max_headers fields";
    UNKNOWN_CODING = 501 "unknown_transfer_coding" "the server knows no transfer coding but chunked";
    DISK_FULL = 503 "disk_full" "the disk is full" retry 10;
    DISK_FAILED = 503 "disk_failed" "the disk has failed; the server takes no more lines" retry 30;
    SHUTTING_DOWN = 503 "shutting_down" "the server is ending" retry 5;
    VERSION = 505 "http_version" "this server speaks HTTP/1.1 and HTTP/1.0";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_valid_json_as_they_stand() {
        for problem in ALL {
            assert!(!problem.message.contains(['"', '\\', '\n']), "{}", problem.code);
            assert!((400..600).contains(&problem.status));
            assert_eq!(problem.retry_after > 0, matches!(problem.status, 429 | 503), "{}", problem.code);
        }
    }
}
