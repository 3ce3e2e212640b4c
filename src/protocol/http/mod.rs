//! `protocol = "http"`: HTTP/1.1 requests whose bodies are lines (RFC 9110, RFC 9112). A 2xx means that every line of the
//! request has reached its level.
//!
//! Bodies stream: lines go into the chunk as they arrive, whatever the length of the body. What lies between two receives
//! is either the beginning of a head or of a line, and is the connection's tail; a body that is encoded waits in leased
//! memory instead (`encoded`).

mod answer;
mod body;
mod decode;
mod dialect;
mod encoded;
mod head;
mod json;
mod listener;
mod options;
pub mod pages;
mod problem;
mod request;
mod session;
mod snappy;
mod zstandard;

pub use dialect::{Dialect, Records};
pub use head::MOST_HEADERS;
pub use listener::{ENTRY, HttpProtocol, PAGES_SCRATCH};
pub use options::HttpOptions;
pub use session::{HEAD_LANDING, Http};

#[cfg(test)]
mod tests;
