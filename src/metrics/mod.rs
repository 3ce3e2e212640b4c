//! What is counted, and how it is shown.

pub mod accounting;
pub mod cells;
pub mod render;
pub mod stats;
