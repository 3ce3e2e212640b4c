//! `otlp`: logs as the SDKs and the Collector of OpenTelemetry send them by HTTP (OpenTelemetry Protocol Specification 1.7, "OTLP/HTTP"),
//! as protobuf or JSON.

mod any_json;
mod any_protobuf;
mod json;
mod protobuf;

use super::{Api, Asked, Claim, Wanted};
use crate::protocol::http::answer::{Done, Made};
use crate::protocol::http::head::Method;
use crate::protocol::http::problem::{self, Problem};
use crate::protocol::http::voice::{self, Refusal, Voice};

/// See the module documentation.
pub static API: Api = Api { name: "otlp", claim, token: |_| None };

/// Refusals are `google.rpc.Status`, in the encoding of the request. Clients send again what gets 429, 502, 503 or 504, and drop the rest.
static AS_PROTOBUF: Voice = Voice {
    headers: "",
    status: voice::never_408,
    longest_wait: LONGEST_WAIT,
    hangs_up: false,
    refuse: |problem, _| {
        let mut body = vec![0x08, code(problem)];
        put_text(0x12, problem.message, &mut body);
        Refusal { kind: PROTOBUF, body }
    },
};

/// SDKs try for ten seconds in all unless they are configured otherwise, and drop a batch at once if they are told to wait for more than is
/// left of them (OpenTelemetry for Python 1.45 and JavaScript 0.223, six attempts each).
const LONGEST_WAIT: u8 = 2;

static AS_JSON: Voice = Voice {
    headers: "",
    status: voice::never_408,
    longest_wait: LONGEST_WAIT,
    hangs_up: false,
    refuse: |problem, _| {
        let body = format!("{{\"code\":{},\"message\":\"{}\"}}", code(problem), problem.message);
        Refusal { kind: JSON, body: body.into() }
    },
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

static BAD_REQUEST: Problem = Problem {
    status: 400,
    code: "bad_export",
    message: "the body is no ExportLogsServiceRequest in the encoding that its Content-Type says",
    retry_after: 0,
};

static NOT_LOGS: Problem = Problem {
    status: 404,
    code: "not_logs",
    message: "this server stores logs: /v1/logs; traces and metrics go elsewhere",
    retry_after: 0,
};

static NEITHER: Problem = Problem {
    status: 415,
    code: "unsupported_media_type",
    message: "OTLP by HTTP is application/x-protobuf or application/json; gRPC is not spoken here: use the exporter otlphttp",
    retry_after: 0,
};

/// What is wrong, as gRPC numbers it (`google/rpc/code.proto`).
fn code(problem: &Problem) -> u8 {
    match voice::never_408(problem) {
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        429 => 8,
        503 => 14,
        _ => 3,
    }
}

fn claim(asked: &Asked<'_>) -> Option<Claim> {
    let path = asked.path.strip_prefix("/opentelemetry").filter(|rest| rest.starts_with('/')).unwrap_or(asked.path);
    let voice = if asked.is_of(JSON) { &AS_JSON } else { &AS_PROTOBUF };
    let wanted = match path {
        "/v1/traces" | "/v1/metrics" | "/v1/profiles" => Wanted::Refuse(&NOT_LOGS),
        "/v1/logs" if asked.head.method != Method::Post => Wanted::Refuse(&problem::NOT_ALLOWED),
        "/v1/logs" if asked.is_of(JSON) => {
            Wanted::Take { walk: Box::new(json::Export::new(asked.lease())), coding: None }
        }
        "/v1/logs" if asked.is_of(PROTOBUF) || asked.is_of("application/protobuf") => {
            Wanted::Take { walk: Box::new(protobuf::Export::new(asked.lease())), coding: None }
        }
        "/v1/logs" => Wanted::Refuse(&NEITHER),
        _ => return None,
    };
    Some(Claim { voice, wanted })
}

const TOO_LONG: &str = "records longer than max_line_bytes were dropped";

/// The answer to a request of which so many records were too long, which will never change.
fn done(kind: &'static str, rejected: u64) -> Done {
    let mut body = Vec::new();
    if rejected > 0 && kind == JSON {
        let partial =
            format!("{{\"partialSuccess\":{{\"rejectedLogRecords\":\"{rejected}\",\"errorMessage\":\"{TOO_LONG}\"}}}}");
        body = partial.into_bytes();
    } else if rejected > 0 {
        let mut partial = vec![0x08];
        put_varint(rejected, &mut partial);
        put_text(0x12, TOO_LONG, &mut partial);
        body.push(0x0a);
        put_varint(partial.len() as u64, &mut body);
        body.extend(partial);
    } else if kind == JSON {
        body = b"{}".to_vec();
    }
    Done { status: 200, kind, body: ("", Made::Here(body), "") }
}

fn put_varint(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn put_text(tag: u8, text: &str, to: &mut Vec<u8>) {
    to.push(tag);
    put_varint(text.len() as u64, to);
    to.extend_from_slice(text.as_bytes());
}

/// Deepest nesting of a value in an attribute or body.
const DEEPEST: u32 = 32;
