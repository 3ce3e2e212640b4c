//! Sockets: the contract of an engine, the two engines, and what listens.

mod contract;
mod counted;
mod epoll;
pub mod listen;
mod socket;
pub mod stdin;
mod steering;
mod uring;

pub use contract::{
    ConnId, Datagram, Engine, Event, Kind, Lease, LeaseMark, ListenerId, Outcome, Peer, Received, Sent, Socket,
};
pub use counted::Counted;
pub use epoll::EpollEngine;
pub use steering::{Group, Member, Place};
pub use uring::{BUFFER_BYTES, UringEngine, probe};
