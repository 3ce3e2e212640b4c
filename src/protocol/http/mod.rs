//! `protocol = "http"`: HTTP/1.1 requests whose bodies are lines (RFC 9110, RFC 9112). A 2xx means that every line of the
//! request has reached its level.
//!
//! Bodies stream: lines go into the chunk as they arrive, however long the body is. Between two receives there is either the
//! beginning of a head or that of a line; it waits in the tail of the connection. An encoded body waits in leased memory
//! instead (`encoded`).

mod answer;
pub mod api;
mod body;
mod decode;
mod dialect;
mod encoded;
mod forms;
mod head;
mod json;
mod listener;
mod options;
pub mod pages;
mod problem;
mod request;
mod session;
mod snappy;
mod voice;
mod watched;
mod zstandard;

pub use dialect::{Dialect, Records};
pub use head::MOST_HEADERS;
pub use listener::{ENTRY, HttpProtocol, PAGES_SCRATCH};
pub use options::{Apis, HttpOptions};
pub use session::{HEAD_LANDING, Http};

#[cfg(test)]
mod tests;
