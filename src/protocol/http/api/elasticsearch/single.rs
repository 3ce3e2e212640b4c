//! `_doc` and `_create`: one document.

use super::JSON;
use super::bulk::object;
use crate::protocol::http::answer::{Done, Made};
use crate::protocol::http::api::{INDEX, Put, Records, Trouble, Walk};
use crate::protocol::http::problem::{self, Problem};
use crate::session::memory::document::Document;
use crate::session::memory::room::Lease;
use crate::session::walk::json::{NotJson, quoted};
use crate::session::write::{Attr, Value};

static BAD_DOCUMENT: Problem =
    Problem { status: 400, code: "bad_document", message: "the body is no JSON object", retry_after: 0 };

/// The one document of a request.
pub struct Single {
    index: Box<[u8]>,
    id: Box<[u8]>,
    answer: Option<Document>,
}

impl Single {
    /// At the beginning.
    ///
    /// # Errors
    /// There is no memory for the answer.
    pub fn new(index: &str, id: &str, lease: Lease) -> Result<Single, &'static Problem> {
        let mut text = Vec::new();
        let mut put = |bytes: &[u8]| text.extend_from_slice(bytes);
        put(b"{\"_index\":");
        quoted(index.as_bytes(), &mut put);
        put(b",\"_id\":");
        quoted(id.as_bytes(), &mut put);
        let mut answer = Document::new(lease);
        answer.append(&text).map_err(|no| Trouble::from(no).problem(&BAD_DOCUMENT))?;
        Ok(Single { index: index.as_bytes().into(), id: id.as_bytes().into(), answer: Some(answer) })
    }
}

impl Walk for Single {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        let document = object(bytes).map_err(|NotJson| &BAD_DOCUMENT)?;
        let attrs = [
            Attr { name: b"index", value: Value::Text(&self.index) },
            Attr { name: b"id", value: Value::Text(&self.id) },
        ];
        let attrs = if self.id.is_empty() { &attrs[..1] } else { &attrs[..] };
        let route = records.route(|attribute| if attribute == INDEX { &*self.index } else { b"" });
        match records.put(route, attrs, document) {
            Put::Stop => Ok(0),
            Put::Done => Ok(bytes.len()),
            Put::TooLong => Err(&problem::LINE_TOO_LONG),
        }
    }

    fn done(&mut self) -> Done {
        const REST: &str = concat!(
            ",\"_version\":1,\"result\":\"created\",\"_shards\":{\"total\":1,\"successful\":1,\"failed\":0},",
            "\"_seq_no\":0,\"_primary_term\":1}"
        );
        Done { status: 201, kind: JSON, body: ("", self.answer.take().map_or(Made::Nothing, Made::Leased), REST) }
    }
}
