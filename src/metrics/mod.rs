//! What is counted: by each thread for itself, added up when it is shown.

pub mod accounting;
pub mod cells;
pub mod stats;
