//! Where each key of a configuration is written, what is wrong with it, and the value that is in force.

use super::hints::friendlier;
use super::units::{Size, Time};
use super::{ConfigError, ConfigErrors};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The most errors that are reported at once.
const MOST_ERRORS: usize = 20;

/// The places, values and errors of a configuration. A check that finds a wrong value notes the error here and goes on with the
/// default, so that one run reports all errors.
#[derive(Debug, Default)]
pub struct Places {
    places: HashMap<String, String>,
    default: String,
    /// The keys and values with what they span, and the place of each.
    spans: Vec<Spot>,
    /// Every key there is, as `section.key`.
    known: Vec<String>,
    wrong: RefCell<Vec<ConfigError>>,
    /// Sections with a value that could not be read. Rules about them are not checked, because they would use a default instead.
    unread: RefCell<Vec<String>>,
    in_force: RefCell<BTreeMap<String, Option<String>>>,
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

fn section_of(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(section, _)| section)
}

/// Text as a TOML string in which no variable is expanded.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace('$', "$$")).to_string()
}

impl Places {
    /// Of the keys and the values that are written; `default`: of those that are not; `known`: every key there is.
    #[must_use]
    pub fn new(keys: Vec<Spot>, values: Vec<Spot>, default: String, known: Vec<String>) -> Places {
        let places = keys.iter().map(|spot| (spot.key.clone(), spot.place.clone())).collect();
        Places { places, default, spans: keys.into_iter().chain(values).collect(), known, ..Places::default() }
    }

