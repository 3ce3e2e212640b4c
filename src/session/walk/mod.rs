//! Reads what senders encode, without building anything: what is read borrows from the bytes, nothing is allocated, and no declared
//! length, depth or number is believed.

pub mod json;
pub mod protobuf;
