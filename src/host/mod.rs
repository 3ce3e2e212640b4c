//! The machine: system calls, cores and memory, time, limits, and small parts that every other floor uses.

pub mod address;
pub mod clock;
pub mod limits;
pub mod mutants;
pub mod output;
pub mod peer;
pub mod rate;
pub mod sync;
pub mod sys;
pub mod topology;
pub mod version;