    /// An error about a key; where the key is not written, about the default.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let place = self.places.get(key).unwrap_or(&self.default).clone();
        ConfigError { place, key: Some(key.to_string()), message: message.into() }
    }

    /// Notes that a value is wrong. Reading goes on.
    pub fn note(&self, error: ConfigError) {
        self.wrong.borrow_mut().push(error);
    }

    /// Notes that a rule about several keys is broken. It does nothing if a key of that section could not be read, because the rule
    /// was then checked with a default.
    pub fn broken(&self, error: ConfigError) {
        let about = error.key.as_deref().unwrap_or("");
        if !self.unread.borrow().iter().any(|section| section_of(about) == section || about == section) {
            self.note(error);
        }
    }

    /// Takes the result of checking a rule, and notes an error as [`Places::broken`] does.
    pub fn kept<T>(&self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.broken(error)).ok()
    }

    /// All errors that were noted.
    ///
    /// # Errors
    /// Some error was noted.
    pub fn verdict(&self) -> Result<(), ConfigErrors> {
        let mut wrong = self.wrong.take();
        wrong.truncate(MOST_ERRORS);
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(ConfigErrors::new(wrong.remove(0), wrong)),
        }
    }

    /// True where the key is written.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Where a key is written.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Option<&str> {
        self.places.get(key).map(String::as_str)
    }

    /// The typed content of a table of the document that stands in section `base`. `more`: keys that may stand beside those of the
    /// type in sections whose names begin so. An unknown key, a value of the wrong type, a size or time without unit is noted, and left
    /// out.
    ///
    /// # Errors
    /// A key that is wrong and cannot be left out.
    pub fn typed<T: DeserializeOwned>(
        &self,
        mut table: DeTable<'_>,
        base: &str,
        (within, more): (&str, &[&str]),
    ) -> Result<T, ConfigError> {
        loop {
            let error = match T::deserialize(toml::de::Deserializer::from(Spanned::new(0..0, table.clone()))) {
                Ok(typed) => return Ok(typed),
                Err(error) => self.in_place(&error, within, more),
            };
            let inner = error.key.as_deref().and_then(|key| match base {
                "" => Some(key),
                base => key.strip_prefix(base)?.strip_prefix('.'),
            });
            if !inner.is_some_and(|key| leave_out(&mut table, key)) {
                return Err(error);
            }
            let section = section_of(error.key.as_deref().unwrap_or("")).to_string();
            self.note(error);
            self.unread.borrow_mut().push(section);
        }
    }

    fn in_place(&self, error: &toml::de::Error, within: &str, more: &[&str]) -> ConfigError {
        let message = error.message().trim_end();
        let span = error.span().unwrap_or(0..0);
        let holds = |s: &Range<usize>| s.start <= span.start && span.start < s.end.max(s.start + 1);
        // Where keys have one place (those of a flag), an unknown one is the one that is named.
        let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let is_named = |spot: &Spot| unknown.is_some_and(|name| spot.key.rsplit('.').next() == Some(name));
        let spots = self.spans.iter().rev().filter(|spot| holds(&spot.span));
        let spot = spots.max_by_key(|spot| (is_named(spot), spot.key.len()));
        let (key, place) = spot.map_or((None, self.default.clone()), |s| (Some(s.key.clone()), s.place.clone()));
        let section = key.as_deref().map_or("", section_of);
        let more = if section.starts_with(within) { more } else { &[] };
        ConfigError { place, message: friendlier(message, section, more, &self.known), key }
    }

    /// Notes the value of a key that is in force, as TOML; `None`: the key is not set, and has no default.
    pub fn in_force(&self, key: &str, toml: Option<String>) {
        self.in_force.borrow_mut().insert(key.to_string(), toml);
    }

    /// The values that are in force, as TOML, by key.
    #[must_use]
    pub fn all_in_force(&self) -> BTreeMap<String, Option<String>> {
        self.in_force.borrow().clone()
    }

    /// A time within a range. Outside of it: noted, and the default.
    pub fn time(&self, key: &str, value: Option<Time>, default: &str, least: &str, most: &str) -> Duration {
        let parse = |text: &str| Time::parse(text).unwrap_or(Time(Duration::ZERO));
        let mut value = value.unwrap_or_else(|| parse(default));
        if value < parse(least) || value > parse(most) {
            self.note(self.error(key, format!("expected {least} to {most}, not {value}")));
            value = parse(default);
        }
        self.in_force(key, Some(quoted(&value.to_string())));
        value.0
    }

    /// A size within a range. Outside of it: noted, and the default.
    pub fn size(&self, key: &str, value: Option<Size>, default: u64, least: u64, most: u64) -> u64 {
        let mut value = value.unwrap_or(Size(default));
        if value.0 < least || value.0 > most {
            self.note(self.error(key, format!("expected {} to {}, not {value}", Size(least), Size(most))));
            value = Size(default);
        }
        self.in_force(key, Some(quoted(&value.exact())));
        value.0
    }

    /// A number within a range. Outside of it: noted, and the default.
    pub fn number(&self, key: &str, value: Option<usize>, default: usize, least: usize, most: usize) -> usize {
        let mut value = value.unwrap_or(default);
        if value < least || value > most {
            self.note(self.error(key, format!("expected {least} to {most}, not {value}")));
            value = default;
        }
        self.in_force(key, Some(value.to_string()));
        value
    }

    /// A word or text.
    pub fn word<T: Display>(&self, key: &str, value: Option<T>, default: T) -> T {
        let value = value.unwrap_or(default);
        self.in_force(key, Some(quoted(&value.to_string())));
        value
    }

    /// Yes or no.
    pub fn flag(&self, key: &str, value: Option<bool>, default: bool) -> bool {
        let value = value.unwrap_or(default);
        self.in_force(key, Some(value.to_string()));
        value
    }

    /// A value that may be left out.
    pub fn optional<T: Display>(&self, key: &str, value: Option<&T>) {
        self.in_force(key, value.map(|value| quoted(&value.to_string())));
    }

    /// A list of texts that need not be set.
    pub fn list<T: AsRef<str>>(&self, key: &str, value: Option<&[T]>) {
        let all = |list: &[T]| format!("[{}]", list.iter().map(|t| quoted(t.as_ref())).collect::<Vec<_>>().join(", "));
        self.in_force(key, value.map(all));
    }
}

/// Removes a key from a table. Returns false if it is not there.
fn leave_out(table: &mut DeTable<'_>, key: &str) -> bool {
    match key.split_once('.') {
        None => table.remove(key).is_some(),
        Some((section, rest)) => match table.get_mut(section).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => leave_out(inner, rest),
            _ => false,
        },
    }
}
