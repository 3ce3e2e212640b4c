//! The checked options of an HTTP listener, and which token may write where.

use super::api::Api;
use super::api::splunk::Acks;
use super::dialect::Dialect;
use super::head::{Head, Method};
use super::pages::Site;
use super::problem::{self, Problem};
use crate::session::AckLevel;
use crate::session::lines::LineOptions;
use crate::session::memory::room::Room;
use crate::session::routes::{Route, Routes, Rules, Token};
use crate::session::write::{Escape, Format, longest_record};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
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
    /// Which of them a record goes to, by what its API says of it.
    pub rules: Rules,
    /// What is spoken here.
    pub apis: Apis,
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
    /// What some clients need differently: status, JSON, CORS.
    pub dialect: Dialect,
    /// What is shown instead of taking lines.
    pub site: Option<Site>,
}

/// The APIs of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apis {
    /// Those that others have, in the order in which they are asked.
    pub others: Vec<&'static Api>,
    /// Bodies of lines are taken, at paths of our own.
    pub lines: bool,
    /// What stands in front of each path.
    pub prefix: String,
    /// The channels of Splunk's acknowledgements, where they are given.
    pub acks: Option<Arc<Acks>>,
    /// A token may stand in the query, where an API has that.
    pub query_token: bool,
    /// The longest document that is gathered, in bytes.
    pub max_document_bytes: usize,
}

impl Default for Apis {
    fn default() -> Self {
        Apis {
            others: Vec::new(),
            lines: true,
            prefix: String::new(),
            acks: None,
            query_token: false,
            max_document_bytes: 16 << 20,
        }
    }
}

impl Apis {
    /// A path without the prefix of the configuration, nor those that people are used to put in front.
    #[must_use]
    pub fn path<'a>(&self, path: &'a str) -> &'a str {
        let behind = |path: &'a str, prefix: &str| {
            let rest = path.strip_prefix(prefix)?;
            if rest.is_empty() { Some("/") } else { rest.starts_with('/').then_some(rest) }
        };
        let path = behind(path, &self.prefix).unwrap_or(path);
        behind(path, "/insert").unwrap_or(path)
    }
}

/// Bytes of what a record of an API says besides its message, for which there is always room.
const ROOM_FOR_ATTRS: usize = 16 << 10;

impl HttpOptions {
    /// Bytes that a record takes at most as it is written.
    #[must_use]
    pub fn longest_record(&self) -> usize {
        let format = if self.routes.any(Format::Json) { Format::Json } else { Format::Raw };
        let longest = self.framing.max_line_bytes + 1;
        match self.apis.others.is_empty() {
            true => longest_record(longest, 0, format, Escape::Nothing),
            false => longest_record(longest, 0, format, Escape::Newlines) + ROOM_FOR_ATTRS,
        }
    }

    /// The stream that a path names. A slash behind the name is ignored, and so is the file name that clients such as `curl -T` add to
    /// a PUT.
    ///
    /// # Errors
    /// It names none, or one that is not of this listener.
    pub fn route(&self, path: &str, method: Method) -> Result<&Route, &'static Problem> {
        let is_put = method == Method::Put;
        let Some(name) = path.strip_prefix("/ingest/") else {
            let is_own = path == "/" || (is_put && !path[1..].contains('/'));
            return if is_own { Ok(self.routes.own()) } else { Err(&problem::NOT_FOUND) };
        };
        let name = match name.split_once('/') {
            Some((name, "")) => name,
            Some((name, file)) if is_put && !file.contains('/') => name,
            _ => name,
        };
        self.routes.find(name.as_bytes()).ok_or(&problem::NO_STREAM)
    }

    /// Checks whether a request with this token may write to a stream, and returns the place of the token.
    ///
    /// # Errors
    /// It has no token, or one that is not known, or one for other streams.
    pub fn authorize(&self, given: Option<&[u8]>, stream: Option<u16>) -> Result<Option<usize>, &'static Problem> {
        if self.tokens.is_empty() {
            return Ok(None);
        }
        let given = given.ok_or(&problem::UNAUTHORIZED)?;
        let hash: [u8; 32] = Sha256::digest(given).into();
        // Every token is looked at whole, whichever it is.
        let mut found = u32::MAX;
        for (index, token) in self.tokens.iter().enumerate() {
            let is_it: Choice = token.sha256.ct_eq(&hash);
            found = u32::conditional_select(&found, &(index as u32), is_it);
        }
        let token = self.tokens.get(found as usize).ok_or(&problem::WRONG_TOKEN)?;
        match &token.streams {
            Some(streams) if stream.is_some_and(|s| !streams.contains(&s)) => Err(&problem::FORBIDDEN),
            _ => Ok(Some(found as usize)),
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

/// The token of a request: a bearer token (RFC 6750 section 2.1), or the password of Basic (RFC 7617) with any user name, for devices
/// that know only Basic.
pub fn token_of(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (scheme, given) = value.split_at_checked(value.iter().position(|b| *b == b' ')? + 1)?;
    let given = given.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer ") {
        return Some(given.into());
    }
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = BASE64.decode(given).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    decoded.drain(..=colon);
    Some(decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_as_bearer_or_as_the_password_of_basic() {
        let of = |value: &str| token_of(value.as_bytes()).map(|t| String::from_utf8(t.to_vec()).unwrap());
        assert_eq!(of("Bearer abc"), Some("abc".into()));
        assert_eq!(of("bearer  abc "), Some("abc".into()));
        // RFC 7617 section 2: user-id Aladdin, password "open sesame".
        assert_eq!(of("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Some("open sesame".into()));
        assert_eq!(of("BASIC Ong6eQ=="), Some("x:y".into()), "a password may hold colons, a user may be nobody");
        for none in ["", "Bearer", "Basic !", "Basic YWJj", "Digest x"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
