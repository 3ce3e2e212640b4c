//! Keys of a configuration and their values: units, ranges, and what is said of those that do not do.

pub mod units;

use std::collections::HashMap;

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
    /// An error that belongs to no key.
    #[must_use]
    pub fn unplaced(place: &str, message: String) -> Self {
        ConfigError { place: place.to_string(), key: None, message }
    }
}

/// Where each key stands.
pub struct Places {
    places: HashMap<String, String>,
    default: String,
}

impl Places {
    /// The places of all keys that are written, and what is said of those that are not.
    #[must_use]
    pub fn new(places: HashMap<String, String>, default: String) -> Places {
        Places { places, default }
    }

    /// An error about a key; where the key is not written, about the default.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let place = self.places.get(key).unwrap_or(&self.default).clone();
        ConfigError { place, key: Some(key.to_string()), message: message.into() }
    }
}
