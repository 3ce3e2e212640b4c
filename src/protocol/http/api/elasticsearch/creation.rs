//! `PUT /INDEX`: what an index is to be like. Nothing of that is kept; but lines that come this way are not taken for it.

use super::{ACKNOWLEDGED, JSON};
use crate::protocol::http::answer::Done;
use crate::protocol::http::api::{Records, Walk};
use crate::protocol::http::problem::Problem;
use crate::session::walk::json::{Cursor, NotJson, stands_for};

static NO_INDEX: Problem = Problem {
    status: 400,
    code: "no_index",
    message: "the body makes no index: expected an object of settings, mappings and aliases; lines go here without this Content-Type",
    retry_after: 0,
};

/// The body of such a request.
pub struct Creation;

fn check(bytes: &[u8]) -> Result<(), NotJson> {
    let (mut cursor, mut is_first) = (Cursor::new(bytes, 0), true);
    cursor.expect(b'{')?;
    while cursor.another(is_first, b'}')? {
        is_first = false;
        let key = cursor.key()?;
        if !["settings", "mappings", "aliases"].iter().any(|name| stands_for(key, name.as_bytes())) {
            return Err(NotJson);
        }
        cursor.value()?;
    }
    if cursor.is_over() { Ok(()) } else { Err(NotJson) }
}

impl Walk for Creation {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, _: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        match check(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(NotJson) => Err(&NO_INDEX),
        }
    }

    fn done(&mut self) -> Done {
        Done::text(200, JSON, ACKNOWLEDGED)
    }
}
