//! logweir is a log-ingestion server for Linux: it writes log lines to plain text files, fast and in bounded memory, and says
//! which lines are durable.
//!
//! docs/architecture.md follows one line from socket to disk and describes the floors below.
#![deny(unsafe_code, missing_docs, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod bench;
pub mod cli;
pub mod config;
pub mod host;
pub mod intake;
pub mod log;
pub mod metrics;
pub mod pipeline;
pub mod protocol;
pub mod server;
pub mod session;
pub mod settings;
pub mod watch;
