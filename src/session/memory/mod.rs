//! Memory between socket and chunk: what is begun and not ended, and what must be seen whole before records can be made of it.
//!
//! There are three stores. [`tail`]: partial lines and heads, blocks of each reactor. [`room`]: leased memory, shared by all
//! reactors, for decoders and [`document`]s. And the scratch buffer of each reactor, into which is received what does not stay
//! as it is; it is empty between two receives, so it is nobody's share. One rule says who may hold how much of the first two and
//! who ends when it does not do for all: [`room::Shares`] and [`room::Weight`].

pub mod document;
pub mod room;
pub mod tail;
