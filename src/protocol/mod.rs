//! The protocols, each in a folder of its own.

pub mod http;
pub mod lines;
