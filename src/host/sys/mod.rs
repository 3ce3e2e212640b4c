//! The only `unsafe` code of the project: system calls that no safe crate wraps, and registers of many bytes, each with the reason why
//! it is sound.
//!
//! All other modules forbid `unsafe`. `tests/tidy.rs` and the `unsafe_code` lint check that.
#![allow(unsafe_code)]

mod append;
mod arena;
mod clock_state;
mod directory;
mod heap;
mod inherited;
mod mount;
mod numa;
mod plain;
mod priority;
mod queue;
mod rename;
mod ring;
mod space;
mod steer;

pub use append::{MAX_SLICES, append_vectored, write_synced};
pub use arena::{Piece, pieces};
pub use clock_state::{ClockState, clock_state};
pub use directory::names;
pub use heap::keep_large_apart;
pub use inherited::inherited_sockets;
pub use mount::mount_id;
pub use numa::prefer_node;
pub use plain::plain_prefix;
pub use priority::lowest_priority;
pub use queue::{Queue, queue};
pub use rename::rename_new;
pub use ring::{Done, Op, Ring};
pub use space::{Space, space};
pub use steer::{MOST_STEERED, steer, steer_no_more};
