//! Configuration in two stages: what was written ([`raw`], typed, unknown keys refused), then what is meant ([`checked`],
//! one struct of options per module). Everything that can be wrong is found here, with key and line.

pub mod checked;
mod document;
pub mod listener;
pub mod memory;
pub mod raw;

pub use crate::settings::ConfigError;
pub use checked::Options;
pub use document::Document;

use crate::protocol::Protocols;
use std::path::Path;

/// What overrides the file, from the command line and the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `section.key=value` and where it came from.
    pub set: Vec<(String, String, String)>,
    /// Addresses that replace the listeners of the file.
    pub listen: Vec<String>,
    /// The protocols there are.
    pub protocols: Protocols,
}

/// Reads, overrides and checks a configuration; `None`: the defaults.
///
/// # Errors
/// The first thing that is wrong, with key, place and what was expected.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Options, ConfigError> {
    load_for(path, overrides, None)
}

/// As [`load`], for a server that runs and is to take it over.
///
/// # Errors
/// As [`load`].
pub fn load_for(path: Option<&Path>, overrides: &Overrides, running: Option<&Options>) -> Result<Options, ConfigError> {
    let (text, name) = match path {
        None => (String::new(), "built-in defaults".to_string()),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::unplaced(&path.display().to_string(), format!("cannot be read: {error}"))
            })?;
            (text, path.display().to_string())
        }
    };
    load_text_for(&text, &name, overrides, |name| std::env::var(name).ok(), running)
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
    load_text_for(text, name, overrides, environment, None)
}

/// As [`load_text`], for a server that runs and is to take it over.
///
/// # Errors
/// As [`load`].
pub fn load_text_for(
    text: &str,
    name: &str,
    overrides: &Overrides,
    environment: impl Fn(&str) -> Option<String>,
    running: Option<&Options>,
) -> Result<Options, ConfigError> {
    let protocols = overrides.protocols;
    let as_listener = |(i, address): (usize, &String)| as_listener(i, address, protocols);
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
    let (written, places) = document.into_raw(protocols.0)?;
    checked::check(written, &places, protocols, running)
}

/// Name, protocol and address of the listener that a `--listen` means.
fn as_listener(i: usize, address: &str, protocols: Protocols) -> (String, &'static str, String) {
    let scheme = address.split_once("://").and_then(|(scheme, rest)| Some((protocols.find(scheme)?, rest)));
    let protocol = scheme.map_or("lines", |(entry, _)| entry.name);
    let listener = if i == 0 { protocol.to_string() } else { format!("{protocol}-{}", i + 1) };
    let address = scheme.map_or(address.to_string(), |(_, rest)| format!("tcp://{}", rest.trim_end_matches('/')));
    (listener, protocol, address)
}

/// Every key there is, as `section.key`, with `NAME` where a name stands.
#[must_use]
pub fn all_keys(protocols: Protocols) -> Vec<String> {
    raw::all_keys().into_iter().chain(document::protocol_keys(protocols.0)).collect()
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
