//! What the protocols that bring syslog messages share: taking a message apart, and how it is written.

pub mod message;
pub mod structured;
pub mod writing;

use super::lines::{LineOptions, TooLong};
use super::write::{Escape, Format};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use crate::words;

words!(
    /// `listener.NAME.escape`
    EscapeWord { Newlines = "newlines", Full = "full" }
);

/// How syslog messages are found.
#[must_use]
pub fn framing(max_line_bytes: usize, too_long: TooLong, keep_unterminated: bool) -> LineOptions {
    LineOptions { max_line_bytes, too_long, strip_cr: true, strip_nul: false, keep_unterminated }
}

/// What `escape` says.
///
/// # Errors
/// It says something though the records are JSON.
pub fn escape(section: &Section<'_>, word: Option<EscapeWord>, format: Format) -> Result<Escape, ConfigError> {
    match section.word("escape", word, EscapeWord::Newlines) {
        EscapeWord::Newlines => Ok(Escape::Newlines),
        EscapeWord::Full if format == Format::Json => {
            Err(section.error("escape", "JSON has escapes of its own; this is for format = \"raw\" or \"classic\""))
        }
        EscapeWord::Full => Ok(Escape::Full),
    }
}
