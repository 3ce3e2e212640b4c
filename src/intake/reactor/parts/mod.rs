//! The parts of a reactor. Each has its own rules, and none of them knows the reactor.

pub mod answers;
pub mod apart;
pub mod between;
pub mod changes;
pub mod conns;
pub mod dawdle;
pub mod handshakes;
pub mod lanes;
pub mod limits;
pub mod listeners;
pub mod meter;
pub mod ready;
pub mod relief;
pub mod timers;
pub mod told;
