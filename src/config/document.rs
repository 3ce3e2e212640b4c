//! A TOML document in which variables are expanded and overrides are applied. It knows the place of each key.

use super::raw::{self, Raw};
use crate::protocol::Entry;
use crate::settings::{ConfigError, ConfigErrors, Places, Spot};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// See the module documentation.
pub struct Document<'a> {
    table: Spanned<DeTable<'a>>,
    text: String,
    name: String,
    /// Where overrides came from; override `i` has the span `text.len() + i`.
    origins: Vec<String>,
}

/// The typed content of a document.
pub struct Written<'a> {
    /// Everything but
    pub raw: Raw,
    /// the keys of listeners that are protocols' own.
    pub own: BTreeMap<String, DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses TOML.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn parse(text: &'a str, name: &str) -> Result<Self, ConfigErrors> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let error = |error: toml::de::Error| {
            let place = error.span().map_or(name.to_string(), |s| format!("{name}:{}", line_of(text, s.start)));
            ConfigError { place, key: None, message: error.message().trim_end().to_string() }
        };
        let mut errors: Vec<ConfigError> = errors.into_iter().map(error).collect();
        // The first of a line says what is wrong, the others what became of it.
        errors.dedup_by(|later, first| later.place == first.place);
        if !errors.is_empty() {
            return Err(ConfigErrors::new(errors.remove(0), errors));
        }
        Ok(Document { table, text: text.to_string(), name: name.to_string(), origins: Vec::new() })
    }

    fn place(&self, span: &Range<usize>) -> String {
        if span.start >= self.text.len() && !self.origins.is_empty() {
            return self.origins[(span.start - self.text.len()).min(self.origins.len() - 1)].clone();
        }
        if self.text.is_empty() {
            self.name.clone()
        } else {
            format!("{}:{}", self.name, line_of(&self.text, span.start))
        }
    }

    /// Replaces `${VAR}` and `${VAR:-default}` in strings; `$$` is a dollar sign.
    ///
    /// # Errors
    /// Variables that are not set and have no default, or braces that are not closed.
    pub fn expand(&mut self, environment: impl Fn(&str) -> Option<String>) -> Result<(), ConfigErrors> {
        let mut failed = Vec::new();
        visit(self.table.get_mut(), String::new(), &mut |key, value| {
            if let Err((span, message)) = expand_value(value, &environment) {
                failed.push((key.to_string(), span, message));
            }
        });
        let error = |(key, span, message)| ConfigError { place: self.place(&span), key: Some(key), message };
        let mut errors: Vec<ConfigError> = failed.into_iter().map(error).collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(ConfigErrors::new(errors.remove(0), errors)),
        }
    }

    /// Removes a top-level key with all beneath it.
    pub fn remove(&mut self, key: &str) {
        self.table.get_mut().remove(key);
    }

    /// Applies an override `section.key=value`. The value is TOML, or else a string.
    ///
    /// # Errors
    /// The key is not of the form, or a value stands where a section should be.
    pub fn set(&mut self, key: &str, value: &'a str, origin: &str) -> Result<(), ConfigError> {
        let at = self.text.len() + self.origins.len();
        self.origins.push(origin.to_string());
        let error = |message: &str| ConfigError {
            place: origin.to_string(),
            key: Some(key.to_string()),
            message: message.to_string(),
        };
        let mut parts: Vec<&str> = key.split('.').collect();
        let Some(last) = parts.pop().filter(|l| !l.is_empty()) else { return Err(error("expected section.key=value")) };
        let mut table = self.table.get_mut();
        for part in parts {
            let entry = table
                .entry(Spanned::new(at..at, part.to_string().into()))
                .or_insert_with(|| Spanned::new(at..at, DeValue::Table(DeTable::new())));
            match entry.get_mut() {
                DeValue::Table(inner) => table = inner,
                _ => return Err(error("expected a section before the last dot")),
            }
        }
        let parsed: Spanned<DeValue<'a>> = match toml_value(value) {
            Some(parsed) => Spanned::new(at..at, parsed),
            None => Spanned::new(at..at, DeValue::String(value.to_string().into())),
        };
        table.remove(last);
        table.insert(Spanned::new(at..at, last.to_string().into()), parsed);
        Ok(())
    }

    /// The typed content, the keys of each listener that are its protocol's own, and the place of each key.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong type, a size or time without unit.
    pub fn into_raw(mut self, protocols: &[&Entry]) -> Result<(Written<'a>, Places), ConfigErrors> {
        let mut values: Vec<(String, Range<usize>)> = Vec::new();
        visit(self.table.get_mut(), String::new(), &mut |key, value| values.push((key.to_string(), value.span())));
        let mut keys: Vec<(String, Range<usize>)> = Vec::new();
        visit_keys(self.table.get_ref(), "", &mut |key, span| keys.push((key, span)));
        let spots = |list: Vec<(String, Range<usize>)>| {
            list.into_iter().map(|(key, span)| Spot { key, place: self.place(&span), span }).collect()
        };
        let known = raw::all_keys().into_iter().chain(protocol_keys(protocols)).collect();
        let places = Places::new(spots(keys), spots(values), self.name.clone(), known);
        let mut table = self.table.into_inner();
        let mut own = BTreeMap::new();
        if let Some(DeValue::Table(listeners)) = table.get_mut("listener").map(Spanned::get_mut) {
            for (name, listener) in listeners.iter_mut() {
                if let DeValue::Table(listener) = listener.get_mut() {
                    own.insert(name.get_ref().to_string(), take_own(listener, protocols));
                }
            }
        }
        let beside: Vec<&str> = protocols.iter().flat_map(|p| p.keys).copied().collect();
        match places.typed(table, "", ("listener.", &beside)) {
            Ok(raw) => Ok((Written { raw, own }, places)),
            Err(error) => {
                places.note(error);
                Err(places
                    .verdict()
                    .err()
                    .unwrap_or_else(|| ConfigError::unplaced("configuration", "cannot be read".into()).into()))
            }
        }
    }
}

