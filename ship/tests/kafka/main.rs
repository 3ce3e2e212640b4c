//! The shipper with real brokers: `tests/ship/kafka` starts them. Each line is there once, in order, for who reads what is committed.

mod beside;
mod brokers;
mod cluster;
mod crashes;
mod node;
mod once;
mod trouble;
