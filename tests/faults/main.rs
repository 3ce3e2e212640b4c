//! Faults from outside: a whole server, real files, real sockets; and a ledger that says what had to survive
//! (`tests/common/ledger.rs`). `tests/faults/run` runs it at length and prints the table.

#[path = "../common/mod.rs"]
mod common;

mod block_fuse;
mod blocks;
mod calls;
mod clients;
mod cuts;
mod forgetful;
mod fuse;
mod kills;
mod load;
mod memory_disk;
mod oracle;
mod peers;
mod process;
mod relp;
mod room;
