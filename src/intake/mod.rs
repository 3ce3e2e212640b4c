//! Brings bytes from the socket into a chunk: the engines, the stages between socket and protocol, and the reactors.

pub mod acceptor;
mod even;
pub mod listener;
pub mod net;
pub mod reactor;
pub mod spread;
pub mod transport;
