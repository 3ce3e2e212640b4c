//! Reads the short form of an address that `--listen` takes.

use crate::protocol::Protocols;

/// A listener that `--listen` describes.
pub struct Listen {
    /// The listener's name.
    pub listener: String,
    /// Its protocol.
    pub protocol: &'static str,
    /// Its address.
    pub address: String,
}

/// Reads the `i`-th `--listen`. A wrong address is reported later, with the other errors.
pub fn read(i: usize, text: &str, protocols: Protocols) -> Listen {
    let scheme = text.split_once("://").and_then(|(scheme, rest)| Some((protocols.find(scheme)?, rest)));
    let protocol = scheme.map_or("lines", |(entry, _)| entry.name);
    let listener = if i == 0 { protocol.to_string() } else { format!("{protocol}-{}", i + 1) };
    let address = scheme.map_or(text.to_string(), |(_, rest)| format!("tcp://{}", rest.trim_end_matches('/')));
    // As a string, whatever it looks like: 5170 is no number here.
    Listen { listener, protocol, address: toml::Value::String(address).to_string() }
}
