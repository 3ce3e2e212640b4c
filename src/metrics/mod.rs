//! The counts behind the metrics. Each thread counts for itself; the counts are added up when they are shown.

pub mod accounting;
pub mod cells;
pub mod stats;
