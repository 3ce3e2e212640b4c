//! `datadog`: logs as the Datadog agent and the clients of its API send them (its documentation, "Logs", "Send logs").

use super::{Api, Asked, Claim, HOST, Put, Records, SERVICE, Walk, Wanted, member};
use crate::protocol::http::answer::Done;
use crate::protocol::http::head::Method;
use crate::protocol::http::pages::Page;
use crate::protocol::http::problem::{self, Problem};
use crate::protocol::http::voice::{self, Refusal, Voice};
use crate::session::walk::json::{Cursor, NotJson, plain_text};
use std::borrow::Cow;

/// See the module documentation.
pub static API: Api = Api { name: "datadog", claim, token };

/// The agent drops what gets 400, 401, 403 or 413, and sends everything else again.
static VOICE: Voice = Voice {
    headers: "",
    status: voice::never_408,
    longest_wait: voice::ANY_WAIT,
    hangs_up: false,
    refuse: |problem, _| {
        let (status, message) = (voice::never_408(problem), problem.message);
        let body = format!(
            "{{\"errors\":[{{\"status\":\"{status}\",\"title\":\"{}\",\"detail\":\"{message}\"}}]}}",
            problem.code
        );
        Refusal { kind: JSON, body: body.into() }
    },
};

const JSON: &str = "application/json";

static BAD_LOGS: Problem = Problem {
    status: 400,
    code: "bad_logs",
    message: "the body is no JSON object, nor a list of objects",
    retry_after: 0,
};

fn claim(asked: &Asked<'_>) -> Option<Claim> {
    let path = path(asked);
    let is_post = asked.head.method == Method::Post;
    let is_input = path == "/api/v2/logs" || path == "/v1/input" || path.starts_with("/v1/input/");
    let wanted = match path {
        "/api/v1/validate" if !is_post => Wanted::SayIfAllowed(Page::new(200, JSON, "{\"valid\":true}")),
        _ if is_input && is_post => Wanted::Take { walk: Box::new(Logs { next: Next::Begin, at: 0 }), coding: None },
        _ if is_input => Wanted::Refuse(&problem::NOT_ALLOWED),
        _ => return None,
    };
    Some(Claim { voice: &VOICE, wanted })
}

/// The path, without the name of the API that people put in front.
fn path<'a>(asked: &Asked<'a>) -> &'a str {
    asked.path.strip_prefix("/datadog").filter(|rest| rest.starts_with('/')).unwrap_or(asked.path)
}

/// `DD-API-KEY`, or the last part of the older path.
fn token<'a>(asked: &Asked<'a>) -> Option<Cow<'a, [u8]>> {
    let by_path = path(asked).strip_prefix("/v1/input/").map(str::as_bytes);
    asked.head.field("dd-api-key").or(by_path).map(Cow::from)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Begin,
    /// An object in the list. `true`: none was read yet.
    Log(bool),
    End,
}

/// The place in a body.
struct Logs {
    next: Next,
    at: usize,
}

impl Logs {
    /// One step. False: nothing more is taken in this turn.
    fn step(&mut self, bytes: &[u8], records: &mut Records<'_, '_>) -> Result<bool, &'static Problem> {
        let mut cursor = Cursor::new(bytes, self.at);
        self.next = match self.next {
            Next::Begin if cursor.eat(b'[') => Next::Log(true),
            Next::Begin => {
                if log(&mut cursor, records)? == Put::Stop {
                    return Ok(false);
                }
                Next::End
            }
            Next::Log(is_first) if cursor.another(is_first, b']').map_err(|NotJson| &BAD_LOGS)? => {
                if log(&mut cursor, records)? == Put::Stop {
                    return Ok(false);
                }
                Next::Log(false)
            }
            Next::Log(_) => Next::End,
            Next::End => return Ok(false),
        };
        self.at = cursor.at();
        Ok(true)
    }
}

impl Walk for Logs {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        while self.step(bytes, records)? {}
        match self.next {
            Next::End if Cursor::new(bytes, self.at).is_over() => Ok(bytes.len()),
            Next::End => Err(&BAD_LOGS),
            _ => Ok(0),
        }
    }

    fn done(&mut self) -> Done {
        Done::text(202, JSON, "{}")
    }
}

/// Takes one object. An empty one is the agent's question whether somebody is there.
fn log(cursor: &mut Cursor<'_>, records: &mut Records<'_, '_>) -> Result<Put, &'static Problem> {
    if cursor.peek() != Some(b'{') {
        return Err(&BAD_LOGS);
    }
    let message = cursor.message().map_err(|NotJson| &BAD_LOGS)?;
    let object = message.sent();
    let mut inside = Cursor::new(object, 1);
    if inside.eat(b'}') {
        return Ok(Put::Done);
    }
    let route = records.route(|attribute| match attribute {
        SERVICE => plain_text(member(object, b"service")),
        HOST => plain_text(member(object, b"hostname")),
        _ => Cow::default(),
    });
    Ok(records.put(route, &[], message))
}
