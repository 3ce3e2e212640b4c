//! From the reactors to the disk: chunks of whole records, the rings that they go through, and the writer; and
//! the keeper, which puts away what is sealed.

pub mod chunk;
pub mod control;
pub mod keeper;
pub mod ring;
pub mod shard;
pub mod sleep;
pub mod writer;
