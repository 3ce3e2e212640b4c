//! The options of an HTTP listener, checked; and who may write where.

use super::head::Head;
use super::pages::Site;
use super::problem::{self, Problem};
use crate::session::AckLevel;
use crate::session::lines::LineOptions;
use crate::session::memory::room::Room;
use crate::session::routes::{Route, Routes, Token};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// The options of a listener, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// The listener's name, for JSON.
    pub listener: String,
    /// How lines are found.
    pub framing: LineOptions,
    /// The streams that may be written to; `POST /` writes to the listener's own.
    pub routes: Arc<Routes>,
    /// What a 2xx means, and the strongest that a request may ask for.
    pub ack: AckLevel,
    /// Longest head, in bytes; also of trailers.
    pub max_header_bytes: usize,
    /// Most header fields.
    pub max_headers: usize,
    /// Longest body as sent.
    pub max_body_bytes: u64,
    /// Longest body once decoded.
    pub max_decoded_bytes: u64,
    /// Requests of one connection; 0: any number.
    pub max_requests: u32,
    /// Who may write; empty: anybody.
    pub tokens: Vec<Token>,
    /// Memory for decoding bodies, shared by all connections.
    pub room: Arc<Room>,
    /// What is shown instead of taking lines.
    pub site: Option<Site>,
}

impl HttpOptions {
    /// The stream that a path names.
    ///
    /// # Errors
    /// It names none, or one that is not of this listener.
    pub fn route(&self, path: &str) -> Result<&Route, &'static Problem> {
        if path == "/" {
            return Ok(self.routes.own());
        }
        let name = path.strip_prefix("/ingest/").ok_or(&problem::NOT_FOUND)?;
        self.routes.find(name.as_bytes()).ok_or(&problem::NO_STREAM)
    }

    /// Whether this request may write to a stream.
    ///
    /// # Errors
    /// It has no token, or one that is not known, or one for other streams.
    pub fn authorize(&self, head: &Head<'_>, stream: Option<u16>) -> Result<(), &'static Problem> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let given = head.authorization.and_then(bearer).ok_or(&problem::UNAUTHORIZED)?;
        let hash: [u8; 32] = Sha256::digest(given).into();
        // Every token is looked at whole, whichever it is.
        let mut found = u32::MAX;
        for (index, token) in self.tokens.iter().enumerate() {
            let is_it: Choice = token.sha256.ct_eq(&hash);
            found = u32::conditional_select(&found, &(index as u32), is_it);
        }
        let token = self.tokens.get(found as usize).ok_or(&problem::UNAUTHORIZED)?;
        match &token.streams {
            Some(streams) if stream.is_some_and(|s| !streams.contains(&s)) => Err(&problem::FORBIDDEN),
            _ => Ok(()),
        }
    }

    /// The level that a request asks for: its query's `ack`, or its header, or the listener's.
    ///
    /// # Errors
    /// No such level, or a stronger one than the listener's.
    pub fn level(&self, head: &Head<'_>) -> Result<AckLevel, &'static Problem> {
        let query = head.query.split('&').find_map(|pair| pair.strip_prefix("ack="));
        let level = match query.map(str::as_bytes).or(head.ack) {
            None => return Ok(self.ack),
            Some(b"received") => AckLevel::Received,
            Some(b"written") => AckLevel::Written,
            Some(b"durable") => AckLevel::Durable,
            Some(_) => return Err(&problem::BAD_ACK),
        };
        if level > self.ack { Err(&problem::ACK_TOO_STRONG) } else { Ok(level) }
    }
}

/// RFC 6750 section 2.1.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
