//! From the reactors to the disk: chunks of whole records, the rings that they go through, and the writer.

pub mod chunk;
pub mod control;
pub mod ring;
pub mod shard;
pub mod sleep;
pub mod writer;
