//! `loki`: what promtail, Alloy, Fluent Bit, Vector and the logging handlers send to Grafana Loki (its documentation, "Loki HTTP API").

mod json;
mod labels;
mod protobuf;

use super::{Api, Asked, Claim, Wanted};
use crate::protocol::http::answer::Done;
use crate::protocol::http::head::{Coding, Method};
use crate::protocol::http::pages::Page;
use crate::protocol::http::problem::{self, Problem};
use crate::protocol::http::voice;

/// See the module documentation.
pub static API: Api = Api { name: "loki", claim, token: |_| None };

static BAD_BODY: Problem = Problem {
    status: 400,
    code: "bad_push_request",
    message: "the body is no push request: expected JSON with `streams`, or a protobuf message in snappy",
    retry_after: 0,
};

const BUILD: &str = concat!(
    "{\"version\":\"3.0.0\",\"revision\":\"logweir\",\"branch\":\"logweir\",\"buildUser\":\"\",\"buildDate\":\"\",",
    "\"goVersion\":\"\"}\n"
);

fn claim(asked: &Asked<'_>) -> Option<Claim> {
    let method = asked.head.method;
    let is_read = matches!(method, Method::Get | Method::Head);
    let wanted = match asked.path {
        "/ready" if is_read => Wanted::Readiness,
        "/loki/api/v1/status/buildinfo" if is_read => Wanted::Say(Page::new(200, "application/json", BUILD)),
        "/loki/api/v1/push" | "/api/prom/push" | "/loki/api/v1/raw" if method != Method::Post => {
            Wanted::Refuse(&problem::NOT_ALLOWED)
        }
        "/loki/api/v1/push" | "/api/prom/push" => push(asked),
        "/loki/api/v1/raw" => Wanted::Lines,
        _ => return None,
    };
    Some(Claim { voice: &voice::TEXT, wanted })
}

/// JSON if its type says so; anything else is a protobuf message in a snappy block (Loki's `push.go`), whether `Content-Encoding` says so
/// or not.
fn push(asked: &Asked<'_>) -> Wanted {
    let tenant: Box<[u8]> = asked.head.field("x-scope-orgid").unwrap_or_default().into();
    match asked.is_of("application/json") {
        true => Wanted::Take { walk: Box::new(json::Push::new(tenant)), coding: None },
        false => Wanted::Take { walk: Box::new(protobuf::Push::new(tenant)), coding: Some(Coding::Snappy) },
    }
}

fn done() -> Done {
    Done::empty(204)
}
