//! How the records of a connection are written: as the stream says that they go to.

use crate::host::peer::Peer;
use crate::session::routes::Routes;
use crate::session::write::{Escape, Form, Format};

/// A form for each format that a stream of the listener has.
pub struct Forms {
    raw: Form,
    /// Where some stream of the listener is written so.
    json: Option<Form>,
    is_json: bool,
}

impl Forms {
    /// For a new connection.
    pub fn new(listener: &str, routes: &Routes, peer: &Peer) -> Forms {
        let form = |format| Form::new(format, Escape::Nothing, listener, &peer.to_string());
        let json = routes.any(Format::Json).then(|| form(Format::Json));
        Forms { raw: form(Format::Raw), json, is_json: false }
    }

    /// Sets how lines are written from here on. JSON is possible only if the options had it when the connection was made.
    pub fn set(&mut self, format: Format) {
        self.is_json = format == Format::Json;
    }

    /// How lines are written now.
    pub fn now(&self) -> &Form {
        self.json.as_ref().filter(|_| self.is_json).unwrap_or(&self.raw)
    }

    /// How records of a stream with this format are written.
    pub fn of(&self, format: Format) -> &Form {
        self.json.as_ref().filter(|_| format == Format::Json).unwrap_or(&self.raw)
    }
}
