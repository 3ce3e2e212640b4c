//! Keys of a configuration and their values: units, ranges, and what is said of those that do not do.

pub mod section;
pub mod units;

use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeTable;
use units::{Size, Time};

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
#[derive(Debug, Default)]
pub struct Places {
    places: HashMap<String, String>,
    default: String,
    /// The keys and values with what they span, and the place of each.
    spans: Vec<Spot>,
    /// Every key there is, as `section.key`.
    known: Vec<String>,
}

/// A key or value of a document.
#[derive(Debug, Clone)]
pub struct Spot {
    /// The key.
    pub key: String,
    /// Bytes of the document.
    pub span: Range<usize>,
    /// In words.
    pub place: String,
}

impl Places {
    /// Of the keys and the values that are written; `default`: of those that are not; `known`: every key there is.
    #[must_use]
    pub fn new(keys: Vec<Spot>, values: Vec<Spot>, default: String, known: Vec<String>) -> Places {
        let places = keys.iter().map(|spot| (spot.key.clone(), spot.place.clone())).collect();
        Places { places, default, spans: keys.into_iter().chain(values).collect(), known }
    }

    /// An error about a key; where the key is not written, about the default.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let place = self.places.get(key).unwrap_or(&self.default).clone();
        ConfigError { place, key: Some(key.to_string()), message: message.into() }
    }

    /// True where the key is written.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// The typed content of a table of the document. `more`: keys that may stand beside those of the type in sections whose names
    /// begin so.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong type, a size or time without unit.
    pub fn typed<T: DeserializeOwned>(
        &self,
        table: DeTable<'_>,
        (within, more): (&str, &[&str]),
    ) -> Result<T, ConfigError> {
        T::deserialize(toml::de::Deserializer::from(Spanned::new(0..0, table))).map_err(|error| {
            let message = error.message().trim_end();
            let span = error.span().unwrap_or(0..0);
            let holds = |s: &Range<usize>| s.start <= span.start && span.start < s.end.max(s.start + 1);
            let spot = self.spans.iter().rev().filter(|spot| holds(&spot.span)).max_by_key(|spot| spot.key.len());
            let (key, place) = spot.map_or((None, self.default.clone()), |s| (Some(s.key.clone()), s.place.clone()));
            let section = key.as_deref().and_then(|key| key.rsplit_once('.')).map_or("", |(section, _)| section);
            let more = if section.starts_with(within) { more } else { &[] };
            ConfigError { place, message: friendlier(message, section, more, &self.known), key }
        })
    }

    /// A time within a range.
    ///
    /// # Errors
    /// It is outside.
    pub fn time(
        &self,
        key: &str,
        value: Option<Time>,
        default: &str,
        least: &str,
        most: &str,
    ) -> Result<Duration, ConfigError> {
        let parse = |text: &str| Time::parse(text).unwrap_or(Time(Duration::ZERO));
        let value = value.unwrap_or_else(|| parse(default));
        if value < parse(least) || value > parse(most) {
            return Err(self.error(key, format!("expected {least} to {most}, not {value}")));
        }
        Ok(value.0)
    }

    /// A size within a range.
    ///
    /// # Errors
    /// It is outside.
    pub fn size(
        &self,
        key: &str,
        value: Option<Size>,
        default: u64,
        least: u64,
        most: u64,
    ) -> Result<u64, ConfigError> {
        let value = value.unwrap_or(Size(default));
        if value.0 < least || value.0 > most {
            return Err(self.error(key, format!("expected {} to {}, not {value}", Size(least), Size(most))));
        }
        Ok(value.0)
    }

    /// A number within a range.
    ///
    /// # Errors
    /// It is outside.
    pub fn number(
        &self,
        key: &str,
        value: Option<usize>,
        default: usize,
        least: usize,
        most: usize,
    ) -> Result<usize, ConfigError> {
        let value = value.unwrap_or(default);
        if value < least || value > most {
            return Err(self.error(key, format!("expected {least} to {most}, not {value}")));
        }
        Ok(value)
    }
}

/// Serde's words for an unknown key, with the nearest known one instead of them all.
fn friendlier(message: &str, section: &str, more: &[&str], elsewhere: &[String]) -> String {
    if !message.starts_with("unknown field") {
        return message.replace("unknown variant", "unknown value");
    }
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((unknown, known)) = names.split_first() else { return message.to_string() };
    let section = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    let mut known = known.to_vec();
    for name in more {
        if !known.contains(name) {
            known.push(name);
        }
    }
    let mut nearest: Vec<(usize, String)> = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), (*name).to_string()))
        .chain(elsewhere.iter().filter_map(|full| {
            // The same key in another section is a likely slip too.
            let (_, name) = full.rsplit_once('.')?;
            Some((strsim::damerau_levenshtein(unknown, name) + 1, full.clone()))
        }))
        .collect();
    nearest.sort();
    match nearest.first() {
        Some((distance, name)) if *distance <= unknown.len().max(4) / 2 => {
            format!("unknown key{section}; did you mean `{name}`?")
        }
        _ => format!("unknown key{section}; known are {}", known.join(", ")),
    }
}
