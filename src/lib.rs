//! logweir: log lines in, durable plain text files out, at the speed of the machine and in bounded memory.
//!
//! The README section "Reading the code" follows one line from socket to disk; the modules below are in that order.
#![deny(unsafe_code, missing_docs, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod acceptor;
pub mod admin;
pub mod bench;
pub mod checksum;
pub mod chunk;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod doctor;
pub mod keeper;
pub mod limits;
pub mod log;
pub mod logging;
pub mod metrics;
pub mod mutants;
pub mod net;
pub mod output;
pub mod rate;
pub mod reactor;
pub mod ring;
pub mod sandbox;
pub mod server;
pub mod service;
pub mod session;
pub mod shard;
pub mod sleep;
pub mod spread;
pub mod sync;
pub mod sys;
pub mod top;
pub mod topology;
pub mod transport;
pub mod watch;
pub mod writer;
