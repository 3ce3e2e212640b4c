//! From the socket into a chunk: engines, what lies between socket and protocol, and the reactors.

pub mod acceptor;
pub mod listener;
pub mod net;
pub mod reactor;
pub mod spread;
pub mod transport;
