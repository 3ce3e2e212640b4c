//! Reads a configuration in two stages. [`raw`] has what was written: typed keys, and unknown ones are refused. [`checked`] has
//! what is meant: one struct of options for each module. Every error is found here, with its key and line.

mod access;
pub mod checked;
pub mod commit_log;
mod document;
mod in_force;
mod listen;
pub mod listener;
pub mod memory;
pub mod raw;
pub mod ship;
mod variables;

pub use crate::settings::{ConfigError, ConfigErrors};
pub use checked::Options;
pub use document::Document;
pub use in_force::InForce;
pub use variables::{near_misses, overrides_from_environment};

use crate::protocol::Protocols;
use listen::Listen;
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
/// Every error, with its key, its place and what was expected.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Options, ConfigErrors> {
    load_for(path, overrides, None)
}

/// Like [`load`], for a server that runs and reads its configuration again.
///
/// # Errors
/// As [`load`].
pub fn load_for(
    path: Option<&Path>,
    overrides: &Overrides,
    running: Option<&Options>,
) -> Result<Options, ConfigErrors> {
    Ok(read(path, overrides, running)?.0)
}

/// Like [`load`], and lists every value that is in force.
///
/// # Errors
/// As [`load`].
pub fn load_and_list(path: Option<&Path>, overrides: &Overrides) -> Result<(Options, InForce), ConfigErrors> {
    read(path, overrides, None)
}

fn read(
    path: Option<&Path>,
    overrides: &Overrides,
    running: Option<&Options>,
) -> Result<(Options, InForce), ConfigErrors> {
    let (text, name) = match path {
        None => (String::new(), "built-in defaults".to_string()),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::unplaced(&path.display().to_string(), format!("cannot be read: {error}"))
            })?;
            (text, path.display().to_string())
        }
    };
    read_text(&text, &name, overrides, |name| std::env::var(name).ok(), running)
}

/// Like [`load`], from text, with an environment for `${VAR}`.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    text: &str,
    name: &str,
    overrides: &Overrides,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Options, ConfigErrors> {
    load_text_for(text, name, overrides, environment, None)
}

/// Like [`load_text`], for a server that runs and reads its configuration again.
///
/// # Errors
/// As [`load`].
pub fn load_text_for(
    text: &str,
    name: &str,
    overrides: &Overrides,
    environment: impl Fn(&str) -> Option<String>,
    running: Option<&Options>,
) -> Result<Options, ConfigErrors> {
    Ok(read_text(text, name, overrides, environment, running)?.0)
}

fn read_text(
    text: &str,
    name: &str,
    overrides: &Overrides,
    environment: impl Fn(&str) -> Option<String>,
    running: Option<&Options>,
) -> Result<(Options, InForce), ConfigErrors> {
    let protocols = overrides.protocols;
    let mut document = Document::parse(text, name)?;
    document.expand(environment)?;
    if !overrides.listen.is_empty() {
        document.remove("listener");
    }
    let listeners: Vec<Listen> =
        overrides.listen.iter().enumerate().map(|(i, address)| listen::read(i, address, protocols)).collect();
    for Listen { listener, protocol, address } in &listeners {
        document.set(&format!("listener.{listener}.address"), address, "--listen")?;
        document.set(&format!("listener.{listener}.protocol"), protocol, "--listen")?;
    }
    for (key, value, origin) in &overrides.set {
        document.set(key, value, origin)?;
    }
    let (written, places) = document.into_raw(protocols.0)?;
    let options = checked::check(written, &places, protocols, running)?;
    Ok((options, InForce::of(&places)))
}

/// All keys, as `section.key`, with `NAME` in place of a name.
#[must_use]
pub fn all_keys(protocols: Protocols) -> Vec<String> {
    raw::all_keys().into_iter().chain(document::protocol_keys(protocols.0)).collect()
}

#[cfg(test)]
mod tests;