/// Removes and returns the keys of a listener that belong to a protocol.
fn take_own<'a>(listener: &mut DeTable<'a>, protocols: &[&Entry]) -> DeTable<'a> {
    let mut own = DeTable::new();
    let is_own = |key: &str| protocols.iter().any(|p| p.keys.contains(&key));
    let keys: Vec<_> = listener.keys().filter(|key| is_own(key.get_ref())).cloned().collect();
    for key in keys {
        if let Some(value) = listener.remove(&**key.get_ref()) {
            own.insert(key, value);
        }
    }
    own
}

/// The keys of the protocols, as `listener.NAME.key`.
#[must_use]
pub fn protocol_keys(protocols: &[&Entry]) -> Vec<String> {
    let mut keys: Vec<String> =
        protocols.iter().flat_map(|p| p.keys).map(|key| format!("listener.NAME.{key}")).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn toml_value(text: &str) -> Option<DeValue<'_>> {
    DeValue::parse(text).ok().map(Spanned::into_inner)
}

fn visit<'a>(table: &mut DeTable<'a>, prefix: String, each: &mut impl FnMut(&str, &mut Spanned<DeValue<'a>>)) {
    for (key, value) in table.iter_mut() {
        let path = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_mut() {
            visit(inner, format!("{path}."), each);
        } else {
            each(&path, value);
        }
    }
}

fn visit_keys(table: &DeTable<'_>, prefix: &str, each: &mut impl FnMut(String, Range<usize>)) {
    for (key, value) in table.iter() {
        let path = format!("{prefix}{}", key.get_ref());
        each(path.clone(), key.span());
        if let DeValue::Table(inner) = value.get_ref() {
            visit_keys(inner, &format!("{path}."), each);
        }
    }
}

/// Expands the variables in a string, or in the strings of a list.
fn expand_value(
    value: &mut Spanned<DeValue<'_>>,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<(), (Range<usize>, String)> {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => *text = expand_text(text, environment).map_err(|message| (span, message))?.into(),
        DeValue::Array(list) => list.iter_mut().try_for_each(|value| expand_value(value, environment))?,
        _ => {}
    }
    Ok(())
}

fn expand_text(text: &str, environment: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (inside, after) = after.split_once('}').ok_or("`${` without `}`; write `$$` for a dollar sign")?;
            let (name, default) = inside.split_once(":-").map_or((inside, None), |(n, d)| (n, Some(d)));
            match environment(name).filter(|v| !v.is_empty() || default.is_none()).or_else(|| default.map(String::from))
            {
                Some(value) => out.push_str(&value),
                None => {
                    return Err(format!(
                        "the environment variable {name} is not set; give it a default with ${{{name}:-…}}"
                    ));
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}
