//! The only `unsafe` of the project: system calls that no safe crate wraps, each with the reason it is sound.
//!
//! Everything else forbids `unsafe`; `tests/tidy.rs` and the `unsafe_code` lint keep it so.
#![allow(unsafe_code)]

mod append;
mod arena;
mod clock_state;
mod mount;
mod numa;
mod ring;

pub use append::{MAX_SLICES, append_vectored, write_synced};
pub use arena::{Piece, pieces};
pub use clock_state::{ClockState, clock_state};
pub use mount::mount_id;
pub use numa::prefer_node;
pub use ring::{Done, Op, Ring};
