//! Keys of a configuration and their values: units, ranges, and the errors about them.

mod hints;
mod places;
pub mod section;
pub mod units;

pub use places::{Places, Spot};
use std::fmt;

/// What is wrong with a configuration, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}{message}", key.as_ref().map(|k| format!("`{k}`: ")).unwrap_or_default())]
pub struct ConfigError {
    /// File and line, or the flag or variable.
    pub place: String,
    /// The key.
    pub key: Option<String>,
    /// What was expected, and the nearest known key where one was mistyped.
    pub message: String,
}

impl ConfigError {
    /// The line of the file, where it stands in one.
    fn line(&self) -> Option<usize> {
        self.place.rsplit_once(':').and_then(|(_, line)| line.parse().ok())
    }

    /// An error that belongs to no key.
    #[must_use]
    pub fn unplaced(place: &str, message: String) -> Self {
        ConfigError { place: place.to_string(), key: None, message }
    }
}

/// All errors of a configuration, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts these errors. Those that belong to no line come last.
    #[must_use]
    pub fn new(first: ConfigError, others: Vec<ConfigError>) -> ConfigErrors {
        let mut all = vec![first];
        all.extend(others);
        all.sort_by_key(|error| error.line().unwrap_or(usize::MAX));
        let mut seen = std::collections::HashSet::new();
        all.retain(|error| seen.insert(error.to_string()));
        ConfigErrors(all)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        ConfigErrors(vec![error])
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, error)| write!(f, "{}{error}", if i == 0 { "" } else { "; " }))
    }
}
