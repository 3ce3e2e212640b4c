//! Memory between socket and chunk, for what has begun and not ended, and for what must be seen whole before records can be
//! made of it.
//!
//! There are three stores. [`tail`] has partial lines and heads, in blocks of each reactor. [`room`] is leased memory for
//! decoders and [`document`]s, which all reactors share. And each reactor has a scratch buffer, for input that does not stay as
//! it is; it is empty between two receives, so it is part of no share. One rule says who may hold how much of the first two,
//! and who ends when there is not enough for all: [`room::Shares`] and [`room::Weight`].

pub mod document;
pub mod room;
pub mod tail;
