//! From the reactors to the disk: chunks of whole records, the rings that they go through, the writer, and the keeper, which
//! looks after sealed segments.

pub mod chunk;
pub mod commit;
pub mod control;
pub mod keeper;
pub mod ring;
pub mod shard;
pub mod sleep;
pub mod writer;
