//! What the protocols that bring syslog messages share: taking a message apart, and how it is written.

pub mod message;
pub mod route;
pub mod structured;
pub mod writing;

use super::lines::{LineOptions, TooLong};
use super::routes::{RouteTable, Routes, Rules};
use super::write::{Escape, Format};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use crate::{section, words};
use route::ATTRIBUTES;
use std::sync::Arc;

words!(
    /// `listener.NAME.escape`
    EscapeWord { Newlines = "newlines", Full = "full" }
);

/// How syslog messages are found.
#[must_use]
pub fn framing(max_line_bytes: usize, too_long: TooLong, keep_unterminated: bool) -> LineOptions {
    LineOptions { max_line_bytes, too_long, strip_cr: true, strip_nul: false, keep_unterminated }
}

section!(/// The keys of all listeners of syslog messages, beside their own.
    Shared { escape: EscapeWord, route: RouteTable, streams: Vec<String> });

/// How messages are written and where they go, by those keys.
///
/// # Errors
/// `escape` says something though the records are JSON, or a rule is wrong.
pub fn writing(section: &Section<'_>, keys: &Shared, routes: &Arc<Routes>) -> Result<writing::Options, ConfigError> {
    section.list("streams", keys.streams.as_deref());
    let escape = match section.word("escape", keys.escape, EscapeWord::Newlines) {
        EscapeWord::Newlines => Escape::Newlines,
        EscapeWord::Full if routes.all().all(|route| route.format == Format::Json) => {
            let message = "JSON has escapes of its own; this is for format = \"raw\" or \"classic\"";
            return Err(section.error("escape", message));
        }
        EscapeWord::Full => Escape::Full,
    };
    let rules = Arc::new(Rules::read(section, keys.route.as_ref(), routes, ATTRIBUTES)?);
    Ok(writing::Options { escape, routes: Arc::clone(routes), rules })
}
