//! logweir: log lines in, durable plain text files out, at the speed of the machine and in bounded memory.
//!
//! The README section "Reading the code" follows one line from socket to disk; the modules below are in that order.
#![deny(unsafe_code, missing_docs, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod net;
pub mod transport;
pub mod session;
pub mod chunk;
pub mod ring;
pub mod log;
pub mod metrics;
pub mod clock;
pub mod sys;
pub mod control;
pub mod shard;
pub mod writer;
