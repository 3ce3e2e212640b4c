//! Configuration in two stages: what was written ([`raw`], typed, unknown keys refused), then what is meant ([`checked`],
//! one struct of options per module). Everything that can be wrong is found here, with key and line.

pub mod checked;
mod document;
pub mod listener;
pub mod memory;
pub mod raw;
pub mod renumber;

pub use crate::settings::ConfigError;
pub use checked::Options;
pub use document::Document;

use std::path::Path;

/// What overrides the file, from the command line and the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `section.key=value` and where it came from.
    pub set: Vec<(String, String, String)>,
    /// Addresses that replace the listeners of the file.
    pub listen: Vec<String>,
}

/// Reads, overrides and checks a configuration; `None`: the defaults.
///
/// # Errors
/// The first thing that is wrong, with key, place and what was expected.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Options, ConfigError> {
    let (text, name) = match path {
        None => (String::new(), "built-in defaults".to_string()),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::unplaced(&path.display().to_string(), format!("cannot be read: {error}"))
            })?;
            (text, path.display().to_string())
        }
    };
    load_text(&text, &name, overrides, |name| std::env::var(name).ok())
}

/// As [`load`], from text, with an environment for `${VAR}`.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    text: &str,
    name: &str,
    overrides: &Overrides,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Options, ConfigError> {
    let listeners: Vec<(String, &str, String)> = overrides.listen.iter().enumerate().map(as_listener).collect();
    let mut document = Document::parse(text, name)?;
    document.expand(environment)?;
    if !listeners.is_empty() {
        document.remove("listener");
    }
    for (listener, protocol, address) in &listeners {
        document.set(&format!("listener.{listener}.address"), address, "--listen")?;
        document.set(&format!("listener.{listener}.protocol"), protocol, "--listen")?;
    }
    for (key, value, origin) in &overrides.set {
        document.set(key, value, origin)?;
    }
    let (raw, places) = document.into_raw()?;
    checked::check(raw, &places)
}

/// Name, protocol and address of the listener that a `--listen` means.
fn as_listener((i, address): (usize, &String)) -> (String, &'static str, String) {
    let rest = address.strip_prefix("http://");
    let protocol = if rest.is_some() { "http" } else { "lines" };
    let listener = if i == 0 { protocol.to_string() } else { format!("{protocol}-{}", i + 1) };
    let address = rest.map_or(address.clone(), |rest| format!("tcp://{}", rest.trim_end_matches('/')));
    (listener, protocol, address)
}

/// Overrides from the environment: `LOGWEIR_STORAGE__SYNC_INTERVAL=1s` is `storage.sync_interval`. Only names with a
/// double underscore count: a container platform sets others that begin alike.
#[must_use]
pub fn overrides_from_environment(variables: impl Iterator<Item = (String, String)>) -> Vec<(String, String, String)> {
    let mut found: Vec<_> = variables
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("LOGWEIR_")?;
            key.contains("__")
                .then(|| (key.to_lowercase().replace("__", "."), value, format!("environment variable {name}")))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests;
