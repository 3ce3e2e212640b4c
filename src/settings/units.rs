//! Sizes and times with their units.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::time::Duration;

/// Bytes, written as `"256MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A time, written as `"500ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// Reads `64KiB`, `1.5GiB`, `10MB`, `512B`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Size, String> {
        let expected =
            || format!("expected a size with its unit, such as \"64KiB\", \"256MiB\" or \"10GB\", not \"{text}\"");
        let trimmed = text.trim();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((trimmed.strip_suffix(name)?.trim_end(), *unit)))
            .ok_or_else(expected)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Size).ok_or_else(expected);
        }
        let (whole, part) = number.split_once('.').ok_or_else(expected)?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(expected());
        }
        let value: f64 = number.parse().map_err(|_| expected())?;
        let bytes = value * unit as f64;
        if bytes > 1e18 { Err(expected()) } else { Ok(Size(bytes.round() as u64)) }
    }
}

impl Size {
    /// With the largest binary unit that loses nothing, as it can be read again.
    #[must_use]
    pub fn exact(self) -> String {
        let unit = UNITS[..4].iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        unit.map_or(format!("{}B", self.0), |(name, unit)| format!("{}{name}", self.0 / unit))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit) in &UNITS[..4] {
            if self.0 >= *unit {
                let value = self.0 as f64 / *unit as f64;
                return if self.0.is_multiple_of(*unit) {
                    write!(f, "{value:.0} {name}")
                } else {
                    write!(f, "{value:.1} {name}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl Time {
    /// Reads `500ms`, `30s`, `5m`, `1h`, `7days`, `1h 30m`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Time, String> {
        humantime::parse_duration(text.trim()).map(Time).map_err(|_| {
            format!("expected a time with its unit, such as \"500ms\", \"30s\", \"5m\" or \"1h\", not \"{text}\"")
        })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

macro_rules! from_text {
    ($type:ident, $what:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

from_text!(Size, "a size with its unit in quotes, such as \"256MiB\"");
from_text!(Time, "a time with its unit in quotes, such as \"500ms\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_units() {
        assert_eq!(Size::parse("256MiB").unwrap().0, 256 << 20);
        assert_eq!(Size::parse("1.5 KiB").unwrap().0, 1536);
        assert_eq!(Size::parse("10MB").unwrap().0, 10_000_000);
        for bad in ["", "1", "MiB", "-1B", "1e3B", "1.B", "99999999999TiB", "0x1B"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Size(1536).to_string(), "1.5 KiB");
        assert_eq!(Size(64 << 20).to_string(), "64 MiB");
    }

    #[test]
    fn times_need_units() {
        assert_eq!(Time::parse("500ms").unwrap().0, Duration::from_millis(500));
        assert!(Time::parse("5").is_err());
        assert!(Time::parse("soon").is_err());
    }
}
