//! `gelf`: Graylog's format by HTTP (Graylog's documentation, "GELF via HTTP"): an object, or several with white space between them.

use super::{Api, Asked, Claim, HOST, Put, Records, Walk, Wanted, member};
use crate::protocol::http::answer::Done;
use crate::protocol::http::head::{Coding, Method};
use crate::protocol::http::problem::{self, Problem};
use crate::protocol::http::voice;
use crate::session::walk::json::{Cursor, plain_text};
use std::borrow::Cow;

/// See the module documentation.
pub static API: Api = Api { name: "gelf", claim, token: |_| None };

static BAD_MESSAGE: Problem = Problem {
    status: 400,
    code: "bad_gelf",
    message: "the body is no GELF message: expected a JSON object with a short_message that says something",
    retry_after: 0,
};

fn claim(asked: &Asked<'_>) -> Option<Claim> {
    let wanted = match (asked.path, asked.head.method) {
        // By its first bytes, as in Graylog's datagrams: graypy says "gzip,deflate" of what zlib has compressed.
        ("/gelf" | "/gelf/", Method::Post) => {
            Wanted::Take { walk: Box::new(Messages::default()), coding: Some(Coding::Guess) }
        }
        ("/gelf" | "/gelf/", _) => Wanted::Refuse(&problem::NOT_ALLOWED),
        _ => return None,
    };
    Some(Claim { voice: &voice::TEXT, wanted })
}

/// The place in a body.
#[derive(Default)]
struct Messages {
    at: usize,
}

impl Walk for Messages {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        let mut cursor = Cursor::new(bytes, self.at);
        while !cursor.is_over() || self.at == 0 {
            let message = match cursor.peek() {
                Some(b'{') => cursor.message().map_err(|_| &BAD_MESSAGE)?,
                _ => return Err(&BAD_MESSAGE),
            };
            let object = message.sent();
            // Some clients of version 1.0 call it `message`.
            if member(object, b"short_message").is_empty() && member(object, b"message").is_empty() {
                return Err(&BAD_MESSAGE);
            }
            let route = records.route(|attribute| match attribute {
                HOST => plain_text(member(object, b"host")),
                _ => Cow::default(),
            });
            if records.put(route, &[], message) == Put::Stop {
                return Ok(0);
            }
            self.at = cursor.at();
        }
        Ok(bytes.len())
    }

    fn done(&mut self) -> Done {
        Done::empty(202)
    }
}
