//! The keys of one section, typed by the module that they belong to.

use super::units::{Size, Time};
use super::{ConfigError, Places};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::time::Duration;
use toml::de::DeTable;

/// The keys of a section that belong to one module, and the section's name: `listener.web`.
pub struct Section<'a> {
    /// Its name.
    pub name: String,
    keys: DeTable<'a>,
    places: &'a Places,
}

impl<'a> Section<'a> {
    /// Makes the section of these keys.
    #[must_use]
    pub fn new(name: String, keys: DeTable<'a>, places: &'a Places) -> Self {
        Section { name, keys, places }
    }

    /// The keys, typed.
    ///
    /// # Errors
    /// A key is not known, or a value has another type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.places.typed(self.keys.clone(), &self.name, (&self.name, &[]))
    }

    /// An error about one of its keys.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.places.error(&format!("{}.{key}", self.name), message)
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// A size within a range. Outside of it: noted, and the default.
    pub fn size(&self, key: &str, value: Option<Size>, default: u64, least: u64, most: u64) -> u64 {
        self.places.size(&self.key(key), value, default, least, most)
    }

    /// A time within a range. Outside of it: noted, and the default.
    pub fn time(&self, key: &str, value: Option<Time>, default: &str, least: &str, most: &str) -> Duration {
        self.places.time(&self.key(key), value, default, least, most)
    }

    /// A number within a range. Outside of it: noted, and the default.
    pub fn number(&self, key: &str, value: Option<usize>, default: usize, least: usize, most: usize) -> usize {
        self.places.number(&self.key(key), value, default, least, most)
    }

    /// A word or text.
    pub fn word<T: Display>(&self, key: &str, value: Option<T>, default: T) -> T {
        self.places.word(&self.key(key), value, default)
    }

    /// Yes or no.
    pub fn flag(&self, key: &str, value: Option<bool>, default: bool) -> bool {
        self.places.flag(&self.key(key), value, default)
    }

    /// A value that is written as TOML already, and need not be set.
    pub fn shown(&self, key: &str, value: Option<String>) {
        self.places.in_force(&self.key(key), value);
    }

    /// A list of texts that need not be set.
    pub fn list(&self, key: &str, value: Option<&[String]>) {
        self.places.list(&self.key(key), value);
    }
}

/// A section's keys, each optional, and a list of them; unknown ones are refused.
#[macro_export]
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)] // each key is documented in config/logweir.toml, which a test holds complete
        pub struct $name { $(pub $key: Option<$type>),* }

        impl $name {
            /// The keys, for the test that the documentation is complete.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];
        }
    };
}

/// An enumeration of words, as they are written in a configuration.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`")] #[serde(rename = $text)] $word),+
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$word => $text),+ })
            }
        }
    };
}
